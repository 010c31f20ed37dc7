//! System calls on signals (`rt_sigaction(2)` and the rest of section 2 about them).

use alloc::sync::Arc;

use linux_raw_sys::general as abi;

use crate::arch::{self, PtRegs};
use crate::errno::{Errno, Result};
use crate::mm::uaccess::UserPtr;
use crate::sched::{Sleep, WaitQueue, current};
use crate::signal::action::sa;
use crate::signal::{Action, AltStack, Detail, SigInfo, SigSet, Signal, code, send};
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
    let new = match UserPtr::<[u64; 4]>::optional(new) {
        Some(pointer) => Some(parse_action(pointer.read()?)),
        None => None,
    };
    if new.is_some() && SigSet::UNBLOCKABLE.contains(signal) {
        return Err(Errno::EINVAL);
    }
    let before = exchange_action(signal, new);
    if let Some(pointer) = UserPtr::<[u64; 4]>::optional(old) {
        pointer.write([
            before.handler as u64,
            before.flags,
            before.restorer as u64,
            before.mask.0,
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

/// Sets an action, if one is given; the old one comes back. A signal that is ignored now is not pending any more.
fn exchange_action(signal: Signal, new: Option<Action>) -> Action {
    let process = &current().process;
    let mut signals = process.signals.lock();
    let before = signals.action(signal);
    if let Some(new) = new {
        signals.set_action(signal, new);
        if new.ignores(signal) {
            let only = SigSet::of(&[signal]);
            signals.pending.flush(only);
            for thread in signals.threads.iter() {
                thread.signals.lock().pending.flush(only);
            }
        }
    }
    before
}

/// rt_sigprocmask(2).
pub fn sys_rt_sigprocmask(&[how, set, old, set_size, ..]: &Args) -> Result<usize> {
    check_set_size(set_size)?;
    let before = current().signals.lock().blocked;
    if let Some(pointer) = UserPtr::<u64>::optional(set) {
        let set = SigSet(pointer.read()?);
        match how as u32 {
            abi::SIG_BLOCK => send::set_blocked(|blocked| blocked.union(set)),
            abi::SIG_UNBLOCK => send::set_blocked(|blocked| blocked.minus(set)),
            abi::SIG_SETMASK => send::set_blocked(|_| set),
            _ => return Err(Errno::EINVAL),
        };
    }
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
        crate::mm::uaccess::write_bytes(info, &taken.to_abi())?;
    }
    Ok(taken.signal.number() as usize)
}

fn wait_for_one_of(set: SigSet, deadline: Option<u64>) -> Result<SigInfo> {
    if let Some(info) = take_one_of(set) {
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
    let taken = take_one_of(set);
    current().signals.lock().waited_for = SigSet::EMPTY;
    send::set_blocked(|_| before);
    match (taken, waited) {
        (Some(info), _) => Ok(info),
        (None, Err(crate::sched::wait::NotYet::TimedOut)) => Err(Errno::EAGAIN),
        (None, _) => Err(Errno::EINTR),
    }
}

fn take_one_of(set: SigSet) -> Option<SigInfo> {
    let thread = current();
    let mut signals = thread.process.signals.lock();
    let mut own = thread.signals.lock();
    let others = SigSet(!set.0);
    if let Some(signal) = own.pending.next(others) {
        return own.pending.take(signal);
    }
    let signal = signals.pending.next(others)?;
    signals.pending.take(signal)
}

/// rt_sigreturn(2): the frame that the handler leaves is read back. A bad one is a SIGSEGV.
pub fn sys_rt_sigreturn(regs: &mut PtRegs) -> Result<usize> {
    match arch::restore_frame(regs) {
        Ok(frame) => {
            send::set_blocked(|_| frame.mask);
            // As on Linux only a stack that cannot be is an error, and nobody is told.
            let _ = set_altstack(
                frame.altstack.base,
                frame.altstack.size,
                frame.altstack.flags,
                regs.sp(),
            );
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
        set_altstack(base as usize, size as usize, flags as u32, sp)?;
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
fn set_altstack(base: usize, size: usize, flags: u32, sp: usize) -> Result {
    let thread = current();
    let mut own = thread.signals.lock();
    if own.altstack.size != 0 && own.altstack.holds(sp) {
        return Err(Errno::EPERM);
    }
    let mode = flags & !AltStack::SS_AUTODISARM;
    own.altstack = match mode {
        AltStack::SS_DISABLE => AltStack {
            flags: flags & AltStack::SS_AUTODISARM,
            ..AltStack::DISABLED
        },
        0 | AltStack::SS_ONSTACK if size < MIN_ALTSTACK => return Err(Errno::ENOMEM),
        0 | AltStack::SS_ONSTACK => AltStack {
            base,
            size,
            flags: flags & AltStack::SS_AUTODISARM,
        },
        _ => return Err(Errno::EINVAL),
    };
    Ok(())
}

/// siginfo of kill(2) and its kin, from the current process.
pub(super) fn sent_by_user(signal: Signal, code: i32) -> SigInfo {
    SigInfo {
        signal,
        code,
        detail: Detail::Sender {
            pid: current().process.pid,
            uid: current().process.credentials.get().user.real,
        },
    }
}

/// The signal of a kill call; `None` for 0, which only asks whether there is somebody.
pub(super) fn signal_or_probe(number: usize) -> Result<Option<Signal>> {
    match number as i32 {
        0 => Ok(None),
        number => usize::try_from(number)
            .ok()
            .and_then(Signal::new)
            .map(Some)
            .ok_or(Errno::EINVAL),
    }
}

/// kill(2).
pub fn sys_kill(&[pid, signal, ..]: &Args) -> Result<usize> {
    let signal = signal_or_probe(signal)?;
    let own_group = current()
        .process
        .process_group
        .load(core::sync::atomic::Ordering::Relaxed);
    match pid as i32 {
        pid if pid > 0 => {
            let (process, thread) = table::find_either(pid as u32).ok_or(Errno::ESRCH)?;
            check_permission(&process, signal)?;
            if let Some(signal) = signal {
                let tid = thread.map(|thread| thread.tid());
                send::send_preferring(&process, tid, sent_by_user(signal, code::SI_USER));
            }
            Ok(0)
        }
        0 => send_to_all(signal, |process| group_of(process) == own_group),
        -1 => send_to_all(signal, |process| {
            process.pid != current().process.pid && process.pid != table::INIT_PID
        }),
        i32::MIN => Err(Errno::ESRCH),
        group => send_to_all(signal, |process| group_of(process) == group.unsigned_abs()),
    }
}

fn group_of(process: &Process) -> u32 {
    process
        .process_group
        .load(core::sync::atomic::Ordering::Relaxed)
}

/// Sends, or asks whether it could; `EPERM`.
fn send_to(process: &Process, signal: Option<Signal>) -> Result {
    check_permission(process, signal)?;
    if let Some(signal) = signal {
        send::send_to_process(process, sent_by_user(signal, code::SI_USER));
    }
    Ok(())
}

/// Whether the current process may send `signal` to `target`: by its user, or SIGCONT within a session (`kill(2)`).
pub(super) fn check_permission(target: &Process, signal: Option<Signal>) -> Result {
    let own = &current().process;
    let session = |process: &Process| process.session.load(core::sync::atomic::Ordering::Relaxed);
    let same_session = signal == Some(Signal::SIGCONT) && session(own) == session(target);
    let (sender, receiver) = (own.credentials.get(), target.credentials.get());
    if same_session || core::ptr::eq(&**own, target) || sender.may_signal(&receiver) {
        Ok(())
    } else {
        Err(Errno::EPERM)
    }
}

fn send_to_all(signal: Option<Signal>, wanted: impl Fn(&Process) -> bool) -> Result<usize> {
    let mut outcome = Err(Errno::ESRCH);
    let mut pid = 0;
    while let Some(process) = table::next_above(pid) {
        pid = process.pid;
        if wanted(&process) {
            // One that may be reached is enough.
            let sent = send_to(&process, signal);
            outcome = if outcome.is_ok() { outcome } else { sent };
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

fn send_to_one(tgid: Option<u32>, tid: usize, signal: usize) -> Result<usize> {
    let tid = positive(tid)?;
    let signal = signal_or_probe(signal)?;
    let (process, thread) = find_thread(tgid, tid)?;
    check_permission(&process, signal)?;
    if let Some((signal, thread)) = signal.zip(thread) {
        send::send_to_thread(&thread, sent_by_user(signal, code::SI_TKILL));
    }
    Ok(0)
}

/// tkill(2).
pub fn sys_tkill(&[tid, signal, ..]: &Args) -> Result<usize> {
    send_to_one(None, tid, signal)
}

/// tgkill(2).
pub fn sys_tgkill(&[tgid, tid, signal, ..]: &Args) -> Result<usize> {
    let tgid = positive(tgid)?;
    send_to_one(Some(tgid), tid, signal)
}

/// siginfo as the user gave it, with the signal that the call names. `EFAULT`; `EPERM` if it claims to be from kill(2), tkill(2) or the
/// kernel and is not for the current process.
pub(super) fn read_info(pointer: usize, signal: usize, own: bool) -> Result<Option<SigInfo>> {
    let bytes = UserPtr::<[u8; 128]>::new(pointer).read()?;
    let word =
        |at: usize| u32::from_ne_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
    let code = word(8) as i32;
    if (code >= 0 || code == code::SI_TKILL) && !own {
        return Err(Errno::EPERM);
    }
    let value = u64::from(word(24)) | u64::from(word(28)) << 32;
    let detail = Detail::Queued {
        pid: word(16),
        uid: word(20),
        value,
    };
    Ok(signal_or_probe(signal)?.map(|signal| SigInfo {
        signal,
        code,
        detail,
    }))
}

/// rt_sigqueueinfo(2).
pub fn sys_rt_sigqueueinfo(&[pid, signal, info, ..]: &Args) -> Result<usize> {
    let found = u32::try_from(pid as i32).ok().and_then(table::find_either);
    let info = read_info(info, signal, pid as u32 == current().process.pid)?;
    let (process, thread) = found.ok_or(Errno::ESRCH)?;
    check_permission(&process, info.map(|info| info.signal))?;
    if let Some(info) = info {
        let tid = thread.map(|thread| thread.tid());
        send::send_preferring(&process, tid, info);
    }
    Ok(0)
}

/// rt_tgsigqueueinfo(2).
pub fn sys_rt_tgsigqueueinfo(&[tgid, tid, signal, info, ..]: &Args) -> Result<usize> {
    let (tgid, tid) = (positive(tgid)?, positive(tid)?);
    let info = read_info(info, signal, tid == current().tid())?;
    let (process, thread) = find_thread(Some(tgid), tid)?;
    check_permission(&process, info.map(|info| info.signal))?;
    if let Some((info, thread)) = info.zip(thread) {
        send::send_to_thread(&thread, info);
    }
    Ok(0)
}
