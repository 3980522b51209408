//! `haggle backtest`: deadline policies on recorded traces, beside the exact optimum.

mod chart;
mod markets;
mod parallel;
mod shown;
mod traces;
mod what_if;
mod work;

use std::fs;
use std::path::{Path, PathBuf};

use clap::Args;
use serde::Serialize;

use super::context::Context;
use super::failure::{Done, Exit, Failure, OrFail};
use super::output::{Align, Output};
use crate::backtest::{
    Asked, Interval, Prices, Series, Suite, Sweep, Trouble, Window, over_optimum,
};
use crate::engine::deadline::{Counts, DeadlineKind, Prior};
use crate::types::money::Rate;
use crate::types::spelling;
use shown::{Forms, require_one, show};
use work::Work;

/// Runs deadline policies on recorded traces of interruptible capacity, and reckons the least that each
/// run could have cost to one who knows the trace; or a policy on what the daemon itself recorded of the market.
#[derive(Args, Clone, Debug)]
#[command(group = clap::ArgGroup::new("what").required(true).args(["suite", "windows", "market", "what_if"]))]
pub(crate) struct BacktestArgs {
    /// A published set of windows: `cant-be-late:A`, `cant-be-late:B` or `cant-be-late:C`
    #[arg(long, value_name = "SUITE", value_parser = suite)]
    suite: Option<Suite>,
    /// Windows of your own: a JSON array of series, start, ticks, `work_hours`, `deadline_hours` and
    /// `overhead_hours`, with start and ticks in ticks of 600 s
    #[arg(long, value_name = "FILE")]
    windows: Option<PathBuf>,
    /// Generated markets in place of traces, on which haggle plays against rules that people rent by:
    /// `calm`, `usual`, `churning`, `hostile`, `scarce`, `cheap-on-demand`, by comma, or `all`
    #[arg(long, value_name = "FAMILY", value_delimiter = ',', value_parser = markets::family)]
    market: Vec<markets::Families>,
    /// A policy's file: what it would have cost on the market that the daemon recorded
    #[arg(long, value_name = "POLICY.toml")]
    what_if: Option<PathBuf>,
    /// From when on: a day as 2026-11-24, a time as 2026-11-24T08:00:00Z, or how long ago, such as 7d
    #[arg(
        long,
        value_name = "WHEN",
        requires = "what_if",
        conflicts_with = "days"
    )]
    from: Option<String>,
    /// Up to, but not with, this time, written in the same ways; by default now
    #[arg(
        long,
        value_name = "WHEN",
        requires = "what_if",
        conflicts_with = "days"
    )]
    to: Option<String>,
    /// Values of a key of the policy, by comma, such as price.bid_margin=5%,10%; each is tried with those of
    /// every other --set
    #[arg(long, value_name = "KEY=VALUE,…", requires = "what_if")]
    set: Vec<String>,
    /// Of each family, how many markets
    #[arg(long, value_name = "N", default_value_t = 20, requires = "market", value_parser = clap::value_parser!(u64).range(1..))]
    seeds: u64,
    /// Days on each market, 7 by default; or the last days of the record, 30 by default
    #[arg(long, value_name = "D", conflicts_with_all = ["suite", "windows"], value_parser = clap::value_parser!(u32).range(1..=3660))]
    days: Option<u32>,
    /// Directory of the traces, SERIES.json each
    #[arg(long, value_name = "DIR", required_unless_present_any = ["market", "what_if"])]
    traces: Option<PathBuf>,
    /// First ticks of a suite's windows, a JSON array; by default `window-starts.json` in the
    /// directory of the traces or in its parent
    #[arg(long, value_name = "FILE", conflicts_with = "windows")]
    starts: Option<PathBuf>,
    /// Directory of traces from which `hazard-mdp` learns; without it, a documented rule stands in
    #[arg(long, value_name = "DIR")]
    train: Option<PathBuf>,
    /// Which policies, by comma; by default all
    #[arg(long, value_name = "NAME", value_delimiter = ',', value_parser = policy)]
    policy: Vec<DeadlineKind>,
    /// Price of interruptible capacity, in $/h
    #[arg(long, value_name = "PRICE", default_value = "0.9731", value_parser = price)]
    spot_price: Rate,
    /// Price of on-demand capacity, in $/h
    #[arg(long, value_name = "PRICE", default_value = "3.06", value_parser = price)]
    on_demand_price: Rate,
    /// Share of starts that fail, beside what the traces say
    #[arg(long, value_name = "SHARE", default_value_t = 0.0, value_parser = share)]
    start_fails: f64,
    /// Share of the time in which on-demand capacity cannot be started
    #[arg(long, value_name = "SHARE", default_value_t = 0.0, value_parser = share)]
    on_demand_absent: f64,
    /// Share of on-demand starts that are to come in time where they can fail
    #[arg(long, value_name = "SHARE", default_value_t = 0.999, value_parser = share)]
    promise: f64,
    /// From which failures are drawn
    #[arg(long, value_name = "SEED", default_value_t = 1)]
    seed: u64,
    /// Comma-separated values in place of the table, a row for each policy
    #[arg(long)]
    csv: bool,
    /// A page with charts into this file, beside what goes to stdout
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
    /// How many threads; by default as many as there are cores
    #[arg(long, value_name = "K", value_parser = clap::value_parser!(u16).range(1..=1024))]
    threads: Option<u16>,
}

fn suite(text: &str) -> Result<Suite, String> {
    Suite::named(text)
        .ok_or_else(|| "wanted is cant-be-late:A, cant-be-late:B or cant-be-late:C".to_owned())
}

fn policy(text: &str) -> Result<DeadlineKind, String> {
    DeadlineKind::named(text).ok_or_else(|| {
        let names = DeadlineKind::ALL.map(DeadlineKind::as_str);
        let meant = spelling::nearest(text, names.into_iter());
        let meant = meant.map_or(String::new(), |name| format!("; did you mean `{name}`?"));
        format!("the policies are {}{meant}", names.join(", "))
    })
}

fn price(text: &str) -> Result<Rate, String> {
    let rate = text.parse::<Rate>().map_err(|error| error.to_string())?;
    if rate > Rate::ZERO {
        Ok(rate)
    } else {
        Err("wanted is a price over 0".to_owned())
    }
}

fn share(text: &str) -> Result<f64, String> {
    let share = text.parse::<f64>().ok();
    share
        .filter(|share| (0.0..1.0).contains(share))
        .ok_or_else(|| "wanted is a share of at least 0 and below 1, such as 0.1".to_owned())
}

#[derive(Debug, Serialize)]
struct Document {
    windows: usize,
    infeasible_runs: usize,
    optimum_mean_cost_dollars: Option<f64>,
    optima_per_second_per_core: Option<f64>,
    /// From how many series `hazard-mdp` learnt; 0 where the built-in rule stands in.
    trained_on: usize,
    /// Ticks kept in hand for starts that fail.
    margin_ticks: i64,
    threads: usize,
    policies: Vec<PolicyDocument>,
}

#[derive(Debug, Serialize)]
struct PolicyDocument {
    policy: &'static str,
    runs: usize,
    mean_cost_dollars: Option<f64>,
    late_runs: usize,
    runs_per_second_per_core: Option<f64>,
    /// Mean cost over the mean optimum, and a 90 % interval by bootstrap over series.
    over_optimum: Option<f64>,
    over_optimum_low: Option<f64>,
    over_optimum_high: Option<f64>,
    /// Seconds in which tables were solved, of all cores together; not in the runs' time.
    table_seconds: f64,
}

/// Runs the backtest.
pub(crate) fn run(context: &Context, args: &BacktestArgs) -> Done {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let threads = args.threads.map_or(cores, usize::from);
    require_one(context, args)?;
    if !args.market.is_empty() {
        return markets::run(context, args, threads);
    }
    if let Some(policy) = &args.what_if {
        return what_if::run(context, args, policy, threads);
    }
    let (series, mut windows) = read_windows(args)?;
    let (prior, trained_on) = read_prior(args)?;
    let trouble = Trouble {
        start_fails: args.start_fails,
        absent: args.on_demand_absent,
        seed: args.seed,
    };
    let margin_ticks = trouble.margin(args.promise);
    for window in &mut windows {
        window.terms.margin = margin_ticks;
    }
    let sweep = Sweep {
        series,
        windows,
        prices: Prices {
            spot: args.spot_price,
            on_demand: args.on_demand_price,
        },
        trouble,
        prior,
    };
    let work = Work::new(&sweep, threads);
    let (least, optima_per_second_per_core) = work.optima();
    let feasible: Vec<usize> = (0..least.len()).filter(|at| least[*at].is_some()).collect();
    let optimum = mean(feasible.iter().filter_map(|at| least[*at]));
    let kinds = if args.policy.is_empty() {
        DeadlineKind::ALL.to_vec()
    } else {
        args.policy.clone()
    };
    let mut policies = Vec::new();
    for &kind in &kinds {
        context
            .output
            .progress(&format!("{}: running", kind.as_str()));
        policies.push(judged(&work, kind, &least, &feasible, args.seed));
    }
    let document = Document {
        windows: sweep.windows.len(),
        infeasible_runs: least.len() - feasible.len(),
        optimum_mean_cost_dollars: optimum,
        optima_per_second_per_core,
        trained_on,
        margin_ticks,
        threads,
        policies,
    };
    let forms = Forms {
        text: &|| text(context.output, &document),
        csv: &|| traces::csv(&document),
        page: &|| {
            traces::page(
                &document,
                pictured(&work, &kinds, &least, &feasible).as_ref(),
            )
        },
    };
    show(context, args, &document, &forms)?;
    Ok(Exit::Success)
}

/// The run that a picture is made of: of `hazard-mdp` where it was run, else of the first policy; on the
/// window that is in the middle by what it cost over its optimum.
fn pictured(
    work: &Work<'_>,
    kinds: &[DeadlineKind],
    least: &[Option<f64>],
    feasible: &[usize],
) -> Option<traces::Shown> {
    let mdp = kinds.iter().find(|kind| **kind == DeadlineKind::HazardMdp);
    let kind = *mdp.or(kinds.first())?;
    let played = work.play(kind);
    let over = |at: usize| {
        let cost = work.sweep.cost(at, &played.outcomes[at]).as_dollars();
        cost / least[at].unwrap_or(f64::INFINITY)
    };
    let mut order = feasible.to_vec();
    order.sort_by(|&a, &b| over(a).total_cmp(&over(b)).then(a.cmp(&b)));
    let middle = order.get(order.len() / 2)?;
    Some(traces::shown(work.sweep, *middle, kind))
}

/// What a policy came to on the windows that somebody can finish.
fn judged(
    work: &Work<'_>,
    kind: DeadlineKind,
    least: &[Option<f64>],
    feasible: &[usize],
    seed: u64,
) -> PolicyDocument {
    let played = work.play(kind);
    let cost = |at: usize| work.sweep.cost(at, &played.outcomes[at]).as_dollars();
    let runs: Vec<(usize, f64, f64)> = feasible
        .iter()
        .map(|&at| {
            let series = work.sweep.windows[at].series;
            (series, cost(at), least[at].unwrap_or_default())
        })
        .collect();
    let interval: Option<Interval> = over_optimum(&runs, seed);
    PolicyDocument {
        policy: kind.as_str(),
        runs: runs.len(),
        mean_cost_dollars: mean(runs.iter().map(|run| run.1)),
        late_runs: feasible
            .iter()
            .filter(|at| played.outcomes[**at].late)
            .count(),
        runs_per_second_per_core: played.per_second,
        over_optimum: interval.map(|interval| interval.value),
        over_optimum_low: interval.map(|interval| interval.low),
        over_optimum_high: interval.map(|interval| interval.high),
        table_seconds: played.table_seconds,
    }
}

fn mean(values: impl Iterator<Item = f64>) -> Option<f64> {
    let (sum, count) = values.fold((0.0, 0_usize), |(sum, count), value| {
        (sum + value, count + 1)
    });
    (count > 0).then(|| sum / count as f64)
}

fn text(output: Output, document: &Document) -> String {
    let number = |value: Option<f64>, digits: usize| {
        value.map_or("-".to_owned(), |value| format!("{value:.digits$}"))
    };
    let over = |value: Option<f64>| {
        value.map_or("-".to_owned(), |value| {
            format!("{:+.1} %", (value - 1.0) * 100.0)
        })
    };
    let rows = document.policies.iter().map(|policy| {
        let spread = format!(
            "{} to {}",
            over(policy.over_optimum_low),
            over(policy.over_optimum_high)
        );
        vec![
            policy.policy.to_owned(),
            policy.runs.to_string(),
            number(policy.mean_cost_dollars, 3),
            over(policy.over_optimum),
            spread,
            policy.late_runs.to_string(),
            number(policy.runs_per_second_per_core, 0),
        ]
    });
    let columns = [
        ("policy", Align::Left),
        ("runs", Align::Right),
        ("$ a run", Align::Right),
        ("over optimum", Align::Right),
        ("90 % over series", Align::Right),
        ("late", Align::Right),
        ("runs/s and core", Align::Right),
    ];
    let learnt = match document.trained_on {
        0 => "hazard-mdp knows the built-in rule only (--train)".to_owned(),
        1 => "hazard-mdp learnt from 1 series".to_owned(),
        many => format!("hazard-mdp learnt from {many} series"),
    };
    format!(
        "{}\n\noptimum: ${} a run; {} of {} windows can be finished by nobody\n{learnt}\n",
        output.table(&columns, rows.collect()),
        number(document.optimum_mean_cost_dollars, 3),
        document.infeasible_runs,
        document.windows,
    )
}

// ------------------------------------------------------------------------------------------ files

fn read_windows(args: &BacktestArgs) -> Result<(Vec<Series>, Vec<Window>), Failure> {
    if let Some(suite) = args.suite {
        let names = suite.series();
        let series = names.iter().map(|name| read_series(traces(args), name));
        let series = series.collect::<Result<Vec<_>, _>>()?;
        let path = starts_path(args)?;
        let starts: Vec<usize> = serde_json::from_str(&read(&path)?).or_mendable(format!(
            "{} is no list of starts; wanted is a JSON array of ticks, such as [684, 1061]",
            path.display()
        ))?;
        let windows = suite.windows(&starts, &series);
        let windows = windows.or_mendable(format!("{} does not fit", path.display()))?;
        return Ok((series, windows));
    }
    let Some(path) = &args.windows else {
        return Err(Failure::mendable("neither --suite nor --windows"));
    };
    let wrong = format!("{} cannot be used", path.display());
    let asked = Asked::read(&read(path)?).or_mendable(&wrong)?;
    let mut series: Vec<Series> = Vec::new();
    let mut windows = Vec::new();
    for (at, one) in asked.iter().enumerate() {
        let name = one.series.strip_suffix(".json").unwrap_or(&one.series);
        let known = series.iter().position(|series| series.name == name);
        let place = if let Some(place) = known {
            place
        } else {
            series.push(read_series(traces(args), name)?);
            series.len() - 1
        };
        windows.push(one.window(at, place, &series[place]).or_mendable(&wrong)?);
    }
    Ok((series, windows))
}

/// Clap has it given where anything is read from it.
fn traces(args: &BacktestArgs) -> &Path {
    args.traces.as_deref().unwrap_or(Path::new("."))
}

const STARTS: &str = "window-starts.json";

fn starts_path(args: &BacktestArgs) -> Result<PathBuf, Failure> {
    if let Some(path) = &args.starts {
        return Ok(path.clone());
    }
    // The parent of `.` is not in its name.
    let places = [
        traces(args).join(STARTS),
        traces(args).join("..").join(STARTS),
    ];
    let found = places.iter().find(|path| path.is_file());
    found.cloned().ok_or_else(|| {
        Failure::mendable(format!(
            "no {STARTS} in {} or in its parent",
            traces(args).display()
        ))
        .hint("name the file of the windows' first ticks with --starts")
    })
}

fn read_prior(args: &BacktestArgs) -> Result<(Prior, usize), Failure> {
    let Some(directory) = &args.train else {
        return Ok((Prior::built_in(), 0));
    };
    let doing = || format!("cannot read the directory {}", directory.display());
    let mut names = Vec::new();
    for entry in fs::read_dir(directory).or_mendable(doing())? {
        let path = entry.or_mendable(doing())?.path();
        let name = path
            .file_stem()
            .map(|name| name.to_string_lossy().into_owned());
        let is_trace = path.extension().is_some_and(|ending| ending == "json")
            && path.file_name().is_none_or(|name| name != STARTS);
        names.extend(name.filter(|_| is_trace));
    }
    // Directories are in no order, and sums of floats depend on theirs.
    names.sort();
    if names.is_empty() {
        return Err(Failure::mendable(format!(
            "no traces in {}; wanted are files SERIES.json",
            directory.display()
        )));
    }
    let counts = names
        .iter()
        .map(|name| Ok(Counts::of(&read_series(directory, name)?.up)));
    let counts = counts.collect::<Result<Vec<_>, Failure>>()?;
    Ok((Prior::learnt(&counts), counts.len()))
}

fn read_series(directory: &Path, name: &str) -> Result<Series, Failure> {
    let path = directory.join(format!("{name}.json"));
    Series::read(name, &read(&path)?).or_mendable(format!("{} cannot be used", path.display()))
}

fn read(path: &Path) -> Result<String, Failure> {
    fs::read_to_string(path).or_mendable(format!("cannot read {}", path.display()))
}
