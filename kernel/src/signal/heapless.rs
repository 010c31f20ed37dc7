//! Sending and delivering signals, switching threads and waking them ask the heap for nothing: they have to work when there is no
//! memory. The one thing that is allocated is the entry of a real-time signal that somebody queues, by the sender, before any lock.

use core::sync::atomic::{AtomicUsize, Ordering};

use super::deliver::deliver;
use super::{Action, SigInfo, SigSet, Signal, code, send};
use crate::arch::{self, PtRegs, time};
use crate::mm::heap::allocations_of;
use crate::mm::map::Place;
use crate::mm::{PAGE_SIZE, VmFlags};
use crate::sched::keyed::{self, Key};
use crate::sched::wait::sleep_until;
use crate::sched::{Sleep, WaitQueue, current};
use crate::signal::action::sa;
use crate::task;
use crate::testing::in_user_process;

const STACK: usize = 0x10_0000_0000;
const STACK_SIZE: usize = 16 * PAGE_SIZE;
const CODE: usize = 0x40_0000;
const HANDLER: usize = 0x40_1000;
const ROUNDS: usize = 200;

/// A process with a stack and a handler for every signal that is sent here; its registers in user code.
fn with_handlers() -> PtRegs {
    let process = &current().process;
    let mm = process.current_mm().expect("a user process");
    mm.activate();
    let rw = VmFlags::READ | VmFlags::WRITE;
    assert_eq!(mm.map(Place::Fixed(STACK), STACK_SIZE, rw, None), Ok(STACK));
    let action = Action {
        handler: HANDLER,
        flags: sa::SIGINFO | sa::RESTORER,
        restorer: CODE,
        mask: SigSet::EMPTY,
    };
    for signal in [Signal::SIGUSR1, Signal::SIGSEGV, realtime()] {
        process.signals.lock().replace_action(signal, action);
    }
    PtRegs::new_user(CODE, STACK + STACK_SIZE - 64)
}

fn realtime() -> Signal {
    Signal::new(40).expect("a real-time signal")
}

/// All that is pending gets its frame, and the last handler returns by sigreturn(2).
fn delivered(interrupted: &PtRegs) {
    let mut regs = *interrupted;
    deliver(&mut regs);
    assert_eq!(regs.ip(), HANDLER);
    // The handler's `ret` takes the address of the restorer.
    regs.set_sp(regs.sp() + size_of::<usize>());
    let restored = arch::restore_frame(&mut regs).expect("the kernel's own frame");
    assert_eq!(regs.ip(), CODE);
    send::set_blocked(|_| restored.mask);
}

fn standard_signals() {
    let regs = with_handlers();
    let info = SigInfo::kernel(Signal::SIGUSR1);
    let round = || {
        send::send_to_thread(&current().arc(), info);
        delivered(&regs);
        send::send_to_process(&current().process, info);
        delivered(&regs);
        send::force(SigInfo::fault(Signal::SIGSEGV, code::SEGV_MAPERR, 0));
        delivered(&regs);
    };
    // Once for the pages of the stack.
    round();
    assert_eq!(allocations_of(|| (0..ROUNDS).for_each(|_| round())), 0);
}

#[test_case]
fn a_standard_signal_is_sent_and_delivered_without_the_heap() {
    in_user_process(standard_signals);
}

fn queued_signals() {
    let regs = with_handlers();
    let info = SigInfo {
        signal: realtime(),
        code: code::SI_QUEUE,
        ..SigInfo::kernel(realtime())
    };
    let send = || send::send_to_thread(&current().arc(), info);
    // One stays queued, and with it the count of what the user has.
    send();
    send();
    delivered(&regs);
    for _ in 0..ROUNDS {
        assert_eq!(allocations_of(send), 1, "its entry, and nothing else");
        assert_eq!(allocations_of(|| delivered(&regs)), 0);
    }
}

#[test_case]
fn a_queued_signal_brings_its_entry_and_is_delivered_without_the_heap() {
    in_user_process(queued_signals);
}

/// Whose turn it is: even numbers are the test's, odd ones its partner's.
static TURN: AtomicUsize = AtomicUsize::new(0);
static QUEUE: WaitQueue = WaitQueue::new();
const KEY: Key = Key {
    object: 0x6865_6170,
    place: 1,
};

fn is_turn(turn: usize) -> bool {
    TURN.load(Ordering::SeqCst) == turn
}

fn give_turn(turn: usize) {
    TURN.store(turn, Ordering::SeqCst);
    QUEUE.wake_all();
    keyed::wake(KEY, usize::MAX, 1);
}

/// Waits by a queue for every other turn, by a key as futexes do for the rest.
fn wait_for_turn(turn: usize) {
    if (turn / 2).is_multiple_of(2) {
        let here = || is_turn(turn).then_some(());
        let waited = QUEUE.wait_until(Sleep::Uninterruptible, here);
        assert!(waited.is_ok());
        return;
    }
    while !is_turn(turn) {
        // Kernel threads get no signals; a turn that has come meanwhile is an error, and the loop's end.
        let _ = keyed::wait(
            KEY,
            1,
            None,
            || if is_turn(turn) { Err(()) } else { Ok(()) },
        );
    }
}

fn partner() {
    for round in 0..=ROUNDS {
        wait_for_turn(2 * round + 1);
        give_turn(2 * round + 2);
    }
}

fn take_turns(rounds: core::ops::RangeInclusive<usize>) {
    for round in rounds {
        give_turn(2 * round + 1);
        wait_for_turn(2 * round + 2);
    }
}

/// Both threads wait in turn, so each round is two wake-ups and two switches.
#[test_case]
fn threads_wait_wake_and_switch_without_the_heap() {
    TURN.store(0, Ordering::SeqCst);
    task::kernel_thread("the partner", partner).expect("memory for a thread");
    take_turns(0..=0);
    assert_eq!(allocations_of(|| take_turns(1..=ROUNDS - 1)), 0);
    take_turns(ROUNDS..=ROUNDS);
}

#[test_case]
fn a_thread_sleeps_by_the_clock_without_the_heap() {
    let sleep = || {
        let soon = time::now_ns() + 200_000;
        assert!(sleep_until(Sleep::Uninterruptible, soon).is_ok());
    };
    sleep();
    assert_eq!(allocations_of(|| (0..20).for_each(|_| sleep())), 0);
}
