//! Runs the programs of a conformance suite one after the other and says how each ended.
//!
//! `conformance-run LIST` in the guest, where it is the first program, and `conformance-run --isolated LIST SUITE ROOT` on Linux, where
//! it first makes itself the same surroundings: one CPU, namespaces of its own, in which it is the first child of process 1 too, and a root
//! directory ROOT in memory with `/dev`, `/proc`, `/tmp` and the folder SUITE as `/suite`. It never runs programs in the machine's own namespace: they may
//! signal every process that there is. A program on Linux cannot set the machine's clock.
//!
//! Each line of LIST is `NAME SECONDS PROGRAM ARGS...`. Each program has a session, a working directory (with a link to the suite's
//! folder, whose files some ask for) and a `/tmp` of its own, and nothing of it is left when the next one starts.
//!
//! For each program come the lines `run NAME`, `out NAME TEXT` (the end of its output, unless it passed) and
//! `end NAME exit|signal|limit NUMBER MILLISECONDS`.

use std::error::Error;
use std::ffi::{CStr, CString};
use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::ExitStatus;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, CpuSet, sched_getcpu, sched_setaffinity, unshare};
use nix::sys::resource::{Resource, setrlimit};
use nix::sys::signal::{SigHandler, SigSet, SigmaskHow, Signal, kill, signal, sigprocmask};
use nix::unistd::{Pid, chdir, chroot, execve, getgid, getpid, getppid, getuid, setsid};
use userspace::process::{Ended, child, wait};

/// How much of a failed program's output is reported, bytes.
const OUTPUT_SHOWN: u64 = 600;
/// The first child of a namespace's process 1 has no greater number than this.
const FIRST_PROCESSES: i32 = 20;
const OUTPUT: &str = "/tmp/.output";
const WORK: &str = "/tmp/work";

type Result<T = (), E = Box<dyn Error>> = std::result::Result<T, E>;

fn main() -> Result {
    let args: Vec<String> = std::env::args().collect();
    match args.iter().map(String::as_str).collect::<Vec<_>>()[1..] {
        [list] => run_all(&fs::read_to_string(list)?),
        ["--isolated", list, suite, root] => {
            let list = fs::read_to_string(list)?;
            stay_on_one_cpu()?;
            leave_namespaces()?;
            let init = child(|| status_of(be_init(suite, root, &list)))?;
            ended_well(init)
        }
        _ => Err("usage: conformance-run [--isolated] LIST [SUITE ROOT]".into()),
    }
}

/// Some programs take it for granted that two threads run at the same time, and cannot end on one CPU, whatever the kernel.
fn stay_on_one_cpu() -> Result {
    let mut one = CpuSet::new();
    one.set(sched_getcpu()?)?;
    Ok(sched_setaffinity(Pid::from_raw(0), &one)?)
}

/// Process 1 of the namespace.
fn be_init(suite: &str, root: &str, list: &str) -> Result {
    enter(suite, root)?;
    let runner = child(|| status_of(run_all(list)))?;
    ended_well(runner)
}

fn status_of(result: Result) -> i32 {
    match result {
        Ok(()) => 0,
        Err(error) => {
            eprintln!("{error}");
            1
        }
    }
}

fn ended_well(process: Pid) -> Result {
    match wait(process)? {
        Ended::Exited(0) => Ok(()),
        ended => Err(format!("process {process} {ended}").into()),
    }
}

/// Leaves the machine's processes, mounts and System V objects behind; who is not root becomes it in a user namespace.
fn leave_namespaces() -> Result {
    let (uid, gid) = (getuid(), getgid());
    let mut flags = CloneFlags::CLONE_NEWPID | CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWIPC;
    if !uid.is_root() {
        flags |= CloneFlags::CLONE_NEWUSER;
    }
    unshare(flags).map_err(|errno| format!("namespaces cannot be had here: {errno}"))?;
    if !uid.is_root() {
        fs::write("/proc/self/setgroups", "deny")?;
        fs::write("/proc/self/uid_map", format!("0 {uid} 1"))?;
        fs::write("/proc/self/gid_map", format!("0 {gid} 1"))?;
    }
    Ok(())
}

/// Makes `root` the root directory, with what the guest's has.
fn enter(suite: &str, root: &str) -> Result {
    // SAFETY: plain numbers; the process is ended with the one that waits for it.
    unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) };
    let none = None::<&str>;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none)?;
    mount(
        Some("none"),
        root,
        Some("tmpfs"),
        MsFlags::empty(),
        Some("mode=755"),
    )?;
    let root = Path::new(root);
    for (name, mode) in [
        ("dev", 0o755),
        ("dev/shm", 0o1777),
        ("etc", 0o755),
        ("proc", 0o555),
        ("suite", 0o755),
        ("tmp", 0o1777),
    ] {
        let path = root.join(name);
        fs::create_dir(&path)?;
        fs::set_permissions(&path, fs::Permissions::from_mode(mode))?;
    }
    let bind = |from: &Path, to: &str| -> Result {
        let to = root.join(to);
        if !from.is_dir() {
            File::create(&to)?;
        }
        Ok(mount(Some(from), &to, none, MsFlags::MS_BIND, none)?)
    };
    for name in ["null", "zero", "full", "random", "urandom"] {
        bind(&Path::new("/dev").join(name), &format!("dev/{name}"))?;
    }
    for name in ["passwd", "group"] {
        bind(&Path::new("/etc").join(name), &format!("etc/{name}"))?;
    }
    bind(Path::new(suite), "suite")?;
    mount(
        Some("proc"),
        &root.join("proc"),
        Some("proc"),
        MsFlags::empty(),
        none,
    )?;
    chroot(root)?;
    chdir("/")?;
    for capability in [CAP_SYS_TIME, CAP_SYS_BOOT, CAP_SYS_MODULE] {
        // SAFETY: plain numbers.
        unsafe { libc::prctl(libc::PR_CAPBSET_DROP, capability, 0, 0, 0) };
    }
    Ok(())
}

/// Numbers of capabilities(7).
const CAP_SYS_MODULE: libc::c_ulong = 16;
const CAP_SYS_BOOT: libc::c_ulong = 22;
const CAP_SYS_TIME: libc::c_ulong = 25;

fn run_all(list: &str) -> Result {
    // The first numbers of a machine are its own threads', so that this can only be a namespace's, or the guest's.
    if getppid() != Pid::from_raw(1) || getpid() > Pid::from_raw(FIRST_PROCESSES) {
        return Err("only the first child of a namespace's process 1 may run the programs".into());
    }
    // What the programs leave behind becomes this process's own.
    // SAFETY: plain numbers.
    unsafe { libc::prctl(libc::PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) };
    let mut children = SigSet::empty();
    children.add(Signal::SIGCHLD);
    sigprocmask(SigmaskHow::SIG_BLOCK, Some(&children), None)?;
    same_limits();
    for line in list.lines() {
        let mut words = line.split(' ');
        let (Some(name), Some(seconds), Some(program)) = (words.next(), words.next(), words.next())
        else {
            return Err(format!("not a program: {line}").into());
        };
        let limit = Duration::from_secs(seconds.parse()?);
        let args: Vec<&str> = words.collect();
        say(&format!("run {name}"))?;
        let started = Instant::now();
        let status = run(program, &args, started + limit)?;
        let elapsed = started.elapsed().as_millis();
        clear_processes()?;
        if status.is_none_or(|status| !status.success()) {
            say(&format!("out {name} {}", end_of_output()?))?;
        }
        let how = match status.map(|status| (status.code(), status.signal())) {
            Some((Some(code), _)) => format!("exit {code}"),
            Some((_, signal)) => format!("signal {}", signal.unwrap_or(0)),
            None => format!("limit {seconds}"),
        };
        say(&format!("end {name} {how} {elapsed}"))?;
    }
    Ok(())
}

/// Limits that a machine's set-up decides, the same everywhere.
fn same_limits() {
    const MIB: u64 = 1 << 20;
    for (resource, soft, hard) in [
        (Resource::RLIMIT_CORE, 0, 0),
        (Resource::RLIMIT_NOFILE, 1024, 1024),
        (Resource::RLIMIT_STACK, 8 * MIB, libc::RLIM_INFINITY),
        (Resource::RLIMIT_MEMLOCK, 8 * MIB, 8 * MIB),
    ] {
        // In a user namespace a hard limit may be lower, and stays.
        let _ = setrlimit(resource, soft, hard);
    }
}

fn say(line: &str) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    writeln!(stdout, "{line}")?;
    stdout.flush()
}

/// Runs one program; `None` if its time was up.
fn run(program: &str, args: &[&str], deadline: Instant) -> Result<Option<ExitStatus>> {
    for folder in ["/tmp", "/dev/shm"] {
        clear_folder(Path::new(folder))?;
    }
    fs::create_dir(WORK)?;
    fs::set_permissions(WORK, fs::Permissions::from_mode(0o777))?;
    symlink("/suite/conformance", Path::new(WORK).join("conformance"))?;
    let output = File::create(OUTPUT)?;
    let input = File::open("/dev/null")?;
    let words = std::iter::once(program).chain(args.iter().copied());
    let argv = words.map(CString::new).collect::<Result<Vec<_>, _>>()?;
    let child = child(|| {
        let error = start(&argv, &input, &output);
        println!("cannot be started: {error}");
        126
    })?;
    loop {
        match reap()? {
            Some((pid, status)) if pid == child => return Ok(Some(status)),
            Some(_) => continue,
            None => {}
        }
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(None);
        }
        wait_for_child(left);
    }
}

/// Becomes the program; comes back only with an error.
fn start(argv: &[CString], input: &File, output: &File) -> Errno {
    const ENVIRONMENT: [&CStr; 4] = [c"PATH=/bin", c"HOME=/root", c"TERM=dumb", c"LC_ALL=C"];
    for (file, fd) in [(input, 0), (output, 1), (output, 2)] {
        // SAFETY: plain numbers; the process's own standard files are given up.
        if unsafe { libc::dup2(file.as_raw_fd(), fd) } < 0 {
            return Errno::last();
        }
    }
    let become_program = || {
        setsid()?;
        chdir(WORK)?;
        sigprocmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::empty()), None)?;
        // SAFETY: the default action is what a program expects to start with; Rust's runtime ignores the signal.
        unsafe { signal(Signal::SIGPIPE, SigHandler::SigDfl) }?;
        execve(&argv[0], argv, &ENVIRONMENT)
    };
    match become_program() {
        Ok(never) => match never {},
        Err(errno) => errno,
    }
}

/// Takes one ended process; `None` if there is none now.
fn reap() -> Result<Option<(Pid, ExitStatus)>> {
    let mut status = 0;
    // SAFETY: `status` is written during the call.
    match unsafe { libc::waitpid(-1, &raw mut status, libc::WNOHANG) } {
        0 => Ok(None),
        -1 if Errno::last() == Errno::ECHILD => Ok(None),
        -1 => Err(Errno::last().into()),
        pid => Ok(Some((Pid::from_raw(pid), ExitStatus::from_raw(status)))),
    }
}

/// Waits until a child may have ended, at most `left`.
fn wait_for_child(left: Duration) {
    let time = libc::timespec {
        tv_sec: left.as_secs() as libc::time_t,
        tv_nsec: left.subsec_nanos().into(),
    };
    let mut set = SigSet::empty();
    set.add(Signal::SIGCHLD);
    // SAFETY: both are read during the call.
    unsafe { libc::sigtimedwait(set.as_ref(), std::ptr::null_mut(), &raw const time) };
}

/// Ends whatever the program has left running.
fn clear_processes() -> Result {
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        // Every process but this one and process 1. ESRCH: there is none.
        match kill(Pid::from_raw(-1), Signal::SIGKILL) {
            Ok(()) => {}
            Err(Errno::ESRCH) => while reap()?.is_some() {},
            Err(errno) => return Err(errno.into()),
        }
        let mut status = 0;
        // SAFETY: `status` is written during the call.
        let reaped = unsafe { libc::waitpid(-1, &raw mut status, libc::WNOHANG) };
        if reaped < 0 {
            return Ok(());
        }
        if Instant::now() > deadline {
            return Err("a killed process does not end".into());
        }
        if reaped == 0 {
            wait_for_child(Duration::from_millis(100));
        }
    }
}

/// Removes what is in a folder.
fn clear_folder(folder: &Path) -> Result {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            fs::remove_dir_all(entry.path())?;
        } else {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

/// The end of what the program printed, in one line.
fn end_of_output() -> Result<String> {
    // A program may have removed it, with all of /tmp.
    let Ok(mut file) = File::open(OUTPUT) else {
        return Ok(String::new());
    };
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(OUTPUT_SHOWN)))?;
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)?;
    let text = String::from_utf8_lossy(&bytes);
    Ok(text.trim().escape_debug().to_string())
}
