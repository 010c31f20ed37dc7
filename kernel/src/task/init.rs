//! The first user program, and the end of the machine with it.
//!
//! Process 1 is the kernel's own init: it has no program, adopts orphans and waits for them. The first program is its child, an
//! ordinary process without init's protection from signals, so that it behaves as it would under a shell.

use core::sync::atomic::{AtomicU32, Ordering};

use super::exec::strings::Strings;
use super::{ExitStatus, Process, exec, table};
use crate::arch::{self, Exit, PtRegs, irq, machine, time};
use crate::config::{self, Config};
use crate::errno::Result;
use crate::fs;
use crate::sched::{self, current};
use crate::trace;

/// Starts the thread that brings the devices up and then starts the first program. `ENOMEM`; what goes wrong later ends the machine
/// with a log line.
#[cfg(target_os = "none")]
pub fn start() -> Result {
    super::kernel_thread("init", || {
        crate::bring_up::devices();
        if let Err(errno) = start_first_process() {
            crate::bring_up::failed("the first process", errno);
        }
    })
}

/// Makes the process that will become the configuration's program. The root file system is mounted.
pub fn start_first_process() -> Result {
    table::insert(
        table::take_id(table::INIT_PID)?,
        Process::init()?,
        None,
        None,
    );
    let thread = super::child_of_init(run)?;
    FIRST_PID.store(thread.process.pid, Ordering::Relaxed);
    sched::spawn(thread);
    Ok(())
}

/// The first program's thread, still in the kernel: loads the program and becomes it.
fn run() {
    let config = config::get();
    let mut regs = PtRegs::new_user(0, 0);
    if let Err(errno) = prepare(&mut regs, config) {
        let program = core::str::from_utf8(&config.program).unwrap_or("?");
        log::error!("cannot start {program}: {errno:?}");
        machine::exit(Exit::BringUpFailed);
    }
    machine::control(format_args!("boot counts={}", time::work_counts()));
    machine::control(format_args!("start"));
    let _ = irq::save();
    // SAFETY: the registers are those of a program that was just loaded, and this is the bottom of the thread's own work: nothing on
    // the stack is needed any more.
    unsafe { arch::enter_user(&regs) }
}

fn prepare(regs: &mut PtRegs, config: &Config) -> Result {
    fs::open_standard_files(config)?;
    current().fs().change_directory(&config.cwd)?;
    let strings = |list: &[alloc::vec::Vec<u8>]| -> Result<Strings> {
        let mut strings = Strings::default();
        list.iter().try_for_each(|string| strings.push(string))?;
        Ok(strings)
    };
    let file = fs::open_exec(&config.program)?;
    exec::exec(
        regs,
        file,
        &config.program,
        strings(&config.args)?,
        &strings(&config.env)?,
    )
}

/// A child of init ended: the first program, and with it the machine, or an orphan, which is simply gone.
pub(super) fn child_exited(process: &Process, status: ExitStatus) {
    table::remove(process.pid);
    if !is_first(process) {
        return;
    }
    trace::write_stats();
    crate::mm::leak::check_all_is_back();
    match status {
        ExitStatus::Code(code) => machine::control(format_args!("exit {code}")),
        ExitStatus::Signal(signal) => machine::control(format_args!("signal {}", signal.number())),
    }
    machine::exit(Exit::Done);
}

/// Whether the process is the first program's.
pub fn is_first(process: &Process) -> bool {
    process.pid == FIRST_PID.load(Ordering::Relaxed)
}

/// The first program's number.
static FIRST_PID: AtomicU32 = AtomicU32::new(0);
