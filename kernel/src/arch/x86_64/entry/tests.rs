//! What the entry code has to bear: exceptions on its own first and last instructions. Numbered as the bugs that kernels have had there.

use core::arch::asm;

use super::*;

const SWAPGS: &[u8] = &[0x0f, 0x01, 0xf8];
const LFENCE: &[u8] = &[0x0f, 0xae, 0xe8];
const WRMSR: &[u8] = &[0x0f, 0x30];
const CALL: u8 = 0xe8;

/// How often each test takes an exception.
const ROUNDS: usize = 1000;

/// Takes an exception as the first instruction of the kernel might: in kernel mode, with the user's GS base and stack pointer.
macro_rules! with_users_gs_and_stack {
    ($instruction:literal, $sp:expr) => {
        // SAFETY: interrupts are off, nothing uses GS or the stack until both are back, and an exception with a stack of its own is
        // the only thing that happens.
        unsafe {
            asm!(
                "mov r12, rsp",
                "swapgs",
                "mov rsp, {sp}",
                $instruction,
                "mov rsp, r12",
                "swapgs",
                sp = in(reg) $sp,
                out("r12") _,
            )
        }
    };
}

/// Stack pointers that a program may have when it enters the kernel; the last is the top of the CPU's current kernel stack.
fn stack_pointers() -> [usize; 4] {
    // SAFETY: this CPU's own field, and interrupts are off.
    let top = unsafe { *percpu::this().kernel_sp.get() };
    [0, 0x7fff_ffff_f000, 1 << 63, top]
}

/// Runs `body` with interrupts off; afterwards this CPU's data and the current thread are where they were.
fn undisturbed(body: impl Fn(usize)) {
    let before: *const Thread = &*current();
    let state = irq::save();
    for sp in stack_pointers() {
        for _ in 0..ROUNDS {
            body(sp);
        }
    }
    irq::restore(state);
    assert!(core::ptr::eq(before, &*current()));
}

/// Row 4 of the past bugs (CVE-2018-8897): MOV SS holds a #DB back until the kernel's first instruction.
#[test_case]
fn a_debug_exception_may_come_before_gs_and_stack_are_the_kernels() {
    undisturbed(|sp| with_users_gs_and_stack!("int 1", sp));
}

/// Row 5 (CVE-2015-3290): an NMI comes anywhere, and where the stack pointer is says nothing about where the CPU was.
#[test_case]
fn an_nmi_may_come_before_gs_and_stack_are_the_kernels() {
    undisturbed(|sp| with_users_gs_and_stack!("int 2", sp));
}

/// The first bytes of a function of the entry code, which have no length of their own.
fn code(of: unsafe extern "C" fn()) -> &'static [u8] {
    // SAFETY: the kernel's own code, which can be read; more of it follows each of these functions.
    unsafe { core::slice::from_raw_parts(of as *const u8, 256) }
}

/// Where in `code` one of the functions that handle exceptions is called.
fn calls(code: &[u8]) -> impl Iterator<Item = usize> {
    let targets = [
        exception as *const () as usize,
        bad_iret as *const () as usize,
    ];
    code.windows(5).enumerate().filter_map(move |(at, bytes)| {
        let (&opcode, distance) = bytes.split_first()?;
        let distance = i32::from_le_bytes(distance.try_into().ok()?);
        let target = (code.as_ptr() as usize + at + 5).wrapping_add_signed(distance as isize);
        (opcode == CALL && targets.contains(&target)).then_some(at)
    })
}

fn last(pattern: &[u8], code: &[u8]) -> Option<usize> {
    code.windows(pattern.len())
        .rposition(|bytes| bytes == pattern)
}

/// Row 6 (CVE-2019-1125): after a SWAPGS that depends on where the CPU came from, no code of the kernel's proper runs before an LFENCE,
/// or it might run with the wrong GS base ahead of the decision.
#[test_case]
fn no_call_is_made_between_a_decision_about_gs_and_a_fence() {
    for entry in [common_entry, paranoid_entry] {
        let code = code(entry);
        let mut found = 0;
        for call in calls(code).take(2) {
            let before = &code[..call];
            match last(SWAPGS, before) {
                Some(swap) => assert!(
                    last(LFENCE, before).is_some_and(|fence| fence > swap),
                    "no fence between {swap:#x} and {call:#x}"
                ),
                // Written whatever it was: nothing to decide, and the instruction waits for all before it.
                None => assert!(last(WRMSR, before).is_some(), "{call:#x}: whose GS base?"),
            }
            found += 1;
        }
        assert_eq!(found, 2);
    }
}
