//! Words for people: what the closed sets of the vocabulary mean, said in short sentences.

use std::time::Duration;

use crate::types::deadline::{DeadlineView, Stance};
use crate::types::ids::JobName;
use crate::types::instance::DestroyWhy;
use crate::types::plan::{Limit, Missing, Refusal, Situation, Why};
use crate::types::recourse::Turn;
use crate::types::state::{Ending, Wish};
use crate::types::time::{Time, human};

/// What a refusal says of an offer.
pub(crate) fn refusal(refusal: Refusal) -> &'static str {
    match refusal {
        Refusal::GpuModel => "another GPU model",
        Refusal::GpuCount => "another number of GPUs",
        Refusal::GpuRam => "too little GPU memory, or unknown",
        Refusal::ComputeCap => "compute capability too low, or unknown",
        Refusal::Cuda => "CUDA version too low, or unknown",
        Refusal::Driver => "driver too old, or unknown",
        Refusal::Nvlink => "NVLink too slow, absent or unknown",
        Refusal::Pcie => "PCIe too slow, or unknown",
        Refusal::CpuCores => "too few CPU cores, or unknown",
        Refusal::CpuRam => "too little RAM, or unknown",
        Refusal::DiskSize => "too little disk, or unknown",
        Refusal::DiskBandwidth => "disk too slow, or unknown",
        Refusal::Download => "download too slow, or unknown",
        Refusal::Upload => "upload too slow, or unknown",
        Refusal::TrafficPrice => "traffic too dear, or its price unknown",
        Refusal::StoragePrice => "storage too dear, or its price unknown",
        Refusal::Reliability => "reliability too low, or unknown",
        Refusal::Unverified => "not verified, or unknown",
        Refusal::NotDatacenter => "not in a datacenter, or unknown",
        Refusal::NoStaticIp => "no static address, or unknown",
        Refusal::DirectPorts => "too few direct ports, or unknown",
        Refusal::Country => "country not allowed, or unknown",
        Refusal::MachineDenied => "the policy excludes the machine",
        Refusal::HostDenied => "the policy excludes the host",
        Refusal::EndsTooSoon => "the rental would end too soon, or its end is unknown",
        Refusal::NotRentable => "not rentable now",
        Refusal::Held => "its GPUs are ours already, or might overlap with ours",
        Refusal::StaleOffer => "seen too long ago",
        Refusal::HostCoolingDown => "several machines of its host are cooling down after failures",
        Refusal::CoolingDown => "the machine is cooling down after failures",
        Refusal::OverCeiling => "over the price ceiling",
        Refusal::PriceUnknown => "the price is unknown",
        Refusal::BidNotBelowOnDemand => "a bid would not be under the on-demand rate",
        Refusal::RatchetGuard => "the floor is our own trace, no evidence of a rival",
        Refusal::CannotBid => "bids cannot be placed through this marketplace",
        Refusal::NotANumber => "the score is not a number",
    }
}

/// Which limit, in words.
pub(crate) fn limit(limit: &Limit) -> String {
    match limit {
        Limit::Of(..) => format!("the {limit}"),
        Limit::Ceiling => "the job's price ceiling".to_owned(),
        Limit::OnDemandRate => "the slot's on-demand rate".to_owned(),
        Limit::OwnSlots => "one rental a machine, never against our own".to_owned(),
        Limit::Fence => "one instance at work per replica".to_owned(),
        Limit::RentsPerTick => {
            "limits.rents_per_tick_max: the next ones are rented at the next tick".to_owned()
        }
        Limit::Unheard => {
            "the gateway: it shows no logs, by which the runner of a supervised job is \
             heard (provider.kind = \"vast\" does)"
                .to_owned()
        }
        Limit::Consent => "the configuration: the job's secrets may not go through the gateway \
             (provider.share_job_secrets)"
            .to_owned(),
        Limit::MaxRunning => "array.max_running".to_owned(),
        Limit::OneHost => "one replica a host (service.one_per_host)".to_owned(),
        Limit::BaseOnDemand => "service.base_on_demand".to_owned(),
    }
}

/// Why an action is taken, in words.
pub(crate) fn why(why: Why) -> &'static str {
    match why {
        Why::Cheapest => "the cheapest slot that suits",
        Why::Outbid => "outbid, and a raise still fits under the ceiling",
        Why::FloorFell => "the floor has long been lower than the bid",
        Why::PatienceOver => "waited long enough",
        Why::Reclaim => "outbid, and its machine is taken back on-demand",
        Why::CheaperElsewhere => "much cheaper elsewhere",
        Why::Deadline => "its deadline leaves no time for what may be taken away",
        Why::UserRequest => "asked by the user",
        Why::Lease => "its label says for how long it may work",
        Why::Refused => "its runner found less than was advertised",
        Why::Broken => "a GPU of its machine broke under its command",
        Why::Silent => "nothing was heard of its runner",
        Why::Hung => "its command made no progress",
        Why::Bring => "its checkpoint is brought over from the disk that was left",
        Why::NotBrought => "its checkpoint did not come, or not as it should be",
        Why::Idle => "its GPUs were hardly used",
        Why::WindowClosed => "outside the job's windows",
        Why::Resume => "may run again",
        Why::Ended => "the replica ended",
        Why::ProvisionTimeout => "it did not come up in time",
        Why::StartFailed => "its start came to nothing",
        Why::OverCeiling => "the policy's ceiling was lowered under its price",
        Why::RentalEnding => "its rental ends soon",
        Why::HostLost => "its host is not heard from",
        Why::MaxLifetime => "it lived as long as the policy allows",
        Why::Orphan => "nothing wants it",
        Why::Superseded => "its replica has moved on",
        Why::Limit => "a limit is at hand",
        Why::CancelQueued => "a start was queued that is no longer wanted",
        Why::DestroyAgain => "its destroy has not taken",
    }
}

/// What a replica does and waits for, in words, seen at `now`.
pub(crate) fn situation(situation: &Situation, now: Time) -> String {
    let left = |until: Time| human(until.since(now));
    match situation {
        Situation::Running => "running".into(),
        Situation::Provisioning { until } => {
            format!("coming up, given up in {}", left(*until))
        }
        Situation::Settling => "a rental was sent and is not settled".into(),
        Situation::Outbid { until } => format!("outbid, waited for {} more", left(*until)),
        Situation::ParkedByOthers { until } => format!(
            "parked by the guard or by somebody else, bid for again in {}",
            left(*until)
        ),
        Situation::Bringing { from, until: None } => {
            format!("waits behind its gate for the checkpoint of instance {from}")
        }
        Situation::Bringing {
            from,
            until: Some(until),
        } => format!(
            "the checkpoint of instance {from} is copied; given up after {} more",
            left(*until)
        ),
        Situation::SourceAway { from } => {
            format!("the host of instance {from}, whose disk has its checkpoint, is not heard from")
        }
        Situation::NotCopied { from, times } => format!(
            "the checkpoint on the disk of instance {from} did not come to another one, {times} times: \
             `haggle resume` tries again, `restartable = true` lets it begin anew"
        ),
        Situation::Clearing => "its old instance is being destroyed".into(),
        Situation::Renting => "being rented now".into(),
        Situation::NoOffer => "nothing on the market suits".into(),
        Situation::OverLimit { limit: which } => format!("held back by {}", limit(which)),
        Situation::Blind { missing: what } => format!("cannot decide: {}", missing(*what)),
        Situation::BackingOff { until } => {
            format!("waits {} after a failure", left(*until))
        }
        Situation::Queued => "waits for its turn (array.max_running)".into(),
        Situation::CannotStart {
            fault,
            message,
            until,
        } => {
            let ends = match until {
                Some(until) => format!("tried again in {}", left(*until)),
                None => "waits for a change of its policy, or `haggle resume`".to_owned(),
            };
            format!("cannot start: {} (\"{message}\"); {ends}", fault.what())
        }
        Situation::WaitsForInputs { what } => format!("waits for its inputs: {what}"),
        Situation::WaitsForSecrets { what } => format!("not rented: {what}"),
        Situation::HeldBack => "waits until another element gets on: too many failed in a row \
             (`haggle resume` lets it begin)"
            .into(),
        Situation::WindowClosed { opens: Some(at) } => {
            format!("outside its windows, opens in {} ({at})", left(*at))
        }
        Situation::WindowClosed { opens: None } => "outside its windows for good".into(),
        Situation::Paused => "paused".into(),
        Situation::Stopped => "stopped".into(),
        Situation::Ended {
            ending: Ending::Finished,
        } => "finished".into(),
        Situation::Ended {
            ending: Ending::Failed,
        } => "failed".into(),
        Situation::Killed => "spending is forbidden until `haggle resume --all`".into(),
    }
}

/// The same of a plan that is only looked at: nothing of it is done.
pub(crate) fn situation_planned(what: &Situation, now: Time) -> String {
    match what {
        Situation::Renting => "would be rented now".into(),
        other => situation(other, now),
    }
}

/// How a replica stands with its deadline, in words.
pub(crate) fn deadline(view: &DeadlineView) -> String {
    let span = |ms: i64| human(Duration::from_millis(ms.max(0).unsigned_abs()));
    if view.left_ms <= 0 {
        return format!(
            "{} has passed; it goes on as if there were none",
            view.deadline
        );
    }
    format!(
        "{}, in {}; on-demand it needs {}, {}: {}",
        view.deadline,
        span(view.left_ms),
        span(view.needs_ms),
        spare(view),
        takes(view.stance)
    )
}

/// How much time there is beyond what is needed, in words.
pub(crate) fn spare(view: &DeadlineView) -> String {
    let slack = view.slack_ms();
    let span = human(Duration::from_millis(slack.unsigned_abs()));
    if slack >= 0 {
        format!("{span} to spare")
    } else {
        format!("{span} too little")
    }
}

/// What a replica with a deadline takes, in words.
pub(crate) fn takes(stance: Stance) -> &'static str {
    match stance {
        Stance::Wait => "it takes bids only",
        Stance::Ride => "it takes what is cheapest",
        Stance::Sure => "it takes what nobody takes away",
    }
}

/// How a step after an outbid stands, in words, seen at `now`.
pub(crate) fn turn(turn: &Turn, now: Time) -> String {
    match turn {
        Turn::Until { until } => format!("for {} more", human(until.since(now))),
        Turn::Over => "it did not help".into(),
        Turn::Taken => "now".into(),
        Turn::Next => "if what comes before it does not help".into(),
        Turn::NotAllowed => "not by this policy and rental".into(),
        Turn::NotOutbid => "nobody outbid it".into(),
        Turn::NotOffered => "the market offers none".into(),
        Turn::Refused { why } => refusal(*why).into(),
        Turn::Limited { limit: which } => format!("held back by {}", limit(which)),
        Turn::Dearer => "another machine is cheaper, with all that it takes to go there".into(),
        Turn::NoTime => "its deadline leaves no time for it".into(),
        Turn::HasTime => "its deadline leaves time to wait for a bid".into(),
        Turn::NotCopied => "its work is on its disk alone, and copies from there fail".into(),
        Turn::CannotStart => {
            "nothing new is begun: its inputs are not ready, or its starts came to nothing".into()
        }
        Turn::TooManyDisks => "too many disks were left behind".into(),
        Turn::Blind { missing: what } => format!("cannot decide: {}", missing(*what)),
    }
}

/// What could not be seen, in words.
pub(crate) fn missing(missing: Missing) -> &'static str {
    match missing {
        Missing::Offers => "no recent view of the market",
        Missing::Listing => "the listing of instances failed or was incomplete",
        Missing::Account => "the account could not be read",
    }
}

/// What the user wants of a job, in a word.
pub(crate) fn wish(wish: Wish) -> &'static str {
    match wish {
        Wish::Run => "run",
        Wish::Pause => "pause",
        Wish::Stop => "stop",
        Wish::Done => "done",
    }
}

/// What a wish will do, in words.
pub(crate) fn will(job: &JobName, wish: Wish) -> String {
    match wish {
        Wish::Run => format!("{job} will be resumed"),
        Wish::Pause => format!(
            "{job} will be paused: bids parked, instances stopped; their disks are kept and billed"
        ),
        Wish::Stop => {
            format!("{job} will be stopped: its instances are destroyed; `resume` undoes it")
        }
        Wish::Done => format!("{job} will be ended for good: its instances are destroyed"),
    }
}

/// What the wish to resume all will do, in words.
pub(crate) const WILL_RESUME_ALL: &str =
    "every paused or stopped job will be resumed, and spending is allowed again";

/// Why an instance is taken down, in words.
pub(crate) fn destroy(why: DestroyWhy) -> &'static str {
    match why {
        DestroyWhy::Finished => "its work is done",
        DestroyWhy::UserRequest => "asked by the user",
        DestroyWhy::ProvisionTimeout => "it did not come up in time",
        DestroyWhy::StartFailed => "its start came to nothing",
        DestroyWhy::EndedTooSoon => "its container ended too soon",
        DestroyWhy::NotAsAsked => "it is not what was asked for",
        DestroyWhy::Leftover => "a refused rental left it behind",
        DestroyWhy::Orphan => "nothing wants it",
        DestroyWhy::Moved => "a replacement took its place",
        DestroyWhy::RentalEnding => "its rental is ending",
        DestroyWhy::Limit => "a limit forces it",
        DestroyWhy::Drained => "its job was taken away",
        DestroyWhy::WindowClosed => "outside the job's windows",
        DestroyWhy::MaxLifetime => "it lived as long as the policy allows",
        DestroyWhy::HostLost => "its host is not heard from",
        DestroyWhy::Refused => "its machine is not fit for the job",
        DestroyWhy::Broken => "a GPU of its machine broke",
        DestroyWhy::Silent => "nothing was heard of its runner",
        DestroyWhy::Hung => "its command made no progress",
        DestroyWhy::NotBrought => "its checkpoint did not come, or not as it should be",
        DestroyWhy::Idle => "its GPUs were hardly used",
        DestroyWhy::Exit => "haggle is leaving",
    }
}
