//! The guard over hours, in virtual time: what it tells, how often, and how it tries again.

use std::sync::Arc;

use clap::Parser as _;

use super::*;
use crate::cli::{Cli, Command};
use crate::clock::SimClock;
use crate::daemon::heartbeat::Heartbeat;
use crate::ports::Clock as _;
use crate::types::ids::AccountId;
use crate::types::time::Time;

struct Place {
    directory: tempfile::TempDir,
    clock: Arc<SimClock>,
    context: Context,
    config: Config,
    args: GuardArgs,
}

impl Place {
    /// A guard's place whose marketplace cannot be reached, and whose alerts come through only once
    /// there is a file `open`.
    fn new(flags: &[&str]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name).to_string_lossy().into_owned();
        fs::write(path("token"), "at_secret-of-the-guard").unwrap();
        let config = format!(
            "[provider]\nbase_url = \"http://127.0.0.1:9/vastai\"\ntoken = {{ file = {:?} }}\n",
            path("token")
        );
        fs::write(path("haggle.toml"), config).unwrap();
        let on_alert = format!(
            "test -e {} && (cat; echo) >> {}",
            path("open"),
            path("alerts")
        );
        let (config, beat) = (path("haggle.toml"), path("db.heartbeat"));
        let mut line = vec!["haggle", "guard", "--config", &config, "--heartbeat", &beat];
        line.extend(["--on-alert", &on_alert]);
        line.extend(flags);
        let cli = Cli::try_parse_from(line).unwrap();
        let Command::Guard(args) = cli.command else {
            panic!("not a guard");
        };
        let clock = Arc::new(SimClock::new(Time(1_795_478_400_000)));
        let context = Context::new(cli.global).with_clock(clock.clone());
        let config = context.config().unwrap();
        Self {
            directory,
            clock,
            context,
            config,
            args,
        }
    }

    fn guard(&self) -> Guard<'_> {
        let command = self.args.on_alert.as_deref();
        let ways = Ways::new(&self.context, &self.config.provider, command, None).unwrap();
        Guard::new(&self.context, &self.config, &self.args, ways).unwrap()
    }

    fn beat(&self, tick: u64, live: bool) {
        self.beat_until(tick, live, 300);
    }

    fn beat_until(&self, tick: u64, live: bool, next_tick_within_seconds: u64) {
        let heartbeat = Heartbeat {
            installation: Installation::from_seed(7),
            account: Some(AccountId(5)),
            tick,
            at: String::new(),
            live,
            killed: false,
            held: vec![InstanceId(9001)],
            burn_dollars_per_hour: "0.62".into(),
            credit_dollars: None,
            next_tick_within_seconds,
        };
        let text = serde_json::to_string(&heartbeat).unwrap();
        fs::write(self.directory.path().join("db.heartbeat"), text).unwrap();
    }

    async fn watch(&self, guard: &mut Guard<'_>, duration: Duration) {
        let until = self.clock.monotonic() + duration;
        while self.clock.monotonic() < until {
            guard.look().await;
            self.clock.advance(self.args.every);
        }
    }

    fn open(&self) {
        fs::write(self.directory.path().join("open"), "").unwrap();
    }

    /// The alerts that came through, as `kind course`.
    fn alerts(&self) -> Vec<String> {
        let text = fs::read_to_string(self.directory.path().join("alerts")).unwrap_or_default();
        assert!(!text.contains("secret-of-the-guard"), "{text}");
        let read = |line: &str| serde_json::from_str::<Alert>(line).unwrap();
        let word = |course: Course| serde_json::to_value(course).unwrap();
        text.lines()
            .map(read)
            .map(|alert| format!("{} {}", alert.kind.as_str(), word(alert.course)))
            .map(|text| text.replace('"', ""))
            .collect()
    }
}

#[tokio::test]
async fn what_goes_on_is_told_hourly_and_tried_less_and_less_often() {
    let place = Place::new(&["--then", "destroy", "--every", "5m", "--after", "30m"]);
    place.open();
    place.beat(1, true);
    let mut guard = place.guard();
    guard.look().await;
    assert_eq!(
        place.alerts(),
        ["cannot-act begins"],
        "tried out before it is needed"
    );
    place.beat(2, true);
    place.watch(&mut guard, Duration::from_hours(3)).await;
    assert_eq!(guard.status, Status::Silent);
    assert_eq!(guard.try_again, TRY_AGAIN_LAST);
    let told = place.alerts();
    let count = |text: &str| told.iter().filter(|told| *told == text).count();
    assert_eq!(count("daemon-silent begins"), 1, "{told:?}");
    assert_eq!(count("daemon-silent goes-on"), 2, "{told:?}");
    assert!((2..=3).contains(&count("cannot-act goes-on")), "{told:?}");
    place.beat(3, true);
    guard.look().await;
    let told = place.alerts();
    assert!(told.contains(&"daemon-silent over".to_owned()), "{told:?}");
    assert_eq!(guard.status, Status::Alive);
}

#[tokio::test]
async fn an_alert_that_nobody_took_waits_also_for_the_next_process() {
    let directory = tempfile::tempdir().unwrap();
    let state = directory
        .path()
        .join("state")
        .to_string_lossy()
        .into_owned();
    let place = Place::new(&["--once", "--state", &state]);
    let mut guard = place.guard();
    guard.remember().await;
    place.watch(&mut guard, Duration::from_mins(40)).await;
    assert_eq!(guard.status, Status::Silent, "no daemon was ever heard");
    assert_eq!((guard.memory.outbox.len(), place.alerts().len()), (1, 0));
    place.open();
    for _ in 0..2 {
        let mut next = place.guard();
        next.remember().await;
        next.look().await;
        assert_eq!(next.status, Status::Silent, "it remembers");
        assert_eq!(place.alerts(), ["daemon-silent begins"]);
    }
    fs::write(&state, "{").unwrap();
    let mut lost = place.guard();
    lost.remember().await;
    lost.look().await;
    let told = place.alerts();
    assert_eq!(
        told.last().map(String::as_str),
        Some("memory-lost happened")
    );
}

#[tokio::test]
async fn a_dry_run_that_holds_something_is_told_and_so_is_its_end() {
    let place = Place::new(&[]);
    place.open();
    let mut guard = place.guard();
    for (tick, live, told) in [
        (1, false, 1),
        (2, false, 1),
        (3, true, 2),
        (4, true, 2),
        (5, false, 3),
    ] {
        place.beat(tick, live);
        guard.look().await;
        assert_eq!(place.alerts().len(), told, "{:?}", place.alerts());
    }
    let expected = [
        "daemon-idle begins",
        "daemon-idle over",
        "daemon-idle begins",
    ];
    assert_eq!(place.alerts(), expected);
}

#[tokio::test]
async fn who_announced_a_long_silence_is_waited_for_while_its_process_is_there() {
    let place = Place::new(&["--every", "5m", "--after", "30m"]);
    place.beat_until(1, true, 86_400);
    let mut guard = place.guard();
    // No lock: it may be the copy of a file of another machine.
    place.watch(&mut guard, Duration::from_hours(2)).await;
    assert_eq!(guard.status, Status::Quiet);
    let database = place.directory.path().join("db");
    let lock = crate::store::DaemonLock::acquire(&database).unwrap();
    place.watch(&mut guard, Duration::from_hours(2)).await;
    assert_eq!(guard.status, Status::Quiet);
    drop(lock);
    place.watch(&mut guard, Duration::from_mins(5)).await;
    assert_eq!(guard.status, Status::Silent);
}

#[tokio::test]
async fn a_way_that_is_stuck_is_tried_once_a_round_however_much_waits() {
    let place = Place::new(&["--every", "5m", "--after", "30m"]);
    let tried = place.directory.path().join("tried");
    let mut guard = place.guard();
    let command = format!("echo tried >> {}; exit 1", tried.display());
    let ways = Ways::new(&place.context, &place.config.provider, Some(&command), None);
    guard.ways = ways.unwrap();
    for n in 0..5 {
        guard.post(Kind::DaemonSilent, Course::GoesOn, format!("alert {n}"));
    }
    for rounds in 1..=2 {
        guard.deliver().await;
        let count = fs::read_to_string(&tried).unwrap().lines().count();
        assert_eq!(count, rounds, "the others wait for the next round");
        assert_eq!(guard.memory.outbox.len(), 5, "and none is lost");
    }
    place.open();
    guard.ways = place.guard().ways;
    guard.deliver().await;
    assert_eq!(place.alerts().len(), 5);
    assert!(guard.memory.outbox.is_empty());
}

#[tokio::test]
async fn the_database_of_another_installation_is_not_forbidden_to_spend() {
    for (number, forbidden) in [(7, true), (8, false)] {
        let place = Place::new(&["--then", "destroy"]);
        place.beat(1, true);
        let database = place.directory.path().join("other.db");
        let installation = Installation::from_seed(number).to_string();
        fs::write(crate::store::installation_file(&database), installation).unwrap();
        let mut guard = place.guard();
        guard.look().await;
        let hands = guard.hands(How::Destroy);
        assert_eq!(hands.is_of_the_daemon(&database), forbidden);
    }
}

#[test]
fn what_the_daemon_held_and_has_no_label_of_ours_is_no_all_clear() {
    use crate::cli::winddown::testing::Town;
    use crate::types::instance::Listing;
    let town = Town::default();
    let label = format!("hg-{}-train-r0-1", town.installation);
    let made = town.rent(&[
        (Some(label.as_str()), None),
        (Some("mine"), None),
        (None, None),
    ]);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .unwrap();
    let listing: Listing = runtime.block_on(town.client.instances()).unwrap();
    let ours = crate::cli::winddown::ours(
        &listing,
        &town.installation,
        &std::collections::BTreeSet::new(),
    );
    let strange = |held: &[InstanceId]| act::without_label(&listing, &ours, held);
    // The second one was relabelled by hand; what is gone, or was never held, is nobody's business.
    assert_eq!(strange(&[made[0], made[1], InstanceId(1)]), [made[1]]);
    assert_eq!(strange(&[made[0]]), []);
}
