//! A new program's stack: argc, argv, envp and the auxiliary vector (System V ABI for AMD64, section 3.4.1; `getauxval(3)`).
//!
//! From the highest address down: a null word, the path, the environment's strings, the arguments' strings, "x86_64", sixteen random
//! bytes, then, at the stack pointer upwards, argc, argv, NULL, envp, NULL, and the vector.

use alloc::vec::Vec;

use linux_raw_sys::auxvec as at;

use super::load::Image;
use super::strings::Strings;
use crate::arch::{self, USER_END, machine};
use crate::errno::{Errno, Result};
use crate::mm::map::Place;
use crate::mm::{Mm, PAGE_SIZE, VmFlags};
use crate::task::credentials::Identity;
use crate::task::process::Layout;
use crate::task::rseq;

/// What is mapped at first; the rest grows on demand.
const INITIAL_SIZE: usize = 132 << 10;

/// Where the stack ends. The page above it is never mapped, so that what runs over the stack's end finds nothing.
const TOP: usize = USER_END - PAGE_SIZE;

/// Bytes that AT_RANDOM points to.
const RANDOM: usize = 16;

/// Ticks per second in times(2) and /proc.
pub const CLOCK_TICKS: usize = 100;

/// Maps the stack of a new address space; returns its upper end.
pub fn map(mm: &Mm) -> Result<usize> {
    let flags = VmFlags::READ
        | VmFlags::WRITE
        | VmFlags::MAYREAD
        | VmFlags::MAYWRITE
        | VmFlags::MAYEXEC
        | VmFlags::GROWSDOWN
        | VmFlags::STACK;
    mm.map(Place::Fixed(TOP - INITIAL_SIZE), INITIAL_SIZE, flags, None)?;
    Ok(TOP)
}

/// What is written to the stack, and where.
pub struct Contents {
    /// The stack pointer, 16-byte aligned, where `bytes` begin.
    pub sp: usize,
    pub bytes: Vec<u8>,
    layout: Layout,
}

impl Contents {
    /// Prepares the contents in kernel memory. `E2BIG`, `ENOMEM`.
    pub fn build(
        top: usize,
        path: &[u8],
        argv: &Strings,
        envp: &Strings,
        image: &Image,
        vdso: usize,
    ) -> Result<Contents> {
        let path_at = top - size_of::<usize>() - (path.len() + 1);
        let env_at = path_at - envp.bytes().len();
        let arg_at = env_at - argv.bytes().len();
        let platform_at = arg_at - (PLATFORM.len() + 1);
        let random_at = (platform_at - RANDOM) & !15;
        let vector = auxiliary_vector(image, vdso, path_at, platform_at, random_at);
        let words = 1 + argv.count() + 1 + envp.count() + 1 + 2 * vector.len();
        let sp = (random_at - words * size_of::<usize>()) & !15;
        let mut bytes = Vec::new();
        bytes.try_reserve_exact(top - sp)?;
        let mut word = |value: usize| bytes.extend_from_slice(&value.to_ne_bytes());
        word(argv.count());
        pointers(argv, arg_at).for_each(&mut word);
        word(0);
        pointers(envp, env_at).for_each(&mut word);
        word(0);
        vector.iter().for_each(|&(key, value)| {
            word(key as usize);
            word(value);
        });
        let mut put = |at: usize, what: &[u8]| {
            bytes.resize(at - sp, 0);
            bytes.extend_from_slice(what);
        };
        put(random_at, &machine::random_u64().to_ne_bytes());
        put(random_at + 8, &machine::random_u64().to_ne_bytes());
        put(platform_at, PLATFORM);
        put(arg_at, argv.bytes());
        put(env_at, envp.bytes());
        put(path_at, path);
        bytes.resize(top - sp, 0);
        if bytes.len() > INITIAL_SIZE.max(arg_space()) {
            return Err(Errno::E2BIG);
        }
        let layout = Layout {
            arg_start: arg_at,
            arg_end: env_at,
            env_start: env_at,
            env_end: path_at,
            stack_start: sp,
            code: image.code,
            data: image.data,
        };
        Ok(Contents { sp, bytes, layout })
    }

    pub fn layout(&self) -> Layout {
        self.layout
    }
}

const PLATFORM: &[u8] = b"x86_64";

/// How much of the stack's limit arguments may take: a quarter.
fn arg_space() -> usize {
    let limit = crate::sched::current()
        .process
        .rlimits
        .soft(crate::task::rlimit::Resource::Stack);
    usize::try_from(limit / 4)
        .unwrap_or(usize::MAX)
        .min(6 << 20)
}

/// The addresses of strings that lie one after the other from `start` on.
fn pointers(strings: &Strings, start: usize) -> impl Iterator<Item = usize> {
    strings.iter().scan(start, |at, string| {
        let this = *at;
        *at += string.len() + 1;
        Some(this)
    })
}

/// The entries that Linux gives, in its order (`create_elf_tables` in `fs/binfmt_elf.c`).
fn auxiliary_vector(
    image: &Image,
    vdso: usize,
    path_at: usize,
    platform_at: usize,
    random_at: usize,
) -> [(u32, usize); 23] {
    let Identity { user, group, .. } = crate::sched::current().process.credentials.get();
    [
        (at::AT_SYSINFO_EHDR, vdso),
        (at::AT_MINSIGSTKSZ, arch::min_frame_size()),
        (at::AT_HWCAP, arch::machine::hwcap()),
        (at::AT_PAGESZ, PAGE_SIZE),
        (at::AT_CLKTCK, CLOCK_TICKS),
        (at::AT_PHDR, image.phdr),
        (at::AT_PHENT, 56),
        (at::AT_PHNUM, image.phnum),
        (at::AT_BASE, 0),
        (at::AT_FLAGS, 0),
        (at::AT_ENTRY, image.entry),
        (at::AT_UID, user.real as usize),
        (at::AT_EUID, user.effective as usize),
        (at::AT_GID, group.real as usize),
        (at::AT_EGID, group.effective as usize),
        (at::AT_SECURE, 0),
        (at::AT_RANDOM, random_at),
        (at::AT_HWCAP2, arch::machine::hwcap2()),
        (at::AT_EXECFN, path_at),
        (at::AT_PLATFORM, platform_at),
        (at::AT_RSEQ_FEATURE_SIZE, rseq::FEATURE_SIZE),
        (at::AT_RSEQ_ALIGN, rseq::SIZE),
        (at::AT_NULL, 0),
    ]
}
