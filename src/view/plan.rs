//! Plans and reports as documents.

use std::collections::BTreeMap;

use serde::Serialize;
use utoipa::ToSchema;

use super::limits::{self, LimitDocument};
use super::words;
use crate::types::deadline::DeadlineView;
use crate::types::ids::{OfferId, Permit, Slot};
use crate::types::intent::Effect;
use crate::types::money::Rate;
use crate::types::plan::{
    Action, Candidate, JobReport, Plan, PriceParts, Refusal, ReplicaReport, Report, Situation,
};
use crate::types::recourse::Turn;
use crate::types::state::Severity;
use crate::types::time::Time;

/// A landed price with its parts, in dollars per useful GPU-hour.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(crate) struct PartsDocument {
    pub(crate) total_dollars_per_gpu_hour: String,
    pub(crate) compute_dollars_per_gpu_hour: String,
    pub(crate) disk_dollars_per_gpu_hour: String,
    pub(crate) traffic_dollars_per_gpu_hour: String,
    pub(crate) boot_dollars_per_gpu_hour: String,
    pub(crate) interruption_dollars_per_gpu_hour: String,
    pub(crate) waiting_dollars_per_gpu_hour: String,
}

/// A slot that a job could take.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(crate) struct CandidateDocument {
    pub(crate) machine: u64,
    pub(crate) gpus: u32,
    pub(crate) offer: u64,
    pub(crate) gpu_name: String,
    pub(crate) rental: &'static str,
    pub(crate) price_dollars_per_hour: String,
    pub(crate) storage_dollars_per_hour: String,
    pub(crate) landed: PartsDocument,
}

/// A slot that was refused.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(crate) struct RefusedDocument {
    pub(crate) machine: u64,
    pub(crate) gpus: u32,
    pub(crate) offer: u64,
    pub(crate) price_dollars_per_hour: String,
    pub(crate) reason: &'static str,
    pub(crate) text: &'static str,
}

/// What a replica does and waits for.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(crate) struct SituationDocument {
    pub(crate) replica: String,
    pub(crate) situation: String,
    pub(crate) text: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) recourses: Vec<RecourseDocument>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) deadline: Option<DeadlineDocument>,
}

/// A step after an outbid, and how it stands.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(crate) struct RecourseDocument {
    pub(crate) step: &'static str,
    /// How it stands: `is`, and what belongs to that.
    #[serde(flatten)]
    #[schema(value_type = Object)]
    pub(crate) turn: Turn,
    pub(crate) text: String,
}

/// How a replica stands with its deadline.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(crate) struct DeadlineDocument {
    pub(crate) deadline: String,
    pub(crate) stance: &'static str,
    pub(crate) needs_seconds: i64,
    pub(crate) left_seconds: i64,
    pub(crate) text: String,
}

/// Why a job got what it got.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(crate) struct ReasonsDocument {
    pub(crate) job: String,
    pub(crate) replicas: Vec<SituationDocument>,
    pub(crate) eligible: u32,
    pub(crate) best: Vec<CandidateDocument>,
    pub(crate) refused: BTreeMap<&'static str, u32>,
    pub(crate) best_refused: Vec<RefusedDocument>,
    pub(crate) on_demand_best: Option<CandidateDocument>,
}

/// One thing to do.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(crate) struct ActionDocument {
    pub(crate) action: &'static str,
    pub(crate) replica: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) instance: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) machine: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) gpus: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) offer: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) rental: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) price_dollars_per_hour: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) storage_dollars_per_hour: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) landed: Option<PartsDocument>,
    pub(crate) reserve_dollars: String,
    pub(crate) reason: &'static str,
    /// The reason in words.
    pub(crate) reason_text: &'static str,
    pub(crate) text: String,
}

/// What a limit held back.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(crate) struct DroppedDocument {
    #[serde(flatten)]
    pub(crate) action: ActionDocument,
    pub(crate) limit: &'static str,
    pub(crate) limit_text: String,
}

#[derive(Clone, Debug, Serialize, ToSchema)]
pub(crate) struct NoticeDocument {
    #[schema(value_type = String)]
    pub(crate) severity: Severity,
    pub(crate) kind: String,
    pub(crate) replica: Option<String>,
    pub(crate) text: String,
}

/// A whole plan with its report.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(crate) struct PlanDocument {
    pub(crate) at: String,
    pub(crate) actions: Vec<ActionDocument>,
    pub(crate) dropped: Vec<DroppedDocument>,
    pub(crate) jobs: Vec<ReasonsDocument>,
    pub(crate) notices: Vec<NoticeDocument>,
    pub(crate) limits: Vec<LimitDocument>,
}

/// The document of a plan and its report, decided at `now`.
pub(crate) fn plan_document(plan: &Plan, report: &Report, now: Time) -> PlanDocument {
    PlanDocument {
        at: now.to_string(),
        actions: plan.actions.iter().map(action_document).collect(),
        dropped: dropped(report, usize::MAX),
        jobs: report.jobs.iter().map(|j| reasons(j, now)).collect(),
        limits: limits::documents(&report.limits),
        notices: notices(report, usize::MAX),
    }
}

/// What a limit held back, at most so many.
pub(crate) fn dropped(report: &Report, most: usize) -> Vec<DroppedDocument> {
    let dropped = report.dropped.iter().take(most);
    dropped
        .map(|(action, limit)| DroppedDocument {
            action: action_document(action),
            limit: limit.as_str(),
            limit_text: words::limit(limit),
        })
        .collect()
}

/// What a report has to tell, at most so much.
pub(crate) fn notices(report: &Report, most: usize) -> Vec<NoticeDocument> {
    let notices = report.notices.iter().take(most);
    notices
        .map(|notice| NoticeDocument {
            severity: notice.severity,
            kind: notice.kind.clone(),
            replica: notice.replica.as_ref().map(ToString::to_string),
            text: notice.text.clone(),
        })
        .collect()
}

fn recourses(report: &ReplicaReport, now: Time) -> Vec<RecourseDocument> {
    let all = report.recourses.iter();
    all.map(|(step, turn)| RecourseDocument {
        step: step.as_str(),
        turn: turn.clone(),
        text: words::turn(turn, now),
    })
    .collect()
}

/// The document of how a replica stands with its deadline.
pub(crate) fn deadline_document(view: &DeadlineView) -> DeadlineDocument {
    DeadlineDocument {
        deadline: view.deadline.to_string(),
        stance: view.stance.as_str(),
        needs_seconds: view.needs_ms / 1000,
        left_seconds: view.left_ms / 1000,
        text: words::deadline(view),
    }
}

/// The document of a job's report.
pub(crate) fn reasons(report: &JobReport, now: Time) -> ReasonsDocument {
    ReasonsDocument {
        job: report.job.to_string(),
        replicas: report
            .replicas
            .iter()
            .map(|r| SituationDocument {
                replica: r.replica.to_string(),
                situation: situation_word(&r.situation),
                text: words::situation(&r.situation, now),
                recourses: recourses(r, now),
                deadline: r.deadline.as_ref().map(deadline_document),
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

/// The document of an action.
pub(crate) fn action_document(action: &Action) -> ActionDocument {
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
        reason_text: words::why(action.why),
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

pub(crate) fn effect_text(effect: &Effect) -> String {
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
