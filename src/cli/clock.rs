//! The clock that a daemon goes by: the system's, or that of an accelerated market.

use std::sync::Arc;

use clap::{Args, ValueEnum};
use serde::Deserialize;

use super::context::{Context, block_on};
use super::failure::{Failure, OrFail};
use crate::clock::ScaledClock;
use crate::config::ProviderConfig;
use crate::marketplace::http::{HttpTransport, loopback_origin};
use crate::ports::{Clock, Method, Request, Transport};
use crate::types::time::Time;

/// The fastest clock that is followed, in market seconds a second.
pub(crate) const SPEED_MAX: f64 = 1e6;

/// Which clock a daemon goes by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum ClockChoice {
    /// This machine's.
    #[default]
    System,
    /// That of an embedded marketplace on this machine, however fast it runs.
    Market,
}

/// The choice, for commands that only look.
#[derive(Args, Clone, Copy, Debug)]
pub(crate) struct ClockArgs {
    /// Whose time ages are reckoned by: `market` follows a `haggle market` on this machine, however fast.
    #[arg(long, value_name = "WHOSE", default_value = "system")]
    clock: ClockChoice,
}

impl ClockArgs {
    /// The context, going by the clock that was chosen.
    pub(crate) fn of(
        self,
        context: &Context,
        provider: &ProviderConfig,
    ) -> Result<Context, Failure> {
        self.clock.of(context, provider)
    }
}

impl ClockChoice {
    /// The context, going by the clock that was chosen.
    pub(crate) fn of(
        self,
        context: &Context,
        provider: &ProviderConfig,
    ) -> Result<Context, Failure> {
        Ok(context.with_clock(match self {
            Self::System => Arc::clone(&context.clock),
            Self::Market => of_market(provider)?,
        }))
    }
}

/// What an embedded marketplace says at `/clock`.
#[derive(Deserialize)]
struct MarketTime {
    /// Seconds since the epoch.
    now: f64,
    /// Market seconds a second.
    speed: f64,
}

/// The clock of an embedded marketplace, read once and followed from then on. Only one on this
/// machine is believed: whoever sets the clock decides when money is spent.
fn of_market(provider: &ProviderConfig) -> Result<Arc<dyn Clock>, Failure> {
    let origin = loopback_origin(&provider.base_url).ok_or_else(|| {
        Failure::mendable(
            "--clock market follows an embedded marketplace on this machine only, and \
             provider.base_url is not one",
        )
        .hint("leave --clock away, or point provider.base_url at `haggle market`")
    })?;
    let transport = HttpTransport::new(&origin, provider.timeout)
        .or_mendable("the marketplace's address cannot be used")?;
    let request = Request {
        method: Method::Get,
        path: "/clock".to_owned(),
        query: Vec::new(),
        bearer: None,
        body: None,
    };
    let reply = block_on(async {
        let reply = transport.send(request).await;
        reply.or_world("the market's clock cannot be read")
    })?;
    let clock = (reply.status == 200)
        .then(|| following(&reply.body))
        .flatten();
    let clock = clock.ok_or_else(|| {
        Failure::world("the marketplace tells no time at /clock")
            .hint("only `haggle market` does; leave --clock away for any other")
    })?;
    Ok(Arc::new(clock))
}

fn following(body: &[u8]) -> Option<ScaledClock> {
    let told: MarketTime = serde_json::from_slice(body).ok()?;
    let now = Time::from_epoch_seconds(told.now)?;
    let speed = told.speed;
    (speed.is_finite() && speed > 0.0 && speed <= SPEED_MAX).then(|| ScaledClock::new(now, speed))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn takes_a_time_and_a_speed_and_nothing_else() {
        let clock = following(br#"{"now": 1795478400.5, "speed": 600.0}"#).unwrap();
        assert!(clock.now() >= Time(1_795_478_400_500));
        assert_eq!(clock.speed(), 600.0);
        for bad in [
            r#"{"now": 1795478400.5}"#,
            r#"{"now": -1, "speed": 1}"#,
            r#"{"now": 1795478400, "speed": 0}"#,
            r#"{"now": 1795478400, "speed": 1e9}"#,
            "<html>",
        ] {
            assert!(following(bad.as_bytes()).is_none(), "{bad}");
        }
    }

    #[test]
    fn a_marketplace_elsewhere_sets_no_clock() {
        let provider = ProviderConfig {
            kind: crate::config::ProviderKind::LowCodeApi,
            base_url: "https://api.lowcodeapi.com/vastai".to_owned(),
            token: crate::types::job::SecretRef::Env("HAGGLE_TOKEN".to_owned()),
            timeout: std::time::Duration::from_secs(1),
            share_job_secrets: false,
            paths: std::collections::BTreeMap::new(),
            fields: std::collections::BTreeMap::new(),
        };
        let failure = of_market(&provider).err().unwrap();
        assert!(
            failure.to_string().contains("on this machine only"),
            "{failure}"
        );
    }
}
