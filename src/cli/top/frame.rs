//! One frame of `haggle top`: what is known, set into so many lines of so many columns. It is made of
//! values and knows no terminal.
//!
//! Names and texts come from others. Each is cut to its column, and what a terminal would obey is
//! shown as a mark in its place.

use chrono_tz::Tz;
use unicode_width::UnicodeWidthChar as _;

use crate::types::money::Money;
use crate::types::spelling::is_obeyed;
use crate::types::state::{Event, Severity};
use crate::types::time::{Time, human};
use crate::view::board::{BoardDocument, InstanceRow, JobRow, LimitRow};
use crate::view::sentence::{Tone, clock};

/// Where no terminal says how large it is.
const COLUMNS: usize = 80;
const ROWS: usize = 24;

/// A terminal is not believed to be larger.
const SIDE_MAX: usize = 1000;

/// From this width on there are columns for numbers.
const WIDE: usize = 60;

/// From this height on all the lines about money are shown, and limits.
const TALL: usize = 16;

/// Limits shown at most.
const LIMITS_MAX: usize = 3;

/// A limit used to this share is worth a warning.
const NEAR: f64 = 0.8;

/// How large a frame is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Size {
    pub(super) columns: usize,
    pub(super) rows: usize,
}

impl Size {
    /// Of the terminal that the output goes to; where there is none, as `COLUMNS` and `LINES` say.
    pub(super) fn of_output() -> Self {
        use std::io::IsTerminal as _;
        if std::io::stdout().is_terminal()
            && let Ok((columns, rows)) = crossterm::terminal::size()
            && columns > 0
            && rows > 0
        {
            return Self::bounded(usize::from(columns), usize::from(rows));
        }
        let told = |name: &str, usual: usize| {
            let told = std::env::var(name).ok().and_then(|text| text.parse().ok());
            told.unwrap_or(usual)
        };
        Self::bounded(told("COLUMNS", COLUMNS), told("LINES", ROWS))
    }

    fn bounded(columns: usize, rows: usize) -> Self {
        Self {
            columns: columns.clamp(1, SIDE_MAX),
            rows: rows.clamp(1, SIDE_MAX),
        }
    }
}

/// What is shown.
pub(super) struct Scene<'a> {
    pub(super) board: &'a BoardDocument,
    /// The newest first.
    pub(super) events: &'a [Event],
    pub(super) now: Time,
    pub(super) zone: Tz,
    /// Whether the daemon ticks.
    pub(super) pulse: (Tone, &'a str),
    /// Why what is shown is not the newest.
    pub(super) trouble: Option<&'a str>,
}

/// How a piece of a line looks. It never says what the words do not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Look {
    Plain,
    /// A title.
    Title,
    /// The uppermost line.
    Bar,
    Tone(Tone),
}

impl Look {
    /// What makes a terminal show it so.
    fn code(self) -> &'static str {
        match self {
            Self::Plain => "",
            Self::Title => "\u{1b}[1m",
            Self::Bar => "\u{1b}[7m",
            Self::Tone(Tone::Bad) => "\u{1b}[31m",
            Self::Tone(Tone::Warn) => "\u{1b}[33m",
            Self::Tone(Tone::Wait) => "\u{1b}[36m",
            Self::Tone(Tone::Good) => "\u{1b}[32m",
            Self::Tone(Tone::Rest) => "\u{1b}[2m",
        }
    }
}

/// A line, piece by piece.
#[derive(Clone, Debug, Default)]
pub(super) struct Line {
    pieces: Vec<(Look, String)>,
    width: usize,
}

impl Line {
    fn of(look: Look, text: &str, width: usize) -> Self {
        let mut line = Self::default();
        line.push(look, text, width);
        line
    }

    /// Appends a text, cut to so many columns.
    fn push(&mut self, look: Look, text: &str, columns: usize) {
        let (text, width) = fitted(text, columns);
        self.width += width;
        self.pieces.push((look, text));
    }

    /// Appends a text that takes so many columns whatever its length, to the left or the right of them.
    fn column(&mut self, look: Look, text: &str, columns: usize, right: bool) {
        let (text, width) = fitted(text, columns);
        let space = " ".repeat(columns - width);
        self.width += columns;
        let text = if right { space + &text } else { text + &space };
        self.pieces.push((look, text));
    }

    /// What is written of it.
    fn painted(&self, styled: bool) -> String {
        let mut out = String::new();
        for (look, text) in &self.pieces {
            let code = if styled { look.code() } else { "" };
            out.push_str(code);
            out.push_str(text);
            if !code.is_empty() {
                out.push_str("\u{1b}[0m");
            }
        }
        out.trim_end().to_owned()
    }
}

/// The lines as text, with colours where they are welcome.
pub(super) fn painted(lines: &[Line], styled: bool) -> String {
    let lines: Vec<String> = lines.iter().map(|line| line.painted(styled)).collect();
    lines.join("\n")
}

/// A text in at most so many columns, and how many it takes. What was cut off is marked.
fn fitted(text: &str, columns: usize) -> (String, usize) {
    const CUT: char = '\u{2026}';
    let mut out = String::new();
    let (mut width, mut before_cut) = (0, 0);
    // Marks that take no column of their own are not taken without end.
    let chars_max = columns.saturating_mul(4);
    for (count, c) in text.chars().enumerate() {
        let c = if is_obeyed(c) {
            char::REPLACEMENT_CHARACTER
        } else {
            c
        };
        let wide = c.width().unwrap_or(1);
        if width + wide > columns || count >= chars_max {
            out.truncate(before_cut);
            if columns > 0 {
                let kept: usize = out.chars().map(|c| c.width().unwrap_or(1)).sum();
                out.push(CUT);
                return (out, kept + 1);
            }
            return (out, 0);
        }
        out.push(c);
        width += wide;
        if width < columns {
            before_cut = out.len();
        }
    }
    (out, width)
}

/// The frame: never more lines than there are rows, and none wider than the columns.
pub(super) fn frame(scene: &Scene<'_>, size: Size) -> Vec<Line> {
    let Size { columns, rows } = size;
    let mut lines = vec![bar(scene, columns)];
    lines.extend(warnings(scene, columns));
    lines.extend(money(scene, size));
    lines.extend(limits(&scene.board.limits, size));
    // The last line says how to get out, so it stays whatever there is to say.
    lines.truncate(rows.saturating_sub(1));
    let left = rows - lines.len() - 1;
    lines.extend(sections(scene, columns, left));
    while lines.len() + 1 < rows {
        lines.push(Line::default());
    }
    lines.push(Line::of(Look::Tone(Tone::Rest), "q quits", columns));
    lines
}

fn bar(scene: &Scene<'_>, columns: usize) -> Line {
    let board = scene.board;
    let account = board
        .account
        .map_or_else(|| "no account yet".to_owned(), |id| format!("account {id}"));
    let mode = if board.live { "live" } else { "dry run" };
    let (tone, pulse) = scene.pulse;
    let mark = if tone == Tone::Good { "" } else { "! " };
    let time = clock(scene.now, scene.now, scene.zone);
    let text = format!("{time} haggle {mode}  {mark}{pulse}  {account}");
    let mut line = Line::default();
    line.column(Look::Bar, &text, columns, false);
    line
}

fn warnings(scene: &Scene<'_>, columns: usize) -> Vec<Line> {
    let mut lines = Vec::new();
    let mut say = |tone, text: String| lines.push(Line::of(Look::Tone(tone), &text, columns));
    if let Some(trouble) = scene.trouble {
        say(Tone::Bad, format!("not read now: {trouble}"));
    }
    if scene.board.spending_forbidden {
        let text = "spending is forbidden until `haggle resume --all`";
        say(Tone::Bad, text.to_owned());
    }
    if let Some(first) = scene.board.broken_policies.first() {
        let more = scene.board.broken_policies.len() - 1;
        let more = if more > 0 {
            format!(" and {more} more")
        } else {
            String::new()
        };
        say(
            Tone::Warn,
            format!("cannot be used: {}{more}; `haggle check`", first.file),
        );
    }
    lines
}

/// An amount of a document, rounded for people.
fn dollars(text: &str, places: usize) -> String {
    match text.parse::<Money>() {
        Ok(money) => format!("{money:.places$}"),
        Err(_) => text.to_owned(),
    }
}

fn money(scene: &Scene<'_>, size: Size) -> Vec<Line> {
    let money = &scene.board.money;
    let credit = money
        .credit_dollars
        .as_deref()
        .map_or_else(|| "unknown".to_owned(), |credit| dollars(credit, 2));
    let lasts = money.runway_seconds.map_or_else(
        || "-".to_owned(),
        |seconds| human(std::time::Duration::from_secs(seconds)),
    );
    let parts = [
        format!("credit {credit}"),
        format!("burn {}/h", dollars(&money.burn_dollars_per_hour, 4)),
        format!("lasts {lasts}"),
        format!("today {}", dollars(&money.spend_today_dollars, 2)),
        format!("month {}", dollars(&money.spend_month_dollars, 2)),
        format!("at worst {}/h", dollars(&money.worst_dollars_per_hour, 4)),
        format!("saved {}", dollars(&money.saved_dollars, 2)),
    ];
    let most = if size.rows < TALL { 2 } else { 3 };
    wrapped(&parts, size.columns, most)
}

/// Parts one after another, as many a line as fit; what does not come into the lines is left out.
fn wrapped(parts: &[String], columns: usize, most: usize) -> Vec<Line> {
    let mut lines: Vec<String> = Vec::new();
    for part in parts {
        match lines.last_mut() {
            Some(line) if line.chars().count() + 2 + part.chars().count() <= columns => {
                line.push_str("  ");
                line.push_str(part);
            }
            _ => lines.push(part.clone()),
        }
    }
    lines
        .iter()
        .take(most)
        .map(|line| Line::of(Look::Plain, line, columns))
        .collect()
}

/// The limits that are used most.
fn limits(rows: &[LimitRow], size: Size) -> Vec<Line> {
    let mut used: Vec<(&LimitRow, f64)> = rows
        .iter()
        .filter_map(|row| Some((row, row.share?)))
        .collect();
    used.sort_by(|(_, a), (_, b)| b.total_cmp(a));
    let most = if size.rows < TALL { 1 } else { LIMITS_MAX };
    let line = |(row, share): (&LimitRow, f64)| {
        const BAR: usize = 10;
        let filled = (share * BAR as f64).clamp(0.0, BAR as f64) as usize;
        let bar = format!("[{}{}]", "#".repeat(filled), ".".repeat(BAR - filled));
        let tone = match share {
            share if share >= 1.0 => Look::Tone(Tone::Bad),
            share if share >= NEAR => Look::Tone(Tone::Warn),
            _ => Look::Plain,
        };
        let text = format!("{bar} {:3.0} % of {}", share * 100.0, row.text);
        Line::of(tone, &text, size.columns)
    };
    used.into_iter().take(most).map(line).collect()
}

// -------------------------------------------------------------------------------------- sections

/// Jobs, instances and events, in so many lines with their titles.
fn sections(scene: &Scene<'_>, columns: usize, lines: usize) -> Vec<Line> {
    let board = scene.board;
    let jobs: Vec<Line> = board
        .jobs
        .iter()
        .map(|job| job_line(job, columns))
        .collect();
    let instances: Vec<Line> = board
        .instances
        .iter()
        .map(|row| instance_line(row, columns))
        .collect();
    let events: Vec<Line> = scene
        .events
        .iter()
        .map(|event| event_line(event, scene, columns))
        .collect();
    let titles = [
        job_title(board.jobs.len() + board.jobs_left_out, columns),
        instance_title(board.instances.len() + board.instances_left_out, columns),
        Line::of(Look::Title, "WHAT HAPPENED", columns),
    ];
    let whole = [
        board.jobs.len() + board.jobs_left_out,
        board.instances.len() + board.instances_left_out,
        // There is always more that happened before; it is not counted.
        events.len(),
    ];
    let hints = ["`haggle jobs`", "`haggle instances`", ""];
    let room = shared(lines, whole);
    let mut out = Vec::new();
    for (((title, rows), room), (whole, hint)) in titles
        .into_iter()
        .zip([jobs, instances, events])
        .zip(room)
        .zip(whole.into_iter().zip(hints))
    {
        let Some(room) = room else { continue };
        out.push(title);
        // The title has the count; a line that says the same has to leave room for another.
        let is_cut = whole > room && !hint.is_empty() && room > 1;
        let shown = if is_cut { room - 1 } else { room };
        out.extend(rows.into_iter().take(shown));
        if is_cut {
            let text = format!("  and {} more: {hint}", whole - shown);
            out.push(Line::of(Look::Tone(Tone::Rest), &text, columns));
        }
    }
    out
}

/// How many rows each section has under its title; `None`: there is no room for it. Each gets a third
/// at first, and what one does not need is for the others, in their order.
fn shared(lines: usize, wants: [usize; 3]) -> [Option<usize>; 3] {
    // A title without a row says nothing.
    let count = (lines / 2).min(3);
    let mut room = [None; 3];
    let mut left = lines - count;
    let Some(each) = left.checked_div(count) else {
        return room;
    };
    for (room, want) in room.iter_mut().zip(wants).take(count) {
        let given = want.min(each);
        *room = Some(given);
        left -= given;
    }
    for (room, want) in room.iter_mut().zip(wants).take(count) {
        if let Some(given) = room {
            let more = want.saturating_sub(*given).min(left);
            *given += more;
            left -= more;
        }
    }
    room
}

/// Columns of names: not quite a quarter, within reason.
fn name_columns(columns: usize) -> usize {
    (columns * 9 / 40).clamp(14, 28).min(columns)
}

const WORK: usize = 6;
const SPENT: usize = 9;
const RATE: usize = 9;

fn job_title(count: usize, columns: usize) -> Line {
    row(
        Look::Title,
        (&format!("JOBS {count}"), Look::Title, "STATE"),
        [("WORK", WORK), ("SPENT", SPENT), ("NOW/H", RATE)],
        columns,
    )
}

fn job_line(of: &JobRow, columns: usize) -> Line {
    let work = of
        .work_share
        .map_or_else(|| "-".to_owned(), |share| format!("{:.0} %", share * 100.0));
    let spent = dollars(&of.job.spend_dollars, 2);
    let burn = dollars(&of.job.burn_dollars_per_hour, 4);
    row(
        Look::Plain,
        (&of.job.job, Look::Tone(of.tone), &of.text),
        [(&work, WORK), (&spent, SPENT), (&burn, RATE)],
        columns,
    )
}

fn instance_title(count: usize, columns: usize) -> Line {
    row(
        Look::Title,
        (&format!("INSTANCES {count}"), Look::Title, "STATE"),
        [("", WORK), ("SPENT", SPENT), ("NOW/H", RATE)],
        columns,
    )
}

fn instance_line(of: &InstanceRow, columns: usize) -> Line {
    let instance = &of.instance;
    let state = format!(
        "{}, {}\u{d7} {} on machine {}, {}",
        instance.status, instance.gpus, instance.gpu_name, instance.machine, instance.rental
    );
    let name = format!("{} {}", instance.instance, instance.replica);
    let spent = dollars(&instance.spend_dollars, 2);
    let burn = dollars(&instance.burn_dollars_per_hour, 4);
    row(
        Look::Plain,
        (&name, Look::Tone(of.tone), &state),
        [("", WORK), (&spent, SPENT), (&burn, RATE)],
        columns,
    )
}

/// A name, a state, and where there is room numbers.
fn row(
    look: Look,
    (name, state_look, state): (&str, Look, &str),
    numbers: [(&str, usize); 3],
    columns: usize,
) -> Line {
    let mut line = Line::default();
    let names = name_columns(columns);
    line.column(look, name, names.saturating_sub(1), false);
    line.push(Look::Plain, " ", columns - line.width);
    let of_numbers: usize = numbers.iter().map(|(_, width)| width).sum();
    if columns < WIDE {
        line.push(state_look, state, columns - line.width);
        return line;
    }
    line.column(state_look, state, columns - line.width - of_numbers, false);
    for (text, width) in numbers {
        line.column(look, text, width, true);
    }
    line
}

fn event_line(event: &Event, scene: &Scene<'_>, columns: usize) -> Line {
    let look = match event.severity {
        Severity::Info => Look::Plain,
        Severity::Warning => Look::Tone(Tone::Warn),
        Severity::Alarm => Look::Tone(Tone::Bad),
    };
    let at = clock(event.at, scene.now, scene.zone);
    let of = event
        .replica
        .as_ref()
        .map_or_else(String::new, |replica| format!("{replica}: "));
    let mut line = Line::default();
    line.push(Look::Tone(Tone::Rest), &at, columns);
    line.push(Look::Plain, " ", columns - line.width);
    line.push(look, &format!("{of}{}", event.text), columns - line.width);
    line
}

#[cfg(test)]
#[path = "frame_tests.rs"]
mod tests;
