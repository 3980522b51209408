//! A mistake in a policy file, pointed at where it is.

use std::fmt;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use miette::{Diagnostic, LabeledSpan, NamedSource, SourceCode, SourceSpan};

use crate::types::ids::JobName;

/// One mistake in one policy file: where it is, what it is, and what would be right.
///
/// Its source text has what looks like a secret masked, so that it can be shown and logged.
#[derive(Clone)]
pub struct PolicyError {
    file: String,
    source: Option<Arc<NamedSource<String>>>,
    span: Range<usize>,
    line: usize,
    column: usize,
    message: String,
    help: Option<String>,
    job_name: Option<JobName>,
}

/// A mistake found while reading, before it is joined with its file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Fault {
    pub(super) span: Range<usize>,
    pub(super) message: String,
    pub(super) help: Option<String>,
}

impl Fault {
    pub(super) fn new(span: Range<usize>, message: impl Into<String>) -> Self {
        Self {
            span,
            message: message.into(),
            help: None,
        }
    }

    pub(super) fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }
}

impl PolicyError {
    /// A mistake at a place in a file's text.
    pub(super) fn at(
        source: &Arc<NamedSource<String>>,
        job_name: Option<&JobName>,
        fault: Fault,
    ) -> Self {
        let text = source.inner();
        let mut start = fault.span.start.min(text.len());
        while !text.is_char_boundary(start) {
            start -= 1;
        }
        let before = &text[..start];
        let line_start = before.rfind('\n').map_or(0, |i| i + 1);
        Self {
            file: source.name().to_owned(),
            span: start..fault.span.end.clamp(start, text.len()),
            line: before.matches('\n').count() + 1,
            column: before[line_start..].chars().count() + 1,
            source: Some(Arc::clone(source)),
            message: fault.message,
            help: fault.help,
            job_name: job_name.cloned(),
        }
    }

    /// A mistake of a whole file or directory, which has no text to point at.
    pub(super) fn whole(path: &Path, message: impl Into<String>, help: impl Into<String>) -> Self {
        Self {
            file: path.display().to_string(),
            source: None,
            span: 0..0,
            line: 1,
            column: 1,
            message: message.into(),
            help: Some(help.into()),
            job_name: super::name_of_file(path),
        }
    }

    /// The file, as it was given.
    pub fn file(&self) -> &str {
        &self.file
    }

    /// The line, from 1. A mistake of the whole file is at line 1, column 1.
    pub fn line(&self) -> usize {
        self.line
    }

    /// The column in characters, from 1.
    pub fn column(&self) -> usize {
        self.column
    }

    /// What is wrong.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// What would be right.
    pub fn help_text(&self) -> Option<&str> {
        self.help.as_deref()
    }

    /// Whose policy this is: the file's `name` where it can be read, else the file's own name.
    /// That job is left as it is.
    pub fn job_name(&self) -> Option<JobName> {
        self.job_name.clone()
    }
}

impl fmt::Display for PolicyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl fmt::Debug for PolicyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}:{}:{}: {}",
            self.file, self.line, self.column, self.message
        )?;
        match &self.help {
            Some(help) => write!(f, " ({help})"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for PolicyError {}

impl Diagnostic for PolicyError {
    fn help<'a>(&'a self) -> Option<Box<dyn fmt::Display + 'a>> {
        self.help
            .as_ref()
            .map(|help| Box::new(help) as Box<dyn fmt::Display>)
    }

    fn source_code(&self) -> Option<&dyn SourceCode> {
        self.source
            .as_deref()
            .map(|source| source as &dyn SourceCode)
    }

    fn labels(&self) -> Option<Box<dyn Iterator<Item = LabeledSpan> + '_>> {
        self.source.as_ref()?;
        let span = SourceSpan::from(self.span.clone());
        let label = LabeledSpan::new_primary_with_span(Some("here".to_owned()), span);
        Some(Box::new(std::iter::once(label)))
    }
}
