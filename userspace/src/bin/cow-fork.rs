//! fork(2) copies nothing: parent and child share each page until one of them writes to it, and then each has its own.

use std::process::ExitCode;

use nix::sys::resource::{UsageWho, getrusage};
use userspace::memory::{PAGE, RW, Region};
use userspace::process::{self, Ended, Line};
use userspace::report::Demo;

const PAGES: usize = 64;
/// Parent writes the pages below this, the child those from here on.
const HALF: usize = PAGES / 2;

fn main() -> ExitCode {
    let mut demo = Demo::start(
        "cow-fork",
        "after fork each page is shared until it is written, and then private",
    );

    demo.step(format_args!("fill {PAGES} private pages"));
    let region = Region::anonymous(PAGES * PAGE, RW).expect("mmap");
    fill(&region, 0..PAGES, b'o');
    demo.varies(format_args!("{} minor faults so far", minor_faults()));

    demo.step("fork; parent and child write different halves at the same time");
    let (mut line, child_line) = Line::pair().expect("pipe");
    let before = minor_faults();
    let child = process::child(|| child_side(&region, child_line)).expect("fork");
    fill(&region, 0..HALF, b'p');
    let faults = minor_faults() - before;
    demo.varies(format_args!(
        "the parent took {faults} minor faults for fork and {HALF} writes"
    ));
    line.signal().expect("pipe");
    line.wait().expect("the child has written");
    demo.check(
        holds(&region, 0..HALF, b'p'),
        "the parent has its own writes",
    );
    demo.check(
        holds(&region, HALF..PAGES, b'o'),
        "the parent does not see the child's",
    );

    demo.step("the parent overwrites the child's half; then the child looks again and ends");
    fill(&region, HALF..PAGES, b'q');
    line.signal().expect("pipe");
    demo.check_eq(
        process::wait(child).expect("wait"),
        Ended::Exited(0),
        "the child saw the old contents, then only its own writes",
    );

    demo.step("the child is gone: the parent owns the pages alone and reuses them");
    let before = minor_faults();
    fill(&region, 0..PAGES, b'r');
    demo.varies(format_args!(
        "{} minor faults for {PAGES} writes",
        minor_faults() - before
    ));
    demo.check(
        holds(&region, 0..PAGES, b'r'),
        "the parent's last writes are there",
    );

    demo.step("three generations write the same page in turn, the youngest first");
    demo.check(three_generations(&region), "nobody sees what another wrote");
    demo.finish()
}

fn child_side(region: &Region, mut line: Line) -> i32 {
    let result = (|| {
        line.wait()?;
        let inherited = holds(region, 0..PAGES, b'o');
        fill(region, HALF..PAGES, b'c');
        let own = holds(region, HALF..PAGES, b'c') && holds(region, 0..HALF, b'o');
        line.signal()?;
        line.wait()?;
        let kept = holds(region, HALF..PAGES, b'c') && holds(region, 0..HALF, b'o');
        std::io::Result::Ok(i32::from(!inherited) | i32::from(!own) << 1 | i32::from(!kept) << 2)
    })();
    result.unwrap_or(64)
}

/// Parent, child and grandchild share one page; each writes after the younger one has ended or not, and must see only itself.
fn three_generations(region: &Region) -> bool {
    let child = process::child(|| {
        let grandchild = process::child(|| {
            let inherited = holds(region, 0..1, b'r');
            fill(region, 0..1, b'3');
            i32::from(!(inherited && holds(region, 0..1, b'3')))
        });
        let ended = grandchild.and_then(process::wait);
        let untouched = holds(region, 0..1, b'r');
        fill(region, 0..1, b'2');
        i32::from(
            !(matches!(ended, Ok(Ended::Exited(0))) && untouched && holds(region, 0..1, b'2')),
        )
    });
    let ended = child.and_then(process::wait);
    let untouched = holds(region, 0..1, b'r');
    fill(region, 0..1, b'1');
    matches!(ended, Ok(Ended::Exited(0))) && untouched && holds(region, 0..1, b'1')
}

fn fill(region: &Region, pages: std::ops::Range<usize>, letter: u8) {
    for page in pages {
        region.write_u64(page * PAGE, tag(page, letter));
        region.write_u64((page + 1) * PAGE - 8, tag(page, letter));
    }
}

fn holds(region: &Region, mut pages: std::ops::Range<usize>, letter: u8) -> bool {
    pages.all(|page| {
        let ends = [
            region.read_u64(page * PAGE),
            region.read_u64((page + 1) * PAGE - 8),
        ];
        ends == [tag(page, letter); 2] && region.read(page * PAGE + PAGE / 2) == 0
    })
}

fn tag(page: usize, letter: u8) -> u64 {
    (page as u64) << 8 | u64::from(letter)
}

fn minor_faults() -> i64 {
    getrusage(UsageWho::RUSAGE_SELF).map_or(0, |usage| usage.minor_page_faults())
}
