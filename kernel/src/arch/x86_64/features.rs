//! CPU features: which there are, and turning on those that protect the kernel.

use core::arch::x86_64::__cpuid_count;
use core::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use x86_64::registers::control::{Cr0, Cr0Flags, Cr4, Cr4Flags};
use x86_64::registers::model_specific::{Efer, EferFlags};

static SMAP: AtomicBool = AtomicBool::new(false);
static FSGSBASE: AtomicBool = AtomicBool::new(false);
static HWCAP: AtomicU32 = AtomicU32::new(0);

fn cpuid(leaf: u32, subleaf: u32) -> core::arch::x86_64::CpuidResult {
    __cpuid_count(leaf, subleaf)
}

/// Turns on write protection, no-execute, the alignment checks that programs may ask for, and, where the CPU has them, SMEP, SMAP, UMIP
/// and FSGSBASE. Once.
pub(super) fn init() {
    HWCAP.store(cpuid(1, 0).edx, Ordering::Relaxed);
    let extended = if cpuid(0, 0).eax >= 7 {
        cpuid(7, 0)
    } else {
        cpuid(0, 0)
    };
    let has_leaf_7 = cpuid(0, 0).eax >= 7;
    let mut cr4 = Cr4::read() | Cr4Flags::OSFXSR | Cr4Flags::OSXMMEXCPT_ENABLE;
    if has_leaf_7 {
        cr4.set(
            Cr4Flags::SUPERVISOR_MODE_EXECUTION_PROTECTION,
            extended.ebx & (1 << 7) != 0,
        );
        cr4.set(
            Cr4Flags::SUPERVISOR_MODE_ACCESS_PREVENTION,
            extended.ebx & (1 << 20) != 0,
        );
        cr4.set(
            Cr4Flags::USER_MODE_INSTRUCTION_PREVENTION,
            extended.ecx & (1 << 2) != 0,
        );
        cr4.set(Cr4Flags::FSGSBASE, extended.ebx & 1 != 0);
        SMAP.store(extended.ebx & (1 << 20) != 0, Ordering::Relaxed);
        FSGSBASE.store(extended.ebx & 1 != 0, Ordering::Relaxed);
    }
    if has_xsave() {
        cr4 |= Cr4Flags::OSXSAVE;
    }
    // SAFETY: the features are there, and the kernel obeys them: user memory is touched only between STAC and CLAC, the lower half
    // holds nothing that the kernel executes, and no way into the kernel believes a GS base.
    unsafe {
        Cr4::write(cr4);
        let cr0 = (Cr0::read()
            | Cr0Flags::WRITE_PROTECT
            | Cr0Flags::NUMERIC_ERROR
            | Cr0Flags::ALIGNMENT_MASK
            | Cr0Flags::MONITOR_COPROCESSOR)
            - (Cr0Flags::EMULATE_COPROCESSOR | Cr0Flags::TASK_SWITCHED);
        Cr0::write(cr0);
        Efer::update(|efer| {
            *efer |= EferFlags::NO_EXECUTE_ENABLE | EferFlags::SYSTEM_CALL_EXTENSIONS
        });
    }
}

/// Whether SMAP is on, so that STAC and CLAC exist.
#[inline]
pub(super) fn smap() -> bool {
    SMAP.load(Ordering::Relaxed)
}

/// Whether RDFSBASE and its like work.
#[inline]
pub(super) fn fsgsbase() -> bool {
    FSGSBASE.load(Ordering::Relaxed)
}

/// Whether the CPU has XSAVE.
pub(super) fn has_xsave() -> bool {
    cpuid(1, 0).ecx & (1 << 26) != 0
}

/// Whether the CPU has RDRAND.
pub(super) fn has_rdrand() -> bool {
    cpuid(1, 0).ecx & (1 << 30) != 0
}

/// Whether the local interrupt controller's registers can be model-specific ones.
pub(super) fn has_x2apic() -> bool {
    cpuid(1, 0).ecx & (1 << 21) != 0
}

/// AT_HWCAP: the feature bits of CPUID leaf 1 in EDX. Asked once, as every exec wants them and CPUID serialises.
pub(super) fn hwcap() -> usize {
    HWCAP.load(Ordering::Relaxed) as usize
}

/// AT_HWCAP2, whose bits are Linux's own (`asm/hwcap2.h`): programs may set the bases of FS and GS.
pub(super) fn hwcap2() -> usize {
    const HWCAP2_FSGSBASE: usize = 1 << 1;
    if fsgsbase() { HWCAP2_FSGSBASE } else { 0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the CPU has is on; CPUID's bits are those of SDM volume 2, CPUID.
    #[test_case]
    fn protection_is_on() {
        assert!(Cr0::read().contains(Cr0Flags::WRITE_PROTECT));
        assert!(Efer::read().contains(EferFlags::NO_EXECUTE_ENABLE));
        let cr4 = Cr4::read();
        let (has_7, leaf_7) = (cpuid(0, 0).eax >= 7, cpuid(7, 0));
        let features = [
            (
                leaf_7.ebx >> 7,
                Cr4Flags::SUPERVISOR_MODE_EXECUTION_PROTECTION,
            ),
            (
                leaf_7.ebx >> 20,
                Cr4Flags::SUPERVISOR_MODE_ACCESS_PREVENTION,
            ),
            (leaf_7.ecx >> 2, Cr4Flags::USER_MODE_INSTRUCTION_PREVENTION),
            (leaf_7.ebx, Cr4Flags::FSGSBASE),
        ];
        for (bit, flag) in features {
            assert_eq!(cr4.contains(flag), has_7 && bit & 1 != 0, "{flag:?}");
        }
        assert_eq!(
            smap(),
            cr4.contains(Cr4Flags::SUPERVISOR_MODE_ACCESS_PREVENTION)
        );
        assert_eq!(fsgsbase(), cr4.contains(Cr4Flags::FSGSBASE));
    }
}
