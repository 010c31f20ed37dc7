//! prctl(2): a process's and a thread's odds and ends.
//!
//! What is kept here and has an effect elsewhere: the name, the dumpable flag, the signal at the parent's death, the adoption of orphans.
//! Some options only say what this kernel is like: no seccomp filter, capabilities as root has them, statistical process times.

use core::sync::atomic::Ordering;

use linux_raw_sys::prctl;

use super::args::Args;
use crate::errno::{Errno, Result};
use crate::mm::uaccess::{self, UserPtr};
use crate::sched::current;
use crate::signal::Signal;
use crate::task::thread::DEFAULT_TIMER_SLACK_NS;

/// The highest capability (`CAP_CHECKPOINT_RESTORE`).
const CAP_LAST: usize = 40;

/// A flag that can be 0 or 1. `EINVAL`.
fn flag(value: usize) -> Result<bool> {
    match value {
        0 => Ok(false),
        1 => Ok(true),
        _ => Err(Errno::EINVAL),
    }
}

fn expect(condition: bool) -> Result {
    match condition {
        true => Ok(()),
        false => Err(Errno::EINVAL),
    }
}

fn put(address: usize, value: u32) -> Result<usize> {
    UserPtr::<u32>::new(address).write(value).map(|()| 0)
}

/// prctl(2). Options that are not there are `EINVAL`, as for a kernel built without them.
pub fn sys_prctl(&[option, argument, third, fourth, fifth, _]: &Args) -> Result<usize> {
    let thread = current();
    let process = &thread.process;
    let rest_is_zero = || expect(third == 0 && fourth == 0 && fifth == 0);
    match option as u32 {
        prctl::PR_SET_NAME => set_name(argument),
        prctl::PR_GET_NAME => uaccess::write_bytes(argument, &thread.name()).map(|()| 0),
        prctl::PR_GET_DUMPABLE => Ok(process.dumpable.load(Ordering::Relaxed).into()),
        prctl::PR_SET_DUMPABLE => {
            process.dumpable.store(flag(argument)?, Ordering::Relaxed);
            Ok(0)
        }
        prctl::PR_GET_PDEATHSIG => {
            let signal = process.parent_death_signal();
            put(argument, signal.map_or(0, Signal::number).into())
        }
        prctl::PR_SET_PDEATHSIG => {
            expect(argument <= Signal::MAX as usize)?;
            process.set_parent_death_signal(Signal::new(argument));
            Ok(0)
        }
        prctl::PR_GET_CHILD_SUBREAPER => {
            put(argument, process.adopts.load(Ordering::Relaxed).into())
        }
        prctl::PR_SET_CHILD_SUBREAPER => {
            process.adopts.store(argument != 0, Ordering::Relaxed);
            Ok(0)
        }
        prctl::PR_GET_KEEPCAPS => Ok(process.keep_caps.load(Ordering::Relaxed).into()),
        prctl::PR_SET_KEEPCAPS => {
            process.keep_caps.store(flag(argument)?, Ordering::Relaxed);
            Ok(0)
        }
        prctl::PR_GET_NO_NEW_PRIVS => {
            expect(argument == 0)?;
            rest_is_zero()?;
            Ok(thread.no_new_privs.load(Ordering::Relaxed).into())
        }
        prctl::PR_SET_NO_NEW_PRIVS => {
            expect(argument == 1)?;
            rest_is_zero()?;
            thread.no_new_privs.store(true, Ordering::Relaxed);
            Ok(0)
        }
        prctl::PR_GET_TIMERSLACK => Ok(thread.timer_slack_ns.load(Ordering::Relaxed) as usize),
        prctl::PR_SET_TIMERSLACK => {
            let slack = match argument as u64 {
                0 => DEFAULT_TIMER_SLACK_NS,
                slack => slack,
            };
            thread.timer_slack_ns.store(slack, Ordering::Relaxed);
            Ok(0)
        }
        prctl::PR_GET_TID_ADDRESS => {
            let address = thread.clear_child_tid.load(Ordering::Relaxed);
            UserPtr::<u64>::new(argument).write(address).map(|()| 0)
        }
        prctl::PR_CAPBSET_READ => expect(argument <= CAP_LAST).map(|()| 1),
        prctl::PR_GET_TIMING => Ok(prctl::PR_TIMING_STATISTICAL as usize),
        prctl::PR_SET_TIMING => {
            expect(argument == prctl::PR_TIMING_STATISTICAL as usize).map(|()| 0)
        }
        prctl::PR_GET_TSC => put(argument, prctl::PR_TSC_ENABLE),
        prctl::PR_SET_TSC => expect(argument == prctl::PR_TSC_ENABLE as usize).map(|()| 0),
        prctl::PR_GET_SECCOMP | prctl::PR_GET_SECUREBITS => Ok(0),
        prctl::PR_GET_THP_DISABLE => {
            expect(argument == 0)?;
            rest_is_zero().map(|()| 0)
        }
        _ => Err(Errno::EINVAL),
    }
}

/// Longer names are cut.
fn set_name(argument: usize) -> Result<usize> {
    let mut name = [0; 16];
    match uaccess::read_string(argument, 16, Errno::EFAULT) {
        Ok(text) => {
            let len = text.len().min(15);
            name[..len].copy_from_slice(&text[..len]);
        }
        Err(_) => uaccess::read_bytes(argument, &mut name[..15])?,
    }
    current().set_name(name);
    Ok(0)
}
