//! Drivers: the disk and the console. They speak to devices through `arch` and crates, and know no files.

pub mod block;
pub mod console;
#[cfg(target_os = "none")]
pub mod log;
#[cfg(target_os = "none")]
pub mod virtio;
