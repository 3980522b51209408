//! A runner that is played, by what it tells and does.

use std::time::Duration;

use crate::market::contract::Container;
use crate::market::hosts::Lie;
use crate::market::raw::RawOffer;
use crate::market::{CreateParams, Happening, Market, MarketOptions};
use crate::runner::{Expected, Run, Told, told};
use crate::types::ids::{Installation, IntentId, Label, ReplicaId};
use crate::types::money::Rate;
use crate::types::time::Time;

const KEY: &str = "the key of this run";
const HOUR: i64 = 3600;

fn label() -> Label {
    Label {
        installation: Installation::from_seed(7),
        replica: ReplicaId {
            job: "train".parse().unwrap(),
            index: 0,
        },
        intent: IntentId(5),
    }
}

fn run(command: &str) -> Run {
    Run {
        label: label(),
        generation: 1,
        key: KEY.to_owned(),
        command: command.to_owned(),
        lease: Some(Duration::from_hours(2)),
        checkpoint: None,
        sync_every: Duration::from_mins(10),
        outputs: None,
        progress: None,
        control: None,
        inputs: 0,
        fetch: None,
        kept: None,
        from: None,
        grace: Duration::from_secs(30),
        linger: Duration::from_hours(24),
        looks: (Duration::from_secs(10), Duration::from_secs(60)),
        expected: Some(Expected {
            gpus: Some(1),
            model: Some("4090".to_owned()),
            vram: Some(24_564),
            disk: Some(800),
            download: None,
            percent: 70,
        }),
    }
}

/// A market of one machine on which one instance has a runner.
struct Scene {
    market: Market,
    account: u64,
    id: u64,
}

impl Scene {
    /// Rents for a run. Its label says this after haggle's own, with the end of its lease in seconds
    /// from now; the container is about to come up.
    fn new(run: &Run, word: &str, lease: i64) -> Self {
        Self::beside(run, word, lease, |_| {})
    }

    fn beside(run: &Run, word: &str, lease: i64, change: impl FnOnce(&mut Market)) -> Self {
        let options = MarketOptions {
            intensity: 0.0,
            failures: 0.0,
            ..MarketOptions::default()
        };
        let row = RawOffer {
            id: 100,
            machine_id: 1,
            host_id: 7,
            num_gpus: 1,
            gpu_frac: 1.0,
            gpu_name: "RTX 4090".into(),
            gpu_ram: 24_564,
            dph_base: 0.4,
            min_bid: 0.2,
            storage_cost: 0.18,
            inet_down: 900.0,
            disk_space: 500.0,
            disk_bw: 900.0,
            driver_version: "550.54".into(),
            reliability: 0.99,
            rentable: true,
            ..RawOffer::default()
        };
        let mut market = Market::from_rows(options, vec![row]);
        change(&mut market);
        let account = market.account_for("at_one");
        let delivery = run.deliver(0).unwrap();
        let params = CreateParams {
            offer_id: 100,
            price: Some(0.3),
            image: Some("a/b:c".to_owned()),
            env: delivery.env,
            runtype: Some("args".to_owned()),
            onstart: Some("/bin/sh".to_owned()),
            args: vec!["-c".to_owned(), delivery.bootstrap.to_owned()],
            label: Some(says(&market, 1, word, lease)),
            ..CreateParams::default()
        };
        let id = market.create(account, params).unwrap().new_contract;
        let mut scene = Self {
            market,
            account,
            id,
        };
        while scene.task().is_some_and(|task| task.up_since.is_none()) {
            scene.later(1);
        }
        scene
    }

    fn task(&self) -> Option<&crate::market::contract::Task> {
        self.market.contracts.get(&self.id)?.task()
    }

    fn later(&mut self, seconds: i64) {
        let to = Time(self.market.now().0 + seconds * 1000);
        self.market.advance_to(to);
    }

    fn relabel(&mut self, generation: u64, word: &str, lease: i64) {
        let text = says(&self.market, generation, word, lease);
        self.market.set_label(self.account, self.id, &text).unwrap();
    }

    fn told(&self) -> Vec<Told> {
        let lines = self.market.log_lines(self.account, self.id, false).unwrap();
        let own = lines.iter().filter(|line| !line.is_empty());
        own.map(|line| told(line, KEY).unwrap()).collect()
    }

    /// The states of its lines, each once in a row.
    fn states(&self) -> Vec<String> {
        let mut states: Vec<String> = self.told().into_iter().map(|told| told.state).collect();
        states.dedup();
        states
    }

    fn works(&self) -> bool {
        self.market.at_work(self.id).unwrap().works
    }

    fn is_there(&self) -> bool {
        self.market.instance(self.account, self.id).is_some()
    }
}

fn says(market: &Market, generation: u64, word: &str, lease: i64) -> String {
    let until = market.now().0 / 1000 + lease;
    format!("{}/g{generation}.{word}.{until}", label())
}

#[test]
fn a_command_works_and_ends_and_its_result_waits() {
    let run = run("HAGGLE_MARKET_RUN_FOR=900 HAGGLE_MARKET_EXIT=3 python train.py");
    let mut scene = Scene::new(&run, "go", 8 * HOUR);
    assert_eq!(scene.states(), ["boot"]);
    scene.later(60);
    assert!(scene.works());
    scene.later(900);
    assert!(!scene.works());
    assert_eq!(scene.states(), ["boot", "preflight", "running", "result"]);
    let told = scene.told();
    assert!(told.iter().all(|told| told.signed && told.v == 1));
    assert!(told.iter().map(|told| told.seq).eq(1..=told.len() as u64));
    // One at its beginning, and one each five minutes.
    let running = told.iter().filter(|told| told.state == "running");
    assert_eq!(running.count(), 3);
    let last = told.last().unwrap();
    assert_eq!(
        (last.exit, last.run.as_str(), last.generation),
        (Some(3), "5", 1)
    );
    let at = scene.market.at_work(scene.id).unwrap().ended.unwrap();
    assert_eq!(last.at, at.0 / 1000);
    assert_eq!(told[0].at, 0, "it has not read the time yet");
    // Nothing more is told, and it is there until it was not taken for long.
    scene.later(7 * HOUR);
    assert_eq!(scene.told().len(), told.len());
    assert!(scene.is_there());
}

#[test]
fn what_nobody_takes_ends_itself() {
    let short = Run {
        linger: Duration::from_hours(1),
        ..run("HAGGLE_MARKET_RUN_FOR=60 true")
    };
    let mut scene = Scene::new(&short, "go", 8 * HOUR);
    scene.later(HOUR);
    assert!(scene.is_there());
    scene.later(300);
    assert!(!scene.is_there());
    assert!(scene.market.ended_itself(scene.id));
    // Outputs that are on its disk alone are not for it to throw away.
    let kept = Run {
        outputs: Some("/w/out".to_owned()),
        ..short
    };
    let mut scene = Scene::new(&kept, "go", 8 * HOUR);
    scene.later(HOUR + 300);
    assert!(scene.is_there());
    assert_eq!(scene.task().unwrap().container, Container::Exited);
    assert_eq!(scene.states().last().unwrap(), "ended");
}

#[test]
fn a_lease_that_nobody_renews_ends_the_command_and_then_the_instance() {
    let mut scene = Scene::new(&run("python train.py"), "go", 3 * HOUR);
    let until = Time(scene.market.now().0 + 3 * HOUR * 1000);
    scene.later(2 * HOUR);
    assert!(scene.works());
    while scene.works() {
        scene.later(1);
    }
    assert!(scene.market.now() >= Time(until.0 - 700_000), "not sooner");
    assert!(scene.market.now().0 <= until.0 + 2_000, "not later");
    let states = scene.states();
    assert_eq!(states[states.len() - 2..], ["ending", "gate"]);
    assert_eq!(scene.told().last().unwrap().why.as_deref(), Some("lapsed"));
    scene.later(2 * HOUR - 60);
    assert!(scene.is_there());
    scene.later(70);
    assert!(!scene.is_there());
    let destroyed = |event: &crate::market::MarketEvent| {
        event.what == Happening::Destroyed { instance: scene.id }
    };
    assert!(scene.market.events().iter().any(destroyed));
}

#[test]
fn a_lease_that_is_renewed_lets_it_work_and_a_late_renewal_lets_it_begin_anew() {
    let mut scene = Scene::new(&run("python train.py"), "go", 2 * HOUR);
    scene.later(HOUR);
    scene.relabel(1, "go", 2 * HOUR);
    scene.later(HOUR + HOUR / 2);
    assert!(scene.works());
    scene.later(HOUR);
    assert!(!scene.works());
    scene.relabel(1, "go", 2 * HOUR);
    scene.later(11);
    assert!(scene.works());
    let boots: std::collections::BTreeSet<String> =
        scene.told().into_iter().map(|told| told.boot).collect();
    assert_eq!(boots.len(), 1, "it is the same start of the container");
}

#[test]
fn another_generation_stops_it_and_done_destroys_it() {
    let mut scene = Scene::new(&run("python train.py"), "go", 8 * HOUR);
    scene.later(600);
    scene.relabel(2, "hold", 8 * HOUR);
    scene.later(61);
    assert_eq!(scene.task().unwrap().container, Container::Exited);
    assert!(!scene.works());
    let told = scene.told();
    let whys: Vec<_> = told.iter().filter_map(|told| told.why.as_deref()).collect();
    assert_eq!(whys, ["else", "else"]);
    assert_eq!(scene.states()[2..], ["running", "ending", "gate"]);
    // Woken by somebody all the same, it stops again.
    scene.market.start(scene.account, scene.id).unwrap();
    scene.later(120);
    assert_eq!(scene.task().unwrap().container, Container::Exited);
    assert_eq!(scene.states()[5..], ["boot", "gate"]);
    let mut scene = Scene::new(&run("python train.py"), "go", 8 * HOUR);
    scene.later(600);
    scene.relabel(1, "done", 8 * HOUR);
    scene.later(61);
    assert!(!scene.is_there());
}

#[test]
fn it_waits_while_its_label_says_so() {
    let mut scene = Scene::new(&run("python train.py"), "hold", 8 * HOUR);
    scene.later(HOUR);
    assert_eq!(scene.states(), ["boot", "gate"]);
    assert_eq!(scene.told().len(), 2, "it is told once");
    scene.relabel(1, "go", 8 * HOUR);
    scene.later(11);
    assert!(scene.works());
}

#[test]
fn what_is_outbid_is_dead_and_begins_again_from_one() {
    let run = Run {
        progress: Some("/w/progress".to_owned()),
        ..run("HAGGLE_MARKET_RUN_FOR=7200 python train.py")
    };
    let mut scene = Scene::new(&run, "go", 20 * HOUR);
    scene.later(3700);
    let before = scene.told();
    assert_eq!(before.last().unwrap().progress, Some(61.0));
    let bid = Some(Rate::from_dollars(0.35).unwrap());
    let kind = crate::market::contract::RivalKind::Plain;
    scene
        .market
        .join(0, 0, kind, bid, (Rate::ZERO, 2 * HOUR * 1000));
    scene.later(HOUR);
    assert!(!scene.works());
    assert_eq!(scene.told(), before, "it tells nothing");
    scene.later(HOUR + 120);
    assert!(scene.works());
    let told = scene.told();
    let again = &told[before.len()..];
    assert_eq!((again[0].state.as_str(), again[0].seq), ("boot", 1));
    assert_ne!(again[0].boot, before[0].boot);
    // What it had done counts: it works for two hours in all.
    scene.later(HOUR);
    let last = scene.told().into_iter().next_back().unwrap();
    assert_eq!((last.state.as_str(), last.exit), ("result", Some(0)));
    assert_eq!(last.progress, Some(120.0));
}

#[test]
fn a_machine_that_is_less_than_advertised_is_refused() {
    let lies = [
        (Lie::Missing(1), "gpus"),
        (Lie::Model("RTX 3060".into()), "model"),
    ];
    for (lie, bad) in lies {
        let lying = |market: &mut Market| market.machines[0].lie = Some(lie);
        let mut scene = Scene::beside(&run("true"), "go", 2 * HOUR, lying);
        scene.later(HOUR);
        assert_eq!(scene.states(), ["boot", "refused"]);
        assert_eq!(scene.told()[1].bad.as_deref(), Some(bad));
        // Nobody reads that: the lease ends it.
        scene.later(2 * HOUR + 1800);
        assert!(!scene.works());
        scene.later(HOUR);
        assert!(!scene.is_there());
    }
    let untried = Run {
        expected: None,
        ..run("python train.py")
    };
    let lying = |market: &mut Market| market.machines[0].lie = Some(Lie::Missing(1));
    let mut scene = Scene::beside(&untried, "go", 2 * HOUR, lying);
    scene.later(60);
    assert_eq!(scene.states(), ["boot", "running"]);
}

#[test]
fn progress_is_told_and_stays_where_it_hangs() {
    let run = Run {
        progress: Some("/w/progress".to_owned()),
        ..run("HAGGLE_MARKET_HANG_AFTER=600 python train.py")
    };
    let mut scene = Scene::new(&run, "go", 8 * HOUR);
    scene.later(590);
    let steps: Vec<f64> = scene
        .told()
        .into_iter()
        .filter_map(|told| told.progress)
        .collect();
    assert_eq!(steps[..3], [1.0, 2.0, 3.0]);
    scene.later(2 * HOUR);
    assert!(scene.works());
    let told = scene.told();
    assert_eq!(told.last().unwrap().progress, Some(10.0));
    let gap = told[told.len() - 1].at - told[told.len() - 2].at;
    assert_eq!(gap, 300, "it says so all the same");
}

#[test]
fn without_a_fence_no_label_ends_it() {
    let free = Run {
        lease: None,
        ..run("python train.py")
    };
    let mut scene = Scene::new(&free, "hold", -HOUR);
    scene.later(9 * HOUR);
    assert!(scene.works());
    scene.relabel(9, "done", -HOUR);
    scene.later(30 * HOUR);
    assert!(scene.works());
    let told = scene.told();
    assert_eq!(told.len(), 256, "only so many lines are kept");
    assert_eq!(told.last().unwrap().at, 0);
}

#[test]
fn what_belongs_in_storage_stays_on_the_disk_and_is_told_of() {
    let stored = Run {
        checkpoint: Some("/w/kept".to_owned()),
        outputs: Some("/w/out".to_owned()),
        control: Some("https://s3.example/control".to_owned()),
        ..run("HAGGLE_MARKET_RUN_FOR=1500 python train.py")
    };
    let mut scene = Scene::new(&stored, "go", 8 * HOUR);
    scene.later(30 * 60);
    let all = [
        "boot",
        "preflight",
        "restoring",
        "running",
        "saving",
        "result",
    ];
    assert_eq!(scene.states(), all);
    let told = scene.told();
    let fails = |told: &&Told| told.trouble.is_some();
    let troubles: Vec<&str> = told
        .iter()
        .filter(fails)
        .map(|told| told.state.as_str())
        .collect();
    // One at the beginning, one each ten minutes, and one in the end.
    assert_eq!(troubles, ["running", "running", "running", "saving"]);
    assert!(told.iter().all(|told| told.checkpoint.is_none()));
    let word = crate::runner::Place::Word("here".to_owned());
    assert_eq!(told.last().unwrap().outputs, Some(word));
    // What wakes again brings its outputs away, and does not run the command once more.
    scene.market.stop(scene.account, scene.id).unwrap();
    scene.later(60);
    scene.market.start(scene.account, scene.id).unwrap();
    scene.later(120);
    assert!(!scene.works());
    assert_eq!(
        scene.states()[all.len()..],
        ["boot", "preflight", "saving", "result"]
    );
    assert_eq!(scene.told().last().unwrap().exit, Some(0));
}

#[test]
fn what_could_not_be_kept_is_not_thrown_away() {
    let stored = Run {
        checkpoint: Some("/w/kept".to_owned()),
        control: Some("https://s3.example/control".to_owned()),
        linger: Duration::from_hours(1),
        ..run("HAGGLE_MARKET_RUN_FOR=60 HAGGLE_MARKET_EXIT=3 true")
    };
    let mut scene = Scene::new(&stored, "go", 8 * HOUR);
    scene.later(HOUR + 300);
    assert!(scene.is_there());
    assert_eq!(scene.task().unwrap().container, Container::Exited);
    // A command that failed is run again on its disk, which is known to be begun.
    scene.market.start(scene.account, scene.id).unwrap();
    scene.later(120);
    let again = scene.states().split_off(7);
    assert_eq!(again, ["boot", "preflight", "running", "saving", "result"]);
}

#[test]
fn one_step_or_many_give_the_same_log() {
    let run = Run {
        progress: Some("/w/progress".to_owned()),
        checkpoint: Some("/w/kept".to_owned()),
        control: Some("https://s3.example/control".to_owned()),
        ..run("HAGGLE_MARKET_RUN_FOR=5000 python train.py")
    };
    let log = |steps: i64| {
        let mut scene = Scene::new(&run, "go", HOUR);
        for _ in 0..steps {
            scene.later(2 * HOUR / steps);
        }
        scene
            .market
            .log_lines(scene.account, scene.id, false)
            .unwrap()
    };
    let one = log(1);
    assert!(one.len() > 80, "{}", one.len());
    assert_eq!(one, log(7200));
}

#[test]
fn what_is_run_for_real_is_not_played() {
    let real = Market::hosts_for_real;
    let scene = Scene::beside(&run("true"), "go", HOUR, real);
    assert_eq!(scene.market.at_work(scene.id), None);
    let plain = Scene::beside(&run("true"), "go", HOUR, |_| {});
    assert!(plain.market.at_work(plain.id).is_some());
}
