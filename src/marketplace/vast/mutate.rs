//! Mutations: sent once, with an outcome that never claims more than is known.

use std::sync::atomic::Ordering;

use serde_json::{Value, json};

use super::Vast;
use super::routes::Route;
use super::send::Call;
use crate::marketplace::answer::Answer;
use crate::marketplace::rental::{self, price, refused};
use crate::ports::{CreateRequest, Marketplace, Outcome, RefusedWhy};
use crate::types::ids::{InstanceId, OfferId};
use crate::types::money::{BID_PARKED, Rate};

/// The documented highest bid of a rental, $128 an hour.
const BID_MAX: Rate = Rate(128_000_000_000);

/// Documented bounds of a rental's texts, in characters.
const ENV_ENTRY_MAX: usize = 256;
const ENV_TOTAL_MAX: usize = 32_768;
const COMMAND_MAX: usize = 4096;
const IMAGE_MAX: usize = 1024;
const LABEL_MAX: usize = 256;

/// A label may be longer when it is changed.
const LABEL_LATER_MAX: usize = 1024;

/// The least disk, GB.
const DISK_GB_MIN: u32 = 8;

/// Ids in one request: what the marketplace's own client sends at most.
const BULK_MAX: usize = 64;

impl Vast {
    /// Rents an offer.
    pub(super) async fn rent(&self, request: &CreateRequest) -> Outcome<InstanceId> {
        if let Some(problem) = problem_with(request) {
            return refused(RefusedWhy::Invalid, problem);
        }
        rental::keep_secret(&self.redactor, request);
        match request.bid {
            Some(bid) => self.rent_at_bid(request, bid).await,
            None => self.rent_on_demand(request).await,
        }
    }

    /// Rents at a bid. What makes a rental interruptible is the price in its body and nothing else,
    /// so a price that is none must not get there.
    async fn rent_at_bid(&self, request: &CreateRequest, bid: Rate) -> Outcome<InstanceId> {
        if !self.can_bid() {
            return refused(RefusedWhy::Unsupported, "bids are switched off");
        }
        let bid = bid.round_down_to_bid_step();
        if !(BID_PARKED..=BID_MAX).contains(&bid) {
            return refused(
                RefusedWhy::Invalid,
                "a bid must be from $0.001 to $128 an hour",
            );
        }
        let mut body = create_body(request);
        body["price"] = price(bid);
        let low = RefusedWhy::BidTooLow;
        self.create_from(request.offer, body, low).await
    }

    /// Rents at the host's rate, which the marketplace does where the price is null.
    async fn rent_on_demand(&self, request: &CreateRequest) -> Outcome<InstanceId> {
        let mut body = create_body(request);
        body["price"] = Value::Null;
        let taken = RefusedWhy::NoSuchOffer;
        self.create_from(request.offer, body, taken).await
    }

    /// Sends a create. An error that names an instance left one behind, stopped: at a bid that is
    /// how the marketplace answers one under the floor, on demand how it answers GPUs that were
    /// taken meanwhile. `left_behind` is that reason, where the answer gives no other.
    async fn create_from(
        &self,
        offer: OfferId,
        body: Value,
        left_behind: RefusedWhy,
    ) -> Outcome<InstanceId> {
        let call = Call::with(Route::Create(offer), body);
        let answer = match self.mutate(call).await {
            Ok(answer) => answer,
            Err(outcome) => return outcome,
        };
        let made = answer.new_contract();
        let message = self.words(&answer);
        match made {
            Some(id) if answer.is_success() => Outcome::Done(id),
            _ if answer.is_success() || answer.is_open() => Outcome::Unknown(message),
            _ => {
                let why = match answer.refused_why() {
                    RefusedWhy::Invalid if made.is_some() => left_behind,
                    why => why,
                };
                Outcome::Refused {
                    why,
                    message,
                    leftover: made,
                }
            }
        }
    }

    pub(super) async fn change_bid(&self, id: InstanceId, bid: Rate) -> Outcome<()> {
        let bid = bid.round_down_to_bid_step();
        if bid < BID_PARKED {
            // For a null the marketplace would choose a price of its own.
            return refused(RefusedWhy::Invalid, "a bid under $0.001 is none");
        }
        let body = json!({ "client_id": "me", "price": price(bid) });
        self.act(Call::with(Route::ChangeBid(id), body)).await
    }

    pub(super) async fn stop_instance(&self, id: InstanceId) -> Outcome<()> {
        let body = json!({ "state": "stopped" });
        self.act(Call::with(Route::Manage(id), body)).await
    }

    /// Starts an instance. Where its GPUs are taken the start stays queued and may come, and bill,
    /// later: the marketplace says so in a success that failed.
    pub(super) async fn start_instance(&self, id: InstanceId) -> Outcome<()> {
        let body = json!({ "state": "running" });
        match self.act(Call::with(Route::Manage(id), body)).await {
            Outcome::Refused {
                why: RefusedWhy::Invalid,
                message,
                leftover,
            } if message.to_ascii_lowercase().contains("queued") => Outcome::Refused {
                why: RefusedWhy::Queued,
                message,
                leftover,
            },
            outcome => outcome,
        }
    }

    pub(super) async fn change_label(&self, id: InstanceId, label: &str) -> Outcome<()> {
        if label.is_empty() || label.chars().count() > LABEL_LATER_MAX {
            return refused(
                RefusedWhy::Invalid,
                format!("a label has 1 to {LABEL_LATER_MAX} characters"),
            );
        }
        let body = json!({ "label": label });
        self.act(Call::with(Route::Manage(id), body)).await
    }

    pub(super) async fn destroy_instance(&self, id: InstanceId) -> Outcome<()> {
        self.act(Call::to(Route::Destroy(id))).await
    }

    /// Destroys several, in as few requests as the marketplace takes. Stops at the first that is
    /// not done: the caller looks again, or destroys one by one.
    pub(super) async fn destroy_in_bulk(&self, ids: &[InstanceId]) -> Outcome<()> {
        if ids.iter().any(|id| id.0 == 0) {
            return refused(RefusedWhy::Invalid, "there is no id 0");
        }
        if self.no_bulk.load(Ordering::Relaxed) {
            return super::switched_off("destroy in bulk");
        }
        for some in ids.chunks(BULK_MAX) {
            let ids: Vec<u64> = some.iter().map(|id| id.0).collect();
            let call = Call::with(Route::DestroyMany, json!({ "instance_ids": ids }));
            let answer = match self.mutate(call).await {
                Ok(answer) => answer,
                Err(outcome) => return outcome,
            };
            if Self::is_missing_route(&answer) {
                self.no_bulk.store(true, Ordering::Relaxed);
                return super::switched_off("destroy in bulk");
            }
            match self.outcome(&answer) {
                Outcome::Done(()) => {}
                outcome => return outcome,
            }
        }
        Outcome::Done(())
    }

    /// Sends a mutation that brings nothing but whether it succeeded.
    pub(super) async fn act(&self, call: Call) -> Outcome<()> {
        match self.mutate(call).await {
            Ok(answer) => self.outcome(&answer),
            Err(outcome) => outcome,
        }
    }

    /// What came of a mutation. A 2xx that does not say that it succeeded is no proof.
    fn outcome(&self, answer: &Answer) -> Outcome<()> {
        if answer.says_succeeded() {
            return Outcome::Done(());
        }
        let message = self.words(answer);
        if answer.is_success() || answer.is_open() {
            return Outcome::Unknown(message);
        }
        let why = match answer.refused_why() {
            RefusedWhy::Invalid if answer.status == 404 && answer.says("not_found") => {
                RefusedWhy::NoSuchInstance
            }
            why => why,
        };
        refused(why, message)
    }
}

/// Why a request must not be sent: it would be refused, or worse, half understood.
fn problem_with(request: &CreateRequest) -> Option<String> {
    let chars = |text: &str| text.chars().count();
    if request.offer.0 == 0 {
        return Some("there is no offer 0".to_owned());
    }
    if request.label.is_empty() {
        return Some("a rental without a label could not be settled".to_owned());
    }
    if chars(&request.label) > LABEL_MAX {
        return Some(format!("a label has at most {LABEL_MAX} characters"));
    }
    if request.disk_gb < DISK_GB_MIN {
        return Some(format!("a disk has at least {DISK_GB_MIN} GB"));
    }
    if request.image.is_none() && request.template.is_none() {
        return Some("neither an image nor a template is given".to_owned());
    }
    if request
        .image
        .as_deref()
        .is_some_and(|image| chars(image) > IMAGE_MAX)
    {
        return Some(format!("an image has at most {IMAGE_MAX} characters"));
    }
    let entry = |(name, value): &(String, String)| chars(name) + 1 + chars(value);
    if let Some((name, _)) = request.env.iter().find(|pair| entry(pair) > ENV_ENTRY_MAX) {
        return Some(format!(
            "{name} with its value has more than {ENV_ENTRY_MAX} characters"
        ));
    }
    if request.env.iter().map(entry).sum::<usize>() > ENV_TOTAL_MAX {
        return Some(format!(
            "the environment has more than {ENV_TOTAL_MAX} characters"
        ));
    }
    let command = request.onstart.iter().chain(&request.args);
    if command.map(|text| chars(text)).sum::<usize>() > COMMAND_MAX {
        return Some(format!(
            "the command and its arguments have more than {COMMAND_MAX} characters"
        ));
    }
    None
}

/// All of a rental's body but its price.
fn create_body(request: &CreateRequest) -> Value {
    let mut body = json!({
        "client_id": "me",
        "disk": request.disk_gb,
        "label": request.label,
        "runtype": request.run_type,
        "target_state": "running",
        // A taken offer then is an error, rather than a stopped instance whose disk bills.
        "cancel_unavail": true,
        "env": rental::environment(request),
    });
    for (name, value) in [
        ("image", &request.image),
        ("onstart", &request.onstart),
        ("template_hash_id", &request.template),
        ("image_login", &request.image_login),
    ] {
        if let Some(value) = value {
            body[name] = json!(value);
        }
    }
    if !request.args.is_empty() {
        body["args"] = json!(request.args);
    }
    body
}
