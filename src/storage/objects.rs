//! Reads and writes objects as the daemon itself does: through addresses that it signs for itself,
//! each for one request.
//!
//! Nothing here shows an address: errors of the HTTP library are stripped of theirs.

use std::time::Duration;

use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use bytes::{Bytes, BytesMut};
use reqwest::{Client, Response, StatusCode};
use tokio::io::AsyncWriteExt as _;

use super::Sum;
use super::keys::Key;
use super::local::Local;
use super::place::{Place, PlaceError, SignError, SignedUrl};
use super::upload::{Made, STALL, stalled, stalls};
use crate::net::{install_crypto, root_cause};
use crate::types::time::Time;

/// How long an address of our own is good for. It is used at once; clocks differ by some minutes.
const OWN_VALID: Duration = Duration::from_mins(15);

/// The longest time to make a connection, and between two pieces of an answer.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
const PIECE_TIMEOUT: Duration = Duration::from_mins(1);

/// A transfer that is slower than so many bytes a second is given up, some time for the answer aside.
const SLOWEST: u64 = 64 * 1024;
const ANSWER_TIME: Duration = Duration::from_mins(1);

/// What is read of an error's document.
const ERROR_BYTES_MAX: usize = 16 * 1024;

/// What failed, with what, where, and why. No text holds an address or a key.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("cannot {verb} `{key}` in the bucket `{bucket}` at {host}: {why}")]
pub struct StorageError {
    /// What was tried: `read`, `write` or `delete`.
    pub verb: &'static str,
    /// The object.
    pub key: Key,
    /// The bucket.
    pub bucket: String,
    /// The endpoint's host.
    pub host: String,
    /// Why.
    pub why: Why,
}

/// Why a request failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Why {
    /// The request never left.
    #[error("no connection: {0}")]
    Connect(String),
    /// No answer, or not all of it, in time.
    #[error("no answer in time")]
    Timeout,
    /// The connection broke.
    #[error("the connection broke: {0}")]
    Broken(String),
    /// The server did not do it.
    #[error("the server answers {status}{}{}", bracketed(.code), hint(.code))]
    Refused {
        /// The status.
        status: u16,
        /// S3's word for it; empty where the answer has none.
        code: String,
    },
    /// The object is larger than it may be.
    #[error("it has more than {0} bytes")]
    Large(u64),
    /// The address could not be signed.
    #[error("{0}")]
    Sign(#[from] SignError),
    /// What came could not be written to this machine's disk.
    #[error("what came cannot be written to this disk: {0}")]
    Disk(String),
}

impl Why {
    /// Whether the same may go well a while later.
    pub fn is_passing(&self) -> bool {
        match self {
            Self::Connect(_) | Self::Timeout | Self::Broken(_) => true,
            Self::Refused { status, .. } => *status >= 500 || *status == 429 || *status == 408,
            Self::Large(_) | Self::Sign(_) | Self::Disk(_) => false,
        }
    }
}

fn bracketed(code: &str) -> String {
    match code {
        "" => String::new(),
        code => format!(" ({code})"),
    }
}

/// What would be right, where the code says it.
fn hint(code: &str) -> &'static str {
    match code {
        "InvalidAccessKeyId" => ": the server does not know the access key's id",
        "SignatureDoesNotMatch" => ": look at the secret of the access key, and at the region",
        "AccessDenied" => {
            ": the access key may not do that; it needs GetObject, PutObject and DeleteObject, and \
             ListBucket to be told that an object is not there"
        }
        "NoSuchBucket" => ": look at the bucket's name and at the endpoint",
        "PermanentRedirect" | "TemporaryRedirect" | "AuthorizationHeaderMalformed" => {
            ": the bucket is in another region; look at the endpoint and at the region"
        }
        "RequestTimeTooSkewed" => ": the clock of this machine is wrong",
        _ => "",
    }
}

/// Reads and writes the objects of a place.
#[derive(Clone, Debug)]
pub struct Objects {
    place: Place,
    client: Client,
    /// A request takes no longer, however much it moves.
    within: Duration,
    /// An upload of which nothing leaves for so long has failed.
    stall: Duration,
}

impl Objects {
    /// Those of a place.
    pub fn new(place: Place) -> Result<Self, PlaceError> {
        let client = client(&place, Some(PIECE_TIMEOUT))?;
        Ok(Self {
            place,
            client,
            within: Duration::MAX,
            stall: STALL,
        })
    }

    /// The same for whoever cannot wait: a request that takes longer than `most` has failed.
    #[must_use]
    pub fn within(self, most: Duration) -> Self {
        Self {
            within: most,
            ..self
        }
    }

    /// The place.
    pub fn place(&self) -> &Place {
        &self.place
    }

    /// Reads an object of at most so many bytes; `None` only where the server says that there is no
    /// such object. `now` is the wall clock, as for all that follow.
    pub async fn get(
        &self,
        key: &Key,
        most_bytes: u64,
        now: Time,
    ) -> Result<Option<Bytes>, StorageError> {
        let asked = self.ask(key, most_bytes, time_for(most_bytes), now).await;
        let Some(mut response) = asked.map_err(|why| self.error("read", key, why))? else {
            return Ok(None);
        };
        let read = async {
            let mut body = BytesMut::new();
            while let Some(chunk) = piece(&mut response).await? {
                if (body.len() + chunk.len()) as u64 > most_bytes {
                    return Err(Why::Large(most_bytes));
                }
                body.extend_from_slice(&chunk);
            }
            Ok(Some(body.freeze()))
        };
        read.await.map_err(|why| self.error("read", key, why))
    }

    /// As [`Self::get`], into a file; says how many bytes came.
    pub async fn get_into(
        &self,
        key: &Key,
        file: &mut tokio::fs::File,
        most_bytes: u64,
        now: Time,
    ) -> Result<Option<u64>, StorageError> {
        let asked = self.ask(key, most_bytes, time_for(most_bytes), now).await;
        let Some(mut response) = asked.map_err(|why| self.error("read", key, why))? else {
            return Ok(None);
        };
        let read = async {
            let mut size = 0;
            while let Some(chunk) = piece(&mut response).await? {
                size += chunk.len() as u64;
                if size > most_bytes {
                    return Err(Why::Large(most_bytes));
                }
                file.write_all(&chunk).await.map_err(disk)?;
            }
            file.flush().await.map_err(disk)?;
            Ok(Some(size))
        };
        read.await.map_err(|why| self.error("read", key, why))
    }

    /// What the server says of an object without reading it: its length in bytes, and its mark, which
    /// another content does not have; `None` only where it says that there is no such object.
    pub async fn about(&self, key: &Key, now: Time) -> Result<Option<(u64, String)>, StorageError> {
        let asked = self.ask(key, u64::MAX, ANSWER_TIME, now).await;
        let Some(response) = asked.map_err(|why| self.error("read", key, why))? else {
            return Ok(None);
        };
        let header = |name| {
            response
                .headers()
                .get(name)
                .and_then(|value| value.to_str().ok())
        };
        let (tag, changed) = (header("etag"), header("last-modified"));
        let mark = format!(
            "{} {}",
            tag.unwrap_or_default(),
            changed.unwrap_or_default()
        );
        match response.content_length() {
            Some(length) => Ok(Some((length, mark))),
            None => Err(self.error("read", key, no_length())),
        }
    }

    /// The length of an object in bytes, without reading it; `None` only where the server says that
    /// there is no such object.
    pub async fn length(&self, key: &Key, now: Time) -> Result<Option<u64>, StorageError> {
        let asked = self.ask(key, u64::MAX, ANSWER_TIME, now).await;
        let Some(response) = asked.map_err(|why| self.error("read", key, why))? else {
            return Ok(None);
        };
        let length = response.content_length().map(Some);
        length.ok_or_else(|| self.error("read", key, no_length()))
    }

    /// Writes what lies on this machine, as long and with the SHA-256 that it had, over whatever is there.
    /// What was sent of it is counted in `sent`. An object that is not what it should be is not written.
    pub async fn put_local(
        &self,
        key: &Key,
        local: Local,
        (sum, bytes): (Sum, u64),
        sent: Arc<AtomicU64>,
        now: Time,
    ) -> Result<(), StorageError> {
        let put = async {
            let url = self.place.put_url(key, now, OWN_VALID)?.into_url();
            // Nothing is to be read for as long as it is sent.
            let client = client(&self.place, None).map_err(|why| Why::Broken(why.to_string()))?;
            let body = Made::of(local, (sum, bytes), Arc::clone(&sent));
            let time = time_for(bytes).min(self.within);
            let request = client.put(url).timeout(time);
            let request = request.body(reqwest::Body::wrap(body)).send();
            let replied = tokio::select! {
                biased;
                replied = request => replied,
                () = stalls(&sent, self.stall) => return Err(Why::Broken(stalled(self.stall))),
            };
            match answer(replied).await? {
                Answer::Good(_) => Ok(()),
                Answer::Bad(why) => Err(why),
            }
        };
        put.await.map_err(|why| self.error("write", key, why))
    }

    /// Writes an object, over whatever is there.
    pub async fn put(&self, key: &Key, bytes: Bytes, now: Time) -> Result<(), StorageError> {
        let put = async {
            let url = self.place.put_url(key, now, OWN_VALID)?.into_url();
            let time = time_for(bytes.len() as u64).min(self.within);
            let sent = self.client.put(url).timeout(time).body(bytes).send();
            match answer(sent.await).await? {
                Answer::Good(_) => Ok(()),
                Answer::Bad(why) => Err(why),
            }
        };
        put.await.map_err(|why| self.error("write", key, why))
    }

    /// Deletes an object; one that is not there is deleted already.
    pub async fn delete(&self, key: &Key, now: Time) -> Result<(), StorageError> {
        let delete = async {
            let url = self.place.delete_url(key, now, OWN_VALID)?.into_url();
            let sent = self
                .client
                .delete(url)
                .timeout(ANSWER_TIME.min(self.within))
                .send();
            match answer(sent.await).await? {
                Answer::Bad(why) if !is_no_such_key(&why) => Err(why),
                Answer::Good(_) | Answer::Bad(_) => Ok(()),
            }
        };
        delete.await.map_err(|why| self.error("delete", key, why))
    }

    async fn ask(
        &self,
        key: &Key,
        most: u64,
        time: Duration,
        now: Time,
    ) -> Result<Option<Response>, Why> {
        let url: SignedUrl = self.place.get_url(key, now, OWN_VALID)?;
        let sent = self
            .client
            .get(url.into_url())
            .timeout(time.min(self.within))
            .send();
        match answer(sent.await).await? {
            // What says itself that it is too large is not begun with.
            Answer::Good(response) if response.content_length().is_some_and(|l| l > most) => {
                Err(Why::Large(most))
            }
            Answer::Good(response) => Ok(Some(response)),
            Answer::Bad(why) if is_no_such_key(&why) => Ok(None),
            Answer::Bad(why) => Err(why),
        }
    }

    fn error(&self, verb: &'static str, key: &Key, why: Why) -> StorageError {
        StorageError {
            verb,
            key: key.clone(),
            bucket: self.place.bucket().to_owned(),
            host: self.place.host(),
            why,
        }
    }
}

fn client(place: &Place, read_timeout: Option<Duration>) -> Result<Client, PlaceError> {
    install_crypto();
    let mut builder = Client::builder()
        .user_agent(concat!("haggle/", env!("CARGO_PKG_VERSION")))
        .connect_timeout(CONNECT_TIMEOUT)
        // What is signed is signed for one host.
        .redirect(reqwest::redirect::Policy::none())
        .referer(false)
        .retry(reqwest::retry::never());
    if let Some(most) = read_timeout {
        builder = builder.read_timeout(most);
    }
    if place.is_clear_text() {
        // A proxy would see the signature.
        builder = builder.no_proxy();
    }
    let built = builder.build();
    built.map_err(|e| PlaceError::Setup(root_cause(&e.without_url())))
}

fn no_length() -> Why {
    Why::Broken("the server does not say how long the object is".to_owned())
}

enum Answer {
    Good(Response),
    Bad(Why),
}

/// An answer, and for one that is not good S3's word for it.
async fn answer(sent: reqwest::Result<Response>) -> Result<Answer, Why> {
    let mut response = sent.map_err(failure)?;
    let status = response.status();
    // A part of an object was not asked for.
    if status.is_success() && status != StatusCode::PARTIAL_CONTENT {
        return Ok(Answer::Good(response));
    }
    let mut body = Vec::new();
    while body.len() < ERROR_BYTES_MAX
        && let Ok(Some(chunk)) = response.chunk().await
    {
        body.extend_from_slice(&chunk);
    }
    Ok(Answer::Bad(Why::Refused {
        status: status.as_u16(),
        code: code_of(&body).unwrap_or_default(),
    }))
}

async fn piece(response: &mut Response) -> Result<Option<Bytes>, Why> {
    // The request had left, whatever happened then.
    response
        .chunk()
        .await
        .map_err(|error| match failure(error) {
            Why::Connect(why) => Why::Broken(why),
            other => other,
        })
}

fn failure(error: reqwest::Error) -> Why {
    let error = error.without_url();
    if error.is_connect() || error.is_builder() {
        Why::Connect(root_cause(&error))
    } else if error.is_timeout() {
        Why::Timeout
    } else {
        Why::Broken(root_cause(&error))
    }
}

fn disk(why: std::io::Error) -> Why {
    Why::Disk(why.to_string())
}

fn time_for(bytes: u64) -> Duration {
    // So long is as good as for ever, and no clock overflows.
    let most = Duration::from_hours(30 * 24);
    Duration::from_secs(bytes / SLOWEST).min(most) + ANSWER_TIME
}

/// Not any 404: a bucket that is not there, or a server that is none of S3, says nothing of objects.
fn is_no_such_key(why: &Why) -> bool {
    matches!(why, Why::Refused { status: 404, code } if code == "NoSuchKey")
}

/// The word in `<Error><Code>…</Code>`. It goes into logs, so it must be one.
fn code_of(body: &[u8]) -> Option<String> {
    let text = String::from_utf8_lossy(body);
    let (_, rest) = text.split_once("<Code>")?;
    let (code, _) = rest.split_once("</Code>")?;
    let plain = (1..=64).contains(&code.len()) && code.bytes().all(|b| b.is_ascii_alphanumeric());
    plain.then(|| code.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(status: u16, code: &str) -> Why {
        let code = code.to_owned();
        Why::Refused { status, code }
    }

    #[test]
    fn an_error_says_where_and_what_and_what_would_be_right() {
        let error = |why| StorageError {
            verb: "read",
            key: Key::raw("runs/a/r0/5/control"),
            bucket: "mine".to_owned(),
            host: "s3.example".to_owned(),
            why,
        };
        assert_eq!(
            error(refused(404, "NoSuchBucket")).to_string(),
            "cannot read `runs/a/r0/5/control` in the bucket `mine` at s3.example: the server \
             answers 404 (NoSuchBucket): look at the bucket's name and at the endpoint"
        );
        assert_eq!(
            error(refused(502, "")).why.to_string(),
            "the server answers 502"
        );
    }

    #[test]
    fn only_the_word_of_s3_says_that_an_object_is_not_there() {
        assert!(is_no_such_key(&refused(404, "NoSuchKey")));
        for other in [
            refused(404, ""),
            refused(404, "NoSuchBucket"),
            refused(403, "NoSuchKey"),
            Why::Timeout,
        ] {
            assert!(!is_no_such_key(&other), "{other}");
        }
    }

    #[test]
    fn the_code_is_one_word_or_none() {
        let body = b"<?xml?><Error><Code>NoSuchKey</Code><Message>x</Message></Error>";
        assert_eq!(code_of(body).as_deref(), Some("NoSuchKey"));
        for bad in [
            "",
            "<Code>",
            "<Code></Code>",
            "<Code>a\nb</Code>",
            "<Code>X-Amz-Signature=1</Code>",
            &format!("<Code>{}</Code>", "a".repeat(65)),
        ] {
            assert_eq!(code_of(bad.as_bytes()), None, "{bad}");
        }
        assert_eq!(
            code_of(b"\xff<Code>SlowDown</Code>").as_deref(),
            Some("SlowDown")
        );
    }

    #[test]
    fn what_passes_is_told_from_what_does_not() {
        for passing in [
            Why::Timeout,
            Why::Connect(String::new()),
            Why::Broken(String::new()),
            refused(503, "SlowDown"),
            refused(429, ""),
        ] {
            assert!(passing.is_passing(), "{passing}");
        }
        for lasting in [
            refused(403, "AccessDenied"),
            refused(404, "NoSuchBucket"),
            refused(301, "PermanentRedirect"),
            Why::Large(1),
            Why::Sign(SignError::Clock),
        ] {
            assert!(!lasting.is_passing(), "{lasting}");
        }
    }

    /// A server that takes a request and what its buffers hold, and says nothing.
    #[tokio::test]
    async fn an_upload_of_which_nothing_leaves_is_given_up() {
        use crate::types::job::{SecretRef, Storage};
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let origin = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(async move {
            let mut all = Vec::new();
            while let Ok((stream, _)) = listener.accept().await {
                all.push(stream);
            }
        });
        let storage = Storage {
            endpoint: origin,
            region: "us-east-1".to_owned(),
            bucket: "mine-1".to_owned(),
            prefix: String::new(),
            access_key: SecretRef::Env("A".to_owned()),
            secret_key: SecretRef::Env("S".to_owned()),
        };
        let place = Place::new(&storage, "A".into(), "S".into()).unwrap();
        let mut objects = Objects::new(place).unwrap();
        objects.stall = Duration::from_millis(200);
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("large");
        let bytes = vec![7; 20_000_000];
        std::fs::write(&path, &bytes).unwrap();
        let local = Local::look(&path).unwrap();
        let sent = Arc::new(AtomicU64::new(0));
        let what = (Sum::of(&bytes), bytes.len() as u64);
        let key = Key::raw("a");
        let put = objects.put_local(&key, local, what, Arc::clone(&sent), Time(0));
        let error = put.await.unwrap_err();
        assert_eq!(
            error.why,
            Why::Broken("nothing was sent for 0s, and no answer came".to_owned())
        );
        assert!(error.why.is_passing());
        let sent = sent.load(std::sync::atomic::Ordering::Relaxed);
        assert!((1..what.1).contains(&sent), "{sent}");
    }

    #[test]
    fn a_large_transfer_has_time_and_none_has_for_ever() {
        assert_eq!(time_for(0), ANSWER_TIME);
        assert_eq!(time_for(SLOWEST * 60), ANSWER_TIME + Duration::from_mins(1));
        assert!(time_for(u64::MAX) < Duration::from_hours(31 * 24));
    }
}
