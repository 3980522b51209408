//! The quota is kept, and everything has its turn.

use proptest::prelude::*;

use super::*;
use crate::types::job::RentalChoice;

fn job(models: &[&str], rental: RentalChoice) -> Arc<Job> {
    let text = "name = \"a\"\nfinish = \"never\"\n[run]\nimage = \"a:1\"\n[gpu]\ncount = 1\n\
                [price]\nmax = \"$1/gpu-hour\"\n[data]\ndisposable = true\n";
    let mut job = crate::policy::parse("a.toml", text).unwrap();
    job.requirements.gpu_models = models.iter().map(|&model| model.to_owned()).collect();
    job.rental = rental;
    Arc::new(job)
}

const MINUTE: u64 = 60_000;

/// Polls within which everything has its turn: two dozen searches that are each dearer than the quota,
/// and polls that come several within a minute.
const TURN_WITHIN: usize = 120;

struct World {
    jobs: Vec<Arc<Job>>,
    own: BTreeSet<MachineId>,
    history_every: Option<Duration>,
}

impl World {
    fn wanted<'a>(&'a self, market: &'a Snapshot, patient: bool) -> Wanted<'a> {
        Wanted {
            jobs: &self.jobs,
            own: &self.own,
            market,
            again_after: Duration::from_secs(30),
            history_every: self.history_every,
            patient,
        }
    }
}

/// Asks a round's searches, each of which returns so many rows.
fn ask(
    searches: &mut Searches,
    now: Mono,
    round: &Round,
    rows: &dyn Fn(&OfferQuery) -> usize,
) -> u32 {
    let mut cost = 0;
    for query in &round.asked {
        searches.asked(query, now, Some(rows(query)));
        cost += pages(rows(query));
    }
    cost
}

#[test]
fn a_page_more_is_a_search_more() {
    assert_eq!([0, 62, 63, 64, 125, 126].map(pages), [1, 1, 2, 2, 2, 3]);
}

#[test]
fn models_share_a_search_until_its_rows_do_not_fit_a_page() {
    let world = World {
        jobs: vec![job(
            &["RTX 3080", "RTX 3090", "RTX 4090"],
            RentalChoice::OnDemand,
        )],
        own: BTreeSet::new(),
        history_every: None,
    };
    let (market, mut searches) = (Snapshot::default(), Searches::default());
    let first = searches.round(Mono(0), &world.wanted(&market, false));
    assert_eq!(first.asked.len(), 1, "{:#?}", first.asked);
    assert_eq!(first.asked[0].bounds.gpu_names.len(), 3);
    searches.asked(&first.asked[0], Mono(0), Some(100));
    let second = searches.round(Mono(2 * MINUTE), &world.wanted(&market, false));
    assert_eq!(second.asked.len(), 2, "{:#?}", second.asked);
    // And not back again, however few rows the parts return.
    ask(&mut searches, Mono(2 * MINUTE), &second, &|_| 5);
    let third = searches.round(Mono(4 * MINUTE), &world.wanted(&market, false));
    let of = |round: &Round| round.asked.iter().cloned().collect::<BTreeSet<_>>();
    assert_eq!(of(&third), of(&second));
}

#[test]
fn what_was_asked_a_moment_ago_is_not_asked_again() {
    let world = World {
        jobs: vec![job(&["RTX 3080"], RentalChoice::Auto)],
        own: BTreeSet::new(),
        history_every: None,
    };
    let (market, mut searches) = (Snapshot::default(), Searches::default());
    let first = searches.round(Mono(0), &world.wanted(&market, false));
    ask(&mut searches, Mono(0), &first, &|_| 5);
    let early = searches.round(Mono(10_000), &world.wanted(&market, false));
    assert_eq!(
        (early.asked.len(), early.waiting.len(), early.deferred),
        (0, 2, 0)
    );
    let due = searches.round(Mono(MINUTE), &world.wanted(&market, false));
    assert_eq!(due.asked.len(), 2);
}

#[test]
fn the_first_poll_asks_everything_and_history_once_in_a_while() {
    let world = World {
        jobs: vec![job(&["RTX 3080", "RTX 3090"], RentalChoice::Auto)],
        own: BTreeSet::from([MachineId(7)]),
        history_every: Some(Duration::from_mins(5)),
    };
    let (market, mut searches) = (Snapshot::default(), Searches::default());
    let first = searches.round(Mono(0), &world.wanted(&market, true));
    assert!(first.waiting.is_empty(), "{first:#?}");
    let history = |searches: &Searches, round: &Round| {
        let asked = round.asked.iter();
        asked.filter(|query| searches.is_for_history(query)).count()
    };
    assert_eq!(history(&searches, &first), 2);
    ask(&mut searches, Mono(0), &first, &|_| 5);
    let mut made = Vec::new();
    for minute in 1..=30 {
        let now = Mono(minute * MINUTE);
        let round = searches.round(now, &world.wanted(&market, false));
        assert!(
            round.asked.iter().any(|query| query.open),
            "our own, always"
        );
        made.push(history(&searches, &round));
        ask(&mut searches, now, &round, &|_| 5);
    }
    assert_eq!(made.iter().sum::<usize>(), 6, "{made:?}");
    assert!(made.iter().all(|&count| count <= 1));
}

/// Polls until each of so many models of so many rows had a second turn after its first, at most.
fn longest_wait(models: usize, rows: usize, own: u64) -> usize {
    let models: Vec<String> = (0..models).map(|n| format!("GPU {n:02}")).collect();
    let named: Vec<&str> = models.iter().map(String::as_str).collect();
    let world = World {
        jobs: vec![job(&named, RentalChoice::Auto)],
        own: (0..own).map(MachineId).collect(),
        history_every: Some(Duration::from_secs(60)),
    };
    let (market, mut searches) = (Snapshot::default(), Searches::default());
    let mut last: BTreeMap<(Market, String), usize> = BTreeMap::new();
    let mut longest = 0;
    for poll in 0..600 {
        let now = Mono((poll as u64 + 1) * 40_000);
        let round = searches.round(now, &world.wanted(&market, false));
        ask(&mut searches, now, &round, &|query| {
            names(query).count() * rows
        });
        let asked = round.asked.iter();
        for query in asked.filter(|query| !searches.is_for_history(query)) {
            last.extend(names(query).map(|name| ((query.market, name.clone()), poll)));
        }
        for market in [Market::OnDemand, Market::Bid] {
            for model in &models {
                let turn = last.get(&(market, model.clone()));
                longest = longest.max(poll - turn.copied().unwrap_or(0));
            }
        }
    }
    longest
}

#[test]
fn new_mixtures_of_models_do_not_go_before_what_waits() {
    assert!(longest_wait(10, 700, 65) <= TURN_WITHIN);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(10))]

    /// However many models and machines there are, how dear their searches are and when polls come:
    /// the quota is kept, but for a search that is alone dearer, and all have their turn.
    #[test]
    fn the_quota_is_kept_and_everything_has_its_turn(
        models in 1_usize..12,
        own in 0_u64..80,
        history in any::<bool>(),
        rows in prop::collection::vec(0_usize..700, 7),
        gaps in prop::collection::vec(5_000_u64..90_000, 150..=150),
    ) {
        let models: Vec<String> = (0..models).map(|n| format!("GPU {n:02}")).collect();
        let named: Vec<&str> = models.iter().map(String::as_str).collect();
        let world = World {
            jobs: vec![job(&named, RentalChoice::Auto)],
            own: (0..own).map(MachineId).collect(),
            history_every: history.then_some(Duration::from_secs(60)),
        };
        // Each model has its rows, whichever search they come with.
        let rows_of = |query: &OfferQuery| -> usize {
            let of = |name: &String| rows[name.bytes().map(usize::from).sum::<usize>() % rows.len()];
            names(query).map(of).sum()
        };
        let (market, mut searches) = (Snapshot::default(), Searches::default());
        let mut now = Mono(0);
        let mut made: Vec<(u64, u32)> = Vec::new();
        let mut last: BTreeMap<(Market, String), usize> = BTreeMap::new();
        for (poll, gap) in gaps.iter().enumerate() {
            now = Mono(now.0 + gap);
            let round = searches.round(now, &world.wanted(&market, false));
            let known = |query: &OfferQuery| pages(searches.expected_rows(query, &market, &searches.answers()));
            let within: u32 = made.iter().filter(|(at, _)| now.0 - at < MINUTE).map(|(_, cost)| cost).sum();
            for of_own in [true, false] {
                let class: Vec<&OfferQuery> = round.asked.iter().filter(|q| q.open == of_own).collect();
                let cost: u32 = class.iter().map(|query| known(query)).sum();
                // One that does not fit goes as the first of its class.
                let beyond = class.first().is_some_and(|first| known(first) + within > PAGES_PER_MINUTE - MARKET_PAGES_MIN);
                prop_assert!(cost == 0 || beyond || within + cost <= PAGES_PER_MINUTE, "{cost} after {within}");
            }
            prop_assert!(round.asked.len() as u32 <= PAGES_PER_MINUTE + 1);
            let cost = ask(&mut searches, now, &round, &rows_of);
            made.push((now.0, cost));
            for query in round.asked.iter().filter(|query| !searches.is_for_history(query)) {
                last.extend(names(query).map(|name| ((query.market, name.clone()), poll)));
            }
        }
        for market in [Market::OnDemand, Market::Bid] {
            for model in &models {
                let turn = last.get(&(market, model.clone()));
                prop_assert!(turn.is_some_and(|turn| gaps.len() - turn <= TURN_WITHIN), "{turn:?} {model}");
            }
        }
    }
}
