//! Reading files through the page cache.

use alloc::sync::Arc;

use super::io::{Dst, partial};
use crate::errno::{Errno, Result};
use crate::mm::PAGE_SIZE;
use crate::mm::page_cache::{Contents, Mapping};
use crate::sched::Sleep;

/// Pages that are asked for ahead of the one that is waited for.
const READ_AHEAD: u64 = 16;

/// Copies from byte `offset`, page by page with no lock held; the caller has limited `dst` to the file's size. Waits for the disk unless
/// the process is being killed. `EIO`, `EFAULT`, `ENOMEM`, `EINTR`.
pub fn read(pages: &Arc<Mapping>, offset: u64, dst: &mut Dst<'_>) -> Result<usize> {
    let mut done = 0;
    while dst.left() > 0 {
        let at = offset + done as u64;
        let in_page = at as usize % PAGE_SIZE;
        let part = (PAGE_SIZE - in_page).min(dst.left());
        let index = at / PAGE_SIZE as u64;
        let last = (at + dst.left() as u64 - 1) / PAGE_SIZE as u64;
        read_ahead(pages, index, last);
        let copied = match pages.contents(index, Sleep::Killable) {
            Ok(Contents::Page(page)) => dst.put_page(&page, in_page, part),
            Ok(Contents::Zeros) => dst.put_zeros(part),
            // It became shorter.
            Ok(Contents::End) => return Ok(done),
            Err(error) => {
                return partial(
                    done,
                    if error == Errno::ERESTARTSYS {
                        Errno::EINTR
                    } else {
                        error
                    },
                );
            }
        };
        done += copied;
        if copied < part {
            return partial(done, Errno::EFAULT);
        }
    }
    Ok(done)
}

/// Starts reading the pages up to `last` that will be needed next, so that the disk works while bytes are copied.
fn read_ahead(pages: &Arc<Mapping>, index: u64, last: u64) {
    if !pages.reads_ahead() || !index.is_multiple_of(READ_AHEAD) {
        return;
    }
    pages.read_ahead(index, (last - index + 1).min(READ_AHEAD));
}
