//! From what was read to a job, with the checks that concern more than one field.

mod array;
mod deadline;
mod inputs;
mod run;
mod service;
mod supervised;

use std::collections::BTreeMap;
use std::time::Duration;

use super::kind::Value;
use super::reader::Reading;
use crate::types::deadline::DeadlineKind;
use crate::types::ids::{HostId, MachineId};
use crate::types::job::{
    Budget, CheckpointPlace, Finish, Job, RentalChoice, Requirements, Retries, RunType,
};
use crate::types::money::{Money, Rate};
use crate::types::schedule::{Schedule, Window};
use crate::types::start::StartRules;
use crate::types::time::human;

/// Longest stretch of work on bids that may be lost without the policy saying so.
const LOSS_MAX_HOURS: f64 = 1.0;

/// Reads one variant of [`Value`] by path.
macro_rules! getters {
    ($($name:ident: $variant:ident -> $type:ty;)*) => {
        impl Reading {
            $(fn $name(&self, path: &str) -> Option<$type> {
                match self.get(path)? {
                    Value::$variant(value) => Some(value.clone()),
                    _ => None,
                }
            })*
        }
    };
}

getters! {
    text: Text -> String;
    flag: Flag -> bool;
    integer: Integer -> i64;
    number: Number -> f64;
    span: Span -> Duration;
    nanos: Nanos -> i64;
    margin: Margin -> crate::types::job::BidMargin;
    texts: Texts -> Vec<String>;
    countries: Countries -> Vec<crate::types::offer::Country>;
    ids: Ids -> Vec<u64>;
    ports: Ports -> Vec<(u16, String)>;
    env: Env -> BTreeMap<String, String>;
    secrets: Secrets -> BTreeMap<String, crate::types::job::SecretRef>;
    secret: Secret -> crate::types::job::SecretRef;
    factors: Factors -> BTreeMap<String, u32>;
    zone: Zone -> chrono_tz::Tz;
    sets: Sets -> Vec<super::sets::Set>;
    axes: Axes -> Vec<super::sets::Axis>;
    moment: Instant -> crate::types::time::Time;
}

impl Reading {
    fn whole(&self, path: &str) -> Option<u32> {
        u32::try_from(self.integer(path)?).ok()
    }

    fn rounded_up(&self, path: &str) -> Option<u32> {
        self.number(path).map(|n| n.ceil() as u32)
    }

    fn float(&self, path: &str) -> Option<f32> {
        self.number(path).map(|n| n as f32)
    }

    fn money(&self, path: &str) -> Option<Money> {
        self.nanos(path).map(Money)
    }

    fn rate(&self, path: &str) -> Option<Rate> {
        self.nanos(path).map(Rate)
    }

    fn rental(&self) -> Option<RentalChoice> {
        match self.text("rental")?.as_str() {
            "interruptible" => Some(RentalChoice::Interruptible),
            "on-demand" => Some(RentalChoice::OnDemand),
            "auto" => Some(RentalChoice::Auto),
            _ => None,
        }
    }

    /// By which rule it is kept in time.
    fn deadline_policy(&self) -> DeadlineKind {
        let name = self.text("policy");
        let named = name.and_then(|name| DeadlineKind::named(&name));
        named.unwrap_or_default()
    }

    /// Whether the runner looks after the command; `None` where that is not known.
    fn supervised(&self) -> Option<bool> {
        self.flag("run.supervised")
    }

    /// When the job is finished; without a word on it, by whether its end can be heard of, and whether
    /// it has work.
    fn finish(&self) -> Option<Finish> {
        if !self.given("finish") {
            return Some(if self.given("array") {
                Finish::Exit
            } else if self.given("service") {
                Finish::Never
            } else if self.supervised()? {
                // What it does is known, and how much that is was estimated.
                Finish::Exit
            } else if self.given("work.gpu_hours") {
                Finish::Work
            } else {
                Finish::Manual
            });
        }
        match self.text("finish")?.as_str() {
            "work" => Some(Finish::Work),
            "exit" => Some(Finish::Exit),
            "gone" => Some(Finish::Gone),
            "manual" => Some(Finish::Manual),
            "never" => Some(Finish::Never),
            _ => None,
        }
    }

    /// How many replicas there are: of an array, one for each element.
    fn replicas(&self) -> Option<u32> {
        if self.given("array") {
            return u32::try_from(self.elements.as_ref()?.len()).ok();
        }
        self.whole("replicas")
    }

    /// How often the job checkpoints; of a directory that the runner keeps, as often as it is kept.
    fn checkpoint_every(&self) -> Option<Duration> {
        let kept = self.given("data.checkpoint").then_some("data.sync_every");
        self.span("checkpoint.every").or_else(|| self.span(kept?))
    }

    /// Where the checkpoints are; of a directory that the runner keeps, where it keeps it.
    fn checkpoint_place(&self) -> Option<CheckpointPlace> {
        match self.text("checkpoint.place").as_deref() {
            Some("disk") => Some(CheckpointPlace::Disk),
            Some("remote") => Some(CheckpointPlace::Remote),
            _ => self.kept_place(),
        }
    }

    /// Where the runner keeps the checkpoints; `None`: it keeps none.
    fn kept_place(&self) -> Option<CheckpointPlace> {
        let place = if self.given("data.storage") {
            CheckpointPlace::Remote
        } else {
            CheckpointPlace::Disk
        };
        self.given("data.checkpoint").then_some(place)
    }

    fn run_type(&self) -> Option<RunType> {
        match self.text("run.type")?.as_str() {
            "args" => Some(RunType::Args),
            "ssh" => Some(RunType::Ssh),
            "jupyter" => Some(RunType::Jupyter),
            _ => None,
        }
    }
}

/// Notes what is wrong between fields. A field that is itself wrong was told already, and what
/// depends on it is passed over.
pub(super) fn check(reading: &mut Reading) -> Vec<Window> {
    // First, for what the others reckon with.
    array::check(reading);
    run::check(reading);
    supervised::check(reading);
    service::check(reading);
    check_rental(reading);
    check_work(reading);
    check_loss(reading);
    check_bounds(reading);
    check_start(reading);
    let windows = windows(reading);
    deadline::check(reading, !windows.is_empty());
    windows
}

fn check_rental(reading: &mut Reading) {
    if reading.rental() != Some(RentalChoice::OnDemand) {
        return;
    }
    for (path, what) in [
        ("price.bid_margin", "a margin over the least bid"),
        ("patience", "patience with being outbid"),
    ] {
        if reading.given(path) {
            reading.fault(
                path,
                format!("`{path}` has no effect with rental = \"on-demand\", which places no bids"),
                format!("remove {what}, or use rental = \"auto\""),
            );
        }
    }
}

fn check_work(reading: &mut Reading) {
    let finish = reading.finish();
    let has_work = reading.given("work.gpu_hours");
    if finish == Some(Finish::Work) && !has_work {
        reading.fault(
            "finish",
            "finish = \"work\" needs to know how much work there is",
            "add [work] with gpu_hours = 40, or use another finish",
        );
    }
    if finish == Some(Finish::Never) && has_work {
        reading.fault(
            "work.gpu_hours",
            "a job that never finishes has no amount of work",
            "remove gpu_hours, or use finish = \"work\"",
        );
    }
    let models = reading.texts("gpu.models").unwrap_or_default();
    let reference = reading.text("work.reference");
    for model in reading.factors("work.factors").unwrap_or_default().keys() {
        if Some(model) == reference.as_ref() {
            reading.fault(
                "work.factors",
                format!("\"{model}\" is the reference, and counts 1"),
                "remove its factor",
            );
        } else if !models.is_empty() && !models.contains(model) {
            reading.fault(
                "work.factors",
                format!("\"{model}\" is not among `gpu.models`: its factor has no effect"),
                format!("the models are \"{}\"", models.join("\", \"")),
            );
        }
    }
}

/// A job on bids may lose all that it did since its last checkpoint.
fn check_loss(reading: &mut Reading) {
    let on_bids = !matches!(reading.rental(), None | Some(RentalChoice::OnDemand));
    let safe = reading.given("checkpoint")
        || reading.given("data.checkpoint")
        || reading.flag("data.disposable") != Some(false)
        || reading.flag("restartable") != Some(false);
    let (Some(work), Some(replicas), Some(gpus)) = (
        reading.number("work.gpu_hours"),
        reading.replicas().map(i64::from),
        reading.integer("gpu.count"),
    ) else {
        return;
    };
    let hours = work / (replicas * gpus) as f64;
    if on_bids && !safe && hours > LOSS_MAX_HOURS {
        let span = Duration::from_secs_f64((hours * 3600.0).min(1e9));
        reading.fault(
            "work.gpu_hours",
            format!(
                "an interruption could lose {} of work: there is no checkpoint",
                human(span)
            ),
            "add [checkpoint] every and place, or [data] checkpoint to a supervised job, or [data] disposable = true, or restartable = true if it may start again from nothing, or use rental = \"on-demand\"",
        );
    }
}

fn check_bounds(reading: &mut Reading) {
    let allowed = reading.countries("machine.countries").unwrap_or_default();
    let denied = reading
        .countries("machine.countries_denied")
        .unwrap_or_default();
    if let Some(&both) = denied.iter().find(|country| allowed.contains(country)) {
        reading.fault(
            "machine.countries_denied",
            format!("{} is both allowed and denied", String::from(both)),
            "keep it in one of the two lists",
        );
    }
    let expected = reading
        .number("traffic.down")
        .zip(reading.number("traffic.up"));
    if let (Some(most), Some((down, up))) = (reading.number("traffic.max"), expected)
        && most < down + up
    {
        reading.fault(
            "traffic.max",
            format!("less than the {} GB that are expected", down + up),
            "raise it to at least down + up",
        );
    }
    let shorter = |reading: &mut Reading, small: &str, large: &str| {
        if let (Some(least), Some(most)) = (reading.span(small), reading.span(large))
            && least > most
        {
            let path = if reading.given(large) { large } else { small };
            reading.fault(
                path,
                format!(
                    "`{small}` ({}) is longer than `{large}` ({})",
                    human(least),
                    human(most)
                ),
                format!("make `{large}` the longer of the two"),
            );
        }
    };
    shorter(reading, "retries.backoff", "retries.backoff_max");
    shorter(reading, "boot_overhead", "max_lifetime");
    shorter(reading, "provision_timeout", "max_lifetime");
    for (small, large, words) in [
        ("per_day", "total", "a day has no effect under a total of"),
        (
            "per_day",
            "per_month",
            "a day has no effect under a month's",
        ),
        (
            "per_month",
            "total",
            "a month has no effect under a total of",
        ),
    ] {
        let (small, large) = (format!("budget.{small}"), format!("budget.{large}"));
        if let (Some(less), Some(more)) = (reading.money(&small), reading.money(&large))
            && less > more
        {
            reading.fault(
                &small,
                format!("{less} {words} {more}"),
                "lower it, or remove it",
            );
            return;
        }
    }
}

/// What has no effect beside another field.
fn check_start(reading: &mut Reading) {
    for path in ["start.status_within", "start.loading_unchanged"] {
        let both = reading.span(path).zip(reading.span("provision_timeout"));
        if let Some((step, whole)) = both.filter(|_| reading.given(path))
            && step >= whole
        {
            reading.fault(
                path,
                format!(
                    "`{path}` ({}) has no effect: the whole start may take {} (`provision_timeout`)",
                    human(step),
                    human(whole)
                ),
                "make it the shorter of the two, or write \"off\"",
            );
        }
    }
    if reading.given("run.idle_after") && reading.finish() == Some(Finish::Never) {
        reading.fault(
            "run.idle_after",
            "`run.idle_after` has no effect with finish = \"never\": a service may wait for work",
            "remove it; that its GPUs are not used is told in any case",
        );
    }
}

fn windows(reading: &mut Reading) -> Vec<Window> {
    let mut windows = Vec::new();
    for index in 0..reading.count("window") {
        let at = |key: &str| format!("window[{index}].{key}");
        let (Some(cron), Some(lasts), Some(zone)) = (
            reading.text(&at("cron")),
            reading.span(&at("lasts")),
            reading.zone(&at("timezone")),
        ) else {
            continue;
        };
        match Schedule::parse(&cron, zone) {
            Ok(opens) => windows.push(Window { opens, lasts }),
            Err(why) => reading.fault(
                &at("cron"),
                format!("`{}`: {why}", at("cron")),
                "such as \"0 22 * * 1-5\": at 22:00, Monday to Friday",
            ),
        }
    }
    windows
}

/// How long the steps of a start may take.
fn start(reading: &Reading) -> Option<StartRules> {
    /// The message of a pull changes with each layer; large ones take their time.
    const UNCHANGED: Duration = Duration::from_mins(10);
    let whole = reading.span("provision_timeout")?;
    let unchanged = if reading.given("start.loading_unchanged") {
        reading.span("start.loading_unchanged")
    } else {
        Some(UNCHANGED.max(whole * 2 / 3))
    };
    Some(StartRules {
        status_within: reading.span("start.status_within"),
        loading_unchanged: unchanged,
    })
}

/// The job, where nothing is wrong. `None` only if a required field is absent, which was told.
pub(super) fn job(reading: &Reading, windows: Vec<Window>) -> Option<Job> {
    Some(Job {
        name: reading.text("name")?.parse().ok()?,
        owner: reading.text("owner"),
        tags: reading.texts("tags").unwrap_or_default(),
        priority: i32::try_from(reading.integer("priority")?).ok()?,
        replicas: reading.replicas()?,
        array: array::array(reading),
        service: service::service(reading),
        run: run::run(reading)?,
        requirements: requirements(reading)?,
        traffic_down_gb: reading.number("traffic.down")?,
        traffic_up_gb: reading.number("traffic.up")?,
        traffic_gb_max: reading.number("traffic.max"),
        rental: reading.rental()?,
        price_max: reading.rate("price.max")?,
        bid_margin: reading.margin("price.bid_margin")?,
        patience: reading.span("patience")?,
        budget: Budget {
            total: reading.money("budget.total"),
            per_day: reading.money("budget.per_day"),
            per_month: reading.money("budget.per_month"),
            per_hour: reading.rate("budget.per_hour"),
        },
        work_mgpu_h: reading
            .number("work.gpu_hours")
            .map(|hours| (hours * 1000.0).ceil() as i64),
        reference_gpu: reading.text("work.reference"),
        factors_ppm: reading.factors("work.factors").unwrap_or_default(),
        checkpoint_every: reading.checkpoint_every(),
        checkpoint_place: reading.checkpoint_place(),
        disposable: reading.flag("data.disposable")?,
        restartable: reading.flag("restartable")?,
        boot_overhead: reading.span("boot_overhead")?,
        windows,
        finish: reading.finish()?,
        min_run: reading.span("min_run")?,
        retries: Retries {
            max: reading.whole("retries.max")?,
            backoff: reading.span("retries.backoff")?,
            backoff_max: reading.span("retries.backoff_max")?,
        },
        lifetime_max: reading.span("max_lifetime"),
        deadline: reading.moment("deadline"),
        deadline_policy: reading.deadline_policy(),
        provision_timeout: reading.span("provision_timeout")?,
        start: start(reading)?,
        idle_after: reading.span("run.idle_after"),
    })
}

fn requirements(reading: &Reading) -> Option<Requirements> {
    let ids = |path| reading.ids(path).unwrap_or_default().into_iter();
    Some(Requirements {
        gpu_models: reading.texts("gpu.models").unwrap_or_default(),
        gpu_count: reading.whole("gpu.count")?,
        gpu_ram_mb_min: reading.rounded_up("gpu.vram"),
        compute_cap_min: reading.whole("gpu.compute_capability"),
        cuda_min: reading.whole("gpu.cuda"),
        driver_min: reading.whole("gpu.driver"),
        nvlink_gb_s_min: reading.float("gpu.nvlink"),
        pcie_gb_s_min: reading.float("gpu.pcie"),
        cpu_cores_min: reading.float("machine.cpu_cores"),
        cpu_ram_mb_min: reading.rounded_up("machine.ram"),
        disk_gb: reading.rounded_up("machine.disk")?,
        disk_mb_s_min: reading.float("machine.disk_bandwidth"),
        inet_down_mbit_s_min: reading.float("machine.download"),
        inet_up_mbit_s_min: reading.float("machine.upload"),
        traffic_price_max: reading.money("traffic.price_max"),
        storage_price_max: reading.money("storage.price_max"),
        reliability_min: reading.float("machine.reliability"),
        verified: reading.flag("machine.verified")?,
        datacenter: reading.flag("machine.datacenter")?,
        static_ip: reading.flag("machine.static_ip")?,
        direct_ports_min: reading.whole("machine.direct_ports"),
        countries: reading.countries("machine.countries").unwrap_or_default(),
        countries_denied: reading
            .countries("machine.countries_denied")
            .unwrap_or_default(),
        machines_denied: ids("machine.machines_denied").map(MachineId).collect(),
        hosts_denied: ids("machine.hosts_denied").map(HostId).collect(),
        remaining_min: reading.span("machine.remaining")?,
    })
}
