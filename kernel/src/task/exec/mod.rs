//! execve(2): a new program in an old process.
//!
//! Everything that can be refused is checked, and the new address space is built, before the old one goes. What fails after that
//! point kills the process, as there is nothing to return to.

pub mod load;
mod only_thread;
pub mod stack;
pub mod strings;
mod vdso;

use alloc::sync::Arc;
use core::sync::atomic::Ordering;

use super::{ExitStatus, exit, rseq};
use crate::arch::PtRegs;
use crate::errno::{Errno, Result};
use crate::fs::{self, File};
use crate::mm::Mm;
use crate::mm::uaccess;
use crate::sched::current;
use crate::signal::{AltStack, Signal};
use crate::task::thread::RestartBlock;
use load::{Image, Interpreter, Segment};
use strings::Strings;

/// Scripts may name scripts as their interpreters, this deep.
const MAX_INTERPRETERS: usize = 4;

/// Replaces the current process's program with that in `file`; on success `regs` are the new program's. `path` as the program shall see
/// it. Errors of execve(2).
pub fn exec(
    regs: &mut PtRegs,
    file: Arc<File>,
    path: &[u8],
    argv: Strings,
    envp: &Strings,
) -> Result {
    let (file, argv) = resolve_scripts(file, path, argv)?;
    let mm = Mm::new()?;
    let image = load::load(&mm, &file)?;
    let stack = stack::map(&mm)?;
    let vdso = vdso::map(&mm)?;
    let contents = stack::Contents::build(stack, path, &argv, envp, &image, vdso)?;
    // The point of no return.
    only_thread::become_only_thread()?;
    let thread = current();
    let process = &thread.process;
    exit::leave_memory(&thread);
    process.replace_mm(Some(mm));
    exit::end_vfork(&thread);
    let own = thread.unshare_files(0..0);
    if own
        .and_then(|()| start_program(regs, &image, &contents))
        .is_err()
    {
        exit::exit_group(ExitStatus::Signal(Signal::SIGSEGV));
    }
    set_name(path);
    *process.layout.lock() = contents.layout();
    process.set_exe(Some(file));
    forget_old_program();
    Ok(())
}

/// The program; for a `#!` script its interpreter, with the script among the arguments.
fn resolve_scripts(
    mut file: Arc<File>,
    path: &[u8],
    mut argv: Strings,
) -> Result<(Arc<File>, Strings)> {
    let mut script = strings::owned(path)?;
    for _ in 0..MAX_INTERPRETERS {
        let Some(Interpreter { path, argument }) = load::interpreter_of(&file)? else {
            return Ok((file, argv));
        };
        argv = argv.for_interpreter(&path, argument.as_deref(), &script)?;
        file = fs::open_exec(&path)?;
        script = path;
    }
    Err(Errno::ELOOP)
}

/// What has to be written into the new address space, which is the current one now.
fn start_program(regs: &mut PtRegs, image: &Image, contents: &stack::Contents) -> Result {
    for Segment { clear, .. } in image.segments() {
        if let Some((start, len)) = clear {
            uaccess::clear(*start, *len)?;
        }
    }
    uaccess::write_bytes(contents.sp, &contents.bytes)?;
    current().arch.reset_for_exec();
    *regs = PtRegs::new_user(image.entry, contents.sp);
    Ok(())
}

/// What the old program had set up for itself.
fn forget_old_program() {
    let thread = current();
    thread.process.posix_timers.delete_all();
    let mut signals = thread.process.signals.lock();
    let shared = signals.unshare_actions();
    signals.reset_handlers();
    drop(signals);
    drop(shared);
    thread.signals.lock().altstack = AltStack::DISABLED;
    thread.process.set_exit_signal(Some(Signal::SIGCHLD));
    thread.process.keep_caps.store(false, Ordering::Relaxed);
    thread.process.dumpable.store(true, Ordering::Relaxed);
    thread.process.set_has_exec();
    rseq::forget(&thread);
    *thread.restart.lock() = RestartBlock::None;
    thread.files().close_on_exec();
}

/// The last part of the path, at most 15 bytes, as in /proc/self/comm.
fn set_name(path: &[u8]) {
    let base = path.rsplit(|&byte| byte == b'/').next().unwrap_or(path);
    let mut name = [0; 16];
    let len = base.len().min(15);
    name[..len].copy_from_slice(&base[..len]);
    current().set_name(name);
}
