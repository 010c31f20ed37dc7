//! Simulated interrupts: the timer's, and those that a test lets come at a chosen step.

use core::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard};

use super::time;

/// Whether interrupts were enabled.
#[derive(Clone, Copy)]
pub struct Flags(bool);

static ENABLED: AtomicBool = AtomicBool::new(false);

pub fn save() -> Flags {
    Flags(ENABLED.swap(false, Ordering::Relaxed))
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

/// Interrupts to come, each at a step, the first one last.
static INJECTED: Mutex<Vec<(usize, Handler)>> = Mutex::new(Vec::new());
static ARMED: AtomicBool = AtomicBool::new(false);
/// Steps since they were armed.
static STEPS: AtomicUsize = AtomicUsize::new(0);

fn injected() -> MutexGuard<'static, Vec<(usize, Handler)>> {
    INJECTED
        .lock()
        .unwrap_or_else(|poisoned| poisoned.into_inner())
}

/// Lets interrupts come at the given steps from now on: a step is a place where interrupts are on and something has just happened
/// that they could find half done.
pub fn inject(mut interrupts: Vec<(usize, Handler)>) {
    interrupts.reverse();
    *injected() = interrupts;
    STEPS.store(0, Ordering::Relaxed);
    ARMED.store(true, Ordering::Relaxed);
}

/// Those that have not come will not.
pub fn disarm() {
    ARMED.store(false, Ordering::Relaxed);
    injected().clear();
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
    let step = STEPS.fetch_add(1, Ordering::Relaxed);
    loop {
        let due = {
            let mut injected = injected();
            match injected.last() {
                Some((at, _)) if *at == step => injected.pop(),
                _ => None,
            }
        };
        let Some((_, handler)) = due else { return };
        let flags = save();
        handler();
        ENABLED.store(flags.0, Ordering::Relaxed);
    }
}
