//! An array: its elements, and what a job of many needs.

use std::collections::BTreeMap;

use super::super::error::Fault;
use super::super::reader::Reading;
use super::super::sets::{ELEMENTS_MAX, combinations, too_many, too_much_left_out};
use crate::types::job::{Array, CheckpointPlace, Finish, Parameters};

/// So many elements may leave their disks behind. An account holds 32 instances unless it is told
/// otherwise, those that rest too.
const DISKS_KEPT_MAX: usize = 16;

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
    check_disks(reading);
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
    let Some(sets) = reading.sets("array.values") else {
        return;
    };
    let (mut elements, mut faults) = (Vec::new(), Vec::new());
    for (number, set) in sets.into_iter().enumerate() {
        if let Some(first) = seen.get(&set.parameters) {
            let message = format!("this set is that of element {first}, too");
            let fault = Fault::new(set.place.clone(), message);
            faults.push(
                fault.help("remove it; for the same once more add a parameter, such as run = 2"),
            );
        } else {
            seen.insert(set.parameters.clone(), number);
        }
        elements.push(set.parameters);
    }
    reading.elements = Some(elements);
    reading.faults.extend(faults);
}

fn check_matrix(reading: &mut Reading) {
    let place = reading.place("array.matrix");
    let Some(axes) = reading.axes("array.matrix") else {
        return;
    };
    let without = match reading.sets("array.exclude") {
        None if reading.given("array.exclude") => return,
        without => without.unwrap_or_default(),
    };
    let Some(mut all) = combinations(&axes, without.len()) else {
        let product = axes
            .iter()
            .fold(1_usize, |n, axis| n.saturating_mul(axis.values.len()));
        let fault = if without.is_empty() {
            too_many(product, place)
        } else {
            too_much_left_out(product, without.len(), place)
        };
        reading.faults.push(fault);
        return;
    };
    let mut leaves_out = vec![false; without.len()];
    all.retain(|one| {
        let mut stays = true;
        for (set, used) in without.iter().zip(&mut leaves_out) {
            if (stays || !*used) && holds(one, &set.parameters) {
                *used = true;
                stays = false;
            }
        }
        stays
    });
    let all_sets = without.into_iter().zip(leaves_out);
    for (set, _) in all_sets.filter(|(_, used)| !used) {
        let fault = Fault::new(
            set.place,
            "this leaves nothing out: no combination has these values",
        );
        let fault = fault.help("write names and values as in `matrix`, or remove it");
        reading.faults.push(fault);
    }
    match all.len() {
        0 => reading.fault(
            "array.exclude",
            "every combination is left out",
            "leave some in: an array has at least one element",
        ),
        left if left > ELEMENTS_MAX => reading.faults.push(too_many(left, place)),
        _ => {}
    }
    reading.elements = Some(all);
}

/// The disk of each element that has ended is kept where it may not be lost, and counts as an instance.
fn check_disks(reading: &mut Reading) {
    let count = reading.elements.as_ref().map_or(0, Vec::len);
    let may_be_lost = reading.flag("data.disposable") != Some(false)
        || reading.checkpoint_place() == Some(CheckpointPlace::Remote);
    if may_be_lost || !(DISKS_KEPT_MAX + 1..=ELEMENTS_MAX).contains(&count) {
        return;
    }
    reading.fault(
        "array",
        format!(
            "each element that has ended would leave its disk behind, billed until all are given up: with \
             {count} elements there is soon no room for another instance, and at most {DISKS_KEPT_MAX} may"
        ),
        "add [data.storage] with `data.checkpoint` and `data.outputs`, which then leave the disk; or [data] \
         disposable = true, if the command brings its results away by itself",
    );
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

/// The most characters that the parameters of an element take in its environment.
pub(super) fn characters(reading: &Reading) -> usize {
    let own = |set: &Parameters| {
        set.iter()
            .map(|(name, value)| name.len() + value.len())
            .sum()
    };
    let elements = reading.elements.iter().flatten();
    elements.map(own).max().unwrap_or(0)
}

/// The array; `None`: there is none.
pub(super) fn array(reading: &Reading) -> Option<Array> {
    reading.given("array").then_some(())?;
    Some(Array {
        elements: reading.elements.clone()?,
        max_running: reading.whole("array.max_running")?,
    })
}
