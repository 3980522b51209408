//! Which runs a backtest makes: the windows of a suite, or of a file.

use serde::Deserialize;

use super::series::{Series, TICK_SECONDS};
use crate::engine::deadline::Terms;

/// One job on a piece of a series.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// Which series, by its place among those that were read.
    pub series: usize,
    /// Its first tick.
    pub start: usize,
    /// How many ticks of the series there are.
    pub ticks: usize,
    /// What is asked of the job.
    pub terms: Terms,
}

/// The sets of windows by which the published policies are compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Suite {
    /// Four series of single GPUs, three deadlines, three overheads: 1,080 runs.
    A,
    /// Six series, two tight deadlines, three small overheads: 1,080 runs.
    B,
    /// All eight series at one deadline and overhead, every start: 2,400 runs.
    C,
}

/// Ticks of a suite's window.
const WINDOW_TICKS: usize = 554;

/// Which of the starts suites A and B take.
const SOME: [usize; 30] = [
    0, 8, 9, 20, 21, 33, 42, 51, 61, 70, 99, 107, 117, 126, 135, 145, 154, 163, 172, 182, 191, 219,
    228, 238, 247, 256, 266, 275, 284, 294,
];

/// Work of a suite's job, in hours.
const WORK_HOURS: f64 = 48.0;

impl Suite {
    /// The suite of a name such as `cant-be-late:A`.
    pub fn named(name: &str) -> Option<Self> {
        match name.strip_prefix("cant-be-late:")? {
            "A" => Some(Self::A),
            "B" => Some(Self::B),
            "C" => Some(Self::C),
            _ => None,
        }
    }

    /// The names of its series, in order.
    pub fn series(self) -> &'static [&'static str] {
        match self {
            Self::A => &[
                "us-west-2a_k80_1",
                "us-west-2a_v100_1",
                "us-west-2b_k80_1",
                "us-west-2b_v100_1",
            ],
            Self::B => &[
                "us-west-2a_k80_8",
                "us-west-2b_k80_1",
                "us-west-2b_k80_8",
                "us-west-2a_v100_1",
                "us-west-2a_v100_8",
                "us-west-2b_v100_1",
            ],
            Self::C => &[
                "us-west-2a_k80_1",
                "us-west-2a_k80_8",
                "us-west-2a_v100_1",
                "us-west-2a_v100_8",
                "us-west-2b_k80_1",
                "us-west-2b_k80_8",
                "us-west-2b_v100_1",
                "us-west-2b_v100_8",
            ],
        }
    }

    /// Deadlines and overheads, in hours.
    fn grid(self) -> (&'static [f64], &'static [f64]) {
        match self {
            Self::A => (&[52.0, 70.0, 92.0], &[0.02, 0.2, 0.4]),
            Self::B => (&[52.0, 70.0], &[0.02, 0.05, 0.1]),
            Self::C => (&[60.0], &[0.2]),
        }
    }

    /// Its windows, `series` being read in the order of [`Suite::series`].
    ///
    /// # Errors
    /// What is wanting in the starts or the series.
    pub fn windows(self, starts: &[usize], series: &[Series]) -> Result<Vec<Window>, WindowError> {
        let all: Vec<usize> = (0..starts.len()).collect();
        let ids = if self == Self::C { &all[..] } else { &SOME[..] };
        let (deadlines, overheads) = self.grid();
        let mut windows = Vec::new();
        for (at, one) in series.iter().enumerate() {
            for id in ids {
                let Some(&start) = starts.get(*id) else {
                    return Err(WindowError::Starts {
                        wanted: id + 1,
                        found: starts.len(),
                    });
                };
                if start >= one.up.len() {
                    return Err(WindowError::Start {
                        id: *id,
                        start,
                        series: one.name.clone(),
                        ticks: one.up.len(),
                    });
                }
                let ticks = WINDOW_TICKS.min(one.up.len() - start);
                for &deadline in deadlines {
                    windows.extend(overheads.iter().map(|&overhead| Window {
                        series: at,
                        start,
                        ticks,
                        terms: terms(WORK_HOURS, deadline, overhead),
                    }));
                }
            }
        }
        Ok(windows)
    }
}

/// Why there are no windows.
#[derive(Debug, thiserror::Error)]
pub enum WindowError {
    /// Fewer starts than the suite takes.
    #[error("{found} starts; the suite takes number {wanted}")]
    Starts {
        /// How many there should be, at least.
        wanted: usize,
        /// How many there are.
        found: usize,
    },
    /// A start beyond its series.
    #[error("start {id} is tick {start}, but `{series}` has {ticks} ticks of 600 s")]
    Start {
        /// Which start, from 0.
        id: usize,
        /// Its tick.
        start: usize,
        /// The series.
        series: String,
        /// How many ticks that has.
        ticks: usize,
    },
    /// Not the JSON that is wanted.
    #[error(
        "not a list of windows: {0}; wanted is [{{\"series\": \"NAME\", \"start\": 0, \"ticks\": 360, \
         \"work_hours\": 48, \"deadline_hours\": 60, \"overhead_hours\": 0.2}}, …]"
    )]
    Json(#[from] serde_json::Error),
    /// A number that no job has.
    #[error("window {at}: {field} is {value}; wanted is {wanted}")]
    Field {
        /// Which window, from 0.
        at: usize,
        /// The field.
        field: &'static str,
        /// What it says.
        value: f64,
        /// What would be right.
        wanted: &'static str,
    },
    /// A window beyond its series.
    #[error("window {at}: ticks {start} to {end}, but `{series}` has {ticks} ticks of 600 s")]
    Beyond {
        /// Which window, from 0.
        at: usize,
        /// Its first tick.
        start: usize,
        /// The tick after its last.
        end: usize,
        /// The series.
        series: String,
        /// How many ticks that has.
        ticks: usize,
    },
    /// Nothing to run.
    #[error("no windows; wanted is at least one")]
    None,
}

/// A window as a file names it.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Asked {
    /// File of the series, without `.json`.
    pub series: String,
    start: usize,
    ticks: usize,
    work_hours: f64,
    deadline_hours: f64,
    overhead_hours: f64,
}

impl Asked {
    /// Reads a file of windows.
    ///
    /// # Errors
    /// What of the text is not as it should be.
    pub fn read(text: &str) -> Result<Vec<Self>, WindowError> {
        let asked: Vec<Self> = serde_json::from_str(text)?;
        if asked.is_empty() {
            return Err(WindowError::None);
        }
        for (at, one) in asked.iter().enumerate() {
            one.tested(at)?;
        }
        Ok(asked)
    }

    fn tested(&self, at: usize) -> Result<(), WindowError> {
        /// A hundred days: over any job, and what can still be reckoned exactly.
        const MOST: f64 = 2_400.0;
        /// A second.
        const LEAST: f64 = 1.0 / 3600.0;
        let wrong = |field, value, wanted| {
            Err(WindowError::Field {
                at,
                field,
                value,
                wanted,
            })
        };
        let is_time = |value: f64| (LEAST..=MOST).contains(&value);
        if !is_time(self.work_hours) {
            return wrong("work_hours", self.work_hours, "a second to 100 days");
        }
        if !is_time(self.deadline_hours) {
            return wrong(
                "deadline_hours",
                self.deadline_hours,
                "a second to 100 days",
            );
        }
        if self.overhead_hours != 0.0 && !is_time(self.overhead_hours) {
            return wrong(
                "overhead_hours",
                self.overhead_hours,
                "0, or a second to 100 days",
            );
        }
        if self.ticks == 0 {
            return wrong("ticks", 0.0, "at least 1");
        }
        Ok(())
    }

    /// The window, its series being the one at `series` of those that were read.
    ///
    /// # Errors
    /// The window is not inside of its series.
    pub fn window(&self, at: usize, series: usize, read: &Series) -> Result<Window, WindowError> {
        let end = self.start.saturating_add(self.ticks);
        if end > read.up.len() {
            return Err(WindowError::Beyond {
                at,
                start: self.start,
                end,
                series: read.name.clone(),
                ticks: read.up.len(),
            });
        }
        Ok(Window {
            series,
            start: self.start,
            ticks: self.ticks,
            terms: terms(self.work_hours, self.deadline_hours, self.overhead_hours),
        })
    }
}

/// Hours in whole seconds, to the nearest.
fn terms(work: f64, deadline: f64, overhead: f64) -> Terms {
    let seconds = |hours: f64| (hours * 3600.0).round() as i64;
    Terms {
        tick: TICK_SECONDS,
        work: seconds(work),
        deadline: seconds(deadline),
        overhead: seconds(overhead),
        margin: 0,
    }
}
