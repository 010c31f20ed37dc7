//! ioctl(2): what all files know, then the file's own commands.

use linux_raw_sys::ioctl;

use super::args::{Args, usable_file};
use crate::errno::{Errno, Result};
use crate::mm::uaccess::UserPtr;
use crate::sched::current;

/// ioctl(2).
pub fn sys_ioctl(&[fd, command, arg, ..]: &Args) -> Result<usize> {
    let file = usable_file(fd)?;
    let thread = current();
    let files = thread.files();
    match command as u32 {
        ioctl::FIOCLEX => files.set_close_on_exec_flag(fd as u32, true).map(|()| 0),
        ioctl::FIONCLEX => files.set_close_on_exec_flag(fd as u32, false).map(|()| 0),
        ioctl::FIONBIO => {
            file.set_nonblock(UserPtr::<i32>::new(arg).read()? != 0);
            Ok(0)
        }
        ioctl::FIOASYNC => UserPtr::<i32>::new(arg).read().map(|_| 0),
        command => match file.stream() {
            Some(stream) => stream.ioctl(command, arg),
            None if command == ioctl::FIONREAD => {
                let left = file.bytes_left().ok_or(Errno::ENOTTY)?;
                UserPtr::<i32>::new(arg)
                    .write(left.min(i32::MAX as u64) as i32)
                    .map(|()| 0)
            }
            None => Err(Errno::ENOTTY),
        },
    }
}
