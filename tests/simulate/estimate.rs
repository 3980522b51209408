//! How good our own reckoning is before any bill corrects it.

use std::time::Duration;

use haggle::store::{EntryFilter, Reader};
use haggle::types::ledger::{Component, EntryKind};
use haggle::types::money::Money;

use crate::number;
use crate::scenarios::{calm, simulate};

/// What was accrued and what was billed over some seeds, traffic left out.
fn reckoned_and_billed() -> (Money, Money) {
    let first = number("HAGGLE_SEED").unwrap_or(1);
    let count = number("HAGGLE_SEEDS").unwrap_or(4);
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
        reckoned += ours;
        billed += theirs;
        assert_eq!(reader.audit().unwrap().problems, Vec::<String>::new());
    }
    let off = (reckoned - billed).as_dollars() / billed.as_dollars() * 100.0;
    println!("reckoned {reckoned}, billed {billed}: {off:+.3} %");
    (reckoned, billed)
}

#[test]
fn the_estimate_is_within_a_hundredth_of_the_bill() {
    let (reckoned, billed) = reckoned_and_billed();
    assert!(billed > Money(100_000_000), "{billed} is not much");
    let off = i128::from((reckoned - billed).0).abs();
    assert!(off * 100 <= i128::from(billed.0), "{reckoned} for {billed}");
}
