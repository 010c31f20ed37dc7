//! Signal frames, written to and read back from real user memory; and what a forged one cannot do.

use alloc::format;

use super::*;
use crate::mm::map::Place;
use crate::mm::{PAGE_SIZE, VmFlags};
use crate::signal::{Action, SigInfo, Signal, code};
use crate::testing::in_user_process;

const STACK: usize = 0x10_0000_0000;
const PAGES: usize = 8;
const TOP: usize = STACK + PAGES * PAGE_SIZE;
const HANDLER: usize = 0x40_1000;
const RESTORER: usize = 0x40_2000;

/// Flags that no program may have set for it (SDM volume 1, 3.4.3): IOPL, NT, VM, VIF, VIP, ID.
const DANGEROUS: usize = 0x3000 | flags::NT | 0x3a_0000;

fn map_stack() {
    let process = &current().process;
    let mm = process.current_mm().expect("a user process");
    mm.activate();
    let rw = VmFlags::READ | VmFlags::WRITE;
    assert_eq!(
        mm.map(Place::Fixed(STACK), PAGES * PAGE_SIZE, rw, None),
        Ok(STACK)
    );
}

fn interrupted() -> PtRegs {
    PtRegs {
        rax: 1,
        rbx: 2,
        r15: 15,
        rdi: 3,
        ..PtRegs::new_user(0x40_0123, TOP - 1000)
    }
}

/// Makes a frame for `regs`, which then are the handler's.
fn set_up(regs: &mut PtRegs, stack: FrameStack) -> Result<(), BadFrame> {
    let info = SigInfo::fault(Signal::SIGSEGV, code::SEGV_ACCERR, 0x1234);
    let action = Action {
        handler: HANDLER,
        flags: sa::SIGINFO | sa::RESTORER,
        restorer: RESTORER,
        mask: SigSet::EMPTY,
    };
    let altstack = AltStack {
        base: 0x7000,
        size: 0x3000,
        flags: 0,
    };
    let request = FrameRequest {
        info: &info,
        action: &action,
        mask: SigSet(0x55),
        altstack: &altstack,
        stack,
    };
    setup_frame(regs, &request)
}

fn all_comes_back() {
    map_stack();
    let before = interrupted();
    let mut regs = before;
    assert!(set_up(&mut regs, FrameStack::Current { floor: None }).is_ok());
    assert_eq!(
        (regs.rip, regs.rdi),
        (HANDLER, Signal::SIGSEGV.number() as usize)
    );
    assert!(regs.rsp % 16 == 8 && regs.rsp < before.frame_top() - FRAME_SIZE);
    assert_eq!(UserPtr::<usize>::new(regs.rsp).read(), Ok(RESTORER));
    // si_signo and si_addr (siginfo's first word, and the one at 16).
    assert_eq!(UserPtr::<u32>::new(regs.rsi).read(), Ok(11));
    assert_eq!(UserPtr::<usize>::new(regs.rsi + 16).read(), Ok(0x1234));
    // The handler changes everything, returns, and calls sigreturn.
    regs.rbx = 99;
    regs.rsp += 8;
    let restored = restore_frame(&mut regs).expect("a good frame");
    assert_eq!(restored.mask, SigSet(0x55));
    assert_eq!(
        (restored.altstack.base, restored.altstack.size),
        (0x7000, 0x3000)
    );
    let general = |r: &PtRegs| {
        [
            r.rax, r.rbx, r.r15, r.rdi, r.rip, r.rsp, r.rflags, r.cs, r.ss,
        ]
    };
    assert_eq!(general(&regs), general(&before));
    assert_eq!(regs.syscall_nr(), None, "no call is restarted");
}

#[test_case]
fn a_frame_brings_everything_back() {
    in_user_process(all_comes_back);
}

fn no_room_changes_nothing() {
    map_stack();
    for (sp, stack) in [
        (STACK + 100, FrameStack::Current { floor: None }),
        (
            TOP - 64,
            FrameStack::Current {
                floor: Some(TOP - 256),
            },
        ),
        (
            TOP,
            FrameStack::Alternate {
                base: TOP - 512,
                top: TOP,
            },
        ),
        (64, FrameStack::Current { floor: None }),
        (!0 << 47, FrameStack::Current { floor: None }),
    ] {
        let mut regs = PtRegs::new_user(0x40_0123, sp);
        assert!(set_up(&mut regs, stack).is_err(), "{sp:#x}");
        assert_eq!((regs.rip, regs.rsp), (0x40_0123, sp));
    }
}

#[test_case]
fn a_frame_without_room_is_refused() {
    in_user_process(no_room_changes_nothing);
}

/// The context lies across the end of what is mapped.
fn half_a_frame_changes_nothing() {
    map_stack();
    for missing in [8, 64, 296] {
        let at = TOP + missing - size_of::<UContext>();
        let mut regs = PtRegs {
            rsp: at,
            ..interrupted()
        };
        let before = regs;
        assert!(restore_frame(&mut regs).is_err(), "{missing}");
        let words = |regs: &PtRegs| format!("{regs:?}");
        assert_eq!(words(&regs), words(&before), "{missing}");
    }
}

#[test_case]
fn a_frame_that_is_not_all_there_changes_no_register() {
    in_user_process(half_a_frame_changes_nothing);
}

#[test_case]
fn privileged_flags_are_never_taken() {
    let mut regs = interrupted();
    let all = ReadValues {
        rflags: usize::MAX,
        ..ReadValues::default()
    };
    restore_special(&mut regs, &all);
    assert_eq!(regs.rflags & DANGEROUS, 0);
    assert_eq!(regs.rflags & USER_FLAGS, USER_FLAGS);
    restore_special(&mut regs, &ReadValues::default());
    assert_ne!(regs.rflags & flags::IF, 0, "interrupts stay on");
}

/// Whatever selectors a frame has, the return is one to user mode, where bad ones fault.
#[test_case]
fn selectors_never_lead_to_the_kernel() {
    for selector in [0, 0x10, 0x18, 0x23, 0x38, 0xfff8, USER_CS, USER_DS] {
        let mut regs = interrupted();
        let mut from = ReadValues {
            uc_flags: UC_STRICT_RESTORE_SS,
            selectors: [selector, 0, 0, selector],
            ..ReadValues::default()
        };
        restore_special(&mut regs, &from);
        assert!(
            regs.user_mode() && regs.cs & 3 == 3 && regs.ss & 3 == 3,
            "{selector:#x}"
        );
        from.uc_flags = 0;
        restore_special(&mut regs, &from);
        assert_eq!(regs.ss, USER_DS as usize, "an old frame's SS is not taken");
    }
}
