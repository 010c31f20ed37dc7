//! The retry before signals.
use kernel::order::{FaultOutcome, Last};

fn again(outcome: FaultOutcome<'_>) -> bool {
    outcome.finish() == Last::TryAgain
}

fn main() {
    assert!(again(FaultOutcome::retry()));
}
