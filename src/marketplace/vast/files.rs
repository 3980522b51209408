//! Logs and copies: what is asked of a machine and comes later.

use std::time::Duration;

use bytes::Bytes;
use serde_json::json;

use super::Vast;
use super::routes::Route;
use super::send::Call;
use crate::marketplace::rental::refused;
use crate::marketplace::sending::shown;
use crate::ports::{CloudCopy, CopyEnd, Outcome, ReadError, RefusedWhy};
use crate::types::ids::InstanceId;

/// How often a log that was asked for is looked for. With the pause between: some 15 seconds, more
/// than the marketplace's own client waits.
const LOG_TRIES: usize = 30;

/// Looks that found nobody, after which a log is given up.
const LOG_FAILURES_MAX: usize = 3;

const LOG_PAUSE: Duration = Duration::from_millis(500);

/// The most of a log that is kept: its end.
const LOG_BYTES_MAX: usize = 4 * 1024 * 1024;

/// How a page, or an error of a store of files, begins; in small letters.
const PAGES: [&str; 3] = ["<!doctype html", "<html", "<?xml"];

impl Vast {
    /// The last lines of an instance's output. The marketplace has the machine put them where an
    /// unguessable address leads; the key is not sent there.
    pub(super) async fn read_logs(&self, id: InstanceId, lines: u32) -> Result<Bytes, ReadError> {
        let body = json!({ "tail": lines.to_string() });
        let answer = self.ask(Call::with(Route::RequestLogs(id), body)).await?;
        let url = answer
            .text("result_url")
            .ok_or_else(|| ReadError::Malformed("no address of the log".to_owned()))?;
        if !url.starts_with("https://") && !url.starts_with("http://") {
            return Err(ReadError::Malformed(
                "the log's address is not one of HTTP".to_owned(),
            ));
        }
        self.redactor.add(url);
        self.await_log(url).await
    }

    /// Looks for a log until it is there.
    async fn await_log(&self, url: &str) -> Result<Bytes, ReadError> {
        let mut failures = 0;
        let mut status = 0;
        for _ in 0..LOG_TRIES {
            match self.transport.fetch(url).await {
                // What stands between may answer with a page of its own, which is no log: an instance
                // would seem to have said nothing.
                Ok(reply) if reply.status == 200 && is_page(&reply.body) => status = reply.status,
                Ok(reply) if reply.status == 200 => return Ok(end_of(reply.body)),
                Ok(reply) => status = reply.status,
                Err(error) => {
                    failures += 1;
                    if failures >= LOG_FAILURES_MAX {
                        return Err(ReadError::Unreachable(shown(&self.redactor, error)));
                    }
                }
            }
            self.clock.sleep_until(self.clock.now() + LOG_PAUSE).await;
        }
        Err(ReadError::Failed {
            status,
            message: "the log did not come".to_owned(),
        })
    }

    /// Begins a copy between two instances, which may be stopped.
    pub(super) async fn begin_copy(&self, from: &CopyEnd, to: &CopyEnd) -> Outcome<()> {
        for end in [from, to] {
            if end.instance.0 == 0 {
                return refused(RefusedWhy::Invalid, "there is no instance 0");
            }
        }
        if !is_copyable(&from.path) || !is_copyable(&to.path) {
            return refused(
                RefusedWhy::Invalid,
                "a copy needs a folder at each end, and never / or /root",
            );
        }
        let body = json!({
            "client_id": "me",
            "src_id": from.instance.0.to_string(),
            "dst_id": to.instance.0.to_string(),
            "src_path": from.path,
            "dst_path": to.path,
        });
        self.act(Call::with(Route::Copy, body)).await
    }

    /// Begins a copy to or from cloud storage. The documented body can repeat the account's key;
    /// it is left out, for the copy runs on somebody's machine.
    pub(super) async fn begin_cloud_copy(&self, copy: &CloudCopy) -> Outcome<()> {
        let given = [&copy.connection, &copy.source, &copy.destination];
        if copy.instance.0 == 0 || given.iter().any(|text| text.trim().is_empty()) {
            return refused(
                RefusedWhy::Invalid,
                "a copy needs an instance, a connection, a source and a destination",
            );
        }
        let inside = if copy.upload {
            &copy.source
        } else {
            &copy.destination
        };
        if !is_copyable(inside) {
            return refused(RefusedWhy::Invalid, "never copy / or /root");
        }
        let transfer = if copy.upload {
            "Instance To Cloud"
        } else {
            "Cloud To Instance"
        };
        let body = json!({
            "instance_id": copy.instance.0,
            "src": copy.source,
            "dst": copy.destination,
            "selected": copy.connection,
            "transfer": transfer,
            "flags": [],
        });
        self.act(Call::with(Route::CloudCopy, body)).await
    }
}

/// Whether a folder of an instance may be copied: the marketplace documents that a copy onto `/` or
/// `/root` breaks it.
fn is_copyable(path: &str) -> bool {
    let segments: Vec<&str> = path
        .trim()
        .split('/')
        .filter(|segment| !segment.is_empty() && *segment != ".")
        .collect();
    !segments.is_empty() && segments != ["root"] && !segments.contains(&"..")
}

/// Whether it is a page for people, or an error, in place of a log.
fn is_page(body: &[u8]) -> bool {
    let begins = |page: &&str| {
        let text = body.trim_ascii_start();
        text.get(..page.len())
            .is_some_and(|start| start.eq_ignore_ascii_case(page.as_bytes()))
    };
    PAGES.iter().any(begins)
}

/// The end of a log that is too long, from the beginning of a line.
fn end_of(log: Bytes) -> Bytes {
    let Some(from) = log.len().checked_sub(LOG_BYTES_MAX) else {
        return log;
    };
    let line = log[from..].iter().position(|&byte| byte == b'\n');
    log.slice(from + line.map_or(0, |at| at + 1)..)
}
