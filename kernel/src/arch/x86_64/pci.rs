//! PCI configuration space by the two ports of mechanism #1 (PCI Local Bus 3.0, section 3.2.2.3.2).

use x86_64::instructions::port::Port;

use crate::sync::{IrqLock, rank};

const ADDRESS: u16 = 0xcf8;
const DATA: u16 = 0xcfc;
/// The address is meant for configuration space.
const ENABLE: u32 = 1 << 31;

/// The two ports, which are used as a pair. Lock rank: DEVICE.
static PORTS: IrqLock<(Port<u32>, Port<u32>)> =
    IrqLock::new(rank::DEVICE, (Port::new(ADDRESS), Port::new(DATA)));

fn address(bus: u8, device: u8, function: u8, offset: u8) -> u32 {
    debug_assert!(device < 32 && function < 8 && offset.is_multiple_of(4));
    ENABLE
        | (bus as u32) << 16
        | (device as u32) << 11
        | (function as u32) << 8
        | (offset & !3) as u32
}

/// Reads a register; all ones if there is no such function.
pub fn read(bus: u8, device: u8, function: u8, offset: u8) -> u32 {
    let mut ports = PORTS.lock();
    // SAFETY: choosing and reading a register of configuration space changes nothing but the choice, which the lock guards.
    unsafe {
        ports.0.write(address(bus, device, function, offset));
        ports.1.read()
    }
}

/// Writes a register.
pub fn write(bus: u8, device: u8, function: u8, offset: u8, value: u32) {
    let mut ports = PORTS.lock();
    // SAFETY: configuration registers place a device's windows and switch them on; they reach no memory by themselves. The callers
    // are drivers of the device.
    unsafe {
        ports.0.write(address(bus, device, function, offset));
        ports.1.write(value);
    }
}
