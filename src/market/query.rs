//! The search language of the marketplace: filters, order, the row cap.
//!
//! Filters come as `{field: {operator: value}}`, all of them to be met. Clients send numbers and
//! booleans as strings, so operands are coerced by what the field holds. Where a client does not
//! name them, the server asks for verified, rentable rows that the caller does not hold.

mod fields;
mod listing;

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value};

use self::fields::{FIELDS, Fields, IGNORED, Kind};
pub(crate) use self::listing::Listing;
use super::raw::Field;
use crate::types::offer::Market as SearchType;

/// Most rows of one answer, whatever `limit` says: the marketplace's observed cap.
pub(crate) const ROWS_MAX: usize = 64;

/// Disk in GB by which totals are reckoned where the search does not say: the server's default.
const ALLOCATED_STORAGE_GB: f64 = 8.0;

/// Largest disk that a search may ask for, in GB; far over any machine's.
const ALLOCATED_STORAGE_GB_MAX: f64 = 1.0e6;

/// What reads one field of rows: a lookup by name is made once a search, not once a row.
pub(crate) type Reader<R> = Box<dyn for<'a> Fn(&'a R) -> Field<'a>>;

/// A row that can be searched.
pub(crate) trait Row: Sized {
    /// The value of a field of the wire format; `Null` for one that it does not have: that meets
    /// no test and is ordered last.
    fn cell(&self, field: &str) -> Field<'_>;

    /// The value by which a filter or an order of that name goes: an offer has names that exist
    /// only there.
    fn looked_up(&self, name: &str) -> Field<'_> {
        cell(self, name)
    }

    /// What reads the value by which a filter or an order of that name goes.
    fn reader(name: &'static str) -> Reader<Self> {
        Box::new(move |row: &Self| row.looked_up(name))
    }

    /// Notes that it stands for so many equal rows.
    fn stands_for(&mut self, rows: u32);
}

/// Why a search is refused: the message of a 400 `invalid_request`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(crate) struct QueryError(String);

fn refuse<T>(message: String) -> Result<T, QueryError> {
    Err(QueryError(message))
}

/// A search, ready to be applied.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Search {
    /// Which prices.
    pub(crate) kind: SearchType,
    /// Disk by which totals are reckoned, in GB.
    pub(crate) allocated_storage: f64,
    filters: Vec<Filter>,
    order: Vec<(&'static str, Direction)>,
    limit: usize,
    offset: usize,
    /// Whether equal offers of a machine become one row.
    bundles: bool,
    /// Whether prices of a prepaid rental are asked for.
    pub(crate) reserved: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Direction {
    Ascending,
    Descending,
}

fn field(name: &str) -> Option<(&'static str, Kind)> {
    FIELDS.iter().find(|(known, _)| *known == name).copied()
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Op {
    Eq,
    Neq,
    Gt,
    Gte,
    Lt,
    Lte,
    In,
    NotIn,
}

/// A test of one field: its operands, coerced. `In` and `NotIn` have any number, the rest one.
#[derive(Clone, Debug, PartialEq)]
struct Filter {
    field: &'static str,
    kind: Kind,
    op: Op,
    operands: Vec<Operand>,
}

#[derive(Clone, Debug, PartialEq)]
enum Operand {
    Bool(bool),
    Number(f64),
    Text(String),
}

impl Search {
    /// Reads a search from the query of a request: `q` as a JSON object of filters and control
    /// keys; `type`, `limit`, `order`, `sort_option` and `allocated_storage` beside it, which
    /// outweigh it; and any field's own parameter, as an object of operators or a value to equal.
    ///
    /// `offset` counts only where `honour_offset`: the marketplace knows none.
    pub(crate) fn parse(
        pairs: &[(String, String)],
        honour_offset: bool,
    ) -> Result<Self, QueryError> {
        let mut controls = Map::new();
        let mut filters = Map::new();
        let q = pairs.iter().find(|(key, _)| key == "q");
        if let Some((_, text)) = q {
            let Ok(Value::Object(object)) = serde_json::from_str(text) else {
                return refuse("Invalid json body: q is not a JSON object".to_owned());
            };
            for (key, value) in object {
                sort_in(key, value, &mut controls, &mut filters)?;
            }
        }
        for (key, text) in pairs {
            let value = serde_json::from_str(text).unwrap_or_else(|_| Value::from(text.as_str()));
            if CONTROLS.contains(&key.as_str()) {
                controls.insert(key.clone(), value);
            } else if field(key).is_some() {
                let tests = match value {
                    Value::Object(tests) => Value::Object(tests),
                    // A plain parameter is what the field must equal; it may well be a text that
                    // happens to be JSON.
                    _ => serde_json::json!({ "eq": text }),
                };
                filters.insert(key.clone(), tests);
            }
        }
        Self::of(&controls, filters, honour_offset)
    }

    /// Reads a search from one object of filters and control keys: the native form.
    pub(crate) fn of_object(object: &Map<String, Value>) -> Result<Self, QueryError> {
        let mut controls = Map::new();
        let mut filters = Map::new();
        for (key, value) in object {
            sort_in(key.clone(), value.clone(), &mut controls, &mut filters)?;
        }
        Self::of(&controls, filters, false)
    }

    /// A search from its control keys and its filters.
    fn of(
        controls: &Map<String, Value>,
        mut filters: Map<String, Value>,
        honour_offset: bool,
    ) -> Result<Self, QueryError> {
        let mut search = Self {
            kind: search_type(controls.get("type"))?,
            allocated_storage: allocated_storage(controls.get("allocated_storage"))?,
            filters: Vec::new(),
            order: decisive(order(controls.get("order"), controls.get("sort_option"))?),
            limit: count(controls.get("limit"), "limit")?.map_or(ROWS_MAX, |n| n.min(ROWS_MAX)),
            offset: 0,
            bundles: !truth(controls.get("disable_bundling"), "disable_bundling")?,
            reserved: controls.get("type").and_then(Value::as_str) == Some("reserved"),
        };
        if honour_offset {
            search.offset = count(controls.get("offset"), "offset")?.unwrap_or(0);
        }
        for (name, default) in [("verified", true), ("rentable", true), ("rented", false)] {
            filters
                .entry(name)
                .or_insert_with(|| serde_json::json!({ "eq": default }));
        }
        for (name, tests) in &filters {
            search.add_filters(name, tests)?;
        }
        Ok(search)
    }

    /// The search for one row by its id, with every default opened: the row itself says whether it
    /// can be rented.
    pub(crate) fn by_id(id: &str, pairs: &[(String, String)]) -> Result<Self, QueryError> {
        let controls: Vec<_> = pairs
            .iter()
            .filter(|(key, _)| matches!(key.as_str(), "type" | "allocated_storage"))
            .cloned()
            .collect();
        let mut search = Self::parse(&controls, false)?;
        search.filters.clear();
        search.bundles = false;
        search.add_filters("ask_contract_id", &serde_json::json!({ "eq": id }))?;
        Ok(search)
    }

    /// The tests of all fields but some: whoever makes rows need not make those that fail them. A
    /// row that passes is tested whole when rows are selected.
    pub(crate) fn tests_besides<R: Row>(&self, fields: &[&str]) -> impl Fn(&R) -> bool {
        let others: Vec<&Filter> = self
            .filters
            .iter()
            .filter(|filter| !fields.contains(&filter.field))
            .collect();
        accepting(others)
    }

    /// The rows that match, in order, capped.
    pub(crate) fn select<R: Row>(&self, mut rows: Vec<R>) -> Vec<R> {
        rows.retain(accepting(&self.filters));
        if self.bundles {
            rows = bundled(rows);
        }
        // The last key is the id, so that equal rows keep one order between requests.
        let names = self.order.iter().map(|(name, _)| *name);
        let readers: Vec<Reader<R>> = names.chain(["ask_contract_id"]).map(R::reader).collect();
        let width = readers.len();
        let keys: Vec<Field<'_>> = rows
            .iter()
            .flat_map(|row| readers.iter().map(move |read| read(row)))
            .collect();
        let key = |place: usize| &keys[place * width..(place + 1) * width];
        let mut places: Vec<usize> = (0..rows.len()).collect();
        let last = self.offset.saturating_add(self.limit).min(places.len());
        if last < places.len() {
            // Only what is shown need be put in order.
            places.select_nth_unstable_by(last, |&a, &b| self.compare(key(a), key(b)));
            places.truncate(last);
        }
        places.sort_by(|&a, &b| self.compare(key(a), key(b)));
        places.drain(..self.offset.min(last));
        let mut rows: Vec<Option<R>> = rows.into_iter().map(Some).collect();
        places
            .into_iter()
            .filter_map(|at| rows[at].take())
            .collect()
    }

    fn compare(&self, a: &[Field<'_>], b: &[Field<'_>]) -> Ordering {
        let directions = self.order.iter().map(|(_, direction)| *direction);
        directions
            .chain([Direction::Ascending])
            .zip(a.iter().zip(b))
            .map(|(direction, (a, b))| compare_cells(*a, *b, direction))
            .find(|order| order.is_ne())
            .unwrap_or(Ordering::Equal)
    }

    fn add_filters(&mut self, name: &str, tests: &Value) -> Result<(), QueryError> {
        self.filters.extend(filters(FIELDS, name, tests)?);
        Ok(())
    }
}

/// Whether a row passes all of some tests.
fn accepting<'a, R: Row>(filters: impl IntoIterator<Item = &'a Filter>) -> impl Fn(&R) -> bool {
    let tests: Vec<(Reader<R>, &Filter)> = filters
        .into_iter()
        .map(|filter| (R::reader(filter.field), filter))
        .collect();
    move |row| tests.iter().all(|(read, filter)| filter.accepts(read(row)))
}

/// The tests of one of some fields.
fn filters(fields: Fields, name: &str, tests: &Value) -> Result<Vec<Filter>, QueryError> {
    let known = fields.iter().find(|(known, _)| *known == name);
    let Some(&(field, kind)) = known else {
        return refuse(format!("{name} is not a valid search key"));
    };
    let tests = match tests {
        Value::Null => return Ok(Vec::new()),
        Value::Object(tests) => tests,
        Value::Bool(_) | Value::Number(_) if BARE.contains(&name) => {
            &Map::from_iter([("eq".to_owned(), tests.clone())])
        }
        _ => return refuse(format!("{name} must be an object such as {{\"eq\": …}}")),
    };
    let mut read = Vec::new();
    for (op, value) in tests {
        let op = operator(op)
            .ok_or_else(|| QueryError(format!("{op} is not a valid operator ({name})")))?;
        // Clients send what they do not set as null.
        if value.is_null() {
            continue;
        }
        let values = match (op, value) {
            (Op::In | Op::NotIn, Value::Array(values)) => values.as_slice(),
            (Op::In | Op::NotIn, _) => return refuse(format!("{name}: in needs an array")),
            _ => std::slice::from_ref(value),
        };
        let operands = values.iter().map(|value| {
            coerce(kind, value)
                .ok_or_else(|| QueryError(format!("{name}: {value} does not fit the field")))
        });
        let operands = operands.collect::<Result<_, _>>()?;
        read.push(Filter {
            field,
            kind,
            op,
            operands,
        });
    }
    Ok(read)
}

/// Fields that may be given as the bare value that they are to equal: the classes of the
/// marketplace's own client send these two so.
const BARE: &[&str] = &["external", "has_avx"];

/// Control keys of a search.
const CONTROLS: &[&str] = &[
    "type",
    "limit",
    "offset",
    "order",
    "sort_option",
    "allocated_storage",
    "disable_bundling",
];

/// The rows with those that are equal to one before made part of it: the same bundle at the same
/// prices, and as free.
fn bundled<R: Row>(rows: Vec<R>) -> Vec<R> {
    let mut kept: Vec<R> = Vec::with_capacity(rows.len());
    let mut places: BTreeMap<Vec<u64>, (usize, u32)> = BTreeMap::new();
    let readers: Vec<Reader<R>> = BUNDLED_BY.iter().map(|name| R::reader(name)).collect();
    for row in rows {
        let key: Option<Vec<u64>> = readers
            .iter()
            .map(|read| match read(&row) {
                Field::Number(number) => Some(number.to_bits()),
                Field::Flag(flag) => Some(u64::from(flag)),
                Field::Null | Field::Text(_) => None,
            })
            .collect();
        let Some(key) = key else {
            kept.push(row);
            continue;
        };
        if let Some((_, count)) = places.get_mut(&key) {
            *count += 1;
        } else {
            places.insert(key, (kept.len(), 1));
            kept.push(row);
        }
    }
    for (at, count) in places.into_values().filter(|(_, count)| *count > 1) {
        kept[at].stands_for(count);
    }
    kept
}

/// What equal offers share.
const BUNDLED_BY: &[&str] = &[
    "bundle_id",
    "machine_id",
    "num_gpus",
    "dph_total",
    "min_bid",
    "rentable",
    "rented",
];

fn sort_in(
    key: String,
    value: Value,
    controls: &mut Map<String, Value>,
    filters: &mut Map<String, Value>,
) -> Result<(), QueryError> {
    if CONTROLS.contains(&key.as_str()) {
        controls.insert(key, value);
    } else if IGNORED.contains(&key.as_str()) {
        // Accepted, without effect on a market that bundles nothing.
    } else if field(&key).is_none() {
        return refuse(format!("{key} is not a valid search key"));
    } else if !value.is_null() {
        filters.insert(key, value);
    }
    Ok(())
}

fn search_type(value: Option<&Value>) -> Result<SearchType, QueryError> {
    match value {
        None | Some(Value::Null) => Ok(SearchType::OnDemand),
        Some(value) => match value.as_str() {
            // A reserved rental is an on-demand one that is prepaid: the same rows.
            Some("on-demand" | "ondemand" | "reserved") => Ok(SearchType::OnDemand),
            Some("bid") => Ok(SearchType::Bid),
            _ => refuse(format!(
                "type {value} is not one of on-demand, bid, reserved"
            )),
        },
    }
}

fn allocated_storage(value: Option<&Value>) -> Result<f64, QueryError> {
    let Some(value) = value.filter(|value| !value.is_null()) else {
        return Ok(ALLOCATED_STORAGE_GB);
    };
    number(value)
        .filter(|gigabytes| (0.0..=ALLOCATED_STORAGE_GB_MAX).contains(gigabytes))
        .ok_or_else(|| QueryError(format!("allocated_storage {value} is not a size in GB")))
}

fn truth(value: Option<&Value>, name: &str) -> Result<bool, QueryError> {
    let Some(value) = value.filter(|value| !value.is_null()) else {
        return Ok(false);
    };
    match coerce(Kind::Bool, value) {
        Some(Operand::Bool(truth)) => Ok(truth),
        _ => refuse(format!("{name} {value} is not a boolean")),
    }
}

fn count(value: Option<&Value>, name: &str) -> Result<Option<usize>, QueryError> {
    let Some(value) = value.filter(|value| !value.is_null()) else {
        return Ok(None);
    };
    number(value)
        .filter(|n| *n >= 0.0 && n.fract() == 0.0 && *n < 1.0e9)
        .map(|n| Some(n as usize))
        .ok_or_else(|| QueryError(format!("{name} {value} is not a whole number")))
}

/// Reads an order: the native `[[field, "asc"], …]`, or a text such as `dph_total`,
/// `dph_total desc` or, in the words of the marketplace's own command line, `num_gpus,dph_total-`.
/// A `sort_option` counts where there is no order; one of another form is passed over.
fn order(
    order: Option<&Value>,
    sort_option: Option<&Value>,
) -> Result<Vec<(&'static str, Direction)>, QueryError> {
    let default = || vec![("score", Direction::Descending)];
    match order {
        None | Some(Value::Null) => {}
        Some(Value::String(text)) if text.trim().is_empty() => {}
        Some(given) => return read_order(given),
    }
    let option = sort_option.and_then(|given| match given {
        // The web console writes {"0": ["dph_total", "asc"]}.
        Value::Object(keys) => Some(Value::Array(keys.values().cloned().collect())),
        Value::Null => None,
        other => Some(other.clone()),
    });
    let read = option.and_then(|given| read_order(&given).ok());
    Ok(read.filter(|keys| !keys.is_empty()).unwrap_or_else(default))
}

/// The keys of an order without those that came before: they decide nothing, and a search that
/// names one a thousand times must not cost a thousand times as much.
fn decisive(keys: Vec<(&'static str, Direction)>) -> Vec<(&'static str, Direction)> {
    let mut names = BTreeSet::new();
    let mut keys = keys;
    keys.retain(|(name, _)| names.insert(*name));
    keys
}

fn read_order(given: &Value) -> Result<Vec<(&'static str, Direction)>, QueryError> {
    let wrong = || {
        QueryError(format!(
            "order {given} is not [[field, \"asc\"|\"desc\"], …]"
        ))
    };
    let one = |name: &str, direction: &str| {
        let direction = match direction.trim().to_ascii_lowercase().as_str() {
            "" | "asc" => Direction::Ascending,
            "desc" => Direction::Descending,
            _ => return Err(wrong()),
        };
        let (name, _) = field(name.trim())
            .ok_or_else(|| QueryError(format!("{} is not a valid search key", name.trim())))?;
        Ok((name, direction))
    };
    match given {
        Value::Array(keys) => keys
            .iter()
            .map(|key| match key.as_array().map(Vec::as_slice) {
                Some([name, direction]) => one(
                    name.as_str().ok_or_else(wrong)?,
                    direction.as_str().ok_or_else(wrong)?,
                ),
                Some([name]) => one(name.as_str().ok_or_else(wrong)?, ""),
                _ => Err(wrong()),
            })
            .collect(),
        Value::String(text) => text
            .split(',')
            .map(|key| {
                let key = key.trim();
                if let Some(name) = key.strip_suffix('-') {
                    return one(name, "desc");
                }
                let (name, direction) = key.split_once([' ', ':']).unwrap_or((key, ""));
                one(name, direction)
            })
            .collect(),
        _ => Err(wrong()),
    }
}

fn operator(name: &str) -> Option<Op> {
    Some(match name {
        "eq" => Op::Eq,
        "neq" => Op::Neq,
        "gt" => Op::Gt,
        "gte" => Op::Gte,
        "lt" => Op::Lt,
        "lte" => Op::Lte,
        "in" => Op::In,
        "notin" | "nin" | "not in" => Op::NotIn,
        _ => return None,
    })
}

fn number(value: &Value) -> Option<f64> {
    let number = match value {
        Value::Number(number) => number.as_f64(),
        Value::String(text) => text.trim().parse().ok(),
        Value::Bool(truth) => Some(f64::from(u8::from(*truth))),
        _ => None,
    };
    number.filter(|number| number.is_finite())
}

/// A driver version of up to three groups as one number: `535.86.05` is 535086005.
pub(crate) fn driver_number(text: &str) -> Option<u64> {
    let mut groups = [0_u64; 3];
    let mut parts = text.trim().split('.');
    for (index, group) in groups.iter_mut().enumerate() {
        match parts.next() {
            Some(part) => *group = part.parse().ok().filter(|n| *n < 1000)?,
            None if index > 0 => {}
            None => return None,
        }
    }
    parts
        .next()
        .is_none()
        .then(|| groups[0] * 1_000_000 + groups[1] * 1000 + groups[2])
}

fn country(text: &str) -> String {
    let text = text.trim();
    let start = text.char_indices().rev().nth(1).map_or(0, |(at, _)| at);
    text[start..].to_ascii_uppercase()
}

fn coerce(kind: Kind, value: &Value) -> Option<Operand> {
    match kind {
        Kind::Number => number(value).map(Operand::Number),
        Kind::Driver => match value {
            Value::String(text) if text.contains('.') => {
                driver_number(text).map(|version| Operand::Number(version as f64))
            }
            _ => number(value).map(Operand::Number),
        },
        Kind::Bool => match value {
            Value::Bool(truth) => Some(Operand::Bool(*truth)),
            Value::String(text) => match text.trim().to_ascii_lowercase().as_str() {
                "true" | "1" => Some(Operand::Bool(true)),
                "false" | "0" => Some(Operand::Bool(false)),
                _ => None,
            },
            Value::Number(n) if n.as_f64() == Some(1.0) => Some(Operand::Bool(true)),
            Value::Number(n) if n.as_f64() == Some(0.0) => Some(Operand::Bool(false)),
            _ => None,
        },
        Kind::Text => match value {
            Value::String(text) => Some(Operand::Text(text.clone())),
            Value::Number(number) => Some(Operand::Text(number.to_string())),
            _ => None,
        },
        Kind::Country => value.as_str().map(|text| Operand::Text(country(text))),
    }
}

/// A row's value for a field, the names that exist only in filters included.
fn cell<'a, R: Row>(row: &'a R, name: &str) -> Field<'a> {
    match name {
        // The marketplace documents a filter on `id`, which matches nothing.
        "id" => Field::Null,
        "verified" => match row.cell("verification") {
            Field::Text(text) => Field::Flag(text == "verified"),
            _ => Field::Null,
        },
        "datacenter" => match row.cell("hosting_type") {
            Field::Number(hosting) => Field::Flag(hosting >= 1.0),
            _ => Field::Null,
        },
        "external" => match row.cell(name) {
            Field::Null => Field::Flag(false),
            known => known,
        },
        "ubuntu_version" => row.cell("os_version"),
        "driver_version" => row.cell("driver_vers"),
        _ => row.cell(name),
    }
}

impl Filter {
    fn accepts(&self, cell: Field<'_>) -> bool {
        if cell == Field::Null {
            return false;
        }
        let against = |operand: &Operand| self.order_against(cell, operand);
        let first = self.operands.first();
        let is = |accepted: fn(Ordering) -> bool| first.and_then(against).is_some_and(accepted);
        let any_equal = || {
            self.operands
                .iter()
                .any(|o| against(o) == Some(Ordering::Equal))
        };
        match self.op {
            Op::Eq => is(Ordering::is_eq),
            Op::Neq => is(Ordering::is_ne),
            Op::Gt => is(Ordering::is_gt),
            Op::Gte => is(Ordering::is_ge),
            Op::Lt => is(Ordering::is_lt),
            Op::Lte => is(Ordering::is_le),
            Op::In => any_equal(),
            Op::NotIn => !any_equal(),
        }
    }

    fn order_against(&self, cell: Field<'_>, operand: &Operand) -> Option<Ordering> {
        match (cell, operand) {
            (Field::Number(a), Operand::Number(b)) => a.partial_cmp(b),
            (Field::Flag(a), Operand::Bool(b)) => Some(a.cmp(b)),
            (Field::Text(a), Operand::Text(b)) if self.kind == Kind::Country => {
                Some(country(a).as_str().cmp(b))
            }
            (Field::Text(a), Operand::Text(b)) => Some(a.cmp(b.as_str())),
            _ => None,
        }
    }
}

/// Orders two cells; a missing one is last whichever way.
fn compare_cells(a: Field<'_>, b: Field<'_>, direction: Direction) -> Ordering {
    let order = match (a, b) {
        (Field::Null, Field::Null) => return Ordering::Equal,
        (Field::Null, _) => return Ordering::Greater,
        (_, Field::Null) => return Ordering::Less,
        (Field::Number(a), Field::Number(b)) => a.total_cmp(&b),
        (Field::Flag(a), Field::Flag(b)) => a.cmp(&b),
        (Field::Text(a), Field::Text(b)) => a.cmp(b),
        _ => Ordering::Equal,
    };
    match direction {
        Direction::Ascending => order,
        Direction::Descending => order.reverse(),
    }
}

#[cfg(test)]
mod tests;
