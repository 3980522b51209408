//! Lines of a log as they are shown: for a person, harmless to a terminal, and the runner's short.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::sync::Arc;

use crate::runner::{Told, told};
use crate::types::spelling::is_obeyed;
use crate::types::time::Time;

/// Takes what nobody may see out of a text.
pub(crate) type Redact = Arc<dyn Fn(&str) -> String + Send + Sync>;

/// How lines are shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Style {
    /// Harmless, the runner's lines in short.
    Short,
    /// Harmless.
    Plain,
    /// As they came, byte by byte.
    Untouched,
}

/// Takes a log in pieces and makes of it what is written.
pub(crate) struct Shown {
    style: Style,
    /// Knows what nobody may see, such as the token.
    redact: Redact,
    /// A line that has no end yet.
    begun: Vec<u8>,
    /// Whether an empty line was seen and not shown yet: the runner writes one before each of its
    /// own, which goes with that.
    empty: bool,
    /// The manifest of the last checkpoint that was shown.
    checkpoint: Option<String>,
    ready: Vec<u8>,
}

impl Shown {
    pub(crate) fn new(style: Style, redact: Redact) -> Self {
        Self {
            style,
            redact,
            begun: Vec::new(),
            empty: false,
            checkpoint: None,
            ready: Vec::new(),
        }
    }

    /// Takes what was written further.
    pub(crate) fn take(&mut self, bytes: &[u8]) {
        if self.style == Style::Untouched {
            self.ready.extend_from_slice(bytes);
            return;
        }
        for piece in bytes.split_inclusive(|&byte| byte == b'\n') {
            self.begun.extend_from_slice(piece);
            if piece.ends_with(b"\n") {
                self.line();
            }
        }
    }

    /// Nothing follows: shows what is left.
    pub(crate) fn finish(&mut self) {
        if !self.begun.is_empty() {
            self.line();
        }
        if std::mem::take(&mut self.empty) {
            self.ready.push(b'\n');
        }
    }

    /// Shows a line of text.
    pub(crate) fn title(&mut self, text: &str) {
        self.ready.extend_from_slice(harmless(text).as_bytes());
        self.ready.push(b'\n');
    }

    /// What is to be written now.
    pub(crate) fn ready(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.ready)
    }

    fn line(&mut self) {
        let line = std::mem::take(&mut self.begun);
        let line = String::from_utf8_lossy(&line);
        let line = (self.redact)(last_drawn(line.trim_end_matches(['\n', '\r'])));
        let is_short = self.style == Style::Short;
        if let Some(told) = told(&line, "").filter(|_| is_short) {
            self.empty = false;
            let short = self.short(&told);
            return self.title(&short);
        }
        if std::mem::take(&mut self.empty) {
            self.ready.push(b'\n');
        }
        if is_short && line.is_empty() {
            self.empty = true;
        } else {
            self.title(&line);
        }
    }

    /// What the runner told, in short.
    fn short(&mut self, told: &Told) -> String {
        let mut text = String::from("haggle:");
        if let Some(at) = told.at.checked_mul(1000).filter(|&at| at > 0) {
            let _ = write!(text, " {}", Time(at));
        }
        let _ = write!(text, " {}", told.state);
        if let Some(progress) = told.progress {
            let _ = write!(text, ", progress {progress}");
        }
        if let Some(exit) = told.exit {
            let _ = write!(text, ", exit {exit}");
            if let Some(signal) = exit.checked_sub(128).filter(|&signal| signal > 0) {
                let _ = write!(text, " (signal {signal})");
            }
        }
        if let Some(kept) = &told.checkpoint
            && self.checkpoint.as_ref() != Some(&kept.manifest)
        {
            let _ = write!(text, ", checkpoint of {} bytes kept", kept.bytes);
            self.checkpoint = Some(kept.manifest.clone());
        }
        let words = [
            ("why", &told.why),
            ("trouble", &told.trouble),
            ("lacks", &told.lacks),
            ("refused", &told.bad),
        ];
        for (name, said) in words {
            if let Some(said) = said.as_deref().filter(|said| !said.is_empty()) {
                let _ = write!(text, ", {name}: {said}");
            }
        }
        text
    }
}

/// What a terminal would show in the end of a line that is drawn again and again.
fn last_drawn(line: &str) -> &str {
    line.rsplit_once('\r').map_or(line, |(_, last)| last)
}

/// A line without what a terminal would obey, but for tabs: sequences that set colours or move the
/// cursor go whole, so that what is left can be read.
fn harmless(line: &str) -> Cow<'_, str> {
    let obeyed = |c: char| is_obeyed(c) && c != '\t';
    if !line.contains(obeyed) {
        return Cow::Borrowed(line);
    }
    let mut text = String::with_capacity(line.len());
    let mut rest = line;
    while let Some(at) = rest.find(obeyed) {
        text.push_str(&rest[..at]);
        rest = after_sequence(&rest[at..]);
    }
    text.push_str(rest);
    Cow::Owned(text)
}

/// What follows the control character that a text begins with, and the sequence that it begins.
fn after_sequence(text: &str) -> &str {
    let mut rest = text.chars();
    let first = rest.next();
    let kind = match first {
        Some('\u{1b}') => rest.clone().next(),
        Some('\u{9b}') => Some('['),
        Some('\u{9d}') => Some(']'),
        _ => None,
    };
    if first == Some('\u{1b}') && kind.is_some_and(|kind| matches!(kind, '[' | ']')) {
        rest.next();
    }
    let rest = rest.as_str();
    match kind {
        // Parameters, then one letter.
        Some('[') => {
            let after = rest.trim_start_matches(|c: char| matches!(c, ' '..='?'));
            let end = after.chars().next().filter(|c| matches!(c, '@'..='~'));
            end.map_or(after, |_| &after[1..])
        }
        // A text, to its end: a bell, or a string terminator.
        Some(']') => match rest.find(['\u{7}', '\u{1b}', '\u{9c}']) {
            Some(at) => rest[at..]
                .strip_prefix("\u{1b}\\")
                .or_else(|| rest[at..].strip_prefix(['\u{7}', '\u{9c}']))
                .unwrap_or(&rest[at..]),
            None => rest,
        },
        _ => rest,
    }
}

/// The last lines of a text.
pub(crate) fn last_lines(text: &[u8], lines: u32) -> &[u8] {
    let inner = text.strip_suffix(b"\n").unwrap_or(text);
    let breaks = inner.iter().enumerate().rev();
    let breaks = breaks.filter(|(_, byte)| **byte == b'\n');
    let before = (lines as usize).saturating_sub(1);
    let begins = breaks.map(|(at, _)| at + 1).nth(before);
    &text[begins.unwrap_or(0)..]
}
