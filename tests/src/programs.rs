//! The programs that the tests run: the workspace's own, C programs compiled here, and busybox.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::LazyLock;

use tempfile::TempDir;

static USERSPACE: LazyLock<Vec<PathBuf>> =
    LazyLock::new(|| boot::cargo::programs().expect("the user programs build"));

/// One of the programs in userspace/.
pub fn userspace(name: &str) -> &'static Path {
    let found = USERSPACE
        .iter()
        .find(|path| path.file_name().is_some_and(|file| file == name));
    found.unwrap_or_else(|| panic!("userspace has no program {name}"))
}

/// Compiled C programs; the folder goes away with the value.
pub struct Compiled {
    program: PathBuf,
    _dir: TempDir,
}

impl Compiled {
    /// Compiles tests/c/NAME.c with `gcc FLAGS`.
    pub fn new(name: &str, flags: &[&str]) -> Self {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let source = boot::workspace::root()
            .join("tests/c")
            .join(format!("{name}.c"));
        let program = dir.path().join("program");
        let output = Command::new("gcc")
            .args(["-O2", "-Wall", "-Wextra", "-Werror"])
            .args(flags)
            .arg("-o")
            .arg(&program)
            .arg(&source)
            .output()
            .expect("gcc runs");
        assert!(
            output.status.success(),
            "gcc {}: {}",
            source.display(),
            String::from_utf8_lossy(&output.stderr)
        );
        Self { program, _dir: dir }
    }

    /// Compiles it as a static program.
    pub fn fixed(name: &str) -> Self {
        Self::new(name, &["-static"])
    }

    /// The executable.
    pub fn path(&self) -> &Path {
        &self.program
    }
}

/// Debian's busybox-static, if it is installed; says so if not.
pub fn busybox() -> Option<&'static Path> {
    let path = Path::new("/bin/busybox");
    let usable = boot::program::check(path).is_ok();
    if !usable {
        eprintln!(
            "skipped: /bin/busybox is not a static program (./x test installs the package busybox-static)"
        );
    }
    usable.then_some(path)
}
