//! Builds a suite's programs with the C compiler, statically, on all cores, below the target directory.
//!
//! glibc, not musl: a few more of the programs use what only glibc has, and its threads and timers ask more of the kernel.

use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::thread;

use anyhow::{Context, Result};
use indicatif::ProgressBar;

use super::result::Unbuilt;
use super::suite::{Program, Suite, executable};
use crate::interrupt::{self, Guarded};
use crate::workspace;

/// As the suite's own Makefile, but static and without warnings.
const FLAGS: [&str; 6] = ["-std=gnu99", "-O2", "-w", "-s", "-static", "-D_GNU_SOURCE"];
const LIBRARIES: [&str; 3] = ["-lpthread", "-lrt", "-lm"];

/// The programs that were built, in a folder with the suite's own layout.
#[derive(Debug)]
pub struct Built {
    pub top: PathBuf,
    pub programs: Vec<Program>,
    pub unbuilt: Vec<Unbuilt>,
}

/// Builds what is selected in `suite`, and what its programs may run; what is current stays.
pub fn build(suite: &Suite, jobs: usize, bar: &ProgressBar) -> Result<Built> {
    let compiler = workspace::require_tool("gcc", "gcc")?;
    let top = workspace::target_subdir("conformance")?.join(format!("built-{}", key(&suite.top)));
    let all: Vec<&Program> = suite.programs.iter().collect();
    let mut sources: Vec<&Path> = all.iter().map(|program| &*program.source).collect();
    sources.extend(suite.companions_of(&all));
    sources.sort_unstable();
    sources.dedup();
    bar.set_length(sources.len() as u64);
    let builder = Builder {
        compiler,
        suite: &suite.top,
        top: &top,
    };
    let queue = Mutex::new(sources.iter());
    let failures = thread::scope(|scope| -> Result<Vec<(PathBuf, String)>> {
        let work = || -> Result<Vec<(PathBuf, String)>> {
            let mut failures = Vec::new();
            loop {
                let next = queue.lock().expect("no holder panics").next();
                let Some(source) = next else {
                    return Ok(failures);
                };
                interrupt::check()?;
                if let Some(why) = builder.build(source)? {
                    failures.push((source.to_path_buf(), why));
                }
                bar.inc(1);
            }
        };
        let workers: Vec<_> = (0..jobs).map(|_| scope.spawn(work)).collect();
        let mut failures = Vec::new();
        for worker in workers {
            failures.extend(worker.join().expect("a worker does not panic")?);
        }
        Ok(failures)
    })?;
    let mut built = Built {
        top,
        programs: Vec::new(),
        unbuilt: Vec::new(),
    };
    for program in &suite.programs {
        match failures
            .iter()
            .find(|(source, _)| *source == program.source)
        {
            Some((_, why)) => built.unbuilt.push(Unbuilt {
                name: program.name.clone(),
                why: why.clone(),
            }),
            None => built.programs.push(program.clone()),
        }
    }
    Ok(built)
}

/// A name for what is built from the suite in `top` with these flags.
fn key(top: &Path) -> String {
    let mut hasher = DefaultHasher::new();
    (top, FLAGS, LIBRARIES).hash(&mut hasher);
    format!("{:016x}", hasher.finish())
}

struct Builder<'a> {
    compiler: PathBuf,
    suite: &'a Path,
    top: &'a Path,
}

impl Builder<'_> {
    /// Builds one source unless its executable, or the reason why there is none, is newer. Gives that reason.
    fn build(&self, source: &Path) -> Result<Option<String>> {
        let from = self.suite.join(source);
        let (to, failed) = (
            self.top.join(executable(source)),
            self.top.join(source).with_extension("failed"),
        );
        if is_newer(&to, &from) {
            return Ok(None);
        }
        if is_newer(&failed, &from) {
            return Ok(Some(
                fs::read_to_string(&failed).context("cannot read why a build failed")?,
            ));
        }
        let folder = to.parent().context("a program lies in a folder")?;
        fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
        // Some programs read their own source.
        fs::copy(&from, self.top.join(source))
            .with_context(|| format!("{} cannot be copied", from.display()))?;
        let part = to.with_extension("part");
        let mut command = Command::new(&self.compiler);
        command
            .args(FLAGS)
            .arg("-I")
            .arg("include")
            .current_dir(self.suite);
        command.arg(&from).arg("-o").arg(&part).args(LIBRARIES);
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        let mut guarded =
            Guarded::spawn(&mut command, &[]).context("cannot start the C compiler")?;
        let mut messages = Vec::new();
        let mut stderr = guarded.child().stderr.take().expect("stderr is piped");
        std::io::copy(&mut stderr, &mut messages).context("cannot read the compiler's messages")?;
        let status = guarded
            .child()
            .wait()
            .context("cannot wait for the C compiler")?;
        interrupt::check()?;
        if status.success() {
            fs::rename(&part, &to)
                .with_context(|| format!("cannot put {} in place", to.display()))?;
            return Ok(None);
        }
        let why = reason(&String::from_utf8_lossy(&messages));
        fs::write(&failed, &why).with_context(|| format!("cannot write {}", failed.display()))?;
        Ok(Some(why))
    }
}

fn is_newer(file: &Path, than: &Path) -> bool {
    let time = |path: &Path| {
        fs::metadata(path)
            .and_then(|metadata| metadata.modified())
            .ok()
    };
    time(file).is_some_and(|built| Some(built) > time(than))
}

/// The one line of the compiler's messages that says what is wrong, without the places.
fn reason(messages: &str) -> String {
    let line = messages
        .lines()
        .find(|line| line.contains("error:") && !line.contains("ld returned"))
        .or_else(|| {
            messages
                .lines()
                .find(|line| line.contains("undefined reference"))
        })
        .or_else(|| messages.lines().last())
        .unwrap_or("the compiler does not say why");
    let at = ["error: ", "undefined reference"].iter().find_map(|mark| {
        line.find(mark).map(|at| {
            if mark.ends_with(' ') {
                at + mark.len()
            } else {
                at
            }
        })
    });
    line[at.unwrap_or(0)..].trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reason_is_one_line() {
        let compiler = "a.c: In function 'main':\na.c:5:1: error: unknown type name 'x'\na.c:6:1: error: more\n";
        assert_eq!(reason(compiler), "unknown type name 'x'");
        let linker = "/usr/bin/ld: /tmp/x.o: in function `main':\na.c:(.text+0x5): undefined reference to `f'\n\
                      collect2: error: ld returned 1 exit status\n";
        assert_eq!(reason(linker), "undefined reference to `f'");
        assert_eq!(reason(""), "the compiler does not say why");
    }
}
