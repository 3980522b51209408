//! Jobs as documents: what each is doing and what it has cost.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;
use utoipa::ToSchema;

use super::rented::Rented;
use super::words;
use crate::engine::array::{Member, Standing, members};
use crate::engine::projection::burn_now;
use crate::types::ids::{JobName, ReplicaId};
use crate::types::instance::{Held, Phase};
use crate::types::job::{Job, Parameters};
use crate::types::ledger::Scope;
use crate::types::money::{Money, Rate};
use crate::types::state::{Ending, Wish};
use crate::types::time::Time;

/// A job, as programs see it.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(crate) struct JobDocument {
    pub(crate) job: String,
    pub(crate) owner: Option<String>,
    /// `valid`, `broken` or `missing`.
    pub(crate) policy: &'static str,
    /// `run`, `pause`, `stop` or `done`.
    pub(crate) wish: &'static str,
    pub(crate) status: String,
    /// Of an array: how its elements stand.
    pub(crate) array: Option<ArrayDocument>,
    /// Why nothing can be rented for it, until its policy is changed or for a while.
    pub(crate) cannot_start: Option<CannotStart>,
    pub(crate) replicas: Vec<ReplicaDocument>,
    pub(crate) spend_dollars: String,
    pub(crate) spend_today_dollars: String,
    pub(crate) budget_dollars: Option<String>,
    pub(crate) on_demand_equivalent_dollars: String,
    pub(crate) burn_dollars_per_hour: String,
    pub(crate) work_done_gpu_hours: String,
    pub(crate) work_gpu_hours: Option<String>,
    /// When the first limit that binds it is reached at the present burn, as far as the database
    /// knows; the credit is not in it.
    pub(crate) projected_breach_at: Option<String>,
    /// Which limit.
    pub(crate) projected_breach_limit: Option<String>,
    #[serde(skip)]
    pub(crate) breach_in: Option<String>,
}

/// How the elements that an array's policy asks for stand.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(crate) struct ArrayDocument {
    pub(crate) elements: u32,
    pub(crate) max_running: u32,
    pub(crate) finished: u32,
    pub(crate) failed: u32,
    /// With an instance, whatever that does.
    pub(crate) begun: u32,
    pub(crate) waiting: u32,
}

/// What holds a job back, as programs see it.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(crate) struct CannotStart {
    /// `no-status`, `stalled`, `timed-out`, `host-error`, `image-missing`, `image-denied`, `pull-quota`,
    /// `command` or `inputs`.
    pub(crate) fault: &'static str,
    /// The same in words.
    pub(crate) what: &'static str,
    /// The marketplace's words on it.
    pub(crate) message: String,
    /// What would be right.
    pub(crate) help: String,
    /// When it was seen.
    pub(crate) since: String,
    /// When it is tried again by itself; `null`: not before its policy is changed, or `haggle resume`.
    pub(crate) until: Option<String>,
}

#[derive(Clone, Debug, Serialize, ToSchema)]
pub(crate) struct ReplicaDocument {
    pub(crate) replica: String,
    /// The parameters of an element of an array.
    #[schema(value_type = Option<BTreeMap<String, String>>)]
    pub(crate) parameters: Option<Parameters>,
    /// Whether its policy no longer asks for it.
    pub(crate) removed: bool,
    pub(crate) status: &'static str,
    pub(crate) instances: Vec<u64>,
    pub(crate) outbids: u32,
    pub(crate) starts: u32,
    pub(crate) failures: u32,
    /// What its runner told last: one of the states in `docs/runner.md`; `null`: nothing, or it has none.
    pub(crate) runner: Option<String>,
    /// How far its command says that it is.
    pub(crate) progress: Option<f64>,
    /// With what its command ended, in the present start of its container.
    pub(crate) exit_code: Option<i32>,
}

/// The document of a job, known by its policy or by what ran of it.
pub(crate) fn document(
    rented: &Rented<'_>,
    name: &JobName,
    job: Option<&Job>,
    policy: &'static str,
    (now, today): (Time, chrono::NaiveDate),
) -> JobDocument {
    let state = rented.state;
    let record = state.job(name);
    let wanted = job.map_or_else(Vec::new, |job| members(state, job));
    let recorded = state.replicas_of(name).map(|record| Member {
        index: record.id.index,
        parameters: record.parameters.as_ref(),
    });
    let mut all: BTreeMap<u32, Member<'_>> = recorded.map(|one| (one.index, one)).collect();
    all.extend(wanted.iter().map(|&one| (one.index, one)));
    let wanted: BTreeSet<u32> = wanted.iter().map(|one| one.index).collect();
    // Without its policy nothing is rented anyway.
    let hold = job.and_then(|job| record.held_by_fault(&job.run, now));
    let waits = match job {
        _ if state.killed => "spending forbidden",
        Some(job) if is_closed(job, now) => "outside its windows",
        _ => "waiting",
    };
    let held_back = match hold {
        Some(_) if !state.killed => "cannot start",
        _ => waits,
    };
    let replicas: Vec<ReplicaDocument> = all
        .into_values()
        .map(|one| ReplicaDocument {
            removed: job.is_some() && !wanted.contains(&one.index),
            ..replica(rented, name, one, held_back)
        })
        .collect();
    // What was taken out of an array is history; a copy too many of a plain job is still to be seen.
    let is_counted = |one: &&ReplicaDocument| !one.removed || one.parameters.is_none();
    let counted: Vec<&ReplicaDocument> = replicas.iter().filter(is_counted).collect();
    let array = job.and_then(|job| {
        let standing = Standing::of(state, job);
        Some(ArrayDocument {
            elements: job.replicas,
            max_running: job.array.as_ref()?.max_running,
            finished: standing.finished,
            failed: standing.failed,
            begun: standing.begun,
            waiting: standing.waiting,
        })
    });
    let done_ms: i64 = state
        .replicas_of(name)
        .map(crate::types::state::ReplicaRecord::done_gpu_ms)
        .sum();
    let burn: Rate = rented.of_job(name).map(burn).sum();
    let usage = state.usage(&Scope::Job(name.clone()));
    JobDocument {
        job: name.to_string(),
        owner: job.and_then(|job| job.owner.clone()),
        policy,
        wish: words::wish(record.wish),
        status: status(record.wish, policy, &counted),
        array,
        cannot_start: hold.map(|hold| CannotStart {
            fault: hold.fault.as_str(),
            what: hold.fault.what(),
            message: hold.message.clone(),
            help: hold.fault.help(name.as_str()),
            since: hold.since.to_string(),
            until: hold.until.map(|until| until.to_string()),
        }),
        replicas,
        spend_dollars: usage.total.decimal(),
        spend_today_dollars: usage.on(today).decimal(),
        budget_dollars: job.and_then(|job| job.budget.total).map(Money::decimal),
        on_demand_equivalent_dollars: record.on_demand_equivalent.decimal(),
        burn_dollars_per_hour: burn.decimal(),
        work_done_gpu_hours: gpu_hours(done_ms),
        work_gpu_hours: job
            .and_then(|job| job.work_mgpu_h)
            .map(|work| format!("{}.{:03}", work / 1000, work % 1000)),
        projected_breach_at: None,
        projected_breach_limit: None,
        breach_in: None,
    }
}

/// Whether none of a job's windows is open.
pub(crate) fn is_closed(job: &Job, now: Time) -> bool {
    !job.windows.is_empty() && !job.windows.iter().any(|window| window.is_open(now))
}

/// What an instance is billed per hour now: its disk, and its GPUs where they run.
pub(crate) fn burn(held: &Held) -> Rate {
    burn_now(held)
}

fn gpu_hours(milliseconds: i64) -> String {
    format!("{:.3}", milliseconds as f64 / 3_600_000.0)
}

/// `without` is what it does where it has no instance.
fn replica(
    rented: &Rented<'_>,
    job: &JobName,
    of: Member<'_>,
    without: &'static str,
) -> ReplicaDocument {
    let id = ReplicaId {
        job: job.clone(),
        index: of.index,
    };
    let record = rented.state.replica(&id);
    let held = rented.of_replica(&id);
    let status = match record.ending {
        Some((Ending::Finished, _)) => "finished",
        Some((Ending::Failed, _)) => "failed",
        None => held.last().copied().map_or(without, held_word),
    };
    let told = held.last().and_then(|held| held.runner.as_ref());
    ReplicaDocument {
        runner: told.and_then(|view| view.state.clone()),
        progress: told.and_then(|view| view.progress).or(record.furthest),
        exit_code: told.and_then(|view| view.exit),
        replica: id.to_string(),
        parameters: of.parameters.cloned(),
        removed: false,
        status,
        instances: held.iter().map(|held| held.id.0).collect(),
        outbids: record.outbids,
        starts: record.starts,
        failures: record.failures,
    }
}

/// What an instance of ours does, in a word that also says whose doing a stop is.
pub(crate) fn held_word(held: &Held) -> &'static str {
    if held.destroying.is_some() {
        return "clearing";
    }
    match held.phase {
        Phase::Stopped if held.parked || held.is_parked_by_others() => "parked",
        Phase::Stopped if !held.stop_asked => "outbid",
        phase => phase.as_str(),
    }
}

fn status(wish: Wish, policy: &str, replicas: &[&ReplicaDocument]) -> String {
    let count = |word: &str| replicas.iter().filter(|r| r.status == word).count();
    let mut words: Vec<&str> = replicas.iter().map(|replica| replica.status).collect();
    words.sort_unstable();
    words.dedup();
    let doing = words
        .into_iter()
        .map(|word| match (replicas.len(), count(word)) {
            (1, _) => word.to_owned(),
            (all, some) => format!("{some}/{all} {word}"),
        })
        .collect::<Vec<_>>()
        .join(", ");
    let wish = match wish {
        Wish::Run if policy == "missing" => "no policy",
        Wish::Run if policy == "broken" => "policy broken",
        Wish::Run => return doing,
        Wish::Pause => "paused",
        Wish::Stop => "stopped",
        Wish::Done => "done",
    };
    match doing.as_str() {
        "" | "waiting" | "cannot start" | "spending forbidden" | "outside its windows" => {
            wish.into()
        }
        doing => format!("{wish}: {doing}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::ids::Installation;
    use crate::types::state::State;

    const SWEEP: &str = "name = \"sweep\"\n[run]\nimage = \"x\"\nsupervised = true\ncommand = \"c\"\n\
                         [price]\nmax = \"$1/gpu-hour\"\n\
                         [array]\nmatrix = { SEED = [1, 2, 3, 4] }\nmax_running = 2\n";

    #[test]
    fn an_array_is_counted_by_what_its_policy_asks_for() {
        let job = crate::policy::parse("sweep.toml", SWEEP).unwrap();
        let mut state = State::new(Installation::from_seed(1));
        let finished = Some((Ending::Finished, Time(0)));
        for (index, seed, ending) in [
            (0, "1", finished),
            (1, "2", Some((Ending::Failed, Time(0)))),
            (2, "99", finished),
        ] {
            let job = job.name.clone();
            let mut record = state.replica(&ReplicaId { job, index });
            record.parameters = Some(Parameters::from([("SEED".to_owned(), seed.to_owned())]));
            record.ending = ending;
            state.replicas.insert(record.id.clone(), record);
        }
        let today = chrono::NaiveDate::default();
        let shown = document(
            &Rented::of(&state),
            &job.name,
            Some(&job),
            "valid",
            (Time(0), today),
        );
        assert_eq!(shown.status, "1/4 failed, 1/4 finished, 2/4 waiting");
        let array = serde_json::to_value(&shown.array).unwrap();
        let counts = serde_json::json!({
            "elements": 4, "max_running": 2, "finished": 1, "failed": 1, "begun": 0, "waiting": 2,
        });
        assert_eq!(array, counts);
        let seed = |one: &ReplicaDocument| one.parameters.as_ref().unwrap()["SEED"].clone();
        let all: Vec<_> = shown
            .replicas
            .iter()
            .map(|one| (&one.replica[..], seed(one), one.removed))
            .collect();
        let row = |replica, seed: &str, removed| (replica, seed.to_owned(), removed);
        // What was taken out is shown with its results, and its number is nobody else's.
        let wanted = [
            row("sweep/0", "1", false),
            row("sweep/1", "2", false),
            row("sweep/2", "99", true),
            row("sweep/3", "3", false),
            row("sweep/4", "4", false),
        ];
        assert_eq!(all, wanted);
    }

    #[test]
    fn what_keeps_a_job_waiting_is_named_where_it_is_not_the_market() {
        let text = "name = \"a\"\n[run]\nimage = \"x\"\n[price]\nmax = \"$1/gpu-hour\"\n\
                    [[window]]\ncron = \"0 22 * * *\"\nlasts = \"1h\"\n";
        let job = crate::policy::parse("a.toml", text).unwrap();
        let mut state = State::new(Installation::from_seed(1));
        let status = |state: &State, hour: i64| {
            let at = Time(hour * 3_600_000 + 1);
            let today = at.day(chrono_tz::Tz::UTC);
            document(
                &Rented::of(state),
                &job.name,
                Some(&job),
                "valid",
                (at, today),
            )
            .status
        };
        assert_eq!(status(&state, 22), "waiting");
        assert_eq!(status(&state, 12), "outside its windows");
        state.killed = true;
        assert_eq!(status(&state, 22), "spending forbidden");
        assert_eq!(status(&state, 12), "spending forbidden");
    }

    use crate::types::start::{Asked, Hold, StartFault};

    #[test]
    fn what_holds_a_job_back_is_shown_with_what_would_be_right() {
        let text = "name = \"a\"\n[run]\nimage = \"me/image:1\"\n[price]\nmax = \"$1/gpu-hour\"\n";
        let job = crate::policy::parse("a.toml", text).unwrap();
        let mut state = State::new(crate::types::ids::Installation::from_seed(0));
        let mut record = state.job(&job.name);
        record.starts.hold = Some(Hold {
            fault: StartFault::PullQuota,
            asked: Asked::of(&job.run),
            message: "toomanyrequests: no more".to_owned(),
            since: Time(0),
            until: Some(Time(3_600_000)),
            times: 1,
        });
        state.jobs.insert(job.name.clone(), record);
        let shown = |job: Option<&Job>, at: Time| {
            let day = at.day(chrono_tz::Tz::UTC);
            let name = "a".parse().unwrap();
            let document = document(&Rented::of(&state), &name, job, "valid", (at, day));
            let json = serde_json::to_value(&document.cannot_start).unwrap();
            (document.status, json)
        };
        let (status, json) = shown(Some(&job), Time(3_599_999));
        assert_eq!(status, "cannot start");
        assert_eq!(
            json,
            serde_json::json!({
                "fault": "pull-quota",
                "what": "the registry lets no more be pulled for now",
                "message": "toomanyrequests: no more",
                "help": StartFault::PullQuota.help("a"),
                "since": "1970-01-01T00:00:00Z",
                "until": "1970-01-01T01:00:00Z",
            })
        );
        let nothing = ("waiting".to_owned(), serde_json::Value::Null);
        assert_eq!(shown(Some(&job), Time(3_600_000)), nothing);
        let mut other = job.clone();
        other.run.image = Some("me/image:2".to_owned());
        assert_eq!(shown(Some(&other), Time(0)), nothing);
        assert_eq!(shown(None, Time(0)).1, nothing.1);
    }
}
