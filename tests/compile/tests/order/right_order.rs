//! Signal, error, retry.
use kernel::order::PtRegs;
use kernel::order::{FaultError, FaultOutcome, Last, SignalPending};

#[derive(Debug, PartialEq)]
enum Verdict {
    Signal(SignalPending),
    Error(FaultError),
    Last(Last),
}

fn decide(outcome: FaultOutcome<'_>, regs: &PtRegs) -> Verdict {
    let outcome = match outcome.check_signal(regs) {
        Ok(outcome) => outcome,
        Err(pending) => return Verdict::Signal(pending),
    };
    match outcome.check_error() {
        Ok(outcome) => Verdict::Last(outcome.finish()),
        Err(error) => Verdict::Error(error),
    }
}

fn main() {
    let regs = PtRegs::kernel();
    assert_eq!(decide(FaultOutcome::completed(), &regs), Verdict::Last(Last::Finished));
}
