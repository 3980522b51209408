//! What a read of a log has that we do not have yet.

/// A longer line is cut, in bytes.
pub const LINE_BYTES_MAX: usize = 64 * 1024;

/// So much of the end of what we have is looked for in a read, in bytes.
pub const LOOK_BACK_BYTES: usize = 256 * 1024;

/// The line that stands where a read does not begin with what we have.
pub const MISSING: &str = "-- haggle: lines may be missing here --";

/// What follows the beginning of a line that was cut.
const CUT: &[u8] = b" -- haggle: the rest of this line was not kept";

/// No more than the end of a read is looked at, in bytes and in lines: a machine that is not ours
/// decides how much it sends.
const READ_BYTES_MAX: usize = 4 * 1024 * 1024;
const LINES_MAX: usize = 65_536;

/// What is new in a read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct News {
    /// What is to be written after what we have.
    pub bytes: Vec<u8>,
    /// Whether lines may be missing before it. [`MISSING`] then stands at its beginning.
    pub gap: bool,
}

/// What is new in a read of a log's end, after the end of what we `had`, from the beginning of a
/// line. A carriage return ends a line as a line feed does, so that a bar which is drawn again and
/// again is many short lines.
pub fn news(had: &[u8], read: &[u8]) -> News {
    let read = lines(last_bytes(read));
    let had = lines(had);
    let mut news = News::default();
    let Some(last) = had.last() else {
        write_lines(&mut news.bytes, &read);
        return news;
    };
    let (whole, begun) = match last.end {
        Some(_) => (&had[..], None),
        None => (&had[..had.len() - 1], Some(last)),
    };
    if let Some(at) = continues_at(whole, begun, &read) {
        let mut rest = &read[at..];
        if let (Some(begun), Some((first, after))) = (begun, rest.split_first()) {
            begun.write_rest(*first, &mut news.bytes);
            rest = after;
        }
        write_lines(&mut news.bytes, rest);
    } else if !is_older(&had, &read) {
        news.gap = true;
        if last.end != Some(b'\n') {
            news.bytes.push(b'\n');
        }
        news.bytes.extend_from_slice(MISSING.as_bytes());
        news.bytes.push(b'\n');
        write_lines(&mut news.bytes, &read);
    }
    news
}

/// The end of a text from the beginning of a line, at most so many bytes, as [`news`] takes it.
pub fn recent(text: &[u8], most: usize) -> &[u8] {
    let Some(from) = text.len().checked_sub(most).filter(|&from| from > 0) else {
        return text;
    };
    // Where the byte before ends a line, one begins here.
    let end = text[from - 1..].iter().position(|&byte| is_end(byte));
    end.map_or(&[], |at| &text[from + at..])
}

/// A line, without what is beyond its greatest length.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Line<'a> {
    text: &'a [u8],
    cut: bool,
    /// The byte that ends it; `None`: it may go on.
    end: Option<u8>,
}

impl Line<'_> {
    /// Whether another may be this one, further on.
    fn grew_to(&self, other: &Line<'_>) -> bool {
        if self.cut {
            return other.cut && self.text == other.text;
        }
        other.text.starts_with(self.text)
    }

    /// Writes what another has beyond this one.
    fn write_rest(&self, other: Line<'_>, to: &mut Vec<u8>) {
        to.extend_from_slice(other.text.get(self.text.len()..).unwrap_or_default());
        if other.cut && !self.cut {
            to.extend_from_slice(CUT);
        }
        to.extend(other.end);
    }
}

fn is_end(byte: u8) -> bool {
    matches!(byte, b'\n' | b'\r')
}

fn lines(text: &[u8]) -> Vec<Line<'_>> {
    let mut lines: Vec<Line<'_>> = Vec::new();
    for whole in text.split_inclusive(|&byte| is_end(byte)) {
        let end = whole.last().copied().filter(|&byte| is_end(byte));
        let text = &whole[..whole.len() - usize::from(end.is_some())];
        lines.push(Line {
            text: &text[..text.len().min(LINE_BYTES_MAX)],
            cut: text.len() > LINE_BYTES_MAX,
            end,
        });
    }
    lines.drain(..lines.len().saturating_sub(LINES_MAX));
    lines
}

fn write_lines(to: &mut Vec<u8>, lines: &[Line<'_>]) {
    for line in lines {
        let nothing = Line {
            text: b"",
            cut: false,
            end: None,
        };
        nothing.write_rest(*line, to);
    }
}

/// The end of a read that is looked at, from the beginning of a line.
fn last_bytes(read: &[u8]) -> &[u8] {
    let Some(from) = read.len().checked_sub(READ_BYTES_MAX) else {
        return read;
    };
    let next = read[from..].iter().position(|&byte| is_end(byte));
    let begins = next
        .map(|at| from + at + 1)
        .filter(|&begins| begins < read.len());
    // One line is longer than all that is looked at: its beginning is what is kept of it.
    let begins = begins.unwrap_or_else(|| {
        let before = read[..from].iter().rposition(|&byte| is_end(byte));
        before.map_or(0, |at| at + 1)
    });
    &read[begins..]
}

/// At which line of a read what we have ends, and, where the last line we have was only `begun`, at
/// which it goes on; `None` where nothing says so. More lines in common say more, and of equals the
/// later: else what repeats would be written again and again.
fn continues_at(whole: &[Line<'_>], begun: Option<&Line<'_>>, read: &[Line<'_>]) -> Option<usize> {
    let goes_on = |at: usize| match begun {
        None => true,
        Some(begun) => read.get(at).is_some_and(|line| begun.grew_to(line)),
    };
    let all_of = |part: &[Line<'_>]| {
        let ends = ends_of(part, read).into_iter().rev();
        ends.into_iter().find(|&end| goes_on(end))
    };
    if let Some(end) = all_of(whole) {
        return Some(end);
    }
    // Before the last mark lines are missing, which an even longer read may have.
    let mark = whole
        .iter()
        .rposition(|line| line.text == MISSING.as_bytes());
    let joined = mark.map_or(whole, |at| &whole[at + 1..]);
    // A beginning alone says little, for many lines begin alike: it has to be all that there was,
    // or nothing but the line's end may have come since.
    let begun_alone = || match (begun, read.first()) {
        (Some(begun), Some(first)) => joined.is_empty() || begun.text == first.text,
        _ => false,
    };
    let since_mark = all_of(joined).map(|end| (joined.len(), end));
    let begins_with = overlaps(whole, read)
        .into_iter()
        .find(|&count| goes_on(count))
        .filter(|&count| count > 0 || begun_alone())
        .map(|count| (count, count));
    since_mark.max(begins_with).map(|(_, end)| end)
}

/// Whether all of a read is in what we have: it is older than that.
fn is_older(had: &[Line<'_>], read: &[Line<'_>]) -> bool {
    let (whole, begun) = match read.split_last() {
        Some((last, before)) if last.end.is_none() => (before, Some(last)),
        _ => (read, None),
    };
    if whole.is_empty() {
        let last = had.last().filter(|last| last.end.is_none());
        return match (begun, last) {
            (Some(begun), Some(last)) => begun.grew_to(last),
            (begun, _) => begun.is_none(),
        };
    }
    ends_of(whole, had).into_iter().any(|end| match begun {
        None => true,
        Some(begun) => had.get(end).is_some_and(|line| begun.grew_to(line)),
    })
}

/// For each beginning of a pattern, the length of the longest shorter one that it ends with: what
/// makes a search take linear time (Knuth, Morris, Pratt).
fn borders(pattern: &[Line<'_>]) -> Vec<usize> {
    let mut borders = vec![0; pattern.len()];
    let mut len = 0;
    for at in 1..pattern.len() {
        len = step(pattern, &borders, len, &pattern[at]);
        borders[at] = len;
    }
    borders
}

/// How much of the pattern is matched after one more line.
fn step(pattern: &[Line<'_>], borders: &[usize], matched: usize, line: &Line<'_>) -> usize {
    let mut len = matched;
    loop {
        if pattern.get(len) == Some(line) {
            return len + 1;
        }
        if len == 0 {
            return 0;
        }
        len = borders[len - 1];
    }
}

/// Where a pattern ends in a text, in order; nowhere if it is empty.
fn ends_of(pattern: &[Line<'_>], text: &[Line<'_>]) -> Vec<usize> {
    if pattern.is_empty() || pattern.len() > text.len() {
        return Vec::new();
    }
    let borders = borders(pattern);
    let (mut ends, mut matched) = (Vec::new(), 0);
    for (at, line) in text.iter().enumerate() {
        matched = step(pattern, &borders, matched, line);
        if matched == pattern.len() {
            ends.push(at + 1);
        }
    }
    ends
}

/// How many lines at the end of `had` the read begins with: all numbers for which it is so, the
/// greatest first, and 0 last.
fn overlaps(had: &[Line<'_>], read: &[Line<'_>]) -> Vec<usize> {
    let borders = borders(read);
    let mut matched = 0;
    for line in had {
        matched = step(read, &borders, matched, line);
    }
    let mut found = vec![matched];
    while matched > 0 {
        matched = borders[matched - 1];
        found.push(matched);
    }
    found
}
