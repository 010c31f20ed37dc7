//! The last frames of user memory.

use std::vec::Vec;

use super::{BASE, RO, RW, file, map};
use crate::arch::sim::machine::{current_mm, run_test};
use crate::arch::sim::{user_read, user_write};
use crate::mm::frame::{Frame, Purpose, RESERVE, free_frames};
use crate::mm::map::Place;
use crate::mm::page_cache::Mapping;
use crate::mm::vma::Source;
use crate::mm::{PAGE_SIZE, VmFlags};
use crate::sched::Sleep;

const OTHER: usize = BASE + (1 << 30);
/// So large that its index needs several nodes for its first page.
const LARGE: u64 = 1 << 40;

fn take_all_but_one() -> Vec<Frame> {
    let more = free_frames() - RESERVE - 1;
    (0..more)
        .map(|_| Frame::alloc(Purpose::User).expect("counted"))
        .collect()
}

/// A page of a file takes a frame, and its place in the index others: having one of them is not enough, and trying again not either.
#[test]
fn one_frame_left_is_too_little_for_a_page_and_its_index() {
    run_test(|| {
        let (clean, _) = file(64);
        map(64 * PAGE_SIZE, RO, Some(clean));
        for page in 0..64 {
            assert_eq!(user_read(BASE + page * PAGE_SIZE), Ok(page as u8));
        }
        let shared = Source {
            mapping: Mapping::anonymous(LARGE).expect("memory"),
            first_page: 0,
            file: None,
        };
        let last = LARGE / PAGE_SIZE as u64 - 1;
        let taken = take_all_but_one();
        let written = shared.mapping.page_for_writing(last, Sleep::Killable);
        assert!(written.is_ok(), "clean pages can go");
        drop((written, taken));

        let shared = Source {
            mapping: Mapping::anonymous(LARGE).expect("memory"),
            first_page: last,
            file: None,
        };
        let flags = RW | VmFlags::SHARED;
        current_mm()
            .map(Place::Fixed(OTHER), PAGE_SIZE, flags, Some(shared))
            .expect("room");
        for page in 0..64 {
            assert_eq!(user_read(BASE + page * PAGE_SIZE), Ok(page as u8));
        }
        let taken = take_all_but_one();
        assert_eq!(user_write(OTHER, 1), Ok(()));
        drop(taken);
    });
}
