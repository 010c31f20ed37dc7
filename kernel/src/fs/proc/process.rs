//! What /proc tells about one process.
//!
//! Inodes are made when they are looked up, and keep the process's last state alive as long as they are used.

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt::{self, Write};

use super::descriptor::{FdLink, fd_ino};
use super::entry::{self, Entry};
use super::maps;
use super::subject::{Subject, thread_of};
use super::{finished, memory, parse_number, status};
use crate::errno::{Errno, Result};
use crate::fs::file::Opened;
use crate::fs::fixed::Directory;
use crate::fs::generated::{self, Generator};
use crate::fs::inode::{
    Access, DirEntry, EntrySink, FileSystem, FileType, Inode, InodeRef, Place, Stat,
};
use crate::fs::path;
use crate::fs::text::Text;
use crate::mm::uaccess;
use crate::sched::current;
use crate::task::process::Layout;
use crate::task::{Process, Thread, oom};

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

impl ProcessDir {
    pub fn new(process: Arc<Process>, proc: Arc<Directory>) -> ProcessDir {
        ProcessDir {
            process,
            proc,
            task: None,
        }
    }

    /// What is told about a process belongs to the user that it acts as.
    pub(super) fn owned(&self, stat: Stat) -> Stat {
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

pub(super) fn number(n: u32) -> Result<Vec<u8>> {
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
                maps::line(vma, heap, text)
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
            Entry::Mounts => entry::mounts(text),
            Entry::Limits => entry::limits(process, text),
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
