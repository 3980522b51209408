//! What the marketplace's sources leave open or contradict each other about, as switches. Nothing
//! that a client does may depend on one setting of them.

use super::dice::{Dice, Purpose};

/// Who wins where two bids are the same.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Ties {
    /// Whoever holds the GPUs keeps them.
    #[default]
    Incumbent,
    /// Whoever came last takes them.
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
    /// Charge rows appear so much later than the use, in hours.
    pub charges_late_hours: u32,
    /// Labels are cut to so many characters, in silence.
    pub label_kept: Option<u32>,
    /// Listings in which a destroyed instance shows once more.
    pub ghosts: u32,
    /// Whether a start that was queued fires by itself when the GPUs are free.
    pub queued_fires: bool,
    /// Whether a stopped container reads `stopped` rather than `exited`.
    pub reads_stopped: bool,
    /// Whether `intended_status` of an outbid instance still reads `running`.
    pub outbid_intends_running: bool,
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
}

impl Default for Disputed {
    fn default() -> Self {
        Self {
            ties: Ties::default(),
            billed_from: BilledFrom::default(),
            pulls_billed: true,
            charges_late_hours: 0,
            label_kept: None,
            ghosts: 0,
            queued_fires: true,
            reads_stopped: false,
            outbid_intends_running: false,
            gone_status: 410,
            bad_key_status: 401,
            missing: Missing::default(),
            low_bid_status: 400,
            balance: BalanceMeans::default(),
            slow_echo: false,
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
        }
    }
}
