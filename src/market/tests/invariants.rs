//! What holds whatever happens.

use proptest::prelude::*;

use super::*;
use crate::market::Payments;
use crate::market::machine::higher;

/// What an account may do.
#[derive(Clone, Copy, Debug)]
enum Act {
    Rent {
        offer: usize,
        part: f64,
        cancels: bool,
    },
    RentOnDemand {
        offer: usize,
    },
    Bid {
        instance: usize,
        part: f64,
    },
    Stop(usize),
    Start(usize),
    Destroy(usize),
    Label(usize),
    Deposit(i64),
    Answer(bool),
    List(bool),
}

fn act() -> impl Strategy<Value = (i64, Act)> {
    let acts = prop_oneof![
        4 => (0_usize..500, 0.7..1.6, any::<bool>())
            .prop_map(|(offer, part, cancels)| Act::Rent { offer, part, cancels }),
        1 => (0_usize..500).prop_map(|offer| Act::RentOnDemand { offer }),
        3 => (0_usize..20, 0.2..1.8).prop_map(|(instance, part)| Act::Bid { instance, part }),
        1 => (0_usize..20).prop_map(Act::Stop),
        1 => (0_usize..20).prop_map(Act::Start),
        1 => (0_usize..20).prop_map(Act::Destroy),
        1 => (0_usize..20).prop_map(Act::Label),
        1 => (-3_000_000_000_i64..9_000_000_000).prop_map(Act::Deposit),
        1 => any::<bool>().prop_map(Act::Answer),
        1 => any::<bool>().prop_map(Act::List),
    ];
    (0_i64..20_000_000, acts)
}

fn perform(market: &mut Market, account: u64, act: Act) {
    let offers = market.offers(account, SearchType::Bid, 8.0);
    let instances = market.instances(account);
    let nth = |n: usize| instances.get(n % instances.len().max(1));
    let refused = match act {
        Act::Rent {
            offer,
            part,
            cancels,
        } => offers.get(offer % offers.len().max(1)).map(|offer| {
            let mut params = bid(offer.id, offer.min_bid * part);
            params.disk = None;
            params.cancel_unavail = Some(cancels);
            market.create(account, params).err()
        }),
        Act::RentOnDemand { offer } => offers.get(offer % offers.len().max(1)).map(|offer| {
            let mut params = on_demand(offer.id);
            params.disk = None;
            market.create(account, params).err()
        }),
        Act::Bid { instance, part } => nth(instance).map(|held| {
            let price = (part < 1.7).then_some(held.dph_base * part);
            market.set_bid(account, held.id, price).err()
        }),
        Act::Stop(n) => nth(n).map(|held| market.stop(account, held.id).err()),
        Act::Start(n) => nth(n).map(|held| market.start(account, held.id).err()),
        Act::Destroy(n) => nth(n).map(|held| market.destroy(account, held.id).err()),
        Act::Label(n) => nth(n).map(|held| {
            let label = "hg-abcdefgh-train-r0-17/g3.go.1795478400";
            market.set_label(account, held.id, label).err()
        }),
        Act::Deposit(nanos) => {
            market.deposit(account, Money(nanos));
            None
        }
        Act::Answer(accept) => market.price_increases(account).first().map(|row| {
            let id = row["pending_price_increase_id"].as_u64().unwrap();
            market.answer_price_increase(account, id, accept).err()
        }),
        Act::List(begins) => {
            assert_listing(market, account, begins);
            None
        }
    };
    if let Some(refusal) = refused.flatten() {
        assert!((400..=410).contains(&refusal.status), "{refusal}");
    }
}

/// A listing on a wire has each instance once, and besides what lives only what died of late.
fn assert_listing(market: &mut Market, account: u64, begins: bool) {
    let rows = market.listing(account, begins);
    assert!(rows.windows(2).all(|pair| pair[0].id < pair[1].id));
    let facts = market.options.disputed;
    let living = |id: u64| market.instance(account, id).is_some();
    for row in &rows {
        assert!(living(row.id) || (facts.ghosts > 0 && market.past.contains_key(&row.id)));
    }
    if facts.shown_after_seconds == 0 {
        let seen = rows.iter().filter(|row| living(row.id)).count();
        assert_eq!(seen, market.instances(account).len());
    }
}

/// Never two on a GPU; and nobody who could run waits behind a lower bid.
fn assert_auction(market: &Market) {
    for machine in &market.machines {
        let here: Vec<_> = machine
            .contracts
            .iter()
            .map(|id| &market.contracts[id])
            .collect();
        let mut taken = 0;
        for contract in here.iter().filter(|contract| contract.granted) {
            assert_eq!(taken & contract.mask, 0, "two on a GPU of {}", machine.id);
            taken |= contract.mask;
            assert!(contract.wants);
        }
    }
}

/// After an auction, the highest run.
fn assert_settled(market: &mut Market) {
    for index in 0..market.machines.len() {
        market.settle(index);
        let machine = &market.machines[index];
        if !machine.online {
            continue;
        }
        for waiting in machine.contracts.iter().map(|id| &market.contracts[id]) {
            let broke = waiting
                .account()
                .is_some_and(|account| market.accounts[&account].broke);
            if waiting.granted || !waiting.wants || broke || !machine.meets_floor(waiting) {
                continue;
            }
            let beaten = machine
                .holders(&market.contracts, waiting.mask)
                .any(|holder| match (holder.bid, waiting.bid) {
                    (None, _) => true,
                    (Some(_), None) => false,
                    (Some(held), Some(bid)) => {
                        let (bid, held) = ((bid, waiting.gpus), (held, holder.gpus));
                        let later = waiting.arrived > holder.arrived;
                        !machine.displaces(bid, held) || (!higher(bid, held) && !later)
                    }
                });
            assert!(beaten, "{} waits behind nobody better", waiting.id);
        }
    }
}

fn assert_books(market: &Market, account: u64, start: Time) {
    let books = market.exact_bill(account);
    let total: Money = books.values().map(super::super::ExactBill::total).sum();
    let payments = &market.accounts[&account].records.payments;
    let paid: Money = payments.iter().map(|payment| payment.amount).sum();
    assert_eq!(market.credit(account), paid - total);
    let mut charged = std::collections::BTreeMap::new();
    let mut rows = std::collections::BTreeMap::new();
    // What came late is there once it is settled.
    let late = i64::from(market.options.disputed.charges_late_hours) * 3_600_000;
    let mut market = market.clone();
    for id in market.ids_of(account) {
        market.destroy(account, id).unwrap();
    }
    assert_eq!(market.exact_bill(account), books);
    market.advance_to(Time(market.now().0 + late));
    assert_eq!(market.exact_bill(account), books, "closed books stay");
    let components = if market.options.disputed.charges_by_component {
        4.0
    } else {
        1.0
    };
    for row in market.charges(account, start, Time(market.now().0 + 1)) {
        let id: u64 = row
            .source
            .strip_prefix("instance-")
            .unwrap()
            .parse()
            .unwrap();
        *charged.entry(id).or_insert(0.0) += row.amount;
        *rows.entry(id).or_insert(0_u32) += 1;
    }
    for (id, exact) in books {
        let shown = charged.get(&id).copied().unwrap_or(0.0);
        let slack = 0.0005 * components * f64::from(rows.get(&id).copied().unwrap_or(0)) + 1e-6;
        let off = (shown - exact.total().as_dollars()).abs();
        assert!(off <= slack, "instance {id}: {off} over {slack}");
    }
}

fn small(seed: u64) -> MarketOptions {
    MarketOptions {
        seed,
        machines: Some(12),
        intensity: 15.0,
        balance: Money::dollars(40),
        ..MarketOptions::default()
    }
}

/// A market of which the disputed facts, the hosts' honesty and the cards' worth are drawn, too.
fn any_market() -> impl Strategy<Value = MarketOptions> {
    let payments = prop_oneof![
        Just(Payments::Prompt),
        Just(Payments::Late),
        Just(Payments::Failing)
    ];
    let money = (0_i64..6, 1_i64..5, any::<bool>(), 1_i64..40);
    (any::<u64>(), any::<u64>(), any::<bool>(), payments, money).prop_map(
        |(seed, facts, usual, payments, (threshold, amount, card, balance))| MarketOptions {
            disputed: if usual {
                Disputed::default()
            } else {
                Disputed::drawn(facts)
            },
            liars: 0.3,
            failures: 8.0,
            autobill: card.then_some((Money::dollars(threshold), Money::dollars(amount))),
            payments,
            balance: Money::dollars(balance),
            spend_per_hour_max: (balance % 3 == 0).then_some(Rate::from_dollars(9.0).unwrap()),
            ..small(seed)
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    #[test]
    fn rules_hold(
        options in any_market(),
        acts in proptest::collection::vec(act(), 1..60),
    ) {
        let mut market = Market::generated(options);
        let start = market.now();
        let accounts = [market.account_for("at_one"), market.account_for("at_two")];
        for (number, (wait, act)) in acts.into_iter().enumerate() {
            let to = Time(market.now().0 + wait);
            market.advance_to(to);
            assert_auction(&market);
            perform(&mut market, accounts[number % 2], act);
            assert_auction(&market);
        }
        for account in accounts {
            assert_books(&market, account, start);
        }
        assert_settled(&mut market);
        assert_auction(&market);
    }

    #[test]
    fn big_steps_and_small_ones_give_the_same_market(
        options in any_market(),
        acts in proptest::collection::vec(act(), 1..12),
        step in 500_i64..600_000,
    ) {
        let mut coarse = Market::generated(options);
        let mut fine = coarse.clone();
        let account = coarse.account_for("at_one");
        prop_assert_eq!(fine.account_for("at_one"), account);
        for (wait, act) in acts {
            let to = Time(coarse.now().0 + wait);
            coarse.advance_to(to);
            while fine.now() < to {
                let next = Time(fine.now().0 + step).min(to);
                fine.advance_to(next);
            }
            perform(&mut coarse, account, act);
            perform(&mut fine, account, act);
        }
        prop_assert_eq!(coarse.events(), fine.events());
        prop_assert_eq!(coarse.exact_bill(account), fine.exact_bill(account));
        prop_assert_eq!(coarse.instances(account), fine.instances(account));
        prop_assert_eq!(coarse.listing(account, true), fine.listing(account, true));
        prop_assert_eq!(coarse.inbox(account), fine.inbox(account));
        prop_assert_eq!(coarse.price_increases(account), fine.price_increases(account));
        prop_assert_eq!(coarse.user(account), fine.user(account));
        let charges = |market: &Market| market.charges(account, Time(0), market.now());
        prop_assert_eq!(charges(&coarse), charges(&fine));
        let offers = |market: &Market| market.offers(account, SearchType::OnDemand, 8.0);
        prop_assert_eq!(offers(&coarse), offers(&fine));
    }
}

#[test]
fn the_same_seed_gives_the_same_market_and_another_another() {
    let day = |seed| {
        let mut market = Market::generated(small(seed));
        later(&mut market, 86_400);
        market.offers(1, SearchType::Bid, 8.0)
    };
    assert_eq!(day(5), day(5));
    assert_ne!(day(5), day(6));
}

#[test]
fn time_never_goes_back() {
    let (mut market, _) = single();
    let start = market.now();
    later(&mut market, 100);
    market.advance_to(start);
    assert_eq!(market.now(), Time(start.0 + 100_000));
}
