//! The RAM disk that Linux starts from: the program as /init, a console and a place for files.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use cpio::newc;

/// An archive of the format newc.
pub fn with_init(program: &Path) -> Result<Vec<u8>> {
    let init =
        fs::read(program).with_context(|| format!("{} cannot be read", program.display()))?;
    let mut archive = Vec::new();
    let mut add = |entry: newc::Builder, contents: &[u8]| -> std::io::Result<()> {
        let mut writer = entry.write(&mut archive, contents.len() as u32);
        std::io::Write::write_all(&mut writer, contents)?;
        writer.finish().map(|_| ())
    };
    let directory = |name: &str, mode: u32| newc::Builder::new(name).mode(0o040_000 | mode);
    let console = newc::Builder::new("dev/console")
        .mode(0o020_600)
        .rdev_major(5)
        .rdev_minor(1);
    add(directory("dev", 0o755).ino(1), &[])
        .and_then(|()| add(console.ino(2), &[]))
        .and_then(|()| add(directory("tmp", 0o1777).ino(3), &[]))
        .and_then(|()| add(newc::Builder::new("init").mode(0o100_755).ino(4), &init))
        .context("the archive")?;
    newc::trailer(archive).context("the archive's end")
}
