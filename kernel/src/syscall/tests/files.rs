//! Reading the disk, the special directories, and descriptors.

use linux_raw_sys::general as abi;

use crate::arch::sim::machine::run_test;
use crate::errno::{Errno, Result};
use crate::fs::testing::{USER, get, large, mount_once, put, user_memory};
use crate::syscall::{dir, fd, io, stat};

/// The part of user memory that calls write to.
const OUT: usize = 1 << 18;

fn test(body: impl FnOnce() + Send + 'static) {
    run_test(|| {
        mount_once();
        user_memory();
        body();
    });
}

fn path(path: &str) -> usize {
    put(0, format!("{path}\0").as_bytes())
}

fn open(name: &str, flags: u32) -> Result<usize> {
    fd::sys_open(&[path(name), flags as usize, 0o644, 0, 0, 0])
}

fn read(fd: usize, len: usize) -> Result<Vec<u8>> {
    io::sys_read(&[fd, USER + OUT, len, 0, 0, 0]).map(|got| get(OUT, got))
}

/// All of a file, in pieces of `piece` bytes.
fn contents(name: &str, piece: usize) -> Vec<u8> {
    let fd = open(name, abi::O_RDONLY).expect("it is there");
    let mut all = Vec::new();
    loop {
        let bytes = read(fd, piece).expect("it can be read");
        if bytes.is_empty() {
            break;
        }
        all.extend(bytes);
    }
    fd::sys_close(&[fd, 0, 0, 0, 0, 0]).expect("it is open");
    all
}

fn text(name: &str) -> String {
    String::from_utf8(contents(name, 4096)).expect("text")
}

fn names(name: &str, buffer: usize) -> Vec<String> {
    let fd = open(name, abi::O_RDONLY | abi::O_DIRECTORY).expect("it is there");
    let mut names = Vec::new();
    loop {
        let len = dir::sys_getdents64(&[fd, USER + OUT, buffer, 0, 0, 0]).expect("a directory");
        if len == 0 {
            break;
        }
        let mut bytes = &get(OUT, len)[..];
        while !bytes.is_empty() {
            let size = u16::from_ne_bytes([bytes[16], bytes[17]]) as usize;
            let name = bytes[19..size].iter().take_while(|&&byte| byte != 0);
            names.push(name.map(|&byte| byte as char).collect());
            bytes = &bytes[size..];
        }
    }
    fd::sys_close(&[fd, 0, 0, 0, 0, 0]).expect("it is open");
    names
}

#[test]
fn files_on_the_disk_read_the_same_in_any_pieces() {
    test(|| {
        let expected = large();
        for piece in [4096, 1000, 65536, 300_000] {
            assert_eq!(
                contents("/data/large", piece),
                expected,
                "in pieces of {piece}"
            );
        }
        assert_eq!(contents("/data/link", 100), b"hello\n");
        assert_eq!(contents("/to-data/../data//./small", 1), b"hello\n");
        assert_eq!(contents("/data/empty", 100), b"");
    });
}

#[test]
fn a_disk_file_can_be_read_at_offsets_and_behind_its_end() {
    test(|| {
        let expected = large();
        let fd = open("/data/large", abi::O_RDONLY).expect("it is there");
        for at in [expected.len() - 10, 5, 200_000, 4090, 0] {
            let got = io::sys_pread64(&[fd, USER + OUT, 100, at, 0, 0]).expect("it can be read");
            assert_eq!(get(OUT, got), expected[at..expected.len().min(at + 100)]);
        }
        assert_eq!(
            io::sys_pread64(&[fd, USER + OUT, 100, expected.len() + 5, 0, 0]),
            Ok(0)
        );
        assert_eq!(
            io::sys_pread64(&[fd, USER + OUT, 100, usize::MAX, 0, 0]),
            Err(Errno::EINVAL)
        );
    });
}

#[test]
fn a_bad_buffer_is_efault_only_if_nothing_was_read() {
    test(|| {
        let fd = open("/data/large", abi::O_RDONLY).expect("it is there");
        let end = USER + crate::fs::testing::USER_LEN;
        assert_eq!(io::sys_read(&[fd, end, 100, 0, 0, 0]), Err(Errno::EFAULT));
        assert_eq!(io::sys_read(&[fd, end - 5000, 9000, 0, 0, 0]), Ok(5000));
        // The position has moved by what was read.
        assert_eq!(
            io::sys_lseek(&[fd, 0, abi::SEEK_CUR as usize, 0, 0, 0]),
            Ok(5000)
        );
        assert_eq!(read(fd, 10).expect("it can be read"), large()[5000..5010]);
    });
}

fn ino(name: &str) -> u64 {
    stat::sys_stat(&[path(name), USER + OUT, 0, 0, 0, 0]).expect("it is there");
    u64::from_ne_bytes(get(OUT + 8, 8).try_into().expect("8 bytes"))
}

fn write_at(fd: usize, at: usize, bytes: &[u8]) -> Result<usize> {
    let from = put(OUT, bytes);
    io::sys_pwrite64(&[fd, from, bytes.len(), at, 0, 0])
}

#[test]
fn changes_of_the_disks_files_are_seen_by_all_who_have_them() {
    test(|| {
        let large = large();
        let (reader, number) = (
            open("/data/deep/large", abi::O_RDONLY),
            ino("/data/deep/large"),
        );
        let reader = reader.expect("it is there");
        assert_eq!(io::sys_pread64(&[reader, USER + OUT, 4, 8192, 0, 0]), Ok(4));
        let writer = open("/data/deep/large", abi::O_RDWR).expect("it can be written");
        assert_eq!(write_at(writer, 8190, b"changed"), Ok(7));
        assert_eq!(
            io::sys_pread64(&[reader, USER + OUT, 20, 8186, 0, 0]),
            Ok(20)
        );
        let expected = [&large[8186..8190], b"changed", &large[8197..8206]].concat();
        assert_eq!(get(OUT, 20), expected);
        let new_path = put(600, b"/data/deep/er/moved\0");
        dir::sys_rename(&[path("/data/deep/large"), new_path, 0, 0, 0, 0]).expect("one directory");
        assert_eq!(open("/data/deep/large", abi::O_RDONLY), Err(Errno::ENOENT));
        assert_eq!(ino("/data/deep/er/moved"), number);
        assert_eq!(
            crate::syscall::attr::sys_ftruncate(&[writer, 8192, 0, 0, 0, 0]),
            Ok(0)
        );
        assert_eq!(
            crate::syscall::attr::sys_ftruncate(&[writer, 9000, 0, 0, 0, 0]),
            Ok(0)
        );
        let mut expected = large[..9000].to_vec();
        expected[8190..8192].copy_from_slice(b"ch");
        expected[8192..].fill(0);
        assert_eq!(contents("/data/deep/er/moved", 4096), expected);
        dir::sys_unlink(&[path("/data/deep/er/moved"), 0, 0, 0, 0, 0]).expect("it is there");
        assert_eq!(io::sys_pread64(&[reader, USER + OUT, 9, 8186, 0, 0]), Ok(9));
        assert_eq!(&get(OUT, 9)[..], [&large[8186..8190], b"ch\0\0\0"].concat());
    });
}

#[test]
fn directories_on_the_disk_change_as_those_in_memory() {
    test(|| {
        assert_eq!(
            open(
                "/data/changed/small",
                abi::O_CREAT | abi::O_EXCL | abi::O_RDWR
            ),
            Err(Errno::EEXIST)
        );
        assert_eq!(
            dir::sys_rmdir(&[path("/data/changed"), 0, 0, 0, 0, 0]),
            Err(Errno::ENOTEMPTY)
        );
        dir::sys_unlink(&[path("/data/changed/small"), 0, 0, 0, 0, 0]).expect("it is there");
        assert_eq!(
            open("/data/changed/small", abi::O_RDONLY),
            Err(Errno::ENOENT)
        );
        open(
            "/data/changed/small",
            abi::O_CREAT | abi::O_EXCL | abi::O_RDWR,
        )
        .expect("made anew");
        assert!(contents("/data/changed/small", 100).is_empty());
        dir::sys_mkdir(&[path("/data/changed/dir"), 0o755, 0, 0, 0, 0]).expect("a new one");
        let mut names = names("/data/changed", 300);
        names.sort();
        assert_eq!(names, [".", "..", "dir", "other", "small"]);
        for file in ["small", "other"] {
            let name = format!("/data/changed/{file}");
            dir::sys_unlink(&[path(&name), 0, 0, 0, 0, 0]).expect("it is there");
        }
        dir::sys_rmdir(&[path("/data/changed/dir"), 0, 0, 0, 0, 0]).expect("it is empty");
        dir::sys_rmdir(&[path("/data/changed"), 0, 0, 0, 0, 0]).expect("it is empty");
        assert_eq!(open("/data/changed", abi::O_RDONLY), Err(Errno::ENOENT));
        assert_eq!(open("/loop", abi::O_RDONLY).err(), Some(Errno::ELOOP));
        assert_eq!(open("/dangling", abi::O_RDONLY).err(), Some(Errno::ENOENT));
    });
}

#[test]
fn directories_are_listed_whole_whatever_the_buffer() {
    test(|| {
        for buffer in [64, 300, 32768] {
            let mut found = names("/data/many", buffer);
            found.sort();
            let mut expected: Vec<String> = (0..600).map(|n| format!("{n:04}")).collect();
            expected.extend([".".into(), "..".into()]);
            expected.sort();
            assert_eq!(found, expected, "with a buffer of {buffer}");
        }
        let root = names("/", 100);
        for name in ["dev", "proc", "tmp", "data", "bin", "lost+found"] {
            assert_eq!(
                root.iter().filter(|found| *found == name).count(),
                1,
                "{name} in {root:?}"
            );
        }
        assert!(names("/dev", 4096).contains(&"null".into()));
        let fd = open("/data/many", abi::O_RDONLY).expect("it is there");
        assert_eq!(
            dir::sys_getdents64(&[fd, USER + OUT, 20, 0, 0, 0]),
            Err(Errno::EINVAL)
        );
    });
}

#[test]
fn devices() {
    test(|| {
        let zero = open("/dev/zero", abi::O_RDWR).expect("it is there");
        put(OUT, &[7; 100]);
        assert_eq!(read(zero, 100), Ok(vec![0; 100]));
        let null = open("/dev/null", abi::O_RDWR).expect("it is there");
        assert_eq!(read(null, 100), Ok(vec![]));
        assert_eq!(io::sys_write(&[null, USER, 100, 0, 0, 0]), Ok(100));
        let full = open("/dev/full", abi::O_RDWR).expect("it is there");
        assert_eq!(
            io::sys_write(&[full, USER, 100, 0, 0, 0]),
            Err(Errno::ENOSPC)
        );
        assert_eq!(io::sys_getrandom(&[USER + OUT, 100, 0, 0, 0, 0]), Ok(100));
        assert_ne!(get(OUT, 100), vec![0; 100]);
    });
}

#[test]
fn proc_tells_of_the_reader() {
    test(|| {
        let pid = crate::sched::current().process.pid;
        assert!(text("/proc/self/stat").starts_with(&format!("{pid} (")));
        assert!(text("/proc/self/status").contains(&format!("\nPid:\t{pid}\n")));
        assert!(
            text("/proc/self/statm")
                .split(' ')
                .next()
                .and_then(|n| n.parse::<u64>().ok())
                >= Some(256)
        );
        let maps = text("/proc/self/maps");
        assert!(
            maps.starts_with("2000000000-2000100000 rw-p 00000000 00:00 0 \n"),
            "{maps}"
        );
        assert!(text("/proc/meminfo").starts_with("MemTotal:"));
        assert_eq!(text("/proc/sys/kernel/ostype"), "Linux\n");
        assert_eq!(text("/proc/sys/kernel/random/boot_id").len(), 37);
        let fd = open("/data/small", abi::O_RDONLY).expect("it is there");
        let link = path(&format!("/proc/self/fd/{fd}"));
        let len = stat::sys_readlink(&[link, USER + OUT, 100, 0, 0, 0]).expect("a link");
        assert_eq!(get(OUT, len), b"/data/small");
        assert_eq!(contents(&format!("/proc/self/fd/{fd}"), 10), b"hello\n");
        assert!(names("/proc/self/fd", 1000).contains(&fd.to_string()));
        assert!(names("/proc", 1000).contains(&pid.to_string()));
        assert_eq!(
            open("/proc/self/stat", abi::O_WRONLY).err(),
            Some(Errno::EACCES)
        );
        assert_eq!(
            open("/proc/999999", abi::O_RDONLY).err(),
            Some(Errno::ENOENT)
        );
    });
}

#[test]
fn working_directory() {
    test(|| {
        let getcwd =
            |len: usize| dir::sys_getcwd(&[USER + OUT, len, 0, 0, 0, 0]).map(|len| get(OUT, len));
        assert_eq!(getcwd(100).expect("it fits"), b"/\0");
        dir::sys_chdir(&[path("/to-data/deep"), 0, 0, 0, 0, 0]).expect("a directory");
        assert_eq!(getcwd(100).expect("it fits"), b"/data/deep\0");
        assert_eq!(getcwd(10), Err(Errno::ERANGE));
        assert_eq!(contents("../small", 10), b"hello\n");
        assert_eq!(
            dir::sys_chdir(&[path("/data/small"), 0, 0, 0, 0, 0]),
            Err(Errno::ENOTDIR)
        );
        dir::sys_chdir(&[path("/proc/self/fd"), 0, 0, 0, 0, 0]).expect("a directory");
        let pid = crate::sched::current().process.pid;
        assert_eq!(
            getcwd(100).expect("it fits"),
            format!("/proc/{pid}/fd\0").as_bytes()
        );
    });
}

#[test]
fn mount_points_stay_where_they_are() {
    test(|| {
        assert_eq!(
            dir::sys_rmdir(&[path("/dev/shm"), 0, 0, 0, 0, 0]),
            Err(Errno::EBUSY)
        );
        let (old, new) = (path("/tmp"), put(8192, b"/dev/shm/x\0"));
        assert_eq!(dir::sys_rename(&[old, new, 0, 0, 0, 0]), Err(Errno::EXDEV));
        dir::sys_mkdir(&[path("/tmp/up"), 0o755, 0, 0, 0, 0]).expect("room");
        assert_eq!(
            names("/tmp/up/..", 4096)
                .iter()
                .filter(|name| *name == "up")
                .count(),
            1
        );
        assert!(names("/tmp/../", 4096).contains(&"proc".into()));
        dir::sys_rmdir(&[path("/tmp/up"), 0, 0, 0, 0, 0]).expect("it is empty");
    });
}
