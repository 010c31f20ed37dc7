//! Errors before signals.
use kernel::order::{FaultError, FaultOutcome};

fn error_of(outcome: FaultOutcome<'_>) -> Option<FaultError> {
    outcome.check_error().err()
}

fn main() {
    assert_eq!(error_of(FaultOutcome::retry()), None);
}
