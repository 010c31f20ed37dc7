//! Everything of the crate `ext4-view`, in one place that is entered by one thread at a time.
//!
//! The crate takes memory without a way to fail, so everything here may use the kernel's last reserve.

use alloc::boxed::Box;
use alloc::vec::Vec;

use ext4_view::{Ext4, Ext4Error, Ext4Read, File, FileType as Ext4Type, Metadata, Path, Timestamp};

use crate::errno::{Errno, Result};
use crate::fs::inode::{FileSystem, FileType, Stat, Time};
use crate::fs::tmpfs::index::copy_name;
use crate::fs::tmpfs::lower::Listed;
use crate::mm::PAGE_SIZE;
use crate::mm::frame::NoFail;

/// Files that are kept open, so that reading on needs no search for blocks from the start.
const OPEN_FILES: usize = 16;

/// The file system with its open files.
pub struct Disk {
    ext4: Ext4,
    /// Inode number and file, the one used last at the end.
    open: Vec<(u64, File)>,
}

// SAFETY: the counted references (`Rc`) in the crate's types are all owned by this structure; none is ever handed out, as every
// method returns plain data. So they move between threads only together, and the mutex that holds the structure lets in one
// thread at a time. The reader is `Send` by the bound on `load`.
unsafe impl Send for Disk {}

impl Disk {
    pub fn load(reader: Box<dyn Ext4Read + Send>) -> Result<Disk> {
        let ext4 = Ext4::load(reader).map_err(to_errno)?;
        let mut open = Vec::new();
        open.try_reserve_exact(OPEN_FILES)?;
        Ok(Disk { ext4, open })
    }

    /// Attributes of the file at an absolute path without links.
    pub fn stat(&mut self, path: &[u8]) -> Result<Stat> {
        let _no_fail = NoFail::new();
        let metadata = self
            .ext4
            .symlink_metadata(to_path(path)?)
            .map_err(to_errno)?;
        Ok(to_stat(ino_of(path), &metadata))
    }

    pub fn read_link(&mut self, path: &[u8]) -> Result<Vec<u8>> {
        let _no_fail = NoFail::new();
        let target = self.ext4.read_link(to_path(path)?).map_err(to_errno)?;
        Ok(copy_name(target.as_ref())?.into_vec())
    }

    /// All entries but `.` and `..`.
    pub fn list(&mut self, path: &[u8]) -> Result<Vec<Listed>> {
        let _no_fail = NoFail::new();
        let mut entries = Vec::new();
        for entry in self.ext4.read_dir(to_path(path)?).map_err(to_errno)? {
            let entry = entry.map_err(to_errno)?;
            let file_name = entry.file_name();
            let name: &[u8] = file_name.as_ref();
            if name == b"." || name == b".." {
                continue;
            }
            let file_type = to_file_type(entry.file_type().map_err(to_errno)?);
            entries.try_reserve(1)?;
            let path = entry.path();
            let ino = ino_of(path.as_ref());
            entries.push(Listed {
                name: copy_name(name)?,
                ino,
                file_type,
            });
        }
        Ok(entries)
    }

    /// Fills `page` with the contents at `index * 4096`, zeros past the end.
    pub fn read_page(
        &mut self,
        path: &[u8],
        ino: u64,
        index: u64,
        page: &mut [u8; PAGE_SIZE],
    ) -> Result {
        let _no_fail = NoFail::new();
        let offset = index * PAGE_SIZE as u64;
        let file = self.file(path, ino)?;
        if file.position() != offset {
            file.seek_to(offset).map_err(to_errno)?;
        }
        let mut done = 0;
        while done < PAGE_SIZE {
            match file.read_bytes(&mut page[done..]) {
                Ok(0) => break,
                Ok(bytes) => done += bytes,
                Err(error) => {
                    // Its position is not to be trusted any more.
                    self.open.retain(|(open, _)| *open != ino);
                    return Err(to_errno(error));
                }
            }
        }
        page[done..].fill(0);
        Ok(())
    }

    fn file(&mut self, path: &[u8], ino: u64) -> Result<&mut File> {
        let entry = match self.open.iter().position(|(open, _)| *open == ino) {
            Some(at) => self.open.remove(at),
            None => (ino, self.ext4.open(to_path(path)?).map_err(to_errno)?),
        };
        if self.open.len() == OPEN_FILES {
            self.open.remove(0);
        }
        self.open.push(entry);
        self.open.last_mut().map(|(_, file)| file).ok_or(Errno::EIO)
    }
}

/// A stable number for a path (64-bit FNV-1a; 2 for the root, as ext4 has it).
pub fn ino_of(path: &[u8]) -> u64 {
    if path == b"/" {
        return 2;
    }
    let hash = path.iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, &byte| {
        (hash ^ byte as u64).wrapping_mul(0x100_0000_01b3)
    });
    // Shown by programs as a signed number, and never one of the small reserved ones.
    hash & (i64::MAX as u64) | 1 << 32
}

fn to_path(path: &[u8]) -> Result<Path<'_>> {
    Path::try_from(path).map_err(|_| Errno::ENOENT)
}

fn to_errno(error: Ext4Error) -> Errno {
    match error {
        Ext4Error::NotFound => Errno::ENOENT,
        Ext4Error::NotADirectory => Errno::ENOTDIR,
        Ext4Error::IsADirectory => Errno::EISDIR,
        Ext4Error::NotASymlink | Ext4Error::IsASpecialFile => Errno::EINVAL,
        Ext4Error::PathTooLong => Errno::ENAMETOOLONG,
        Ext4Error::TooManySymlinks => Errno::ELOOP,
        error => {
            log::error!("root file system: {error}");
            Errno::EIO
        }
    }
}

fn to_file_type(file_type: Ext4Type) -> FileType {
    match file_type {
        Ext4Type::Regular => FileType::Regular,
        Ext4Type::Directory => FileType::Directory,
        Ext4Type::Symlink => FileType::Symlink,
        Ext4Type::CharacterDevice => FileType::CharDevice,
        Ext4Type::BlockDevice => FileType::BlockDevice,
        Ext4Type::Fifo => FileType::Fifo,
        Ext4Type::Socket => FileType::Socket,
    }
}

fn to_time(timestamp: Timestamp) -> Time {
    Time {
        sec: timestamp.seconds(),
        nsec: timestamp.nanoseconds(),
    }
}

fn to_stat(ino: u64, metadata: &Metadata) -> Stat {
    let mtime = to_time(metadata.modified());
    Stat {
        uid: metadata.uid(),
        gid: metadata.gid(),
        size: metadata.len(),
        blocks: metadata.len().div_ceil(4096) * 8,
        atime: to_time(metadata.accessed()),
        mtime,
        // The crate does not tell the time of the last change of attributes; it is not before that of the contents.
        ctime: mtime,
        btime: metadata.created().map_or(mtime, to_time),
        ..Stat::new(
            FileSystem::Ext4,
            ino,
            to_file_type(metadata.file_type()),
            metadata.mode() as u32,
        )
    }
}
