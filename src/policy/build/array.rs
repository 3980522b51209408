//! An array: its elements, and what a job of many needs.

use std::collections::BTreeMap;

use super::super::error::Fault;
use super::super::reader::Reading;
use super::super::sets::{ELEMENTS_MAX, combinations, too_many};
use crate::types::job::{Array, Finish, Parameters};

/// Notes what is wrong with it.
pub(super) fn check(reading: &mut Reading) {
    if !reading.given("array") {
        return;
    }
    check_job(reading);
    let (values, matrix) = (reading.given("array.values"), reading.given("array.matrix"));
    if values && matrix {
        reading.fault(
            "array.matrix",
            "`array.values` and `array.matrix` both say which elements there are",
            "keep one of the two",
        );
    } else if !values && !matrix {
        reading.fault(
            "array",
            "neither `array.values` nor `array.matrix` is given",
            "add matrix = { lr = [0.1, 0.01], seed = [1, 2] }, or values = [{ lr = 0.1, seed = 1 }]",
        );
    } else if values && reading.given("array.exclude") {
        reading.fault(
            "array.exclude",
            "`array.exclude` leaves out combinations of `array.matrix`, which is not given",
            "remove it, and the sets from `values`",
        );
    } else if values {
        check_values(reading);
    } else {
        check_matrix(reading);
    }
    check_names(reading);
}

/// An element is a command that ends, and is heard to end.
fn check_job(reading: &mut Reading) {
    if reading.supervised() == Some(false) {
        reading.fault(
            "array",
            "[array] needs `run.supervised = true`: without haggle's runner nobody hears which element ended, and how",
            "add supervised = true and command = \"…\" to [run]",
        );
    }
    if reading.given("replicas") {
        reading.fault(
            "replicas",
            "`replicas` has no effect with [array], which has one for each set of parameters",
            "remove it; how many are at work at once is `array.max_running`",
        );
    }
    if reading.given("finish")
        && reading
            .finish()
            .is_some_and(|finish| finish != Finish::Exit)
    {
        reading.fault(
            "finish",
            "an element of an array is finished when its command ends",
            "remove it, or use finish = \"exit\"",
        );
    }
}

fn check_values(reading: &mut Reading) {
    let mut seen: BTreeMap<Parameters, usize> = BTreeMap::new();
    let mut faults = Vec::new();
    for (number, set) in reading
        .sets("array.values")
        .into_iter()
        .flatten()
        .enumerate()
    {
        if let Some(first) = seen.get(&set.parameters) {
            let message = format!("this set is that of element {first}, too");
            let fault = Fault::new(set.place, message);
            faults.push(
                fault.help("remove it; for the same once more add a parameter, such as run = 2"),
            );
        } else {
            seen.insert(set.parameters, number);
        }
    }
    reading.faults.extend(faults);
}

fn check_matrix(reading: &mut Reading) {
    let place = reading.place("array.matrix");
    let Some(axes) = reading.axes("array.matrix") else {
        return;
    };
    let Some(all) = combinations(&axes) else {
        let product = axes
            .iter()
            .fold(1_usize, |n, axis| n.saturating_mul(axis.values.len()));
        reading.faults.push(too_many(product, place));
        return;
    };
    let mut faults = Vec::new();
    for set in reading.sets("array.exclude").into_iter().flatten() {
        if !all.iter().any(|all| holds(all, &set.parameters)) {
            let fault = Fault::new(
                set.place,
                "this leaves nothing out: no combination has these values",
            );
            faults.push(fault.help("write names and values as in `matrix`, or remove it"));
        }
    }
    reading.faults.extend(faults);
    match elements(reading).map(|elements| elements.len()) {
        Some(0) => reading.fault(
            "array.exclude",
            "every combination is left out",
            "leave some in: an array has at least one element",
        ),
        Some(left) if left > ELEMENTS_MAX => reading.faults.push(too_many(left, place)),
        _ => {}
    }
}

/// What is given to all and what is given to each have names of their own.
fn check_names(reading: &mut Reading) {
    let env = reading.env("run.env").unwrap_or_default();
    let secrets = reading.secrets("run.secrets").unwrap_or_default();
    let sets = reading.sets("array.values").unwrap_or_default();
    let named = sets.iter().flat_map(|set| {
        set.parameters
            .keys()
            .map(|name| (name.clone(), set.place.clone()))
    });
    let axes = reading.axes("array.matrix").unwrap_or_default();
    let mut places: BTreeMap<String, _> = axes
        .into_iter()
        .map(|axis| (axis.name, axis.place))
        .collect();
    for (name, place) in named {
        places.entry(name).or_insert(place);
    }
    for (name, place) in places {
        let other = match (env.contains_key(&name), secrets.contains_key(&name)) {
            (true, _) => "run.env",
            (_, true) => "run.secrets",
            _ => continue,
        };
        let fault = Fault::new(
            place,
            format!("`{name}` is a parameter here, and in `{other}`"),
        );
        reading.faults.push(fault.help("keep one of the two"));
    }
}

/// Whether a set has all of these values.
fn holds(set: &Parameters, values: &Parameters) -> bool {
    values
        .iter()
        .all(|(name, value)| set.get(name) == Some(value))
}

/// The parameters of each element; `None`: there is no array, or it was told what is wrong with it.
pub(super) fn elements(reading: &Reading) -> Option<Vec<Parameters>> {
    if let Some(sets) = reading.sets("array.values") {
        return Some(sets.into_iter().map(|set| set.parameters).collect());
    }
    let mut all = combinations(&reading.axes("array.matrix")?)?;
    let without = match reading.sets("array.exclude") {
        None if reading.given("array.exclude") => return None,
        without => without.unwrap_or_default(),
    };
    all.retain(|set| !without.iter().any(|out| holds(set, &out.parameters)));
    Some(all)
}

/// The most characters that the parameters of an element take in its environment.
pub(super) fn characters(reading: &Reading) -> usize {
    let own = |set: &Parameters| {
        set.iter()
            .map(|(name, value)| name.len() + value.len())
            .sum()
    };
    let elements = elements(reading).unwrap_or_default();
    elements.iter().map(own).max().unwrap_or(0)
}

/// The array; `None`: there is none.
pub(super) fn array(reading: &Reading) -> Option<Array> {
    reading.given("array").then_some(())?;
    Some(Array {
        elements: elements(reading)?,
        max_running: reading.whole("array.max_running")?,
    })
}
