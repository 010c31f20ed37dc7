//! What /proc tells about one process.
//!
//! Inodes are made when they are looked up, and keep the process's last state alive as long as they are used.

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt::{self, Write};

use super::subject::{Subject, thread_of};
use super::{finished, memory, parse_number, status};
use crate::errno::{Errno, Result};
use crate::fs::file::{File, Opened};
use crate::fs::fixed::Directory;
use crate::fs::generated::{self, Generator};
use crate::fs::inode::{
    Access, DirEntry, EntrySink, FileSystem, FileType, Inode, InodeRef, Place, Stat,
};
use crate::fs::path;
use crate::fs::text::Text;
use crate::mm::{PAGE_SIZE, VmFlags, Vma, uaccess};
use crate::sched::current;
use crate::task::process::Layout;
use crate::task::{Process, Thread, oom};

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
    OomScore,
    OomScoreAdj,
    Smaps,
    SmapsRollup,
    Pagemap,
    Mem,
}

impl Entry {
    const ALL: [(Entry, &'static str, FileType); 20] = [
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
        (Entry::OomScore, "oom_score", FileType::Regular),
        (Entry::OomScoreAdj, "oom_score_adj", FileType::Regular),
        (Entry::Smaps, "smaps", FileType::Regular),
        (Entry::SmapsRollup, "smaps_rollup", FileType::Regular),
        (Entry::Pagemap, "pagemap", FileType::Regular),
        (Entry::Mem, "mem", FileType::Regular),
    ];

    /// Permission bits.
    fn mode(self) -> u32 {
        match self {
            Entry::Exe | Entry::Cwd | Entry::Root => 0o777,
            Entry::Fd | Entry::Task => 0o555,
            Entry::OomScoreAdj | Entry::Comm => 0o644,
            Entry::Environ | Entry::Pagemap => 0o400,
            Entry::Mem => 0o600,
            _ => 0o444,
        }
    }

    /// Whether something can be written to it.
    fn is_writable(self) -> bool {
        matches!(self, Entry::OomScoreAdj | Entry::Mem | Entry::Comm)
    }
}

/// Further up than the inodes of /proc/PID are those of its threads, by their own numbers.
const TASK_INODES: u64 = 0x100;

/// Bits of a position in a list of threads that are a thread's birth; the others are its number.
const BIRTH_BITS: u32 = 48;

/// Inode numbers of a process start here.
pub fn ino_of(pid: u32) -> u64 {
    (u64::from(pid) + 1) << 24
}

/// /proc/PID.
pub struct ProcessDir {
    process: Arc<Process>,
    /// The frame of /proc, as parent.
    proc: Arc<Directory>,
    /// Of this thread, in `/proc/PID/task`; nearly the same once more.
    task: Option<u32>,
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
            task: None,
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
        let ino = match self.task {
            Some(tid) => ino_of(tid) + TASK_INODES,
            None => ino_of(self.process.pid),
        };
        self.owned(Stat::new(FileSystem::Proc, ino, FileType::Directory, 0o555))
    }

    fn place(&self) -> Result<Place> {
        let Some(tid) = self.task else {
            return Ok(Place::In(self.proc.clone(), number(self.process.pid)?));
        };
        let dir = ProcessDir {
            process: self.process.clone(),
            proc: self.proc.clone(),
            task: None,
        };
        Ok(Place::In(dir.lookup(b"task")?, number(tid)?))
    }

    fn open(&self, _access: Access, _nonblock: bool) -> Result<Opened> {
        Ok(Opened::Directory)
    }

    fn lookup(&self, name: &[u8]) -> Result<InodeRef> {
        let found = Entry::ALL
            .into_iter()
            .find(|(_, known, _)| known.as_bytes() == name);
        let (entry, name, file_type) = found.ok_or(Errno::ENOENT)?;
        if self.task.is_some() && entry == Entry::Task {
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
            if self.task.is_some() && entry == Entry::Task {
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

impl Generator for EntryInode {
    fn generate(&self, cursor: u64, text: &mut Text) -> Result<Option<u64>> {
        let process = self.process();
        match self.entry {
            Entry::Maps => memory::each_area(process, cursor, text, |_, vma, heap, text| {
                line(vma, heap, text)
            }),
            Entry::Smaps => memory::each_area(process, cursor, text, memory::smaps_entry),
            Entry::SmapsRollup => memory::smaps_rollup(process, text).map(|()| None),
            _ => {
                let subject = self.subject()?;
                self.text(&subject, text).map_err(|_| Errno::ENOMEM)?;
                Ok(None)
            }
        }
    }

    fn accept(&self, bytes: &[u8]) -> Result {
        match self.entry {
            Entry::OomScoreAdj => oom::set_adjustment(self.process(), bytes),
            Entry::Comm if self.is_own() => {
                let mut name = [0; 16];
                let len = bytes.len().min(name.len() - 1);
                name[..len].copy_from_slice(&bytes[..len]);
                self.thread()?.set_name(name);
                Ok(())
            }
            _ => Err(Errno::EINVAL),
        }
    }
}

impl EntryInode {
    fn share(&self) -> EntryInode {
        EntryInode {
            dir: self.dir.clone(),
            entry: self.entry,
            name: self.name,
            file_type: self.file_type,
        }
    }

    fn process(&self) -> &Process {
        &self.dir.process
    }

    /// The thread whose files are told of: of a process the first. `ENOENT` if it has ended.
    fn thread(&self) -> Result<Arc<Thread>> {
        match self.dir.task {
            Some(tid) => thread_of(self.process(), tid),
            None => self.process().first_thread().ok_or(Errno::ENOENT),
        }
    }

    fn subject(&self) -> Result<Subject<'_>> {
        Subject::of(self.process(), self.dir.task)
    }

    /// Whether the reader is the process itself, whose memory can be read then.
    fn is_own(&self) -> bool {
        Arc::ptr_eq(&self.dir.process, &current().process)
    }

    fn text(&self, subject: &Subject<'_>, text: &mut Text) -> fmt::Result {
        let process = subject.process;
        match self.entry {
            Entry::Stat => status::stat(subject, text),
            Entry::Statm => status::statm(process, text),
            Entry::Status => status::status(subject, text),
            Entry::Comm => {
                text.push(subject.name().as_bytes());
                text.write_str("\n")
            }
            Entry::Cmdline => self.memory(text, |layout| (layout.arg_start, layout.arg_end)),
            Entry::Environ => self.memory(text, |layout| (layout.env_start, layout.env_end)),
            Entry::Mounts => mounts(text),
            Entry::Limits => limits(process, text),
            Entry::OomScore => writeln!(text, "{}", oom::score(process)),
            Entry::OomScoreAdj => writeln!(text, "{}", process.oom_adjustment()),
            _ => Ok(()),
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
            Entry::Exe => {
                self.thread()?;
                let exe = self.process().exe();
                exe.map(|file| file.inode.clone()).ok_or(Errno::ENOENT)
            }
            Entry::Cwd => self.thread()?.fs_of_other().cwd(),
            Entry::Root => crate::fs::root(),
            _ => Err(Errno::EINVAL),
        }
    }
}

impl Inode for EntryInode {
    fn stat(&self) -> Stat {
        self.dir.owned(Stat::new(
            FileSystem::Proc,
            self.dir.stat().ino + self.entry as u64 + 1,
            self.file_type,
            self.entry.mode(),
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
            _ if access.write && !self.entry.is_writable() => return Err(Errno::EACCES),
            _ => {}
        }
        let process = &self.dir.process;
        match self.entry {
            Entry::Mem => memory::open_memory(process),
            Entry::Pagemap => memory::open_pagemap(process),
            Entry::Smaps | Entry::SmapsRollup => {
                memory::open_space(process)?;
                generated::open(self.share())
            }
            _ => generated::open(self.share()),
        }
    }

    fn lookup(&self, name: &[u8]) -> Result<InodeRef> {
        let n = parse_number(name).ok_or(Errno::ENOENT);
        match self.entry {
            Entry::Fd => {
                let fd = n?;
                let file = self
                    .thread()?
                    .files_of_other()
                    .get(fd as i32)
                    .map_err(|_| Errno::ENOENT)?;
                Ok(Arc::try_new(FdLink {
                    dir: self.dir.clone(),
                    fd,
                    file,
                })?)
            }
            Entry::Task => {
                let tid = n?;
                thread_of(self.process(), tid)?;
                let dir = ProcessDir {
                    process: self.dir.process.clone(),
                    proc: self.dir.proc.clone(),
                    task: Some(tid),
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
            Entry::Task => {
                // A position is the last thread that was listed, by number and birth.
                let mut after = pos - 2;
                loop {
                    let (last, birth) = (after >> BIRTH_BITS, after & ((1 << BIRTH_BITS) - 1));
                    let threads = self.process().threads_after(last as u32, birth);
                    for &(tid, birth) in &threads {
                        after = u64::from(tid) << BIRTH_BITS | birth;
                        let ino = ino_of(tid) + TASK_INODES;
                        if !emit(tid, ino, FileType::Directory, after + 2)? {
                            return Ok(());
                        }
                    }
                    if !threads.is_full() {
                        break;
                    }
                }
            }
            Entry::Fd => {
                let mut from = (pos - 2).min(u64::from(u32::MAX)) as u32;
                let next = |from| self.thread().ok()?.files_of_other().next_in_use(from);
                while let Some(fd) = next(from) {
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

/// The line of an area in maps, as in Linux's `fs/proc/task_mmu.c`: range, permissions, offset, device, inode, name.
pub fn line(vma: &Vma, heap: (usize, usize), text: &mut Text) -> fmt::Result {
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
    let offset = source.map_or(0, |source| source.first_page * PAGE_SIZE as u64);
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
