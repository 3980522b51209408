//! What was found: each with a line, and what would be right.

use serde::Serialize;

use crate::cli::failure::{Exit, Failure};

/// How a thing is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Health {
    Ok,
    Warn,
    /// The user can mend it.
    Fail,
    /// The world's fault.
    Unreachable,
}

#[derive(Debug, Serialize)]
pub(super) struct Finding {
    pub(super) what: &'static str,
    pub(super) health: Health,
    pub(super) found: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) advice: Option<String>,
}

/// Findings in the order in which they were made.
#[derive(Default)]
pub(super) struct Findings(pub(super) Vec<Finding>);

impl Findings {
    pub(super) fn add(&mut self, what: &'static str, health: Health, found: impl Into<String>) {
        self.0.push(Finding {
            what,
            health,
            found: found.into(),
            advice: None,
        });
    }

    pub(super) fn ok(&mut self, what: &'static str, found: impl Into<String>) {
        self.add(what, Health::Ok, found);
    }

    pub(super) fn advise(
        &mut self,
        what: &'static str,
        health: Health,
        found: impl Into<String>,
        advice: impl Into<String>,
    ) {
        self.add(what, health, found);
        if let Some(last) = self.0.last_mut() {
            last.advice = Some(advice.into());
        }
    }

    /// A failure of something, with the failure's own advice where it has one.
    pub(super) fn failed(&mut self, what: &'static str, failure: &Failure, advice: &str) {
        let health = match failure.exit() {
            Exit::World => Health::Unreachable,
            Exit::Success | Exit::Mendable => Health::Fail,
        };
        let advice = failure.first_hint().unwrap_or(advice);
        self.advise(what, health, line(failure), advice);
    }
}

/// One line of a failure: what, and the causes after colons.
pub(super) fn line(failure: &Failure) -> String {
    let text = failure.to_string();
    let text = text.strip_prefix("error: ").unwrap_or(&text);
    let before_hints = text.split("\nhint: ").next().unwrap_or(text);
    before_hints.replace("\n  cause: ", ": ").replace('\n', " ")
}
