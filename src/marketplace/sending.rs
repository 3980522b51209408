//! What sending has in common: when a read is tried again, and what of a failure may be shown.

use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBackoff, ExponentialBuilder};

use super::limits::WAIT_MAX;
use super::redact::Redactor;
use crate::ports::{Clock, ReadError, TransportError};

/// How often a read is tried again. The daemon polls anyway: more would only delay its tick.
pub(crate) const READ_RETRIES: usize = 3;

/// Timeouts are retried less, for each has cost the whole timeout already.
const TIMEOUT_RETRIES: usize = 1;

const RETRY_FIRST: Duration = Duration::from_millis(500);
const RETRY_MAX: Duration = Duration::from_secs(8);

/// The tries of one read.
pub(crate) struct Retries {
    pauses: ExponentialBackoff,
    timeouts: usize,
}

impl Retries {
    /// At most so many tries after the first, with jitter from a seed.
    pub(crate) fn new(most: usize, seed: u64) -> Self {
        let pauses = ExponentialBuilder::new()
            .with_min_delay(RETRY_FIRST)
            .with_max_delay(RETRY_MAX)
            .with_factor(2.0)
            .with_max_times(most)
            .with_jitter()
            .with_jitter_seed(seed)
            .build();
        Self {
            pauses,
            timeouts: 0,
        }
    }

    /// Waits until the read may be tried again after an error; gives the error back where it may
    /// not.
    pub(crate) async fn wait(
        &mut self,
        clock: &dyn Clock,
        error: ReadError,
    ) -> Result<(), ReadError> {
        let timeout = matches!(error, ReadError::Unreachable(TransportError::Timeout(_)));
        self.timeouts += usize::from(timeout);
        let pause = self.pauses.next();
        let Some(pause) = pause.filter(|_| self.timeouts <= TIMEOUT_RETRIES) else {
            return Err(error);
        };
        match &error {
            // The limits wait as long as was told, before the next request.
            ReadError::Throttled { retry_after } if *retry_after > WAIT_MAX => Err(error),
            ReadError::Throttled { .. } => Ok(()),
            _ => {
                tracing::debug!(%error, ?pause, "reading again");
                clock.sleep_until(clock.now() + pause).await;
                Ok(())
            }
        }
    }
}

/// A transport's error with its text redacted.
pub(crate) fn shown(redactor: &Redactor, error: TransportError) -> TransportError {
    match error {
        TransportError::Connect(why) => TransportError::Connect(redactor.show(&why)),
        TransportError::Broken(why) => TransportError::Broken(redactor.show(&why)),
        TransportError::Timeout(after) => TransportError::Timeout(after),
    }
}
