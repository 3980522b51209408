//! The jobs that seeds draw from: policies that each lean on something else.

use std::sync::Arc;

use crate::policy;
use crate::types::job::Job;

/// What any slot of a small market may serve.
const GPUS: &str = r#"
[gpu]
models = ["RTX 3060", "RTX 3070", "RTX 3080", "RTX 3090", "RTX 4070", "RTX 4080", "RTX 4090",
          "RTX 5060 Ti", "RTX 5070", "RTX 5080", "RTX 5090", "RTX A4000", "RTX A5000", "RTX A6000",
          "L4", "L40", "L40S", "A10", "A40", "A100 PCIE", "A100 SXM4"]
"#;

const PLAIN: &str = "[run]\nimage = \"a/b:c\"\n";

/// The kinds of jobs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Bids or rents on demand, whichever is cheaper; ends with its work; its disk may be lost.
    Train,
    /// Replicas for good, under limits by the hour and the day.
    Serve,
    /// Work on a disk that must be kept.
    Keep,
    /// So little money that it is soon used up.
    Mite,
    /// Only within windows.
    Night,
    /// Its container ends by itself.
    Once,
    /// Its instance destroys itself.
    Gone,
    /// Its container ends at once, again and again.
    Crash,
    /// On demand, on a disk that must be kept.
    Steady,
    /// Several replicas whose disks must be kept, and little patience.
    Hold,
    /// Supervised: its command ends well, and its outputs stay on its disk.
    Task,
    /// Supervised: its command fails, again and again.
    Slip,
    /// Supervised: its command gets no further.
    Hang,
    /// Supervised: a service of two replicas, whose command does not end.
    Watch,
}

impl Kind {
    /// Those that haggle's runner looks after. They are rented where logs can be read.
    pub(super) const SUPERVISED: [Self; 4] = [Self::Task, Self::Slip, Self::Hang, Self::Watch];

    /// The others.
    pub(super) const ALONE: [Self; 10] = [
        Self::Train,
        Self::Serve,
        Self::Keep,
        Self::Mite,
        Self::Night,
        Self::Once,
        Self::Gone,
        Self::Crash,
        Self::Steady,
        Self::Hold,
    ];

    fn name(self) -> &'static str {
        match self {
            Self::Train => "train",
            Self::Serve => "serve",
            Self::Keep => "keep",
            Self::Mite => "mite",
            Self::Night => "night",
            Self::Once => "once",
            Self::Gone => "gone",
            Self::Crash => "crash",
            Self::Steady => "steady",
            Self::Hold => "hold",
            Self::Task => "task",
            Self::Slip => "slip",
            Self::Hang => "hang",
            Self::Watch => "watch",
        }
    }

    /// What the runner looks after; `None`: it has none.
    fn command(self) -> Option<&'static str> {
        match self {
            Self::Task => Some("HAGGLE_MARKET_RUN_FOR=5400 python train.py"),
            Self::Slip => Some("HAGGLE_MARKET_RUN_FOR=900 HAGGLE_MARKET_EXIT=3 python train.py"),
            Self::Hang => Some("HAGGLE_MARKET_HANG_AFTER=1200 python train.py"),
            Self::Watch => Some("python serve.py"),
            _ => None,
        }
    }

    /// What comes before the first table, what is run, and the tables.
    fn lines(self) -> (&'static str, &'static str, &'static str) {
        let disposable = "[data]\ndisposable = true\n";
        let on_disk = "[checkpoint]\nevery = \"20m\"\nplace = \"disk\"\n";
        match self {
            Self::Train => (
                "rental = \"auto\"\npriority = 10\npatience = \"10m\"\n",
                PLAIN,
                "[work]\ngpu_hours = 6\n[checkpoint]\nevery = \"15m\"\nplace = \"remote\"\n[data]\ndisposable = true\n",
            ),
            Self::Serve | Self::Watch => (
                "rental = \"interruptible\"\nfinish = \"never\"\nreplicas = 2\n",
                PLAIN,
                disposable,
            ),
            Self::Keep => (
                "rental = \"interruptible\"\nfinish = \"manual\"\npatience = \"5m\"\n",
                PLAIN,
                on_disk,
            ),
            Self::Mite => (
                "rental = \"interruptible\"\nfinish = \"manual\"\n",
                PLAIN,
                "",
            ),
            Self::Night => (
                "rental = \"interruptible\"\nfinish = \"manual\"\n",
                PLAIN,
                "[[window]]\ncron = \"0 * * * *\"\nlasts = \"35m\"\n[data]\ndisposable = true\n",
            ),
            Self::Once => (
                "rental = \"interruptible\"\nfinish = \"exit\"\nreplicas = 2\n",
                "[run]\nimage = \"a/b:c\"\n[run.env]\nHAGGLE_MARKET_RUN_FOR = \"5400\"\n",
                "",
            ),
            Self::Gone => (
                "rental = \"interruptible\"\nfinish = \"gone\"\n",
                "[run]\nimage = \"a/b:c\"\n[run.env]\nHAGGLE_MARKET_SELF_DESTROY = \"5400\"\n",
                "",
            ),
            Self::Crash => (
                "rental = \"interruptible\"\nfinish = \"manual\"\n",
                "[run]\nimage = \"a/b:c\"\n[run.env]\nHAGGLE_MARKET_RUN_FOR = \"60\"\n",
                "",
            ),
            Self::Steady => (
                "rental = \"on-demand\"\nfinish = \"manual\"\n",
                PLAIN,
                on_disk,
            ),
            Self::Hold => (
                "rental = \"interruptible\"\nfinish = \"manual\"\nreplicas = 2\npatience = \"5m\"\n",
                PLAIN,
                on_disk,
            ),
            Self::Task => (
                "rental = \"interruptible\"\npatience = \"5m\"\n",
                PLAIN,
                "[data]\ncheckpoint = \"/w/kept\"\noutputs = \"/w/out\"\n",
            ),
            Self::Slip => (
                "rental = \"auto\"\n",
                PLAIN,
                "[retries]\nmax = 2\nbackoff = \"2m\"\n[data]\ndisposable = true\n",
            ),
            Self::Hang => (
                "rental = \"interruptible\"\n",
                "[run]\nimage = \"a/b:c\"\nprogress = \"/w/progress\"\nhung_after = \"20m\"\n",
                "[retries]\nmax = 2\nbackoff = \"2m\"\n[data]\ncheckpoint = \"/w/kept\"\n",
            ),
        }
    }
}

/// By what a runner lets its command work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fence {
    /// By a lease of so many minutes.
    Lease(u64),
    /// By nothing.
    Open,
}

/// What differs between two jobs of a kind. Money in cents.
#[derive(Clone, Copy, Debug)]
pub(super) struct Terms {
    pub(super) ceiling_cents: u64,
    pub(super) disk_gb: u64,
    pub(super) total_cents: Option<u64>,
    pub(super) day_cents: Option<u64>,
    pub(super) hour_cents: Option<u64>,
    pub(super) month_cents: Option<u64>,
    /// GPUs of one instance.
    pub(super) gpus: u32,
    pub(super) owner: Option<&'static str>,
    pub(super) tags: &'static [&'static str],
    /// Most traffic of one instance, GB.
    pub(super) traffic_gb: Option<u64>,
    /// What a supervised job's commands work by.
    pub(super) fence: Fence,
}

/// The text of a policy.
pub(super) fn text(kind: Kind, terms: &Terms) -> String {
    let (head, run, tail) = kind.lines();
    let cents = |cents: u64| format!("${}.{:02}", cents / 100, cents % 100);
    let mut text = format!("name = \"{}\"\n", kind.name());
    if let Some(owner) = terms.owner {
        text.push_str(&format!("owner = \"{owner}\"\n"));
    }
    if !terms.tags.is_empty() {
        text.push_str(&format!("tags = {:?}\n", terms.tags));
    }
    text.push_str(&format!("{head}{run}"));
    if let Some(command) = kind.command() {
        let fence = match terms.fence {
            Fence::Lease(minutes) => format!("lease = \"{minutes}m\""),
            Fence::Open => "fenced = false".to_owned(),
        };
        text.push_str(&format!(
            "supervised = true\ncommand = \"{command}\"\n{fence}\n"
        ));
    }
    text.push_str(&format!("{GPUS}count = {}\n", terms.gpus));
    if let Some(most) = terms.traffic_gb {
        text.push_str(&format!("[traffic]\nmax = \"{most}GB\"\n"));
    }
    text.push_str(&format!("[machine]\ndisk = \"{}GB\"\n", terms.disk_gb));
    let ceiling = cents(terms.ceiling_cents);
    text.push_str(&format!(
        "[price]\nmax = \"{ceiling}/gpu-hour\"\n[budget]\n"
    ));
    if let Some(total) = terms.total_cents {
        text.push_str(&format!("total = \"{}\"\n", cents(total)));
    }
    // A month's budget over the total is refused, and a day's over either, for it bounds nothing.
    let total = terms.total_cents.unwrap_or(u64::MAX);
    let month = terms.month_cents.filter(|&month| month <= total);
    if let Some(month) = month {
        text.push_str(&format!("per_month = \"{}\"\n", cents(month)));
    }
    let longer = month.unwrap_or(total);
    if let Some(day) = terms.day_cents.filter(|&day| day <= longer) {
        text.push_str(&format!("per_day = \"{}\"\n", cents(day)));
    }
    if let Some(hour) = terms.hour_cents {
        text.push_str(&format!("per_hour = \"{}/h\"\n", cents(hour)));
    }
    text.push_str(tail);
    text
}

/// The job of a policy; `None` where it is none, which a test rules out.
pub(super) fn job(kind: Kind, terms: &Terms) -> Option<Arc<Job>> {
    let file = format!("{}.toml", kind.name());
    policy::parse(&file, &text(kind, terms)).ok().map(Arc::new)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_is_a_policy() {
        let some = Terms {
            ceiling_cents: 30,
            disk_gb: 12,
            total_cents: Some(205),
            day_cents: Some(90),
            hour_cents: Some(17),
            month_cents: Some(180),
            gpus: 2,
            owner: Some("ml"),
            tags: &["nightly", "shared"],
            traffic_gb: Some(9),
            fence: Fence::Lease(10),
        };
        let none = Terms {
            total_cents: Some(400),
            day_cents: None,
            hour_cents: None,
            month_cents: None,
            gpus: 1,
            owner: None,
            tags: &[],
            traffic_gb: None,
            fence: Fence::Open,
            ..some
        };
        let all = Kind::ALONE.into_iter().chain(Kind::SUPERVISED);
        for kind in all {
            for terms in [&some, &none] {
                let file = format!("{}.toml", kind.name());
                let parsed = policy::parse(&file, &text(kind, terms));
                assert!(parsed.is_ok(), "{kind:?}: {:?}", parsed.unwrap_err());
                let runner = parsed.unwrap().run.runner;
                assert_eq!(runner.is_some(), kind.command().is_some(), "{kind:?}");
                let lease = runner.and_then(|runner| runner.lease);
                assert!(lease.is_none() || terms.fence != Fence::Open, "{kind:?}");
            }
        }
    }
}
