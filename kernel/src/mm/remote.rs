//! Memory that is reached by its address space and not by an access of its own process: /proc/PID/mem, process_vm_readv(2).
//!
//! Pages are made present through the one fault path, then looked at again: nothing is remembered from one round to the next but the
//! wish itself, so a page that was dropped or shared in between is never written by mistake. A copy is made with `mmap_lock` held, which
//! keeps fork(2) from sharing the page meanwhile; it touches no user memory of the current process.

use super::addr::{PAGE_SIZE, VirtAddr};
use super::fault::{self, Access};
use super::frame::{Frame, FrameKind};
use super::page_cache::{copy_from_page, copy_to_page};
use super::pte::{Pte, PteFlags};
use super::space::Mm;
use super::vma::{VmFlags, Vma};
use crate::errno::{Errno, Result};
use crate::sched::{Sleep, current};
use crate::signal::fatal_signal_pending;

/// Which of an area's rules count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rules {
    /// Its permissions, as for the process itself.
    Own,
    /// Those that it could be given: a debugger's access (`FOLL_FORCE`). Writing is for private memory only, then.
    Forced,
}

impl Rules {
    /// Whether the area may be accessed (`check_vma_flags` in Linux's `mm/gup.c`).
    pub(super) fn permit(self, vma: &Vma, access: Access) -> bool {
        let has = |flag| vma.flags.contains(flag);
        match (self, access) {
            (Rules::Own, Access::Write) => has(VmFlags::WRITE),
            (Rules::Own, _) => has(VmFlags::READ),
            (Rules::Forced, Access::Write) => {
                has(VmFlags::WRITE) || has(VmFlags::MAYWRITE) && !vma.is_shared()
            }
            (Rules::Forced, _) => has(VmFlags::READ) || has(VmFlags::MAYREAD),
        }
    }
}

impl Mm {
    /// Copies bytes of the address space to `buf`; how many, fewer only if some cannot be read. `EFAULT` if none can, `EINTR`.
    pub fn read_remote(&self, addr: usize, buf: &mut [u8], rules: Rules) -> Result<usize> {
        self.access_remote(addr, buf.len(), Access::Read, rules, |page, in_page, at| {
            copy_from_page(page, in_page, &mut buf[at]);
        })
    }

    /// Copies `bytes` to the address space, as [`Mm::read_remote`].
    pub fn write_remote(&self, addr: usize, bytes: &[u8], rules: Rules) -> Result<usize> {
        self.access_remote(
            addr,
            bytes.len(),
            Access::Write,
            rules,
            |page, in_page, at| {
                copy_to_page(page, in_page, &bytes[at]);
            },
        )
    }

    /// Calls `copy` for each page of a range with the offset in the page and the bytes of the range that lie in it.
    fn access_remote(
        &self,
        addr: usize,
        len: usize,
        access: Access,
        rules: Rules,
        mut copy: impl FnMut(&Frame, usize, core::ops::Range<usize>),
    ) -> Result<usize> {
        let mut done = 0;
        while done < len {
            let at = addr.wrapping_add(done);
            let in_page = at % PAGE_SIZE;
            let part = (PAGE_SIZE - in_page).min(len - done);
            let outcome = VirtAddr::new(at).ok_or(Errno::EFAULT).and_then(|at| {
                self.with_page(at.page(), access, rules, |page| {
                    copy(page, in_page, done..done + part);
                })
            });
            match outcome {
                Ok(()) => done += part,
                Err(_) if done > 0 => break,
                Err(error) => return Err(error),
            }
        }
        Ok(done)
    }

    /// Runs `f` on the frame of a page, made present for the access, with `mmap_lock` held. `EFAULT`, `EINTR`.
    fn with_page(
        &self,
        page: VirtAddr,
        access: Access,
        rules: Rules,
        mut f: impl FnMut(&Frame),
    ) -> Result {
        loop {
            if fatal_signal_pending(&current()) {
                return Err(Errno::EINTR);
            }
            let areas = self.read(Sleep::Killable).map_err(|_| Errno::EINTR)?;
            if let Some(vma) = areas.find(page) {
                if !rules.permit(&vma, access) {
                    return Err(Errno::EFAULT);
                }
                if let Some(frame) = self.follow(&vma, page, access) {
                    f(&frame);
                    return Ok(());
                }
            }
            drop(areas);
            fault::fault_in_remote(self, page, access, rules)?;
        }
    }

    /// The frame of a page that can be accessed as it is. To be written it has to be writable, or in a private area without the
    /// permission, where the entry never gets it, the area's alone.
    fn follow(&self, vma: &Vma, page: VirtAddr, access: Access) -> Option<Frame> {
        let table = self.page_table.lock();
        let pte = table.get(page)?;
        let usable = access != Access::Write
            || pte.flags.contains(PteFlags::WRITE)
            || !vma.flags.contains(VmFlags::WRITE) && is_own(pte) && table.sharers(page) == 1;
        // SAFETY: the entry holds a reference under the page-table lock, or the frame is the zero page, which is never freed.
        usable.then(|| unsafe { Frame::share(pte.frame) })
    }
}

/// Whether a page is private memory that only this entry refers to.
fn is_own(pte: Pte) -> bool {
    !pte.flags.intersects(PteFlags::SPECIAL | PteFlags::UFFD_WP)
        && Frame::kind(pte.frame) == FrameKind::Anonymous
        && Frame::is_unique(pte.frame)
}

#[cfg(all(test, not(target_os = "none")))]
mod tests {
    use std::boxed::Box;
    use std::sync::Arc;

    use super::*;
    use crate::arch::sim::machine::{current_mm, run_test};
    use crate::arch::sim::{user_read, user_write};
    use crate::mm::advice::Advice;
    use crate::mm::frame::free_frames;
    use crate::mm::map::Place;
    use crate::mm::page_cache::{Backing, Mapping};
    use crate::mm::vma::Source;

    const RW: VmFlags = VmFlags::READ
        .union(VmFlags::WRITE)
        .union(VmFlags::MAYREAD)
        .union(VmFlags::MAYWRITE);
    const RO: VmFlags = RW.difference(VmFlags::WRITE);
    const BASE: usize = 0x10_0000_0000;

    fn map(flags: VmFlags, source: Option<Source>) {
        let mapped = current_mm().map(Place::Fixed(BASE), PAGE_SIZE, flags, source);
        assert_eq!(mapped, Ok(BASE));
    }

    struct Sevens;

    impl Backing for Sevens {
        fn read_page(&self, _: u64, page: &mut [u8; PAGE_SIZE]) -> Result {
            page.fill(7);
            Ok(())
        }
    }

    fn file() -> Source {
        Source {
            mapping: Mapping::new(PAGE_SIZE as u64, Box::new(Sevens)).expect("memory"),
            first_page: 0,
            file: None,
        }
    }

    fn in_file(source: &Source) -> u8 {
        let page = source.mapping.read_page(0, Sleep::Killable).expect("read");
        let mut byte = [0];
        copy_from_page(&page, 0, &mut byte);
        byte[0]
    }

    fn read(mm: &Mm) -> u8 {
        let mut byte = [0];
        assert_eq!(mm.read_remote(BASE, &mut byte, Rules::Own), Ok(1));
        byte[0]
    }

    fn write(mm: &Mm, byte: u8) {
        assert_eq!(mm.write_remote(BASE, &[byte], Rules::Own), Ok(1));
    }

    /// Row 8 of the bugs to avoid (CVE-2016-5195): the copy is dropped between the fault that made it and the write.
    #[test]
    fn a_forced_write_that_loses_its_copy_does_not_reach_the_file() {
        run_test(|| {
            let (mm, source) = (current_mm(), file());
            map(RO, Some(source.clone()));
            let page = VirtAddr::new(BASE).expect("a user address");
            let follow = |access| {
                let areas = mm.read(Sleep::Killable).expect("no signal");
                let vma = areas.find(page).expect("mapped");
                mm.follow(&vma, page, access)
            };
            for touch_again in [false, true] {
                let made = fault::fault_in_remote(&mm, page, Access::Write, Rules::Forced);
                assert_eq!(made, Ok(()));
                assert!(follow(Access::Write).is_some(), "the copy may be written");
                let dropped = mm.advise(BASE, PAGE_SIZE, Advice::DontNeed { locked: false });
                assert_eq!(dropped, Ok(()));
                if touch_again {
                    assert_eq!(user_read(BASE), Ok(7), "the file's own page is mapped");
                }
                assert!(follow(Access::Write).is_none(), "and is not to be written");
            }
            assert_eq!(mm.write_remote(BASE, &[9], Rules::Forced), Ok(1));
            assert_eq!((user_read(BASE), in_file(&source)), (Ok(9), 7));
            assert!(user_write(BASE, 1).is_err(), "the area is still read-only");
        });
    }

    /// Row 11 of the bugs to avoid (CVE-2020-29374): a reference that a pipe holds, say, outlives the child that had the page.
    #[test]
    fn a_reference_to_a_shared_page_does_not_see_later_writes() {
        run_test(|| {
            let mm = current_mm();
            map(RW, None);
            assert_eq!(user_write(BASE, 1), Ok(()));
            let child = mm.fork().expect("memory");
            let page = VirtAddr::new(BASE).expect("a user address");
            let mut held = None;
            let kept = |frame: &Frame| held = Some(frame.clone());
            assert_eq!(
                child.with_page(page, Access::Read, Rules::Own, kept),
                Ok(())
            );
            drop(child);
            assert_eq!(user_write(BASE, 2), Ok(()));
            let mut byte = [0];
            copy_from_page(&held.expect("it was read"), 0, &mut byte);
            assert_eq!((byte, user_read(BASE)), ([1], Ok(2)));
        });
    }

    /// Row 12 of the bugs to avoid: three processes write the page that they share, in every order, some of them twice.
    #[test]
    fn three_processes_stay_isolated_in_every_order_of_writes() {
        run_test(|| {
            map(RW, None);
            let free = free_frames();
            for order in 0..27usize {
                for last_leaves in [false, true] {
                    let parent = current_mm();
                    assert_eq!(user_write(BASE, 100), Ok(()));
                    let child = parent.fork().expect("memory");
                    let grandchild = child.fork().expect("memory");
                    let mut spaces: [Option<Arc<Mm>>; 3] =
                        [Some(parent), Some(child), Some(grandchild)];
                    let mut expected = [100; 3];
                    for (step, who) in [order % 3, order / 3 % 3, order / 9]
                        .into_iter()
                        .enumerate()
                    {
                        if step == 2 && last_leaves {
                            // One of the others goes, and its reference with it.
                            spaces[2 - who.min(1)] = None;
                        }
                        if let Some(mm) = &spaces[who] {
                            expected[who] = (10 * step + who) as u8;
                            write(mm, expected[who]);
                        }
                        for (mm, expected) in spaces.iter().zip(expected) {
                            let seen = mm.as_ref().map_or(expected, |mm| read(mm));
                            assert_eq!(seen, expected, "order {order}, step {step}");
                        }
                    }
                }
            }
            assert_eq!(user_write(BASE, 1), Ok(()));
            assert_eq!(free_frames(), free - 1, "only the parent's page is left");
        });
    }

    #[test]
    fn rules_decide_what_may_be_reached() {
        run_test(|| {
            let mm = current_mm();
            map(RO, None);
            let read = |rules| mm.read_remote(BASE, &mut [0], rules);
            let write = |rules| mm.write_remote(BASE, &[1], rules);
            assert_eq!(
                (read(Rules::Own), write(Rules::Own)),
                (Ok(1), Err(Errno::EFAULT))
            );
            assert_eq!(write(Rules::Forced), Ok(1));
            assert_eq!(mm.protect(BASE, PAGE_SIZE, VmFlags::empty(), false), Ok(()));
            assert_eq!(
                (read(Rules::Own), read(Rules::Forced)),
                (Err(Errno::EFAULT), Ok(1))
            );
            assert_eq!(mm.unmap(BASE, PAGE_SIZE), Ok(()));
            map(RO | VmFlags::SHARED, Some(file()));
            assert_eq!(
                (read(Rules::Own), write(Rules::Forced)),
                (Ok(1), Err(Errno::EFAULT))
            );
            assert_eq!(
                mm.read_remote(BASE + PAGE_SIZE - 1, &mut [0; 2], Rules::Own),
                Ok(1)
            );
            assert_eq!(
                mm.read_remote(usize::MAX, &mut [0; 2], Rules::Forced),
                Err(Errno::EFAULT)
            );
        });
    }
}
