//! Answers: envelopes, failures, and what a refusal means.

use std::time::Duration;

use serde::Deserialize;
use serde_json::Value;

use crate::marketplace::redact::{Redactor, message_of, message_of_value};
use crate::marketplace::rows::{Flag, INSTANCE_FIELDS, Num};
use crate::marketplace::sifted::sift;
use crate::ports::{RefusedWhy, Reply};
use crate::types::ids::InstanceId;
use crate::types::time::Time;

/// How deep a body is searched. Deeper is not an answer of this marketplace.
const DEPTH_MAX: usize = 8;

/// An answer that was taken apart. It has no `Debug`: what it holds may be secret.
pub(crate) struct Answer {
    /// HTTP status.
    pub(crate) status: u16,
    /// The body, where it is JSON.
    body: Option<Value>,
    /// What the answer says, not yet redacted.
    message: String,
    /// The same in lower case, for classifying.
    words: String,
}

impl Answer {
    pub(crate) fn read(reply: &Reply) -> Self {
        Self::read_by(reply, |text| serde_json::from_str(text).ok())
    }

    /// A page of the list of instances, of whose rows only what [`instance`] reads is kept.
    ///
    /// [`instance`]: super::rows::instance
    pub(crate) fn read_instances(reply: &Reply) -> Self {
        Self::read_by(reply, |text| sift(text, "instances", &INSTANCE_FIELDS))
    }

    fn read_by(reply: &Reply, parse: impl FnOnce(&str) -> Option<Value>) -> Self {
        let text = String::from_utf8_lossy(&reply.body);
        let body = parse(&text);
        let message = match &body {
            Some(body) => message_of_value(body),
            None => message_of(&text),
        };
        Self {
            status: reply.status,
            body,
            words: message.to_ascii_lowercase(),
            message,
        }
    }

    /// What the answer says, fit to be shown.
    pub(crate) fn show(&self, redactor: &Redactor) -> String {
        redactor.show(&self.message)
    }

    /// What the provider answered, out of whichever envelope; `None` where the body is not JSON.
    /// The gateway is documented to wrap in `data`, observed to wrap in `result`, and may not wrap
    /// at all.
    pub(crate) fn payload(&self) -> Option<&Value> {
        let body = self.body.as_ref()?;
        let Value::Object(map) = body else {
            return Some(body);
        };
        if map.contains_key("provider") && map.contains_key("result") {
            return map.get("result");
        }
        // The provider's own bodies never have one of these as their only content.
        match map.get("data").or_else(|| map.get("result")) {
            Some(inner) if !map.contains_key("success") => Some(inner),
            _ => Some(body),
        }
    }

    /// Whether it is a success by status, and nothing in it says otherwise.
    pub(crate) fn is_success(&self) -> bool {
        (200..300).contains(&self.status) && self.body.is_some() && !self.says_failed()
    }

    /// Whether the body says that it failed, whatever the status: `success: false`, or an error.
    pub(crate) fn says_failed(&self) -> bool {
        let failed = |value: &Value| {
            flag(value.get("success")) == Some(false)
                || value.get("error").is_some_and(|error| !error.is_null())
        };
        self.body.as_ref().is_some_and(failed) || self.payload().is_some_and(failed)
    }

    /// Whether the provider says in so many words that it succeeded.
    pub(crate) fn says_succeeded(&self) -> bool {
        self.is_success()
            && self.payload().and_then(|value| flag(value.get("success"))) == Some(true)
    }

    /// The gateway's own 404: no path of its matched. One that carries a `provider` came from the
    /// provider, and the path is right.
    pub(crate) fn is_unrouted(&self) -> bool {
        let own = |map: &serde_json::Map<String, Value>| {
            !map.contains_key("provider")
                && map.get("message").and_then(Value::as_str) == Some("Not Found")
                && !map.contains_key("error")
        };
        self.status == 404
            && self
                .body
                .as_ref()
                .and_then(Value::as_object)
                .is_some_and(own)
    }

    /// Whether the token was refused. The provider answers 404 to bad keys on some routes, and to a
    /// second factor that expired.
    pub(crate) fn is_unauthorized(&self) -> bool {
        match self.status {
            401 => true,
            // The provider also says 403 where the request itself is not allowed, and what stands
            // in front of it says it with a page of its own, of nobody's key.
            403 => (self.body.is_some() && !self.says("invalid_args")) || self.blames_the_key(),
            _ => (self.status >= 400 || self.says_failed()) && self.blames_the_key(),
        }
    }

    /// Whether its words are those of a key that is not accepted.
    fn blames_the_key(&self) -> bool {
        const KEY: [&str; 4] = [
            "auth_error",
            "invalid user key",
            "session expired",
            "requires login",
        ];
        KEY.iter().any(|word| self.says(word))
    }

    /// Whether there were too many requests.
    pub(crate) fn is_throttled(&self) -> bool {
        self.status == 429
    }

    /// Whether the answer leaves open what happened: a server error, a gateway's timeout, a
    /// redirect, a success that cannot be read, or a refusal in words that are not the provider's.
    /// Such a page may stand in for any answer, also that of a request that took effect.
    pub(crate) fn is_open(&self) -> bool {
        match self.status {
            401 | 429 => false,
            400..=499 => self.body.is_none() || matches!(self.status, 408 | 425 | 499),
            200..=299 => !self.says_failed() && !self.is_success(),
            _ => true,
        }
    }

    /// Whether its message holds a word.
    pub(crate) fn says(&self, word: &str) -> bool {
        self.words.contains(word)
    }

    /// What was found in the payload under one of some names.
    pub(crate) fn field(&self, names: &[&str]) -> Option<&Value> {
        let payload = self.payload()?;
        names.iter().find_map(|name| payload.get(name))
    }

    /// The one row of an answer about one thing: under a name, which the provider words in the
    /// plural, alone in a list, or bare.
    pub(crate) fn single(&self, names: &[&str]) -> Single<'_> {
        fn row(value: &Value) -> Single<'_> {
            if value.is_object() {
                Single::Row(value)
            } else {
                Single::Unclear
            }
        }
        match self.field(names) {
            Some(Value::Null) => Single::Nothing,
            Some(Value::Array(rows)) => match rows.as_slice() {
                [one] => row(one),
                [] => Single::Empty,
                _ => Single::Unclear,
            },
            Some(value) => row(value),
            None => match self.payload() {
                Some(value) if value.get("id").is_some() => row(value),
                _ => Single::Unclear,
            },
        }
    }

    /// The rows of an answer about many: under a name, or bare.
    pub(crate) fn rows(&self, names: &[&str]) -> Option<&Vec<Value>> {
        match self.field(names) {
            Some(value) => value.as_array(),
            None => self.payload()?.as_array(),
        }
    }

    /// A text beside the rows, such as the token of the next page.
    pub(crate) fn text(&self, name: &str) -> Option<&str> {
        self.field(&[name])?
            .as_str()
            .filter(|text| !text.is_empty())
    }

    /// A number beside the rows, such as how many there are in all.
    pub(crate) fn number(&self, name: &str) -> Option<f64> {
        Num::deserialize(self.field(&[name])?).ok()?.float()
    }

    /// What a refusal is about.
    pub(crate) fn refused_why(&self) -> RefusedWhy {
        const ACCOUNT: [&str; 6] = [
            "insufficient_credit",
            "insufficient credit",
            "insufficient_balance",
            "spend_rate_limit",
            "missing_billing",
            "lacks credit",
        ];
        const LOW: [&str; 4] = [
            "bid_too_low",
            "bid too low",
            "bid is too low",
            "below min_bid",
        ];
        if self.is_throttled() {
            RefusedWhy::Throttled
        } else if self.blames_the_key() {
            // Before all that an answer may say of a thing: who may not ask is told nothing.
            RefusedWhy::Unauthorized
        } else if self.says("no_such_ask") {
            RefusedWhy::NoSuchOffer
        } else if self.says("no_such_instance") {
            RefusedWhy::NoSuchInstance
        } else if self.status == 402 || ACCOUNT.iter().any(|word| self.says(word)) {
            RefusedWhy::Account
        } else if self.says("change queued") {
            RefusedWhy::Queued
        } else if LOW.iter().any(|word| self.says(word)) {
            RefusedWhy::BidTooLow
        } else if self.is_unauthorized() {
            RefusedWhy::Unauthorized
        } else if self.is_unrouted() {
            RefusedWhy::Unsupported
        } else {
            RefusedWhy::Invalid
        }
    }

    /// The instance that an answer names as made, wherever it does, also inside a message.
    pub(crate) fn new_contract(&self) -> Option<InstanceId> {
        let body = self.body.as_ref()?;
        find_contract(body, DEPTH_MAX)
            .or_else(|| contract_in_text(&self.words))
            .map(InstanceId)
    }

    /// How long to stay silent after too many requests, as far as the answer says: by header, by
    /// the provider's headers that the gateway puts into the body, or by the body itself.
    pub(crate) fn retry_after(&self, reply: &Reply, now: Time) -> Option<Duration> {
        if self.says("search_quota_exceeded") {
            return Some(self.quota_reset(reply, now));
        }
        let named = self
            .header(reply, "retry-after")
            .and_then(|text| seconds_until(&text, now));
        let stated = || {
            let body = self.body.as_ref()?;
            find_number(body, "retry_after", DEPTH_MAX)
        };
        // The route's interval in the words: after it the next call is taken.
        let threshold = || number_after(&self.words, "threshold=");
        let seconds: f64 = named.or_else(stated).or_else(threshold)?;
        seconds
            .is_finite()
            .then(|| Duration::from_secs_f64(seconds.clamp(0.0, 86_400.0)))
    }

    /// Until when searches are used up: as the answer says, else the documented midnight UTC.
    fn quota_reset(&self, reply: &Reply, now: Time) -> Duration {
        const DAY_MS: i64 = 86_400_000;
        let told = self
            .header(reply, "x-ratelimit-reset")
            .and_then(|text| text.trim().parse::<f64>().ok())
            .and_then(Time::from_epoch_seconds)
            .filter(|&reset| reset > now && reset.ms_since(now) <= 2 * DAY_MS);
        let midnight = Time((now.0.div_euclid(DAY_MS) + 1) * DAY_MS);
        told.unwrap_or(midnight).since(now)
    }

    /// A header, of the reply or of the provider's reply inside the gateway's body.
    fn header(&self, reply: &Reply, name: &str) -> Option<String> {
        if let Some(value) = reply.header(name) {
            return Some(value.to_owned());
        }
        let body = self.body.as_ref()?;
        ["headers", "response_headers"]
            .into_iter()
            .find_map(|place| {
                let headers = body.get(place)?.as_object()?;
                let (_, value) = headers
                    .iter()
                    .find(|(key, _)| key.eq_ignore_ascii_case(name))?;
                match value {
                    Value::String(text) => Some(text.clone()),
                    Value::Number(number) => Some(number.to_string()),
                    _ => None,
                }
            })
    }
}

/// What an answer about one thing holds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Single<'a> {
    /// Its row.
    Row(&'a Value),
    /// A null: the thing does not exist.
    Nothing,
    /// An empty list.
    Empty,
    /// None of these.
    Unclear,
}

fn flag(value: Option<&Value>) -> Option<bool> {
    Flag::deserialize(value?).ok()?.0
}

fn find_contract(value: &Value, depth: usize) -> Option<u64> {
    let depth = depth.checked_sub(1)?;
    match value {
        Value::Object(map) => map
            .get("new_contract")
            .and_then(|id| Num::deserialize(id).ok())
            .and_then(Num::id)
            .or_else(|| map.values().find_map(|inner| find_contract(inner, depth))),
        Value::Array(items) => items.iter().find_map(|inner| find_contract(inner, depth)),
        // An error may hold the provider's body as text.
        Value::String(text) if text.contains("new_contract") => match serde_json::from_str(text) {
            Ok(inner) => find_contract(&inner, depth),
            Err(_) => contract_in_text(text),
        },
        _ => None,
    }
}

fn contract_in_text(text: &str) -> Option<u64> {
    let (_, after) = text.split_once("new_contract")?;
    let digits = after.trim_start_matches(['"', '\'', ':', '=', ' ', '\\']);
    let end = digits
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(digits.len());
    digits[..end].parse().ok().filter(|&id| id > 0)
}

/// The seconds that a `Retry-After` header tells: a number, or a date of HTTP.
fn seconds_until(text: &str, now: Time) -> Option<f64> {
    let text = text.trim();
    if let Ok(seconds) = text.parse() {
        return Some(seconds);
    }
    let date = chrono::DateTime::parse_from_rfc2822(text).ok()?;
    let until = Time(date.timestamp_millis());
    Some(until.since(now).as_secs_f64())
}

fn number_after(text: &str, mark: &str) -> Option<f64> {
    let (_, after) = text.split_once(mark)?;
    let end = after
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(after.len());
    after[..end].parse().ok()
}

fn find_number(value: &Value, name: &str, depth: usize) -> Option<f64> {
    let depth = depth.checked_sub(1)?;
    let map = value.as_object()?;
    map.get(name)
        .and_then(|number| Num::deserialize(number).ok())
        .and_then(Num::float)
        .or_else(|| {
            ["data", "result", "error"]
                .into_iter()
                .find_map(|key| find_number(map.get(key)?, name, depth))
        })
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;

    fn reply(status: u16, body: &str) -> Reply {
        Reply {
            status,
            headers: Vec::new(),
            body: Bytes::from(body.to_owned()),
        }
    }

    fn answer(status: u16, body: &str) -> Answer {
        Answer::read(&reply(status, body))
    }

    #[test]
    fn every_envelope() {
        for body in [
            r#"{"data":{"a":1}}"#,
            r#"{"message":"OK","provider":"vastai","result":{"a":1},"response_headers":{}}"#,
            r#"{"a":1}"#,
        ] {
            let answer = answer(200, body);
            assert_eq!(answer.field(&["b", "a"]), Some(&Value::from(1)), "{body}");
            assert!(answer.is_success());
        }
        let list = answer(200, r#"{"data":[1]}"#);
        assert_eq!(list.payload(), Some(&serde_json::json!([1])));
    }

    #[test]
    fn failures_behind_200() {
        for body in [
            r#"{"success":false,"msg":"no"}"#,
            r#"{"data":{"success":false}}"#,
            r#"{"result":{"success":"false"},"provider":"vastai"}"#,
            r#"{"data":{"error":{"message":"no"}}}"#,
        ] {
            let answer = answer(200, body);
            assert!(answer.says_failed() && !answer.is_success(), "{body}");
            assert!(!answer.is_open(), "{body}");
        }
        for body in ["", "<html>", "{\"success\":tr"] {
            assert!(answer(200, body).is_open(), "{body}");
        }
    }

    #[test]
    fn a_page_of_whoever_is_on_the_way_refuses_nothing() {
        let low = r#"{"success":false,"error":"bid_too_low","new_contract":77}"#;
        for (status, body) in [
            (403, "<!DOCTYPE html><title>Just a moment…</title>"),
            (403, ""),
            (403, "Forbidden"),
            (404, " <html>nginx</html>"),
            (400, &low[..40]),
            (400, "\u{fffd}\u{0}{"),
        ] {
            assert!(answer(status, body).is_open(), "{status} {body}");
        }
        assert!(!answer(403, "<html>").is_unauthorized());
        assert!(!answer(403, "Forbidden").is_unauthorized());
        for (status, body) in [
            (429, "<html>"),
            (401, "<html>"),
            (400, low),
            (410, "\"gone\""),
        ] {
            assert!(!answer(status, body).is_open(), "{status} {body}");
        }
        assert!(answer(401, "<html>").is_unauthorized());
    }

    #[test]
    fn only_the_gateways_own_404_is_unrouted() {
        assert!(answer(404, r#"{"message":"Not Found"}"#).is_unrouted());
        for body in [
            r#"{"message":"Not Found","provider":"vastai","error":{}}"#,
            r#"{"data":{"error":{"message":"Not Found","code":"no_such_instance"}}}"#,
            r#"{"success":false,"error":"no_such_instance"}"#,
            "Not Found",
        ] {
            assert!(!answer(404, body).is_unrouted(), "{body}");
        }
    }

    #[test]
    fn refusals_are_told_apart() {
        let why = |status, body: &str| answer(status, body).refused_why();
        let gone = "error 410/3907: no_such_ask Instance type 5 is no longer available.";
        for status in [400, 404, 410] {
            let body = format!(r#"{{"success":false,"error":"invalid_args","msg":"{gone}"}}"#);
            assert_eq!(why(status, &body), RefusedWhy::NoSuchOffer);
        }
        let wrapped = r#"{"message":"x","provider":"vastai","error":{"error":"no_such_instance"}}"#;
        assert_eq!(why(404, wrapped), RefusedWhy::NoSuchInstance);
        let auth = r#"{"success":false,"error":"auth_error","msg":"Invalid user key"}"#;
        for (status, body) in [
            (401, "{}"),
            (403, r#"{"message":"Invalid api_token"}"#),
            (404, auth),
        ] {
            assert_eq!(why(status, body), RefusedWhy::Unauthorized);
        }
        assert_eq!(
            why(400, r#"{"error":"insufficient_credit"}"#),
            RefusedWhy::Account
        );
        assert_eq!(
            why(400, r#"{"msg":"spend_rate_limit reached"}"#),
            RefusedWhy::Account
        );
        assert_eq!(why(403, r#"{"error":"invalid_args"}"#), RefusedWhy::Invalid);
        assert_eq!(why(429, "API requests too frequent"), RefusedWhy::Throttled);
        // What the gateway echoes of the request says nothing about its answer.
        assert_eq!(
            why(400, r#"{"message":"bad","body":{"label":"no_such_ask"}}"#),
            RefusedWhy::Invalid
        );
    }

    #[test]
    fn finds_what_was_left_behind() {
        for body in [
            r#"{"success":false,"new_contract":77}"#,
            r#"{"message":"x","provider":"vastai","error":{"msg":"low","new_contract":"77"}}"#,
            r#"{"data":{"error":{"message":"bid low, new_contract: 77 is stopped"}}}"#,
            r#"{"message":"{\"error\":\"x\",\"new_contract\":77}"}"#,
        ] {
            assert_eq!(
                answer(400, body).new_contract(),
                Some(InstanceId(77)),
                "{body}"
            );
        }
        assert_eq!(answer(400, r#"{"msg":"no"}"#).new_contract(), None);
    }

    #[test]
    fn finds_how_long_to_wait() {
        let now = Time(1_795_478_400_000);
        let wait = |reply: &Reply| Answer::read(reply).retry_after(reply, now);
        let mut headed = reply(429, "API requests too frequent");
        assert_eq!(wait(&headed), None);
        headed
            .headers
            .push(("retry-after".to_owned(), "7".to_owned()));
        assert_eq!(wait(&headed), Some(Duration::from_secs(7)));
        let inside = reply(
            429,
            r#"{"message":"x","provider":"v","headers":{"Retry-After":"9"}}"#,
        );
        assert_eq!(wait(&inside), Some(Duration::from_secs(9)));
        let stated = reply(429, r#"{"data":{"error":{"retry_after":2.5}}}"#);
        assert_eq!(wait(&stated), Some(Duration::from_millis(2500)));
        let mut dated = reply(429, "API requests too frequent");
        let later = "Tue, 24 Nov 2026 00:00:30 GMT".to_owned();
        dated.headers.push(("retry-after".to_owned(), later));
        assert_eq!(wait(&dated), Some(Duration::from_secs(30)));
        let text = reply(429, r#"{"detail":"x","retry_after":"4"}"#);
        assert_eq!(wait(&text), Some(Duration::from_secs(4)));
        let threshold = "API requests too frequent: endpoint threshold=5.5";
        assert_eq!(
            wait(&reply(429, threshold)),
            Some(Duration::from_millis(5500))
        );
        let quota = reply(429, r#"{"error":"search_quota_exceeded"}"#);
        assert_eq!(wait(&quota), Some(Duration::from_hours(24)));
        let reset = reply(
            429,
            r#"{"error":{"error":"search_quota_exceeded"},"headers":{"x-ratelimit-reset":1795482000}}"#,
        );
        assert_eq!(wait(&reset), Some(Duration::from_hours(1)));
    }
}
