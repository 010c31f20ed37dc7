//! The clock, and samples of it.

use core::arch::asm;
use core::cell::UnsafeCell;

use crate::{check, sys};

/// The time-stamp counter; on the deterministic machine the number of instructions so far.
#[inline(always)]
pub fn now() -> u64 {
    let (low, high): (u32, u32);
    // SAFETY: reads a counter. Memory accesses stay on their side of it.
    unsafe { asm!("rdtsc", out("eax") low, out("edx") high, options(nostack, preserves_flags)) };
    u64::from(high) << 32 | u64::from(low)
}

/// [`now`] at the start of what is measured. The mark before it tells a profiler (`boot/profiler`) that it begins.
#[inline(always)]
pub fn start() -> u64 {
    // SAFETY: a no-operation, `nop dword ptr [rax + "FLT<"]`.
    unsafe {
        asm!(
            ".byte 0x0f, 0x1f, 0x80, 'F', 'L', 'T', '<'",
            options(nostack, preserves_flags)
        )
    };
    now()
}

/// [`now`] at its end.
#[inline(always)]
pub fn stop() -> u64 {
    let now = now();
    // SAFETY: a no-operation, `nop dword ptr [rax + "FLT>"]`.
    unsafe {
        asm!(
            ".byte 0x0f, 0x1f, 0x80, 'F', 'L', 'T', '>'",
            options(nostack, preserves_flags)
        )
    };
    now
}

/// Tells a profiler that another operation comes.
pub fn next_operation() {
    // SAFETY: a no-operation, `nop dword ptr [rax + "FLT|"]`.
    unsafe {
        asm!(
            ".byte 0x0f, 0x1f, 0x80, 'F', 'L', 'T', '|'",
            options(nostack, preserves_flags)
        )
    };
}

/// What `work` takes, without what reading the clock takes itself, and what it gives.
#[inline(always)]
pub fn timed<R>(work: impl FnOnce() -> R) -> (u64, R) {
    let begin = start();
    let result = work();
    let end = stop();
    ((end - begin).saturating_sub(CLOCK), result)
}

/// Ticks between two readings with nothing in between: the second reading, and putting the first one together.
const CLOCK: u64 = 4;

/// Most samples of an operation.
pub const MOST: usize = 2048;

/// The samples of the operation that runs.
pub struct Samples {
    values: UnsafeCell<[u64; MOST]>,
    count: UnsafeCell<usize>,
}

// SAFETY: only the first thread of a process uses it.
unsafe impl Sync for Samples {}

pub static SAMPLES: Samples = Samples {
    values: UnsafeCell::new([0; MOST]),
    count: UnsafeCell::new(0),
};

/// What is told of the samples.
#[derive(Clone, Copy)]
pub struct Summary {
    pub median: u64,
    pub least: u64,
    pub most: u64,
    pub count: usize,
}

impl Samples {
    /// Adds one.
    pub fn add(&self, ticks: u64) {
        // SAFETY: nobody else has a reference, see above.
        let (values, count) = unsafe { (&mut *self.values.get(), &mut *self.count.get()) };
        check::require(*count < MOST, "fewer samples");
        values[*count] = ticks;
        *count += 1;
    }

    /// Takes the time of `work` once more.
    #[inline(always)]
    pub fn time<R>(&self, work: impl FnOnce() -> R) -> R {
        let (ticks, result) = timed(work);
        self.add(ticks);
        result
    }

    pub fn summary(&self) -> Option<Summary> {
        // SAFETY: as above.
        let (values, count) = unsafe { (&mut *self.values.get(), *self.count.get()) };
        let values = &mut values[..count];
        values.sort_unstable();
        Some(Summary {
            median: values[..].get(count / 2).copied()?,
            least: *values.first()?,
            most: *values.last()?,
            count,
        })
    }
}

/// Waits until the kernel has nothing left to do from its start: until a loop runs undisturbed several times.
pub fn settle() {
    const ROUNDS: u32 = 200_000;
    const UNDISTURBED: u32 = 12;
    sys::sleep_seconds(1);
    let mut in_a_row = 0;
    // After so many rounds it will not become quieter.
    for _ in 0..5000 {
        // Without marks: this is not what is profiled.
        let begin = now();
        // SAFETY: counts a register down.
        unsafe {
            asm!("2:", "dec {0:e}", "jnz 2b", inout(reg) ROUNDS => _, options(nomem, nostack))
        };
        let ticks = now() - begin;
        let disturbed = ticks > u64::from(2 * ROUNDS) + 10;
        in_a_row = if disturbed { 0 } else { in_a_row + 1 };
        if in_a_row == UNDISTURBED {
            return;
        }
    }
}
