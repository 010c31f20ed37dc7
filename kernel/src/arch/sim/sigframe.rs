//! Simulated signal frames: the registers and the mask, as bytes on the user's stack.

use super::PtRegs;
use crate::mm::uaccess::{self, UserPtr};
use crate::signal::{AltStack, FrameRequest, FrameStack, SigSet};

#[derive(Debug)]
pub struct BadFrame;

pub struct RestoredFrame {
    pub mask: SigSet,
    pub altstack: AltStack,
}

/// ip, sp, return value, mask, alternate stack's base, size and flags.
type Frame = [usize; 7];

pub fn min_frame_size() -> usize {
    size_of::<Frame>()
}

pub fn setup_frame(regs: &mut PtRegs, request: &FrameRequest) -> Result<(), BadFrame> {
    let top = match request.stack {
        FrameStack::Current { .. } => regs.sp,
        FrameStack::Alternate { top, .. } => top,
    };
    let sp = top.checked_sub(size_of::<Frame>()).ok_or(BadFrame)? & !15;
    let floor = match request.stack {
        FrameStack::Current { floor } => floor.unwrap_or(0),
        FrameStack::Alternate { base, .. } => base,
    };
    if sp < floor {
        return Err(BadFrame);
    }
    let altstack = request.altstack;
    let frame: Frame = [
        regs.ip,
        regs.sp,
        regs.ret,
        request.mask.0 as usize,
        altstack.base,
        altstack.size,
        altstack.flags as usize,
    ];
    UserPtr::new(sp).write(frame).map_err(|_| BadFrame)?;
    regs.sp = sp;
    regs.ip = request.action.handler;
    Ok(())
}

pub fn restore_frame(regs: &mut PtRegs) -> Result<RestoredFrame, BadFrame> {
    let mut bytes = [0; size_of::<Frame>()];
    uaccess::read_bytes(regs.sp, &mut bytes).map_err(|_| BadFrame)?;
    let [ip, sp, ret, mask, base, size, flags] = UserPtr::<Frame>::new(regs.sp)
        .read()
        .map_err(|_| BadFrame)?;
    *regs = PtRegs {
        ret,
        ..PtRegs::new_user(ip, sp)
    };
    Ok(RestoredFrame {
        mask: SigSet(mask as u64),
        altstack: AltStack {
            base,
            size,
            flags: flags as u32,
        },
    })
}
