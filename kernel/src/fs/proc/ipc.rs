//! What /proc tells about interprocess communication: the objects there are (/proc/sysvipc), and how many there may be, which root
//! changes (/proc/sys).

use alloc::sync::Arc;
use core::fmt::{self, Write};

use crate::errno::{Errno, Result};
use crate::fs::fixed::{Directory, TextFile, ino_below};
use crate::fs::generated::{Generator, PIECE};
use crate::fs::inode::{FileSystem, InodeRef};
use crate::fs::text::Text;
use crate::ipc::settings::Setting;
use crate::ipc::{message_queue, semaphore, shared_memory};

/// The objects of one kind, a line for each.
#[derive(Clone, Copy)]
struct List {
    heading: &'static str,
    /// Writes the first object at a place or after it; the place after that one, `None` behind the last.
    line: fn(usize, &mut Text) -> core::result::Result<Option<usize>, fmt::Error>,
}

impl Generator for List {
    fn generate(&self, cursor: u64, text: &mut Text) -> Result<Option<u64>> {
        if cursor == 0 {
            writeln!(text, "{}", self.heading).map_err(|_| Errno::ENOMEM)?;
        }
        let mut place = cursor as usize;
        while text.len() < PIECE {
            match (self.line)(place, text).map_err(|_| Errno::ENOMEM)? {
                Some(next) => place = next,
                None => return Ok(None),
            }
        }
        Ok(Some(place as u64))
    }
}

const SHARED_MEMORY: List = List {
    heading: "       key      shmid perms                  size  cpid  lpid nattch   uid   gid  cuid  cgid      atime      dtime      ctime                   rss                  swap",
    line: |place, text| {
        let Some((status, next)) = shared_memory::SEGMENTS.next(place) else {
            return Ok(None);
        };
        let [uid, gid, maker_uid, maker_gid] = status.permission.numbers();
        writeln!(
            text,
            "{:10} {:10}  {:4o} {:21} {:5} {:5}  {:5} {uid:5} {gid:5} {maker_uid:5} {maker_gid:5} {:10} {:10} {:10} {:21} {:21}",
            status.key,
            status.id,
            status.permission.mode,
            status.size,
            status.maker,
            status.last_pid,
            status.attached,
            status.attach_time,
            status.detach_time,
            status.change_time,
            status.resident,
            0
        )?;
        Ok(Some(next))
    },
};

const SEMAPHORES: List = List {
    heading: "       key      semid perms      nsems   uid   gid  cuid  cgid      otime      ctime",
    line: |place, text| {
        let Some((status, next)) = semaphore::SETS.next(place) else {
            return Ok(None);
        };
        let [uid, gid, maker_uid, maker_gid] = status.permission.numbers();
        writeln!(
            text,
            "{:10} {:10}  {:4o} {:10} {uid:5} {gid:5} {maker_uid:5} {maker_gid:5} {:10} {:10}",
            status.key,
            status.id,
            status.permission.mode,
            status.count,
            status.operation_time,
            status.change_time
        )?;
        Ok(Some(next))
    },
};

const MESSAGE_QUEUES: List = List {
    heading: "       key      msqid perms      cbytes       qnum lspid lrpid   uid   gid  cuid  cgid      stime      rtime      ctime",
    line: |place, text| {
        let Some((status, next)) = message_queue::QUEUES.next(place) else {
            return Ok(None);
        };
        let [uid, gid, maker_uid, maker_gid] = status.permission.numbers();
        writeln!(
            text,
            "{:10} {:10}  {:4o}  {:10} {:10} {:5} {:5} {uid:5} {gid:5} {maker_uid:5} {maker_gid:5} {:10} {:10} {:10}",
            status.key,
            status.id,
            status.permission.mode,
            status.bytes,
            status.messages,
            status.last_sender,
            status.last_receiver,
            status.send_time,
            status.receive_time,
            status.change_time
        )?;
        Ok(Some(next))
    },
};

/// The directory /proc/sysvipc.
pub fn directory(proc: InodeRef, ino: u64) -> Result<InodeRef> {
    let dir = Directory::new(FileSystem::Proc, ino, 0o555, proc, b"sysvipc")?;
    for (n, (name, list)) in [
        ("shm", SHARED_MEMORY),
        ("sem", SEMAPHORES),
        ("msg", MESSAGE_QUEUES),
    ]
    .into_iter()
    .enumerate()
    {
        let ino = ino_below(ino, n as u64);
        let file = TextFile::new(FileSystem::Proc, ino, dir.clone(), name.as_bytes(), list)?;
        dir.add(name, file)?;
    }
    Ok(dir)
}

impl Generator for &'static Setting {
    fn generate(&self, _cursor: u64, text: &mut Text) -> Result<Option<u64>> {
        writeln!(text, "{}", self.get()).map_err(|_| Errno::ENOMEM)?;
        Ok(None)
    }

    fn accept(&self, bytes: &[u8]) -> Result {
        self.set(bytes)
    }
}

/// Adds files to a directory of /proc/sys. Their numbers are below `ino`.
pub fn add_settings(
    dir: &Arc<Directory>,
    ino: u64,
    settings: &[(&'static str, &'static Setting)],
) -> Result {
    for (n, &(name, setting)) in settings.iter().enumerate() {
        let ino = ino_below(ino, 32 + n as u64);
        let parent: InodeRef = dir.clone();
        let file = TextFile::with_mode(
            FileSystem::Proc,
            ino,
            0o644,
            parent,
            name.as_bytes(),
            setting,
        )?;
        dir.add(name, file)?;
    }
    Ok(())
}
