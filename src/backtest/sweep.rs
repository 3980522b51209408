//! All windows under all policies, in pieces that can be worked on apart.

use std::sync::Arc;

use super::optimum::Optimizer;
use super::replay::{Outcome, Step, Tick, replay, replay_seen};
use super::series::Series;
use super::trouble::Trouble;
use super::windows::Window;
use crate::engine::deadline::{
    Costs, DeadlineKind, DeadlinePolicy, Greedy, HazardMdp, HazardTables, OnDemand, Prelude, Prior,
    SlackBand, Terms, UniformProgress,
};
use crate::types::money::{Money, Rate};

/// What an hour costs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Prices {
    /// Of interruptible capacity.
    pub spot: Rate,
    /// Of on-demand capacity; over 0.
    pub on_demand: Rate,
}

impl Prices {
    fn cost(self, outcome: &Outcome, tick: i64) -> Money {
        let of = |rate: Rate, ticks: u32| rate.cost_ms(i64::from(ticks) * tick * 1000);
        let spot = of(self.spot, outcome.spot_ticks);
        spot.saturating_add(of(self.on_demand, outcome.on_demand_ticks))
    }
}

/// What is to be run.
#[derive(Clone, Debug)]
pub struct Sweep {
    /// The series.
    pub series: Vec<Series>,
    /// The windows on them, with the margin that is kept in hand.
    pub windows: Vec<Window>,
    /// What an hour costs.
    pub prices: Prices,
    /// What goes wrong beside the traces.
    pub trouble: Trouble,
    /// What is believed of spells before a run.
    pub prior: Prior,
}

/// Windows that share tables: one overhead, and a similar slack.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Batch {
    /// Which windows, by their place in the sweep.
    pub windows: Vec<usize>,
    /// Terms that cover those of all its windows.
    cover: Terms,
    ticks: i64,
    slack: i64,
}

/// What windows came to under one policy.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Played {
    /// By window.
    pub outcomes: Vec<Outcome>,
    /// Seconds that the runs took.
    pub seconds: f64,
}

/// Most bytes of a batch's tables: levels of slack are set further apart until they fit.
const TABLE_BYTES: usize = 128 << 20;

/// Least seconds between levels of slack, as a part of a tick.
const FINEST: i64 = 2;

impl Sweep {
    /// The pieces, each with windows in their order.
    pub fn batches(&self) -> Vec<Batch> {
        let mut batches: Vec<Batch> = Vec::new();
        for (at, window) in self.windows.iter().enumerate() {
            let terms = window.terms;
            let slack = (terms.ticks() * terms.tick - terms.work).max(0);
            let size = |slack: i64| (slack / terms.tick + 1).ilog2();
            let found = batches.iter_mut().find(|batch| {
                let cover = batch.cover;
                let same = (cover.tick, cover.overhead, cover.margin)
                    == (terms.tick, terms.overhead, terms.margin);
                same && size(batch.slack) == size(slack)
            });
            if let Some(batch) = found {
                batch.windows.push(at);
                batch.ticks = batch.ticks.max(terms.ticks());
                batch.slack = batch.slack.max(slack);
            } else {
                batches.push(Batch {
                    windows: vec![at],
                    cover: terms,
                    ticks: terms.ticks(),
                    slack,
                });
            }
        }
        batches
    }

    /// The ticks of a window, with its troubles.
    pub fn trace(&self, at: usize) -> Vec<Tick> {
        let window = &self.windows[at];
        let ticks = &self.series[window.series].ticks;
        let end = (window.start + window.ticks).min(ticks.len());
        let ticks = &ticks[window.start.min(end)..end];
        if self.trouble.is_none() {
            return ticks.to_vec();
        }
        // Trouble goes on after the series, as long as a run that is late may.
        let wanted = 2 * window.terms.ticks().max(0) as usize;
        let more = wanted.saturating_sub(ticks.len());
        self.trouble.strike(ticks, more, at as u64)
    }

    /// The least cost of each window in dollars; `None` where nobody can be in time.
    pub fn optima(&self, windows: &[usize], optimizer: &mut Optimizer) -> Vec<Option<f64>> {
        let hours = |terms: &Terms| terms.tick as f64 / 3600.0;
        let least = |at: &usize| {
            let terms = &self.windows[*at].terms;
            let (spot, on_demand) = (self.prices.spot, self.prices.on_demand);
            optimizer.least(
                terms,
                &self.trace(*at),
                spot.as_dollars() * hours(terms),
                on_demand.as_dollars() * hours(terms),
            )
        };
        windows.iter().map(least).collect()
    }

    /// Runs windows under a policy; the one that goes by tables takes those of the windows' batch.
    /// `seconds` reads a clock.
    pub fn play(
        &self,
        windows: &[usize],
        kind: DeadlineKind,
        tables: Option<&Arc<HazardTables>>,
        seconds: &dyn Fn() -> f64,
    ) -> Played {
        match (kind, tables) {
            (DeadlineKind::HazardMdp, Some(tables)) => {
                self.runs(windows, seconds, || HazardMdp::new(Arc::clone(tables)))
            }
            (DeadlineKind::OnDemand | DeadlineKind::HazardMdp, _) => {
                self.runs(windows, seconds, || OnDemand)
            }
            (DeadlineKind::Greedy, _) => self.runs(windows, seconds, || Greedy),
            (DeadlineKind::UniformProgress, _) => self.runs(windows, seconds, || UniformProgress),
            (DeadlineKind::UniformProgressPrelude, _) => {
                self.runs(windows, seconds, Prelude::default)
            }
            (DeadlineKind::SlackBand, _) => self.runs(windows, seconds, || SlackBand),
        }
    }

    /// The tables that all windows of a batch share.
    pub fn tables(&self, batch: &Batch) -> HazardTables {
        let on_demand = self.prices.on_demand.as_dollars();
        let costs = Costs {
            spot: self.prices.spot.as_dollars() / on_demand,
            start_fails: self.trouble.start_fails,
        };
        let terms = Terms {
            work: batch.ticks * batch.cover.tick - batch.slack,
            deadline: batch.ticks * batch.cover.tick,
            ..batch.cover
        };
        HazardTables::within(&terms, costs, &self.prior, terms.tick / FINEST, TABLE_BYTES)
    }

    /// One window's run under a policy, tick by tick.
    pub fn steps(&self, at: usize, kind: DeadlineKind) -> Vec<Step> {
        let mut policy: Box<dyn DeadlinePolicy> = match kind {
            DeadlineKind::OnDemand => Box::new(OnDemand),
            DeadlineKind::Greedy => Box::new(Greedy),
            DeadlineKind::UniformProgress => Box::new(UniformProgress),
            DeadlineKind::UniformProgressPrelude => Box::new(Prelude::default()),
            DeadlineKind::SlackBand => Box::new(SlackBand),
            DeadlineKind::HazardMdp => {
                let batches = self.batches();
                let its = batches.iter().find(|batch| batch.windows.contains(&at));
                match its {
                    Some(batch) => Box::new(HazardMdp::new(Arc::new(self.tables(batch)))),
                    None => Box::new(OnDemand),
                }
            }
        };
        let mut steps = Vec::new();
        let terms = &self.windows[at].terms;
        replay_seen(&mut policy, terms, &self.trace(at), |step| steps.push(step));
        steps
    }

    fn runs<P: DeadlinePolicy>(
        &self,
        windows: &[usize],
        seconds: &dyn Fn() -> f64,
        policy: impl Fn() -> P,
    ) -> Played {
        let traces: Vec<Vec<Tick>> = windows.iter().map(|at| self.trace(*at)).collect();
        let begun = seconds();
        let run = |(at, trace): (&usize, &Vec<Tick>)| {
            replay(&mut policy(), &self.windows[*at].terms, trace)
        };
        let outcomes = windows.iter().zip(&traces).map(run).collect();
        Played {
            outcomes,
            seconds: seconds() - begun,
        }
    }

    /// What a window cost.
    pub fn cost(&self, at: usize, outcome: &Outcome) -> Money {
        self.prices.cost(outcome, self.windows[at].terms.tick)
    }
}
