//! Log lines, to stderr: data alone goes to stdout.

use tracing_subscriber::EnvFilter;

use super::context::{Global, LogFormat};

/// Starts logging as the flags say; `RUST_LOG` overrides how much. Does nothing where it has been
/// started already.
pub(crate) fn start(global: &Global, quiet: bool) {
    let level = match global.verbose {
        // The demo tells its story itself, and nobody reads that of a thousand seeds.
        0 if quiet => "off",
        0 => "warn,haggle=info",
        1 => "info,haggle=debug",
        _ => "debug,haggle=trace",
    };
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(level));
    let lines = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_target(false)
        .with_ansi(false);
    let started = match global.log_format {
        LogFormat::Text => lines.try_init(),
        LogFormat::Json => lines.json().flatten_event(true).try_init(),
    };
    // A second start in one process keeps the first.
    drop(started);
}
