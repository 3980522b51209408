//! Comma-separated values, for spreadsheets and accounting.

use std::borrow::Cow;

use super::failure::Failure;
use crate::types::spelling;

/// Writes rows as RFC 4180 has them: quoted where they must be, lines ended by CR LF.
pub(crate) struct Sheet(csv::Writer<Vec<u8>>);

impl Sheet {
    /// Begins with the columns' names.
    pub(crate) fn new<'a>(columns: impl IntoIterator<Item = &'a str>) -> Result<Self, Failure> {
        let mut writer = csv::WriterBuilder::new()
            .terminator(csv::Terminator::CRLF)
            .from_writer(Vec::new());
        writer.write_record(columns).map_err(failed)?;
        Ok(Self(writer))
    }

    /// Adds a row.
    pub(crate) fn row<'a>(
        &mut self,
        cells: impl IntoIterator<Item = &'a str>,
    ) -> Result<(), Failure> {
        self.0.write_record(cells).map_err(failed)
    }

    /// Bytes that wait to be taken, as far as they have left the writer's own buffer.
    pub(crate) fn waiting(&self) -> usize {
        self.0.get_ref().len()
    }

    /// What was written since this was asked last.
    pub(crate) fn taken(&mut self) -> Result<Vec<u8>, Failure> {
        self.0.flush().map_err(|error| failed(error.into()))?;
        let written = self.0.get_ref().clone();
        // A writer over its own buffer: what was taken is not to be written again.
        self.0 = csv::WriterBuilder::new()
            .terminator(csv::Terminator::CRLF)
            .from_writer(Vec::new());
        Ok(written)
    }
}

fn failed(error: csv::Error) -> Failure {
    Failure::world(format!("cannot write comma-separated values: {error}"))
}

/// A text that somebody else may have written, as a cell that does nothing: spreadsheets take one that
/// begins with `=`, `+`, `-` or `@` for a formula, and terminals obey control characters.
pub(crate) fn harmless(text: &str) -> Cow<'_, str> {
    let formula = text.starts_with(['=', '+', '-', '@', '\t', '\r']);
    if !formula && !text.contains(spelling::is_obeyed) {
        return Cow::Borrowed(text);
    }
    let quote = if formula { "'" } else { "" };
    let shown = text.chars().map(|c| match c {
        '\n' => '\n',
        c if spelling::is_obeyed(c) => char::REPLACEMENT_CHARACTER,
        c => c,
    });
    Cow::Owned(quote.chars().chain(shown).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_others_wrote_is_no_formula_and_moves_no_cursor() {
        assert_eq!(harmless("RTX 4090"), "RTX 4090");
        assert_eq!(harmless("=1+1"), "'=1+1");
        assert_eq!(harmless("@x"), "'@x");
        assert_eq!(harmless("a\u{1b}[2Jb\nc"), "a\u{fffd}[2Jb\nc");
        assert_eq!(harmless("\tx"), "'\u{fffd}x");
    }

    #[test]
    fn rows_are_taken_once_and_quoted_where_they_must_be() {
        let mut sheet = Sheet::new(["job", "text"]).unwrap();
        sheet.row(["a", "one, \"two\""]).unwrap();
        assert_eq!(
            sheet.taken().unwrap(),
            b"job,text\r\na,\"one, \"\"two\"\"\"\r\n"
        );
        sheet.row(["b", "lines\nof it"]).unwrap();
        assert_eq!(sheet.taken().unwrap(), b"b,\"lines\nof it\"\r\n");
    }
}
