//! What must hold, in the market's books and in the daemon's.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use haggle::market::MarketOptions;
use haggle::ports::Clock;
use haggle::store::EntryFilter;
use haggle::types::ids::{InstanceId, IntentId, JobName};
use haggle::types::intent::IntentState;
use haggle::types::money::Money;
use haggle::types::state::Ask;
use haggle::types::time::Time;

use super::Trial;
use super::host::Inside;

impl Trial<'_> {
    /// A process has died. What it rented is in its books, or what it was about to rent.
    pub(super) fn look_at_death(&self) {
        let reader = self.reader();
        let state = reader.state().unwrap();
        let ended: BTreeSet<InstanceId> = reader
            .ended(10_000)
            .unwrap()
            .iter()
            .map(|ended| ended.held.id)
            .collect();
        let inside = self.host.lock();
        for (&id, label) in &inside.labels {
            let id = InstanceId(id);
            let known = state.held.contains_key(&id) || ended.contains(&id);
            let open = state.intents.contains_key(&label.intent);
            if !known && !open {
                self.fail(&format!("instance {id} is in no book"));
            }
            if !known && !state.reserved.contains_key(&label.intent) {
                self.fail(&format!("nothing is reserved for instance {id}"));
            }
        }
        self.look_at_violations(&inside);
    }

    fn look_at_violations(&self, inside: &Inside) {
        let mut violations = inside.checker.violations();
        let strangers = inside.strangers.iter();
        violations.extend(strangers.map(|id| format!("instance {id} has no label of ours")));
        if !violations.is_empty() {
            self.fail(&violations.join("\n"));
        }
    }

    /// Everything is destroyed and settled: nothing is left, and nothing was made twice.
    pub(super) fn look_when_destroyed(&mut self) {
        let mut inside = self.host.lock();
        self.host
            .server
            .with_market(|market| inside.checker.look_at_the_end(market));
        self.look_at_violations(&inside);
        let reader = self.reader();
        let state = reader.state().unwrap();
        let mut wrong = Vec::new();
        for held in state.held.values() {
            wrong.push(format!("instance {} is still held", held.id));
        }
        for intent in state.intents.values() {
            wrong.push(format!("still open: {intent:?}"));
        }
        if !state.reserved.is_empty() {
            wrong.push(format!("still reserved: {:?}", state.reserved));
        }
        for (job, wish) in &self.wishes {
            let found = state.job(job).wish;
            if found != *wish {
                wrong.push(format!("{job}: {wish:?} was asked, {found:?} is known"));
            }
        }
        let intents = reader.intents(100_000).unwrap();
        let made: BTreeMap<IntentId, &IntentState> = intents
            .iter()
            .map(|intent| (intent.id, &intent.state))
            .collect();
        let mut by_intent: BTreeMap<IntentId, u64> = BTreeMap::new();
        for (&id, label) in &inside.labels {
            if let Some(other) = by_intent.insert(label.intent, id) {
                wrong.push(format!("intent {} made {other} and {id}", label.intent));
            }
            let done = IntentState::Done {
                instance: InstanceId(id),
            };
            if made.get(&label.intent) != Some(&&done) {
                let found = made.get(&label.intent);
                wrong.push(format!("instance {id} was made, its intent is {found:?}"));
            }
        }
        let created: BTreeSet<u64> = self
            .host
            .server
            .with_market(|market| market.exact_bill(self.host.account).into_keys().collect());
        let ended: BTreeSet<u64> = reader
            .ended(10_000)
            .unwrap()
            .iter()
            .map(|ended| ended.held.id.0)
            .collect();
        if created != ended {
            wrong.push(format!("made {created:?}, ended {ended:?}"));
        }
        if created != inside.labels.keys().copied().collect() {
            wrong.push(format!("made {created:?}, seen {:?}", inside.labels));
        }
        self.tally.instances += created.len();
        drop(inside);
        if !wrong.is_empty() {
            self.fail(&wrong.join("\n"));
        }
    }

    /// What the market's bill says of each instance that was ever made.
    fn bills(&self) -> BTreeMap<u64, Money> {
        let account = self.host.account;
        let (made, rows) = self.host.server.with_market(|market| {
            let made = market.exact_bill(account);
            (made, market.charges(account, Time(0), market.now()))
        });
        let mut bills: BTreeMap<u64, Money> =
            made.into_keys().map(|id| (id, Money::ZERO)).collect();
        for row in rows {
            let id = row.source.strip_prefix("instance-").unwrap().parse();
            let bill = bills.get_mut(&id.unwrap()).unwrap();
            for item in row.items {
                *bill += Money::from_dollars(item.amount).unwrap();
            }
        }
        bills
    }

    /// A day later bills are closed: after one more look at them, the books say the same to the
    /// nano-dollar.
    pub(super) fn settle_the_bill(&mut self) {
        let began = MarketOptions::default().start;
        self.tally.hours += self.host.clock().now().since(began).as_secs_f64() / 3600.0;
        self.ask(&Ask::Kill);
        self.host.clock().jump(Duration::from_hours(25));
        self.start(None, &["--once"]);
        let (status, said) = self.until_ended();
        if !status.success() {
            self.fail(&format!("{status}: {said}"));
        }
        let reader = self.reader();
        let mut booked: BTreeMap<u64, Money> = BTreeMap::new();
        let mut by_job: BTreeMap<JobName, Money> = BTreeMap::new();
        for entry in reader.entries(&EntryFilter::default()).unwrap() {
            if entry.kind.spends() {
                let id = entry
                    .instance
                    .expect("what is spent is spent on an instance");
                *booked.entry(id.0).or_default() += entry.amount;
                *by_job.entry(entry.replica.job).or_default() += entry.amount;
            }
        }
        for (id, bill) in self.bills() {
            let found = booked.remove(&id).unwrap_or_default();
            if found != bill {
                self.fail(&format!("instance {id} cost {bill}, booked {found}"));
            }
        }
        if !booked.is_empty() {
            self.fail(&format!("booked for nothing: {booked:?}"));
        }
        let state = reader.state().unwrap();
        for (job, total) in by_job {
            let posted = state.spent(&job);
            if posted != total {
                self.fail(&format!("{job}: {posted} posted, its lines are {total}"));
            }
        }
        // The daemon knew every instance that it was billed for.
        let told = reader.events(None, 100_000).unwrap();
        if let Some(event) = told.iter().find(|event| event.kind == "unknown-charges") {
            self.fail(&event.text);
        }
        if !state.killed {
            self.fail("the kill was forgotten");
        }
    }
}
