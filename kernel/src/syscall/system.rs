//! System calls that ask about the whole system.

use linux_raw_sys::system as abi;

use super::args::Args;
use crate::arch::time;
use crate::errno::Result;
use crate::fs::proc::{HOSTNAME, OSTYPE, RELEASE, VERSION};
use crate::mm::PAGE_SIZE;
use crate::mm::frame;
use crate::mm::uaccess::{self, UserPtr};
use crate::task::table;

/// Bytes of each text in `struct utsname`.
const FIELD: usize = size_of::<abi::new_utsname>() / 6;

/// uname(2).
pub fn sys_uname(&[to, ..]: &Args) -> Result<usize> {
    let mut bytes = [0; 6 * FIELD];
    for (field, text) in bytes
        .chunks_mut(FIELD)
        .zip([OSTYPE, HOSTNAME, RELEASE, VERSION, "x86_64", "(none)"])
    {
        let len = text.len().min(FIELD - 1);
        field[..len].copy_from_slice(&text.as_bytes()[..len]);
    }
    uaccess::write_bytes(to, &bytes).map(|()| 0)
}

/// Words of `struct sysinfo` without its (empty) padding.
const SYSINFO_WORDS: usize = size_of::<abi::sysinfo>() / 8;

/// sysinfo(2).
pub fn sys_sysinfo(&[to, ..]: &Args) -> Result<usize> {
    let mut words = [0u64; SYSINFO_WORDS];
    words[0] = time::now_ns() / 1_000_000_000;
    words[4] = (frame::total_frames() * PAGE_SIZE) as u64;
    words[5] = (frame::free_frames() * PAGE_SIZE) as u64;
    words[10] = table::count() as u64;
    words[13] = 1;
    UserPtr::new(to).write(words).map(|()| 0)
}
