//! The programs of a suite: found in its folders, named as the suite names them, and put into groups.
//!
//! The layout is that of the Open POSIX Test Suite: `INTERFACE/N-M.c` is a program; `INTERFACE/N-M.sh` that runs another one with
//! arguments is a program too; `*-buildonly.c` is built, for others to run, and not run itself.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

/// Where the suite's folders lie below its top, and what the programs expect below their working directory.
pub const FOLDERS: [&str; 2] = ["conformance/interfaces", "conformance/behavior"];

/// What a program is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Group {
    Memory,
    Signals,
    Processes,
    Threads,
    Timers,
    Scheduling,
    /// Message queues, asynchronous input and output, and what the suite may have besides.
    Other,
}

impl Group {
    pub const ALL: [Self; 7] = [
        Self::Memory,
        Self::Signals,
        Self::Processes,
        Self::Threads,
        Self::Timers,
        Self::Scheduling,
        Self::Other,
    ];

    /// The name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::Signals => "signals",
            Self::Processes => "processes",
            Self::Threads => "threads",
            Self::Timers => "timers",
            Self::Scheduling => "scheduling",
            Self::Other => "other",
        }
    }

    /// The group with this name.
    pub fn parse(name: &str) -> Result<Self, String> {
        Self::ALL
            .into_iter()
            .find(|group| group.name() == name)
            .ok_or_else(|| format!("the groups are {}", Self::ALL.map(Self::name).join(", ")))
    }

    /// The group of an interface, such as `mmap`.
    pub fn of(interface: &str) -> Self {
        let begins =
            |prefixes: &[&str]| prefixes.iter().any(|prefix| interface.starts_with(prefix));
        let is = |names: &[&str]| names.contains(&interface);
        if begins(&[
            "mmap", "munmap", "mlock", "munlock", "msync", "mprotect", "shm_",
        ]) {
            Self::Memory
        } else if begins(&["sig", "kill"]) || is(&["raise", "pthread_kill", "pthread_sigmask"]) {
            Self::Signals
        } else if begins(&["sched_"]) || begins(&["pthread_"]) && interface.contains("sched") {
            Self::Scheduling
        } else if begins(&[
            "clock",
            "timer",
            "time",
            "nanosleep",
            "pthread_getcpuclockid",
        ]) || is(&[
            "asctime",
            "ctime",
            "difftime",
            "gmtime",
            "localtime",
            "mktime",
            "strftime",
        ]) {
            Self::Timers
        } else if begins(&["pthread_", "sem_"]) {
            Self::Threads
        } else if is(&["fork", "getpid", "WIFEXITED"]) {
            Self::Processes
        } else {
            Self::Other
        }
    }
}

/// One program that can be run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Program {
    /// Such as `mmap/1-1`.
    pub name: String,
    pub group: Group,
    /// The C source, relative to the suite's top.
    pub source: PathBuf,
    pub args: Vec<String>,
}

impl Program {
    /// Such as `mmap`.
    pub fn interface(&self) -> &str {
        self.name.split('/').next().unwrap_or_default()
    }

    /// Where its executable lies below the suite's top.
    pub fn executable(&self) -> PathBuf {
        executable(&self.source)
    }
}

/// Where the executable of a source lies.
pub fn executable(source: &Path) -> PathBuf {
    source.with_extension("test")
}

/// A suite's sources.
#[derive(Debug)]
pub struct Suite {
    /// The folder that the sources are relative to.
    pub top: PathBuf,
    pub programs: Vec<Program>,
    /// Sources that are built for other programs to run.
    pub companions: Vec<PathBuf>,
}

impl Suite {
    /// Reads the suite in `top`: the whole suite, or just a folder of interfaces.
    pub fn read(top: &Path) -> Result<Self> {
        let top = top
            .canonicalize()
            .with_context(|| format!("the suite's folder {} cannot be read", top.display()))?;
        let mut sources = Vec::new();
        let folders = FOLDERS
            .map(Path::new)
            .into_iter()
            .filter(|folder| top.join(folder).is_dir());
        let mut folders: Vec<&Path> = folders.collect();
        if folders.is_empty() {
            folders.push(Path::new(""));
        }
        let mut programs = Vec::new();
        let mut companions = Vec::new();
        for folder in folders {
            sources.clear();
            list_files(&top, folder, &mut sources)?;
            for source in &sources {
                let name = source
                    .strip_prefix(folder)
                    .unwrap_or(source)
                    .with_extension("");
                let Some(name) = name.to_str().filter(|name| name.contains('/')) else {
                    continue;
                };
                let (interface, stem) = (
                    name.split('/').next().unwrap_or_default(),
                    name.rsplit('/').next().unwrap_or_default(),
                );
                let mut add = |source: PathBuf, args: Vec<String>| {
                    programs.push(Program {
                        name: name.to_owned(),
                        group: Group::of(interface),
                        source,
                        args,
                    });
                };
                match source.extension().and_then(|extension| extension.to_str()) {
                    Some("c") if stem.ends_with("-buildonly") => companions.push(source.clone()),
                    Some("c") if is_number(stem) => add(source.clone(), Vec::new()),
                    Some("sh") if is_number(stem) => {
                        let script = fs::read_to_string(top.join(source))
                            .with_context(|| format!("{} cannot be read", source.display()))?;
                        if let Some((executable, args)) = script_runs(&script) {
                            add(executable.with_extension("c"), args);
                        }
                    }
                    _ => {}
                }
            }
        }
        ensure!(
            !programs.is_empty(),
            "there is no program in {}: programs are INTERFACE/N-M.c",
            top.display()
        );
        programs.sort_by_key(|program| (program.group, order(&program.name)));
        companions.sort();
        Ok(Self {
            top,
            programs,
            companions,
        })
    }

    /// Keeps what is in one of `groups` and has `filter` in its name.
    pub fn select(&mut self, groups: &[Group], filter: Option<&str>) {
        self.programs.retain(|program| {
            groups.contains(&program.group)
                && filter.is_none_or(|filter| program.name.contains(filter))
        });
    }

    /// The companions of the programs that are there: those of the same folders.
    pub fn companions_of<'a>(&'a self, programs: &[&Program]) -> Vec<&'a Path> {
        let folders: BTreeMap<_, ()> = programs
            .iter()
            .map(|program| (program.source.parent(), ()))
            .collect();
        self.companions
            .iter()
            .map(PathBuf::as_path)
            .filter(|companion| folders.contains_key(&companion.parent()))
            .collect()
    }
}

/// Interface, then the numbers in a name as numbers: 2-1 comes before 10-1.
fn order(name: &str) -> (String, Vec<u64>, String) {
    let (interface, rest) = name.split_once('/').unwrap_or((name, ""));
    let numbers = rest
        .split(|c: char| !c.is_ascii_digit())
        .filter_map(|number| number.parse().ok());
    (interface.to_owned(), numbers.collect(), rest.to_owned())
}

/// Whether a name is `N-M`.
fn is_number(stem: &str) -> bool {
    let all_digits =
        |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    stem.split_once('-')
        .is_some_and(|(n, m)| all_digits(n) && all_digits(m))
}

/// The executable, below the suite's top, and the arguments with which a script ends. Scripts without one only print a remark.
fn script_runs(script: &str) -> Option<(PathBuf, Vec<String>)> {
    let line = script
        .lines()
        .rev()
        .map(str::trim)
        .find(|line| !line.is_empty())?;
    let mut words = line.split_whitespace();
    let executable = words
        .next()
        .filter(|word| word.ends_with(".test") && word.contains('/'))?;
    Some((executable.into(), words.map(str::to_owned).collect()))
}

fn list_files(top: &Path, folder: &Path, files: &mut Vec<PathBuf>) -> Result<()> {
    let path = top.join(folder);
    let entries =
        fs::read_dir(&path).with_context(|| format!("{} cannot be read", path.display()))?;
    for entry in entries {
        let entry = entry.with_context(|| format!("{} cannot be read", path.display()))?;
        let relative = folder.join(entry.file_name());
        if entry.path().is_dir() {
            list_files(top, &relative, files)?;
        } else {
            files.push(relative);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn suite(files: &[(&str, &str)]) -> (tempfile::TempDir, Suite) {
        let dir = tempfile::tempdir().unwrap();
        for (name, text) in files {
            let path = dir.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        let suite = Suite::read(dir.path()).unwrap();
        (dir, suite)
    }

    fn names(suite: &Suite) -> Vec<&str> {
        suite
            .programs
            .iter()
            .map(|program| &*program.name)
            .collect()
    }

    #[test]
    fn programs_are_numbered_sources_in_the_order_of_their_numbers() {
        let (_dir, suite) = suite(&[
            ("mmap/10-1.c", ""),
            ("mmap/2-1.c", ""),
            ("mmap/coverage.txt", ""),
            ("mmap/helper.c", ""),
            ("kill/1-2.c", ""),
            ("sigaltstack/9-buildonly.c", ""),
            ("1-1.c", ""),
        ]);
        assert_eq!(names(&suite), ["mmap/2-1", "mmap/10-1", "kill/1-2"]);
        assert_eq!(suite.companions, [Path::new("sigaltstack/9-buildonly.c")]);
        assert_eq!(suite.programs[0].executable(), Path::new("mmap/2-1.test"));
    }

    #[test]
    fn a_script_that_runs_another_program_is_one_with_arguments() {
        let line = "conformance/interfaces/sighold/3-core-buildonly.test 2";
        let (_dir, suite) = suite(&[
            (
                "conformance/interfaces/sighold/3-2.sh",
                &format!("#!/bin/sh\n# Text\n{line}\n\n"),
            ),
            ("conformance/interfaces/sighold/3-core-buildonly.c", ""),
            (
                "conformance/interfaces/sighold/4-1.sh",
                "echo implicit\nexit 0\n",
            ),
            ("conformance/behavior/timers/1-1.c", ""),
        ]);
        assert_eq!(names(&suite), ["sighold/3-2", "timers/1-1"]);
        let program = &suite.programs[0];
        assert_eq!(program.args, ["2"]);
        let source = Path::new("conformance/interfaces/sighold/3-core-buildonly.c");
        assert_eq!(program.source, source);
        assert_eq!(suite.companions_of(&[program]), [source]);
        assert!(suite.companions_of(&[&suite.programs[1]]).is_empty());
    }

    #[test]
    fn each_interface_has_its_group() {
        for (interface, group) in [
            ("munlockall", Group::Memory),
            ("shm_open", Group::Memory),
            ("sigwaitinfo", Group::Signals),
            ("pthread_sigmask", Group::Signals),
            ("killpg", Group::Signals),
            ("pthread_attr_setschedparam", Group::Scheduling),
            ("sched_yield", Group::Scheduling),
            ("pthread_create", Group::Threads),
            ("sem_open", Group::Threads),
            ("pthread_getcpuclockid", Group::Timers),
            ("timer_settime", Group::Timers),
            ("fork", Group::Processes),
            ("mq_open", Group::Other),
        ] {
            assert_eq!(Group::of(interface), group, "{interface}");
        }
    }

    #[test]
    fn a_selection_is_by_group_and_name() {
        let (_dir, mut suite) =
            suite(&[("mmap/1-1.c", ""), ("mmap/2-1.c", ""), ("kill/1-1.c", "")]);
        suite.select(&[Group::Memory], Some("/1-"));
        assert_eq!(names(&suite), ["mmap/1-1"]);
    }

    #[test]
    fn a_folder_without_programs_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        assert!(Suite::read(dir.path()).is_err());
        assert!(Suite::read(&dir.path().join("missing")).is_err());
    }
}
