//! System V shared memory (`shmget(2)`, `shmat(2)`, `shmctl(2)`; Linux's `ipc/shm.c`).
//!
//! A [`Segment`] is a file in memory that no directory holds but the table, so that faults, fork(2), mprotect(2) and mremap(2) treat its
//! areas as those of any shared file. Each shmat(2) opens it anew ([`Attachment`]): areas of two attachments are never joined. The
//! segment counts its areas; one that was removed goes with the last.
//!
//! Locks: the table (rank IPC) outside a segment's state (SEGMENT). Areas are counted under `mmap_lock`.

use alloc::sync::Arc;
use core::fmt;
use core::sync::atomic::{AtomicU64, Ordering};

use super::abi;
use super::permission::Permission;
use super::settings::{SHMALL, SHMMAX, SHMMNI};
use super::table::{Kind, Object, Objects};
use crate::errno::{Errno, Result};
use crate::fs::inode::Time;
use crate::mm::page_cache::Mapping;
use crate::mm::vma::{AreaEvent, MappedFile};
use crate::mm::{PAGE_SIZE, limits};
use crate::sched::current;
use crate::sync::{SpinLock, rank};
use crate::task::quota::Quota;
use crate::task::rlimit::Resource;

/// Smallest segment, bytes (`SHMMIN`).
pub const SHMMIN: u64 = 1;

pub static SEGMENTS: Objects<Segment> = Objects::new();
/// Pages of all segments.
static PAGES: AtomicU64 = AtomicU64::new(0);
/// Bytes that each user has locked with SHM_LOCK.
static LOCKED: Quota = Quota::new();

/// A segment, in the table or removed and still attached.
pub struct Segment {
    mapping: Arc<Mapping>,
    /// The key that it was made with, which stays in its name.
    name: i32,
    /// Process that made it.
    maker: u32,
    state: SpinLock<State>,
}

struct State {
    permission: Permission,
    /// Areas, and calls that are about to make one.
    attached: u64,
    last_pid: u32,
    attach_time: i64,
    detach_time: i64,
    change_time: i64,
    /// Who has locked it, for [`LOCKED`].
    locked_by: Option<u32>,
}

/// What shmctl(2) and /proc/sysvipc/shm tell of a segment.
pub struct Status {
    pub id: u32,
    pub key: i32,
    pub sequence: u32,
    pub permission: Permission,
    /// Bytes.
    pub size: u64,
    pub attach_time: i64,
    pub detach_time: i64,
    pub change_time: i64,
    pub maker: u32,
    pub last_pid: u32,
    pub attached: u64,
    /// Bytes in memory.
    pub resident: u64,
}

/// Sums over all segments.
#[derive(Default)]
pub struct Totals {
    pub segments: u64,
    pub pages: u64,
    /// Pages in memory.
    pub resident: u64,
    /// The highest place in the table.
    pub highest: usize,
}

fn pages_of(bytes: u64) -> u64 {
    bytes.div_ceil(PAGE_SIZE as u64)
}

/// shmget(2).
pub fn get(key: i32, size: u64, flags: u32) -> Result<u32> {
    let check = |segment: &Segment| match segment.size() < size {
        true => Err(Errno::EINVAL),
        false => segment.permission().check(flags),
    };
    let most = SHMMNI.get() as usize;
    SEGMENTS.get(key, flags, most, || Segment::new(key, size, flags), check)
}

impl Segment {
    fn new(key: i32, size: u64, flags: u32) -> Result<Segment> {
        if size < SHMMIN || size > SHMMAX.get() {
            return Err(Errno::EINVAL);
        }
        let pages = pages_of(size);
        let all = PAGES.load(Ordering::Relaxed).checked_add(pages);
        if all.is_none_or(|all| all > SHMALL.get()) {
            return Err(Errno::ENOSPC);
        }
        if flags & abi::SHM_HUGETLB != 0 {
            // No memory is set aside for huge pages: of 2 MiB and 1 GiB, which there could be.
            let size_log = flags >> abi::SHM_HUGE_SHIFT & 0x3f;
            return Err(match size_log {
                0 | 21 | 30 => Errno::ENOMEM,
                _ => Errno::EINVAL,
            });
        }
        if size > i64::MAX as u64 {
            return Err(Errno::EINVAL);
        }
        if flags & abi::SHM_NORESERVE == 0 {
            limits::may_charge(size as usize)?;
        }
        let mapping = Mapping::anonymous(size)?;
        PAGES.fetch_add(pages, Ordering::Relaxed);
        Ok(Segment {
            mapping,
            name: key,
            maker: current().process.pid,
            state: SpinLock::new(
                rank::SEGMENT,
                State {
                    permission: Permission::new(flags),
                    attached: 0,
                    last_pid: 0,
                    attach_time: 0,
                    detach_time: 0,
                    change_time: Time::now().sec,
                    locked_by: None,
                },
            ),
        })
    }

    fn size(&self) -> u64 {
        self.mapping.size()
    }
}

impl Drop for Segment {
    fn drop(&mut self) {
        PAGES.fetch_sub(pages_of(self.size()), Ordering::Relaxed);
        if let Some(uid) = self.state.get_mut().locked_by {
            LOCKED.give_back(uid, self.size());
        }
    }
}

impl Kind for Segment {
    type Status = Status;

    fn permission(&self) -> Permission {
        self.state.lock().permission
    }

    fn status(object: &Object<Segment>) -> Status {
        let resident = object.mapping.pages_allocated() * PAGE_SIZE as u64;
        let state = object.state.lock();
        Status {
            id: object.id(),
            key: object.key(),
            sequence: object.sequence(),
            permission: state.permission,
            size: object.size(),
            attach_time: state.attach_time,
            detach_time: state.detach_time,
            change_time: state.change_time,
            maker: object.maker,
            last_pid: state.last_pid,
            attached: state.attached,
            resident,
        }
    }
}

impl Object<Segment> {
    /// One attachment less: the segment goes if it was removed before.
    fn detached(&self) {
        let mut state = self.state.lock();
        state.attached -= 1;
        let unused = state.is_unused();
        drop(state);
        if unused {
            self.remove_unused();
        }
    }

    /// Takes a removed segment out of the table, unless somebody has attached it meanwhile.
    fn remove_unused(&self) {
        let mut table = SEGMENTS.lock();
        let unused = self.state.lock().is_unused();
        let removed = if unused { table.remove(self) } else { None };
        drop(table);
        drop(removed);
    }
}

impl State {
    fn is_unused(&self) -> bool {
        self.attached == 0 && self.permission.mode & abi::SHM_DEST != 0
    }
}

/// One opening of a segment, by shmat(2).
pub struct Attachment {
    segment: Arc<Object<Segment>>,
}

impl Attachment {
    /// Opens the segment `id`, if the current process may do what `wanted` says. It counts as an area until [`Attachment::settle`].
    /// `EINVAL`, `EACCES`, `ENOMEM`.
    pub fn new(id: i32, wanted: u32) -> Result<Arc<Attachment>> {
        let table = SEGMENTS.lock();
        let segment = table.get(id)?;
        let mut state = segment.state.lock();
        let allowed = state.permission.check(wanted);
        state.attached += u64::from(allowed.is_ok());
        drop((state, table));
        allowed?;
        match Arc::try_new(Attachment {
            segment: segment.clone(),
        }) {
            Ok(attachment) => Ok(attachment),
            Err(_) => {
                segment.detached();
                Err(Errno::ENOMEM)
            }
        }
    }

    /// The area is there, or will never be.
    pub fn settle(&self) {
        self.segment.detached();
    }

    pub fn mapping(&self) -> &Arc<Mapping> {
        &self.segment.mapping
    }
}

impl MappedFile for Attachment {
    fn id(&self) -> (u64, u64) {
        (1, u64::from(self.segment.id()))
    }

    fn written(&self) {}

    fn punch_hole(&self, start: u64, len: u64) -> Result {
        self.mapping().punch(start, start + len)
    }

    fn write_path(&self, out: &mut dyn fmt::Write) -> fmt::Result {
        write!(out, "/SYSV{:08x} (deleted)", self.segment.name)
    }

    fn count_area(&self, event: AreaEvent) {
        if event == AreaEvent::Less {
            return self.segment.detached();
        }
        let mut state = self.segment.state.lock();
        match event {
            AreaEvent::More => {
                state.attached += 1;
                return;
            }
            AreaEvent::Opened => state.attach_time = Time::now().sec,
            AreaEvent::Closed | AreaEvent::Less => state.detach_time = Time::now().sec,
        }
        state.last_pid = current().process.pid;
    }
}

/// Costs the segments.
pub fn totals() -> Totals {
    let table = SEGMENTS.lock();
    let mut totals = Totals {
        segments: table.count() as u64,
        pages: PAGES.load(Ordering::Relaxed),
        resident: 0,
        highest: table.highest_place(),
    };
    drop(table);
    let mut at = 0;
    while let Some((status, after)) = SEGMENTS.next(at) {
        totals.resident += pages_of(status.resident);
        at = after;
    }
    totals
}

/// The segment `id`, whose owner the current process acts for. `EINVAL`, `EPERM`.
fn own(id: i32) -> Result<Arc<Object<Segment>>> {
    let segment = SEGMENTS.find(id)?;
    segment.permission().check_owner()?;
    Ok(segment)
}

/// IPC_SET, with a `struct ipc64_perm`.
pub fn set(id: i32, new: [u64; 6]) -> Result {
    let segment = own(id)?;
    let mut state = segment.state.lock();
    state.permission.set(new)?;
    state.change_time = Time::now().sec;
    Ok(())
}

/// IPC_RMID: nobody finds the segment by its key any more, and it goes when nobody has it attached.
pub fn remove(id: i32) -> Result {
    let segment = own(id)?;
    let mut table = SEGMENTS.lock();
    let mut state = segment.state.lock();
    state.permission.mode |= abi::SHM_DEST;
    drop(state);
    table.forget_key(&segment);
    drop(table);
    segment.remove_unused();
    Ok(())
}

/// SHM_LOCK and SHM_UNLOCK. There is no swap to be kept from: only what a user may lock is counted. `EPERM`, `ENOMEM`, `EINVAL`.
pub fn lock(id: i32, on: bool) -> Result {
    let segment = SEGMENTS.find(id)?;
    let process = &current().process;
    let limit = process.rlimits.soft(Resource::LockedMemory);
    let root = process.credentials.get().is_privileged();
    if !root {
        segment.permission().check_owner()?;
        if on && limit == 0 {
            return Err(Errno::EPERM);
        }
    }
    let uid = process.credentials.user().real;
    let most = if root { u64::MAX } else { limit };
    if on && !LOCKED.take(uid, segment.size(), most) {
        return Err(Errno::ENOMEM);
    }
    let mut state = segment.state.lock();
    let before = state.locked_by;
    // Only the first lock is one, and only the last who holds it gives it back.
    let (after, unneeded) = match (on, before) {
        (true, None) => (Some(uid), None),
        (true, Some(_)) => (before, Some(uid)),
        (false, _) => (None, before),
    };
    state.locked_by = after;
    if on {
        state.permission.mode |= abi::SHM_LOCKED;
    } else {
        state.permission.mode &= !abi::SHM_LOCKED;
    }
    drop(state);
    if let Some(uid) = unneeded {
        LOCKED.give_back(uid, segment.size());
    }
    Ok(())
}
