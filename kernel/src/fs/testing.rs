//! What host tests of files need: a root file system, made once for all of them, and user memory.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Once;

use crate::arch::sim::machine::current_mm;
use crate::mm::map::Place;
use crate::mm::{VmFlags, uaccess};

/// Where [`user_memory`] is.
pub const USER: usize = 0x20_0000_0000;
/// Its size in bytes.
pub const USER_LEN: usize = 1 << 20;

/// Contents of `/data/large`: pages that differ, the last one partial.
pub fn large() -> Vec<u8> {
    (0..70_000u32).flat_map(|n| n.to_le_bytes()).collect()
}

fn mke2fs() -> Command {
    let places = ["/usr/sbin/mke2fs", "/sbin/mke2fs"];
    Command::new(
        places
            .into_iter()
            .find(|path| Path::new(path).exists())
            .unwrap_or("mke2fs"),
    )
}

/// An ext4 image with a few files.
fn image() -> Vec<u8> {
    let dir: PathBuf = std::env::temp_dir().join(format!("faultline-fs-{}", std::process::id()));
    let root = dir.join("root");
    for sub in ["bin", "data/many", "tmp", "data/deep/er", "data/changed"] {
        std::fs::create_dir_all(root.join(sub)).expect("a temporary directory");
    }
    let write = |name: &str, bytes: &[u8]| {
        std::fs::write(root.join(name), bytes).expect("a temporary file")
    };
    write("data/large", &large());
    write("data/small", b"hello\n");
    write("data/deep/large", &large());
    write("data/changed/small", b"hello\n");
    write("data/changed/other", b"");
    write("data/empty", b"");
    write("bin/program", b"\x7fELF");
    (0..600).for_each(|n| write(&format!("data/many/{n:04}"), b""));
    for (target, link) in [
        ("small", "data/link"),
        ("/data", "to-data"),
        ("loop", "loop"),
        ("nowhere", "dangling"),
    ] {
        std::os::unix::fs::symlink(target, root.join(link)).expect("a link");
    }
    let executable = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(root.join("bin/program"), executable).expect("permissions");
    let image = dir.join("image");
    let status = mke2fs()
        .args(["-q", "-t", "ext4", "-d"])
        .args([&root, &image])
        .arg("8M")
        .stdout(Stdio::null())
        .status()
        .expect("mke2fs (package e2fsprogs) is installed");
    assert!(status.success(), "mke2fs failed");
    let bytes = std::fs::read(&image).expect("the image");
    std::fs::remove_dir_all(&dir).expect("the temporary directory can go");
    bytes
}

/// Mounts the tree, the first time. From a test's thread on the simulated machine.
pub fn mount_once() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| super::mount(Box::new(image())).expect("the image is a file system"));
}

/// Gives the test's process readable and writable memory at [`USER`].
pub fn user_memory() {
    let flags = VmFlags::READ | VmFlags::WRITE | VmFlags::MAYREAD | VmFlags::MAYWRITE;
    current_mm()
        .map(Place::Fixed(USER), USER_LEN, flags, None)
        .expect("room");
}

/// Puts bytes into user memory and returns their address.
pub fn put(at: usize, bytes: &[u8]) -> usize {
    uaccess::write_bytes(USER + at, bytes).expect("mapped");
    USER + at
}

/// Bytes of user memory.
pub fn get(at: usize, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    uaccess::read_bytes(USER + at, &mut bytes).expect("mapped");
    bytes
}
