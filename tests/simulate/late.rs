//! A bill that comes when no daemon runs any more is taken up by the next one, however late.

use std::time::Duration;

use haggle::clock::SimClock;
use haggle::daemon::{Looking, Pace, Settings};
use haggle::market::faults::Faults;
use haggle::market::{Disputed, Market, MarketOptions, MarketServer, WireOptions};
use haggle::ports::Clock;
use haggle::simulate::{Checker, Path, Rig, TOKEN, Way};
use haggle::types::money::Money;
use haggle::types::state::Ask;
use haggle::types::time::Time;
use haggle::types::world::EngineConfig;
use std::sync::Arc;

use crate::scenarios::{adapters, jobs};

const START: Time = Time(1_767_643_200_000);

#[tokio::test]
async fn what_is_billed_after_the_end_is_booked_at_the_next_start() {
    let clock = Arc::new(SimClock::new(START));
    let mut market = Market::generated(MarketOptions {
        seed: 3,
        start: START,
        machines: Some(80),
        disputed: Disputed {
            charges_late_hours: 26,
            ..Disputed::default()
        },
        ..MarketOptions::default()
    });
    let account = market.account_for(TOKEN);
    let shared: Arc<dyn Clock> = clock.clone();
    let server = MarketServer::new(market, WireOptions::default(), Faults::none(), shared);
    let engine = EngineConfig::default();
    let directory = tempfile::tempdir().unwrap();
    let rig = Rig::new(
        clock.clone(),
        Arc::new(server),
        Way::default(),
        Checker::new(account, &jobs(), engine.clone()),
        adapters(directory.path(), 3, Path::New, false),
        Settings {
            engine,
            live: true,
            pace: Pace::Every,
            seed: 3,
            looking: Looking::default(),
        },
        jobs(),
    );
    let mut daemon = rig.start(Vec::new()).unwrap();
    let until = START + Duration::from_hours(3);
    daemon
        .run(Some(until), std::future::pending())
        .await
        .unwrap();
    let ended = daemon.destroy_all(Duration::from_hours(1)).await.unwrap();
    assert!(ended.remaining.is_empty());
    drop(daemon);
    rig.ask(&Ask::Kill).unwrap();

    // Nobody looks for longer than bills are looked at again in a run.
    clock.advance(Duration::from_hours(24 * 4));
    let mut daemon = rig.start(Vec::new()).unwrap();
    daemon.tick().await.unwrap();
    let checker = rig.checker.lock().unwrap();
    let charged = rig.server.with_market(|market| checker.charged(market));
    assert!(charged.values().any(|bill| *bill > Money::ZERO));
    for (job, bill) in charged {
        assert_eq!(daemon.state().spent(&job), bill, "{job}");
    }
}
