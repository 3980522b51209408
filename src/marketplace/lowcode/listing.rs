//! The list of instances, and one by id.

use std::collections::BTreeMap;

use serde_json::Value;

use super::LowCode;
use super::send::place;
use super::wire::{Answer, Single};
use crate::marketplace::operation::Operation;
use crate::marketplace::rows;
use crate::ports::ReadError;
use crate::types::ids::InstanceId;
use crate::types::instance::{Instance, Listing};

/// Pages of one listing, of 25 instances each: more than anyone rents.
const PAGES_MAX: usize = 100;

/// What the pages of a listing held.
#[derive(Default)]
struct Gathered {
    rows: BTreeMap<InstanceId, Instance>,
    unreadable: Vec<InstanceId>,
    /// Rows that could not be read, and ids that came twice.
    flaws: usize,
    /// Rows in all, as counted here.
    counted: usize,
    /// Rows in all, as the last page announced.
    announced: Option<f64>,
    /// Whether each page held as many rows as it announced.
    pages_full: bool,
}

impl LowCode {
    pub(super) async fn list_instances(&self) -> Result<Listing, ReadError> {
        let mut gathered = Gathered {
            pages_full: true,
            ..Gathered::default()
        };
        let mut after: Option<String> = None;
        let mut reached_end = false;
        for number in 0..PAGES_MAX {
            let page = self.instances_page(after.as_deref()).await;
            let answer = match page {
                Ok(answer) => answer,
                Err(error) if number == 0 => return Err(error),
                Err(error) => {
                    tracing::debug!(%error, "a further page of the instances failed");
                    break;
                }
            };
            let Some(rows) = answer.rows(&["instances"]) else {
                if number > 0 {
                    break;
                }
                return self.lone_instance(&answer);
            };
            self.gather(&mut gathered, &answer, rows);
            match answer.text("next_token") {
                None => {
                    reached_end = true;
                    break;
                }
                // The same page again and again is no end.
                Some(token) if after.as_deref() == Some(token) => break,
                Some(token) => after = Some(token.to_owned()),
            }
        }
        let as_announced = gathered
            .announced
            .is_none_or(|total| total == gathered.counted as f64);
        let complete = reached_end && as_announced && gathered.pages_full && gathered.flaws == 0;
        Ok(Listing {
            rows: gathered.rows.into_values().collect(),
            complete,
            unreadable: gathered.unreadable,
        })
    }

    async fn instances_page(&self, after: Option<&str>) -> Result<Answer, ReadError> {
        let query: Vec<(String, String)> = after
            .map(|token| ("after_token".to_owned(), token.to_owned()))
            .into_iter()
            .collect();
        let reply = self.read_plain(Operation::Instances, &query).await?;
        let answer = Answer::read(&reply);
        self.check(&answer, "list instances")?;
        Ok(answer)
    }

    fn gather(&self, gathered: &mut Gathered, answer: &Answer, rows: &[Value]) {
        gathered.counted += rows.len();
        gathered.announced = answer.number("total_instances").or(gathered.announced);
        let found = answer.number("instances_found");
        gathered.pages_full &= found.is_none_or(|found| found == rows.len() as f64);
        for row in rows {
            match rows::instance(row, &self.redactor) {
                Ok(instance) => {
                    let before = gathered.rows.insert(instance.id, instance);
                    gathered.flaws += usize::from(before.is_some());
                }
                Err(bad) => {
                    tracing::warn!(field = bad.0, "an instance's row cannot be read");
                    gathered.flaws += 1;
                    gathered
                        .unreadable
                        .extend(rows::row_id(row).map(InstanceId));
                }
            }
        }
    }

    /// One instance where a list was expected. It exists; of others nothing is known.
    fn lone_instance(&self, answer: &Answer) -> Result<Listing, ReadError> {
        let Single::Row(row) = answer.single(&["instances"]) else {
            return Err(ReadError::Malformed("no list of instances".to_owned()));
        };
        let mut listing = Listing::default();
        match rows::instance(row, &self.redactor) {
            Ok(instance) => listing.rows.push(instance),
            Err(_) => listing.unreadable.extend(rows::row_id(row).map(InstanceId)),
        }
        Ok(listing)
    }

    /// One instance. That it does not exist is believed only where the provider says just that: a
    /// null, or its 404 `no_such_instance`. It answers 404 to bad keys as well.
    pub(super) async fn read_instance(
        &self,
        id: InstanceId,
    ) -> Result<Option<Instance>, ReadError> {
        let answer = self
            .read_by_id(Operation::Instance, &place(id.0)?, &[])
            .await?;
        let absent = answer.status == 404
            && answer.says("no_such_instance")
            && !answer.is_unrouted()
            && !answer.is_unauthorized();
        if absent {
            return Ok(None);
        }
        self.check(&answer, "look up an instance")?;
        match answer.single(&["instances", "instance"]) {
            Single::Row(row) => match rows::instance(row, &self.redactor) {
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
}
