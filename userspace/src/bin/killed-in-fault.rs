//! A fault inside the kernel: read(2) copies to a buffer whose page must first come from a slow disk. A deadly signal ends that wait
//! at once; one with a handler does not cut the read short.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::time::{Duration, Instant};

use nix::sys::mman::MapFlags;
use nix::sys::signal::{SaFlags, Signal, kill};
use userspace::memory::{PAGE, RW, Region};
use userspace::process::{self, Ended};
use userspace::report::Demo;
use userspace::signals::{self, Caught};
use userspace::time::{ms, now_ns};
use userspace::{slow, time};

/// What the parent writes to the pipe.
const MESSAGE: &[u8; 32] = b"thirty-two bytes from the parent";

/// What the second child and its handler leave for the parent, in shared memory.
static RESULTS: AtomicU64 = AtomicU64::new(0);
const READ_RESULT: usize = 0;
const READ_NS: usize = 8;
const HANDLER_NS: usize = 16;
const HANDLER_RAX: usize = 24;
const BUFFER_RIGHT: usize = 32;

fn main() -> ExitCode {
    let mut demo = Demo::start(
        "killed-in-fault",
        "a deadly signal ends a fault inside a system call, another one does not cut it short",
    );
    demo.step("map the slow file privately, as a buffer to read into");
    let (file, buffer, pages) = match open() {
        Ok(opened) => opened,
        Err(why) => {
            demo.check(false, why);
            return demo.finish();
        }
    };
    let extra = slow::slowness();
    demo.varies(match extra {
        Some(extra) => format!("each read of the file takes {} ms longer", ms(extra)),
        None => "no disk is slowed down here: the read ends at once, and the order in time is not checked".into(),
    });
    killed(&mut demo, buffer.ptr(pages[0]), extra);
    handled(&mut demo, &file, &buffer, pages[1], extra);
    demo.finish()
}

fn open() -> std::io::Result<(File, Region, Vec<usize>)> {
    let file = slow::slow_file()?;
    let len = usize::try_from(file.metadata()?.len()).map_err(std::io::Error::other)?;
    let pages = slow::far_pages(len, 1, 3)?;
    let buffer = Region::file(&file, 0, len, RW, MapFlags::MAP_PRIVATE)?;
    Ok((file, buffer, pages))
}

/// SIGTERM with its default action.
fn killed(demo: &mut Demo, buffer: *mut u8, extra: Option<Duration>) {
    demo.step(
        "a child reads from a pipe into a page that is not in memory; SIGTERM, default action",
    );
    let (from, mut to) = process::pipe().expect("pipe");
    let (mut returned, mut report) = process::pipe().expect("pipe");
    to.write_all(MESSAGE).expect("pipe");
    let child = process::child(|| {
        read_into(&from, buffer);
        let _ = report.write_all(b"!");
        loop {
            nix::unistd::pause();
        }
    });
    let child = child.expect("fork");
    drop(report);
    time::sleep(extra.unwrap_or(Duration::from_millis(60)) / 3).expect("sleep");
    kill(child, Signal::SIGTERM).expect("kill");
    let sent = Instant::now();
    let ended = process::wait(child).expect("wait");
    let took = sent.elapsed();
    demo.note(format_args!("the child was {ended}"));
    demo.check_eq(ended, Ended::Killed(libc::SIGTERM), "the signal killed it");
    let came_back = returned.read(&mut [0]).expect("pipe") == 1;
    demo.varies(format_args!(
        "it ended {} ms after the signal, {} read(2)",
        ms(took),
        if came_back { "after its" } else { "inside" }
    ));
    if let Some(extra) = extra {
        demo.check_here(!came_back, "its read never returned");
        demo.check_here(took < extra / 3, "it did not wait for the disk");
    }
}

extern "C" fn on_term(_: libc::c_int, info: *mut libc::siginfo_t, context: *mut libc::c_void) {
    // SAFETY: the kernel's own pointers.
    let caught = unsafe { Caught::read(info, context) };
    let results = RESULTS.load(SeqCst) as *const AtomicU64;
    // SAFETY: the page of shared counters that the child published before it unblocked anything.
    unsafe {
        (*results.byte_add(HANDLER_RAX)).store(caught.rax, SeqCst);
        (*results.byte_add(HANDLER_NS)).store(now_ns(), SeqCst);
    }
}

/// SIGTERM with a handler.
fn handled(demo: &mut Demo, file: &File, buffer: &Region, page: usize, extra: Option<Duration>) {
    demo.step("another child does the same with a handler for SIGTERM");
    let results = Region::shared(PAGE).expect("mmap");
    RESULTS.store(results.addr() as u64, SeqCst);
    let (from, mut to) = process::pipe().expect("pipe");
    to.write_all(MESSAGE).expect("pipe");
    let start_ns = now_ns();
    let child = process::child(|| {
        if signals::on(Signal::SIGTERM, SaFlags::empty(), on_term).is_err() {
            return 2;
        }
        let count = read_into(&from, buffer.ptr(page + 100));
        results.atomic(READ_RESULT).store(count as u64, SeqCst);
        results.atomic(READ_NS).store(now_ns(), SeqCst);
        while results.atomic(HANDLER_NS).load(SeqCst) == 0 {
            std::hint::spin_loop();
        }
        results
            .atomic(BUFFER_RIGHT)
            .store(u64::from(buffer_is_right(file, buffer, page)), SeqCst);
        0
    });
    let child = child.expect("fork");
    time::sleep(extra.unwrap_or(Duration::from_millis(60)) / 3).expect("sleep");
    let sent_ns = now_ns();
    kill(child, Signal::SIGTERM).expect("kill");
    demo.check_eq(
        process::wait(child).expect("wait"),
        Ended::Exited(0),
        "it ended by itself",
    );
    let result = |offset| results.atomic(offset).load(SeqCst);
    let after_start = |at_ns: u64| at_ns.saturating_sub(start_ns) / 1_000_000;
    demo.varies(format_args!(
        "signal after {} ms, read returned after {} ms, handler ran after {} ms",
        after_start(sent_ns),
        after_start(result(READ_NS)),
        after_start(result(HANDLER_NS))
    ));
    demo.check_eq(
        result(READ_RESULT),
        MESSAGE.len() as u64,
        "read(2) returned the full count",
    );
    demo.check(result(HANDLER_NS) != 0, "the handler ran");
    demo.check(
        result(BUFFER_RIGHT) == 1,
        "the buffer's page has the message and around it the file's bytes",
    );
    if let Some(extra) = extra {
        demo.check_here(
            sent_ns < result(READ_NS),
            "the signal was sent while the read waited for the disk",
        );
        demo.check_here(
            result(HANDLER_NS) - start_ns >= extra.as_nanos() as u64 * 9 / 10,
            "the handler had to wait for it too",
        );
        demo.check_here(
            result(HANDLER_RAX) == MESSAGE.len() as u64,
            "in its frame the read has already returned the full count",
        );
    }
}

/// One read(2) by its bare pointer, so that only the kernel touches the buffer.
fn read_into(from: &File, buffer: *mut u8) -> isize {
    // SAFETY: the buffer is a private mapping with room for the message.
    unsafe { libc::read(from.as_raw_fd(), buffer.cast(), MESSAGE.len()) }
}

fn buffer_is_right(file: &File, buffer: &Region, page: usize) -> bool {
    let mut expected = [0; PAGE];
    if file.read_exact_at(&mut expected, page as u64).is_err() {
        return false;
    }
    expected[100..100 + MESSAGE.len()].copy_from_slice(MESSAGE);
    buffer.bytes(page, PAGE) == expected
}
