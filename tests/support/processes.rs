//! A market on loopback whose instances are processes.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use haggle::clock::SimClock;
use haggle::market::exec::Exec;
use haggle::market::faults::Faults;
use haggle::market::{Market, MarketOptions, MarketServer, WireOptions, server};
use haggle::types::time::Time;
use tokio::net::TcpListener;

/// When it begins.
const START: Time = Time(1_795_478_400_000);

/// Serves one, with its instances' folders in a directory. Nobody bids, and nothing fails. With its clock
/// and its address.
pub(crate) async fn serve(dir: &Path, machines: u32) -> (Arc<MarketServer>, Arc<SimClock>, String) {
    let options = MarketOptions {
        start: START,
        machines: Some(machines),
        intensity: 0.0,
        failures: 0.0,
        ..MarketOptions::default()
    };
    let clock = Arc::new(SimClock::new(START));
    let market = Market::generated(options);
    let wire = WireOptions::default();
    let served = MarketServer::new(market, wire, Faults::none(), clock.clone());
    let server = Arc::new(served);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let origin = format!("http://{}", listener.local_addr().unwrap());
    let exec = Exec::new(&dir.join("instances"), origin.clone()).unwrap();
    let shared = Arc::clone(&server);
    tokio::spawn(server::serve(
        listener,
        shared,
        Some(exec),
        std::future::pending(),
    ));
    (server, clock, origin)
}

/// Gives real processes some real time.
pub(crate) async fn pause(time: Duration) {
    tokio::task::spawn_blocking(move || std::thread::sleep(time))
        .await
        .unwrap();
}
