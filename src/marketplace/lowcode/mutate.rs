//! Mutations: sent once, in a form of URL that is known to be right, with an outcome that never
//! claims more than is known.

use bytes::Bytes;
use serde_json::{Map, Value};

use super::LowCode;
use super::routes::{Family, Form};
use super::send::Unsent;
use super::wire::Answer;
use crate::marketplace::operation::{Operation, PlainId};
use crate::marketplace::rental::{self, price, refused};
use crate::ports::{CreateRequest, Marketplace, Outcome, RefusedWhy, Reply, TransportError};
use crate::types::ids::InstanceId;
use crate::types::money::{BID_PARKED, Rate};

/// What is known of a request without reading its answer.
pub(super) enum Sent {
    Answered(Answer),
    Refused(RefusedWhy, String),
    Unknown(String),
}

impl LowCode {
    /// Rents an offer. Bids and on-demand rentals go through different operations, so that a lost
    /// price is an error and never an on-demand rental.
    pub(super) async fn rent(&self, request: &CreateRequest) -> Outcome<InstanceId> {
        if let Some(problem) = self.problem_with(request) {
            return problem;
        }
        rental::keep_secret(&self.redactor, request);
        let operation = match request.bid {
            Some(_) => Operation::CreateBid,
            None => Operation::CreateInstance,
        };
        let body = self.create_body(request);
        let answer = match self
            .send_mutation(operation, None, Form::New, &[], Some(body))
            .await
        {
            Sent::Answered(answer) => answer,
            Sent::Refused(why, message) => return refused(why, message),
            Sent::Unknown(message) => return Outcome::Unknown(message),
        };
        let made = answer.new_contract();
        let message = answer.show(&self.redactor);
        match made {
            Some(id) if answer.is_success() => Outcome::Done(id),
            _ if answer.is_success() || answer.is_open() => Outcome::Unknown(message),
            _ => {
                let why = match answer.refused_why() {
                    // The marketplace makes a bid under the floor all the same, stopped, and
                    // answers with an error that names it.
                    RefusedWhy::Invalid if made.is_some() && request.bid.is_some() => {
                        RefusedWhy::BidTooLow
                    }
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

    /// Refuses what must not be sent.
    fn problem_with(&self, request: &CreateRequest) -> Option<Outcome<InstanceId>> {
        let invalid = |text: &str| Some(refused(RefusedWhy::Invalid, text.to_owned()));
        if request.offer.0 == 0 {
            return invalid("there is no offer 0");
        }
        if request.label.is_empty() {
            return invalid("a rental without a label could not be settled");
        }
        match request.bid {
            Some(_) if !self.can_bid() => Some(refused(
                RefusedWhy::Unsupported,
                "bids through this gateway are switched off".to_owned(),
            )),
            Some(bid) if bid < BID_PARKED => invalid("a bid under $0.001 is none"),
            _ => None,
        }
    }

    fn create_body(&self, request: &CreateRequest) -> Bytes {
        let names = &self.fields;
        let mut body = Map::new();
        let mut put = |name: &String, value: Value| {
            body.insert(name.clone(), value);
        };
        // A text, as the gateway's document has it.
        put(&names.offer_id, Value::from(request.offer.to_string()));
        put(&names.disk, Value::from(request.disk_gb));
        put(&names.label, Value::from(request.label.clone()));
        put(&names.run_type, Value::from(request.run_type));
        // A taken offer then is an error, rather than a stopped instance whose disk bills.
        put(&names.cancel_unavail, Value::from(true));
        if let Some(bid) = request.bid {
            put(&names.price, price(bid));
        }
        for (name, value) in [
            (&names.image, &request.image),
            (&names.onstart, &request.onstart),
            (&names.template, &request.template),
            (&names.image_login, &request.image_login),
        ] {
            if let Some(value) = value {
                put(name, Value::from(value.clone()));
            }
        }
        if !request.args.is_empty() {
            put(&names.args, Value::from(request.args.clone()));
        }
        if !request.env.is_empty() {
            put(&names.env, Value::from(rental::environment(request)));
        }
        Bytes::from(Value::from(body).to_string())
    }

    /// Changes a bid.
    pub(super) async fn change_bid(&self, id: InstanceId, bid: Rate) -> Outcome<()> {
        if bid < BID_PARKED {
            // The marketplace would choose a price of its own for none.
            return refused(RefusedWhy::Invalid, "a bid under $0.001 is none".to_owned());
        }
        let body = Map::from_iter([(self.fields.price.clone(), price(bid))]);
        let body = Bytes::from(Value::from(body).to_string());
        self.act(Operation::UpdateBid, id, Some(body)).await
    }

    /// Changes a label.
    pub(super) async fn change_label(&self, id: InstanceId, label: &str) -> Outcome<()> {
        let body = Map::from_iter([(self.fields.label.clone(), Value::from(label))]);
        let body = Bytes::from(Value::from(body).to_string());
        self.act(Operation::UpdateInstance, id, Some(body)).await
    }

    /// Does something to an instance.
    pub(super) async fn act(
        &self,
        operation: Operation,
        id: InstanceId,
        body: Option<Bytes>,
    ) -> Outcome<()> {
        let Some(place) = PlainId::number(id.0) else {
            return refused(RefusedWhy::Invalid, "there is no instance 0".to_owned());
        };
        let answer = match self.mutate_by_id(operation, &place, &[], body).await {
            Sent::Answered(answer) => answer,
            Sent::Refused(why, message) => return refused(why, message),
            Sent::Unknown(message) => return Outcome::Unknown(message),
        };
        if answer.says_succeeded() {
            return Outcome::Done(());
        }
        let message = answer.show(&self.redactor);
        if answer.is_success() || answer.is_open() {
            return Outcome::Unknown(message);
        }
        let why = match answer.refused_why() {
            RefusedWhy::Invalid
                if operation == Operation::StartInstance && answer.says("queued") =>
            {
                RefusedWhy::Queued
            }
            RefusedWhy::Invalid if answer.status == 404 && answer.says("not_found") => {
                RefusedWhy::NoSuchInstance
            }
            why => why,
        };
        refused(why, message)
    }

    /// Sends a mutation of one thing in the form of URL that is proven for it; in the other one only
    /// after the gateway's own 404, when nothing happened, and a read that proves it.
    pub(super) async fn mutate_by_id(
        &self,
        operation: Operation,
        id: &PlainId,
        query: &[(String, String)],
        body: Option<Bytes>,
    ) -> Sent {
        self.discover().await;
        let family = Family::of(operation);
        if self
            .dialect
            .for_mutation(family, self.clock.monotonic())
            .is_none()
            && let Some(refused) = self.probe(operation, id).await
        {
            return refused;
        }
        // Without proof the new form is sent: where it is not known, nothing happens. Where nothing
        // can be read by id, the gateway's own word is the only proof that there is.
        let form = self
            .dialect
            .for_mutation(family, self.clock.monotonic())
            .or_else(|| match family.read_by_id() {
                None => self.routes.hint(operation),
                Some(_) => None,
            })
            .unwrap_or(Form::New);
        let sent = self
            .send_mutation(operation, Some(id), form, query, body.clone())
            .await;
        let Sent::Answered(answer) = &sent else {
            return sent;
        };
        if !answer.is_unrouted() {
            return sent;
        }
        self.dialect.forget(family);
        if let Some(refused) = self.probe(operation, id).await {
            return refused;
        }
        match self.dialect.for_mutation(family, self.clock.monotonic()) {
            Some(other) if other == form.other() => {
                self.send_mutation(operation, Some(id), other, query, body)
                    .await
            }
            _ => sent,
        }
    }

    /// A harmless read of the same family, for what it teaches about the form of URL. It settles the
    /// mutation only where the token is refused: then nothing need be sent.
    async fn probe(&self, operation: Operation, id: &PlainId) -> Option<Sent> {
        let read = Family::of(operation).read_by_id()?;
        match self.read_by_id(read, id, &[]).await {
            Ok(answer) if answer.is_unauthorized() => Some(Sent::Refused(
                RefusedWhy::Unauthorized,
                answer.show(&self.redactor),
            )),
            Ok(_) => None,
            Err(error) => {
                tracing::debug!(%error, "the form of URL could not be learnt");
                None
            }
        }
    }

    pub(super) async fn send_mutation(
        &self,
        operation: Operation,
        id: Option<&PlainId>,
        form: Form,
        query: &[(String, String)],
        body: Option<Bytes>,
    ) -> Sent {
        match self.send(operation, id, form, query, body).await {
            Ok(reply) => self.answered(&reply),
            Err(Unsent::NoPlace) => Sent::Refused(
                RefusedWhy::Invalid,
                "the path has no place for this id, so it was not sent".to_owned(),
            ),
            Err(Unsent::Silenced(wait)) => Sent::Refused(
                RefusedWhy::Throttled,
                format!("the marketplace asked for silence for {} s", wait.as_secs()),
            ),
            Err(Unsent::Failed(error @ TransportError::Connect(_))) => {
                Sent::Refused(RefusedWhy::NotSent, error.to_string())
            }
            Err(Unsent::Failed(error)) => Sent::Unknown(error.to_string()),
        }
    }

    fn answered(&self, reply: &Reply) -> Sent {
        let answer = Answer::read(reply);
        if answer.is_throttled() {
            return Sent::Refused(RefusedWhy::Throttled, answer.show(&self.redactor));
        }
        Sent::Answered(answer)
    }
}
