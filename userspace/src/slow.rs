//! The files that the demos map: an ordinary one, and one that the machine reads slowly.
//!
//! `FAULTLINE_FILE` and `FAULTLINE_SLOW_FILE` name them; without them the program's own file serves, which every system has.
//! `FAULTLINE_SLOW_MS` says how much longer a read of the slow file takes. It is absent where nothing slows the disk down, and then
//! the assertions that need a slow disk are not made.

use std::fs::File;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use crate::memory::PAGE;

/// The ordinary file.
pub fn fast_file() -> io::Result<File> {
    File::open(named("FAULTLINE_FILE")?)
}

/// The slow file.
pub fn slow_file() -> io::Result<File> {
    File::open(named("FAULTLINE_SLOW_FILE")?)
}

/// What a read of the slow file costs extra, if this machine slows it down.
pub fn slowness() -> Option<Duration> {
    let ms = std::env::var("FAULTLINE_SLOW_MS").ok()?.parse().ok()?;
    (ms > 0).then(|| Duration::from_millis(ms))
}

/// Offsets of `count` pages of a file of `len` bytes, as far from each other as it allows, so that reading one reads no other ahead.
/// The first demo to use the file takes `half` 0, another one `half` 1, and so neither finds the other's pages in the page cache.
pub fn far_pages(len: usize, half: usize, count: usize) -> io::Result<Vec<usize>> {
    let step = len / PAGE / (2 * count + 1);
    if step < READ_AHEAD {
        let needed = (2 * count + 1) * READ_AHEAD * PAGE;
        return Err(io::Error::other(format!(
            "the slow file has {len} bytes and needs {needed}"
        )));
    }
    Ok((half * count..(half + 1) * count)
        .map(|i| (i + 1) * step * PAGE)
        .collect())
}

/// More pages than any kernel is expected to read at once here.
const READ_AHEAD: usize = 32;

fn named(variable: &str) -> io::Result<PathBuf> {
    if let Some(path) = std::env::var_os(variable) {
        return Ok(path.into());
    }
    std::env::current_exe()
}
