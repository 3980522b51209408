//! The list of instances, and one by id.

use super::LowCode;
use super::send::place;
use super::wire::Answer;
use crate::marketplace::listed::{self, Gathered, PAGES_MAX};
use crate::marketplace::operation::Operation;
use crate::ports::ReadError;
use crate::types::ids::InstanceId;
use crate::types::instance::{Instance, Listing};

impl LowCode {
    pub(super) async fn list_instances(&self) -> Result<Listing, ReadError> {
        let mut gathered = Gathered::default();
        for number in 0..PAGES_MAX {
            let page = self.instances_page(gathered.after()).await;
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
                return listed::lone(&answer, &self.redactor);
            };
            if !gathered.take(&answer, rows, &self.redactor) {
                break;
            }
        }
        let may_be_cut = gathered.may_be_cut();
        let mut listing = gathered.listing();
        listing.complete &= !may_be_cut;
        Ok(listing)
    }

    async fn instances_page(&self, after: Option<&str>) -> Result<Answer, ReadError> {
        let query: Vec<(String, String)> = after
            .map(|token| ("after_token".to_owned(), token.to_owned()))
            .into_iter()
            .collect();
        let reply = self.read_plain(Operation::Instances, &query).await?;
        let answer = Answer::read_instances(&reply);
        self.check(&answer, "list instances")?;
        Ok(answer)
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
        listed::one(&answer, id, &self.redactor)
    }
}
