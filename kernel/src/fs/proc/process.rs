//! What /proc tells about one process.
//!
//! Inodes are made when they are looked up, and keep the process's last state alive as long as they are used.

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt::{self, Write};
use core::sync::atomic::Ordering;

use super::{finished, parse_number};
use crate::errno::{Errno, Result};
use crate::fs::file::{File, Opened};
use crate::fs::fixed::Directory;
use crate::fs::inode::{
    Access, DirEntry, EntrySink, FileSystem, FileType, Inode, InodeRef, Place, Stat,
};
use crate::fs::path;
use crate::fs::text::Text;
use crate::mm::{PAGE_SIZE, VmFlags, Vma, uaccess};
use crate::sched::current;
use crate::task::Process;
use crate::task::process::Layout;

/// Entries of /proc/PID.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Entry {
    Exe,
    Cwd,
    Root,
    Fd,
    Task,
    Maps,
    Stat,
    Statm,
    Status,
    Cmdline,
    Environ,
    Comm,
    Mounts,
    Limits,
    OomScoreAdj,
}

impl Entry {
    const ALL: [(Entry, &'static str, FileType); 15] = [
        (Entry::Exe, "exe", FileType::Symlink),
        (Entry::Cwd, "cwd", FileType::Symlink),
        (Entry::Root, "root", FileType::Symlink),
        (Entry::Fd, "fd", FileType::Directory),
        (Entry::Task, "task", FileType::Directory),
        (Entry::Maps, "maps", FileType::Regular),
        (Entry::Stat, "stat", FileType::Regular),
        (Entry::Statm, "statm", FileType::Regular),
        (Entry::Status, "status", FileType::Regular),
        (Entry::Cmdline, "cmdline", FileType::Regular),
        (Entry::Environ, "environ", FileType::Regular),
        (Entry::Comm, "comm", FileType::Regular),
        (Entry::Mounts, "mounts", FileType::Regular),
        (Entry::Limits, "limits", FileType::Regular),
        (Entry::OomScoreAdj, "oom_score_adj", FileType::Regular),
    ];
}

/// Inode numbers of a process start here.
pub fn ino_of(pid: u32) -> u64 {
    (u64::from(pid) + 1) << 24
}

/// /proc/PID.
pub struct ProcessDir {
    process: Arc<Process>,
    /// The frame of /proc, as parent.
    proc: Arc<Directory>,
    /// `/proc/PID/task/PID` is the directory once more.
    task: bool,
}

/// An entry of /proc/PID.
struct EntryInode {
    dir: Arc<ProcessDir>,
    entry: Entry,
    name: &'static str,
    file_type: FileType,
}

/// A link in /proc/PID/fd.
struct FdLink {
    dir: Arc<ProcessDir>,
    fd: u32,
    file: Arc<File>,
}

impl ProcessDir {
    pub fn new(process: Arc<Process>, proc: Arc<Directory>) -> ProcessDir {
        ProcessDir {
            process,
            proc,
            task: false,
        }
    }

    /// What is told about a process belongs to the user that it acts as.
    fn owned(&self, stat: Stat) -> Stat {
        let identity = self.process.credentials.get();
        Stat {
            uid: identity.user.effective,
            gid: identity.group.effective,
            ..stat
        }
    }

    fn share(&self) -> Result<Arc<ProcessDir>> {
        let dir = ProcessDir {
            process: self.process.clone(),
            proc: self.proc.clone(),
            task: self.task,
        };
        Ok(Arc::try_new(dir)?)
    }
}

fn number(n: u32) -> Result<Vec<u8>> {
    let mut text = Text::new();
    let outcome = write!(text, "{n}");
    finished(text, outcome)
}

impl Inode for ProcessDir {
    fn stat(&self) -> Stat {
        let ino = ino_of(self.process.pid) + u64::from(self.task) * 0x100;
        self.owned(Stat::new(FileSystem::Proc, ino, FileType::Directory, 0o555))
    }

    fn place(&self) -> Result<Place> {
        let parent: InodeRef = if self.task {
            let dir = ProcessDir {
                process: self.process.clone(),
                proc: self.proc.clone(),
                task: false,
            };
            dir.lookup(b"task")?
        } else {
            self.proc.clone()
        };
        Ok(Place::In(parent, number(self.process.pid)?))
    }

    fn open(&self, _access: Access, _nonblock: bool) -> Result<Opened> {
        Ok(Opened::Directory)
    }

    fn lookup(&self, name: &[u8]) -> Result<InodeRef> {
        let found = Entry::ALL
            .into_iter()
            .find(|(_, known, _)| known.as_bytes() == name);
        let (entry, name, file_type) = found.ok_or(Errno::ENOENT)?;
        if self.task && entry == Entry::Task {
            return Err(Errno::ENOENT);
        }
        Ok(Arc::try_new(EntryInode {
            dir: self.share()?,
            entry,
            name,
            file_type,
        })?)
    }

    fn read_dir(&self, pos: u64, sink: &mut EntrySink<'_>) -> Result {
        for (n, (entry, name, file_type)) in
            Entry::ALL.into_iter().enumerate().skip(pos as usize - 2)
        {
            if self.task && entry == Entry::Task {
                continue;
            }
            let ino = self.stat().ino + entry as u64 + 1;
            if !sink(DirEntry {
                name: name.as_bytes(),
                ino,
                file_type,
                next: n as u64 + 3,
            }) {
                break;
            }
        }
        Ok(())
    }
}

impl EntryInode {
    fn process(&self) -> &Process {
        &self.dir.process
    }

    /// Whether the reader is the process itself, whose memory can be read then.
    fn is_own(&self) -> bool {
        Arc::ptr_eq(&self.dir.process, &current().process)
    }

    fn text(&self, text: &mut Text) -> fmt::Result {
        let process = self.process();
        match self.entry {
            Entry::Maps => maps(process, text),
            Entry::Stat => stat(process, text),
            Entry::Statm => statm(process, text),
            Entry::Status => status(process, text),
            Entry::Comm => {
                text.push(name_of(process).as_bytes());
                text.write_str("\n")
            }
            Entry::Cmdline => self.memory(text, |layout| (layout.arg_start, layout.arg_end)),
            Entry::Environ => self.memory(text, |layout| (layout.env_start, layout.env_end)),
            Entry::Mounts => mounts(text),
            Entry::Limits => limits(process, text),
            Entry::OomScoreAdj => text.write_str("0\n"),
            Entry::Exe | Entry::Cwd | Entry::Root | Entry::Fd | Entry::Task => Ok(()),
        }
    }

    /// A range of the process's own memory, as far as it is readable.
    fn memory(&self, text: &mut Text, range: impl Fn(&Layout) -> (usize, usize)) -> fmt::Result {
        if !self.is_own() {
            return Ok(());
        }
        let (mut at, end) = range(&self.process().layout.lock());
        while at < end {
            let mut bytes = [0; 256];
            let part = (end - at).min(bytes.len());
            let got = uaccess::read_bytes_partly(at, &mut bytes[..part]);
            text.push(&bytes[..got]);
            if got < part {
                break;
            }
            at += part;
        }
        Ok(())
    }

    /// Where exe, cwd and root lead.
    fn target(&self) -> Result<InodeRef> {
        match self.entry {
            Entry::Exe => self
                .process()
                .fs
                .exe()
                .map(|file| file.inode.clone())
                .ok_or(Errno::ENOENT),
            Entry::Cwd => self.process().fs.cwd(),
            Entry::Root => crate::fs::root(),
            _ => Err(Errno::EINVAL),
        }
    }
}

impl Inode for EntryInode {
    fn stat(&self) -> Stat {
        let mode = match (self.entry, self.file_type) {
            (Entry::Fd, _) => 0o500,
            (Entry::Environ, _) => 0o400,
            (Entry::OomScoreAdj, _) => 0o644,
            (_, FileType::Directory) => 0o555,
            (_, FileType::Symlink) => 0o777,
            _ => 0o444,
        };
        self.dir.owned(Stat::new(
            FileSystem::Proc,
            self.dir.stat().ino + self.entry as u64 + 1,
            self.file_type,
            mode,
        ))
    }

    fn place(&self) -> Result<Place> {
        let mut name = Vec::new();
        name.try_reserve_exact(self.name.len())?;
        name.extend_from_slice(self.name.as_bytes());
        Ok(Place::In(self.dir.clone(), name))
    }

    fn open(&self, access: Access, _nonblock: bool) -> Result<Opened> {
        match self.file_type {
            FileType::Directory => return Ok(Opened::Directory),
            FileType::Symlink => return Err(Errno::ELOOP),
            _ if access.write => return Err(Errno::EACCES),
            _ => {}
        }
        let mut text = Text::new();
        let outcome = self.text(&mut text);
        finished(text, outcome).map(Opened::Text)
    }

    fn lookup(&self, name: &[u8]) -> Result<InodeRef> {
        let n = parse_number(name).ok_or(Errno::ENOENT);
        match self.entry {
            Entry::Fd => {
                let fd = n?;
                let file = self
                    .process()
                    .files
                    .get(fd as i32)
                    .map_err(|_| Errno::ENOENT)?;
                Ok(Arc::try_new(FdLink {
                    dir: self.dir.clone(),
                    fd,
                    file,
                })?)
            }
            Entry::Task => {
                n.and_then(|n| {
                    if n == self.process().pid {
                        Ok(())
                    } else {
                        Err(Errno::ENOENT)
                    }
                })?;
                let dir = ProcessDir {
                    process: self.dir.process.clone(),
                    proc: self.dir.proc.clone(),
                    task: true,
                };
                Ok(Arc::try_new(dir)?)
            }
            _ => Err(Errno::ENOTDIR),
        }
    }

    fn read_dir(&self, pos: u64, sink: &mut EntrySink<'_>) -> Result {
        let mut emit = |n: u32, ino: u64, file_type: FileType, next: u64| -> Result<bool> {
            Ok(sink(DirEntry {
                name: &number(n)?,
                ino,
                file_type,
                next,
            }))
        };
        match self.entry {
            Entry::Task if pos <= 2 => {
                let pid = self.process().pid;
                emit(pid, ino_of(pid) + 0x100, FileType::Directory, 3)?;
            }
            Entry::Fd => {
                let mut from = (pos - 2).min(u64::from(u32::MAX)) as u32;
                while let Some(fd) = self.process().files.next_in_use(from) {
                    from = fd + 1;
                    if !emit(
                        fd,
                        fd_ino(&self.dir, fd),
                        FileType::Symlink,
                        u64::from(from) + 2,
                    )? {
                        break;
                    }
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn read_link(&self) -> Result<Vec<u8>> {
        if self.file_type != FileType::Symlink {
            return Err(Errno::EINVAL);
        }
        path::path_of(&self.target()?)
    }

    fn follow(&self) -> Option<Result<InodeRef>> {
        (self.file_type == FileType::Symlink).then(|| self.target())
    }
}

fn fd_ino(dir: &ProcessDir, fd: u32) -> u64 {
    dir.stat().ino + 0x10000 + u64::from(fd)
}

impl Inode for FdLink {
    fn stat(&self) -> Stat {
        let mode = 0o100
            + if self.file.readable() { 0o400 } else { 0 }
            + if self.file.writable() { 0o200 } else { 0 };
        let ino = fd_ino(&self.dir, self.fd);
        // The size that Linux shows for such links.
        self.dir.owned(Stat {
            size: 64,
            ..Stat::new(FileSystem::Proc, ino, FileType::Symlink, mode)
        })
    }

    fn place(&self) -> Result<Place> {
        Ok(Place::In(self.dir.lookup(b"fd")?, number(self.fd)?))
    }

    fn open(&self, _access: Access, _nonblock: bool) -> Result<Opened> {
        Err(Errno::ELOOP)
    }

    fn read_link(&self) -> Result<Vec<u8>> {
        self.file.path()
    }

    fn follow(&self) -> Option<Result<InodeRef>> {
        Some(Ok(self.file.inode.clone()))
    }
}

/// The program's name.
struct Name([u8; 16]);

impl Name {
    fn as_bytes(&self) -> &[u8] {
        self.0.split(|&byte| byte == 0).next().unwrap_or_default()
    }
}

fn name_of(process: &Process) -> Name {
    Name(*process.name.lock())
}

/// Letters of proc(5): running, sleeping, stopped, zombie.
fn state_of(process: &Process) -> (char, &'static str) {
    if process.events.lock().exited.is_some() {
        ('Z', "zombie")
    } else if process.pid == current().process.pid {
        ('R', "running")
    } else {
        ('S', "sleeping")
    }
}

fn sizes(process: &Process) -> (u64, u64) {
    process
        .mm()
        .map_or((0, 0), |mm| (mm.total_pages(), mm.resident_pages()))
}

fn statm(process: &Process, text: &mut Text) -> fmt::Result {
    let (total, resident) = sizes(process);
    writeln!(text, "{total} {resident} 0 0 0 {total} 0")
}

fn stat(process: &Process, text: &mut Text) -> fmt::Result {
    let (total, resident) = sizes(process);
    let (utime, stime) = process.cpu_times_in_ticks();
    write!(text, "{} (", process.pid)?;
    text.push(name_of(process).as_bytes());
    let group = process.process_group.load(Ordering::Relaxed);
    let session = process.session.load(Ordering::Relaxed);
    write!(
        text,
        ") {} {} {group} {session} 0 -1 0 ",
        state_of(process).0,
        process.parent_pid()
    )?;
    let usage = &process.usage;
    let (minor, major) = (
        usage.minor.load(Ordering::Relaxed),
        usage.major.load(Ordering::Relaxed),
    );
    let children = &process.child_usage;
    let (cminor, cmajor) = (
        children.minor.load(Ordering::Relaxed),
        children.major.load(Ordering::Relaxed),
    );
    write!(
        text,
        "{minor} {cminor} {major} {cmajor} {utime} {stime} 0 0 20 0 1 0 0 "
    )?;
    let layout = *process.layout.lock();
    write!(
        text,
        "{} {resident} {} 0 0 {} 0 0 0 0 0 0 0 0 0 17 0 0 0 0 0 0 ",
        total * PAGE_SIZE as u64,
        u64::MAX,
        layout.stack_start
    )?;
    writeln!(
        text,
        "0 0 0 {} {} {} {} 0",
        layout.arg_start, layout.arg_end, layout.env_start, layout.env_end
    )
}

fn status(process: &Process, text: &mut Text) -> fmt::Result {
    let (total, resident) = sizes(process);
    let (letter, word) = state_of(process);
    text.write_str("Name:\t")?;
    text.push(name_of(process).as_bytes());
    writeln!(
        text,
        "\nUmask:\t{:04o}\nState:\t{letter} ({word})",
        process.umask.load(Ordering::Relaxed)
    )?;
    writeln!(
        text,
        "Tgid:\t{0}\nNgid:\t0\nPid:\t{0}\nPPid:\t{1}\nTracerPid:\t0",
        process.pid,
        process.parent_pid()
    )?;
    writeln!(
        text,
        "Uid:\t0\t0\t0\t0\nGid:\t0\t0\t0\t0\nFDSize:\t64\nGroups:\t"
    )?;
    let kib = |pages: u64| pages * PAGE_SIZE as u64 / 1024;
    writeln!(
        text,
        "VmSize:\t{:8} kB\nVmLck:\t{:8} kB\nVmRSS:\t{:8} kB\nVmPTE:\t{:8} kB",
        kib(total),
        kib(process.mm().map_or(0, |mm| mm.locked_pages())),
        kib(resident),
        kib(process.mm().map_or(0, |mm| mm.table_pages()))
    )?;
    writeln!(
        text,
        "Threads:\t{}",
        process.signals.lock().threads.iter().count()
    )
}

fn mounts(text: &mut Text) -> fmt::Result {
    text.write_str(
        "/dev/vda / ext4 rw,relatime 0 0\nproc /proc proc rw,relatime 0 0\ndevtmpfs /dev devtmpfs rw,relatime 0 0\n\
         tmpfs /tmp tmpfs rw,relatime 0 0\ntmpfs /dev/shm tmpfs rw,relatime 0 0\n",
    )
}

fn limits(process: &Process, text: &mut Text) -> fmt::Result {
    use crate::task::rlimit::{INFINITY, Resource};
    writeln!(
        text,
        "{:<25} {:<20} {:<20} {:<10}",
        "Limit", "Soft Limit", "Hard Limit", "Units"
    )?;
    for (resource, name, unit) in [
        (Resource::Cpu, "Max cpu time", "seconds"),
        (Resource::FileSize, "Max file size", "bytes"),
        (Resource::Data, "Max data size", "bytes"),
        (Resource::Stack, "Max stack size", "bytes"),
        (Resource::Core, "Max core file size", "bytes"),
        (Resource::Processes, "Max processes", "processes"),
        (Resource::Files, "Max open files", "files"),
        (Resource::AddressSpace, "Max address space", "bytes"),
    ] {
        write!(text, "{name:<26}")?;
        let limit = process
            .rlimits
            .get(resource as usize)
            .map_err(|_| fmt::Error)?;
        for value in [limit.soft, limit.hard] {
            if value == INFINITY {
                write!(text, "{:<21}", "unlimited")?;
            } else {
                write!(text, "{value:<21}")?;
            }
        }
        writeln!(text, "{unit:<10}")?;
    }
    Ok(())
}

/// One line for each area, as in Linux's `fs/proc/task_mmu.c`: range, permissions, offset, device, inode, name.
fn maps(process: &Process, text: &mut Text) -> fmt::Result {
    let Some(mm) = process.mm() else {
        return Ok(());
    };
    let heap = mm.heap_range();
    let mut outcome = Ok(());
    mm.for_each_vma(&mut |vma| {
        if outcome.is_ok() {
            outcome = line(vma, heap, text);
        }
    });
    outcome
}

fn line(vma: &Vma, heap: (usize, usize), text: &mut Text) -> fmt::Result {
    let start = text.len();
    let letter = |flag, letter| {
        if vma.flags.contains(flag) {
            letter
        } else {
            '-'
        }
    };
    let (read, write, exec) = (
        letter(VmFlags::READ, 'r'),
        letter(VmFlags::WRITE, 'w'),
        letter(VmFlags::EXEC, 'x'),
    );
    let shared = if vma.is_shared() { 's' } else { 'p' };
    write!(
        text,
        "{:08x}-{:08x} {read}{write}{exec}{shared} ",
        vma.start.get(),
        vma.end.get()
    )?;
    let source = vma.source.as_ref();
    let file = source.and_then(|source| source.file.as_ref());
    let offset = if file.is_some() {
        source.map_or(0, |source| source.first_page * PAGE_SIZE as u64)
    } else {
        0
    };
    let (device, ino) = file.map_or((0, 0), |file| file.id());
    write!(
        text,
        "{offset:08x} {:02x}:{:02x} {ino} ",
        device >> 8,
        device & 0xff
    )?;
    let is_heap = file.is_none() && vma.start.get() < heap.1 && vma.end.get() > heap.0;
    let is_stack = vma.flags.contains(VmFlags::STACK);
    if file.is_some() || is_heap || is_stack {
        while text.len() - start < 73 {
            text.write_str(" ")?;
        }
    }
    match file {
        Some(file) => file.write_path(text)?,
        None if is_heap => text.write_str("[heap]")?,
        None if is_stack => text.write_str("[stack]")?,
        None => {}
    }
    text.write_str("\n")
}
