//! Waiting for a handler on the simulated machine: what ends a wait, and what it leaves behind.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::*;
use crate::arch::sim::machine::{current_mm, run_test};
use crate::arch::sim::{UserFault, user_read, user_write};
use crate::arch::time;
use crate::mm::frame::free_frames;
use crate::mm::map::Place;
use crate::mm::{PAGE_SIZE, VmFlags, uaccess};
use crate::sched::current;
use crate::sched::wait::sleep_until;
use crate::signal::{
    Action, Detail, SigInfo, Signal, code, fatal_signal_pending, send, signal_pending,
};
use crate::sync::{SpinLock, rank};
use crate::task::Process;
use crate::task::interval::Setting;
use crate::task::kernel_thread;
use crate::task::thread::flag;

const RW: VmFlags = VmFlags::READ
    .union(VmFlags::WRITE)
    .union(VmFlags::MAYREAD)
    .union(VmFlags::MAYWRITE)
    .union(VmFlags::MAYEXEC);
const BASE: usize = 0x10_0000_0000;
const MS: u64 = 1_000_000;

struct Nobody;

impl Watcher for Nobody {
    fn message_left(&self) {}
}

/// The context that the handler's thread works for.
static SERVED: SpinLock<Option<Arc<Context>>> = SpinLock::new(rank::LEAF, None);
/// When the handler answers, ns since boot.
static ANSWER_AT: AtomicU64 = AtomicU64::new(0);
/// Faults that were told of until then.
static ASKED: AtomicU64 = AtomicU64::new(0);

/// Four pages at BASE, registered.
fn registered(mode: VmFlags, features: Features) -> Arc<Context> {
    let mm = current_mm();
    mm.map(Place::Fixed(BASE), 4 * PAGE_SIZE, RW, None)
        .expect("room");
    let context = Context::new(&mm, false, Arc::new(Nobody)).expect("memory");
    context.agree(features).expect("the first time");
    context
        .register(BASE, 4 * PAGE_SIZE, mode)
        .expect("plain memory");
    context
}

/// A handler that fills the first page with zeros, or lets writes to it through, after `delay_ns`.
fn answer_in(context: &Arc<Context>, delay_ns: u64) {
    *SERVED.lock() = Some(context.clone());
    ANSWER_AT.store(time::now_ns() + delay_ns, Ordering::Relaxed);
    ASKED.store(0, Ordering::Relaxed);
    kernel_thread("handler", || {
        let at = ANSWER_AT.load(Ordering::Relaxed);
        sleep_until(Sleep::Uninterruptible, at).expect("nothing interrupts");
        let context = SERVED.lock().take().expect("a context");
        while context.read().is_some() {
            ASKED.fetch_add(1, Ordering::Relaxed);
        }
        let _ = context.fill(BASE, PAGE_SIZE, Fill::Zeros);
        let _ = context.write_protect(BASE, PAGE_SIZE, false);
        context.wake(BASE, PAGE_SIZE);
    })
    .expect("memory");
}

fn catch(signal: Signal) {
    let action = Action {
        handler: 0x1000,
        ..Action::DEFAULT
    };
    current()
        .process
        .signals
        .lock()
        .replace_action(signal, action);
}

fn alarm_in(ns: u64) {
    current()
        .process
        .set_real_timer(Setting {
            value: ns,
            interval: 0,
        })
        .expect("memory");
}

fn take_all_signals() {
    let thread = current();
    let all = crate::signal::SigSet(!0);
    let mut signals = thread.process.signals.lock();
    signals.pending.flush(all);
    thread.signals.lock().pending.flush(all);
    thread.clear_flag(flag::SIGPENDING);
}

#[test]
fn a_fault_waits_for_its_handler_and_costs_no_memory_before() {
    run_test(|| {
        let context = registered(VmFlags::UFFD_MISSING, Features::empty());
        let free = free_frames();
        answer_in(&context, 20 * MS);
        let start = time::now_ns();
        assert_eq!(user_read(BASE + 5), Ok(0));
        assert!(time::now_ns() - start >= 20 * MS);
        assert_eq!(ASKED.load(Ordering::Relaxed), 1);
        assert_eq!(free_frames(), free, "the shared zero page was filled in");
        context.release();
        assert_eq!(user_read(BASE + PAGE_SIZE), Ok(0), "ordinary memory");
    });
}

#[test]
fn a_signal_ends_a_wait_of_user_code_and_its_message() {
    run_test(|| {
        let context = registered(VmFlags::UFFD_MISSING, Features::EXACT_ADDRESS);
        catch(Signal::SIGALRM);
        for _ in 0..3 {
            alarm_in(2 * MS);
            assert_eq!(user_read(BASE + 7), Err(UserFault::Interrupted));
            assert!(!context.has_message(), "nobody waits any more");
            take_all_signals();
        }
        answer_in(&context, 2 * MS);
        assert_eq!(user_read(BASE + 7), Ok(0));
    });
}

#[test]
fn a_signal_every_millisecond_starves_no_wait_for_a_handler() {
    run_test(|| {
        let context = registered(VmFlags::UFFD_MISSING, Features::empty());
        catch(Signal::SIGALRM);
        answer_in(&context, 50 * MS);
        let mut interruptions = 0;
        loop {
            alarm_in(MS);
            match user_read(BASE) {
                Err(UserFault::Interrupted) => interruptions += 1,
                outcome => break assert_eq!(outcome, Ok(0)),
            }
            take_all_signals();
        }
        alarm_in(0);
        take_all_signals();
        assert!(interruptions >= 40, "{interruptions}");
    });
}

#[test]
fn a_wait_of_the_kernel_sleeps_through_a_caught_signal() {
    run_test(|| {
        let context = registered(VmFlags::UFFD_MISSING, Features::empty());
        catch(Signal::SIGALRM);
        alarm_in(2 * MS);
        answer_in(&context, 20 * MS);
        let retries = crate::trace::RETRIES.load(Ordering::Relaxed);
        let mut byte = [9];
        assert_eq!(uaccess::read_bytes(BASE, &mut byte), Ok(()));
        assert_eq!(byte, [0]);
        assert!(signal_pending(&current()), "it waits for the way out");
        let retries = crate::trace::RETRIES.load(Ordering::Relaxed) - retries;
        assert_eq!(retries, 1, "it slept, and did not spin");
        assert_eq!(ASKED.load(Ordering::Relaxed), 1);
        take_all_signals();
    });
}

#[test]
fn a_fatal_signal_ends_a_wait_of_the_kernel() {
    run_test(|| {
        let _context = registered(VmFlags::UFFD_MISSING, Features::empty());
        alarm_in(2 * MS);
        assert_eq!(uaccess::write_bytes(BASE, &[1]), Err(Errno::EFAULT));
        assert!(fatal_signal_pending(&current()));
    });
}

#[test]
fn who_cannot_be_asked_for_gets_sigbus_at_once() {
    run_test(|| {
        let context = registered(VmFlags::UFFD_MISSING, Features::SIGBUS);
        let bus = UserFault::Signal(Signal::SIGBUS, code::BUS_ADRERR);
        assert_eq!(user_write(BASE, 1), Err(bus));
        assert_eq!(uaccess::write_bytes(BASE, &[1]), Err(Errno::EFAULT));
        assert!(!context.has_message());
        take_all_signals();
        current_mm().unmap(BASE, 4 * PAGE_SIZE).expect("mapped");
        let context = registered(VmFlags::UFFD_MISSING, Features::empty());
        current().set_flag(flag::EXITING);
        assert_eq!(uaccess::write_bytes(BASE, &[1]), Err(Errno::EFAULT));
        assert!(
            !context.has_message(),
            "a thread that ends waits for nobody"
        );
        current().clear_flag(flag::EXITING);
    });
}

#[test]
fn a_protected_page_is_written_when_the_handler_lets_it() {
    run_test(|| {
        let context = registered(VmFlags::UFFD_WP, Features::WP_UNPOPULATED);
        user_write(BASE, 1).expect("not protected yet");
        context
            .write_protect(BASE, 4 * PAGE_SIZE, true)
            .expect("registered");
        assert_eq!(user_read(BASE), Ok(1));
        answer_in(&context, 5 * MS);
        let start = time::now_ns();
        assert_eq!(user_write(BASE, 2), Ok(()));
        assert!(time::now_ns() - start >= 5 * MS);
        catch(Signal::SIGALRM);
        alarm_in(MS);
        let untouched = user_write(BASE + PAGE_SIZE, 3);
        assert_eq!(
            untouched,
            Err(UserFault::Interrupted),
            "marked before it came"
        );
        take_all_signals();
        let child = current_mm().fork().expect("memory");
        drop(child);
        alarm_in(MS);
        assert_eq!(user_write(BASE + PAGE_SIZE, 3), Err(UserFault::Interrupted));
        take_all_signals();
        context.unregister(BASE, 4 * PAGE_SIZE).expect("registered");
        assert_eq!(user_write(BASE + PAGE_SIZE, 3), Ok(()));
    });
}

/// The address space that another thread changes, and whom that thread wakes then.
static CHANGED: SpinLock<Option<(Arc<Mm>, Arc<Context>)>> = SpinLock::new(rank::LEAF, None);

/// Another thread changes the memory that a fault waits for, after 3 ms, and wakes whoever waits.
fn change_in_3_ms(context: &Arc<Context>, change: fn()) {
    *CHANGED.lock() = Some((current_mm(), context.clone()));
    kernel_thread("changer", change).expect("memory");
}

fn after_3_ms(change: fn(&Mm)) {
    let until = time::now_ns() + 3 * MS;
    sleep_until(Sleep::Uninterruptible, until).expect("nothing interrupts");
    let (mm, context) = CHANGED.lock().take().expect("an address space");
    change(&mm);
    context.wake(BASE, 4 * PAGE_SIZE);
}

fn segv(code: i32) -> UserFault {
    UserFault::Signal(Signal::SIGSEGV, code)
}

/// Row 21 of the past bugs of fault paths: after a wait everything is looked up again, whoever has changed the memory meanwhile.
#[test]
fn a_wait_ends_in_the_memory_that_is_mapped_then() {
    run_test(|| {
        let context = registered(VmFlags::UFFD_MISSING, Features::empty());
        change_in_3_ms(&context, || {
            after_3_ms(|mm| mm.unmap(BASE, PAGE_SIZE).expect("mapped"));
        });
        assert_eq!(user_read(BASE), Err(segv(code::SEGV_MAPERR)));
        take_all_signals();

        const SECOND: usize = BASE + PAGE_SIZE;
        change_in_3_ms(&context, || {
            after_3_ms(|mm| {
                mm.protect(SECOND, PAGE_SIZE, VmFlags::empty(), false)
                    .expect("mapped");
            });
        });
        assert_eq!(user_read(SECOND), Err(segv(code::SEGV_ACCERR)));
        take_all_signals();

        const THIRD: usize = SECOND + PAGE_SIZE;
        change_in_3_ms(&context, || {
            after_3_ms(|mm| {
                mm.map(Place::Fixed(THIRD), PAGE_SIZE, RW, None)
                    .expect("room");
            });
        });
        assert_eq!(user_write(THIRD, 7), Ok(()));
        assert_eq!(user_read(THIRD), Ok(7));
    });
}

#[test]
fn a_fork_during_a_wait_leaves_the_wait_alone() {
    run_test(|| {
        let context = registered(VmFlags::UFFD_MISSING, Features::empty());
        change_in_3_ms(&context, || {
            after_3_ms(|mm| drop(mm.fork().expect("memory")));
        });
        answer_in(&context, 20 * MS);
        let start = time::now_ns();
        assert_eq!(user_read(BASE), Ok(0));
        assert!(time::now_ns() - start >= 20 * MS);
    });
}

/// The process that is told to stop.
static STOPPED: SpinLock<Option<Arc<Process>>> = SpinLock::new(rank::LEAF, None);

/// Another thread sends SIGTSTP to this process after 3 ms.
fn stop_in_3_ms() {
    *STOPPED.lock() = Some(current().process.clone());
    kernel_thread("stopper", || {
        let until = time::now_ns() + 3 * MS;
        sleep_until(Sleep::Uninterruptible, until).expect("nothing interrupts");
        let info = SigInfo {
            signal: Signal::SIGTSTP,
            code: code::SI_USER,
            detail: Detail::Sender { pid: 0, uid: 0 },
        };
        send::send_to_process(&STOPPED.lock().take().expect("a process"), info);
    })
    .expect("memory");
}

/// The fault has ended before the thread stops, on its way out; when the thread goes on, the access is made again.
#[test]
fn a_stop_signal_ends_a_wait_of_user_code_and_none_of_the_kernel() {
    run_test(|| {
        let context = registered(VmFlags::UFFD_MISSING, Features::empty());
        stop_in_3_ms();
        assert_eq!(user_read(BASE), Err(UserFault::Interrupted));
        assert!(signal_pending(&current()) && !fatal_signal_pending(&current()));
        take_all_signals();
        stop_in_3_ms();
        answer_in(&context, 20 * MS);
        let start = time::now_ns();
        assert_eq!(uaccess::write_bytes(BASE, &[1]), Ok(()));
        assert!(time::now_ns() - start >= 20 * MS);
        assert!(signal_pending(&current()), "it stops on its way out");
        take_all_signals();
    });
}

#[test]
fn a_signal_at_every_step_of_a_wait_for_a_handler_is_neither_lost_nor_a_livelock() {
    use crate::arch::sim::irq;
    use crate::sched::interleaving::{
        at_every_step, become_subject, came, send_usr1, signal_came_once,
    };
    /// A fault at BASE whose handler answers in a millisecond; `access` makes it, and again until it succeeds.
    fn scenario(access: fn() -> bool) {
        irq::hold(true);
        let context = registered(VmFlags::UFFD_MISSING, Features::empty());
        answer_in(&context, MS);
        irq::hold(false);
        let interrupted = !access();
        irq::disarm();
        let sent = came(0).is_some();
        assert!(sent || !interrupted, "only a signal ends the wait");
        signal_came_once(sent);
        assert!(!context.has_message(), "nobody waits any more");
        assert!(access(), "as after the handler");
        // The handler's thread may not have begun, if the signal came first.
        let until = time::now_ns() + 2 * MS;
        sleep_until(Sleep::Uninterruptible, until).expect("nothing interrupts");
        context.release();
        current_mm()
            .unmap(BASE, 4 * PAGE_SIZE)
            .expect("it is mapped");
    }
    run_test(|| {
        become_subject();
        at_every_step("user-mode wait for a handler, signal", &[send_usr1], || {
            scenario(|| match user_read(BASE) {
                Ok(byte) => byte == 0,
                Err(fault) => {
                    assert_eq!(fault, UserFault::Interrupted);
                    false
                }
            });
        });
        at_every_step(
            "kernel-mode wait for a handler, signal",
            &[send_usr1],
            || {
                scenario(|| {
                    let turns = crate::trace::RETRIES.load(Ordering::Relaxed);
                    let mut byte = [1];
                    assert_eq!(uaccess::read_bytes(BASE, &mut byte), Ok(()));
                    let turns = crate::trace::RETRIES.load(Ordering::Relaxed) - turns;
                    assert!(turns <= 2, "it slept, and did not spin: {turns} turns");
                    byte == [0]
                });
            },
        );
    });
}
