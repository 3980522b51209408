//! Thin binary.

use std::process::ExitCode;

/// A tick makes and drops many small texts; this one is faster at it, the more so in a static binary.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    haggle::cli::run(std::env::args_os())
}
