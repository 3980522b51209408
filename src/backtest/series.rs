//! Recorded availability: a probe now and then, and ticks of one length made of them.

use serde::Deserialize;

use super::replay::Tick;

/// Length of a tick of every suite, in seconds.
pub const TICK_SECONDS: i64 = 600;

/// A series of one slot or zone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Series {
    /// What its file is called, without `.json`.
    pub name: String,
    /// Whether interruptible capacity was there, by tick.
    pub up: Vec<bool>,
    /// The same, as a replay reads it.
    pub ticks: Vec<Tick>,
}

/// Why a text is no series.
#[derive(Debug, thiserror::Error)]
pub enum SeriesError {
    /// Not the JSON that is wanted.
    #[error(
        "not a trace: {0}; wanted is {{\"metadata\": {{\"gap_seconds\": 600}}, \"data\": [1, 0, …]}}"
    )]
    Json(#[from] serde_json::Error),
    /// The probes have no distance in time.
    #[error("metadata.gap_seconds is {0}; wanted are seconds between probes, from 1 to 86400")]
    Gap(f64),
    /// A probe says something else than yes or no.
    #[error("data[{at}] is {value}; wanted is 1 (available) or 0")]
    Probe {
        /// Which, from 0.
        at: usize,
        /// What it says.
        value: serde_json::Value,
    },
    /// No probe.
    #[error("data is empty; wanted is at least one probe")]
    Empty,
}

#[derive(Deserialize)]
struct Document {
    metadata: Metadata,
    data: Vec<serde_json::Value>,
}

#[derive(Deserialize)]
struct Metadata {
    gap_seconds: f64,
}

impl Series {
    /// Reads a series, and resamples it to ticks of [`TICK_SECONDS`]: each is what the nearest earlier
    /// probe said.
    ///
    /// # Errors
    /// What of the text is not as it should be.
    pub fn read(name: &str, text: &str) -> Result<Self, SeriesError> {
        const DAY: f64 = 86_400.0;
        let document: Document = serde_json::from_str(text)?;
        let gap = document.metadata.gap_seconds;
        if !(1.0..=DAY).contains(&gap) {
            return Err(SeriesError::Gap(gap));
        }
        let probes = document.data.iter().enumerate().map(|(at, value)| {
            let number = value.as_bool().map(f64::from).or_else(|| value.as_f64());
            match number {
                Some(1.0) => Ok(true),
                Some(0.0) => Ok(false),
                _ => Err(SeriesError::Probe {
                    at,
                    value: value.clone(),
                }),
            }
        });
        let probes = probes.collect::<Result<Vec<bool>, _>>()?;
        if probes.is_empty() {
            return Err(SeriesError::Empty);
        }
        let up = resampled(&probes, (gap * 1000.0).round() as u64);
        let ticks = up.iter().map(|up| Tick(u8::from(*up) * Tick::SPOT));
        Ok(Self {
            name: name.to_owned(),
            ticks: ticks.collect(),
            up,
        })
    }
}

/// Ticks from probes that are `gap` milliseconds apart.
fn resampled(probes: &[bool], gap: u64) -> Vec<bool> {
    let tick = TICK_SECONDS as u64 * 1000;
    (0..)
        .map_while(|at: u64| probes.get((at * tick / gap) as usize).copied())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Series, SeriesError> {
        Series::read("zone", text)
    }

    #[test]
    fn a_tick_is_what_the_nearest_earlier_probe_said() {
        let series = read(r#"{"metadata": {"gap_seconds": 195}, "data": [1,0,0,0,1,1,1,0]}"#);
        // 600 s lie after the probes at 0, 195, 390 and 585; 1200 s after those up to 1170.
        assert_eq!(series.unwrap().up, [true, false, true]);
        let series = read(r#"{"metadata": {"gap_seconds": 1200}, "data": [1, 0]}"#).unwrap();
        assert_eq!(series.up, [true, true, false, false]);
        assert_eq!(series.ticks[1], Tick(Tick::SPOT));
        assert_eq!(series.ticks[2], Tick(0));
    }

    #[test]
    fn what_is_no_series_is_told_with_its_place() {
        for (text, told) in [
            ("[1, 0]", "not a trace"),
            (r#"{"data": [1]}"#, "metadata"),
            (
                r#"{"metadata": {"gap_seconds": 0}, "data": [1]}"#,
                "gap_seconds is 0",
            ),
            (
                r#"{"metadata": {"gap_seconds": 600}, "data": []}"#,
                "data is empty",
            ),
            (
                r#"{"metadata": {"gap_seconds": 600}, "data": [1, 2]}"#,
                "data[1] is 2; wanted is 1 (available) or 0",
            ),
        ] {
            let error = read(text).unwrap_err().to_string();
            assert!(error.contains(told), "{error}");
        }
    }
}
