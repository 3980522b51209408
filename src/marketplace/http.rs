//! The real transport: one HTTP request, one reply.
//!
//! The token travels in the query, so nothing here ever shows a URL: errors of the HTTP library are
//! stripped of theirs and reduced to a word.

use std::net::IpAddr;
use std::time::Duration;

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use reqwest::{Client, Url};

use crate::net::{install_crypto, root_cause};
use crate::ports::{Method, Reply, Request, Transport, TransportError};

/// The largest body that is read: a hundred times a large search, and no danger to the memory.
const BODY_BYTES_MAX: usize = 32 * 1024 * 1024;

/// The longest time to make a connection. Shorter than the total, so that an unreachable host is
/// told from a silent one: only the former proves that the request never left.
const CONNECT_TIMEOUT_MAX: Duration = Duration::from_secs(10);

/// Why a transport cannot be made. The texts are for the user and hold no URL.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HttpError {
    /// It is not a URL.
    #[error("the base URL is not a URL: {0}")]
    NotAUrl(String),
    /// Its scheme is neither http nor https.
    #[error("the base URL must begin with https:// (or http:// for this machine), not {0}:")]
    Scheme(String),
    /// It holds a user, a password, a query or a fragment.
    #[error(
        "the base URL must hold no credentials, no query and no fragment: the token is configured apart"
    )]
    NotPlain,
    /// The token would travel unencrypted.
    #[error(
        "the base URL is http:// to another machine: the token would travel in clear; use https://"
    )]
    ClearText,
    /// The HTTP library cannot be set up, as where the system has no root certificates.
    #[error("HTTP cannot be set up: {0}")]
    Setup(String),
}

/// Sends requests under a base URL.
pub struct HttpTransport {
    client: Client,
    base: Url,
    timeout: Duration,
}

impl std::fmt::Debug for HttpTransport {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("HttpTransport")
            .field("base", &self.base.as_str())
            .finish_non_exhaustive()
    }
}

impl HttpTransport {
    /// A transport to a base URL, whose replies come within `timeout` or not at all. Plain http is
    /// taken to this machine only.
    pub fn new(base_url: &str, timeout: Duration) -> Result<Self, HttpError> {
        Self::build(base_url, timeout, false)
    }

    /// As [`Self::new`], but takes plain http to any machine. The token then travels in clear.
    pub fn allowing_clear_text(base_url: &str, timeout: Duration) -> Result<Self, HttpError> {
        Self::build(base_url, timeout, true)
    }

    fn build(base_url: &str, timeout: Duration, clear_text: bool) -> Result<Self, HttpError> {
        install_crypto();
        let base = plain_base(base_url, clear_text)?;
        let mut builder = Client::builder()
            .user_agent(concat!("haggle/", env!("CARGO_PKG_VERSION")))
            .timeout(timeout)
            .connect_timeout(timeout.min(CONNECT_TIMEOUT_MAX))
            // A redirect followed would repeat a mutation, or carry the token elsewhere.
            .redirect(reqwest::redirect::Policy::none())
            .referer(false)
            .retry(reqwest::retry::never());
        if base.scheme() == "http" {
            // A proxy would see the token.
            builder = builder.no_proxy();
        }
        let client = builder
            .build()
            .map_err(|e| HttpError::Setup(root_cause(&e.without_url())))?;
        Ok(Self {
            client,
            base,
            timeout,
        })
    }

    fn url(&self, request: &Request) -> Result<Url, TransportError> {
        let text = format!(
            "{}{}",
            self.base.as_str().trim_end_matches('/'),
            request.path
        );
        // A path that cannot be a URL was never sent.
        let mut url = Url::parse(&text)
            .map_err(|_| TransportError::Connect("the path is not one of a URL".to_owned()))?;
        if !request.query.is_empty() {
            url.query_pairs_mut().extend_pairs(&request.query);
        }
        Ok(url)
    }

    fn failure(&self, error: reqwest::Error) -> TransportError {
        let error = error.without_url();
        // A timeout while connecting is both; the request had not left.
        if error.is_connect() || error.is_builder() {
            TransportError::Connect(root_cause(&error))
        } else if error.is_timeout() {
            TransportError::Timeout(self.timeout)
        } else {
            TransportError::Broken(root_cause(&error))
        }
    }
}

#[async_trait]
impl Transport for HttpTransport {
    async fn send(&self, request: Request) -> Result<Reply, TransportError> {
        let url = self.url(&request)?;
        let method = match request.method {
            Method::Get => reqwest::Method::GET,
            Method::Post => reqwest::Method::POST,
            Method::Put => reqwest::Method::PUT,
            Method::Delete => reqwest::Method::DELETE,
        };
        let mut builder = self.client.request(method, url);
        if let Some(token) = &request.bearer {
            builder = builder.bearer_auth(token);
        }
        if let Some(body) = request.body {
            builder = builder
                .header(reqwest::header::CONTENT_TYPE, "application/json")
                .body(body);
        }
        let response = builder.send().await.map_err(|e| self.failure(e))?;
        self.reply_of(response).await
    }

    async fn fetch(&self, url: &str) -> Result<Reply, TransportError> {
        let url = self.elsewhere(url)?;
        // No header of ours but the client's name: the credential is the marketplace's alone.
        let response = self
            .client
            .get(url)
            .send()
            .await
            .map_err(|e| self.failure(e))?;
        self.reply_of(response).await
    }
}

impl HttpTransport {
    async fn reply_of(&self, mut response: reqwest::Response) -> Result<Reply, TransportError> {
        let status = response.status().as_u16();
        let headers = response
            .headers()
            .iter()
            .filter_map(|(name, value)| {
                Some((name.as_str().to_owned(), value.to_str().ok()?.to_owned()))
            })
            .collect();
        let mut body = BytesMut::new();
        while let Some(chunk) = response.chunk().await.map_err(|e| self.failure_after(e))? {
            if body.len() + chunk.len() > BODY_BYTES_MAX {
                return Err(TransportError::Broken(format!(
                    "the reply is larger than {} MB",
                    BODY_BYTES_MAX / (1024 * 1024)
                )));
            }
            body.extend_from_slice(&chunk);
        }
        Ok(Reply {
            status,
            headers,
            body: Bytes::from(body),
        })
    }

    /// An address that the marketplace named, where it may be read: one of https, or one of the
    /// marketplace's own host where that is spoken to in clear anyway.
    fn elsewhere(&self, url: &str) -> Result<Url, TransportError> {
        let refused = |why: &str| TransportError::Connect(why.to_owned());
        let url = Url::parse(url).map_err(|_| refused("the address is not a URL"))?;
        if !url.username().is_empty() || url.password().is_some() {
            return Err(refused("the address holds credentials"));
        }
        let own = self.base.scheme() == "http"
            && url.scheme() == "http"
            && url.host_str() == self.base.host_str()
            && url.port_or_known_default() == self.base.port_or_known_default();
        // A marketplace elsewhere has no business with what only this machine can reach.
        if url.scheme() == "https" && !is_loopback(&self.base) && is_inside(&url) {
            return Err(refused("the address is not one of the internet"));
        }
        if url.scheme() == "https" || own {
            Ok(url)
        } else {
            Err(refused(
                "the address is neither of https nor of the marketplace",
            ))
        }
    }

    /// A failure while the reply was read: whatever it was, the request had left.
    fn failure_after(&self, error: reqwest::Error) -> TransportError {
        match self.failure(error) {
            TransportError::Connect(why) => TransportError::Broken(why),
            other => other,
        }
    }
}

fn plain_base(base_url: &str, clear_text: bool) -> Result<Url, HttpError> {
    let base = Url::parse(base_url.trim()).map_err(|e| HttpError::NotAUrl(e.to_string()))?;
    if !matches!(base.scheme(), "http" | "https") {
        return Err(HttpError::Scheme(base.scheme().to_owned()));
    }
    let plain = base.username().is_empty()
        && base.password().is_none()
        && base.query().is_none()
        && base.fragment().is_none();
    if !plain {
        return Err(HttpError::NotPlain);
    }
    if base.scheme() == "http" && !clear_text && !is_loopback(&base) {
        return Err(HttpError::ClearText);
    }
    Ok(base)
}

/// Scheme, host and port of a base URL on this machine; `None` for any other.
pub fn loopback_origin(base_url: &str) -> Option<String> {
    let base = plain_base(base_url, false).ok()?;
    is_loopback(&base).then(|| base.origin().ascii_serialization())
}

fn is_loopback(url: &Url) -> bool {
    let host = url.host_str().unwrap_or_default();
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost"
        || bare
            .parse::<std::net::IpAddr>()
            .is_ok_and(|address| address.is_loopback())
}

/// Whether a URL's host is of this machine or its network by what it says: such an address, or a
/// name that only they know. What other names resolve to is the certificate's business.
fn is_inside(url: &Url) -> bool {
    let host = url.host_str().unwrap_or_default();
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    match bare.parse::<IpAddr>().map(|address| address.to_canonical()) {
        Ok(IpAddr::V4(address)) => {
            let [first, second, ..] = address.octets();
            // The last one is what carriers share among their customers.
            address.is_loopback()
                || address.is_private()
                || address.is_link_local()
                || address.is_broadcast()
                || address.is_multicast()
                || first == 0
                || (first == 100 && (64..128).contains(&second))
        }
        Ok(IpAddr::V6(address)) => {
            address.is_loopback()
                || address.is_unspecified()
                || address.is_multicast()
                || address.is_unique_local()
                || address.is_unicast_link_local()
        }
        Err(_) => {
            let name = host.trim_end_matches('.');
            !name.contains('.')
                || [".localhost", ".local", ".internal"]
                    .iter()
                    .any(|ending| name.ends_with(ending))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    const CANARY: &str = "at_canary0123456789";

    fn request(method: Method) -> Request {
        Request {
            method,
            path: "/instances".to_owned(),
            query: vec![("api_token".to_owned(), CANARY.to_owned())],
            bearer: None,
            body: (method == Method::Post).then(|| Bytes::from_static(b"{}")),
        }
    }

    #[test]
    fn takes_only_safe_base_urls() {
        let new = |url: &str| HttpTransport::new(url, Duration::from_secs(1)).map(|_| ());
        assert_eq!(new("http://127.0.0.1:8080/vastai/"), Ok(()));
        assert_eq!(new("http://localhost:8080"), Ok(()));
        assert_eq!(new("http://[::1]:8080"), Ok(()));
        assert_eq!(new("http://example.com/vastai"), Err(HttpError::ClearText));
        assert_eq!(new("https://me:pw@example.com/"), Err(HttpError::NotPlain));
        assert_eq!(
            new("https://example.com/?api_token=x"),
            Err(HttpError::NotPlain)
        );
        assert_eq!(
            new("ftp://example.com"),
            Err(HttpError::Scheme("ftp".to_owned()))
        );
        assert!(matches!(new("not a url"), Err(HttpError::NotAUrl(_))));
        assert!(
            HttpTransport::allowing_clear_text("http://example.com", Duration::from_secs(1))
                .is_ok()
        );
    }

    #[tokio::test]
    async fn tells_the_ways_of_failing_apart_without_the_token() {
        // Nobody listens.
        let free = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = free.local_addr().unwrap();
        drop(free);
        let transport = HttpTransport::new(&format!("http://{address}"), Duration::from_secs(5));
        let error = transport
            .unwrap()
            .send(request(Method::Get))
            .await
            .unwrap_err();
        assert!(matches!(error, TransportError::Connect(_)), "{error}");
        assert!(!format!("{error} {error:?}").contains(CANARY));

        // One that answers the first connection with silence, the second with a broken reply.
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let server = tokio::spawn(async move {
            let (silent, _) = listener.accept().await.unwrap();
            let (mut broken, _) = listener.accept().await.unwrap();
            let mut buffer = [0; 4096];
            let _ = broken.read(&mut buffer).await;
            broken
                .write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhalf")
                .await
                .unwrap();
            drop(broken);
            silent
        });
        let transport =
            HttpTransport::new(&format!("http://{address}"), Duration::from_millis(150)).unwrap();
        let error = transport.send(request(Method::Post)).await.unwrap_err();
        assert!(matches!(error, TransportError::Timeout(_)), "{error}");
        let error = transport.send(request(Method::Post)).await.unwrap_err();
        assert!(matches!(error, TransportError::Broken(_)), "{error}");
        assert!(!format!("{error} {error:?}").contains(CANARY));
        server.await.unwrap();
    }

    #[tokio::test]
    async fn follows_no_redirect_and_encodes_the_query() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let server = tokio::spawn(async move {
            let (mut socket, _) = listener.accept().await.unwrap();
            let mut buffer = vec![0; 4096];
            let read = socket.read(&mut buffer).await.unwrap();
            socket
                .write_all(
                    b"HTTP/1.1 308 Moved\r\nlocation: http://127.0.0.1:1/\r\nretry-after: 3\r\ncontent-length: 0\r\nconnection: close\r\n\r\n",
                )
                .await
                .unwrap();
            String::from_utf8_lossy(&buffer[..read]).into_owned()
        });
        let base = format!("http://{address}/vastai/");
        let transport = HttpTransport::new(&base, Duration::from_secs(5)).unwrap();
        let mut sent = request(Method::Get);
        sent.query.push(("q".to_owned(), "{\"a b\":1}".to_owned()));
        let reply = transport.send(sent).await.unwrap();
        assert_eq!(reply.status, 308);
        assert_eq!(reply.header("retry-after"), Some("3"));
        let seen = server.await.unwrap();
        assert!(
            seen.starts_with(
                "GET /vastai/instances?api_token=at_canary0123456789&q=%7B%22a+b%22%3A1%7D HTTP/1.1"
            ),
            "{seen}"
        );
    }

    #[tokio::test]
    async fn fetches_what_the_marketplace_names_without_the_token_and_nothing_else() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let server = tokio::spawn(async move {
            let (mut socket, _) = listener.accept().await.unwrap();
            let mut buffer = vec![0; 4096];
            let read = socket.read(&mut buffer).await.unwrap();
            socket
                .write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\nconnection: close\r\n\r\nlog")
                .await
                .unwrap();
            String::from_utf8_lossy(&buffer[..read]).into_owned()
        });
        let base = format!("http://{address}");
        let transport = HttpTransport::new(&base, Duration::from_secs(5)).unwrap();
        for refused in [
            "file:///etc/passwd".to_owned(),
            "ftp://example.com/x".to_owned(),
            "http://example.com/x".to_owned(),
            format!("http://127.0.0.1:{}/x", address.port() ^ 1),
            format!("http://me:secret@{address}/x"),
            "not a url".to_owned(),
        ] {
            let error = transport.fetch(&refused).await.unwrap_err();
            assert!(matches!(error, TransportError::Connect(_)), "{refused}");
            assert!(!error.to_string().contains("secret"));
        }
        let reply = transport
            .fetch(&format!("{base}/results/7?s=1"))
            .await
            .unwrap();
        assert_eq!((reply.status, &reply.body[..]), (200, &b"log"[..]));
        let seen = server.await.unwrap().to_ascii_lowercase();
        assert!(seen.starts_with("get /results/7?s=1 "), "{seen}");
        assert!(!seen.contains("authorization"), "{seen}");
        // Of a marketplace that is spoken to in https, only https.
        let secure = HttpTransport::new("https://example.com", Duration::from_secs(1)).unwrap();
        assert!(secure.elsewhere("https://logs.example/x").is_ok());
        assert!(secure.elsewhere("http://example.com/x").is_err());
        assert!(secure.elsewhere("https://93.184.216.34/x").is_ok());
        for inside in [
            "localhost",
            "LOCALHOST.",
            "router",
            "metadata.google.internal",
            "127.0.0.1",
            "2130706433",
            "169.254.169.254",
            "10.0.0.1",
            "192.168.1.1",
            "100.100.1.1",
            "0.0.0.0",
            "[::1]",
            "[::ffff:169.254.169.254]",
            "[fd00::1]",
            "[fe80::1]",
        ] {
            let error = secure.elsewhere(&format!("https://{inside}/x"));
            assert!(error.is_err(), "{inside}");
        }
    }
}
