//! The root file system on the real disk: the host tool's test files are read back, through the driver, the page cache and all.

use alloc::sync::Arc;
use alloc::vec;
use alloc::vec::Vec;

use crate::drivers::block;
use crate::errno::{Errno, Result};
use crate::fs;
use crate::fs::inode::InodeRef;
use crate::mm::PAGE_SIZE;
use crate::mm::page_cache::Mapping;
use crate::sched::Sleep;

/// The host tool's /data/pattern: splitmix64 of each word's number, and a last page that is not full.
const SIZE: usize = (1 << 20) + 1234;

fn expected(at: usize) -> u8 {
    let mut z = (at as u64 / 8 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    (z ^ (z >> 31)).to_le_bytes()[at % 8]
}

fn pattern() -> Result<(InodeRef, Arc<Mapping>)> {
    let inode = fs::root()?.lookup(b"data")?.lookup(b"pattern")?;
    let pages = inode.mapping().ok_or(Errno::EINVAL)?;
    Ok((inode, pages))
}

#[test_case]
fn the_disk_holds_an_ext4_superblock_however_it_is_read() {
    // The magic number's place, and requests of one byte, over a window's end, and longer than a window.
    let mut magic = [0; 2];
    block::read(1024 + 0x38, &mut magic).unwrap();
    assert_eq!(u16::from_le_bytes(magic), 0xef53);
    let mut long = vec![0; 3 * block::WINDOW];
    block::read(0, &mut long).unwrap();
    assert_eq!(long[1024 + 0x38..][..2], magic);
    for start in [0, 1, 511, 1024, block::WINDOW - 1, 2 * block::WINDOW - 7] {
        let mut part = [0; 600];
        block::read(start as u64, &mut part).unwrap();
        assert_eq!(part, long[start..start + 600], "from byte {start}");
    }
    assert_eq!(block::read(u64::MAX - 4096, &mut magic), Err(Errno::EIO));
}

#[test_case]
fn a_file_has_the_hosts_contents() {
    let (inode, pages) = pattern().unwrap();
    assert_eq!((inode.stat().size, pages.pages()), (SIZE as u64, 257));
    let mut contents = Vec::new();
    contents.resize(SIZE + 5000, 0xff);
    assert_eq!(pages.read_at(0, &mut contents), Ok(SIZE));
    let wrong = (0..SIZE).find(|&at| contents[at] != expected(at));
    assert_eq!(wrong, None, "the first byte that differs");
    assert_eq!(contents[SIZE], 0xff, "nothing behind the end");
    let mut middle = [0; 100];
    assert_eq!(pages.read_at(4000, &mut middle), Ok(100));
    assert!((0..100).all(|at| middle[at] == expected(4000 + at)));
    assert_eq!(pages.read_at(SIZE as u64, &mut middle), Ok(0));
}

#[test_case]
fn all_who_open_a_file_share_its_pages() {
    let (first, second) = (pattern().unwrap().1, pattern().unwrap().1);
    let page = first.read_page(256, Sleep::Killable).unwrap();
    let again = second.read_page(256, Sleep::Killable).unwrap();
    assert_eq!(page.number(), again.number());
    let mut tail = [0xff; PAGE_SIZE];
    crate::mm::page_cache::copy_from_page(&page, 0, &mut tail);
    assert!(tail[SIZE % PAGE_SIZE..].iter().all(|&byte| byte == 0));
}

#[test_case]
fn what_is_not_there_is_not_found() {
    let root = fs::root().unwrap();
    assert_eq!(root.lookup(b"no such file").err(), Some(Errno::ENOENT));
    let file = pattern().unwrap().0;
    assert_eq!(file.lookup(b"x").err(), Some(Errno::ENOTDIR));
}
