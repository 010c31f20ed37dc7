//! Memory of other processes: process_vm_readv(2), process_vm_writev(2).

use alloc::sync::Arc;

use super::args::{Args, read_iovecs};
use crate::errno::{Errno, Result};
use crate::fs::io::{Dst, IoVec, Src, partial};
use crate::fs::proc::open_space;
use crate::mm::page_buffer::PageBuffer;
use crate::mm::remote::Rules;
use crate::mm::{Mm, PAGE_SIZE, reclaim};
use crate::task::table;

/// process_vm_readv(2).
pub fn sys_process_vm_readv(args: &Args) -> Result<usize> {
    let local = local_pieces(args)?;
    let mut dst = Dst::user(&local);
    transfer(args, dst.left(), |mm, at, page, len| {
        let len = len.min(dst.left());
        let got = mm.read_remote(at, &mut page.bytes_mut()[..len], Rules::Own)?;
        let put = dst.put(&page.bytes()[..got]);
        if put < got && put == 0 {
            return Err(Errno::EFAULT);
        }
        Ok(put)
    })
}

/// process_vm_writev(2).
pub fn sys_process_vm_writev(args: &Args) -> Result<usize> {
    let local = local_pieces(args)?;
    let mut src = Src::user(&local);
    transfer(args, src.left(), |mm, at, page, len| {
        let len = len.min(src.left());
        let got = src.take(&mut page.bytes_mut()[..len]);
        if got == 0 && len > 0 {
            return Err(Errno::EFAULT);
        }
        mm.write_remote(at, &page.bytes()[..got], Rules::Own)
    })
}

/// The caller's own pieces, which come first.
fn local_pieces(&[_, vector, count, _, _, flags]: &Args) -> Result<alloc::vec::Vec<IoVec>> {
    if flags != 0 {
        return Err(Errno::EINVAL);
    }
    read_iovecs(vector, count)
}

/// Goes over the other process's pieces, page by page: `step` gets an address there, a buffer, and how many bytes remain in the page, and
/// answers how many it moved. Ends after `local` bytes, at the first short step, and at an error, which counts only if nothing was moved.
fn transfer(
    &[pid, _, _, vector, count, _]: &Args,
    local: usize,
    mut step: impl FnMut(&Mm, usize, &mut PageBuffer, usize) -> Result<usize>,
) -> Result<usize> {
    if local == 0 {
        return Ok(0);
    }
    let pieces = read_iovecs(vector, count)?;
    if pieces.iter().all(|piece| piece.len == 0) {
        return Ok(0);
    }
    let mm = space_of(pid)?;
    let mut page = reclaim::retry(PageBuffer::new)?;
    let mut done = 0;
    for piece in &pieces {
        let mut in_piece = 0;
        while in_piece < piece.len && done < local {
            let at = piece.base.wrapping_add(in_piece);
            let part = (PAGE_SIZE - at % PAGE_SIZE).min(piece.len - in_piece);
            let wanted = part.min(local - done);
            match step(&mm, at, &mut page, part) {
                Ok(moved) => {
                    in_piece += moved;
                    done += moved;
                    if moved < wanted {
                        return Ok(done);
                    }
                }
                Err(error) => return partial(done, error),
            }
        }
    }
    Ok(done)
}

/// The address space of a process, for one who may look at it. `ESRCH`, `EPERM`.
fn space_of(pid: usize) -> Result<Arc<Mm>> {
    let (process, _) = u32::try_from(pid as i32)
        .ok()
        .and_then(table::find_either)
        .ok_or(Errno::ESRCH)?;
    open_space(&process).map_err(|error| match error {
        Errno::EACCES => Errno::EPERM,
        other => other,
    })
}
