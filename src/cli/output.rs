//! The only place that prints. Data goes to stdout, everything else to stderr.

use std::borrow::Cow;
use std::io::{self, IsTerminal, Write};

use comfy_table::{Attribute, Cell, CellAlignment, Table};
use serde::Serialize;

use super::failure::{Exit, Failure};
use crate::types::spelling;

/// Where a command's results go, and in which form.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Output {
    json: bool,
    styled: bool,
}

/// How a column is set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Align {
    /// Words.
    Left,
    /// Numbers, so that digits stand under digits.
    Right,
}

#[expect(
    clippy::unused_self,
    reason = "whoever prints holds the handle, so that printing is seen in signatures"
)]
impl Output {
    /// For a command that was, or was not, asked for JSON. Styles are used only where a person
    /// looks: stdout is a terminal and `NO_COLOR` is not set.
    pub(crate) fn new(json: bool) -> Self {
        let refused = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        Self {
            json,
            styled: !refused && io::stdout().is_terminal(),
        }
    }

    /// Whether colours and bold letters are welcome.
    pub(crate) fn is_styled(self) -> bool {
        self.styled
    }

    /// Whether JSON was asked for.
    pub(crate) fn is_json(self) -> bool {
        self.json
    }

    /// Whether a person looks at stdout.
    pub(crate) fn is_terminal(self) -> bool {
        io::stdout().is_terminal()
    }

    /// Writes a piece of what goes on, as it is, to stdout. Says whether anybody still reads it.
    pub(crate) fn flow(self, bytes: &[u8]) -> Result<bool, Failure> {
        written(bytes)
    }

    /// Writes text for a person to stdout, with a line break where it lacks one.
    pub(crate) fn text(self, text: &str) -> Result<(), Failure> {
        let newline = if text.ends_with('\n') { "" } else { "\n" };
        let text = harmless(text, self.styled);
        to_stdout(format!("{text}{newline}").as_bytes())
    }

    /// Writes bytes to stdout as they are.
    pub(crate) fn bytes(self, bytes: &[u8]) -> Result<(), Failure> {
        to_stdout(bytes)
    }

    /// Writes one JSON document to stdout.
    pub(crate) fn document(self, document: &impl Serialize) -> Result<(), Failure> {
        let text = serde_json::to_string_pretty(document)
            .map_err(|error| Failure::world(format!("cannot write the result as JSON: {error}")))?;
        to_stdout(format!("{}\n", escaped(&text)).as_bytes())
    }

    /// Shows a result: the document where JSON was asked for, else the text.
    pub(crate) fn show(
        self,
        document: &impl Serialize,
        text: impl FnOnce() -> String,
    ) -> Result<(), Failure> {
        if self.json {
            self.document(document)
        } else {
            self.text(&text())
        }
    }

    /// Tells something that is not the result, on stderr.
    pub(crate) fn note(self, text: &str) {
        to_stderr(text);
    }

    /// Tells a person who waits what takes time, on stderr; a program is told nothing.
    pub(crate) fn progress(self, text: &str) {
        if io::stderr().is_terminal() {
            to_stderr(text);
        }
    }

    /// A table without rules, readable without colour and by `awk`; the header is bold where
    /// styles are welcome.
    pub(crate) fn table(self, columns: &[(&str, Align)], rows: Vec<Vec<String>>) -> String {
        let mut table = Table::new();
        table.load_style(comfy_table::presets::NOTHING);
        if self.styled {
            table.enforce_styling();
        } else {
            table.force_no_tty();
        }
        table.set_header(columns.iter().map(|(name, align)| {
            let cell = Cell::new(name).set_alignment(alignment(*align));
            if self.styled {
                cell.add_attribute(Attribute::Bold)
            } else {
                cell
            }
        }));
        table.add_rows(rows.into_iter().map(|row| {
            row.into_iter().zip(columns).map(|(text, (_, align))| {
                // A line break in a cell would tear the row apart.
                Cell::new(text.replace(['\n', '\r'], " ")).set_alignment(alignment(*align))
            })
        }));
        let last = columns.len().saturating_sub(1);
        for (index, column) in table.column_iter_mut().enumerate() {
            column.set_padding((0, if index == last { 0 } else { 2 }));
        }
        table.trim_fmt()
    }
}

fn alignment(align: Align) -> CellAlignment {
    match align {
        Align::Left => CellAlignment::Left,
        Align::Right => CellAlignment::Right,
    }
}

/// Prints a failure once, with its causes and hints, and says how the process ends.
pub(crate) fn failed(failure: &Failure) -> Exit {
    to_stderr(&failure.to_string());
    failure.exit()
}

/// Asks a person to confirm by typing `yes`. `None` where nobody is there to ask.
pub(crate) fn confirm(question: &str) -> Option<bool> {
    if !io::stdin().is_terminal() {
        return None;
    }
    let mut stderr = io::stderr().lock();
    let asked = write!(stderr, "{question} Type \"yes\" to go on: ").and_then(|()| stderr.flush());
    let mut answer = String::new();
    let read = asked.and_then(|()| io::stdin().read_line(&mut answer));
    Some(read.is_ok() && answer.trim().eq_ignore_ascii_case("yes"))
}

fn to_stdout(bytes: &[u8]) -> Result<(), Failure> {
    written(bytes).map(drop)
}

/// Writes to stdout, and says whether there is still a reader.
fn written(bytes: &[u8]) -> Result<bool, Failure> {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(bytes).and_then(|()| stdout.flush()) {
        Ok(()) => Ok(true),
        // The reader has seen enough, as `head` does.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(false),
        Err(error) => Err(Failure::world(format!("cannot write to stdout: {error}"))),
    }
}

fn to_stderr(text: &str) {
    // Where stderr is gone too, there is nobody left to tell.
    let _ = writeln!(io::stderr().lock(), "{}", harmless(text.trim_end(), false));
}

/// What is kept from a terminal: all that it would obey but what sets lines and columns.
fn is_obeyed(c: char) -> bool {
    spelling::is_obeyed(c) && c != '\n' && c != '\t'
}

/// A text that does nothing to a terminal but, where that is welcome, to colour it.
fn harmless(text: &str, styled: bool) -> Cow<'_, str> {
    if !text.contains(is_obeyed) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find(is_obeyed) {
        let (before, from) = rest.split_at(at);
        out.push_str(before);
        let style = if styled { style_len(from) } else { None };
        let len = if let Some(len) = style {
            out.push_str(&from[..len]);
            len
        } else {
            out.push(char::REPLACEMENT_CHARACTER);
            from.chars().next().map_or(1, char::len_utf8)
        };
        rest = &from[len..];
    }
    out.push_str(rest);
    Cow::Owned(out)
}

/// How long the escape sequence is that a text begins with, where all it does is to set a style.
fn style_len(text: &str) -> Option<usize> {
    let inner = text.strip_prefix("\u{1b}[")?;
    let end = inner.find(|c: char| !c.is_ascii_digit() && c != ';')?;
    inner[end..].starts_with('m').then_some(end + 3)
}

/// JSON with what a terminal would obey escaped; outside of its texts there is none.
pub(crate) fn escaped(json: &str) -> Cow<'_, str> {
    if !json.contains(is_obeyed) {
        return Cow::Borrowed(json);
    }
    let mut out = String::with_capacity(json.len());
    for c in json.chars() {
        if is_obeyed(c) {
            out.push_str(&format!("\\u{:04x}", u32::from(c)));
        } else {
            out.push(c);
        }
    }
    Cow::Owned(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::expect;

    #[test]
    fn a_terminal_obeys_nothing_but_our_own_styles() {
        let bold = "\u{1b}[1mjob\u{1b}[0m\ta\n";
        assert_eq!(harmless(bold, true), bold);
        for (text, styled, expected) in [
            (bold, false, "\u{fffd}[1mjob\u{fffd}[0m\ta\n"),
            ("\u{1b}]0;x\u{7}", true, "\u{fffd}]0;x\u{fffd}"),
            ("\u{1b}[2J\u{1b}[", true, "\u{fffd}[2J\u{fffd}["),
            (
                "a\u{9b}31m\r\u{202e}é",
                true,
                "a\u{fffd}31m\u{fffd}\u{fffd}é",
            ),
        ] {
            assert_eq!(harmless(text, styled), expected);
        }
        let json = serde_json::to_string("\u{1b}\u{9b}\u{202e}é").unwrap();
        let shown = escaped(&json);
        assert!(!shown.contains(is_obeyed), "{shown}");
        let read: String = serde_json::from_str(&shown).unwrap();
        assert_eq!(read, "\u{1b}\u{9b}\u{202e}é");
    }

    #[test]
    fn tables_read_without_colour() {
        let output = Output {
            json: false,
            styled: false,
        };
        let table = output.table(
            &[
                ("job", Align::Left),
                ("spent", Align::Right),
                ("what", Align::Left),
            ],
            vec![
                vec!["a".into(), "$12.50".into(), "runs".into()],
                vec!["long-name".into(), "$0.07".into(), "two\nlines".into()],
            ],
        );
        expect![[r"
            job         spent  what
            a          $12.50  runs
            long-name   $0.07  two lines"]]
        .assert_eq(&table);
    }
}
