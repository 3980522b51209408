//! How good our own reckoning is before any bill corrects it.

use std::collections::BTreeSet;
use std::time::Duration;

use chrono::NaiveDate;
use haggle::store::{EntryFilter, Paid, Reader};
use haggle::types::ledger::{Component, EntryKind, month_of};
use haggle::types::money::Money;

use crate::number;
use crate::scenarios::{calm, simulate};

/// What was accrued and what was billed over some seeds, traffic left out.
fn reckoned_and_billed() -> (Money, Money) {
    let first = number("HAGGLE_SEED").unwrap_or(1);
    let count = number("HAGGLE_SEEDS").unwrap_or(2);
    let (mut reckoned, mut billed) = (Money::ZERO, Money::ZERO);
    for seed in first..first + count {
        let dir = tempfile::tempdir().unwrap();
        let minutes = 1 + seed * 3 % 10;
        let outcome = simulate(&calm(seed, Duration::from_mins(minutes)), dir.path());
        assert_eq!(outcome.violations, Vec::<String>::new(), "seed {seed}");
        let reader = Reader::open(&dir.path().join("haggle.db")).unwrap();
        let (mut ours, mut theirs) = (Money::ZERO, Money::ZERO);
        for entry in reader.entries(&EntryFilter::default()).unwrap() {
            match (entry.kind, entry.component) {
                (_, Some(Component::Traffic)) => {}
                (EntryKind::Accrue, _) => ours += entry.amount,
                (EntryKind::Bill, _) => theirs += entry.amount,
                _ => {}
            }
        }
        println!(
            "seed {seed}: every {minutes} min, reckoned {ours}, billed {theirs}, {} starts, {} outbids",
            outcome.starts, outcome.outbids
        );
        receipts_add_up(&reader);
        reckoned += ours;
        billed += theirs;
        assert_eq!(reader.audit().unwrap().problems, Vec::<String>::new());
    }
    let off = (reckoned - billed).as_dollars() / billed.as_dollars() * 100.0;
    println!("reckoned {reckoned}, billed {billed}: {off:+.3} %");
    (reckoned, billed)
}

/// A month's receipt is the ledger's lines of that month, however it is divided.
fn receipts_add_up(reader: &Reader) {
    let entries = reader.entries(&EntryFilter::default()).unwrap();
    let months: BTreeSet<NaiveDate> = entries.iter().map(|entry| month_of(entry.day)).collect();
    assert!(!months.is_empty());
    for month in months {
        let of_it = || entries.iter().filter(|entry| month_of(entry.day) == month);
        let spend = of_it().filter(|entry| entry.kind.spends());
        let billed = of_it().filter(|entry| entry.kind == EntryKind::Bill);
        let paid = Paid {
            spend: spend.map(|entry| entry.amount).sum(),
            billed: billed.map(|entry| entry.amount).sum(),
        };
        let receipt = reader.receipt(month).unwrap();
        assert_eq!(receipt.paid, paid);
        assert_eq!(paid.spend, paid.billed + paid.unbilled());
        let by_job = receipt.jobs.values();
        let by_component = receipt.components.values();
        assert_eq!(by_job.map(|paid| paid.spend).sum::<Money>(), paid.spend);
        assert_eq!(
            by_component.map(|paid| paid.spend).sum::<Money>(),
            paid.spend
        );
        assert!(receipt.achieved.values().any(|done| done.useful_gpu_ms > 0));
        let lost = receipt.losses.values();
        assert!(lost.map(|l| l.failed_starts + l.lost_work).sum::<Money>() <= paid.spend);
    }
    let days: BTreeSet<NaiveDate> = entries.iter().map(|entry| entry.day).collect();
    let (first, last) = (*days.first().unwrap(), *days.last().unwrap());
    let drifts = reader.drift(first, last).unwrap();
    let of = |kind: EntryKind| {
        let lines = entries.iter().filter(move |entry| entry.kind == kind);
        lines.map(|entry| entry.amount).sum::<Money>()
    };
    assert_eq!(
        drifts.iter().map(|d| d.estimated).sum::<Money>(),
        of(EntryKind::Accrue)
    );
    let billed = drifts.iter().map(|d| d.billed + d.traffic).sum::<Money>();
    assert_eq!(billed, of(EntryKind::Bill));
}

#[test]
fn the_estimate_is_within_a_hundredth_of_the_bill() {
    let (reckoned, billed) = reckoned_and_billed();
    assert!(billed > Money(100_000_000), "{billed} is not much");
    let off = i128::from((reckoned - billed).0).abs();
    assert!(off * 100 <= i128::from(billed.0), "{reckoned} for {billed}");
}
