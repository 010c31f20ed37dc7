//! Simulated interrupts: the timer's only.

use core::sync::atomic::{AtomicBool, Ordering};

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
}

pub fn enable() {
    ENABLED.store(true, Ordering::Relaxed);
}

pub fn enabled() -> bool {
    ENABLED.load(Ordering::Relaxed)
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
