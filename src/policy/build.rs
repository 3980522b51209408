//! From what was read to a job, with the checks that concern more than one field.

use std::collections::BTreeMap;
use std::time::Duration;

use super::kind::Value;
use super::reader::Reading;
use crate::types::ids::{HostId, MachineId};
use crate::types::job::{
    Budget, CheckpointPlace, Finish, Job, RegistryLogin, RentalChoice, Requirements, Retries, Run,
    RunType,
};
use crate::types::money::{Money, Rate};
use crate::types::schedule::{Schedule, Window};
use crate::types::time::human;

use super::kind::ENV_ENTRY_MAX;

/// All environment variables together, as the marketplace documents it.
const ENV_TOTAL_MAX: usize = 32_768;

/// The command and its arguments together, as the marketplace documents it.
const COMMAND_MAX: usize = 4096;

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

    /// When the job is finished; without a word on it, by whether it has work.
    fn finish(&self) -> Option<Finish> {
        if !self.given("finish") {
            return Some(if self.given("work.gpu_hours") {
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
    check_run(reading);
    check_rental(reading);
    check_work(reading);
    check_loss(reading);
    check_bounds(reading);
    windows(reading)
}

fn check_run(reading: &mut Reading) {
    if reading.given("run") && !reading.given("run.image") && !reading.given("run.template") {
        reading.fault(
            "run",
            "neither `run.image` nor `run.template` is given",
            "add image = \"repository/image:tag\" to [run]",
        );
    }
    if let Some(image) = reading.text("run.image")
        && image.contains(char::is_whitespace)
    {
        reading.fault(
            "run.image",
            "an image has no blanks in its name",
            "write it as \"repository/image:tag\"",
        );
    }
    if reading.given("run.command") && reading.given("run.onstart") {
        reading.fault(
            "run.onstart",
            "`run.command` and `run.onstart` are the same thing",
            "keep one of the two",
        );
    }
    if reading.given("run.login") && !reading.given("run.image") {
        reading.fault(
            "run.login",
            "a login is for `run.image`, which is not given",
            "add the image, or remove [run.login]",
        );
    }
    let args = reading.texts("run.args").unwrap_or_default();
    if !args.is_empty() && !matches!(reading.run_type(), Some(RunType::Args) | None) {
        reading.fault(
            "run.args",
            "arguments go to the image's entry point, which is not run by this `run.type`",
            "use type = \"args\", or put them into `command`",
        );
    }
    let command = reading
        .text("run.command")
        .or_else(|| reading.text("run.onstart"))
        .unwrap_or_default();
    // The arguments travel with a blank between them.
    let length =
        command.chars().count() + args.iter().map(|a| a.chars().count() + 1).sum::<usize>();
    if length > COMMAND_MAX {
        let path = if command.is_empty() {
            "run.args"
        } else if reading.given("run.command") {
            "run.command"
        } else {
            "run.onstart"
        };
        reading.fault(
            path,
            format!(
                "the command and its arguments are {length} characters long; the marketplace takes {COMMAND_MAX}"
            ),
            "put the script into the image, or fetch it in the command",
        );
    }
    check_env(reading);
}

fn check_env(reading: &mut Reading) {
    let env = reading.env("run.env").unwrap_or_default();
    let secrets = reading.secrets("run.secrets").unwrap_or_default();
    for name in secrets.keys().filter(|name| env.contains_key(*name)) {
        reading.fault(
            "run.secrets",
            format!("`{name}` is in `run.env` and in `run.secrets`"),
            "keep one of the two",
        );
    }
    let plain: usize = env
        .iter()
        .map(|(name, value)| name.chars().count() + 1 + value.chars().count())
        .sum();
    // A secret's length is not known here; the most that the marketplace takes is counted.
    let total = plain + secrets.len() * ENV_ENTRY_MAX;
    if total > ENV_TOTAL_MAX {
        reading.fault(
            "run.env",
            format!(
                "all variables together may take {total} characters (a secret counts {ENV_ENTRY_MAX}); the marketplace takes {ENV_TOTAL_MAX}"
            ),
            "let the job read them from a file",
        );
    }
    let ports = reading.ports("run.ports").unwrap_or_default();
    for (index, (port, protocol)) in ports.iter().enumerate() {
        if ports[..index].contains(&(*port, protocol.clone())) {
            reading.fault(
                "run.ports",
                format!("{port}/{protocol} is listed twice"),
                "list each port once",
            );
        }
    }
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
        || reading.flag("data.disposable") != Some(false)
        || reading.flag("restartable") != Some(false);
    let (Some(work), Some(replicas), Some(gpus)) = (
        reading.number("work.gpu_hours"),
        reading.integer("replicas"),
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
            "add [checkpoint] every and place, or [data] disposable = true, or restartable = true if it may start again from nothing, or use rental = \"on-demand\"",
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

/// The job, where nothing is wrong. `None` only if a required field is absent, which was told.
pub(super) fn job(reading: &Reading, windows: Vec<Window>) -> Option<Job> {
    Some(Job {
        name: reading.text("name")?.parse().ok()?,
        owner: reading.text("owner"),
        tags: reading.texts("tags").unwrap_or_default(),
        priority: i32::try_from(reading.integer("priority")?).ok()?,
        replicas: reading.whole("replicas")?,
        run: run(reading)?,
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
        checkpoint_every: reading.span("checkpoint.every"),
        checkpoint_place: match reading.text("checkpoint.place").as_deref() {
            Some("disk") => Some(CheckpointPlace::Disk),
            Some("remote") => Some(CheckpointPlace::Remote),
            _ => None,
        },
        disposable: reading.flag("data.disposable")?,
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
        provision_timeout: reading.span("provision_timeout")?,
    })
}

fn run(reading: &Reading) -> Option<Run> {
    let login = if reading.given("run.login") {
        Some(RegistryLogin {
            registry: reading.text("run.login.registry")?,
            user: reading.text("run.login.user")?,
            password: reading.secret("run.login.password")?,
        })
    } else {
        None
    };
    Some(Run {
        image: reading.text("run.image"),
        login,
        template: reading.text("run.template"),
        run_type: reading.run_type()?,
        runner: None,
        onstart: reading
            .text("run.command")
            .or_else(|| reading.text("run.onstart")),
        args: reading.texts("run.args").unwrap_or_default(),
        env: reading.env("run.env").unwrap_or_default(),
        secrets: reading.secrets("run.secrets").unwrap_or_default(),
        ports: reading.ports("run.ports").unwrap_or_default(),
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
