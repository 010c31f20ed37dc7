//! Clocks: the time stamp counter and this CPU's one-shot timer, both calibrated once against the PIT.

use core::arch::x86_64::_rdtsc;
use core::sync::atomic::{AtomicU64, Ordering};

use x86_64::instructions::port::Port;

use super::{apic, vdso};
use crate::errno::OutOfMemory;

/// The PIT's own clock.
const PIT_HZ: u64 = 1_193_182;
const PIT_CHANNEL_2: u16 = 0x42;
const PIT_COMMAND: u16 = 0x43;
/// System control port: gate and output of channel 2.
const PIT_GATE: u16 = 0x61;

/// How long the calibration looks.
const CALIBRATION_NS: u64 = 10_000_000;

static TSC_AT_BOOT: AtomicU64 = AtomicU64::new(0);
/// Nanoseconds per count, times 2^32.
static NS_PER_COUNT: AtomicU64 = AtomicU64::new(0);
static WALL_OFFSET: AtomicU64 = AtomicU64::new(0);
/// The time stamp counter at the kernel's first instruction.
static FIRST: AtomicU64 = AtomicU64::new(0);
/// Counts since then in which the CPU did nothing but wait.
static WAITED: AtomicU64 = AtomicU64::new(0);

#[inline]
fn tsc() -> u64 {
    // SAFETY: reading the counter has no requirements.
    unsafe { _rdtsc() }
}

/// The kernel begins.
pub(super) fn begin() {
    FIRST.store(tsc(), Ordering::Relaxed);
}

/// Does `wait`, whose time is no work; gives its counts. Interrupts that come meanwhile are part of it.
pub(super) fn waiting(wait: impl FnOnce()) -> u64 {
    let start = tsc();
    wait();
    let counts = tsc() - start;
    WAITED.fetch_add(counts, Ordering::Relaxed);
    counts
}

/// Counts of the time stamp counter from the kernel's first instruction until now, without those of waiting.
pub fn work_counts() -> u64 {
    tsc() - FIRST.load(Ordering::Relaxed) - WAITED.load(Ordering::Relaxed)
}

/// Nanoseconds since boot, monotonic.
#[inline]
pub fn now_ns() -> u64 {
    let counts = tsc() - TSC_AT_BOOT.load(Ordering::Relaxed);
    ((counts as u128 * NS_PER_COUNT.load(Ordering::Relaxed) as u128) >> 32) as u64
}

/// What added to [`now_ns`] gives nanoseconds since 1970.
pub fn wall_clock_offset_ns() -> u64 {
    WALL_OFFSET.load(Ordering::Relaxed)
}

/// The wall clock was set: what added to [`now_ns`] gives nanoseconds since 1970 from now on.
pub fn set_wall_clock_offset_ns(offset: u64) {
    WALL_OFFSET.store(offset, Ordering::Relaxed);
    publish();
}

/// Brings the clocks' data up to date that user code reads.
pub(super) fn publish() {
    let get = |value: &AtomicU64| value.load(Ordering::Relaxed);
    vdso::publish(get(&TSC_AT_BOOT), get(&NS_PER_COUNT), get(&WALL_OFFSET));
}

/// Lets [`crate::sched::timer_tick`] be called at `deadline_ns`, or somewhat earlier where that is far away, in place of what was
/// asked for before. Interrupts off.
pub fn set_timer(deadline_ns: u64) {
    apic::interrupt_in(deadline_ns.saturating_sub(now_ns()));
}

/// Calibrates the clock and the timer. Once, interrupts off.
pub(super) fn init() -> Result<(), OutOfMemory> {
    apic::init()?;
    let start = tsc();
    apic::start_counting();
    let counts = wait_for_pit();
    NS_PER_COUNT.store((CALIBRATION_NS << 32) / counts.max(1), Ordering::Relaxed);
    TSC_AT_BOOT.store(start, Ordering::Relaxed);
    apic::calibrate(now_ns());
    WALL_OFFSET.store(read_rtc() * 1_000_000_000 - now_ns(), Ordering::Relaxed);
    Ok(())
}

/// Lets PIT channel 2 count down once; how far the time stamp counter goes meanwhile.
fn wait_for_pit() -> u64 {
    let count = (PIT_HZ * CALIBRATION_NS / 1_000_000_000) as u16;
    let mut gate = Port::<u8>::new(PIT_GATE);
    // SAFETY: the ports are the PIT's and its gate's; the speaker stays off (bit 1).
    unsafe {
        let before = gate.read();
        gate.write(before & !0b11);
        Port::<u8>::new(PIT_COMMAND).write(0xb0);
        Port::<u8>::new(PIT_CHANNEL_2).write(count as u8);
        Port::<u8>::new(PIT_CHANNEL_2).write((count >> 8) as u8);
        gate.write(before & !0b11 | 1);
        let counts = waiting(|| while gate.read() & (1 << 5) == 0 {});
        gate.write(before & !0b11);
        counts
    }
}

fn cmos(register: u8) -> u8 {
    // SAFETY: the ports are the real-time clock's; reading its registers changes nothing.
    unsafe {
        Port::<u8>::new(0x70).write(register);
        Port::<u8>::new(0x71).read()
    }
}

/// Seconds since 1970 by the real-time clock, which counts UTC, in BCD, with a two-digit year of this century.
fn read_rtc() -> u64 {
    let read = || {
        while cmos(0x0a) & 0x80 != 0 {}
        [0u8, 2, 4, 7, 8, 9].map(cmos)
    };
    let mut time = read();
    loop {
        let again = read();
        if again == time {
            break;
        }
        time = again;
    }
    let binary = cmos(0x0b) & 4 != 0;
    let value = |byte: u8| {
        u64::from(if binary {
            byte
        } else {
            (byte >> 4) * 10 + (byte & 15)
        })
    };
    let [second, minute, hour, day, month, year] = time.map(value);
    days_since_1970(2000 + year, month, day) * 86_400 + hour * 3600 + minute * 60 + second
}

/// Days from 1970-01-01 to a date of the Gregorian calendar; years are counted from March, so that leap days come last.
fn days_since_1970(year: u64, month: u64, day: u64) -> u64 {
    let (year, month) = if month <= 2 {
        (year - 1, month + 9)
    } else {
        (year, month - 3)
    };
    let days = year * 365 + year / 4 - year / 100 + year / 400 + (month * 153 + 2) / 5 + day - 1;
    days - 719_468
}
