//! Parameters of an array: sets of them one by one, and the values of each for every combination.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use serde_json::{Value as Json, json};
use toml::Spanned;
use toml::de::{DeArray, DeTable, DeValue};

use super::error::Fault;
use super::kind::{ENV_ENTRY_MAX, Read, Value, collect, names_a_secret, variable, variable_fault};
use crate::types::job::Parameters;

/// So many elements an array may have: their numbers, records and labels are kept for ever.
pub(super) const ELEMENTS_MAX: usize = 1000;

/// So many combinations are looked at, before any is left out.
const COMBINATIONS_MAX: usize = 10_000;

/// So often a combination is held against a set that leaves some out: policies are read at each tick.
const COMPARISONS_MAX: usize = 1_000_000;

/// What a variable of the environment may not begin with: by these the runner, the marketplace and
/// haggle say what there is to do.
pub(super) const RESERVED: [&str; 2] = ["HAGGLE_", "CONTAINER_"];

/// A set of parameters, and where it stands.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Set {
    pub(super) place: Range<usize>,
    pub(super) parameters: Parameters,
}

/// The values of a parameter, and where its name stands.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Axis {
    pub(super) place: Range<usize>,
    pub(super) name: String,
    pub(super) values: Vec<String>,
}

/// Reads a list of sets.
pub(super) fn read(list: &DeArray<'_>, place: Range<usize>) -> Read {
    if list.is_empty() {
        let fault = Fault::new(place, "there is no set of parameters in it");
        return Err(vec![fault.help(
            "write one for each element, such as [{ seed = 1 }, { seed = 2 }]",
        )]);
    }
    if list.len() > ELEMENTS_MAX {
        return Err(vec![too_many(list.len(), place)]);
    }
    let mut faults = Vec::new();
    let mut sets: Vec<Set> = Vec::new();
    for item in list {
        match read_set(item) {
            Ok(set) => sets.push(set),
            Err(more) => faults.extend(more),
        }
    }
    if faults.is_empty() {
        Ok(Value::Sets(sets))
    } else {
        Err(faults)
    }
}

/// What is said of more elements than an array may have.
pub(super) fn too_many(elements: usize, place: Range<usize>) -> Fault {
    Fault::new(
        place,
        format!("an array has at most {ELEMENTS_MAX} elements, and these are {elements}"),
    )
    .help("let each element do several in turn, or write several policies")
}

/// What is said of more combinations, or more sets that leave some out, than are looked at.
pub(super) fn too_much_left_out(product: usize, without: usize, place: Range<usize>) -> Fault {
    let most = COMBINATIONS_MAX.min(COMPARISONS_MAX / without.max(1));
    Fault::new(
        place,
        format!(
            "{product} combinations, of which {without} sets leave some out, are too many to look at: at most \
             {most} are, with so many sets"
        ),
    )
    .help("leave out more with each set, by giving it fewer values; or write what is left as `values`")
}

fn read_set(item: &Spanned<DeValue<'_>>) -> Result<Set, Vec<Fault>> {
    let DeValue::Table(table) = item.get_ref() else {
        let fault = Fault::new(item.span(), "a set of parameters is a table");
        return Err(vec![fault.help("write it as { lr = 0.1, seed = 1 }")]);
    };
    if table.is_empty() {
        let fault = Fault::new(
            item.span(),
            "a set needs a parameter: by them its element is known",
        );
        return Err(vec![
            fault.help("write it as { lr = 0.1, seed = 1 }, or remove it"),
        ]);
    }
    let parameters = collect(table.iter().map(|(key, value)| {
        let name = key.get_ref().as_ref();
        check_name(name, key.span())?;
        Ok((name.to_owned(), read_value(name, value)?))
    }))?;
    let place = item.span();
    Ok(Set { place, parameters })
}

/// Reads the values of each parameter. The first in the file changes slowest.
pub(super) fn read_axes(table: &DeTable<'_>, place: Range<usize>) -> Read {
    if table.is_empty() {
        let fault = Fault::new(place, "there is no parameter in it");
        return Err(vec![
            fault.help("write it as { lr = [0.1, 0.01], seed = [1, 2] }"),
        ]);
    }
    let (mut axes, mut faults) = (Vec::new(), Vec::new());
    for (key, list) in table {
        match read_axis(key, list) {
            Ok(axis) => axes.push(axis),
            Err(more) => faults.extend(more),
        }
    }
    axes.sort_by_key(|axis: &Axis| axis.place.start);
    if faults.is_empty() {
        Ok(Value::Axes(axes))
    } else {
        Err(faults)
    }
}

fn read_axis(
    key: &Spanned<impl AsRef<str>>,
    list: &Spanned<DeValue<'_>>,
) -> Result<Axis, Vec<Fault>> {
    let name = key.get_ref().as_ref();
    check_name(name, key.span()).map_err(|fault| vec![fault])?;
    let items = match list.get_ref() {
        DeValue::Array(items) if !items.is_empty() => items,
        _ => {
            let fault = Fault::new(
                list.span(),
                format!("the values of `{name}` are a list of at least one"),
            );
            return Err(vec![fault.help("write it as [0.1, 0.01]")]);
        }
    };
    let mut seen = BTreeSet::new();
    let values: Vec<String> = collect(items.iter().map(|item| {
        let value = read_value(name, item)?;
        if !seen.insert(value.clone()) {
            let fault = Fault::new(item.span(), format!("`{name}` has this value twice"));
            return Err(fault.help("list each value once: the same set is the same element"));
        }
        Ok(value)
    }))?;
    Ok(Axis {
        place: key.span(),
        name: name.to_owned(),
        values,
    })
}

fn check_name(name: &str, place: Range<usize>) -> Result<(), Fault> {
    if !variable(name) {
        return Err(variable_fault(place));
    }
    if let Some(start) = RESERVED.iter().find(|start| name.starts_with(**start)) {
        let fault = Fault::new(place, format!("names that begin with {start} are reserved"));
        return Err(fault.help("the command is given HAGGLE_ARRAY_INDEX and HAGGLE_ARRAY_COUNT as it is; use another name"));
    }
    if names_a_secret(name) {
        let fault = Fault::new(
            place,
            format!("`{name}` looks like a secret; parameters are stored and shown"),
        );
        return Err(fault.help(format!(
            "give it to all elements in [run] as secrets = {{ {name} = {{ env = \"{name}\" }} }}"
        )));
    }
    Ok(())
}

/// A value as it stands in the file: `0.10` is another one than `0.1`, and `1` the same as `"1"`.
fn read_value(name: &str, value: &Spanned<DeValue<'_>>) -> Result<String, Fault> {
    let text = match value.get_ref() {
        DeValue::String(text) => text.to_string(),
        DeValue::Integer(number) if number.radix() == 10 => number.as_str().to_owned(),
        DeValue::Float(number) => number.as_str().to_owned(),
        DeValue::Boolean(flag) => flag.to_string(),
        DeValue::Integer(_) => {
            let fault = Fault::new(value.span(), "which text this number becomes is not clear");
            return Err(fault.help("put it in quotes as the command wants it"));
        }
        other => {
            let found = other.type_str();
            let fault = Fault::new(
                value.span(),
                format!("a parameter is a text, a number, true or false, and this is a {found}"),
            );
            return Err(fault.help("put it in quotes as the command wants it"));
        }
    };
    if text.chars().any(char::is_control) {
        let fault = Fault::new(
            value.span(),
            format!("the value of `{name}` has a line break, tab or other control character in it"),
        );
        return Err(fault.help(
            "a parameter is one line of printable text: write it in another way that the command understands",
        ));
    }
    let length = name.chars().count() + 1 + text.chars().count();
    if length > ENV_ENTRY_MAX {
        let message =
            format!("{name}=… is {length} characters long; the marketplace takes {ENV_ENTRY_MAX}");
        let fault = Fault::new(value.span(), message);
        return Err(fault.help("let the command look it up by a shorter parameter"));
    }
    Ok(text)
}

/// Every combination, the first parameter changing slowest; `None` where there are too many to look at, or
/// to hold against so many sets that leave some out.
pub(super) fn combinations(axes: &[Axis], without: usize) -> Option<Vec<Parameters>> {
    let all = axes.iter().try_fold(1_usize, |product, axis| {
        product.checked_mul(axis.values.len())
    })?;
    if all > COMBINATIONS_MAX || all.saturating_mul(without) > COMPARISONS_MAX {
        return None;
    }
    let mut sets = vec![BTreeMap::new()];
    for axis in axes {
        let with = |set: &Parameters, value: &String| {
            let mut set = set.clone();
            set.insert(axis.name.clone(), value.clone());
            set
        };
        sets = sets
            .iter()
            .flat_map(|set| axis.values.iter().map(move |value| with(set, value)))
            .collect();
    }
    Some(sets)
}

/// What a set of parameters is, as JSON Schema.
fn set_schema() -> Json {
    json!({ "type": "object", "additionalProperties": value_schema() })
}

fn value_schema() -> Json {
    json!({ "anyOf": [
        { "type": "string", "maxLength": ENV_ENTRY_MAX, "pattern": r"^[^\x00-\x1f\x7f-\x9f]*$" },
        { "type": "number" },
        { "type": "boolean" },
    ] })
}

/// The JSON Schema of a list of sets.
pub(super) fn schema() -> Json {
    json!({ "type": "array", "items": set_schema(), "minItems": 1, "maxItems": ELEMENTS_MAX })
}

/// The JSON Schema of the values of each parameter.
pub(super) fn axes_schema() -> Json {
    let list = json!({ "type": "array", "items": value_schema(), "minItems": 1 });
    json!({ "type": "object", "additionalProperties": list })
}
