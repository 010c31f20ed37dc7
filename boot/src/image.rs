//! The boot disk (bootloader and kernel) and the cached root file systems.
//!
//! Everything here is a cache below the target directory: made under a lock, put in place by rename, and handed out
//! as an open file, so that a later rebuild cannot pull it from under a running machine. An interrupted build leaves
//! only a half-made file in the cache's own scratch directory, which the next build empties.

use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, anyhow, ensure};
use bootloader::{BootConfig, DiskImageBuilder};
use rustix::fs::{FlockOperation, flock};

use crate::interrupt::Guarded;
use crate::progress::Step;
use crate::rootfs::Tree;
use crate::workspace;

/// Changes when images are made in another way, so that old ones are not taken for current.
const VERSION: u32 = 1;

/// What the machine starts with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Firmware {
    #[default]
    Bios,
    Uefi,
}

impl Firmware {
    fn name(self) -> &'static str {
        match self {
            Self::Bios => "bios",
            Self::Uefi => "uefi",
        }
    }
}

/// An image in the cache: its path, and the file itself, held open.
#[derive(Debug)]
pub struct Image {
    pub path: PathBuf,
    pub file: File,
}

/// The bootable disk of `kernel`, an ELF file.
pub fn boot_disk(kernel: &Path, firmware: Firmware) -> Result<Image> {
    let stem = kernel.file_stem().unwrap_or_default().to_string_lossy();
    let name = format!("{stem}-{}.img", firmware.name());
    let key = identity(kernel)?;
    cached(&name, &key, "making the boot disk", |image, scratch| {
        let stripped = scratch.join("kernel");
        strip(kernel, &stripped)?;
        let mut config = BootConfig::default();
        config.frame_buffer_logging = false;
        config.serial_logging = false;
        let mut builder = DiskImageBuilder::new(stripped);
        builder.set_boot_config(&config);
        match firmware {
            Firmware::Bios => builder.create_bios_image(image),
            Firmware::Uefi => builder.create_uefi_image(image),
        }
        .map_err(|error| anyhow!("cannot make the boot disk: {error:#}"))
    })
}

/// The image of a root file system that is used again and again, under a `name` of its own.
pub fn root_disk(name: &str, tree: &Tree) -> Result<Image> {
    let key = tree.identity()?;
    cached(
        &format!("{name}.ext4"),
        &key,
        "making the root file system",
        |image, _| {
            let file = File::options()
                .read(true)
                .write(true)
                .create_new(true)
                .open(image);
            tree.write_image(&file.with_context(|| format!("cannot make {}", image.display()))?)
        },
    )
}

/// A text that changes whenever the file does.
pub fn identity(file: &Path) -> Result<String> {
    let metadata =
        fs::metadata(file).with_context(|| format!("{} cannot be read", file.display()))?;
    let (seconds, nanoseconds) = (metadata.mtime(), metadata.mtime_nsec());
    Ok(format!(
        "{} {} {seconds}.{nanoseconds:09}\n",
        file.display(),
        metadata.len()
    ))
}

/// The image `name` if it was made with the same `key`, else a new one from `make(path, scratch directory)`.
fn cached(
    name: &str,
    key: &str,
    what: &str,
    make: impl FnOnce(&Path, &Path) -> Result<()>,
) -> Result<Image> {
    let dir = workspace::target_subdir("image")?;
    let (path, key_path) = (dir.join(name), dir.join(format!("{name}.key")));
    let key = format!("version {VERSION}\n{key}");
    let lock = File::create(dir.join("lock")).context("cannot lock the image cache")?;
    flock(&lock, FlockOperation::LockExclusive).context("cannot lock the image cache")?;
    if fs::read_to_string(&key_path).is_ok_and(|old| old == key)
        && let Ok(image) = open(&path)
    {
        return Ok(image);
    }
    let _step = Step::begin(what);
    let scratch = dir.join("scratch");
    // It is missing at first, and holds what an interrupted build left.
    let _ = fs::remove_dir_all(&scratch);
    fs::create_dir(&scratch).context("cannot make the image cache's scratch directory")?;
    // Where the bootloader crate makes its own temporary files. An error: it was already set, to the same.
    let _ = tempfile::env::override_temp_dir(&scratch);
    let _ = fs::remove_file(&key_path);
    let new = scratch.join(name);
    make(&new, &scratch)?;
    fs::rename(&new, &path).with_context(|| format!("cannot put {} in place", path.display()))?;
    fs::write(scratch.join("key"), &key)
        .and_then(|()| fs::rename(scratch.join("key"), &key_path))
        .with_context(|| format!("cannot write {}", key_path.display()))?;
    let _ = fs::remove_dir_all(&scratch);
    open(&path)
}

fn open(path: &Path) -> Result<Image> {
    let file = File::open(path).with_context(|| format!("{} cannot be opened", path.display()))?;
    Ok(Image {
        path: path.to_path_buf(),
        file,
    })
}

/// Copies the kernel without symbols: the firmware reads it slowly, and nothing in the machine needs them.
fn strip(kernel: &Path, stripped: &Path) -> Result<()> {
    let tool = workspace::require_tool("strip", "binutils")?;
    let mut command = Command::new(tool);
    command
        .arg("-s")
        .arg("-o")
        .arg(stripped)
        .arg(kernel)
        .stdin(Stdio::null());
    let mut guarded = Guarded::spawn(&mut command, &[]).context("cannot start strip")?;
    let status = guarded.child().wait().context("cannot wait for strip")?;
    ensure!(
        status.success(),
        "strip failed on {} ({status})",
        kernel.display()
    );
    Ok(())
}
