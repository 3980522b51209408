//! The market of a job over time.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{Path, Query, State as Extract};
use serde::Deserialize;
use utoipa::IntoParams;

use super::answer::{ErrorDocument, Problem};
use super::api::{Answer, asked, clean, known_job, named, within};
use super::desk::Desk;
use super::documents::{BidPoint, InstanceMarket, MarketDocument, PricePoint};
use crate::ports::StoreError;
use crate::store::{Ended, Reader, SlotVersion};
use crate::types::instance::Held;
use crate::types::intent::{Effect, Intent};
use crate::types::job::Job;
use crate::types::money::Rate;
use crate::types::offer::same_model;
use crate::types::time::Time;

/// Hours of the market where nothing is said, and at most.
const HOURS: (u32, u32) = (24, 24 * 90);

/// Moments at which the market is shown.
const POINTS: u32 = 96;

/// Instances whose bids are shown with it.
const INSTANCES: usize = 6;

/// Bids of an instance, and changes of its slot, that are shown.
const CHANGES: usize = 400;

/// How much of the market.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct MarketQuery {
    /// The last so many hours; 24 where it is left out.
    #[param(minimum = 1, maximum = 2160)]
    hours: Option<u32>,
}

/// Floor, on-demand rate and our bids over time.
#[utoipa::path(
    get, path = "/api/v1/jobs/{name}/market", tag = "jobs",
    params(
        ("name" = String, Path, description = "The job's name", pattern = "^[a-z0-9]([a-z0-9-]{0,38}[a-z0-9])?$"),
        MarketQuery,
    ),
    responses(
        (status = 200, description = "The market of the job", body = MarketDocument),
        (status = 400, description = "That is no name of a job, or a parameter is wrong", body = ErrorDocument),
        (status = 401, description = "It takes the token", body = ErrorDocument),
        (status = 403, description = "Another site, a name that is not haggle's, or no token is configured", body = ErrorDocument),
        (status = 404, description = "There is no such job, or it has no policy that can be used", body = ErrorDocument),
        (status = 500, description = "It went wrong", body = ErrorDocument),
        (status = 503, description = "Nothing was published yet, or the database is busy", body = ErrorDocument),
    )
)]
pub(super) async fn market(
    Extract(desk): Extract<Arc<Desk>>,
    path: Result<Path<String>, PathRejection>,
    query: Result<Query<MarketQuery>, QueryRejection>,
) -> Answer {
    let name = named(path)?;
    let hours = within("hours", asked(query)?.hours, HOURS)?;
    let (published, _) = known_job(&desk, &name)?;
    let job = published.job(&name).cloned().ok_or_else(|| {
        Problem::not_found(format!(
            "{name} has no policy that can be used, so it is not known what it would take"
        ))
    })?;
    let to = published.now;
    let from = to - Duration::from_secs(u64::from(hours) * 3600);
    let document = desk
        .read(move |reader| market_of(reader, &job, (from, to)))
        .await?;
    clean(&desk, &document)
}

fn market_of(
    reader: &Reader,
    job: &Job,
    (from, to): (Time, Time),
) -> Result<MarketDocument, StoreError> {
    let requirements = &job.requirements;
    let models = &requirements.gpu_models;
    let gpus = requirements.gpu_count;
    let wanted = |name: &str| models.is_empty() || models.iter().any(|m| same_model(m, name));
    let cheapest = reader.cheapest_over_time(gpus, wanted, (from, to, POINTS))?;
    let state = reader.state()?;
    let mut instances: Vec<(Held, Option<Time>)> = state
        .held
        .into_values()
        .filter(|held| held.replica.job == job.name)
        .map(|held| (held, None))
        .collect();
    let ended = reader.ended_of(&job.name, INSTANCES as u32)?;
    let still = |Ended { at, held }| (at >= from).then_some((held, Some(at)));
    instances.extend(ended.into_iter().filter_map(still));
    instances.sort_by_key(|(held, _)| std::cmp::Reverse(held.created_at));
    instances.truncate(INSTANCES);
    let instances = instances
        .iter()
        .map(|(held, to)| instance_market(reader, held, (from, *to)))
        .collect::<Result<Vec<_>, _>>()?;
    let point = |point: &crate::store::Cheapest| PricePoint {
        at: point.at.to_string(),
        floor_dollars_per_hour: point.floor.map(Rate::decimal),
        on_demand_dollars_per_hour: point.on_demand.map(Rate::decimal),
    };
    Ok(MarketDocument {
        job: job.name.to_string(),
        from: from.to_string(),
        to: to.to_string(),
        gpus,
        models: models.clone(),
        ceiling_dollars_per_hour: job.price_max.saturating_mul(i64::from(gpus)).decimal(),
        cheapest: cheapest.iter().map(point).collect(),
        instances,
    })
}

fn instance_market(
    reader: &Reader,
    held: &Held,
    (from, to): (Time, Option<Time>),
) -> Result<InstanceMarket, StoreError> {
    let bids = reader.bids_of(held.id, CHANGES as u32)?;
    let bid = |intent: &Intent| {
        let bid = match intent.effect {
            Effect::Rent { price, .. } => price,
            Effect::SetBid { bid, .. } => bid,
            _ => return None,
        };
        Some(BidPoint {
            at: intent.at.to_string(),
            dollars_per_hour: bid.decimal(),
        })
    };
    let history = reader.slot_history(held.slot)?;
    let versions = history.map(|history| history.versions).unwrap_or_default();
    let kept = versions
        .iter()
        .filter(|version| version.to.is_none_or(|to| to >= from));
    let mut slot: Vec<PricePoint> = Vec::new();
    let mut until: Option<Time> = None;
    for version in kept {
        gap(&mut slot, until, version);
        slot.push(PricePoint {
            at: version.from.max(from).to_string(),
            floor_dollars_per_hour: version.offer.floor.map(Rate::decimal),
            on_demand_dollars_per_hour: version.offer.on_demand.map(Rate::decimal),
        });
        until = version.to;
    }
    if let Some(until) = until {
        slot.push(nothing(until));
    }
    let over = slot.len().saturating_sub(CHANGES);
    slot.drain(..over);
    Ok(InstanceMarket {
        instance: held.id.0,
        replica: held.replica.to_string(),
        machine: held.slot.machine.0,
        gpus: held.slot.gpus,
        gpu_name: held.gpu_name.clone(),
        rental: held.rental.as_str(),
        from: held.created_at.to_string(),
        to: to.map(|to| to.to_string()),
        bids: bids.iter().filter_map(bid).collect(),
        slot,
    })
}

/// Where a slot was not listed for a while, nothing is known in between.
fn gap(slot: &mut Vec<PricePoint>, until: Option<Time>, next: &SlotVersion) {
    if let Some(until) = until.filter(|&until| until < next.from) {
        slot.push(nothing(until));
    }
}

fn nothing(at: Time) -> PricePoint {
    PricePoint {
        at: at.to_string(),
        floor_dollars_per_hour: None,
        on_demand_dollars_per_hour: None,
    }
}
