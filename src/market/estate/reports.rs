//! What renters reported of a machine.

use crate::market::dice::{Dice, Purpose};
use crate::market::sim::Market;
use crate::types::time::Time;

/// Keeps what is drawn for reports apart from what the seed gives otherwise.
const STREAM: u64 = 0x7265_706f_7274;
/// So many reports a machine has at most.
const REPORTS_MAX: usize = 8;
const DAY_SECONDS: i64 = 86_400;

/// A kind of problem, and what is written of it.
const PROBLEMS: &[(&str, &[&str])] = &[
    (
        "Network",
        &[
            "Download runs at a tenth of what is listed.",
            "The connection drops every few minutes.",
        ],
    ),
    (
        "GPU",
        &[
            "nvidia-smi: GPU has fallen off the bus.",
            "One of the GPUs throttles under load.",
        ],
    ),
    (
        "Instance",
        &[
            "Stuck in loading for over an hour.",
            "The container was restarted without notice.",
        ],
    ),
    (
        "Storage",
        &["Disk is far slower than listed.", "I/O errors on write."],
    ),
    ("Ports", &["Open ports cannot be reached."]),
];

/// One report.
#[derive(Clone, Debug, PartialEq)]
pub(in crate::market) struct Report {
    pub(in crate::market) problem: &'static str,
    pub(in crate::market) message: &'static str,
    pub(in crate::market) at: Time,
}

impl Market {
    /// What was reported of a machine before the market opened, newest first: more of those that
    /// are unreliable or that fail to start containers. `None` for a machine that there is not.
    pub(in crate::market) fn machine_reports(&self, id: u64) -> Option<Vec<Report>> {
        let machine = self.machines.iter().find(|machine| machine.id == id)?;
        let row = machine.slices.first().map(|slice| &slice.row);
        let owned = self.estate.holdings.get(&id).map(|holding| &holding.facts);
        let reliability = row.or(owned).map_or(1.0, |row| row.reliability);
        let mut dice = Dice::new(self.options.seed ^ STREAM, Purpose::Machine(id));
        let likely = ((1.0 - reliability) * 6.0 + (machine.failure - 0.015)).clamp(0.01, 0.8);
        let mut reports: Vec<Report> = (0..REPORTS_MAX)
            .filter_map(|_| {
                let (problem, messages) = *dice.pick(PROBLEMS, |_| 1.0);
                let message = *dice.pick(messages, |_| 1.0);
                let seconds = dice.whole(DAY_SECONDS / 4, 120 * DAY_SECONDS);
                let at = Time(self.options.start.0 - seconds * 1000);
                dice.chance(likely).then_some(Report {
                    problem,
                    message,
                    at,
                })
            })
            .collect();
        reports.sort_by(|a, b| b.at.cmp(&a.at).then_with(|| a.message.cmp(b.message)));
        Some(reports)
    }
}
