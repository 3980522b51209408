//! The policies that are tried: the file as it is, or with each combination of values that were asked for.

use std::collections::BTreeMap;
use std::path::Path;

use toml::{Table, Value};

use super::super::super::failure::{Failure, OrFail};
use crate::policy;
use crate::types::job::Job;

/// Combinations, at most: each is a run over the whole record.
const VARIANTS_MAX: usize = 1000;

/// A policy that is tried.
pub(super) struct Variant {
    /// What was set in it, by dotted key.
    pub(super) set: BTreeMap<String, String>,
    pub(super) job: Job,
}

/// A key and its values.
struct Axis {
    key: String,
    values: Vec<String>,
}

/// All combinations, the last key's values changing first; one without any where nothing is set.
pub(super) fn variants(path: &Path, sets: &[String]) -> Result<Vec<Variant>, Failure> {
    let name = path.display().to_string();
    let text = std::fs::read_to_string(path).or_mendable(format!("cannot read {name}"))?;
    // Its own mistakes are told with their own lines.
    parsed(&name, &text, &name)?;
    let axes = sets
        .iter()
        .map(|set| axis(set))
        .collect::<Result<Vec<_>, _>>()?;
    for (at, one) in axes.iter().enumerate() {
        if axes[..at].iter().any(|other| other.key == one.key) {
            return Err(Failure::mendable(format!(
                "--set {} is there twice; right is one with all values, by comma",
                one.key
            )));
        }
    }
    let count = axes.iter().try_fold(1_usize, |count, axis| {
        count
            .checked_mul(axis.values.len())
            .filter(|&count| count <= VARIANTS_MAX)
    });
    let Some(count) = count else {
        return Err(Failure::mendable(format!(
            "the values of --set make more than {VARIANTS_MAX} combinations"
        )));
    };
    (0..count)
        .map(|at| variant(&name, &text, &axes, at))
        .collect()
}

fn axis(text: &str) -> Result<Axis, Failure> {
    let wrong = || {
        Failure::mendable(format!(
            "--set {text} is no key with values; right is a dotted key of the policy and its values, such \
             as price.bid_margin=5%,10%"
        ))
    };
    let (key, values) = text.split_once('=').ok_or_else(wrong)?;
    let values: Vec<String> = values
        .split(',')
        .map(|value| value.trim().to_owned())
        .collect();
    let key = key.trim();
    if key.split('.').any(str::is_empty) || values.iter().any(String::is_empty) {
        return Err(wrong());
    }
    Ok(Axis {
        key: key.to_owned(),
        values,
    })
}

fn variant(name: &str, text: &str, axes: &[Axis], at: usize) -> Result<Variant, Failure> {
    let mut table: Table = text.parse().or_mendable(format!("{name} is no TOML"))?;
    let mut set = BTreeMap::new();
    let mut rest = at;
    for axis in axes.iter().rev() {
        let value = &axis.values[rest % axis.values.len()];
        rest /= axis.values.len();
        put(&mut table, &axis.key, value)?;
        set.insert(axis.key.clone(), value.clone());
    }
    if set.is_empty() {
        let job = parsed(name, text, name)?;
        return Ok(Variant { set, job });
    }
    let with: Vec<String> = set
        .iter()
        .map(|(key, value)| format!("{key} = {value}"))
        .collect();
    let text = toml::to_string(&table).or_mendable(format!("{name} cannot be changed"))?;
    let job = parsed(name, &text, &format!("{name} with {}", with.join(", ")))?;
    Ok(Variant { set, job })
}

/// Sets a dotted key to what is a TOML value, or else to the text itself.
fn put(table: &mut Table, key: &str, value: &str) -> Result<(), Failure> {
    let mut at = table;
    let mut parts: Vec<&str> = key.split('.').collect();
    let last = parts.pop().unwrap_or_default();
    for part in parts {
        let next = at.entry(part).or_insert_with(|| Value::Table(Table::new()));
        at = next.as_table_mut().ok_or_else(|| {
            Failure::mendable(format!("--set {key}: {part} is no table in the policy"))
        })?;
    }
    let read = format!("v = {value}").parse::<Table>().ok();
    let read = read.and_then(|mut read| read.remove("v"));
    let value = read.unwrap_or_else(|| Value::String(value.to_owned()));
    at.insert(last.to_owned(), value);
    Ok(())
}

fn parsed(name: &str, text: &str, shown: &str) -> Result<Job, Failure> {
    policy::parse(name, text).map_err(|errors| {
        let lines: Vec<String> = errors.iter().map(|error| format!("{error:?}")).collect();
        Failure::mendable(format!("{shown} cannot be used:\n{}", lines.join("\n")))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sets(sets: &[&str]) -> Result<Vec<Variant>, Failure> {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("train.toml");
        std::fs::write(&path, policy::example()).unwrap();
        let sets: Vec<String> = sets.iter().map(|set| (*set).to_owned()).collect();
        variants(&path, &sets)
    }

    #[test]
    fn every_combination_is_tried_in_the_order_of_the_values() {
        assert_eq!(sets(&[]).unwrap().len(), 1);
        let all = sets(&["price.bid_margin=5%,10%,auto", "priority=1,2"]).unwrap();
        let shown: Vec<String> = all
            .iter()
            .map(|variant| {
                let values: Vec<&str> = variant.set.values().map(String::as_str).collect();
                values.join(" ")
            })
            .collect();
        assert_eq!(
            shown,
            ["5% 1", "5% 2", "10% 1", "10% 2", "auto 1", "auto 2"]
        );
        assert_eq!(all[3].job.priority, 2);
        assert_ne!(all[0].job.bid_margin, all[2].job.bid_margin);
    }

    #[test]
    fn what_is_no_policy_any_more_says_with_which_values() {
        let error = |set: &[&str]| sets(set).err().unwrap().to_string();
        let told = error(&["price.bid_margin=5%,fast"]);
        assert!(told.contains("with price.bid_margin = fast"), "{told}");
        let told = error(&["price.bid_margin"]);
        assert!(told.contains("right is a dotted key"), "{told}");
        let told = error(&["priority=1", "priority=2"]);
        assert!(told.contains("is there twice"), "{told}");
        let told = error(&["rental.deep=1"]);
        assert!(told.contains("rental is no table"), "{told}");
    }
}
