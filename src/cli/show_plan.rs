//! Plans, rankings and reports, as text for people.

use std::fmt::Write as _;

use super::output::{Align, Output};
use crate::types::plan::{Action, Candidate, JobReport, Limit, Plan, Refusal, Report};
use crate::types::time::Time;
use crate::view::plan::effect_text;
use crate::view::words;

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
        text.push_str(&job_text(output, job, now, (BEST_SHOWN, false)));
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

/// A job's report for people: its replicas, the best `shown` slots, and why others were refused. It is
/// told as what is done, or as what would be.
pub(crate) fn job_text(
    output: Output,
    report: &JobReport,
    now: Time,
    (shown, is_done): (usize, bool),
) -> String {
    let mut text = format!("{}\n", report.job);
    for (first, last) in report.grouped() {
        let doing = if is_done {
            words::situation(&first.situation, now)
        } else {
            words::situation_planned(&first.situation, now)
        };
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
    use crate::types::ids::{MachineId, OfferId, ReplicaId, Slot};
    use crate::types::instance::Rental;
    use crate::types::intent::Effect;
    use crate::types::ledger::Scope;
    use crate::types::limit::Measure;
    use crate::types::money::{Money, Rate};
    use crate::types::plan::{PriceParts, ReplicaReport, Situation, Why};
    use crate::view::plan::plan_document;
    use expect_test::expect;
    use std::collections::BTreeMap;

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
              train/0: would be rented now
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
                  "reason_text": "the cheapest slot that suits",
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
                  "reason_text": "the cheapest slot that suits",
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
