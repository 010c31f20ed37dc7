//! A page-fault storm: `storm [SECONDS] [PROCESSES] [SEED]`. Several processes map, touch, fork, copy on write and unmap as fast as
//! they can while SIGALRM interrupts each of them a thousand times a second. Everything that they read is checked.

use std::fs::File;
use std::io::{self, Seek, SeekFrom};
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::time::{Duration, Instant};

use nix::sys::mman::{MapFlags, ProtFlags};
use nix::sys::signal::{SaFlags, Signal};
use userspace::memory::{PAGE, RW, Region, checksum, page_of};
use userspace::process::{self, Ended};
use userspace::report::Demo;
use userspace::rng::Rng;
use userspace::signals::{self, Caught, SEGV_ACCERR};
use userspace::{registers, slow, time};

/// Interval of each process's timer.
const INTERVAL: Duration = Duration::from_millis(1);
/// Largest anonymous mapping, in pages.
const MOST_PAGES: usize = 64;
/// Pages of the file that are used.
const FILE_PAGES: usize = 256;

static SIGNALS: AtomicU64 = AtomicU64::new(0);
static REPAIRS: AtomicU64 = AtomicU64::new(0);

/// Spoils the vector registers, so that a kernel that loses them spoils the copies and checksums that it interrupts.
extern "C" fn on_alarm(_: libc::c_int, _: *mut libc::siginfo_t, _: *mut libc::c_void) {
    SIGNALS.fetch_add(1, SeqCst);
    registers::clobber();
}

/// Makes a protected page writable; any other fault is a failure, with its own exit status.
extern "C" fn on_segv(_: libc::c_int, info: *mut libc::siginfo_t, context: *mut libc::c_void) {
    // SAFETY: the kernel's own pointers.
    let caught = unsafe { Caught::read(info, context) };
    let page = page_of(caught.addr) as *mut libc::c_void;
    let rw = libc::PROT_READ | libc::PROT_WRITE;
    // SAFETY: a page of the program's own that it protected to see this fault.
    if caught.code != SEGV_ACCERR || unsafe { libc::mprotect(page, PAGE, rw) } != 0 {
        // SAFETY: ends the process at once.
        unsafe { libc::_exit(40) };
    }
    REPAIRS.fetch_add(1, SeqCst);
}

fn main() -> ExitCode {
    let number = |at: usize, default: u64| {
        std::env::args()
            .nth(at)
            .map_or(Ok(default), |text| text.parse())
    };
    let (Ok(seconds), Ok(processes), Ok(seed)) = (number(1, 2), number(2, 4), number(3, 1)) else {
        eprintln!("usage: storm [SECONDS] [PROCESSES] [SEED]");
        return ExitCode::from(2);
    };
    let mut demo = Demo::start(
        "storm",
        "page faults of every kind from several processes under a storm of signals",
    );
    demo.varies(format_args!(
        "{processes} processes, {seconds} s, seed {seed}"
    ));
    let totals = Region::shared(PAGE).expect("mmap");
    let end = Instant::now() + Duration::from_secs(seconds);
    let children: Vec<_> = (0..processes)
        .map(|who| {
            process::child(|| Worker::run(Rng::new(seed ^ who << 32), who, end, &totals))
                .expect("fork")
        })
        .collect();
    for child in children {
        demo.check_eq(
            process::wait(child).expect("wait"),
            Ended::Exited(0),
            "a process found everything as it should be",
        );
    }
    let total = |index: usize| totals.atomic(8 * index).load(SeqCst);
    let rounds: Vec<String> = KINDS
        .iter()
        .enumerate()
        .map(|(i, (name, _))| format!("{} {name}", total(i)))
        .collect();
    demo.varies(format_args!("rounds: {}", rounds.join(", ")));
    demo.varies(format_args!(
        "{} signals, {} repaired faults",
        total(SIGNALS_AT),
        total(REPAIRS_AT)
    ));
    demo.check(
        (0..KINDS.len()).all(|kind| total(kind) > 0),
        "every kind of round was run",
    );
    demo.check(
        total(SIGNALS_AT) > 0 && total(REPAIRS_AT) > 0,
        "signals came, and faults were repaired",
    );
    demo.finish()
}

/// A round says whether everything was right.
type Round = fn(&mut Worker) -> io::Result<bool>;

/// The kinds of rounds, by name, in the order of their counters.
const KINDS: [(&str, Round); 6] = [
    ("anonymous", Worker::anonymous),
    ("fork", Worker::fork),
    ("file", Worker::file),
    ("read", Worker::read),
    ("repair", Worker::repair),
    ("stack", Worker::stack),
];
const SIGNALS_AT: usize = KINDS.len();
const REPAIRS_AT: usize = KINDS.len() + 1;

/// One process of the storm.
struct Worker {
    rng: Rng,
    file: File,
    /// Checksum of each page of the file, by read(2).
    pages: Vec<u64>,
}

impl Worker {
    /// Runs rounds until `end`; the status is 0, or 10 and the kind of round that failed.
    fn run(rng: Rng, who: u64, end: Instant, totals: &Region) -> i32 {
        let Ok(mut worker) = Self::new(rng) else {
            return 2;
        };
        let restart = if who.is_multiple_of(2) {
            SaFlags::SA_RESTART
        } else {
            SaFlags::empty()
        };
        let armed = signals::on(Signal::SIGALRM, restart, on_alarm)
            .and_then(|()| signals::on(Signal::SIGSEGV, SaFlags::empty(), on_segv))
            .and_then(|()| time::set_timer(INTERVAL, INTERVAL));
        if armed.is_err() {
            return 3;
        }
        // Each kind once, then by chance.
        let mut first = 0..KINDS.len();
        while let Some(kind) = first.next().or_else(|| worker.random_kind(end)) {
            match KINDS[kind].1(&mut worker) {
                Ok(true) => totals.atomic(8 * kind).fetch_add(1, SeqCst),
                Ok(false) => return 10 + kind as i32,
                Err(_) => return 20 + kind as i32,
            };
        }
        while SIGNALS.load(SeqCst) == 0 {
            nix::unistd::pause();
        }
        totals
            .atomic(8 * SIGNALS_AT)
            .fetch_add(SIGNALS.load(SeqCst), SeqCst);
        totals
            .atomic(8 * REPAIRS_AT)
            .fetch_add(REPAIRS.load(SeqCst), SeqCst);
        i32::from(time::stop_timer().is_err())
    }

    fn random_kind(&mut self, end: Instant) -> Option<usize> {
        (Instant::now() < end).then(|| self.rng.below(KINDS.len()))
    }

    fn new(rng: Rng) -> io::Result<Self> {
        let file = slow::fast_file()?;
        let count = (file.metadata()?.len() as usize / PAGE).min(FILE_PAGES);
        let page_sum = |page: usize| {
            let mut bytes = [0; PAGE];
            file.read_exact_at(&mut bytes, (page * PAGE) as u64)?;
            Ok(checksum(bytes))
        };
        let pages = (0..count).map(page_sum).collect::<io::Result<Vec<u64>>>()?;
        if pages.is_empty() {
            return Err(io::Error::other("the file has no whole page"));
        }
        Ok(Self { rng, file, pages })
    }

    /// Maps memory, writes a part of it, takes a part away again, and looks at all of it.
    fn anonymous(&mut self) -> io::Result<bool> {
        let count = 1 + self.rng.below(MOST_PAGES);
        let region = Region::anonymous(count * PAGE, RW)?;
        let tags: Vec<u64> = (0..count)
            .map(|_| self.rng.bits() * (self.rng.bits() & 1))
            .collect();
        write_tags(&region, &tags);
        let hidden = self.rng.below(count);
        region.protect(hidden * PAGE, PAGE, ProtFlags::PROT_READ)?;
        let kept = has_tags(&region, &tags);
        region.protect(hidden * PAGE, PAGE, RW)?;
        region.write_u64(hidden * PAGE + 16, 1);
        Ok(kept && has_tags(&region, &tags) && region.read_u64(hidden * PAGE + 16) == 1)
    }

    /// Forks; parent and child write the same pages and must not see each other.
    fn fork(&mut self) -> io::Result<bool> {
        let count = 1 + self.rng.below(MOST_PAGES);
        let region = Region::anonymous(count * PAGE, RW)?;
        let random = |rng: &mut Rng| -> Vec<u64> { (0..count).map(|_| rng.bits() | 1).collect() };
        let (inherited, own, childs) = (
            random(&mut self.rng),
            random(&mut self.rng),
            random(&mut self.rng),
        );
        write_tags(&region, &inherited);
        let child = process::child(|| {
            let before = has_tags(&region, &inherited);
            write_tags(&region, &childs);
            i32::from(!(before && has_tags(&region, &childs)))
        })?;
        write_tags(&region, &own);
        let kept = has_tags(&region, &own);
        Ok(process::wait(child)? == Ended::Exited(0) && kept && has_tags(&region, &own))
    }

    /// Maps the file privately and shared, and writes to the private mapping.
    fn file(&mut self) -> io::Result<bool> {
        let len = self.pages.len() * PAGE;
        let private = Region::file(&self.file, 0, len, RW, MapFlags::MAP_PRIVATE)?;
        let shared = Region::file(
            &self.file,
            0,
            len,
            ProtFlags::PROT_READ,
            MapFlags::MAP_SHARED,
        )?;
        let mut right = true;
        for _ in 0..8 {
            let page = self.rng.below(self.pages.len());
            let sum = self.pages[page];
            right &= checksum(private.bytes(page * PAGE, PAGE)) == sum;
            let old = private.read(page * PAGE + 5);
            private.write(page * PAGE + 5, !old);
            right &= checksum(shared.bytes(page * PAGE, PAGE)) == sum;
            private.write(page * PAGE + 5, old);
            right &= checksum(private.bytes(page * PAGE, PAGE)) == sum;
        }
        Ok(right)
    }

    /// Lets read(2) copy to memory that nobody has touched.
    fn read(&mut self) -> io::Result<bool> {
        let count = 1 + self.rng.below(self.pages.len().min(16));
        let first = self.rng.below(self.pages.len() - count + 1);
        let region = Region::anonymous(count * PAGE, RW)?;
        // A forked worker shares the offset with nobody: it opened the file itself.
        self.file.seek(SeekFrom::Start((first * PAGE) as u64))?;
        let mut done = 0;
        while done < count * PAGE {
            // SAFETY: the rest of the region, which is ours.
            let n = unsafe {
                libc::read(
                    self.file.as_raw_fd(),
                    region.ptr(done).cast(),
                    count * PAGE - done,
                )
            };
            match n {
                1.. => done += n as usize,
                0 => return Ok(false),
                _ => {
                    let error = io::Error::last_os_error();
                    if error.kind() != io::ErrorKind::Interrupted {
                        return Err(error);
                    }
                }
            }
        }
        Ok((0..count)
            .all(|page| checksum(region.bytes(page * PAGE, PAGE)) == self.pages[first + page]))
    }

    /// Writes to protected pages that a SIGSEGV handler makes writable.
    fn repair(&mut self) -> io::Result<bool> {
        let count = 1 + self.rng.below(8);
        let region = Region::anonymous(count * PAGE, RW)?;
        let tags: Vec<u64> = (0..count).map(|_| self.rng.bits()).collect();
        write_tags(&region, &tags);
        let prot = if self.rng.bits() & 1 == 0 {
            ProtFlags::PROT_NONE
        } else {
            ProtFlags::PROT_READ
        };
        region.protect(0, count * PAGE, prot)?;
        let before = REPAIRS.load(SeqCst);
        (0..count).for_each(|page| region.write_u64(page * PAGE + 64, tags[page]));
        let repaired = REPAIRS.load(SeqCst) - before == count as u64;
        Ok(repaired
            && has_tags(&region, &tags)
            && (0..count).all(|page| region.read_u64(page * PAGE + 64) == tags[page]))
    }

    /// Grows the stack of a forked child.
    fn stack(&mut self) -> io::Result<bool> {
        let depth = 16 + self.rng.below(200) as u64;
        let child = process::child(|| i32::from(descend(depth) != depth * (depth + 1) / 2))?;
        Ok(process::wait(child)? == Ended::Exited(0))
    }
}

/// The sum of 1 to `depth`, with a page of stack for each.
#[inline(never)]
fn descend(depth: u64) -> u64 {
    let frame = std::hint::black_box([depth; PAGE / 8]);
    let below = if depth == 0 { 0 } else { descend(depth - 1) };
    below + std::hint::black_box(&frame)[depth as usize % frame.len()]
}

/// Writes each page's tag at its start and end; a page with tag 0 is left alone.
fn write_tags(region: &Region, tags: &[u64]) {
    for (page, &tag) in tags.iter().enumerate().filter(|&(_, &tag)| tag != 0) {
        region.write_u64(page * PAGE, tag);
        region.write_u64((page + 1) * PAGE - 8, !tag);
    }
}

fn has_tags(region: &Region, tags: &[u64]) -> bool {
    tags.iter().enumerate().all(|(page, &tag)| {
        let end = if tag == 0 { 0 } else { !tag };
        region.read_u64(page * PAGE) == tag && region.read_u64((page + 1) * PAGE - 8) == end
    })
}
