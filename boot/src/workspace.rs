//! Where things are: the checkout, the target directory, and the caches below it.

use std::env;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// The root of the checkout.
pub fn root() -> &'static Path {
    let boot = Path::new(env!("CARGO_MANIFEST_DIR"));
    boot.parent().expect("boot/ lies in the workspace")
}

/// Cargo's target directory: `CARGO_TARGET_DIR`, else the one that the running binary was built in (which
/// cargo marks), else `target` in the checkout.
pub fn target_dir() -> PathBuf {
    if let Some(dir) = env::var_os("CARGO_TARGET_DIR") {
        return env::current_dir().unwrap_or_default().join(dir);
    }
    let exe = env::current_exe().unwrap_or_default();
    exe.ancestors()
        .find(|dir| dir.join(".rustc_info.json").is_file() || dir.join("CACHEDIR.TAG").is_file())
        .map_or_else(|| root().join("target"), Path::to_path_buf)
}

/// A directory below the target directory, made if it is missing.
pub fn target_subdir(name: &str) -> Result<PathBuf> {
    let dir = target_dir().join(name);
    std::fs::create_dir_all(&dir)
        .with_context(|| format!("cannot make the directory {}", dir.display()))?;
    Ok(dir)
}

/// Finds a program in `PATH`, and then where Debian keeps administrators' tools (an ordinary user's `PATH` lacks it).
pub fn find_tool(name: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path)
        .chain(["/usr/sbin", "/sbin"].map(PathBuf::from))
        .map(|dir| dir.join(name))
        .find(|file| file.is_file())
}

/// Like [`find_tool`]; the error names the Debian package and the command that installs it.
pub fn require_tool(name: &str, package: &str) -> Result<PathBuf> {
    find_tool(name).with_context(|| {
        format!("{name} is not installed: run `./x setup` (or install the package {package}) and try again")
    })
}
