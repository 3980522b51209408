//! How fast the embedded market searches 10,000 offers with five filters and an order, on one core,
//! beside the same search where every row is made before any is tested.

#![allow(clippy::disallowed_methods, clippy::print_stdout)] // A benchmark measures and prints.

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use haggle::clock::SimClock;
use haggle::market::faults::Faults;
use haggle::market::{Handled, Market, MarketOptions, MarketServer, WireOptions};
use haggle::ports::{Clock, Method, Reply, Request};
use haggle::types::offer::Market as SearchType;

/// About 10,000 offers.
const MACHINES: u32 = 5_330;
const SEARCHES: usize = 400;

/// Searches of the plain kind.
const PLAINLY: usize = 40;

const QUERY: &str = r#"{"gpu_name":{"in":["RTX 4090","RTX 3090"]},"num_gpus":{"gte":"1"},
    "reliability":{"gt":"0.95"},"inet_down":{"gte":"200"},"dph_total":{"lt":"2.0"},
    "order":[["dph_total","asc"]],"type":"bid","limit":64,"allocated_storage":16.0}"#;

fn search() -> Request {
    Request {
        method: Method::Post,
        path: "/api/v0/bundles/".to_owned(),
        query: Vec::new(),
        bearer: None,
        body: Some(Bytes::from_static(QUERY.as_bytes())),
    }
}

fn answer(server: &MarketServer, request: &Request) -> Reply {
    match server.handle(request) {
        Handled::Reply(reply) => reply,
        Handled::Hang => unreachable!("no faults are asked for"),
    }
}

/// The rows of [`QUERY`], found among all rows by hand, and written out.
fn plainly(market: &Market) -> String {
    let mut rows = market.offers(0, SearchType::Bid, 16.0);
    rows.retain(|row| {
        matches!(&*row.gpu_name, "RTX 4090" | "RTX 3090")
            && row.num_gpus >= 1
            && row.reliability > 0.95
            && row.inet_down >= 200.0
            && row.dph_total < 2.0
            && &*row.verification == "verified"
            && row.rentable
            && !row.rented
    });
    rows.sort_by(|a, b| a.dph_total.total_cmp(&b.dph_total).then(a.id.cmp(&b.id)));
    rows.truncate(64);
    serde_json::to_string(&rows).unwrap_or_default()
}

fn main() {
    let options = MarketOptions {
        machines: Some(MACHINES),
        intensity: 0.0,
        ..MarketOptions::default()
    };
    let clock: Arc<dyn Clock> = Arc::new(SimClock::new(options.start));
    let market = Market::generated(options);
    let server = MarketServer::new(market, WireOptions::default(), Faults::none(), clock);
    let request = search();
    let reply = answer(&server, &request);
    assert_eq!(reply.status, 200, "{:?}", reply.body);
    let mut times: Vec<f64> = (0..SEARCHES)
        .map(|_| {
            let begun = Instant::now();
            std::hint::black_box(answer(&server, &request));
            begun.elapsed().as_secs_f64()
        })
        .collect();
    times.sort_by(f64::total_cmp);
    let total: f64 = times.iter().sum();
    let (offers, plain) = server.with_market(|market| {
        let begun = Instant::now();
        for _ in 0..PLAINLY {
            std::hint::black_box(plainly(market));
        }
        let each = begun.elapsed().as_secs_f64() / PLAINLY as f64;
        (market.offers(0, SearchType::Bid, 16.0).len(), each)
    });
    let mean = total / SEARCHES as f64;
    println!("{offers} offers, {} bytes in the answer", reply.body.len());
    println!(
        "{:.0} searches/s on one core; p50 {:.2} ms, p99 {:.2} ms",
        1.0 / mean,
        times[SEARCHES / 2] * 1e3,
        times[SEARCHES * 99 / 100] * 1e3
    );
    println!(
        "with every row made before any is tested it takes {:.2} ms: {:.1} times as long",
        plain * 1e3,
        plain / mean
    );
}
