//! What everybody has to do: twelve jobs of many kinds.

use std::sync::Arc;

use crate::policy;
use crate::types::job::Job;

/// Name, models, GPUs, useful GPU-hours, minutes between checkpoints, disk in GB, ceiling in cents per
/// GPU-hour, least reliability in thousandths.
type Row = (
    &'static str,
    &'static [&'static str],
    u32,
    u32,
    u32,
    u32,
    u32,
    u32,
);

const ROWS: [Row; 12] = [
    ("render", &["RTX 4090"], 1, 40, 10, 40, 70, 980),
    ("train", &["RTX 4090", "RTX 5090"], 2, 120, 20, 100, 70, 980),
    ("sweep", &["RTX 3090"], 1, 60, 15, 30, 35, 970),
    ("tune", &["RTX 5090"], 1, 48, 30, 60, 90, 980),
    (
        "encode",
        &["RTX 3090", "RTX 4090", "RTX A5000", "RTX 5070 Ti"],
        1,
        100,
        10,
        40,
        45,
        970,
    ),
    (
        "large",
        &["A100 SXM4", "A100 PCIE", "H100 SXM"],
        1,
        30,
        20,
        120,
        350,
        980,
    ),
    (
        "small",
        &["RTX 3060", "RTX 3060 Ti"],
        1,
        24,
        60,
        16,
        14,
        950,
    ),
    (
        "wide",
        &["RTX 3090", "RTX 4090", "RTX 5090"],
        4,
        96,
        20,
        100,
        80,
        970,
    ),
    (
        "batch",
        &["RTX 3080", "RTX 3080 Ti", "RTX 3070"],
        1,
        50,
        60,
        20,
        25,
        960,
    ),
    (
        "infer",
        &["RTX 4070S", "RTX 4070", "RTX 5070"],
        1,
        36,
        10,
        20,
        25,
        970,
    ),
    (
        "any",
        &[
            "RTX 5060 Ti",
            "RTX A4000",
            "RTX 4060 Ti",
            "RTX 5070 Ti",
            "RTX 5080",
        ],
        1,
        120,
        30,
        30,
        30,
        960,
    ),
    (
        "pair",
        &["RTX 3090", "RTX 3080", "RTX 3080 Ti"],
        2,
        60,
        15,
        40,
        35,
        960,
    ),
];

fn text(row: &Row) -> String {
    let (name, models, gpus, hours, every, disk, cents, reliability) = row;
    format!(
        "name = \"{name}\"\nrental = \"auto\"\nboot_overhead = \"5m\"\n\
         [run]\nimage = \"a/b:c\"\n\
         [gpu]\nmodels = {models:?}\ncount = {gpus}\n\
         [machine]\ndisk = \"{disk}GB\"\nreliability = 0.{reliability}\n\
         [price]\nmax = \"${}.{:02}/gpu-hour\"\n\
         [budget]\ntotal = \"$1000\"\n\
         [work]\ngpu_hours = {hours}\n\
         [checkpoint]\nevery = \"{every}m\"\nplace = \"remote\"\n\
         [data]\ndisposable = true\n",
        cents / 100,
        cents % 100,
    )
}

/// The jobs. Work is in GPU-hours of whatever model, checkpoints are kept elsewhere, and each may bid or
/// rent on demand.
///
/// # Errors
/// The message of a policy that is none, which a test rules out.
pub fn jobs() -> Result<Vec<Arc<Job>>, String> {
    ROWS.iter()
        .map(|row| {
            let file = format!("{}.toml", row.0);
            let parsed = policy::parse(&file, &text(row));
            parsed.map(Arc::new).map_err(|report| format!("{report:?}"))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::job::{CheckpointPlace, RentalChoice};

    #[test]
    fn every_job_is_one() {
        let jobs = jobs().unwrap();
        assert_eq!(jobs.len(), ROWS.len());
        for (job, row) in jobs.iter().zip(&ROWS) {
            assert_eq!(job.name.as_str(), row.0);
            assert_eq!(job.requirements.gpu_count, row.2);
            assert_eq!(job.work_mgpu_h, Some(i64::from(row.3) * 1000));
            assert_eq!(job.checkpoint_place, Some(CheckpointPlace::Remote));
            assert_eq!(job.rental, RentalChoice::Auto);
            let least = job.requirements.reliability_min.unwrap();
            assert!((least - row.7 as f32 / 1000.0).abs() < 1e-6);
        }
    }
}
