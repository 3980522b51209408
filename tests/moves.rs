//! A supervised job without storage is outbid and goes on elsewhere: the real daemon, over real HTTP, and
//! real processes. Its checkpoint comes from the disk that was left, by the marketplace's own copy.

#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    clippy::print_stderr,
    reason = "a test may fail by panicking, and waits for real processes"
)]
#![cfg(target_os = "linux")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use haggle::market::{Market, MarketOptions};
use haggle::types::ids::MachineId;
use haggle::types::instance::{Held, Phase, Rental};
use haggle::types::job::{CheckpointPlace, Job, RentalChoice};
use haggle::types::offer::Market as Search;
use haggle::types::state::Ending;

use crate::bench::{Bench, WAIT_MAX, supervised};
use crate::processes::pause;

/// So far the job counts before it has been outbid.
const WAITS_AT: u64 = 20;

/// And so far before it has been outbid again.
const WAITS_AGAIN_AT: u64 = 30;

/// How far it counts in all.
const COUNTS: u64 = 40;

/// Counts on from the last number that its checkpoint has. It notes in a diary outside who counts.
const COUNT: &str = "f=$HAGGLE_CHECKPOINT/counted; n=$(tail -n 1 $f 2>/dev/null || echo 0); n=${n:-0}; \
                     while [ $n -lt 40 ]; do \
                     if [ $n -ge 20 ] && [ ! -e $ROOM/enough ]; then sleep 0.1; continue; fi; \
                     if [ $n -ge 30 ] && [ ! -e $ROOM/more ]; then sleep 0.1; continue; fi; \
                     n=$((n+1)); echo $CONTAINER_ID >> $ROOM/diary; echo $n >> $f; \
                     echo $n > $HAGGLE_PROGRESS; sleep 0.05; done";

/// A job that counts, and whose checkpoint is on its disk alone.
fn counting(rental: RentalChoice, room: &Path) -> Job {
    let mut job = supervised(COUNT);
    job.rental = rental;
    job.disposable = false;
    job.checkpoint_place = Some(CheckpointPlace::Disk);
    job.checkpoint_every = Some(Duration::from_secs(1));
    job.patience = Duration::from_mins(3);
    job.retries.max = 0;
    // Real processes have seconds where the market has minutes.
    for (name, value) in [("TICK", "0.1"), ("TICK_GATE", "0.1"), ("TELL", "1")] {
        let name = format!("HAGGLE_{name}");
        job.run.env.insert(name, value.to_owned());
    }
    let room = room.display().to_string();
    job.run.env.insert("ROOM".to_owned(), room);
    let runner = job.run.runner.as_mut().unwrap();
    runner.silent_after = Duration::from_hours(48);
    runner.checkpoint = Some("checkpoint".to_owned());
    runner.carried = true;
    runner.progress = Some("progress".to_owned());
    runner.sync_every = Duration::from_secs(1);
    job
}

/// A tick, and some time of the market, in which processes get a tenth of a second: a minute, or less while
/// one of them waits for what it is to begin with. Where the plug was pulled, the daemon is another one.
async fn moment(mut bench: Bench) -> Bench {
    let plug = Arc::clone(&bench.plug);
    let dead = tokio::select! {
        ticked = bench.daemon.tick() => {
            assert_eq!(ticked.unwrap(), Vec::new());
            false
        }
        () = plug.pulled.notified() => true,
    };
    let held = bench.daemon.state().held.values();
    let up = held.filter(|held| held.phase == Phase::Running);
    let mut views = up.filter_map(|held| held.runner.as_ref());
    let quiet = |state: &str| matches!(state, "running" | "ended");
    let moves = views.any(|view| !view.state.as_deref().is_some_and(quiet));
    let passes = if moves { 3 } else { 60 };
    bench.clock.advance(Duration::from_secs(passes));
    pause(Duration::from_millis(100)).await;
    if dead { bench.restart() } else { bench }
}

/// Moments until something is so.
async fn until(mut bench: Bench, what: &str, is_so: impl Fn(&Bench) -> bool) -> Bench {
    let began = Instant::now();
    while !is_so(&bench) {
        let heard = bench.heard.0.lock().unwrap().clone();
        assert!(began.elapsed() < 2 * WAIT_MAX, "not {what}: {heard:#?}");
        bench = Box::pin(moment(bench)).await;
    }
    bench
}

/// It has counted as far as it goes by itself, and the daemon knows of a checkpoint of that.
fn waits(bench: &Bench) -> bool {
    bench.progress() == Some(WAITS_AT) && is_kept(bench)
}

/// Whether the last checkpoint on its disk is what was told of, and has all that it counted.
fn is_kept(bench: &Bench) -> bool {
    let held = current(bench);
    let root = instance(bench, held.id.0);
    let view = held.runner.as_ref();
    let told = view.and_then(|view| view.checkpoint.as_ref());
    let manifest = std::fs::read(root.join("checkpoint.haggle/manifest"));
    let counted = std::fs::read(root.join("checkpoint/counted"));
    let (Some((_, told, _)), Ok(manifest), Ok(counted)) = (told, manifest, counted) else {
        return false;
    };
    let has_all = String::from_utf8_lossy(&manifest).contains(&sum(&counted));
    sum(&manifest) == *told && has_all
}

/// The SHA-256 of something, in hexadecimal.
fn sum(bytes: &[u8]) -> String {
    use std::fmt::Write as _;

    use sha2::{Digest as _, Sha256};
    let mut text = String::new();
    for byte in Sha256::digest(bytes) {
        write!(text, "{byte:02x}").unwrap();
    }
    text
}

fn current(bench: &Bench) -> &Held {
    let held = bench.daemon.state().held.values();
    held.max_by_key(|held| held.generation).unwrap()
}

/// Who counted, one after the other.
fn diary(room: &Path) -> Vec<String> {
    let text = std::fs::read_to_string(room.join("diary")).unwrap();
    let mut all: Vec<String> = text.lines().map(str::to_owned).collect();
    all.dedup();
    all
}

/// How a move went.
struct Went {
    from: MachineId,
    to: MachineId,
    rental: Rental,
    /// What was asked of the marketplace from the outbid to the end.
    requests: Vec<String>,
}

/// After it was outbid: it finishes on the second instance, from where the first one was, and nothing else
/// is left; then that goes, too.
async fn goes_on(mut bench: Bench, room: &Path) -> Went {
    let (first, left) = (current(&bench).id, current(&bench).slot.machine);
    for word in ["enough", "more"] {
        std::fs::write(room.join(word), "").unwrap();
    }
    let finished = |bench: &Bench| bench.ending() == Some(Ending::Finished);
    bench = until(bench, "finished", finished).await;
    let gone = |bench: &Bench| !bench.daemon.state().held.contains_key(&first);
    bench = until(bench, "the old disk gone", gone).await;
    assert_eq!(bench.labels().len(), 1, "nothing else is left");
    let last = current(&bench);
    assert_eq!(last.generation, bench.starts());
    let (went, rental) = (last.slot.machine, last.rental);
    let file = instance(&bench, last.id.0).join("checkpoint/counted");
    let counted = std::fs::read_to_string(file).unwrap();
    let counted: Vec<u64> = counted.lines().map(|line| line.parse().unwrap()).collect();
    assert_eq!(counted, (1..=COUNTS).collect::<Vec<_>>());
    let (mut who, last_one) = (diary(room), last.id.0.to_string());
    assert_eq!(who.last(), Some(&last_one));
    let moves = who.len() - 1;
    who.sort();
    who.dedup();
    assert_eq!(who.len(), moves + 1, "never two at work");
    assert_eq!(bench.was_told("brought"), moves);
    assert_eq!(bench.was_told("brought-unknown"), 0);
    assert_eq!(bench.was_told("work-lost"), 0);
    let (requests, dies) = std::mem::take(&mut *bench.plug.at.lock().unwrap());
    assert_eq!(dies, None, "it did not die");
    let ends = bench.daemon.destroy_all(Duration::from_hours(1)).await;
    let left_over = ends.unwrap();
    assert_eq!((left_over.remaining.len(), left_over.unsettled), (0, 0));
    Went {
        from: left,
        to: went,
        rental,
        requests,
    }
}

fn instance(bench: &Bench, id: u64) -> PathBuf {
    let rooms = bench.dir.path().join("instances");
    rooms.join(id.to_string()).join("root")
}

/// Somebody takes its machine on demand, and stays. `dies`: at which request, counted from then on, and
/// whether before it. Which requests there were.
async fn moves_by_copy(dies: Option<(usize, bool)>) -> Vec<String> {
    let room = tempfile::tempdir().unwrap();
    let job = counting(RentalChoice::Interruptible, room.path());
    let mut bench = Bench::new(job).await;
    bench = until(bench, "as far as it goes", waits).await;
    bench.outbid(1).unwrap();
    *bench.plug.at.lock().unwrap() = (Vec::new(), dies);
    let went = Box::pin(goes_on(bench, room.path())).await;
    assert_ne!(went.from, went.to);
    assert_eq!(went.rental, Rental::Bid);
    went.requests
}

#[tokio::test]
async fn a_job_without_storage_goes_on_from_the_disk_that_it_left() {
    let requests = Box::pin(moves_by_copy(None)).await;
    let copies = requests
        .iter()
        .filter(|asked| asked.contains("copy_direct"));
    assert_eq!(copies.count(), 1, "{requests:#?}");
}

/// What was brought is the next run's own, and brought on from there.
#[tokio::test]
async fn a_job_that_moves_twice_goes_on_each_time() {
    let room = tempfile::tempdir().unwrap();
    let job = counting(RentalChoice::Interruptible, room.path());
    let mut bench = Bench::new(job).await;
    bench = until(bench, "as far as it goes", waits).await;
    bench.outbid(1).unwrap();
    std::fs::write(room.path().join("enough"), "").unwrap();
    let again = |bench: &Bench| bench.progress() == Some(WAITS_AGAIN_AT) && is_kept(bench);
    bench = until(bench, "further", again).await;
    assert_eq!(bench.starts(), 2);
    bench.outbid(2).unwrap();
    let went = Box::pin(goes_on(bench, room.path())).await;
    assert_ne!(went.from, went.to);
    let copies = went
        .requests
        .iter()
        .filter(|asked| asked.contains("copy_direct"));
    assert_eq!(copies.count(), 2);
    assert_eq!(diary(room.path()).len(), 3);
}

#[tokio::test]
async fn where_its_machine_can_be_had_on_demand_it_stays_there() {
    let room = tempfile::tempdir().unwrap();
    let mut job = counting(RentalChoice::Interruptible, room.path());
    only_with_siblings(&mut job);
    let mut bench = Bench::new(job).await;
    bench = until(bench, "as far as it goes", waits).await;
    assert_eq!(current(&bench).rental, Rental::Bid);
    // From now on its policy takes on-demand, too, and every other machine is dearer.
    bench.job.rental = RentalChoice::Auto;
    only_on(&mut bench);
    bench = bench.restart();
    bench.outbid(1).unwrap();
    let went = Box::pin(goes_on(bench, room.path())).await;
    assert_eq!(went.from, went.to);
    assert_eq!(went.rental, Rental::OnDemand);
}

/// No other machine than the present one.
fn only_on(bench: &mut Bench) {
    let own = current(bench).slot.machine;
    let rows = bench
        .server
        .with_market(|market| market.offers(0, Search::OnDemand, 8.0));
    let others = rows.iter().map(|row| MachineId(row.machine_id));
    let others = others.filter(|machine| *machine != own);
    bench.job.requirements.machines_denied = others.collect();
}

/// The machines with several equal slices: where one is taken, another may be had.
fn only_with_siblings(job: &mut Job) {
    let market = Market::generated(MarketOptions {
        machines: Some(40),
        intensity: 0.0,
        failures: 0.0,
        ..MarketOptions::default()
    });
    let mut slices: BTreeMap<u64, u32> = BTreeMap::new();
    for row in market.offers(0, Search::OnDemand, 8.0) {
        *slices.entry(row.machine_id).or_default() += u32::from(row.num_gpus == 1);
    }
    let alone = slices.into_iter().filter(|(_, single)| *single < 2);
    job.requirements.machines_denied = alone.map(|(id, _)| MachineId(id)).collect();
}

/// The daemon dies before or after a request of the move, and another one goes on.
#[tokio::test]
async fn whenever_the_daemon_dies_nothing_is_lost_and_nothing_is_left() {
    let requests = Box::pin(moves_by_copy(None)).await;
    let place = |what: &str| {
        1 + requests
            .iter()
            .position(|asked| asked.contains(what))
            .unwrap()
    };
    let all = std::env::var("MOVE_CRASHES").is_ok_and(|which| which == "all");
    let crashes: Vec<(usize, bool)> = if all {
        let every = 1..=requests.len();
        every.flat_map(|n| [(n, true), (n, false)]).collect()
    } else {
        // The others are run by MOVE_CRASHES=all.
        vec![
            (place("/asks/"), false),
            (place("copy_direct"), false),
            (place("copy_direct") + 1, false),
        ]
    };
    for (number, before) in crashes {
        let word = if before { "before" } else { "after" };
        let what = requests.get(number - 1).map_or("", String::as_str);
        eprintln!("dies {word} request {number} of {}: {what}", requests.len());
        Box::pin(moves_by_copy(Some((number, before)))).await;
    }
}
