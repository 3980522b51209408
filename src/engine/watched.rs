//! For tests: an instance of a job from its rent on, as the marketplace shows it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use super::decide::decide;
use super::eligible::samples::{NOW, held, job, offer, usd, world};
use super::hear::Heard;
use super::observe::{Moved, Observation, observe};
use crate::types::ids::{HostId, InstanceId, IntentId, MachineId, ReplicaId};
use crate::types::instance::{DestroyWhy, Held, Instance, Listing, Phase, RawState};
use crate::types::intent::Effect;
use crate::types::job::Job;
use crate::types::offer::{Offer, Snapshot};
use crate::types::plan::{Action, Situation};
use crate::types::start::{Asked, Hold, StartFault, StartRules};
use crate::types::state::{Change, Event, ReplicaRecord, Severity, State};
use crate::types::time::Time;
use crate::types::world::{EngineConfig, World};

pub(crate) const MINUTE: i64 = 60_000;

/// One instance of a job, as the marketplace shows it, and what was told of it.
pub(crate) struct Scene {
    pub(crate) state: State,
    pub(crate) job: Job,
    pub(crate) row: Instance,
    pub(crate) now: Time,
    pub(crate) moved: Moved,
    /// Whether the account is out of money.
    pub(crate) broke: bool,
    pub(crate) config: EngineConfig,
    /// What is read of its log at the next look.
    pub(crate) heard: Option<Heard>,
    pub(crate) events: Vec<Event>,
    /// What the market has, by machine.
    offers: Vec<Offer>,
}

impl Scene {
    /// It was rented just now.
    pub(crate) fn new(job: Job) -> Self {
        let mut made = held(5, &job, &offer(5), usd(0.2));
        made.phase = Phase::Provisioning;
        made.first_ran_at = None;
        made.host = None;
        made.asked = Some(Asked::of(&job.run));
        let row = Instance {
            id: made.id,
            label: None,
            machine: Some(made.slot.machine),
            host: None,
            gpus: Some(1),
            gpu_ids: Vec::new(),
            gpu_name: None,
            is_bid: Some(true),
            price: Some(usd(0.2)),
            storage: None,
            burn: None,
            cur_state: Some(RawState::Running),
            intended: Some(RawState::Running),
            next_state: Some(RawState::Running),
            actual: None,
            status_msg: None,
            started_at: None,
            up_ms: None,
            ends_at: None,
            disk_gb: None,
            ssh: None,
            gpu_util: None,
        };
        let mut state = world(Vec::new()).state;
        let mut replica = state.replica(&made.replica);
        replica.generation = made.generation;
        state.replicas.insert(replica.id.clone(), replica);
        state.held.insert(made.id, made);
        Self {
            state,
            job,
            row,
            now: NOW,
            moved: Moved::default(),
            broke: false,
            config: EngineConfig::default(),
            heard: None,
            events: Vec::new(),
            offers: vec![offer(901), offer(902)],
        }
    }

    /// So many milliseconds later it shows this.
    pub(crate) fn shows(&mut self, ms: i64, actual: Option<RawState>, message: Option<&str>) {
        self.row.actual = actual;
        self.row.status_msg = message.map(str::to_owned);
        self.after(ms);
    }

    pub(crate) fn loads(&mut self, ms: i64, message: &str) {
        self.shows(ms, Some(RawState::Loading), Some(message));
    }

    /// So many milliseconds later it shows the same.
    pub(crate) fn after(&mut self, ms: i64) {
        self.now = Time(self.now.0 + ms);
        self.look(&[]);
    }

    /// It shows the same for so many minutes more, in each of which it is looked at.
    pub(crate) fn minutes(&mut self, minutes: u32) {
        for _ in 0..minutes {
            self.after(MINUTE);
        }
    }

    pub(crate) fn look(&mut self, gone: &[InstanceId]) {
        let here = gone.is_empty() && self.state.held.contains_key(&self.row.id);
        let listing = Listing {
            rows: here.then(|| self.row.clone()).into_iter().collect(),
            complete: true,
            unreadable: Vec::new(),
        };
        let heard = self.heard.take().map(|heard| (self.row.id, heard));
        let heard: BTreeMap<InstanceId, Heard> = heard.into_iter().collect();
        let seen = Observation {
            now: self.now,
            moved: std::mem::take(&mut self.moved),
            broke: self.broke,
            listing: Some(&listing),
            market: &Snapshot::default(),
            proven_gone: &gone.iter().copied().collect(),
            proven_void: &BTreeSet::new(),
            on_demand: &BTreeMap::new(),
            unchanged: &BTreeMap::new(),
            ran: &BTreeSet::new(),
            ended: &BTreeMap::new(),
            heard: &heard,
        };
        let jobs = [Arc::new(self.job.clone())];
        for change in observe(&self.state, &jobs, &self.config, &seen) {
            self.state.apply(&change);
            if let Change::Event(event) = change {
                self.events.push(event);
            }
        }
    }

    /// It was destroyed as planned, and that is settled.
    pub(crate) fn goes(&mut self) {
        let why = self.destroyed().unwrap();
        let held = self.state.held.get_mut(&self.row.id).unwrap();
        held.destroying = Some(why);
        self.now = self.now + Duration::from_secs(10);
        self.look(&[self.row.id]);
        assert!(!self.state.held.contains_key(&self.row.id));
    }

    /// Another one is rented, on another machine.
    pub(crate) fn comes(&mut self, id: u64, index: u32) {
        let mut made = held(id, &self.job, &offer(id), usd(0.2));
        made.id = InstanceId(id);
        made.intent = IntentId(id);
        made.replica.index = index;
        made.phase = Phase::Provisioning;
        made.first_ran_at = None;
        made.created_at = self.now;
        made.asked = Some(Asked::of(&self.job.run));
        made.host = None;
        made.slot.machine = MachineId(id);
        self.row.id = made.id;
        self.row.machine = Some(made.slot.machine);
        self.row.host = None;
        self.row.actual = None;
        self.row.status_msg = None;
        self.state.held.insert(made.id, made);
    }

    pub(crate) fn held(&self) -> &Held {
        &self.state.held[&self.row.id]
    }

    pub(crate) fn held_mut(&mut self) -> &mut Held {
        self.state.held.get_mut(&self.row.id).unwrap()
    }

    /// The market lists its slot, which a bid needs to come back to.
    pub(crate) fn on_sale(&mut self) {
        self.offers.insert(0, offer(self.held().slot.machine.0));
    }

    pub(crate) fn fault(&self) -> Option<StartFault> {
        self.held().start_fault
    }

    pub(crate) fn failures(&self) -> u32 {
        self.replica().failures
    }

    pub(crate) fn replica(&self) -> ReplicaRecord {
        self.state.replica(&ReplicaId {
            job: self.job.name.clone(),
            index: 0,
        })
    }

    pub(crate) fn hold(&self) -> Option<Hold> {
        let hold = self.state.job(&self.job.name).starts.hold;
        hold.filter(|hold| hold.is_about(&self.job.run))
    }

    pub(crate) fn count(&self, kind: &str) -> usize {
        let of_kind = self.events.iter().filter(|event| event.kind == kind);
        of_kind.count()
    }

    pub(crate) fn is_cooled_down(&self) -> bool {
        let machine = self.state.machine(self.row.machine.unwrap());
        machine.cool_until.is_some()
    }

    pub(crate) fn world(&self) -> World {
        let rows = self.state.held.contains_key(&self.row.id);
        let mut world = world(self.offers.clone());
        Arc::make_mut(&mut world.market).at = self.now;
        world.now = self.now;
        world.jobs = vec![Arc::new(self.job.clone())];
        world.state = self.state.clone();
        world.listing = Some(Listing {
            rows: rows.then(|| self.row.clone()).into_iter().collect(),
            complete: true,
            unreadable: Vec::new(),
        });
        world
    }

    pub(crate) fn actions(&self) -> Vec<Action> {
        decide(&self.world()).0.actions
    }

    pub(crate) fn situation(&self) -> Situation {
        decide(&self.world()).1.jobs[0].replicas[0]
            .situation
            .clone()
    }

    /// Why it is destroyed, if it is.
    pub(crate) fn destroyed(&self) -> Option<DestroyWhy> {
        self.destroyed_in(&self.world())
    }

    /// The same, in a world that is made of it.
    pub(crate) fn destroyed_in(&self, world: &World) -> Option<DestroyWhy> {
        let mut actions = decide(world).0.actions.into_iter();
        actions.find_map(|action| match action.effect {
            Effect::Destroy { instance, why } if instance == self.row.id => Some(why),
            _ => None,
        })
    }

    pub(crate) fn rents(&self) -> bool {
        let rent = |action: &Action| matches!(action.effect, Effect::Rent { .. });
        self.actions().iter().any(rent)
    }
}

pub(crate) const DENIED: &str = "Error response from daemon: pull access denied for me/image, repository does \
    not exist or may require 'docker login': denied: requested access to the resource is denied";
pub(crate) const MISSING: &str =
    "Error response from daemon: manifest for me/image:1 not found: manifest unknown";
pub(crate) const QUOTA: &str =
    "Error response from daemon: toomanyrequests: You have reached your pull rate limit.";
pub(crate) const OCI: &str = "Error response from daemon: failed to create task for container: OCI runtime create \
    failed: runc create failed: error running prestart hook #0: nvidia-container-cli: initialization error";
pub(crate) const PULLS: &str = "Pulling from me/image";

/// With the defaults of a policy.
pub(crate) fn watched() -> Job {
    Job {
        start: StartRules {
            status_within: Some(Duration::from_mins(3)),
            loading_unchanged: Some(Duration::from_mins(10)),
        },
        ..job("a")
    }
}

impl Scene {
    /// What its machine says of it for long enough to be believed.
    pub(crate) fn fails(&mut self, message: &str) {
        self.loads(MINUTE, message);
        self.after(MINUTE);
    }

    /// Another one is rented once that may be, and its machine says this.
    pub(crate) fn next_fails(&mut self, id: u64, message: &str) {
        self.goes();
        self.now = self.now.max(self.replica().retry_at.unwrap_or(self.now));
        self.comes(id, 0);
        self.fails(message);
    }

    /// It gets as far as any may.
    pub(crate) fn runs(&mut self) {
        self.shows(
            MINUTE,
            Some(RawState::Running),
            Some("success, running me/image"),
        );
    }

    pub(crate) fn machine_failures(&self) -> u32 {
        self.state.machine(self.row.machine.unwrap()).failures
    }

    /// On which machine it is, and whose that is.
    pub(crate) fn stands_on(&mut self, machine: u64, host: Option<u64>) {
        self.row.machine = Some(MachineId(machine));
        self.row.host = host.map(HostId);
        let held = self.held_mut();
        held.slot.machine = MachineId(machine);
        held.host = host.map(HostId);
    }

    pub(crate) fn alarms(&self) -> usize {
        let is_alarm = |event: &&Event| event.severity == Severity::Alarm;
        self.events.iter().filter(is_alarm).count()
    }
}
