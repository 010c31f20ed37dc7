//! The four serial lines (docs/machine-protocol.md), 16550 UARTs with FIFOs.

use core::fmt;

use spin::Mutex;
use uart_16550::backend::PioBackend;
use uart_16550::spec::registers::{IER, LSR};
use uart_16550::{Config, Uart16550};

use super::irq;

type Uart = Uart16550<PioBackend>;

const fn uart(port: u16) -> Mutex<Uart> {
    // SAFETY: the machine has UARTs at these ports, and each is named once.
    match unsafe { Uart16550::new_port(port) } {
        Ok(uart) => Mutex::new(uart),
        Err(_) => panic!("a port number"),
    }
}

static LOG: Mutex<Uart> = uart(0x3f8);
static CONTROL: Mutex<Uart> = uart(0x2f8);
static STDOUT: Mutex<Uart> = uart(0x3e8);
static STDERR: Mutex<Uart> = uart(0x2e8);

/// The interrupt line of the console's UART.
pub(super) const STDIN_IRQ: u8 = 5;

/// Programs all four. A missing one swallows what is written to it.
pub(super) fn init() {
    for line in [&LOG, &CONTROL, &STDOUT, &STDERR] {
        let _ = line.lock().init(Config {
            interrupts: IER::empty(),
            ..Config::DEFAULT
        });
    }
}

/// Runs `f` on a line with interrupts off, as interrupt handlers write to the log too.
fn with<R>(line: &Mutex<Uart>, f: impl FnOnce(&mut Uart) -> R) -> R {
    let flags = irq::save();
    let result = f(&mut line.lock());
    irq::restore(flags);
    result
}

/// Writes bytes a FIFO at a time, so that interrupts are never off for long.
fn write(line: &Mutex<Uart>, bytes: &[u8]) {
    let mut rest = bytes;
    while !rest.is_empty() {
        let sent = with(line, |uart| uart.send_bytes(rest));
        rest = &rest[sent..];
    }
}

pub(super) fn log_write(bytes: &[u8]) {
    write(&LOG, bytes);
}

pub(super) fn stdout_write(bytes: &[u8]) {
    write(&STDOUT, bytes);
}

pub(super) fn stderr_write(bytes: &[u8]) {
    write(&STDERR, bytes);
}

/// A byte that has arrived for stdin.
pub(super) fn stdin_read() -> Option<u8> {
    with(&STDOUT, |uart| uart.try_receive_byte().ok())
}

/// Lets the console's UART interrupt when bytes arrive, or not.
pub(super) fn stdin_interrupt(on: bool) {
    with(&STDOUT, |uart| match on {
        true => uart.enable_interrupts(IER::DATA_READY),
        false => uart.disable_interrupts(IER::DATA_READY),
    });
}

/// Waits until everything written has left all four lines, as the host may read slowly. Takes no lock, whose holder may be gone: for the
/// end of the machine. A line that is not there reads as empty.
///
/// # Safety
/// Nobody writes to the lines any more.
pub(super) unsafe fn drain() {
    for line in [&LOG, &CONTROL, &STDOUT, &STDERR] {
        // SAFETY: the caller promises that no holder goes on.
        unsafe { line.force_unlock() };
        while !line.lock().lsr().contains(LSR::TRANSMITTER_EMPTY) {
            core::hint::spin_loop();
        }
    }
}

/// Formats into the control line.
pub(super) struct Control;

impl fmt::Write for Control {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        write(&CONTROL, text.as_bytes());
        Ok(())
    }
}

/// Formats into the log.
pub(super) struct Log;

impl fmt::Write for Log {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        log_write(text.as_bytes());
        Ok(())
    }
}

/// Takes the locks of the log and control lines from whoever holds them: for a panic, after which nobody else writes.
///
/// # Safety
/// Only this CPU runs, and it never returns to the holder.
pub(super) unsafe fn break_locks() {
    for line in [&LOG, &CONTROL] {
        // SAFETY: the caller promises that the holder never goes on.
        unsafe { line.force_unlock() };
    }
}
