//! Random memory calls and accesses inside an arena of its own: `mm-fuzz FIRST COUNT [STEPS [old]]`. For each of COUNT seeds from FIRST on
//! it makes STEPS (50) steps and prints one line: the seed and a number made of every result, errno, byte read, signal and area.
//! With COUNT 1 it prints the steps too. The output is the same on every correct kernel; with `old` what Linux did differently before
//! 6.17 is left out.

mod areas;
mod calls;
mod child;
mod remap;

use std::fmt::Write;
use std::process::ExitCode;

use nix::sys::signal::SaFlags;
use userspace::memory::{PAGE, checksum};
use userspace::probe;
use userspace::rng::Rng;

/// The arena: nothing else is mapped here, nor in [`BELOW`] pages below it.
const ARENA: usize = 0x2000_0000_0000;
/// Pages that the calls reach, so that they meet each other.
const PAGES: usize = 48;
/// Pages below the arena into which areas with MAP_GROWSDOWN may grow: less than the limit of a stack.
const BELOW: usize = 400;
const SPAN: usize = 64 << 20;
/// Pages of the file.
const FILE_PAGES: usize = 24;

fn main() -> ExitCode {
    let number = |at: usize, default: u64| {
        std::env::args()
            .nth(at)
            .map_or(Ok(default), |text| text.parse::<u64>())
    };
    let (Ok(first), Ok(count), Ok(steps)) = (number(1, 1), number(2, 1), number(3, 50)) else {
        eprintln!("usage: mm-fuzz FIRST COUNT [STEPS [old]]");
        return ExitCode::from(2);
    };
    let old = std::env::args().nth(4).is_some_and(|text| text == "old");
    probe::catch_faults(SaFlags::empty()).expect("sigaction");
    for seed in first..first + count {
        let mut run = Run::new(seed, old);
        for step in 1..=steps {
            run.step();
            if step % 16 == 0 {
                run.areas();
            }
        }
        run.areas();
        if count == 1 {
            print!("{}", run.log);
        }
        println!("{seed}: {:016x}", checksum(run.log.bytes()));
        run.end();
    }
    ExitCode::SUCCESS
}

/// One seed's run.
struct Run {
    rng: Rng,
    log: String,
    old: bool,
    /// The file, and the same open for reading only.
    memfd: i32,
    readonly: i32,
    /// For `old`: the mapping that moves, page and length in pages.
    moving: Option<(usize, usize)>,
}

impl Run {
    fn new(seed: u64, old: bool) -> Run {
        // SAFETY: new descriptors, filled with bytes of our own.
        let (memfd, readonly) = unsafe {
            let memfd = libc::memfd_create(c"fuzz".as_ptr(), 0);
            for page in 0..FILE_PAGES {
                let bytes = [page as u8 + 1; PAGE];
                libc::pwrite(memfd, bytes.as_ptr().cast(), PAGE, (page * PAGE) as i64);
            }
            let path = format!("/proc/self/fd/{memfd}\0");
            let readonly = libc::open(path.as_ptr().cast(), libc::O_RDONLY);
            assert!(readonly >= 0, "the file cannot be opened again");
            (memfd, readonly)
        };
        Run {
            rng: Rng::new(seed),
            log: String::new(),
            old,
            memfd,
            readonly,
            moving: None,
        }
    }

    fn end(self) {
        // SAFETY: the arena and the descriptors are this run's own.
        unsafe {
            libc::munlockall();
            let low = ARENA - BELOW * PAGE;
            libc::munmap(low as *mut libc::c_void, BELOW * PAGE + SPAN);
            libc::close(self.memfd);
            libc::close(self.readonly);
        }
    }

    fn step(&mut self) {
        match self.rng.below(32) {
            0..=6 => self.map_anonymous(),
            7..=8 => self.map_file(),
            9..=10 => self.unmap(),
            11..=13 => self.protect(),
            14..=16 => self.advise(),
            17..=18 => self.lock(),
            19 => self.sync(),
            20..=21 if self.old => self.move_alone(),
            20..=22 => self.remap(),
            23..=26 => self.store(),
            27..=28 => self.load(),
            29 => self.file_access(),
            30 => self.truncate(),
            _ => self.fork(),
        }
    }

    fn page(&mut self) -> usize {
        ARENA + self.rng.below(PAGES) * PAGE
    }

    /// Mostly a few pages; now and then none, or not whole ones.
    fn len(&mut self) -> usize {
        match self.rng.below(16) {
            0 => 0,
            1 => self.rng.below(4 * PAGE),
            _ => (1 + self.rng.below(12)) * PAGE,
        }
    }

    /// Now and then not the start of a page.
    fn addr(&mut self) -> usize {
        let page = self.page();
        if self.rng.below(24) == 0 {
            page + 8
        } else {
            page
        }
    }

    fn prot(&mut self) -> i32 {
        const PROTECTIONS: [i32; 10] = [0, 1, 3, 3, 3, 3, 5, 7, 2, 4];
        PROTECTIONS[self.rng.below(PROTECTIONS.len())]
    }

    /// One of a few.
    fn choose<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.rng.below(from.len())]
    }

    /// Notes what a call gave back: an address as an offset in the arena.
    fn note(&mut self, call: std::fmt::Arguments<'_>, result: i64) {
        let text = match result {
            -1 => format!(
                "errno {}",
                std::io::Error::last_os_error().raw_os_error().unwrap_or(0)
            ),
            at if (ARENA..ARENA + SPAN).contains(&(at as usize)) => {
                format!("at {:#x}", at as usize - ARENA)
            }
            at if at > 0xffff => "elsewhere".into(),
            value => value.to_string(),
        };
        writeln!(self.log, "{call}: {text}").expect("a string");
    }

    /// An address in the pages of the calls, in the mapping that moves, or below, where areas may grow.
    fn target(&mut self) -> usize {
        let inside = self.rng.below(PAGE / 8) * 8;
        match (self.moving, self.rng.below(8)) {
            (Some((page, len)), 0..=1) => ARENA + (page + self.rng.below(len + 1)) * PAGE + inside,
            (_, 7) => ARENA - (1 + self.rng.below(BELOW)) * PAGE + inside,
            _ => self.page() + inside,
        }
    }

    fn load(&mut self) {
        let addr = self.target();
        let seen = probe::load(addr);
        self.access("load", addr, seen.map(|value| value as i64));
    }

    fn store(&mut self) {
        let (addr, value) = (self.target(), self.rng.bits());
        // SAFETY: the arena holds nobody's data.
        let done = unsafe { probe::store(addr, value) };
        self.access("store", addr, done.then_some(0));
    }

    fn access(&mut self, what: &str, addr: usize, seen: Option<i64>) {
        let fault = probe::take_fault().map(|fault| {
            (
                fault.signo,
                fault.code,
                fault.addr as isize - ARENA as isize,
            )
        });
        let at = areas::offset(addr);
        writeln!(self.log, "{what} {at}: {seen:x?} {fault:x?}").expect("a string");
    }
}
