//! The fault path on the simulated machine: every cause, every way to end.

use std::boxed::Box;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use super::outcome::FaultOutcome;
use super::signal::fault_signal_pending;
use super::*;
use crate::arch::sim::machine::{current_mm, run_test};
use crate::arch::sim::{copy_to_user, user_read, user_write};
use crate::arch::{self, time};
use crate::errno::Errno;
use crate::mm::frame::free_frames;
use crate::mm::map::Place;
use crate::mm::page_cache::{Backing, Mapping};
use crate::mm::vma::Source;
use crate::mm::{PAGE_SIZE, uaccess};
use crate::sched::wait::sleep_until;
use crate::signal::{Action, Detail, SigInfo, send};
use crate::task::interval::Setting;
use crate::task::thread::flag;

const RW: VmFlags = VmFlags::READ
    .union(VmFlags::WRITE)
    .union(VmFlags::MAYREAD)
    .union(VmFlags::MAYWRITE)
    .union(VmFlags::MAYEXEC);
const RO: VmFlags = RW.difference(VmFlags::WRITE);
const BASE: usize = 0x10_0000_0000;

fn segv(code: i32) -> crate::arch::sim::UserFault {
    crate::arch::sim::UserFault::Signal(Signal::SIGSEGV, code)
}

fn bus() -> crate::arch::sim::UserFault {
    crate::arch::sim::UserFault::Signal(Signal::SIGBUS, code::BUS_ADRERR)
}

fn map(len: usize, flags: VmFlags, source: Option<Source>) -> usize {
    current_mm()
        .map(Place::Fixed(BASE), len, flags, source)
        .expect("room")
}

/// A file whose pages hold their index, and whose reads take a while or fail.
struct TestFile {
    takes_ns: u64,
    failures: Arc<AtomicU32>,
    reads: Arc<AtomicU32>,
}

impl Backing for TestFile {
    fn read_page(&self, index: u64, page: &mut [u8; PAGE_SIZE]) -> Result {
        self.reads.fetch_add(1, Ordering::Relaxed);
        let until = time::now_ns() + self.takes_ns;
        sleep_until(Sleep::Uninterruptible, until).expect("nothing interrupts");
        page.fill(index as u8 + 1);
        let fails = |left: u32| left.checked_sub(1);
        match self
            .failures
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, fails)
        {
            Ok(_) => Err(Errno::EIO),
            Err(_) => Ok(()),
        }
    }
}

struct Handles {
    source: Source,
    failures: Arc<AtomicU32>,
    reads: Arc<AtomicU32>,
}

fn file(size: u64, takes_ns: u64) -> Handles {
    let (failures, reads) = (Arc::new(AtomicU32::new(0)), Arc::new(AtomicU32::new(0)));
    let backing = TestFile {
        takes_ns,
        failures: failures.clone(),
        reads: reads.clone(),
    };
    let mapping = Mapping::new(size, Box::new(backing)).expect("memory");
    Handles {
        source: Source {
            mapping,
            first_page: 0,
            file: None,
        },
        failures,
        reads,
    }
}

/// A handler for `signal`, so that its arrival is neither fatal nor ignored.
fn catch(signal: Signal) {
    let action = Action {
        handler: 0x1000,
        ..Action::DEFAULT
    };
    current()
        .process
        .signals
        .lock()
        .replace_action(signal, action);
}

/// SIGALRM for the current process in `ns`.
fn alarm_in(ns: u64) {
    current()
        .process
        .set_real_timer(Setting {
            value: ns,
            interval: 0,
        })
        .expect("memory");
}

fn take_all_signals() {
    let thread = current();
    let mut signals = thread.process.signals.lock();
    signals.pending.flush(crate::signal::SigSet(!0));
    thread
        .signals
        .lock()
        .pending
        .flush(crate::signal::SigSet(!0));
    thread.clear_flag(flag::SIGPENDING);
}

#[test]
fn fault_signal_pending_is_true_for_retry_with_a_fatal_or_in_user_mode_any_signal() {
    run_test(|| {
        let thread = current();
        let before = thread.flags.load(Ordering::Relaxed);
        for bits in 0..0x8000u32 {
            let Some(fault) = VmFault::from_bits(bits) else {
                continue;
            };
            for (user, pending, fatal) in
                (0..8).map(|case| (case & 1 != 0, case & 2 != 0, case & 4 != 0))
            {
                // A fatal signal is a pending one.
                let pending = pending || fatal;
                thread.flags.store(
                    if pending { flag::SIGPENDING } else { 0 }
                        | if fatal { flag::FATAL_SIGNAL } else { 0 },
                    Ordering::Relaxed,
                );
                let regs = if user {
                    PtRegs::new_user(0, 0)
                } else {
                    PtRegs::kernel()
                };
                let expected = bits & 0x400 != 0 && (fatal || user && pending);
                assert_eq!(
                    fault_signal_pending(fault, &regs),
                    expected,
                    "{fault:?} {user} {pending} {fatal}"
                );
            }
        }
        thread.flags.store(before, Ordering::Relaxed);
    });
}

#[test]
fn untouched_memory_reads_as_zero_and_costs_a_frame_only_when_written() {
    run_test(|| {
        let mm = current_mm();
        map(16 * PAGE_SIZE, RW, None);
        let free = free_frames();
        assert_eq!(user_read(BASE), Ok(0));
        assert_eq!(
            (free_frames(), mm.resident_pages()),
            (free, 0),
            "the zero page is shared"
        );
        assert_eq!(user_write(BASE + 1, 7), Ok(()));
        assert_eq!(user_write(BASE + PAGE_SIZE, 8), Ok(()));
        assert_eq!((user_read(BASE), user_read(BASE + 1)), (Ok(0), Ok(7)));
        assert_eq!((free_frames(), mm.resident_pages()), (free - 2, 2));
        mm.unmap(BASE, 16 * PAGE_SIZE).expect("mapped");
        assert_eq!(
            (free_frames(), mm.resident_pages()),
            (free, 0),
            "everything came back"
        );
        assert_eq!(user_read(BASE), Err(segv(code::SEGV_MAPERR)));
        take_all_signals();
    });
}

#[test]
fn the_area_decides_between_maperr_and_accerr() {
    run_test(|| {
        map(PAGE_SIZE, RO, None);
        assert_eq!(user_write(BASE, 1), Err(segv(code::SEGV_ACCERR)));
        assert_eq!(user_read(BASE), Ok(0));
        assert_eq!(user_write(BASE, 1), Err(segv(code::SEGV_ACCERR)));
        assert_eq!(
            user_write(BASE + PAGE_SIZE, 1),
            Err(segv(code::SEGV_MAPERR))
        );
        assert_eq!(user_read(usize::MAX), Err(segv(code::SEGV_MAPERR)));
        take_all_signals();
    });
}

#[test]
fn mprotect_takes_and_gives_access_at_once() {
    run_test(|| {
        let mm = current_mm();
        map(3 * PAGE_SIZE, RW, None);
        let middle = BASE + PAGE_SIZE;
        user_write(middle, 1).expect("writable");
        mm.protect(middle, PAGE_SIZE, VmFlags::READ, false)
            .expect("mapped");
        assert_eq!(
            user_write(middle, 2),
            Err(segv(code::SEGV_ACCERR)),
            "no stale translation"
        );
        mm.protect(middle, PAGE_SIZE, VmFlags::empty(), false)
            .expect("mapped");
        assert_eq!(user_read(middle), Err(segv(code::SEGV_ACCERR)));
        mm.protect(BASE, 3 * PAGE_SIZE, VmFlags::READ | VmFlags::WRITE, false)
            .expect("mapped");
        assert_eq!((user_read(middle), user_write(middle, 3)), (Ok(1), Ok(())));
        let mut areas = 0;
        mm.for_each_vma_from(0, &mut |_| {
            areas += 1;
            true
        });
        assert_eq!(areas, 1, "equal neighbours are one area again");
        take_all_signals();
    });
}

#[test]
fn forked_pages_are_copied_by_the_side_that_writes_and_reused_by_the_last() {
    run_test(|| {
        let parent = current_mm();
        map(PAGE_SIZE, RW, None);
        user_write(BASE, 1).expect("writable");
        let child = parent.fork().expect("memory");
        let free = free_frames();
        user_write(BASE, 2).expect("a copy");
        assert_eq!(free_frames(), free - 1);
        child.activate();
        let in_child = child
            .page_table
            .lock()
            .get(VirtAddr::new(BASE).expect("user"))
            .expect("present");
        // SAFETY: the child's entry holds a reference of the frame.
        let contents = unsafe { *arch::frame_ptr(in_child.frame) };
        assert_eq!(contents, 1, "the child still sees the old contents");
        parent.activate();
        assert_eq!(user_read(BASE), Ok(2));
        drop(child);
        let free = free_frames();
        let again = parent.fork().expect("memory");
        drop(again);
        user_write(BASE, 3).expect("writable");
        assert_eq!(free_frames(), free, "the only owner writes in place");
    });
}

#[test]
fn a_file_page_is_read_once_shared_by_readers_and_copied_by_private_writers() {
    run_test(|| {
        let mm = current_mm();
        let file = file(3 * PAGE_SIZE as u64, 1_000_000);
        map(4 * PAGE_SIZE, RW, Some(file.source.clone()));
        assert_eq!(
            (user_read(BASE), user_read(BASE + PAGE_SIZE)),
            (Ok(1), Ok(2))
        );
        user_write(BASE, 9).expect("a private copy");
        assert_eq!(user_read(BASE), Ok(9));
        let again = mm
            .map(Place::Hint(0), PAGE_SIZE, RO, Some(file.source.clone()))
            .expect("room");
        assert_eq!(user_read(again), Ok(1), "the cache has the file's contents");
        assert_eq!(
            file.reads.load(Ordering::Relaxed),
            3,
            "each page once, the last one ahead of its use"
        );
        assert_eq!(user_read(BASE + 3 * PAGE_SIZE), Err(bus()), "past the end");
        let thread = current();
        assert_eq!(thread.faults.major.load(Ordering::Relaxed), 2);
        take_all_signals();
    });
}

#[test]
fn a_failed_read_is_a_bus_error_once_and_the_next_access_tries_again() {
    run_test(|| {
        let file = file(PAGE_SIZE as u64, 1_000_000);
        file.failures.store(1, Ordering::Relaxed);
        map(PAGE_SIZE, RO, Some(file.source.clone()));
        assert_eq!(user_read(BASE), Err(bus()));
        take_all_signals();
        assert_eq!(user_read(BASE), Ok(1));
        assert_eq!(file.reads.load(Ordering::Relaxed), 2);
    });
}

#[test]
fn an_io_error_is_not_lost_to_a_signal_during_the_read() {
    run_test(|| {
        let file = file(PAGE_SIZE as u64, 10_000_000);
        file.failures.store(1, Ordering::Relaxed);
        map(PAGE_SIZE, RO, Some(file.source.clone()));
        catch(Signal::SIGALRM);
        alarm_in(2_000_000);
        assert_eq!(
            user_read(BASE),
            Err(crate::arch::sim::UserFault::Interrupted)
        );
        take_all_signals();
        assert_eq!(user_read(BASE), Err(bus()));
        take_all_signals();
        assert_eq!(file.reads.load(Ordering::Relaxed), 1);
    });
}

#[test]
fn a_user_mode_wait_ends_for_a_signal_and_the_read_goes_on() {
    run_test(|| {
        let file = file(PAGE_SIZE as u64, 50_000_000);
        map(PAGE_SIZE, RO, Some(file.source.clone()));
        catch(Signal::SIGALRM);
        let start = time::now_ns();
        alarm_in(5_000_000);
        assert_eq!(
            user_read(BASE),
            Err(crate::arch::sim::UserFault::Interrupted)
        );
        assert!(
            time::now_ns() - start < 10_000_000,
            "the handler would run before the page has come"
        );
        take_all_signals();
        assert_eq!(user_read(BASE), Ok(1));
        assert!(time::now_ns() - start >= 50_000_000);
        assert_eq!(
            file.reads.load(Ordering::Relaxed),
            1,
            "the read belongs to the page"
        );
        assert_eq!(
            current().faults.major.load(Ordering::Relaxed),
            1,
            "only the completed fault counts"
        );
    });
}

#[test]
fn a_periodic_signal_does_not_starve_a_fault() {
    run_test(|| {
        let file = file(PAGE_SIZE as u64, 50_000_000);
        map(PAGE_SIZE, RO, Some(file.source.clone()));
        catch(Signal::SIGALRM);
        current()
            .process
            .set_real_timer(Setting {
                value: 1_000_000,
                interval: 1_000_000,
            })
            .expect("memory");
        let mut interruptions = 0;
        while user_read(BASE) != Ok(1) {
            interruptions += 1;
            assert!(interruptions < 100);
            take_all_signals();
        }
        current()
            .process
            .set_real_timer(Setting::default())
            .expect("memory");
        take_all_signals();
        assert!(interruptions >= 40, "{interruptions}");
        assert_eq!(file.reads.load(Ordering::Relaxed), 1);
    });
}

#[test]
fn a_kernel_mode_wait_sleeps_through_a_caught_signal() {
    run_test(|| {
        let file = file(PAGE_SIZE as u64, 50_000_000);
        map(PAGE_SIZE, RW, Some(file.source.clone()));
        catch(Signal::SIGALRM);
        let turns = crate::trace::RETRIES.load(Ordering::Relaxed);
        alarm_in(5_000_000);
        // SAFETY: one readable byte.
        let left = unsafe { copy_to_user(BASE, &5u8, 1) };
        assert_eq!(left, 0, "the copy is whole");
        assert!(
            crate::signal::signal_pending(&current()),
            "the signal waits for the way out"
        );
        assert_eq!(
            crate::trace::RETRIES.load(Ordering::Relaxed) - turns,
            1,
            "it slept, and did not spin"
        );
        take_all_signals();
        assert_eq!(user_read(BASE), Ok(5));
    });
}

#[test]
fn a_kernel_mode_wait_ends_for_a_fatal_signal_with_efault() {
    run_test(|| {
        let file = file(PAGE_SIZE as u64, 50_000_000);
        map(PAGE_SIZE, RW, Some(file.source.clone()));
        // The default action of SIGALRM is fatal.
        let start = time::now_ns();
        alarm_in(5_000_000);
        assert_eq!(uaccess::write_bytes(BASE, &[1, 2, 3]), Err(Errno::EFAULT));
        assert!(time::now_ns() - start < 10_000_000);
        assert!(crate::signal::fatal_signal_pending(&current()));
        // The test's process ends with this signal, as it would on hardware.
    });
}

#[test]
fn faults_disabled_means_efault_without_sleeping() {
    run_test(|| {
        let file = file(PAGE_SIZE as u64, 50_000_000);
        map(PAGE_SIZE, RW, Some(file.source.clone()));
        let start = time::now_ns();
        let no_fault = uaccess::NoFault::new();
        assert_eq!(uaccess::write_bytes(BASE, &[1]), Err(Errno::EFAULT));
        drop(no_fault);
        assert!(time::now_ns() - start < 1_000_000);
        assert_eq!(uaccess::fault_in_writeable(BASE), Ok(()));
        let _no_fault = uaccess::NoFault::new();
        assert_eq!(uaccess::write_bytes(BASE, &[1]), Ok(()));
    });
}

#[test]
fn a_stack_grows_to_its_limit_and_keeps_its_distance() {
    run_test(|| {
        let mm = current_mm();
        let top = BASE + (64 << 20);
        mm.map(
            Place::Fixed(top - PAGE_SIZE),
            PAGE_SIZE,
            RW | VmFlags::GROWSDOWN,
            None,
        )
        .expect("room");
        assert_eq!(user_write(top - (1 << 20), 1), Ok(()));
        let limit = current()
            .process
            .rlimits
            .soft(crate::task::rlimit::Resource::Stack) as usize;
        assert_eq!(user_write(top - limit, 1), Ok(()));
        assert_eq!(user_write(top - limit - 1, 1), Err(segv(code::SEGV_MAPERR)));
        take_all_signals();
        let second = BASE + (128 << 20);
        let neighbour = second - (300 + 1) * PAGE_SIZE;
        mm.map(
            Place::Fixed(second - PAGE_SIZE),
            PAGE_SIZE,
            RW | VmFlags::GROWSDOWN,
            None,
        )
        .expect("room");
        mm.map(Place::Fixed(neighbour), PAGE_SIZE, RW, None)
            .expect("room");
        let lowest = neighbour + PAGE_SIZE + 256 * PAGE_SIZE;
        assert_eq!(
            user_write(lowest - 1, 1),
            Err(segv(code::SEGV_MAPERR)),
            "the guard gap"
        );
        take_all_signals();
        assert_eq!(user_write(lowest, 1), Ok(()));
    });
}

#[test]
fn a_kernel_copy_stops_where_memory_ends() {
    run_test(|| {
        map(PAGE_SIZE, RW, None);
        assert_eq!(
            uaccess::write_bytes_partly(BASE + PAGE_SIZE - 3, b"hello"),
            3
        );
        assert_eq!(
            uaccess::write_bytes(USER_END - 1, &[0, 0]),
            Err(Errno::EFAULT)
        );
        assert_eq!(
            uaccess::UserPtr::<u64>::new(usize::MAX - 3).read(),
            Err(Errno::EFAULT)
        );
        assert_eq!(
            uaccess::read_string(BASE + PAGE_SIZE - 3, 10, Errno::ENAMETOOLONG),
            Err(Errno::EFAULT)
        );
    });
}

#[test]
fn every_frame_comes_back_when_the_process_ends() {
    static DONE: AtomicBool = AtomicBool::new(false);
    let leak = Arc::new(AtomicU32::new(0));
    let before = leak.clone();
    run_test(move || before.store(free_frames() as u32, Ordering::Relaxed));
    run_test(|| {
        map(64 * PAGE_SIZE, RW, None);
        for page in 0..64 {
            user_write(BASE + page * PAGE_SIZE, 1).expect("writable");
        }
        let child = current_mm().fork().expect("memory");
        user_write(BASE, 2).expect("writable");
        drop(child);
        DONE.store(true, Ordering::Relaxed);
    });
    assert!(DONE.load(Ordering::Relaxed));
    run_test(move || assert_eq!(free_frames() as u32, leak.load(Ordering::Relaxed)));
}

#[test]
fn a_signal_sent_to_another_process_wakes_its_fault() {
    run_test(|| {
        let file = file(PAGE_SIZE as u64, 50_000_000);
        map(PAGE_SIZE, RO, Some(file.source.clone()));
        catch(Signal::SIGUSR1);
        let process = current().process.clone();
        static VICTIM: crate::sync::SpinLock<Option<Arc<crate::task::Process>>> =
            crate::sync::SpinLock::new(crate::sync::rank::LEAF, None);
        *VICTIM.lock() = Some(process);
        crate::task::kernel_thread("sender", || {
            let until = time::now_ns() + 3_000_000;
            sleep_until(Sleep::Uninterruptible, until).expect("nothing interrupts");
            let victim = VICTIM.lock().take().expect("a victim");
            let detail = Detail::Sender { pid: 0, uid: 0 };
            send::send_to_process(
                &victim,
                SigInfo {
                    signal: Signal::SIGUSR1,
                    code: code::SI_USER,
                    detail,
                },
            );
        })
        .expect("memory");
        assert_eq!(
            user_read(BASE),
            Err(crate::arch::sim::UserFault::Interrupted)
        );
        take_all_signals();
        assert_eq!(user_read(BASE), Ok(1));
    });
}

#[test]
fn a_signal_at_every_step_of_a_blocked_fault_is_neither_lost_nor_a_livelock() {
    use crate::arch::sim::{UserFault, irq};
    use crate::sched::interleaving::{
        at_every_step, become_subject, came, send_usr1, signal_came_once,
    };
    run_test(|| {
        become_subject();
        at_every_step("user-mode fault, signal", &[send_usr1], || {
            irq::hold(true);
            let file = file(PAGE_SIZE as u64, 1_000_000);
            map(PAGE_SIZE, RO, Some(file.source.clone()));
            irq::hold(false);
            let first = user_read(BASE);
            irq::disarm();
            let sent = came(0).is_some();
            match first {
                Ok(byte) => assert_eq!(byte, 1),
                Err(fault) => assert!(sent && fault == UserFault::Interrupted, "{fault:?}"),
            }
            signal_came_once(sent);
            // The access is made again, as after the handler.
            assert_eq!(user_read(BASE), Ok(1));
            assert_eq!(
                file.reads.load(Ordering::Relaxed),
                1,
                "the page is read once"
            );
            unmap();
        });
        at_every_step("kernel-mode fault, signal", &[send_usr1], || {
            irq::hold(true);
            let file = file(PAGE_SIZE as u64, 1_000_000);
            map(PAGE_SIZE, RW, Some(file.source.clone()));
            irq::hold(false);
            let turns = crate::trace::RETRIES.load(Ordering::Relaxed);
            assert_eq!(uaccess::write_bytes(BASE, &[5]), Ok(()));
            irq::disarm();
            let turns = crate::trace::RETRIES.load(Ordering::Relaxed) - turns;
            assert!(turns <= 2, "it slept, and did not spin: {turns} turns");
            signal_came_once(came(0).is_some());
            unmap();
        });
    });
}

fn unmap() {
    current_mm().unmap(BASE, PAGE_SIZE).expect("it is mapped");
}
