//! What a field holds: how it is read, what is said of it where it is wrong, and its schema.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::PathBuf;
use std::time::Duration;

use chrono::{DateTime, NaiveDateTime};
use chrono_tz::Tz;
use serde_json::{Value as Json, json};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::error::Fault;
use super::forms::Form;
use super::sets::{self, Axis, Set};
use crate::types::ids::JobName;
use crate::types::job::{BidMargin, SecretRef};
use crate::types::money::{Money, Rate};
use crate::types::offer::Country;
use crate::types::spelling::nearest;
use crate::types::time::Time;
use crate::types::units::{self, Price, Unit};

/// The kind of value that a field takes, with its bounds.
#[derive(Clone, Copy)]
pub(super) enum Kind {
    /// A job's name.
    JobName,
    /// Text of 1 to so many characters.
    Text(usize),
    /// Text with a rule of its own.
    Form(&'static Form),
    /// One of these words.
    Choice(&'static [&'static str]),
    /// True or false.
    Flag,
    /// A whole number within bounds.
    Integer(i64, i64),
    /// A number within bounds.
    Number(f64, f64),
    /// A quantity within bounds, in the unit's counted unit.
    Quantity(&'static Unit, f64, f64),
    /// A span of time within bounds, in seconds.
    Span(u64, u64),
    /// The same, or `off`.
    SpanOrOff(u64, u64),
    /// More than nothing, and at most so many dollars.
    Price(&'static Price, i64),
    /// A share or a rate per GPU, over the floor.
    Margin,
    /// A version in two groups.
    Version,
    /// A driver's version.
    Driver,
    /// A list of at most so many texts, each of 1 to so many characters.
    Texts(usize, usize),
    /// A list of countries.
    Countries,
    /// A list of numbers that name something.
    Ids,
    /// A list of ports.
    Ports,
    /// A table of environment variables.
    Env,
    /// A table of environment variables whose values are secrets.
    Secrets,
    /// One secret.
    Secret,
    /// A table of factors by GPU model.
    Factors,
    /// A list of sets of parameters.
    Sets,
    /// A table of the values of each parameter.
    Axes,
    /// A cron expression; its meaning depends on the zone beside it and is checked there.
    Cron,
    /// A time zone.
    Zone,
    /// A moment with its offset.
    Instant,
}

/// What was read.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Value {
    Text(String),
    Flag(bool),
    Integer(i64),
    Number(f64),
    Span(Duration),
    Off,
    Nanos(i64),
    Margin(BidMargin),
    Texts(Vec<String>),
    Countries(Vec<Country>),
    Ids(Vec<u64>),
    Ports(Vec<(u16, String)>),
    Env(BTreeMap<String, String>),
    Secrets(BTreeMap<String, SecretRef>),
    Secret(SecretRef),
    Factors(BTreeMap<String, u32>),
    Sets(Vec<Set>),
    Axes(Vec<Axis>),
    Zone(Tz),
    Instant(Time),
}

/// Longest environment variable with its name, as the marketplace documents it.
pub(super) const ENV_ENTRY_MAX: usize = 256;

/// Most that a factor may be: a GPU a hundred times the reference.
const FACTOR_MAX: f64 = 100.0;

pub(super) type Read = Result<Value, Vec<Fault>>;

impl Kind {
    /// Reads a value of the document.
    pub(super) fn read(self, value: &Spanned<DeValue<'_>>) -> Read {
        let span = value.span();
        match (self, value.get_ref()) {
            (Self::Flag, DeValue::Boolean(flag)) => Ok(Value::Flag(*flag)),
            (Self::Integer(least, most), DeValue::Integer(number)) => {
                i64::from_str_radix(number.as_str(), number.radix())
                    .ok()
                    .filter(|n| (least..=most).contains(n))
                    .map(Value::Integer)
                    .ok_or_else(|| self.out_of_range(span))
            }
            (Self::Number(least, most), DeValue::Integer(_) | DeValue::Float(_)) => {
                float(value.get_ref())
                    .filter(|n| (least..=most).contains(n))
                    .map(Value::Number)
                    .ok_or_else(|| self.out_of_range(span))
            }
            (Self::Texts(most, length), DeValue::Array(_)) => {
                let texts = elements(value, |item, span| {
                    item.as_str()
                        .filter(|text| fits(text, length))
                        .map(str::to_owned)
                        .ok_or_else(|| {
                            Fault::new(span, format!("each is a text of 1 to {length} characters"))
                                .help(self.right())
                        })
                })?;
                if texts.len() > most {
                    return Err(self.out_of_range(span));
                }
                Ok(Value::Texts(texts))
            }
            (Self::Countries, DeValue::Array(_)) => elements(value, |item, span| {
                item.as_str()
                    .and_then(|text| Country::try_from(text.to_owned()).ok())
                    .ok_or_else(|| Fault::new(span, "a country is two letters").help(self.right()))
            })
            .map(Value::Countries),
            (Self::Ids, DeValue::Array(_)) => elements(value, |item, span| {
                item.as_integer()
                    .and_then(|n| u64::from_str_radix(n.as_str(), n.radix()).ok())
                    .ok_or_else(|| Fault::new(span, "an id is a whole number").help(self.right()))
            })
            .map(Value::Ids),
            (Self::Ports, DeValue::Array(_)) => elements(value, |item, span| {
                item.as_str().and_then(port).ok_or_else(|| {
                    Fault::new(span, "a port is a number from 1 to 65535 with /tcp or /udp")
                        .help(self.right())
                })
            })
            .map(Value::Ports),
            (Self::Env, DeValue::Table(table)) => read_env(table),
            (Self::Secrets, DeValue::Table(table)) => read_secrets(table),
            (Self::Secret, _) => read_secret(value)
                .map(Value::Secret)
                .map_err(|fault| vec![fault]),
            (Self::Factors, DeValue::Table(table)) => read_factors(table),
            (Self::Sets, DeValue::Array(list)) => sets::read(list, span),
            (Self::Axes, DeValue::Table(table)) => sets::read_axes(table, span),
            (Self::Instant, DeValue::Datetime(moment)) => {
                instant(&moment.to_string()).ok_or_else(|| self.out_of_range(span))
            }
            (_, DeValue::String(text)) => self.read_text(text, span),
            (_, other) => Err(self.wrong_type(other, span)),
        }
    }

    /// Reads the kinds that are written as text.
    fn read_text(self, text: &str, span: Range<usize>) -> Read {
        let explained = |why: String| {
            vec![Fault::new(span.clone(), format!("this is not {}", self.wants())).help(why)]
        };
        match self {
            Self::JobName => text
                .parse::<JobName>()
                .map(|name| Value::Text(name.to_string()))
                .map_err(|why| explained(why.to_string())),
            Self::Text(length) if fits(text, length) => Ok(Value::Text(text.to_owned())),
            Self::Form(form) => form
                .check(text)
                .map(|()| Value::Text(text.to_owned()))
                .map_err(explained),
            Self::Choice(words) if words.contains(&text) => Ok(Value::Text(text.to_owned())),
            Self::Choice(words) => {
                let near = nearest(text, words.iter().copied());
                let listed = words.join("\", \"");
                Err(explained(match near {
                    Some(word) => format!("did you mean \"{word}\"? It is one of \"{listed}\""),
                    None => format!("it is one of \"{listed}\""),
                }))
            }
            Self::Quantity(unit, least, most) => {
                let quantity = unit.read(text).map_err(explained)?;
                if (least..=most).contains(&quantity) {
                    Ok(Value::Number(quantity))
                } else {
                    Err(self.out_of_range(span))
                }
            }
            Self::SpanOrOff(..) if text == "off" => Ok(Value::Off),
            Self::Span(least, most) | Self::SpanOrOff(least, most) => {
                let time = units::duration(text).map_err(explained)?;
                let bounds = Duration::from_secs(least)..=Duration::from_secs(most);
                if bounds.contains(&time) {
                    Ok(Value::Span(time))
                } else {
                    Err(self.out_of_range(span))
                }
            }
            Self::Price(price, most) => {
                let money = price.read(text).map_err(explained)?;
                if money > Money::ZERO && money <= Money::dollars(most) {
                    Ok(Value::Nanos(money.0))
                } else {
                    Err(self.out_of_range(span))
                }
            }
            Self::Margin => read_margin(text)
                .map(Value::Margin)
                .ok_or_else(|| self.out_of_range(span)),
            Self::Version => units::version(text)
                .map(|v| Value::Integer(v.into()))
                .ok_or_else(|| self.out_of_range(span)),
            Self::Driver => units::driver(text)
                .map(|v| Value::Integer(v.into()))
                .ok_or_else(|| self.out_of_range(span)),
            Self::Cron if fits(text, 200) => Ok(Value::Text(text.to_owned())),
            Self::Zone => text.parse().map(Value::Zone).map_err(|_| {
                let near = nearest(text, chrono_tz::TZ_VARIANTS.iter().map(|zone| zone.name()));
                explained(match near {
                    Some(zone) => format!("did you mean \"{zone}\"?"),
                    None => self.right(),
                })
            }),
            Self::Instant => instant(text).ok_or_else(|| self.out_of_range(span)),
            Self::Text(_) | Self::Cron => Err(self.out_of_range(span)),
            _ => Err(self.wrong_type(&DeValue::String(text.into()), span)),
        }
    }

    fn out_of_range(self, span: Range<usize>) -> Vec<Fault> {
        let message = format!("this is not {}", self.wants());
        vec![Fault::new(span, message).help(self.right())]
    }

    fn wrong_type(self, found: &DeValue<'_>, span: Range<usize>) -> Vec<Fault> {
        let article = match found {
            DeValue::Integer(_) | DeValue::Array(_) => "an",
            _ => "a",
        };
        let message = format!(
            "this must be {}, and is {article} {}",
            self.wants(),
            found.type_str()
        );
        vec![Fault::new(span, message).help(self.right())]
    }

    fn right(self) -> String {
        format!("write it as {}", self.example())
    }

    /// What the field wants, for messages and for the reference.
    pub(super) fn wants(self) -> String {
        match self {
            Self::JobName => "a name of 1 to 40 of a-z, 0-9 and hyphens".to_owned(),
            Self::Text(most) => format!("a text of 1 to {most} characters"),
            Self::Form(form) => form.wants.to_owned(),
            Self::Choice(words) => format!("one of \"{}\"", words.join("\", \"")),
            Self::Flag => "true or false".to_owned(),
            Self::Integer(least, most) => format!("a whole number from {least} to {most}"),
            Self::Number(least, most) => format!("a number from {least} to {most}"),
            Self::Quantity(unit, least, most) => {
                let counted = unit.units.first().map_or("", |&(name, _)| name);
                format!("a quantity from {least} to {most} {counted} with its unit")
            }
            Self::Span(least, most) => {
                format!("a span of time from {} to {}", spelt(least), spelt(most))
            }
            Self::SpanOrOff(least, most) => {
                format!("{}, or \"off\"", Self::Span(least, most).wants())
            }
            Self::Price(price, most) => {
                let per = price.per.first().copied().unwrap_or_default();
                format!("an amount over $0 and up to ${most}{per}")
            }
            Self::Margin => "`auto`, a share up to 1000%, or an amount per gpu-hour".to_owned(),
            Self::Version => "a version in two groups, as text".to_owned(),
            Self::Driver => "a version in up to three groups, as text".to_owned(),
            Self::Texts(most, length) => {
                format!("a list of at most {most} texts of 1 to {length} characters")
            }
            Self::Countries => "a list of two-letter countries".to_owned(),
            Self::Ids => "a list of whole numbers".to_owned(),
            Self::Ports => "a list of ports".to_owned(),
            Self::Env => "a table of texts by variable".to_owned(),
            Self::Secrets => "a table of secrets by variable".to_owned(),
            Self::Secret => "a secret by reference".to_owned(),
            Self::Factors => format!("a table of numbers over 0, up to {FACTOR_MAX}, by GPU model"),
            Self::Sets => "a list of tables of parameters".to_owned(),
            Self::Axes => "a table of lists of values, by parameter".to_owned(),
            Self::Cron => "a cron expression of five fields".to_owned(),
            Self::Zone => "a time zone".to_owned(),
            Self::Instant => "a moment with its offset from UTC".to_owned(),
        }
    }

    /// A value that is right, as TOML.
    pub(super) fn example(self) -> String {
        match self {
            Self::JobName => "\"my-job\"".to_owned(),
            Self::Text(_) => "\"text\"".to_owned(),
            Self::Form(form) => format!("\"{}\"", form.example),
            Self::Choice(words) => format!("\"{}\"", words.first().copied().unwrap_or_default()),
            Self::Flag => "true".to_owned(),
            Self::Integer(least, most) => 1.clamp(least, most).to_string(),
            Self::Number(least, most) => format!("{:?}", 0.5_f64.clamp(least, most)),
            Self::Quantity(unit, ..) => format!("\"{}\"", unit.example),
            Self::Span(least, most) | Self::SpanOrOff(least, most) => {
                format!("\"{}\"", spelt(900.clamp(least, most)))
            }
            Self::Price(price, _) => format!("\"{}\"", price.example),
            Self::Margin => "\"auto\", \"5%\" or \"$0.01/gpu-hour\"".to_owned(),
            Self::Version => "\"12.4\"".to_owned(),
            Self::Driver => "\"535.86.05\"".to_owned(),
            Self::Texts(..) => "[\"one\", \"two\"]".to_owned(),
            Self::Countries => "[\"NO\", \"SE\"]".to_owned(),
            Self::Ids => "[1234, 5678]".to_owned(),
            Self::Ports => "[\"8000/tcp\"]".to_owned(),
            Self::Env => "{ MODE = \"train\" }".to_owned(),
            Self::Secrets => "{ HF_TOKEN = { env = \"HF_TOKEN\" } }".to_owned(),
            Self::Secret => "{ env = \"NAME\" } or { file = \"path\" }".to_owned(),
            Self::Factors => "{ \"RTX 3090\" = 0.5 }".to_owned(),
            Self::Sets => "[{ lr = 0.1, seed = 1 }]".to_owned(),
            Self::Axes => "{ lr = [0.1, 0.01], seed = [1, 2] }".to_owned(),
            Self::Cron => "\"0 22 * * 1-5\"".to_owned(),
            Self::Zone => "\"Europe/Berlin\"".to_owned(),
            Self::Instant => "2027-01-31T18:00:00Z".to_owned(),
        }
    }

    /// The JSON Schema of the value.
    pub(super) fn schema(self) -> Json {
        let text = |pattern: String| json!({ "type": "string", "pattern": pattern });
        let list = |items: Json| json!({ "type": "array", "items": items });
        let table = |values: Json| json!({ "type": "object", "additionalProperties": values });
        match self {
            Self::JobName => text("^[a-z0-9]([a-z0-9-]{0,38}[a-z0-9])?$".to_owned()),
            Self::Text(most) => json!({ "type": "string", "minLength": 1, "maxLength": most }),
            Self::Form(form) => {
                let mut schema = text(form.pattern.to_owned());
                schema["maxLength"] = json!(form.most);
                schema
            }
            Self::Choice(words) => json!({ "enum": words }),
            Self::Flag => json!({ "type": "boolean" }),
            Self::Integer(least, most) => {
                json!({ "type": "integer", "minimum": least, "maximum": most })
            }
            Self::Number(least, most) => {
                json!({ "type": "number", "minimum": least, "maximum": most })
            }
            Self::Quantity(unit, ..) => text(unit.pattern()),
            Self::Span(..) => text(units::DURATION_PATTERN.to_owned()),
            Self::SpanOrOff(..) => json!({ "anyOf": [
                text(units::DURATION_PATTERN.to_owned()),
                { "const": "off" },
            ] }),
            Self::Price(price, _) => text(price.pattern()),
            Self::Margin => json!({ "anyOf": [
                { "const": "auto" },
                text(r"^\s*[0-9]+(\.[0-9]*)?\s*%\s*$".to_owned()),
                text(units::PER_GPU_HOUR.pattern()),
            ] }),
            Self::Version => text(r"^[0-9]{1,3}\.[0-9]{1,2}$".to_owned()),
            Self::Driver => text(r"^[0-9]{1,3}(\.[0-9]{1,3}){0,2}$".to_owned()),
            Self::Texts(most, length) => {
                let mut schema = list(Self::Text(length).schema());
                schema["maxItems"] = json!(most);
                schema
            }
            Self::Countries => list(text("^[A-Za-z]{2}$".to_owned())),
            Self::Ids => list(json!({ "type": "integer", "minimum": 0 })),
            Self::Ports => list(text("^[0-9]{1,5}/(tcp|udp)$".to_owned())),
            Self::Env => table(json!({ "type": "string", "maxLength": ENV_ENTRY_MAX })),
            Self::Secrets => table(Self::Secret.schema()),
            Self::Secret => json!({
                "type": "object",
                "properties": {
                    "env": { "type": "string", "minLength": 1 },
                    "file": { "type": "string", "minLength": 1 },
                },
                "additionalProperties": false,
                "minProperties": 1,
                "maxProperties": 1,
            }),
            Self::Factors => {
                table(json!({ "type": "number", "exclusiveMinimum": 0, "maximum": FACTOR_MAX }))
            }
            Self::Sets => sets::schema(),
            Self::Axes => sets::axes_schema(),
            Self::Cron => text(r"^\s*\S+(\s+\S+){4}\s*$".to_owned()),
            Self::Zone => json!({ "type": "string" }),
            Self::Instant => json!({ "type": "string", "format": "date-time" }),
        }
    }
}

/// Seconds in the largest unit that divides them.
fn spelt(seconds: u64) -> String {
    let units = [(86_400, "d"), (3600, "h"), (60, "m")];
    let whole = units
        .into_iter()
        .find(|&(unit, _)| seconds > 0 && seconds.is_multiple_of(unit));
    let (unit, name) = whole.unwrap_or((1, "s"));
    format!("{}{name}", seconds / unit)
}

fn fits(text: &str, most: usize) -> bool {
    !text.trim().is_empty() && text.chars().count() <= most
}

fn float(value: &DeValue<'_>) -> Option<f64> {
    let number = match value {
        DeValue::Integer(n) => i64::from_str_radix(n.as_str(), n.radix()).ok()? as f64,
        DeValue::Float(n) => n.as_str().parse().ok()?,
        _ => return None,
    };
    number.is_finite().then_some(number)
}

/// Reads each element of an array; all that are wrong are told.
fn elements<T>(
    array: &Spanned<DeValue<'_>>,
    read: impl Fn(&DeValue<'_>, Range<usize>) -> Result<T, Fault>,
) -> Result<Vec<T>, Vec<Fault>> {
    let items = array.get_ref().as_array().into_iter().flatten();
    collect(items.map(|item| read(item.get_ref(), item.span())))
}

/// All values, or all faults.
pub(super) fn collect<T, C: FromIterator<T>>(
    results: impl Iterator<Item = Result<T, Fault>>,
) -> Result<C, Vec<Fault>> {
    let (mut values, mut faults) = (Vec::new(), Vec::new());
    for result in results {
        match result {
            Ok(value) => values.push(value),
            Err(fault) => faults.push(fault),
        }
    }
    if faults.is_empty() {
        Ok(values.into_iter().collect())
    } else {
        Err(faults)
    }
}

fn port(text: &str) -> Option<(u16, String)> {
    let (number, protocol) = text.split_once('/')?;
    let plain = number.bytes().all(|b| b.is_ascii_digit());
    let number = number.parse().ok().filter(|&n| plain && n > 0)?;
    ["tcp", "udp"]
        .contains(&protocol)
        .then(|| (number, protocol.to_owned()))
}

fn read_margin(text: &str) -> Option<BidMargin> {
    if text.trim() == "auto" {
        return Some(BidMargin::Auto);
    }
    // A margin of nothing is allowed: it bids the floor itself.
    units::percent(text)
        .map(BidMargin::PartsPerMillion)
        .or_else(|| {
            let money = units::PER_GPU_HOUR.read(text).ok()?;
            (Money::ZERO..=Money::dollars(10))
                .contains(&money)
                .then_some(BidMargin::PerGpu(Rate(money.0)))
        })
}

fn instant(text: &str) -> Option<Value> {
    let moment = DateTime::parse_from_rfc3339(text).ok().or_else(|| {
        // A moment with a blank for the T, which TOML allows.
        let (date, time) = text.split_once(' ')?;
        DateTime::parse_from_rfc3339(&format!("{date}T{time}")).ok()
    })?;
    let year = NaiveDateTime::default();
    (moment.naive_utc() > year).then(|| Value::Instant(Time(moment.timestamp_millis())))
}

pub(super) fn variable(name: &str) -> bool {
    let mut bytes = name.bytes();
    bytes
        .next()
        .is_some_and(|b| b.is_ascii_alphabetic() || b == b'_')
        && bytes.all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

/// Whether a variable's name says that its value is a secret.
pub(super) fn names_a_secret(name: &str) -> bool {
    const ENDINGS: [&str; 4] = ["TOKEN", "SECRET", "PASSWORD", "API_KEY"];
    let name = name.to_ascii_uppercase();
    ENDINGS.iter().any(|ending| {
        name.strip_suffix(ending)
            .is_some_and(|rest| rest.is_empty() || rest.ends_with('_'))
    })
}

pub(super) fn variable_fault(span: Range<usize>) -> Fault {
    Fault::new(span, "this is not the name of an environment variable")
        .help("letters, digits and underscores, beginning with a letter or an underscore")
}

fn read_env(table: &DeTable<'_>) -> Read {
    collect(table.iter().map(|(key, value)| {
        let name = key.get_ref();
        if !variable(name) {
            return Err(variable_fault(key.span()));
        }
        if names_a_secret(name) {
            return Err(
                Fault::new(key.span(), format!("`{name}` looks like a secret; secrets do not stand in policies"))
                    .help(format!("move it to secrets = {{ {name} = {{ env = \"{name}\" }} }}, or {{ file = \"path\" }}")),
            );
        }
        let DeValue::String(text) = value.get_ref() else {
            return Err(Fault::new(
                value.span(),
                format!("the variable must be a text, and is {}", value.get_ref().type_str()),
            )
            .help("put it in quotes"));
        };
        let length = name.chars().count() + 1 + text.chars().count();
        if length > ENV_ENTRY_MAX {
            return Err(Fault::new(
                value.span(),
                format!("{name}=… is {length} characters long; the marketplace takes {ENV_ENTRY_MAX}"),
            )
            .help("let the job read it from a file or fetch it in its command"));
        }
        Ok((name.to_string(), text.to_string()))
    }))
    .map(Value::Env)
}

fn read_secrets(table: &DeTable<'_>) -> Read {
    collect(table.iter().map(|(key, value)| {
        if !variable(key.get_ref()) {
            return Err(variable_fault(key.span()));
        }
        read_secret(value).map(|secret| (key.get_ref().to_string(), secret))
    }))
    .map(Value::Secrets)
}

/// A reference to a secret. A message never repeats what stands there: it may be the secret.
fn read_secret(value: &Spanned<DeValue<'_>>) -> Result<SecretRef, Fault> {
    let fault = |message: &str| {
        Fault::new(value.span(), message).help(format!("write it as {}", Kind::Secret.example()))
    };
    let DeValue::Table(table) = value.get_ref() else {
        return Err(fault("a secret is given by reference, never by its value"));
    };
    let mut entries = table.iter();
    let (Some((key, place)), None) = (entries.next(), entries.next()) else {
        return Err(fault(
            "a secret has one place: either an environment variable or a file",
        ));
    };
    let Some(place) = place.get_ref().as_str().filter(|p| !p.trim().is_empty()) else {
        return Err(fault("the place of a secret is a text"));
    };
    match key.get_ref().as_ref() {
        "env" if variable(place) => Ok(SecretRef::Env(place.to_owned())),
        "env" => Err(fault("this is not the name of an environment variable")),
        "file" => Ok(SecretRef::File(PathBuf::from(place))),
        _ => Err(fault(
            "a secret is found in an environment variable or in a file",
        )),
    }
}

fn read_factors(table: &DeTable<'_>) -> Read {
    collect(table.iter().map(|(model, value)| {
        let factor = float(value.get_ref()).filter(|&f| f > 0.0 && f <= FACTOR_MAX);
        // A factor too small for parts per million would be no work at all.
        match factor.map(|f| (f * 1e6).round() as u32) {
            Some(ppm) if ppm > 0 => Ok((model.get_ref().to_string(), ppm)),
            _ => Err(Fault::new(
                value.span(),
                format!("a factor is a number over 0, up to {FACTOR_MAX}"),
            )
            .help("0.5 says that an hour of this model does half an hour's work of the reference")),
        }
    }))
    .map(Value::Factors)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_secrets() {
        for name in [
            "HF_TOKEN",
            "token",
            "DB_PASSWORD",
            "WANDB_API_KEY",
            "A_SECRET",
        ] {
            assert!(names_a_secret(name), "{name}");
        }
        for name in [
            "TOKENIZER",
            "KEY",
            "MONKEY",
            "PASSWORD_FILE",
            "MAX_TOKENS",
            "MYTOKEN",
        ] {
            assert!(!names_a_secret(name), "{name}");
        }
    }

    #[test]
    fn ports_and_margins() {
        assert_eq!(port("8000/tcp"), Some((8000, "tcp".to_owned())));
        for bad in ["8000", "0/tcp", "70000/tcp", "+80/tcp", "80/sctp", "/tcp"] {
            assert_eq!(port(bad), None, "{bad}");
        }
        assert_eq!(read_margin("auto"), Some(BidMargin::Auto));
        assert_eq!(read_margin("5%"), Some(BidMargin::PartsPerMillion(50_000)));
        assert_eq!(
            read_margin("$0.01/gpu-hour"),
            Some(BidMargin::PerGpu(Rate(10_000_000)))
        );
        assert_eq!(read_margin("5"), None);
        assert_eq!(read_margin("$50/gpu-hour"), None);
    }
}
