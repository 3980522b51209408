//! Log lines, to stderr: data alone goes to stdout.

use tracing_subscriber::EnvFilter;

use super::context::{Global, LogFormat};
use super::failure::Failure;
use crate::types::spelling::nearest;

/// The variable that says what is logged, whatever the flags say.
const VARIABLE: &str = "HAGGLE_LOG";

/// How much can be logged, the least first.
const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];

/// Starts logging as the flags say; `HAGGLE_LOG` overrides how much, and where that is not set, `RUST_LOG`.
/// Does nothing where it has been started already.
///
/// # Errors
/// `HAGGLE_LOG` says nothing that could be followed; then it is started as the flags say.
pub(crate) fn start(global: &Global, quiet: bool) -> Result<(), Failure> {
    let level = match global.verbose {
        // The demo tells its story itself, and nobody reads that of a thousand seeds.
        0 if quiet => "off",
        0 => "warn,haggle=info",
        1 => "info,haggle=debug",
        _ => "debug,haggle=trace",
    };
    let by_flags = || EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(level));
    let (filter, done) = match asked() {
        Ok(filter) => (filter.unwrap_or_else(by_flags), Ok(())),
        Err(failure) => (by_flags(), Err(failure)),
    };
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
    done
}

/// What the variable asks for; `None` where it is not set, or empty.
fn asked() -> Result<Option<EnvFilter>, Failure> {
    let Some(value) = std::env::var_os(VARIABLE) else {
        return Ok(None);
    };
    let value = value.to_str().unwrap_or("\u{FFFD}").trim();
    if value.is_empty() {
        return Ok(None);
    }
    filter(value).map(Some).map_err(|why| {
        Failure::mendable(format!("{VARIABLE} cannot be followed: {why}")).hint(
            "it is a level (off, error, warn, info, debug, trace), or several with what they are of, such as \
             warn,haggle=debug",
        )
    })
}

fn filter(value: &str) -> Result<EnvFilter, String> {
    for word in value.split(',').map(str::trim) {
        // The library takes any word for a module of which all is logged, a misspelt level too.
        let is_plain = word.chars().all(char::is_alphanumeric);
        let is_level = LEVELS.contains(&word.to_ascii_lowercase().as_str());
        if is_plain && !is_level && word != "haggle" {
            return Err(match nearest(word, LEVELS.into_iter()) {
                Some(level) => format!("{word:?} is no level; did you mean {level}?"),
                None => format!("{word:?} is no level"),
            });
        }
    }
    let filter = EnvFilter::builder().parse(value);
    filter.map_err(|why| format!("{value:?}: {why}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_and_modules_are_followed_and_misspelt_ones_are_not() {
        for good in [
            "debug",
            "OFF",
            "warn,haggle=debug",
            "haggle",
            "haggle::store=trace",
        ] {
            assert!(filter(good).is_ok(), "{good}");
        }
        for (bad, words) in [
            ("debgu", "\"debgu\" is no level"),
            ("debugg", "did you mean debug?"),
            ("warn,verbose", "\"verbose\" is no level"),
            ("7", "\"7\" is no level"),
            ("haggle=debgu", "haggle=debgu"),
            ("a[", "a["),
        ] {
            let why = filter(bad).unwrap_err();
            assert!(why.contains(words), "{bad}: {why}");
        }
    }
}
