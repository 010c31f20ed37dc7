//! Random memory calls and accesses inside an arena of its own: `mm-fuzz FIRST COUNT [STEPS]`. For each of COUNT seeds from FIRST on it
//! makes STEPS (50) steps and prints one line: the seed and a number made of every result, errno, byte read, signal and permission.
//! With COUNT 1 it prints the steps too. The output is the same on every correct kernel.

use std::fmt::Write;
use std::process::ExitCode;

use nix::sys::signal::SaFlags;
use userspace::memory::PAGE;
use userspace::probe;
use userspace::rng::Rng;

/// The arena: nothing else is mapped here.
const ARENA: usize = 0x2000_0000_0000;
/// Pages that the calls reach, so that they meet each other.
const PAGES: usize = 48;
/// Where a mapping lives that mremap(2) moves, with nothing beside it that could join it.
const MOVING: usize = 1024;
const SPAN: usize = 64 << 20;
/// Pages of the file.
const FILE_PAGES: usize = 24;

const ADVICE: [i32; 14] = [
    libc::MADV_NORMAL,
    libc::MADV_RANDOM,
    libc::MADV_SEQUENTIAL,
    libc::MADV_WILLNEED,
    libc::MADV_DONTNEED,
    libc::MADV_DONTNEED,
    libc::MADV_REMOVE,
    libc::MADV_DONTFORK,
    libc::MADV_DOFORK,
    libc::MADV_WIPEONFORK,
    libc::MADV_KEEPONFORK,
    libc::MADV_POPULATE_READ,
    libc::MADV_POPULATE_WRITE,
    4242,
];

fn main() -> ExitCode {
    let number = |at: usize, default: u64| {
        std::env::args()
            .nth(at)
            .map_or(Ok(default), |text| text.parse::<u64>())
    };
    let (Ok(first), Ok(count), Ok(steps)) = (number(1, 1), number(2, 1), number(3, 50)) else {
        eprintln!("usage: mm-fuzz FIRST COUNT [STEPS]");
        return ExitCode::from(2);
    };
    probe::catch_faults(SaFlags::empty()).expect("sigaction");
    for seed in first..first + count {
        let mut run = Run::new(seed);
        for _ in 0..steps {
            run.step();
        }
        run.permissions();
        if count == 1 {
            print!("{}", run.log);
        }
        println!("{seed}: {:016x}", hash(&run.log));
        run.end();
    }
    ExitCode::SUCCESS
}

/// 64-bit FNV-1a.
fn hash(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3)
    })
}

/// One seed's run.
struct Run {
    rng: Rng,
    log: String,
    memfd: i32,
    /// The mapping that moves: page and length in pages.
    moving: Option<(usize, usize)>,
}

impl Run {
    fn new(seed: u64) -> Run {
        // SAFETY: a new descriptor, filled with bytes of our own.
        let memfd = unsafe {
            let memfd = libc::memfd_create(c"fuzz".as_ptr(), 0);
            for page in 0..FILE_PAGES {
                let bytes = [page as u8 + 1; PAGE];
                libc::pwrite(memfd, bytes.as_ptr().cast(), PAGE, (page * PAGE) as i64);
            }
            memfd
        };
        Run {
            rng: Rng::new(seed),
            log: String::new(),
            memfd,
            moving: None,
        }
    }

    fn end(self) {
        // SAFETY: the arena and the descriptor are this run's own.
        unsafe {
            libc::munmap(ARENA as *mut libc::c_void, SPAN);
            libc::close(self.memfd);
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
        const PROTECTIONS: [i32; 6] = [0, 1, 3, 3, 5, 7];
        PROTECTIONS[self.rng.below(PROTECTIONS.len())]
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

    fn step(&mut self) {
        match self.rng.below(20) {
            0..=3 => self.map_anonymous(),
            4..=5 => self.map_file(),
            6 => self.unmap(),
            7..=8 => self.protect(),
            9..=10 => self.advise(),
            11 => self.lock(),
            12 => self.sync(),
            13..=14 => self.remap(),
            15..=17 => self.store(),
            _ => self.load(),
        }
    }

    fn map(&mut self, prot: i32, flags: i32, fd: i32, offset: usize) {
        let (addr, len) = (self.addr(), self.len());
        // SAFETY: only the arena's memory is replaced, and nobody keeps anything there.
        let result = unsafe {
            libc::mmap(
                addr as *mut libc::c_void,
                len,
                prot,
                flags,
                fd,
                offset as i64,
            )
        } as i64;
        self.note(
            format_args!(
                "mmap {:#x} {len:#x} {prot} {flags:#x} {} {offset:#x}",
                addr - ARENA,
                fd >= 0
            ),
            result,
        );
    }

    fn map_anonymous(&mut self) {
        const PLACES: [i32; 5] = [
            libc::MAP_FIXED,
            libc::MAP_FIXED,
            libc::MAP_FIXED,
            libc::MAP_FIXED_NOREPLACE,
            libc::MAP_FIXED | libc::MAP_POPULATE,
        ];
        const KINDS: [i32; 5] = [
            libc::MAP_PRIVATE,
            libc::MAP_PRIVATE,
            libc::MAP_PRIVATE | libc::MAP_NORESERVE,
            libc::MAP_SHARED,
            0,
        ];
        let flags = PLACES[self.rng.below(5)] | KINDS[self.rng.below(5)] | libc::MAP_ANONYMOUS;
        let prot = self.prot();
        self.map(prot, flags, -1, 0);
    }

    fn map_file(&mut self) {
        let kind = [libc::MAP_PRIVATE, libc::MAP_SHARED][self.rng.below(2)];
        let (prot, offset) = (self.prot(), self.rng.below(FILE_PAGES) * PAGE);
        self.map(prot, kind | libc::MAP_FIXED, self.memfd, offset);
    }

    fn unmap(&mut self) {
        let (addr, len) = (self.addr(), self.len());
        // SAFETY: only the arena's memory goes.
        let result = unsafe { libc::munmap(addr as *mut libc::c_void, len) };
        self.note(
            format_args!("munmap {:#x} {len:#x}", addr - ARENA),
            result.into(),
        );
    }

    fn protect(&mut self) {
        let (addr, len, prot) = (self.addr(), self.len(), self.prot());
        // SAFETY: only the arena's memory changes.
        let result = unsafe { libc::mprotect(addr as *mut libc::c_void, len, prot) };
        self.note(
            format_args!("mprotect {:#x} {len:#x} {prot}", addr - ARENA),
            result.into(),
        );
    }

    fn advise(&mut self) {
        let (addr, len) = (self.addr(), self.len());
        let advice = ADVICE[self.rng.below(ADVICE.len())];
        // SAFETY: only the arena's memory changes.
        let result = unsafe { libc::madvise(addr as *mut libc::c_void, len, advice) };
        self.note(
            format_args!("madvise {:#x} {len:#x} {advice}", addr - ARENA),
            result.into(),
        );
    }

    fn lock(&mut self) {
        let (addr, len, locks) = (self.addr(), self.len(), self.rng.below(2) == 0);
        // SAFETY: locking changes no contents.
        let result = unsafe {
            if locks {
                libc::mlock(addr as *const libc::c_void, len)
            } else {
                libc::munlock(addr as *const libc::c_void, len)
            }
        };
        self.note(
            format_args!("lock {locks} {:#x} {len:#x}", addr - ARENA),
            result.into(),
        );
    }

    fn sync(&mut self) {
        let (addr, len) = (self.addr(), self.len());
        let flags = [libc::MS_SYNC, libc::MS_ASYNC, libc::MS_INVALIDATE][self.rng.below(3)];
        let mut vec = [0u8; 16];
        // SAFETY: `vec` has a byte for each of the at most 12 pages.
        let (sync, core) = unsafe {
            let sync = libc::msync(addr as *mut libc::c_void, len, flags);
            let noted = std::io::Error::last_os_error().raw_os_error();
            let core = libc::mincore(addr as *mut libc::c_void, len, vec.as_mut_ptr());
            ((sync, noted.filter(|_| sync < 0)), core)
        };
        self.note(
            format_args!(
                "msync {:#x} {len:#x} {flags} is {sync:?}, mincore",
                addr - ARENA
            ),
            core.into(),
        );
    }

    /// mremap(2) of a mapping that is alone.
    fn remap(&mut self) {
        let Some((page, len)) = self.moving else {
            let len = 1 + self.rng.below(8);
            // SAFETY: that part of the arena is empty.
            let result = unsafe {
                libc::mmap(
                    (ARENA + MOVING * PAGE) as *mut libc::c_void,
                    len * PAGE,
                    3,
                    libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED,
                    -1,
                    0,
                )
            } as i64;
            self.moving = Some((MOVING, len));
            return self.note(format_args!("mmap to move {len}"), result);
        };
        let new_len = 1 + self.rng.below(12);
        let to = MOVING + 64 * (1 + self.rng.below(4));
        let moves = to != page && self.rng.below(2) == 0;
        let old = (ARENA + page * PAGE) as *mut libc::c_void;
        let new = (ARENA + to * PAGE) as *mut libc::c_void;
        // SAFETY: only the arena's memory moves.
        let result = unsafe {
            if moves {
                let flags = libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED;
                libc::mremap(old, len * PAGE, new_len * PAGE, flags, new)
            } else {
                libc::mremap(old, len * PAGE, new_len * PAGE, 0)
            }
        } as i64;
        if result != -1 {
            self.moving = Some((if moves { to } else { page }, new_len));
        }
        self.note(
            format_args!("mremap {page} {len} to {new_len} {moves} {to}"),
            result,
        );
    }

    /// An address in the pages of the other calls, or in the mapping that moves.
    fn target(&mut self) -> usize {
        let inside = self.rng.below(PAGE / 8) * 8;
        match self.moving {
            Some((page, len)) if self.rng.below(4) == 0 => {
                ARENA + (page + self.rng.below(len + 1)) * PAGE + inside
            }
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
        let fault = probe::take_fault()
            .map(|fault| (fault.signo, fault.code, fault.addr.wrapping_sub(ARENA)));
        writeln!(self.log, "{what} {:#x}: {seen:x?} {fault:x?}", addr - ARENA).expect("a string");
    }

    /// The permissions of each page that the calls can reach, as /proc/self/maps has them.
    fn permissions(&mut self) {
        let maps = std::fs::read_to_string("/proc/self/maps").expect("maps");
        for line in maps.lines() {
            let Some((range, rest)) = line.split_once(' ') else {
                continue;
            };
            let Some((start, end)) = range.split_once('-') else {
                continue;
            };
            let address = |text| usize::from_str_radix(text, 16).unwrap_or(0);
            let (start, end) = (address(start), address(end));
            if start < ARENA || end > ARENA + SPAN {
                continue;
            }
            for page in (start..end).step_by(PAGE) {
                writeln!(self.log, "{:#x} {}", page - ARENA, &rest[..4]).expect("a string");
            }
        }
    }
}
