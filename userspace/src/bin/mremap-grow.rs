//! An array that grows by mremap(2): its pages move to where there is room, and nothing is copied.

use std::os::unix::fs::FileExt;
use std::process::ExitCode;

use nix::sys::resource::{UsageWho, getrusage};
use userspace::memory::PAGE;
use userspace::report::Demo;

const FIRST: usize = 16;
const LAST: usize = 1024;

fn main() -> ExitCode {
    let mut demo = Demo::start(
        "mremap-grow",
        "an array grows and moves without a copy: its pages go with it",
    );
    demo.step(format_args!("fill an array of {FIRST} pages"));
    let mut array = Array::new(FIRST);
    array.fill(0);
    demo.check(array.holds(array.pages), "it has what was written");
    doubles(&mut demo, &mut array);
    leaves_its_place(&mut demo, &mut array);
    demo.step("shrink it");
    let start = array.base;
    demo.check_eq(array.resize(FIRST, 0), Ok(()), "mremap");
    demo.check_eq(array.base, start, "it stays where it is");
    demo.check(array.holds(FIRST), "with its first pages");
    demo.check_eq(
        is_mapped(start + FIRST * PAGE),
        false,
        "and without the others",
    );
    demo.finish()
}

fn doubles(demo: &mut Demo, array: &mut Array) {
    while array.pages < LAST {
        let (old, pages) = (array.base, array.pages);
        // Whatever the kernel has put behind the array, this is in its way.
        let obstacle = map(old + pages * PAGE, PAGE);
        demo.step(format_args!(
            "double its {pages} pages, with no room behind"
        ));
        demo.check_eq(
            array.resize(2 * pages, 0),
            Err(libc::ENOMEM),
            "it cannot grow where it is: ENOMEM",
        );
        let (frames, before) = (array.frames(pages), minor_faults());
        demo.check_eq(
            array.resize(2 * pages, libc::MREMAP_MAYMOVE),
            Ok(()),
            "with MREMAP_MAYMOVE it can",
        );
        let kept = array.holds(pages);
        let faults = minor_faults() - before;
        demo.check(array.base != old, "it has moved");
        demo.check(kept, "all pages have their contents");
        demo.varies(format_args!("{faults} minor faults"));
        demo.check(faults < pages as i64 / 2, "and were not made anew");
        demo.check_eq(is_mapped(old), false, "nothing is left at the old place");
        match frames {
            Some(frames) => demo.check_here(
                array.frames(pages).is_some_and(|now| now == frames),
                "each has the frame that it had",
            ),
            None => demo.varies("frame numbers are not shown to this user"),
        }
        array.fill(pages);
        demo.check(array.holds(2 * pages), "the new half can be used");
        if let Some(obstacle) = obstacle {
            unmap(obstacle, PAGE);
        }
    }
}

/// MREMAP_DONTUNMAP: the pages go, the mapping stays.
fn leaves_its_place(demo: &mut Demo, array: &mut Array) {
    demo.step("move the pages and leave the mapping (MREMAP_DONTUNMAP)");
    let (old, pages) = (array.base, array.pages);
    demo.check_eq(
        array.resize(pages, libc::MREMAP_MAYMOVE | libc::MREMAP_DONTUNMAP),
        Ok(()),
        "mremap",
    );
    demo.check(array.base != old, "the pages are elsewhere");
    demo.check(array.holds(pages), "with their contents");
    let left = Array { base: old, pages };
    demo.check(
        (0..pages).all(|page| left.read(page) == 0),
        "the old place is there, with zeros",
    );
    drop(left);
}

/// Pages that each hold their own number.
struct Array {
    base: usize,
    pages: usize,
}

impl Array {
    fn new(pages: usize) -> Self {
        let base = map(0, pages * PAGE).expect("mmap");
        Self { base, pages }
    }

    fn resize(&mut self, pages: usize, flags: libc::c_int) -> Result<(), i32> {
        // SAFETY: the array's own mapping, into which there are no references.
        let new = unsafe {
            libc::mremap(
                self.base as *mut libc::c_void,
                self.pages * PAGE,
                pages * PAGE,
                flags,
            )
        };
        if new == libc::MAP_FAILED {
            return Err(std::io::Error::last_os_error().raw_os_error().unwrap_or(0));
        }
        (self.base, self.pages) = (new as usize, pages);
        Ok(())
    }

    fn at(&self, page: usize) -> *mut u64 {
        assert!(page < self.pages);
        (self.base + page * PAGE) as *mut u64
    }

    fn read(&self, page: usize) -> u64 {
        // SAFETY: inside the mapping.
        unsafe { self.at(page).read_volatile() }
    }

    /// Writes the pages from `from` on.
    fn fill(&mut self, from: usize) {
        for page in from..self.pages {
            // SAFETY: inside the mapping.
            unsafe { self.at(page).write_volatile(!(page as u64)) };
        }
    }

    /// Whether the first `pages` pages hold what `fill` wrote.
    fn holds(&self, pages: usize) -> bool {
        (0..pages).all(|page| self.read(page) == !(page as u64))
    }

    /// The frame numbers of the first `pages` pages, if this user may see them (they read as 0 otherwise).
    fn frames(&self, pages: usize) -> Option<Vec<u64>> {
        let mut entries = vec![0; pages * 8];
        let pagemap = std::fs::File::open("/proc/self/pagemap").ok()?;
        pagemap
            .read_exact_at(&mut entries, (self.base / PAGE * 8) as u64)
            .ok()?;
        let entries = entries.chunks_exact(8);
        let frames: Vec<u64> = entries
            .map(|entry| u64::from_le_bytes(entry.try_into().unwrap_or_default()) & ((1 << 55) - 1))
            .collect();
        frames.iter().all(|&frame| frame != 0).then_some(frames)
    }
}

impl Drop for Array {
    fn drop(&mut self) {
        unmap(self.base, self.pages * PAGE);
    }
}

/// New memory at `address` (anywhere for 0), or nothing if something is there already. No huge pages: one touch is one page.
fn map(address: usize, len: usize) -> Option<usize> {
    let fixed = if address == 0 {
        0
    } else {
        libc::MAP_FIXED_NOREPLACE
    };
    // SAFETY: MAP_FIXED_NOREPLACE never takes memory that is already mapped; the advice is on our own mapping.
    unsafe {
        let new = libc::mmap(
            address as *mut libc::c_void,
            len,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | fixed,
            -1,
            0,
        );
        if new == libc::MAP_FAILED {
            return None;
        }
        if address == 0 {
            libc::madvise(new, len, libc::MADV_NOHUGEPAGE);
        }
        Some(new as usize)
    }
}

fn unmap(address: usize, len: usize) {
    // SAFETY: a mapping of ours without references into it.
    unsafe { libc::munmap(address as *mut libc::c_void, len) };
}

/// Whether anything is mapped at `address`: mincore(2) gives ENOMEM if not.
fn is_mapped(address: usize) -> bool {
    let mut resident = 0;
    // SAFETY: one page, one byte for it.
    unsafe { libc::mincore(address as *mut libc::c_void, PAGE, &mut resident) == 0 }
}

fn minor_faults() -> i64 {
    getrusage(UsageWho::RUSAGE_SELF).map_or(0, |usage| usage.minor_page_faults())
}
