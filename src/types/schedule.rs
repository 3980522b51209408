//! Cron schedules and windows, in a time zone.
//!
//! The five Unix fields, as people know them: 1 is Monday, 0 and 7 are Sunday. A run that falls
//! into the gap of a spring change is moved to the first instant after it; a run in the fold of an
//! autumn change happens once, in its first pass.
//!
//! The `cron` crate wants a field for seconds, counts Sunday as 1 and demands both day fields where
//! Unix takes either. All of that is settled here: the fields are read into plain sets, the crate
//! walks the calendar in local time without a zone, and the zone is applied to what it returns.

use std::fmt;
use std::ops::RangeInclusive;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Duration as Span, LocalResult, NaiveDateTime, TimeZone, Timelike, Utc};
use chrono_tz::Tz;
use serde::{Deserialize, Serialize};

use super::time::{Time, millis};

/// A cron expression in a time zone. Equality, hashing and the serialised form are of its text.
#[derive(Clone, Serialize, Deserialize)]
#[serde(try_from = "Text", into = "Text")]
pub struct Schedule {
    expression: String,
    timezone: Tz,
    /// One schedule of the crate, or two where both day fields are restricted: a day is then taken
    /// if either fits. Times are local and carry no zone, for which UTC stands in.
    parts: Arc<[cron::Schedule]>,
}

/// The form in which a schedule is stored.
#[derive(Clone, Serialize, Deserialize)]
struct Text {
    expression: String,
    timezone: Tz,
}

/// Why a text is not a schedule. The message says what would be right.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ScheduleError(String);

/// A span that opens by a schedule and stays open for a while.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Window {
    /// When it opens.
    pub opens: Schedule,
    /// For how long.
    pub lasts: Duration,
}

impl Schedule {
    /// Reads five Unix fields: minute, hour, day of the month, month, day of the week. Names of
    /// months and days, lists, ranges and steps are taken.
    pub fn parse(expression: &str, timezone: Tz) -> Result<Self, ScheduleError> {
        let parts = translate(expression)?;
        // A date that no calendar has, such as the 30th of February, would never run.
        let reference = DateTime::<Utc>::UNIX_EPOCH;
        if parts
            .iter()
            .all(|part| part.after(&reference).next().is_none())
        {
            return Err(ScheduleError(format!(
                "\"{expression}\" never runs: no month has such a day"
            )));
        }
        Ok(Self {
            expression: expression.to_owned(),
            timezone,
            parts: parts.into(),
        })
    }

    /// The five fields as written.
    pub fn expression(&self) -> &str {
        &self.expression
    }

    /// The zone in which they are read.
    pub fn timezone(&self) -> Tz {
        self.timezone
    }

    /// The first run after `now`; `None` where there is none before the year 2100.
    pub fn next_after(&self, now: Time) -> Option<Time> {
        // The calendar that is walked has the years 1970 to 2100; before it, its first day will do.
        const FIRST: Time = Time(0);
        const LAST: Time = Time(4_102_444_800_000);
        if now >= LAST {
            return None;
        }
        let now = now.max(FIRST);
        // Local times that follow each other resolve to instants that follow each other or are
        // equal, so the first one whose instant is later is the answer. What is skipped are the
        // runs of a fold's second pass, at most a few hours of them.
        let local = now.utc().with_timezone(&self.timezone).naive_local();
        let from = local.with_nanosecond(0)?.and_utc();
        self.parts
            .iter()
            .filter_map(|part| {
                part.after(&from)
                    .filter_map(|run| resolve(run.naive_utc(), self.timezone))
                    .find(|&run| run > now)
            })
            .min()
    }
}

/// The instant of a local time. In a gap: the first instant after it. In a fold: the first of two.
fn resolve(local: NaiveDateTime, zone: Tz) -> Option<Time> {
    // No zone has ever skipped more than a day; a step of a minute meets every gap's end.
    const GAP_MINUTES_MAX: i64 = 48 * 60;
    (0..=GAP_MINUTES_MAX).find_map(|minutes| {
        let at = local.checked_add_signed(Span::minutes(minutes))?;
        // From the second step on the seconds are dropped, so that the gap's very end is met.
        let at = if minutes == 0 { at } else { at.with_second(0)? };
        match zone.from_local_datetime(&at) {
            LocalResult::Single(time) | LocalResult::Ambiguous(time, _) => {
                Some(Time(time.timestamp_millis()))
            }
            LocalResult::None => None,
        }
    })
}

impl Window {
    /// Whether it is open: from each opening on, the opening included, until `lasts` has passed.
    pub fn is_open(&self, now: Time) -> bool {
        self.opens
            .next_after(now - self.lasts)
            .is_some_and(|opening| opening <= now)
    }

    /// The next opening after `now`, whether it is open now or not.
    pub fn next_opening(&self, now: Time) -> Option<Time> {
        self.opens.next_after(now)
    }

    /// When an open window closes; `None` where it is closed. Openings that overlap make one long
    /// window; it is followed for a year of daily openings and is taken to close then.
    pub fn closes_at(&self, now: Time) -> Option<Time> {
        const OPENINGS_MAX: usize = 366;
        let mut opening = self
            .opens
            .next_after(now - self.lasts)
            .filter(|&opening| opening <= now)?;
        for _ in 0..OPENINGS_MAX {
            match self.opens.next_after(opening) {
                Some(next) if next.ms_since(opening) <= millis(self.lasts) => opening = next,
                _ => break,
            }
        }
        Some(opening + self.lasts)
    }
}

// ------------------------------------------------------------------------------------- the fields

/// One of the five fields: its name for messages, its range, and the names that stand for numbers.
struct FieldRule {
    name: &'static str,
    range: RangeInclusive<u32>,
    /// Names from the range's first number on.
    words: &'static [&'static str],
}

const FIELDS: [FieldRule; 5] = [
    FieldRule {
        name: "minute",
        range: 0..=59,
        words: &[],
    },
    FieldRule {
        name: "hour",
        range: 0..=23,
        words: &[],
    },
    FieldRule {
        name: "day of the month",
        range: 1..=31,
        words: &[],
    },
    FieldRule {
        name: "month",
        range: 1..=12,
        words: &[
            "jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec",
        ],
    },
    FieldRule {
        name: "day of the week",
        range: 0..=7,
        words: &["sun", "mon", "tue", "wed", "thu", "fri", "sat"],
    },
];

fn translate(expression: &str) -> Result<Vec<cron::Schedule>, ScheduleError> {
    let fields: Vec<&str> = expression.split_ascii_whitespace().collect();
    let &[minute, hour, day, month, weekday] = fields.as_slice() else {
        return Err(ScheduleError(format!(
            "a schedule has five fields (minute, hour, day of the month, month, day of the week), \
             such as \"0 22 * * 1-5\"; here are {}",
            fields.len()
        )));
    };
    let [minutes, hours, days, months, weekdays] = [
        FIELDS[0].list(minute)?,
        FIELDS[1].list(hour)?,
        FIELDS[2].list(day)?,
        FIELDS[3].list(month)?,
        // The crate counts Sunday as 1.
        FIELDS[4].set(weekday)?.map_or("*".to_owned(), |set| {
            let mut ordinals: Vec<u32> = set.iter().map(|day| day % 7 + 1).collect();
            ordinals.sort_unstable();
            ordinals.dedup();
            join(&ordinals)
        }),
    ];
    // Unix: where both day fields are restricted, a day is taken if either fits.
    let either = !day.starts_with('*') && !weekday.starts_with('*');
    let day_pairs = if either {
        vec![(days.as_str(), "*"), ("*", weekdays.as_str())]
    } else {
        vec![(days.as_str(), weekdays.as_str())]
    };
    day_pairs
        .into_iter()
        .map(|(days, weekdays)| {
            let text = format!("0 {minutes} {hours} {days} {months} {weekdays}");
            cron::Schedule::from_str(&text)
                .map_err(|_| ScheduleError(format!("\"{expression}\" is not a schedule")))
        })
        .collect()
}

fn join(ordinals: &[u32]) -> String {
    let words: Vec<String> = ordinals.iter().map(u32::to_string).collect();
    words.join(",")
}

impl FieldRule {
    fn error(&self, item: &str) -> ScheduleError {
        let (first, last) = (self.range.start(), self.range.end());
        let names = match self.words {
            [first, .., last] => format!(" or {first}-{last}"),
            _ => String::new(),
        };
        ScheduleError(format!(
            "the {} \"{item}\" is not {first}-{last}{names}, a list (1,2), a range (1-5) or a step (*/5)",
            self.name
        ))
    }

    /// The field for the crate: its numbers, or `*`.
    fn list(&self, text: &str) -> Result<String, ScheduleError> {
        Ok(self
            .set(text)?
            .map_or_else(|| "*".to_owned(), |set| join(&set)))
    }

    /// The numbers that a field names, ascending; `None` for all of them.
    fn set(&self, text: &str) -> Result<Option<Vec<u32>>, ScheduleError> {
        if text == "*" {
            return Ok(None);
        }
        let mut set = Vec::new();
        for item in text.split(',') {
            set.extend(self.item(item)?);
        }
        set.sort_unstable();
        set.dedup();
        Ok(Some(set))
    }

    fn item(&self, item: &str) -> Result<Vec<u32>, ScheduleError> {
        let (base, step) = match item.split_once('/') {
            Some((base, step)) => (base, Some(step)),
            None => (item, None),
        };
        let last = *self.range.end();
        let (from, to) = match base.split_once('-') {
            _ if base == "*" => (*self.range.start(), last),
            Some((from, to)) => (self.number(from, item)?, self.number(to, item)?),
            // `5/10` means from 5 on, as in Vixie's cron.
            None if step.is_some() => (self.number(base, item)?, last),
            None => {
                let number = self.number(base, item)?;
                (number, number)
            }
        };
        let step: usize = match step {
            Some(text) => text.parse().map_err(|_| self.error(item))?,
            None => 1,
        };
        if from > to || step == 0 {
            return Err(self.error(item));
        }
        Ok((from..=to).step_by(step).collect())
    }

    fn number(&self, text: &str, item: &str) -> Result<u32, ScheduleError> {
        let lower = text.to_ascii_lowercase();
        let named = self.words.iter().position(|&word| word == lower);
        let number = match named {
            Some(index) => u32::try_from(index).ok().map(|i| i + self.range.start()),
            None if text.bytes().all(|b| b.is_ascii_digit()) => text.parse().ok(),
            None => None,
        };
        number
            .filter(|number| self.range.contains(number))
            .ok_or_else(|| self.error(item))
    }
}

// ------------------------------------------------------------------------------------ as its text

impl PartialEq for Schedule {
    fn eq(&self, other: &Self) -> bool {
        self.expression == other.expression && self.timezone == other.timezone
    }
}

impl Eq for Schedule {}

impl fmt::Debug for Schedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Schedule({:?} {})", self.expression, self.timezone)
    }
}

impl fmt::Display for Schedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.expression, self.timezone)
    }
}

impl TryFrom<Text> for Schedule {
    type Error = ScheduleError;
    fn try_from(text: Text) -> Result<Self, ScheduleError> {
        Self::parse(&text.expression, text.timezone)
    }
}

impl From<Schedule> for Text {
    fn from(schedule: Schedule) -> Self {
        Self {
            expression: schedule.expression,
            timezone: schedule.timezone,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn at(text: &str) -> Time {
        Time(
            DateTime::parse_from_rfc3339(text)
                .unwrap()
                .timestamp_millis(),
        )
    }

    fn berlin(expression: &str) -> Schedule {
        Schedule::parse(expression, Tz::Europe__Berlin).unwrap()
    }

    /// The runs after a moment, as text.
    fn runs(schedule: &Schedule, from: &str, count: usize) -> Vec<String> {
        let mut now = at(from);
        (0..count)
            .map(|_| {
                now = schedule.next_after(now).unwrap();
                now.to_string()
            })
            .collect()
    }

    #[test]
    fn a_run_in_the_gap_moves_to_the_first_instant_after_it() {
        // 2026-03-29 and 2027-03-28: 02:00 becomes 03:00, which is 01:00 UTC.
        let daily = berlin("30 2 * * *");
        assert_eq!(
            runs(&daily, "2026-03-28T00:00:00Z", 3),
            [
                "2026-03-28T01:30:00Z",
                "2026-03-29T01:00:00Z",
                "2026-03-30T00:30:00Z"
            ]
        );
        assert_eq!(
            runs(&daily, "2027-03-27T12:00:00Z", 2),
            ["2027-03-28T01:00:00Z", "2027-03-29T00:30:00Z"]
        );
    }

    #[test]
    fn runs_that_a_gap_moves_together_are_one() {
        assert_eq!(
            runs(&berlin("*/20 2,3 * * *"), "2026-03-29T00:30:00Z", 3),
            [
                "2026-03-29T01:00:00Z",
                "2026-03-29T01:20:00Z",
                "2026-03-29T01:40:00Z"
            ]
        );
    }

    #[test]
    fn a_run_in_the_fold_happens_once() {
        // 2026-10-25 and 2027-10-31: 03:00 becomes 02:00; 02:30 is 00:30 and again 01:30 UTC.
        let daily = berlin("30 2 * * *");
        assert_eq!(
            runs(&daily, "2026-10-25T00:00:00Z", 2),
            ["2026-10-25T00:30:00Z", "2026-10-26T01:30:00Z"]
        );
        assert_eq!(
            runs(&daily, "2027-10-31T00:00:00Z", 2),
            ["2027-10-31T00:30:00Z", "2027-11-01T01:30:00Z"]
        );
        // Within the second pass, the next is the next day's.
        assert_eq!(
            runs(&daily, "2026-10-25T01:10:00Z", 1),
            ["2026-10-26T01:30:00Z"]
        );
        assert_eq!(
            runs(&berlin("*/30 * * * *"), "2026-10-25T00:20:00Z", 2),
            ["2026-10-25T00:30:00Z", "2026-10-25T02:00:00Z"]
        );
    }

    #[test]
    fn weekdays_are_counted_as_in_unix() {
        let from = "2026-01-05T12:00:00Z"; // a Monday
        let utc = |text: &str| Schedule::parse(text, Tz::UTC).unwrap();
        assert_eq!(runs(&utc("0 9 * * 1"), from, 1), ["2026-01-12T09:00:00Z"]);
        for sunday in ["0 9 * * 0", "0 9 * * 7", "0 9 * * sun", "0 9 * * SUN"] {
            assert_eq!(runs(&utc(sunday), from, 1), ["2026-01-11T09:00:00Z"]);
        }
        let weekend = runs(&utc("0 9 * * 6-7"), from, 3);
        assert_eq!(
            weekend,
            [
                "2026-01-10T09:00:00Z",
                "2026-01-11T09:00:00Z",
                "2026-01-17T09:00:00Z"
            ]
        );
        assert_eq!(
            runs(&utc("0 22 * jan mon-fri"), "2026-01-09T22:00:00Z", 1),
            ["2026-01-12T22:00:00Z"]
        );
    }

    #[test]
    fn either_day_field_suffices_where_both_are_restricted() {
        let both = Schedule::parse("0 0 13 * 5", Tz::UTC).unwrap();
        assert_eq!(
            runs(&both, "2026-01-08T00:00:00Z", 3),
            [
                "2026-01-09T00:00:00Z",
                "2026-01-13T00:00:00Z",
                "2026-01-16T00:00:00Z"
            ]
        );
    }

    #[test]
    fn steps_lists_and_leap_days() {
        let utc = |text: &str| Schedule::parse(text, Tz::UTC).unwrap();
        assert_eq!(
            runs(&utc("5/25 * * * *"), "2026-01-01T00:00:00Z", 4),
            [
                "2026-01-01T00:05:00Z",
                "2026-01-01T00:30:00Z",
                "2026-01-01T00:55:00Z",
                "2026-01-01T01:05:00Z"
            ]
        );
        assert_eq!(
            runs(&utc("0 0 29 feb *"), "2026-01-01T00:00:00Z", 1),
            ["2028-02-29T00:00:00Z"]
        );
    }

    #[test]
    fn what_is_not_a_schedule_is_told_what_would_be() {
        for (text, part) in [
            ("0 22 * *", "five fields"),
            ("0 0 22 * * 1", "here are 6"),
            ("60 * * * *", "the minute \"60\" is not 0-59"),
            ("0 24 * * *", "the hour \"24\""),
            ("0 0 0 * *", "the day of the month \"0\""),
            ("0 0 * 13 *", "the month \"13\" is not 1-12 or jan-dec"),
            ("0 0 * * 8", "the day of the week \"8\""),
            ("0 0 * * fri-mon", "the day of the week"),
            ("*/0 * * * *", "the minute"),
            ("0 0 30 2 *", "never runs"),
            ("@daily", "five fields"),
            ("0 0 L * *", "the day of the month \"L\""),
        ] {
            let error = Schedule::parse(text, Tz::UTC).unwrap_err().to_string();
            assert!(error.contains(part), "{text}: {error}");
        }
    }

    #[test]
    fn a_window_opens_and_closes() {
        let window = Window {
            opens: berlin("0 22 * * 1-5"),
            lasts: Duration::from_hours(9),
        };
        // Monday 22:00 in Berlin is 21:00 UTC.
        assert!(!window.is_open(at("2026-01-05T20:59:59Z")));
        assert!(window.is_open(at("2026-01-05T21:00:00Z")));
        assert!(window.is_open(at("2026-01-06T05:59:59Z")));
        assert!(!window.is_open(at("2026-01-06T06:00:00Z")));
        let open = at("2026-01-05T23:00:00Z");
        assert_eq!(window.closes_at(open), Some(at("2026-01-06T06:00:00Z")));
        assert_eq!(window.closes_at(at("2026-01-05T20:00:00Z")), None);
        // Friday night is the last of the week.
        assert_eq!(
            window.next_opening(at("2026-01-09T23:00:00Z")),
            Some(at("2026-01-12T21:00:00Z"))
        );
    }

    #[test]
    fn windows_that_overlap_are_one() {
        let window = Window {
            opens: Schedule::parse("0 8,10 * * *", Tz::UTC).unwrap(),
            lasts: Duration::from_hours(3),
        };
        let closes = window.closes_at(at("2026-01-05T08:30:00Z"));
        assert_eq!(closes, Some(at("2026-01-05T13:00:00Z")));
    }

    #[test]
    fn stored_as_its_text() {
        let schedule = berlin("0 22 * * 1-5");
        let json = serde_json::to_string(&schedule).unwrap();
        assert_eq!(
            json,
            r#"{"expression":"0 22 * * 1-5","timezone":"Europe/Berlin"}"#
        );
        assert_eq!(serde_json::from_str::<Schedule>(&json).unwrap(), schedule);
        let bad = json.replace("22", "25");
        assert!(serde_json::from_str::<Schedule>(&bad).is_err());
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in "[-0-9*/, a-z]{0,30}") {
            let _ = Schedule::parse(&text, Tz::UTC);
        }

        #[test]
        fn any_moment_is_taken(ms: i64) {
            let window = Window { opens: berlin("0 22 * * *"), lasts: Duration::from_hours(1) };
            let _ = (window.is_open(Time(ms)), window.closes_at(Time(ms)), window.next_opening(Time(ms)));
        }

        #[test]
        fn the_next_run_is_later_and_no_run_lies_between(
            minute in 0_u32..60, hour in 0_u32..24, days in 0_i64..800, second in 0_i64..86_400,
        ) {
            let schedule = berlin(&format!("{minute} {hour} * * *"));
            let now = at("2026-01-01T00:00:00Z") + Duration::from_secs((days * 86_400 + second) as u64);
            let next = schedule.next_after(now).unwrap();
            prop_assert!(next > now);
            // A daily run is at most a day and a changed hour away, and a probe just before it finds it.
            prop_assert!(next.ms_since(now) <= 25 * 3_600_000);
            prop_assert_eq!(schedule.next_after(Time(next.0 - 1)), Some(next));
        }
    }
}
