//! Delivery: what pending signals do to the current thread on its way to user mode.
//!
//! The only place where a signal acts: a handler's frame is pushed, the process stops or ends. All pending signals that are not
//! blocked are taken before the return, so that the first one taken is the outermost frame. No lock is held when a frame is
//! written, which may fault and sleep.

use super::action::{Action, DefaultAction, Disposition, default_action, sa};
use super::frame::{FrameRequest, FrameStack};
use super::info::{SigInfo, code};
use super::send::{self, recalculate};
use super::set::{SigSet, Signal};
use super::state::{ProcessSignals, ThreadSignals};
use crate::arch::{self, PtRegs};
use crate::errno::Errno;
use crate::sched::{self, State, current};
use crate::task::{ExitStatus, exit, group};
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
    Handle(SigInfo, Action),
}

/// Takes all signals that are due. Interrupts on, no lock held.
pub fn deliver(regs: &mut PtRegs) {
    let mut restart = Restart::of(regs);
    loop {
        match next_signal() {
            Next::Nothing => break,
            Next::Exit(status) => exit::exit_group(status),
            Next::ExitThread => exit::exit_thread(ExitStatus::Code(0)),
            Next::Stop(signal) => stop(signal),
            Next::Handle(info, action) => {
                restart.before_handler(regs, &action);
                handle(regs, &info, &action);
            }
        }
    }
    restart.without_handler(regs);
    send::restore_mask();
}

fn next_signal() -> Next {
    let thread = current();
    let mut signals = thread.process.signals.lock();
    let mut own = thread.signals.lock();
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
        let Some(info) = dequeue(&mut signals, &mut own) else {
            recalculate(&thread, &signals, &own);
            return Next::Nothing;
        };
        if let Some(next) = decide(&mut signals, info) {
            return next;
        }
    }
}

/// Takes the next signal out of its queue: one that the thread's own instruction caused, then the thread's, then the process's.
fn dequeue(signals: &mut ProcessSignals, own: &mut ThreadSignals) -> Option<SigInfo> {
    let blocked = own.blocked;
    if let Some(signal) = own
        .pending
        .next_synchronous(blocked)
        .or_else(|| own.pending.next(blocked))
    {
        return own.pending.take(signal);
    }
    let signal = signals.pending.next(blocked)?;
    signals.pending.take(signal)
}

/// What a signal that was taken does; `None`: nothing.
fn decide(signals: &mut ProcessSignals, info: SigInfo) -> Option<Next> {
    let signal = info.signal;
    if signal == Signal::SIGKILL {
        return Some(Next::Exit(ExitStatus::Signal(signal)));
    }
    let action = signals.action(signal);
    match action.disposition() {
        Disposition::Ignore => None,
        Disposition::Handler => {
            if action.has(sa::RESETHAND) {
                signals.set_action(
                    signal,
                    Action {
                        handler: 0,
                        ..action
                    },
                );
            }
            Some(Next::Handle(info, action))
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
fn handle(regs: &mut PtRegs, info: &SigInfo, action: &Action) {
    let thread = current();
    let (mask, altstack) = {
        let mut own = thread.signals.lock();
        (own.saved.take().unwrap_or(own.blocked), own.altstack)
    };
    let on_altstack = altstack.holds(regs.sp());
    let alternate = action.has(sa::ONSTACK) && altstack.size != 0 && !on_altstack;
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
        handler: action.handler,
        restorer: action.restorer,
        siginfo: action.has(sa::SIGINFO),
        mask,
        altstack,
        stack,
    };
    if !action.has(sa::RESTORER) || arch::setup_frame(regs, &request).is_err() {
        let segv = SigInfo {
            code: code::SI_KERNEL,
            ..SigInfo::kernel(Signal::SIGSEGV)
        };
        return match info.signal {
            Signal::SIGSEGV => send::force_fatal(segv),
            _ => send::force(segv),
        };
    }
    trace::SIGNALS.fetch_add(1, core::sync::atomic::Ordering::Relaxed);
    if alternate && altstack.flags & super::AltStack::SS_AUTODISARM != 0 {
        thread.signals.lock().altstack = super::AltStack::DISABLED;
    }
    let itself = if action.has(sa::NODEFER) {
        SigSet::EMPTY
    } else {
        SigSet::of(&[info.signal])
    };
    send::set_blocked(|blocked| blocked.union(action.mask).union(itself));
}

/// The restart of an interrupted system call (`signal(7)`): decided by the first handler, or by there being none.
struct Restart(Option<Errno>);

impl Restart {
    fn of(regs: &PtRegs) -> Restart {
        let in_call = regs.syscall_nr().is_some();
        let code = Errno::from_ret(regs.return_value()).filter(|&errno| {
            [
                Errno::ERESTARTSYS,
                Errno::ERESTARTNOINTR,
                Errno::ERESTARTNOHAND,
                Errno::ERESTART_RESTARTBLOCK,
            ]
            .contains(&errno)
        });
        Restart(code.filter(|_| in_call))
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
