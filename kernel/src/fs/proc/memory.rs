//! What /proc tells about a process's memory, area by area and page by page: smaps, smaps_rollup, pagemap, and the memory itself (mem).
//!
//! Figures are those of Linux's `fs/proc/task_mmu.c`. The page table is looked at a table's worth of pages at a time, so that its lock is
//! never held for long.

use alloc::boxed::Box;
use alloc::sync::{Arc, Weak};
use core::fmt::{self, Write};

use crate::errno::{Errno, Result};
use crate::fs::file::{Opened, Positioned};
use crate::fs::generated::PIECE;
use crate::fs::io::{Dst, Src, partial};
use crate::fs::text::Text;
use crate::mm::frame::{Frame, FrameKind};
use crate::mm::page_buffer::PageBuffer;
use crate::mm::pte::{Pte, PteFlags};
use crate::mm::remote::Rules;
use crate::mm::{Mm, PAGE_SIZE, VmFlags, Vma};
use crate::sched::current;
use crate::task::Process;

const KIB: u64 = PAGE_SIZE as u64 / 1024;

/// Pss is summed up in parts of a byte, so that thirds add up.
const PSS_SHIFT: u32 = 12;

/// What the pages of an area come to, in pages but for the proportional figures.
#[derive(Clone, Copy, Default)]
struct Figures {
    rss: u64,
    /// Bytes, in units of 2^-PSS_SHIFT.
    pss: u64,
    pss_anonymous: u64,
    pss_file: u64,
    pss_shared_memory: u64,
    pss_dirty: u64,
    pss_locked: u64,
    shared_clean: u64,
    shared_dirty: u64,
    private_clean: u64,
    private_dirty: u64,
    referenced: u64,
    anonymous: u64,
}

impl Figures {
    /// Counts a page.
    fn add(&mut self, pte: Pte, sharers: u32, locked: bool) {
        if pte.flags.contains(PteFlags::SPECIAL) {
            return;
        }
        let kind = Frame::kind(pte.frame);
        let sharers = u64::from(mappings_of(pte, sharers));
        let pss = ((PAGE_SIZE as u64) << PSS_SHIFT) / sharers.max(1);
        let dirty = pte.flags.contains(PteFlags::DIRTY);
        self.rss += 1;
        self.pss += pss;
        *match kind {
            FrameKind::File => &mut self.pss_file,
            FrameKind::SharedMemory => &mut self.pss_shared_memory,
            _ => &mut self.pss_anonymous,
        } += pss;
        self.pss_dirty += if dirty { pss } else { 0 };
        self.pss_locked += if locked { pss } else { 0 };
        *match (sharers > 1, dirty) {
            (true, false) => &mut self.shared_clean,
            (true, true) => &mut self.shared_dirty,
            (false, false) => &mut self.private_clean,
            (false, true) => &mut self.private_dirty,
        } += 1;
        self.referenced += u64::from(pte.flags.contains(PteFlags::ACCESSED));
        self.anonymous += u64::from(kind == FrameKind::Anonymous);
    }

    fn of(mm: &Mm, vma: &Vma) -> Figures {
        let mut figures = Figures::default();
        figures.add_area(mm, vma);
        figures
    }

    fn add_area(&mut self, mm: &Mm, vma: &Vma) {
        let locked = vma.flags.contains(VmFlags::LOCKED);
        mm.for_each_page(vma.start, vma.end, &mut |_, pte, sharers| {
            self.add(pte, sharers, locked)
        });
    }

    fn write(&self, text: &mut Text, rollup: bool) -> fmt::Result {
        let pages = |n: u64| n * KIB;
        let bytes = |n: u64| n >> (PSS_SHIFT + 10);
        line(text, "Rss:", pages(self.rss))?;
        line(text, "Pss:", bytes(self.pss))?;
        line(text, "Pss_Dirty:", bytes(self.pss_dirty))?;
        if rollup {
            line(text, "Pss_Anon:", bytes(self.pss_anonymous))?;
            line(text, "Pss_File:", bytes(self.pss_file))?;
            line(text, "Pss_Shmem:", bytes(self.pss_shared_memory))?;
        }
        for (name, value) in [
            ("Shared_Clean:", pages(self.shared_clean)),
            ("Shared_Dirty:", pages(self.shared_dirty)),
            ("Private_Clean:", pages(self.private_clean)),
            ("Private_Dirty:", pages(self.private_dirty)),
            ("Referenced:", pages(self.referenced)),
            ("Anonymous:", pages(self.anonymous)),
            // There are neither large pages nor swap.
            ("KSM:", 0),
            ("LazyFree:", 0),
            ("AnonHugePages:", 0),
            ("ShmemPmdMapped:", 0),
            ("FilePmdMapped:", 0),
            ("Shared_Hugetlb:", 0),
            ("Private_Hugetlb:", 0),
            ("Swap:", 0),
            ("SwapPss:", 0),
            ("Locked:", bytes(self.pss_locked)),
        ] {
            line(text, name, value)?;
        }
        Ok(())
    }
}

/// How many page-table entries map a page: every reference but the page cache's own, and the other address spaces among `sharers` of
/// one table.
fn mappings_of(pte: Pte, sharers: u32) -> u32 {
    let of_cache = u32::from(Frame::kind(pte.frame) != FrameKind::Anonymous);
    let entries = Frame::references(pte.frame).saturating_sub(of_cache);
    entries.max(1) + (sharers - 1)
}

fn line(text: &mut Text, name: &str, kib: u64) -> fmt::Result {
    writeln!(text, "{name:<16}{kib:>8} kB")
}

/// Writes areas from the address `cursor` on until a piece is full; the next address.
pub fn each_area(
    process: &Process,
    cursor: u64,
    text: &mut Text,
    mut write: impl FnMut(&Mm, &Vma, (usize, usize), &mut Text) -> fmt::Result,
) -> Result<Option<u64>> {
    let Some(mm) = process.mm() else {
        return Ok(None);
    };
    let heap = mm.heap_range();
    let (mut outcome, mut next) = (Ok(()), None);
    mm.for_each_vma_from(cursor as usize, &mut |vma| {
        if text.len() >= PIECE {
            next = Some(vma.start.get() as u64);
            return false;
        }
        outcome = write(&mm, vma, heap, text);
        outcome.is_ok()
    });
    outcome.map_err(|_| Errno::ENOMEM)?;
    Ok(next)
}

/// One area of smaps.
pub fn smaps_entry(mm: &Mm, vma: &Vma, heap: (usize, usize), text: &mut Text) -> fmt::Result {
    super::maps::line(vma, heap, text)?;
    line(text, "Size:", vma.len() as u64 / 1024)?;
    line(text, "KernelPageSize:", KIB)?;
    line(text, "MMUPageSize:", KIB)?;
    Figures::of(mm, vma).write(text, false)?;
    writeln!(text, "THPeligible:{:>12}", 0)?;
    text.write_str("VmFlags: ")?;
    for (flag, name) in FLAG_NAMES {
        if vma.flags.contains(flag) {
            write!(text, "{name} ")?;
        }
    }
    text.write_str("\n")
}

/// In the order of Linux's bits.
const FLAG_NAMES: [(VmFlags, &str); 22] = [
    (VmFlags::READ, "rd"),
    (VmFlags::WRITE, "wr"),
    (VmFlags::EXEC, "ex"),
    (VmFlags::SHARED, "sh"),
    (VmFlags::MAYREAD, "mr"),
    (VmFlags::MAYWRITE, "mw"),
    (VmFlags::MAYEXEC, "me"),
    (VmFlags::SHARED, "ms"),
    (VmFlags::GROWSDOWN, "gd"),
    (VmFlags::UFFD_MISSING, "um"),
    (VmFlags::UFFD_WP, "uw"),
    (VmFlags::LOCKED, "lo"),
    (VmFlags::SEQUENTIAL, "sr"),
    (VmFlags::RANDOM, "rr"),
    (VmFlags::DONTFORK, "dc"),
    (VmFlags::LOCKONFAULT, "lf"),
    (VmFlags::ACCOUNT, "ac"),
    (VmFlags::NORESERVE, "nr"),
    (VmFlags::WIPEONFORK, "wf"),
    (VmFlags::DONTDUMP, "dd"),
    (VmFlags::HUGEPAGE, "hg"),
    (VmFlags::NOHUGEPAGE, "nh"),
];

/// smaps_rollup: all areas as one.
pub fn smaps_rollup(process: &Process, text: &mut Text) -> Result {
    let mm = process.mm().ok_or(Errno::ESRCH)?;
    let mut figures = Figures::default();
    let (mut first, mut end) = (None, 0);
    mm.for_each_vma_from(0, &mut |vma| {
        first = first.or(Some(vma.start.get()));
        end = vma.end.get();
        figures.add_area(&mm, vma);
        true
    });
    let outcome = (|| {
        let start = text.len();
        write!(
            text,
            "{:08x}-{end:08x} ---p 00000000 00:00 0 ",
            first.unwrap_or(0)
        )?;
        while text.len() - start < 73 {
            text.write_str(" ")?;
        }
        text.write_str("[rollup]\n")?;
        figures.write(text, true)
    })();
    outcome.map_err(|_: fmt::Error| Errno::ENOMEM)
}

/// The reader may look at the other process as a debugger would (`PTRACE_MODE_ATTACH`).
fn may_attach(process: &Arc<Process>) -> Result {
    let own = &current().process;
    if Arc::ptr_eq(own, process) || own.credentials.get().is_privileged() {
        return Ok(());
    }
    let (mine, other) = (own.credentials.get(), process.credentials.get());
    if other.user.is_all(mine.user.real) && other.group.is_all(mine.group.real) {
        Ok(())
    } else {
        Err(Errno::EACCES)
    }
}

/// The address space of a process, for one who may look at it: `EACCES`; `ESRCH` without one.
pub fn open_space(process: &Arc<Process>) -> Result<Arc<Mm>> {
    may_attach(process)?;
    process.mm().ok_or(Errno::ESRCH)
}

/// /proc/PID/mem. Keeps nothing alive: after the process's end or exec nothing can be read.
struct Memory(Weak<Mm>);

/// Opens /proc/PID/mem. `EACCES`.
pub fn open_memory(process: &Arc<Process>) -> Result<Opened> {
    may_attach(process)?;
    let mm = process
        .mm()
        .map_or_else(Weak::new, |mm| Arc::downgrade(&mm));
    Ok(Opened::Positioned(Box::try_new(Memory(mm))?))
}

impl Positioned for Memory {
    fn read_at(&self, offset: u64, dst: &mut Dst<'_>) -> Result<usize> {
        let Some(mm) = self.0.upgrade() else {
            return Ok(0);
        };
        let mut page = PageBuffer::new()?;
        let mut done = 0;
        while dst.left() > 0 {
            let at = (offset as usize).wrapping_add(done);
            let part = dst.left().min(PAGE_SIZE);
            let got = match mm.read_remote(at, &mut page.bytes_mut()[..part], Rules::Forced) {
                Ok(got) => got,
                Err(_) => return partial(done, Errno::EIO),
            };
            let put = dst.put(&page.bytes()[..got]);
            done += put;
            if put < got {
                return Err(Errno::EFAULT);
            }
        }
        Ok(done)
    }

    fn write_at(&self, offset: u64, src: &mut Src<'_>) -> Result<usize> {
        let Some(mm) = self.0.upgrade() else {
            return Ok(0);
        };
        let mut page = PageBuffer::new()?;
        let mut done = 0;
        while src.left() > 0 {
            let at = (offset as usize).wrapping_add(done);
            let part = src.left().min(PAGE_SIZE);
            if src.take(&mut page.bytes_mut()[..part]) < part {
                return Err(Errno::EFAULT);
            }
            match mm.write_remote(at, &page.bytes()[..part], Rules::Forced) {
                Ok(put) => done += put,
                Err(_) => return partial(done, Errno::EIO),
            }
        }
        Ok(done)
    }
}

/// /proc/PID/pagemap: eight bytes for each page of the address space.
struct PageMap {
    mm: Weak<Mm>,
    /// Frame numbers are shown to those who may map memory as they like, when they open the file (CAP_SYS_ADMIN).
    show_frames: bool,
}

/// Opens /proc/PID/pagemap. `EACCES`.
pub fn open_pagemap(process: &Arc<Process>) -> Result<Opened> {
    may_attach(process)?;
    let mm = process
        .mm()
        .map_or_else(Weak::new, |mm| Arc::downgrade(&mm));
    let show_frames = current().process.credentials.get().is_privileged();
    Ok(Opened::Positioned(Box::try_new(PageMap {
        mm,
        show_frames,
    })?))
}

/// Bits of an entry (`Documentation/admin-guide/mm/pagemap.rst`); the frame's number is below.
mod entry {
    pub const EXCLUSIVE: u64 = 1 << 56;
    pub const UFFD_WP: u64 = 1 << 57;
    /// A page of a file or of shared memory.
    pub const FILE: u64 = 1 << 61;
    pub const PRESENT: u64 = 1 << 63;
}

/// Bytes of an entry.
const ENTRY: usize = 8;

impl PageMap {
    fn entry_of(&self, pte: Pte, sharers: u32) -> u64 {
        let mut value = entry::PRESENT;
        if self.show_frames {
            value |= u64::from(pte.frame.0);
        }
        if pte.flags.contains(PteFlags::UFFD_WP) {
            value |= entry::UFFD_WP;
        }
        if !pte.flags.contains(PteFlags::SPECIAL) {
            if Frame::kind(pte.frame) != FrameKind::Anonymous {
                value |= entry::FILE;
            }
            if mappings_of(pte, sharers) == 1 {
                value |= entry::EXCLUSIVE;
            }
        }
        value
    }
}

impl Positioned for PageMap {
    fn read_at(&self, offset: u64, dst: &mut Dst<'_>) -> Result<usize> {
        let Some(mm) = self.mm.upgrade() else {
            return Ok(0);
        };
        if !offset.is_multiple_of(ENTRY as u64) || !dst.left().is_multiple_of(ENTRY) {
            return Err(Errno::EINVAL);
        }
        let end = crate::arch::USER_END as u64 / PAGE_SIZE as u64;
        let mut buffer = PageBuffer::new()?;
        let mut first = offset / ENTRY as u64;
        let mut done = 0;
        while dst.left() > 0 && first < end {
            let count = (PAGE_SIZE.min(dst.left()) / ENTRY).min((end - first) as usize);
            let bytes = &mut buffer.bytes_mut()[..count * ENTRY];
            bytes.fill(0);
            mm.for_each_page_in(
                first as usize * PAGE_SIZE,
                count,
                &mut |page, pte, sharers| {
                    let at = (page - first as usize) * ENTRY;
                    bytes[at..at + ENTRY]
                        .copy_from_slice(&self.entry_of(pte, sharers).to_ne_bytes());
                },
            );
            let put = dst.put(bytes);
            done += put;
            if put < bytes.len() {
                return Err(Errno::EFAULT);
            }
            first += count as u64;
        }
        Ok(done)
    }
}
