//! The calls but for mremap(2).

use std::fmt::Write;

use super::{ARENA, FILE_PAGES, PAGE, Run};

const ADVICE: [i32; 20] = [
    libc::MADV_NORMAL,
    libc::MADV_RANDOM,
    libc::MADV_SEQUENTIAL,
    libc::MADV_WILLNEED,
    libc::MADV_DONTNEED,
    libc::MADV_DONTNEED,
    libc::MADV_REMOVE,
    libc::MADV_DONTFORK,
    libc::MADV_DOFORK,
    libc::MADV_WIPEONFORK,
    libc::MADV_KEEPONFORK,
    libc::MADV_POPULATE_READ,
    libc::MADV_POPULATE_WRITE,
    libc::MADV_FREE,
    libc::MADV_COLD,
    libc::MADV_DONTDUMP,
    libc::MADV_DODUMP,
    // MADV_DONTNEED_LOCKED
    24,
    4242,
    -1,
];

/// What only newer kernels have, or not all are built with.
const NEW_ADVICE: [i32; 3] = [
    libc::MADV_HUGEPAGE,
    libc::MADV_NOHUGEPAGE,
    libc::MADV_PAGEOUT,
];

impl Run {
    fn map(&mut self, prot: i32, flags: i32, fd: i32, offset: usize) {
        let (addr, len) = (self.addr(), self.len());
        // SAFETY: only the arena's memory is replaced, and nobody keeps anything there.
        let result = unsafe {
            libc::mmap(
                addr as *mut libc::c_void,
                len,
                prot,
                flags,
                fd,
                offset as i64,
            )
        } as i64;
        self.note(
            format_args!(
                "mmap {:#x} {len:#x} {prot} {flags:#x} {} {offset:#x}",
                addr - ARENA,
                fd >= 0
            ),
            result,
        );
        self.give_back(result, len);
    }

    /// Unmaps what was placed outside the arena.
    pub fn give_back(&mut self, result: i64, len: usize) {
        let inside = ARENA..ARENA + super::SPAN;
        if result != -1 && !inside.contains(&(result as usize)) {
            // SAFETY: the kernel has just placed it there, and nobody knows.
            unsafe { libc::munmap(result as *mut libc::c_void, len) };
        }
    }

    pub fn map_anonymous(&mut self) {
        const PLACES: [i32; 8] = [
            libc::MAP_FIXED,
            libc::MAP_FIXED,
            libc::MAP_FIXED,
            libc::MAP_FIXED,
            libc::MAP_FIXED_NOREPLACE,
            libc::MAP_FIXED | libc::MAP_POPULATE,
            libc::MAP_FIXED | libc::MAP_LOCKED,
            0,
        ];
        const KINDS: [i32; 9] = [
            libc::MAP_PRIVATE,
            libc::MAP_PRIVATE,
            libc::MAP_PRIVATE,
            libc::MAP_PRIVATE | libc::MAP_NORESERVE,
            libc::MAP_PRIVATE | libc::MAP_GROWSDOWN,
            libc::MAP_SHARED,
            libc::MAP_SHARED | libc::MAP_NORESERVE,
            libc::MAP_SHARED_VALIDATE,
            libc::MAP_SHARED | libc::MAP_GROWSDOWN,
        ];
        let mut kind = self.choose(&KINDS);
        if self.rng.below(24) == 0 {
            kind = 0;
        } else if !self.old && self.rng.below(8) == 0 {
            kind |= libc::MAP_STACK;
        }
        let flags = self.choose(&PLACES) | kind | libc::MAP_ANONYMOUS;
        let prot = self.prot();
        self.map(prot, flags, -1, 0);
    }

    pub fn map_file(&mut self) {
        let kind = self.choose(&[
            libc::MAP_PRIVATE,
            libc::MAP_SHARED,
            libc::MAP_SHARED_VALIDATE,
            libc::MAP_SHARED | libc::MAP_POPULATE,
            libc::MAP_PRIVATE | libc::MAP_GROWSDOWN,
            libc::MAP_SHARED_VALIDATE | 1 << 27,
        ]);
        let (prot, offset) = (self.prot(), self.rng.below(FILE_PAGES) * PAGE);
        let fd = self.choose(&[self.memfd, self.memfd, self.memfd, self.readonly, 987]);
        self.map(prot, kind | libc::MAP_FIXED, fd, offset);
    }

    pub fn unmap(&mut self) {
        let (addr, len) = (self.addr(), self.len());
        // SAFETY: only the arena's memory goes.
        let result = unsafe { libc::munmap(addr as *mut libc::c_void, len) };
        self.note(
            format_args!("munmap {:#x} {len:#x}", addr - ARENA),
            result.into(),
        );
    }

    pub fn protect(&mut self) {
        let (addr, len, mut prot) = (self.addr(), self.len(), self.prot());
        if self.rng.below(8) == 0 {
            prot |= self.choose(&[
                libc::PROT_GROWSDOWN,
                libc::PROT_GROWSUP,
                libc::PROT_GROWSDOWN | libc::PROT_GROWSUP,
                8,
                0x40,
            ]);
        }
        // SAFETY: only the arena's memory changes.
        let result = unsafe { libc::mprotect(addr as *mut libc::c_void, len, prot) };
        self.note(
            format_args!("mprotect {:#x} {len:#x} {prot:#x}", addr - ARENA),
            result.into(),
        );
    }

    pub fn advise(&mut self) {
        let (addr, len) = (self.addr(), self.len());
        let mut advice = self.choose(&ADVICE);
        if !self.old && self.rng.below(8) == 0 {
            advice = self.choose(&NEW_ADVICE);
        }
        // SAFETY: only the arena's memory changes.
        let result = unsafe { libc::madvise(addr as *mut libc::c_void, len, advice) };
        self.note(
            format_args!("madvise {:#x} {len:#x} {advice}", addr - ARENA),
            result.into(),
        );
    }

    pub fn lock(&mut self) {
        let (addr, len) = (self.addr(), self.len());
        let which = self.rng.below(if self.old { 5 } else { 8 });
        let at = addr as *const libc::c_void;
        // SAFETY: locking changes no contents.
        let result = unsafe {
            match which {
                0 => libc::mlock(at, len),
                1 => libc::mlock2(at, len, libc::MLOCK_ONFAULT),
                2 => libc::mlock2(at, len, 8),
                3..=5 => libc::munlock(at, len),
                6 => libc::mlockall(self.choose(&[
                    libc::MCL_FUTURE,
                    libc::MCL_FUTURE | libc::MCL_ONFAULT,
                    libc::MCL_ONFAULT,
                    libc::MCL_CURRENT | libc::MCL_ONFAULT,
                    0,
                    64,
                ])),
                _ => libc::munlockall(),
            }
        };
        self.note(
            format_args!("lock {which} {:#x} {len:#x}", addr - ARENA),
            result.into(),
        );
    }

    pub fn sync(&mut self) {
        let (addr, len) = (self.addr(), self.len());
        let flags = self.choose(&[
            libc::MS_SYNC,
            libc::MS_ASYNC,
            libc::MS_INVALIDATE,
            libc::MS_ASYNC | libc::MS_INVALIDATE,
            libc::MS_ASYNC | libc::MS_SYNC,
            0,
            64,
        ]);
        // SAFETY: changes no contents.
        let sync = unsafe { libc::msync(addr as *mut libc::c_void, len, flags) };
        self.note(
            format_args!("msync {:#x} {len:#x} {flags}", addr - ARENA),
            sync.into(),
        );
        self.mincore(addr, len);
    }

    /// What is present: pages of the file and private ones come and go by calls alone.
    fn mincore(&mut self, addr: usize, len: usize) {
        let mut vec = [0u8; 16];
        // SAFETY: `vec` has a byte for each of the at most 12 pages.
        let core = unsafe { libc::mincore(addr as *mut libc::c_void, len, vec.as_mut_ptr()) };
        self.note(
            format_args!("mincore {:#x} {len:#x}", addr - ARENA),
            core.into(),
        );
        if core == 0 {
            let present = &vec[..len.div_ceil(PAGE)];
            writeln!(self.log, "  {present:?}").expect("a string");
        }
    }

    /// read(2) and write(2) of the file, whose mappings see the same bytes.
    pub fn file_access(&mut self) {
        let at = self.rng.below(FILE_PAGES * PAGE / 8) * 8;
        let mut bytes = self.rng.bits().to_le_bytes();
        let writes = self.rng.below(2) == 0;
        // SAFETY: `bytes` has 8 bytes.
        let done = unsafe {
            if writes {
                libc::pwrite(self.memfd, bytes.as_ptr().cast(), 8, at as i64)
            } else {
                libc::pread(self.memfd, bytes.as_mut_ptr().cast(), 8, at as i64)
            }
        };
        let seen = u64::from_le_bytes(bytes);
        self.note(format_args!("file {writes} {at:#x} {seen:x}"), done as i64);
    }

    /// Makes the file shorter or longer; what is cut off is gone from its mappings, and comes back as zeros.
    pub fn truncate(&mut self) {
        let mut size = self.rng.below(FILE_PAGES + 8) * PAGE;
        if self.rng.below(4) == 0 {
            size += self.rng.below(PAGE);
        }
        // SAFETY: the file is this run's own.
        let done = unsafe { libc::ftruncate(self.memfd, size as i64) };
        self.note(format_args!("ftruncate {size:#x}"), done.into());
    }
}
