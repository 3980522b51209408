#![allow(clippy::print_stdout, reason = "a test says how long it took")]

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use secrecy::SecretString;

use super::testing::{Town, Way};
use super::{APART, LATE_CREATE, WindDown};
use crate::cli::output::Output;
use crate::marketplace::vast::{Vast, VastOptions};
use crate::ports::{Clock, Method, Reply, Request, Transport, TransportError};
use crate::types::ids::{Installation, InstanceId};
use crate::types::time::Time;

/// How long it took until the last was gone by the market's books, and until that was settled.
struct Took {
    gone: Duration,
    settled: Duration,
    left: Option<BTreeSet<InstanceId>>,
}

async fn destroy_all(town: &Town, within: Duration) -> Took {
    let begun = town.clock.now();
    let nothing = BTreeSet::new();
    let mut down = WindDown::new(
        &*town.client,
        &*town.clock,
        Output::new(false),
        &town.installation,
        &nothing,
    );
    let left = down.destroy_all(within).await;
    let gone = town.watched.lock().unwrap().none_left_at;
    Took {
        gone: gone.unwrap_or(Time(i64::MAX)).since(begun),
        settled: town.clock.now().since(begun),
        left,
    }
}

fn label(town: &Town, number: usize) -> String {
    format!("hg-{}-train-r{number}-{number}", town.installation)
}

/// So many of ours, every third one at a bid.
fn rent(town: &Town, count: usize) -> Vec<InstanceId> {
    let labels: Vec<String> = (0..count).map(|number| label(town, number)).collect();
    let all: Vec<_> = labels
        .iter()
        .enumerate()
        .map(|(number, label)| (Some(label.as_str()), (number % 3 == 0).then_some(0.01)))
        .collect();
    town.rent(&all)
}

/// Labels that are nearly ours, or none.
fn nearly(town: &Town) -> Vec<Option<String>> {
    let id = town.installation.as_str();
    let other = if id.ends_with('z') { 'y' } else { 'z' };
    let labels = [
        format!("hg-{}{other}-train-r0-1", &id[..7]),
        format!("hg-{}-train-r0-1", &id[..7]),
        format!("hg-{id}"),
        format!("hg-{id}x-train-r0-1"),
        format!("HG-{id}-train-r0-1"),
        format!("my hg-{id}-train-r0-1"),
        format!("{id}-train-r0-1"),
        "hg-".to_owned(),
        String::new(),
    ];
    labels.into_iter().map(Some).chain([None]).collect()
}

#[tokio::test]
async fn a_hundred_are_gone_within_a_minute_in_bulk_and_settled_within_ten() {
    for (name, native, bulk) in [
        ("native, in bulk", true, true),
        ("native, one by one", true, false),
        ("gateway, which has no bulk", false, true),
    ] {
        let town = Town::new(&Way {
            native,
            bulk,
            ..Way::default()
        });
        let theirs = nearly(&town);
        let theirs: Vec<_> = theirs
            .iter()
            .map(|label| (label.as_deref(), None))
            .collect();
        let theirs: BTreeSet<InstanceId> = town.rent(&theirs).into_iter().collect();
        rent(&town, 100);
        let took = destroy_all(&town, Duration::from_mins(15)).await;
        println!(
            "100 instances, {name}: gone after {:.0} s, settled after {:.0} s of market time",
            took.gone.as_secs_f64(),
            took.settled.as_secs_f64()
        );
        assert_eq!(took.left, Some(BTreeSet::new()), "{name}");
        assert_eq!(town.left(), theirs, "{name}");
        assert!(
            took.settled <= Duration::from_mins(10),
            "{name}: {:?}",
            took.settled
        );
        assert!(took.settled >= took.gone + LATE_CREATE + APART, "{name}");
        if native && bulk {
            assert!(took.gone <= Duration::from_secs(60), "{:?}", took.gone);
        } else {
            // A destroy every three seconds, as documented: five minutes and a few seconds.
            assert!(
                took.gone <= Duration::from_secs(320),
                "{name}: {:?}",
                took.gone
            );
        }
    }
}

/// Their ids are known, and by them they can be asked for and destroyed.
#[tokio::test]
async fn what_is_known_is_destroyed_also_where_nothing_can_be_listed() {
    for (blind, settled) in [
        (Duration::from_mins(4), true),
        (Duration::from_hours(24), false),
    ] {
        let town = Town::new(&Way {
            native: true,
            blind,
            ..Way::default()
        });
        let known: BTreeSet<InstanceId> = rent(&town, 2).into_iter().collect();
        let mut down = WindDown::new(
            &*town.client,
            &*town.clock,
            Output::new(false),
            &town.installation,
            &known,
        );
        let left = down.destroy_all(Duration::from_mins(30)).await;
        assert_eq!(town.left(), BTreeSet::new());
        // That nothing else is there, only lists can prove.
        assert_eq!(left.is_some(), settled, "{blind:?}");
    }
}

#[tokio::test]
async fn what_goes_wrong_on_the_way_is_settled_all_the_same() {
    let much = "5xx=12%,429=8%,timeout-after=3%,timeout-before=2%,partial=6%,empty=4%,garbage=4%,\
                html=2%,truncated=2%,stale=4%,duplicated=3%,session-expired=1%";
    for native in [true, false] {
        for seed in 1..=4 {
            let town = Town::new(&Way {
                native,
                half: seed == 2,
                faults: much,
                seed,
                disputed: format!("seed:{seed}").parse().unwrap(),
                ..Way::default()
            });
            let theirs = nearly(&town);
            let theirs: Vec<_> = theirs
                .iter()
                .map(|label| (label.as_deref(), None))
                .collect();
            let theirs: BTreeSet<InstanceId> = town.rent(&theirs).into_iter().collect();
            rent(&town, 30);
            let took = destroy_all(&town, Duration::from_hours(2)).await;
            println!(
                "30 instances through faults, native {native}, seed {seed}: gone after {:.0} s, \
                 settled after {:.0} s",
                took.gone.as_secs_f64(),
                took.settled.as_secs_f64()
            );
            assert_eq!(
                took.left,
                Some(BTreeSet::new()),
                "native {native}, seed {seed}"
            );
            assert_eq!(town.left(), theirs, "native {native}, seed {seed}");
        }
    }
}

#[tokio::test]
async fn a_bulk_that_destroys_half_leaves_none() {
    let town = Town::new(&Way {
        native: true,
        half: true,
        ..Way::default()
    });
    rent(&town, 100);
    let took = destroy_all(&town, Duration::from_mins(15)).await;
    assert_eq!(took.left, Some(BTreeSet::new()));
    assert_eq!(town.left(), BTreeSet::new());
    println!("half in bulk: settled after {:?}", took.settled);
    assert!(
        took.settled <= Duration::from_mins(10),
        "{:?}",
        took.settled
    );
}

#[tokio::test]
async fn only_the_whole_prefix_is_ours() {
    for native in [true, false] {
        let town = Town::new(&Way {
            native,
            ..Way::default()
        });
        let theirs = nearly(&town);
        let labels: Vec<_> = theirs
            .iter()
            .map(|label| (label.as_deref(), None))
            .collect();
        let theirs = town.rent(&labels);
        // Of our prefix, though no label of ours by form.
        let odd = format!("hg-{}-?", town.installation);
        let ours = town.rent(&[(Some(odd.as_str()), None)]);
        let took = destroy_all(&town, Duration::from_mins(15)).await;
        assert_eq!(took.left, Some(BTreeSet::new()));
        assert_eq!(town.left(), theirs.iter().copied().collect());
        let watched = town.watched.lock().unwrap();
        let named = |id: &InstanceId| {
            watched
                .ended
                .iter()
                .any(|asked| asked.contains(&id.to_string()))
        };
        assert!(ours.iter().all(named), "{:?}", watched.ended);
        assert!(!theirs.iter().any(named), "{:?}", watched.ended);
    }
}

#[tokio::test]
async fn what_is_not_proven_gone_in_time_is_not_called_gone() {
    let town = Town::default();
    // Nothing is listed, but a rental on its way could still show.
    let took = destroy_all(&town, Duration::from_mins(1)).await;
    assert_eq!(took.left, None);
}

#[tokio::test]
async fn parking_keeps_disks_and_leaves_others_running() {
    for native in [true, false] {
        let town = Town::new(&Way {
            native,
            ..Way::default()
        });
        let theirs = town.rent(&[(Some("hg-00000000-train-r0-1"), Some(0.01)), (None, None)]);
        let ours: BTreeSet<InstanceId> = rent(&town, 6).into_iter().collect();
        let nothing = BTreeSet::new();
        let mut down = WindDown::new(
            &*town.client,
            &*town.clock,
            Output::new(false),
            &town.installation,
            &nothing,
        );
        let end = down.park_all(Duration::from_mins(15)).await.unwrap();
        assert_eq!((&end.parked, end.settled), (&ours, true), "{end:?}");
        assert!(end.left.is_empty());
        assert!(
            end.storage.is_some_and(|rate| rate.0 > 0),
            "disks are billed on"
        );
        assert_eq!(
            town.left().len(),
            ours.len() + theirs.len(),
            "nothing is destroyed"
        );
        for row in town.client.instances().await.unwrap().rows {
            assert_eq!(row.is_parked(), ours.contains(&row.id), "{row:?}");
        }
    }
}

/// A marketplace of two instances of ours. It destroys in bulk as its answer says, and keeps one
/// that it should have destroyed, unlisted, until it is asked singly.
struct Two {
    bulk: (u16, &'static str),
    row: String,
    survives: Option<&'static str>,
    alive: Mutex<BTreeSet<String>>,
    hidden: Mutex<BTreeSet<String>>,
    deletes: Mutex<Vec<String>>,
}

#[async_trait]
impl Transport for Two {
    async fn send(&self, request: Request) -> Result<Reply, TransportError> {
        let asked = format!("{request:?}");
        let id = request.path.strip_prefix("/api/v0/instances/");
        let id = id.map(|rest| rest.trim_end_matches('/').to_owned());
        let row = |id: &String| self.row.replace("ID", id);
        let mut alive = self.alive.lock().unwrap();
        let mut hidden = self.hidden.lock().unwrap();
        let (status, body) = match (request.method, id) {
            (Method::Get, None) => {
                let rows: Vec<String> = alive.iter().map(row).collect();
                let (count, rows) = (rows.len(), rows.join(","));
                (
                    200,
                    format!(r#"{{"total_instances":{count},"instances":[{rows}]}}"#),
                )
            }
            (Method::Get, Some(id)) => {
                let there = alive.contains(&id) || hidden.contains(&id);
                let row = if there { row(&id) } else { "null".to_owned() };
                (200, format!(r#"{{"instances":{row}}}"#))
            }
            (_, Some(id)) if id.is_empty() => {
                self.deletes.lock().unwrap().push(asked);
                if self.bulk == DONE {
                    alive.clear();
                    hidden.extend(self.survives.map(str::to_owned));
                }
                (self.bulk.0, self.bulk.1.to_owned())
            }
            (_, Some(id)) => {
                self.deletes.lock().unwrap().push(asked);
                alive.remove(&id);
                hidden.remove(&id);
                (DONE.0, DONE.1.to_owned())
            }
            _ => panic!("{asked}"),
        };
        Ok(Reply {
            status,
            headers: Vec::new(),
            body: body.into(),
        })
    }
}

const DONE: (u16, &str) = (200, r#"{"success":true}"#);

/// Kills two, one of which may survive its first destroy. What was deleted, in order.
async fn kill_two(bulk: (u16, &'static str), survives: Option<&'static str>) -> Vec<String> {
    let clock = Arc::new(crate::marketplace::testing::SimClock::default());
    let installation = Installation::from_seed(7);
    let two = Arc::new(Two {
        bulk,
        row: format!(r#"{{"id":ID,"label":"hg-{installation}-x"}}"#),
        survives,
        alive: Mutex::new(["1", "2"].map(str::to_owned).into()),
        hidden: Mutex::default(),
        deletes: Mutex::default(),
    });
    let options = VastOptions::new(SecretString::from("vk_kill"));
    let client = Vast::new(two.clone(), clock.clone(), options, &BTreeMap::new());
    let nothing = BTreeSet::new();
    let output = Output::new(false);
    let mut down = WindDown::new(&client, &*clock, output, &installation, &nothing);
    let left = down.destroy_all(Duration::from_mins(15)).await;
    assert_eq!(left, Some(BTreeSet::new()));
    assert_eq!(down.touched().len(), 2);
    std::mem::take(&mut *two.deletes.lock().unwrap())
}

#[tokio::test]
async fn several_go_at_once_where_that_is_possible_and_one_by_one_where_not() {
    const BULK: &str = "DELETE /api/v0/instances/";
    const SINGLY: [&str; 2] = ["DELETE /api/v0/instances/1/", "DELETE /api/v0/instances/2/"];
    assert_eq!(kill_two(DONE, None).await, [BULK]);
    assert_eq!(
        kill_two((405, "no"), None).await,
        [&[BULK][..], &SINGLY].concat()
    );
    // Part of them may be gone: it is looked before it is tried again.
    for bulk in [
        (404, r#"{"success":false,"error":"no_such_instance"}"#),
        (500, "no"),
        (200, r#"{"success":false}"#),
        (403, "<html>Just a moment</html>"),
    ] {
        let deletes = kill_two(bulk, None).await;
        assert_eq!(deletes, [&[BULK, BULK][..], &SINGLY].concat(), "{bulk:?}");
    }
}

#[tokio::test]
async fn what_no_list_shows_and_is_there_all_the_same_is_destroyed_again() {
    let deletes = kill_two(DONE, Some("2")).await;
    assert_eq!(
        deletes,
        ["DELETE /api/v0/instances/", "DELETE /api/v0/instances/2/"]
    );
}
