//! The console: the first program's stdin, stdout and stderr on serial lines (docs/machine-protocol.md).
//!
//! Input is decoded in the interrupt handler into a ring. When the ring is full the interrupt is turned off, the line's own buffer
//! fills, and the host waits; reading turns it on again. Output is written in pieces, so that interrupts are never off for long.
//!
//! Lock rank: FILES for the ring, with interrupts off.

use crate::arch::machine;
use crate::fs::poll::PollQueue;
use crate::fs::stream::PollEvents;
use crate::sched::WaitQueue;
use crate::sync::{IrqLock, rank};

mod input;

pub use input::{Input, Item};

/// Which serial line output goes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Output {
    Stdout,
    Stderr,
}

static INPUT: IrqLock<Input> = IrqLock::new(rank::FILES, Input::new());
static READERS: WaitQueue = WaitQueue::new();
static WATCHERS: PollQueue = PollQueue::new();

/// Starts input. Once, at bring-up.
pub fn init() {
    crate::arch::irq::register(machine::STDIN_IRQ, interrupt);
    machine::stdin_interrupt(true);
}

/// The line has bytes.
fn interrupt() {
    let mut input = INPUT.lock();
    let got = receive(&mut input);
    drop(input);
    if got {
        READERS.wake_all();
        WATCHERS.tell(PollEvents::READABLE);
    }
}

/// Takes what the line has into the ring, as far as there is room; whether there was anything.
fn receive(input: &mut Input) -> bool {
    let mut got = false;
    while input.has_room() {
        match machine::stdin_read() {
            Some(byte) => {
                input.receive(byte);
                got = true;
            }
            None => return got,
        }
    }
    machine::stdin_interrupt(false);
    got
}

/// The input ring, for a short look. After items were taken [`refill`] goes on receiving.
pub fn with_input<R>(look: impl FnOnce(&mut Input) -> R) -> R {
    look(&mut INPUT.lock())
}

/// Receives what the line kept back while the ring was full.
pub fn refill() {
    let mut input = INPUT.lock();
    if input.was_full() && input.has_room() {
        machine::stdin_interrupt(true);
        receive(&mut input);
    }
}

/// Waiters for input.
pub fn readers() -> &'static WaitQueue {
    &READERS
}

/// Those who want to be told of input.
pub fn watchers() -> &'static PollQueue {
    &WATCHERS
}

/// Writes bytes as they are. Keep pieces small: the line is slow.
pub fn write(output: Output, bytes: &[u8]) {
    match output {
        Output::Stdout => machine::stdout_write(bytes),
        Output::Stderr => machine::stderr_write(bytes),
    }
}
