//! The configured marketplace: which client, with which token, to where.

use std::collections::BTreeMap;
use std::sync::Arc;

use secrecy::{ExposeSecret, SecretString};

use super::context::{Context, Patience};
use super::failure::{Failure, OrFail};
use crate::config::{Config, ProviderConfig, ProviderKind, resolve_secret};
use crate::marketplace::http::{HttpTransport, loopback_origin};
use crate::marketplace::lowcode::{FieldNames, LowCode, LowCodeOptions, problem_with_paths};
use crate::marketplace::vast::{Vast, VastOptions};
use crate::ports::{Marketplace, Transport};

/// With this the gateway's tokens begin, as it documents them.
const GATEWAY_TOKEN: &str = "at_";

/// Hexadecimal digits of a key of the marketplace's own, as seen.
const VAST_KEY_DIGITS: usize = 64;

impl Context {
    /// The client of the configured marketplace.
    pub(crate) fn connect(
        &self,
        config: &Config,
        remembered: &BTreeMap<String, String>,
        patience: Patience,
    ) -> Result<Arc<dyn Marketplace>, Failure> {
        Ok(match config.provider.kind {
            ProviderKind::LowCodeApi => self.connect_gateway(config, remembered, patience)?,
            ProviderKind::Vast => self.connect_vast(config, remembered, patience)?,
        })
    }

    /// The gateway's client.
    pub(crate) fn connect_gateway(
        &self,
        config: &Config,
        remembered: &BTreeMap<String, String>,
        patience: Patience,
    ) -> Result<Arc<LowCode>, Failure> {
        let token = token(&config.provider)?;
        let transport = transport(&config.provider)?;
        if let Some(problem) = problem_with_paths(&config.provider.paths) {
            return Err(Failure::mendable(format!("provider.paths: {problem}")));
        }
        let usual = LowCodeOptions::new(token);
        let options = LowCodeOptions {
            read_retries: retries(patience, usual.read_retries),
            paths: config.provider.paths.clone(),
            fields: field_names(&config.provider.fields)?,
            jitter_seed: self.now().0.unsigned_abs(),
            redactor: Arc::clone(&self.redactor),
            discover: true,
            ..usual
        };
        let clock = Arc::clone(&self.clock);
        Ok(Arc::new(LowCode::new(
            transport, clock, options, remembered,
        )))
    }

    /// The client of Vast's own API.
    pub(crate) fn connect_vast(
        &self,
        config: &Config,
        remembered: &BTreeMap<String, String>,
        patience: Patience,
    ) -> Result<Arc<Vast>, Failure> {
        let token = token(&config.provider)?;
        let transport = transport(&config.provider)?;
        let usual = VastOptions::new(token);
        let options = VastOptions {
            read_retries: retries(patience, usual.read_retries),
            jitter_seed: self.now().0.unsigned_abs(),
            redactor: Arc::clone(&self.redactor),
            ..usual
        };
        let clock = Arc::clone(&self.clock);
        Ok(Arc::new(Vast::new(transport, clock, options, remembered)))
    }
}

fn retries(patience: Patience, usual: usize) -> usize {
    match patience {
        Patience::Retry => usual,
        Patience::GiveUp => 0,
    }
}

/// The way to the configured marketplace.
pub(crate) fn transport(provider: &ProviderConfig) -> Result<Arc<dyn Transport>, Failure> {
    let transport = HttpTransport::new(&provider.base_url, provider.timeout)
        .or_mendable("the marketplace's address cannot be used")?;
    Ok(Arc::new(transport))
}

/// The configured token, where it is not evidently another marketplace's.
pub(crate) fn token(provider: &ProviderConfig) -> Result<SecretString, Failure> {
    let token = resolve_secret(&provider.token)
        .or_mendable("the token cannot be read")
        .map_err(|failure| {
            failure.hint(
                "put it in the environment variable HAGGLE_TOKEN, or say in haggle.toml where \
                 it is: provider.token = { file = \"…\" }",
            )
        })?;
    // A market on this machine takes whatever it was told to take.
    let elsewhere = loopback_origin(&provider.base_url).is_none();
    match wrong_kind(provider.kind, token.expose_secret()) {
        Some(failure) if elsewhere => Err(failure),
        _ => Ok(token),
    }
}

/// Refuses a token that is evidently the other side's before it is sent: who gets it could use it.
fn wrong_kind(kind: ProviderKind, token: &str) -> Option<Failure> {
    let token = token.trim();
    let is_vast_key =
        token.len() == VAST_KEY_DIGITS && token.bytes().all(|byte| byte.is_ascii_hexdigit());
    match kind {
        ProviderKind::Vast if token.starts_with(GATEWAY_TOKEN) => Some(
            Failure::mendable(
                "the token begins with at_, so it is one of the LowCodeAPI gateway, and \
                 provider.kind is \"vast\"; it was not sent",
            )
            .hint(
                "point provider.token at a key from Vast's account page, or leave provider.kind away",
            ),
        ),
        ProviderKind::LowCodeApi if is_vast_key => Some(
            Failure::mendable(
                "the token looks like a key of Vast itself, and provider.kind is \"lowcodeapi\", \
                 a third party; it was not sent",
            )
            .hint("set provider.kind = \"vast\", or point provider.token at the gateway's token, at_…"),
        ),
        _ => None,
    }
}

/// The names of fields that the configuration gives, over the usual ones.
pub(crate) fn field_names(given: &BTreeMap<String, String>) -> Result<FieldNames, Failure> {
    let fields = given
        .iter()
        .map(|(field, name)| (field.clone(), name.clone().into()));
    serde_json::from_value(serde_json::Value::Object(fields.collect()))
        .or_mendable("provider.fields cannot be used")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::failure::Exit;
    use crate::types::job::SecretRef;
    use std::time::Duration;

    #[test]
    fn the_other_sides_token_is_not_sent() {
        let key = "0123456789abcdef".repeat(4);
        for (kind, good, bad) in [
            (ProviderKind::Vast, key.as_str(), "at_0123456789"),
            (ProviderKind::LowCodeApi, "at_0123456789", key.as_str()),
        ] {
            assert!(wrong_kind(kind, good).is_none());
            let failure = wrong_kind(kind, bad).unwrap();
            assert_eq!(failure.exit(), Exit::Mendable);
            let text = failure.to_string();
            assert!(
                text.contains("provider.kind") && !text.contains(bad),
                "{text}"
            );
        }
    }

    #[test]
    fn a_market_on_this_machine_takes_any_token() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("token");
        std::fs::write(&file, "at_0123456789\n").unwrap();
        let provider = |base_url: &str| ProviderConfig {
            kind: ProviderKind::Vast,
            base_url: base_url.to_owned(),
            token: SecretRef::File(file.clone()),
            timeout: Duration::from_secs(1),
            share_job_secrets: false,
            paths: BTreeMap::new(),
            fields: BTreeMap::new(),
        };
        assert!(token(&provider("http://127.0.0.1:9")).is_ok());
        assert!(token(&provider("https://console.vast.ai")).is_err());
    }
}
