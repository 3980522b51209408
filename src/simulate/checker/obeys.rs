//! What the user asks is done: after a kill nothing spends, from that moment on; after a pause, a stop
//! or a removed policy, nothing spends for that job once the tick is over that was under way.

use std::collections::BTreeMap;

use super::Checker;
use crate::market::Market;
use crate::types::ids::{InstanceId, JobName};
use crate::types::intent::Effect;
use crate::types::money::Rate;
use crate::types::state::{Ask, Wish};

/// What the user has forbidden.
#[derive(Debug, Default)]
pub(super) struct Obeys {
    /// Everything.
    killed: bool,
    /// Jobs that are to rest, by what was asked; and whether a tick has begun since.
    resting: BTreeMap<JobName, (&'static str, bool)>,
    /// Jobs whose policy was removed, likewise.
    removed: BTreeMap<JobName, bool>,
}

impl Obeys {
    /// The user asked for something, and it was taken down.
    pub(super) fn asked(&mut self, ask: &Ask) {
        match ask {
            Ask::Kill => self.killed = true,
            Ask::ResumeAll => {
                self.killed = false;
                self.resting.clear();
            }
            Ask::Job { job, wish } => {
                let asked = match wish {
                    Wish::Run => {
                        self.resting.remove(job);
                        return;
                    }
                    Wish::Pause => "paused",
                    Wish::Stop => "stopped",
                    Wish::Done => "ended",
                };
                self.resting.insert(job.clone(), (asked, false));
            }
        }
    }

    /// A job's policy is no longer among the others.
    pub(super) fn removed(&mut self, job: JobName) {
        self.removed.entry(job).or_insert(false);
    }

    /// A job has a policy again.
    pub(super) fn has_policy(&mut self, job: &JobName) {
        self.removed.remove(job);
    }

    /// A tick ended, so that the next begins.
    pub(super) fn ticked(&mut self) {
        self.resting
            .values_mut()
            .for_each(|(_, begun)| *begun = true);
        self.removed.values_mut().for_each(|begun| *begun = true);
    }

    /// Why nothing more may be spent on a job.
    pub(super) fn forbids(&self, job: &JobName) -> Option<String> {
        if self.killed {
            return Some("everything was killed".to_owned());
        }
        if let Some((asked, true)) = self.resting.get(job) {
            return Some(format!("{job} was {asked}"));
        }
        let removed = self.removed.get(job).is_some_and(|&begun| begun);
        removed.then(|| format!("the policy of {job} was removed"))
    }
}

impl Checker {
    /// A job's policy is there no more.
    pub fn policy_removed(&mut self, job: JobName) {
        self.obeys.removed(job);
    }

    /// A tick ended.
    pub fn ticked(&mut self) {
        self.obeys.ticked();
    }

    /// The user asked for something; `taken`: it was taken down.
    pub fn asked(&mut self, ask: &Ask, taken: bool) {
        if taken {
            self.obeys.asked(ask);
        }
        let Ask::Job { job, .. } = ask else { return };
        // A job's disks are the user's to lose.
        let of_it = self.ours.iter().filter_map(|(id, replica)| {
            let replica = replica.as_ref()?;
            (replica.job == *job).then_some(*id)
        });
        self.announced.extend(of_it.collect::<Vec<_>>());
    }

    /// Nothing is rented, started or bid higher against what the user asked.
    pub(super) fn check_obeys(&mut self, effect: &Effect, market: &Market) {
        let of_instance = |id: InstanceId| self.ours.get(&id.0)?.as_ref();
        let raises = |id: InstanceId, bid: Rate| {
            let stands = market.standing(self.account, id.0);
            stands.is_some_and(|stands| stands.bid.is_none_or(|now| now < bid))
        };
        let replica = match effect {
            Effect::Rent { replica, .. } => Some(replica),
            Effect::Start { instance } => of_instance(*instance),
            Effect::SetBid { instance, bid } if raises(*instance, *bid) => of_instance(*instance),
            _ => None,
        };
        let forbidden = replica.and_then(|replica| self.obeys.forbids(&replica.job));
        if let Some(why) = forbidden {
            self.broken(market, format!("{why}, and still it asks for {effect:?}"));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::engine::eligible::samples;
    use crate::market::MarketOptions;
    use crate::types::ids::OfferId;
    use crate::types::intent::{Intent, IntentState};
    use crate::types::money::Money;
    use crate::types::world::EngineConfig;

    fn job(name: &str) -> JobName {
        name.parse().unwrap()
    }

    fn of(name: &str, wish: Wish) -> Ask {
        let job = job(name);
        Ask::Job { job, wish }
    }

    #[test]
    fn a_kill_forbids_at_once_and_a_wish_from_the_next_tick_on() {
        let mut obeys = Obeys::default();
        obeys.asked(&of("a", Wish::Pause));
        obeys.removed(job("b"));
        assert_eq!(obeys.forbids(&job("a")), None);
        obeys.ticked();
        assert_eq!(obeys.forbids(&job("a")).unwrap(), "a was paused");
        assert!(obeys.forbids(&job("b")).is_some());
        assert_eq!(obeys.forbids(&job("c")), None);
        obeys.asked(&Ask::Kill);
        assert!(obeys.forbids(&job("c")).is_some());
        obeys.asked(&Ask::ResumeAll);
        obeys.has_policy(&job("b"));
        assert_eq!(obeys.forbids(&job("a")), None);
        assert_eq!(obeys.forbids(&job("b")), None);
    }

    #[test]
    fn a_rent_against_a_kill_is_found() {
        let mut market = Market::generated(MarketOptions::default());
        let account = market.account_for("token");
        let jobs = [Arc::new(samples::job("a"))];
        let mut checker = Checker::new(account, &jobs, EngineConfig::default());
        let held = samples::held(5, &jobs[0], &samples::offer(9), samples::usd(0.2));
        let rent = Intent {
            id: held.intent,
            at: market.now(),
            effect: Effect::Rent {
                replica: held.replica,
                generation: 1,
                slot: held.slot,
                offer: OfferId(9),
                rental: held.rental,
                price: held.price,
                disk_gb: held.disk_gb,
                storage: held.storage,
                from: None,
                traffic: None,
            },
            reserved: Money::ZERO,
            state: IntentState::Open,
        };
        checker.asked(&Ask::Kill, false);
        checker.intends(&rent, &market);
        assert_eq!(
            checker.violations(),
            Vec::<String>::new(),
            "it was not taken down"
        );
        checker.asked(&Ask::Kill, true);
        checker.intends(&rent, &market);
        let found = checker.violations();
        assert!(found[0].starts_with("everything was killed"), "{found:?}");
    }
}
