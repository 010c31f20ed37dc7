//! Names for the addresses in a kernel's backtrace, from the symbols and line tables of its ELF file.

use std::path::Path;

use addr2line::Loader;
use anyhow::{Result, anyhow};
use rustc_demangle::demangle;

/// The symbols of one kernel.
pub struct Symbols {
    loader: Loader,
}

impl Symbols {
    /// Opens the kernel's ELF file.
    pub fn load(kernel: &Path) -> Result<Self> {
        let loader = Loader::new(kernel).map_err(|error| {
            anyhow!("no symbols can be read from {}: {error}", kernel.display())
        })?;
        Ok(Self { loader })
    }

    /// The function that was compiled to what is at this address.
    pub fn function(&self, address: u64) -> Option<String> {
        let symbol = self.loader.find_symbol(address)?;
        Some(format!("{:#}", demangle(symbol)))
    }

    /// `function (file:line)` for an address relative to the image's base, the innermost inlined function first. Empty
    /// if nothing is known about it.
    pub fn describe(&self, address: u64) -> Vec<String> {
        let mut lines = Vec::new();
        if let Ok(mut frames) = self.loader.find_frames(address) {
            while let Ok(Some(frame)) = frames.next() {
                let Some(function) = frame.function else {
                    continue;
                };
                let name = function
                    .raw_name()
                    .map_or_else(|_| "?".into(), |name| format!("{:#}", demangle(&name)));
                let place = frame
                    .location
                    .and_then(|at| Some(format!(" ({}:{})", short(at.file?), at.line?)));
                lines.push(name + &place.unwrap_or_default());
            }
        }
        if lines.is_empty()
            && let Some(symbol) = self.loader.find_symbol(address)
        {
            lines.push(format!("{:#}", demangle(symbol)));
        }
        lines
    }
}

/// A source file's path without what is the same for all files of the workspace or of the standard library.
fn short(file: &str) -> &str {
    let root = concat!(env!("CARGO_MANIFEST_DIR"), "/../");
    let root = root.trim_end_matches("boot/../");
    let file = file.strip_prefix(root).unwrap_or(file);
    file.find("/library/").map_or(file, |at| &file[at + 1..])
}
