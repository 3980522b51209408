//! `haggle market`: the embedded marketplace as a server, to try everything on play money.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use clap::Args;
use secrecy::SecretString;
use serde::Serialize;
use tokio::net::TcpListener;

use super::clock::SPEED_MAX;
use super::context::{Context, block_on};
use super::failure::{Done, Exit, Failure, OrFail};
use super::run::interrupted;
use crate::clock::ScaledClock;
use crate::daemon::web;
use crate::market::exec::Exec;
use crate::market::faults::{FaultScript, FaultSpec, Faults};
use crate::market::{
    Disputed, Envelope, Market, MarketOptions, MarketServer, Paths, Wire, WireOptions, offers_file,
    router, server,
};
use crate::types::money::Money;

/// Starts the embedded marketplace.
#[derive(Args, Clone, Debug)]
#[command(after_long_help = offers_file::RULES_HELP)]
pub(crate) struct MarketArgs {
    /// Where it listens.
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:9465")]
    listen: SocketAddr,
    /// Everything random follows from it.
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
    /// How many market seconds pass in a second.
    #[arg(long, value_name = "X", default_value_t = 1.0, value_parser = speed)]
    speed: f64,
    /// Serve recorded offers instead of generated ones; `--help` says how files are read.
    #[arg(long, value_name = "FILE")]
    offers: Option<PathBuf>,
    /// What goes wrong, such as `latency=20ms..200ms,5xx=2%`.
    #[arg(long, value_name = "SPEC", default_value = "none")]
    faults: FaultSpec,
    /// How often rivals and hosts act, as a multiple of what was observed; 0 is a still market.
    #[arg(long, value_name = "X", default_value_t = 1.0, value_parser = multiple)]
    intensity: f64,
    /// How often provisioning fails, as a multiple of the usual.
    #[arg(long, value_name = "X", default_value_t = 1.0, value_parser = multiple)]
    failures: f64,
    /// Whether `PUT /faults` changes what goes wrong while it runs, and `PUT /clock` moves its time
    /// on; on a loopback address only.
    #[arg(long)]
    control: bool,
    /// How facts that are disputed about the marketplace are settled here: `default`, `seed:N` for
    /// each drawn by itself, or `key=value,…`.
    #[arg(long, value_name = "SPEC", default_value = "default")]
    disputed: Disputed,
    /// Which wire formats are spoken: lowcode (the gateway's), vast (the marketplace's own), both.
    #[arg(long, value_name = "FORMAT", default_value_t = Wire::Both)]
    wire: Wire,
    /// Where the marketplace's documented rate limits hold, in market time.
    #[arg(long, value_name = "WHERE", value_enum, default_value_t = RateLimits::Vast)]
    rate_limits: RateLimits,
    /// Which URL formats the gateway understands: new, old, both.
    #[arg(long, value_name = "WHICH", default_value_t = Paths::Both)]
    paths: Paths,
    /// What surrounds the gateway's answers: data, result, none.
    #[arg(long, value_name = "WHICH", default_value_t = Envelope::Data)]
    envelope: Envelope,
    /// The only token or key that is accepted; without it any key, at the gateway any token that
    /// begins with `at_`.
    #[arg(long, value_name = "TOKEN")]
    token: Option<String>,
    /// Play money on the account.
    #[arg(long, value_name = "DOLLARS", default_value = "100")]
    balance: Money,
    /// Decimals to which the bill's rows are rounded.
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(0..=9))]
    charge_decimals: u32,
    /// Run what instances are to run for real, as processes on this machine, each in a folder of
    /// DIR, which has to be empty. Whoever reaches the market runs commands as you; on a loopback
    /// address only.
    #[arg(long, value_name = "DIR")]
    exec: Option<PathBuf>,
}

/// In which wire formats the documented rate limits hold.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
enum RateLimits {
    /// In the marketplace's own.
    #[default]
    Vast,
    /// In both.
    Both,
    /// Nowhere.
    Off,
}

#[derive(Debug, Serialize)]
struct MarketDocument {
    /// Of the format that is spoken; the gateway's where both are.
    base_url: String,
    lowcode_base_url: Option<String>,
    vast_base_url: Option<String>,
    offers: String,
    seed: u64,
    speed: String,
    balance_dollars: String,
}

fn speed(text: &str) -> Result<f64, String> {
    let speed: f64 = text.parse().map_err(|_| "not a number".to_owned())?;
    if speed.is_finite() && speed > 0.0 && speed <= SPEED_MAX {
        Ok(speed)
    } else {
        Err("a speed is over 0 and at most 1000000".into())
    }
}

fn multiple(text: &str) -> Result<f64, String> {
    let multiple: f64 = text.parse().map_err(|_| "not a number".to_owned())?;
    if (0.0..=100.0).contains(&multiple) {
        Ok(multiple)
    } else {
        Err("a multiple is from 0 to 100".into())
    }
}

pub(crate) fn run(context: &Context, args: &MarketArgs) -> Done {
    if args.control && !args.listen.ip().is_loopback() {
        return Err(Failure::mendable(format!(
            "--control lets anybody who reaches {} change the market",
            args.listen
        ))
        .hint("listen on a loopback address, such as 127.0.0.1:9465, or leave --control away"));
    }
    if args.exec.is_some() && !args.listen.ip().is_loopback() {
        return Err(Failure::mendable(format!(
            "--exec lets anybody who reaches {} run commands on this machine",
            args.listen
        ))
        .hint("listen on a loopback address, such as 127.0.0.1:9465, or leave --exec away"));
    }
    let start = context.now();
    let options = MarketOptions {
        seed: args.seed,
        start,
        balance: args.balance,
        charge_decimals: args.charge_decimals,
        intensity: args.intensity,
        failures: args.failures,
        disputed: args.disputed,
        ..MarketOptions::default()
    };
    let (market, offers) = match &args.offers {
        None => (Market::generated(options), "generated".to_owned()),
        Some(path) => {
            let rows = offers_file::load(path, start)
                .or_mendable(format!("cannot use {}", path.display()))?;
            let offers = format!("{} from {}", rows.len(), path.display());
            (Market::from_rows(options, rows), offers)
        }
    };
    let wire = WireOptions {
        wire: args.wire,
        rate_limits: args.rate_limits == RateLimits::Both,
        native_rate_limits: args.rate_limits != RateLimits::Off,
        control: args.control,
        paths: args.paths,
        envelope: args.envelope,
        token: args.token.clone().map(SecretString::from),
        speed: args.speed,
        ..WireOptions::default()
    };
    let faults = Faults::new(args.faults.clone(), FaultScript::default(), args.seed);
    let clock = Arc::new(ScaledClock::new(start, args.speed));
    let server = Arc::new(MarketServer::new(market, wire, faults, clock));
    block_on(serve(context, args, server, offers))
}

async fn serve(
    context: &Context,
    args: &MarketArgs,
    market: Arc<MarketServer>,
    offers: String,
) -> Done {
    let listener = TcpListener::bind(args.listen)
        .await
        .or_mendable(format!("cannot listen on {}", args.listen))
        .map_err(|failure| failure.hint("name another address with --listen"))?;
    let address = listener.local_addr().unwrap_or(args.listen);
    if let Some(warning) = web::warning(address) {
        context.output.note(&format!("warning: {warning}"));
    }
    let exec = match &args.exec {
        None => None,
        Some(dir) => {
            let made = Exec::new(dir, format!("http://{address}"));
            let exec = made.or_mendable(format!("cannot run instances in {}", dir.display()))?;
            context.output.note(&format!(
                "warning: what instances run is run on this machine, as you, in {}: try nothing \
                 that you would not run by hand",
                dir.display()
            ));
            Some(exec)
        }
    };
    let served = |wire, prefix: &str| {
        (args.wire == Wire::Both || args.wire == wire).then(|| format!("http://{address}{prefix}"))
    };
    let lowcode = served(Wire::LowCode, router::PREFIX);
    let vast = served(Wire::Vast, "");
    let document = MarketDocument {
        base_url: lowcode.clone().or(vast.clone()).unwrap_or_default(),
        lowcode_base_url: lowcode.clone(),
        vast_base_url: vast.clone(),
        offers: offers.clone(),
        seed: args.seed,
        speed: args.speed.to_string(),
        balance_dollars: args.balance.decimal(),
    };
    // Only from this machine, and only where it differs.
    let follow = args.speed != 1.0 && address.ip().is_loopback();
    let clock = if follow { " --clock market" } else { "" };
    let token = |play| {
        if args.token.is_some() {
            "YOUR_TOKEN"
        } else {
            play
        }
    };
    let hints = hints(lowcode.as_deref(), vast.as_deref(), token, clock);
    context.output.show(&document, || {
        format!(
            "the embedded marketplace listens at {address}\n\
             offers: {offers}; seed {}; {} times as fast; {:.2} of play money\n\n\
             {hints}\n\
             Ctrl-C ends it, and forgets everything",
            args.seed, args.speed, args.balance
        )
    })?;
    server::serve(listener, market, exec, interrupted())
        .await
        .or_world("the embedded marketplace failed")?;
    Ok(Exit::Success)
}

/// How to point haggle and others at it, format by format.
fn hints(
    lowcode: Option<&str>,
    vast: Option<&str>,
    token: impl Fn(&'static str) -> &'static str,
    clock: &str,
) -> String {
    let mut hints = String::new();
    if let Some(url) = lowcode {
        let token = token("at_demo");
        hints += &format!(
            "as the gateway, {url}:\n  \
             HAGGLE_PROVIDER__BASE_URL={url} HAGGLE_TOKEN={token} haggle run --live{clock}\n"
        );
    }
    if let Some(url) = vast {
        let key = token("demo");
        hints += &format!(
            "as the marketplace itself, {url}:\n  \
             HAGGLE_PROVIDER__KIND=vast HAGGLE_PROVIDER__BASE_URL={url} HAGGLE_TOKEN={key} \
             haggle run --live{clock}\n  \
             VAST_URL={url} VAST_API_KEY={key} vastai search offers\n"
        );
    }
    hints
}
