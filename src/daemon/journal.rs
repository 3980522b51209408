//! What each tick leaves behind, so that it can be replayed to the same plan.

use serde::Serialize;
use sha2::{Digest, Sha256};

use crate::types::hex::hex;
use crate::types::plan::Plan;
use crate::types::state::TickRecord;
use crate::types::world::World;

/// The record of a tick. A world is kept whole (without its offers, which the snapshot number
/// names) where something was planned; quiet ticks keep its hash.
pub(super) fn record(world: &World, plan: &Plan, snapshot: Option<i64>) -> TickRecord {
    let world_json = json(world);
    TickRecord {
        tick: world.state.ticks + 1,
        at: world.now,
        snapshot,
        config_hash: hash(&json(&world.config)),
        jobs_hash: hash(&json(&world.jobs)),
        world_hash: hash(&world_json),
        world: (!plan.actions.is_empty()).then_some(world_json),
        plan: json(plan),
    }
}

fn json<T: Serialize>(value: &T) -> String {
    serde_json::to_string(value).unwrap_or_else(|error| {
        // The tests that replay a journal hold that every world has a JSON form.
        tracing::error!("a tick cannot be journalled: {error}");
        String::new()
    })
}

fn hash(text: &str) -> String {
    hex(&Sha256::digest(text.as_bytes()))
}
