//! The client against a scripted marketplace: each trap of its API once.

mod acts;
mod faults;
mod files;
mod reads;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use secrecy::SecretString;
use serde_json::{Value, json};

use super::{Vast, VastOptions};
use crate::marketplace::testing::{Scripted, SimClock, run};
use crate::ports::{
    Clock, CreateRequest, Marketplace, Outcome, ReadError, RefusedWhy, Transport, TransportError,
};
use crate::types::ids::{AccountId, InstanceId, MachineId, OfferId};
use crate::types::money::{Money, Rate};
use crate::types::offer::{Market, OfferQuery};
use crate::types::time::Time;

const CANARY: &str = "vk_canary/0123456789+x";

struct Rig {
    script: Arc<Scripted>,
    clock: Arc<SimClock>,
    client: Vast,
}

fn rig_with(extras: bool, remembered: &[(&str, &str)]) -> Rig {
    let script = Arc::new(Scripted::default());
    let clock = Arc::new(SimClock::default());
    let remembered: BTreeMap<String, String> = remembered
        .iter()
        .map(|&(key, word)| (key.to_owned(), word.to_owned()))
        .collect();
    let options = VastOptions {
        extras,
        ..VastOptions::new(SecretString::from(CANARY))
    };
    let client = Vast::new(
        Arc::clone(&script) as Arc<dyn Transport>,
        Arc::clone(&clock) as Arc<dyn Clock>,
        options,
        &remembered,
    );
    Rig {
        script,
        clock,
        client,
    }
}

fn rig() -> Rig {
    rig_with(true, &[])
}

fn offer_row(id: u64, total: f64) -> Value {
    json!({"id":id,"ask_contract_id":id,"machine_id":1000 + id,"host_id":7,"num_gpus":1,"gpu_frac":0.25,
        "gpu_name":"RTX 4090","gpu_ram":24564,"compute_cap":890,"disk_space":611.2,"storage_cost":0.18,
        "storage_total_cost":0.006,"dph_total":total,"dph_base":total - 0.006,"min_bid":0.1,
        "is_bid":false,"reliability2":0.99,"verification":"verified","hosting_type":0,"rentable":true,
        "rented":false,"geolocation":null,"end_date":1798990000.0})
}

fn query(market: Market) -> OfferQuery {
    OfferQuery {
        market,
        gpu_name: Some("RTX 4090".to_owned()),
        machine: None,
        disk_gb: 24,
        open: false,
        bounds: crate::types::offer::Bounds::default(),
    }
}

fn create(bid: Option<Rate>) -> CreateRequest {
    CreateRequest {
        offer: OfferId(5),
        bid,
        label: "hg-abcdefgh-train-r0-1".to_owned(),
        disk_gb: 24,
        image: Some("pytorch/pytorch:2".to_owned()),
        template: None,
        run_type: "args",
        onstart: None,
        args: vec!["python".to_owned()],
        env: vec![("HF_TOKEN".to_owned(), "hf_canary987654".to_owned())],
        image_login: Some("-u me -p pwcanary99 ghcr.io".to_owned()),
    }
}

/// A bid of 21 cents.
const BID: Rate = Rate(210_000_000);

fn why<T: std::fmt::Debug>(outcome: &Outcome<T>) -> Option<RefusedWhy> {
    match outcome {
        Outcome::Refused { why, .. } => Some(*why),
        _ => None,
    }
}

fn error(code: &str, message: &str) -> Value {
    json!({"success":false,"error":code,"msg":message})
}

fn bad_key() -> Value {
    error("auth_error", "Invalid user key")
}
