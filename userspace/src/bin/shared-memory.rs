//! Memory that two processes share: a memfd with seals, a named object, a mapped file. What one stores the other sees, and what is cut off is
//! gone for both.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;
use std::process::ExitCode;
use std::sync::atomic::Ordering;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, SealFlag, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::mman::{MapFlags, ProtFlags, shm_open, shm_unlink};
use nix::sys::signal::SaFlags;
use nix::sys::stat::Mode;
use userspace::memory::{PAGE, RW, Region};
use userspace::probe;
use userspace::process::{Ended, Line, child, wait};
use userspace::report::Demo;
use userspace::signals::{code_name, signal_name};

/// Pages of each object.
const PAGES: usize = 4;

fn main() -> ExitCode {
    let mut demo = Demo::start(
        "shared-memory",
        "what one process stores another sees, and what is cut off is gone for both",
    );
    probe::catch_faults(SaFlags::empty()).expect("sigaction");
    messages(&mut demo);
    seals(&mut demo);
    named(&mut demo);
    mapped_file(&mut demo);
    truncation(&mut demo);
    demo.finish()
}

fn shared(file: impl AsFd, prot: ProtFlags) -> io::Result<Region> {
    Region::file(file, 0, PAGES * PAGE, prot, MapFlags::MAP_SHARED)
}

fn memfd(flags: MFdFlags) -> File {
    let file = File::from(memfd_create(c"demo", flags).expect("memfd_create"));
    file.set_len((PAGES * PAGE) as u64).expect("ftruncate");
    file
}

/// Two processes hand a number to and fro through one page.
fn messages(demo: &mut Demo) {
    const ROUNDS: u64 = 1000;
    demo.step("count with another process in a page of a memfd");
    let memory = shared(memfd(MFdFlags::empty()), RW).expect("mmap");
    // Even numbers are the parent's to answer, odd ones the child's.
    let play = |mine: u64| {
        let ball = memory.atomic(PAGE);
        loop {
            let now = ball.load(Ordering::Acquire);
            if now >= ROUNDS {
                return;
            }
            if now % 2 == mine {
                ball.store(now + 1, Ordering::Release);
            } else {
                std::thread::yield_now();
            }
        }
    };
    let other = child(|| {
        play(1);
        0
    })
    .expect("fork");
    play(0);
    demo.check_eq(
        wait(other).expect("wait"),
        Ended::Exited(0),
        "the child has seen the end, too",
    );
    demo.check_eq(
        memory.atomic(PAGE).load(Ordering::Relaxed),
        ROUNDS,
        "each store was seen by the other",
    );
    let private = Region::anonymous(PAGE, RW).expect("mmap");
    let other = child(|| {
        private.write(0, 1);
        0
    });
    wait(other.expect("fork")).expect("wait");
    demo.check_eq(private.read(0), 0, "private memory is not shared");
}

/// A receiver that wants contents that stay as they are.
fn seals(demo: &mut Demo) {
    demo.step("seal a memfd against writing");
    let file = memfd(MFdFlags::MFD_ALLOW_SEALING);
    let writable = shared(&file, RW).expect("mmap");
    writable.write(0, 42);
    let seal = |seals| fcntl(&file, FcntlArg::F_ADD_SEALS(seals)).map(|_| ());
    demo.check_eq(
        seal(SealFlag::F_SEAL_WRITE),
        Err(Errno::EBUSY),
        "as long as somebody can store, it cannot be sealed: EBUSY",
    );
    drop(writable);
    let both = SealFlag::F_SEAL_WRITE | SealFlag::F_SEAL_SHRINK;
    demo.check_eq(seal(both), Ok(()), "afterwards it can");
    let errno = |error: io::Error| error.raw_os_error().map(Errno::from_raw);
    demo.check_eq(
        file.write_at(b"x", 0).map_err(errno),
        Err(Some(Errno::EPERM)),
        "write(2) is refused: EPERM",
    );
    demo.check_eq(
        shared(&file, RW).map(|_| ()).map_err(errno),
        Err(Some(Errno::EPERM)),
        "so is a writable mapping",
    );
    demo.check_eq(
        file.set_len(0).map_err(errno),
        Err(Some(Errno::EPERM)),
        "and so is cutting it off",
    );
    let reader = shared(&file, ProtFlags::PROT_READ).expect("mmap");
    demo.check_eq(reader.read(0), 42, "it can be read for good");
}

/// An object that is found by its name.
fn named(demo: &mut Demo) {
    demo.step("meet in an object with a name");
    let name = format!("/faultline-demo-{}", std::process::id());
    let open = |flags| shm_open(name.as_str(), flags, Mode::S_IRUSR | Mode::S_IWUSR);
    let object =
        File::from(open(OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_RDWR).expect("shm_open"));
    object.set_len((PAGES * PAGE) as u64).expect("ftruncate");
    let memory = shared(&object, RW).expect("mmap");
    let other = child(|| {
        let Ok(found) = open(OFlag::O_RDWR) else {
            return 1;
        };
        let Ok(memory) = shared(&found, RW) else {
            return 2;
        };
        memory.write_u64(2 * PAGE, 4711);
        0
    });
    let ended = wait(other.expect("fork")).expect("wait");
    demo.check_eq(ended, Ended::Exited(0), "the child finds it by its name");
    demo.check_eq(
        memory.read_u64(2 * PAGE),
        4711,
        "and stores what is seen here",
    );
    shm_unlink(name.as_str()).expect("shm_unlink");
    demo.check_eq(
        open(OFlag::O_RDWR).map(|_| ()),
        Err(Errno::ENOENT),
        "without its name it cannot be found any more",
    );
    demo.check_eq(
        memory.read_u64(2 * PAGE),
        4711,
        "but is there for those who have it",
    );
}

fn temporary_file() -> File {
    let name = std::env::temp_dir().join(format!("faultline-demo-{}", std::process::id()));
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create_new(true)
        .open(&name)
        .expect("a temporary file");
    std::fs::remove_file(&name).expect("unlink");
    for page in 0..PAGES {
        file.write_all_at(&[b'a' + page as u8; PAGE], (page * PAGE) as u64)
            .expect("write");
    }
    file
}

/// A file, two mappings and read(2) are one.
fn mapped_file(demo: &mut Demo) {
    demo.step("map a file twice, shared and privately");
    let file = temporary_file();
    let memory = shared(&file, RW).expect("mmap");
    let private = Region::file(&file, 0, PAGES * PAGE, RW, MapFlags::MAP_PRIVATE).expect("mmap");
    memory.write(10, b'S');
    let mut byte = [0];
    file.read_exact_at(&mut byte, 10).expect("read");
    demo.check_eq(byte, *b"S", "a store is seen by read(2)");
    demo.check_eq(
        private.read(10),
        b'S',
        "and by a private page nobody has written",
    );
    file.write_all_at(b"W", PAGE as u64).expect("write");
    demo.check_eq(memory.read(PAGE), b'W', "write(2) is seen in the mapping");
    private.write(PAGE, b'P');
    file.write_all_at(b"X", PAGE as u64 + 1).expect("write");
    demo.check_eq(memory.read(PAGE), b'W', "a private store is not");
    demo.check_eq(
        private.read(PAGE + 1),
        b'b',
        "and its page has parted from the file",
    );
}

/// Pages go while two processes have them mapped.
fn truncation(demo: &mut Demo) {
    demo.step("cut the file off while two processes have it mapped");
    let file = temporary_file();
    let memory = shared(&file, RW).expect("mmap");
    let private = Region::file(&file, 0, PAGES * PAGE, RW, MapFlags::MAP_PRIVATE).expect("mmap");
    private.write(3 * PAGE, b'P');
    let end = memory.addr() + 3 * PAGE;
    let (mut here, mut there) = Line::pair().expect("pipes");
    let other = child(|| {
        let before = probe::load(end).is_some();
        let told = there.signal().and_then(|()| there.wait());
        let fault = probe::load(end).is_none().then(probe::take_fault).flatten();
        let is_bus = fault.is_some_and(|fault| {
            (fault.signo, fault.code, fault.addr) == (libc::SIGBUS, libc::BUS_ADRERR, end)
        });
        i32::from(!(before && told.is_ok() && is_bus))
    })
    .expect("fork");
    here.wait().expect("the child is there");
    file.set_len(PAGE as u64 + 100).expect("ftruncate");
    here.signal().expect("the child is there");
    demo.check_eq(
        wait(other).expect("wait"),
        Ended::Exited(0),
        "the child had the page, and gets SIGBUS for it now",
    );
    let mut fault_at = |address: usize, what: &str| {
        let fault = probe::load(address)
            .is_none()
            .then(probe::take_fault)
            .flatten();
        let text = fault.map(|fault| {
            demo.note(format_args!(
                "{} with {}",
                signal_name(fault.signo),
                code_name(fault.signo, fault.code)
            ));
            (fault.signo, fault.code, fault.addr)
        });
        demo.check_eq(text, Some((libc::SIGBUS, libc::BUS_ADRERR, address)), what);
    };
    fault_at(end, "so does the parent");
    fault_at(private.addr() + 3 * PAGE, "its private copy is gone, too");
    demo.check_eq(
        memory.read(PAGE + 99),
        b'b',
        "what is left of the file is there",
    );
    demo.check_eq(
        memory.read(PAGE + 100),
        0,
        "and zeros after it, to the end of the page",
    );

    demo.step("let it grow again");
    file.set_len((PAGES * PAGE) as u64).expect("ftruncate");
    demo.check_eq(memory.read(3 * PAGE), 0, "the pages are there, as zeros");
    demo.check_eq(private.read(3 * PAGE), 0, "for both mappings");
}
