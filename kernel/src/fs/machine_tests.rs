//! Tests that need the real disk: virtio-blk, its windows, ext4 and the page cache together.

use alloc::sync::Arc;
use alloc::vec;
use alloc::vec::Vec;

use linux_raw_sys::general as abi;

use super::inode::{FileSystem, FileType, InodeRef};
use super::io::Dst;
use super::{open, path};
use crate::drivers::block;
use crate::errno::Errno;
use crate::mm::PAGE_SIZE;
use crate::mm::page_cache::{Mapping, copy_from_page};
use crate::sched::Sleep;

fn start() -> path::Start {
    let root = super::root().expect("mounted");
    path::Start {
        subject: super::permission::Subject::current(),
        at: root.clone(),
        root,
    }
}

fn resolve(name: &[u8]) -> InodeRef {
    path::resolve(&start(), name, true).expect("it is there")
}

/// The regular files of /bin with their sizes, the largest first.
fn programs() -> Vec<(Vec<u8>, u64)> {
    let mut names: Vec<Vec<u8>> = Vec::new();
    let bin = resolve(b"/bin");
    bin.read_dir(2, &mut |entry| {
        if entry.file_type == FileType::Regular {
            names.push(entry.name.to_vec());
        }
        true
    })
    .expect("a directory");
    let size = |name: &[u8]| bin.lookup(name).expect("it was listed").stat().size;
    let mut programs: Vec<_> = names
        .into_iter()
        .map(|name| (name.clone(), size(&name)))
        .collect();
    programs.sort_by_key(|(_, size)| core::cmp::Reverse(*size));
    assert!(!programs.is_empty(), "/bin has programs");
    programs
}

#[test_case]
fn the_disk_reads_the_same_in_any_pieces() {
    let mut whole = vec![0; 3 * block::WINDOW];
    block::read(0, &mut whole).expect("the disk works");
    // Where ext4 has its magic number.
    assert_eq!(whole[1024 + 56..][..2], [0x53, 0xef]);
    for (at, len) in [
        (0, 512),
        (1, 1),
        (4095, 2),
        (block::WINDOW - 1, 2),
        (block::WINDOW - 5, block::WINDOW + 10),
    ] {
        let mut part = vec![0xee; len];
        block::read(at as u64, &mut part).expect("the disk works");
        assert!(part == whole[at..at + len], "{len} bytes at {at}");
    }
}

#[test_case]
fn behind_the_disk_is_an_error() {
    assert_eq!(block::read(1 << 50, &mut [0; 512]), Err(Errno::EIO));
    assert_eq!(block::read(0, &mut [0; 512]), Ok(()));
}

#[test_case]
fn more_windows_than_are_kept_come_back_right() {
    let mut first = vec![0; 512];
    block::read(0, &mut first).expect("the disk works");
    for window in 1..2 * block::WINDOWS as u64 {
        // The disk may be smaller than that.
        let _ = block::read(window * block::WINDOW as u64, &mut [0; 512]);
    }
    let mut again = vec![0; 512];
    block::read(0, &mut again).expect("the disk works");
    assert!(first == again);
}

#[test_case]
fn programs_have_their_size_and_begin_as_elf_files() {
    for (name, size) in programs() {
        let name = [b"/bin/", &name[..]].concat();
        let file = open::open(&start(), &name, abi::O_RDONLY, 0).expect("it is there");
        let mut contents = vec![0; size as usize + 1];
        let mut dst = Dst::Kernel(&mut contents);
        assert_eq!(file.read(&mut dst).expect("the disk works") as u64, size);
        assert_eq!(contents[..4], *b"\x7fELF");
    }
}

/// Takes all pages out of the cache that nobody maps; how many. Pages that were looked up get a second chance, so two passes.
fn forget(mapping: &Arc<Mapping>) -> usize {
    let mut freed = 0;
    for _ in 0..2 {
        loop {
            let (more, ended) = mapping.reclaim(usize::MAX);
            freed += more;
            if ended {
                break;
            }
        }
    }
    freed
}

#[test_case]
fn pages_read_backwards_are_those_read_forwards() {
    let (name, size) = programs().swap_remove(0);
    let inode = resolve(&[b"/bin/", &name[..]].concat());
    let mapping = inode.mapping().expect("a regular file");
    let pages = size.div_ceil(PAGE_SIZE as u64).min(64);
    forget(&mapping);
    let mut backwards = vec![0; PAGE_SIZE * pages as usize];
    for index in (0..pages).rev() {
        let page = mapping
            .read_page(index, Sleep::Uninterruptible)
            .expect("the disk works");
        copy_from_page(
            &page,
            0,
            &mut backwards[index as usize * PAGE_SIZE..][..PAGE_SIZE],
        );
    }
    assert!(
        forget(&mapping) as u64 >= pages,
        "the pages were nobody else's"
    );
    let mut forwards = vec![0; backwards.len()];
    let read = mapping.read_at(0, &mut forwards).expect("the disk works");
    assert!(forwards[..read] == backwards[..read]);
    assert!(
        backwards[read..].iter().all(|&byte| byte == 0),
        "zeros behind the end"
    );
}

#[test_case]
fn one_file_has_one_set_of_pages() {
    let (name, _) = programs().swap_remove(0);
    let by_name = |name: &[u8]| resolve(name).mapping().expect("a regular file");
    let direct = by_name(&[b"/bin/", &name[..]].concat());
    let around = by_name(&[b"//bin/../bin/./", &name[..]].concat());
    assert!(Arc::ptr_eq(&direct, &around));
    let page = |mapping: &Arc<Mapping>| {
        mapping
            .read_page(0, Sleep::Uninterruptible)
            .expect("the disk works")
            .number()
    };
    assert_eq!(page(&direct), page(&around));
}

#[test_case]
fn mounted_directories_hide_what_the_disk_has() {
    for name in [&b"/dev/null"[..], b"/proc/meminfo", b"/tmp", b"/dev/shm"] {
        assert_ne!(resolve(name).stat().fs, FileSystem::Ext4);
    }
    assert_eq!(
        path::resolve(&start(), b"/nothing", true).err(),
        Some(Errno::ENOENT)
    );
    assert_eq!(
        open::open(&start(), b"/dev/new", abi::O_CREAT | abi::O_RDWR, 0o644).err(),
        Some(Errno::EACCES)
    );
}
