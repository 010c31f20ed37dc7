//! The same random calls made here, on /tmp, and on the host's Linux, in a temporary directory: every answer must be the same.
//!
//! Both sides work below 40 nested directories, further down than any sequence of `..` in a test can climb.

use std::ffi::CString;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use linux_raw_sys::general as abi;

use crate::arch::PtRegs;
use crate::arch::sim::machine::run_test;
use crate::errno::Errno;
use crate::fs::testing::{get, mount_once, put, user_memory};
use crate::syscall::TABLE;

const DEPTH: usize = 40;
const BUFFER: usize = 65536;

/// Where calls are made.
trait System {
    fn call(&mut self, number: u32, args: [usize; 6]) -> Result<usize, i32>;
    /// Puts bytes where calls find them: two slots for paths, and a buffer.
    fn put(&mut self, slot: usize, bytes: &[u8]) -> usize;
    fn get(&mut self, slot: usize, len: usize) -> Vec<u8>;
    fn base(&self) -> Vec<u8>;
}

/// The kernel under test.
struct Here;

impl System for Here {
    fn call(&mut self, number: u32, args: [usize; 6]) -> Result<usize, i32> {
        let mut regs = PtRegs::new_syscall(number as usize, args);
        TABLE[number as usize](&mut regs);
        let value = regs.return_value();
        match Errno::from_ret(value) {
            Some(_) => Err(value.wrapping_neg() as i32),
            None => Ok(value),
        }
    }

    fn put(&mut self, slot: usize, bytes: &[u8]) -> usize {
        put(slot * BUFFER, bytes)
    }

    fn get(&mut self, slot: usize, len: usize) -> Vec<u8> {
        get(slot * BUFFER, len)
    }

    fn base(&self) -> Vec<u8> {
        b"/tmp/same".to_vec()
    }
}

/// The host's Linux.
struct Linux {
    dir: PathBuf,
    slots: Vec<Vec<u8>>,
}

impl System for Linux {
    fn call(&mut self, number: u32, args: [usize; 6]) -> Result<usize, i32> {
        // SAFETY: the test passes addresses of its own slots, which are as large as the calls are told.
        let answer = unsafe {
            libc::syscall(
                number as i64,
                args[0],
                args[1],
                args[2],
                args[3],
                args[4],
                args[5],
            )
        };
        if answer < 0 {
            Err(std::io::Error::last_os_error().raw_os_error().unwrap())
        } else {
            Ok(answer as usize)
        }
    }

    fn put(&mut self, slot: usize, bytes: &[u8]) -> usize {
        self.slots[slot][..bytes.len()].copy_from_slice(bytes);
        self.slots[slot].as_ptr() as usize
    }

    fn get(&mut self, slot: usize, len: usize) -> Vec<u8> {
        self.slots[slot][..len].to_vec()
    }

    fn base(&self) -> Vec<u8> {
        self.dir.as_os_str().as_bytes().to_vec()
    }
}

/// xorshift64.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) as usize % limit
    }

    fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len())]
    }

    /// A relative path of few names, with every oddity.
    fn path(&mut self) -> String {
        let mut path = String::new();
        let mut climbs = 0;
        for n in 0..1 + self.below(3) {
            if n > 0 {
                path += self.pick(&["/", "/", "/", "//"]);
            }
            match self.below(16) {
                0 if climbs < 2 => {
                    climbs += 1;
                    path += "..";
                }
                1 => path += ".",
                2 => path += &"x".repeat(self.pick(&[255, 256])),
                _ => path += self.pick(&["a", "b", "c", "d"]),
            }
        }
        path + self.pick(&["", "", "", "", "", "", "/", "/."])
    }
}

/// One call, the same on both sides. Descriptors are slots 0..4 of the test's own.
#[derive(Debug)]
enum Op {
    Open(usize, String, u32, usize),
    Close(usize),
    Read(usize, usize),
    Write(usize, usize, u8),
    Pread(usize, usize, usize),
    Seek(usize, i64, u32),
    FTruncate(usize, i64),
    Dup(usize, usize),
    List(usize),
    Fstat(usize),
    Mkdir(String),
    Rmdir(String),
    Unlink(String),
    Rename(String, String, u32),
    Link(String, String, u32),
    Symlink(String, String),
    ReadLink(String),
    Stat(String, u32),
    Access(String, u32),
    Truncate(String, i64),
    Chmod(String, u32),
}

fn random_op(random: &mut Random) -> Op {
    let fd = random.below(4);
    match random.below(30) {
        0..4 => {
            let access = random.pick(&[
                abi::O_RDONLY,
                abi::O_WRONLY,
                abi::O_RDWR,
                abi::O_RDWR,
                abi::O_PATH,
            ]);
            let create = random.pick(&[0, abi::O_CREAT, abi::O_CREAT, abi::O_CREAT | abi::O_EXCL]);
            let more = random.pick(&[
                0,
                0,
                0,
                abi::O_TRUNC,
                abi::O_APPEND,
                abi::O_DIRECTORY,
                abi::O_NOFOLLOW,
                abi::O_ACCMODE,
            ]);
            Op::Open(
                fd,
                random.path(),
                access | create | more,
                random.pick(&[0o644, 0o600, 0o777]),
            )
        }
        4 => Op::Close(fd),
        5 => Op::Read(fd, random.below(9000)),
        6..8 => Op::Write(fd, random.below(9000), random.below(256) as u8),
        8 => Op::Pread(fd, random.below(5000), random.below(10000)),
        9 => Op::Seek(
            fd,
            random.below(12000) as i64 - 2000,
            random.pick(&[0, 0, 1, 1, 2, 2, 5]),
        ),
        10 => Op::FTruncate(fd, random.below(12000) as i64 - 1000),
        11 => Op::Dup(fd, random.below(4)),
        12 => Op::List(fd),
        13 => Op::Fstat(fd),
        14..17 => Op::Mkdir(random.path()),
        17 => Op::Rmdir(random.path()),
        18..20 => Op::Unlink(random.path()),
        20..23 => Op::Rename(
            random.path(),
            random.path(),
            random.pick(&[0, 0, 0, 1, 2, 3, 8]),
        ),
        23 => Op::Link(
            random.path(),
            random.path(),
            random.pick(&[0, 0, abi::AT_SYMLINK_FOLLOW, 1]),
        ),
        24 => Op::Symlink(
            random
                .pick(&["a", "b", "./c", "../a", "a/b", "d/", "none", ""])
                .into(),
            random.path(),
        ),
        25 => Op::ReadLink(random.path()),
        26 => Op::Stat(
            random.path(),
            random.pick(&[0, abi::AT_SYMLINK_NOFOLLOW, 1]),
        ),
        27 => Op::Access(random.path(), random.below(9) as u32),
        28 => Op::Truncate(random.path(), random.below(9000) as i64 - 500),
        _ => Op::Chmod(random.path(), random.pick(&[0o644, 0o755, 0o1777])),
    }
}

/// One side with its open descriptors.
struct Side<S: System> {
    system: S,
    fds: [usize; 4],
    base: Vec<u8>,
}

/// A descriptor that is not open.
const NO_FD: usize = 1 << 20;

impl<S: System> Side<S> {
    fn new(mut system: S) -> Side<S> {
        let mut base = system.base();
        for n in 0..=DEPTH {
            if n > 0 {
                base.extend_from_slice(b"/n");
            }
            let path = system.put(0, &[&base[..], b"\0"].concat());
            system
                .call(abi::__NR_mkdir, [path, 0o755, 0, 0, 0, 0])
                .expect("a directory");
        }
        Side {
            system,
            fds: [NO_FD; 4],
            base,
        }
    }

    fn path(&mut self, slot: usize, path: &str) -> usize {
        let full = if path.is_empty() {
            Vec::new()
        } else {
            [&self.base[..], b"/", path.as_bytes()].concat()
        };
        let full = CString::new(full).expect("no NUL");
        self.system.put(slot, full.as_bytes_with_nul())
    }

    fn call(&mut self, number: u32, args: &[usize]) -> Result<usize, i32> {
        let mut all = [0; 6];
        all[..args.len()].copy_from_slice(args);
        self.system.call(number, all)
    }

    /// Makes the call; its answer with everything that must be the same.
    fn run(&mut self, op: &Op) -> Result<(usize, Vec<u8>), i32> {
        let plain = |answer: usize| (answer, Vec::new());
        let cwd = abi::AT_FDCWD as usize;
        match *op {
            Op::Open(slot, ref path, flags, mode) => {
                let path = self.path(0, path);
                let fd = self.call(
                    abi::__NR_open,
                    &[path, (flags | abi::O_CLOEXEC) as usize, mode],
                )?;
                let old = std::mem::replace(&mut self.fds[slot], fd);
                if old != NO_FD {
                    self.call(abi::__NR_close, &[old])?;
                }
                let flags = self.call(abi::__NR_fcntl, &[fd, abi::F_GETFL as usize, 0])?;
                Ok(plain(flags & !(abi::O_LARGEFILE as usize)))
            }
            Op::Close(slot) => {
                let fd = std::mem::replace(&mut self.fds[slot], NO_FD);
                self.call(abi::__NR_close, &[fd]).map(plain)
            }
            Op::Read(slot, len) => {
                if self.is_directory(slot) {
                    // Linux looks at the position before it says that this is a directory.
                    return Ok(plain(0));
                }
                let buffer = self.system.put(2, &[0xee; BUFFER]);
                let got = self.call(abi::__NR_read, &[self.fds[slot], buffer, len])?;
                Ok((got, self.system.get(2, len)))
            }
            Op::Write(slot, len, byte) => {
                let buffer = self.system.put(2, &vec![byte; len]);
                self.call(abi::__NR_write, &[self.fds[slot], buffer, len])
                    .map(plain)
            }
            Op::Pread(slot, len, at) => {
                let buffer = self.system.put(2, &[0xee; BUFFER]);
                let got = self.call(abi::__NR_pread64, &[self.fds[slot], buffer, len, at])?;
                Ok((got, self.system.get(2, len)))
            }
            Op::Seek(slot, at, whence) => {
                if self.is_directory(slot) {
                    // What a directory's positions mean is each file system's own.
                    return Ok(plain(0));
                }
                self.call(
                    abi::__NR_lseek,
                    &[self.fds[slot], at as usize, whence as usize],
                )
                .map(plain)
            }
            Op::FTruncate(slot, size) => self
                .call(abi::__NR_ftruncate, &[self.fds[slot], size as usize])
                .map(plain),
            Op::Dup(from, to) => {
                if self.fds[to] == NO_FD {
                    let fd = self.call(abi::__NR_dup, &[self.fds[from]])?;
                    self.fds[to] = fd;
                } else {
                    self.call(abi::__NR_dup2, &[self.fds[from], self.fds[to]])?;
                }
                Ok(plain(0))
            }
            Op::List(slot) => self.list(slot),
            Op::Fstat(slot) => {
                let buffer = self.system.put(2, &[0; 144]);
                self.call(abi::__NR_fstat, &[self.fds[slot], buffer])?;
                Ok((0, self.shown_stat()))
            }
            Op::Mkdir(ref path) => {
                let path = self.path(0, path);
                self.call(abi::__NR_mkdir, &[path, 0o750]).map(plain)
            }
            Op::Rmdir(ref path) => {
                let path = self.path(0, path);
                self.call(abi::__NR_rmdir, &[path]).map(plain)
            }
            Op::Unlink(ref path) => {
                let path = self.path(0, path);
                self.call(abi::__NR_unlink, &[path]).map(plain)
            }
            Op::Rename(ref old, ref new, flags) => {
                let (old, new) = (self.path(0, old), self.path(1, new));
                self.call(abi::__NR_renameat2, &[cwd, old, cwd, new, flags as usize])
                    .map(plain)
            }
            Op::Link(ref old, ref new, flags) => {
                let (old, new) = (self.path(0, old), self.path(1, new));
                self.call(abi::__NR_linkat, &[cwd, old, cwd, new, flags as usize])
                    .map(plain)
            }
            Op::Symlink(ref target, ref path) => {
                let target = self.system.put(1, &[target.as_bytes(), b"\0"].concat());
                let path = self.path(0, path);
                self.call(abi::__NR_symlink, &[target, path]).map(plain)
            }
            Op::ReadLink(ref path) => {
                let buffer = self.system.put(2, &[0; 256]);
                let path = self.path(0, path);
                let len = self.call(abi::__NR_readlink, &[path, buffer, 256])?;
                Ok((len, self.system.get(2, len)))
            }
            Op::Stat(ref path, flags) => {
                let buffer = self.system.put(2, &[0; 144]);
                let path = self.path(0, path);
                self.call(abi::__NR_newfstatat, &[cwd, path, buffer, flags as usize])?;
                Ok((0, self.shown_stat()))
            }
            Op::Access(ref path, mode) => {
                let path = self.path(0, path);
                self.call(abi::__NR_access, &[path, mode as usize])
                    .map(plain)
            }
            Op::Truncate(ref path, size) => {
                let path = self.path(0, path);
                self.call(abi::__NR_truncate, &[path, size as usize])
                    .map(plain)
            }
            Op::Chmod(ref path, mode) => {
                let path = self.path(0, path);
                self.call(abi::__NR_chmod, &[path, mode as usize])
                    .map(plain)
            }
        }
    }

    fn is_directory(&mut self, slot: usize) -> bool {
        let buffer = self.system.put(2, &[0; 144]);
        self.call(abi::__NR_fstat, &[self.fds[slot], buffer])
            .is_ok()
            && self.system.get(2, 28)[25] & 0xf0 == 0x40
    }

    /// Mode, and for what is not a directory links and size.
    fn shown_stat(&mut self) -> Vec<u8> {
        let bytes = self.system.get(2, 144);
        let mut shown = bytes[24..28].to_vec();
        if bytes[25] & 0xf0 != 0x40 {
            shown.extend_from_slice(&bytes[16..24]);
            shown.extend_from_slice(&bytes[48..56]);
        }
        shown
    }

    /// All names of a directory with their types, sorted.
    fn list(&mut self, slot: usize) -> Result<(usize, Vec<u8>), i32> {
        if self.is_directory(slot) {
            self.call(abi::__NR_lseek, &[self.fds[slot], 0, 0])?;
        }
        let mut names = Vec::new();
        loop {
            let buffer = self.system.put(2, &[0; 512]);
            let len = self.call(abi::__NR_getdents64, &[self.fds[slot], buffer, 512])?;
            if len == 0 {
                break;
            }
            let mut bytes = &self.system.get(2, len)[..];
            while !bytes.is_empty() {
                let size = u16::from_ne_bytes([bytes[16], bytes[17]]) as usize;
                let name: Vec<u8> = bytes[19..size]
                    .iter()
                    .copied()
                    .take_while(|&byte| byte != 0)
                    .collect();
                names.push((name, bytes[18]));
                bytes = &bytes[size..];
            }
        }
        names.sort();
        Ok((
            names.len(),
            names
                .into_iter()
                .flat_map(|(name, kind)| [name, vec![b'/', kind]].concat())
                .collect(),
        ))
    }
}

#[test]
fn random_calls_answer_as_on_linux() {
    run_test(|| {
        mount_once();
        user_memory();
        let dir = std::env::temp_dir().join(format!("faultline-same-{}", std::process::id()));
        // SAFETY: changes a number of the process that nothing else in the tests depends on.
        unsafe { libc::umask(0o022) };
        let linux = Linux {
            dir: dir.clone(),
            slots: vec![vec![0; BUFFER]; 3],
        };
        let (mut here, mut there) = (Side::new(Here), Side::new(linux));
        let seed = std::env::var("FAULTLINE_SEED")
            .ok()
            .and_then(|seed| seed.parse().ok())
            .unwrap_or(0x5eed);
        let mut random = Random(seed);
        let mut before: Vec<String> = Vec::new();
        let mut succeeded = 0;
        for step in 0..30_000 {
            let op = random_op(&mut random);
            let (ours, theirs) = (here.run(&op), there.run(&op));
            succeeded += usize::from(ours.is_ok());
            let shown = |answer: &Result<(usize, Vec<u8>), i32>| match answer {
                Ok((value, bytes)) => format!(
                    "{value} {:?}",
                    String::from_utf8_lossy(&bytes[..bytes.len().min(200)])
                ),
                Err(code) => format!("{:?}", Errno::from_ret(-(*code as isize) as usize)),
            };
            let line = format!("{step}: {op:?} -> {}", shown(&theirs));
            if ours != theirs {
                let last = before.len().saturating_sub(160);
                panic!(
                    "seed {seed}\n{}\n{line}\nbut here {}",
                    before[last..].join("\n"),
                    shown(&ours)
                );
            }
            before.push(line);
        }
        assert!(succeeded > 5_000, "only {succeeded} calls did anything");
        std::fs::remove_dir_all(&dir).expect("the temporary directory can go");
    });
}
