//! Runners from the daemon's side: what is given to one that is made, and what it tells.

use std::collections::BTreeMap;
use std::time::Duration;

use secrecy::{ExposeSecret, SecretString};

use super::Daemon;
use super::poll::Polled;
use crate::engine::hear::Heard;
use crate::engine::lease::{first_tail, term};
use crate::ports::ReadError;
use crate::runner::{Delivery, Expected, From, Run, fetch_lines, gpu_mark, kept_key, key_of, told};
use crate::types::ids::{InstanceId, Label, OfferId, Permit, Tail};
use crate::types::instance::{Held, Phase};
use crate::types::job::{Job, Runner};
use crate::types::offer::Offer;
use crate::types::time::Mono;

/// For so long after it stopped the log of one is tried to be read once more.
const LAST_WORDS: Duration = Duration::from_mins(10);

/// So many logs are read between two decisions; each takes the marketplace some requests.
const LOGS_A_TICK: usize = 8;

/// And so many of those that stand still, after them: one that cannot be read any more takes nothing from what
/// runs.
const STOPPED_A_TICK: usize = 8;

/// So many lines are read of each: more than a runner writes between two reads, beside a command that
/// writes some.
const LINES: u32 = 1000;

/// No further log is begun on after so long.
const HEARING_MAX: Duration = Duration::from_secs(15);

/// What of an advertised figure suffices, in percent.
const ENOUGH_PERCENT: u32 = 70;

/// What is given to an instance with a runner.
pub(super) struct Given {
    /// The label's tail; `None`: it works whatever its label says.
    pub(super) tail: Option<Tail>,
    /// The script and its entries of the environment.
    pub(super) delivery: Delivery,
}

impl Daemon {
    /// What an instance that is about to be made is given beside the environment that its policy
    /// names, which takes so many characters. `None`: the job has no runner.
    pub(super) fn given(
        &self,
        job: &Job,
        (label, generation): (&Label, u32),
        offer: OfferId,
        characters: usize,
        control: Option<&SecretString>,
        old: Option<&Held>,
    ) -> Result<Option<Given>, String> {
        let Some(runner) = &job.run.runner else {
            return Ok(None);
        };
        let offer = self.market.offers.iter().find(|row| row.id == offer);
        let run = Run {
            label: label.clone(),
            generation: generation.into(),
            key: key_of(&self.parts.run_secret, label),
            command: runner.command.clone(),
            lease: term(&self.settings.engine, runner),
            checkpoint: runner.checkpoint.clone(),
            sync_every: runner.sync_every,
            outputs: runner.outputs.clone(),
            progress: runner.progress.clone(),
            control: control.map(|address| address.expose_secret().to_owned()),
            inputs: runner.inputs.len() as u32,
            // Without a document they travel with the run.
            fetch: fetch_lines(&runner.inputs).filter(|_| control.is_none()),
            kept: runner.carries().map(|(kept, _)| kept),
            from: old.zip(runner.carries()).map(|(old, (_, dir))| {
                let label = old.label(&self.state.installation);
                let key = kept_key(&key_of(&self.parts.run_secret, &label));
                let run = old.intent;
                From { run, key, dir }
            }),
            grace: runner.grace,
            linger: runner.linger,
            looks: runner.looks,
            expected: expected(runner, offer),
        };
        let delivery = run.deliver(characters).map_err(|error| error.to_string())?;
        let permit = if old.is_some() {
            Permit::Hold
        } else {
            Permit::Go
        };
        let first = (generation, permit);
        let tail = first_tail(&self.settings.engine, runner, first, self.now());
        Ok(Some(Given { tail, delivery }))
    }

    /// Reads the logs of instances with a runner that run, those first that were not tried for longest.
    /// What cannot be read is not heard, and tells nothing.
    pub(super) async fn hear(&mut self, polled: &Polled) -> BTreeMap<InstanceId, Heard> {
        let mut heard = BTreeMap::new();
        let begun = self.parts.clock.monotonic();
        let known = &self.state.held;
        self.logs_tried.retain(|id, _| known.contains_key(id));
        for (instance, key) in self.to_hear(polled) {
            // A tick has limits to hold, which do not wait for logs.
            if self.parts.clock.monotonic().since(begun) >= HEARING_MAX {
                break;
            }
            let tried = self.parts.clock.monotonic();
            self.logs_tried.insert(instance, tried);
            let log = match self.parts.marketplace.logs(instance, LINES).await {
                Ok(log) => log,
                Err(ReadError::Throttled { .. }) => break,
                Err(error) => {
                    tracing::debug!("the log of instance {instance} cannot be read: {error}");
                    continue;
                }
            };
            if let Some(held) = self.state.held.get(&instance) {
                for observer in &mut self.parts.observers {
                    observer.logged(held, &log);
                }
            }
            let text = String::from_utf8_lossy(&log);
            let lines = text.lines().filter_map(|line| told(line, &key));
            let mut lines: Vec<_> = lines.collect();
            let signs = !lines.is_empty();
            lines.retain(|line| line.signed);
            let at = self.now();
            let whole = text.lines().count() < LINES as usize;
            let all = Heard {
                at,
                lines,
                mark: gpu_mark(&text),
                signs,
                whole,
            };
            heard.insert(instance, all);
        }
        heard
    }

    /// Whether the log of one that stands still is to be read once more: its command may have ended before
    /// it was outbid, and what it kept last on its disk is what another one goes on with. Whether a log can
    /// be read then is not promised.
    fn may_have_said_more(&self, held: &Held) -> bool {
        let Some(view) = &held.runner else {
            return false;
        };
        let stopped = held.phase == Phase::Stopped;
        let young = self.now().since(held.phase_since) < LAST_WORDS;
        stopped && young && view.read_at.is_none_or(|at| at < held.phase_since)
    }

    /// The instances whose logs are to be read, with the keys of their runs.
    fn to_hear(&self, polled: &Polled) -> Vec<(InstanceId, String)> {
        let Some(listing) = &polled.listing else {
            return Vec::new();
        };
        let rows = listing.rows.iter();
        let known = rows.filter_map(|row| Some((row.phase(), self.state.held.get(&row.id)?)));
        let held = known
            .filter(|(phase, held)| match phase {
                Phase::Running | Phase::Exited => true,
                Phase::Stopped => self.may_have_said_more(held),
                // Whether it works its row does not say; its log may.
                Phase::Unclear => held.first_ran_at.is_some(),
                Phase::Provisioning | Phase::Offline => false,
            })
            .filter(|(_, held)| held.runner.is_some() && held.destroying.is_none());
        in_turn(held.collect(), &self.logs_tried)
            .into_iter()
            .map(|held| {
                let label = held.label(&self.state.installation);
                (held.id, key_of(&self.parts.run_secret, &label))
            })
            .collect()
    }
}

/// Whose logs are read in a tick: of those that run, and then of those that stand still, those that were not
/// tried for longest. A try that failed is one, too.
fn in_turn<'a>(held: Vec<(Phase, &'a Held)>, tried: &BTreeMap<InstanceId, Mono>) -> Vec<&'a Held> {
    let of = |stands: bool, most: usize| {
        let of_it = held
            .iter()
            .filter(|(phase, _)| (*phase == Phase::Stopped) == stands);
        let mut of_it: Vec<&'a Held> = of_it.map(|(_, held)| *held).collect();
        of_it.sort_by_key(|held| (tried.get(&held.id).copied(), held.id));
        of_it.truncate(most);
        of_it
    };
    let mut all = of(false, LOGS_A_TICK);
    all.extend(of(true, STOPPED_A_TICK));
    all
}

/// What the machine of an offer should have; `None`: it is not tried.
fn expected(runner: &Runner, offer: Option<&Offer>) -> Option<Expected> {
    let offer = offer.filter(|_| runner.preflight)?;
    Some(Expected {
        gpus: Some(offer.gpus),
        model: number_of(&offer.gpu_name),
        vram: offer.gpu_ram_mb,
        disk: offer.disk_mb_s.map(|speed| speed as u32),
        download: None,
        percent: ENOUGH_PERCENT,
    })
}

/// The number in a model's name, which the driver's name for it has too, whatever else they differ in:
/// `RTX 4070S Ti` is `NVIDIA GeForce RTX 4070 Ti SUPER`. A single digit is too little to go by.
fn number_of(model: &str) -> Option<String> {
    model
        .split(|c: char| !c.is_ascii_digit())
        .filter(|digits| digits.len() >= 2)
        .max_by_key(|digits| digits.len())
        .map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::eligible::samples::{held, job, offer, usd};

    #[test]
    fn logs_that_cannot_be_read_keep_no_others_from_their_turn() {
        let job = job("a");
        let all: Vec<Held> = (1..=22)
            .map(|id| held(id, &job, &offer(id), usd(0.2)))
            .collect();
        let phase = |held: &Held| match held.id.0 {
            1..=12 => Phase::Stopped,
            _ => Phase::Running,
        };
        let mut tried: BTreeMap<InstanceId, Mono> = BTreeMap::new();
        let mut turns = Vec::new();
        for turn in 0..3_u64 {
            let rows = all.iter().map(|held| (phase(held), held)).collect();
            let read: Vec<u64> = in_turn(rows, &tried).iter().map(|held| held.id.0).collect();
            // None of them can be read; it counts all the same.
            let at = Mono(turn * 60_000);
            tried.extend(read.iter().map(|&id| (InstanceId(id), at)));
            turns.push(read);
        }
        let numbers = |from: u64, to: u64| (from..=to).collect::<Vec<u64>>();
        let first = [numbers(13, 20), numbers(1, 8)].concat();
        let second = [vec![21, 22], numbers(13, 18), numbers(9, 12), numbers(1, 4)].concat();
        assert_eq!(turns[0], first);
        assert_eq!(turns[1], second);
        assert_eq!(turns[2][..4], [19, 20, 13, 14]);
        assert_eq!(turns[2][8..], [numbers(5, 8), numbers(1, 4)].concat());
    }

    #[test]
    fn models_are_known_by_their_number() {
        for (ours, drivers) in [
            ("RTX 4090", "NVIDIA GeForce RTX 4090"),
            ("RTX 4070S Ti", "NVIDIA GeForce RTX 4070 Ti SUPER"),
            ("RTX 6000Ada", "NVIDIA RTX 6000 Ada Generation"),
            ("A100 SXM4", "NVIDIA A100-SXM4-40GB"),
            ("H100 NVL", "NVIDIA H100 NVL"),
            ("L40S", "NVIDIA L40S"),
        ] {
            let number = number_of(ours).unwrap();
            assert!(drivers.contains(&number), "{ours}");
        }
        assert_eq!(number_of("T4"), None);
    }
}
