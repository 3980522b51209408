//! What an account sets for itself.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use crate::market::api::MarketError;
use crate::market::raw::RawUser;
use crate::types::money::Money;

/// Longest text, in characters.
const TEXT_MAX: usize = 512;
/// Longest SSH key in the older place for one.
const KEY_MAX: usize = 8192;

/// Texts that may be set, all of them plain.
const TEXTS: &[&str] = &[
    "ssh_key",
    "email",
    "normalized_email",
    "username",
    "fullname",
    "paypal_email",
    "wise_email",
    "billaddress_line1",
    "billaddress_line2",
    "billaddress_city",
    "billaddress_zip",
    "billaddress_country",
    "billaddress_taxinfo",
    "phone_number",
];

/// Sent along by clients and of no meaning here.
const DECORATION: &[&str] = &["client_id", "owner", "id", "api_key"];

/// What an account sets for itself.
#[derive(Clone, Debug, Default)]
pub(crate) struct Settings {
    /// Whether the saved card is charged by itself.
    pub(crate) balance_threshold_enabled: bool,
    /// Credit at which it is.
    pub(crate) balance_threshold: Money,
    /// The older name of the threshold.
    pub(crate) autobill_threshold: Option<Money>,
    /// By how much.
    pub(crate) autobill_amount: Option<Money>,
    /// Whether a card is saved. A play card is saved when autobilling is first turned on.
    pub(crate) has_billing: bool,
    texts: BTreeMap<&'static str, String>,
}

impl Settings {
    /// Takes what a call sets: all of it or nothing.
    ///
    /// # Errors
    /// `missing_input` where nothing is set, `nonexistent_key` for what there is not,
    /// `empty_input`, `input_too_long`, `invalid_characters`, and `invalid_args` for a value of
    /// the wrong kind.
    pub(crate) fn update(&mut self, fields: &Map<String, Value>) -> Result<(), MarketError> {
        let mut next = self.clone();
        let mut any = false;
        for (name, value) in fields {
            if value.is_null() || DECORATION.contains(&name.as_str()) {
                continue;
            }
            any = true;
            next.set(name, value)?;
        }
        if !any {
            return Err(refusal("missing_input", "Nothing to change is given."));
        }
        *self = next;
        Ok(())
    }

    fn set(&mut self, name: &str, value: &Value) -> Result<(), MarketError> {
        match name {
            "balance_threshold_enabled" => {
                self.balance_threshold_enabled = truth(name, value)?;
                self.has_billing |= self.balance_threshold_enabled;
            }
            "balance_threshold" => self.balance_threshold = dollars(name, value)?,
            "autobill_threshold" => self.autobill_threshold = Some(dollars(name, value)?),
            "autobill_amount" => self.autobill_amount = Some(dollars(name, value)?),
            _ => {
                let known = TEXTS.iter().find(|known| **known == name);
                let known = *known.ok_or_else(|| {
                    let name: String = name.chars().take(40).collect();
                    refusal("nonexistent_key", &format!("There is no {name}."))
                })?;
                self.texts.insert(known, text(known, value)?);
            }
        }
        Ok(())
    }

    /// Writes it into a user record; gives the texts that have no field there.
    pub(crate) fn apply(&self, user: &mut RawUser) -> BTreeMap<&'static str, String> {
        user.balance_threshold_enabled = self.balance_threshold_enabled;
        user.balance_threshold = self.balance_threshold.as_dollars();
        user.autobill_threshold = self.autobill_threshold.map(Money::as_dollars);
        user.autobill_amount = self.autobill_amount.map(Money::as_dollars);
        user.has_billing = self.has_billing;
        user.last4 = self.has_billing.then(|| "4242".to_owned());
        let mut others = self.texts.clone();
        for (name, field) in [
            ("username", &mut user.username),
            ("email", &mut user.email),
            ("fullname", &mut user.fullname),
            ("ssh_key", &mut user.ssh_key),
        ] {
            if let Some(text) = others.remove(name) {
                *field = text;
            }
        }
        others
    }

    /// The texts that were set.
    pub(crate) fn texts(&self) -> impl Iterator<Item = (&'static str, &str)> {
        self.texts.iter().map(|(name, text)| (*name, text.as_str()))
    }
}

fn refusal(code: &'static str, words: &str) -> MarketError {
    MarketError::new(400, code, words)
}

fn truth(name: &str, value: &Value) -> Result<bool, MarketError> {
    match value {
        Value::Bool(truth) => Ok(*truth),
        Value::String(text) if text == "true" => Ok(true),
        Value::String(text) if text == "false" => Ok(false),
        _ => Err(MarketError::invalid_args(format_args!(
            "{name} is not a boolean"
        ))),
    }
}

fn dollars(name: &str, value: &Value) -> Result<Money, MarketError> {
    let number = match value {
        Value::String(text) => text.trim().parse().ok(),
        value => value.as_f64(),
    };
    let amount = number.and_then(|number| Money::from_dollars(number).ok());
    amount
        .filter(|amount| *amount >= Money::ZERO)
        .ok_or_else(|| MarketError::invalid_args(format_args!("{name} is not an amount")))
}

fn text(name: &str, value: &Value) -> Result<String, MarketError> {
    let Value::String(text) = value else {
        return Err(MarketError::invalid_args(format_args!(
            "{name} is not a text"
        )));
    };
    let most = if name == "ssh_key" { KEY_MAX } else { TEXT_MAX };
    let text = text.trim();
    if text.is_empty() {
        Err(refusal("empty_input", &format!("{name} is empty.")))
    } else if text.chars().count() > most {
        Err(refusal("input_too_long", &format!("{name} is too long.")))
    } else if text.chars().any(char::is_control) {
        let words = format!("{name} has characters that it may not have.");
        Err(refusal("invalid_characters", &words))
    } else {
        Ok(text.to_owned())
    }
}
