//! The least that a run could have cost, to one who knows the trace.
//!
//! An exact dynamic programme, backwards over ticks. What is kept of a run is not the work that it
//! has done but the time that it has lost so far (waiting, starting), in units of the greatest common
//! divisor of tick, overhead and work: only what the deadline can bear has to be looked at, and one
//! that runs on loses nothing. The overhead of a start is counted at the start. That is exact: whoever
//! knows the trace starts nothing that is taken away before it works, as waiting costs less.

use std::ops::Range;

use super::replay::Tick;
use crate::engine::deadline::{Mode, Terms};

/// Reckons optima, and keeps its memory from one to the next.
#[derive(Debug, Default)]
pub struct Optimizer {
    now: [Vec<f64>; 3],
    next: [Vec<f64>; 3],
}

/// The row of who holds nothing; that of who rides and that of who is on demand follow.
const IDLE: usize = 0;

impl Optimizer {
    /// The least cost, with the prices of a tick as given; `None` where nobody can be in time.
    pub fn least(
        &mut self,
        terms: &Terms,
        trace: &[Tick],
        spot: f64,
        on_demand: f64,
    ) -> Option<f64> {
        let unit = gcd(gcd(terms.tick, terms.overhead), terms.work).max(1);
        let ticks = terms.ticks();
        let bearable = ticks * terms.tick - terms.work;
        if bearable < 0 {
            return None;
        }
        let width = (bearable / unit) as usize + 1;
        let (wait, start) = (
            (terms.tick / unit) as usize,
            (terms.overhead / unit) as usize,
        );
        for rows in [&mut self.now, &mut self.next] {
            for row in rows.iter_mut() {
                row.clear();
                row.resize(width, f64::INFINITY);
            }
        }
        for tick in (0..=ticks).rev() {
            let seen = trace.get(tick as usize).copied().unwrap_or_default();
            let finished = finished(terms, tick, unit, width);
            if tick == ticks {
                for row in &mut self.now {
                    row.fill(f64::INFINITY);
                }
            } else {
                // No more can have been lost by now.
                let reach = (tick as usize).saturating_mul(wait.max(start)) + 1;
                let here = finished..reach.clamp(finished, width);
                self.step(seen, wait, start, here, spot, on_demand);
            }
            for row in &mut self.now {
                row[..finished].fill(0.0);
            }
            std::mem::swap(&mut self.now, &mut self.next);
        }
        let least = self.next[IDLE][0];
        least.is_finite().then_some(least)
    }

    /// One tick back: what each of these losses so far costs from here, the work not being done yet.
    fn step(
        &mut self,
        seen: Tick,
        wait: usize,
        start: usize,
        losses: Range<usize>,
        spot: f64,
        on_demand: f64,
    ) {
        let from = losses.start;
        let [idle, riding, held] = self.now.each_mut().map(|row| &mut row[losses.clone()]);
        let [next_idle, next_riding, next_held] = self.next.each_ref().map(|row| &row[from..]);
        idle.fill(f64::INFINITY);
        lowered(idle, next_idle, wait, 0.0);
        if seen.starts(Mode::Spot) {
            lowered(idle, next_riding, start, spot);
        }
        if seen.starts(Mode::OnDemand) {
            lowered(idle, next_held, start, on_demand);
        }
        // Whatever is held can be let go.
        riding.copy_from_slice(idle);
        if seen.has(Tick::SPOT) {
            lowered(riding, next_riding, 0, spot);
        }
        held.copy_from_slice(idle);
        lowered(held, next_held, 0, on_demand);
    }
}

/// How many of the losses leave the work done at a tick: those below.
fn finished(terms: &Terms, tick: i64, unit: i64, width: usize) -> usize {
    let spare = tick * terms.tick - terms.work;
    if spare < 0 {
        0
    } else {
        ((spare / unit) as usize + 1).min(width)
    }
}

/// Takes what comes next, at a loss that is greater by `shift`, where it is cheaper.
fn lowered(row: &mut [f64], next: &[f64], shift: usize, price: f64) {
    let next = next.get(shift..).unwrap_or_default();
    for (value, next) in row.iter_mut().zip(next) {
        let other = next + price;
        *value = if other < *value { other } else { *value };
    }
}

fn gcd(a: i64, b: i64) -> i64 {
    if b == 0 { a } else { gcd(b, a % b) }
}
