//! The binary, until there is something to run.

fn main() {}
