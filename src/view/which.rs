//! Which job something is about, or which of its replicas: `JOB` or `JOB/REPLICA`.

use std::fmt;
use std::str::FromStr;

use crate::types::ids::{JobName, ReplicaId};

/// A job, or one of its replicas.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Of {
    /// The job.
    pub(crate) job: JobName,
    /// The replica's number; `None`: any.
    pub(crate) index: Option<u32>,
}

impl Of {
    /// Whether a replica is meant.
    pub(crate) fn includes(&self, replica: &ReplicaId) -> bool {
        self.job == replica.job && self.index.is_none_or(|index| index == replica.index)
    }
}

impl FromStr for Of {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (job, index) = match text.split_once('/') {
            Some((job, index)) => (job, Some(index)),
            None => (text, None),
        };
        let number = |index: &str| {
            let digits = index.bytes().all(|byte| byte.is_ascii_digit());
            let number = index.parse().ok().filter(|_| digits);
            number.ok_or_else(|| {
                "a replica is a number from 0, after the job and a slash, such as train/0"
                    .to_owned()
            })
        };
        Ok(Self {
            job: job.parse().map_err(|error| format!("{error}"))?,
            index: index.map(number).transpose()?,
        })
    }
}

impl fmt::Display for Of {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.index {
            Some(index) => write!(f, "{}/{index}", self.job),
            None => write!(f, "{}", self.job),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_job_with_or_without_a_replica() {
        for text in ["train", "train/0", "a-b-1/4294967295"] {
            assert_eq!(text.parse::<Of>().unwrap().to_string(), text);
        }
        for bad in [
            "",
            "/",
            "train/",
            "train/+1",
            "train/-1",
            "train/0/1",
            "../x",
            "Train",
            "-x",
        ] {
            assert!(bad.parse::<Of>().is_err(), "{bad}");
        }
        let replica = |text: &str| {
            let of: Of = text.parse().unwrap();
            ReplicaId {
                job: of.job,
                index: of.index.unwrap(),
            }
        };
        let of: Of = "train/1".parse().unwrap();
        assert!(of.includes(&replica("train/1")) && !of.includes(&replica("train/0")));
        let of: Of = "train".parse().unwrap();
        assert!(of.includes(&replica("train/7")) && !of.includes(&replica("other/7")));
    }
}
