//! What the marketplace's sources leave open or contradict each other about, as switches. Nothing
//! that a client does may depend on one setting of them.

mod spelling;

pub use spelling::DisputedError;

use super::dice::{Dice, Purpose};

/// Who wins where two bids are the same.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Ties {
    /// Whoever holds the GPUs keeps them.
    #[default]
    Incumbent,
    /// Whoever came last, or changed its bid last, takes them.
    Challenger,
}

/// From when the GPU of an instance is billed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum BilledFrom {
    /// The container runs.
    #[default]
    Running,
    /// The GPUs are granted: pulling and starting are billed, too.
    Granted,
}

/// What an instance reads where it is not there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Missing {
    /// 200 with null.
    #[default]
    Null,
    /// 404 `no_such_instance`.
    NotFound,
}

/// What the user record's `balance` shows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum BalanceMeans {
    /// The credit.
    #[default]
    Credit,
    /// Nothing but what is owed: zero while there is credit.
    Owed,
    /// It is left out.
    Absent,
}

/// How notifications come. They are evidence only.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Notices {
    /// At once.
    #[default]
    Prompt,
    /// Some at once, some minutes late.
    Late,
    /// Some minutes late, some never.
    Lossy,
}

/// One setting of every disputed fact. The default is what the marketplace documents, or where it
/// does not say, what was mostly seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Disputed {
    /// Equal bids.
    pub ties: Ties,
    /// When GPU billing starts.
    pub billed_from: BilledFrom,
    /// Whether the traffic of an image pull is billed.
    pub pulls_billed: bool,
    /// Whether the GPUs are billed on when the container ended by itself.
    pub ended_billed: bool,
    /// What the disk of a stopped instance costs, in percent of what it costs while it runs.
    pub stopped_storage_percent: u32,
    /// Charge rows appear so much later than the use, in hours.
    pub charges_late_hours: u32,
    /// Whether a charge row's amount is the sum of its rounded items, rather than the rounded sum.
    pub charges_by_component: bool,
    /// Labels are cut to so many characters, in silence.
    pub label_kept: Option<u32>,
    /// Listings in which a destroyed instance shows once more, as it was.
    pub ghosts: u32,
    /// Whether it can be read by its id for so long, too.
    pub ghosts_by_id: bool,
    /// A new instance is in no listing and under no id for so many seconds.
    pub shown_after_seconds: u32,
    /// Whether a start that was queued fires by itself when the GPUs are free.
    pub queued_fires: bool,
    /// Whether `intended_status` reads `running` while a start is queued.
    pub queued_intends_running: bool,
    /// Whether a bid raised over the floor also starts what its owner had stopped.
    pub bid_starts_stopped: bool,
    /// Whether a stopped container reads `stopped` rather than `exited`.
    pub reads_stopped: bool,
    /// Whether an instance of a lost host reads `unknown` rather than `offline`.
    pub lost_reads_unknown: bool,
    /// Whether `intended_status` of an outbid instance still reads `running`.
    pub outbid_intends_running: bool,
    /// Whether `start_date` of an instance is when it last got its GPUs, not when it was made.
    pub start_moves: bool,
    /// The status of an offer that was taken: 410, 404 or 400.
    pub gone_status: u16,
    /// The status of a bad key: 401, 403 or 404.
    pub bad_key_status: u16,
    /// An unknown instance.
    pub missing: Missing,
    /// The status of a bid under the floor that leaves a stopped instance: 400, or 200 with
    /// `success: false`.
    pub low_bid_status: u16,
    /// What `balance` means.
    pub balance: BalanceMeans,
    /// Whether a bid's echo in the floor lags by minutes rather than seconds.
    pub slow_echo: bool,
    /// Whether a bid over the floor resumes an instance after up to five minutes rather than one.
    pub resumes_late: bool,
    /// Whether a bid cut under the floor parks after up to three minutes rather than one.
    pub parks_late: bool,
    /// Whether instances that were stopped for want of credit run again once there is some.
    pub topped_up_resumes: bool,
    /// An instance whose rental ended is deleted so many hours later; `None`: it stays, and its
    /// disk is billed.
    pub ended_deleted_hours: Option<u32>,
    /// Without a saved card, everything is deleted so many hours after the credit was used up;
    /// `None`: never. That it happens is documented; after how long is not.
    pub unpaid_deleted_hours: Option<u32>,
    /// How notifications come.
    pub notices: Notices,
}

impl Default for Disputed {
    fn default() -> Self {
        Self {
            ties: Ties::default(),
            billed_from: BilledFrom::default(),
            pulls_billed: true,
            ended_billed: true,
            stopped_storage_percent: 100,
            charges_late_hours: 0,
            charges_by_component: false,
            label_kept: None,
            ghosts: 0,
            ghosts_by_id: false,
            shown_after_seconds: 0,
            queued_fires: true,
            queued_intends_running: true,
            bid_starts_stopped: false,
            reads_stopped: false,
            lost_reads_unknown: false,
            outbid_intends_running: false,
            start_moves: false,
            gone_status: 410,
            bad_key_status: 401,
            missing: Missing::default(),
            low_bid_status: 400,
            balance: BalanceMeans::default(),
            slow_echo: false,
            resumes_late: false,
            parks_late: false,
            topped_up_resumes: true,
            ended_deleted_hours: None,
            unpaid_deleted_hours: Some(72),
            notices: Notices::default(),
        }
    }
}

impl Disputed {
    /// Each fact drawn by itself.
    pub fn drawn(seed: u64) -> Self {
        let mut dice = Dice::new(seed, Purpose::Disputed);
        let mut one_of = |of: i64| usize::try_from(dice.whole(0, of - 1)).unwrap_or(0);
        Self {
            ties: [Ties::Incumbent, Ties::Challenger][one_of(2)],
            billed_from: [BilledFrom::Running, BilledFrom::Granted][one_of(2)],
            pulls_billed: one_of(2) == 0,
            charges_late_hours: [0, 1, 26][one_of(3)],
            label_kept: [None, None, Some(40), Some(20)][one_of(4)],
            ghosts: [0, 1, 2][one_of(3)],
            queued_fires: one_of(2) == 0,
            reads_stopped: one_of(2) == 0,
            outbid_intends_running: one_of(2) == 0,
            gone_status: [410, 404, 400][one_of(3)],
            bad_key_status: [401, 403, 404][one_of(3)],
            missing: [Missing::Null, Missing::NotFound][one_of(2)],
            low_bid_status: [400, 200][one_of(2)],
            balance: [
                BalanceMeans::Credit,
                BalanceMeans::Owed,
                BalanceMeans::Absent,
            ][one_of(3)],
            slow_echo: one_of(2) == 0,
            ended_billed: one_of(2) == 0,
            stopped_storage_percent: [100, 125, 200][one_of(3)],
            charges_by_component: one_of(2) == 0,
            ghosts_by_id: one_of(2) == 0,
            shown_after_seconds: [0, 0, 20, 90][one_of(4)],
            queued_intends_running: one_of(2) == 0,
            bid_starts_stopped: one_of(2) == 0,
            lost_reads_unknown: one_of(2) == 0,
            start_moves: one_of(2) == 0,
            resumes_late: one_of(2) == 0,
            parks_late: one_of(2) == 0,
            topped_up_resumes: one_of(2) == 0,
            ended_deleted_hours: [None, Some(48)][one_of(2)],
            unpaid_deleted_hours: [None, Some(24), Some(72)][one_of(3)],
            notices: [Notices::Prompt, Notices::Late, Notices::Lossy][one_of(3)],
        }
    }
}
