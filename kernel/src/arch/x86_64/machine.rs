//! The machine around the kernel: how it ends, its configuration, randomness, and its console.

use alloc::vec::Vec;
use core::arch::x86_64::_rdtsc;
use core::fmt::{self, Write};
use core::sync::atomic::{AtomicU64, Ordering};

use qemu_fw_cfg::FwCfg;
use x86_64::instructions::port::Port;

use super::{features, serial};
use crate::arch::Exit;

pub const STDIN_IRQ: u8 = serial::STDIN_IRQ;

/// isa-debug-exit.
const EXIT_PORT: u16 = 0xf4;

/// Ends the machine, when everything written has left it.
pub fn exit(exit: Exit) -> ! {
    x86_64::instructions::interrupts::disable();
    // SAFETY: interrupts are off and one CPU runs, which never returns from here.
    unsafe { serial::drain() };
    // SAFETY: the port is isa-debug-exit's, which does nothing but end the machine.
    unsafe { Port::<u32>::new(EXIT_PORT).write(exit as u32) };
    // Another machine than QEMU goes on: nothing is left to do there.
    loop {
        x86_64::instructions::hlt();
    }
}

/// Writes one control record, a line.
pub fn control(record: fmt::Arguments<'_>) {
    let _ = writeln!(serial::Control, "{record}");
}

pub fn stdout_write(bytes: &[u8]) {
    serial::stdout_write(bytes);
}

pub fn stderr_write(bytes: &[u8]) {
    serial::stderr_write(bytes);
}

pub fn stdin_read() -> Option<u8> {
    serial::stdin_read()
}

pub fn stdin_interrupt(on: bool) {
    serial::stdin_interrupt(on);
}

/// The fw_cfg item with the configuration.
pub fn config_bytes() -> Option<Vec<u8>> {
    // SAFETY: the kernel runs on QEMU's PC machine, which has the interface's ports; nobody else uses them.
    let mut fw_cfg = unsafe { FwCfg::new_for_x86() }.ok()?;
    let file = fw_cfg.find_file("opt/faultline/config")?;
    let mut bytes = Vec::new();
    bytes.try_reserve_exact(file.size()).ok()?;
    bytes.resize(file.size(), 0);
    fw_cfg.read_file_to_buffer(&file, &mut bytes);
    Some(bytes)
}

static RANDOM: AtomicU64 = AtomicU64::new(0);

/// Starts the generator from `seed`, or from the CPU's own randomness.
pub fn seed_random(seed: Option<u64>) {
    // SAFETY: reading the time stamp counter has no requirements.
    let entropy = || hardware_random().unwrap_or_else(|| unsafe { _rdtsc() });
    RANDOM.store(seed.unwrap_or_else(entropy), Ordering::Relaxed);
}

fn hardware_random() -> Option<u64> {
    if !features::has_rdrand() {
        return None;
    }
    // RDRAND may be exhausted for a moment (SDM volume 1, 7.3.17).
    (0..10).find_map(|_| {
        let (value, ok): (u64, u8);
        // SAFETY: the CPU has the instruction.
        unsafe { core::arch::asm!("rdrand {}", "setc {}", out(reg) value, out(reg_byte) ok, options(nomem, nostack)) };
        (ok != 0).then_some(value)
    })
}

/// The next number of the generator (SplitMix64): for AT_RANDOM and getrandom(2) in a machine without secrets.
pub fn random_u64() -> u64 {
    let mut z = RANDOM
        .fetch_add(0x9e37_79b9_7f4a_7c15, Ordering::Relaxed)
        .wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// AT_HWCAP.
pub fn hwcap() -> usize {
    features::hwcap()
}

/// AT_HWCAP2.
pub fn hwcap2() -> usize {
    features::hwcap2()
}
