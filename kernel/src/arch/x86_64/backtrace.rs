//! Backtraces: the chain of frame pointers, followed with suspicion.

use super::kernel_pages::phys_of;

const MAX_FRAMES: usize = 40;

/// Calls `f` with each return address above the frame at `rbp`. Stops at the first link that is not a mapped kernel address, or does
/// not lead upwards.
pub(super) fn walk(rbp: usize, mut f: impl FnMut(usize)) {
    let mut frame = rbp;
    for _ in 0..MAX_FRAMES {
        let Some((next, return_address)) = read_frame(frame) else {
            return;
        };
        if return_address == 0 {
            return;
        }
        f(return_address);
        if next <= frame {
            return;
        }
        frame = next;
    }
}

fn read_frame(frame: usize) -> Option<(usize, usize)> {
    let kernel = (frame as isize) < 0;
    if !kernel
        || !frame.is_multiple_of(8)
        || phys_of(frame).is_none()
        || phys_of(frame + 15).is_none()
    {
        return None;
    }
    // SAFETY: kernel memory that is mapped and aligned; any value will do.
    let [next, return_address] = unsafe { (frame as *const [usize; 2]).read_volatile() };
    Some((next, return_address))
}
