//! What the rest of a job costs, for each state that it can be in, by backward induction.
//!
//! A state is: ticks left, slack, what is held, and what is seen of the chain. Slack is the time left
//! less the work left and less what the start of what is held still takes. It is the better coordinate
//! than work: what runs on keeps its slack, so that nothing is interpolated but starts.
//!
//! Costs are in ticks of on-demand capacity. All chains are solved together, innermost in memory, so
//! that a mixture of them is read as one run of numbers.

use super::Terms;
use super::chain::{AGE_CLASSES, Chain};

/// What ticks and starts cost.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Costs {
    /// The interruptible price over the on-demand price.
    pub spot: f64,
    /// Probability that a start fails: the tick is paid, and nothing is held after it.
    pub start_fails: f64,
}

/// How large a table is, and how fine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TableShape {
    /// Most ticks left.
    pub ticks: usize,
    /// Most slack, in seconds.
    pub slack: i64,
    /// Seconds between levels of slack.
    pub step: i64,
}

/// Expected costs after an action, for several chains.
#[derive(Clone, Debug)]
pub struct Table {
    chains: usize,
    levels: usize,
    step: i64,
    /// Seconds that a start of interruptible capacity still takes, by how many ticks it is old.
    boots: Vec<i64>,
    ticks: usize,
    /// By ticks left before the action, row, level and chain.
    after: Vec<f32>,
}

/// The rows of a chain state: nothing held, on demand held, then what rides by its age.
const IDLE: usize = 0;
const ON_DEMAND: usize = 1;
const RIDING: usize = 2;

impl Table {
    /// A table of a shape, with nothing in it.
    fn empty(terms: &Terms, chains: usize, shape: TableShape) -> Self {
        let stages = ((terms.overhead + terms.tick - 1) / terms.tick).max(1);
        let boots = (1..=stages).map(|age| (terms.overhead - age * terms.tick).max(0));
        Self {
            chains,
            levels: (shape.slack.max(0) / shape.step + 2) as usize,
            step: shape.step,
            boots: boots.collect(),
            ticks: shape.ticks,
            after: Vec::new(),
        }
    }

    /// Bytes that a table of so many chains would take.
    pub fn size(terms: &Terms, chains: usize, shape: TableShape) -> usize {
        let table = Self::empty(terms, chains, shape);
        let numbers = table.rows().saturating_mul(table.row_size());
        numbers
            .saturating_mul(shape.ticks)
            .saturating_mul(size_of::<f32>())
    }

    /// Solves the chains. Overhead, tick and margin are of `terms`.
    pub fn solve(terms: &Terms, costs: Costs, chains: &[Chain], shape: TableShape) -> Self {
        let mut table = Self::empty(terms, chains.len(), shape);
        let size = table.rows() * table.row_size();
        table.after = vec![0.0; shape.ticks * size];
        let mut solver = Solver::new(&table, terms, costs, chains);
        for ticks in 1..=shape.ticks {
            // With no tick left, what is in the table is done.
            let (before, now) = table.after.split_at_mut((ticks - 1) * size);
            if ticks > 1 {
                solver.decide(&before[(ticks - 2) * size..], ticks as i64 - 1);
            }
            solver.expect(&mut now[..size]);
        }
        table
    }

    /// Bytes that it takes.
    pub fn bytes(&self) -> usize {
        self.after.len() * size_of::<f32>()
    }

    fn row_size(&self) -> usize {
        self.levels * self.chains
    }

    fn rows(&self) -> usize {
        AGE_CLASSES * (RIDING + self.boots.len()) + AGE_CLASSES * RIDING
    }

    /// The row of a chain state (by index) and what is held after the action.
    fn row(&self, seen: usize, held: usize) -> usize {
        let up_rows = RIDING + self.boots.len();
        if seen < AGE_CLASSES {
            seen * up_rows + held
        } else {
            AGE_CLASSES * up_rows + (seen - AGE_CLASSES) * RIDING + held
        }
    }

    /// What idling costs from here on, the chains weighted; `slack` is of the end of the tick.
    pub fn idle(&self, weights: &[f64], ticks_left: i64, seen: usize, slack: i64) -> f64 {
        self.look(weights, ticks_left, self.row(seen, IDLE), slack)
    }

    /// What is still to pay after a tick on demand.
    pub fn on_demand(&self, weights: &[f64], ticks_left: i64, seen: usize, slack: i64) -> f64 {
        self.look(weights, ticks_left, self.row(seen, ON_DEMAND), slack)
    }

    /// What is still to pay after a tick on interruptible capacity, whose start then takes `boot`
    /// seconds more. `seen` has to be of the side that is up.
    pub fn spot(
        &self,
        weights: &[f64],
        ticks_left: i64,
        seen: usize,
        slack: i64,
        boot: i64,
    ) -> f64 {
        let last = self.boots.len() - 1;
        let age = self
            .boots
            .iter()
            .position(|left| *left <= boot)
            .unwrap_or(last);
        self.look(weights, ticks_left, self.row(seen, RIDING + age), slack)
    }

    fn look(&self, weights: &[f64], ticks_left: i64, row: usize, slack: i64) -> f64 {
        let tick = (ticks_left.clamp(1, self.ticks as i64) - 1) as usize;
        let most = (self.levels as i64 - 1) * self.step;
        let slack = slack.clamp(0, most);
        let level = ((slack / self.step) as usize).min(self.levels - 2);
        let part = (slack - level as i64 * self.step) as f32 / self.step as f32;
        let at = (tick * self.rows() + row) * self.row_size() + level * self.chains;
        let (low, high) = self.after[at..at + 2 * self.chains].split_at(self.chains);
        let mut sum = 0.0;
        for ((low, high), weight) in low.iter().zip(high).zip(weights) {
            sum += (low + (high - low) * part) * *weight as f32;
        }
        f64::from(sum)
    }
}

/// The working memory of a solution.
struct Solver<'a> {
    chains: &'a [Chain],
    terms: &'a Terms,
    costs: Costs,
    layout: Table,
    /// What the job costs from a decision on, by row, level and chain. The rows of a state are those
    /// of what was held before the decision.
    before: Vec<f32>,
    /// Costs of one action, while it is weighed.
    action: Vec<f32>,
}

impl<'a> Solver<'a> {
    fn new(table: &Table, terms: &'a Terms, costs: Costs, chains: &'a [Chain]) -> Self {
        Self {
            chains,
            terms,
            costs,
            layout: table.clone(),
            before: vec![0.0; table.rows() * table.row_size()],
            action: vec![0.0; table.row_size()],
        }
    }

    /// From what each action leads to, what the best one costs.
    fn decide(&mut self, after: &[f32], ticks_left: i64) {
        let size = self.layout.row_size();
        for seen in 0..2 * AGE_CLASSES {
            let up = seen < AGE_CLASSES;
            let held_kinds = if up {
                RIDING + self.layout.boots.len()
            } else {
                RIDING
            };
            for held in 0..held_kinds {
                let at = self.layout.row(seen, held) * size;
                let mut best = std::mem::take(&mut self.action);
                best.fill(f32::INFINITY);
                self.weigh_on_demand(&mut best, after, seen, held);
                self.weigh_idle(&mut best, after, seen, held);
                if up {
                    self.weigh_spot(&mut best, after, seen, held);
                }
                // Where the slack is all of the time that is left, the work is done.
                let done = ((ticks_left * self.terms.tick + self.layout.step - 1)
                    / self.layout.step) as usize;
                let done = (done * self.layout.chains).min(size);
                best[done..].fill(0.0);
                self.before[at..at + size].copy_from_slice(&best);
                self.action = best;
            }
        }
    }

    fn boot(&self, held: usize) -> i64 {
        if held >= RIDING {
            self.layout.boots[held - RIDING]
        } else {
            0
        }
    }

    fn weigh_on_demand(&self, best: &mut [f32], after: &[f32], seen: usize, held: usize) {
        let row = self.slice(after, seen, ON_DEMAND);
        if held == ON_DEMAND {
            self.weigh(best, row, 0, 1.0, i64::MIN);
            return;
        }
        let shift = self.boot(held) - self.terms.overhead;
        self.weigh_start(
            best,
            after,
            seen,
            row,
            shift,
            self.boot(held),
            1.0,
            i64::MIN,
        );
    }

    fn weigh_idle(&self, best: &mut [f32], after: &[f32], seen: usize, held: usize) {
        let row = self.slice(after, seen, IDLE);
        let tick = self.terms.tick;
        let shift = self.boot(held) - tick;
        self.weigh(best, row, shift, 0.0, self.floor() - shift);
    }

    fn weigh_spot(&self, best: &mut [f32], after: &[f32], seen: usize, held: usize) {
        let last = self.layout.boots.len() - 1;
        let tick = self.terms.tick;
        if held >= RIDING {
            let boot = self.boot(held);
            let row = self.slice(after, seen, RIDING + (held - RIDING + 1).min(last));
            // Slack counts the boot that is left as spent; what an eviction leaves unspent comes back.
            let least = self.floor() - boot + boot.min(tick);
            self.weigh(best, row, 0, self.costs.spot, least);
        } else {
            let row = self.slice(after, seen, RIDING);
            let overhead = self.terms.overhead;
            let least = self.floor() + overhead.min(tick);
            self.weigh_start(best, after, seen, row, -overhead, 0, self.costs.spot, least);
        }
    }

    /// A start: it may fail, and then the tick is paid and gone.
    #[expect(clippy::too_many_arguments, reason = "the parts of one formula")]
    fn weigh_start(
        &self,
        best: &mut [f32],
        after: &[f32],
        seen: usize,
        row: &[f32],
        shift: i64,
        boot: i64,
        price: f64,
        least: i64,
    ) {
        let fails = self.costs.start_fails;
        if fails <= 0.0 {
            self.weigh(best, row, shift, price, least);
            return;
        }
        let mut cost = vec![0.0; best.len()];
        self.add(&mut cost, row, shift, 1.0 - fails);
        self.add(
            &mut cost,
            self.slice(after, seen, IDLE),
            boot - self.terms.tick,
            fails,
        );
        let from = self.level_of(least);
        for (best, cost) in best.iter_mut().zip(&cost).skip(from) {
            *best = best.min(cost + price as f32);
        }
    }

    /// Slack below which an on-demand start might come too late.
    fn floor(&self) -> i64 {
        self.terms.overhead + self.terms.margin * self.terms.tick
    }

    fn slice<'b>(&self, after: &'b [f32], seen: usize, held: usize) -> &'b [f32] {
        let size = self.layout.row_size();
        let at = self.layout.row(seen, held) * size;
        &after[at..at + size]
    }

    /// The first number that is of a slack of at least so much.
    fn level_of(&self, slack: i64) -> usize {
        let step = self.layout.step;
        let level = (slack.max(0) + step - 1) / step;
        (level as usize).min(self.layout.levels) * self.layout.chains
    }

    /// Takes an action where it is cheaper: `price`, and then what the row says at a slack that is
    /// shifted; only from a slack of `least` on.
    fn weigh(&self, best: &mut [f32], row: &[f32], shift: i64, price: f64, least: i64) {
        let from = self.level_of(least);
        let price = price as f32;
        let (whole, low) = self.shifted(shift);
        let chains = self.layout.chains;
        let last = row.len() - chains;
        if whole == 0 && low == 1.0 {
            for (best, cost) in best.iter_mut().zip(row).skip(from) {
                *best = best.min(cost + price);
            }
            return;
        }
        for level in from / chains..self.layout.levels {
            let at = (level as i64 + whole) * chains as i64;
            let first = at.clamp(0, last as i64) as usize;
            let second = (at + chains as i64).clamp(0, last as i64) as usize;
            let best = &mut best[level * chains..(level + 1) * chains];
            let pairs = row[first..first + chains]
                .iter()
                .zip(&row[second..second + chains]);
            for (best, (near, far)) in best.iter_mut().zip(pairs) {
                *best = best.min(near * low + far * (1.0 - low) + price);
            }
        }
    }

    /// Adds a part of what the row says at a slack that is shifted.
    fn add(&self, cost: &mut [f32], row: &[f32], shift: i64, part: f64) {
        let (whole, low) = self.shifted(shift);
        let chains = self.layout.chains;
        let last = (row.len() - chains) as i64;
        let part = part as f32;
        for level in 0..self.layout.levels {
            let at = (level as i64 + whole) * chains as i64;
            let first = at.clamp(0, last) as usize;
            let second = (at + chains as i64).clamp(0, last) as usize;
            let cost = &mut cost[level * chains..(level + 1) * chains];
            let pairs = row[first..first + chains]
                .iter()
                .zip(&row[second..second + chains]);
            for (cost, (near, far)) in cost.iter_mut().zip(pairs) {
                *cost += (near * low + far * (1.0 - low)) * part;
            }
        }
    }

    /// A shift in whole levels, and the weight of the lower of the two levels between which it falls.
    fn shifted(&self, shift: i64) -> (i64, f32) {
        let step = self.layout.step;
        let whole = shift.div_euclid(step);
        (whole, 1.0 - shift.rem_euclid(step) as f32 / step as f32)
    }

    /// From what is decided at the next tick, what is to be expected after an action at this one.
    fn expect(&self, after: &mut [f32]) {
        let size = self.layout.row_size();
        for seen in 0..2 * AGE_CLASSES {
            let up = seen < AGE_CLASSES;
            let older = if seen % AGE_CLASSES + 1 < AGE_CLASSES {
                seen + 1
            } else {
                seen
            };
            let other = if up { AGE_CLASSES } else { 0 };
            let held_kinds = if up {
                RIDING + self.layout.boots.len()
            } else {
                RIDING
            };
            for held in 0..held_kinds {
                let at = self.layout.row(seen, held) * size;
                let after = &mut after[at..at + size];
                let stays = self.slice(&self.before, seen, held);
                let ages = self.slice(&self.before, older, held);
                let lost = if held >= RIDING { IDLE } else { held };
                let ends = self.slice(&self.before, other, lost);
                let (whole, low) = self.shifted(self.boot(held));
                let chains = self.layout.chains;
                let last = size - chains;
                for level in 0..self.layout.levels {
                    let at = level * chains;
                    let first = ((level + whole as usize) * chains).min(last);
                    let second = (first + chains).min(last);
                    for (chain, odds) in self.chains.iter().enumerate() {
                        let (end, age) = (odds.ends[seen] as f32, odds.ages[seen] as f32);
                        let gone = ends[first + chain] * low + ends[second + chain] * (1.0 - low);
                        let on = stays[at + chain] * (1.0 - age) + ages[at + chain] * age;
                        after[at + chain] = gone * end + on * (1.0 - end);
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TICK: i64 = 600;

    /// What is held: nothing, on demand, or what rides and still boots so long.
    #[derive(Clone, Copy, PartialEq)]
    enum Held {
        Idle,
        OnDemand,
        Spot(i64),
    }

    /// The same by plain recursion over everything that may happen, in whole seconds of work and with
    /// the start of what is held apart from it.
    struct Plain<'a> {
        terms: &'a Terms,
        costs: Costs,
        chain: &'a Chain,
    }

    impl Plain<'_> {
        /// From a decision on; `boot` is what on-demand capacity still takes to start, which is taken
        /// for work should it be left before.
        fn cost(&self, ticks: i64, work: i64, held: Held, boot: i64, seen: usize) -> f64 {
            if work <= 0 || ticks == 0 {
                return 0.0;
            }
            let overhead = self.terms.overhead;
            let safe = |work: i64| work + overhead <= (ticks - 1 - self.terms.margin) * TICK;
            let idle = self.after(ticks, work + boot, Held::Idle, 0, seen);
            let fails = self.costs.start_fails;
            let started = |sure: f64| (1.0 - fails) * sure + fails * idle;
            let on_demand = |boot: i64| {
                let left = work - (TICK - boot).max(0);
                self.after(ticks, left, Held::OnDemand, (boot - TICK).max(0), seen)
            };
            let mut best = 1.0;
            best += if held == Held::OnDemand {
                on_demand(boot)
            } else {
                started(on_demand(overhead))
            };
            if safe(work + boot) {
                best = best.min(idle);
            }
            if seen < AGE_CLASSES {
                let (rides, takes) = match held {
                    Held::Spot(takes) => (true, takes),
                    Held::Idle | Held::OnDemand => (false, overhead),
                };
                let left = work + boot - (TICK - takes).max(0);
                let sure = self.after(ticks, left, Held::Spot((takes - TICK).max(0)), 0, seen);
                if safe(left) {
                    best = best.min(self.costs.spot + if rides { sure } else { started(sure) });
                }
            }
            best
        }

        fn after(&self, ticks: i64, work: i64, held: Held, boot: i64, seen: usize) -> f64 {
            let (ends, ages) = (self.chain.ends[seen], self.chain.ages[seen]);
            let other = if seen < AGE_CLASSES { AGE_CLASSES } else { 0 };
            let lost = if matches!(held, Held::Spot(_)) {
                Held::Idle
            } else {
                held
            };
            let mut cost = ends * self.cost(ticks - 1, work, lost, boot, other);
            cost += (1.0 - ends) * (1.0 - ages) * self.cost(ticks - 1, work, held, boot, seen);
            if ages > 0.0 {
                cost += (1.0 - ends) * ages * self.cost(ticks - 1, work, held, boot, seen + 1);
            }
            cost
        }
    }

    #[test]
    fn a_table_agrees_with_plain_recursion() {
        let chain = Chain::steady(0.3, 0.2);
        for (overhead, fails, margin) in [(300, 0.0, 0), (900, 0.0, 0), (300, 0.2, 1)] {
            let (ticks, work) = (5, 900);
            let terms = Terms {
                tick: TICK,
                work,
                deadline: ticks * TICK,
                overhead,
                margin,
            };
            let costs = Costs {
                spot: 0.3,
                start_fails: fails,
            };
            let shape = TableShape {
                ticks: ticks as usize,
                slack: ticks * TICK,
                step: 300,
            };
            let chains = [chain.clone(), Chain::steady(0.01, 0.9)];
            let table = Table::solve(&terms, costs, &chains, shape);
            let plain = Plain {
                terms: &terms,
                costs,
                chain: &chain,
            };
            let weights = [1.0, 0.0];
            for seen in [0, 2, AGE_CLASSES, AGE_CLASSES + 2] {
                let slack = ticks * TICK - work;
                // What waits has lost a tick; what is on demand already has lost nothing.
                let wanted = plain.after(ticks, work, Held::Idle, 0, seen);
                let found = table.idle(&weights, ticks, seen, slack - TICK);
                assert!(
                    (wanted - found).abs() < 1e-4,
                    "idle {seen}: {wanted} {found}"
                );
                let wanted = plain.after(ticks, work - TICK, Held::OnDemand, 0, seen);
                let found = table.on_demand(&weights, ticks, seen, slack);
                assert!(
                    (wanted - found).abs() < 1e-4,
                    "on demand {seen}: {wanted} {found}"
                );
                if seen < AGE_CLASSES {
                    let boot = (overhead - TICK).max(0);
                    let left = work - (TICK - overhead).max(0);
                    let wanted = plain.after(ticks, left, Held::Spot(boot), 0, seen);
                    let found = table.spot(&weights, ticks, seen, slack - overhead, boot);
                    assert!(
                        (wanted - found).abs() < 1e-4,
                        "spot {seen}: {wanted} {found}"
                    );
                }
            }
        }
    }

    #[test]
    fn a_mixture_is_the_mean_of_its_chains_and_levels_are_joined_by_lines() {
        let terms = Terms {
            tick: TICK,
            work: 3600,
            deadline: 12_000,
            overhead: 120,
            margin: 0,
        };
        let costs = Costs {
            spot: 0.3,
            start_fails: 0.0,
        };
        let shape = TableShape {
            ticks: 20,
            slack: 8400,
            step: 600,
        };
        let chains = [Chain::steady(0.3, 0.2), Chain::steady(0.01, 0.9)];
        let table = Table::solve(&terms, costs, &chains, shape);
        assert_eq!(table.bytes(), Table::size(&terms, 2, shape));
        let cost = |weights: [f64; 2], slack| table.idle(&weights, 20, 1, slack);
        let mixed = cost([0.25, 0.75], 2400);
        let parts = 0.25 * cost([1.0, 0.0], 2400) + 0.75 * cost([0.0, 1.0], 2400);
        assert!((mixed - parts).abs() < 1e-5);
        let between = cost([1.0, 0.0], 2550);
        let line = 0.75 * cost([1.0, 0.0], 2400) + 0.25 * cost([1.0, 0.0], 3000);
        assert!((between - line).abs() < 1e-5);
        // More slack never costs more.
        let costs: Vec<f64> = (0..14).map(|level| cost([0.5, 0.5], level * 600)).collect();
        assert!(
            costs.is_sorted_by(|less, more| less + 1e-5 >= *more),
            "{costs:?}"
        );
    }
}
