//! Fetches the Open POSIX Test Suite from the machine's own Debian archive, once, into a cache below the target directory.
//!
//! apt does it, with lists and a cache of its own, so that the machine's set-up stays as it is. apt knows the archive's key, and with
//! it the checksum of every file; a file whose checksum is another does not get past it.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::Write;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};
use rustix::fs::{FlockOperation, flock};

use crate::interrupt::{self, Guarded};
use crate::progress::Step;
use crate::workspace;

/// The source package.
const PACKAGE: &str = "posixtestsuite";
/// Debian releases that have it, for machines whose own release does not.
const SUITES: [&str; 3] = ["bookworm", "trixie", "sid"];
/// Where Debian puts its keys.
const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

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
    let apt = Apt::new(&scratch, &log)?;
    let fetched = apt.fetch();
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

/// apt with lists and a cache in a folder of its own.
struct Apt<'a> {
    dir: &'a Path,
    log: &'a Path,
}

impl<'a> Apt<'a> {
    fn new(dir: &'a Path, log: &'a Path) -> Result<Self> {
        for name in ["lists/partial", "cache/archives/partial"] {
            fs::create_dir_all(dir.join(name)).context("cannot make the folders to fetch into")?;
        }
        File::create(log).context("cannot write the log")?;
        Ok(Self { dir, log })
    }

    /// Downloads the source package into the folder; gives the names of its files.
    fn fetch(&self) -> Result<Vec<String>> {
        ensure!(
            workspace::find_tool("apt-get").is_some(),
            "there is no apt-get on this machine"
        );
        let sources = sources(&machine_archives()?);
        ensure!(!sources.is_empty(), "apt knows no Debian archive");
        for source in sources {
            fs::write(self.dir.join("sources.list"), &source).context("cannot write apt's list")?;
            if self.get(&["update"]).is_err() {
                interrupt::check()?;
                continue;
            }
            if self.get(&["source", "--download-only", PACKAGE]).is_ok() {
                let dsc = fs::read_dir(self.dir)?
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

    fn get(&self, words: &[&str]) -> Result<()> {
        let option = |name: &str, value: &Path| format!("{name}={}", value.display());
        let mut command = Command::new("apt-get");
        command.current_dir(self.dir);
        for option in [
            option("Dir::Etc::sourcelist", &self.dir.join("sources.list")),
            "Dir::Etc::sourceparts=/dev/null".into(),
            option("Dir::State::lists", &self.dir.join("lists")),
            option("Dir::Cache", &self.dir.join("cache")),
            "Acquire::Languages=none".into(),
            "Acquire::Retries=1".into(),
            "Acquire::http::Timeout=30".into(),
            // Without the list itself there is nothing to look for.
            "APT::Update::Error-Mode=any".into(),
            format!("APT::Sandbox::User={}", user()),
        ] {
            command.arg("-o").arg(option);
        }
        logged(command.args(words), self.log)
    }
}

/// Who runs this, as apt wants it named: its own user could not write into the target directory.
fn user() -> String {
    let id = rustix::process::geteuid();
    if id.is_root() {
        "root".into()
    } else {
        format!("#{}", id.as_raw())
    }
}

/// Runs a tool with its messages in the log.
fn logged(command: &mut Command, log: &Path) -> Result<()> {
    let mut file = File::options()
        .append(true)
        .open(log)
        .context("cannot write the log")?;
    let name = command.get_program().to_string_lossy().into_owned();
    writeln!(file, "+ {command:?}").context("cannot write the log")?;
    command
        .stdin(Stdio::null())
        .stdout(file.try_clone()?)
        .stderr(file.try_clone()?);
    let mut guarded =
        Guarded::spawn(command, &[file.as_fd()]).with_context(|| format!("cannot start {name}"))?;
    let status = guarded
        .child()
        .wait()
        .with_context(|| format!("cannot wait for {name}"))?;
    interrupt::check()?;
    ensure!(status.success(), "{name} failed ({status})");
    Ok(())
}

/// What apt says of the archives it uses: component, address, release, key file; one a line.
fn machine_archives() -> Result<String> {
    let output = Command::new("apt-get")
        .args([
            "indextargets",
            "--format",
            "$(COMPONENT) $(REPO_URI) $(RELEASE) $(SIGNED_BY)",
        ])
        .arg("Created-By: Packages")
        .stdin(Stdio::null())
        .output()
        .context("cannot ask apt for its archives")?;
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Lines for sources.list to try, the machine's own release first.
fn sources(archives: &str) -> Vec<String> {
    let mut seen = BTreeSet::new();
    let mut lines = Vec::new();
    let mut add = |uri: &str, suite: &str, key: &str| {
        let key = if key.starts_with('/') {
            format!("[signed-by={key}] ")
        } else if Path::new(KEYRING).is_file() {
            format!("[signed-by={KEYRING}] ")
        } else {
            String::new()
        };
        if seen.insert((uri.to_owned(), suite.to_owned())) {
            lines.push(format!("deb-src {key}{uri} {suite} main\n"));
        }
    };
    let archives: Vec<Vec<&str>> = archives
        .lines()
        .map(|line| line.split_whitespace().collect::<Vec<_>>())
        .filter(|words| words.len() >= 3 && words[0] == "main" && !words[1].contains("security"))
        .collect();
    for words in &archives {
        add(words[1], words[2], words.get(3).unwrap_or(&""));
    }
    for suite in SUITES {
        for words in &archives {
            add(words[1], suite, words.get(3).unwrap_or(&""));
        }
    }
    lines
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
    fn the_machines_own_release_is_asked_first() {
        let archives = "main http://mirror/debian/ trixie /keys/debian.gpg\n\
                        main http://mirror/debian-security/ trixie-security $(SIGNED_BY)\n\
                        contrib http://mirror/debian/ trixie $(SIGNED_BY)\n";
        let lines = sources(archives);
        assert_eq!(
            lines,
            [
                "deb-src [signed-by=/keys/debian.gpg] http://mirror/debian/ trixie main\n",
                "deb-src [signed-by=/keys/debian.gpg] http://mirror/debian/ bookworm main\n",
                "deb-src [signed-by=/keys/debian.gpg] http://mirror/debian/ sid main\n",
            ]
        );
        assert!(sources("").is_empty());
    }

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
