//! A signal frame is written like any other user memory: a page that is not there yet comes first, from wherever it has to come, by the
//! same faults that user code makes. And a frame that cannot be written ends in a SIGSEGV, which does not go round in circles.

use std::fs::File;
use std::io::Read;
use std::process::ExitCode;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::thread;

use nix::sys::mman::{MapFlags, ProtFlags};
use nix::sys::signal::{SaFlags, Signal};
use userfaultfd::{Event, UffdBuilder};
use userspace::memory::{PAGE, RW, Region, checksum};
use userspace::process::{self, Ended};
use userspace::report::Demo;
use userspace::signals::{self, Caught, Slot, send_self, use_altstack};

/// Room for the frame of any CPU.
const STACK: usize = 16 * PAGE;
const PATTERN: u8 = 0x5a;

/// The address of the last frame's context.
static FRAME: AtomicUsize = AtomicUsize::new(0);
static ESCALATED: Slot = Slot::new();

extern "C" fn on_signal(_: libc::c_int, _: *mut libc::siginfo_t, context: *mut libc::c_void) {
    FRAME.store(context as usize, SeqCst);
}

extern "C" fn on_escalation(
    _: libc::c_int,
    info: *mut libc::siginfo_t,
    context: *mut libc::c_void,
) {
    // SAFETY: the kernel's own pointers.
    ESCALATED.store(&unsafe { Caught::read(info, context) });
}

fn main() -> ExitCode {
    let mut demo = Demo::start(
        "handler-on-lazy-stack",
        "a frame is pushed onto pages that are not there yet, or never will be",
    );
    process::no_core_files();
    signals::on(Signal::SIGUSR1, SaFlags::SA_ONSTACK, on_signal).expect("sigaction");
    never_touched(&mut demo);
    shared_by_fork(&mut demo);
    of_a_file(&mut demo);
    filled_by_a_handler(&mut demo);
    without_access(&mut demo);
    demo.finish()
}

/// Has a handler run on `stack`; whether its frame lay there.
fn handled_on(stack: &Region) -> bool {
    FRAME.store(0, SeqCst);
    // SAFETY: what the stack holds is of no use to anybody, or a page that cannot be written, which the caller knows.
    unsafe { use_altstack(stack) }.expect("sigaltstack");
    send_self(Signal::SIGUSR1).expect("kill");
    (stack.addr()..stack.addr() + stack.len()).contains(&FRAME.load(SeqCst))
}

/// Pages of `stack` that are in memory.
fn resident(stack: &Region) -> usize {
    let mut pages = [0u8; STACK / PAGE];
    // SAFETY: one byte for each page of the mapping.
    let done = unsafe { libc::mincore(stack.ptr(0).cast(), stack.len(), pages.as_mut_ptr()) };
    assert_eq!(done, 0, "mincore");
    pages.iter().filter(|&page| page & 1 != 0).count()
}

fn never_touched(demo: &mut Demo) {
    demo.step("an alternate stack that nobody has touched");
    let stack = Region::anonymous(STACK, RW).expect("mmap");
    demo.check_eq(resident(&stack), 0, "none of its pages is in memory");
    demo.check(handled_on(&stack), "the handler ran with its frame on it");
    let pages = resident(&stack);
    demo.varies(format_args!("pages that came: {pages}"));
    demo.check(
        (1..STACK / PAGE).contains(&pages),
        "the frame's pages came, and not the others",
    );
}

fn shared_by_fork(demo: &mut Demo) {
    demo.step("a stack whose pages parent and child share after fork");
    let stack = Region::anonymous(STACK, RW).expect("mmap");
    (0..STACK).for_each(|at| stack.write(at, PATTERN));
    let untouched = |stack: &Region| (0..STACK).all(|at| stack.read(at) == PATTERN);
    let child =
        process::child(|| i32::from(!handled_on(&stack) || untouched(&stack))).expect("fork");
    demo.check_eq(
        process::wait(child).expect("wait"),
        Ended::Exited(0),
        "a handler ran on the child's copy, which then holds a frame",
    );
    demo.check(untouched(&stack), "the parent's pages are as they were");
    demo.check(handled_on(&stack), "a handler ran on the parent's");
}

fn of_a_file(demo: &mut Demo) {
    demo.step("a private mapping of this program's own file");
    let path = std::env::current_exe().expect("a path");
    let sum = || {
        let mut bytes = Vec::new();
        let mut file = File::open(&path).expect("open");
        file.read_to_end(&mut bytes).expect("read");
        checksum(bytes)
    };
    let before = sum();
    let file = File::open(&path).expect("open");
    let stack = Region::file(&file, 0, STACK, RW, MapFlags::MAP_PRIVATE).expect("mmap");
    demo.check(handled_on(&stack), "the handler ran with its frame on it");
    let mut first = [0u8; 4];
    first.copy_from_slice(&stack.bytes(0, 4));
    demo.check_eq(
        &first,
        b"\x7fELF",
        "the file's first page is still seen below",
    );
    demo.check_eq(sum(), before, "and the file is as it was");
}

fn filled_by_a_handler(demo: &mut Demo) {
    demo.step("a stack whose pages a userfaultfd's handler fills");
    let stack = Region::anonymous(STACK, RW).expect("mmap");
    let uffd = UffdBuilder::new()
        .user_mode_only(false)
        .create()
        .expect("userfaultfd");
    uffd.register(stack.ptr(0).cast(), STACK).expect("register");
    let base = stack.addr();
    thread::scope(|scope| {
        let filler = scope.spawn(move || {
            let contents = [PATTERN; PAGE];
            let mut filled = 0;
            // The main thread ends it by a write to the first page.
            loop {
                let Ok(Some(Event::Pagefault { addr, .. })) = uffd.read_event() else {
                    return filled;
                };
                let page = addr as usize / PAGE * PAGE;
                // SAFETY: a registered page without contents.
                unsafe { uffd.copy(contents.as_ptr().cast(), page as *mut _, PAGE, true) }
                    .expect("copy");
                if page == base {
                    return filled;
                }
                filled += 1;
            }
        });
        demo.check(handled_on(&stack), "the handler ran with its frame on it");
        stack.write(0, 1);
        let filled = filler.join().expect("the other thread");
        demo.varies(format_args!("pages that were asked for: {filled}"));
        demo.check(filled > 0, "the kernel's own writes asked for its pages");
    });
    let frame_page = (FRAME.load(SeqCst) - base) / PAGE * PAGE;
    demo.check(
        (0..PAGE).any(|at| stack.read(frame_page + at) == PATTERN)
            || stack.read(frame_page - 1) == PATTERN,
        "around the frame is what was filled in",
    );
}

fn without_access(demo: &mut Demo) {
    demo.step("a stack that cannot be written, and a SIGSEGV handler on the ordinary one");
    let stack = Region::anonymous(STACK, ProtFlags::PROT_READ).expect("mmap");
    signals::on(Signal::SIGSEGV, SaFlags::empty(), on_escalation).expect("sigaction");
    demo.check(!handled_on(&stack), "the signal's own handler did not run");
    demo.check_eq(ESCALATED.count(), 1, "one SIGSEGV came in its place");
    demo.check_eq(
        ESCALATED.take().map(|caught| caught.code),
        Some(libc::SI_KERNEL),
        "it names no address, as the kernel sent it",
    );

    demo.step("the same with the SIGSEGV handler on that stack as well");
    let all = |prot: ProtFlags| {
        let child = process::child(|| {
            let stack = Region::anonymous(STACK, prot).expect("mmap");
            signals::on(Signal::SIGSEGV, SaFlags::SA_ONSTACK, on_escalation).expect("sigaction");
            i32::from(handled_on(&stack))
        })
        .expect("fork");
        process::wait(child).expect("wait")
    };
    for (what, prot) in [
        ("read-only", ProtFlags::PROT_READ),
        ("without access", ProtFlags::PROT_NONE),
    ] {
        let ended = all(prot);
        demo.check_eq(
            ended,
            Ended::Killed(libc::SIGSEGV),
            format_args!("{what}: the process was {ended}, at once"),
        );
    }

    demo.step("only the last page can be written, and the frame needs more");
    let child = process::child(|| {
        // The page below is a guard page; the handler's stack begins in it.
        let whole = Region::anonymous(STACK, RW).expect("mmap");
        whole
            .protect(0, STACK - PAGE, ProtFlags::PROT_NONE)
            .expect("mprotect");
        let stack = libc::stack_t {
            ss_sp: whole.ptr(0).cast(),
            ss_flags: 0,
            // So that the frame crosses into the guard page.
            ss_size: STACK - PAGE + 256,
        };
        signals::default_action(Signal::SIGSEGV).expect("sigaction");
        // SAFETY: a valid stack_t, of memory that is ours.
        unsafe { libc::sigaltstack(&stack, std::ptr::null_mut()) };
        i32::from(send_self(Signal::SIGUSR1).is_ok())
    })
    .expect("fork");
    let ended = process::wait(child).expect("wait");
    demo.check_eq(
        ended,
        Ended::Killed(libc::SIGSEGV),
        format_args!("the process was {ended}"),
    );
}
