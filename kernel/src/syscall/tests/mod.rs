//! System calls on files, on the simulated machine.

mod files;
mod pipes;
mod same_as_linux;
