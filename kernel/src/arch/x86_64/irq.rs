//! Interrupts of this CPU, and the handlers of the 16 lines.

use core::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use x86_64::instructions::interrupts;

use super::{apic, pic, time};
use crate::sync::rank;

/// Whether interrupts were enabled.
#[derive(Clone, Copy)]
pub struct Flags(bool);

/// Disables interrupts; the state before comes back.
#[inline]
pub fn save() -> Flags {
    let flags: usize;
    // SAFETY: reads the flags and disables interrupts, which is always allowed in the kernel. Not `nomem`: what a lock guards must not
    // move across.
    unsafe { core::arch::asm!("pushfq", "pop {}", "cli", out(reg) flags) };
    Flags(flags & super::regs::flags::IF != 0)
}

/// Disables interrupts, which are enabled; the state before comes back, as from [`save`].
#[inline]
pub fn disable() -> Flags {
    debug_assert!(enabled(), "interrupts are off already");
    // SAFETY: always allowed in the kernel. Not `nomem`, as in `save`.
    unsafe { core::arch::asm!("cli", options(nostack)) };
    Flags(true)
}

/// Restores the state that [`save`] gave.
#[inline]
pub fn restore(flags: Flags) {
    if flags.0 {
        // SAFETY: they were on. Not `nomem`, as above.
        unsafe { core::arch::asm!("sti") };
    }
}

/// Whether interrupts are on.
pub fn enabled() -> bool {
    interrupts::are_enabled()
}

#[inline]
pub fn enable() {
    interrupts::enable();
}

/// Sleeps until an interrupt was taken. Interrupts are off before and after. Always true: something may always happen.
pub fn wait() -> bool {
    time::waiting(|| {
        interrupts::enable_and_hlt();
        interrupts::disable();
    });
    true
}

static HANDLERS: [AtomicUsize; pic::LINES as usize] =
    [const { AtomicUsize::new(0) }; pic::LINES as usize];

/// Sets a line's handler, which runs with interrupts off, and unmasks the line. A line has one handler.
pub fn register(line: u8, handler: fn()) {
    let flags = save();
    HANDLERS[line as usize].store(handler as usize, Ordering::Release);
    pic::unmask(line);
    restore(flags);
}

/// Whether the interrupt that is being handled came in user mode.
static FROM_USER: AtomicBool = AtomicBool::new(false);

/// Whether the interrupt that is being handled came in user mode.
pub fn interrupted_user() -> bool {
    FROM_USER.load(Ordering::Relaxed)
}

/// Notes in which mode an interrupt has come.
pub(super) fn came_in(user_mode: bool) {
    FROM_USER.store(user_mode, Ordering::Relaxed);
}

/// Runs the handler of an interrupt that was taken.
pub(super) fn handle(line: u8) {
    if pic::is_spurious(line) {
        // The cascade's own interrupt was real where the second controller's was not.
        if line >= 8 {
            pic::end_of_interrupt(2);
        }
        return;
    }
    pic::end_of_interrupt(line);
    let handler = HANDLERS[line as usize].load(Ordering::Acquire);
    if handler != 0 {
        // SAFETY: only `register` stores here, and only `fn()` values.
        let handler: fn() = unsafe { core::mem::transmute(handler) };
        let interrupted = rank::begin_interrupt();
        handler();
        rank::end_interrupt(interrupted);
    }
}

/// Runs what the timer's interrupt is for.
pub(super) fn handle_timer() {
    apic::end_of_interrupt();
    let interrupted = rank::begin_interrupt();
    crate::sched::timer_tick();
    rank::end_interrupt(interrupted);
}
