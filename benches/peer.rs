//! Fetching and reading 3,000 offers over HTTP on loopback: haggle's transport and rows against the
//! official command line of the marketplace, in one run.
//!
//! `VASTAI_CLI=PATH cargo bench --bench peer`, where PATH is the installed `vastai` 1.9.1. What
//! the command line needs to start at all is measured apart, for a fair comparison.

#![allow(clippy::disallowed_methods, clippy::print_stdout)] // A benchmark measures and prints.

mod support;

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use bytes::Bytes;
use haggle::marketplace::http::HttpTransport;
use haggle::marketplace::rows::{GpuNames, OfferRow, offer, search_rows};
use haggle::ports::{Method, Request, Transport};
use haggle::types::offer::Market;

const OFFERS: u64 = 3000;
const ROUNDS: usize = 7;

/// Answers every request with the same body.
fn serve(listener: TcpListener, body: String) {
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let _ = answer(stream, &body);
        }
    });
}

fn answer(mut stream: TcpStream, body: &str) -> std::io::Result<()> {
    let mut head = Vec::new();
    let mut piece = [0; 4096];
    // Requests are small; one that has its blank line has its few bytes of body close behind.
    while !head.windows(4).any(|bytes| bytes == b"\r\n\r\n") {
        let read = stream.read(&mut piece)?;
        if read == 0 {
            return Ok(());
        }
        head.extend_from_slice(&piece[..read]);
    }
    let text = String::from_utf8_lossy(&head).to_ascii_lowercase();
    let length = text
        .split("content-length:")
        .nth(1)
        .and_then(|rest| rest.split("\r\n").next()?.trim().parse::<usize>().ok());
    let begun = text.find("\r\n\r\n").map_or(0, |at| at + 4);
    let mut left = length.unwrap_or(0).saturating_sub(head.len() - begun);
    while left > 0 {
        left = left.saturating_sub(stream.read(&mut piece)?.max(1));
    }
    let user = text.starts_with("get") && text.contains("/users/");
    let body = if user {
        "{\"id\":1,\"host_agreement_accepted\":false}"
    } else {
        body
    };
    write!(
        stream,
        "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    )
}

fn fetch(runtime: &tokio::runtime::Runtime, transport: &HttpTransport) -> usize {
    let request = Request {
        method: Method::Post,
        path: "/api/v0/bundles/".to_owned(),
        query: Vec::new(),
        bearer: Some("key".to_owned()),
        body: Some(Bytes::from_static(b"{}")),
    };
    let reply = runtime.block_on(transport.send(request)).expect("a reply");
    let text = std::str::from_utf8(&reply.body).expect("UTF-8");
    let mut names = GpuNames::default();
    let found = search_rows(text).expect("the body is JSON");
    let offers = found.rows.iter().map(|json| {
        let row = OfferRow::parse(json.get()).expect("a row");
        offer(&row, Market::OnDemand, &mut names).expect("an offer")
    });
    offers.collect::<Vec<_>>().len()
}

fn official(program: &str, base: &str, home: &std::path::Path, args: &[&str]) -> Duration {
    let begun = Instant::now();
    let output = Command::new(program)
        .args(args)
        .env_clear()
        .env("PATH", std::env::var("PATH").unwrap_or_default())
        .env("HOME", home)
        .env("VAST_URL", base)
        .env("VAST_API_KEY", "key")
        .env("VASTAI_NO_UPDATE_CHECK", "1")
        .stdin(Stdio::null())
        .output()
        .expect("the official command line runs");
    let took = begun.elapsed();
    if args.contains(&"--raw") {
        let rows = serde_json::from_slice::<serde_json::Value>(&output.stdout)
            .ok()
            .and_then(|rows| rows.as_array().map(Vec::len));
        assert_eq!(
            rows,
            Some(OFFERS as usize),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
    }
    took
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort();
    times[times.len() / 2]
}

fn main() {
    let body = format!(r#"{{"offers":[{}]}}"#, support::rows(OFFERS));
    let bytes = body.len();
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let base = format!("http://{}", listener.local_addr().expect("an address"));
    serve(listener, body);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    let transport = HttpTransport::new(&base, Duration::from_secs(10)).expect("a transport");
    let ours = median(
        (0..ROUNDS)
            .map(|_| {
                let begun = Instant::now();
                assert_eq!(fetch(&runtime, &transport) as u64, OFFERS);
                begun.elapsed()
            })
            .collect(),
    );
    println!("{OFFERS} offers, {bytes} bytes; medians of {ROUNDS}");
    println!("haggle: {:.1} ms", ours.as_secs_f64() * 1e3);
    let Ok(program) = std::env::var("VASTAI_CLI") else {
        println!("VASTAI_CLI is not set: the official command line is skipped");
        return;
    };
    let home = tempfile::tempdir().expect("a home");
    let run = |args: &[&str]| {
        // The first run fills its caches.
        official(&program, &base, home.path(), args);
        median(
            (0..ROUNDS)
                .map(|_| official(&program, &base, home.path(), args))
                .collect(),
        )
    };
    let start = run(&["search", "offers", "--help"]);
    let whole = run(&["search", "offers", "--raw"]);
    let work = whole.saturating_sub(start);
    println!(
        "official: {:.0} ms, of which {:.0} ms to start; {:.0} ms of work",
        whole.as_secs_f64() * 1e3,
        start.as_secs_f64() * 1e3,
        work.as_secs_f64() * 1e3
    );
    println!(
        "ratio: {:.0} as a program, {:.0} without its start",
        whole.as_secs_f64() / ours.as_secs_f64(),
        work.as_secs_f64() / ours.as_secs_f64()
    );
}
