//! Ways over HTTP: a signed webhook, Slack, Discord, ntfy.
//!
//! Whoever knows such an address can write to it, so that none is ever shown: what the HTTP library says
//! is stripped of it.

use async_trait::async_trait;
use hmac::{Hmac, KeyInit, Mac};
use reqwest::{Client, Url};
use secrecy::{ExposeSecret, SecretString};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::time::Duration;

use super::{TIMEOUT, document};
use crate::net::{install_crypto, root_cause};
use crate::notify::{Message, Sender, Unsent, plain};
use crate::types::hex::hex;
use crate::types::state::Severity;
use crate::types::time::Time;

/// Longest text that an ntfy server takes as a message is 4096 bytes.
const NTFY_BYTES: usize = 3800;

/// What is posted, and in which shape.
enum Shape {
    Webhook {
        secret: SecretString,
    },
    Slack,
    Discord,
    Ntfy {
        topic: String,
        token: Option<SecretString>,
    },
}

/// A way over HTTP.
pub struct Post {
    client: Client,
    url: Url,
    shape: Shape,
    now: fn() -> Time,
}

impl std::fmt::Debug for Post {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Post").finish_non_exhaustive()
    }
}

impl Post {
    /// A webhook that is posted to in JSON and signed with a secret: `X-Haggle-Signature-256` is `sha256=`
    /// and the HMAC, in hexadecimal, of `X-Haggle-Timestamp`, a dot, and the body. `now` is the wall
    /// clock, for the timestamp.
    ///
    /// # Errors
    /// Says why the address cannot be used, without it.
    pub fn webhook(url: &str, secret: SecretString, now: fn() -> Time) -> Result<Self, String> {
        Self::new(url, Shape::Webhook { secret }, now)
    }

    /// An incoming webhook of Slack, or of what takes the same (Mattermost, Rocket.Chat, Discord's own with
    /// `/slack` behind its address).
    ///
    /// # Errors
    /// As [`Self::webhook`].
    pub fn slack(url: &str) -> Result<Self, String> {
        Self::new(url, Shape::Slack, || Time(0))
    }

    /// A webhook of Discord.
    ///
    /// # Errors
    /// As [`Self::webhook`].
    pub fn discord(url: &str) -> Result<Self, String> {
        Self::new(url, Shape::Discord, || Time(0))
    }

    /// A topic of an ntfy server, by its address: `https://ntfy.sh/topic`.
    ///
    /// # Errors
    /// As [`Self::webhook`], and where the address has no topic.
    pub fn ntfy(url: &str, token: Option<SecretString>) -> Result<Self, String> {
        let mut root = address(url)?;
        let path = root.path().trim_end_matches('/').to_owned();
        let (above, topic) = path.rsplit_once('/').unwrap_or(("", ""));
        let fits = |c: char| c.is_ascii_alphanumeric() || "-_".contains(c);
        if topic.is_empty() || topic.len() > 64 || !topic.chars().all(fits) {
            return Err(
                "the address has to end with a topic, such as https://ntfy.sh/my-topic".to_owned(),
            );
        }
        let topic = topic.to_owned();
        // Messages are posted as JSON to the server's root: what is in headers would have to be ASCII.
        root.set_path(&format!("{above}/"));
        Self::new(root.as_str(), Shape::Ntfy { topic, token }, || Time(0))
    }

    fn new(url: &str, shape: Shape, now: fn() -> Time) -> Result<Self, String> {
        let url = address(url)?;
        install_crypto();
        let mut builder = Client::builder()
            .user_agent(concat!("haggle/", env!("CARGO_PKG_VERSION")))
            .timeout(TIMEOUT)
            // A redirect would carry what is meant for one receiver to another.
            .redirect(reqwest::redirect::Policy::none())
            .referer(false)
            .retry(reqwest::retry::never());
        if url.scheme() == "http" {
            builder = builder.no_proxy();
        }
        let client = builder.build().map_err(|error| {
            format!(
                "HTTP cannot be set up: {}",
                root_cause(&error.without_url())
            )
        })?;
        Ok(Self {
            client,
            url,
            shape,
            now,
        })
    }

    fn body(&self, message: &Message) -> Value {
        match &self.shape {
            Shape::Webhook { .. } => webhook_body(message),
            Shape::Slack => json!({ "text": slack_text(message) }),
            Shape::Discord => discord_body(message),
            Shape::Ntfy { topic, .. } => ntfy_body(message, topic),
        }
    }
}

/// An address that may be posted to.
fn address(url: &str) -> Result<Url, String> {
    let url = Url::parse(url.trim())
        .map_err(|_| "it is not an address such as https://example.org/hook".to_owned())?;
    let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']);
    let loopback = host == "localhost"
        || host
            .parse()
            .is_ok_and(|ip: std::net::IpAddr| ip.is_loopback());
    match url.scheme() {
        "https" => Ok(url),
        "http" if loopback => Ok(url),
        "http" => Err(
            "it is http:// to another machine, so that it would travel in clear; use https://"
                .to_owned(),
        ),
        _ => Err("it must begin with https://".to_owned()),
    }
}

#[async_trait]
impl Sender for Post {
    async fn send(&self, message: &Message) -> Result<(), Unsent> {
        let body = self.body(message).to_string();
        let mut request = self
            .client
            .post(self.url.clone())
            .header(reqwest::header::CONTENT_TYPE, "application/json");
        match &self.shape {
            Shape::Webhook { secret } => {
                let timestamp = (self.now)().0.div_euclid(1000).to_string();
                let signature = sign(secret, &timestamp, &body)
                    .ok_or_else(|| Unsent::for_good("the secret cannot be signed with"))?;
                request = request
                    .header("x-haggle-id", id_of(message))
                    .header("x-haggle-timestamp", timestamp)
                    .header("x-haggle-signature-256", format!("sha256={signature}"));
            }
            Shape::Ntfy {
                token: Some(token), ..
            } => request = request.bearer_auth(token.expose_secret()),
            _ => {}
        }
        let answer = request.body(body).send().await.map_err(|error| {
            let error = error.without_url();
            let why = if error.is_timeout() {
                format!("no answer within {} s", TIMEOUT.as_secs())
            } else {
                root_cause(&error)
            };
            Unsent::for_now(why)
        })?;
        judge(answer.status().as_u16(), retry_after(&answer))
    }
}

fn retry_after(answer: &reqwest::Response) -> Option<Duration> {
    let seconds = answer.headers().get("retry-after")?.to_str().ok()?;
    seconds.trim().parse().ok().map(Duration::from_secs)
}

fn judge(status: u16, after: Option<Duration>) -> Result<(), Unsent> {
    let why = format!("the receiver answers {status}");
    match status {
        200..=299 => Ok(()),
        408 | 425 | 429 | 500..=599 => Err(Unsent {
            after,
            ..Unsent::for_now(why)
        }),
        _ => Err(Unsent::for_good(why)),
    }
}

/// The HMAC-SHA256 of a timestamp, a dot and a body, in hexadecimal.
pub fn sign(secret: &SecretString, timestamp: &str, body: &str) -> Option<String> {
    let mut mac = Hmac::<Sha256>::new_from_slice(secret.expose_secret().as_bytes()).ok()?;
    mac.update(timestamp.as_bytes());
    mac.update(b".");
    mac.update(body.as_bytes());
    Some(hex(&mac.finalize().into_bytes()))
}

/// The same for the same message however often it is tried, so that a receiver can tell.
fn id_of(message: &Message) -> String {
    let whole = format!("{} {}", message.at.0, message.key);
    hex(&Sha256::digest(whole.as_bytes()))[..32].to_owned()
}

fn webhook_body(message: &Message) -> Value {
    let mut body = document(message);
    body["id"] = Value::String(id_of(message));
    body
}

/// Slack takes what is between `<` and `>` for a link or a call to everybody, and nothing else.
fn slack_text(message: &Message) -> String {
    let escaped = |text: &str| {
        text.replace('&', "&amp;")
            .replace('<', "&lt;")
            .replace('>', "&gt;")
    };
    let mark = match message.severity {
        Severity::Info => "",
        Severity::Warning => ":warning: ",
        Severity::Alarm => ":rotating_light: ",
    };
    format!(
        "{mark}*{}*\n{}",
        escaped(&message.title).replace('*', ""),
        escaped(&message.text)
    )
}

/// Nobody is called, whatever stands in the texts, and nothing in them is markup.
fn discord_body(message: &Message) -> Value {
    let escaped = |text: &str| {
        let mut escaped = String::new();
        for c in text.chars() {
            if "\\*_~`|>[]()#@<".contains(c) {
                escaped.push('\\');
            }
            escaped.push(c);
        }
        escaped
    };
    let color = match message.severity {
        Severity::Info => 0x3b_82_f6,
        Severity::Warning => 0xf5_9e_0b,
        Severity::Alarm => 0xdc_26_26,
    };
    json!({
        "allowed_mentions": { "parse": [] },
        "embeds": [{
            // Discord takes 256 characters of a title and 4096 of a description.
            "title": plain(&escaped(&message.title), 250, false),
            "description": plain(&escaped(&message.text), 4000, true),
            "color": color,
            "timestamp": message.at.to_string(),
        }],
    })
}

fn ntfy_body(message: &Message, topic: &str) -> Value {
    let (priority, tag) = match message.severity {
        Severity::Info => (3, "information_source"),
        Severity::Warning => (4, "warning"),
        Severity::Alarm => (5, "rotating_light"),
    };
    let mut text = message.text.clone();
    while text.len() > NTFY_BYTES {
        text.pop();
    }
    json!({
        "topic": topic,
        "title": message.title,
        "message": text,
        "priority": priority,
        "tags": [tag],
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hostile() -> Message {
        Message::new(
            "k".to_owned(),
            Time(0),
            "failed",
            Severity::Alarm,
            "train/0\r\n<!channel> @everyone *x*",
            "in <script>alert(1)</script> & [here](https://evil.example) <@123>",
        )
    }

    #[test]
    fn nobody_is_called_and_nothing_is_markup() {
        let slack = slack_text(&hostile());
        assert!(
            slack.contains("&lt;!channel&gt;") && !slack.contains('<'),
            "{slack}"
        );
        assert!(slack.contains("&lt;@123&gt;"), "{slack}");
        let discord = discord_body(&hostile());
        assert_eq!(discord["allowed_mentions"], json!({ "parse": [] }));
        let text = discord["embeds"][0]["description"].as_str().unwrap();
        assert!(
            text.contains("\\[here\\]\\(https://evil.example\\)"),
            "{text}"
        );
        let title = discord["embeds"][0]["title"].as_str().unwrap();
        assert!(
            title.contains("\\@everyone") && !title.contains('\n'),
            "{title}"
        );
        let ntfy = ntfy_body(&hostile(), "t");
        assert_eq!(ntfy["priority"], 5);
        // As JSON they stand as they are, and break out of nothing.
        let webhook = webhook_body(&hostile());
        assert!(webhook["text"].as_str().unwrap().contains("<script>"));
        assert_eq!(webhook["title"], "train/0  <!channel> @everyone *x*");
    }

    #[test]
    fn a_signature_is_of_the_time_and_the_body() {
        let secret = SecretString::from("key");
        // As `printf '1700000000.{}' | openssl dgst -sha256 -hmac key` says.
        let signature = sign(&secret, "1700000000", "{}").unwrap();
        assert_eq!(signature.len(), 64);
        assert_ne!(Some(signature.clone()), sign(&secret, "1700000001", "{}"));
        assert_eq!(Some(signature), sign(&secret, "1700000000", "{}"));
    }

    #[test]
    fn addresses_that_travel_in_clear_are_refused_without_showing_them() {
        for (url, why) in [
            ("http://example.org/T0K3N", "in clear"),
            ("ftp://example.org/T0K3N", "https://"),
            ("T0K3N", "not an address"),
        ] {
            let said = Post::slack(url).unwrap_err();
            assert!(said.contains(why) && !said.contains("T0K3N"), "{said}");
        }
        assert!(Post::slack("http://127.0.0.1:1/x").is_ok());
        assert!(Post::ntfy("https://ntfy.sh/", None).is_err());
        let topic = Post::ntfy("https://ntfy.sh/my-topic", None).unwrap();
        assert_eq!(topic.url.as_str(), "https://ntfy.sh/");
    }

    #[test]
    fn what_a_receiver_answers_says_whether_it_is_tried_again() {
        let soon = Some(Duration::from_secs(90));
        assert_eq!(judge(204, None), Ok(()));
        let busy = judge(429, soon).unwrap_err();
        assert_eq!((busy.again, busy.after), (true, soon));
        assert!(judge(503, None).unwrap_err().again);
        assert!(!judge(404, None).unwrap_err().again);
        assert!(
            !judge(302, None).unwrap_err().again,
            "redirects are not followed"
        );
    }
}
