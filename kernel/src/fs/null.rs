//! Devices without hardware: null, zero, full, random.

use alloc::boxed::Box;
use alloc::sync::Arc;

use super::file::Opened;
use super::fixed;
use super::inode::{Access, FileSystem, FileType, Inode, InodeRef, Place, Stat};
use super::io::{Dst, Src, partial};
use super::poll::{self, PollQueue};
use super::stream::Stream;
use crate::errno::{Errno, Result};
use crate::sched::current;

/// Which device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Device {
    Null,
    Zero,
    Full,
    Random,
    Urandom,
}

impl Device {
    pub const ALL: [Device; 5] = [
        Device::Null,
        Device::Zero,
        Device::Full,
        Device::Random,
        Device::Urandom,
    ];

    pub const fn name(self) -> &'static str {
        match self {
            Device::Null => "null",
            Device::Zero => "zero",
            Device::Full => "full",
            Device::Random => "random",
            Device::Urandom => "urandom",
        }
    }

    /// Minor number; the major one is 1 (`mem(4)`).
    const fn minor(self) -> u32 {
        match self {
            Device::Null => 3,
            Device::Zero => 5,
            Device::Full => 7,
            Device::Random => 8,
            Device::Urandom => 9,
        }
    }
}

struct DeviceInode {
    node: fixed::Node,
    device: Device,
}

/// The inode of a device in the directory `parent`.
pub fn device(device: Device, ino: u64, parent: InodeRef) -> Result<InodeRef> {
    let stat = Stat {
        rdev: (1, device.minor()),
        ..Stat::new(FileSystem::Dev, ino, FileType::CharDevice, 0o666)
    };
    let node = fixed::Node::new(stat, parent, device.name().as_bytes())?;
    Ok(Arc::try_new(DeviceInode { node, device })?)
}

/// A null device that is in no directory, for tests.
#[cfg(test)]
pub fn inode() -> Result<InodeRef> {
    let stat = Stat::new(FileSystem::Dev, 1, FileType::CharDevice, 0o666);
    Ok(Arc::try_new(DeviceInode {
        node: fixed::Node::nowhere(stat, b"null")?,
        device: Device::Null,
    })?)
}

impl Inode for DeviceInode {
    fn stat(&self) -> Stat {
        self.node.stat
    }

    fn place(&self) -> Result<Place> {
        self.node.place()
    }

    fn open(&self, _access: Access, _nonblock: bool) -> Result<Opened> {
        Ok(Opened::Stream(Box::try_new(self.device)?))
    }
}

impl Stream for Device {
    fn read(&self, dst: &mut Dst<'_>, _nonblock: bool) -> Result<usize> {
        match self {
            Device::Null => Ok(0),
            Device::Zero | Device::Full => zeros(dst),
            Device::Random | Device::Urandom => random(dst),
        }
    }

    fn write(&self, src: &mut Src<'_>, _nonblock: bool) -> Result<usize> {
        match self {
            Device::Full => Err(Errno::ENOSPC),
            _ => Ok(src.skip(src.left())),
        }
    }

    fn poll_queue(&self) -> Option<&PollQueue> {
        match self {
            Device::Random | Device::Urandom => Some(&poll::SHARED),
            Device::Null | Device::Zero | Device::Full => None,
        }
    }

    fn seekable(&self) -> bool {
        true
    }
}

/// Bytes between two looks for a fatal signal.
const CHUNK: usize = 65536;

fn zeros(dst: &mut Dst<'_>) -> Result<usize> {
    let mut done = 0;
    while dst.left() > 0 {
        let part = dst.left().min(CHUNK);
        let copied = dst.put_zeros(part);
        done += copied;
        if copied < part {
            return partial(done, Errno::EFAULT);
        }
        if !go_on(dst.left()) {
            break;
        }
    }
    Ok(done)
}

/// Random bytes: getrandom(2) and the devices.
pub fn random(dst: &mut Dst<'_>) -> Result<usize> {
    let mut done = 0;
    while dst.left() > 0 {
        let mut bytes = [0; 256];
        for word in bytes.chunks_exact_mut(8) {
            word.copy_from_slice(&crate::arch::machine::random_u64().to_le_bytes());
        }
        let part = dst.left().min(bytes.len());
        let copied = dst.put(&bytes[..part]);
        done += copied;
        if copied < part {
            return partial(done, Errno::EFAULT);
        }
        if done % CHUNK == 0 && !go_on(dst.left()) {
            break;
        }
    }
    Ok(done)
}

/// Between two chunks: gives way to others. False if the process is being killed.
pub fn go_on(left: usize) -> bool {
    if left == 0 {
        return true;
    }
    crate::sched::yield_if_wanted();
    !crate::signal::fatal_signal_pending(&current())
}
