//! I/O ports for drivers: PCI configuration space and the real-time clock.

use x86_64::instructions::port::Port;

use crate::sync::{IrqLock, rank};

/// PCI's address port is a register, so address and data go together.
static PCI: IrqLock<(Port<u32>, Port<u32>)> = IrqLock::new(rank::LEAF, (Port::new(0xcf8), Port::new(0xcfc)));

fn pci_address(bus: u8, device: u8, function: u8, offset: u8) -> u32 {
    1 << 31 | u32::from(bus) << 16 | u32::from(device) << 11 | u32::from(function) << 8 | u32::from(offset & !3)
}

/// Reads a 32-bit register of PCI configuration space (configuration mechanism 1).
pub fn pci_read(bus: u8, device: u8, function: u8, offset: u8) -> u32 {
    let mut ports = PCI.lock();
    // SAFETY: the ports are PCI's, and reading configuration space has no side effects that matter to memory safety.
    unsafe {
        ports.0.write(pci_address(bus, device, function, offset));
        ports.1.read()
    }
}

/// Writes a 32-bit register of PCI configuration space.
///
/// # Safety
/// The write must be one that the device's driver may make: it can start DMA.
pub unsafe fn pci_write(bus: u8, device: u8, function: u8, offset: u8, value: u32) {
    let mut ports = PCI.lock();
    // SAFETY: the ports are PCI's; the caller answers for the value.
    unsafe {
        ports.0.write(pci_address(bus, device, function, offset));
        ports.1.write(value);
    }
}
