//! A later step that was not reached through the earlier ones cannot be made, nor looked into.
use kernel::order::{AfterError, AfterSignal, FaultOutcome};

fn skip_signal(outcome: FaultOutcome<'_>) -> AfterSignal<'_> {
    AfterSignal(outcome.outcome)
}

fn skip_error(outcome: AfterSignal<'_>) -> AfterError<'_> {
    AfterError(outcome.0)
}

fn main() {
    let _ = skip_error(skip_signal(FaultOutcome::retry()));
}
