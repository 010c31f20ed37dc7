//! System calls with bad pointers: each must answer EFAULT, and nothing else may happen.
//!
//! `efault` goes through a table of calls and puts each kind of bad pointer into each of their pointer arguments, the other
//! arguments being right. `efault sweep` also calls every number from 0 to 599 with bad values in all six arguments, in children that
//! may die, and wants only that the kernel goes on. The sweep could change the settings of a real machine: it is made for the guest.

use std::ffi::CString;
use std::io::Write;
use std::os::unix::ffi::OsStringExt;
use std::process::ExitCode;
use std::time::Duration;

use nix::sys::signal::{SaFlags, Signal};
use userspace::bad_pointers::{BadPointers, KINDS, Kind};
use userspace::memory::{PAGE, RW, Region};
use userspace::process::{self, Ended};
use userspace::report::Demo;
use userspace::syscall::{errno, raw};
use userspace::{signals, time};

/// An argument of a call in the table.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Arg {
    /// A plain value.
    Is(u64),
    /// A pointer that the kernel reads from.
    In,
    /// As `In`, and NULL is allowed.
    InOrNull,
    /// A string: its first byte decides, so a pointer to a few readable bytes is not bad by itself.
    Path,
    /// A pointer that the kernel writes through.
    Out,
    /// As `Out`, and NULL is allowed.
    OutOrNull,
    /// Four bytes or fewer that the kernel reads or writes: the straddling pointer is not bad for it.
    InWord,
    OutWord,
    /// A buffer of which a part may be used: with some bytes there, a short count is right too.
    Buffer,
    /// As `Buffer`, for the kernel to read from.
    Source,
    /// The read or write end of a pipe that holds data and has room.
    PipeRead,
    PipeWrite,
    /// A regular file.
    File,
}

use Arg::{
    Buffer, File, In, InOrNull, InWord, Is, Out, OutOrNull, OutWord, Path, PipeRead, PipeWrite,
    Source,
};

/// AT_FDCWD as an argument.
const CWD: Arg = Is(-100i64 as u64);
/// Bytes in the kernel's signal set.
const SET: Arg = Is(8);
const TERM: Arg = Is(libc::SIGTERM as u64);

/// The calls: number, name, arguments.
const CALLS: &[(i64, &str, &[Arg])] = &[
    (libc::SYS_read, "read", &[PipeRead, Buffer, Is(64)]),
    (libc::SYS_read, "read of a file", &[File, Buffer, Is(64)]),
    (libc::SYS_write, "write", &[PipeWrite, Source, Is(64)]),
    (libc::SYS_pread64, "pread64", &[File, Buffer, Is(64), Is(0)]),
    (libc::SYS_readv, "readv", &[PipeRead, In, Is(1)]),
    (libc::SYS_writev, "writev", &[PipeWrite, In, Is(1)]),
    (libc::SYS_open, "open", &[Path, Is(0), Is(0)]),
    (libc::SYS_openat, "openat", &[CWD, Path, Is(0), Is(0)]),
    (libc::SYS_stat, "stat", &[Path, Out]),
    (libc::SYS_lstat, "lstat", &[Path, Out]),
    (libc::SYS_fstat, "fstat", &[File, Out]),
    (libc::SYS_newfstatat, "newfstatat", &[CWD, Path, Out, Is(0)]),
    (
        libc::SYS_statx,
        "statx",
        &[CWD, Path, Is(0), Is(0x7ff), Out],
    ),
    (libc::SYS_access, "access", &[Path, Is(0)]),
    (libc::SYS_faccessat, "faccessat", &[CWD, Path, Is(0)]),
    (libc::SYS_chdir, "chdir", &[Path]),
    (libc::SYS_readlink, "readlink", &[Path, Out, Is(64)]),
    (
        libc::SYS_readlinkat,
        "readlinkat",
        &[CWD, Path, Out, Is(64)],
    ),
    (libc::SYS_getcwd, "getcwd", &[OutWord, Is(4096)]),
    (libc::SYS_poll, "poll", &[In, Is(1), Is(0)]),
    (libc::SYS_pipe, "pipe", &[Out]),
    (libc::SYS_pipe2, "pipe2", &[Out, Is(0)]),
    (
        libc::SYS_ioctl,
        "ioctl FIONREAD",
        &[PipeRead, Is(libc::FIONREAD), OutWord],
    ),
    (
        libc::SYS_rt_sigaction,
        "rt_sigaction",
        &[TERM, InOrNull, OutOrNull, SET],
    ),
    (
        libc::SYS_rt_sigprocmask,
        "rt_sigprocmask",
        &[Is(libc::SIG_BLOCK as u64), InOrNull, OutOrNull, SET],
    ),
    (libc::SYS_rt_sigpending, "rt_sigpending", &[Out, SET]),
    (libc::SYS_rt_sigsuspend, "rt_sigsuspend", &[In, SET]),
    (
        libc::SYS_rt_sigtimedwait,
        "rt_sigtimedwait",
        &[In, Is(0), InOrNull, SET],
    ),
    (libc::SYS_sigaltstack, "sigaltstack", &[InOrNull, OutOrNull]),
    (
        libc::SYS_setitimer,
        "setitimer",
        &[Is(0), InOrNull, OutOrNull],
    ),
    (libc::SYS_getitimer, "getitimer", &[Is(0), Out]),
    (libc::SYS_nanosleep, "nanosleep", &[In, Is(0)]),
    (
        libc::SYS_clock_nanosleep,
        "clock_nanosleep",
        &[Is(1), Is(0), In, Is(0)],
    ),
    (libc::SYS_clock_gettime, "clock_gettime", &[Is(1), Out]),
    (libc::SYS_clock_getres, "clock_getres", &[Is(1), OutOrNull]),
    (
        libc::SYS_gettimeofday,
        "gettimeofday",
        &[OutOrNull, OutOrNull],
    ),
    (libc::SYS_time, "time", &[OutOrNull]),
    (libc::SYS_times, "times", &[OutOrNull]),
    (libc::SYS_getrusage, "getrusage", &[Is(0), Out]),
    (
        libc::SYS_getrlimit,
        "getrlimit",
        &[Is(libc::RLIMIT_STACK as u64), Out],
    ),
    (
        libc::SYS_prlimit64,
        "prlimit64",
        &[Is(0), Is(libc::RLIMIT_STACK as u64), InOrNull, OutOrNull],
    ),
    (libc::SYS_sysinfo, "sysinfo", &[Out]),
    (libc::SYS_uname, "uname", &[Out]),
    (libc::SYS_getrandom, "getrandom", &[Buffer, Is(64), Is(0)]),
    (
        libc::SYS_sched_getaffinity,
        "sched_getaffinity",
        &[Is(0), Is(128), Out],
    ),
    (
        libc::SYS_arch_prctl,
        "arch_prctl ARCH_GET_FS",
        &[Is(0x1003), Out],
    ),
    (
        libc::SYS_futex,
        "futex FUTEX_WAIT_PRIVATE",
        &[InWord, Is(128), Is(1), Is(0), Is(0), Is(0)],
    ),
    (libc::SYS_execve, "execve", &[Path, InOrNull, InOrNull]),
];

/// Calls without which no program starts and no demo works: a kernel may not answer ENOSYS to them.
const ESSENTIAL: &[i64] = &[
    libc::SYS_read,
    libc::SYS_write,
    libc::SYS_openat,
    libc::SYS_newfstatat,
    libc::SYS_pipe2,
    libc::SYS_execve,
    libc::SYS_readlink,
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_sigaltstack,
    libc::SYS_setitimer,
    libc::SYS_prlimit64,
    libc::SYS_getrandom,
    libc::SYS_uname,
];

fn main() -> ExitCode {
    let mut demo = Demo::start("efault", "system calls refuse bad pointers with EFAULT");
    let sweeping = std::env::args().nth(1).as_deref() == Some("sweep");
    let bad = BadPointers::new().expect("mmap");

    demo.step("each pointer argument of each call in the table gets each kind of bad pointer");
    let mut cases = 0;
    for &(number, name, args) in CALLS {
        cases += check_call(&mut demo, &bad, number, name, args);
    }
    demo.varies(format_args!("{cases} cases"));

    demo.step("wait4 with a child to wait for");
    wait4(&mut demo, &bad);

    demo.step("numbers that are no system calls");
    for number in [500, 599, 0xffff_ffff, u64::MAX] {
        // SAFETY: no such call exists.
        let result = unsafe { raw(number, [0; 6]) };
        demo.check_eq(
            errno(result),
            libc::ENOSYS,
            format_args!("number {number:#x} is ENOSYS"),
        );
    }
    if sweeping {
        demo.step("every number with bad values in all arguments");
        sweep(&mut demo, &bad);
    }
    demo.finish()
}

/// All cases of one call, made in a child that an alarm ends. Returns how many there are.
fn check_call(demo: &mut Demo, bad: &BadPointers, number: i64, name: &str, args: &[Arg]) -> usize {
    let cases: Vec<(usize, Kind)> = (0..args.len())
        .flat_map(|at| KINDS.map(|kind| (at, kind)))
        .filter(|&(at, kind)| is_bad(args[at], kind))
        .collect();
    let (mut from, mut to) = process::pipe().expect("pipe");
    let child = process::child(|| {
        let ready = Setting::new(number).and_then(|setting| arm().map(|()| setting));
        let Ok(setting) = ready else { return 3 };
        let known = cases.iter().all(|&(at, kind)| {
            // SAFETY: the child is there for these calls only; each pointer is either bad or the setting's scratch memory.
            let result = unsafe { raw(number as u64, setting.values(args, at, bad.pointer(kind))) };
            if errno(result) != libc::ENOSYS && !is_refused(args[at], kind, result) {
                let _ = writeln!(
                    to,
                    "argument {at}, {kind:?} ({:#x}): result {result}",
                    bad.pointer(kind)
                );
            }
            errno(result) != libc::ENOSYS
        });
        if known { 0 } else { 2 }
    });
    let ended = process::wait(child.expect("fork")).expect("wait");
    drop(to);
    let mut wrong = String::new();
    std::io::Read::read_to_string(&mut from, &mut wrong).expect("text");
    wrong
        .lines()
        .for_each(|line| demo.varies(format_args!("{name}: {line}")));
    match ended {
        Ended::Exited(2) if !ESSENTIAL.contains(&number) => {
            demo.varies(format_args!("{name}: this kernel does not have it"))
        }
        _ => demo.check_here(
            wrong.is_empty() && ended == Ended::Exited(0),
            format_args!("{name}: {} cases, {ended}", cases.len()),
        ),
    }
    cases.len()
}

/// SIGALRM ends this process if a call blocks.
fn arm() -> std::io::Result<()> {
    signals::default_action(Signal::SIGALRM)?;
    time::set_timer(Duration::from_secs(10), Duration::ZERO)
}

fn is_bad(arg: Arg, kind: Kind) -> bool {
    match arg {
        Is(_) | PipeRead | PipeWrite | File => false,
        Path => !matches!(kind, Kind::ReadOnly | Kind::Straddling),
        In | Source => kind != Kind::ReadOnly,
        InWord => !matches!(kind, Kind::ReadOnly | Kind::Straddling),
        OutWord => kind != Kind::Straddling,
        InOrNull => !matches!(kind, Kind::ReadOnly | Kind::Null),
        OutOrNull => kind != Kind::Null,
        Out | Buffer => true,
    }
}

fn is_refused(arg: Arg, kind: Kind, result: i64) -> bool {
    let partly =
        matches!(arg, Buffer | Source) && kind == Kind::Straddling && (1..=4).contains(&result);
    errno(result) == libc::EFAULT || partly
}

/// What the right arguments of the calls refer to.
struct Setting {
    scratch: Region,
    path: CString,
    pipe: (std::fs::File, std::fs::File),
    file: std::fs::File,
}

impl Setting {
    /// Paths are the root directory, except where the call reaches its other pointers only with a link or a program.
    fn new(number: i64) -> std::io::Result<Self> {
        let scratch = Region::anonymous(2 * PAGE, RW)?;
        let path = match number {
            libc::SYS_readlink | libc::SYS_readlinkat => b"/proc/self/exe".to_vec(),
            libc::SYS_execve => std::env::current_exe()?.into_os_string().into_vec(),
            _ => b"/".to_vec(),
        };
        let mut pipe = process::pipe()?;
        pipe.1.write_all(&[0; 2048])?;
        Ok(Self {
            scratch,
            path: CString::new(path)?,
            pipe,
            file: userspace::slow::fast_file()?,
        })
    }

    /// The call's arguments with `bad` at position `at`.
    fn values(&self, args: &[Arg], at: usize, bad: u64) -> [u64; 6] {
        use std::os::fd::AsRawFd;
        let mut values = [0; 6];
        for (i, &arg) in args.iter().enumerate() {
            values[i] = match arg {
                _ if i == at => bad,
                Is(value) => value,
                // The signal set, the time and the like are all zero bytes.
                In | InWord | Source => self.scratch.addr() as u64,
                Path => self.path.as_ptr() as u64,
                Out | OutWord | Buffer => (self.scratch.addr() + PAGE) as u64,
                InOrNull | OutOrNull => 0,
                PipeRead => self.pipe.0.as_raw_fd() as u64,
                PipeWrite => self.pipe.1.as_raw_fd() as u64,
                File => self.file.as_raw_fd() as u64,
            };
        }
        values
    }
}

fn wait4(demo: &mut Demo, bad: &BadPointers) {
    for (at, what) in [(1, "status"), (3, "rusage")] {
        let mut refused = true;
        for kind in KINDS
            .into_iter()
            .filter(|&kind| kind != Kind::Null && (at == 3 || kind != Kind::Straddling))
        {
            let child = process::child(|| 0).expect("fork");
            let mut args = [child.as_raw() as u64, 0, 0, 0, 0, 0];
            args[at] = bad.pointer(kind);
            // SAFETY: the kernel cannot write to a bad pointer.
            let result = unsafe { raw(libc::SYS_wait4 as u64, args) };
            refused &= errno(result) == libc::EFAULT;
            if errno(result) != libc::EFAULT {
                demo.varies(format_args!("{kind:?}: result {result}"));
            }
            // The child may or may not have been reaped by the call that failed.
            let _ = process::wait(child);
        }
        demo.check(
            refused,
            format_args!("a bad pointer for the {what} is EFAULT"),
        );
    }
}

/// Numbers that end the caller, multiply it, or reach other processes by design.
const NOT_SWEPT: [i64; 6] = [
    libc::SYS_exit,
    libc::SYS_exit_group,
    libc::SYS_fork,
    libc::SYS_vfork,
    libc::SYS_clone,
    libc::SYS_clone3,
];

fn sweep(demo: &mut Demo, bad: &BadPointers) {
    let (mut exited, mut killed) = (0, 0);
    for number in (0..600).filter(|number| !NOT_SWEPT.contains(number)) {
        let child = process::child(|| {
            if signals::on(Signal::SIGALRM, SaFlags::empty(), give_up).is_err() {
                return 3;
            }
            for kind in KINDS {
                let _ = time::set_timer(Duration::from_millis(200), Duration::from_millis(200));
                // SAFETY: the child is there for this call only.
                unsafe { raw(number as u64, [bad.pointer(kind); 6]) };
            }
            0
        });
        match process::wait(child.expect("fork")).expect("wait") {
            Ended::Exited(_) => exited += 1,
            Ended::Killed(_) => killed += 1,
        }
    }
    demo.varies(format_args!(
        "{exited} children went through all kinds, {killed} were killed"
    ));
    demo.check(
        exited + killed == 600 - NOT_SWEPT.len(),
        "each child ended, and the kernel goes on",
    );
    let child = process::child(|| 7).expect("fork");
    demo.check_eq(
        process::wait(child).expect("wait"),
        Ended::Exited(7),
        "a fresh child works",
    );
}

/// A call that blocks is interrupted by this handler, or, if it restarts, ended with the child.
extern "C" fn give_up(_: libc::c_int, _: *mut libc::siginfo_t, _: *mut libc::c_void) {
    // SAFETY: ends the child at once.
    unsafe { libc::_exit(0) };
}
