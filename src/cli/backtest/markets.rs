//! Generated markets: haggle and the rules that people rent by, on the same ones.

use serde::Serialize;

use super::super::context::Context;
use super::super::failure::{Done, Exit, Failure};
use super::super::output::{Align, Output};
use super::super::page::leaf;
use super::super::sheet::Sheet;
use super::super::simulate::play_adapters;
use super::BacktestArgs;
use super::chart::{Bar, bars};
use super::parallel::in_parallel;
use super::shown::{Forms, show};
use crate::arena::{Family, Match, Played, Player, Recovery, Way, jobs, play};
use crate::types::spelling;

/// One family, or all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Families {
    One(Family),
    All,
}

pub(super) fn family(text: &str) -> Result<Families, String> {
    if text == "all" {
        return Ok(Families::All);
    }
    Family::named(text).map(Families::One).ok_or_else(|| {
        let names = Family::ALL.map(Family::as_str);
        let meant = spelling::nearest(text, names.into_iter());
        let meant = meant.map_or(String::new(), |name| format!("; did you mean `{name}`?"));
        format!("the families are {} and all{meant}", names.join(", "))
    })
}

#[derive(Debug, Serialize)]
struct Document {
    first_seed: u64,
    seeds: u64,
    days: u32,
    jobs: usize,
    families: Vec<FamilyDocument>,
    /// Over all families.
    overall: Vec<Standing>,
}

#[derive(Debug, Serialize)]
struct FamilyDocument {
    family: &'static str,
    /// The least that all of the work could cost on markets that nobody touches, per GPU-hour of it.
    bound_dollars_per_gpu_hour: f64,
    players: Vec<Standing>,
}

/// Sums over the markets.
#[derive(Debug, Serialize)]
struct Standing {
    player: &'static str,
    /// Of all of the work, what was left undone at the on-demand price.
    dollars_per_gpu_hour: f64,
    cost_dollars: f64,
    undone_dollars: f64,
    useful_gpu_hours: f64,
    jobs_done: usize,
    interruptions: u64,
    starts: u64,
    /// What haggle's work comes to over what its comes to.
    haggle_over_it: Option<f64>,
    /// Work that was done and lost, as a share of all that was done.
    lost_share: Option<f64>,
    /// From an outbid to a container that is up again, by how that came about.
    recoveries: Vec<RecoveryDocument>,
}

#[derive(Debug, Serialize)]
struct RecoveryDocument {
    /// Absent: in whatever way.
    way: Option<Way>,
    count: usize,
    p50_minutes: f64,
    p95_minutes: f64,
}

/// A market, and who plays; `None`: the bound.
type Task = (Family, u64, Option<Player>);

/// Days on each market where nothing is said, and at most.
const DAYS: u32 = 7;
const DAYS_MAX: u32 = 60;

pub(super) fn run(context: &Context, args: &BacktestArgs, threads: usize) -> Done {
    let days = args.days.unwrap_or(DAYS);
    if days > DAYS_MAX {
        return Err(Failure::mendable(format!(
            "--days {days} is more than generated markets are made for; right is up to {DAYS_MAX}"
        )));
    }
    let jobs = jobs().map_err(|why| Failure::world(format!("the jobs cannot be read: {why}")))?;
    let mut families: Vec<Family> = Vec::new();
    for asked in &args.market {
        let asked = match asked {
            Families::One(family) => vec![*family],
            Families::All => Family::ALL.to_vec(),
        };
        families.extend(asked);
    }
    families.sort();
    families.dedup();
    let players = || Player::ALL.into_iter().map(Some).chain([None]);
    let tasks: Vec<Task> = families
        .iter()
        .flat_map(|&family| (0..args.seeds).map(move |seed| (family, seed)))
        .flat_map(|(family, seed)| {
            players().map(move |player| (family, args.seed.wrapping_add(seed), player))
        })
        .collect();
    let one = |&(family, seed, player): &Task| -> Result<Played, String> {
        let what = Match {
            family,
            seed,
            days,
            jobs: jobs.clone(),
        };
        let Some(player) = player else {
            return Ok(Played {
                cost: what.bound(),
                ..Played::default()
            });
        };
        play(&what, player, &play_adapters).map_err(|why| {
            format!(
                "{} on {}, seed {seed}: {why}",
                player.as_str(),
                family.as_str()
            )
        })
    };
    let played = in_parallel(context.output, &tasks, threads, &one)?;
    let wanted = jobs.iter().filter_map(|job| job.work_mgpu_h);
    let wanted = wanted.sum::<i64>() as f64 / 1000.0;
    let document = Document {
        first_seed: args.seed,
        seeds: args.seeds,
        days,
        jobs: jobs.len(),
        families: families
            .iter()
            .map(|&family| family_document(family, &tasks, &played, wanted))
            .collect(),
        overall: standings(&tasks, &played, wanted, &|_| true),
    };
    let forms = Forms {
        text: &|| text(context.output, &document),
        csv: &|| csv(&document),
        page: &|| page(&document),
    };
    show(context, args, &document, &forms)?;
    Ok(Exit::Success)
}

/// One row a family and player, then one a player over all families.
fn csv(document: &Document) -> Result<Vec<u8>, Failure> {
    let mut sheet = Sheet::new([
        "family",
        "player",
        "dollars_per_gpu_hour",
        "bound_dollars_per_gpu_hour",
        "cost_dollars",
        "undone_dollars",
        "useful_gpu_hours",
        "jobs_done",
        "interruptions",
        "starts",
        "lost_share",
    ])?;
    let families = document.families.iter().map(|family| {
        let bound = family.bound_dollars_per_gpu_hour.to_string();
        (family.family, bound, &family.players)
    });
    for (family, bound, players) in families.chain([("all", String::new(), &document.overall)]) {
        for one in players {
            sheet.row([
                family,
                one.player,
                &one.dollars_per_gpu_hour.to_string(),
                &bound,
                &one.cost_dollars.to_string(),
                &one.undone_dollars.to_string(),
                &one.useful_gpu_hours.to_string(),
                &one.jobs_done.to_string(),
                &one.interruptions.to_string(),
                &one.starts.to_string(),
                &one.lost_share
                    .map_or(String::new(), |share| share.to_string()),
            ])?;
        }
    }
    sheet.taken()
}

/// A chart for each family, and one over all.
fn page(document: &Document) -> String {
    let mut body = format!(
        "<h1>Backtest on generated markets</h1>\n<p>{} markets of each family from seed {} on, {} days each, {} \
         jobs; dollars a GPU-hour of all the work, what was left undone at the on-demand price.</p>\n",
        document.seeds, document.first_seed, document.days, document.jobs
    );
    let bar = |one: &Standing| Bar {
        name: one.player.to_owned(),
        value: one.dollars_per_gpu_hour,
        spread: None,
    };
    let chart = |name: &str, players: &[Standing], bound: Option<f64>| {
        let all: Vec<Bar> = players.iter().map(bar).collect();
        let line = bound.map(|bound| ("no less is possible", bound));
        bars(name, "$", &all, line)
    };
    for family in &document.families {
        let bound = Some(family.bound_dollars_per_gpu_hour);
        body += &chart(family.family, &family.players, bound);
    }
    body += &chart("all families", &document.overall, None);
    leaf("haggle: backtest on generated markets", &body)
}

fn family_document(
    family: Family,
    tasks: &[Task],
    played: &[Played],
    wanted: f64,
) -> FamilyDocument {
    let bounds = tasks.iter().zip(played);
    let bounds = bounds.filter(|((of, _, player), _)| *of == family && player.is_none());
    let (sum, markets) = bounds.fold((0.0, 0.0), |(cost, markets), (_, bound)| {
        (cost + bound.cost, markets + 1.0)
    });
    FamilyDocument {
        family: family.as_str(),
        bound_dollars_per_gpu_hour: sum / (wanted * markets),
        players: standings(tasks, played, wanted, &|of| of == family),
    }
}

fn ratio(of: f64, by: f64) -> Option<f64> {
    (by > 0.0).then(|| of / by)
}

/// `wanted`: GPU-hours of work on each market.
fn standings(
    tasks: &[Task],
    played: &[Played],
    wanted: f64,
    of: &dyn Fn(Family) -> bool,
) -> Vec<Standing> {
    let sum = |player: Player| {
        let all = tasks.iter().zip(played);
        let its = all.filter(|((family, _, who), _)| of(*family) && *who == Some(player));
        its.fold((Played::default(), 0.0), |(sum, markets), (_, one)| {
            let mut recoveries = sum.recoveries;
            recoveries.extend(&one.recoveries);
            let sum = Played {
                cost: sum.cost + one.cost,
                undone_cost: sum.undone_cost + one.undone_cost,
                useful_gpu_hours: sum.useful_gpu_hours + one.useful_gpu_hours,
                done: sum.done + one.done,
                interruptions: sum.interruptions + one.interruptions,
                starts: sum.starts + one.starts,
                recoveries,
                lost_gpu_hours: sum.lost_gpu_hours + one.lost_gpu_hours,
            };
            (sum, markets + 1.0)
        })
    };
    let price = |(all, markets): &(Played, f64)| (all.cost + all.undone_cost) / (wanted * markets);
    let haggle = price(&sum(Player::Haggle));
    Player::ALL
        .into_iter()
        .map(|player| {
            let sum = sum(player);
            let all = &sum.0;
            Standing {
                player: player.as_str(),
                dollars_per_gpu_hour: price(&sum),
                undone_dollars: all.undone_cost,
                cost_dollars: all.cost,
                useful_gpu_hours: all.useful_gpu_hours,
                jobs_done: all.done,
                interruptions: all.interruptions,
                starts: all.starts,
                haggle_over_it: ratio(haggle, price(&sum)),
                lost_share: ratio(
                    all.lost_gpu_hours,
                    all.lost_gpu_hours + all.useful_gpu_hours,
                ),
                recoveries: recoveries(&all.recoveries),
            }
        })
        .collect()
}

/// Of all of them, then of each way that there was.
fn recoveries(all: &[Recovery]) -> Vec<RecoveryDocument> {
    let of = |way: Option<Way>| {
        let its = all
            .iter()
            .filter(|recovery| way.is_none_or(|way| recovery.way == way));
        let mut minutes: Vec<f64> = its.map(|recovery| recovery.ms as f64 / 60_000.0).collect();
        minutes.sort_by(f64::total_cmp);
        let last = minutes.len().checked_sub(1)?;
        // The nearest rank: a time that there was.
        let at = |share: f64| {
            minutes[((share * minutes.len() as f64).ceil() as usize).clamp(1, last + 1) - 1]
        };
        Some(RecoveryDocument {
            way,
            count: minutes.len(),
            p50_minutes: at(0.5),
            p95_minutes: at(0.95),
        })
    };
    let ways = Way::ALL.into_iter().map(Some);
    [None].into_iter().chain(ways).filter_map(of).collect()
}

fn recoveries_table(output: Output, standings: &[Standing]) -> String {
    let columns = [
        ("after an outbid", Align::Left),
        ("works again by", Align::Left),
        ("times", Align::Right),
        ("p50 minutes", Align::Right),
        ("p95 minutes", Align::Right),
    ];
    let rows = standings.iter().flat_map(|standing| {
        standing.recoveries.iter().map(|recovery| {
            let way = recovery.way.map_or("any way", Way::as_str);
            vec![
                standing.player.to_owned(),
                way.to_owned(),
                recovery.count.to_string(),
                format!("{:.1}", recovery.p50_minutes),
                format!("{:.1}", recovery.p95_minutes),
            ]
        })
    });
    output.table(&columns, rows.collect())
}

fn text(output: Output, document: &Document) -> String {
    let mut text = String::new();
    for family in &document.families {
        let bound = number(Some(family.bound_dollars_per_gpu_hour));
        text += &format!("{} (no less than ${bound} is possible)\n", family.family);
        text += &format!("{}\n\n", table(output, &family.players));
    }
    text += &format!("all\n{}\n\n", table(output, &document.overall));
    text += &format!("{}\n", recoveries_table(output, &document.overall));
    text
}

fn number(value: Option<f64>) -> String {
    value.map_or("-".to_owned(), |value| format!("{value:.4}"))
}

fn table(output: Output, standings: &[Standing]) -> String {
    let columns = [
        ("who", Align::Left),
        ("$ a GPU-hour of work", Align::Right),
        ("haggle over it", Align::Right),
        ("paid", Align::Right),
        ("undone", Align::Right),
        ("useful GPU-hours", Align::Right),
        ("jobs done", Align::Right),
        ("lost runs", Align::Right),
        ("work lost", Align::Right),
        ("instances", Align::Right),
    ];
    let rows = standings.iter().map(|standing| {
        vec![
            standing.player.to_owned(),
            number(Some(standing.dollars_per_gpu_hour)),
            number(standing.haggle_over_it),
            format!("${:.2}", standing.cost_dollars),
            format!("${:.2}", standing.undone_dollars),
            format!("{:.1}", standing.useful_gpu_hours),
            standing.jobs_done.to_string(),
            standing.interruptions.to_string(),
            standing
                .lost_share
                .map_or("-".to_owned(), |share| format!("{:.1} %", share * 100.0)),
            standing.starts.to_string(),
        ]
    });
    output.table(&columns, rows.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn recoveries_are_told_by_their_nearest_ranks() {
        let of = |way, minutes: i64| Recovery {
            way,
            ms: minutes * 60_000,
        };
        let mut all: Vec<Recovery> = (1..=20).map(|minutes| of(Way::Moved, minutes)).collect();
        all.push(of(Way::Raised, 100));
        let told = recoveries(&all);
        let told: Vec<_> = told
            .iter()
            .map(|one| (one.way, one.count, one.p50_minutes, one.p95_minutes))
            .collect();
        assert_eq!(
            told,
            [
                (None, 21, 11.0, 20.0),
                (Some(Way::Raised), 1, 100.0, 100.0),
                (Some(Way::Moved), 20, 10.0, 19.0),
            ]
        );
        assert!(recoveries(&[]).is_empty());
    }

    #[test]
    fn everybody_works_on_the_same_market_and_is_charged_for_the_same_work() {
        let what = Match {
            family: Family::Scarce,
            seed: 1,
            days: 1,
            jobs: jobs().unwrap().into_iter().take(2).collect(),
        };
        let wanted: i64 = what.jobs.iter().filter_map(|job| job.work_mgpu_h).sum();
        let wanted = wanted as f64 / 1000.0;
        let bound = what.bound();
        assert!(bound > 0.0);
        for player in Player::ALL {
            let played = play(&what, player, &play_adapters).unwrap();
            let who = player.as_str();
            assert!(played.useful_gpu_hours > 5.0, "{who}: {played:?}");
            assert!(
                played.useful_gpu_hours < wanted,
                "{who}: there is more than a day's work"
            );
            assert!(played.starts > 0 && played.cost > 0.0, "{who}: {played:?}");
            assert!(played.undone_cost > 0.0, "{who}: {played:?}");
            let all = played.cost + played.undone_cost;
            assert!(
                all > 0.5 * bound,
                "{who}: {all} for what costs {bound} at least"
            );
        }
    }
}
