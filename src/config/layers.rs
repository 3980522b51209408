//! The layers of a configuration, and what is said of a mistake in one.

use std::path::Path;

use figment::error::Kind;
use figment::value::{Dict, Map, Value};
use figment::{Metadata, Profile, Provider};

use super::keys::{KEYS, Key, paths_under};
use super::{ConfigError, DEFAULT_FILE, NOT_KEYS, NOT_KEYS_BEGIN, PREFIX, read_bounded};
use crate::types::spelling::nearest;

/// One source of values.
pub(super) struct Layer {
    name: String,
    values: Dict,
}

impl Layer {
    /// Without the parts that are not needed, by their first word.
    pub(super) fn only(mut self, needed: &dyn Fn(&str) -> bool) -> Self {
        self.values.retain(|key, _| needed(key));
        self
    }

    pub(super) fn nested(name: &str, key: &str, value: Value) -> Self {
        let values = figment::util::nest(key, value)
            .into_dict()
            .unwrap_or_default();
        Self {
            name: name.to_owned(),
            values,
        }
    }
}

impl Provider for Layer {
    fn metadata(&self) -> Metadata {
        Metadata::named(self.name.clone())
    }

    fn data(&self) -> Result<Map<Profile, Dict>, figment::Error> {
        Ok(Map::from([(Profile::Default, self.values.clone())]))
    }
}

pub(super) fn defaults() -> Result<Layer, ConfigError> {
    let mut text = String::new();
    // Where one key excludes another, the default holds only if neither is given, which a layer
    // cannot know; the validation puts it in.
    // Where the marketplace is follows from its kind.
    let exclusive = |key: &Key| {
        matches!(
            key.path,
            "poll.every" | "poll.cron" | "provider.token" | "provider.base_url"
        )
    };
    for key in KEYS
        .iter()
        .filter(|key| !key.default.is_empty() && !exclusive(key))
    {
        text.push_str(&format!("{} = {}\n", key.path, key.default));
    }
    toml_layer("the defaults".to_owned(), Path::new("defaults"), &text)
}

pub(super) fn file_layer(path: Option<&Path>) -> Result<Option<Layer>, ConfigError> {
    let file = path.unwrap_or(Path::new(DEFAULT_FILE));
    if path.is_none() && !file.exists() {
        return Ok(None);
    }
    let text = read_bounded(file).map_err(|why| ConfigError::Unreadable {
        path: file.to_owned(),
        why,
    })?;
    toml_layer(file.display().to_string(), file, &text).map(Some)
}

fn toml_layer(name: String, path: &Path, text: &str) -> Result<Layer, ConfigError> {
    // The parser's own message shows the line, which may hold a secret; its place is enough.
    let table: toml::Table = toml::from_str(text).map_err(|error| {
        let start = error.span().map_or(0, |span| span.start.min(text.len()));
        let before = text.get(..start).unwrap_or_default();
        ConfigError::Syntax {
            path: path.to_owned(),
            line: before.matches('\n').count() + 1,
            column: before.chars().rev().take_while(|&c| c != '\n').count() + 1,
            why: error.message().to_owned(),
        }
    })?;
    let values = Value::serialize(&table)
        .map_err(|error| ConfigError::Invalid(vec![format!("{name}: {error}")]))?
        .into_dict()
        .unwrap_or_default();
    Ok(Layer { name, values })
}

/// The layer of one environment variable; `None` where it is none of ours.
pub(super) fn variable_layer(name: &str, value: &str) -> Result<Option<Layer>, ConfigError> {
    let Some(rest) = name.strip_prefix(PREFIX) else {
        return Ok(None);
    };
    let path = rest.replace("__", ".").to_ascii_lowercase();
    // A table's entries, such as one of `provider.paths`, are keys as well.
    let known = KEYS.iter().any(|key| {
        path.strip_prefix(key.path)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
    });
    if !known {
        let family = NOT_KEYS_BEGIN.iter().any(|begin| name.starts_with(begin));
        if family || NOT_KEYS.contains(&name) || name.ends_with("_TOKEN") {
            return Ok(None);
        }
        let near = nearest(&path, KEYS.iter().map(|key| key.path));
        let help = near.map_or_else(
            || format!("the keys are {}", paths_under("").join(", ")),
            |near| {
                let variable = near.replace('.', "__").to_ascii_uppercase();
                format!("did you mean {PREFIX}{variable}?")
            },
        );
        return Err(ConfigError::Invalid(vec![format!(
            "the environment variable {name} names no key; {help}"
        )]));
    }
    let layer = format!("the environment variable {name}");
    // Values are read as TOML would be, and as plain text where that fails. Text that only looks
    // like a number is wanted nowhere, so nothing is lost.
    let value: Value = value.parse().unwrap_or_else(|_| Value::from(value));
    Ok(Some(Layer::nested(&layer, &path, value)))
}

/// One line for one error of figment, without the value where the key may hold a secret.
pub(super) fn explain(error: figment::Error) -> String {
    let source = error
        .metadata
        .as_ref()
        .map_or_else(String::new, |metadata| format!("{}: ", metadata.name));
    let path = error.path.join(".");
    let secret = path.starts_with("provider.token");
    match &error.kind {
        Kind::UnknownField(name, _) => {
            // The path ends with the unknown name itself, or with its table.
            let table = path
                .strip_suffix(name.as_str())
                .map_or(path.as_str(), |table| table.trim_end_matches('.'));
            let known = paths_under(table);
            let shown = if table.is_empty() {
                name.clone()
            } else {
                format!("{table}.{name}")
            };
            let near = nearest(name, known.iter().copied())
                .map_or_else(String::new, |near| format!("did you mean `{near}`? "));
            format!(
                "{source}unknown key `{shown}`; {near}allowed here: {}",
                known.join(", ")
            )
        }
        Kind::InvalidType(_, expected) | Kind::InvalidValue(_, expected) if secret => {
            format!("{source}`{path}`: expected {expected}")
        }
        Kind::InvalidType(found, expected) => {
            format!("{source}`{path}`: found {found}, expected {expected}")
        }
        kind => format!("{source}`{path}`: {kind}"),
    }
}
