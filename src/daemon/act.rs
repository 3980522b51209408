//! Requests on instances that exist, and what their answers say.

use super::record::because;
use super::{Daemon, DaemonError};
use crate::ports::{Outcome, RefusedWhy};
use crate::types::ids::{InstanceId, Tail};
use crate::types::intent::{Effect, Intent, IntentState};
use crate::types::money::BID_PARKED;
use crate::types::state::{Change, Severity};

impl Daemon {
    /// Sends what changes an instance that exists.
    pub(super) async fn act(&mut self, intent: Intent) -> Result<(), DaemonError> {
        let Some(instance) = intent.effect.instance() else {
            return Ok(());
        };
        let marketplace = &self.parts.marketplace;
        let ends = self.copy_ends(&intent.effect);
        let outcome = match intent.effect {
            Effect::SetBid { bid, .. } => marketplace.set_bid(instance, bid).await,
            Effect::Stop { .. } => marketplace.stop(instance).await,
            Effect::Start { .. } => marketplace.start(instance).await,
            Effect::Relabel { tail, .. } => {
                let label = self.label_with(instance, tail);
                marketplace.set_label(instance, &label).await
            }
            Effect::Copy { .. } => match ends {
                Some((from, to)) => marketplace.copy(&from, &to).await,
                None => Outcome::Refused {
                    why: RefusedWhy::Invalid,
                    message: "one of its ends is gone".to_owned(),
                    leftover: None,
                },
            },
            Effect::Destroy { .. } => marketplace.destroy(instance).await,
            Effect::Rent { .. } => return Ok(()),
        };
        self.settle.touched(instance, self.parts.clock.monotonic());
        match outcome {
            Outcome::Done(()) => {
                let story = self.story(&intent.effect);
                // Together, or a death in between would have it done and unknown.
                let follows = self.believed(&intent);
                self.close_with(intent, IntentState::Done { instance }, story, follows)
            }
            // What is unknown to the marketplace may be gone; that is for the listings to prove.
            Outcome::Refused { why, message, .. } => {
                tracing::info!(
                    why = why.as_str(),
                    "{} was refused: {message}",
                    intent.effect.as_str()
                );
                let follows = self.copy_refused(&intent.effect, why, &message);
                self.close_with(intent, because(why.as_str()), None, follows)
            }
            Outcome::Unknown(message) => self.unknown(intent, &message),
        }
    }

    /// An instance's label with another tail.
    fn label_with(&self, instance: InstanceId, tail: Tail) -> String {
        let held = self.state.held.get(&instance);
        held.map_or_else(String::new, |held| {
            format!("{}/{tail}", held.label(&self.state.installation))
        })
    }

    /// What an answer says is so, where listings show it later. A raised bid is what we owe from now on,
    /// a lowered one only once it was read back. What is destroyed was billed until it was first
    /// answered as done.
    fn believed(&self, intent: &Intent) -> Vec<Change> {
        let effect = &intent.effect;
        let held = effect.instance().and_then(|id| self.state.held.get(&id));
        let Some(mut held) = held.cloned() else {
            return Vec::new();
        };
        if let Effect::Copy { from, .. } = *effect {
            return self.copied(held, from, intent.reserved);
        }
        match *effect {
            Effect::SetBid { bid, .. } if bid > held.price => held.price = bid,
            Effect::Destroy { .. } => held.destroyed_at = held.destroyed_at.or(Some(self.now())),
            Effect::Relabel { tail, .. } => {
                held.tail = Some(tail);
                held.relabelled_at = Some(self.now());
            }
            _ => return Vec::new(),
        }
        vec![Change::Held(Box::new(held))]
    }

    fn story(&self, effect: &Effect) -> Option<(&'static str, Severity, String)> {
        let held = self.state.held.get(&effect.instance()?)?;
        let place = format!("instance {} on machine {}", held.id, held.slot.machine);
        Some(match effect {
            Effect::SetBid { bid, .. } if *bid <= BID_PARKED => (
                "parked",
                Severity::Info,
                format!("{place}: bid cut to {bid:.4}/h to park it"),
            ),
            Effect::SetBid { bid, .. } => (
                "bid",
                Severity::Info,
                format!("{place}: bid {:.4}/h -> {bid:.4}/h", held.price),
            ),
            Effect::Stop { .. } => ("stop", Severity::Info, format!("{place}: asked to stop")),
            Effect::Start { .. } => ("start", Severity::Info, format!("{place}: asked to start")),
            Effect::Destroy { why, .. } => (
                "destroy",
                Severity::Info,
                format!("{place}: destroyed ({})", why.words()),
            ),
            Effect::Copy { from, .. } => (
                "copy",
                Severity::Info,
                format!("{place}: the checkpoint of instance {from} is copied to it"),
            ),
            // A lease is renewed every hour, of every instance.
            Effect::Rent { .. } | Effect::Relabel { .. } => return None,
        })
    }
}
