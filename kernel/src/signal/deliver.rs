//! Delivery: what pending signals do to the current thread on its way to user mode.
//!
//! The only place where a signal acts: a handler's frame is pushed, the process stops or ends. All pending signals that are not
//! blocked are taken before the return, so that the first one taken is the outermost frame. No lock is held when a frame is
//! written, which may fault and sleep.

use super::action::{Action, DefaultAction, Disposition, default_action, sa};
use super::frame::{AltStack, FrameRequest, FrameStack};
use super::info::SigInfo;
use super::send::{self, recalculate};
use super::set::{SigSet, Signal};
use super::state::{ProcessSignals, ThreadSignals};
use crate::arch::{self, PtRegs};
use crate::errno::Errno;
use crate::sched::{self, State, current};
use crate::task::{ExitStatus, Thread, exit, group, rseq};
use crate::trace;

/// What is to be done next.
enum Next {
    Nothing,
    /// The process ends.
    Exit(ExitStatus),
    /// The thread ends: another one has called exec.
    ExitThread,
    /// Stop, for this signal if the process is not stopped already.
    Stop(Option<Signal>),
    /// A handler runs: the one that was put into the [`Handling`].
    Handle,
}

/// A handler that is to run, and what its frame needs of the thread's state.
struct Handling {
    info: SigInfo,
    action: Action,
    /// The blocked mask to come back to.
    mask: SigSet,
    altstack: AltStack,
}

/// A frame that was built: what changes for its handler.
struct Built {
    blocks: SigSet,
    disarm: bool,
}

/// Takes all signals that are due. Interrupts on, no lock held.
pub fn deliver(regs: &mut PtRegs) {
    let thread = current();
    let mut restart = Restart::of(regs);
    // Filled in place: it is large.
    let mut handling = Handling {
        info: SigInfo::kernel(Signal::SIGKILL),
        action: Action::DEFAULT,
        mask: SigSet::EMPTY,
        altstack: AltStack::DISABLED,
    };
    loop {
        match next_signal(&thread, &mut handling) {
            Next::Nothing => break,
            Next::Exit(status) => exit::exit_group(status),
            Next::ExitThread => exit::exit_thread(ExitStatus::Code(0)),
            Next::Stop(signal) => stop(signal),
            Next::Handle => {
                restart.before_handler(regs, &handling.action);
                rseq::abort_if_inside(regs);
                if let Some(built) = handle(regs, &handling)
                    && !enter_handler(&thread, &built)
                {
                    return;
                }
            }
        }
    }
    restart.without_handler(regs);
}

/// Takes the next signal, into `handling` if it has a handler. When there is none, a temporary mask ends.
#[inline]
fn next_signal(thread: &Thread, handling: &mut Handling) -> Next {
    let mut signals = thread.process.signals.lock_irq();
    let mut own = thread.signals.lock_inside(&signals);
    loop {
        if let Some(status) = signals.group_exit {
            return Next::Exit(status);
        }
        if signals.exec_by.is_some_and(|tid| tid != thread.tid()) {
            return Next::ExitThread;
        }
        if signals.stopped.is_some() {
            return Next::Stop(None);
        }
        if !dequeue(&mut signals, &mut own, &mut handling.info) {
            if let Some(mask) = own.saved.take() {
                own.blocked = mask;
            }
            recalculate(thread, &signals, &own);
            return Next::Nothing;
        }
        if let Some(next) = decide(&mut signals, &own, handling) {
            return next;
        }
    }
}

/// The thread is about to run a handler, with the mask that goes with it. Whether there is more to do.
#[inline]
fn enter_handler(thread: &Thread, built: &Built) -> bool {
    let signals = thread.process.signals.lock_irq();
    let mut own = thread.signals.lock_inside(&signals);
    own.saved = None;
    if built.disarm {
        own.altstack = AltStack::RESET;
    }
    let blocked = own.blocked.union(built.blocks);
    let newly = send::block(&mut own, blocked);
    let more = recalculate(thread, &signals, &own);
    drop(own);
    if !SigSet(newly.0 & signals.pending.set().0).is_empty() {
        send::retarget(&signals, thread, newly);
    }
    more
}

/// Takes the next signal out of its queue into `info`: one that the thread's own instruction caused, then the thread's, then the
/// process's. False if there is none.
#[inline]
pub(super) fn dequeue(
    signals: &mut ProcessSignals,
    own: &mut ThreadSignals,
    info: &mut SigInfo,
) -> bool {
    let blocked = own.blocked;
    // One that is there may not count any more: then the next.
    while let Some(signal) = own.pending.next_to_deliver(blocked) {
        if own.pending.take_into(signal, info) {
            return true;
        }
    }
    while let Some(signal) = signals.pending.next(blocked) {
        if signals.pending.take_into(signal, info) {
            return true;
        }
    }
    false
}

/// What the signal that was taken does; `None`: nothing.
fn decide(
    signals: &mut ProcessSignals,
    own: &ThreadSignals,
    handling: &mut Handling,
) -> Option<Next> {
    let signal = handling.info.signal;
    match signals.handler_into(signal, &mut handling.action) {
        Disposition::Ignore => None,
        Disposition::Handler => {
            handling.mask = own.saved.unwrap_or(own.blocked);
            handling.altstack = own.altstack;
            if handling.action.has(sa::RESETHAND) {
                signals.set_default(signal);
            }
            Some(Next::Handle)
        }
        Disposition::Default => match default_action(signal) {
            DefaultAction::Ignore => None,
            DefaultAction::Stop => Some(Next::Stop(Some(signal))),
            DefaultAction::Terminate | DefaultAction::Core => {
                Some(Next::Exit(ExitStatus::Signal(signal)))
            }
        },
    }
}

/// Stops until SIGCONT or SIGKILL.
fn stop(signal: Option<Signal>) {
    let thread = current();
    // Nobody would continue an orphaned group, so only SIGSTOP stops it.
    let by_terminal = signal.is_some_and(|signal| signal != Signal::SIGSTOP);
    if by_terminal && group::is_orphaned(thread.process.group(), None) {
        return;
    }
    let mut signals = thread.process.signals.lock();
    if signals.group_exit.is_some() {
        return;
    }
    match signal {
        Some(signal) if signals.begin_stop(signal) => send::notify_others(&signals),
        None if signals.stopped.is_none() => return,
        _ => {}
    }
    let complete = signals.take_part_in_stop(&mut thread.signals.lock());
    sched::set_state(State::Stopped);
    drop(signals);
    if let Some(signal) = complete {
        thread.process.note_stopped(signal);
    }
    sched::schedule();
    let continued = core::mem::take(&mut thread.process.signals.lock().continued);
    if continued {
        thread.process.note_continued();
    }
}

/// Pushes the frame of a handler; if that fails, forces a SIGSEGV, which is fatal if SIGSEGV's own frame failed.
fn handle(regs: &mut PtRegs, handling: &Handling) -> Option<Built> {
    let Handling {
        info,
        action,
        mask,
        altstack,
    } = handling;
    let on_altstack = altstack.holds(regs.sp());
    // Linux looks at where the frame would begin: within a red zone of the alternate stack's end that is not on it any more.
    let alternate =
        action.has(sa::ONSTACK) && altstack.size != 0 && !altstack.holds(regs.frame_top());
    let stack = match alternate {
        true => FrameStack::Alternate {
            base: altstack.base,
            top: altstack.base.wrapping_add(altstack.size),
        },
        false => FrameStack::Current {
            floor: on_altstack.then_some(altstack.base),
        },
    };
    let request = FrameRequest {
        info,
        action,
        mask: *mask,
        altstack,
        stack,
    };
    if !action.has(sa::RESTORER) || arch::setup_frame(regs, &request).is_err() {
        let segv = SigInfo::kernel(Signal::SIGSEGV);
        match info.signal {
            Signal::SIGSEGV => send::force_fatal(segv),
            _ => send::force(segv),
        }
        return None;
    }
    trace::SIGNALS.fetch_add(1, core::sync::atomic::Ordering::Relaxed);
    let itself = if action.has(sa::NODEFER) {
        SigSet::EMPTY
    } else {
        SigSet::of(&[info.signal])
    };
    Some(Built {
        blocks: action.mask.union(itself),
        disarm: altstack.flags & AltStack::SS_AUTODISARM != 0,
    })
}

/// The restart of an interrupted system call (`signal(7)`): decided by the first handler, or by there being none.
struct Restart(Option<Errno>);

impl Restart {
    fn of(regs: &PtRegs) -> Restart {
        if regs.syscall_nr().is_none() {
            return Restart(None);
        }
        let code = Errno::from_ret(regs.return_value()).filter(|&errno| {
            [
                Errno::ERESTARTSYS,
                Errno::ERESTARTNOINTR,
                Errno::ERESTARTNOHAND,
                Errno::ERESTART_RESTARTBLOCK,
            ]
            .contains(&errno)
        });
        Restart(code)
    }

    /// A handler runs: the call is made again after it, or fails with EINTR.
    fn before_handler(&mut self, regs: &mut PtRegs, action: &Action) {
        match self.0.take() {
            None => {}
            Some(Errno::ERESTARTNOINTR) => regs.restart_syscall(None),
            Some(Errno::ERESTARTSYS) if action.has(sa::RESTART) => regs.restart_syscall(None),
            Some(_) => regs.set_return_value(Errno::EINTR.to_ret()),
        }
    }

    /// No handler ran: the call is made again.
    fn without_handler(&mut self, regs: &mut PtRegs) {
        match self.0.take() {
            None => {}
            Some(Errno::ERESTART_RESTARTBLOCK) => {
                regs.restart_syscall(Some(linux_raw_sys::general::__NR_restart_syscall as usize));
            }
            Some(_) => regs.restart_syscall(None),
        }
    }
}
