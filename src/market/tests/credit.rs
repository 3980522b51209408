//! Credit: top-ups by hand and by card, what follows without any, and the limit of new accounts.

use super::*;
use crate::market::Payments;

/// A dollar, and one instance that costs 0.3 and more an hour.
fn poor(change: impl FnOnce(&mut MarketOptions)) -> (Market, u64, u64) {
    let mut options = MarketOptions {
        balance: Money::dollars(1),
        ..still_options()
    };
    change(&mut options);
    let (mut market, account) = single_with(options);
    let id = market.create(account, bid(100, 0.3)).unwrap().new_contract;
    (market, account, id)
}

fn paid_in(market: &Market, account: u64) -> Money {
    let payments = &market.accounts[&account].records.payments;
    payments.iter().map(|payment| payment.amount).sum()
}

#[test]
fn nothing_is_charged_unless_it_was_set_up() {
    let (mut market, account, id) = poor(|_| {});
    later(&mut market, 5 * 3600);
    assert!(is_stopped(&market, account, id));
    assert_eq!(paid_in(&market, account), Money::dollars(1));
    let user = market.user(account);
    assert!(!user.has_billing && !user.balance_threshold_enabled);
    assert_eq!(user.autobill_amount, None);
}

#[test]
fn a_saved_card_is_charged_at_the_threshold() {
    let threshold = Money::from_dollars(0.5).unwrap();
    let (mut market, account, id) =
        poor(|options| options.autobill = Some((threshold, Money::dollars(2))));
    later(&mut market, 24 * 3600);
    assert!(is_running(&market, account, id));
    let payments = &market.accounts[&account].records.payments;
    assert!(payments.len() > 3);
    for payment in &payments[1..] {
        assert_eq!(payment.amount, Money::dollars(2));
        assert!(payment.before <= threshold && payment.before > Money::ZERO);
    }
    let total = bill(&market, account, id).total();
    assert_eq!(market.credit(account), paid_in(&market, account) - total);
    let user = market.user(account);
    assert_eq!(user.paid_expected, paid_in(&market, account).as_dollars());
    assert!(user.has_billing && user.balance_threshold_enabled);
    assert_eq!(
        (user.autobill_threshold, user.autobill_amount),
        (Some(0.5), Some(2.0))
    );
    assert!(told(&market, account).contains(&"payment_receipt".to_owned()));
}

#[test]
fn a_late_payment_may_come_too_late_for_the_gpus() {
    let (mut market, account, id) = poor(|options| {
        options.autobill = Some((Money(1), Money::dollars(2)));
        options.payments = Payments::Late;
    });
    while is_running(&market, account, id) || states(&market, account, id).0 == "running" {
        later(&mut market, 30);
    }
    assert!(credit(&market, account) <= Money::ZERO);
    rival(&mut market, 0, 0, Some(0.35));
    later(&mut market, 2000);
    assert!(credit(&market, account) > Money::ZERO);
    assert!(
        is_stopped(&market, account, id),
        "others have the GPUs by now"
    );
    let kinds = told(&market, account);
    for kind in ["low_credit", "payment_receipt"] {
        assert!(kinds.contains(&kind.to_owned()), "{kinds:?}");
    }
}

#[test]
fn a_refused_card_is_tried_again_and_told_of() {
    let (mut market, account, id) = poor(|options| {
        options.autobill = Some((Money(1), Money::dollars(2)));
        options.payments = Payments::Failing;
    });
    later(&mut market, 8 * 3600);
    assert!(is_stopped(&market, account, id));
    assert_eq!(paid_in(&market, account), Money::dollars(1));
    let kinds = told(&market, account);
    let refused = kinds.iter().filter(|kind| *kind == "billing_failed");
    assert!((4..=6).contains(&refused.count()), "{kinds:?}");
}

#[test]
fn a_deposit_lets_run_again_what_was_stopped_for_want_of_it() {
    for resumes in [true, false] {
        let (mut market, account, id) =
            poor(|options| options.disputed.topped_up_resumes = resumes);
        later(&mut market, 5 * 3600);
        assert!(is_stopped(&market, account, id));
        assert!(credit(&market, account) <= Money::ZERO);
        market.deposit(account, Money::dollars(5));
        later(&mut market, 60);
        assert_eq!(is_running(&market, account, id), resumes);
        market.start(account, id).unwrap();
        later(&mut market, 60);
        assert!(is_running(&market, account, id));
        let amount = Money::dollars(5);
        assert!(happened(&market, &Happening::Paid { account, amount }));
    }
}

#[test]
fn too_little_does_not_start_anything() {
    let (mut market, account, id) = poor(|_| {});
    later(&mut market, 30 * 3600);
    let owed = Money::ZERO - credit(&market, account);
    assert!(owed > Money::ZERO);
    market.deposit(account, Money(owed.0 / 2));
    later(&mut market, 60);
    assert!(is_stopped(&market, account, id));
    assert!(market.start(account, id).is_err());
}

#[test]
fn without_payment_everything_is_deleted_after_three_days_but_not_with_a_card() {
    for card in [false, true] {
        let (mut market, account, id) = poor(|options| {
            options.autobill = card.then_some((Money(1), Money::dollars(2)));
            options.payments = Payments::Failing;
        });
        later(&mut market, 70 * 3600);
        assert_eq!(market.instances(account).len(), 1);
        later(&mut market, 8 * 3600);
        assert_eq!(market.instances(account).is_empty(), !card);
        let deleted = happened(&market, &Happening::Deleted { instance: id });
        assert_eq!(deleted, !card);
    }
}

#[test]
fn a_new_account_is_refused_what_passes_its_hourly_limit() {
    let options = MarketOptions {
        spend_per_hour_max: Some(Rate::from_dollars(0.5).unwrap()),
        ..still_options()
    };
    let rows = vec![row(100, 1, 1, 1, 0.4, 0.2), row(101, 2, 1, 1, 0.4, 0.2)];
    let mut market = Market::from_rows(options, rows);
    let account = market.account_for("at_one");
    let first = market.create(account, bid(100, 0.3)).unwrap().new_contract;
    let refusal = market.create(account, bid(101, 0.21)).unwrap_err();
    assert_eq!((refusal.status, refusal.code), (400, "spend_rate_limit"));
    assert!(refusal.msg.contains("spend_rate_limit") && refusal.new_contract.is_none());
    assert_eq!(market.instances(account).len(), 1);
    // What is stopped counts with its disk alone.
    market.stop(account, first).unwrap();
    market.create(account, bid(101, 0.21)).unwrap();
}
