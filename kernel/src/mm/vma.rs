//! A virtual memory area: one range of a process's addresses with the same permissions and the same contents behind it.
//!
//! A [`Vma`] never changes while it is in the tree; changing one means putting others in its place, under the write side of
//! `mmap_lock`. Whoever holds the read side may therefore keep a reference across anything that does not release the lock.

use alloc::sync::Arc;
use core::fmt;
use core::ops::Range;

use bitflags::bitflags;
use intrusive_collections::{
    KeyAdapter, RBTreeAtomicLink, SinglyLinkedListAtomicLink, intrusive_adapter,
};

use super::addr::{PAGE_SHIFT, VirtAddr};
use super::anon::{Anon, AnonId};
use super::page_cache::Mapping;
use super::pte::PteFlags;
use super::reverse_map::{Area, Entry};
use super::translations::Translations;
use super::userfault::Context;
use crate::errno::{OutOfMemory, Result};

bitflags! {
    /// What may be done in an area, and how it behaves.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct VmFlags: u32 {
        const READ = 1 << 0;
        const WRITE = 1 << 1;
        const EXEC = 1 << 2;
        /// Writes reach the file and other processes.
        const SHARED = 1 << 3;
        /// mprotect(2) may add the permission.
        const MAYREAD = 1 << 4;
        const MAYWRITE = 1 << 5;
        const MAYEXEC = 1 << 6;
        /// Grows towards lower addresses when touched just below.
        const GROWSDOWN = 1 << 8;
        /// The initial stack, for its name in /proc.
        const STACK = 1 << 9;
        const NORESERVE = 1 << 10;
        /// Its pages are made present at once and counted against RLIMIT_MEMLOCK.
        const LOCKED = 1 << 11;
        /// Locked, but pages come when they are touched.
        const LOCKONFAULT = 1 << 12;
        /// A child does not get it (MADV_DONTFORK).
        const DONTFORK = 1 << 13;
        /// A child finds zeros in it (MADV_WIPEONFORK).
        const WIPEONFORK = 1 << 14;
        /// Advice that splits areas and has no other effect.
        const SEQUENTIAL = 1 << 15;
        const RANDOM = 1 << 16;
        const DONTDUMP = 1 << 17;
        const HUGEPAGE = 1 << 18;
        const NOHUGEPAGE = 1 << 19;
        /// Counts for the decision whether there is enough memory: private and writable, now or once.
        const ACCOUNT = 1 << 20;
        /// The file counts its areas: [`MappedFile::count_area`].
        const COUNTED = 1 << 21;
        /// Faults on missing pages go to the area's userfaultfd.
        const UFFD_MISSING = 1 << 28;
        /// Writes to pages that it protects go to the area's userfaultfd.
        const UFFD_WP = 1 << 29;
        /// Registered with a userfaultfd. Areas without these have none.
        const UFFD = Self::UFFD_MISSING.bits() | Self::UFFD_WP.bits();
        const PERMISSIONS = Self::READ.bits() | Self::WRITE.bits() | Self::EXEC.bits();
    }
}

/// A file that can be mapped, as far as the address space wants to know it.
pub trait MappedFile: Send + Sync {
    /// Device and inode numbers, for /proc/self/maps.
    fn id(&self) -> (u64, u64);

    /// Bytes were or will be written through a shared mapping: the file's times change.
    fn written(&self);

    /// Makes a hole of `len` bytes at byte `start`, both whole pages (MADV_REMOVE).
    fn punch_hole(&self, start: u64, len: u64) -> Result;

    /// Writes the file's path.
    fn write_path(&self, out: &mut dyn fmt::Write) -> fmt::Result;

    /// Something happened to one of its areas with [`VmFlags::COUNTED`]. With the write side of `mmap_lock` held, or nobody left who could
    /// take it.
    fn count_area(&self, _event: AreaEvent) {}
}

/// What a file is told that counts its areas. Replacing areas by others makes new ones before the old ones go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AreaEvent {
    /// There is one more.
    More,
    /// There is one less.
    Less,
    /// It was mapped, moved, copied by fork(2), or split (Linux's `vm_ops->open`).
    Opened,
    /// It was unmapped, in part or whole (`vm_ops->close`).
    Closed,
}

/// The contents behind an area that are not private zeros.
#[derive(Clone)]
pub struct Source {
    pub mapping: Arc<Mapping>,
    /// Index in the mapping of the area's first page.
    pub first_page: u64,
    /// `None` for shared anonymous memory.
    pub file: Option<Arc<dyn MappedFile>>,
}

impl Source {
    /// Bytes were or will be written through a shared mapping.
    pub fn written(&self) {
        if let Some(file) = &self.file {
            file.written();
        }
    }
}

/// One area, `start..end`, page-aligned and not empty.
pub struct Vma {
    pub start: VirtAddr,
    pub end: VirtAddr,
    pub flags: VmFlags,
    /// `None`: private anonymous memory.
    pub source: Option<Source>,
    /// For private anonymous memory what [`Source::first_page`] is for a file: the number of the page at which the first page was when
    /// it got its contents. Areas are joined only where these numbers go on.
    pub own_first_page: u64,
    pub anon: Anon,
    /// Its place in the reverse map of what is behind it.
    reverse: Option<Entry>,
    /// The userfaultfd of an area that has one of the flags [`VmFlags::UFFD`].
    pub userfault: Option<Arc<Context>>,
    link: RBTreeAtomicLink,
    removed: SinglyLinkedListAtomicLink,
}

intrusive_adapter!(pub VmaAdapter = Arc<Vma>: Vma { link => RBTreeAtomicLink });
intrusive_adapter!(pub RemovedAdapter = Arc<Vma>: Vma { removed => SinglyLinkedListAtomicLink });

impl<'a> KeyAdapter<'a> for VmaAdapter {
    type Key = VirtAddr;
    fn get_key(&self, vma: &'a Vma) -> VirtAddr {
        vma.start
    }
}

impl Vma {
    pub fn new(
        start: VirtAddr,
        end: VirtAddr,
        flags: VmFlags,
        source: Option<Source>,
    ) -> core::result::Result<Arc<Vma>, OutOfMemory> {
        let own_first_page = (start.get() >> PAGE_SHIFT) as u64;
        Vma::with(start..end, flags, source, (own_first_page, None), None)
    }

    #[inline(always)]
    fn with(
        Range { start, end }: Range<VirtAddr>,
        flags: VmFlags,
        source: Option<Source>,
        (own_first_page, anon): (u64, Option<AnonId>),
        userfault: Option<Arc<Context>>,
    ) -> core::result::Result<Arc<Vma>, OutOfMemory> {
        debug_assert!(start < end && start.is_aligned() && end.is_aligned());
        let reverse = match &source {
            Some(source) => Some(Entry::new(&source.mapping)?),
            None => None,
        };
        debug_assert_eq!(userfault.is_some(), flags.intersects(VmFlags::UFFD));
        Ok(Arc::try_new(Vma {
            start,
            end,
            flags,
            source,
            own_first_page,
            anon: Anon::new(anon),
            reverse,
            userfault,
            link: RBTreeAtomicLink::new(),
            removed: SinglyLinkedListAtomicLink::new(),
        })?)
    }

    /// What the reverse map says of the area, in the address space of `translations`.
    pub(super) fn to_area(&self, translations: &Arc<Translations>) -> Option<Area> {
        let first = self.source.as_ref()?.first_page;
        let pages = (self.len() >> PAGE_SHIFT) as u64;
        Some(Area {
            translations: translations.clone(),
            start: self.start,
            first,
            last: first.saturating_add(pages - 1),
            flags: self.flags,
        })
    }

    /// From now on its pages are found through what is behind it.
    pub(super) fn enter_reverse_map(&self, translations: &Arc<Translations>) {
        if let Some((entry, area)) = self.reverse.as_ref().zip(self.to_area(translations)) {
            entry.enter(area);
        }
    }

    pub(super) fn leave_reverse_map(&self) {
        if let Some(entry) = &self.reverse {
            entry.leave();
            self.tell_file(AreaEvent::Less);
        }
    }

    /// Tells a file that counts its areas.
    #[inline]
    pub(super) fn tell_file(&self, event: AreaEvent) {
        if self.flags.contains(VmFlags::COUNTED)
            && let Some(file) = self.source.as_ref().and_then(|source| source.file.as_ref())
        {
            file.count_area(event);
        }
    }

    /// Bytes.
    pub fn len(&self) -> usize {
        self.end.get() - self.start.get()
    }

    #[inline]
    pub fn contains(&self, address: VirtAddr) -> bool {
        self.start <= address && address < self.end
    }

    #[inline]
    pub fn is_shared(&self) -> bool {
        self.flags.contains(VmFlags::SHARED)
    }

    /// Whether it counts against RLIMIT_DATA: private and writable, and not a stack.
    pub fn is_data(flags: VmFlags) -> bool {
        flags & (VmFlags::WRITE | VmFlags::SHARED | VmFlags::GROWSDOWN) == VmFlags::WRITE
    }

    /// Whether writing makes a private copy. Not only private writable areas: a private page may have been copied before the area lost
    /// its write permission.
    #[inline]
    pub fn is_cow(&self) -> bool {
        !self.is_shared()
    }

    /// The part `start..end` of the area as an area of its own, with other `flags`. Both may also lie outside the area, which then grows.
    /// Without one of [`VmFlags::UFFD`] it is not registered with a userfaultfd.
    pub fn part(
        &self,
        start: VirtAddr,
        end: VirtAddr,
        flags: VmFlags,
    ) -> core::result::Result<Arc<Vma>, OutOfMemory> {
        self.part_as(start, end, flags, self.anon.get())
    }

    /// The same with the identity `anon`.
    pub fn part_as(
        &self,
        start: VirtAddr,
        end: VirtAddr,
        flags: VmFlags,
        anon: Option<AnonId>,
    ) -> core::result::Result<Arc<Vma>, OutOfMemory> {
        let userfault = self.userfault.as_ref();
        let userfault = userfault.filter(|_| flags.intersects(VmFlags::UFFD));
        self.with_identity(start, start..end, flags, anon, userfault.cloned())
    }

    /// The same as [`Vma::part`], registered with `userfault`, whose flags are in `flags`.
    pub fn part_with(
        &self,
        start: VirtAddr,
        end: VirtAddr,
        flags: VmFlags,
        userfault: Arc<Context>,
    ) -> core::result::Result<Arc<Vma>, OutOfMemory> {
        self.with_identity(start, start..end, flags, self.anon.get(), Some(userfault))
    }

    /// The contents from `start` on as an area at `to..end`, as mremap(2) moves them: not registered with a userfaultfd.
    pub fn part_at(
        &self,
        start: VirtAddr,
        to: VirtAddr,
        end: VirtAddr,
    ) -> core::result::Result<Arc<Vma>, OutOfMemory> {
        let flags = self.flags - VmFlags::UFFD;
        if self.source.is_none() && self.anon.get().is_none() {
            // Nothing is in it yet: as good as mapped there.
            return Vma::new(to, end, flags, None);
        }
        self.with_identity(start, to..end, flags, self.anon.get(), None)
    }

    fn with_identity(
        &self,
        start: VirtAddr,
        place: Range<VirtAddr>,
        flags: VmFlags,
        anon: Option<AnonId>,
        userfault: Option<Arc<Context>>,
    ) -> core::result::Result<Arc<Vma>, OutOfMemory> {
        let mut source = self.source.clone();
        if let Some(source) = &mut source {
            // Wraps only for an area that grew below its start, which files never do.
            source.first_page = self.page_index_of(start).unwrap_or(source.first_page);
        }
        let own_first_page = self
            .own_first_page
            .wrapping_add_signed(self.pages_to(start));
        Vma::with(place, flags, source, (own_first_page, anon), userfault)
    }

    /// Pages from the area's start to `address`.
    fn pages_to(&self, address: VirtAddr) -> i64 {
        (address.get().wrapping_sub(self.start.get()) as isize >> PAGE_SHIFT) as i64
    }

    /// Index in the mapping of the page that holds `address`.
    #[inline]
    pub fn page_index_of(&self, address: VirtAddr) -> Option<u64> {
        let source = self.source.as_ref()?;
        source.first_page.checked_add_signed(self.pages_to(address))
    }

    /// Whether `next`, which begins where this area ends, goes on with the same contents.
    pub fn same_contents(&self, next: &Vma) -> bool {
        match (&self.source, &next.source) {
            (None, None) => {
                self.own_first_page
                    .wrapping_add_signed(self.pages_to(self.end))
                    == next.own_first_page
            }
            (Some(a), Some(b)) => {
                Arc::ptr_eq(&a.mapping, &b.mapping)
                    && self.page_index_of(self.end) == Some(b.first_page)
                    && match (&a.file, &b.file) {
                        (Some(a), Some(b)) => Arc::ptr_eq(a, b),
                        (None, None) => true,
                        _ => false,
                    }
            }
            _ => false,
        }
    }

    /// Whether a page may be mapped writable before anybody writes to it. Private pages must be copied, and files on a disk must know.
    #[inline]
    pub fn writable_at_once(&self) -> bool {
        self.is_shared()
            && self
                .source
                .as_ref()
                .is_none_or(|source| !source.mapping.tracks_writes())
    }

    /// Whether both have the same userfaultfd, or none.
    pub fn same_userfault(&self, other: &Vma) -> bool {
        self.userfault.as_ref().map(Arc::as_ptr) == other.userfault.as_ref().map(Arc::as_ptr)
    }

    /// Page-table permissions of a page that may be written at once.
    #[inline]
    pub fn pte_flags(&self) -> PteFlags {
        pte_flags(self.flags)
    }
}

/// Page-table permissions in an area with these flags, of a page that may be written at once.
#[inline]
pub fn pte_flags(vm_flags: VmFlags) -> PteFlags {
    let mut flags = PteFlags::empty();
    flags.set(PteFlags::READ, vm_flags.contains(VmFlags::READ));
    flags.set(PteFlags::WRITE, vm_flags.contains(VmFlags::WRITE));
    flags.set(PteFlags::EXEC, vm_flags.contains(VmFlags::EXEC));
    flags.set(PteFlags::NONE, !vm_flags.intersects(VmFlags::PERMISSIONS));
    flags
}
