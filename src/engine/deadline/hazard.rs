//! The policy that knows how long spells last, and learns on the way which kind it has come upon.

use std::sync::Arc;

use super::belief::Belief;
use super::chain::{Seen, age_class};
use super::prior::Prior;
use super::table::{Costs, Table, TableShape};
use super::{DeadlinePolicy, Mode, Moment, SafeSet, Terms};

/// What is solved once for all jobs that share overhead, margin, prices and prior.
#[derive(Clone, Debug)]
pub struct HazardTables {
    table: Table,
    prior: Prior,
    costs: Costs,
}

impl HazardTables {
    /// Solves for jobs that have at most the time and the slack of these terms, with levels of slack
    /// that are `step` seconds apart; further, where the tables would take more than `bytes`.
    pub fn within(terms: &Terms, costs: Costs, prior: &Prior, step: i64, bytes: usize) -> Self {
        let mut shape = TableShape {
            ticks: terms.ticks().max(1) as usize,
            slack: (terms.ticks() * terms.tick - terms.work).max(0),
            step: step.max(1),
        };
        let chains = prior.chains();
        while shape.step < shape.slack && Table::size(terms, chains.len(), shape) > bytes {
            shape.step *= 2;
        }
        Self {
            table: Table::solve(terms, costs, chains, shape),
            prior: prior.clone(),
            costs,
        }
    }

    /// Bytes that the tables take.
    pub fn bytes(&self) -> usize {
        self.table.bytes()
    }
}

/// What waiting has to save at least, in ticks of on-demand capacity: less is noise of the tables, and
/// what is held is surer than what is hoped for.
const GAIN: f64 = 1e-3;

/// Backward induction over chains that were learnt from history, weighted by what is seen.
#[derive(Clone, Debug)]
pub struct HazardMdp {
    tables: Arc<HazardTables>,
    belief: Belief,
    last: Option<Seen>,
}

impl HazardMdp {
    /// For one job.
    pub fn new(tables: Arc<HazardTables>) -> Self {
        Self {
            belief: Belief::new(&tables.prior),
            tables,
            last: None,
        }
    }

    /// For a job that has seen something already; what it sees next is not learnt.
    pub fn believing(tables: Arc<HazardTables>, belief: Belief) -> Self {
        Self {
            tables,
            belief,
            last: None,
        }
    }

    /// Puts the belief level with what is seen now.
    fn learn(&mut self, seen: Seen) {
        if let Some(last) = self.last {
            let ended = last.up != seen.up;
            self.belief.learn(&self.tables.prior, last, ended);
        }
        self.last = Some(seen);
    }

    /// The cheapest of the safe modes, were starts on demand always to work.
    fn cheapest(&self, terms: &Terms, moment: &Moment, seen: Seen) -> Mode {
        let (tables, weights) = (&self.tables, self.belief.weights());
        let table = &tables.table;
        let (left, seen) = (moment.ticks_left, seen.index());
        let slack = left * terms.tick - moment.work_left;
        let fails = tables.costs.start_fails;
        let idle = table.idle(weights, left, seen, slack - terms.tick);
        let started = |sure: f64| (1.0 - fails) * sure + fails * idle;
        let held = if moment.mode == Mode::OnDemand {
            table.on_demand(weights, left, seen, slack - moment.overhead_left)
        } else {
            started(table.on_demand(weights, left, seen, slack - terms.overhead))
        };
        let mut best = (Mode::OnDemand, 1.0 + held);
        let safe = SafeSet::new(terms, moment);
        if moment.spot && safe.may_ride() {
            let rides = moment.mode == Mode::Spot;
            let boot = if rides {
                moment.overhead_left
            } else {
                terms.overhead
            };
            let then = (boot - terms.tick).max(0);
            let sure = table.spot(weights, left, seen, slack - boot, then);
            let cost = tables.costs.spot + if rides { sure } else { started(sure) };
            if cost < best.1 {
                best = (Mode::Spot, cost);
            }
        }
        if safe.may_wait() && idle + GAIN < best.1 {
            best.0 = Mode::Idle;
        }
        best.0
    }
}

impl DeadlinePolicy for HazardMdp {
    fn choose(&mut self, terms: &Terms, moment: &Moment) -> Mode {
        let seen = Seen {
            up: moment.spot,
            class: age_class(moment.age),
        };
        self.learn(seen);
        let wish = self.cheapest(terms, moment, seen);
        SafeSet::new(terms, moment).bound(wish)
    }
}
