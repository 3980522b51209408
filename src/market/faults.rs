//! What can go wrong on the wire, by chance or on cue.
//!
//! A client has to survive each of these: replies that come late, never, twice as an error though
//! the request took effect, as nonsense, or well-formed and empty. Chance is drawn from a seed, one
//! draw a request, so that a run repeats.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// One thing that goes wrong with one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Fault {
    /// A 5xx; the request had no effect.
    ErrorBefore,
    /// A 5xx, though the request took effect.
    ErrorAfter,
    /// No reply ever; the request had no effect.
    TimeoutBefore,
    /// No reply ever, though the request took effect.
    TimeoutAfter,
    /// A 200 whose body is no JSON; the request took effect.
    Garbage,
    /// A listing that is well-formed and empty. Requests that are no listing are answered as ever.
    Empty,
    /// A 429; the request had no effect.
    Throttled,
    /// A 429 that ends searches until midnight. Requests that are no search are answered as ever.
    SearchQuota,
    /// A web page in place of the answer; the request took effect.
    Html,
    /// A body that ends in the middle; the request took effect.
    Truncated,
    /// A listing that lacks rows or pages, though the total that it tells is the old one.
    Partial,
    /// A body that is right under a content type that is not.
    ContentType,
    /// An earlier answer to the same read.
    Stale,
    /// `Date` and the moments in the answer are those of a clock that is off.
    Skewed,
    /// A request that arrives twice; one of the two answers comes back.
    Duplicated,
    /// The key was deleted; the request had no effect.
    KeyDeleted,
    /// The key's second factor has expired, which reads like something that is not found; the
    /// request had no effect.
    SessionExpired,
}

impl Fault {
    /// Every fault, with its key in a [`FaultSpec`].
    const KEYS: [(&'static str, Self); 17] = [
        ("5xx-before", Self::ErrorBefore),
        ("5xx-after", Self::ErrorAfter),
        ("timeout-before", Self::TimeoutBefore),
        ("timeout-after", Self::TimeoutAfter),
        ("garbage", Self::Garbage),
        ("empty", Self::Empty),
        ("429", Self::Throttled),
        ("quota", Self::SearchQuota),
        ("html", Self::Html),
        ("truncated", Self::Truncated),
        ("partial", Self::Partial),
        ("content-type", Self::ContentType),
        ("stale", Self::Stale),
        ("skew", Self::Skewed),
        ("duplicated", Self::Duplicated),
        ("key-deleted", Self::KeyDeleted),
        ("session-expired", Self::SessionExpired),
    ];

    /// Its key in a [`FaultSpec`].
    pub fn as_str(self) -> &'static str {
        Self::KEYS
            .iter()
            .find(|(_, fault)| *fault == self)
            .map_or("", |(key, _)| key)
    }
}

/// How often each fault happens, and how late replies are.
///
/// Read from a text such as `latency=20ms..200ms,5xx=2%,timeout-after=1%`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct FaultSpec {
    /// Least and greatest delay of a reply, in real time; only a real connection obeys it.
    latency: Option<(Duration, Duration)>,
    /// Chances in [0, 1], adding up to at most 1.
    chances: BTreeMap<Fault, f64>,
}

/// What a fault specification may hold; ends every error about one.
const SPEC_HELP: &str = "a fault specification is a comma-separated list of `latency=200ms` or \
    `latency=20ms..200ms`, and of chances per request in percent: `5xx=2%` (half of them after \
    the request took effect), `5xx-before`, `5xx-after`, `timeout-before`, `timeout-after`, \
    `garbage`, `html`, `truncated`, `content-type`, `empty`, `partial`, `stale`, `skew`, \
    `duplicated`, `429`, `quota`, `key-deleted`, `session-expired`; `none` is no faults";

/// Why a text is no fault specification, with what would be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{part}`: {why}; {SPEC_HELP}")]
pub struct FaultSpecError {
    part: String,
    why: String,
}

impl FaultSpec {
    /// The delay bounds.
    pub fn latency(&self) -> Option<(Duration, Duration)> {
        self.latency
    }

    /// The chance of a fault.
    pub fn chance(&self, fault: Fault) -> f64 {
        self.chances.get(&fault).copied().unwrap_or(0.0)
    }

    /// Whether nothing is asked for.
    pub fn is_none(&self) -> bool {
        self.latency.is_none() && self.chances.values().all(|&chance| chance == 0.0)
    }

    fn add(&mut self, key: &str, value: &str) -> Result<(), String> {
        if key == "latency" {
            return self.set_latency(value);
        }
        let shares: Vec<(Fault, f64)> = if key == "5xx" {
            vec![(Fault::ErrorBefore, 0.5), (Fault::ErrorAfter, 0.5)]
        } else {
            let known = Fault::KEYS.iter().find(|(known, _)| *known == key);
            let (_, fault) = known.ok_or_else(|| format!("there is no fault `{key}`"))?;
            vec![(*fault, 1.0)]
        };
        let chance = percent(value)?;
        for (fault, share) in shares {
            let sum = self.chances.entry(fault).or_insert(0.0);
            // The same chance given twice is more likely a slip than a sum.
            if *sum != 0.0 {
                return Err(format!("`{}` is given twice", fault.as_str()));
            }
            *sum = chance * share;
        }
        Ok(())
    }

    fn set_latency(&mut self, value: &str) -> Result<(), String> {
        if self.latency.is_some() {
            return Err("`latency` is given twice".to_owned());
        }
        let duration = |text: &str| {
            humantime::parse_duration(text.trim())
                .map_err(|_| format!("`{}` is not a duration with a unit", text.trim()))
        };
        let (least, most) = value.split_once("..").unwrap_or((value, value));
        let (least, most) = (duration(least)?, duration(most)?);
        if least > most {
            return Err("the first delay is longer than the second".to_owned());
        }
        self.latency = Some((least, most));
        Ok(())
    }
}

fn percent(text: &str) -> Result<f64, String> {
    let number = text
        .strip_suffix('%')
        .and_then(|number| number.trim().parse::<f64>().ok())
        .filter(|number| (0.0..=100.0).contains(number));
    number
        .map(|number| number / 100.0)
        .ok_or_else(|| format!("`{text}` is not a percentage from 0% to 100%"))
}

impl FromStr for FaultSpec {
    type Err = FaultSpecError;
    fn from_str(text: &str) -> Result<Self, FaultSpecError> {
        let mut spec = Self::default();
        if matches!(text.trim(), "" | "none") {
            return Ok(spec);
        }
        for part in text.split(',').map(str::trim) {
            let added = part
                .split_once('=')
                .ok_or_else(|| "there is no `=`".to_owned())
                .and_then(|(key, value)| spec.add(key.trim(), value.trim()));
            added.map_err(|why| FaultSpecError {
                part: part.to_owned(),
                why,
            })?;
        }
        let sum: f64 = spec.chances.values().sum();
        if sum > 1.0 + 1e-9 {
            return Err(FaultSpecError {
                part: text.to_owned(),
                why: format!("the chances add up to {:.1}%, over 100%", sum * 100.0),
            });
        }
        Ok(spec)
    }
}

impl fmt::Display for FaultSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut parts = Vec::new();
        if let Some((least, most)) = self.latency {
            let [least, most] = [least, most].map(humantime::format_duration);
            parts.push(format!("latency={least}..{most}"));
        }
        for (fault, chance) in &self.chances {
            parts.push(format!("{}={}%", fault.as_str(), chance * 100.0));
        }
        match parts.as_slice() {
            [] => f.write_str("none"),
            parts => f.write_str(&parts.join(",")),
        }
    }
}

/// Faults on cue: the k-th request, counted from 1, meets this one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FaultScript(BTreeMap<u64, Fault>);

impl FaultScript {
    /// A script of (number of the request, fault) pairs.
    pub fn new(cues: impl IntoIterator<Item = (u64, Fault)>) -> Self {
        Self(cues.into_iter().collect())
    }
}

/// The faults of a running server: what the script says, else what chance brings.
#[derive(Debug)]
pub struct Faults {
    spec: FaultSpec,
    script: FaultScript,
    rng: ChaCha8Rng,
    /// Delays have a generator of their own: a server that obeys them and one that does not then
    /// meet the same faults.
    latency_rng: ChaCha8Rng,
    enabled: bool,
    requests: u64,
    met: BTreeMap<Fault, u64>,
}

impl Faults {
    /// Faults by chance from a seed, and on cue.
    pub fn new(spec: FaultSpec, script: FaultScript, seed: u64) -> Self {
        Self {
            spec,
            script,
            rng: ChaCha8Rng::seed_from_u64(seed),
            latency_rng: ChaCha8Rng::seed_from_u64(seed ^ 0x6c61_7465),
            enabled: true,
            requests: 0,
            met: BTreeMap::new(),
        }
    }

    /// No faults.
    pub fn none() -> Self {
        Self::new(FaultSpec::default(), FaultScript::default(), 0)
    }

    /// Turns all faults off, or on again. Requests are counted all the same.
    pub fn set_enabled(&mut self, enabled: bool) {
        self.enabled = enabled;
    }

    /// What goes wrong by chance.
    pub fn spec(&self) -> &FaultSpec {
        &self.spec
    }

    /// Changes what goes wrong by chance. What is drawn for a request stays the same.
    pub fn set_spec(&mut self, spec: FaultSpec) {
        self.spec = spec;
    }

    /// Whether a fault can happen at all.
    pub(crate) fn may(&self, fault: Fault) -> bool {
        self.spec.chance(fault) > 0.0 || self.script.0.values().any(|cue| *cue == fault)
    }

    /// How many requests there were.
    pub fn requests(&self) -> u64 {
        self.requests
    }

    /// How many requests met each fault so far, by its key. A fault that needs a listing or a search
    /// is counted for other requests too, which it leaves as they are.
    pub fn met(&self) -> BTreeMap<&'static str, u64> {
        self.met
            .iter()
            .map(|(fault, &count)| (fault.as_str(), count))
            .collect()
    }

    /// Counts a request and says what goes wrong with it.
    pub(crate) fn next_request(&mut self) -> Option<Fault> {
        let fault = self.drawn();
        if let Some(fault) = fault {
            *self.met.entry(fault).or_default() += 1;
        }
        fault
    }

    fn drawn(&mut self) -> Option<Fault> {
        self.requests += 1;
        // Drawn even where it is not used, so that switching faults off and on does not shift
        // what later requests meet.
        let mut draw: f64 = self.rng.random();
        if !self.enabled {
            return None;
        }
        if let Some(&fault) = self.script.0.get(&self.requests) {
            return Some(fault);
        }
        for (&fault, &chance) in &self.spec.chances {
            if draw < chance {
                return Some(fault);
            }
            draw -= chance;
        }
        None
    }

    /// How late the next reply is, in real time.
    pub(crate) fn next_latency(&mut self) -> Option<Duration> {
        let (least, most) = self.spec.latency.filter(|_| self.enabled)?;
        let part: f64 = self.latency_rng.random();
        Some(least + most.saturating_sub(least).mul_f64(part))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn spec(text: &str) -> FaultSpec {
        text.parse().unwrap()
    }

    #[test]
    fn a_specification_is_read_whole() {
        let read = spec(
            "latency=20ms..200ms, 5xx=2%,timeout-before=1%,timeout-after=0.5%,garbage=1%,empty=3%,429=4%",
        );
        assert_eq!(
            read.latency(),
            Some((Duration::from_millis(20), Duration::from_millis(200)))
        );
        assert_eq!(read.chance(Fault::ErrorBefore), 0.01);
        assert_eq!(read.chance(Fault::ErrorAfter), 0.01);
        assert_eq!(read.chance(Fault::TimeoutAfter), 0.005);
        assert_eq!(read.chance(Fault::Throttled), 0.04);
        assert_eq!(spec(&read.to_string()), read);
        assert!(spec("none").is_none() && spec("").is_none() && spec("429=0%").is_none());
    }

    #[test]
    fn a_wrong_specification_is_told_what_is_right() {
        for (text, part, why) in [
            (
                "5xx=2%,latncy=3ms",
                "latncy=3ms",
                "there is no fault `latncy`",
            ),
            ("5xx", "5xx", "no `=`"),
            ("5xx=2", "5xx=2", "`2` is not a percentage"),
            ("429=101%", "429=101%", "`101%` is not a percentage"),
            ("429=NaN%", "429=NaN%", "`NaN%` is not a percentage"),
            ("latency=200", "latency=200", "`200` is not a duration"),
            (
                "latency=2s..1s",
                "latency=2s..1s",
                "the first delay is longer",
            ),
            (
                "garbage=1%,garbage=1%",
                "garbage=1%",
                "`garbage` is given twice",
            ),
            (
                "5xx=2%,5xx-after=1%",
                "5xx-after=1%",
                "`5xx-after` is given twice",
            ),
            (
                "garbage=60%,empty=60%",
                "garbage=60%,empty=60%",
                "add up to 120.0%",
            ),
        ] {
            let error = text.parse::<FaultSpec>().unwrap_err().to_string();
            assert!(error.starts_with(&format!("`{part}`: ")), "{error}");
            assert!(error.contains(why), "{error}");
            assert!(
                error.contains("timeout-before"),
                "lists what is right: {error}"
            );
        }
    }

    #[test]
    fn the_same_seed_brings_the_same_faults_at_about_the_asked_rate() {
        let run = |seed| {
            let mut faults = Faults::new(spec("5xx=10%,empty=5%"), FaultScript::default(), seed);
            (0..4000).map(|_| faults.next_request()).collect::<Vec<_>>()
        };
        let first = run(7);
        assert_eq!(first, run(7));
        assert_ne!(first, run(8));
        let count = |fault| first.iter().filter(|f| **f == Some(fault)).count();
        for (fault, expected) in [
            (Fault::ErrorBefore, 200),
            (Fault::ErrorAfter, 200),
            (Fault::Empty, 200),
        ] {
            assert!(
                count(fault).abs_diff(expected) < 70,
                "{fault:?}: {}",
                count(fault)
            );
        }
        assert_eq!(count(Fault::Garbage), 0);
    }

    #[test]
    fn a_script_hits_its_request_and_switching_off_silences_it_without_a_shift() {
        let script = FaultScript::new([(2, Fault::TimeoutAfter), (3, Fault::Garbage)]);
        let mut faults = Faults::new(FaultSpec::default(), script, 1);
        assert_eq!(faults.next_request(), None);
        assert_eq!(faults.next_request(), Some(Fault::TimeoutAfter));
        faults.set_enabled(false);
        assert_eq!(faults.next_request(), None);
        faults.set_enabled(true);
        assert_eq!(faults.next_request(), None);
        assert_eq!(faults.requests(), 4);
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in ".{0,60}") {
            let _ = text.parse::<FaultSpec>();
        }

        #[test]
        fn delays_stay_within_their_bounds(seed: u64, least in 0_u64..500, more in 0_u64..500) {
            let text = format!("latency={least}ms..{}ms", least + more);
            let mut faults = Faults::new(spec(&text), FaultScript::default(), seed);
            for _ in 0..20 {
                let delay = faults.next_latency().unwrap();
                prop_assert!((least..=least + more).contains(&(delay.as_millis() as u64)));
            }
        }
    }
}
