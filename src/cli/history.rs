//! `haggle history`: what is known of a slot, and of the machines on which ours were.

mod export;

pub(crate) use export::moment;

use std::time::Duration;

use clap::{Args, Subcommand};
use serde::Serialize;

use super::context::{Context, open_reader};
use super::failure::{Done, Exit, Failure};
use super::output::{Align, Output};
use crate::engine::risk::{Risks, start_fails};
use crate::store::{SlotHistory, SlotVersion};
use crate::types::ids::{MachineId, Slot};
use crate::types::machine::{MachineRecord, Tally};
use crate::types::money::Rate;
use crate::types::state::State;
use crate::types::time::{Time, human};

/// Shows what is known of slots and machines: their prices as they changed, and what befell ours there.
#[derive(Args, Clone, Debug)]
pub(crate) struct HistoryArgs {
    #[command(subcommand)]
    of: Of,
}

#[derive(Clone, Debug, Subcommand)]
enum Of {
    /// A slot: its offers as they changed, and how likely a rental there is to be lost.
    Slot(SlotArgs),
    /// All machines on which something of ours was, the most failures first.
    Machines,
    /// Writes what is kept, for other programs.
    Export(export::ExportArgs),
    /// Forgets what is old, at once.
    Prune(export::PruneArgs),
}

#[derive(Args, Clone, Debug)]
struct SlotArgs {
    /// The machine's number.
    machine: u64,
    /// How many GPUs the slot has.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    gpus: u32,
    /// How many of the last changes are shown.
    #[arg(long, value_name = "N", default_value_t = 20)]
    limit: usize,
}

#[derive(Debug, Serialize)]
struct SlotDocument {
    machine: u64,
    gpus: u32,
    /// Absent where it was never listed.
    listed: Option<ListedDocument>,
    /// Absent where nothing of ours was there.
    ours: Option<MachineDocument>,
    /// By how much bids on the slot are lost more often than its row says.
    outbid_factor: f64,
    /// By how much its host fails more often than its row says.
    host_factor: f64,
}

#[derive(Debug, Serialize)]
struct ListedDocument {
    first_seen: String,
    last_seen: String,
    now: bool,
    gpu_name: Option<String>,
    /// All changes that are kept; those that are shown are the last of them.
    changes: usize,
    versions: Vec<VersionDocument>,
}

#[derive(Debug, Serialize)]
struct VersionDocument {
    from: String,
    to: Option<String>,
    on_demand_dollars_per_hour: Option<String>,
    floor_dollars_per_hour: Option<String>,
    reliability: Option<f32>,
    rentable: Option<bool>,
}

#[derive(Debug, Serialize)]
struct MachineDocument {
    machine: u64,
    host: Option<u64>,
    gpu_name: Option<String>,
    starts: u32,
    failures: u32,
    /// Expected share of starts that come to nothing.
    start_fails: f64,
    boot_seconds: Option<i64>,
    disk_mb_s: Option<u32>,
    down_mbit_s: Option<u32>,
    outbids: TallyDocument,
    host_losses: TallyDocument,
    recoveries: u32,
    recovery_seconds: Option<i64>,
    cool_until: Option<String>,
}

/// Older events count less: half after two weeks.
#[derive(Debug, Serialize)]
struct TallyDocument {
    happened: f64,
    expected: f64,
}

pub(crate) fn run(context: &Context, args: &HistoryArgs) -> Done {
    match &args.of {
        Of::Slot(args) => slot(context, args),
        Of::Machines => machines(context),
        Of::Export(args) => export::export(context, args),
        Of::Prune(args) => export::prune(context, args),
    }
}

fn slot(context: &Context, args: &SlotArgs) -> Done {
    let reader = open_reader(&context.config()?)?;
    let state = reader.state()?;
    let slot = Slot {
        machine: MachineId(args.machine),
        gpus: args.gpus,
    };
    let history = reader.slot_history(slot)?;
    if history.is_none() && !state.machines.contains_key(&slot.machine) {
        return Err(Failure::mendable(format!(
            "nothing is known of {} x GPU on machine {}: it was never listed, and nothing of \
             ours was there",
            slot.gpus, slot.machine
        ))
        .hint("`haggle offers` names machines; --gpus says how many GPUs the slot has"));
    }
    let document = slot_document(&state, slot, history.as_ref(), args.limit, context.now());
    context
        .output
        .show(&document, || slot_text(context.output, &document))?;
    Ok(Exit::Success)
}

fn machines(context: &Context) -> Done {
    let state = open_reader(&context.config()?)?.state()?;
    let document = machines_document(&state, context.now());
    context
        .output
        .show(&document, || machines_text(context.output, &document))?;
    Ok(Exit::Success)
}

fn slot_document(
    state: &State,
    slot: Slot,
    history: Option<&SlotHistory>,
    limit: usize,
    now: Time,
) -> SlotDocument {
    let record = state.machines.get(&slot.machine);
    let last = history.and_then(|history| history.versions.last());
    let model = last.map(|version| version.offer.gpu_name.to_string());
    let model = model.or_else(|| record.and_then(|record| record.gpu_name.clone()));
    let host = last.and_then(|version| version.offer.host);
    let risks = Risks::new(state, now);
    let of_model = risks.of_model(model.as_deref().unwrap_or_default());
    SlotDocument {
        machine: slot.machine.0,
        gpus: slot.gpus,
        listed: history.map(|history| ListedDocument {
            first_seen: history.first_seen.to_string(),
            last_seen: history.last_seen.to_string(),
            now: history.listed,
            gpu_name: model,
            changes: history.versions.len(),
            versions: history.versions[history.versions.len().saturating_sub(limit)..]
                .iter()
                .map(version_document)
                .collect(),
        }),
        ours: record.map(|record| machine_document(record, now)),
        outbid_factor: risks.of_slot(of_model, record, slot.gpus),
        host_factor: risks.of_host(host, record),
    }
}

fn version_document(version: &SlotVersion) -> VersionDocument {
    let decimal = |rate: Option<Rate>| rate.map(Rate::decimal);
    VersionDocument {
        from: version.from.to_string(),
        to: version.to.map(|to| to.to_string()),
        on_demand_dollars_per_hour: decimal(version.offer.on_demand),
        floor_dollars_per_hour: decimal(version.offer.floor),
        reliability: version.offer.reliability,
        rentable: version.offer.rentable,
    }
}

fn machine_document(record: &MachineRecord, now: Time) -> MachineDocument {
    let mut track = record.track.clone();
    track.fade(now);
    let tally = |tally: Tally| TallyDocument {
        happened: tally.met_ppm as f64 / 1e6,
        expected: tally.expected_ppm as f64 / 1e6,
    };
    MachineDocument {
        machine: record.id.0,
        host: record.host.map(|host| host.0),
        gpu_name: record.gpu_name.clone(),
        starts: record.past.starts,
        failures: record.past.failures,
        start_fails: start_fails(Some(record)),
        boot_seconds: record.past.boot_ms.map(|ms| ms / 1000),
        disk_mb_s: record.past.disk_mb_s,
        down_mbit_s: record.past.down_mbit_s,
        outbids: tally(track.outbids_in_all()),
        host_losses: tally(track.losses),
        recoveries: track.recoveries,
        recovery_seconds: track.recovery_ms.map(|ms| ms / 1000),
        cool_until: record
            .cool_until
            .filter(|&until| until > now)
            .map(|until| until.to_string()),
    }
}

fn machines_document(state: &State, now: Time) -> Vec<MachineDocument> {
    let mut records: Vec<&MachineRecord> = state.machines.values().collect();
    records.sort_by_key(|record| (std::cmp::Reverse(record.past.failures), record.id));
    let documents = records
        .into_iter()
        .map(|record| machine_document(record, now));
    documents.collect()
}

fn slot_text(output: Output, document: &SlotDocument) -> String {
    let many = if document.gpus == 1 { "" } else { "s" };
    let mut text = format!(
        "{} GPU{many} on machine {}\n",
        document.gpus, document.machine
    );
    match &document.listed {
        None => text += "  not listed so far\n",
        Some(listed) => {
            let model = listed.gpu_name.as_deref().unwrap_or("an unknown model");
            let still = if listed.now {
                "still listed"
            } else {
                "not listed now"
            };
            text += &format!(
                "  {model}, first seen {}, last seen {}, {still}\n",
                listed.first_seen, listed.last_seen
            );
            text += &format!(
                "  {} of {} changes:\n\n{}\n\n",
                listed.versions.len(),
                listed.changes,
                versions_table(output, &listed.versions)
            );
        }
    }
    text += &format!(
        "  bids are lost {:.2} times as often, and the host fails {:.2} times as often, as the row says\n",
        document.outbid_factor, document.host_factor
    );
    if let Some(ours) = &document.ours {
        text += &format!("\n{}\n", machines_table(output, std::slice::from_ref(ours)));
    }
    text
}

fn versions_table(output: Output, versions: &[VersionDocument]) -> String {
    let columns = [
        ("from", Align::Left),
        ("to", Align::Left),
        ("on-demand/h", Align::Right),
        ("floor/h", Align::Right),
        ("reliability", Align::Right),
        ("rentable", Align::Left),
    ];
    let dollars = |amount: &Option<String>| {
        amount
            .as_ref()
            .map_or("-".to_owned(), |text| format!("${text}"))
    };
    let rows = versions.iter().map(|version| {
        vec![
            version.from.clone(),
            version.to.clone().unwrap_or_else(|| "now".to_owned()),
            dollars(&version.on_demand_dollars_per_hour),
            dollars(&version.floor_dollars_per_hour),
            version
                .reliability
                .map_or("-".to_owned(), |share| format!("{share:.4}")),
            match version.rentable {
                Some(true) => "yes".to_owned(),
                Some(false) => "no".to_owned(),
                None => "-".to_owned(),
            },
        ]
    });
    output.table(&columns, rows.collect())
}

fn machines_text(output: Output, machines: &[MachineDocument]) -> String {
    if machines.is_empty() {
        return "nothing of ours was on any machine so far\n".to_owned();
    }
    machines_table(output, machines)
}

fn machines_table(output: Output, machines: &[MachineDocument]) -> String {
    let columns = [
        ("machine", Align::Right),
        ("host", Align::Right),
        ("model", Align::Left),
        ("came up", Align::Right),
        ("failed", Align::Right),
        ("boot", Align::Right),
        ("outbid (expected)", Align::Right),
        ("host failed (expected)", Align::Right),
        ("came back after", Align::Right),
        ("cools until", Align::Left),
    ];
    let span = |seconds: Option<i64>| {
        let seconds = seconds.and_then(|seconds| u64::try_from(seconds).ok());
        seconds.map_or("-".to_owned(), |seconds| {
            human(Duration::from_secs(seconds))
        })
    };
    let tally = |tally: &TallyDocument| format!("{:.1} ({:.2})", tally.happened, tally.expected);
    let rows = machines.iter().map(|machine| {
        vec![
            machine.machine.to_string(),
            machine.host.map_or("-".to_owned(), |host| host.to_string()),
            machine.gpu_name.clone().unwrap_or_else(|| "-".to_owned()),
            machine.starts.to_string(),
            machine.failures.to_string(),
            span(machine.boot_seconds),
            tally(&machine.outbids),
            tally(&machine.host_losses),
            span(machine.recovery_seconds),
            machine.cool_until.clone().unwrap_or_else(|| "-".to_owned()),
        ]
    });
    output.table(&columns, rows.collect())
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;
    use crate::engine::eligible::samples::{NOW, offer, world};
    use crate::types::ids::HostId;

    fn state() -> State {
        let mut state = world(Vec::new()).state;
        let mut record = MachineRecord::new(MachineId(7));
        record.gpu_name = Some("RTX 4090".to_owned());
        record.host = Some(HostId(70));
        record.past.came_up(None, Some(95_000));
        record.past.failures = 1;
        record.track.fade(NOW);
        record.track.outbids_of(1).met();
        record.track.outbids_of(1).exposed(50_000, 36_000_000);
        record.track.recovered(600_000);
        state.machines.insert(record.id, record);
        state
            .machines
            .insert(MachineId(3), MachineRecord::new(MachineId(3)));
        state
    }

    #[test]
    fn a_slot_is_shown_with_its_prices_and_what_befell_ours() {
        let version = |from: u64, to: Option<u64>, floor: i64| SlotVersion {
            from: NOW + Duration::from_hours(from),
            to: to.map(|to| NOW + Duration::from_hours(to)),
            offer: crate::types::offer::Offer {
                floor: Some(Rate(floor)),
                ..offer(7)
            },
        };
        let history = SlotHistory {
            first_seen: NOW,
            last_seen: NOW + Duration::from_hours(9),
            listed: true,
            versions: vec![
                version(0, Some(1), 100_000_000),
                version(1, Some(5), 120_000_000),
                version(5, None, 110_000_000),
            ],
        };
        let slot = Slot {
            machine: MachineId(7),
            gpus: 1,
        };
        let later = NOW + Duration::from_hours(9);
        let document = slot_document(&state(), slot, Some(&history), 2, later);
        expect![[r"
            1 GPU on machine 7
              RTX 4090, first seen 2027-01-15T08:00:00Z, last seen 2027-01-15T17:00:00Z, still listed
              2 of 3 changes:

            from                  to                    on-demand/h  floor/h  reliability  rentable
            2027-01-15T09:00:00Z  2027-01-15T13:00:00Z        $0.40    $0.12       0.9900  yes
            2027-01-15T13:00:00Z  now                         $0.40    $0.11       0.9900  yes

              bids are lost 1.65 times as often, and the host fails 1.00 times as often, as the row says

            machine  host  model     came up  failed   boot  outbid (expected)  host failed (expected)  came back after  cools until
                  7    70  RTX 4090        1       1  1m35s         1.0 (0.50)              0.0 (0.00)           10m00s  -
        "]]
        .assert_eq(&slot_text(Output::new(false), &document));
        let unlisted = slot_document(&state(), slot, None, 2, later);
        let text = slot_text(Output::new(false), &unlisted);
        assert!(text.contains("not listed so far"), "{text}");
    }

    #[test]
    fn machines_are_shown_with_the_most_failures_first() {
        let document = machines_document(&state(), NOW);
        let order: Vec<u64> = document.iter().map(|machine| machine.machine).collect();
        assert_eq!(order, [7, 3]);
        let none = machines_text(Output::new(false), &[]);
        assert!(none.contains("nothing of ours"), "{none}");
    }
}
