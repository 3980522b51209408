//! Where a heartbeat is read: an address, or a file.

use std::io::Read as _;
use std::path::PathBuf;
use std::time::Duration;

use crate::cli::failure::{Failure, OrFail};
use crate::cli::wish::daemon_running;
use crate::daemon::heartbeat::{HEARTBEAT_BYTES_MAX, Heartbeat, note_guarded};
use crate::marketplace::http::HttpTransport;
use crate::ports::{Method, Request, Transport};

/// Longest wait for an answer, whatever the interval.
const TIMEOUT_MAX: Duration = Duration::from_secs(10);

/// Where a heartbeat is read.
#[derive(Debug)]
pub(super) enum Source {
    File(PathBuf),
    Http(HttpTransport),
}

impl Source {
    /// From what the user named: what begins like a URL is one, else it is a file.
    pub(super) fn new(named: &str, every: Duration) -> Result<Self, Failure> {
        let named = named.trim();
        if named.is_empty() {
            return Err(Failure::mendable("--heartbeat names nothing").hint(HINT));
        }
        let Some((_, rest)) = named.split_once("://") else {
            return Ok(Self::File(named.into()));
        };
        if rest.is_empty() || rest.starts_with('/') {
            return Err(
                Failure::mendable("--heartbeat is an address without a machine").hint(HINT),
            );
        }
        // What is served beside it is never meant.
        let url = match rest.split_once('/') {
            None => format!("{named}/heartbeat"),
            Some((_, "")) => format!("{named}heartbeat"),
            Some(_) => named.to_owned(),
        };
        // There is nothing secret in a heartbeat, so it may come in clear.
        let timeout = every.clamp(Duration::from_secs(1), TIMEOUT_MAX);
        HttpTransport::allowing_clear_text(&url, timeout)
            .map(Self::Http)
            .or_mendable("--heartbeat is not an address that can be asked")
            .map_err(|failure| failure.hint(HINT))
    }

    /// Whether the process that wrote the file has surely ended: it was on this machine, and no
    /// longer holds the lock of its database. For a moment this holds the lock itself, so it is not
    /// asked at every look.
    pub(super) fn process_has_ended(&self) -> bool {
        let Some(database) = self.database() else {
            return false;
        };
        // Without a lock's file it was written elsewhere, or never by a daemon.
        let lock = PathBuf::from(format!("{}.lock", database.display()));
        lock.is_file() && !daemon_running(&database)
    }

    /// The database beside which the heartbeat's file lies, where it has the name that a daemon gives it.
    fn database(&self) -> Option<PathBuf> {
        let Self::File(path) = self else {
            return None;
        };
        let name = path.to_string_lossy();
        name.strip_suffix(".heartbeat").map(PathBuf::from)
    }

    /// The heartbeat, or in a few words why there is none.
    pub(super) async fn read(&self) -> Result<Heartbeat, String> {
        match self {
            Self::File(path) => {
                let bytes =
                    read_file(path).map_err(|error| format!("{}: {error}", path.display()))?;
                // Of what is served the daemon notes it by itself.
                if let Some(database) = self.database() {
                    note_guarded(&database);
                }
                Heartbeat::read(&bytes).map_err(|why| format!("{}: {why}", path.display()))
            }
            Self::Http(transport) => {
                let request = Request {
                    method: Method::Get,
                    path: String::new(),
                    query: Vec::new(),
                    bearer: None,
                    body: None,
                };
                let reply = transport.send(request).await;
                let reply = reply.map_err(|error| error.to_string())?;
                if reply.status == 200 {
                    Heartbeat::read(&reply.body)
                } else {
                    Err(format!("the address answers {}", reply.status))
                }
            }
        }
    }
}

const HINT: &str = "name what the daemon serves, such as http://127.0.0.1:9464/heartbeat, or the \
                    file beside its database, haggle.db.heartbeat";

fn read_file(path: &std::path::Path) -> std::io::Result<Vec<u8>> {
    // What is no file could wait for ever.
    if !std::fs::metadata(path)?.is_file() {
        return Err(std::io::Error::other("it is not a file"));
    }
    let mut bytes = Vec::new();
    let most = HEARTBEAT_BYTES_MAX as u64 + 1;
    std::fs::File::open(path)?
        .take(most)
        .read_to_end(&mut bytes)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(text: &str) -> Result<Source, Failure> {
        Source::new(text, Duration::from_secs(30))
    }

    #[test]
    fn an_address_without_a_path_means_the_heartbeat() {
        for text in [
            "http://box:9464",
            "http://box:9464/",
            "https://box/heartbeat",
        ] {
            let source = format!("{:?}", named(text).unwrap());
            assert!(source.contains("/heartbeat\""), "{source}");
        }
        assert!(matches!(named("haggle.db.heartbeat"), Ok(Source::File(_))));
    }

    #[test]
    fn what_cannot_be_asked_is_told_without_repeating_a_password() {
        for text in [
            "",
            "ftp://box/heartbeat",
            "http://",
            "http://me:hunter2@box/heartbeat",
        ] {
            let failure = named(text).unwrap_err().to_string();
            assert!(failure.contains("9464/heartbeat"), "{failure}");
            assert!(!failure.contains("hunter2"), "{failure}");
        }
    }

    #[tokio::test]
    async fn what_is_no_file_is_not_waited_for() {
        let directory = tempfile::tempdir().unwrap();
        for path in [
            directory.path().to_path_buf(),
            directory.path().join("none"),
        ] {
            let source = named(path.to_str().unwrap()).unwrap();
            assert!(source.read().await.is_err());
        }
    }
}
