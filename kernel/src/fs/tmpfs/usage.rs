//! A file is written or executed, not both at a time (`ETXTBSY`).

use alloc::sync::Arc;
use core::sync::atomic::{AtomicI32, Ordering};

use super::Node;
use crate::errno::{Errno, Result};

/// How often a file is open for writing, or below 0 how often it is being executed.
pub(super) struct Users(AtomicI32);

impl Users {
    pub(super) const fn new() -> Users {
        Users(AtomicI32::new(0))
    }
}

/// One user of a file, as long as it lives.
pub struct Usage {
    node: Arc<Node>,
    by: i32,
}

impl Usage {
    /// `ETXTBSY` if the file is being executed.
    pub fn writing(node: &Arc<Node>) -> Result<Usage> {
        Usage::new(node, 1)
    }

    /// `ETXTBSY` if the file is open for writing.
    pub fn executing(node: &Arc<Node>) -> Result<Usage> {
        Usage::new(node, -1)
    }

    fn new(node: &Arc<Node>, by: i32) -> Result<Usage> {
        let add = |now: i32| (now.signum() != -by).then_some(now + by);
        let added = node
            .users
            .0
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, add);
        added.map_err(|_| Errno::ETXTBSY)?;
        Ok(Usage {
            node: node.clone(),
            by,
        })
    }
}

impl Drop for Usage {
    fn drop(&mut self) {
        self.node.users.0.fetch_sub(self.by, Ordering::Relaxed);
    }
}
