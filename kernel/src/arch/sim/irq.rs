//! Simulated interrupts: the timer's, and those that a test lets come at a chosen step.

use core::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard};

use super::time;

/// Whether interrupts were enabled.
#[derive(Clone, Copy)]
pub struct Flags(bool);

static ENABLED: AtomicBool = AtomicBool::new(false);

pub fn save() -> Flags {
    Flags(ENABLED.swap(false, Ordering::Relaxed))
}

/// Here nobody has to have them enabled: tests call system calls as they are.
pub fn disable() -> Flags {
    save()
}

pub fn restore(flags: Flags) {
    ENABLED.store(flags.0, Ordering::Relaxed);
    step();
}

pub fn enable() {
    ENABLED.store(true, Ordering::Relaxed);
    step();
}

/// Nobody can run: time jumps to the next timer. False if there is none.
pub fn wait() -> bool {
    let Some(deadline) = crate::sched::timer::next_deadline() else {
        return false;
    };
    time::advance_to(deadline);
    crate::sched::timer_tick();
    true
}

/// There are no devices.
pub fn register(_line: u8, _handler: fn()) {}

/// The timer is looked at when nobody runs.
pub fn interrupted_user() -> bool {
    false
}

/// What a test lets happen at a step.
pub type Handler = Box<dyn FnOnce() + Send>;

/// What is asked at every step which interrupt comes there, until it names none.
pub type Source = Box<dyn FnMut() -> Option<Handler> + Send>;

static SOURCE: Mutex<Option<Source>> = Mutex::new(None);
static ARMED: AtomicBool = AtomicBool::new(false);

fn source() -> MutexGuard<'static, Option<Source>> {
    SOURCE
        .lock()
        .unwrap_or_else(|poisoned| poisoned.into_inner())
}

/// Lets interrupts come from now on as `source` says. A step is a place where interrupts are on and something has just happened that they
/// could find half done.
pub fn inject(source: Source) {
    *self::source() = Some(source);
    ARMED.store(true, Ordering::Relaxed);
}

/// Those that have not come will not.
pub fn disarm() {
    ARMED.store(false, Ordering::Relaxed);
    *source() = None;
}

/// Between `true` and `false` steps do not count.
pub fn hold(on: bool) {
    ARMED.store(!on, Ordering::Relaxed);
}

/// A place where an interrupt could come.
pub fn step() {
    if !ARMED.load(Ordering::Relaxed) || !ENABLED.load(Ordering::Relaxed) {
        return;
    }
    loop {
        let due = source().as_mut().and_then(|source| source());
        let Some(handler) = due else { return };
        let flags = save();
        handler();
        ENABLED.store(flags.0, Ordering::Relaxed);
    }
}
