//! The bill as its pages bring it.

use serde_json::{Value, json};

use super::answer::Answer;
use super::rows;
use crate::ports::{Charge, ReadError};
use crate::types::time::Time;

/// Rows of a page of charges: the marketplace's documented most.
pub(crate) const ROWS_MAX: u32 = 500;

/// Pages of one bill: 50,000 rows.
pub(crate) const PAGES_MAX: usize = 100;

/// The charges of a span of time, page by page. A bill with a hole in it is an error.
#[derive(Debug)]
pub(crate) struct Bill {
    from: Time,
    to: Time,
    charges: Vec<Charge>,
    after: Option<String>,
    /// How many rows the first page says there are in all.
    announced: Option<f64>,
    /// Rows of all pages so far.
    counted: usize,
}

impl Bill {
    /// An empty one.
    pub(crate) fn new(from: Time, to: Time) -> Self {
        Self {
            from,
            to,
            charges: Vec::new(),
            after: None,
            announced: None,
            counted: 0,
        }
    }

    /// The token of the next page; `None` before the first.
    pub(crate) fn after(&self) -> Option<&str> {
        self.after.as_deref()
    }

    /// Takes a page in. `true`: there is another.
    pub(crate) fn take(&mut self, answer: &Answer) -> Result<bool, ReadError> {
        let rows = answer
            .rows(&["results", "charges", "invoices"])
            .ok_or_else(|| ReadError::Malformed("no list of charges".to_owned()))?;
        // The marketplace documents how many rows a page has. Believing one that lacks some would
        // give money back that was billed.
        let announced = answer.number("count");
        if announced.is_some_and(|count| count > rows.len() as f64) {
            return Err(ReadError::Malformed(
                "a page of the bill lacks rows that it announces".to_owned(),
            ));
        }
        // The marketplace documents how many there are in all, too. A later page may be cut short
        // together with what it says of itself; rows that were added meanwhile only make it more.
        if self.after.is_none() {
            self.announced = answer.number("total");
        }
        self.counted += rows.len();
        for row in rows {
            let charges = rows::charges(row).map_err(|bad| {
                ReadError::Malformed(format!("a charge's {} cannot be read", bad.0))
            })?;
            let touching = |charge: &Charge| rows::touches(charge, self.from, self.to);
            self.charges.extend(charges.into_iter().filter(touching));
        }
        let more = next_page(&mut self.after, answer)?;
        if !more
            && self
                .announced
                .is_some_and(|total| total > self.counted as f64)
        {
            return Err(ReadError::Malformed(
                "a bill that lacks pages which it announces".to_owned(),
            ));
        }
        Ok(more)
    }

    /// The charges.
    pub(crate) fn charges(self) -> Vec<Charge> {
        self.charges
    }
}

/// Moves on to the page that an answer names. `true`: there is one.
pub(crate) fn next_page(after: &mut Option<String>, answer: &Answer) -> Result<bool, ReadError> {
    match answer.text("next_token") {
        None => Ok(false),
        Some(token) if after.as_deref() == Some(token) => Err(ReadError::Malformed(
            "a bill that repeats itself".to_owned(),
        )),
        Some(token) => {
            *after = Some(token.to_owned());
            Ok(true)
        }
    }
}

/// A bill that does not end.
pub(crate) fn endless() -> ReadError {
    ReadError::Malformed(format!("a bill of more than {PAGES_MAX} pages"))
}

/// The marketplace's filter for charges of every kind between two seconds since the epoch.
pub(crate) fn charges_filter(from: i64, to: i64) -> Value {
    json!({
        "day": { "gte": from, "lte": to },
        "type": { "in": ["instance", "volume", "serverless"] },
    })
}
