//! Process groups and who is left in them: orphaned groups (`setpgid(2)`, POSIX "orphaned process group").
//!
//! Nobody is there to continue the jobs of a group when no member has a parent in another group of the session. Such a group is not
//! stopped by the terminal; when it becomes so while a member is stopped, all get SIGHUP and SIGCONT.

use alloc::sync::Arc;
use core::sync::atomic::Ordering;

use super::process::Life;
use super::{Process, init, table};
use crate::signal::{SigInfo, Signal, send};

/// Calls `f` for every living process of a group until it says false.
pub fn for_each(group: u32, mut f: impl FnMut(&Arc<Process>) -> bool) {
    for process in table::members(group) {
        if process.life() == Life::Lives && !f(&process) {
            return;
        }
    }
}

/// Sends a signal of the kernel's to all processes of a group.
pub fn signal_all(group: u32, signal: Signal) {
    for_each(group, |process| {
        send::send_to_process(process, SigInfo::kernel(signal));
        true
    });
}

/// Whether a process, which is not `leaving`, ties its group to the session: its parent could continue it.
fn is_tied(process: &Process, leaving: Option<&Process>) -> bool {
    if leaving.is_some_and(|leaving| core::ptr::eq(leaving, process)) {
        return false;
    }
    // The first program has a shell for its parent, as it were.
    init::is_first(process)
        || process.parent().is_some_and(|parent| {
            parent.pid != table::INIT_PID
                && parent.group() != process.group()
                && parent.session.load(Ordering::Relaxed) == process.session.load(Ordering::Relaxed)
        })
}

/// Whether a group is orphaned, or will be without `leaving`.
pub fn is_orphaned(group: u32, leaving: Option<&Process>) -> bool {
    let mut tied = false;
    for_each(group, |process| {
        tied = is_tied(process, leaving);
        !tied
    });
    !tied
}

fn has_stopped(group: u32) -> bool {
    let mut stopped = false;
    for_each(group, |process| {
        stopped = process.signals.lock().stopped.is_some();
        !stopped
    });
    stopped
}

/// `process` ends, or its parent, `parent`, does: if that orphans its group while somebody in it is stopped, nobody will continue it
/// (`kill_orphaned_pgrp`).
pub(super) fn release_if_orphaned(process: &Process, parent: Option<&Process>) {
    let own_end = parent.is_none();
    let real_parent = process.parent();
    let Some(parent) = parent.or(real_parent.as_deref()) else {
        return;
    };
    let group = process.group();
    let same_session =
        parent.session.load(Ordering::Relaxed) == process.session.load(Ordering::Relaxed);
    if parent.group() == group || !same_session {
        return;
    }
    let leaving = own_end.then_some(process);
    if is_orphaned(group, leaving) && has_stopped(group) {
        signal_all(group, Signal::SIGHUP);
        signal_all(group, Signal::SIGCONT);
    }
}
