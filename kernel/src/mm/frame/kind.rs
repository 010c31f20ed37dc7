//! What frames hold.

/// What a frame holds, for the figures in /proc.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum FrameKind {
    /// The kernel's own: heap, pipes, indexes of files.
    Kernel = 0,
    /// Private memory of processes.
    Anonymous = 1,
    /// A page of a file on a disk.
    File = 2,
    /// A page of shared memory or of a file in memory.
    SharedMemory = 3,
    PageTable = 4,
    KernelStack = 5,
}

/// How many kinds there are.
pub(super) const KINDS: usize = 6;

impl FrameKind {
    pub(super) const ALL: [FrameKind; KINDS] = [
        FrameKind::Kernel,
        FrameKind::Anonymous,
        FrameKind::File,
        FrameKind::SharedMemory,
        FrameKind::PageTable,
        FrameKind::KernelStack,
    ];
}

/// How many frames there were of each kind, in a sum over many.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct KindCounts([u64; KIND_SLOTS]);

/// A power of two, so that a masked kind needs no check.
const KIND_SLOTS: usize = KINDS.next_power_of_two();

impl KindCounts {
    #[inline]
    pub(super) fn add(&mut self, kind: u8) {
        self.0[usize::from(kind) % KIND_SLOTS] += 1;
    }

    /// `count` more frames of one kind.
    pub fn add_many(&mut self, kind: FrameKind, count: u64) {
        self.0[kind as usize] += count;
    }

    pub fn of(&self, kind: FrameKind) -> u64 {
        self.0[kind as usize]
    }

    pub fn total(&self) -> u64 {
        self.0.iter().sum()
    }
}
