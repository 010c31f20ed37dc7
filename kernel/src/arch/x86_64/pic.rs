//! The two 8259A interrupt controllers.

use pic8259::ChainedPics;
use spin::Mutex;

/// Vectors 32..48.
pub(super) const FIRST_VECTOR: u8 = 32;
pub(super) const LINES: u8 = 16;
const CASCADE: u8 = 2;

// SAFETY: the vectors are not those of exceptions.
static PICS: Mutex<ChainedPics> =
    Mutex::new(unsafe { ChainedPics::new(FIRST_VECTOR, FIRST_VECTOR + 8) });

/// Programs the controllers with all lines masked. Interrupts off.
pub(super) fn init() {
    let mut pics = PICS.lock();
    // SAFETY: the machine has these controllers, and interrupts are off.
    unsafe {
        pics.initialize();
        pics.write_masks(!(1 << CASCADE), 0xff);
    }
}

/// Lets a line interrupt. Interrupts off.
pub(super) fn unmask(line: u8) {
    let mut pics = PICS.lock();
    // SAFETY: the line's handler is registered.
    unsafe {
        let [low, high] = pics.read_masks();
        let masks = u16::from_le_bytes([low, high]) & !(1 << line);
        let [low, high] = masks.to_le_bytes();
        pics.write_masks(low, high);
    }
}

/// Acknowledges an interrupt. Interrupts off.
pub(super) fn end_of_interrupt(line: u8) {
    // SAFETY: called once for each interrupt that was taken.
    unsafe { PICS.lock().notify_end_of_interrupt(FIRST_VECTOR + line) };
}

/// Whether the controller really has an interrupt of `line` in service: lines 7 and 15 may come spuriously (8259A data sheet).
pub(super) fn is_spurious(line: u8) -> bool {
    let (command, bit) = match line {
        7 => (0x20u16, 7),
        15 => (0xa0, 7),
        _ => return false,
    };
    let mut port = x86_64::instructions::port::Port::<u8>::new(command);
    // SAFETY: the port is the controller's; 0x0b selects the in-service register for the next read.
    let in_service = unsafe {
        port.write(0x0b);
        port.read()
    };
    in_service & (1 << bit) == 0
}
