//! Which areas become one, and what keeps stacks and moved pages apart from others.

use std::vec;
use std::vec::Vec;

use super::{BASE, RW};
use crate::arch::sim::machine::{current_mm, run_test};
use crate::arch::sim::{UserFault, copy_to_user, user_read, user_write};
use crate::errno::Errno;
use crate::mm::advice::Advice;
use crate::mm::map::Place;
use crate::mm::remap::Remap;
use crate::mm::space::{MMAP_MIN_ADDR, STACK_GUARD_GAP};
use crate::mm::{Mm, PAGE_SIZE, VmFlags};
use crate::sched::current;
use crate::signal::{Signal, code};

const STACK: VmFlags = RW.union(VmFlags::GROWSDOWN);
const READ: VmFlags = VmFlags::READ;
const WRITE: VmFlags = VmFlags::READ.union(VmFlags::WRITE);

fn map_at(at: usize, pages: usize, flags: VmFlags) {
    current_mm()
        .map(Place::Fixed(at), pages * PAGE_SIZE, flags, None)
        .expect("room");
}

fn page(number: usize) -> usize {
    BASE + number * PAGE_SIZE
}

fn protect(first: usize, pages: usize, prot: VmFlags) {
    current_mm()
        .protect(page(first), pages * PAGE_SIZE, prot, false)
        .expect("mapped");
}

fn remap(from: usize, to: usize, pages: usize) -> usize {
    let how = Remap {
        may_move: true,
        to: Some(page(to)),
        keep_old: None,
    };
    let len = pages * PAGE_SIZE;
    current_mm()
        .remap(page(from), len, len, how)
        .expect("it moves")
        .start
}

/// The areas from BASE on, in pages.
fn areas(mm: &Mm) -> Vec<(usize, usize)> {
    let mut seen = Vec::new();
    mm.for_each_vma_from(BASE, &mut |vma| {
        let number = |address: usize| (address - BASE) / PAGE_SIZE;
        seen.push((number(vma.start.get()), number(vma.end.get())));
        true
    });
    seen
}

fn write(number: usize) {
    user_write(page(number), 1).expect("writable");
}

fn not_mapped() -> UserFault {
    UserFault::Signal(Signal::SIGSEGV, code::SEGV_MAPERR)
}

#[test]
fn areas_that_were_written_apart_stay_apart() {
    run_test(|| {
        let mm = current_mm();
        map_at(page(0), 2, RW);
        map_at(page(3), 2, RW);
        write(0);
        write(3);
        map_at(page(2), 1, RW);
        assert_eq!(
            areas(&mm),
            [(0, 3), (3, 5)],
            "the new one joins one of them"
        );
        protect(0, 5, READ);
        protect(0, 5, WRITE);
        assert_eq!(areas(&mm), [(0, 3), (3, 5)]);
        // Neighbours that differ only in permissions have one identity from the start.
        map_at(page(8), 4, RW);
        protect(10, 2, READ);
        write(8);
        protect(10, 2, WRITE);
        assert_eq!(areas(&mm)[2..], [(8, 12)]);
    });
}

#[test]
fn what_was_written_keeps_its_page_numbers_when_it_moves() {
    run_test(|| {
        let mm = current_mm();
        map_at(page(0), 4, RW);
        map_at(page(10), 4, RW);
        assert_eq!(remap(10, 4, 4), page(4));
        assert_eq!(areas(&mm), [(0, 8)], "untouched, it is as if mapped there");
        write(6);
        remap(6, 20, 2);
        map_at(page(22), 2, RW);
        assert_eq!(areas(&mm), [(0, 6), (20, 22), (22, 24)]);
        remap(20, 6, 2);
        assert_eq!(areas(&mm), [(0, 8), (22, 24)], "back where it was");
    });
}

#[test]
fn a_childs_areas_do_not_join_what_was_never_written() {
    run_test(|| {
        let parent = current_mm();
        map_at(page(0), 2, RW);
        write(0);
        let child = parent.fork().expect("memory");
        current().process.replace_mm(Some(child.clone()));
        map_at(page(2), 2, RW);
        assert_eq!(areas(&child), [(0, 2), (2, 4)]);
        protect(0, 1, READ);
        protect(0, 1, WRITE);
        assert_eq!(areas(&child), [(0, 2), (2, 4)], "its own parts do");
        current().process.replace_mm(Some(parent.clone()));
        map_at(page(2), 2, RW);
        assert_eq!(areas(&parent), [(0, 4)], "and so do the parent's");
    });
}

/// fault-path.md, row 13.
#[test]
fn a_stack_stays_256_pages_away_from_what_can_be_reached_below_it() {
    run_test(|| {
        let below = 1;
        map_at(page(0), below, RW);
        map_at(page(1000), 1, STACK);
        let nearest = page(below) + STACK_GUARD_GAP;
        assert_eq!(user_write(nearest - 1, 1), Err(not_mapped()));
        assert_eq!(user_write(nearest, 1), Ok(()));
        protect(0, 1, VmFlags::empty());
        assert_eq!(user_write(page(below), 1), Ok(()), "nobody can reach it");
        // SAFETY: a byte of our own.
        let left = unsafe { copy_to_user(page(0), [1u8].as_ptr(), 1) };
        assert_eq!(left, 1);
    });
}

/// fault-path.md, row 14.
#[test]
fn no_stack_grows_below_the_lowest_address_whoever_touches_it() {
    run_test(|| {
        map_at(MMAP_MIN_ADDR, 1, STACK);
        for address in [MMAP_MIN_ADDR - 1, 8, 0] {
            assert_eq!(user_write(address, 1), Err(not_mapped()));
            // SAFETY: a byte of our own.
            let left = unsafe { copy_to_user(address, [1u8].as_ptr(), 1) };
            assert_eq!(left, 1);
        }
        let mut starts = vec![];
        current_mm().for_each_vma_from(0, &mut |vma| {
            starts.push(vma.start.get());
            true
        });
        assert_eq!(starts, [MMAP_MIN_ADDR]);
    });
}

#[test]
fn only_root_maps_the_lowest_pages() {
    run_test(|| {
        map_at(0, 1, RW);
        assert_eq!(user_write(8, 1), Ok(()));
        let credentials = &current().process.credentials;
        credentials
            .change(|identity| identity.user.set_all([Some(1000); 3], true))
            .expect("privileged");
        let place = Place::Fixed(PAGE_SIZE);
        let refused = current_mm().map(place, PAGE_SIZE, RW, None);
        assert_eq!(refused, Err(Errno::EPERM));
        assert_eq!(user_read(8), Ok(1), "what is there stays");
    });
}

/// fault-path.md, row 16: the simulated TLB keeps what nobody flushes.
#[test]
fn a_moved_page_is_not_reached_through_its_old_address() {
    run_test(|| {
        let mm = current_mm();
        map_at(page(0), 1, RW);
        user_write(page(0), 7).expect("writable");
        assert_eq!(user_read(page(0)), Ok(7), "its translation is in the TLB");
        remap(0, 10, 1);
        assert_eq!(user_read(page(10)), Ok(7));
        mm.advise(page(10), PAGE_SIZE, Advice::DontNeed { locked: false })
            .expect("mapped");
        // Takes the frame that has just become free.
        map_at(page(20), 1, RW);
        user_write(page(20), 9).expect("writable");
        assert_eq!(user_read(page(0)), Err(not_mapped()));
        assert_eq!(user_write(page(0), 1), Err(not_mapped()));
        assert_eq!((user_read(page(20)), user_read(page(10))), (Ok(9), Ok(0)));
    });
}
