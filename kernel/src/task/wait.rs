//! wait4(2): what became of children.

use alloc::sync::Arc;
use core::sync::atomic::Ordering;

use super::process::Life;
use super::{Process, table};
use crate::errno::{Errno, Result};
use crate::sched::{Sleep, current};

/// Which children are meant.
#[derive(Clone)]
pub enum Which {
    Any,
    Pid(u32),
    Group(u32),
    Process(Arc<Process>),
}

/// Options of wait4(2).
#[derive(Clone, Copy, Debug, Default)]
pub struct Options {
    pub no_hang: bool,
    /// Exits are waited for too; always so in wait4(2).
    pub exited: bool,
    pub stopped: bool,
    pub continued: bool,
    /// Children that send SIGCHLD when they end are meant, and those that do not.
    pub ordinary: bool,
    pub clones: bool,
    /// Only children of the current thread's own are meant (`__WNOTHREAD`).
    pub own: bool,
    /// Leave the child as it is (waitid(2), WNOWAIT).
    pub keep: bool,
}

/// One child's event.
pub struct Waited {
    pub child: Arc<Process>,
    pub event: Event,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    Exited(super::ExitStatus),
    Stopped(crate::signal::Signal),
    Continued,
}

impl Event {
    /// The status word of wait4(2).
    pub fn to_wait_status(self) -> i32 {
        match self {
            Event::Exited(status) => status.to_wait_status(),
            Event::Stopped(signal) => (signal.number() as i32) << 8 | 0x7f,
            Event::Continued => 0xffff,
        }
    }
}

/// Waits for an event of a child. `None` with `no_hang` if there is none yet; `ECHILD` if there is no such child; `ERESTARTSYS` for a
/// signal.
pub fn wait(which: Which, options: Options) -> Result<Option<Waited>> {
    let process = current().process.clone();
    let found = process.child_events.wait_until(Sleep::Interruptible, || {
        match look(&process, &which, options) {
            Ok(None) if !options.no_hang => None,
            other => Some(other),
        }
    })?;
    let found = found?;
    if let Some(Waited {
        child,
        event: Event::Exited(_),
    }) = &found
        && !options.keep
    {
        reap(&process, child);
    }
    Ok(found)
}

/// Looks at the children that are meant once, and takes the event that it finds.
fn look(parent: &Process, which: &Which, options: Options) -> Result<Option<Waited>> {
    let mut candidates = false;
    let mut visit = |child: Arc<Process>| {
        if !is_meant(&child, options) {
            return None;
        }
        candidates = true;
        let event = take_event(&child, options)?;
        Some(Waited { child, event })
    };
    let found = match which {
        Which::Any => find(parent, |_| true, visit),
        Which::Group(group) => find(parent, |child| child.group() == *group, visit),
        Which::Pid(pid) => table::find(*pid)
            .filter(|child| child.parent_pid() == parent.pid)
            .and_then(&mut visit),
        Which::Process(child) if child.parent_pid() == parent.pid && child.life() != Life::Gone => {
            visit(child.clone())
        }
        Which::Process(_) => None,
    };
    match found {
        None if !candidates => Err(Errno::ECHILD),
        found => Ok(found),
    }
}

/// Looks at all children, in the order of their birth.
fn find(
    parent: &Process,
    wanted: impl Fn(&Process) -> bool,
    mut visit: impl FnMut(Arc<Process>) -> Option<Waited>,
) -> Option<Waited> {
    let children = parent.children.lock();
    let mut cursor = children.front();
    while let Some(child) = cursor.clone_pointer() {
        cursor.move_next();
        if wanted(&child)
            && let Some(found) = visit(child)
        {
            return Some(found);
        }
    }
    None
}

fn is_meant(child: &Process, options: Options) -> bool {
    let kind = match child.has_ordinary_exit_signal() {
        true => options.ordinary,
        false => options.clones,
    };
    kind && (!options.own || child.maker() == current().tid())
}

fn take_event(child: &Process, options: Options) -> Option<Event> {
    let mut events = child.events.lock();
    if let Some(status) = events.exited.filter(|_| options.exited) {
        if !options.keep {
            // Only one of several threads that wait gets it.
            events.exited = None;
        }
        return Some(Event::Exited(status));
    }
    if let Some(signal) = events.stopped.filter(|_| options.stopped) {
        if !options.keep {
            events.stopped = None;
        }
        return Some(Event::Stopped(signal));
    }
    if events.continued && options.continued {
        events.continued = options.keep;
        return Some(Event::Continued);
    }
    None
}

/// Ends a zombie: its times go to the parent.
fn reap(parent: &Process, child: &Arc<Process>) {
    for usage in [&child.usage, &child.child_usage] {
        parent.child_usage.add(usage.get());
        parent
            .child_usage
            .note_resident(usage.max_resident.load(Ordering::Relaxed));
    }
    remove_child(parent, child);
}

/// Takes a child out of its parent's list and of the table.
pub(super) fn remove_child(parent: &Process, child: &Arc<Process>) {
    let mut children = parent.children.lock();
    let removed = if child.sibling_link.is_linked() {
        // SAFETY: a linked child is in its parent's list, under the parent's lock.
        unsafe { children.cursor_mut_from_ptr(Arc::as_ptr(child)) }.remove()
    } else {
        None
    };
    drop(children);
    drop(removed);
    table::remove(child.pid);
}
