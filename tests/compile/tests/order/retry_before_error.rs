//! The retry before errors.
use kernel::order::{AfterSignal, Last};

fn again(outcome: AfterSignal<'_>) -> bool {
    outcome.finish() == Last::TryAgain
}

fn main() {
    let _: fn(AfterSignal<'static>) -> bool = again;
}
