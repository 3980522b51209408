//! The list of instances as its pages bring it, and one instance by id.

use std::collections::BTreeMap;

use serde_json::Value;

use super::answer::{Answer, Single};
use super::redact::Redactor;
use super::rows;
use crate::ports::ReadError;
use crate::types::ids::InstanceId;
use crate::types::instance::{Instance, Listing};

/// Pages of one listing, of 25 instances each: more than anyone rents.
pub(crate) const PAGES_MAX: usize = 100;

/// Rows of a page, where the marketplace pages: its documented most.
const PAGE_ROWS: usize = 25;

/// What the pages of a listing held.
#[derive(Debug, Default)]
pub(crate) struct Gathered {
    rows: BTreeMap<InstanceId, Instance>,
    unreadable: Vec<InstanceId>,
    /// Rows that could not be read, ids that came twice, pages that were not as they announced.
    flaws: usize,
    /// Rows in all, as counted here.
    counted: usize,
    /// Rows in all, as announced.
    announced: Option<f64>,
    after: Option<String>,
    reached_end: bool,
}

impl Gathered {
    /// The token of the next page; `None` before the first.
    pub(crate) fn after(&self) -> Option<&str> {
        self.after.as_deref()
    }

    /// Takes a page's rows in. `true`: there is another.
    pub(crate) fn take(&mut self, answer: &Answer, rows: &[Value], redactor: &Redactor) -> bool {
        self.counted += rows.len();
        if let Some(total) = answer.number("total_instances") {
            // Something came or went between two pages, and may be on none of them.
            let moved = self.announced.is_some_and(|before| before != total);
            self.flaws += usize::from(moved);
            self.announced = Some(total);
        }
        let found = answer.number("instances_found");
        self.flaws += usize::from(found.is_some_and(|found| found != rows.len() as f64));
        for row in rows {
            self.take_row(row, redactor);
        }
        match answer.text("next_token") {
            None => {
                self.reached_end = true;
                false
            }
            // The same page again and again is no end.
            Some(token) if self.after() == Some(token) => false,
            Some(token) => {
                self.after = Some(token.to_owned());
                true
            }
        }
    }

    fn take_row(&mut self, row: &Value, redactor: &Redactor) {
        match rows::instance(row, redactor) {
            Ok(instance) => {
                let before = self.rows.insert(instance.id, instance);
                self.flaws += usize::from(before.is_some());
            }
            Err(bad) => {
                tracing::warn!(field = bad.0, "an instance's row cannot be read");
                self.flaws += 1;
                self.unreadable.extend(rows::row_id(row).map(InstanceId));
            }
        }
    }

    /// Whether any page announced how many there are in all.
    pub(crate) fn is_announced(&self) -> bool {
        self.announced.is_some()
    }

    /// Whether it may be the first pages only: so many rows as fill whole pages, and nothing that
    /// says how many there are. Who passes a page on without its token leaves just that.
    pub(crate) fn may_be_cut(&self) -> bool {
        !self.is_announced() && self.counted > 0 && self.counted.is_multiple_of(PAGE_ROWS)
    }

    /// The listing. Complete only where the last page was reached and all is as announced.
    pub(crate) fn listing(self) -> Listing {
        let as_announced = self
            .announced
            .is_none_or(|total| total == self.counted as f64);
        Listing {
            complete: self.reached_end && as_announced && self.flaws == 0,
            rows: self.rows.into_values().collect(),
            unreadable: self.unreadable,
        }
    }
}

/// One instance where a list was expected. It exists; of others nothing is known.
pub(crate) fn lone(answer: &Answer, redactor: &Redactor) -> Result<Listing, ReadError> {
    let Single::Row(row) = answer.single(&["instances"]) else {
        return Err(ReadError::Malformed("no list of instances".to_owned()));
    };
    let mut listing = Listing::default();
    match rows::instance(row, redactor) {
        Ok(instance) => listing.rows.push(instance),
        Err(_) => listing.unreadable.extend(rows::row_id(row).map(InstanceId)),
    }
    Ok(listing)
}

/// The instance of an id from a successful answer; `None` where it says null, which is how the
/// marketplace says that there is none.
pub(crate) fn one(
    answer: &Answer,
    id: InstanceId,
    redactor: &Redactor,
) -> Result<Option<Instance>, ReadError> {
    match answer.single(&["instances", "instance"]) {
        Single::Row(row) => match rows::instance(row, redactor) {
            Ok(instance) if instance.id == id => Ok(Some(instance)),
            Ok(_) => Err(ReadError::Malformed(
                "another instance than was asked for".to_owned(),
            )),
            Err(bad) => Err(ReadError::Malformed(format!(
                "the instance's {} cannot be read",
                bad.0
            ))),
        },
        Single::Nothing => Ok(None),
        Single::Empty | Single::Unclear => Err(ReadError::Malformed("no instance".to_owned())),
    }
}
