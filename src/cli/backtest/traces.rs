//! A backtest on traces as a sheet and as a page.

use super::super::failure::Failure;
use super::super::page::{escape, leaf, line, table};
use super::super::sheet::Sheet;
use super::chart::{Band, Bar, Point, Timeline, bars, timeline};
use super::{Document, PolicyDocument};
use crate::backtest::{Step, Sweep, Window};
use crate::engine::deadline::{DeadlineKind, Mode};

/// A run that is shown tick by tick.
pub(super) struct Shown {
    pub(super) kind: DeadlineKind,
    pub(super) series: String,
    pub(super) start: usize,
    pub(super) run: Timeline,
}

/// The run of a window under a policy, as a picture has it.
pub(super) fn shown(sweep: &Sweep, at: usize, kind: DeadlineKind) -> Shown {
    let window: &Window = &sweep.windows[at];
    let terms = &window.terms;
    let hours = |seconds: i64| seconds as f64 / 3600.0;
    let price = |mode: Mode| match mode {
        Mode::Idle => None,
        Mode::Spot => Some(sweep.prices.spot.as_dollars()),
        Mode::OnDemand => Some(sweep.prices.on_demand.as_dollars()),
    };
    let steps = sweep.steps(at, kind);
    let points = steps.iter().enumerate().map(|(nth, step): (usize, &Step)| {
        // What is done is what was done by the beginning of the tick.
        let before = nth
            .checked_sub(1)
            .map_or(terms.work, |nth| steps[nth].work_left);
        Point {
            hours: hours(step.tick * terms.tick),
            band: match step.mode {
                Mode::Idle => Band::Nothing,
                Mode::Spot => Band::Bid,
                Mode::OnDemand => Band::OnDemand,
            },
            price: price(step.mode),
            floor: step.spot.then(|| sweep.prices.spot.as_dollars()),
            done: hours(terms.work - before),
        }
    });
    let mut points: Vec<Point> = points.collect();
    let end = steps.last().map_or(0, |step| (step.tick + 1) * terms.tick);
    let whole = end.max(terms.deadline);
    if let Some(last) = steps.last() {
        points.push(Point {
            hours: hours(end),
            band: Band::Nothing,
            price: None,
            floor: None,
            done: hours(terms.work - last.work_left),
        });
    }
    Shown {
        kind,
        series: sweep.series[window.series].name.clone(),
        start: window.start,
        run: Timeline {
            points,
            hours: hours(whole),
            deadline: Some(hours(terms.deadline)),
            work: Some(hours(terms.work)),
        },
    }
}

/// One row a policy.
pub(super) fn csv(document: &Document) -> Result<Vec<u8>, Failure> {
    let mut sheet = Sheet::new([
        "policy",
        "runs",
        "mean_cost_dollars",
        "optimum_mean_cost_dollars",
        "over_optimum",
        "over_optimum_low",
        "over_optimum_high",
        "late_runs",
        "runs_per_second_per_core",
        "table_seconds",
    ])?;
    let number = |value: Option<f64>| value.map_or(String::new(), |value| value.to_string());
    for one in &document.policies {
        sheet.row([
            one.policy,
            &one.runs.to_string(),
            &number(one.mean_cost_dollars),
            &number(document.optimum_mean_cost_dollars),
            &number(one.over_optimum),
            &number(one.over_optimum_low),
            &number(one.over_optimum_high),
            &one.late_runs.to_string(),
            &number(one.runs_per_second_per_core),
            &one.table_seconds.to_string(),
        ])?;
    }
    sheet.taken()
}

/// The page: cost against the optimum by policy, and one run.
pub(super) fn page(document: &Document, run: Option<&Shown>) -> String {
    let mut body = format!(
        "<h1>Backtest on recorded traces</h1>\n\
         <p>{} windows, {} of which nobody can finish. Each run's cost over the least that it could have \
         cost to one who knew the trace.</p>\n",
        document.windows, document.infeasible_runs
    );
    body += &bars(
        "Mean cost over the mean optimum, with a 90 % interval over series",
        "× the optimum",
        &document.policies.iter().filter_map(bar).collect::<Vec<_>>(),
        Some(("optimum", 1.0)),
    );
    body += &rows(document);
    if let Some(run) = run {
        let caption = format!(
            "One run of {} on {}, from tick {}: what is paid and the price of interruptible capacity, what \
             is held, and hours of work done",
            run.kind.as_str(),
            run.series,
            run.start
        );
        body += "<h2>One run</h2>\n";
        body += &timeline(&caption, &run.run);
    }
    leaf("haggle: backtest on traces", &body)
}

fn bar(one: &PolicyDocument) -> Option<Bar> {
    Some(Bar {
        name: one.policy.to_owned(),
        value: one.over_optimum?,
        spread: one.over_optimum_low.zip(one.over_optimum_high),
    })
}

fn rows(document: &Document) -> String {
    let number = |value: Option<f64>| value.map_or("-".to_owned(), |value| format!("{value:.4}"));
    let row = |one: &PolicyDocument| {
        line(
            &[escape(one.policy)],
            &[
                one.runs.to_string(),
                number(one.mean_cost_dollars),
                number(one.over_optimum),
                one.late_runs.to_string(),
            ],
        )
    };
    let rows: String = document.policies.iter().map(row).collect();
    let foot = line(
        &["optimum".into()],
        &[
            String::new(),
            number(document.optimum_mean_cost_dollars),
            "1".to_owned(),
            String::new(),
        ],
    );
    table(
        "By policy",
        &["policy"],
        &["runs", "$ a run", "over optimum", "late"],
        &rows,
        &foot,
    )
}
