//! apt with lists and a cache of its own, so that the machine's set-up stays as it is. apt knows the archive's key, and with it the
//! checksum of every file; a file whose checksum is another does not get past it. Which archive it asks is the machine's own choice.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::Write;
use std::os::fd::AsFd;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};

use crate::interrupt::{self, Guarded};
use crate::workspace;

/// Where Debian puts its keys.
const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// What is wanted from an archive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Programs,
    Sources,
}

/// apt with lists and a cache in a folder of its own.
#[derive(Debug)]
pub struct Apt<'a> {
    dir: &'a Path,
    log: &'a Path,
}

impl<'a> Apt<'a> {
    /// Uses `dir`; the messages of all tools go to `log`, which begins anew.
    pub fn new(dir: &'a Path, log: &'a Path) -> Result<Self> {
        for name in ["lists/partial", "cache/archives/partial"] {
            fs::create_dir_all(dir.join(name)).context("cannot make the folders to fetch into")?;
        }
        File::create(log).context("cannot write the log")?;
        ensure!(
            workspace::find_tool("apt-get").is_some(),
            "there is no apt-get on this machine"
        );
        Ok(Self { dir, log })
    }

    /// Lines for [`Apt::ask`]: the machine's archives with each of `suites`.
    pub fn archives(kind: Kind, suites: Suites<'_>) -> Result<Vec<String>> {
        let lines = sources(&machine_archives()?, kind, suites);
        ensure!(!lines.is_empty(), "apt knows no Debian archive");
        Ok(lines)
    }

    /// Makes `archive` the one that is asked from now on, and fetches its lists.
    pub fn ask(&self, archive: &str) -> Result<()> {
        fs::write(self.dir.join("sources.list"), archive).context("cannot write apt's list")?;
        self.get(&["update"])
    }

    /// Runs apt-get in the folder.
    pub fn get(&self, words: &[&str]) -> Result<()> {
        let mut command = self.command("apt-get");
        logged(command.args(words), self.log)
    }

    /// The packages on which `package` depends.
    pub fn dependencies(&self, package: &str) -> Result<Vec<String>> {
        let mut command = self.command("apt-cache");
        command.args(["depends", "--important", package]);
        let output = command.stdin(Stdio::null()).output();
        let output = output.context("cannot start apt-cache")?;
        ensure!(output.status.success(), "there is no package {package}");
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let names = text.lines().filter_map(|line| {
            line.split_once("Depends: ")
                .map(|(_, name)| name.to_owned())
        });
        Ok(names.collect())
    }

    fn command(&self, tool: &str) -> Command {
        let option = |name: &str, value: &Path| format!("{name}={}", value.display());
        let mut command = Command::new(tool);
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
        command
    }
}

/// Which Debian releases are asked.
#[derive(Debug, Clone, Copy)]
pub enum Suites<'a> {
    /// The machine's own, and then these.
    OwnAnd(&'a [&'a str]),
    /// These alone.
    Only(&'a [&'a str]),
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
pub fn logged(command: &mut Command, log: &Path) -> Result<()> {
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
fn sources(archives: &str, kind: Kind, suites: Suites<'_>) -> Vec<String> {
    let kind = match kind {
        Kind::Programs => "deb",
        Kind::Sources => "deb-src",
    };
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
            lines.push(format!("{kind} {key}{uri} {suite} main\n"));
        }
    };
    let archives: Vec<Vec<&str>> = archives
        .lines()
        .map(|line| line.split_whitespace().collect::<Vec<_>>())
        .filter(|words| words.len() >= 3 && words[0] == "main" && !words[1].contains("security"))
        .collect();
    let others = match suites {
        Suites::OwnAnd(others) => {
            for words in &archives {
                add(words[1], words[2], words.get(3).unwrap_or(&""));
            }
            others
        }
        Suites::Only(these) => these,
    };
    for suite in others {
        for words in &archives {
            add(words[1], suite, words.get(3).unwrap_or(&""));
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_machines_own_release_is_asked_first() {
        let archives = "main http://mirror/debian/ trixie /keys/debian.gpg\n\
                        main http://mirror/debian-security/ trixie-security $(SIGNED_BY)\n\
                        contrib http://mirror/debian/ trixie $(SIGNED_BY)\n";
        let lines = sources(
            archives,
            Kind::Sources,
            Suites::OwnAnd(&["bookworm", "sid"]),
        );
        assert_eq!(
            lines,
            [
                "deb-src [signed-by=/keys/debian.gpg] http://mirror/debian/ trixie main\n",
                "deb-src [signed-by=/keys/debian.gpg] http://mirror/debian/ bookworm main\n",
                "deb-src [signed-by=/keys/debian.gpg] http://mirror/debian/ sid main\n",
            ]
        );
        assert!(sources("", Kind::Sources, Suites::OwnAnd(&["sid"])).is_empty());
        let lines = sources(archives, Kind::Programs, Suites::Only(&["sid"]));
        assert_eq!(
            lines,
            ["deb [signed-by=/keys/debian.gpg] http://mirror/debian/ sid main\n"]
        );
    }
}
