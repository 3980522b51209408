//! What haggle knows between ticks, and the changes by which it comes to know it.
//!
//! The daemon holds a [`State`] in memory and the store holds the same in tables. Both are made by
//! the same [`Change`]s: the store writes them in one transaction, then [`State::apply`] takes them
//! up. So a restart loads exactly what was known, and nothing is known that is not durable.

use std::collections::{BTreeMap, BTreeSet};

use chrono::NaiveDate;
use serde::{Deserialize, Serialize};

use super::deadline::Watch;
use super::ids::{
    AccountId, Installation, InstanceId, IntentId, JobName, Label, MachineId, ReplicaId,
};
use super::instance::{Held, Instance};
use super::intent::{Effect, Intent};
use super::job::Parameters;
use super::job::Run;
use super::ledger::{Entry, Payer, Scope, Usage, month_of};
use super::machine::MachineRecord;
use super::money::Money;
use super::start::{Hold, Starts};
use super::time::Time;

/// What the user wants of a job.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Wish {
    /// Run it.
    #[default]
    Run,
    /// Park its instances, keep the disks.
    Pause,
    /// Destroy its instances, stay down until resumed.
    Stop,
    /// Destroy its instances, for good.
    Done,
}

/// How a replica ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Ending {
    /// Its work is done.
    Finished,
    /// It failed more often than its retries allow.
    Failed,
}

/// What is kept of a job beside its policy.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct JobRecord {
    /// Which.
    pub name: JobName,
    /// What the user wants of it.
    pub wish: Wish,
    /// On whose behalf it spends, as its policy last said.
    #[serde(default)]
    pub payer: Payer,
    /// What the same useful GPU-hours would have cost on-demand: at each accrual, the cheapest
    /// eligible on-demand landed rate.
    pub on_demand_equivalent: Money,
    /// What was achieved in the last months in which something was, by their first days in the
    /// configured time zone.
    #[serde(default)]
    pub months: BTreeMap<NaiveDate, Achieved>,
    /// How its instances start.
    #[serde(default)]
    pub starts: Starts,
    /// Of an array, the elements that failed, or whose machines were unfit, since the last one got on: the
    /// first of them, at most [`SETBACKS_MAX`].
    #[serde(default)]
    pub setbacks: BTreeSet<u32>,
}

/// When so many elements of an array failed one after the other, what they share may be what is wrong.
pub const SETBACKS_MAX: usize = 5;

/// What a job achieved in a month.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Achieved {
    /// Useful GPU-milliseconds done.
    pub useful_gpu_ms: i64,
    /// Useful GPU-milliseconds that losses took, whenever they were done.
    pub lost_gpu_ms: i64,
    /// What the useful GPU-hours would have cost on-demand, as [`JobRecord::on_demand_equivalent`].
    pub on_demand_equivalent: Money,
}

/// Months of which it is remembered what was achieved.
const MONTHS_KEPT: usize = 36;

impl JobRecord {
    /// A job that nothing is known of yet.
    pub fn new(name: JobName) -> Self {
        Self {
            name,
            wish: Wish::Run,
            payer: Payer::default(),
            on_demand_equivalent: Money::ZERO,
            months: BTreeMap::new(),
            starts: Starts::default(),
            setbacks: BTreeSet::new(),
        }
    }

    /// What keeps anything from being rented for what a policy asks for, if something does.
    pub fn held_by_fault(&self, run: &Run, now: Time) -> Option<&Hold> {
        self.starts
            .hold
            .as_ref()
            .filter(|hold| hold.binds(run, now))
    }

    /// Whether so many elements of an array failed, and none got on meanwhile, that no other is begun.
    pub fn fails_everywhere(&self) -> bool {
        self.setbacks.len() >= SETBACKS_MAX
    }

    /// What was achieved in the month of a day, to be added to.
    pub fn month_of(&mut self, day: NaiveDate) -> &mut Achieved {
        let month = month_of(day);
        while self.months.len() >= MONTHS_KEPT && !self.months.contains_key(&month) {
            self.months.pop_first();
        }
        self.months.entry(month).or_default()
    }
}

/// What is kept of a replica.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ReplicaRecord {
    /// Which.
    pub id: ReplicaId,
    /// The parameters that it was first rented for, where it is an element of an array: its number is
    /// theirs for good.
    #[serde(default)]
    pub parameters: Option<Parameters>,
    /// Its fencing number; grows with every instance made for it.
    pub generation: u32,
    /// Useful GPU-milliseconds that a loss cannot take back.
    pub durable_gpu_ms: i64,
    /// Useful GPU-milliseconds since the last checkpoint.
    pub volatile_gpu_ms: i64,
    /// Useful GPU-milliseconds that losses took.
    pub lost_gpu_ms: i64,
    /// Failures in a row.
    pub failures: u32,
    /// Not to be rented for before this.
    pub retry_at: Option<Time>,
    /// Losses of a running instance to a rival or the host.
    pub outbids: u32,
    /// Instances made for it.
    pub starts: u32,
    /// Machines in a row that its runner found unfit.
    #[serde(default)]
    pub unfit: u32,
    /// Machines in a row whose GPUs broke under its command, as they say, since it last came further
    /// than ever.
    #[serde(default)]
    pub broken: u32,
    /// Starts in a row that hosts let come to nothing.
    #[serde(default)]
    pub failed_starts: u32,
    /// How far its command said that it was, at most.
    #[serde(default)]
    pub furthest: Option<f64>,
    /// What its runs told of having kept in storage, the newest first: one for each place of a run, at
    /// most [`CHECKPOINTS_KEPT`].
    #[serde(default)]
    pub checkpoints: Vec<KeptCheckpoint>,
    /// The outputs of the run that finished it, where they are in storage.
    #[serde(default)]
    pub outputs: Option<KeptOutputs>,
    /// How it ended, and when.
    pub ending: Option<(Ending, Time)>,
    /// What it has seen of interruptible capacity, where it has a deadline.
    #[serde(default)]
    pub watch: Option<Watch>,
}

/// A checkpoint in storage, as the run that kept it told of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeptCheckpoint {
    /// The run: the rent that made its instance.
    pub run: IntentId,
    /// In which of the run's places.
    pub slot: u8,
    /// The SHA-256 of its manifest, in hexadecimal.
    pub manifest: String,
    /// Bytes of its archive.
    pub bytes: u64,
    /// Machines that said that it is not what it should be. One alone may lie.
    #[serde(default)]
    pub bad_on: BTreeSet<MachineId>,
}

/// So many places a run has for checkpoints in storage. They are numbered from 0.
pub const CHECKPOINT_PLACES: u8 = 3;

/// So many checkpoints of a replica are remembered: those of all places of a run, and as many from
/// before.
pub const CHECKPOINTS_KEPT: usize = 2 * CHECKPOINT_PLACES as usize;

/// Outputs in storage, as the run that kept them told of them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeptOutputs {
    /// The run: the rent that made its instance.
    pub run: IntentId,
    /// The SHA-256 of their manifest, in hexadecimal.
    pub manifest: String,
    /// Bytes of their archive.
    pub bytes: u64,
}

impl ReplicaRecord {
    /// A replica that nothing is known of yet.
    pub fn new(id: ReplicaId) -> Self {
        Self {
            id,
            parameters: None,
            generation: 0,
            durable_gpu_ms: 0,
            volatile_gpu_ms: 0,
            lost_gpu_ms: 0,
            failures: 0,
            retry_at: None,
            outbids: 0,
            starts: 0,
            unfit: 0,
            broken: 0,
            failed_starts: 0,
            furthest: None,
            checkpoints: Vec::new(),
            outputs: None,
            ending: None,
            watch: None,
        }
    }

    /// Remembers a checkpoint that was told of. What an older run tells late is older work, and what
    /// is kept in a place replaces what was there.
    pub fn keeps(&mut self, told: KeptCheckpoint) {
        self.checkpoints
            .retain(|known| (known.run, known.slot) != (told.run, told.slot));
        let newer = |known: &&KeptCheckpoint| known.run > told.run;
        let at = self.checkpoints.iter().take_while(newer).count();
        self.checkpoints.insert(at, told);
        self.checkpoints.truncate(CHECKPOINTS_KEPT);
    }

    /// The newest checkpoint of a run that was told of.
    pub fn newest_of(&self, run: IntentId) -> Option<&KeptCheckpoint> {
        self.checkpoints.iter().find(|kept| kept.run == run)
    }

    /// Whether any instance of its is known to have worked, or to have been unfit for it.
    pub fn was_tried(&self) -> bool {
        let worked = self.done_gpu_ms() > 0 || self.lost_gpu_ms > 0 || self.furthest.is_some();
        let failed = self.failures > 0 || self.unfit > 0 || self.broken > 0;
        worked || failed || self.outbids > 0
    }

    /// Useful GPU-milliseconds done so far.
    pub fn done_gpu_ms(&self) -> i64 {
        self.durable_gpu_ms + self.volatile_gpu_ms
    }
}

/// What the user asked through another process.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "ask")]
pub enum Ask {
    /// A wish for one job.
    Job {
        /// Which.
        job: JobName,
        /// What.
        wish: Wish,
    },
    /// Spend again after a kill, all jobs that are paused or stopped resumed.
    ResumeAll,
    /// Destroy all, and refuse to spend.
    Kill,
}

/// A request of the user, appended to a table that the daemon takes up.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UserRequest {
    /// Its number.
    pub id: i64,
    /// When it was made.
    pub at: Time,
    /// What is asked.
    pub ask: Ask,
}

/// How urgent an event is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Severity {
    /// What happened.
    Info,
    /// What a person may want to act on.
    Warning,
    /// What a person must act on.
    Alarm,
}

/// Something that happened, for the user: the story of a job in order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// When.
    pub at: Time,
    /// How urgent.
    pub severity: Severity,
    /// A word that can be counted, such as `outbid`.
    pub kind: String,
    /// Of which replica, if of one.
    pub replica: Option<ReplicaId>,
    /// Of which instance, if of one.
    pub instance: Option<InstanceId>,
    /// A sentence. Never holds a secret.
    pub text: String,
}

/// What rebuilds a tick's world, and what the tick decided.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TickRecord {
    /// Ticks since the installation began.
    pub tick: u64,
    /// When.
    pub at: Time,
    /// The snapshot that it decided on; `None` before the first good poll.
    pub snapshot: Option<i64>,
    /// SHA-256 of the engine's configuration, hexadecimal.
    pub config_hash: String,
    /// SHA-256 of the jobs, hexadecimal.
    pub jobs_hash: String,
    /// The world without its offers, as JSON, where the plan is not empty: what `explain` and a
    /// replay need. Quiet ticks keep only its hash.
    pub world: Option<String>,
    /// SHA-256 of the world without its offers, hexadecimal.
    pub world_hash: String,
    /// The plan as JSON.
    pub plan: String,
}

/// One thing that became known. Every change is durable before it is believed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "change")]
pub enum Change {
    /// The account was seen for the first time.
    Pin {
        /// Whose it is.
        account: AccountId,
    },
    /// Spending was forbidden, or allowed again.
    Killed {
        /// Whether it is forbidden.
        killed: bool,
    },
    /// Something learnt about the marketplace's wire, such as which URL form a path family takes.
    Wire {
        /// What.
        key: String,
        /// `None` forgets it.
        value: Option<String>,
    },
    /// An intent, new or moved on.
    Intent(Intent),
    /// An instance of ours, new or changed.
    Held(Box<Held>),
    /// An instance of ours is gone, settled. Its last record is kept in the store's history.
    Gone {
        /// Which.
        instance: InstanceId,
        /// When it was settled.
        at: Time,
    },
    /// A job's record.
    Job(JobRecord),
    /// A replica's record.
    Replica(ReplicaRecord),
    /// A machine's record.
    Machine(MachineRecord),
    /// A line of the ledger.
    Entry(Entry),
    /// A request of the user was taken up.
    RequestDone {
        /// Which.
        id: i64,
    },
    /// Something to tell.
    Event(Event),
    /// A tick was decided.
    Tick(Box<TickRecord>),
}

/// What haggle knows between ticks.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct State {
    /// Which installation this is.
    pub installation: Installation,
    /// The account that it is bound to.
    pub account: Option<AccountId>,
    /// Whether spending is forbidden until `resume --all`.
    pub killed: bool,
    /// What was learnt about the wire.
    pub wire: BTreeMap<String, String>,
    /// The last intent ever recorded.
    pub last_intent: Option<IntentId>,
    /// Ticks so far.
    pub ticks: u64,
    /// Intents not yet settled.
    pub intents: BTreeMap<IntentId, Intent>,
    /// Instances of ours that are not proven gone.
    pub held: BTreeMap<InstanceId, Held>,
    /// Jobs ever seen.
    pub jobs: BTreeMap<JobName, JobRecord>,
    /// Replicas ever seen. JSON has no keys of two parts, so there they are a list.
    #[serde(with = "replicas_as_list")]
    pub replicas: BTreeMap<ReplicaId, ReplicaRecord>,
    /// Machines that something is known of.
    pub machines: BTreeMap<MachineId, MachineRecord>,
    /// Money set aside for open intents, by intent: the sum of its lines that set aside and give
    /// back.
    pub reserved: BTreeMap<IntentId, Money>,
    /// What counts against limits, by scope.
    pub usage: BTreeMap<Scope, Usage>,
}

mod replicas_as_list {
    use super::{BTreeMap, Deserialize, ReplicaId, ReplicaRecord};
    use serde::{Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(
        replicas: &BTreeMap<ReplicaId, ReplicaRecord>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(replicas.values())
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<BTreeMap<ReplicaId, ReplicaRecord>, D::Error> {
        let records = Vec::<ReplicaRecord>::deserialize(deserializer)?;
        Ok(records.into_iter().map(|r| (r.id.clone(), r)).collect())
    }
}

impl State {
    /// A new installation that knows nothing.
    pub fn new(installation: Installation) -> Self {
        Self {
            installation,
            account: None,
            killed: false,
            wire: BTreeMap::new(),
            last_intent: None,
            ticks: 0,
            intents: BTreeMap::new(),
            held: BTreeMap::new(),
            jobs: BTreeMap::new(),
            replicas: BTreeMap::new(),
            machines: BTreeMap::new(),
            reserved: BTreeMap::new(),
            usage: BTreeMap::new(),
        }
    }

    /// Takes up a change that has been made durable.
    pub fn apply(&mut self, change: &Change) {
        match change {
            Change::Pin { account } => self.account = Some(*account),
            Change::Killed { killed } => self.killed = *killed,
            Change::Wire {
                key,
                value: Some(value),
            } => {
                self.wire.insert(key.clone(), value.clone());
            }
            Change::Wire { key, value: None } => {
                self.wire.remove(key);
            }
            Change::Intent(intent) => {
                self.last_intent = self.last_intent.max(Some(intent.id));
                if intent.state.is_open() {
                    self.intents.insert(intent.id, intent.clone());
                } else {
                    self.intents.remove(&intent.id);
                }
            }
            Change::Held(held) => {
                self.held.insert(held.id, (**held).clone());
            }
            Change::Gone { instance, .. } => {
                self.held.remove(instance);
            }
            Change::Job(record) => {
                self.jobs.insert(record.name.clone(), record.clone());
            }
            Change::Replica(record) => {
                self.replicas.insert(record.id.clone(), record.clone());
            }
            Change::Machine(record) => {
                self.machines.insert(record.id, record.clone());
            }
            Change::Entry(entry) => self.apply_entry(entry),
            Change::Tick(record) => self.ticks = record.tick,
            Change::RequestDone { .. } | Change::Event(_) => {}
        }
    }

    fn apply_entry(&mut self, entry: &Entry) {
        if entry.kind.reserves() {
            let sum = self.reserved.entry(entry.intent).or_default();
            *sum += entry.amount;
            if *sum == Money::ZERO {
                self.reserved.remove(&entry.intent);
            }
        } else if entry.kind.spends() {
            for scope in Scope::of(&entry.replica.job, &entry.payer) {
                let usage = self.usage.entry(scope).or_default();
                usage.add(entry.day, entry.amount);
            }
        }
    }

    /// What counts against the limits of a scope.
    pub fn usage(&self, scope: &Scope) -> Usage {
        self.usage.get(scope).cloned().unwrap_or_default()
    }

    /// What a job has cost: estimates with their corrections.
    pub fn spent(&self, job: &JobName) -> Money {
        self.usage
            .get(&Scope::Job(job.clone()))
            .map_or(Money::ZERO, |usage| usage.total)
    }

    /// A replica's record, or the one it begins with.
    pub fn replica(&self, id: &ReplicaId) -> ReplicaRecord {
        self.replicas
            .get(id)
            .cloned()
            .unwrap_or_else(|| ReplicaRecord::new(id.clone()))
    }

    /// The records of a job's replicas, by their numbers.
    pub fn replicas_of(&self, job: &JobName) -> impl Iterator<Item = &ReplicaRecord> {
        let numbered = |index| ReplicaId {
            job: job.clone(),
            index,
        };
        let all = self.replicas.range(numbered(0)..=numbered(u32::MAX));
        all.map(|(_, record)| record)
    }

    /// A job's record, or the one it begins with.
    pub fn job(&self, name: &JobName) -> JobRecord {
        self.jobs
            .get(name)
            .cloned()
            .unwrap_or_else(|| JobRecord::new(name.clone()))
    }

    /// A machine's record, or the one it begins with.
    pub fn machine(&self, id: MachineId) -> MachineRecord {
        self.machines
            .get(&id)
            .cloned()
            .unwrap_or_else(|| MachineRecord::new(id))
    }

    /// The open rents that a row may be the instance of: by its label, whole or cut short. Cut
    /// short it may be several, of which those on other machines are left out.
    pub fn rents_shown_by<'a>(&'a self, row: &'a Instance) -> impl Iterator<Item = &'a Intent> {
        let shown = row
            .label
            .as_deref()
            .filter(|_| !self.held.contains_key(&row.id));
        let rents = shown.map(|shown| self.rents_labelled(shown));
        rents.into_iter().flatten().filter(move |&(intent, whole)| {
            let there = |machine| matches!(&intent.effect, Effect::Rent { slot, .. } if slot.machine == machine);
            whole || row.machine.is_none_or(there)
        }).map(|(intent, _)| intent)
    }

    /// The open rents whose label this is, or may have been before it was cut short; and whether it
    /// is whole.
    pub fn rents_labelled<'a>(
        &'a self,
        shown: &'a str,
    ) -> impl Iterator<Item = (&'a Intent, bool)> {
        // The tail is no part of the name.
        let shown = shown.split('/').next().unwrap_or_default();
        self.intents.values().filter_map(move |intent| {
            let Effect::Rent { replica, .. } = &intent.effect else {
                return None;
            };
            let label = Label {
                installation: self.installation.clone(),
                replica: replica.clone(),
                intent: intent.id,
            };
            let whole = label.to_string() == shown;
            label.cut_to(shown).then_some((intent, whole))
        })
    }

    /// The instances of a replica, oldest first.
    pub fn held_by<'a>(&'a self, replica: &'a ReplicaId) -> impl Iterator<Item = &'a Held> {
        self.held
            .values()
            .filter(move |held| held.replica == *replica)
    }
}
