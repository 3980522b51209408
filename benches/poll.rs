//! What one full look at the market costs for the example policies: the planned searches against
//! asking for everything the jobs name.
//!
//! `cargo bench --bench poll`. Not a matter of this machine's speed: requests, and the marketplace's
//! time that they take under its quota of ten searches a minute, on a market of the real one's size.

#![allow(clippy::unwrap_used, clippy::print_stdout)]

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use haggle::clock::SimClock;
use haggle::daemon::plan_searches::{Searches, Wanted};
use haggle::market::faults::Faults;
use haggle::market::transport::InProcess;
use haggle::market::{Market, MarketOptions, MarketServer, WireOptions};
use haggle::marketplace::lowcode::{LowCode, LowCodeOptions};
use haggle::ports::{Clock, Marketplace, Reply, Request, Transport, TransportError};
use haggle::types::ids::MachineId;
use haggle::types::job::Job;
use haggle::types::offer::{Market as Prices, Offer, OfferQuery, Snapshot};
use haggle::types::time::Time;
use secrecy::SecretString;

const START: Time = Time(1_795_478_400_000);
const MACHINES: u32 = 700;
const HELD: usize = 30;

/// Counts the requests that pass.
struct Counting(InProcess, Arc<AtomicU64>);

#[async_trait]
impl Transport for Counting {
    async fn send(&self, request: Request) -> Result<Reply, TransportError> {
        self.1.fetch_add(1, Ordering::SeqCst);
        self.0.send(request).await
    }
}

/// A market that stands still, and a way to it whose requests are counted.
struct Bench {
    clock: Arc<SimClock>,
    client: LowCode,
    requests: Arc<AtomicU64>,
}

impl Bench {
    fn new() -> Self {
        let market = Market::generated(MarketOptions {
            seed: 1,
            start: START,
            machines: Some(MACHINES),
            intensity: 0.0,
            ..MarketOptions::default()
        });
        let clock = Arc::new(SimClock::new(START));
        let shared: Arc<dyn Clock> = clock.clone();
        let (wire, faults) = (WireOptions::default(), Faults::none());
        let server = MarketServer::new(market, wire, faults, Arc::clone(&shared));
        let inner = InProcess::new(Arc::new(server), Duration::from_secs(20));
        let requests = Arc::new(AtomicU64::new(0));
        let transport = Arc::new(Counting(inner, Arc::clone(&requests)));
        let options = LowCodeOptions::new(SecretString::from("at_play"));
        let client = LowCode::new(transport, shared, options, &BTreeMap::new());
        Self {
            clock,
            client,
            requests,
        }
    }

    /// Asks, and says what it cost: searches, requests, rows, market time.
    async fn ask(&self, what: &str, queries: &[OfferQuery]) -> (u64, Vec<Offer>) {
        // The quota is whole at the start of each.
        self.clock.advance(Duration::from_secs(120));
        let (before, began) = (self.requests.load(Ordering::SeqCst), self.clock.now());
        let mut rows = Vec::new();
        for query in queries {
            rows.extend(self.client.offers(query).await.unwrap().offers);
        }
        let requests = self.requests.load(Ordering::SeqCst) - before;
        println!(
            "{what:<28} {:>3} searches {requests:>4} requests {:>5} rows {:>5} s",
            queries.len(),
            rows.len(),
            self.clock.now().since(began).as_secs()
        );
        (requests, rows)
    }
}

/// Every model that a job names in both price types, without bounds, and each machine by itself.
fn naive(jobs: &[Arc<Job>], held: &BTreeSet<MachineId>) -> Vec<OfferQuery> {
    let models: BTreeSet<&String> = jobs
        .iter()
        .flat_map(|job| &job.requirements.gpu_models)
        .collect();
    let by_model = [Prices::OnDemand, Prices::Bid]
        .into_iter()
        .flat_map(|market| {
            models.iter().map(move |&model| OfferQuery {
                gpu_name: Some(model.clone()),
                ..OfferQuery::all(market)
            })
        });
    let by_machine = held.iter().map(|&machine| OfferQuery {
        machine: Some(machine),
        open: true,
        ..OfferQuery::all(Prices::OnDemand)
    });
    by_model.chain(by_machine).collect()
}

fn main() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(compare());
}

async fn compare() {
    let policies = Path::new(env!("CARGO_MANIFEST_DIR")).join("policies");
    let loaded = haggle::policy::load_dir(&policies);
    let jobs: Vec<Arc<Job>> = loaded.jobs.into_iter().map(|l| Arc::new(l.job)).collect();
    let bench = Bench::new();
    let models = naive(&jobs, &BTreeSet::new());
    let (_, rows) = bench.ask("(choosing machines to hold)", &models[..1]).await;
    let (_, more) = bench
        .ask("(choosing machines to hold)", &models[1..2])
        .await;
    let machines = rows.iter().chain(&more).map(|offer| offer.machine);
    let some: BTreeSet<MachineId> = machines.collect();
    for held in [0, 1, HELD] {
        let held: BTreeSet<MachineId> = some.iter().copied().take(held).collect();
        println!("\nholding {} machines", held.len());
        let (swept, _) = bench.ask("naive sweep", &naive(&jobs, &held)).await;
        let mut searches = Searches::default();
        let mut market = Snapshot::default();
        let mut cost = 0;
        // As long as it takes until the searches are as they stay.
        for name in ["first poll", "second poll", "third poll"] {
            let wanted = Wanted {
                jobs: &jobs,
                own: &held,
                market: &market,
                again_after: Duration::from_secs(30),
                history_every: None,
                patient: true,
            };
            bench.clock.advance(Duration::from_secs(60));
            let planned = searches.round(bench.clock.monotonic(), &wanted);
            let (requests, found) = bench.ask(name, &planned.asked).await;
            for query in &planned.asked {
                let rows = found.iter().filter(|offer| query.matches(offer)).count();
                searches.asked(query, bench.clock.monotonic(), Some(rows));
            }
            market.offers = found;
            cost = requests;
        }
        println!("ratio {:.1} to 1", swept as f64 / cost as f64);
    }
}
