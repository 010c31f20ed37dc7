//! References of many frames at a time.

use core::sync::atomic::Ordering;

use super::{Frame, FrameMeta, FrameNumber, KindCounts, META, META_LEN};

/// All frames, for those who take or give up references of many.
#[derive(Clone, Copy)]
pub struct Frames(&'static [FrameMeta]);

impl Frames {
    #[inline]
    pub fn all() -> Frames {
        let len = META_LEN.load(Ordering::Relaxed);
        // SAFETY: `init` stored a static array of at least META_LEN elements.
        Frames(unsafe { core::slice::from_raw_parts(META.load(Ordering::Relaxed), len) })
    }

    /// Another reference, kept as the bare number, as by [`Frame::share`] and [`Frame::into_raw`]; counts the frame.
    ///
    /// # Safety
    /// As for [`Frame::share`].
    #[inline]
    pub unsafe fn share(self, number: FrameNumber, counts: &mut KindCounts) {
        let meta = &self.0[number.0 as usize];
        let before = meta.refcount.fetch_add(1, Ordering::Relaxed);
        debug_assert!(before > 0, "{number:?} shared while free");
        counts.add(meta.kind.load(Ordering::Relaxed));
    }

    /// Another reference of a frame, if its page-cache state is `wanted`.
    ///
    /// # Safety
    /// As for [`Frame::share`].
    #[inline]
    pub(in crate::mm) unsafe fn share_if(
        self,
        number: FrameNumber,
        wanted: impl FnOnce(u32) -> bool,
    ) -> Option<Frame> {
        let meta = &self.0[number.0 as usize];
        if !wanted(meta.state.load(Ordering::Acquire)) {
            return None;
        }
        let before = meta.refcount.fetch_add(1, Ordering::Relaxed);
        debug_assert!(before > 0, "{number:?} shared while free");
        Some(Frame(number))
    }

    /// Gives up a reference that was kept as the bare number; counts the frame.
    ///
    /// # Safety
    /// As for [`Frame::from_raw`].
    #[inline]
    pub unsafe fn give_up(self, number: FrameNumber, counts: &mut KindCounts) {
        let meta = &self.0[number.0 as usize];
        counts.add(meta.kind.load(Ordering::Relaxed));
        meta.put(number);
    }
}
