//! Keeps secrets out of texts.
//!
//! The gateway takes its token in the query and echoes requests in its errors, and the provider's
//! answers carry keys and start scripts back. So no text of theirs is shown as it came: only the
//! fields that hold a message are kept, known secrets are blanked in every form that a URL or a
//! JSON text gives them, and whatever follows the name of a secret field is blanked unseen.

use std::collections::VecDeque;
use std::sync::{PoisonError, RwLock};

use serde_json::{Map, Value};

use crate::types::spelling::is_obeyed;

/// What stands where a secret stood.
const BLANK: &str = "[redacted]";

/// The longest message kept, in characters: enough for a person, too little for a dump.
const MESSAGE_CHARS_MAX: usize = 300;

/// The longest text that is judged by its words, in characters: errors of container runtimes quote each
/// other, and what matters stands last.
const WORDS_CHARS_MAX: usize = 8_000;

/// Secrets shorter than this are not looked for: they would blank ordinary words.
const SECRET_BYTES_MIN: usize = 6;

/// Values of an environment shorter than this are words and numbers.
const VALUE_BYTES_MIN: usize = 8;

/// How many secrets are remembered beside the lasting ones. The oldest makes room.
const SECRETS_MAX: usize = 4096;

/// How deep a body is searched for its message.
const DEPTH_MAX: usize = 6;

/// Names in front of a value that nobody may see. Compared in lower case.
const SECRET_NAMES: [&str; 9] = [
    "api_token",
    "api_key",
    "jupyter_token",
    "extra_env",
    "onstart",
    "result_url",
    "image_login",
    // Before `authorization`, whose value it begins.
    BEARER,
    "authorization",
];

/// The one name that a blank alone separates from its secret.
const BEARER: &str = "bearer";

/// The keys under which errors hold what they say, in the order of their worth.
const MESSAGE_KEYS: [&str; 5] = ["error", "code", "msg", "message", "detail"];

/// Knows the secrets that must not be shown and blanks them.
#[derive(Default)]
pub struct Redactor {
    secrets: RwLock<Known>,
}

/// Each secret with the forms it may take, the longest form first.
#[derive(Default)]
struct Known {
    /// Those that are never forgotten.
    lasting: Vec<Vec<String>>,
    /// The others, oldest first.
    passing: VecDeque<Vec<String>>,
}

impl std::fmt::Debug for Redactor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Redactor")
    }
}

impl Redactor {
    /// A redactor that knows one secret, the token.
    pub fn new(token: &str) -> Self {
        let redactor = Self::default();
        redactor.add_lasting(token);
        redactor
    }

    /// Adds a secret that is never forgotten, however many follow: the token, and the like.
    pub fn add_lasting(&self, secret: &str) {
        let Some(forms) = forms_worth_knowing(secret) else {
            return;
        };
        let mut secrets = self.secrets.write().unwrap_or_else(PoisonError::into_inner);
        if !secrets.lasting.contains(&forms) {
            secrets.lasting.push(forms);
        }
    }

    /// Adds a secret. Very short ones are passed over: they would blank ordinary words.
    pub fn add(&self, secret: &str) {
        let Some(forms) = forms_worth_knowing(secret) else {
            return;
        };
        let mut secrets = self.secrets.write().unwrap_or_else(PoisonError::into_inner);
        if secrets.lasting.contains(&forms) || secrets.passing.contains(&forms) {
            return;
        }
        if secrets.passing.len() >= SECRETS_MAX {
            secrets.passing.pop_front();
        }
        secrets.passing.push_back(forms);
    }

    /// Adds what stands under the names of secrets in a request that a person wrote: it may come
    /// back in an error's text.
    pub fn add_given(&self, body: &Map<String, Value>) {
        for (name, value) in body {
            match value {
                value if names_a_secret(name) => self.add_values(value),
                Value::Object(inner) => self.add_given(inner),
                _ => {}
            }
        }
    }

    /// Adds every text of a value, and every word of it that is long enough: an environment and a
    /// login may be written as the arguments of a command.
    fn add_values(&self, value: &Value) {
        match value {
            Value::String(text) => {
                if text.len() >= VALUE_BYTES_MIN {
                    self.add(text);
                }
                for word in text.split_whitespace() {
                    let word = word.split_once('=').map_or(word, |(_, value)| value);
                    if word.len() >= VALUE_BYTES_MIN && !word.starts_with('-') {
                        self.add(word);
                    }
                }
            }
            Value::Array(items) => items.iter().for_each(|item| self.add_values(item)),
            Value::Object(map) => map.values().for_each(|value| self.add_values(value)),
            Value::Null | Value::Bool(_) | Value::Number(_) => {}
        }
    }

    /// A text with every known secret, and every value behind a secret's name, blanked. It is not
    /// cut.
    pub fn clean(&self, text: &str) -> String {
        let mut clean = self.clean_known(text);
        // Blanking makes no name where there was none.
        let lower = clean.to_ascii_lowercase();
        for name in SECRET_NAMES {
            if lower.contains(name) {
                clean = blank_after(&clean, name);
            }
        }
        blank_url_queries(&blank_logins(&clean))
    }

    /// A text with every known secret blanked, and nothing else.
    pub(crate) fn clean_known(&self, text: &str) -> String {
        let secrets = self.secrets.read().unwrap_or_else(PoisonError::into_inner);
        without(
            text,
            secrets.lasting.iter().chain(&secrets.passing).flatten(),
        )
    }

    /// A document without the lasting secrets. Its texts were cleaned when they came in; what passes
    /// through requests may be an ordinary word of it, such as the name of a job.
    pub(crate) fn clean_lasting(&self, text: &str) -> String {
        let secrets = self.secrets.read().unwrap_or_else(PoisonError::into_inner);
        without(text, secrets.lasting.iter().flatten())
    }

    /// A text fit to be shown: cleaned, on one line, cut to some 300 characters.
    pub fn show(&self, text: &str) -> String {
        // Cut last: a cut secret is not known.
        cut(&self.line(text), MESSAGE_CHARS_MAX)
    }

    /// A text fit to be judged by its words: cleaned, on one line, and whole up to some 8,000
    /// characters; of a longer one both ends.
    pub fn words(&self, text: &str) -> String {
        let line = self.line(text);
        let count = line.chars().count();
        if count <= WORDS_CHARS_MAX {
            return line;
        }
        let half = WORDS_CHARS_MAX / 2;
        let begin = line.chars().take(half);
        begin
            .chain(['…'])
            .chain(line.chars().skip(count - half))
            .collect()
    }

    /// A text cleaned, on one line, without what a terminal obeys.
    fn line(&self, text: &str) -> String {
        // Cleaned before the lines are joined, for a secret may have line breaks of its own, and
        // after, for what was broken apart may be one then.
        let line = one_line(&self.clean(text)).replace(is_obeyed, "");
        self.clean(&line)
    }

    /// What an error's body says, fit to be shown: its message fields and nothing else of it.
    pub fn message(&self, body: &str) -> String {
        self.show(&message_of(body))
    }
}

/// Blanks what stands after `-p`, `--password` or `--password=` in a text that shows a login: hosts say
/// with which command they failed.
fn blank_logins(text: &str) -> String {
    if !text.contains("login") {
        return text.to_owned();
    }
    let mut secret = false;
    let blanked = text.split_inclusive(char::is_whitespace).map(|word| {
        let bare = word.trim_end();
        let blank = word.len() - bare.len();
        let space = &word[word.len() - blank..];
        if bare.is_empty() {
            return word.to_owned();
        }
        if std::mem::take(&mut secret) {
            return format!("{BLANK}{space}");
        }
        secret = matches!(bare, "-p" | "--password");
        match bare.split_once("--password=") {
            Some((before, _)) => format!("{before}--password={BLANK}{space}"),
            None => word.to_owned(),
        }
    });
    blanked.collect()
}

/// Words in a field's name by which its value is secret. Compared in lower case.
const SECRET_WORDS: [&str; 12] = [
    "token",
    "secret",
    "password",
    "passwd",
    "api_key",
    "apikey",
    "private_key",
    "extra_env",
    "onstart",
    "result_url",
    "login",
    "authorization",
];

/// Fields whose names hold such a word and which are no secrets: by the first ones a list is paged.
const NO_SECRETS: [&str; 4] = [
    "next_token",
    "after_token",
    "api_key_id",
    "docker_login_repo",
];

/// Whether what stands under a name in an answer is kept from being shown.
fn names_a_secret(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    let named = SECRET_WORDS.iter().any(|word| name.contains(word));
    (named || name == "env") && !NO_SECRETS.contains(&name.as_str())
}

impl Redactor {
    /// An answer fit to be shown whole: what stands under the name of a secret is blanked, unless
    /// `reveal` allows it, and every known secret in all the rest.
    pub fn answer(&self, value: &Value, reveal: bool) -> Value {
        match value {
            Value::Object(map) => {
                let fields = map.iter().map(|(name, value)| {
                    let holds = !matches!(value, Value::Null | Value::Bool(_));
                    let shown = if reveal && names_a_secret(name) {
                        self.known(value)
                    } else if holds && !is_empty(value) && names_a_secret(name) {
                        Value::from(BLANK)
                    } else {
                        self.answer(value, reveal)
                    };
                    (self.clean(name), shown)
                });
                Value::Object(fields.collect())
            }
            Value::Array(items) => {
                // A list of pairs has the names in it.
                let pair = match items.as_slice() {
                    [Value::String(name), Value::String(_)] => names_a_secret(name),
                    _ => false,
                };
                if pair && !reveal {
                    return Value::from(vec![items[0].clone(), Value::from(BLANK)]);
                }
                items.iter().map(|item| self.answer(item, reveal)).collect()
            }
            Value::String(text) => match serde_json::from_str::<Value>(text) {
                // JSON that travels as a text.
                Ok(inner @ (Value::Object(_) | Value::Array(_))) => {
                    Value::from(self.answer(&inner, reveal).to_string())
                }
                _ if reveal => self.known(value),
                _ => Value::from(self.clean(text)),
            },
            other => other.clone(),
        }
    }

    /// A value of which only the secrets that are known are blanked: the token above all.
    fn known(&self, value: &Value) -> Value {
        match value {
            Value::String(text) => Value::from(self.clean_known(text)),
            Value::Array(items) => items.iter().map(|item| self.known(item)).collect(),
            Value::Object(map) => Value::Object(
                map.iter()
                    .map(|(name, value)| (self.clean_known(name), self.known(value)))
                    .collect(),
            ),
            other => other.clone(),
        }
    }
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Object(map) => map.is_empty(),
        _ => false,
    }
}

/// A text in which a blank stands for each of these.
fn without<'a>(text: &str, forms: impl Iterator<Item = &'a String>) -> String {
    let mut clean = text.to_owned();
    for form in forms {
        if clean.contains(form.as_str()) {
            clean = clean.replace(form.as_str(), BLANK);
        }
    }
    clean
}

/// What an error's body says, not yet redacted: its message fields joined, or the text itself where
/// it is plain. For finding out what kind of error it is; never to be shown.
pub(crate) fn message_of(body: &str) -> String {
    let body = body.trim();
    match serde_json::from_str::<Value>(body) {
        Ok(value) => message_of_value(&value),
        Err(_) if body.is_empty() => "an empty answer".to_owned(),
        Err(_) if body.starts_with('<') => "a page of HTML".to_owned(),
        Err(_) if body.starts_with(['{', '[']) => "broken JSON".to_owned(),
        // Not cut yet: half a secret could not be told from other text.
        Err(_) => body.to_owned(),
    }
}

/// As [`message_of`], of a body that is parsed already.
pub(crate) fn message_of_value(value: &Value) -> String {
    let mut parts = Vec::new();
    collect(value, DEPTH_MAX, &mut parts);
    if parts.is_empty() {
        return "no message".to_owned();
    }
    parts.join(": ")
}

fn collect(value: &Value, depth: usize, parts: &mut Vec<String>) {
    let Some(depth) = depth.checked_sub(1) else {
        return;
    };
    match value {
        Value::String(text) => collect_text(text, depth, parts),
        Value::Number(number) => add_part(parts, number.to_string()),
        Value::Object(map) => {
            for key in ["data", "result"] {
                if let Some(inner @ Value::Object(_)) = map.get(key) {
                    collect(inner, depth, parts);
                }
            }
            for key in MESSAGE_KEYS {
                if let Some(inner) = map.get(key) {
                    collect(inner, depth, parts);
                }
            }
        }
        Value::Array(items) => {
            // Some frameworks give a list of `{msg: …}`.
            for item in items.iter().take(3).filter(|item| item.is_object()) {
                collect(item, depth, parts);
            }
        }
        Value::Null | Value::Bool(_) => {}
    }
}

/// A message that is itself JSON is read as such, so that what it carries is not shown whole.
fn collect_text(text: &str, depth: usize, parts: &mut Vec<String>) {
    match serde_json::from_str::<Value>(text) {
        Ok(inner @ (Value::Object(_) | Value::Array(_))) => collect(&inner, depth, parts),
        _ => add_part(parts, text.trim().to_owned()),
    }
}

fn add_part(parts: &mut Vec<String>, part: String) {
    if !part.is_empty() && !parts.contains(&part) {
        parts.push(part);
    }
}

/// The first `max` characters, with an ellipsis where there were more.
pub(crate) fn cut(text: &str, max: usize) -> String {
    match text.char_indices().nth(max) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

/// Words with one blank between them.
fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// The forms of a secret; `None` of one so short that blanking it would blank ordinary words.
fn forms_worth_knowing(secret: &str) -> Option<Vec<String>> {
    let secret = secret.trim();
    (secret.len() >= SECRET_BYTES_MIN).then(|| forms_of(secret))
}

/// The forms in which a secret may stand in a text: as it is, in a URL, in JSON, in JSON that is a
/// text of JSON, as where a whole request is echoed, and each of these with its line breaks gone.
fn forms_of(secret: &str) -> Vec<String> {
    let upper = percent(secret, false);
    let json = in_json(secret);
    let mut forms = vec![
        secret.to_owned(),
        lower_escapes(&upper),
        percent(secret, true),
        lower_escapes(&percent(secret, true)),
        upper,
        in_json(&json),
        json,
    ];
    let joined: Vec<String> = forms.iter().map(|form| one_line(form)).collect();
    forms.extend(joined);
    forms.sort_by(|a, b| b.len().cmp(&a.len()).then_with(|| a.cmp(b)));
    forms.dedup();
    forms
}

/// As a JSON text holds it, without the quotes around it.
fn in_json(text: &str) -> String {
    let quoted = serde_json::Value::from(text).to_string();
    let inner = quoted
        .strip_prefix('"')
        .and_then(|rest| rest.strip_suffix('"'));
    inner.unwrap_or(&quoted).to_owned()
}

/// Percent-encoding of everything but unreserved characters; with `form`, a space as `+`.
pub(crate) fn percent(text: &str, form: bool) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => {
                encoded.push(char::from(byte));
            }
            b' ' if form => encoded.push('+'),
            _ => encoded.push_str(&format!("%{byte:02X}")),
        }
    }
    encoded
}

fn lower_escapes(encoded: &str) -> String {
    let mut lower = String::with_capacity(encoded.len());
    let mut in_escape = 0;
    for c in encoded.chars() {
        if c == '%' {
            in_escape = 3;
        }
        lower.push(if in_escape > 0 {
            c.to_ascii_lowercase()
        } else {
            c
        });
        in_escape = in_escape.max(1) - 1;
    }
    lower
}

/// Blanks what follows a name and a separator, up to the end of the value.
fn blank_after(text: &str, name: &str) -> String {
    let lower = text.to_ascii_lowercase();
    let mut out = String::with_capacity(text.len());
    let mut at = 0;
    while let Some(found) = lower[at..].find(name) {
        let after_name = at + found + name.len();
        out.push_str(&text[at..after_name]);
        at = after_name;
        let rest = &text[after_name..];
        let separators = separator_len(rest);
        let blank_only = rest[..separators].trim().is_empty();
        if separators == 0 || (blank_only && name != BEARER) {
            continue;
        }
        out.push_str(&rest[..separators]);
        let value = value_len(&rest[separators..]);
        if value > 0 {
            out.push_str(BLANK);
        }
        at = after_name + separators + value;
    }
    out.push_str(&text[at..]);
    out
}

/// How much of the text separates a name from its value: quotes, colons, equal signs, blanks, and
/// their percent-encoded forms. 0 where a letter follows: then it is another word.
fn separator_len(text: &str) -> usize {
    let mut at = 0;
    loop {
        let rest = &text[at..];
        let step = if rest.starts_with(['"', '\'', ':', '=', ' ', '\\']) {
            1
        } else if rest.starts_with('%') {
            let code = rest.get(1..3).unwrap_or_default();
            if ["3D", "3d", "3A", "3a", "22", "20"].contains(&code) {
                3
            } else {
                0
            }
        } else {
            0
        };
        if step == 0 {
            return at;
        }
        at += step;
    }
}

/// How long a value is: to its closing bracket where it opens one, else to the next delimiter.
fn value_len(text: &str) -> usize {
    if text.starts_with(BLANK) {
        return 0;
    }
    if text.starts_with(['[', '{']) {
        // Nested values are cut bluntly: what cannot be delimited surely is not shown.
        return text.len();
    }
    text.find(['&', '"', '\'', ' ', ',', '}', ']', ')', '<'])
        .unwrap_or(text.len())
}

/// Blanks the query of every URL.
fn blank_url_queries(text: &str) -> String {
    if !text.contains("://") {
        return text.to_owned();
    }
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(start) = rest.find("://") {
        let (before, url) = rest.split_at(start + 3);
        out.push_str(before);
        let end = url.find([' ', '"', '\'', '<', '>']).unwrap_or(url.len());
        let (url, after) = url.split_at(end);
        match url.split_once('?') {
            Some((place, _)) => out.push_str(&format!("{place}?{BLANK}")),
            None => out.push_str(url),
        }
        rest = after;
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const TOKEN: &str = "at_c4n/ry+S3 cret";

    #[test]
    fn passwords_of_logins_are_blanked() {
        let redactor = Redactor::default();
        for (said, shown) in [
            (
                "docker login -u me -p hunter2 ghcr.io: unauthorized",
                format!("docker login -u me -p {BLANK} ghcr.io: unauthorized"),
            ),
            (
                "docker login --username me --password=hunter2 x",
                format!("docker login --username me --password={BLANK} x"),
            ),
            (
                "docker login --password hunter2",
                format!("docker login --password {BLANK}"),
            ),
            (
                "docker run -p 8080:80 image",
                "docker run -p 8080:80 image".to_owned(),
            ),
        ] {
            assert_eq!(redactor.clean(said), shown);
        }
    }

    #[test]
    fn blanks_every_form_of_a_secret() {
        let redactor = Redactor::new(TOKEN);
        for text in [
            format!("plain {TOKEN} end"),
            format!("https://h/x?y={}", percent(TOKEN, false)),
            format!("form y={} end", percent(TOKEN, true)),
            format!("lower y={} end", lower_escapes(&percent(TOKEN, false))),
        ] {
            let shown = redactor.show(&text);
            assert!(shown.contains(BLANK), "{shown}");
            assert!(!shown.contains("c4n"), "{shown}");
        }
    }

    #[test]
    fn an_answer_is_shown_whole_without_its_secrets() {
        use serde_json::json;
        let redactor = Redactor::new(TOKEN);
        let answer = json!({
            "id": 7, "label": "job", "onstart": "curl -H s1", "jupyter_token": "s2", "ports": {},
            "extra_env": [["HF_TOKEN", "s3"]], "api_key": "s4", "api_key_id": 5, "next_token": "page",
            "result_url": "https://h/s5", "message": format!("sent {TOKEN}"), "instance_api_key": "s6",
            "more": [{"secret": {"deep": "s7"}}], "env": "-e A=s8", "args": r#"{"password":"s9"}"#,
            "pairs": [["MY_SECRET", "s10"]], "template": {"docker_login_pass": "s11"}, "empty_token": "",
        });
        let shown = redactor.answer(&answer, false).to_string();
        for number in 1..=11 {
            let secret = format!("s{number}\"");
            assert!(!shown.contains(&secret), "{secret} in {shown}");
        }
        assert!(!shown.contains("c4n") && !shown.contains("curl"), "{shown}");
        for kept in [
            "\"id\":7",
            "job",
            "\"api_key_id\":5",
            "\"next_token\":\"page\"",
            "HF_TOKEN",
        ] {
            assert_eq!(
                shown.contains(kept),
                kept != "HF_TOKEN",
                "{kept} in {shown}"
            );
        }
        let revealed = redactor.answer(&answer, true).to_string();
        assert!(
            revealed.contains("https://h/s5") && revealed.contains("s6"),
            "{revealed}"
        );
        assert!(!revealed.contains("c4n"), "{revealed}");
    }

    #[test]
    fn blanks_unknown_values_behind_secret_names() {
        let redactor = Redactor::default();
        for (text, expected) in [
            (
                "GET /x?api_token=abcdef&y=1",
                "GET /x?api_token=[redacted]&y=1",
            ),
            ("api_token%3Dabcdef", "api_token%3D[redacted]"),
            (
                r#"{"api_token":"abc","y":2}"#,
                r#"{"api_token":"[redacted]","y":2}"#,
            ),
            (
                "instance_api_key: abc, z",
                "instance_api_key: [redacted], z",
            ),
            (
                "Authorization: Bearer abc",
                "Authorization: [redacted] [redacted]",
            ),
            (
                r#"a "extra_env":[["K","v"]]"#,
                r#"a "extra_env":[redacted]"#,
            ),
            (
                "see https://s3/x?sig=abc now",
                "see https://s3/x?[redacted] now",
            ),
            ("the bearer", "the bearer"),
        ] {
            assert_eq!(redactor.clean(text), expected);
        }
    }

    #[test]
    fn keeps_only_the_message_of_a_body() {
        let redactor = Redactor::new(TOKEN);
        let body = format!(
            r#"{{"message":"Unauthorized","query":{{"api_token":"{TOKEN}"}},"headers":{{"cookie":"c00kie"}}}}"#
        );
        assert_eq!(redactor.message(&body), "Unauthorized");
        let native = r#"{"message":"Bad Request","provider":"vastai","error":{"success":false,"error":"invalid_args","msg":"bad disk","onstart":"secret"}}"#;
        assert_eq!(
            redactor.message(native),
            "invalid_args: bad disk: Bad Request"
        );
        let doc = r#"{"data":{"error":{"message":"nope","code":"E1"}}}"#;
        assert_eq!(redactor.message(doc), "E1: nope");
        let nested = r#"{"message":"{\"msg\":\"inner\",\"jupyter_token\":\"jt\"}"}"#;
        assert_eq!(redactor.message(nested), "inner");
        assert_eq!(
            redactor.message("API requests too frequent"),
            "API requests too frequent"
        );
        assert_eq!(redactor.message("<html>secret</html>"), "a page of HTML");
        assert_eq!(redactor.message(""), "an empty answer");
    }

    #[test]
    fn the_token_is_known_however_many_secrets_follow() {
        let redactor = Redactor::default();
        redactor.add("whsec_of the webhook");
        redactor.add_lasting(TOKEN);
        for number in 0..=SECRETS_MAX {
            redactor.add(&format!("secret number {number}"));
        }
        assert_eq!(redactor.clean(TOKEN), BLANK);
        let known = redactor.secrets.read().unwrap();
        assert_eq!(known.passing.len(), SECRETS_MAX);
    }

    #[test]
    fn what_a_person_gave_as_a_secret_is_not_shown_again() {
        use serde_json::json;
        let redactor = Redactor::new(TOKEN);
        let body = json!({
            "image": "ghcr.io/me/private:1",
            "env": {"A": "s1-long-enough", "N": 7, "WORD": "yes"},
            "image_login": "-u me -p s2-long-enough ghcr.io",
            "deep": {"extra_env": [["B", "s3-long-enough"]]},
            "onstart": "export C=s4-long-enough",
        });
        redactor.add_given(body.as_object().unwrap());
        let text = "cannot use s1-long-enough s2-long-enough s3-long-enough s4-long-enough, yes, \
                    ghcr.io/me/private:1";
        let shown = redactor.clean(text);
        assert!(!shown.contains("long"), "{shown}");
        assert!(shown.ends_with("yes, ghcr.io/me/private:1"), "{shown}");
        let answer = json!({"env": {TOKEN: "v"}});
        let revealed = redactor.answer(&answer, true).to_string();
        assert!(!revealed.contains("c4n"), "{revealed}");
    }

    #[test]
    fn cuts_after_cleaning() {
        let redactor = Redactor::new(TOKEN);
        let shown = redactor.show(&format!("{}{TOKEN}", "x".repeat(MESSAGE_CHARS_MAX - 3)));
        assert!(!shown.contains("at_"), "{shown}");
        assert!(shown.chars().count() <= MESSAGE_CHARS_MAX + 1);
    }

    #[test]
    fn words_are_whole_and_of_very_many_both_ends_are_kept() {
        let redactor = Redactor::new(TOKEN);
        let text = format!("begin\n{} {TOKEN} end", "x".repeat(MESSAGE_CHARS_MAX));
        let words = redactor.words(&text);
        assert!(words.starts_with("begin x") && words.ends_with(&format!("{BLANK} end")));
        let words = redactor.words(&format!("begin {} end", "x".repeat(3 * WORDS_CHARS_MAX)));
        assert!(words.starts_with("begin x") && words.ends_with("x end"));
        assert_eq!(words.chars().count(), WORDS_CHARS_MAX + 1);
    }

    #[test]
    fn nothing_that_a_terminal_obeys_is_shown_or_hides_a_secret() {
        let redactor = Redactor::new(TOKEN);
        let (half, rest) = TOKEN.split_at(6);
        let text = format!("a\u{1b}]0;x\u{7} {half}\u{0}{rest} {half}\u{202e}{rest}\u{9b}1m");
        assert_eq!(redactor.show(&text), format!("a]0;x {BLANK} {BLANK}1m"));
    }

    #[test]
    fn a_secret_at_the_cut_of_a_long_plain_body_does_not_show_its_beginning() {
        let redactor = Redactor::new(TOKEN);
        let body = format!("{} {TOKEN}", "x".repeat(MESSAGE_CHARS_MAX - 12));
        let shown = redactor.message(&body);
        assert!(!shown.contains("c4n"), "{shown}");
    }

    #[test]
    fn a_secret_of_several_lines_is_blanked_also_where_they_are_joined() {
        let redactor = Redactor::default();
        redactor.add("-----BEGIN KEY-----\nline  \"two\"\n-----END KEY-----\n");
        for text in [
            "bad key -----BEGIN KEY-----\nline  \"two\"\n-----END KEY-----",
            "bad key -----BEGIN KEY----- line \"two\" -----END KEY-----",
            r#"env {"K":"-----BEGIN KEY-----\nline  \"two\"\n-----END KEY-----"}"#,
            r#"data "{\"K\":\"-----BEGIN KEY-----\\nline  \\\"two\\\"\\n-----END KEY-----\"}""#,
        ] {
            let shown = redactor.show(text);
            assert!(shown.contains(BLANK), "{shown}");
            assert!(!shown.contains("two"), "{shown}");
        }
    }

    proptest! {
        #[test]
        fn no_text_lets_the_secret_through(before in ".{0,60}", after in ".{0,60}") {
            let redactor = Redactor::new("at_canary0123456789");
            let shown = redactor.clean(&format!("{before}at_canary0123456789{after}"));
            prop_assert!(!shown.contains("canary0123456789"));
        }
    }
}
