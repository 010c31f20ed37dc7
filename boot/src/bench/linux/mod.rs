//! The program under Debian's Linux: its cloud kernels, which have few drivers and start fast, on the same machine.

mod fetch;
mod initrd;
mod run;

use std::path::Path;

use anyhow::Result;

use super::figures::Column;
use crate::progress::Step;
use crate::{interrupt, memfile};

/// Whose kernels are taken: Debian 12's, and the newest.
const RELEASES: [&str; 2] = ["bookworm", "sid"];

/// Settings that cost nothing but safety: without them Linux is slower.
const LEAN: &str = "mitigations=off init_on_alloc=0 cgroup_disable=memory lsm= psi=0 randomize_kstack_offset=off hardened_usercopy=off";

/// Runs the operations whose names contain one of `filters`, with lean settings and with the kernel's own.
pub fn run(program: &Path, filters: &[String]) -> Result<Vec<Column>> {
    let kernels: Vec<fetch::Kernel> = RELEASES
        .iter()
        .map(|release| fetch::kernel(release))
        .collect::<Result<_>>()?;
    let initrd = memfile::with_bytes("bench-initrd", &initrd::with_init(program)?)?;
    let mut columns = Vec::new();
    for (kind, settings) in [("lean", LEAN), ("default", "")] {
        for kernel in &kernels {
            let name = format!("{} {kind}", kernel.series());
            let _step = Step::begin(&format!("measuring Linux {name}"));
            let output = run::boot(&kernel.image, &initrd, settings, filters)?;
            interrupt::check()?;
            let mut column = Column {
                name,
                version: format!("Linux {}", kernel.version),
                lean: kind == "lean",
                ended: output.trouble,
                ..Column::default()
            };
            column.read(&output.text);
            columns.push(column);
        }
    }
    Ok(columns)
}
