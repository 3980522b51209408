//! Rented instances: as the marketplace reports them, and as we keep them.

use std::collections::BTreeMap;

use chrono::NaiveDate;
use serde::{Deserialize, Serialize};

use super::ids::{
    AccountId, HostId, Installation, InstanceId, IntentId, Label, MachineId, ReplicaId, Slot, Tail,
};
use super::job::Runner;
use super::machine::Odds;
use super::money::{BID_PARKED, Money, Rate};
use super::start::{Asked, ComingUp, GpuUse, StartFault};
use super::time::Time;

/// A state of a contract or a container, as the marketplace words it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RawState {
    /// The container was created and nothing more.
    Created,
    /// The image is being pulled.
    Loading,
    /// Running.
    Running,
    /// Stopped.
    Stopped,
    /// The container ended; also what a stopped instance shows.
    Exited,
    /// Being restarted.
    Rebooting,
    /// Paused in memory; bills as running.
    Frozen,
    /// The host was lost.
    Offline,
    /// Anything else, including the marketplace's own `unknown`.
    Other,
}

/// An instance as a listing shows it. Every field that may be missing is `Option`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Instance {
    /// Its id.
    pub id: InstanceId,
    /// Its label, whole.
    pub label: Option<String>,
    /// The machine it is on.
    pub machine: Option<MachineId>,
    /// The machine's owner.
    pub host: Option<HostId>,
    /// How many GPUs.
    pub gpus: Option<u32>,
    /// Which. Empty: unknown.
    pub gpu_ids: Vec<u32>,
    /// The model.
    pub gpu_name: Option<String>,
    /// Whether it is interruptible.
    pub is_bid: Option<bool>,
    /// The standing bid, or the on-demand rate, for all its GPUs.
    pub price: Option<Rate>,
    /// What its disk costs per hour.
    pub storage: Option<Rate>,
    /// What it costs per hour in its present state.
    pub burn: Option<Rate>,
    /// The contract's state now.
    pub cur_state: Option<RawState>,
    /// The state it should have.
    pub intended: Option<RawState>,
    /// The state it is scheduled to have.
    pub next_state: Option<RawState>,
    /// The container's state; `None` while provisioning.
    pub actual: Option<RawState>,
    /// The marketplace's words on it.
    pub status_msg: Option<String>,
    /// When it was created.
    pub started_at: Option<Time>,
    /// For how long its container has been up, in milliseconds.
    #[serde(default)]
    pub up_ms: Option<i64>,
    /// When the rental ends.
    pub ends_at: Option<Time>,
    /// Disk in GB.
    pub disk_gb: Option<u32>,
    /// `host:port` for SSH.
    pub ssh: Option<String>,
    /// How much its GPUs are used, in percent; not under zero. `None`: unknown, which is not idle.
    #[serde(default)]
    pub gpu_util: Option<f32>,
}

/// What an instance is doing, in our words.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Phase {
    /// Made, not yet running: being created, or pulling its image.
    Provisioning,
    /// Running, and billed.
    Running,
    /// Stopped: outbid, parked, stopped by the user, or its rental or the credit ended. The record
    /// does not say which. Its disk is billed.
    Stopped,
    /// The container ended by itself while the contract runs on; assumed to be billed.
    Exited,
    /// The host is not heard from.
    Offline,
    /// The record says nothing that we understand. Assumed to be billed.
    Unclear,
}

impl Phase {
    /// The word in tables, metrics and JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Provisioning => "provisioning",
            Self::Running => "running",
            Self::Stopped => "stopped",
            Self::Exited => "exited",
            Self::Offline => "offline",
            Self::Unclear => "unclear",
        }
    }

    /// Every phase.
    pub const ALL: [Self; 6] = [
        Self::Provisioning,
        Self::Running,
        Self::Stopped,
        Self::Exited,
        Self::Offline,
        Self::Unclear,
    ];
}

impl Instance {
    /// What its label lets a runner do; `None`: nothing that can be read.
    pub fn tail(&self) -> Option<Tail> {
        self.label.as_deref().and_then(Tail::of)
    }

    /// What it is doing. The contract's state outweighs the container's: a stopped contract shows
    /// an exited container.
    pub fn phase(&self) -> Phase {
        match (self.cur_state, self.actual) {
            (Some(RawState::Stopped | RawState::Exited), _) => Phase::Stopped,
            (_, Some(RawState::Running | RawState::Frozen | RawState::Rebooting)) => Phase::Running,
            (_, Some(RawState::Exited | RawState::Stopped)) => Phase::Exited,
            (_, Some(RawState::Offline)) => Phase::Offline,
            (_, Some(RawState::Created | RawState::Loading)) => Phase::Provisioning,
            (Some(RawState::Running | RawState::Created | RawState::Loading), None) => {
                Phase::Provisioning
            }
            _ => Phase::Unclear,
        }
    }

    /// Whether it cannot resume by itself: a bid at the parked price, or an on-demand contract
    /// that is stopped and meant to be.
    pub fn is_parked(&self) -> bool {
        let stopped = self.phase() == Phase::Stopped;
        match self.is_bid {
            Some(true) => stopped && self.price.is_some_and(|price| price <= BID_PARKED),
            Some(false) => {
                let meant =
                    |s: Option<RawState>| matches!(s, Some(RawState::Stopped | RawState::Exited));
                stopped && meant(self.intended)
            }
            None => false,
        }
    }
}

/// Every instance of the account, as one read saw them.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Listing {
    /// The rows that could be read, ordered by id.
    pub rows: Vec<Instance>,
    /// Whether the last page was reached, the row count was as announced, no row was malformed,
    /// and the account was the pinned one. Only then does an absence mean anything.
    pub complete: bool,
    /// Ids of rows that could not be read whole, where the id could. They exist, so they are not
    /// absent; nothing else is known of them.
    pub unreadable: Vec<InstanceId>,
}

/// The account, as the marketplace reports it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Account {
    /// Whose.
    pub id: AccountId,
    /// Prepaid money left; may be negative. `None`: the answer did not say.
    pub credit: Option<Money>,
}

/// How an instance is rented.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Rental {
    /// Interruptible, at a bid.
    Bid,
    /// At the host's fixed rate.
    OnDemand,
}

impl Rental {
    /// The word in tables, metrics and JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Bid => "bid",
            Self::OnDemand => "on-demand",
        }
    }
}

/// Why we took an instance down.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DestroyWhy {
    /// The job's work is done.
    Finished,
    /// The user said `done`, `stop` or `kill`.
    UserRequest,
    /// It did not come up within the provisioning timeout.
    ProvisionTimeout,
    /// A step of its start took too long, or its host's container runtime reported an error.
    StartFailed,
    /// The container ended too soon.
    EndedTooSoon,
    /// The create's answer or its re-read was not what was asked.
    NotAsAsked,
    /// A refused create left it behind.
    Leftover,
    /// It carries our label and nothing we know wants it.
    Orphan,
    /// A replacement took its place, and its data may be lost.
    Moved,
    /// Its rental is ending.
    RentalEnding,
    /// A limit forces it.
    Limit,
    /// The job's policy file was removed, or the replica no longer exists.
    Drained,
    /// It is outside the job's window, and its data may be lost.
    WindowClosed,
    /// It lived as long as the policy allows.
    MaxLifetime,
    /// The host is not heard from.
    HostLost,
    /// The runner found the machine to be less than was advertised.
    Refused,
    /// A GPU of the machine broke under the command.
    Broken,
    /// It runs, and nothing was heard of the runner.
    Silent,
    /// Its command made no progress for too long.
    Hung,
    /// The checkpoint that it was to begin with did not come, or not as it should be.
    NotBrought,
    /// Its GPUs were hardly used for longer than the policy allows.
    Idle,
    /// `demo`, or `run --destroy-on-exit`, ended.
    Exit,
}

impl DestroyWhy {
    /// The same in a few words, for events.
    pub fn words(self) -> &'static str {
        match self {
            Self::Finished => "finished",
            Self::UserRequest => "as asked",
            Self::ProvisionTimeout => "it did not come up in time",
            Self::StartFailed => "its start came to nothing",
            Self::EndedTooSoon => "it ended too soon",
            Self::NotAsAsked => "it is not what was asked",
            Self::Leftover => "a refused create left it behind",
            Self::Orphan => "nothing wants it",
            Self::Moved => "moved elsewhere",
            Self::RentalEnding => "its rental ends",
            Self::Limit => "a limit forces it",
            Self::Drained => "its policy is gone",
            Self::WindowClosed => "its window closed",
            Self::MaxLifetime => "it lived as long as it may",
            Self::HostLost => "its host is lost",
            Self::Refused => "its machine is not fit for the job",
            Self::Broken => "a GPU of its machine broke",
            Self::Silent => "nothing was heard of its runner",
            Self::Hung => "its command made no progress",
            Self::NotBrought => "its checkpoint did not come",
            Self::Idle => "its GPUs were hardly used",
            Self::Exit => "haggle ends",
        }
    }
}

/// What the runner on an instance has told, as far as its lines were signed with the run's key. All of
/// it is the word of a machine that is not ours.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct RunnerView {
    /// What it was given when its instance was made: a policy that was edited since is the next one's.
    #[serde(default)]
    pub given: Option<Box<Runner>>,
    /// When its log was last read.
    pub read_at: Option<Time>,
    /// When a new line was last read.
    pub heard_at: Option<Time>,
    /// When its log was first read since without a new line; `None`: it was not.
    #[serde(default)]
    pub overdue_since: Option<Time>,
    /// Which start of the container the last line is of, and its number.
    pub line: Option<(String, u64)>,
    /// The starts of the container that lines were of, the last ones only, oldest first.
    #[serde(default)]
    pub boots: Vec<String>,
    /// Whether the command was ever begun: then there may be work on the disk.
    #[serde(default)]
    pub worked: bool,
    /// The state that the last line names.
    pub state: Option<String>,
    /// How far the command says that it is.
    pub progress: Option<f64>,
    /// When that changed last, or the command began.
    pub progress_at: Option<Time>,
    /// The last checkpoint that was kept elsewhere: the place, the SHA-256 of its manifest in
    /// hexadecimal, and the bytes of its archive.
    pub checkpoint: Option<(u8, String, u64)>,
    /// Since when its disk alone has something that should be elsewhere: a checkpoint that could not be
    /// uploaded, or outputs.
    #[serde(default)]
    pub unsaved_since: Option<Time>,
    /// Since when it tries to get its inputs and the checkpoint to begin with, in this start of the container.
    #[serde(default)]
    pub restoring_since: Option<Time>,
    /// Whether what it got was not that checkpoint.
    #[serde(default)]
    pub restored_badly: bool,
    /// Whether it says of an input that it would be the same on every machine, in this start of the
    /// container.
    #[serde(default)]
    pub input_fault: bool,
    /// Whether it says of an input that it is another one by now, in this start of the container.
    #[serde(default)]
    pub input_changed: bool,
    /// Whether it has not got all of its inputs yet, in this start of the container.
    #[serde(default)]
    pub fetching: bool,
    /// Of the input that comes in: its number from 1, how many KB are there, and when more came last.
    #[serde(default)]
    pub came: Option<(u32, u64, Time)>,
    /// Whether it told for long that no more of that came.
    #[serde(default)]
    pub stalled: bool,
    /// When it was first heard that the command had ended, in this start of the container.
    #[serde(default)]
    pub result_at: Option<Time>,
    /// Where its outputs are, once the command has ended. A later start of the container does not take
    /// that back: what is on the disk alone stays there until it is told that it is elsewhere.
    #[serde(default)]
    pub outputs: Option<Outputs>,
    /// The command's exit code in this start of the container.
    pub exit: Option<i32>,
    /// What is broken of the machine, where the command failed by it, in this start of the container.
    #[serde(default)]
    pub fault: Option<String>,
    /// Why it waits, ended, or was refused.
    pub why: Option<String>,
    /// What became of it, once that was judged in this start of the container.
    pub verdict: Option<Verdict>,
}

/// Where a command's outputs are.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Outputs {
    /// On the instance's disk, and nowhere else.
    Here,
    /// In storage.
    Stored {
        /// The SHA-256 of their manifest, in hexadecimal.
        manifest: String,
        /// Bytes of their archive.
        bytes: u64,
    },
}

impl RunnerView {
    /// Nothing was heard yet of a runner that was given this.
    pub fn of(runner: &Runner) -> Self {
        Self {
            given: Some(Box::new(runner.clone())),
            ..Self::default()
        }
    }

    /// Whether it is to be replaced by another one although its disk has work: its machine or its runner
    /// is no good.
    pub fn is_replaced(&self) -> bool {
        let unfit = matches!(
            self.verdict,
            Some(Verdict::Refused | Verdict::Silent | Verdict::Broken)
        );
        unfit && self.worked
    }

    /// The clock was set ahead by so many milliseconds, at most, and shows `now`: nothing is silent, without
    /// progress, or without its checkpoint for longer for that.
    pub fn set_ahead(&mut self, ms: i64, now: Time) {
        self.overdue_since = None;
        let marks = [
            &mut self.heard_at,
            &mut self.restoring_since,
            &mut self.progress_at,
            &mut self.result_at,
        ];
        let came = self.came.as_mut().map(|(.., at)| at);
        for at in marks.into_iter().flatten().chain(came) {
            *at = Time(at.0.saturating_add(ms)).min(now);
        }
    }

    /// What was said of a start of the container is not said of the next one.
    pub fn begins_anew(&mut self) {
        self.verdict = None;
        self.state = None;
        self.exit = None;
        self.fault = None;
        self.why = None;
        self.progress_at = None;
        self.overdue_since = None;
        self.restoring_since = None;
        self.restored_badly = false;
        self.input_fault = false;
        self.input_changed = false;
        self.fetching = false;
        self.came = None;
        self.stalled = false;
        self.result_at = None;
    }
}

/// What a runner's lines, or their absence, came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// The command ended by itself.
    Ended,
    /// The machine was refused.
    Refused,
    /// The command failed, and the machine's GPUs with it.
    Broken,
    /// Nothing was heard of the runner.
    Silent,
    /// The command made no progress.
    Hung,
    /// The checkpoint that was to be copied to it did not come in time, or not as it should be.
    NotBrought,
}

/// A checkpoint on its way from the disk of another instance, before this one may work.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bringing {
    /// The instance whose disk has it.
    pub from: InstanceId,
    /// The instances whose work that disk went on from in turn, the last one first: it may be gone before
    /// this one has a checkpoint of its own, and then they go by this one.
    #[serde(default)]
    pub also: Vec<InstanceId>,
    /// That one's run.
    pub run: IntentId,
    /// How long its archive is, as its machine told, or its whole disk: how long a copy may take follows from
    /// it, and no amount of money.
    pub bytes: u64,
    /// When its runner first said that it waits for the copy.
    pub ready_at: Option<Time>,
    /// When the copy was first asked for.
    pub begun_at: Option<Time>,
    /// When it was asked for last.
    pub asked_at: Option<Time>,
    /// Whether the marketplace took that up.
    pub accepted: bool,
    /// When the marketplace first took a copy up; `None`: it never answered so.
    #[serde(default)]
    pub accepted_at: Option<Time>,
    /// The SHA-256 of the manifest that its runner says to have found right, in hexadecimal.
    #[serde(default)]
    pub told: Option<String>,
    /// The same, once the marketplace has taken a copy up: it may be let work.
    pub verified: Option<String>,
    /// Whether that is the manifest which the other run told of last. Its machine cannot know it by itself.
    #[serde(default)]
    pub as_told: bool,
    /// The SHA-256 of its own manifest of that checkpoint: what it keeps later has another.
    #[serde(default)]
    pub own: Option<String>,
    /// How many copies to it the marketplace took up.
    #[serde(default)]
    pub asks_taken: u32,
    /// How many more may have been made: nobody knows what came of them.
    #[serde(default)]
    pub asks_unknown: u32,
    /// How often the marketplace answered that it copies nothing, and that asking again is of no use.
    #[serde(default)]
    pub refused: u32,
    /// What it said to that last.
    #[serde(default)]
    pub refused_why: Option<String>,
    /// When it last came to run again after it had been stopped behind its gate.
    #[serde(default)]
    pub again_at: Option<Time>,
    /// How often it did.
    #[serde(default)]
    pub agains: u32,
    /// Whether it begins anew without it, as the policy allows.
    pub anew: bool,
    /// Whether its label was, or may have been, let say `go`: from then on work may be on its disk.
    pub opened: bool,
    /// When it was.
    #[serde(default)]
    pub opened_at: Option<Time>,
    /// When it first told of a checkpoint that it made itself.
    #[serde(default)]
    pub kept_at: Option<Time>,
}

impl Bringing {
    /// It comes to run again after it was stopped behind its gate: what it was waited for before that says
    /// nothing of its copy, the first times. How often it was asked for stays.
    pub fn waits_again(&mut self, now: Time) {
        if !self.opened {
            self.agains = self.agains.saturating_add(1);
            (self.ready_at, self.asked_at) = (None, None);
            if self.agains <= Self::AGAINS_MAX {
                self.begun_at = None;
                self.again_at = Some(now);
            }
        }
    }

    /// After so many stops behind its gate its time goes on: a host that stops it again and again would else
    /// have it billed without end.
    pub const AGAINS_MAX: u32 = 2;

    /// The clock was set ahead by so many milliseconds, at most, and shows `now`: no copy has taken longer
    /// for that.
    pub fn set_ahead(&mut self, ms: i64, now: Time) {
        let marks = [
            &mut self.ready_at,
            &mut self.begun_at,
            &mut self.asked_at,
            &mut self.opened_at,
            &mut self.kept_at,
            &mut self.again_at,
        ];
        for at in marks.into_iter().flatten() {
            *at = Time(at.0.saturating_add(ms)).min(now);
        }
    }
}

/// An instance of ours, as we keep it: everything the bill, the fence and the next decision need.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Held {
    /// Its id.
    pub id: InstanceId,
    /// The intent that made it.
    pub intent: IntentId,
    /// What it runs.
    pub replica: ReplicaId,
    /// The replica's generation when it was made.
    pub generation: u32,
    /// Where it is.
    pub slot: Slot,
    /// The machine's owner.
    pub host: Option<HostId>,
    /// Which GPUs. Empty: unknown.
    pub gpu_ids: Vec<u32>,
    /// The model.
    pub gpu_name: String,
    /// Bid or on-demand.
    pub rental: Rental,
    /// The standing bid or the on-demand rate, as last read back (until then, as asked).
    pub price: Rate,
    /// The bid it had before it was parked, to which it may be brought back.
    pub bid_before_park: Option<Rate>,
    /// The last bid at which it was asked to run; `None`: on-demand, or not known.
    #[serde(default)]
    pub last_bid: Option<Rate>,
    /// What its disk costs per hour.
    pub storage: Rate,
    /// Disk in GB.
    pub disk_gb: u32,
    /// What a GB costs down and up, as its offer said when it was made; `None`: not seen.
    #[serde(default)]
    pub traffic_prices: Option<(Money, Money)>,
    /// When it was created.
    pub created_at: Time,
    /// When the rental ends.
    pub ends_at: Option<Time>,
    /// `host:port` for SSH.
    pub ssh: Option<String>,
    /// What it is doing, as last seen.
    pub phase: Phase,
    /// Since when, as far as we saw.
    pub phase_since: Time,
    /// Whether it cannot resume by itself, read back.
    pub parked: bool,
    /// Whether *we* last asked it to stop or to park. A stop without this is somebody else's doing.
    pub stop_asked: bool,
    /// When it first ran; `None` if never.
    pub first_ran_at: Option<Time>,
    /// When the bid was raised last.
    pub raised_at: Option<Time>,
    /// When a bid of ours that is none to park took effect last.
    #[serde(default)]
    pub bid_sent_at: Option<Time>,
    /// Raises since it last ran for an hour without a break: a rival that comes back at once is
    /// not outbid a second time.
    pub raises: u32,
    /// How far the ledger has accrued it.
    pub accrued_to: Time,
    /// Milliseconds for which the GPUs were billed, as far as we saw.
    pub billed_ms: i64,
    /// Milliseconds of this unbroken run, for what a loss costs; zero while not running.
    pub run_ms: i64,
    /// What it has cost, as posted in the ledger: GPUs.
    pub spent_gpu: Money,
    /// What it has cost, as posted: disk.
    pub spent_disk: Money,
    /// What it has cost, as posted: traffic (known only from the bill).
    pub spent_traffic: Money,
    /// What the marketplace has charged for it so far, as its charge rows say.
    pub billed: Money,
    /// The cheapest on-demand landed rate for the same GPUs when it was last accrued.
    pub on_demand_rate: Option<Rate>,
    /// Why it is being destroyed, if it is. It stays here until the destroy is settled.
    pub destroying: Option<DestroyWhy>,
    /// When the last destroy request ended.
    pub destroy_sent_at: Option<Time>,
    /// Since when it is seen to be there although it is being destroyed.
    #[serde(default)]
    pub destroying_since: Option<Time>,
    /// When the marketplace answered that it destroyed it; not yet proven.
    #[serde(default)]
    pub destroyed_at: Option<Time>,
    /// What its label's tail said when it was last read, or was last set to; `None`: it has none.
    #[serde(default)]
    pub tail: Option<Tail>,
    /// When its label was last changed by us, as the marketplace answered.
    #[serde(default)]
    pub relabelled_at: Option<Time>,
    /// What its runner has told; `None`: it was given none.
    #[serde(default)]
    pub runner: Option<RunnerView>,
    /// The checkpoint that is brought to it from another disk; `None`: it begins without one.
    #[serde(default)]
    pub bringing: Option<Bringing>,
    /// What the work cost that its host lost, by the first day of the month of the loss.
    #[serde(default)]
    pub lost_work: BTreeMap<NaiveDate, Money>,
    /// What its policy asked for when it was made, as far as a start depends on it; `None`: not known.
    #[serde(default)]
    pub asked: Option<Asked>,
    /// What was last seen of its start; `None`: nothing yet, or it has run.
    #[serde(default)]
    pub coming_up: Option<ComingUp>,
    /// Why its start was given up, if it was.
    #[serde(default)]
    pub start_fault: Option<StartFault>,
    /// How much its GPUs were used in its present run.
    #[serde(default)]
    pub gpu_use: GpuUse,
    /// How often something was expected to befall it when it was rented; `None`: its offer was not seen.
    #[serde(default)]
    pub odds: Option<Odds>,
    /// Milliseconds of running that its machine's record does not hold yet.
    #[serde(default)]
    pub exposed_ms: i64,
    /// When it was last seen to be outbid; `None`: not since it ran last, or it has no bid.
    #[serde(default)]
    pub outbid_at: Option<Time>,
    /// How often a copy from its disk came to nothing, in a row.
    #[serde(default)]
    pub copies_failed: u32,
    /// What is posted of its traffic for copies between disks.
    #[serde(default)]
    pub copied: Money,
    /// Useful GPU-milliseconds that it did and that are taken for kept on its disk.
    #[serde(default)]
    pub kept_gpu_ms: i64,
}

impl Held {
    /// An instance of which only this much is known, at `now`. What is not known yet is reckoned
    /// as nothing, and is filled in from the rent or from a row of the marketplace.
    pub fn new(id: InstanceId, intent: IntentId, replica: ReplicaId, now: Time) -> Self {
        Self {
            id,
            intent,
            replica,
            generation: 0,
            slot: Slot {
                machine: MachineId(0),
                gpus: 1,
            },
            host: None,
            gpu_ids: Vec::new(),
            gpu_name: String::new(),
            rental: Rental::Bid,
            price: Rate::ZERO,
            bid_before_park: None,
            last_bid: None,
            storage: Rate::ZERO,
            disk_gb: 0,
            traffic_prices: None,
            created_at: now,
            ends_at: None,
            ssh: None,
            phase: Phase::Provisioning,
            phase_since: now,
            parked: false,
            stop_asked: false,
            first_ran_at: None,
            raised_at: None,
            bid_sent_at: None,
            raises: 0,
            accrued_to: now,
            billed_ms: 0,
            run_ms: 0,
            spent_gpu: Money::ZERO,
            spent_disk: Money::ZERO,
            spent_traffic: Money::ZERO,
            billed: Money::ZERO,
            on_demand_rate: None,
            destroying: None,
            destroy_sent_at: None,
            destroying_since: None,
            destroyed_at: None,
            tail: None,
            relabelled_at: None,
            runner: None,
            bringing: None,
            lost_work: BTreeMap::new(),
            asked: None,
            coming_up: None,
            start_fault: None,
            gpu_use: GpuUse::default(),
            odds: None,
            exposed_ms: 0,
            outbid_at: None,
            copies_failed: 0,
            copied: Money::ZERO,
            kept_gpu_ms: 0,
        }
    }

    /// Whether its bid is a parked one: so little that no rival has to outbid it. A price of nothing is one
    /// that was not told.
    pub fn bids_nothing(&self) -> bool {
        self.rental == Rental::Bid && self.price > Rate::ZERO && self.price <= BID_PARKED
    }

    /// Whether its bid was cut to a parked one by somebody else, such as the guard: we asked for no stop.
    pub fn is_parked_by_others(&self) -> bool {
        self.bids_nothing()
            && self.phase == Phase::Stopped
            && !self.stop_asked
            && self.outbid_at.is_none()
            && self.bid_before_park.is_none_or(|bid| bid <= BID_PARKED)
    }

    /// A bid is asked for at which it may run. What is raised for is given up no more: it would else be
    /// parked while it comes up again.
    pub fn asked_to_run_at(&mut self, bid: Rate, now: Time) {
        self.bid_sent_at = Some(now);
        self.last_bid = Some(bid);
        let before = match self.bid_before_park {
            Some(bid) if self.stop_asked => bid,
            _ => self.price,
        };
        if bid > before {
            self.raises += 1;
            self.raised_at = Some(now);
            self.bid_before_park = self.bid_before_park.filter(|&bid| bid > BID_PARKED);
        }
        self.stop_asked = false;
        self.parked = false;
    }

    /// The clock was set ahead by so many milliseconds, at most, and shows `now`: neither its start nor how
    /// long its GPUs are idle is older for that.
    pub fn set_ahead(&mut self, ms: i64, now: Time) {
        if let Some(view) = &mut self.coming_up {
            view.set_ahead(ms, now);
        }
        if let Some(idle) = &mut self.gpu_use.idle {
            idle.set_ahead(ms, now);
        }
        if let Some(bringing) = &mut self.bringing {
            bringing.set_ahead(ms, now);
        }
        if let Some(view) = &mut self.runner {
            view.set_ahead(ms, now);
            if !view.worked && self.phase == Phase::Running {
                self.phase_since = Time(self.phase_since.0.saturating_add(ms)).min(now);
            }
        }
    }

    /// Its label, without a tail.
    pub fn label(&self, installation: &Installation) -> Label {
        Label {
            installation: installation.clone(),
            replica: self.replica.clone(),
            intent: self.intent,
        }
    }

    /// Whether it waits behind its gate for a checkpoint: nothing on it has worked.
    pub fn is_behind_gate(&self) -> bool {
        self.bringing
            .as_ref()
            .is_some_and(|bringing| !bringing.opened)
    }

    /// Whether its GPUs count as billed right now.
    pub fn bills_gpu(&self) -> bool {
        matches!(self.phase, Phase::Running | Phase::Exited | Phase::Unclear)
    }

    /// What it may cost per hour at worst without our doing anything: its disk, and its GPUs
    /// unless it is parked, for what is stopped or provisioning may run at any moment.
    pub fn worst_rate(&self) -> Rate {
        if self.parked {
            self.storage + self.price.min(BID_PARKED)
        } else {
            self.storage + self.price
        }
    }

    /// Whether it ended without ever having run, and not by our wish: what it cost bought nothing.
    /// Meant for what is gone.
    pub fn failed_to_start(&self) -> bool {
        let by_the_host = matches!(
            self.destroying,
            None | Some(
                DestroyWhy::ProvisionTimeout | DestroyWhy::StartFailed | DestroyWhy::HostLost
            )
        );
        self.first_ran_at.is_none() && by_the_host
    }

    /// What it has cost.
    pub fn spent(&self) -> Money {
        self.spent_gpu + self.spent_disk + self.spent_traffic
    }
}
