//! What a runner that is played finds when it tries its machine.

use std::time::Duration;

use crate::runner::Expected;

/// A disk is tried by writing so many megabytes.
const TRIED_MB: i64 = 256;

/// What it finds when it tries its machine.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Machine {
    /// GPUs that can be used.
    pub(super) gpus: u32,
    /// The model that the driver names.
    pub(super) model: String,
    /// Memory of one GPU, in MiB: all of it, and what is free.
    pub(super) vram: (u32, u32),
    /// The driver's version.
    pub(super) driver: String,
    /// What its disk takes, in MB/s.
    pub(super) disk: u32,
    /// What it downloads, in Mbit/s.
    pub(super) download: u32,
}

impl Machine {
    /// How long trying it takes.
    pub(super) fn trial(&self) -> Duration {
        let ms = TRIED_MB * 1000 / i64::from(self.disk.max(1));
        Duration::from_millis(ms.clamp(1_000, 20_000).unsigned_abs())
    }

    /// What of it is less than expected, and what was measured, as a part of a document.
    pub(super) fn against(&self, expected: &Expected) -> (&'static str, String) {
        let enough = |has: u32, asked: Option<u32>| {
            let share = u64::from(expected.percent);
            asked.is_none_or(|asked| u64::from(has) * 100 >= u64::from(asked) * share)
        };
        let (mut bad, mut allocated) = ("", "null".to_owned());
        if self.gpus < expected.gpus.unwrap_or(0) {
            bad = "gpus";
        }
        let shows = self.gpus > 0;
        if shows {
            let wanted = expected.model.as_deref().unwrap_or_default();
            if !self.model.contains(wanted) {
                bad = "model";
            }
            if !enough(self.vram.1, expected.vram) {
                bad = "vram";
            } else if let Some(vram) = expected.vram {
                allocated = (u64::from(vram) * u64::from(expected.percent) / 100).to_string();
            }
        }
        if !enough(self.disk, expected.disk) {
            bad = "disk";
        }
        let asked = expected.download.as_ref().map(|(speed, _)| *speed);
        if !enough(self.download, asked) {
            bad = "download";
        }
        let shown = |value: String| if shows { value } else { "null".to_owned() };
        let down = asked.map_or("null".to_owned(), |_| self.download.to_string());
        let measured = format!(
            "\"gpus\":{},\"model\":{},\"vram\":{},\"free\":{},\"allocated\":{allocated},\
             \"driver\":{},\"disk\":{},\"down\":{down}",
            shown(self.gpus.to_string()),
            shown(text(&self.model)),
            shown(self.vram.0.to_string()),
            shown(self.vram.1.to_string()),
            shown(text(&self.driver)),
            self.disk,
        );
        (bad, measured)
    }
}

/// A text as JSON, without what would have to be escaped.
fn text(text: &str) -> String {
    let plain = |c: &char| c.is_ascii_alphanumeric() || " ._,:;/@+=()-".contains(*c);
    let plain: String = text.chars().filter(plain).take(200).collect();
    format!("\"{plain}\"")
}
