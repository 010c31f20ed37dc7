//! The command line; see `boot::cli` for the options and `boot::commands` for what each command does.

use std::process::ExitCode;

fn main() -> ExitCode {
    boot::commands::main()
}
