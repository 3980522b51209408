//! Thin binary.

use std::process::ExitCode;

fn main() -> ExitCode {
    haggle::cli::run(std::env::args_os())
}
