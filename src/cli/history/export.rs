//! `haggle history export` and `haggle history prune`.

use std::ops::ControlFlow;
use std::time::Duration;

use chrono::{DateTime, NaiveDate, NaiveTime, TimeZone};
use chrono_tz::Tz;
use clap::{Args, ValueEnum};

use super::super::context::{Context, open_reader};
use super::super::failure::{Done, Exit, Failure};
use super::super::output::escaped;
use super::super::sheet::{Sheet, harmless};
use crate::store::{Cell, Export, forget};
use crate::types::time::Time;

/// Writes history to stdout, for other programs: as comma-separated values, or with --json as one array.
#[derive(Args, Clone, Debug)]
pub(super) struct ExportArgs {
    /// What is written.
    what: What,
    /// From when on: a day as 2026-11-24, a time as 2026-11-24T08:00:00Z, or how long ago, such as 7d.
    #[arg(long, value_name = "WHEN")]
    since: Option<String>,
    /// Up to, but not with, this time; written in the same ways.
    #[arg(long, value_name = "WHEN")]
    until: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum What {
    /// Offers of the market as they changed, with the time for which each stood.
    Offers,
    /// What happened, as it was told.
    Events,
    /// The ledger, line by line.
    Ledger,
    /// What each tick decided.
    Decisions,
    /// Instances, those that are gone and those that are not.
    Instances,
}

/// Forgets history that is older than what is to be kept. The ledger, and what is still needed, stays.
#[derive(Args, Clone, Debug)]
pub(super) struct PruneArgs {
    /// How much is kept, such as 30d; a day at least. Without it, what `poll.history_kept` says.
    #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration)]
    keep: Option<Duration>,
}

/// The least that is kept: what happened in the last day is read back at a start.
const KEPT_MIN: Duration = Duration::from_hours(24);

/// Bytes that are collected before they are written.
const PIECE: usize = 64 * 1024;

pub(super) fn export(context: &Context, args: &ExportArgs) -> Done {
    let config = context.config()?;
    let now = context.now();
    let when = |text: &Option<String>, otherwise| match text {
        None => Ok(otherwise),
        Some(text) => moment(text, now, config.timezone),
    };
    let span = (
        when(&args.since, Time(i64::MIN))?,
        when(&args.until, Time(i64::MAX))?,
    );
    if span.0 >= span.1 {
        return Err(Failure::mendable(format!(
            "--since {} is not before --until {}: nothing is between them",
            span.0, span.1
        )));
    }
    let reader = open_reader(&config)?;
    let what = match args.what {
        What::Offers => Export::Offers,
        What::Events => Export::Events,
        What::Ledger => Export::Ledger,
        What::Decisions => Export::Decisions,
        What::Instances => Export::Instances,
    };
    let mut writer: Box<dyn Writer> = if context.global.json {
        Box::new(Array::new(what))
    } else {
        Box::new(Csv(Sheet::new(what.columns())?))
    };
    let mut failure = None;
    reader.export(what, span, |cells| {
        match piece(context, writer.as_mut(), cells) {
            Ok(true) => ControlFlow::Continue(()),
            Ok(false) => ControlFlow::Break(()),
            Err(error) => {
                failure = Some(error);
                ControlFlow::Break(())
            }
        }
    })?;
    if let Some(failure) = failure {
        return Err(failure);
    }
    let last = writer.end()?;
    context.output.flow(&last)?;
    Ok(Exit::Success)
}

/// Adds a row, and writes what has come together. Says whether anybody still reads.
fn piece(context: &Context, writer: &mut dyn Writer, cells: &[Cell]) -> Result<bool, Failure> {
    match writer.row(cells)? {
        Some(bytes) => context.output.flow(&bytes),
        None => Ok(true),
    }
}

/// How rows are written.
trait Writer {
    /// Adds a row; what is to be written now, if anything.
    fn row(&mut self, cells: &[Cell]) -> Result<Option<Vec<u8>>, Failure>;

    /// What is left.
    fn end(&mut self) -> Result<Vec<u8>, Failure>;
}

struct Csv(Sheet);

impl Writer for Csv {
    fn row(&mut self, cells: &[Cell]) -> Result<Option<Vec<u8>>, Failure> {
        let cells: Vec<String> = cells.iter().map(in_sheet).collect();
        self.0.row(cells.iter().map(String::as_str))?;
        if self.0.waiting() < PIECE {
            return Ok(None);
        }
        self.0.taken().map(Some)
    }

    fn end(&mut self) -> Result<Vec<u8>, Failure> {
        self.0.taken()
    }
}

fn in_sheet(cell: &Cell) -> String {
    match cell {
        Cell::Unknown => String::new(),
        Cell::Integer(number) => number.to_string(),
        Cell::Id(id) => id.to_string(),
        Cell::Real(number) => number.to_string(),
        Cell::Fixed(text) => text.clone(),
        Cell::Text(text) => harmless(text).into_owned(),
        Cell::Flag(flag) => flag.to_string(),
        Cell::Json(json) => json.get().to_owned(),
    }
}

struct Array {
    columns: Vec<&'static str>,
    waiting: String,
    any: bool,
}

impl Array {
    fn new(what: Export) -> Self {
        Self {
            columns: what.columns().collect(),
            waiting: "[".to_owned(),
            any: false,
        }
    }
}

impl Writer for Array {
    fn row(&mut self, cells: &[Cell]) -> Result<Option<Vec<u8>>, Failure> {
        self.waiting.push_str(if self.any { ",\n{" } else { "\n{" });
        self.any = true;
        for (index, (name, cell)) in self.columns.iter().zip(cells).enumerate() {
            let comma = if index == 0 { "" } else { "," };
            let value = serde_json::to_string(cell)
                .map_err(|error| Failure::world(format!("cannot write a row as JSON: {error}")))?;
            self.waiting
                .push_str(&format!("{comma}\"{name}\":{}", escaped(&value)));
        }
        self.waiting.push('}');
        let full = self.waiting.len() >= PIECE;
        Ok(full.then(|| std::mem::take(&mut self.waiting).into_bytes()))
    }

    fn end(&mut self) -> Result<Vec<u8>, Failure> {
        self.waiting.push_str("\n]\n");
        Ok(std::mem::take(&mut self.waiting).into_bytes())
    }
}

/// A moment as people write it: a day in the configuration's zone, a time, or how long ago.
pub(crate) fn moment(text: &str, now: Time, zone: Tz) -> Result<Time, Failure> {
    if let Ok(time) = DateTime::parse_from_rfc3339(text) {
        return Ok(Time(time.timestamp_millis()));
    }
    if let Ok(day) = text.parse::<NaiveDate>() {
        // Where a day begins with an hour that a change of the clocks leaves out, its first moment is later.
        let begins = (0..24).find_map(|hour| {
            let time = NaiveTime::from_hms_opt(hour, 0, 0)?;
            zone.from_local_datetime(&day.and_time(time)).earliest()
        });
        if let Some(begins) = begins {
            return Ok(Time(begins.timestamp_millis()));
        }
    }
    if let Ok(ago) = humantime::parse_duration(text) {
        return Ok(now - ago);
    }
    Err(Failure::mendable(format!(
        "`{text}` is no moment; right is a day (2026-11-24), a time (2026-11-24T08:00:00Z) or how long ago (7d)"
    )))
}

pub(super) fn prune(context: &Context, args: &PruneArgs) -> Done {
    let config = context.config()?;
    let keep = args.keep.unwrap_or(config.history_kept);
    if keep < KEPT_MIN {
        return Err(Failure::mendable(
            "--keep must be a day at least: what happened since is read back at a start",
        ));
    }
    let before = context.now() - keep;
    let gone = forget(&config.database, before, |gone| {
        context.output.progress(&format!("{gone} rows forgotten"));
    })?;
    let document = serde_json::json!({ "before": before.to_string(), "rows": gone });
    context.output.show(&document, || {
        format!("{gone} rows from before {before} are forgotten; the ledger is whole")
    })?;
    Ok(Exit::Success)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_days_times_and_how_long_ago() {
        let now = Time(1_800_000_000_000);
        let read = |text| moment(text, now, chrono_tz::Europe::Berlin);
        let at = |text: &str| {
            Time(
                DateTime::parse_from_rfc3339(text)
                    .unwrap()
                    .timestamp_millis(),
            )
        };
        assert_eq!(read("2026-11-24").unwrap(), at("2026-11-23T23:00:00Z"));
        assert_eq!(
            read("2026-11-24T08:00:00Z").unwrap(),
            at("2026-11-24T08:00:00Z")
        );
        assert_eq!(read("7d").unwrap(), now - Duration::from_hours(7 * 24));
        let error = read("yesterday").unwrap_err().to_string();
        assert!(
            error.contains("`yesterday` is no moment; right is"),
            "{error}"
        );
        // At that day's first hour the clocks went forward.
        let begins = moment("2018-11-04", now, chrono_tz::America::Sao_Paulo).unwrap();
        assert_eq!(begins, at("2018-11-04T03:00:00Z"));
    }
}
