//! The table of all fields of a policy. Reading, the schema and the reference are made from it, so
//! that they cannot drift apart.

use super::forms::{BUCKET, DIRECTORY, ENDPOINT, FILE, PLACE, PREFIX, REGION, SOURCE, SUM};
use super::kind::Kind;
use super::sets::ELEMENTS_MAX;
use crate::types::units::{
    BUS_SPEED, DISK, DISK_SPEED, DOLLARS, MEMORY, NETWORK, PER_GB, PER_GB_MONTH, PER_GPU_HOUR,
    PER_HOUR, TRAFFIC,
};

/// A table of a policy file.
pub(super) struct Section {
    /// Its path; empty for the top of the file.
    pub(super) path: &'static str,
    /// Whether it is an array of tables.
    pub(super) repeated: bool,
    /// Whether a policy without it is wrong.
    pub(super) required: bool,
    /// What it is about.
    pub(super) meaning: &'static str,
    /// Its fields.
    pub(super) fields: &'static [Field],
}

/// A field of a section.
pub(super) struct Field {
    /// Its key.
    pub(super) key: &'static str,
    /// What it holds.
    pub(super) kind: Kind,
    /// What holds without it.
    pub(super) default: Absent,
    /// When a change of it takes effect.
    pub(super) applies: Applies,
    /// What it means, a sentence without its full stop.
    pub(super) meaning: &'static str,
}

/// What holds where a field is left out.
#[derive(Clone, Copy)]
pub(super) enum Absent {
    /// Leaving it out is an error, if its section is there.
    Required,
    /// Nothing is set; the text says what that means.
    Unset(&'static str),
    /// This TOML value.
    Is(&'static str),
}

/// When a change of a field takes effect.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Applies {
    /// From the next tick.
    Live,
    /// To the next instance: those that run keep what they were rented with.
    NextRental,
    /// It is understood, and refused: what it asks for is not in effect yet.
    NotYet,
}

impl Applies {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Live => "live",
            Self::NextRental => "next rental",
            Self::NotYet => "not yet: refused",
        }
    }
}

use Absent::{Is, Required, Unset};
use Applies::{Live, NextRental, NotYet};
use Kind::{
    Axes, Choice, Countries, Cron, Driver, Env, Factors, Flag, Form, Ids, Instant, Integer, Margin,
    Number, Ports, Price, Quantity, Secret, Secrets, Sets, Span, SpanOrOff, Text, Texts, Version,
    Zone,
};

const HOUR: u64 = 3600;
const DAY: u64 = 24 * HOUR;

/// The highest bid that the marketplace documents, $/h; no GPU costs as much.
const PRICE_MAX: i64 = 128;

const fn field(
    key: &'static str,
    kind: Kind,
    default: Absent,
    applies: Applies,
    meaning: &'static str,
) -> Field {
    Field {
        key,
        kind,
        default,
        applies,
        meaning,
    }
}

/// All sections, parents before their children.
#[rustfmt::skip] // A table is read by its rows.
pub(super) const SECTIONS: &[Section] = &[
    Section {
        path: "",
        repeated: false,
        required: true,
        meaning: "The job itself",
        fields: &[
            field("name", Kind::JobName, Required, Live, "The job's name, unique among the policies; another name is another job"),
            field("owner", Text(100), Unset("none"), Live, "Who pays for it, for reports"),
            field("tags", Texts(32, 100), Unset("none"), Live, "Tags, for reports"),
            field("priority", Integer(-1000, 1000), Is("0"), Live, "Higher is served first"),
            field("replicas", Integer(1, 1000), Is("1"), Live, "How many copies run"),
            field("rental", Choice(&["interruptible", "on-demand", "auto"]), Is("\"auto\""), NextRental, "Bids only, the host's fixed rate only, or bids, and on-demand where it is no dearer or takes an outbid machine back"),
            field("finish", Choice(&["work", "exit", "gone", "manual", "never"]), Unset("`exit` with `[array]`, `never` with `[service]`, else `exit` with `run.supervised`, else `work` if `[work] gpu_hours` is given, else `manual`"), Live, "When a replica is finished: its share of the work is done; its container ended; its instance destroyed itself; you said `done`; never, a service"),
            field("min_run", Span(0, 30 * DAY), Is("\"1m\""), Live, "A container that ends sooner has failed"),
            field("patience", Span(0, 7 * DAY), Is("\"2m\""), Live, "How long an outbid instance is waited for before the replica moves"),
            field("provision_timeout", Span(60, DAY), Is("\"15m\""), Live, "How long an instance may take to come up before another host is tried"),
            field("max_lifetime", Span(600, 365 * DAY), Unset("no end"), Live, "Longest life of one instance"),
            field("boot_overhead", Span(0, DAY), Is("\"3m\""), Live, "Time from running to useful work, at each start; it is part of the price"),
            field("restartable", Flag, Is("false"), Live, "The job may start again from nothing: allows long work on bids without a checkpoint, and a new start where a supervised job's checkpoint cannot be brought over"),
            field("deadline", Instant, Unset("none"), Live, "When the work must be done: what nobody takes away is taken in time for it, within `price.max` and the limits"),
            field("policy", Choice(&["hazard-mdp", "on-demand", "greedy", "uniform-progress", "uniform-progress-prelude", "slack-band"]), Is("\"hazard-mdp\""), Live, "By which rule a deadline is kept as cheaply as may be"),
        ],
    },
    Section {
        path: "run",
        repeated: false,
        required: true,
        meaning: "What to run",
        fields: &[
            field("image", Text(1024), Unset("the template's"), NextRental, "The container image; needed unless a template is given"),
            field("template", Text(200), Unset("none"), NextRental, "A template of the marketplace, by its hash"),
            field("type", Choice(&["args", "ssh", "jupyter"]), Is("\"args\""), NextRental, "How it is started: the image's entry point, or an SSH or notebook server beside the command"),
            field("command", Text(6000), Unset("the image's own"), NextRental, "A shell command or script; with `args` at most 4096 characters, and 6000 with `supervised = true`"),
            field("onstart", Text(4096), Unset("none"), NextRental, "The marketplace's word for `command`; give one of the two"),
            field("args", Texts(256, 4096), Unset("none"), NextRental, "Arguments of the image's entry point, for `type = \"args\"`"),
            field("env", Env, Unset("none"), NextRental, "Environment variables, each with its name at most 256 characters, 32,768 in all"),
            field("secrets", Secrets, Unset("none"), NextRental, "Environment variables whose values are read from haggle's own environment or from files when an instance is made"),
            field("ports", Ports, Unset("none"), NextRental, "Ports to open"),
            field("idle_after", Span(300, 30 * DAY), Unset("that is told, and no more"), Live, "A run whose GPUs are used less than 5 % for so long has failed and is begun anew, as `[retries]` says; that they are idle is told after 20m, or after half of this. Not for `finish = \"never\"`"),
            field("supervised", Flag, Is("false"), NextRental, "Whether haggle's runner looks after `command` on the machine; the image or template must have a POSIX shell. What follows here, and `[data]` but for `disposable`, is for it alone"),
            field("fenced", Flag, Is("true"), NextRental, "Whether the command works only while the instance's label lets it; without that it goes on, and is billed, when haggle is gone"),
            field("lease", Span(600, 7 * DAY), Is("\"2h\""), NextRental, "For how long the label lets it work without being renewed: then the command is ended, and as long after that the instance destroys itself"),
            field("progress", Form(&FILE), Unset("not known"), NextRental, "The file in which the command says how far it is: its last line is a number"),
            field("hung_after", Span(120, 30 * DAY), Unset("never"), Live, "A command whose `progress` stays the same for so long hangs"),
            field("silent_after", Span(30, DAY), Is("\"180s\""), Live, "An instance that runs for so long without a line of the runner has failed"),
            field("preflight", Flag, Is("true"), NextRental, "Whether the machine is tried before the command begins: a machine that is less than was advertised is refused"),
            field("grace", Span(0, 600), Is("\"30s\""), NextRental, "How long a command that is asked to end may take"),
            field("linger", Span(600, 30 * DAY), Is("\"24h\""), NextRental, "How long a result waits to be taken"),
        ],
    },
    Section {
        path: "run.login",
        repeated: false,
        required: false,
        meaning: "Login to a private image registry",
        fields: &[
            field("registry", Text(200), Required, NextRental, "The registry's host"),
            field("user", Text(200), Required, NextRental, "The user"),
            field("password", Secret, Required, NextRental, "The password, by reference"),
        ],
    },
    Section {
        path: "start",
        repeated: false,
        required: false,
        meaning: "How long the steps of a start may take, within `provision_timeout`",
        fields: &[
            field("status_within", SpanOrOff(60, DAY), Is("\"3m\""), Live, "From when an instance was listed first until the marketplace tells anything of it"),
            field("loading_unchanged", SpanOrOff(60, DAY), Unset("`\"10m\"`, or two thirds of `provision_timeout` where that is longer"), Live, "For how long it may load its image with the same message"),
        ],
    },
    Section {
        path: "gpu",
        repeated: false,
        required: false,
        meaning: "The GPUs",
        fields: &[
            field("models", Texts(64, 60), Unset("any"), NextRental, "Models as the marketplace writes them, any of"),
            field("count", Integer(1, 64), Is("1"), NextRental, "GPUs of one instance, exactly"),
            field("vram", Quantity(&MEMORY, 1.0, 10e6), Unset("any"), NextRental, "Least memory of one GPU; a GB is 1000 of the marketplace's MB, so that \"24GB\" takes cards sold as such"),
            field("compute_capability", Version, Unset("any"), NextRental, "Least compute capability"),
            field("cuda", Version, Unset("any"), NextRental, "Least CUDA version that the host's driver takes"),
            field("driver", Driver, Unset("any"), NextRental, "Least driver version"),
            field("nvlink", Quantity(&BUS_SPEED, 0.0, 1e5), Unset("any"), NextRental, "Least NVLink bandwidth"),
            field("pcie", Quantity(&BUS_SPEED, 0.0, 1e5), Unset("any"), NextRental, "Least PCIe bandwidth"),
        ],
    },
    Section {
        path: "machine",
        repeated: false,
        required: false,
        meaning: "The machine around them",
        fields: &[
            field("cpu_cores", Number(0.1, 1024.0), Unset("any"), NextRental, "Least CPU cores that come with the GPUs"),
            field("ram", Quantity(&MEMORY, 1.0, 100e6), Unset("any"), NextRental, "Least RAM that comes with the GPUs"),
            field("disk", Quantity(&DISK, 8.0, 100_000.0), Is("\"16GB\""), NextRental, "Disk to rent, at least 8GB; fixed for the instance's life"),
            field("disk_bandwidth", Quantity(&DISK_SPEED, 0.0, 1e6), Unset("any"), NextRental, "Least disk bandwidth"),
            field("download", Quantity(&NETWORK, 0.0, 1e6), Unset("any"), NextRental, "Least download speed"),
            field("upload", Quantity(&NETWORK, 0.0, 1e6), Unset("any"), NextRental, "Least upload speed"),
            field("reliability", Number(0.0, 1.0), Is("0.95"), NextRental, "Least reliability, as the marketplace reckons it"),
            field("verified", Flag, Is("true"), NextRental, "Only machines that the marketplace has verified"),
            field("datacenter", Flag, Is("false"), NextRental, "Only machines in datacenters"),
            field("static_ip", Flag, Is("false"), NextRental, "Only machines with a static address"),
            field("direct_ports", Integer(0, 65_535), Unset("any"), NextRental, "Least number of direct ports"),
            field("countries", Countries, Unset("all"), NextRental, "Countries allowed"),
            field("countries_denied", Countries, Unset("none"), NextRental, "Countries denied"),
            field("machines_denied", Ids, Unset("none"), NextRental, "Machines denied, by id"),
            field("hosts_denied", Ids, Unset("none"), NextRental, "Hosts denied, by id"),
            field("remaining", Span(0, 365 * DAY), Is("\"1h\""), NextRental, "Least time until the host takes the machine back"),
        ],
    },
    Section {
        path: "traffic",
        repeated: false,
        required: false,
        meaning: "Expected traffic and what it may cost",
        fields: &[
            field("down", Quantity(&TRAFFIC, 0.0, 1e6), Is("\"0GB\""), Live, "Expected download over a stay"),
            field("up", Quantity(&TRAFFIC, 0.0, 1e6), Is("\"0GB\""), Live, "Expected upload over a stay"),
            field("max", Quantity(&TRAFFIC, 0.0, 1e6), Unset("what is expected"), Live, "Most traffic in all, both ways: money is set aside for it"),
            field("price_max", Price(&PER_GB, 10), Unset("any"), NextRental, "Greatest price of traffic, either way"),
        ],
    },
    Section {
        path: "storage",
        repeated: false,
        required: false,
        meaning: "What the disk may cost",
        fields: &[field("price_max", Price(&PER_GB_MONTH, 100), Unset("any"), NextRental, "Greatest price of disk")], }, Section { path: "price", repeated: false, required: true, meaning: "What is bid and paid", fields: &[field("max", Price(&PER_GPU_HOUR, PRICE_MAX), Required, Live, "Ceiling on compute and disk together, per raw GPU-hour"),
            field("bid_margin", Margin, Is("\"auto\""), Live, "How much a bid is put over the least that would win; `\"auto\"`: as much as makes an hour of use cheapest"),
        ],
    },
    Section {
        path: "budget",
        repeated: false,
        required: false,
        meaning: "What may be spent",
        fields: &[
            field("total", Price(&DOLLARS, 10_000_000), Unset("no limit"), Live, "In total"),
            field("per_day", Price(&DOLLARS, 1_000_000), Unset("no limit"), Live, "In a calendar day of the configured time zone"),
            field("per_month", Price(&DOLLARS, 10_000_000), Unset("no limit"), Live, "In a calendar month of the configured time zone"),
            field("per_hour", Price(&PER_HOUR, 100_000), Unset("no limit"), Live, "At any moment, the sum of rates"),
        ],
    },
    Section {
        path: "work",
        repeated: false,
        required: false,
        meaning: "How much there is to do",
        fields: &[
            field("gpu_hours", Number(0.001, 10_000_000.0), Unset("not known"), Live, "Work of all replicas together, in hours of the reference GPU"),
            field("reference", Text(60), Unset("each GPU's own hour"), Live, "The GPU by which work is counted"),
            field("factors", Factors, Unset("1 each"), Live, "Hours of the reference that an hour of another model is worth"),
        ],
    },
    Section {
        path: "checkpoint",
        repeated: false,
        required: false,
        meaning: "What survives an interruption",
        fields: &[
            field("every", Span(10, 30 * DAY), Required, Live, "How often the job writes a checkpoint"),
            field("place", Choice(&["disk", "remote"]), Required, Live, "On the instance's disk, which survives a pause but not a move, or somewhere else by the job's own doing"),
        ],
    },
    Section {
        path: "data",
        repeated: false,
        required: false,
        meaning: "What is on the disk",
        fields: &[
            field("disposable", Flag, Is("false"), Live, "Its disk may be lost"),
            field("checkpoint", Form(&DIRECTORY), Unset("none"), NextRental, "The directory of a supervised job that is kept and restored"),
            field("outputs", Form(&DIRECTORY), Unset("none"), NextRental, "The directory of a supervised job's results"),
            field("sync_every", Span(5, 30 * DAY), Is("\"10m\""), NextRental, "How often `checkpoint` is kept: in `[data.storage]`, or whole beside its directory"),
        ],
    },
    Section {
        path: "data.inputs",
        repeated: true,
        required: false,
        meaning: "What has to be on a supervised job's machine before its command starts; at most 64",
        fields: &[
            field("from", Form(&SOURCE), Required, NextRental, "Where it comes from: an address that the machine reads, an object of `[data.storage]`, or a file or directory here, which is relative to this file's folder and is brought to `[data.storage]`"),
            field("to", Form(&PLACE), Required, NextRental, "Where it goes to; with a slash at its end into that directory. What is a directory or is unpacked becomes that directory"),
            field("sha256", Form(&SUM), Unset("what comes is taken; of a local one it is reckoned"), NextRental, "The SHA-256 that the file must have, as it is before it is unpacked"),
            field("unpack", Flag, Is("false"), NextRental, "Whether it is unpacked: `.tar`, `.tar.gz` and `.tgz`"),
        ],
    },
    Section {
        path: "data.storage",
        repeated: false,
        required: false,
        meaning: "Where a supervised job's checkpoints and outputs go, in S3-compatible storage; without it they stay on the instance's disk",
        fields: &[
            field("endpoint", Form(&ENDPOINT), Required, NextRental, "The storage service; `http://` only on this machine itself"),
            field("region", Form(&REGION), Is("\"us-east-1\""), NextRental, "The region that requests are signed for"),
            field("bucket", Form(&BUCKET), Required, NextRental, "The bucket"),
            field("prefix", Form(&PREFIX), Is("\"\""), NextRental, "What the keys of objects begin with"),
            field("access_key", Secret, Required, NextRental, "The id of the access key, by reference"),
            field("secret_key", Secret, Required, NextRental, "The access key's secret, by reference"),
        ],
    },
    Section {
        path: "array",
        repeated: false,
        required: false,
        meaning: "The same command for many sets of parameters, each an element that ends by itself; for supervised jobs",
        fields: &[
            field("values", Sets, Unset("`matrix`"), Live, "The sets, each with its variables; an element is known by them, not by its place"),
            field("matrix", Axes, Unset("`values`"), Live, "The values of each variable: every combination is a set"),
            field("exclude", Sets, Unset("none"), Live, "Combinations of `matrix` that are left out: those with all of these values"),
            field("max_running", Integer(1, ELEMENTS_MAX as i64), Required, Live, "How many elements are at work at once, at most"),
        ],
    },
    Section {
        path: "service",
        repeated: false,
        required: false,
        meaning: "What holds of the replicas of a service together",
        fields: &[
            field("one_per_host", Flag, Is("true"), NextRental, "Whether no two replicas are on machines of one host; what is not known to be of another one is not taken"),
            field("base_on_demand", Integer(0, 1000), Is("0"), NextRental, "How many replicas, at least, are at the host's fixed rate, whatever `rental` says"),
            field("replace_first", Flag, Unset("false"), NotYet, "Whether a replacement is up before a replica ends that is known to end"),
            field("health", Text(1024), Unset("none"), NotYet, "Where a replica says that it is healthy"),
            field("interval", Span(1, 3600), Unset("none"), NotYet, "How often it is asked"),
            field("healthy_after", Span(0, DAY), Unset("none"), NotYet, "For how long it answers well before it is healthy"),
            field("unhealthy_after", Span(1, DAY), Unset("none"), NotYet, "For how long it answers badly before it is replaced"),
        ],
    },
    Section {
        path: "retries",
        repeated: false,
        required: false,
        meaning: "What follows a failure",
        fields: &[
            field("max", Integer(0, 1000), Is("5"), Live, "Failures in a row after which the replica has failed for good"),
            field("backoff", Span(1, DAY), Is("\"1m\""), Live, "Wait after the first; doubles with each"),
            field("backoff_max", Span(1, 7 * DAY), Is("\"1h\""), Live, "Longest wait"),
        ],
    },
    Section {
        path: "window",
        repeated: true,
        required: false,
        meaning: "When the job may run; without any, always",
        fields: &[
            field("cron", Cron, Required, Live, "When it opens: minute, hour, day of the month, month, day of the week; 1 is Monday"),
            field("lasts", Span(60, 31 * DAY), Required, Live, "For how long it stays open"),
            field("timezone", Zone, Is("\"UTC\""), Live, "In which time zone the opening is read"),
        ],
    },
];

impl Section {
    /// Its own name, without its parent's.
    pub(super) fn name(&self) -> &'static str {
        self.path.rsplit('.').next().unwrap_or_default()
    }

    /// Its field of that name.
    pub(super) fn field(&self, key: &str) -> Option<&'static Field> {
        self.fields.iter().find(|field| field.key == key)
    }

    /// The sections directly under it.
    pub(super) fn children(&self) -> impl Iterator<Item = &'static Section> + use<> {
        let parent = self.path;
        SECTIONS.iter().filter(move |section| {
            let above = section.path.rsplit_once('.').map_or("", |(above, _)| above);
            !section.path.is_empty() && above == parent
        })
    }

    /// How it is written as a header.
    pub(super) fn header(&self) -> String {
        match (self.path, self.repeated) {
            ("", _) => "the top of the file".to_owned(),
            (path, true) => format!("[[{path}]]"),
            (path, false) => format!("[{path}]"),
        }
    }
}
