//! The list of instances, paged where the marketplace pages it, and one by id.

use std::sync::PoisonError;
use std::time::Duration;

use super::Vast;
use super::routes::Route;
use super::send::Call;
use crate::marketplace::answer::Answer;
use crate::marketplace::listed::{self, Gathered, PAGES_MAX};
use crate::ports::ReadError;
use crate::types::ids::InstanceId;
use crate::types::instance::{Instance, Listing};
use crate::types::time::Mono;

/// Rows of a page: the marketplace's documented most.
const ROWS_MAX: u32 = 25;

/// The key under which it is remembered that there is no paged list.
pub(super) const LIST_KEY: &str = "vast.instances";

/// The word for the older list.
pub(super) const UNPAGED: &str = "v0";

/// After this long the paged list is tried again: one that was missing may have been away only.
const TRY_AGAIN: Duration = Duration::from_hours(1);

impl Vast {
    /// Every instance: by the paged list, and where there is none, by the older one.
    pub(super) async fn list_instances(&self) -> Result<Listing, ReadError> {
        let now = self.clock.monotonic();
        let missing = self.unpaged_since();
        if missing.is_some_and(|since| now.since(since) < TRY_AGAIN) {
            return self.list_unpaged().await;
        }
        if let Some(listing) = self.list_paged().await? {
            self.set_unpaged(None);
            return Ok(listing);
        }
        let listing = self.list_unpaged().await?;
        self.set_unpaged(Some(now));
        Ok(listing)
    }

    /// The paged list; `None` where the marketplace has no such route.
    async fn list_paged(&self) -> Result<Option<Listing>, ReadError> {
        let mut gathered = Gathered::default();
        for number in 0..PAGES_MAX {
            let mut call = Call::to(Route::Instances).asking("limit", ROWS_MAX);
            if let Some(token) = gathered.after() {
                call = call.asking("after_token", token);
            }
            let reply = self.read(call).await;
            let answer = match reply.map(|reply| Answer::read_instances(&reply)) {
                Ok(answer) if number == 0 && Self::is_missing_route(&answer) => return Ok(None),
                Ok(answer) => self.check(&answer).map(|()| answer),
                Err(error) => Err(error),
            };
            let answer = match answer {
                Ok(answer) => answer,
                Err(error) if number == 0 => return Err(error),
                Err(error) => {
                    tracing::debug!(%error, "a further page of the instances failed");
                    break;
                }
            };
            let Some(rows) = answer.rows(&["instances"]) else {
                if number == 0 {
                    return listed::lone(&answer, &self.redactor).map(Some);
                }
                break;
            };
            if !gathered.take(&answer, rows, &self.redactor) {
                break;
            }
        }
        // The paged list is documented to say how many there are; one that does not may be cut.
        let announced = gathered.is_announced();
        let mut listing = gathered.listing();
        listing.complete &= announced;
        Ok(Some(listing))
    }

    async fn list_unpaged(&self) -> Result<Listing, ReadError> {
        let answer = self.ask(Call::to(Route::InstancesUnpaged)).await?;
        let Some(rows) = answer.rows(&["instances"]) else {
            return listed::lone(&answer, &self.redactor);
        };
        let mut gathered = Gathered::default();
        gathered.take(&answer, rows, &self.redactor);
        Ok(gathered.listing())
    }

    fn unpaged_since(&self) -> Option<Mono> {
        *self.unpaged.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set_unpaged(&self, since: Option<Mono>) {
        let mut unpaged = self.unpaged.lock().unwrap_or_else(PoisonError::into_inner);
        if unpaged.is_some() != since.is_some() {
            let word = since.map(|_| UNPAGED.to_owned());
            let mut news = self.news.lock().unwrap_or_else(PoisonError::into_inner);
            news.push((LIST_KEY.to_owned(), word));
        }
        *unpaged = since;
    }

    /// One instance. That it does not exist is believed only where the marketplace says just that:
    /// a null, or its 404 `no_such_instance`. It answers 404 to bad keys as well.
    pub(super) async fn read_instance(
        &self,
        id: InstanceId,
    ) -> Result<Option<Instance>, ReadError> {
        let call = Call::to(Route::Instance(id)).asking("owner", "me");
        let answer = Answer::read(&self.read(call).await?);
        let absent =
            answer.status == 404 && answer.says("no_such_instance") && !answer.is_unauthorized();
        if absent {
            return Ok(None);
        }
        self.check(&answer)?;
        listed::one(&answer, id, &self.redactor)
    }
}
