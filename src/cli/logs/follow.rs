//! Goes on with a log until its instance is gone.

use std::time::Duration;

use bytes::Bytes;

use super::unread;
use crate::cli::failure::Failure;
use crate::logbook::{LOOK_BACK_BYTES, news, recent};
use crate::ports::{Clock, Marketplace, ReadError};
use crate::types::ids::InstanceId;

/// Reads in a row that fail, after which it is given up.
const FAILURES_MAX: u32 = 30;

/// After so many looks the instance itself is asked for: a log may be shown for longer than there
/// is one who writes it.
const LOOKS_PER_PROOF: u32 = 6;

/// Why it ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// The instance is gone.
    Gone,
    /// The user has seen enough.
    Enough,
}

/// Whose log is followed, and how often it is asked for.
pub(super) struct Follow<'a> {
    pub(super) clock: &'a dyn Clock,
    pub(super) marketplace: &'a dyn Marketplace,
    pub(super) instance: InstanceId,
    /// The time between two looks; longer where the marketplace asks for it.
    pub(super) every: Duration,
    /// Lines asked for.
    pub(super) lines: u32,
}

impl Follow<'_> {
    /// Writes what comes after what was `seen`, until `enough`, or until nobody reads what is
    /// written, of which `write` tells.
    pub(super) async fn run(
        &self,
        mut seen: Vec<u8>,
        enough: impl Future<Output = ()>,
        mut write: impl FnMut(&[u8]) -> Result<bool, Failure>,
        note: impl Fn(&str),
    ) -> Result<End, Failure> {
        let (mut failures, mut wait) = (0, self.every);
        let mut enough = std::pin::pin!(enough);
        for look in 1_u32.. {
            let next = async {
                self.clock.sleep_until(self.clock.now() + wait).await;
                self.look(look).await
            };
            let looked = tokio::select! {
                biased;
                () = &mut enough => return Ok(End::Enough),
                looked = next => looked?,
            };
            wait = self.every;
            match looked.read {
                Ok(read) => {
                    failures = 0;
                    let new = news(recent(&seen, LOOK_BACK_BYTES), &read).bytes;
                    seen.extend_from_slice(&new);
                    let kept = recent(&seen, 2 * LOOK_BACK_BYTES).len();
                    seen.drain(..seen.len() - kept);
                    if !new.is_empty() && !write(&new)? {
                        return Ok(End::Enough);
                    }
                }
                Err(ReadError::Throttled { retry_after }) => wait = wait.max(retry_after),
                // There is nothing left that could be read.
                Err(_) if looked.gone => {}
                Err(error) => {
                    failures += 1;
                    if failures >= FAILURES_MAX {
                        return Err(unread(self.instance, error));
                    }
                    if failures == 1 {
                        note(&format!(
                            "the log cannot be read now, trying again: {error}"
                        ));
                    }
                }
            }
            if looked.gone {
                return Ok(End::Gone);
            }
        }
        Ok(End::Enough)
    }

    /// One look. An error is one that does not pass by itself.
    async fn look(&self, number: u32) -> Result<Looked, Failure> {
        let read = self.marketplace.logs(self.instance, self.lines).await;
        let doubtful = match &read {
            Ok(_) => number.is_multiple_of(LOOKS_PER_PROOF),
            Err(ReadError::Throttled { .. }) => false,
            Err(error @ (ReadError::Unauthorized { .. } | ReadError::Unsupported(_))) => {
                return Err(unread(self.instance, error.clone()));
            }
            Err(_) => true,
        };
        // Only the marketplace's own word is proof.
        let gone = doubtful && self.marketplace.instance(self.instance).await == Ok(None);
        Ok(Looked { read, gone })
    }
}

/// What a look came to.
struct Looked {
    read: Result<Bytes, ReadError>,
    /// Whether the instance is proven gone.
    gone: bool,
}
