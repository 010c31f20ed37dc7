//! System calls on signals (`rt_sigaction(2)` and the rest of section 2 about them).

use alloc::sync::Arc;

use linux_raw_sys::general as abi;

use crate::arch::{self, PtRegs, RestoredFrame};
use crate::errno::{Errno, Result};
use crate::mm::uaccess::UserPtr;
use crate::sched::{Sleep, WaitQueue, current};
use crate::signal::action::sa;
use crate::signal::info::{Layout, SIGINFO_SIZE};
use crate::signal::state::ProcessSignals;
use crate::signal::{
    Action, AltStack, Detail, Disposition, SigInfo, SigSet, Signal, code, send, take,
};
use crate::task::{Process, Thread, table};

type Args = [usize; 6];

/// The only size of a signal set there is, bytes.
const SET_SIZE: usize = 8;

/// The smallest alternate stack (`MINSIGSTKSZ`).
const MIN_ALTSTACK: usize = 2048;

fn check_set_size(size: usize) -> Result {
    if size == SET_SIZE {
        Ok(())
    } else {
        Err(Errno::EINVAL)
    }
}

/// rt_sigaction(2).
pub fn sys_rt_sigaction(&[signal, new, old, set_size, ..]: &Args) -> Result<usize> {
    check_set_size(set_size)?;
    let signal = Signal::new(signal).ok_or(Errno::EINVAL)?;
    let Some(new) = UserPtr::<[u64; 4]>::optional(new) else {
        let action = current().process.signals.lock_irq().action(signal);
        return show_action(action, old);
    };
    let new = parse_action(new.read()?);
    if SigSet::UNBLOCKABLE.contains(signal) {
        return Err(Errno::EINVAL);
    }
    let before = replace_action(signal, new);
    show_action(before, old)
}

#[inline(always)]
fn show_action(action: Action, to: usize) -> Result<usize> {
    if let Some(pointer) = UserPtr::<[u64; 4]>::optional(to) {
        pointer.write([
            action.handler as u64,
            action.flags,
            action.restorer as u64,
            action.mask.0,
        ])?;
    }
    Ok(0)
}

/// The kernel's struct sigaction: handler, flags, restorer, mask.
fn parse_action([handler, flags, restorer, mask]: [u64; 4]) -> Action {
    Action {
        handler: handler as usize,
        flags: flags & sa::KNOWN,
        restorer: restorer as usize,
        mask: SigSet(mask).blockable(),
    }
}

/// Sets an action; the old one comes back.
#[inline(always)]
fn replace_action(signal: Signal, new: Action) -> Action {
    let process = &current().process;
    let mut signals = process.signals.lock_irq();
    let before = signals.replace_action(signal, new);
    // Nothing else changes between one handler and another.
    let is_handler = |action: &Action| action.disposition() == Disposition::Handler;
    let wanted = !(is_handler(&before) && is_handler(&new))
        && ignoring_may_change(&mut signals, signal, &before, &new);
    drop(signals);
    if wanted {
        process.posix_timers.signal_is_wanted(signal);
    }
    before
}

/// What else changes when a signal was or is now ignored: one that is ignored is not pending any more. Whether it was, and is wanted now.
#[cold]
#[inline(never)]
fn ignoring_may_change(
    signals: &mut ProcessSignals,
    signal: Signal,
    before: &Action,
    new: &Action,
) -> bool {
    if new.ignores(signal) {
        send::flush_everywhere(signals, SigSet::of(&[signal]));
        return false;
    }
    before.ignores(signal)
}

/// rt_sigprocmask(2).
pub fn sys_rt_sigprocmask(&[how, set, old, set_size, ..]: &Args) -> Result<usize> {
    check_set_size(set_size)?;
    let before = match UserPtr::<u64>::optional(set) {
        Some(pointer) => {
            let set = SigSet(pointer.read()?);
            // The new mask is what is kept of the old one, and what is added.
            let (keep, add) = match how as u32 {
                abi::SIG_BLOCK => (SigSet(!0), set),
                abi::SIG_UNBLOCK => (SigSet(!set.0), SigSet::EMPTY),
                abi::SIG_SETMASK => (SigSet::EMPTY, set),
                _ => return Err(Errno::EINVAL),
            };
            send::set_blocked(|blocked| SigSet(blocked.0 & keep.0 | add.0))
        }
        None => current().signals.lock().blocked,
    };
    if let Some(pointer) = UserPtr::<u64>::optional(old) {
        pointer.write(before.0)?;
    }
    Ok(0)
}

/// rt_sigpending(2).
pub fn sys_rt_sigpending(&[set, set_size, ..]: &Args) -> Result<usize> {
    if set_size > SET_SIZE {
        return Err(Errno::EINVAL);
    }
    let pending = {
        let thread = current();
        let signals = thread.process.signals.lock();
        let own = thread.signals.lock();
        SigSet((own.pending.set().0 | signals.pending.set().0) & own.blocked.0)
    };
    crate::mm::uaccess::write_bytes(set, &pending.0.to_ne_bytes()[..set_size])?;
    Ok(0)
}

/// Sleeps until a signal comes; the only answer is the interruption.
fn wait_for_signal() -> Result<usize> {
    let nobody_wakes = WaitQueue::new();
    let _ = nobody_wakes.wait_until(Sleep::Interruptible, || None::<()>);
    Err(Errno::ERESTARTNOHAND)
}

/// pause(2).
pub fn sys_pause(_: &Args) -> Result<usize> {
    wait_for_signal()
}

/// rt_sigsuspend(2).
pub fn sys_rt_sigsuspend(&[set, set_size, ..]: &Args) -> Result<usize> {
    check_set_size(set_size)?;
    let set = UserPtr::<u64>::new(set).read()?;
    send::set_temporary_mask(SigSet(set));
    wait_for_signal()
}

/// rt_sigtimedwait(2).
pub fn sys_rt_sigtimedwait(&[set, info, timeout, set_size, ..]: &Args) -> Result<usize> {
    check_set_size(set_size)?;
    let set = SigSet(UserPtr::<u64>::new(set).read()?).blockable();
    let deadline = super::time::read_timeout(timeout)?;
    let taken = wait_for_one_of(set, deadline)?;
    if info != 0 {
        crate::mm::uaccess::write_bytes(info, &taken.abi_bytes())?;
    }
    Ok(taken.signal.number() as usize)
}

fn wait_for_one_of(set: SigSet, deadline: Option<u64>) -> Result<SigInfo> {
    if let Some(info) = take::one_of(set) {
        return Ok(info);
    }
    // While it waits, the thread has the signals unblocked, so that senders wake it; they are taken before any handler could run.
    let before = {
        let thread = current();
        let mut own = thread.signals.lock();
        own.waited_for = own.blocked;
        own.blocked
    };
    send::set_blocked(|blocked| blocked.minus(set));
    let nobody_wakes = WaitQueue::new();
    let waited = nobody_wakes.wait_until_deadline(Sleep::Interruptible, deadline, || None::<()>);
    let taken = take::one_of(set);
    current().signals.lock().waited_for = SigSet::EMPTY;
    send::set_blocked(|_| before);
    match (taken, waited) {
        (Some(info), _) => Ok(info),
        (None, Err(crate::sched::wait::NotYet::TimedOut)) => Err(Errno::EAGAIN),
        (None, _) => Err(Errno::EINTR),
    }
}

/// rt_sigreturn(2): the frame that the handler leaves is read back. A bad one is a SIGSEGV.
pub fn sys_rt_sigreturn(regs: &mut PtRegs) -> Result<usize> {
    // Whether the alternate stack can be changed is decided where the handler is, not where it goes back to.
    let sp = regs.sp();
    match arch::restore_frame(regs) {
        Ok(RestoredFrame { mask, altstack }) => {
            send::set_blocked_with(|own| {
                // As on Linux nobody is told of a stack that cannot be.
                let _ = change_altstack(&mut own.altstack, altstack, sp);
                mask
            });
        }
        Err(_) => send::force(SigInfo::kernel(Signal::SIGSEGV)),
    }
    regs.forget_syscall();
    Ok(regs.return_value())
}

/// sigaltstack(2).
pub fn sys_sigaltstack(regs: &mut PtRegs) -> Result<usize> {
    let [new, old, ..] = regs.syscall_args();
    let sp = regs.sp();
    let new = match UserPtr::<[u64; 3]>::optional(new) {
        Some(pointer) => Some(pointer.read()?),
        None => None,
    };
    let before = current().signals.lock().altstack;
    if let Some([base, flags, size]) = new {
        let wanted = AltStack {
            base: base as usize,
            size: size as usize,
            flags: flags as u32,
        };
        change_altstack(&mut current().signals.lock().altstack, wanted, sp)?;
    }
    if let Some(pointer) = UserPtr::<[u64; 3]>::optional(old) {
        pointer.write([
            before.base as u64,
            before.shown_flags(sp) as u64,
            before.size as u64,
        ])?;
    }
    Ok(0)
}

/// `do_sigaltstack` in Linux's `kernel/signal.c`: `EPERM` while on the stack, `EINVAL` for unknown flags, `ENOMEM` for too small a stack.
fn change_altstack(stack: &mut AltStack, wanted: AltStack, sp: usize) -> Result {
    if stack.holds(sp) {
        return Err(Errno::EPERM);
    }
    if *stack == wanted {
        return Ok(());
    }
    *stack = match wanted.flags & !AltStack::SS_AUTODISARM {
        AltStack::SS_DISABLE => AltStack {
            base: 0,
            size: 0,
            ..wanted
        },
        0 | AltStack::SS_ONSTACK if wanted.size < MIN_ALTSTACK => return Err(Errno::ENOMEM),
        0 | AltStack::SS_ONSTACK => wanted,
        _ => return Err(Errno::EINVAL),
    };
    Ok(())
}

/// siginfo of kill(2) and its kin, from the current process.
pub(super) fn sent_by_user(signal: Signal, code: i32) -> SigInfo {
    let process = &current().process;
    SigInfo {
        signal,
        code,
        detail: Detail::Sender {
            pid: process.pid,
            uid: process.credentials.user().real,
        },
    }
}

/// What a call of the kill family is to send: a number that is looked at only when there is somebody to get it.
#[derive(Clone, Copy)]
pub(super) struct Number(pub(super) i32);

impl Number {
    /// `None` for 0, which only asks whether the signal could be sent. `EINVAL`.
    pub(super) fn signal(self) -> Result<Option<Signal>> {
        if self.0 == 0 {
            return Ok(None);
        }
        let number = usize::try_from(self.0).map_err(|_| Errno::EINVAL)?;
        Signal::new(number).map(Some).ok_or(Errno::EINVAL)
    }
}

/// kill(2).
pub fn sys_kill(&[pid, number, ..]: &Args) -> Result<usize> {
    let (pid, number) = (pid as i32, Number(number as i32));
    let own = &current().process;
    if pid as u32 == own.pid {
        // Its own signals everybody may send.
        if let Some(signal) = number.signal()? {
            send::send_preferring(own, None, sent_by_user(signal, code::SI_USER))?;
        }
        return Ok(0);
    }
    kill_others(pid, number)
}

#[inline(never)]
fn kill_others(pid: i32, number: Number) -> Result<usize> {
    let to_each = |process: &Process| send_one(process, None, number);
    match pid {
        1.. => {
            let (process, thread) = table::find_either(pid as u32).ok_or(Errno::ESRCH)?;
            send_one(&process, thread.as_deref(), number)?;
            Ok(0)
        }
        0 => send_to_group(current().process.group(), to_each),
        -1 => send_to_all(number),
        i32::MIN => Err(Errno::ESRCH),
        group => send_to_group(group.unsigned_abs(), to_each),
    }
}

/// Sends, or asks whether it could; `EINVAL`, `EPERM`.
fn send_one(process: &Process, thread: Option<&Thread>, number: Number) -> Result {
    let signal = number.signal()?;
    check_permission(process, signal)?;
    match signal {
        Some(signal) => send::send_preferring(process, thread, sent_by_user(signal, code::SI_USER)),
        None => Ok(()),
    }
}

/// Whether the current process may send `signal` to `target`: by its user, or SIGCONT within a session (`kill(2)`).
pub(super) fn check_permission(target: &Process, signal: Option<Signal>) -> Result {
    let own = &current().process;
    if core::ptr::eq(&**own, target) {
        return Ok(());
    }
    let session = |process: &Process| process.session.load(core::sync::atomic::Ordering::Relaxed);
    let same_session = signal == Some(Signal::SIGCONT) && session(own) == session(target);
    let (sender, receiver) = (own.credentials.user(), target.credentials.user());
    if same_session || sender.may_signal(&receiver) {
        Ok(())
    } else {
        Err(Errno::EPERM)
    }
}

/// To each process of a group by `send`: one that may be reached is enough.
pub(super) fn send_to_group(group: u32, send: impl Fn(&Process) -> Result) -> Result<usize> {
    let mut outcome = Err(Errno::ESRCH);
    for process in table::members(group) {
        let sent = send(&process);
        if outcome.is_err() {
            outcome = sent;
        }
    }
    outcome.map(|()| 0)
}

/// To everybody but init and the caller. As on Linux, processes that may not be reached are no error, even if there are no others.
fn send_to_all(number: Number) -> Result<usize> {
    let own = current().process.pid;
    let mut outcome = Err(Errno::ESRCH);
    // Those too that appear meanwhile with higher numbers.
    let mut pid = table::INIT_PID;
    while let Some(process) = table::next_above(pid) {
        pid = process.pid;
        if pid == own {
            continue;
        }
        match send_one(&process, None, number) {
            Err(Errno::EPERM) if outcome == Err(Errno::ESRCH) => outcome = Ok(()),
            Err(Errno::EPERM) => {}
            sent => outcome = sent,
        }
    }
    outcome.map(|()| 0)
}

/// The living thread `tid`, of process `tgid` if one is given, and its process; no thread if it is a first one that has ended before
/// the others. `ESRCH`.
fn find_thread(tgid: Option<u32>, tid: u32) -> Result<(Arc<Process>, Option<Arc<Thread>>)> {
    let (process, thread) = table::find_either(tid).ok_or(Errno::ESRCH)?;
    if tgid.is_some_and(|tgid| process.pid != tgid) {
        return Err(Errno::ESRCH);
    }
    Ok((process, thread))
}

fn positive(id: usize) -> Result<u32> {
    u32::try_from(id as i32)
        .ok()
        .filter(|&id| id > 0)
        .ok_or(Errno::EINVAL)
}

fn send_to_one(tgid: Option<u32>, tid: usize, number: usize) -> Result<usize> {
    let tid = positive(tid)?;
    let own = current();
    let itself = own.tid() == tid && tgid.is_none_or(|tgid| own.process.pid == tgid);
    let (process, thread) = match itself {
        true => (own.process.clone(), Some(own.arc())),
        false => find_thread(tgid, tid)?,
    };
    let signal = Number(number as i32).signal()?;
    check_permission(&process, signal)?;
    if let Some((signal, thread)) = signal.zip(thread) {
        send::queue_to_thread(&thread, sent_by_user(signal, code::SI_TKILL))?;
    }
    Ok(0)
}

/// tkill(2).
pub fn sys_tkill(&[tid, number, ..]: &Args) -> Result<usize> {
    send_to_one(None, tid, number)
}

/// tgkill(2).
pub fn sys_tgkill(&[tgid, tid, number, ..]: &Args) -> Result<usize> {
    let tgid = positive(tgid)?;
    send_to_one(Some(tgid), tid, number)
}

/// Bytes of siginfo that the kernel keeps; those behind them mean nothing yet.
const KEPT_INFO: usize = 48;

/// siginfo as a user gives it.
pub(super) struct UserInfo {
    /// Bytes 0, 8, .. of the kept part.
    words: [u64; KEPT_INFO / 8],
}

impl UserInfo {
    /// `EFAULT`; `E2BIG` if bytes are set of which nobody knows the meaning.
    pub(super) fn read(pointer: usize, number: usize) -> Result<UserInfo> {
        let info = UserInfo {
            words: UserPtr::new(pointer).read()?,
        };
        let known = Signal::new(number).is_some_and(|signal| Layout::is_known(signal, info.code()))
            || (code::SI_DETHREAD..=0).contains(&info.code());
        if !known {
            let rest = UserPtr::<[u64; (SIGINFO_SIZE - KEPT_INFO) / 8]>::new(
                pointer.wrapping_add(KEPT_INFO),
            );
            if rest.read()?.iter().any(|&word| word != 0) {
                return Err(Errno::E2BIG);
            }
        }
        Ok(info)
    }

    /// The signal that it names itself.
    pub(super) fn number(&self) -> i32 {
        self.words[0] as i32
    }

    pub(super) fn code(&self) -> i32 {
        self.words[1] as i32
    }

    /// Whether it claims to be from the kernel, kill(2) or tkill(2), which only the receiver itself may.
    pub(super) fn is_forged(&self) -> bool {
        self.code() >= 0 || self.code() == code::SI_TKILL
    }

    /// With the signal that the call names.
    pub(super) fn for_signal(&self, signal: Signal) -> SigInfo {
        let [number_and_errno, _, fields @ ..] = self.words;
        SigInfo {
            signal,
            code: self.code(),
            detail: Detail::Raw {
                errno: (number_and_errno >> 32) as i32,
                fields,
            },
        }
    }
}

/// rt_sigqueueinfo(2).
pub fn sys_rt_sigqueueinfo(&[pid, number, info, ..]: &Args) -> Result<usize> {
    let info = UserInfo::read(info, number)?;
    if info.is_forged() && pid as u32 != current().tid() {
        return Err(Errno::EPERM);
    }
    let found = u32::try_from(pid as i32).ok().and_then(table::find_either);
    let (process, thread) = found.ok_or(Errno::ESRCH)?;
    let signal = Number(number as i32).signal()?;
    check_permission(&process, signal)?;
    if let Some(signal) = signal {
        send::send_preferring(&process, thread.as_deref(), info.for_signal(signal))?;
    }
    Ok(0)
}

/// rt_tgsigqueueinfo(2).
pub fn sys_rt_tgsigqueueinfo(&[tgid, tid, number, info, ..]: &Args) -> Result<usize> {
    let info = UserInfo::read(info, number)?;
    let (tgid, tid) = (positive(tgid)?, positive(tid)?);
    if info.is_forged() && tid != current().tid() {
        return Err(Errno::EPERM);
    }
    let (process, thread) = find_thread(Some(tgid), tid)?;
    let signal = Number(number as i32).signal()?;
    check_permission(&process, signal)?;
    if let Some((signal, thread)) = signal.zip(thread) {
        send::queue_to_thread(&thread, info.for_signal(signal))?;
    }
    Ok(0)
}
