//! What the tests of this module share: a clock whose sleeping moves it on, and a transport that
//! plays a script.

use std::collections::VecDeque;
use std::sync::Mutex;
use std::sync::atomic::{AtomicI64, Ordering};

use async_trait::async_trait;
use bytes::Bytes;

use crate::ports::{Clock, Reply, Request, Transport, TransportError};
use crate::types::time::{Mono, Time};

/// 2026-11-24 00:00 UTC.
const START: i64 = 1_795_478_400_000;

/// A clock that stands still but for sleeping.
#[derive(Default)]
pub(crate) struct SimClock(AtomicI64);

#[async_trait]
impl Clock for SimClock {
    fn now(&self) -> Time {
        Time(START + self.0.load(Ordering::SeqCst))
    }
    fn monotonic(&self) -> Mono {
        Mono(self.0.load(Ordering::SeqCst) as u64)
    }
    async fn sleep_until(&self, deadline: Time) {
        self.0.fetch_max(deadline.0 - START, Ordering::SeqCst);
    }
}

/// Runs a future that never really waits.
pub(crate) fn run<F: Future>(future: F) -> F::Output {
    tokio::runtime::Builder::new_current_thread()
        .build()
        .expect("a runtime")
        .block_on(future)
}

/// What the script says next.
pub(crate) type Line = Result<(u16, String), TransportError>;

type Headers = Vec<(String, String)>;

/// A transport that answers from a script and keeps what was asked.
#[derive(Default)]
pub(crate) struct Scripted {
    lines: Mutex<VecDeque<(Line, Headers)>>,
    seen: Mutex<Vec<Request>>,
    /// What addresses outside the marketplace answer.
    elsewhere: Mutex<VecDeque<Line>>,
    fetched: Mutex<Vec<String>>,
}

impl Scripted {
    /// Adds an answer.
    pub(crate) fn reply(&self, status: u16, body: impl ToString) -> &Self {
        self.line(Ok((status, body.to_string())))
    }

    /// Adds a failure.
    pub(crate) fn fail(&self, error: TransportError) -> &Self {
        self.line(Err(error))
    }

    pub(crate) fn line(&self, line: Line) -> &Self {
        self.lines.lock().unwrap().push_back((line, Vec::new()));
        self
    }

    /// Adds an answer with a header.
    pub(crate) fn headed(&self, status: u16, header: (&str, &str), body: impl ToString) -> &Self {
        let headers = vec![(header.0.to_owned(), header.1.to_owned())];
        let line = Ok((status, body.to_string()));
        self.lines.lock().unwrap().push_back((line, headers));
        self
    }

    /// Adds what an address outside the marketplace answers.
    pub(crate) fn elsewhere(&self, line: Line) -> &Self {
        self.elsewhere.lock().unwrap().push_back(line);
        self
    }

    /// The addresses outside the marketplace that were read.
    pub(crate) fn fetched(&self) -> Vec<String> {
        std::mem::take(&mut *self.fetched.lock().unwrap())
    }

    /// The bodies of the requests since the last call; null for none.
    pub(crate) fn bodies(&self) -> Vec<serde_json::Value> {
        let body = |request: &Request| {
            let bytes = request.body.as_deref().unwrap_or(b"null");
            serde_json::from_slice(bytes).expect("a JSON body")
        };
        self.take().iter().map(body).collect()
    }

    /// The requests since the last call.
    pub(crate) fn take(&self) -> Vec<Request> {
        std::mem::take(&mut *self.seen.lock().unwrap())
    }

    /// The requests since the last call, as `GET /path?x=y` without the token.
    pub(crate) fn asked(&self) -> Vec<String> {
        self.take()
            .iter()
            .map(|request| {
                let query: Vec<String> = request
                    .query
                    .iter()
                    .filter(|(name, _)| name != "api_token")
                    .map(|(name, value)| format!("{name}={value}"))
                    .collect();
                let mark = if query.is_empty() { "" } else { "?" };
                format!("{request:?}{mark}{}", query.join("&"))
            })
            .collect()
    }

    /// Answers that nobody asked for.
    pub(crate) fn left(&self) -> usize {
        self.lines.lock().unwrap().len()
    }
}

#[async_trait]
impl Transport for Scripted {
    async fn send(&self, request: Request) -> Result<Reply, TransportError> {
        let asked = format!("{request:?}");
        self.seen.lock().unwrap().push(request);
        let line = self.lines.lock().unwrap().pop_front();
        let (line, headers) = line.unwrap_or_else(|| panic!("no line in the script for {asked}"));
        let (status, body) = line?;
        Ok(Reply {
            status,
            headers,
            body: Bytes::from(body),
        })
    }

    async fn fetch(&self, url: &str) -> Result<Reply, TransportError> {
        self.fetched.lock().unwrap().push(url.to_owned());
        let line = self.elsewhere.lock().unwrap().pop_front();
        let (status, body) = line.unwrap_or_else(|| panic!("nothing is said to be at {url}"))?;
        Ok(Reply {
            status,
            headers: Vec::new(),
            body: Bytes::from(body),
        })
    }
}
