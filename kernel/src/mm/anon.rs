//! Which areas' private pages may come to lie in one area: what Linux keeps in `anon_vma` to find a page's areas.
//!
//! An area gets an identity with its first private page, and keeps it in all its parts and wherever it moves. Areas with different
//! identities are never joined, and the copy that a child gets at fork has an identity of its own, which it shares with nothing that
//! was never written. All this is seen in /proc/self/maps alone.
//!
//! An identity is set under the read side of `mmap_lock`, once, and without taking memory.

use core::sync::atomic::{AtomicU64, Ordering};

use super::space::Areas;
use super::vma::{VmFlags, Vma};

/// An area's identity.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AnonId(u64);

/// Set in the identities of areas that came from a parent, whose pages they may share.
const INHERITED: u64 = 1 << 63;

static LAST: AtomicU64 = AtomicU64::new(0);

impl AnonId {
    /// One that no other area has.
    pub fn fresh() -> AnonId {
        AnonId(LAST.fetch_add(1, Ordering::Relaxed) + 1)
    }

    /// One for the copy that a child gets.
    pub fn fresh_inherited() -> AnonId {
        AnonId(AnonId::fresh().0 | INHERITED)
    }

    /// Whether pages may be shared with a parent.
    pub fn is_inherited(self) -> bool {
        self.0 & INHERITED != 0
    }
}

/// An area's identity, or none yet.
pub struct Anon(AtomicU64);

impl Anon {
    pub fn new(id: Option<AnonId>) -> Anon {
        Anon(AtomicU64::new(id.map_or(0, |id| id.0)))
    }

    #[inline]
    pub fn get(&self) -> Option<AnonId> {
        match self.0.load(Ordering::Relaxed) {
            0 => None,
            id => Some(AnonId(id)),
        }
    }

    /// Sets it if there is none; another thread may have been faster.
    fn set(&self, id: AnonId) {
        let _ = self
            .0
            .compare_exchange(0, id.0, Ordering::Relaxed, Ordering::Relaxed);
    }
}

impl Areas {
    /// Gives an area of the tree its identity before a private page comes into it: that of a neighbour which could be one with it
    /// but for permissions (`find_mergeable_anon_vma`), or a new one.
    #[inline]
    pub fn prepare_anon(&self, vma: &Vma) {
        if vma.anon.get().is_none() {
            vma.anon.set(self.anon_of_neighbours(vma));
        }
    }

    #[cold]
    fn anon_of_neighbours(&self, vma: &Vma) -> AnonId {
        let own = |id: &AnonId| !id.is_inherited();
        let above = self
            .find(vma.end)
            .filter(|above| could_share(vma, above))
            .and_then(|above| above.anon.get())
            .filter(own);
        above
            .or_else(|| {
                self.find_below(vma.start)
                    .filter(|below| could_share(below, vma))
                    .and_then(|below| below.anon.get())
                    .filter(own)
            })
            .unwrap_or_else(AnonId::fresh)
    }
}

/// Whether two areas may have one identity from the start (`anon_vma_compatible`): as for one area, but for their permissions.
fn could_share(low: &Vma, high: &Vma) -> bool {
    low.end == high.start
        && (low.flags - VmFlags::PERMISSIONS) == (high.flags - VmFlags::PERMISSIONS)
        && low.same_contents(high)
}
