//! Debian's kernels, fetched from the machine's own Debian archive, once, into a cache below the target directory.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use rustix::fs::{FlockOperation, flock};

use crate::apt::{Apt, Kind, Suites, logged};
use crate::progress::Step;
use crate::{interrupt, workspace};

/// The package that depends on the release's current kernel.
const PACKAGE: &str = "linux-image-cloud-amd64";

/// A kernel in the cache.
#[derive(Debug)]
pub struct Kernel {
    /// Its compressed image, as a boot loader takes it.
    pub image: PathBuf,
    /// Its version, such as `6.1.0-50-cloud-amd64 (6.1.176-1)`.
    pub version: String,
}

impl Kernel {
    /// The first two numbers of the version.
    pub fn series(&self) -> String {
        let numbers: Vec<&str> = self.version.splitn(3, '.').take(2).collect();
        numbers.join(".")
    }
}

/// The current kernel of a Debian release, fetched if none is there yet.
pub fn kernel(release: &str) -> Result<Kernel> {
    let cache = workspace::target_subdir("bench/linux")?;
    let place = cache.join(release);
    let lock = File::create(cache.join("lock")).context("cannot lock the kernels' cache")?;
    flock(&lock, FlockOperation::LockExclusive).context("cannot lock the kernels' cache")?;
    if !place.is_dir() {
        fetch(release, &cache, &place)?;
    }
    let version = fs::read_to_string(place.join("version")).context("the kernel's version")?;
    Ok(Kernel {
        image: place.join("vmlinuz"),
        version: version.trim().to_owned(),
    })
}

fn fetch(release: &str, cache: &Path, place: &Path) -> Result<()> {
    let _step = Step::begin(&format!("fetching the kernel of Debian {release}"));
    let scratch = cache.join("fetch");
    // What an interrupted attempt left.
    let _ = fs::remove_dir_all(&scratch);
    let log = cache.join(format!("{release}.log"));
    let fetched = download(release, &scratch, &log);
    interrupt::check()?;
    let (image, version) = fetched.with_context(|| {
        format!(
            "the Linux kernel of Debian {release} ({PACKAGE}) cannot be fetched from this machine's Debian archive (apt's messages are in {})",
            log.display()
        )
    })?;
    let new = scratch.join("new");
    fs::create_dir(&new)
        .and_then(|()| fs::rename(image, new.join("vmlinuz")))
        .and_then(|()| fs::write(new.join("version"), version))
        .and_then(|()| fs::rename(&new, place))
        .with_context(|| format!("cannot put {} in place", place.display()))?;
    let _ = fs::remove_dir_all(&scratch);
    Ok(())
}

/// Downloads the package that has the image; gives the image and its version.
fn download(release: &str, scratch: &Path, log: &Path) -> Result<(PathBuf, String)> {
    let apt = Apt::new(scratch, log)?;
    for archive in Apt::archives(Kind::Programs, Suites::Only(&[release]))? {
        if apt.ask(&archive).is_ok()
            && let Some(found) = follow(&apt, scratch, log)?
        {
            return Ok(found);
        }
        interrupt::check()?;
    }
    bail!("no archive has it")
}

/// Follows the package's dependencies to the one with the image. Newer releases have it in a package that the one of the modules needs.
fn follow(apt: &Apt<'_>, scratch: &Path, log: &Path) -> Result<Option<(PathBuf, String)>> {
    let mut candidates = apt.dependencies(PACKAGE)?;
    while let Some(name) = candidates.pop() {
        if !name.starts_with("linux-image-") && !name.starts_with("linux-binary-") {
            continue;
        }
        apt.get(&["download", &name])?;
        let package = find(scratch, &|file| file.starts_with(&format!("{name}_")))
            .with_context(|| format!("apt did not download {name}"))?;
        let unpacked = scratch.join("unpacked");
        let dpkg = workspace::require_tool("dpkg-deb", "dpkg")?;
        logged(
            Command::new(dpkg).arg("-x").args([&package, &unpacked]),
            log,
        )?;
        if let Some(image) = find(&unpacked, &|file| file.starts_with("vmlinuz")) {
            return Ok(Some((image, version(&name, &package)?)));
        }
        candidates.extend(apt.dependencies(&name)?);
    }
    Ok(None)
}

/// `linux-image-6.1.0-50-cloud-amd64` in a file `..._6.1.176-1_amd64.deb` is 6.1.176-1.
fn version(name: &str, package: &Path) -> Result<String> {
    let file = package.file_name().unwrap_or_default().to_string_lossy();
    let version = file.split('_').nth(1).map(str::to_owned);
    let version = version.with_context(|| format!("{file} names no version of {name}"))?;
    ensure!(
        version.starts_with(|first: char| first.is_ascii_digit()),
        "{version} is no version"
    );
    Ok(version)
}

/// A file in or below `dir` whose name is as wanted.
fn find(dir: &Path, wanted: &dyn Fn(&str) -> bool) -> Option<PathBuf> {
    for entry in fs::read_dir(dir).ok()?.flatten() {
        let kind = entry.file_type().ok()?;
        if kind.is_dir() {
            if let Some(found) = find(&entry.path(), wanted) {
                return Some(found);
            }
        } else if wanted(&entry.file_name().to_string_lossy()) {
            return Some(entry.path());
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kernel_is_named_by_its_package() {
        let package = Path::new("/x/linux-image-6.1.0-50-cloud-amd64_6.1.176-1_amd64.deb");
        let version = version("linux-image-6.1.0-50-cloud-amd64", package).unwrap();
        assert_eq!(version, "6.1.176-1");
        let kernel = Kernel {
            image: PathBuf::new(),
            version,
        };
        assert_eq!(kernel.series(), "6.1");
    }
}
