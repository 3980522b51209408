//! The client against a scripted gateway: each trap of the wire format once.

mod acts;
mod discovery;
mod faults;
mod reads;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use secrecy::SecretString;
use serde_json::{Value, json};

use super::routes::Family;
use super::{LowCode, LowCodeOptions};
use crate::marketplace::testing::{Scripted, SimClock, run};
use crate::ports::{
    Clock, CreateRequest, Marketplace, OfferPage, Outcome, ReadError, RefusedWhy, Transport,
    TransportError,
};
use crate::types::ids::{AccountId, InstanceId, MachineId, OfferId};
use crate::types::ledger::Component;
use crate::types::money::{Money, Rate};
use crate::types::offer::{Market, OfferQuery};
use crate::types::time::Time;

const CANARY: &str = "at_canary/0123456789+x";

struct Rig {
    script: Arc<Scripted>,
    clock: Arc<SimClock>,
    client: LowCode,
}

fn rig_with(remembered: &[(Family, &str)]) -> Rig {
    let script = Arc::new(Scripted::default());
    let clock = Arc::new(SimClock::default());
    let remembered: BTreeMap<String, String> = remembered
        .iter()
        .map(|(family, form)| (family.key().to_owned(), (*form).to_owned()))
        .collect();
    let client = LowCode::new(
        Arc::clone(&script) as Arc<dyn Transport>,
        Arc::clone(&clock) as Arc<dyn Clock>,
        LowCodeOptions::new(SecretString::from(CANARY)),
        &remembered,
    );
    Rig {
        script,
        clock,
        client,
    }
}

fn rig() -> Rig {
    rig_with(&[])
}

const UNROUTED: &str = r#"{"message":"Not Found"}"#;

/// As the gateway wraps the provider's error.
fn wrapped_error(error: Value) -> Value {
    json!({"message":"Request failed","provider":"vastai","error":error})
}

fn wrapped(result: Value) -> Value {
    json!({"message":"OK","provider":"vastai","result":result,"response_headers":{}})
}

fn offer_row(id: u64, total: f64) -> Value {
    json!({"id":id,"ask_contract_id":id,"machine_id":1000 + id,"host_id":7,"num_gpus":2,"gpu_frac":0.25,
        "gpu_name":"RTX 4090","gpu_ram":24564,"compute_cap":890,"cuda_max_good":"12.8",
        "driver_version":"570.124.06","cpu_cores":96,"cpu_cores_effective":24.0,"cpu_ram":128000,
        "disk_space":611.2,"inet_down_cost":0.002,"storage_cost":0.18,"storage_total_cost":0.006,
        "dph_total":total,"dph_base":total - 0.006,"min_bid":0.1,"is_bid":false,"reliability2":"0.99",
        "verification":"verified","hosting_type":1,"rentable":true,"rented":false,
        "geolocation":"Oslo, NO","end_date":1798990000.0,"static_ip":true,"direct_port_count":9})
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

fn why<T: std::fmt::Debug>(outcome: &Outcome<T>) -> Option<RefusedWhy> {
    match outcome {
        Outcome::Refused { why, .. } => Some(*why),
        _ => None,
    }
}
