//! Runs a second under deadline policies through their trait, and exact optima a second, on generated
//! traces: spells that have lasted, last. Elements are runs.

use std::sync::Arc;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use haggle::backtest::{Optimizer, Prices, Series, Sweep, Tick, Trouble, Window};
use haggle::engine::deadline::{Counts, DeadlineKind, Prior, Terms};
use haggle::types::money::Rate;

/// Ticks of a generated series.
const TICKS: usize = 1_781;

/// A series in which a spell of age `a` ends with the probability 1 / (a + 2.5) a tick.
fn series(seed: u64) -> Series {
    let mut state = seed;
    let mut unit = || {
        // Knuth's generator of 64 bits; its high bits are good enough for a trace.
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (state >> 11) as f64 / (1_u64 << 53) as f64
    };
    let (mut up, mut age) = (true, 0.0);
    let up: Vec<bool> = (0..TICKS)
        .map(|_| {
            age += 1.0;
            let was = up;
            if unit() < 1.0 / (age + 2.5) {
                (up, age) = (!up, 0.0);
            }
            was
        })
        .collect();
    Series {
        name: format!("generated-{seed}"),
        ticks: up
            .iter()
            .map(|up| Tick(u8::from(*up) * Tick::SPOT))
            .collect(),
        up,
    }
}

/// Jobs of 48 hours with a deadline of 60 and restarts of 12 minutes.
fn sweep() -> Sweep {
    let series: Vec<Series> = (1..=8).map(series).collect();
    let window = |at: usize| Window {
        series: at % 8,
        start: at * 19 % 1200,
        ticks: 554,
        terms: Terms {
            tick: 600,
            work: 172_800,
            deadline: 216_000,
            overhead: 720,
            margin: 0,
        },
    };
    let counts: Vec<Counts> = series.iter().map(|one| Counts::of(&one.up)).collect();
    Sweep {
        windows: (0..480).map(window).collect(),
        series,
        prices: Prices {
            spot: Rate(973_100_000),
            on_demand: Rate(3_060_000_000),
        },
        trouble: Trouble::default(),
        prior: Prior::learnt(&counts),
    }
}

fn backtests(criterion: &mut Criterion) {
    let sweep = sweep();
    let batches = sweep.batches();
    let windows = &batches[0].windows;
    let mut group = criterion.benchmark_group("backtest");
    group.throughput(Throughput::Elements(windows.len() as u64));
    let tables = Arc::new(sweep.tables(&batches[0]));
    for kind in [
        DeadlineKind::Greedy,
        DeadlineKind::UniformProgress,
        DeadlineKind::HazardMdp,
    ] {
        group.bench_function(kind.as_str(), |bencher| {
            bencher.iter(|| sweep.play(windows, kind, Some(&tables), &|| 0.0));
        });
    }
    let mut optimizer = Optimizer::default();
    group.bench_function("optimum", |bencher| {
        bencher.iter(|| sweep.optima(windows, &mut optimizer));
    });
    group.finish();
    criterion.bench_function("tables", |bencher| {
        bencher.iter(|| sweep.tables(&batches[0]));
    });
}

criterion_group! {
    name = benches;
    config = Criterion::default().sample_size(10);
    targets = backtests
}
criterion_main!(benches);
