//! fork(2) as a consistent snapshot: the child sums a data structure at leisure while the parent goes on changing it, and what the
//! parent writes costs it one copied page each, once.

use std::process::ExitCode;

use nix::sys::resource::{UsageWho, getrusage};
use userspace::memory::{PAGE, RW, Region};
use userspace::process::{self, Ended, Line};
use userspace::report::Demo;

const PAGES: usize = 256;
/// Accounts, eight bytes each. Transfers between them keep their total.
const ACCOUNTS: usize = PAGES * PAGE / 8;
const EACH: u64 = 1000;
/// Pages that the transfers touch.
const BUSY: usize = 96;
const ROUNDS: usize = 4;

fn main() -> ExitCode {
    let mut demo = Demo::start(
        "snapshot",
        "a child sums what memory was at fork while the parent goes on writing",
    );
    demo.step(format_args!("open {ACCOUNTS} accounts on {PAGES} pages"));
    let bank = Region::anonymous(PAGES * PAGE, RW).expect("mmap");
    let results = Region::shared(PAGE).expect("mmap");
    (0..ACCOUNTS).for_each(|account| set(&bank, account, EACH));
    let total = EACH * ACCOUNTS as u64;
    demo.check_eq(sum(&bank), total, "the total is right");

    demo.step("half of a transfer is made; fork; the parent goes on");
    set(&bank, 0, EACH - 7);
    let at_fork = (sum(&bank), digest(&bank));
    let (mut line, mut child_line) = Line::pair().expect("pipe");
    let child = process::child(|| {
        let first = (sum(&bank), digest(&bank));
        let told = child_line.signal().and_then(|()| child_line.wait());
        let second = (sum(&bank), digest(&bank));
        results.write_u64(0, second.0);
        results.write_u64(8, second.1);
        i32::from(told.is_err()) | i32::from(first != second) << 1
    })
    .expect("fork");
    let before = minor_faults();
    set(&bank, 1, EACH + 7);
    transfer(&bank, 1);
    let first_round = minor_faults() - before;
    demo.check_eq(sum(&bank), total, "the parent's own total is right again");
    line.wait().expect("the child has summed once");

    demo.step("the parent changes the same pages again and again, then the child sums once more");
    let before = minor_faults();
    (2..=ROUNDS).for_each(|round| transfer(&bank, round));
    let later_rounds = minor_faults() - before;
    line.signal().expect("pipe");
    demo.check_eq(
        process::wait(child).expect("wait"),
        Ended::Exited(0),
        "the child saw the same both times",
    );
    demo.check_eq(
        (results.read_u64(0), results.read_u64(8)),
        at_fork,
        "and that was memory as it was at fork, with half a transfer",
    );
    demo.check(digest(&bank) != at_fork.1, "the parent's is another");
    demo.check_eq(sum(&bank), total, "with the right total");

    demo.step("count what the snapshot cost the parent");
    demo.varies(format_args!(
        "{first_round} minor faults when the pages were written first, {later_rounds} later"
    ));
    demo.check(
        first_round >= BUSY as i64 && first_round < PAGES as i64,
        format_args!("one for each of the {BUSY} pages written, none for the others"),
    );
    demo.check(later_rounds < BUSY as i64 / 2, "a page is copied once");
    demo.finish()
}

/// Moves money between accounts on the first [`BUSY`] pages: each page is written, the total stays.
fn transfer(bank: &Region, round: usize) {
    for page in 0..BUSY {
        let from = page * (PAGE / 8) + 2 + round;
        let to = (page + 1) % BUSY * (PAGE / 8) + 100 + round;
        let amount = 1 + (page + round) as u64 % 50;
        set(bank, from, get(bank, from) - amount);
        set(bank, to, get(bank, to) + amount);
    }
}

fn get(bank: &Region, account: usize) -> u64 {
    bank.read_u64(account * 8)
}

fn set(bank: &Region, account: usize, amount: u64) {
    bank.write_u64(account * 8, amount);
}

fn sum(bank: &Region) -> u64 {
    (0..ACCOUNTS).map(|account| get(bank, account)).sum()
}

/// Differs where any account differs (FNV-1a over the amounts).
fn digest(bank: &Region) -> u64 {
    (0..ACCOUNTS).fold(0xcbf2_9ce4_8422_2325, |hash: u64, account| {
        (hash ^ get(bank, account)).wrapping_mul(0x0100_0000_01b3)
    })
}

fn minor_faults() -> i64 {
    getrusage(UsageWho::RUSAGE_SELF).map_or(0, |usage| usage.minor_page_faults())
}
