//! The kernel's log: the `log` crate's records as lines on the first serial port.

use core::fmt::Write;

use log::{LevelFilter, Log, Metadata, Record};

use crate::arch::time;
use crate::arch::x86_64::boot::log_write;

struct SerialLog;

/// Formats straight into the port.
struct Port;

impl Write for Port {
    fn write_str(&mut self, text: &str) -> core::fmt::Result {
        log_write(text.as_bytes());
        Ok(())
    }
}

impl Log for SerialLog {
    fn enabled(&self, _: &Metadata) -> bool {
        true
    }

    fn log(&self, record: &Record) {
        let ms = time::now_ns() / 1_000_000;
        let target = record
            .target()
            .strip_prefix("kernel::")
            .unwrap_or(record.target());
        let _ = writeln!(
            Port,
            "[{:6}.{:03}] {:5} {target}: {}",
            ms / 1000,
            ms % 1000,
            record.level(),
            record.args()
        );
    }

    fn flush(&self) {}
}

/// Starts the log at level info. Once.
pub fn init() {
    // A second call finds the log set already, which is as good.
    let _ = log::set_logger(&SerialLog);
    set_level(LevelFilter::Info);
}

/// From now on records up to `level` are written.
pub fn set_level(level: LevelFilter) {
    log::set_max_level(level);
}
