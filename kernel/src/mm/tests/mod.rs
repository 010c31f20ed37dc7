//! Memory management on the simulated machine. The fault path has tests of its own.

mod areas;
mod exhaustion;
mod files;
mod limits;
mod model;
mod shared_writes;
mod truncate;

use std::boxed::Box;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use super::map::Place;
use super::page_cache::{Backing, Mapping};
use super::vma::Source;
use super::{PAGE_SIZE, VmFlags};
use crate::arch::sim::machine::current_mm;
use crate::errno::Result;

/// Readable and writable private memory.
const RW: VmFlags = VmFlags::READ
    .union(VmFlags::WRITE)
    .union(VmFlags::MAYREAD)
    .union(VmFlags::MAYWRITE)
    .union(VmFlags::MAYEXEC);
const RO: VmFlags = RW.difference(VmFlags::WRITE);
const BASE: usize = 0x10_0000_0000;

fn map(len: usize, flags: VmFlags, source: Option<Source>) -> usize {
    current_mm()
        .map(Place::Fixed(BASE), len, flags, source)
        .expect("room")
}

/// A file whose pages hold the low byte of their index, and that counts its reads.
struct CountedFile(Arc<AtomicU32>);

impl Backing for CountedFile {
    fn read_page(&self, index: u64, page: &mut [u8; PAGE_SIZE]) -> Result {
        self.0.fetch_add(1, Ordering::Relaxed);
        page.fill(index as u8);
        Ok(())
    }
}

/// A file of `pages` pages, and the number of pages read from it.
fn file(pages: usize) -> (Source, Arc<AtomicU32>) {
    let reads = Arc::new(AtomicU32::new(0));
    let backing = Box::new(CountedFile(reads.clone()));
    let mapping = Mapping::new((pages * PAGE_SIZE) as u64, backing).expect("memory");
    let source = Source {
        mapping,
        first_page: 0,
        file: None,
    };
    (source, reads)
}
