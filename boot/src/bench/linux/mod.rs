//! The program under Debian's Linux: its cloud kernels, which have few drivers and start fast, on the same machine.

mod fetch;
mod initrd;
mod run;

use std::path::Path;

use anyhow::Result;

use super::figures::Column;
use super::hardware;
use crate::progress::Step;
use crate::qemu::Hardware;
use crate::{interrupt, memfile};

/// Whose kernels are taken: Debian 12's, and the newest.
const RELEASES: [&str; 2] = ["bookworm", "sid"];

/// Settings that cost nothing but safety: without them Linux is slower.
const LEAN: &str = "mitigations=off init_on_alloc=0 cgroup_disable=memory lsm= psi=0 randomize_kstack_offset=off hardened_usercopy=off";

/// Runs the operations whose names contain one of `filters`, with lean settings and with the kernel's own.
pub fn run(program: &Path, filters: &[String]) -> Result<Vec<Column>> {
    // All are fetched before any runs.
    let kernels: Vec<fetch::Kernel> = RELEASES
        .iter()
        .map(|release| fetch::kernel(release))
        .collect::<Result<_>>()?;
    let mut columns = Vec::new();
    for lean in [true, false] {
        for kernel in &kernels {
            columns.push(measure(&hardware(), kernel, lean, program, filters)?);
        }
    }
    Ok(columns)
}

/// Runs them under all of the kernels with lean settings, each on a machine of its own.
pub fn run_lean(
    program: &Path,
    filters: &[String],
    mut machine: impl FnMut() -> Result<Hardware>,
    mut each: impl FnMut(Column) -> Result<()>,
) -> Result<()> {
    for release in RELEASES {
        let kernel = fetch::kernel(release)?;
        each(measure(&machine()?, &kernel, true, program, filters)?)?;
    }
    Ok(())
}

/// Runs them under the first release's kernel alone, with lean settings, on a machine that may differ.
pub fn run_one(hardware: &Hardware, program: &Path, filters: &[String]) -> Result<Column> {
    let kernel = fetch::kernel(RELEASES[0])?;
    measure(hardware, &kernel, true, program, filters)
}

fn measure(
    hardware: &Hardware,
    kernel: &fetch::Kernel,
    lean: bool,
    program: &Path,
    filters: &[String],
) -> Result<Column> {
    let (kind, settings) = if lean {
        ("lean", LEAN)
    } else {
        ("default", "")
    };
    let name = format!("{} {kind}", kernel.series());
    let _step = Step::begin(&format!("measuring Linux {name}"));
    let initrd = memfile::with_bytes("bench-initrd", &initrd::with_init(program)?)?;
    let output = run::boot(hardware, &kernel.image, &initrd, settings, filters)?;
    interrupt::check()?;
    let mut column = Column {
        name,
        version: format!("Linux {}", kernel.version),
        lean,
        ended: output.trouble,
        ..Column::default()
    };
    column.read(&output.text);
    Ok(column)
}
