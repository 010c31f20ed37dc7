//! A message queue as a file: its attributes, and the text that it reads as.

use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt::Write;

use super::{Queue, directory};
use crate::errno::{Errno, Result};
use crate::fs::file::{Opened, Positioned};
use crate::fs::inode::{Access, FileSystem, FileType, Inode, Place, SetAttr, Stat, Time};
use crate::fs::io::Dst;
use crate::fs::permission;
use crate::fs::poll::PollQueue;
use crate::fs::stream::PollEvents;
use crate::fs::text::Text;
use crate::fs::tmpfs::index::copy_name;

/// The size that stat(2) tells, which is room for the text (`FILENT_SIZE`).
const SHOWN_SIZE: u64 = 80;

/// What changes about a queue's inode.
pub(super) struct Attributes {
    pub name: Box<[u8]>,
    pub removed: bool,
    mode: u32,
    uid: u32,
    gid: u32,
    /// Of the last look, change, and change of attributes.
    pub times: [Time; 3],
    made: Time,
}

impl Attributes {
    /// Of a queue that the current process makes.
    pub fn new(name: &[u8], mode: u32) -> Result<Attributes> {
        let (uid, gid, mode) = permission::of_new_file(None, FileType::Regular, mode);
        let now = Time::now();
        Ok(Attributes {
            name: copy_name(name)?,
            removed: false,
            mode,
            uid,
            gid,
            times: [now; 3],
            made: now,
        })
    }
}

impl Inode for Queue {
    fn stat(&self) -> Stat {
        let attributes = self.attributes.lock();
        let [atime, mtime, ctime] = attributes.times;
        Stat {
            nlink: u32::from(!attributes.removed),
            uid: attributes.uid,
            gid: attributes.gid,
            size: SHOWN_SIZE,
            atime,
            mtime,
            ctime,
            btime: attributes.made,
            ..Stat::new(
                FileSystem::MessageQueues,
                self.ino,
                FileType::Regular,
                attributes.mode,
            )
        }
    }

    fn file_type(&self) -> FileType {
        FileType::Regular
    }

    fn place(&self) -> Result<Place> {
        let attributes = self.attributes.lock();
        let name = copy_name(&attributes.name)?.into_vec();
        Ok(match attributes.removed {
            true => Place::Removed(name),
            false => Place::In(directory::inode()?, name),
        })
    }

    fn open(&self, _access: Access, _nonblock: bool) -> Result<Opened> {
        let queue = self.this.get().and_then(|this| this.upgrade());
        let open = Box::try_new(Open(queue.ok_or(Errno::ENXIO)?))?;
        Ok(Opened::Positioned(open))
    }

    fn set_attr(&self, attr: SetAttr) -> Result {
        let mut attributes = self.attributes.lock();
        attributes.mode = attr.mode.map_or(attributes.mode, |mode| mode & 0o7777);
        attributes.uid = attr.uid.unwrap_or(attributes.uid);
        attributes.gid = attr.gid.unwrap_or(attributes.gid);
        let [atime, mtime, _] = attributes.times;
        attributes.times = [
            attr.atime.unwrap_or(atime),
            attr.mtime.unwrap_or(mtime),
            Time::now(),
        ];
        Ok(())
    }
}

/// What a queue opens as.
struct Open(Arc<Queue>);

impl Open {
    fn text(&self) -> Result<Vec<u8>> {
        let bytes = self.0.state.lock().bytes;
        let (how, signal, pid) = self.0.registered();
        let mut text = Text::new();
        writeln!(
            text,
            "QSIZE:{bytes:<10} NOTIFY:{how:<5} SIGNO:{signal:<5} NOTIFY_PID:{pid:<6}"
        )
        .map_err(|_| Errno::ENOMEM)?;
        text.finish()
    }
}

impl Positioned for Open {
    fn read_at(&self, offset: u64, dst: &mut Dst<'_>) -> Result<usize> {
        let text = self.text()?;
        let rest = usize::try_from(offset).ok().and_then(|at| text.get(at..));
        let rest = rest.unwrap_or_default();
        let len = rest.len().min(dst.left());
        if dst.put(&rest[..len]) < len {
            return Err(Errno::EFAULT);
        }
        Ok(len)
    }

    fn poll(&self) -> PollEvents {
        self.0.poll()
    }

    fn poll_queue(&self) -> &PollQueue {
        &self.0.pollers
    }

    fn queue(&self) -> Option<&Arc<Queue>> {
        Some(&self.0)
    }
}
