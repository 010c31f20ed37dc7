//! Runs a test image of the kernel and tells how each of its tests went.

use std::path::Path;

use anyhow::Result;

use crate::cli::Options;
use crate::config::GuestConfig;
use crate::records::Record;
use crate::session::{self, Event, Machine, Outcome, Output};
use crate::stdin::Input;
use crate::{commands, image};

/// Boots `kernel`, the ELF file of a test image, with the demos' root file system, and prints a line for each test.
/// `filter`: run only tests whose names contain it.
pub fn run(kernel: &Path, filter: Option<&str>, options: &Options) -> Result<Outcome> {
    let name = kernel.file_stem().unwrap_or_default().to_string_lossy();
    let machine = Machine {
        hardware: options.hardware()?,
        boot: image::boot_disk(kernel, options.firmware())?,
        root: commands::demo_root()?,
        guest: GuestConfig {
            seed: options.seed,
            log: options.log_level(),
            test: filter.map(str::to_owned),
            ..GuestConfig::default()
        },
        stdin: Input::Empty,
        stdout: Output::Inherit,
        stderr: Output::Inherit,
        log: session::log_file(&name)?,
        show_log: options.verbose > 0,
        timeout: options.time_limit(),
        timeout_after_output: false,
    };
    let mut running = None;
    let outcome = session::run(machine, |event| {
        let Event::Record(record) = event else { return };
        let line = match record {
            Record::Ok(name) => format!("test {name} ... ok"),
            Record::Failed(name) => format!("test {name} ... FAILED"),
            Record::Tests { passed, failed } => {
                let result = if *failed == 0 && *passed > 0 {
                    "ok"
                } else {
                    "FAILED"
                };
                format!("\ntest result: {result}. {passed} passed; {failed} failed")
            }
            Record::Test(name) => {
                running = Some(name.clone());
                return;
            }
            _ => return,
        };
        running = None;
        // The verdict counts, even if nobody reads the lines.
        let _ = commands::say(&line);
    })?;
    if let Some(name) = running {
        let _ = commands::say(&format!("test {name} ... did not end"));
    }
    Ok(outcome)
}
