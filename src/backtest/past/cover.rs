//! What a record covers of what a job could have taken.

use std::collections::BTreeSet;

use crate::types::job::Job;
use crate::types::offer::{Coverage, Extent, OfferQuery, same_model};
use crate::types::past::Past;
use crate::types::time::Time;

/// What was recorded, and what was not.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Cover {
    /// Looks at the market.
    pub looks: usize,
    /// Slots of the job's models and size that were seen.
    pub slots: usize,
    /// Rows of them, as they changed.
    pub rows: usize,
    /// The time that was asked for, in milliseconds.
    pub asked_ms: i64,
    /// Of it, how long the market was looked at: each look stands until the next, or until it is too old.
    pub looked_ms: i64,
    /// Of that, how long searches for the job's models were answered completely.
    pub complete_ms: i64,
    /// Of that, how long nothing was asked about its models.
    pub not_asked_ms: i64,
    /// Times between looks that are longer than a look stands: how many, and the longest in milliseconds.
    pub gaps: usize,
    /// The longest gap, from look to look.
    pub gap_longest_ms: i64,
    /// Whether searches left out slots that the job would take, such as those over another ceiling.
    pub narrower: bool,
}

/// How a record covers a job, where a look stands for so many milliseconds at most.
pub fn cover(past: &Past, job: &Job, (from, to): (Time, Time), stands_ms: i64) -> Cover {
    let answers: Vec<Answered> = past
        .coverages
        .iter()
        .map(|asked| answered(asked, job))
        .collect();
    let mut cover = Cover {
        looks: past.looks.len(),
        rows: past.rows.len(),
        asked_ms: to.ms_since(from).max(0),
        ..Cover::default()
    };
    let slots: BTreeSet<_> = past.rows.iter().map(|row| row.offer.slot()).collect();
    cover.slots = slots.len();
    for (place, look) in past.looks.iter().enumerate() {
        let next = past.looks.get(place + 1).map_or(to, |next| next.at);
        let ms = next.ms_since(look.at).max(0);
        if ms > stands_ms {
            cover.gaps += 1;
            cover.gap_longest_ms = cover.gap_longest_ms.max(ms);
        }
        let stood = ms.min(stands_ms);
        cover.looked_ms += stood;
        match &answers[look.coverage] {
            Answered::NotAsked => cover.not_asked_ms += stood,
            Answered::Partly => {}
            Answered::Completely { narrower } => {
                cover.complete_ms += stood;
                cover.narrower |= narrower;
            }
        }
    }
    cover
}

enum Answered {
    NotAsked,
    Partly,
    Completely { narrower: bool },
}

/// How the searches of a look answer for a job: those that may show what it takes, of all its models.
fn answered(asked: &[Coverage], job: &Job) -> Answered {
    let models = &job.requirements.gpu_models;
    let wanted: Vec<Option<&str>> = if models.is_empty() {
        vec![None]
    } else {
        models.iter().map(|model| Some(model.as_str())).collect()
    };
    let mut all = true;
    let mut any = false;
    let mut narrower = false;
    for model in wanted {
        let its: Vec<&Coverage> = asked
            .iter()
            .filter(|one| is_about(&one.query, model, job))
            .collect();
        any |= !its.is_empty();
        let complete: Vec<&&Coverage> = its
            .iter()
            .filter(|one| one.extent == Extent::Complete)
            .collect();
        all &= !complete.is_empty();
        narrower |= complete.iter().all(|one| is_narrower(&one.query, job));
    }
    match (any, all) {
        (false, _) => Answered::NotAsked,
        (true, false) => Answered::Partly,
        (true, true) => Answered::Completely { narrower },
    }
}

/// Whether a search may show slots of a model in the job's size; `None`: of any model.
fn is_about(query: &OfferQuery, model: Option<&str>, job: &Job) -> bool {
    let bounds = &query.bounds;
    let whole = query.machine.is_none() && bounds.machines.is_empty() && !query.open;
    let size = bounds.gpus.is_empty() || bounds.gpus.contains(&job.requirements.gpu_count);
    let names = query.gpu_name.iter().chain(&bounds.gpu_names);
    let mut names = names.peekable();
    let named = names.peek().is_some();
    let of_model = match model {
        Some(model) => !named || names.any(|name| same_model(name, model)),
        None => !named,
    };
    whole && size && of_model
}

/// Whether a search leaves out slots that a job takes.
fn is_narrower(query: &OfferQuery, job: &Job) -> bool {
    let (bounds, need) = (&query.bounds, &job.requirements);
    // A bound that the search has must be one of the job's, and no harder.
    let least = |bound: Option<u32>, need: Option<u32>| {
        bound.is_some_and(|bound| need.is_none_or(|need| bound > need))
    };
    let least_f = |bound: Option<u32>, need: Option<f32>| {
        bound.is_some_and(|bound| need.is_none_or(|need| f64::from(bound) > f64::from(need).ceil()))
    };
    let reliability = need.reliability_min.map(|share| share * 1e6);
    let dearest = i128::from(job.price_max.0) * i128::from(need.gpu_count);
    let allows = |country| need.countries.is_empty() || need.countries.contains(country);
    let some_left_out = if need.countries.is_empty() {
        !bounds.countries.is_empty()
    } else {
        !bounds.countries.is_empty()
            && need
                .countries
                .iter()
                .any(|one| !bounds.countries.contains(one))
    };
    let denied = bounds.countries_denied.iter();
    let mut wrongly = denied.filter(|one| allows(one) && !need.countries_denied.contains(one));
    least(bounds.gpu_ram_mb_min, need.gpu_ram_mb_min)
        || least(bounds.compute_cap_min, need.compute_cap_min)
        || least(bounds.cuda_min, need.cuda_min)
        || least(bounds.disk_gb_min, Some(need.disk_gb))
        || least(bounds.direct_ports_min, need.direct_ports_min)
        || least_f(bounds.inet_down_mbit_s_min, need.inet_down_mbit_s_min)
        || least_f(bounds.inet_up_mbit_s_min, need.inet_up_mbit_s_min)
        || least_f(bounds.reliability_ppm_min, reliability)
        || (bounds.datacenter && !need.datacenter)
        || (bounds.static_ip && !need.static_ip)
        || (!bounds.unverified && !need.verified)
        || bounds
            .total_max
            .is_some_and(|most| i128::from(most.0) < dearest)
        || some_left_out
        || wrongly.next().is_some()
}
