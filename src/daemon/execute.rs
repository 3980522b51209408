//! Carrying out a plan. Nothing is chosen here: an action is done, or dropped with a reason.
//!
//! For every effect: a durable intent with its reservation, then the request, then a durable
//! outcome. A process that dies between any two of these leaves an open intent, which the next one
//! takes as unknown and settles before it plans.

use std::time::Duration;

use secrecy::{ExposeSecret, SecretString};

use super::data::Trouble;
use super::record::ELEMENT_RESTS;
use super::tick::Decision;
use super::verify::mismatch;
use super::{Daemon, DaemonError};
use crate::engine::bring::bringing;
use crate::engine::budget::rise;
use crate::engine::ladder::still_fails;
use crate::engine::lease::first_tail;
use crate::engine::risk::Hazard;
use crate::ports::{CreateRequest, Outcome, RefusedWhy};
use crate::types::ids::{InstanceId, IntentId, Label, OfferId, Permit, Slot};
use crate::types::instance::{Account, DestroyWhy, Held, Phase, Rental, RunnerView};
use crate::types::intent::{Effect, Intent, IntentState};
use crate::types::job::{Job, RunType};
use crate::types::money::{Money, Rate};
use crate::types::mutant::Mutant;
use crate::types::offer::Offer;
use crate::types::plan::Action;
use crate::types::start::Asked;
use crate::types::state::{Ask, Change, Event, Severity, UserRequest};
use crate::types::time::{Time, human};
use crate::types::world::World;

/// How long nothing is rented after the account refused to spend.
pub(super) const ACCOUNT_WAITS: Duration = Duration::from_secs(600);

/// What is invalid for so many elements of an array is what they share.
const INVALID_FOR: usize = 3;

/// For how many polls a machine is passed over after a create there was refused.
const PASSED_OVER_POLLS: u32 = 3;

impl Daemon {
    /// Records and carries out each action in turn.
    pub(super) async fn carry_out(&mut self, decision: &Decision) -> Result<(), DaemonError> {
        for action in &decision.plan.actions {
            let planned_at = decision.world.now;
            if self.begins_to_spend(&action.effect) && self.is_overtaken(planned_at)? {
                continue;
            }
            if self
                .turns_out_otherwise(&action.effect, &decision.world)
                .await
            {
                continue;
            }
            if !self.may_leave(action, &decision.world).await {
                continue;
            }
            let Effect::Rent { ref replica, .. } = action.effect else {
                self.carry_out_one(action).await?;
                continue;
            };
            let mut jobs = decision.world.jobs.iter();
            let job = jobs.find(|job| job.name == replica.job);
            let Some(job) = job.filter(|job| !self.storage_rests(job, replica)) else {
                continue;
            };
            if !self.inputs_stand(job).await {
                continue;
            }
            if let Some(intent) = self.record_rent(action, replica, job)? {
                Box::pin(self.rent(intent, job, action, planned_at)).await?;
            }
        }
        Ok(())
    }

    /// Whether an effect makes something run, or run at a higher price.
    fn begins_to_spend(&self, effect: &Effect) -> bool {
        match effect {
            Effect::Rent { .. } | Effect::Start { .. } => true,
            Effect::SetBid { instance, bid } => {
                let held = self.state.held.get(instance);
                held.is_none_or(|held| rise(held, *bid) > Rate::ZERO)
            }
            Effect::Stop { .. }
            | Effect::Destroy { .. }
            | Effect::Relabel { .. }
            | Effect::Copy { .. } => false,
        }
    }

    /// Whether a plan is overtaken: the red button was pressed since, or the machine slept, and what is rented
    /// has cost for longer than its reservation reaches. The next tick looks anew.
    fn is_overtaken(&mut self, planned_at: Time) -> Result<bool, DaemonError> {
        let killed = |request: &UserRequest| matches!(request.ask, Ask::Kill);
        if self.parts.store.requests()?.iter().any(killed) {
            tracing::info!("the kill came while a tick was under way: nothing more is begun in it");
            return Ok(true);
        }
        let age = self.now().since(planned_at);
        let old = age > self.settings.engine.outage_allowance;
        if old {
            tracing::warn!(
                "what was decided is {} old, and is not begun any more",
                human(age)
            );
        }
        Ok(old)
    }

    /// Whether an instance that is to be destroyed turns out not to be what it was judged to be: the
    /// listing that it was judged by can be old. What may have worked without having been seen, and has a
    /// disk that its policy keeps, and every start that is given up, is looked at once more, and what
    /// cannot be read is left for the next tick.
    async fn turns_out_otherwise(&self, effect: &Effect, world: &World) -> bool {
        let Effect::Destroy { instance, why } = *effect else {
            return false;
        };
        let is_judged = matches!(
            why,
            DestroyWhy::ProvisionTimeout
                | DestroyWhy::StartFailed
                | DestroyWhy::EndedTooSoon
                | DestroyWhy::HostLost
                | DestroyWhy::Moved
                | DestroyWhy::Orphan
                | DestroyWhy::RentalEnding
                | DestroyWhy::WindowClosed
        );
        let held = self.state.held.get(&instance);
        let Some(held) = held.filter(|held| held.first_ran_at.is_none() && is_judged) else {
            return false;
        };
        let job = world.jobs.iter().find(|job| job.name == held.replica.job);
        let keeps_disk = job.is_some_and(|job| !job.may_lose_disks());
        let is_start = matches!(why, DestroyWhy::ProvisionTimeout | DestroyWhy::StartFailed);
        if held.destroying.is_some() || !(keeps_disk || is_start) {
            return false;
        }
        match self.parts.marketplace.instance(instance).await {
            Ok(Some(row)) => {
                let gets_on = why == DestroyWhy::StartFailed && !still_fails(held, &row);
                row.phase() == Phase::Running || gets_on
            }
            Ok(None) => false,
            // Nothing is lost where the whole time for it is over, and it would be billed on.
            Err(_) if !keeps_disk && why == DestroyWhy::ProvisionTimeout => false,
            Err(error) => {
                tracing::info!("instance {instance} is not destroyed before it is read: {error}");
                true
            }
        }
    }

    /// Records and carries out one action that is not a rent.
    pub(super) async fn carry_out_one(&mut self, action: &Action) -> Result<(), DaemonError> {
        let intent = self.record(action)?;
        self.act(intent).await
    }

    /// Destroys one instance, outside of a plan.
    pub(super) async fn destroy(
        &mut self,
        instance: InstanceId,
        why: DestroyWhy,
    ) -> Result<(), DaemonError> {
        let effect = Effect::Destroy { instance, why };
        let intent = self.record_effect(effect, Money::ZERO)?;
        self.act(intent).await
    }

    // ------------------------------------------------------------------------------------ renting

    async fn rent(
        &mut self,
        intent: Intent,
        job: &Job,
        action: &Action,
        planned_at: Time,
    ) -> Result<(), DaemonError> {
        let Effect::Rent {
            ref replica,
            offer,
            slot,
            rental,
            price,
            storage,
            disk_gb,
            from,
            traffic,
            ..
        } = intent.effect
        else {
            return Ok(());
        };
        let replica = replica.clone();
        if from.is_some_and(|from| !self.state.held.contains_key(&from)) {
            return self.refused(intent, "disk-gone");
        }
        // The plan has seen to it; here is the last place where it could be kept back.
        if let Some(kept_back) = self.settings.engine.keeps_back(&job.run) {
            return self.refused(intent, kept_back.as_str());
        }
        let control = match self.publish_control(job, &replica, intent.id).await {
            Ok(control) => control,
            Err(trouble) => {
                self.tell_storage(job, &replica, &trouble)?;
                return match trouble {
                    Trouble::Missing(_) => self.refused_for_its_own(intent, job, "storage-failed"),
                    Trouble::Fails(_) => self.refused(intent, "storage-failed"),
                };
            }
        };
        if let Err(reason) = self
            .revalidate(
                offer,
                slot,
                rental,
                (price, storage, traffic),
                disk_gb,
                action,
            )
            .await
        {
            return self.refused(intent, &reason);
        }
        let request = match self.create_request(&intent, job, control.as_ref()) {
            Ok(request) => request,
            Err(message) => {
                let text = format!("{replica} is not rented: {message}");
                let warning = self.warn("not-sendable", text, None);
                self.commit(&[warning])?;
                return self.refused_for_its_own(intent, job, "not-sendable");
            }
        };
        // Nothing comes between this and the create: whose account the token opens may change at any
        // time, and what is rented on another account is out of our sight.
        match self.poll_account().await {
            Ok(Ok(account)) => {
                if !self.is_covered(account) {
                    return self.refused(intent, "credit-fell");
                }
            }
            Ok(Err(_)) => return self.refused(intent, "account-unreadable"),
            Err(error) => {
                self.refused(intent, "other-account")?;
                return Err(error);
            }
        }
        if self.is_overtaken(planned_at)? {
            return self.refused(intent, "overtaken");
        }
        // Empty listings from before it say nothing about what it makes.
        self.empties = super::poll::Empties::default();
        let id = intent.id;
        let outcome = self.parts.marketplace.create(&request).await;
        let refused = matches!(outcome, Outcome::Refused { why, .. } if !may_be_our_doing(why));
        self.created(intent, job, outcome).await?;
        if refused {
            return Ok(());
        }
        self.confirm_account(id, &request.label).await
    }

    /// Whether the credit still covers, over its reserve, what is set aside for this and for all else that is
    /// under way: others may have spent since it was planned. What cannot be read covers nothing.
    fn is_covered(&self, account: Account) -> bool {
        let aside: Money = self.state.reserved.values().copied().sum();
        account
            .credit
            .is_some_and(|credit| credit - self.settings.engine.credit_reserve >= aside)
    }

    /// What a create was answered with.
    async fn created(
        &mut self,
        intent: Intent,
        job: &Job,
        outcome: Outcome<InstanceId>,
    ) -> Result<(), DaemonError> {
        match outcome {
            // What was there before is not what this request made: the answer is of another one.
            Outcome::Done(instance) if self.state.held.contains_key(&instance) => {
                let message = format!("it names instance {instance}, which another rent made");
                self.unknown(intent, &message)
            }
            Outcome::Done(instance) => self.rented(intent, job, instance).await,
            Outcome::Refused {
                why,
                message,
                leftover,
            } => {
                tracing::info!(why = why.as_str(), "a create was refused: {message}");
                let leftover = leftover.filter(|id| !self.state.held.contains_key(id));
                if let Some(instance) = leftover {
                    self.keep(&intent, job, instance, Some(DestroyWhy::Leftover))?;
                    self.destroy(instance, DestroyWhy::Leftover).await?;
                }
                // While a leftover is being destroyed nothing is rented in its place anyway.
                let in_doubt = leftover.is_none() && may_be_our_doing(why);
                self.create_refused(intent, job, why, message, in_doubt)
            }
            Outcome::Unknown(_) if self.makes_mistake(Mutant::RetryWithoutLookUp) => {
                self.refused(intent, "unknown")
            }
            Outcome::Unknown(message) => self.unknown(intent, &message),
        }
    }

    /// Whose account it is again, just after something may have been rented. Had the token come to
    /// open another one, what was rented is on that, where nobody would see it again: it is destroyed
    /// while the token still opens it, and told of. It is seconds old and holds no work.
    async fn confirm_account(&mut self, rent: IntentId, label: &str) -> Result<(), DaemonError> {
        let error = match self.poll_account().await {
            Err(error @ DaemonError::OtherAccount { .. }) => error,
            other => return other.map(drop),
        };
        let mut held = self.state.held.values();
        let made = held.find(|held| held.intent == rent).map(|held| held.id);
        let (what, end) = match made {
            Some(id) => (format!("instance {id}"), "; it is destroyed"),
            None => ("an instance".to_owned(), ", if it was made at all"),
        };
        let text = format!(
            "{what} labelled {label} may be on the account that the token opens now, which is not \
             ours{end}; look there, too"
        );
        let alarm = Change::Event(Event {
            at: self.now(),
            severity: Severity::Alarm,
            kind: "rented-elsewhere".to_owned(),
            replica: None,
            instance: made,
            text,
        });
        self.commit(&[alarm])?;
        if let Some(id) = made {
            self.destroy(id, DestroyWhy::NotAsAsked).await?;
        }
        Err(error)
    }

    /// The offer again, just before money is spent on it.
    async fn revalidate(
        &self,
        id: OfferId,
        slot: Slot,
        rental: Rental,
        (price, storage, traffic): (Rate, Rate, Option<(Money, Money)>),
        disk_gb: u32,
        action: &Action,
    ) -> Result<(), String> {
        let offer = match self.parts.marketplace.offer(id).await {
            Ok(Some(offer)) => offer,
            Ok(None) => return Err("offer-gone".to_owned()),
            Err(_) => return Err("offer-unreadable".to_owned()),
        };
        if let Some((down, up)) = traffic {
            let now = [(offer.inet_down_price, down), (offer.inet_up_price, up)];
            if now
                .iter()
                .any(|(now, agreed)| now.is_some_and(|now| now > *agreed))
            {
                return Err("traffic-dearer".to_owned());
            }
        }
        revalidated(
            &offer,
            slot,
            rental,
            price,
            storage,
            disk_gb,
            action.on_demand_seen,
        )
        .map_err(str::to_owned)
    }

    fn create_request(
        &self,
        intent: &Intent,
        job: &Job,
        control: Option<&SecretString>,
    ) -> Result<CreateRequest, String> {
        let Effect::Rent {
            replica,
            generation,
            offer,
            rental,
            price,
            disk_gb,
            from,
            ..
        } = &intent.effect
        else {
            return Err("not a rent".to_owned());
        };
        let label = Label {
            installation: self.state.installation.clone(),
            replica: replica.clone(),
            intent: intent.id,
        };
        let run = &job.run;
        let mut env: Vec<(String, String)> = run
            .env
            .iter()
            .map(|(key, value)| (key.clone(), value.clone()))
            .collect();
        env.push(("HAGGLE_JOB".to_owned(), job.name.to_string()));
        env.push(("HAGGLE_REPLICA".to_owned(), replica.index.to_string()));
        if let Some(array) = &job.array {
            let parameters = self.state.replica(replica).parameters;
            env.extend(parameters.ok_or("its parameters are not known")?);
            let (index, count) = (replica.index.to_string(), array.elements.len().to_string());
            env.push(("HAGGLE_ARRAY_INDEX".to_owned(), index));
            env.push(("HAGGLE_ARRAY_COUNT".to_owned(), count));
        }
        for (key, reference) in &run.secrets {
            let secret = self.parts.secrets.resolve(reference)?;
            env.push((key.clone(), secret.expose_secret().to_owned()));
        }
        for (port, protocol) in &run.ports {
            let suffix = if protocol == "udp" { "/udp" } else { "" };
            env.push((format!("-p {port}:{port}{suffix}"), "1".to_owned()));
        }
        let characters = env.iter().map(|(key, value)| key.len() + value.len()).sum();
        let old = from.and_then(|from| self.state.held.get(&from));
        let run_of = (&label, *generation);
        let given = self.given(job, run_of, *offer, characters, control, old)?;
        let mut text = label.to_string();
        let (mut onstart, mut args) = (run.onstart.clone(), run.args.clone());
        if let Some(given) = given {
            env.extend(given.delivery.env);
            text.extend(given.tail.map(|tail| format!("/{tail}")));
            let script = given.delivery.bootstrap;
            if run.run_type == RunType::Args {
                // In this form the start script is the entry point.
                onstart = Some("/bin/sh".to_owned());
                args = vec!["-c".to_owned(), script.to_owned()];
            } else {
                // The marketplace's own server of shells waits for the start script.
                onstart = Some(format!("({script}) </dev/null &"));
            }
        }
        let image_login = match &run.login {
            None => None,
            Some(login) => {
                let password = self.parts.secrets.resolve(&login.password)?;
                Some(format!(
                    "-u {} -p {} {}",
                    login.user,
                    password.expose_secret(),
                    login.registry
                ))
            }
        };
        Ok(CreateRequest {
            offer: *offer,
            bid: (*rental == Rental::Bid).then_some(*price),
            label: text,
            disk_gb: *disk_gb,
            image: run.image.clone(),
            template: run.template.clone(),
            run_type: match run.run_type {
                RunType::Args => "args",
                RunType::Ssh => "ssh",
                RunType::Jupyter => "jupyter",
            },
            onstart,
            args,
            env,
            image_login,
        })
    }

    /// A create that took effect: kept at once, then read back.
    async fn rented(
        &mut self,
        intent: Intent,
        job: &Job,
        instance: InstanceId,
    ) -> Result<(), DaemonError> {
        let Effect::Rent {
            rental,
            price,
            slot,
            ..
        } = intent.effect
        else {
            return Ok(());
        };
        let Some(held) = self.keep(&intent, job, instance, None)? else {
            return Ok(());
        };
        self.invalid_on.remove(&held.replica);
        let text = format!(
            "rented {} x {} on machine {} at {:.4}/h {} (ceiling {:.4}/h a GPU)",
            slot.gpus,
            held.gpu_name,
            slot.machine,
            price,
            rental.as_str(),
            job.price_max,
        );
        self.close(
            intent,
            IntentState::Done { instance },
            Some(("rented", Severity::Info, text)),
        )?;
        // What cannot be read now is compared at the next listing.
        if let Ok(Some(row)) = self.parts.marketplace.instance(instance).await
            && let Some(reason) = mismatch(rental, &row, price)
        {
            self.destroy_not_as_asked(&held, &reason).await?;
        }
        Ok(())
    }

    /// Keeps an instance that a rent made.
    fn keep(
        &mut self,
        intent: &Intent,
        job: &Job,
        instance: InstanceId,
        destroying: Option<DestroyWhy>,
    ) -> Result<Option<Held>, DaemonError> {
        let Effect::Rent {
            replica,
            generation,
            slot,
            offer,
            rental,
            price,
            disk_gb,
            storage,
            from,
            traffic,
        } = &intent.effect
        else {
            return Ok(None);
        };
        let old = from.and_then(|from| self.state.held.get(&from));
        let permit = if from.is_some() {
            Permit::Hold
        } else {
            Permit::Go
        };
        let row = self.market.offers.iter().find(|row| row.id == *offer);
        let runner = job.run.runner.as_deref();
        let held = Held {
            generation: *generation,
            slot: *slot,
            host: row.and_then(|row| row.host),
            gpu_ids: row.map(|row| row.gpu_ids.clone()).unwrap_or_default(),
            gpu_name: row.map(|row| row.gpu_name.to_string()).unwrap_or_default(),
            rental: *rental,
            price: *price,
            last_bid: (*rental == Rental::Bid).then_some(*price),
            storage: *storage,
            disk_gb: *disk_gb,
            ends_at: row.and_then(|row| row.ends_at),
            odds: row.map(|row| Hazard::of(row, *rental, *price).odds()),
            destroying,
            tail: runner.and_then(|runner| {
                let first = (*generation, permit);
                first_tail(&self.settings.engine, runner, first, self.now())
            }),
            runner: runner.map(RunnerView::of),
            bringing: old.map(bringing),
            // Of the very offer that the reserve was reckoned by.
            traffic_prices: *traffic,
            asked: Some(Asked::of(&job.run)),
            ..Held::new(instance, intent.id, replica.clone(), self.now())
        };
        self.commit(&[Change::Held(Box::new(held.clone()))])?;
        Ok(Some(held))
    }

    /// A refused create: what is to blame decides what waits. One in doubt stays open like one whose
    /// answer was lost, until listings show what it made or prove that it made nothing.
    fn create_refused(
        &mut self,
        intent: Intent,
        job: &Job,
        why: RefusedWhy,
        message: String,
        in_doubt: bool,
    ) -> Result<(), DaemonError> {
        if matches!(why, RefusedWhy::Account | RefusedWhy::Unauthorized) {
            self.account_waits_until = Some(self.now() + ACCOUNT_WAITS);
            let text = format!("the account may not rent now: {message}");
            let warning = self.warn("account-refused", text, None);
            self.commit(&[warning])?;
        }
        let polls = self.settings.engine.poll_every * PASSED_OVER_POLLS;
        let until = match why {
            RefusedWhy::NoSuchOffer | RefusedWhy::BidTooLow => Some(self.now() + polls),
            RefusedWhy::Invalid => self.passed_over_until(&intent, job),
            _ => None,
        };
        if let (Effect::Rent { slot, .. }, Some(until)) = (&intent.effect, until) {
            // Not the host's failure, but the next try should be another one.
            let mut machine = self.state.machine(slot.machine);
            let (now, config) = (self.now(), &self.settings.engine);
            let parked = |held: &Held| held.parked && held.slot.machine == slot.machine;
            let until = if self.state.held.values().any(parked) {
                // Taking it back is tried before every other one, and would be again.
                until.max(now + config.cooldown)
            } else {
                until
            };
            machine.cool_until = machine.cool_until.max(Some(until));
            self.commit(&[Change::Machine(machine)])?;
        }
        if in_doubt {
            let doubt = "had it arrived twice, the first copy may have taken what the second was \
                         refused";
            return self.unknown(intent, doubt);
        }
        if why == RefusedWhy::Invalid {
            return self.refused_for_its_own(intent, job, why.as_str());
        }
        self.refused(intent, why.as_str())
    }

    /// Until when a machine is passed over that refused a rent as invalid; `None`: it is for what an element
    /// of an array asks, or all of them. That is so where the element was refused elsewhere before, or
    /// several were: it would take one machine after the other from all jobs.
    fn passed_over_until(&mut self, intent: &Intent, job: &Job) -> Option<Time> {
        let Effect::Rent { replica, slot, .. } = &intent.effect else {
            return None;
        };
        let polls = self.now() + self.settings.engine.poll_every * PASSED_OVER_POLLS;
        if job.array.is_none() {
            return Some(polls);
        }
        let others = self.invalid_on.keys().filter(|one| one.job == job.name);
        let several = others.count() >= INVALID_FOR;
        let before = self.invalid_on.get(replica).copied();
        let is_elsewhere = before.is_some_and(|machine| machine != Some(slot.machine));
        let known = (!is_elsewhere).then_some(slot.machine);
        self.invalid_on.insert(replica.clone(), known);
        if is_elsewhere || (before.is_none() && several) {
            return None;
        }
        // Longer than the element rests: where it has a turn at once, its next try is on another one.
        let rest = self.now() + ELEMENT_RESTS + self.settings.engine.poll_every;
        Some(rest.max(polls))
    }
}

/// Whether a create may be refused for what it did itself. A request can be delivered twice on its way
/// (a gateway or proxy that sends again), and the answer of the second copy come back: that the offer
/// is gone, or that its floor is over our bid, is then so because the first copy rented it. A refused
/// account waits far longer than such an instance takes to show.
fn may_be_our_doing(why: RefusedWhy) -> bool {
    matches!(why, RefusedWhy::NoSuchOffer | RefusedWhy::BidTooLow)
}

/// Whether an offer, read again, is still what the plan counted on.
fn revalidated(
    offer: &Offer,
    slot: Slot,
    rental: Rental,
    price: Rate,
    storage: Rate,
    disk_gb: u32,
    on_demand_seen: Option<Rate>,
) -> Result<(), &'static str> {
    if offer.slot() != slot {
        return Err("offer-changed");
    }
    if offer.rentable == Some(false) || offer.rented == Some(true) {
        return Err("offer-taken");
    }
    if offer.disk_rate(disk_gb).is_none_or(|now| now > storage) {
        return Err("storage-dearer");
    }
    match rental {
        Rental::OnDemand if offer.on_demand.is_none_or(|now| now > price) => {
            Err("on-demand-dearer")
        }
        Rental::Bid if offer.floor.is_none_or(|floor| floor > price) => Err("floor-rose"),
        // A bid over the on-demand rate buys nothing.
        Rental::Bid
            if offer
                .on_demand
                .or(on_demand_seen)
                .is_some_and(|now| now < price) =>
        {
            Err("on-demand-cheaper")
        }
        _ => Ok(()),
    }
}
