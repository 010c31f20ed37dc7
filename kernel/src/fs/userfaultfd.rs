//! Descriptors of userfaultfd(2), and /dev/userfaultfd, which makes them too.
//!
//! The order of the checks is Linux's (`fs/userfaultfd.c`). Nothing is locked here.

use alloc::boxed::Box;
use alloc::sync::Arc;
use core::mem::offset_of;

use linux_raw_sys::{general as abi, ioctl};

use super::file::{File, Opened};
use super::fixed;
use super::inode::{Access, FileSystem, FileType, Inode, InodeRef, Place, Stat};
use super::io::Dst;
use super::poll::PollQueue;
use super::stream::{PollEvents, Stream};
use crate::errno::{Errno, Result};
use crate::mm::VmFlags;
use crate::mm::uaccess::UserPtr;
use crate::mm::userfault::{Context, Features, Fill, Message, Watcher};
use crate::sched::current;
use crate::signal::signal_pending;
use crate::task::rlimit::Resource;

/// Flags that both ways of making a descriptor take.
const FLAGS: u32 = abi::O_CLOEXEC | abi::O_NONBLOCK | abi::UFFD_USER_MODE_ONLY;

/// USERFAULTFD_IOC_NEW, `_IO(USERFAULTFD_IOC, 0)`.
const IOC_NEW: u32 = abi::USERFAULTFD_IOC << 8;

/// Ioctls that every descriptor has, and those that registered ranges have, as bits.
const API_IOCTLS: u64 =
    1 << abi::_UFFDIO_API | 1 << abi::_UFFDIO_REGISTER | 1 << abi::_UFFDIO_UNREGISTER;
const RANGE_IOCTLS: u64 = 1 << abi::_UFFDIO_WAKE
    | 1 << abi::_UFFDIO_COPY
    | 1 << abi::_UFFDIO_ZEROPAGE
    | 1 << abi::_UFFDIO_WRITEPROTECT;

/// UFFDIO_WRITEPROTECT_MODE_WP and UFFDIO_WRITEPROTECT_MODE_DONTWAKE.
const PROTECT: usize = 1 << 0;
const DONT_WAKE: usize = 1 << 1;

/// Bytes of a message.
const MESSAGE_SIZE: usize = size_of::<abi::uffd_msg>();

/// userfaultfd(2) with checked permission: the new descriptor. `EINVAL`, `EMFILE`, `ENFILE`, `ENOMEM`.
pub fn open(flags: u32) -> Result<usize> {
    if flags & !FLAGS != 0 {
        return Err(Errno::EINVAL);
    }
    let process = &current().process;
    let mm = process.mm().ok_or(Errno::EINVAL)?;
    let user_mode_only = flags & abi::UFFD_USER_MODE_ONLY != 0;
    let watchers = Arc::try_new(Watchers(PollQueue::new()))?;
    let context = Context::new(&mm, user_mode_only, watchers.clone())?;
    let stream = Box::try_new(Descriptor { context, watchers })?;
    let file = File::new(
        fixed::anonymous(b"anon_inode:[userfaultfd]")?,
        Opened::Stream(stream),
        flags & abi::O_NONBLOCK | abi::O_RDONLY,
    )?;
    let limit = process.rlimits.soft(Resource::Files);
    let fd = current()
        .files()
        .insert(file, 0, limit, flags & abi::O_CLOEXEC != 0)?;
    Ok(fd as usize)
}

/// Those who poll a descriptor.
struct Watchers(PollQueue);

impl Watcher for Watchers {
    fn message_left(&self) {
        self.0.tell(PollEvents::IN);
    }
}

/// An open userfaultfd. Its end releases the context.
struct Descriptor {
    context: Arc<Context>,
    watchers: Arc<Watchers>,
}

impl Drop for Descriptor {
    fn drop(&mut self) {
        self.context.release();
    }
}

impl Stream for Descriptor {
    fn read(&self, dst: &mut Dst<'_>, nonblock: bool) -> Result<usize> {
        if !self.context.is_initialized() {
            return Err(Errno::EINVAL);
        }
        let mut done = 0;
        loop {
            let message = if dst.left() < MESSAGE_SIZE {
                Err(Errno::EINVAL)
            } else {
                self.next_message(nonblock || done > 0)
            };
            // A message that cannot be copied out is gone, as on Linux.
            let copied = message.and_then(|message| match dst.put(&encode(message)) {
                MESSAGE_SIZE => Ok(()),
                _ => Err(Errno::EFAULT),
            });
            match copied {
                Ok(()) => done += MESSAGE_SIZE,
                Err(_) if done > 0 => return Ok(done),
                Err(errno) => return Err(errno),
            }
        }
    }

    /// A blocking descriptor cannot be polled: what is there may be gone before it is read.
    fn poll_as(&self, nonblock: bool) -> PollEvents {
        if !self.context.is_initialized() || !nonblock {
            PollEvents::ERR
        } else if self.context.has_message() {
            PollEvents::IN
        } else {
            PollEvents::empty()
        }
    }

    fn poll_queue(&self) -> Option<&PollQueue> {
        Some(&self.watchers.0)
    }

    fn ioctl(&self, command: u32, arg: usize) -> Result<usize> {
        if command != ioctl::UFFDIO_API && !self.context.is_initialized() {
            return Err(Errno::EINVAL);
        }
        match command {
            ioctl::UFFDIO_API => self.api(arg),
            ioctl::UFFDIO_REGISTER => self.register(arg),
            ioctl::UFFDIO_UNREGISTER => {
                let [start, len] = words(arg)?;
                self.context.unregister(start, len)
            }
            ioctl::UFFDIO_WAKE => {
                let [start, len] = words(arg)?;
                self.context.wake_range(start, len)
            }
            ioctl::UFFDIO_COPY => self.copy(arg),
            ioctl::UFFDIO_ZEROPAGE => self.zero_page(arg),
            ioctl::UFFDIO_WRITEPROTECT => self.write_protect(arg),
            _ => Err(Errno::EINVAL),
        }
        .map(|()| 0)
    }

    fn seekable(&self) -> bool {
        true
    }
}

impl Descriptor {
    fn next_message(&self, nonblock: bool) -> Result<Message> {
        match self.context.read() {
            Some(message) => Ok(message),
            None if signal_pending(&current()) => Err(Errno::ERESTARTSYS),
            None if nonblock => Err(Errno::EAGAIN),
            None => Ok(self.context.wait_for_message()?),
        }
    }

    /// UFFDIO_API: all that there is comes back, what was asked for is agreed.
    fn api(&self, arg: usize) -> Result {
        let argument = UserPtr::<[u64; API_WORDS]>::new(arg);
        let [api, asked, _] = argument.read()?;
        let refused = if api != u64::from(abi::UFFD_API) {
            Some(Errno::EINVAL)
        } else if asked & u64::from(abi::UFFD_FEATURE_EVENT_FORK) != 0
            && !current().process.credentials.get().is_privileged()
        {
            Some(Errno::EPERM)
        } else {
            None
        };
        let agreed = match (refused, Features::from_bits(asked)) {
            (Some(errno), _) => Err(errno),
            (None, None) => Err(Errno::EINVAL),
            (None, Some(features)) => {
                argument.write([api, Features::all().bits(), API_IOCTLS])?;
                self.context.agree(features)
            }
        };
        if agreed.is_err() {
            argument.write([0; API_WORDS])?;
        }
        agreed
    }

    fn register(&self, arg: usize) -> Result {
        let [start, len, mode] = words(arg)?;
        let mut vm_flags = VmFlags::empty();
        let missing = mode & abi::UFFDIO_REGISTER_MODE_MISSING as usize;
        let protect = mode & abi::UFFDIO_REGISTER_MODE_WP as usize;
        vm_flags.set(VmFlags::UFFD_MISSING, missing != 0);
        vm_flags.set(VmFlags::UFFD_WP, protect != 0);
        if vm_flags.is_empty() || mode != missing | protect {
            return Err(Errno::EINVAL);
        }
        self.context.register(start, len, vm_flags)?;
        let mut ioctls = RANGE_IOCTLS;
        if protect == 0 {
            ioctls &= !(1 << abi::_UFFDIO_WRITEPROTECT);
        }
        answer(arg, offset_of!(abi::uffdio_register, ioctls), ioctls)
    }

    fn copy(&self, arg: usize) -> Result {
        let [dst, src, len, mode] = words(arg)?;
        let protect = mode & abi::UFFDIO_COPY_MODE_WP as usize != 0;
        let unknown =
            mode & !((abi::UFFDIO_COPY_MODE_WP | abi::UFFDIO_COPY_MODE_DONTWAKE) as usize);
        let dont_wake = mode & abi::UFFDIO_COPY_MODE_DONTWAKE as usize != 0;
        let field = offset_of!(abi::uffdio_copy, copy);
        let fill = Fill::Copy { src, protect };
        self.fill((dst, len), fill, unknown != 0, dont_wake, arg, field)
    }

    fn zero_page(&self, arg: usize) -> Result {
        let [start, len, mode] = words(arg)?;
        let unknown = mode & !(abi::UFFDIO_ZEROPAGE_MODE_DONTWAKE as usize);
        let dont_wake = mode & abi::UFFDIO_ZEROPAGE_MODE_DONTWAKE as usize != 0;
        let field = offset_of!(abi::uffdio_zeropage, zeropage);
        self.fill(
            (start, len),
            Fill::Zeros,
            unknown != 0,
            dont_wake,
            arg,
            field,
        )
    }

    /// Fills, writes how many bytes were filled or the error to `field` of the argument, and wakes who waited for them. `EAGAIN` if only
    /// a part could be filled.
    fn fill(
        &self,
        (start, len): (usize, usize),
        fill: Fill,
        unknown_mode: bool,
        dont_wake: bool,
        arg: usize,
        field: usize,
    ) -> Result {
        Context::check_fill(start, len, fill)?;
        if unknown_mode {
            return Err(Errno::EINVAL);
        }
        let outcome = self.context.fill(start, len, fill);
        if outcome == Err(Errno::ESRCH) {
            return Err(Errno::ESRCH);
        }
        answer(arg, field, outcome.unwrap_or_else(Errno::to_ret) as u64)?;
        let filled = outcome?;
        if !dont_wake {
            self.context.wake(start, filled);
        }
        if filled == len {
            Ok(())
        } else {
            Err(Errno::EAGAIN)
        }
    }

    fn write_protect(&self, arg: usize) -> Result {
        let [start, len, mode] = words(arg)?;
        Context::check_fill(start, len, Fill::Zeros)?;
        let protect = mode & PROTECT != 0;
        let dont_wake = mode & DONT_WAKE != 0;
        if mode & !(PROTECT | DONT_WAKE) != 0 || protect && dont_wake {
            return Err(Errno::EINVAL);
        }
        self.context.write_protect(start, len, protect)?;
        if !protect && !dont_wake {
            self.context.wake(start, len);
        }
        Ok(())
    }
}

/// Words of `struct uffdio_api`.
const API_WORDS: usize = size_of::<abi::uffdio_api>() / 8;

/// The first words of an ioctl's argument. `EFAULT`.
fn words<const N: usize>(arg: usize) -> Result<[usize; N]> {
    UserPtr::<[usize; N]>::new(arg).read()
}

/// Writes a field of an ioctl's argument. `EFAULT`.
fn answer(arg: usize, field: usize, value: u64) -> Result {
    UserPtr::<u64>::new(arg.wrapping_add(field)).write(value)
}

/// `struct uffd_msg` of a page fault: the event at 0, and from 8 on flags, address and thread.
fn encode(message: Message) -> [u8; MESSAGE_SIZE] {
    let mut bytes = [0; MESSAGE_SIZE];
    bytes[0] = abi::UFFD_EVENT_PAGEFAULT as u8;
    bytes[8..16].copy_from_slice(&message.flags.to_ne_bytes());
    bytes[16..24].copy_from_slice(&message.address.to_ne_bytes());
    bytes[24..28].copy_from_slice(&message.thread.to_ne_bytes());
    bytes
}

/// /dev/userfaultfd: whoever may open it may take the kernel's own faults too.
struct Device;

struct DeviceInode(fixed::Node);

/// The device's inode in the directory `parent`.
pub fn device(ino: u64, parent: InodeRef) -> Result<InodeRef> {
    let stat = Stat {
        // A miscellaneous device with a number of its own choice.
        rdev: (10, 257),
        ..Stat::new(FileSystem::Dev, ino, FileType::CharDevice, 0o600)
    };
    Ok(Arc::try_new(DeviceInode(fixed::Node::new(
        stat,
        parent,
        b"userfaultfd",
    )?))?)
}

impl Inode for DeviceInode {
    fn stat(&self) -> Stat {
        self.0.stat
    }

    fn place(&self) -> Result<Place> {
        self.0.place()
    }

    fn open(&self, _access: Access, _nonblock: bool) -> Result<Opened> {
        Ok(Opened::Stream(Box::try_new(Device)?))
    }
}

impl Stream for Device {
    fn ioctl(&self, command: u32, arg: usize) -> Result<usize> {
        if command != IOC_NEW {
            return Err(Errno::EINVAL);
        }
        open(arg as u32)
    }

    fn seekable(&self) -> bool {
        true
    }
}
