//! The searches that the daemon plans, sent to a market: what a job could take is in their answers,
//! and they cost less than asking for everything.

#![allow(clippy::unwrap_used)] // A test that cannot go on says so.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use haggle::clock::SimClock;
use haggle::engine::eligible::eligible;
use haggle::engine::rank::evaluate;
use haggle::engine::searches::{market_searches, own_searches};
use haggle::market::faults::Faults;
use haggle::market::transport::InProcess;
use haggle::market::{Market, MarketOptions, MarketServer, WireOptions};
use haggle::marketplace::lowcode::{LowCode, LowCodeOptions};
use haggle::ports::{Clock, Marketplace};
use haggle::types::ids::MachineId;
use haggle::types::job::{Job, RentalChoice};
use haggle::types::money::Rate;
use haggle::types::offer::{Country, Market as Prices, Offer, OfferQuery, Snapshot};
use haggle::types::time::Time;
use haggle::types::world::{EngineConfig, World};
use proptest::prelude::*;
use secrecy::SecretString;

const START: Time = Time(1_795_478_400_000);

/// A client of a market that stands still.
fn client(seed: u64) -> (Arc<SimClock>, LowCode) {
    let options = MarketOptions {
        seed,
        start: START,
        machines: Some(250),
        intensity: 0.0,
        ..MarketOptions::default()
    };
    let clock = Arc::new(SimClock::new(START));
    let shared: Arc<dyn Clock> = clock.clone();
    let server = MarketServer::new(
        Market::generated(options),
        WireOptions::default(),
        Faults::none(),
        Arc::clone(&shared),
    );
    let transport = InProcess::new(Arc::new(server), Duration::from_secs(20));
    let options = LowCodeOptions::new(SecretString::from("at_play"));
    let client = LowCode::new(Arc::new(transport), shared, options, &BTreeMap::new());
    (clock, client)
}

async fn rows_of(client: &LowCode, queries: &[OfferQuery]) -> BTreeMap<u64, Offer> {
    let mut rows: BTreeMap<u64, Offer> = BTreeMap::new();
    for query in queries {
        let page = client.offers(query).await.unwrap();
        assert!(page.complete, "{query:?}");
        for offer in page.offers {
            let known = rows.entry(offer.id.0).or_insert_with(|| offer.clone());
            known.on_demand = known.on_demand.or(offer.on_demand);
            known.floor = known.floor.or(offer.floor);
        }
    }
    rows
}

fn world(market: Snapshot) -> World {
    World {
        now: START,
        seed: 1,
        config: EngineConfig::default(),
        jobs: Vec::new(),
        unreadable_jobs: Vec::new(),
        last_policies: Vec::new(),
        unreadable_secrets: BTreeMap::new(),
        state: haggle::types::state::State::new(haggle::types::ids::Installation::from_seed(1)),
        market: Arc::new(market),
        listing: None,
        account: None,
        credit_read: None,
        credit_slope: None,
        can_bid: true,
        wind_down: false,
    }
}

fn base_job() -> Job {
    let text = "name = \"a\"\nfinish = \"never\"\n[run]\nimage = \"a:1\"\n[gpu]\ncount = 1\n\
                [price]\nmax = \"$1/gpu-hour\"\n[data]\ndisposable = true\n";
    haggle::policy::parse("a.toml", text).unwrap()
}

/// Jobs of all kinds, some of which nothing fits.
fn any_job() -> impl Strategy<Value = Job> {
    let models = prop::sample::subsequence(
        vec![
            "RTX 4090",
            "RTX_3090",
            "rtx 3080",
            "RTX 5060 Ti",
            "H100 SXM",
            "A100 PCIE",
            "NO SUCH",
        ],
        0..4,
    );
    let rental = prop::sample::select(vec![
        RentalChoice::Interruptible,
        RentalChoice::OnDemand,
        RentalChoice::Auto,
    ]);
    let country = prop_oneof![
        4 => Just(Vec::new()),
        1 => prop::sample::subsequence(vec!["US", "CA", "KR", "NO", "DE"], 1..4),
    ];
    let maybe = |least: f32, most: f32| prop::option::weighted(0.25, least..most);
    let seldom = || prop::bool::weighted(0.15);
    (
        (
            models,
            rental,
            prop::sample::select(vec![1_u32, 1, 2, 4]),
            50_i64..1500,
        ),
        (
            prop::option::weighted(
                0.25,
                prop::sample::select(vec![8_000_u32, 16_000, 24_564, 24_000]),
            ),
            prop::option::weighted(0.25, prop::sample::select(vec![700_u32, 800, 890])),
            prop::option::weighted(0.25, prop::sample::select(vec![1180_u32, 1240, 1280])),
            8_u32..200,
        ),
        (
            maybe(50.0, 3000.0),
            maybe(20.0, 2000.0),
            maybe(0.9, 0.9999),
            prop::option::weighted(0.25, 1_u32..200),
        ),
        (
            prop::bool::weighted(0.8),
            seldom(),
            seldom(),
            country.clone(),
            country,
        ),
    )
        .prop_map(|(what, machine, net, place)| {
            let mut job = base_job();
            (job.rental, job.price_max) = (what.1, Rate(what.3 * 1_000_000));
            let need = &mut job.requirements;
            need.gpu_models = what.0.into_iter().map(str::to_owned).collect();
            need.gpu_count = what.2;
            (need.gpu_ram_mb_min, need.compute_cap_min) = (machine.0, machine.1);
            (need.cuda_min, need.disk_gb) = (machine.2, machine.3);
            (need.inet_down_mbit_s_min, need.inet_up_mbit_s_min) = (net.0, net.1);
            (need.reliability_min, need.direct_ports_min) = (net.2, net.3);
            (need.verified, need.datacenter, need.static_ip) = (place.0, place.1, place.2);
            let countries = |codes: Vec<&str>| {
                codes
                    .into_iter()
                    .map(|code| Country::try_from(code.to_owned()).unwrap())
                    .collect()
            };
            (need.countries, need.countries_denied) = (countries(place.3), countries(place.4));
            job
        })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(20))]

    /// Whatever the jobs are: a row of the whole market that a job could take is in an answer.
    #[test]
    fn no_row_that_a_job_could_take_is_hidden(
        jobs in prop::collection::vec(any_job(), 1..5),
        seed in 0_u64..4,
        fits in 0_usize..300,
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let (_, client) = client(seed);
            let mut everything = [Prices::OnDemand, Prices::Bid].map(OfferQuery::all);
            for query in &mut everything {
                query.bounds.unverified = true;
            }
            let all = rows_of(&client, &everything).await;
            let jobs: Vec<Arc<Job>> = jobs.into_iter().map(Arc::new).collect();
            let planned = market_searches(&jobs, &Snapshot::default(), &|_| fits);
            let seen = rows_of(&client, &planned).await;
            let world = world(Snapshot { at: START, ..Snapshot::default() });
            for offer in all.values() {
                for job in &jobs {
                    if eligible(&world, job, offer).is_err() || evaluate(&world, job, offer).is_err() {
                        continue;
                    }
                    let found = seen.get(&offer.id.0);
                    prop_assert!(found.is_some(), "{offer:?} is hidden from {job:?}: {planned:#?}");
                    // With all its prices: it is worth to the job what it would be.
                    prop_assert_eq!(
                        evaluate(&world, job, found.unwrap()).ok(),
                        evaluate(&world, job, offer).ok()
                    );
                    prop_assert!(planned.iter().any(|query| query.matches(offer)));
                }
            }
            // And what is not in a complete answer is not claimed to be.
            for offer in all.values().filter(|offer| !seen.contains_key(&offer.id.0)) {
                prop_assert!(!planned.iter().any(|query| query.matches(offer)), "{:#?}", planned.iter().find(|query| query.matches(offer)));
            }
            Ok(())
        })?;
    }
}

#[tokio::test]
async fn many_machines_of_ours_cost_a_search_or_two_and_all_their_rows_come() {
    let (_, client) = client(1);
    let all = rows_of(&client, &[OfferQuery::all(Prices::OnDemand)]).await;
    let machines: BTreeSet<MachineId> = all.values().map(|offer| offer.machine).collect();
    let machines: BTreeSet<MachineId> = machines.into_iter().take(30).collect();
    assert_eq!(machines.len(), 30);
    let searches = own_searches(&machines);
    assert_eq!(searches.len(), 2);
    let seen = rows_of(&client, &searches).await;
    let there: BTreeSet<MachineId> = seen.values().map(|offer| offer.machine).collect();
    assert_eq!(there, machines);
    for (id, offer) in all
        .iter()
        .filter(|(_, offer)| machines.contains(&offer.machine))
    {
        assert!(seen.contains_key(id), "{offer:?}");
    }
}
