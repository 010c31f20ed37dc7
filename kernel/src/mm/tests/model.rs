//! Random calls and accesses against a model that knows nothing but the bytes and the permissions of each page.
//!
//! The simulated TLB keeps every entry until it is flushed, so a change that forgets a flush is seen as an access that the model does
//! not allow, or as an old byte. All address spaces of a case are gone at its end, and with them every frame.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;
use std::vec::Vec;

use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestCaseError, TestRng, TestRunner};

use super::{BASE, RW};
use crate::arch::sim::machine::run_test;
use crate::arch::sim::{UserFault, copy_to_user, user_read, user_write};
use crate::errno::{Errno, Result};
use crate::mm::advice::Advice;
use crate::mm::frame::free_frames;
use crate::mm::map::Place;
use crate::mm::page_cache::Mapping;
use crate::mm::remap::Remap;
use crate::mm::vma::Source;
use crate::mm::{Mm, PAGE_SIZE, VmFlags};
use crate::sched::current;
use crate::signal::{Signal, code};

/// Few pages, so that the calls meet each other.
const PAGES: usize = 12;
const OBJECTS: usize = 2;
const OBJECT_PAGES: usize = 8;
/// The bytes of a page that are looked at.
const PLACES: [usize; 2] = [7, 4090];
const CASES: u32 = 12_000;

#[derive(Clone, Copy, Debug)]
enum Kind {
    Anonymous,
    /// A mapping of shared memory, shared or private, from a page of it on.
    Object {
        which: usize,
        first: usize,
        shared: bool,
    },
}

#[derive(Clone, Copy, Debug)]
enum Op {
    Map(usize, usize, VmFlags, Kind),
    Unmap(usize, usize),
    Protect(usize, usize, VmFlags),
    /// From, to, pages.
    Move(usize, usize, usize),
    Advise(usize, usize, Advice),
    Read(usize),
    Write(usize, u8),
    KernelWrite(usize, u8),
    Fork,
    /// Goes on in another address space, or back.
    Switch(usize),
    /// The process that is running ends.
    Exit,
}

fn prots() -> impl Strategy<Value = VmFlags> {
    prop_oneof![
        1 => Just(VmFlags::empty()),
        2 => Just(VmFlags::READ),
        4 => Just(VmFlags::READ | VmFlags::WRITE),
        1 => Just(VmFlags::WRITE),
    ]
}

fn kinds() -> impl Strategy<Value = Kind> {
    let object = (0..OBJECTS, 0..OBJECT_PAGES, any::<bool>());
    prop_oneof![
        2 => Just(Kind::Anonymous),
        1 => object.prop_map(|(which, first, shared)| Kind::Object { which, first, shared }),
    ]
}

fn advice() -> impl Strategy<Value = Advice> {
    let flags = |clear, set| Just(Advice::Flags { clear, set });
    let none = VmFlags::empty();
    prop_oneof![
        3 => Just(Advice::DontNeed { locked: false }),
        1 => Just(Advice::Remove),
        1 => Just(Advice::WipeOnFork),
        1 => flags(VmFlags::WIPEONFORK, none),
        1 => flags(none, VmFlags::DONTFORK),
        1 => flags(VmFlags::DONTFORK, none),
        1 => flags(none, VmFlags::SEQUENTIAL),
    ]
}

fn ops() -> impl Strategy<Value = Op> {
    let (page, len) = (0..PAGES, 1..6usize);
    prop_oneof![
        4 => (page.clone(), len.clone(), prots(), kinds())
            .prop_map(|(page, len, prot, kind)| Op::Map(page, len, prot, kind)),
        1 => (page.clone(), len.clone()).prop_map(|(page, len)| Op::Unmap(page, len)),
        3 => (page.clone(), len.clone(), prots())
            .prop_map(|(page, len, prot)| Op::Protect(page, len, prot)),
        2 => (page.clone(), page.clone(), len.clone())
            .prop_map(|(from, to, len)| Op::Move(from, to, len)),
        3 => (page.clone(), len, advice())
            .prop_map(|(page, len, advice)| Op::Advise(page, len, advice)),
        8 => page.clone().prop_map(Op::Read),
        8 => (page.clone(), any::<u8>()).prop_map(|(page, value)| Op::Write(page, value)),
        2 => (page, any::<u8>()).prop_map(|(page, value)| Op::KernelWrite(page, value)),
        2 => Just(Op::Fork),
        2 => (0..4usize).prop_map(Op::Switch),
        1 => Just(Op::Exit),
    ]
}

type Bytes = [u8; 2];
type Contents = Rc<RefCell<[Bytes; OBJECT_PAGES]>>;

/// One page of an address space, as the model sees it.
#[derive(Clone)]
struct Page {
    prot: VmFlags,
    /// What is private; `None`: what is behind it.
    own: Option<Bytes>,
    /// The object, the page in it, and whether it is shared; `None`: zeros.
    behind: Option<(Contents, usize, bool)>,
    wipe: bool,
    stays: bool,
}

impl Page {
    fn bytes(&self) -> Bytes {
        self.own.unwrap_or_else(|| match &self.behind {
            Some((contents, index, _)) => contents.borrow()[*index],
            None => [0; 2],
        })
    }

    fn is_past_the_end(&self) -> bool {
        let behind = self.behind.as_ref();
        self.own.is_none() && behind.is_some_and(|(_, index, _)| *index >= OBJECT_PAGES)
    }

    fn write(&mut self, bytes: Bytes) {
        match &self.behind {
            Some((contents, index, true)) => contents.borrow_mut()[*index] = bytes,
            _ => self.own = Some(bytes),
        }
    }
}

type Model = BTreeMap<usize, Page>;

struct World {
    spaces: Vec<(Arc<Mm>, Model)>,
    running: usize,
    objects: Vec<(Arc<Mapping>, Contents)>,
}

fn segv(code: i32) -> UserFault {
    UserFault::Signal(Signal::SIGSEGV, code)
}

fn address(page: usize) -> usize {
    BASE + page * PAGE_SIZE
}

fn check<T: PartialEq + core::fmt::Debug>(
    seen: T,
    expected: T,
) -> core::result::Result<(), TestCaseError> {
    prop_assert_eq!(seen, expected);
    Ok(())
}

impl World {
    fn new() -> World {
        let mut objects = Vec::new();
        for _ in 0..OBJECTS {
            let size = (OBJECT_PAGES * PAGE_SIZE) as u64;
            objects.push((
                Mapping::anonymous(size).expect("memory"),
                Contents::default(),
            ));
        }
        let mm = Mm::new().expect("memory");
        current().process.replace_mm(Some(mm.clone()));
        World {
            spaces: vec![(mm, Model::new())],
            running: 0,
            objects,
        }
    }

    fn model(&mut self) -> &mut Model {
        &mut self.spaces[self.running].1
    }

    fn mm(&self) -> Arc<Mm> {
        self.spaces[self.running].0.clone()
    }

    fn switch(&mut self, to: usize) {
        self.running = to % self.spaces.len();
        current().process.replace_mm(Some(self.mm()));
    }

    fn step(&mut self, op: Op) -> core::result::Result<(), TestCaseError> {
        let mm = self.mm();
        match op {
            Op::Map(page, len, prot, kind) => {
                let flags = (RW - VmFlags::PERMISSIONS) | prot;
                let (flags, source) = self.source(flags, kind);
                let at = mm.map(Place::Fixed(address(page)), len * PAGE_SIZE, flags, source);
                self.map(page, len, prot, kind);
                check(at, Ok(address(page)))
            }
            Op::Unmap(page, len) => {
                self.model()
                    .retain(|at, _| !(page..page + len).contains(at));
                check(mm.unmap(address(page), len * PAGE_SIZE), Ok(()))
            }
            Op::Protect(page, len, prot) => {
                let expected = self.protect(page, len, prot);
                check(
                    mm.protect(address(page), len * PAGE_SIZE, prot, false),
                    expected,
                )
            }
            Op::Move(from, to, len) => {
                let how = Remap {
                    may_move: true,
                    to: Some(address(to)),
                    keep_old: None,
                };
                let bytes = len * PAGE_SIZE;
                let seen = mm.remap(address(from), bytes, bytes, how);
                let expected = self.move_pages(from, to, len).map(|()| address(to));
                check(seen.map(|done| done.start), expected)
            }
            Op::Advise(page, len, advice) => {
                let expected = self.advise(page, len, advice);
                check(mm.advise(address(page), len * PAGE_SIZE, advice), expected)
            }
            Op::Read(page) => {
                let expected = self.may(page, VmFlags::PERMISSIONS);
                for (at, place) in PLACES.into_iter().enumerate() {
                    let expected = expected.map(|()| self.model()[&page].bytes()[at]);
                    check(user_read(address(page) + place), expected)?;
                }
                Ok(())
            }
            Op::Write(page, value) => {
                let expected = self.may(page, VmFlags::WRITE);
                for place in PLACES {
                    check(user_write(address(page) + place, value), expected)?;
                }
                self.write(page, value, expected.is_ok());
                Ok(())
            }
            Op::KernelWrite(page, value) => {
                let done = self.may(page, VmFlags::WRITE).is_ok();
                for place in PLACES {
                    // SAFETY: a byte of our own.
                    let left = unsafe { copy_to_user(address(page) + place, &raw const value, 1) };
                    check(left, usize::from(!done))?;
                }
                self.write(page, value, done);
                Ok(())
            }
            Op::Fork => {
                self.fork(&mm);
                Ok(())
            }
            Op::Switch(to) => {
                self.switch(to);
                Ok(())
            }
            Op::Exit => {
                if self.spaces.len() > 1 {
                    self.spaces.remove(self.running);
                    drop(mm);
                    self.switch(0);
                }
                Ok(())
            }
        }
    }

    fn source(&self, flags: VmFlags, kind: Kind) -> (VmFlags, Option<Source>) {
        let Kind::Object {
            which,
            first,
            shared,
        } = kind
        else {
            return (flags, None);
        };
        let source = Source {
            mapping: self.objects[which].0.clone(),
            first_page: first as u64,
            file: None,
        };
        let shared = if shared {
            VmFlags::SHARED
        } else {
            VmFlags::empty()
        };
        (flags | shared, Some(source))
    }

    fn map(&mut self, page: usize, len: usize, prot: VmFlags, kind: Kind) {
        for at in page..page + len {
            let behind = match kind {
                Kind::Anonymous => None,
                Kind::Object {
                    which,
                    first,
                    shared,
                } => Some((self.objects[which].1.clone(), first + at - page, shared)),
            };
            let new = Page {
                prot,
                own: None,
                behind,
                wipe: false,
                stays: false,
            };
            self.model().insert(at, new);
        }
    }

    fn protect(&mut self, page: usize, len: usize, prot: VmFlags) -> Result {
        for at in page..page + len {
            self.model().get_mut(&at).ok_or(Errno::ENOMEM)?.prot = prot;
        }
        Ok(())
    }

    fn move_pages(&mut self, from: usize, to: usize, len: usize) -> Result {
        if from.abs_diff(to) < len {
            return Err(Errno::EINVAL);
        }
        if !self.model().contains_key(&from) {
            return Err(Errno::EFAULT);
        }
        for at in 0..len {
            if let Some(page) = self.model().remove(&(from + at)) {
                self.model().insert(to + at, page);
            }
        }
        Ok(())
    }

    fn advise(&mut self, page: usize, len: usize, advice: Advice) -> Result {
        let mut hole = false;
        for at in page..page + len {
            let Some(page) = self.model().get_mut(&at) else {
                hole = true;
                continue;
            };
            match advice {
                Advice::DontNeed { .. } => page.own = None,
                Advice::WipeOnFork if page.behind.is_some() => return Err(Errno::EINVAL),
                Advice::WipeOnFork => page.wipe = true,
                Advice::Flags { clear, set } => {
                    page.wipe &= !clear.contains(VmFlags::WIPEONFORK);
                    page.stays &= !clear.contains(VmFlags::DONTFORK);
                    page.stays |= set.contains(VmFlags::DONTFORK);
                }
                Advice::Remove => match &page.behind {
                    None => return Err(Errno::EINVAL),
                    Some((_, _, false)) => return Err(Errno::EACCES),
                    Some((contents, index, true)) => {
                        if let Some(bytes) = contents.borrow_mut().get_mut(*index) {
                            *bytes = [0; 2];
                        }
                    }
                },
                _ => {}
            }
        }
        if hole { Err(Errno::ENOMEM) } else { Ok(()) }
    }

    /// What an access that needs one of `permissions` answers.
    fn may(&mut self, page: usize, permissions: VmFlags) -> core::result::Result<(), UserFault> {
        let Some(page) = self.model().get(&page) else {
            return Err(segv(code::SEGV_MAPERR));
        };
        if !page.prot.intersects(permissions) {
            return Err(segv(code::SEGV_ACCERR));
        }
        if page.is_past_the_end() {
            return Err(UserFault::Signal(Signal::SIGBUS, code::BUS_ADRERR));
        }
        Ok(())
    }

    fn write(&mut self, page: usize, value: u8, done: bool) {
        if let Some(page) = self.model().get_mut(&page).filter(|_| done) {
            page.write([value; 2]);
        }
    }

    fn fork(&mut self, mm: &Mm) {
        if self.spaces.len() == 4 {
            return;
        }
        let child = mm.fork().expect("memory");
        let mut pages = self.model().clone();
        pages.retain(|_, page| !page.stays);
        for page in pages.values_mut().filter(|page| page.wipe) {
            page.own = None;
        }
        self.spaces.push((child, pages));
    }

    /// Every page of every space.
    fn look_at_all(&mut self) -> core::result::Result<(), TestCaseError> {
        for space in 0..self.spaces.len() {
            self.switch(space);
            for page in 0..PAGES + 6 {
                self.step(Op::Read(page))?;
            }
        }
        Ok(())
    }
}

#[test]
fn random_calls_and_accesses_come_out_as_in_a_naive_model() {
    run_test(|| {
        let config = Config {
            cases: CASES,
            failure_persistence: None,
            ..Config::default()
        };
        let rng = TestRng::deterministic_rng(RngAlgorithm::ChaCha);
        let mut runner = TestRunner::new_with_rng(config, rng);
        let cases = proptest::collection::vec(ops(), 1..120);
        let outcome = runner.run(&cases, |case| {
            let empty = Mm::new().expect("memory");
            current().process.replace_mm(Some(empty.clone()));
            let free = free_frames();
            let mut world = World::new();
            let seen = case
                .into_iter()
                .try_for_each(|op| world.step(op))
                .and_then(|()| world.look_at_all());
            current().process.replace_mm(Some(empty));
            drop(world);
            seen?;
            check(free_frames(), free)
        });
        if let Err(error) = outcome {
            panic!("{error}");
        }
    });
}
