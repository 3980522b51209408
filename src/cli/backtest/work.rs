//! A backtest's work, shared among threads.

use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use crate::backtest::{Batch, Optimizer, Outcome, Sweep};
use crate::clock::SystemClock;
use crate::engine::deadline::{DeadlineKind, HazardTables};

/// A sweep, cut for threads.
pub(super) struct Work<'a> {
    /// What is run.
    pub(super) sweep: &'a Sweep,
    batches: Vec<Batch>,
    /// A batch, and which of its windows.
    pieces: Vec<(usize, Range<usize>)>,
    threads: usize,
    clock: SystemClock,
}

/// Windows of a piece, at most: small enough that all threads have some.
const PIECE: usize = 128;

/// Runs are repeated until they have taken so many seconds of all cores together, or so often.
const MEASURED_SECONDS: f64 = 0.1;
const PASSES: usize = 32;

/// All windows under one policy.
pub(super) struct Total {
    /// By window.
    pub(super) outcomes: Vec<Outcome>,
    /// Runs a second and core.
    pub(super) per_second: Option<f64>,
    /// Seconds in which tables were solved, of all cores together.
    pub(super) table_seconds: f64,
}

/// A batch's tables while any of its pieces is open, and how many are.
struct Shared {
    tables: Mutex<Option<Arc<HazardTables>>>,
    open: AtomicUsize,
}

impl<'a> Work<'a> {
    /// Cuts a sweep.
    pub(super) fn new(sweep: &'a Sweep, threads: usize) -> Self {
        let batches = sweep.batches();
        let mut pieces = Vec::new();
        for (at, batch) in batches.iter().enumerate() {
            let windows = batch.windows.len();
            pieces.extend(
                (0..windows)
                    .step_by(PIECE)
                    .map(|from| (at, from..windows.min(from + PIECE))),
            );
        }
        Self {
            sweep,
            batches,
            pieces,
            threads,
            clock: SystemClock::new(),
        }
    }

    fn windows(&self, piece: usize) -> &[usize] {
        let (batch, range) = &self.pieces[piece];
        &self.batches[*batch].windows[range.clone()]
    }

    /// Works on all pieces, each by whichever thread is free; what comes out is in their order.
    fn each<T: Send, S>(
        &self,
        fresh: impl Fn() -> S + Sync,
        work: impl Fn(&mut S, usize) -> T + Sync,
    ) -> Vec<T> {
        let next = AtomicUsize::new(0);
        let done = Mutex::new(Vec::with_capacity(self.pieces.len()));
        std::thread::scope(|scope| {
            for _ in 0..self.threads.min(self.pieces.len()) {
                scope.spawn(|| {
                    let mut state = fresh();
                    loop {
                        let piece = next.fetch_add(1, Ordering::Relaxed);
                        if piece >= self.pieces.len() {
                            return;
                        }
                        let result = work(&mut state, piece);
                        done.lock()
                            .unwrap_or_else(PoisonError::into_inner)
                            .push((piece, result));
                    }
                });
            }
        });
        let mut done = done.into_inner().unwrap_or_else(PoisonError::into_inner);
        done.sort_by_key(|(piece, _)| *piece);
        done.into_iter().map(|(_, result)| result).collect()
    }

    /// The least cost of every window, and how many a second one core reckons.
    pub(super) fn optima(&self) -> (Vec<Option<f64>>, Option<f64>) {
        let found = self.each(Optimizer::default, |optimizer, piece| {
            let begun = self.clock.seconds();
            let least = self.sweep.optima(self.windows(piece), optimizer);
            (least, self.clock.seconds() - begun)
        });
        let mut all = vec![None; self.sweep.windows.len()];
        let mut seconds = 0.0;
        for (piece, (least, took)) in found.into_iter().enumerate() {
            seconds += took;
            for (at, least) in self.windows(piece).iter().zip(least) {
                all[*at] = least;
            }
        }
        let per_second = (seconds > 0.0).then(|| all.len() as f64 / seconds);
        (all, per_second)
    }

    /// Everything under one policy.
    pub(super) fn play(&self, kind: DeadlineKind) -> Total {
        let mut total = Total {
            outcomes: vec![Outcome::default(); self.sweep.windows.len()],
            per_second: None,
            table_seconds: 0.0,
        };
        let (mut seconds, mut runs) = (0.0, 0);
        for _ in 0..PASSES {
            seconds += self.pass(kind, &mut total);
            runs += total.outcomes.len();
            // Tables are solved in every pass, and runs that go by them take long enough.
            if seconds >= MEASURED_SECONDS || kind == DeadlineKind::HazardMdp {
                break;
            }
        }
        total.per_second = (seconds > 0.0).then(|| runs as f64 / seconds);
        total
    }

    /// Runs everything once, and says how many seconds the runs took, of all cores together.
    fn pass(&self, kind: DeadlineKind, total: &mut Total) -> f64 {
        let shared: Vec<Shared> = (0..self.batches.len())
            .map(|batch| Shared {
                tables: Mutex::new(None),
                open: AtomicUsize::new(self.pieces.iter().filter(|piece| piece.0 == batch).count()),
            })
            .collect();
        let clock = || self.clock.seconds();
        let played = self.each(
            || (),
            |(), piece| {
                let batch = self.pieces[piece].0;
                let mut solving = 0.0;
                let solve = || {
                    let begun = clock();
                    let tables = self.sweep.tables(&self.batches[batch]);
                    solving = clock() - begun;
                    tables
                };
                let goes_by_tables = kind == DeadlineKind::HazardMdp;
                let tables = goes_by_tables.then(|| shared[batch].take_up(solve));
                let played = self
                    .sweep
                    .play(self.windows(piece), kind, tables.as_ref(), &clock);
                shared[batch].put_down();
                (played, solving)
            },
        );
        let mut seconds = 0.0;
        for (piece, (played, solving)) in played.into_iter().enumerate() {
            seconds += played.seconds;
            total.table_seconds += solving;
            for (at, outcome) in self.windows(piece).iter().zip(played.outcomes) {
                total.outcomes[*at] = outcome;
            }
        }
        seconds
    }
}

impl Shared {
    /// The tables; who comes first solves them, and the others wait for it.
    fn take_up(&self, solve: impl FnOnce() -> HazardTables) -> Arc<HazardTables> {
        let mut tables = self.tables.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(tables.get_or_insert_with(|| Arc::new(solve())))
    }

    /// The last one frees the memory.
    fn put_down(&self) {
        if self.open.fetch_sub(1, Ordering::AcqRel) == 1 {
            *self.tables.lock().unwrap_or_else(PoisonError::into_inner) = None;
        }
    }
}
