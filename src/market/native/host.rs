//! The host's side: machines, what they are listed for, reports.

use serde_json::{Value, json};

use super::routes::Operation;
use super::{Call, done, missing, not_here, written};
use crate::market::api::MarketError;
use crate::market::estate::{Ask, DefaultJob, Maintenance};
use crate::market::sim::Market;
use crate::types::time::Time;

/// Longest image and category, in characters.
const TEXT_MAX: usize = 1024;
/// Longest maintenance, in hours.
const HOURS_MAX: f64 = 24.0 * 365.0;
/// Highest price of a default job, in dollars.
const PRICE_MAX: f64 = 100.0;

/// Performs an operation of this family.
pub(super) fn perform(
    market: &mut Market,
    operation: Operation,
    call: &Call<'_>,
) -> Result<String, MarketError> {
    let account = call.account()?;
    match operation {
        Operation::Machines => written(&json!({ "machines": market.machines_of(account) })),
        Operation::Machine => {
            let machine = machine_of_path(call).ok();
            let row = machine.and_then(|machine| market.machine_of(account, machine));
            match row {
                Some(row) => written(&[row]),
                None => Err(no_such_machine()),
            }
        }
        Operation::ListMachine => {
            let machine = machine_of_body(call)?;
            let extended = market.list_machine(account, machine, &ask(call)?)?;
            written(&json!({
                "success": true, "extended": extended, "machine_id": machine,
                "msg": format!("Machine {machine} is listed."),
            }))
        }
        Operation::UnlistMachine => {
            let machine = machine_of_path(call)?;
            market.unlist_machine(account, machine)?;
            written(&json!({"success": true, "machine_id": machine, "user_id": account}))
        }
        Operation::SetMinBid => {
            let machine = machine_of_path(call)?;
            let price = call.number("price")?.ok_or_else(|| missing("price"))?;
            market.set_floor(account, machine, price)?;
            written(&json!({
                "success": true, "you_sent": {"machine_id": machine, "price": price},
            }))
        }
        Operation::SetDefaultJob => {
            let machine = machine_of_body(call)?;
            let job = default_job(call)?;
            market.set_default_job(account, machine, Some(job))?;
            Ok(done())
        }
        Operation::RemoveDefaultJob => {
            market.set_default_job(account, machine_of_path(call)?, None)?;
            Ok(done())
        }
        Operation::ScheduleMaintenance => {
            let machine = machine_of_path(call)?;
            let plan = maintenance(call, market.now())?;
            market.plan_maintenance(account, machine, Some(plan))?;
            written(&json!({"success": true, "msg": "Renters were told."}))
        }
        Operation::CancelMaintenance => {
            market.plan_maintenance(account, machine_of_path(call)?, None)?;
            written(&json!({"success": true, "msg": "Maintenance was called off."}))
        }
        Operation::CleanupMachine => {
            let removed = market.clean_up(account, machine_of_path(call)?)?;
            written(&json!({
                "success": true, "msg": format!("{removed} ended rentals were removed."),
            }))
        }
        Operation::ForceDeleteMachine => {
            market.force_delete(account, machine_of_path(call)?)?;
            Ok(done())
        }
        Operation::MachineReports => {
            let machine = machine_of_path(call).map_err(|_| no_such_machine())?;
            let reports = market.machine_reports(machine);
            let reports = reports.ok_or_else(no_such_machine)?;
            let rows = reports.iter().map(|report| {
                json!({
                    "problem": report.problem, "message": report.message,
                    "created_at": report.at.epoch_seconds(),
                })
            });
            written(&rows.collect::<Vec<Value>>())
        }
        other => Err(not_here(other)),
    }
}

fn no_such_machine() -> MarketError {
    MarketError::new(404, "not_found", "No such machine.")
}

/// What is no id names no machine of the caller's.
fn machine_of_path(call: &Call<'_>) -> Result<u64, MarketError> {
    let id = call.ids.first().and_then(|id| id.parse().ok());
    id.ok_or_else(|| MarketError::new(403, "not_authorized", "That machine is not yours."))
}

fn machine_of_body(call: &Call<'_>) -> Result<u64, MarketError> {
    call.whole("machine")?.ok_or_else(|| missing("machine"))
}

fn ask(call: &Call<'_>) -> Result<Ask, MarketError> {
    Ok(Ask {
        price: call.number("price_gpu")?,
        floor: call.number("price_min_bid")?,
        disk_price: call.number("price_disk")?,
        up_price: call.number("price_inetu")?,
        down_price: call.number("price_inetd")?,
        least_gpus: call.number("min_chunk")?,
        ends: call.number("end_date")?,
        duration: call.number("duration")?,
        discount: call.number("credit_discount_max")?,
    })
}

fn default_job(call: &Call<'_>) -> Result<DefaultJob, MarketError> {
    let price = |name: &str| match call.number(name)? {
        None => Ok(0.0),
        Some(price) if (0.0..=PRICE_MAX).contains(&price) => Ok(price),
        Some(_) => Err(MarketError::new(
            400,
            "invalid_price",
            format!("{name} is no price."),
        )),
    };
    let image = call.text("image")?.unwrap_or_default();
    let image = image.trim();
    if image.is_empty() || image.chars().count() > TEXT_MAX {
        return Err(missing("image"));
    }
    Ok(DefaultJob {
        image: image.to_owned(),
        price: price("price_gpu")?,
        traffic: (price("price_inetu")?, price("price_inetd")?),
    })
}

fn maintenance(call: &Call<'_>, now: Time) -> Result<Maintenance, MarketError> {
    let begins = call.number("sdate")?.ok_or_else(|| missing("sdate"))?;
    let hours = call
        .number("duration")?
        .ok_or_else(|| missing("duration"))?;
    let begins = Time::from_epoch_seconds(begins).filter(|begins| *begins >= now);
    let begins = begins.ok_or_else(|| MarketError::invalid_args("sdate is not a time to come"))?;
    if !(hours > 0.0 && hours <= HOURS_MAX) {
        return Err(MarketError::invalid_args("duration is no number of hours"));
    }
    let category = call.text("maintenance_category")?;
    let category = category.as_deref().unwrap_or("unspecified");
    Ok(Maintenance {
        begins,
        hours,
        category: category.chars().take(TEXT_MAX).collect(),
    })
}
