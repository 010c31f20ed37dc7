//! One machine from start to end: starts QEMU, pumps its serial lines, and says how it ended.
//!
//! Each line has a thread that copies what arrives; the thread that called [`run`] follows the events, watches the
//! time, and owns QEMU, so QEMU dies with it. The pumps end when QEMU closes its ends of the sockets.

use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, IsTerminal, Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use rustix::fs::FileType;

use crate::config::GuestConfig;
use crate::image::Image;
use crate::interrupt::{self, Guarded};
use crate::qemu::{self, Hardware, Wires};
use crate::records::{Record, Stats};
use crate::stdin::{self, Input};
use crate::{memfile, workspace};

/// How long QEMU may take to end after the kernel's last record.
const GRACE: Duration = Duration::from_secs(5);
/// How much of the log is kept in memory for reports; the file has all of it.
const LOG_KEPT: usize = 4 << 20;
/// How many older logs stay beside a new one of the same kind.
const OWN_LOGS_KEPT: usize = 50;

/// Where one of the program's output streams goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Output {
    /// Into [`Outcome::stdout`] or [`Outcome::stderr`].
    Capture,
    /// To this process's own stdout or stderr.
    Inherit,
}

/// The root file system's disk.
#[derive(Debug)]
pub enum Root {
    /// From the cache.
    Cached(Image),
    /// Made for this machine, in memory.
    Memory(File),
}

impl Root {
    /// The image itself.
    pub fn file(&self) -> &File {
        match self {
            Self::Cached(image) => &image.file,
            Self::Memory(file) => file,
        }
    }
}

/// Everything about one machine.
#[derive(Debug)]
pub struct Machine {
    pub hardware: Hardware,
    pub boot: Image,
    pub root: Root,
    pub guest: GuestConfig,
    pub stdin: Input,
    pub stdout: Output,
    pub stderr: Output,
    /// The file that the kernel's log goes to.
    pub log: PathBuf,
    /// Whether the log is shown on stderr too.
    pub show_log: bool,
    /// When to give up; `None`: never.
    pub timeout: Option<Duration>,
    /// Whether the timeout starts anew whenever the program writes to its captured stdout.
    pub timeout_after_output: bool,
}

/// Something that happened while the machine ran.
#[derive(Debug)]
pub enum Event<'a> {
    Record(&'a Record),
    /// A part of what the program wrote to its captured stdout.
    Stdout(&'a [u8]),
}

/// How the machine ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum End {
    /// The first program exited with this status.
    Exited(u8),
    /// The first program was killed by this signal.
    Killed(u8),
    /// The kernel panicked.
    Panicked(String),
    /// The kernel did not get as far as a program; the log says why.
    BringUpFailed,
    /// A test image ran its tests.
    Tested { passed: u64, failed: u64 },
    /// The machine ended without a word, as after a triple fault, or QEMU failed to start it.
    Lost { status: String, qemu_says: String },
    /// Time was up.
    TimedOut(Duration),
    /// Nobody reads this process's output any more.
    OutputClosed,
    /// This process's output cannot be written.
    OutputFailed(String),
    /// A signal asked this process to end.
    Interrupted(i32),
}

impl End {
    /// The exit status that stands for this end.
    pub fn status(&self) -> u8 {
        match self {
            Self::Exited(status) => *status,
            Self::Killed(signal) => 128u8.saturating_add(*signal),
            Self::Panicked(_) => 101,
            Self::BringUpFailed => 3,
            Self::Tested { passed, failed } => u8::from(*failed > 0 || *passed == 0),
            Self::Lost { .. } | Self::OutputFailed(_) => 125,
            Self::TimedOut(_) => 124,
            // As if SIGPIPE had killed it.
            Self::OutputClosed => 141,
            Self::Interrupted(signal) => 128 + u8::try_from(*signal).unwrap_or(0),
        }
    }
}

impl std::fmt::Display for End {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Exited(status) => write!(f, "exited with status {status}"),
            Self::Killed(signal) => write!(f, "killed by signal {signal}"),
            Self::Panicked(message) => write!(f, "kernel panic: {message}"),
            Self::BringUpFailed => write!(f, "the kernel could not start a program"),
            Self::Tested { passed, failed } => write!(f, "{passed} tests passed, {failed} failed"),
            Self::Lost { status, qemu_says } if qemu_says.is_empty() => {
                write!(
                    f,
                    "the machine ended without a result (QEMU: {status}), as after a triple fault"
                )
            }
            Self::Lost { status, qemu_says } => write!(f, "QEMU failed ({status}): {qemu_says}"),
            Self::TimedOut(limit) => {
                write!(f, "no end after {} s (--timeout)", limit.as_secs_f64())
            }
            Self::OutputClosed => write!(f, "the output was closed"),
            Self::OutputFailed(error) => write!(f, "the output cannot be written: {error}"),
            Self::Interrupted(signal) => write!(f, "interrupted by signal {signal}"),
        }
    }
}

/// What a machine left behind.
#[derive(Debug)]
pub struct Outcome {
    pub end: End,
    pub stats: Option<Stats>,
    /// All control records, in order.
    pub records: Vec<Record>,
    /// What the program wrote, where it was captured.
    pub stdout: Vec<u8>,
    pub stderr: Vec<u8>,
    /// The end of the kernel's log, at most a few megabytes; the file has all of it.
    pub log: String,
    pub log_file: PathBuf,
    pub elapsed: Duration,
}

enum Message {
    Record(Record),
    Stdout(Vec<u8>),
    OutputLost(io::Error),
    LineEnded,
}

/// Runs `machine` to its end and tells `observer` what happens on the way. The error is about the host: a tool that is
/// missing, a file that cannot be written.
pub fn run(machine: Machine, mut observer: impl FnMut(Event<'_>)) -> Result<Outcome> {
    let started = Instant::now();
    let mut lines = Vec::new();
    let mut guest_ends = Vec::new();
    for _ in 0..4 {
        let (host, guest) = UnixStream::pair().context("cannot make a serial line")?;
        lines.push(host);
        guest_ends.push(guest);
    }
    let config = memfile::with_bytes("faultline-config", &machine.guest.encode()?)?;
    let serial =
        std::array::from_fn(|index| format!("socket,fd={}", guest_ends[index].as_raw_fd()));
    let wires = Wires {
        boot_disk: memfile::path_in_child(&machine.boot.file),
        root_disk: memfile::path_in_child(machine.root.file()),
        config: memfile::path_in_child(&config),
        serial,
    };
    let line = qemu::command(&machine.hardware, &wires)?;
    let mut command = Command::new(&line[0]);
    command
        .args(&line[1..])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped());
    // Ctrl-C is for this process, which ends QEMU in order.
    std::os::unix::process::CommandExt::process_group(&mut command, 0);
    let log = File::create(&machine.log)
        .with_context(|| format!("cannot write the log {}", machine.log.display()))?;
    let mut inherited: Vec<BorrowedFd<'_>> = guest_ends.iter().map(AsFd::as_fd).collect();
    inherited.extend([
        machine.boot.file.as_fd(),
        machine.root.file().as_fd(),
        config.as_fd(),
    ]);
    let mut qemu = Guarded::spawn(&mut command, &inherited)
        .with_context(|| format!("cannot start {}", qemu::PROGRAM))?;
    drop(inherited);
    drop(guest_ends);

    let stdin_line = lines[2].try_clone().context("cannot share a serial line")?;
    let (stop, keep_going) =
        rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).context("cannot make a pipe")?;
    let (sender, receiver) = mpsc::channel();
    let pumps = start_pumps(lines, &machine, log, sender);
    let mut stderr = qemu.child().stderr.take().expect("stderr is piped");
    let complaints = thread::spawn(move || {
        let mut text = String::new();
        // What is no text is lost; it only serves a message.
        let _ = stderr.read_to_string(&mut text);
        text
    });

    let deadline = machine.timeout.map(|limit| started + limit);
    let mut course = Course {
        receiver,
        deadline,
        anew: machine.timeout.filter(|_| machine.timeout_after_output),
        records: Vec::new(),
        feeder: None,
    };
    let feed = || stdin::feed(machine.stdin.clone(), stdin_line, stop);
    let early_end = course.follow(&mut observer, feed, machine.timeout.unwrap_or_default());
    if early_end.is_some() {
        // It fails only if QEMU is gone already.
        let _ = qemu.child().kill();
    }
    let status = qemu.child().wait().context("cannot wait for QEMU")?;
    drop(qemu);
    drop(keep_going);
    if let Some(feeder) = course.feeder {
        // It cannot panic.
        let _ = feeder.join();
    }
    let [log, _, stdout, stderr] = pumps.map(|pump| pump.join().expect("a pump does not panic"));
    let qemu_says = complaints
        .join()
        .expect("the reader does not panic")
        .trim()
        .to_owned();
    let interrupted = interrupt::caught().map(End::Interrupted);
    let end = interrupted
        .or(early_end)
        .unwrap_or_else(|| verdict(&course.records, status, qemu_says));
    let stats = course.records.iter().rev().find_map(|record| match record {
        Record::Stats(stats) => Some(*stats),
        _ => None,
    });
    Ok(Outcome {
        end,
        stats,
        records: course.records,
        stdout,
        stderr,
        log: String::from_utf8_lossy(&log).into_owned(),
        log_file: machine.log,
        elapsed: started.elapsed(),
    })
}

/// Where the log of a machine goes if nothing else was asked: below the target directory.
pub fn log_file(name: &str) -> Result<PathBuf> {
    Ok(workspace::target_subdir("log")?.join(format!("{name}.log")))
}

/// Like [`log_file`] for this process alone, as many may run at a time. Of such logs only the newest ones are kept.
pub fn own_log_file(name: &str) -> Result<PathBuf> {
    let dir = workspace::target_subdir("log")?;
    let prefix = format!("{name}-");
    let entries =
        fs::read_dir(&dir).with_context(|| format!("{} cannot be read", dir.display()))?;
    let mut logs: Vec<_> = entries
        .flatten()
        .filter(|entry| entry.file_name().to_string_lossy().starts_with(&prefix))
        .filter_map(|entry| Some((entry.metadata().ok()?.modified().ok()?, entry.path())))
        .collect();
    logs.sort();
    for (_, old) in logs.iter().rev().skip(OWN_LOGS_KEPT) {
        // Another process may have been faster.
        let _ = fs::remove_file(old);
    }
    Ok(dir.join(format!("{prefix}{}.log", std::process::id())))
}

/// Which of this process's standard streams are a terminal, for a program that inherits them all.
pub fn terminals() -> [bool; 3] {
    [
        io::stdin().is_terminal(),
        io::stdout().is_terminal(),
        io::stderr().is_terminal(),
    ]
}

/// Which of them are /dev/null.
pub fn nulls() -> [bool; 3] {
    [
        is_null(io::stdin()),
        is_null(io::stdout()),
        is_null(io::stderr()),
    ]
}

fn is_null(stream: impl AsFd) -> bool {
    // Its numbers are the same on every Linux (devices.txt).
    rustix::fs::fstat(stream).is_ok_and(|stat| {
        FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice
            && stat.st_rdev == rustix::fs::makedev(1, 3)
    })
}

/// What is known while the machine runs.
struct Course {
    receiver: Receiver<Message>,
    deadline: Option<Instant>,
    /// How long the machine has from each output of the program on.
    anew: Option<Duration>,
    records: Vec<Record>,
    feeder: Option<JoinHandle<()>>,
}

impl Course {
    /// Follows the machine until all its lines have ended. An end that came from outside is returned, and then QEMU
    /// may still run.
    fn follow(
        &mut self,
        observer: &mut impl FnMut(Event<'_>),
        feed: impl FnOnce() -> JoinHandle<()>,
        limit: Duration,
    ) -> Option<End> {
        let mut feed = Some(feed);
        let mut open_lines = 4;
        let mut last_record = false;
        while open_lines > 0 {
            let message = match self.deadline {
                None => self
                    .receiver
                    .recv()
                    .map_err(|_| RecvTimeoutError::Disconnected),
                Some(deadline) => self
                    .receiver
                    .recv_timeout(deadline.saturating_duration_since(Instant::now())),
            };
            match message {
                Ok(Message::Record(record)) => {
                    observer(Event::Record(&record));
                    // Before this the kernel may reset the line, and input would be lost.
                    if record == Record::Start
                        && let Some(feed) = feed.take()
                    {
                        self.feeder = Some(feed());
                    }
                    if record.is_last() {
                        last_record = true;
                        self.deadline = Some(Instant::now() + GRACE);
                    }
                    self.records.push(record);
                }
                Ok(Message::Stdout(bytes)) => {
                    observer(Event::Stdout(&bytes));
                    if let Some(limit) = self.anew.filter(|_| !last_record) {
                        self.deadline = Some(Instant::now() + limit);
                    }
                }
                Ok(Message::OutputLost(error)) => {
                    return Some(match error.kind() {
                        io::ErrorKind::BrokenPipe => End::OutputClosed,
                        _ => End::OutputFailed(error.to_string()),
                    });
                }
                Ok(Message::LineEnded) => open_lines -= 1,
                Err(RecvTimeoutError::Disconnected) => return None,
                Err(RecvTimeoutError::Timeout) if last_record => {
                    let status =
                        format!("still running {} s after the last record", GRACE.as_secs());
                    return Some(verdict_of(&self.records).unwrap_or(End::Lost {
                        status,
                        qemu_says: String::new(),
                    }));
                }
                Err(RecvTimeoutError::Timeout) => return Some(End::TimedOut(limit)),
            }
        }
        None
    }
}

/// How the machine ended, from the records and from QEMU's own status (isa-debug-exit makes `(value << 1) | 1` of it).
fn verdict(records: &[Record], status: ExitStatus, qemu_says: String) -> End {
    const BRING_UP_FAILED: i32 = (0x13 << 1) | 1;
    const PANIC: i32 = (0x11 << 1) | 1;
    match (verdict_of(records), status.code()) {
        (_, Some(BRING_UP_FAILED)) => End::BringUpFailed,
        (Some(End::Panicked(message)), _) => End::Panicked(message),
        (_, Some(PANIC)) => End::Panicked("without a message".into()),
        (Some(end), _) => end,
        (None, _) => End::Lost {
            status: status.to_string(),
            qemu_says,
        },
    }
}

fn verdict_of(records: &[Record]) -> Option<End> {
    records.iter().rev().find_map(|record| match record {
        Record::Exit(status) => Some(End::Exited(*status)),
        Record::Signal(signal) => Some(End::Killed(*signal)),
        Record::Panic(message) => Some(End::Panicked(message.clone())),
        Record::Tests { passed, failed } => Some(End::Tested {
            passed: *passed,
            failed: *failed,
        }),
        _ => None,
    })
}

/// Copies one line to where it belongs, and gives back what is to be kept.
type Pump = Box<dyn FnOnce(UnixStream, &Sender<Message>) -> Vec<u8> + Send>;

/// Starts a thread for each line; each gives back what it was to keep.
fn start_pumps(
    lines: Vec<UnixStream>,
    machine: &Machine,
    log: File,
    sender: Sender<Message>,
) -> [JoinHandle<Vec<u8>>; 4] {
    let show_log = machine.show_log;
    let (stdout, stderr) = (machine.stdout, machine.stderr);
    let mut lines = lines.into_iter();
    let mut spawn = |pump: Pump| {
        let (line, sender) = (lines.next().expect("there are four lines"), sender.clone());
        thread::spawn(move || {
            let kept = pump(line, &sender);
            // The receiver is gone if the machine was ended from outside.
            let _ = sender.send(Message::LineEnded);
            kept
        })
    };
    [
        spawn(Box::new(move |line, _| pump_log(line, log, show_log))),
        spawn(Box::new(|line, sender| {
            pump_records(line, sender);
            Vec::new()
        })),
        spawn(Box::new(move |line, sender| match stdout {
            Output::Capture => capture(line, |bytes| {
                drop(sender.send(Message::Stdout(bytes.to_vec())))
            }),
            Output::Inherit => forward(line, io::stdout(), sender),
        })),
        spawn(Box::new(move |line, sender| match stderr {
            Output::Capture => capture(line, |_| {}),
            Output::Inherit => forward(line, io::stderr(), sender),
        })),
    ]
}

/// Calls `each` with whatever arrives on `line`, until it ends or `each` says so.
fn read_all(mut line: UnixStream, mut each: impl FnMut(&[u8]) -> io::Result<()>) -> io::Result<()> {
    let mut buffer = vec![0; 1 << 16];
    loop {
        match line.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(length) => each(&buffer[..length])?,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            // QEMU died with input unread.
            Err(_) => return Ok(()),
        }
    }
}

fn capture(line: UnixStream, mut each: impl FnMut(&[u8])) -> Vec<u8> {
    let mut kept = Vec::new();
    let _ = read_all(line, |bytes| {
        kept.extend(bytes);
        each(bytes);
        Ok(())
    });
    kept
}

fn forward(line: UnixStream, mut to: impl Write, sender: &Sender<Message>) -> Vec<u8> {
    let forwarded = read_all(line, |bytes| to.write_all(bytes).and_then(|()| to.flush()));
    if let Err(error) = forwarded {
        // The receiver is gone if the machine was ended from outside.
        let _ = sender.send(Message::OutputLost(error));
    }
    Vec::new()
}

fn pump_log(line: UnixStream, mut file: File, show: bool) -> Vec<u8> {
    let mut kept = Vec::new();
    let _ = read_all(line, |bytes| {
        // A full disk must not stop the machine.
        let _ = file.write_all(bytes);
        if show {
            let _ = io::stderr().write_all(bytes);
        }
        kept.extend(bytes);
        if kept.len() > 2 * LOG_KEPT {
            kept.drain(..kept.len() - LOG_KEPT);
        }
        Ok(())
    });
    kept
}

fn pump_records(line: UnixStream, sender: &Sender<Message>) {
    let mut reader = BufReader::new(line);
    let mut text = Vec::new();
    while reader
        .read_until(b'\n', &mut text)
        .is_ok_and(|length| length > 0)
    {
        if let Some(record) = Record::parse(&String::from_utf8_lossy(&text)) {
            let _ = sender.send(Message::Record(record));
        }
        text.clear();
    }
}
