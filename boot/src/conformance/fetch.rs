//! Fetches the Open POSIX Test Suite from the machine's own Debian archive, once, into a cache below the target directory.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use rustix::fs::{FlockOperation, flock};

use crate::apt::{Apt, Kind, Suites, logged};
use crate::progress::Step;
use crate::{interrupt, workspace};

/// The source package.
const PACKAGE: &str = "posixtestsuite";
/// Debian releases that have it, for machines whose own release does not.
const SUITES: [&str; 3] = ["bookworm", "trixie", "sid"];

/// The suite's top folder, fetched if it is not there yet.
pub fn suite() -> Result<PathBuf> {
    let cache = workspace::target_subdir("conformance")?;
    let top = cache.join(PACKAGE);
    let lock = File::create(cache.join("lock")).context("cannot lock the suite's cache")?;
    flock(&lock, FlockOperation::LockExclusive).context("cannot lock the suite's cache")?;
    if top.is_dir() {
        return Ok(top);
    }
    let _step = Step::begin("fetching the Open POSIX Test Suite");
    // What an interrupted attempt left.
    let scratch = cache.join("fetch");
    let _ = fs::remove_dir_all(&scratch);
    let log = cache.join("fetch.log");
    let fetched = Apt::new(&scratch, &log).and_then(|apt| fetch(&apt, &scratch));
    interrupt::check()?;
    let fetched = fetched.with_context(|| {
        format!(
            "the Open POSIX Test Suite (source package {PACKAGE}) cannot be fetched from this machine's Debian archive: connect to the \
             network and try again, or name a folder of programs with --suite (apt's messages are in {})",
            log.display()
        )
    })?;
    let unpacked = unpack(&scratch, &fetched, &log)
        .with_context(|| format!("the suite cannot be unpacked (see {})", log.display()))?;
    fs::rename(&unpacked, &top)
        .with_context(|| format!("cannot put {} in place", top.display()))?;
    let _ = fs::remove_dir_all(&scratch);
    Ok(top)
}

/// Downloads the source package; gives the names of its files in `dir`.
fn fetch(apt: &Apt<'_>, dir: &Path) -> Result<Vec<String>> {
    for archive in Apt::archives(Kind::Sources, Suites::OwnAnd(&SUITES))? {
        if apt.ask(&archive).is_ok() && apt.get(&["source", "--download-only", PACKAGE]).is_ok() {
            let dsc = fs::read_dir(dir)?
                .flatten()
                .find(|entry| entry.path().extension().is_some_and(|name| name == "dsc"))
                .context("apt fetched no description of the package")?;
            let text = fs::read_to_string(dsc.path())?;
            return checksums(&text).context("the package's description has no checksums");
        }
        interrupt::check()?;
    }
    bail!("no archive has it")
}

/// The names of the files that a package's description lists with their SHA-256 sums.
fn checksums(dsc: &str) -> Option<Vec<String>> {
    let lines = dsc
        .lines()
        .skip_while(|line| !line.starts_with("Checksums-Sha256:"))
        .skip(1);
    let files: Vec<String> = lines
        .take_while(|line| line.starts_with(' '))
        .filter_map(|line| line.split_whitespace().nth(2).map(str::to_owned))
        .collect();
    (!files.is_empty()).then_some(files)
}

/// Unpacks the sources and puts Debian's patches on them.
fn unpack(dir: &Path, files: &[String], log: &Path) -> Result<PathBuf> {
    for file in files.iter().filter(|file| file.contains(".tar.")) {
        let tar = workspace::require_tool("tar", "tar")?;
        logged(
            Command::new(tar).current_dir(dir).args(["-x", "-f", file]),
            log,
        )?;
    }
    let top = dir.join(PACKAGE);
    ensure!(top.is_dir(), "the package has another layout than it had");
    let patches = dir.join("debian/patches");
    let series = fs::read_to_string(patches.join("series")).unwrap_or_default();
    let patch = workspace::require_tool("patch", "patch")?;
    for name in series
        .lines()
        .map(str::trim)
        .filter(|name| !name.is_empty() && !name.starts_with('#'))
    {
        let mut command = Command::new(&patch);
        command
            .current_dir(&top)
            .args(["-s", "-f", "-p1", "-i"])
            .arg(patches.join(name));
        logged(&mut command, log)?;
    }
    Ok(top)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_those_with_a_checksum() {
        let dsc = "Format: 3.0\nFiles:\n 0 1 old.tar.gz\nChecksums-Sha256:\n aa 10 a.orig.tar.gz\n bb 20 a.debian.tar.xz\nHomepage: x\n";
        assert_eq!(
            checksums(dsc).unwrap(),
            ["a.orig.tar.gz", "a.debian.tar.xz"]
        );
        assert!(checksums("Format: 3.0\n").is_none());
    }
}
