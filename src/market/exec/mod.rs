//! Instances as real processes on this machine, for trying jobs from end to end.
//!
//! An instance is a process group under `/bin/sh` in a folder of its own. It begins when its
//! container does, is killed without a warning when its contract is stopped or outbid, keeps its
//! folder until it is destroyed, and begins again in it. Nothing is contained: the job's commands
//! run as whoever runs the market, with all that they may do here.

mod process;

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use super::containers::{Copied, Hosted};
use super::router::MarketServer;
use process::Process;

/// How often it is looked for what is to begin or to end.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// Where instances run.
#[derive(Clone, Debug)]
pub struct Exec {
    /// A folder of it is each instance's.
    dir: PathBuf,
    /// Under what the market is reached from here, without a slash at its end.
    origin: String,
}

/// An instance's folder, and what runs in it.
struct Room {
    path: PathBuf,
    running: Option<(u64, Process)>,
    /// How much of its log was read.
    read: u64,
}

impl Exec {
    /// Instances run in folders of `dir`, which is made where it is not there. From inside, the
    /// market is reached under `origin`.
    ///
    /// # Errors
    /// Where the directory cannot be made, or is not empty: what is in it would be taken for the
    /// disks of instances.
    pub fn new(dir: &Path, origin: String) -> io::Result<Self> {
        std::fs::create_dir_all(dir)?;
        if std::fs::read_dir(dir)?.next().is_some() {
            return Err(io::Error::new(
                io::ErrorKind::AlreadyExists,
                "it is not empty",
            ));
        }
        let dir = dir.canonicalize()?;
        Ok(Self { dir, origin })
    }

    /// Runs what the market's containers are to run, until the server ends; then everything is
    /// killed.
    pub(super) async fn run(self, server: Arc<MarketServer>, mut ending: watch::Receiver<bool>) {
        server.with_market(super::Market::hosts_for_real);
        let mut rooms: BTreeMap<u64, Room> = BTreeMap::new();
        loop {
            let (hosted, copies) =
                server.with_market(|market| (market.hosted(), market.take_copies()));
            self.follow(&server, &mut rooms, hosted);
            for copy in copies {
                if let Err(error) = self.copies(&copy) {
                    tracing::warn!(%error, ?copy, "a copy between instances failed");
                }
            }
            let ended = tokio::time::timeout(LOOK_EVERY, ending.wait_for(|ending| *ending)).await;
            if ended.is_ok() {
                break;
            }
        }
    }

    /// Brings what runs here to what the market says.
    fn follow(&self, server: &MarketServer, rooms: &mut BTreeMap<u64, Room>, hosted: Vec<Hosted>) {
        let hosted: BTreeMap<u64, Hosted> =
            hosted.into_iter().map(|host| (host.id, host)).collect();
        rooms.retain(|id, room| {
            let stays = hosted.contains_key(id);
            if !stays {
                room.running = None;
                // A file that a dying process still makes is found the next time that somebody
                // cleans up; nothing is billed for it.
                let _ = std::fs::remove_dir_all(&room.path);
            }
            stays
        });
        for (id, host) in hosted {
            let room = rooms.entry(id).or_insert_with(|| Room {
                path: self.dir.join(id.to_string()),
                running: None,
                read: 0,
            });
            self.of_one(server, room, &host);
        }
    }

    fn of_one(&self, server: &MarketServer, room: &mut Room, host: &Hosted) {
        let is_this = |version: u64| host.runs && version == host.version;
        if let Some((version, mut process)) = room.running.take() {
            if !is_this(version) {
                drop(process);
            } else if process.has_ended() {
                drop(process);
                tell_log(server, room, host.id);
                server.with_market(|market| market.container_exits(host.id, version));
                return;
            } else {
                room.running = Some((version, process));
            }
        }
        if host.runs && room.running.is_none() {
            match Process::start(&room.path, host, &self.origin) {
                Ok(process) => room.running = Some((host.version, process)),
                Err(error) => {
                    let line = format!("the container cannot be started: {error}");
                    server.with_market(|market| {
                        market.container_writes(host.id, vec![line]);
                        market.container_exits(host.id, host.version);
                    });
                }
            }
        }
        tell_log(server, room, host.id);
    }

    fn copies(&self, copy: &Copied) -> io::Result<()> {
        let place =
            |(id, path): &(u64, String)| process::inside(&self.dir.join(id.to_string()), path);
        process::copy_tree(&place(&copy.from), &place(&copy.to))
    }
}

/// Gives the market what an instance wrote since.
fn tell_log(server: &MarketServer, room: &mut Room, id: u64) {
    let lines = match process::read_log(&room.path, &mut room.read) {
        Ok(lines) if !lines.is_empty() => lines,
        _ => return,
    };
    server.with_market(|market| market.container_writes(id, lines));
}
