//! A market in virtual time with instances of ours and of others, and a way to it that is watched.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use secrecy::SecretString;

use crate::clock::SimClock;
use crate::market::faults::{FaultScript, FaultSpec, Faults};
use crate::market::transport::InProcess;
use crate::market::{CreateParams, Disputed, Market, MarketOptions, MarketServer, WireOptions};
use crate::marketplace::lowcode::{LowCode, LowCodeOptions};
use crate::marketplace::vast::{Vast, VastOptions};
use crate::ports::{Clock, Marketplace, Method, Reply, Request, Transport, TransportError};
use crate::types::ids::{Installation, InstanceId};
use crate::types::money::Money;
use crate::types::offer::Market as Prices;
use crate::types::time::Time;

const TOKEN: &str = "at_kill";

/// How long a request takes, in market time.
const LATENCY: Duration = Duration::from_millis(250);

/// How the market is reached, and what goes wrong on the way.
#[derive(Clone, Debug)]
pub(in crate::cli) struct Way {
    /// In the marketplace's own format, else through the gateway.
    pub(in crate::cli) native: bool,
    /// Whether several may be destroyed at once, where the format can.
    pub(in crate::cli) bulk: bool,
    /// Destroying several at once destroys only half of them, and says that it did.
    pub(in crate::cli) half: bool,
    /// For so long no listing is answered.
    pub(in crate::cli) blind: Duration,
    pub(in crate::cli) faults: &'static str,
    pub(in crate::cli) seed: u64,
    pub(in crate::cli) disputed: Disputed,
}

impl Default for Way {
    fn default() -> Self {
        Self {
            native: false,
            bulk: true,
            half: false,
            blind: Duration::ZERO,
            faults: "none",
            seed: 1,
            disputed: Disputed::default(),
        }
    }
}

/// What was asked to end, and when the last of what should was gone.
#[derive(Debug, Default)]
pub(in crate::cli) struct Watched {
    /// Requests that end or stop something, as far as they show what.
    pub(in crate::cli) ended: Vec<String>,
    /// When none of ours was left, by the market's own books.
    pub(in crate::cli) none_left_at: Option<Time>,
}

pub(in crate::cli) struct Town {
    pub(in crate::cli) clock: Arc<SimClock>,
    pub(in crate::cli) server: Arc<MarketServer>,
    pub(in crate::cli) client: Arc<dyn Marketplace>,
    pub(in crate::cli) installation: Installation,
    pub(in crate::cli) watched: Arc<Mutex<Watched>>,
    pub(in crate::cli) account: u64,
}

impl Default for Town {
    fn default() -> Self {
        Self::new(&Way::default())
    }
}

impl Town {
    pub(in crate::cli) fn new(way: &Way) -> Self {
        let options = MarketOptions {
            seed: way.seed,
            machines: Some(200),
            intensity: 0.0,
            failures: 0.0,
            balance: Money::dollars(1000),
            disputed: way.disputed,
            ..MarketOptions::default()
        };
        let clock = Arc::new(SimClock::new(options.start));
        let shared: Arc<dyn Clock> = clock.clone();
        let mut market = Market::generated(options);
        let account = market.account_for(TOKEN);
        let wire = WireOptions {
            rate_limits: true,
            native_rate_limits: true,
            ..WireOptions::default()
        };
        let spec: FaultSpec = way.faults.parse().unwrap();
        let faults = Faults::new(spec, FaultScript::default(), way.seed);
        let server = Arc::new(MarketServer::new(market, wire, faults, Arc::clone(&shared)));
        let timeout = Duration::from_secs(20);
        let inner = if way.native {
            InProcess::native(Arc::clone(&server), timeout)
        } else {
            InProcess::new(Arc::clone(&server), timeout)
        };
        let installation = Installation::from_seed(7);
        let watched = Arc::default();
        let transport = Arc::new(Watch {
            inner,
            server: Arc::clone(&server),
            clock: Arc::clone(&clock),
            watched: Arc::clone(&watched),
            prefix: format!("hg-{installation}-"),
            account,
            half: way.half,
            blind_until: clock.now() + way.blind,
        });
        let token = SecretString::from(TOKEN.to_owned());
        let nothing = std::collections::BTreeMap::new();
        let client: Arc<dyn Marketplace> = if way.native {
            let options = VastOptions {
                extras: way.bulk,
                ..VastOptions::new(token)
            };
            Arc::new(Vast::new(transport, shared, options, &nothing))
        } else {
            let options = LowCodeOptions::new(token);
            Arc::new(LowCode::new(transport, shared, options, &nothing))
        };
        Self {
            clock,
            server,
            client,
            installation,
            watched,
            account,
        }
    }

    /// Rents on different machines, each under its label and at its bid, if any.
    pub(in crate::cli) fn rent(&self, all: &[(Option<&str>, Option<f64>)]) -> Vec<InstanceId> {
        self.server.with_market(|market| {
            let offers = market.offers(self.account, Prices::OnDemand, 10.0);
            let (mut machines, mut made) = (BTreeSet::new(), Vec::new());
            let held = market.instances(self.account);
            machines.extend(held.iter().map(|held| held.machine_id));
            for offer in offers {
                let Some((label, bid)) = all.get(made.len()) else {
                    break;
                };
                if !offer.rentable || !machines.insert(offer.machine_id) {
                    continue;
                }
                let params = CreateParams {
                    offer_id: offer.id,
                    price: bid.map(|over| offer.min_bid + over),
                    image: Some("image".into()),
                    disk: Some(10.0),
                    label: label.map(str::to_owned),
                    ..CreateParams::default()
                };
                let created = market.create(self.account, params).unwrap();
                made.push(InstanceId(created.new_contract));
            }
            assert_eq!(made.len(), all.len(), "the market is too small");
            made
        })
    }

    /// What the account has, by the market's own books.
    pub(in crate::cli) fn left(&self) -> BTreeSet<InstanceId> {
        let rows = self
            .server
            .with_market(|market| market.instances(self.account));
        rows.iter().map(|row| InstanceId(row.id)).collect()
    }
}

/// The way to the market: it takes time, and remembers.
struct Watch {
    inner: InProcess,
    server: Arc<MarketServer>,
    clock: Arc<SimClock>,
    watched: Arc<Mutex<Watched>>,
    prefix: String,
    account: u64,
    half: bool,
    blind_until: Time,
}

impl Watch {
    /// Whether it is a listing that is not answered.
    fn is_kept_back(&self, request: &Request) -> bool {
        let path = request.path.trim_end_matches('/');
        let lists = request.method == Method::Get && path.ends_with("/instances");
        lists && self.clock.now() < self.blind_until
    }

    /// Drops every second id of a request that destroys several.
    fn halve(&self, request: &mut Request) {
        let bulk = request.method == Method::Delete
            && request.path.trim_end_matches('/') == "/api/v0/instances";
        if let Some(body) = request.body.as_ref().filter(|_| bulk && self.half) {
            let mut body: serde_json::Value = serde_json::from_slice(body).unwrap();
            let ids = body["instance_ids"].as_array().unwrap();
            let half: Vec<_> = ids.iter().step_by(2).cloned().collect();
            body["instance_ids"] = half.into();
            request.body = Some(body.to_string().into());
        }
    }
}

#[async_trait]
impl Transport for Watch {
    async fn send(&self, mut request: Request) -> Result<Reply, TransportError> {
        self.clock.advance(LATENCY);
        self.halve(&mut request);
        if self.is_kept_back(&request) {
            return Err(TransportError::Broken("reset".to_owned()));
        }
        if request.method != Method::Get {
            let ids = request.query.iter().filter(|(name, _)| name != "api_token");
            let ids: Vec<_> = ids.map(|(_, value)| value.as_str()).collect();
            let body = String::from_utf8_lossy(request.body.as_deref().unwrap_or_default());
            let asked = format!("{request:?} {ids:?} {body}");
            self.watched.lock().unwrap().ended.push(asked);
        }
        let reply = self.inner.send(request).await;
        let ours = self.server.with_market(|market| {
            let rows = market.instances(self.account);
            let labels = rows.iter().filter_map(|row| row.label.as_deref());
            labels
                .filter(|label| label.starts_with(&self.prefix))
                .count()
        });
        if ours == 0 {
            let mut watched = self.watched.lock().unwrap();
            watched.none_left_at.get_or_insert(self.clock.now());
        }
        reply
    }
}
