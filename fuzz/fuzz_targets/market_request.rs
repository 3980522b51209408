//! Requests of any shape, a few in a row, against the embedded market, on both of its wires. None
//! may panic, hang or fail, or leave a market that cannot be searched, in which an id names two
//! things, or whose books do not add up.
//!
//! An input is text: requests parted by a tilde, each a line `METHOD /path?name=value&…`, a
//! line with the bearer token, and the body. `$O` stands for an offer that can be rented, `$I` for
//! the instance that was made last, `$M` for a machine of the account's own: without them chance
//! would hardly ever name what there is.

#![no_main]

use std::collections::BTreeSet;
use std::sync::{Arc, LazyLock, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use haggle::clock::SimClock;
use haggle::market::faults::Faults;
use haggle::market::{Handled, Market, MarketOptions, MarketServer, WireOptions};
use haggle::ports::{Clock, Method, Reply, Request};
use haggle::types::money::Money;
use haggle::types::offer::Market as SearchType;
use libfuzzer_sys::fuzz_target;
use serde_json::Value;

/// Requests of one input that are sent; the rest is left out.
const REQUESTS_MAX: usize = 8;

/// Market time from one request to the next: every interval is over.
const BETWEEN: Duration = Duration::from_secs(7);

/// Whose requests they are. An input may make other accounts, and pay them.
const TOKENS: [&str; 2] = ["at_fuzz", "at_other"];

static MARKET: LazyLock<Market> = LazyLock::new(|| {
    let mut market = Market::generated(MarketOptions {
        machines: Some(12),
        ..MarketOptions::default()
    });
    for token in TOKENS {
        market.account_for(token);
    }
    market
});

/// What the placeholders of an input stand for.
struct Named {
    offer: u64,
    instance: u64,
    machine: u64,
    /// Every instance that was made.
    made: BTreeSet<u64>,
}

impl Named {
    /// The first rentable offer of the market as it begins, and the first machine of the account.
    fn first(server: &MarketServer) -> Self {
        static FIRST: OnceLock<(u64, u64)> = OnceLock::new();
        let (offer, machine) = *FIRST.get_or_init(|| {
            let listed = json(&answer(server, &get("/api/v0/machines/")));
            let machine = listed["machines"][0]["machine_id"].as_u64();
            let offers = MARKET.offers(0, SearchType::Bid, 8.0);
            let offer = offers.iter().find(|row| row.rentable).map(|row| row.id);
            (offer.expect("an offer"), machine.expect("a machine"))
        });
        Self {
            offer,
            instance: 0,
            machine,
            made: BTreeSet::new(),
        }
    }

    fn put_into(&self, text: &str) -> String {
        text.replace("$O", &self.offer.to_string())
            .replace("$I", &self.instance.to_string())
            .replace("$M", &self.machine.to_string())
    }

    /// Notes what an answer says was made, by a refusal, too: an id is never given twice.
    fn note(&mut self, reply: &Reply) {
        for id in made_by(&json(reply)) {
            assert!(self.made.insert(id), "instance {id} was made twice");
            self.instance = id;
        }
    }
}

fn made_by(answer: &Value) -> Vec<u64> {
    match answer {
        Value::Array(values) => values.iter().flat_map(made_by).collect(),
        Value::Object(fields) => fields
            .iter()
            .flat_map(|(name, value)| match (name.as_str(), value) {
                ("new_contract", Value::Number(id)) => id.as_u64().into_iter().collect(),
                ("new_contracts", _) => Vec::new(), // Each is told of by itself, too.
                _ => made_by(value),
            })
            .collect(),
        _ => Vec::new(),
    }
}

fn request(text: &[u8], named: &Named) -> Option<Request> {
    let text = named.put_into(&String::from_utf8_lossy(text));
    let mut lines = text.splitn(3, '\n');
    let (head, bearer) = (lines.next()?, lines.next().unwrap_or_default());
    let body = lines.next().map(|body| Bytes::from(body.to_owned()));
    let (method, target) = head.split_once(' ')?;
    let method = match method {
        "GET" => Method::Get,
        "POST" => Method::Post,
        "PUT" => Method::Put,
        "DELETE" => Method::Delete,
        _ => return None,
    };
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let query = query.split('&').filter(|pair| !pair.is_empty());
    Some(Request {
        method,
        path: path.to_owned(),
        query: query
            .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect(),
        bearer: (!bearer.is_empty()).then(|| bearer.to_owned()),
        body,
    })
}

fn get(path: &str) -> Request {
    Request {
        method: Method::Get,
        path: path.to_owned(),
        query: Vec::new(),
        bearer: Some(TOKENS[0].to_owned()),
        body: None,
    }
}

/// The reply to a request, which there is, and which is no failure of the market's own. A gateway
/// fails where the token is given twice, as gateways were seen to.
fn answer(server: &MarketServer, request: &Request) -> Reply {
    let tokens = request.query.iter().filter(|(name, _)| name == "api_token");
    let most = if tokens.count() > 1 { 500 } else { 499 };
    match server.handle(request) {
        Handled::Reply(reply) => {
            assert!(
                (200..=most).contains(&reply.status),
                "{request:?}: {}",
                reply.status
            );
            reply
        }
        Handled::Hang => panic!("nothing hangs without a fault"),
    }
}

/// A reply's body, which is JSON where it says so.
fn json(reply: &Reply) -> Value {
    let read = serde_json::from_slice(&reply.body);
    match reply.header("content-type") {
        Some("application/json") => read.expect("the body is the JSON that it says it is"),
        _ => read.unwrap_or_default(),
    }
}

/// What was paid in, less the exact bill, is the credit; nobody is paid for renting.
fn books_add_up(market: &mut Market, token: &str) {
    let account = market.account_for(token);
    let mut billed = Money::ZERO;
    for bill in market.exact_bill(account).values() {
        for part in [bill.gpu, bill.disk, bill.traffic] {
            assert!(part >= Money::ZERO, "nobody is paid for renting");
        }
        billed += bill.total();
    }
    let (paid, credit) = (market.all_paid_in(account), market.credit(account));
    assert_eq!(
        paid - billed,
        credit,
        "what was paid in less the bill is the credit"
    );
}

/// What is listed has ids of its own, and was made.
fn instances_are_themselves(market: &Market, account: u64, named: &Named) {
    let rows = market.instances(account);
    let ids: BTreeSet<u64> = rows.iter().map(|row| row.id).collect();
    assert_eq!(ids.len(), rows.len(), "two instances of one id");
    assert!(ids.is_subset(&named.made), "an instance that nobody made");
    let finite = |rate: f64| rate.is_finite() && rate >= 0.0;
    assert!(rows.iter().all(|row| finite(row.dph_total)));
}

fn offers_are_themselves(market: &Market, account: u64) {
    let rows = market.offers(account, SearchType::Bid, 8.0);
    let ids: BTreeSet<u64> = rows.iter().map(|row| row.id).collect();
    assert_eq!(ids.len(), rows.len(), "two offers of one id");
}

fn searches_answer(server: &MarketServer) {
    let mut native = get("/api/v0/bundles/");
    native.method = Method::Post;
    native.body = Some(Bytes::from_static(
        br#"{"verified":{},"rentable":{},"rented":{},"limit":5}"#,
    ));
    let mut gateway = get("/vastai/offers");
    gateway.query.push(("limit".to_owned(), "5".to_owned()));
    gateway
        .query
        .push(("api_token".to_owned(), TOKENS[0].to_owned()));
    for request in [native, gateway] {
        let reply = answer(server, &request);
        assert_eq!(reply.status, 200, "{request:?}");
        let answer = json(&reply);
        let rows = answer["offers"]
            .as_array()
            .or(answer["data"]["offers"].as_array());
        assert!(rows.is_some_and(|rows| (1..=5).contains(&rows.len())));
    }
}

fuzz_target!(|input: &[u8]| {
    let clock = Arc::new(SimClock::new(MARKET.now()));
    let server = MarketServer::new(
        MARKET.clone(),
        WireOptions::default(),
        Faults::none(),
        Arc::clone(&clock) as Arc<dyn Clock>,
    );
    let mut named = Named::first(&server);
    for text in input.split(|&byte| byte == b'~').take(REQUESTS_MAX) {
        let Some(request) = request(text, &named) else {
            continue;
        };
        named.note(&answer(&server, &request));
        clock.advance(BETWEEN);
    }
    // Time goes on.
    clock.advance(Duration::from_secs(3600));
    searches_answer(&server);
    server.with_market(|market| {
        for token in TOKENS {
            books_add_up(market, token);
        }
        let account = market.account_for(TOKENS[0]);
        instances_are_themselves(market, account, &named);
        offers_are_themselves(market, account);
    });
});
