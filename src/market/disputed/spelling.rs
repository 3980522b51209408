//! The switches as text: `default`, `seed:7`, or `ties=challenger,ghosts=2` on top of the default.

use std::fmt;
use std::str::FromStr;

use super::{BalanceMeans, BilledFrom, Disputed, Missing, Notices, Ties};

/// Why a text is no setting of the disputed facts, with what would be right.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{part}`: {why}")]
pub struct DisputedError {
    part: String,
    why: String,
}

/// What a switch can be set to.
trait Setting: Copy {
    fn read(text: &str) -> Option<Self>;
    fn write(self) -> String;
}

impl Setting for bool {
    fn read(text: &str) -> Option<Self> {
        match text {
            "yes" | "true" | "on" => Some(true),
            "no" | "false" | "off" => Some(false),
            _ => None,
        }
    }

    fn write(self) -> String {
        if self { "yes" } else { "no" }.to_owned()
    }
}

impl Setting for u16 {
    fn read(text: &str) -> Option<Self> {
        text.parse().ok()
    }

    fn write(self) -> String {
        self.to_string()
    }
}

impl Setting for u32 {
    fn read(text: &str) -> Option<Self> {
        text.parse().ok()
    }

    fn write(self) -> String {
        self.to_string()
    }
}

impl Setting for Option<u32> {
    fn read(text: &str) -> Option<Self> {
        match text {
            "none" => Some(None),
            text => text.parse().ok().map(Some),
        }
    }

    fn write(self) -> String {
        self.map_or_else(|| "none".to_owned(), |number| number.to_string())
    }
}

macro_rules! words {
    ($($type:ident: $($variant:ident = $word:literal),*;)*) => {$(
        impl Setting for $type {
            fn read(text: &str) -> Option<Self> {
                match text {
                    $($word => Some(Self::$variant),)*
                    _ => None,
                }
            }

            fn write(self) -> String {
                match self {
                    $(Self::$variant => $word,)*
                }
                .to_owned()
            }
        }
    )*};
}

words! {
    Ties: Incumbent = "incumbent", Challenger = "challenger";
    BilledFrom: Running = "running", Granted = "granted";
    Missing: Null = "null", NotFound = "404";
    BalanceMeans: Credit = "credit", Owed = "owed", Absent = "absent";
    Notices: Prompt = "prompt", Late = "late", Lossy = "lossy";
}

/// A switch by its name.
struct Switch {
    name: &'static str,
    /// What it can be set to, in words.
    right: &'static str,
    /// Sets it; `false` where the text is not right.
    read: fn(&mut Disputed, &str) -> bool,
    write: fn(&Disputed) -> String,
}

fn set<T: Setting>(place: &mut T, text: &str, valid: fn(T) -> bool) -> bool {
    match T::read(text).filter(|&value| valid(value)) {
        Some(value) => {
            *place = value;
            true
        }
        None => false,
    }
}

macro_rules! switches {
    ($($name:ident: $right:literal, $valid:expr;)*) => {
        const SWITCHES: &[Switch] = &[$(Switch {
            name: stringify!($name),
            right: $right,
            read: |facts, text| set(&mut facts.$name, text, $valid),
            write: |facts| facts.$name.write(),
        },)*];
    };
}

/// A year of hours: nothing waits longer.
const HOURS_MOST: u32 = 8760;

switches! {
    ties: "incumbent or challenger", |_| true;
    billed_from: "running or granted", |_| true;
    pulls_billed: "yes or no", |_| true;
    ended_billed: "yes or no", |_| true;
    stopped_storage_percent: "a percentage from 0 to 1000", |percent| percent <= 1000;
    charges_late_hours: "hours from 0 to 8760", |hours| hours <= HOURS_MOST;
    charges_by_component: "yes or no", |_| true;
    label_kept: "none or a number of characters", |_| true;
    ghosts: "a number of listings up to 1000", |listings| listings <= 1000;
    ghosts_by_id: "yes or no", |_| true;
    shown_after_seconds: "seconds from 0 to 3600", |seconds| seconds <= 3600;
    queued_fires: "yes or no", |_| true;
    queued_intends_running: "yes or no", |_| true;
    bid_starts_stopped: "yes or no", |_| true;
    reads_stopped: "yes or no", |_| true;
    lost_reads_unknown: "yes or no", |_| true;
    outbid_intends_running: "yes or no", |_| true;
    start_moves: "yes or no", |_| true;
    gone_status: "410, 404 or 400", |status| [410, 404, 400].contains(&status);
    bad_key_status: "401, 403 or 404", |status| [401, 403, 404].contains(&status);
    missing: "null or 404", |_| true;
    low_bid_status: "400 or 200", |status| [400, 200].contains(&status);
    balance: "credit, owed or absent", |_| true;
    slow_echo: "yes or no", |_| true;
    resumes_late: "yes or no", |_| true;
    parks_late: "yes or no", |_| true;
    topped_up_resumes: "yes or no", |_| true;
    ended_deleted_hours: "none or hours up to 8760", |hours| hours.is_none_or(|h| h <= HOURS_MOST);
    unpaid_deleted_hours: "none or hours up to 8760", |hours| hours.is_none_or(|h| h <= HOURS_MOST);
    notices: "prompt, late or lossy", |_| true;
}

impl FromStr for Disputed {
    type Err = DisputedError;

    /// `default`; `seed:N`, every fact drawn from that seed; or switches as `name=value`, with
    /// commas between them, on top of the default. Hyphens in a name do as well as underscores.
    fn from_str(text: &str) -> Result<Self, DisputedError> {
        let text = text.trim();
        let mistake = |part: &str, why: String| DisputedError {
            part: part.to_owned(),
            why,
        };
        if text == "default" {
            return Ok(Self::default());
        }
        if let Some(seed) = text.strip_prefix("seed:") {
            let seed = seed.trim().parse().map_err(|_| {
                mistake(
                    text,
                    "a seed is a whole number, such as `seed:7`".to_owned(),
                )
            })?;
            return Ok(Self::drawn(seed));
        }
        let mut facts = Self::default();
        let mut seen: Vec<&str> = Vec::new();
        for part in text.split(',').map(str::trim) {
            let Some((name, value)) = part.split_once('=') else {
                let why = "the disputed facts are set by `default`, by `seed:N`, or by switches \
                           such as `ties=challenger,ghosts=2`";
                return Err(mistake(part, why.to_owned()));
            };
            let name = name.trim().replace('-', "_");
            let Some(switch) = SWITCHES.iter().find(|switch| switch.name == name) else {
                let names: Vec<&str> = SWITCHES.iter().map(|switch| switch.name).collect();
                let why = format!("there is no such switch; there are {}", names.join(", "));
                return Err(mistake(part, why));
            };
            if seen.contains(&switch.name) {
                return Err(mistake(part, format!("`{}` is given twice", switch.name)));
            }
            seen.push(switch.name);
            if !(switch.read)(&mut facts, value.trim()) {
                let why = format!("`{}` is {}", switch.name, switch.right);
                return Err(mistake(part, why));
            }
        }
        Ok(facts)
    }
}

impl fmt::Display for Disputed {
    /// `default`, or the switches that differ from it; read back, it gives the same.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let usual = Self::default();
        let parts: Vec<String> = SWITCHES
            .iter()
            .filter(|switch| (switch.write)(self) != (switch.write)(&usual))
            .map(|switch| format!("{}={}", switch.name, (switch.write)(self)))
            .collect();
        if parts.is_empty() {
            f.pad("default")
        } else {
            f.pad(&parts.join(","))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_reads_back() {
        for seed in 0..200 {
            let facts = Disputed::drawn(seed);
            assert_eq!(facts.to_string().parse(), Ok(facts), "{facts}");
            assert_eq!(format!("seed:{seed}").parse(), Ok(facts));
        }
        assert_eq!("default".parse(), Ok(Disputed::default()));
        assert_eq!(Disputed::default().to_string(), "default");
    }

    #[test]
    fn every_switch_can_be_set_and_is_drawn_both_ways() {
        for switch in SWITCHES {
            let drawn: std::collections::BTreeSet<String> = (0..100)
                .map(|seed| (switch.write)(&Disputed::drawn(seed)))
                .collect();
            assert!(drawn.len() > 1, "{} is always {drawn:?}", switch.name);
        }
        let facts: Disputed = "ties=challenger, label-kept=20,missing=404"
            .parse()
            .unwrap();
        let expected = Disputed {
            ties: Ties::Challenger,
            label_kept: Some(20),
            missing: Missing::NotFound,
            ..Disputed::default()
        };
        assert_eq!(facts, expected);
        // A field without a switch could not be told from the default.
        let fields = format!("{:?}", Disputed::default()).matches(": ").count();
        assert_eq!(fields, SWITCHES.len());
    }

    #[test]
    fn mistakes_say_what_would_be_right() {
        for (text, says) in [
            ("", "`seed:N`"),
            ("ghosts", "`seed:N`"),
            ("seed:x", "`seed:7`"),
            ("ghost=1", "ghosts_by_id"),
            ("ties=first", "incumbent or challenger"),
            ("gone_status=500", "410, 404 or 400"),
            ("ghosts=-1", "a number of listings"),
            ("ghosts=1,ghosts=2", "given twice"),
            ("slow_echo=maybe", "yes or no"),
            ("default,ghosts=1", "`seed:N`"),
        ] {
            let error = text.parse::<Disputed>().unwrap_err().to_string();
            assert!(error.contains(says), "{text}: {error}");
        }
    }
}
