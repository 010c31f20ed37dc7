//! The two flag words of the fault path, with Linux's names and values (`include/linux/mm_types.h`).

use bitflags::bitflags;

bitflags! {
    /// What a fault attempt did. Empty: resolved, run the instruction again.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct VmFault: u32 {
        const OOM = 0x1;
        const SIGBUS = 0x2;
        /// The page had to be read from its backing store.
        const MAJOR = 0x4;
        const HWPOISON = 0x10;
        const HWPOISON_LARGE = 0x20;
        const SIGSEGV = 0x40;
        const NOPAGE = 0x100;
        const LOCKED = 0x200;
        /// Must wait or has waited, and `mmap_lock` is released: check `fault_signal_pending`, then start over.
        const RETRY = 0x400;
        const FALLBACK = 0x800;
        const DONE_COW = 0x1000;
        const NEEDDSYNC = 0x2000;
        /// Finished, and `mmap_lock` is released.
        const COMPLETED = 0x4000;
        const ERROR = 0x873;
    }
}

bitflags! {
    /// How a fault is to be handled (`enum fault_flag`).
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct FaultFlags: u32 {
        const WRITE = 1 << 0;
        const MKWRITE = 1 << 1;
        /// The handler may release `mmap_lock`, wait, and answer RETRY.
        const ALLOW_RETRY = 1 << 2;
        /// Do not wait: answer RETRY at once, lock held.
        const RETRY_NOWAIT = 1 << 3;
        /// Waits end for fatal signals.
        const KILLABLE = 1 << 4;
        /// Not the first round.
        const TRIED = 1 << 5;
        /// The access was made in user mode.
        const USER = 1 << 6;
        const REMOTE = 1 << 7;
        const INSTRUCTION = 1 << 8;
        /// Waits end for any deliverable signal.
        const INTERRUPTIBLE = 1 << 9;
        const UNSHARE = 1 << 10;
        const ORIG_PTE_VALID = 1 << 11;
        const VMA_LOCK = 1 << 12;
    }
}

/// What kind of access faulted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    Read,
    Write,
    Execute,
}

/// A page fault as the architecture decoded it, and nothing else: the rest is decided by generic code. Whether the access was
/// made in user mode is told by the registers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FaultInfo {
    /// The address accessed, as reported by the hardware; may be any value.
    pub address: usize,
    pub access: Access,
    /// The entry was present: its permissions refused the access.
    pub present: bool,
}

/// What the architecture does after a fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FaultVerdict {
    /// Return to the interrupted code; from user mode through the exit path, where a signal may be delivered.
    Resume,
    /// User mode: record the trap values in the thread and force `signal` with `code`.
    Signal {
        signal: crate::signal::Signal,
        code: i32,
    },
    /// Kernel mode: continue at the exception table's entry; without one it is a kernel bug.
    Fixup,
}
