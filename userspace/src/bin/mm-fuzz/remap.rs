//! mremap(2).

use super::{ARENA, PAGE, Run};

/// For kernels before 6.17: where a mapping lives that moves, with nothing beside it that could join it.
const MOVING: usize = 1024;

impl Run {
    /// Of anything to anywhere.
    pub fn remap(&mut self) {
        let old_len = self.len();
        let new_len = if self.rng.below(2) == 0 {
            old_len
        } else {
            self.len()
        };
        let (old, new) = (self.addr(), self.addr());
        let flags = self.choose(&[
            0,
            libc::MREMAP_MAYMOVE,
            libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED,
            libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED,
            libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED,
            libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED | libc::MREMAP_DONTUNMAP,
            libc::MREMAP_MAYMOVE | libc::MREMAP_DONTUNMAP,
            libc::MREMAP_FIXED,
        ]);
        let flags = if self.rng.below(32) == 0 {
            flags | 8
        } else {
            flags
        };
        // SAFETY: only the arena's memory moves.
        let result = unsafe {
            libc::mremap(
                old as *mut libc::c_void,
                old_len,
                new_len,
                flags,
                new as *mut libc::c_void,
            )
        } as i64;
        self.note(
            format_args!(
                "mremap {:#x} {old_len:#x} {new_len:#x} {flags} {:#x}",
                old - ARENA,
                new - ARENA
            ),
            result,
        );
        self.give_back(result, new_len);
    }

    /// Of a mapping that is alone.
    pub fn move_alone(&mut self) {
        let Some((page, len)) = self.moving else {
            let len = 1 + self.rng.below(8);
            // SAFETY: that part of the arena is empty.
            let result = unsafe {
                libc::mmap(
                    (ARENA + MOVING * PAGE) as *mut libc::c_void,
                    len * PAGE,
                    3,
                    libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED,
                    -1,
                    0,
                )
            } as i64;
            self.moving = Some((MOVING, len));
            return self.note(format_args!("mmap to move {len}"), result);
        };
        let new_len = 1 + self.rng.below(12);
        let to = MOVING + 64 * (1 + self.rng.below(4));
        let moves = to != page && self.rng.below(2) == 0;
        let old = (ARENA + page * PAGE) as *mut libc::c_void;
        let new = (ARENA + to * PAGE) as *mut libc::c_void;
        // SAFETY: only the arena's memory moves.
        let result = unsafe {
            if moves {
                let flags = libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED;
                libc::mremap(old, len * PAGE, new_len * PAGE, flags, new)
            } else {
                libc::mremap(old, len * PAGE, new_len * PAGE, 0)
            }
        } as i64;
        if result != -1 {
            self.moving = Some((if moves { to } else { page }, new_len));
        }
        self.note(
            format_args!("mremap {page} {len} to {new_len} {moves} {to}"),
            result,
        );
    }
}
