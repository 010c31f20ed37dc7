//! Memory that a handler thread fills from a file, page by page, when it is touched: by user code, or by a system call on its behalf.

use std::fs::File;
use std::io::{Read, Write};
use std::os::unix::fs::FileExt;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::thread;

use userfaultfd::{Event, FaultKind, Uffd, UffdBuilder};
use userspace::memory::{PAGE, RW, Region};
use userspace::report::Demo;
use userspace::{process, slow};

/// Pages that are touched one by one.
const TOUCHED: usize = 40;
/// Pages that the handler fills at once.
const AHEAD: usize = 16;

static ASKED: AtomicUsize = AtomicUsize::new(0);
static FILLED: AtomicUsize = AtomicUsize::new(0);
/// The next fault is the handler's last.
static LAST: AtomicBool = AtomicBool::new(false);

fn main() -> ExitCode {
    let mut demo = Demo::start(
        "userfaultfd-lazy",
        "a handler thread fills memory from a file when it is touched",
    );
    let file = slow::fast_file().expect("the file");
    let len = file.metadata().expect("fstat").len() as usize;
    let pages = len / PAGE;
    let region = Region::anonymous((pages + 1) * PAGE, RW).expect("mmap");
    demo.step("register memory as large as the file with a userfaultfd");
    let uffd = UffdBuilder::new()
        .close_on_exec(true)
        .user_mode_only(false)
        .create()
        .expect("userfaultfd");
    uffd.register(region.ptr(0).cast(), region.len())
        .expect("register");
    demo.varies(format_args!("{pages} pages, none of them there"));
    let base = region.addr();
    thread::scope(|scope| {
        scope.spawn(|| serve(&uffd, &file, base, pages));
        touch(&mut demo, &file, &region, pages);
        system_call(&mut demo, &file, &region, pages);
        demo.step("touch the page behind the file: the handler answers with zeros, and ends");
        LAST.store(true, SeqCst);
        demo.check_eq(region.read(pages * PAGE), 0, "zeros");
    });
    demo.step("close the userfaultfd: what was not touched is ordinary memory");
    drop(uffd);
    let untouched = (0..pages).rev().find(|&page| !is_touched(page, pages));
    let offset = untouched.expect("a large file") * PAGE;
    demo.check_eq(
        region.read(offset),
        0,
        "a page that was never asked for has zeros",
    );
    demo.check(
        same_page(&file, &region, page_at(0, pages)),
        "filled pages are what they were",
    );
    demo.finish()
}

/// The handler: reads what was touched, and fills it.
fn serve(uffd: &Uffd, file: &File, base: usize, pages: usize) {
    let mut contents = [0; AHEAD * PAGE];
    loop {
        let last = LAST.load(SeqCst);
        let event = uffd.read_event().expect("read").expect("it waits");
        let Event::Pagefault {
            kind: FaultKind::Missing,
            addr,
            ..
        } = event
        else {
            panic!("nothing else was asked for: {event:?}");
        };
        let page = (addr as usize - base) / PAGE;
        ASKED.fetch_add(1, SeqCst);
        let filled = if page == pages {
            // SAFETY: a registered page without contents.
            unsafe { uffd.zeropage(addr, PAGE, true) }
        } else {
            let ahead = if page == 0 { AHEAD } else { 1 };
            let contents = &mut contents[..ahead * PAGE];
            file.read_exact_at(contents, (page * PAGE) as u64)
                .expect("pread");
            // SAFETY: registered pages without contents, and a buffer of their size.
            unsafe { uffd.copy(contents.as_ptr().cast(), addr, contents.len(), true) }
        };
        FILLED.fetch_add(filled.expect("filled") / PAGE, SeqCst);
        if last || page == pages {
            return;
        }
    }
}

/// Where the `n`th touch goes: far from those before it.
fn page_at(n: usize, pages: usize) -> usize {
    AHEAD + n * 7919 % (pages - AHEAD - 1)
}

fn is_touched(page: usize, pages: usize) -> bool {
    page < AHEAD || page == pages - 1 || (0..TOUCHED).any(|n| page_at(n, pages) == page)
}

fn touch(demo: &mut Demo, file: &File, region: &Region, pages: usize) {
    demo.step(format_args!("touch {TOUCHED} pages here and there"));
    let same = (0..TOUCHED).all(|n| same_page(file, region, page_at(n, pages)));
    demo.check(same, "each has the file's bytes");
    let mut different: Vec<usize> = (0..TOUCHED).map(|n| page_at(n, pages)).collect();
    different.sort_unstable();
    different.dedup();
    demo.check_eq(
        ASKED.load(SeqCst),
        different.len(),
        "the handler was asked once for each",
    );
    demo.step(format_args!(
        "touch the first page: the handler fills {AHEAD} at once"
    ));
    let before = ASKED.load(SeqCst);
    let same = (0..AHEAD).all(|page| same_page(file, region, page));
    demo.check(same, "all have the file's bytes");
    demo.check_eq(ASKED.load(SeqCst) - before, 1, "it was asked once");
    region.write(3, !region.read(3));
    demo.check_eq(
        ASKED.load(SeqCst) - before,
        1,
        "writing to what is there asks nobody",
    );
    region.write(3, !region.read(3));
}

fn system_call(demo: &mut Demo, file: &File, region: &Region, pages: usize) {
    demo.step("let write(2) take its bytes from a page that nobody has touched");
    let (mut from, mut to) = process::pipe().expect("pipe");
    let offset = (pages - 1) * PAGE;
    let before = ASKED.load(SeqCst);
    // SAFETY: inside the mapping, which nobody writes to meanwhile; the kernel's access is what fills it.
    let unseen = unsafe { std::slice::from_raw_parts(region.ptr(offset), 64) };
    let written = to.write(unseen).expect("write");
    demo.check_eq(written, 64, "the call took all of them");
    demo.check_eq(
        ASKED.load(SeqCst) - before,
        1,
        "the kernel's own access asked the handler",
    );
    let (mut seen, mut expected) = ([0; 64], [0; 64]);
    from.read_exact(&mut seen).expect("read");
    file.read_exact_at(&mut expected, offset as u64)
        .expect("pread");
    demo.check(seen == expected, "they are the file's");
    demo.varies(format_args!("{} pages filled", FILLED.load(SeqCst)));
}

fn same_page(file: &File, region: &Region, page: usize) -> bool {
    let mut expected = [0; PAGE];
    file.read_exact_at(&mut expected, (page * PAGE) as u64)
        .expect("pread");
    region.bytes(page * PAGE, PAGE) == expected
}
