//! Plans, rankings and reports, as text for people and as documents for programs.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde::Serialize;

use super::output::{Align, Output};
use super::words;

use crate::types::ids::{OfferId, Permit, Slot};
use crate::types::intent::Effect;
use crate::types::money::Rate;
use crate::types::plan::{
    Action, Candidate, JobReport, Limit, Plan, PriceParts, Refusal, Report, Situation,
};
use crate::types::recourse::Turn;
use crate::types::state::Severity;
use crate::types::time::Time;

/// A landed price with its parts, in dollars per useful GPU-hour.
#[derive(Debug, Serialize)]
pub(crate) struct PartsDocument {
    total_dollars_per_gpu_hour: String,
    compute_dollars_per_gpu_hour: String,
    disk_dollars_per_gpu_hour: String,
    traffic_dollars_per_gpu_hour: String,
    boot_dollars_per_gpu_hour: String,
    interruption_dollars_per_gpu_hour: String,
    waiting_dollars_per_gpu_hour: String,
}

/// A slot that a job could take.
#[derive(Debug, Serialize)]
pub(crate) struct CandidateDocument {
    machine: u64,
    gpus: u32,
    offer: u64,
    gpu_name: String,
    rental: &'static str,
    price_dollars_per_hour: String,
    storage_dollars_per_hour: String,
    landed: PartsDocument,
}

/// A slot that was refused.
#[derive(Debug, Serialize)]
pub(crate) struct RefusedDocument {
    machine: u64,
    gpus: u32,
    offer: u64,
    price_dollars_per_hour: String,
    reason: &'static str,
    text: &'static str,
}

/// What a replica does and waits for.
#[derive(Debug, Serialize)]
pub(crate) struct ReplicaDocument {
    replica: String,
    situation: String,
    text: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    recourses: Vec<RecourseDocument>,
    #[serde(skip_serializing_if = "Option::is_none")]
    deadline: Option<DeadlineDocument>,
}

/// How a replica stands with its deadline.
#[derive(Debug, Serialize)]
struct DeadlineDocument {
    deadline: String,
    stance: &'static str,
    needs_seconds: i64,
    left_seconds: i64,
    text: String,
}

/// A step after an outbid, and how it stands.
#[derive(Debug, Serialize)]
struct RecourseDocument {
    step: &'static str,
    #[serde(flatten)]
    turn: Turn,
    text: String,
}

/// Why a job got what it got.
#[derive(Debug, Serialize)]
pub(crate) struct JobDocument {
    job: String,
    replicas: Vec<ReplicaDocument>,
    eligible: u32,
    best: Vec<CandidateDocument>,
    refused: BTreeMap<&'static str, u32>,
    best_refused: Vec<RefusedDocument>,
    on_demand_best: Option<CandidateDocument>,
}

/// One thing to do.
#[derive(Debug, Serialize)]
pub(crate) struct ActionDocument {
    action: &'static str,
    replica: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    instance: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    machine: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    gpus: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    offer: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    rental: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    price_dollars_per_hour: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    storage_dollars_per_hour: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    landed: Option<PartsDocument>,
    reserve_dollars: String,
    reason: &'static str,
    text: String,
}

#[derive(Debug, Serialize)]
struct DroppedDocument {
    #[serde(flatten)]
    action: ActionDocument,
    limit: &'static str,
    limit_text: String,
}

#[derive(Debug, Serialize)]
struct NoticeDocument {
    severity: Severity,
    kind: String,
    replica: Option<String>,
    text: String,
}

/// A whole plan with its report.
#[derive(Debug, Serialize)]
pub(crate) struct PlanDocument {
    at: String,
    actions: Vec<ActionDocument>,
    dropped: Vec<DroppedDocument>,
    jobs: Vec<JobDocument>,
    notices: Vec<NoticeDocument>,
    limits: Vec<super::show_limits::LimitDocument>,
}

/// The document of a plan and its report, decided at `now`.
pub(crate) fn plan_document(plan: &Plan, report: &Report, now: Time) -> PlanDocument {
    PlanDocument {
        at: now.to_string(),
        actions: plan.actions.iter().map(action_document).collect(),
        dropped: report
            .dropped
            .iter()
            .map(|(action, limit)| DroppedDocument {
                action: action_document(action),
                limit: limit.as_str(),
                limit_text: words::limit(limit),
            })
            .collect(),
        jobs: report.jobs.iter().map(|j| job_document(j, now)).collect(),
        limits: super::show_limits::documents(&report.limits),
        notices: report
            .notices
            .iter()
            .map(|notice| NoticeDocument {
                severity: notice.severity,
                kind: notice.kind.clone(),
                replica: notice.replica.as_ref().map(ToString::to_string),
                text: notice.text.clone(),
            })
            .collect(),
    }
}

/// The document of a job's report.
pub(crate) fn job_document(report: &JobReport, now: Time) -> JobDocument {
    JobDocument {
        job: report.job.to_string(),
        replicas: report
            .replicas
            .iter()
            .map(|r| ReplicaDocument {
                replica: r.replica.to_string(),
                situation: situation_word(&r.situation),
                text: words::situation(&r.situation, now),
                recourses: r
                    .recourses
                    .iter()
                    .map(|(step, turn)| RecourseDocument {
                        step: step.as_str(),
                        turn: turn.clone(),
                        text: words::turn(turn, now),
                    })
                    .collect(),
                deadline: r.deadline.as_ref().map(|view| DeadlineDocument {
                    deadline: view.deadline.to_string(),
                    stance: view.stance.as_str(),
                    needs_seconds: view.needs_ms / 1000,
                    left_seconds: view.left_ms / 1000,
                    text: words::deadline(view),
                }),
            })
            .collect(),
        eligible: report.eligible,
        best: report.best.iter().map(candidate_document).collect(),
        refused: report
            .refused
            .iter()
            .map(|(reason, count)| (reason.as_str(), *count))
            .collect(),
        best_refused: report.best_refused.iter().map(refused_document).collect(),
        on_demand_best: report.on_demand_best.as_ref().map(candidate_document),
    }
}

fn refused_document(
    (slot, offer, price, reason): &(Slot, OfferId, Rate, Refusal),
) -> RefusedDocument {
    RefusedDocument {
        machine: slot.machine.0,
        gpus: slot.gpus,
        offer: offer.0,
        price_dollars_per_hour: price.decimal(),
        reason: reason.as_str(),
        text: words::refusal(*reason),
    }
}

fn candidate_document(candidate: &Candidate) -> CandidateDocument {
    CandidateDocument {
        machine: candidate.slot.machine.0,
        gpus: candidate.slot.gpus,
        offer: candidate.offer.0,
        gpu_name: candidate.gpu_name.clone(),
        rental: candidate.rental.as_str(),
        price_dollars_per_hour: candidate.price.decimal(),
        storage_dollars_per_hour: candidate.storage.decimal(),
        landed: parts_document(&candidate.parts),
    }
}

fn parts_document(parts: &PriceParts) -> PartsDocument {
    let text = |dollars: f64| format!("{dollars:.6}");
    PartsDocument {
        total_dollars_per_gpu_hour: text(parts.total()),
        compute_dollars_per_gpu_hour: text(parts.compute),
        disk_dollars_per_gpu_hour: text(parts.disk),
        traffic_dollars_per_gpu_hour: text(parts.traffic),
        boot_dollars_per_gpu_hour: text(parts.boot),
        interruption_dollars_per_gpu_hour: text(parts.interruption),
        waiting_dollars_per_gpu_hour: text(parts.waiting),
    }
}

fn action_document(action: &Action) -> ActionDocument {
    let mut document = ActionDocument {
        action: action.effect.as_str(),
        replica: action.replica.as_ref().map(ToString::to_string),
        instance: action.effect.instance().map(|id| id.0),
        machine: None,
        gpus: None,
        offer: None,
        rental: None,
        price_dollars_per_hour: None,
        storage_dollars_per_hour: None,
        landed: action.parts.as_ref().map(parts_document),
        reserve_dollars: action.reserve.decimal(),
        reason: action.why.as_str(),
        text: effect_text(&action.effect),
    };
    match &action.effect {
        Effect::Rent {
            slot,
            offer,
            rental,
            price,
            storage,
            ..
        } => {
            document.machine = Some(slot.machine.0);
            document.gpus = Some(slot.gpus);
            document.offer = Some(offer.0);
            document.rental = Some(rental.as_str());
            document.price_dollars_per_hour = Some(price.decimal());
            document.storage_dollars_per_hour = Some(storage.decimal());
        }
        Effect::SetBid { bid, .. } => document.price_dollars_per_hour = Some(bid.decimal()),
        Effect::Stop { .. }
        | Effect::Start { .. }
        | Effect::Relabel { .. }
        | Effect::Copy { .. }
        | Effect::Destroy { .. } => {}
    }
    document
}

/// The word by which a situation can be counted: its tag.
fn situation_word(situation: &Situation) -> String {
    serde_json::to_value(situation)
        .ok()
        .and_then(|value| value.get("is")?.as_str().map(str::to_owned))
        .unwrap_or_default()
}

/// What an instance is let do, in words.
fn permit(permit: Permit) -> &'static str {
    match permit {
        Permit::Go => "work",
        Permit::Hold => "wait",
        Permit::Done => "end",
    }
}

fn effect_text(effect: &Effect) -> String {
    match effect {
        Effect::Rent {
            slot,
            rental,
            price,
            disk_gb,
            ..
        } => format!(
            "rent {} GPU{} of machine {} {} {price:.4}/h with {disk_gb} GB of disk",
            slot.gpus,
            if slot.gpus == 1 { "" } else { "s" },
            slot.machine,
            match rental {
                crate::types::instance::Rental::Bid => "at a bid of",
                crate::types::instance::Rental::OnDemand => "on-demand at",
            },
        ),
        Effect::SetBid { instance, bid } => format!("bid {bid:.4}/h for instance {instance}"),
        Effect::Stop { instance } => format!("stop instance {instance}"),
        Effect::Relabel { instance, tail } => format!(
            "let instance {instance} {} until {}",
            permit(tail.permit),
            tail.until
        ),
        Effect::Start { instance } => format!("start instance {instance}"),
        Effect::Copy { instance, from } => {
            format!("copy the checkpoint of instance {from} to instance {instance}")
        }
        Effect::Destroy { instance, why } => {
            format!("destroy instance {instance}: {}", words::destroy(*why))
        }
    }
}

/// A plan for people: what would be done, what a limit forbade, and where each job stands.
pub(crate) fn plan_text(output: Output, plan: &Plan, report: &Report, now: Time) -> String {
    let mut text = String::new();
    if plan.actions.is_empty() {
        text.push_str("Nothing to do.\n");
    } else {
        text.push_str(&actions_table(output, &plan.actions));
        text.push('\n');
    }
    for (action, limit) in &report.dropped {
        let _ = writeln!(text, "{}", dropped_line(action, limit));
    }
    for notice in &report.notices {
        let _ = writeln!(text, "note: {}", notice.text);
    }
    text.push_str(&super::show_limits::lines(&report.limits, now));
    for job in &report.jobs {
        text.push('\n');
        text.push_str(&job_text(output, job, now, BEST_SHOWN));
    }
    text
}

/// Candidates shown of each job in a plan.
const BEST_SHOWN: usize = 3;

fn dropped_line(action: &Action, limit: &Limit) -> String {
    format!(
        "held back: {} ({})",
        effect_text(&action.effect),
        words::limit(limit)
    )
}

fn actions_table(output: Output, actions: &[Action]) -> String {
    let columns = [
        ("replica", Align::Left),
        ("action", Align::Left),
        ("reserves", Align::Right),
        ("why", Align::Left),
    ];
    let rows = actions
        .iter()
        .map(|action| {
            let replica = action.replica.as_ref().map(ToString::to_string);
            vec![
                replica.unwrap_or_else(|| "-".into()),
                effect_text(&action.effect),
                format!("{:.2}", action.reserve),
                words::why(action.why).into(),
            ]
        })
        .collect();
    output.table(&columns, rows)
}

/// A job's report for people: its replicas, the best `shown` slots, and why others were refused.
pub(crate) fn job_text(output: Output, report: &JobReport, now: Time, shown: usize) -> String {
    let mut text = format!("{}\n", report.job);
    for (first, last) in report.grouped() {
        let doing = words::situation(&first.situation, now);
        let _ = if first.replica == last.replica {
            writeln!(text, "  {}: {doing}", first.replica)
        } else {
            writeln!(
                text,
                "  {} to {}: {doing}",
                first.replica, last.replica.index
            )
        };
        if let Some(view) = &first.deadline {
            let _ = writeln!(text, "    deadline: {}", words::deadline(view));
        }
        for (recourse, turn) in &first.recourses {
            let _ = writeln!(
                text,
                "    {}: {}",
                recourse.as_str(),
                words::turn(turn, now)
            );
        }
    }
    text.push_str(&slots_text(output, report, shown));
    text
}

/// The slots of a job for people: the best `shown` with every part of the price, then the refused.
pub(crate) fn slots_text(output: Output, report: &JobReport, shown: usize) -> String {
    let mut text = String::new();
    let refused: u32 = report.refused.values().sum();
    let _ = writeln!(
        text,
        "  {} of {} slots suit",
        report.eligible,
        report.eligible + refused
    );
    let best = &report.best[..report.best.len().min(shown)];
    if !best.is_empty() {
        text.push_str(&indent(&candidates_table(output, best)));
    }
    if let Some(on_demand) = &report.on_demand_best {
        let _ = writeln!(
            text,
            "  cheapest on-demand: ${:.4} per useful GPU-hour, machine {}",
            on_demand.parts.total(),
            on_demand.slot.machine
        );
    }
    let mut reasons: Vec<(Refusal, u32)> = report.refused.iter().map(|(r, n)| (*r, *n)).collect();
    reasons.sort_by_key(|(reason, count)| (std::cmp::Reverse(*count), *reason));
    if !reasons.is_empty() {
        let rows = reasons
            .iter()
            .map(|(reason, count)| vec![count.to_string(), words::refusal(*reason).into()])
            .collect();
        let columns = [("refused", Align::Right), ("because", Align::Left)];
        text.push_str(&indent(&output.table(&columns, rows)));
    }
    if !report.best_refused.is_empty() {
        let rows = report
            .best_refused
            .iter()
            .map(|(slot, _, price, reason)| {
                vec![
                    slot.machine.to_string(),
                    slot.gpus.to_string(),
                    format!("{price:.4}"),
                    words::refusal(*reason).into(),
                ]
            })
            .collect();
        let columns = [
            ("cheapest refused", Align::Right),
            ("gpus", Align::Right),
            ("price/h", Align::Right),
            ("because", Align::Left),
        ];
        text.push_str(&indent(&output.table(&columns, rows)));
    }
    text
}

fn candidates_table(output: Output, candidates: &[Candidate]) -> String {
    let columns = [
        ("machine", Align::Right),
        ("gpus", Align::Right),
        ("model", Align::Left),
        ("rental", Align::Left),
        ("price/h", Align::Right),
        ("landed/gpu-h", Align::Right),
        ("compute", Align::Right),
        ("disk", Align::Right),
        ("traffic", Align::Right),
        ("boot", Align::Right),
        ("lost work", Align::Right),
        ("waiting", Align::Right),
    ];
    let rows = candidates
        .iter()
        .map(|candidate| {
            let parts = &candidate.parts;
            let dollars = |amount: f64| format!("${amount:.4}");
            vec![
                candidate.slot.machine.to_string(),
                candidate.slot.gpus.to_string(),
                candidate.gpu_name.clone(),
                candidate.rental.as_str().into(),
                format!("{:.4}", candidate.price),
                dollars(parts.total()),
                dollars(parts.compute),
                dollars(parts.disk),
                dollars(parts.traffic),
                dollars(parts.boot),
                dollars(parts.interruption),
                dollars(parts.waiting),
            ]
        })
        .collect();
    output.table(&columns, rows)
}

fn indent(text: &str) -> String {
    text.lines().fold(String::new(), |mut all, line| {
        let _ = writeln!(all, "  {line}");
        all
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::ids::{MachineId, ReplicaId};
    use crate::types::instance::Rental;
    use crate::types::ledger::Scope;
    use crate::types::limit::Measure;
    use crate::types::money::{Money, Rate};
    use crate::types::plan::{ReplicaReport, Why};
    use expect_test::expect;

    const NOW: Time = Time(1_800_000_000_000);

    fn candidate(machine: u64, rental: Rental, compute: f64) -> Candidate {
        Candidate {
            slot: Slot {
                machine: MachineId(machine),
                gpus: 2,
            },
            offer: OfferId(machine * 10),
            gpu_name: "RTX 4090".into(),
            rental,
            price: Rate::from_dollars(compute * 2.0).unwrap(),
            storage: Rate(2_074_070),
            parts: PriceParts {
                compute,
                disk: 0.001,
                traffic: 0.002,
                boot: 0.0005,
                interruption: 0.01,
                waiting: 0.0001,
            },
        }
    }

    fn example() -> (Plan, Report) {
        let replica = ReplicaId {
            job: "train".parse().unwrap(),
            index: 0,
        };
        let best = candidate(71, Rental::Bid, 0.2006);
        let rent = Action {
            replica: Some(replica.clone()),
            effect: Effect::Rent {
                replica: replica.clone(),
                generation: 1,
                slot: best.slot,
                offer: best.offer,
                rental: best.rental,
                price: best.price,
                disk_gb: 40,
                storage: best.storage,
                from: None,
                traffic: None,
            },
            why: Why::Cheapest,
            reserve: Money(251_000_000),
            parts: Some(best.parts),
            on_demand_seen: Some(Rate(600_000_000)),
        };
        let mut late = rent.clone();
        late.reserve = Money::dollars(9);
        let report = Report {
            watches: Vec::new(),
            jobs: vec![JobReport {
                job: replica.job.clone(),
                replicas: vec![ReplicaReport {
                    deadline: None,
                    replica,
                    situation: Situation::Renting,
                    recourses: Vec::new(),
                }],
                eligible: 2,
                best: vec![best, candidate(9, Rental::OnDemand, 0.3)],
                refused: BTreeMap::from([(Refusal::GpuModel, 40), (Refusal::OverCeiling, 3)]),
                best_refused: vec![(
                    Slot {
                        machine: MachineId(5),
                        gpus: 2,
                    },
                    OfferId(55),
                    Rate(380_000_000),
                    Refusal::Reliability,
                )],
                on_demand_best: Some(candidate(9, Rental::OnDemand, 0.3)),
            }],
            notices: Vec::new(),
            limits: Vec::new(),
            dropped: vec![(
                late,
                Limit::Of(Scope::Job("train".parse().unwrap()), Measure::Total),
            )],
        };
        let plan = Plan {
            actions: vec![rent],
        };
        (plan, report)
    }

    #[test]
    fn a_plan_reads_without_colour() {
        let (plan, report) = example();
        let text = plan_text(Output::new(false), &plan, &report, NOW);
        expect![[r"
            replica  action                                                              reserves  why
            train/0  rent 2 GPUs of machine 71 at a bid of $0.4012/h with 40 GB of disk     $0.25  the cheapest slot that suits
            held back: rent 2 GPUs of machine 71 at a bid of $0.4012/h with 40 GB of disk (the total limit of job train)

            train
              train/0: being rented now
              2 of 45 slots suit
              machine  gpus  model     rental     price/h  landed/gpu-h  compute     disk  traffic     boot  lost work  waiting
                   71     2  RTX 4090  bid        $0.4012       $0.2142  $0.2006  $0.0010  $0.0020  $0.0005    $0.0100  $0.0001
                    9     2  RTX 4090  on-demand  $0.6000       $0.3136  $0.3000  $0.0010  $0.0020  $0.0005    $0.0100  $0.0001
              cheapest on-demand: $0.3136 per useful GPU-hour, machine 9
              refused  because
                   40  another GPU model
                    3  over the price ceiling
              cheapest refused  gpus  price/h  because
                             5     2  $0.3800  reliability too low, or unknown
        "]].assert_eq(&text);
    }

    #[test]
    fn a_plan_is_a_document_with_stable_names() {
        let (plan, report) = example();
        let document = plan_document(&plan, &report, NOW);
        expect![[r#"
            {
              "at": "2027-01-15T08:00:00Z",
              "actions": [
                {
                  "action": "rent",
                  "replica": "train/0",
                  "machine": 71,
                  "gpus": 2,
                  "offer": 710,
                  "rental": "bid",
                  "price_dollars_per_hour": "0.4012",
                  "storage_dollars_per_hour": "0.00207407",
                  "landed": {
                    "total_dollars_per_gpu_hour": "0.214200",
                    "compute_dollars_per_gpu_hour": "0.200600",
                    "disk_dollars_per_gpu_hour": "0.001000",
                    "traffic_dollars_per_gpu_hour": "0.002000",
                    "boot_dollars_per_gpu_hour": "0.000500",
                    "interruption_dollars_per_gpu_hour": "0.010000",
                    "waiting_dollars_per_gpu_hour": "0.000100"
                  },
                  "reserve_dollars": "0.251",
                  "reason": "cheapest",
                  "text": "rent 2 GPUs of machine 71 at a bid of $0.4012/h with 40 GB of disk"
                }
              ],
              "dropped": [
                {
                  "action": "rent",
                  "replica": "train/0",
                  "machine": 71,
                  "gpus": 2,
                  "offer": 710,
                  "rental": "bid",
                  "price_dollars_per_hour": "0.4012",
                  "storage_dollars_per_hour": "0.00207407",
                  "landed": {
                    "total_dollars_per_gpu_hour": "0.214200",
                    "compute_dollars_per_gpu_hour": "0.200600",
                    "disk_dollars_per_gpu_hour": "0.001000",
                    "traffic_dollars_per_gpu_hour": "0.002000",
                    "boot_dollars_per_gpu_hour": "0.000500",
                    "interruption_dollars_per_gpu_hour": "0.010000",
                    "waiting_dollars_per_gpu_hour": "0.000100"
                  },
                  "reserve_dollars": "9.00",
                  "reason": "cheapest",
                  "text": "rent 2 GPUs of machine 71 at a bid of $0.4012/h with 40 GB of disk",
                  "limit": "job-total",
                  "limit_text": "the total limit of job train"
                }
              ],
              "jobs": [
                {
                  "job": "train",
                  "replicas": [
                    {
                      "replica": "train/0",
                      "situation": "renting",
                      "text": "being rented now"
                    }
                  ],
                  "eligible": 2,
                  "best": [
                    {
                      "machine": 71,
                      "gpus": 2,
                      "offer": 710,
                      "gpu_name": "RTX 4090",
                      "rental": "bid",
                      "price_dollars_per_hour": "0.4012",
                      "storage_dollars_per_hour": "0.00207407",
                      "landed": {
                        "total_dollars_per_gpu_hour": "0.214200",
                        "compute_dollars_per_gpu_hour": "0.200600",
                        "disk_dollars_per_gpu_hour": "0.001000",
                        "traffic_dollars_per_gpu_hour": "0.002000",
                        "boot_dollars_per_gpu_hour": "0.000500",
                        "interruption_dollars_per_gpu_hour": "0.010000",
                        "waiting_dollars_per_gpu_hour": "0.000100"
                      }
                    },
                    {
                      "machine": 9,
                      "gpus": 2,
                      "offer": 90,
                      "gpu_name": "RTX 4090",
                      "rental": "on-demand",
                      "price_dollars_per_hour": "0.60",
                      "storage_dollars_per_hour": "0.00207407",
                      "landed": {
                        "total_dollars_per_gpu_hour": "0.313600",
                        "compute_dollars_per_gpu_hour": "0.300000",
                        "disk_dollars_per_gpu_hour": "0.001000",
                        "traffic_dollars_per_gpu_hour": "0.002000",
                        "boot_dollars_per_gpu_hour": "0.000500",
                        "interruption_dollars_per_gpu_hour": "0.010000",
                        "waiting_dollars_per_gpu_hour": "0.000100"
                      }
                    }
                  ],
                  "refused": {
                    "gpu-model": 40,
                    "over-ceiling": 3
                  },
                  "best_refused": [
                    {
                      "machine": 5,
                      "gpus": 2,
                      "offer": 55,
                      "price_dollars_per_hour": "0.38",
                      "reason": "reliability",
                      "text": "reliability too low, or unknown"
                    }
                  ],
                  "on_demand_best": {
                    "machine": 9,
                    "gpus": 2,
                    "offer": 90,
                    "gpu_name": "RTX 4090",
                    "rental": "on-demand",
                    "price_dollars_per_hour": "0.60",
                    "storage_dollars_per_hour": "0.00207407",
                    "landed": {
                      "total_dollars_per_gpu_hour": "0.313600",
                      "compute_dollars_per_gpu_hour": "0.300000",
                      "disk_dollars_per_gpu_hour": "0.001000",
                      "traffic_dollars_per_gpu_hour": "0.002000",
                      "boot_dollars_per_gpu_hour": "0.000500",
                      "interruption_dollars_per_gpu_hour": "0.010000",
                      "waiting_dollars_per_gpu_hour": "0.000100"
                    }
                  }
                }
              ],
              "notices": [],
              "limits": []
            }"#]]
        .assert_eq(&serde_json::to_string_pretty(&document).unwrap());
    }
}
