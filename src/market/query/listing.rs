//! Filters, order and pages of the account's own rows.

use std::cmp::Ordering;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE;
use serde_json::{Map, Value, json};

use super::{Direction, Fields, Filter, Kind, QueryError, Row, compare_cells, filters, refuse};
use crate::market::raw::{Field, RawInstance};

/// What the marketplace stores of an instance; what it computes can be neither filtered nor
/// ordered by.
const INSTANCE_FIELDS: Fields = &[
    ("id", Kind::Number),
    ("actual_status", Kind::Text),
    ("intended_status", Kind::Text),
    ("cur_state", Kind::Text),
    ("next_state", Kind::Text),
    ("label", Kind::Text),
    ("is_bid", Kind::Bool),
    ("machine_id", Kind::Number),
    ("host_id", Kind::Number),
    ("gpu_name", Kind::Text),
    ("gpu_arch", Kind::Text),
    ("cpu_arch", Kind::Text),
    ("verification", Kind::Text),
    ("geolocation", Kind::Country),
    ("country_code", Kind::Country),
    ("hosting_type", Kind::Number),
    ("image_uuid", Kind::Text),
    ("image_runtype", Kind::Text),
    ("template_id", Kind::Number),
    ("template_hash_id", Kind::Text),
    ("template_name", Kind::Text),
    ("start_date", Kind::Number),
    ("end_date", Kind::Number),
    ("disk_space", Kind::Number),
    ("driver_version", Kind::Text),
    ("os_version", Kind::Text),
    ("public_ipaddr", Kind::Text),
    ("ssh_host", Kind::Text),
    ("ssh_port", Kind::Number),
    ("static_ip", Kind::Bool),
];

impl Row for RawInstance {
    fn cell(&self, field: &str) -> Field<'_> {
        self.field(field).unwrap_or(Field::Null)
    }

    fn looked_up(&self, name: &str) -> Field<'_> {
        self.cell(name)
    }

    fn stands_for(&mut self, _rows: u32) {}
}

/// A list of the account's instances as it was asked for.
#[derive(Debug)]
pub(crate) struct Listing {
    filters: Vec<Filter>,
    /// The last key is the id, so that every row has its place.
    order: Vec<(&'static str, Direction)>,
}

impl Listing {
    /// Reads `{field: {operator: value}}` and `[{"col": field, "dir": "asc"}]`.
    pub(crate) fn of_instances(
        conditions: Option<&Value>,
        order: Option<&Value>,
    ) -> Result<Self, QueryError> {
        let empty = Map::new();
        let conditions = match conditions {
            None | Some(Value::Null) => &empty,
            Some(Value::Object(conditions)) => conditions,
            Some(_) => return refuse("select_filters is not an object".to_owned()),
        };
        let mut read = Vec::new();
        for (name, tests) in conditions {
            read.extend(filters(INSTANCE_FIELDS, name, tests)?);
        }
        Ok(Self {
            filters: read,
            order: keys(order)?,
        })
    }

    /// The rows that match, in order.
    pub(crate) fn select<R: Row>(&self, mut rows: Vec<R>) -> Vec<R> {
        rows.retain(super::accepting(&self.filters));
        rows.sort_by(|a, b| {
            let cells = |row| {
                self.order
                    .iter()
                    .map(move |(name, _)| R::looked_up(row, name))
            };
            self.compare(cells(a), cells(b))
        });
        rows
    }

    /// The token that continues after a row.
    pub(crate) fn token<R: Row>(&self, row: &R) -> String {
        let values: Map<String, Value> = self
            .order
            .iter()
            .map(|(name, _)| ((*name).to_owned(), value(row.looked_up(name))))
            .collect();
        URL_SAFE.encode(json!({ "values": values }).to_string())
    }

    /// Whether a row comes after what a token names; `None` where that is no token of this order.
    pub(crate) fn follows<R: Row>(&self, row: &R, after: &Value) -> bool {
        let place = self.order.iter().map(|(name, _)| field(&after[*name]));
        let cells = self.order.iter().map(|(name, _)| row.looked_up(name));
        self.compare(cells, place).is_gt()
    }

    /// The values that a token names, where it is one of this order.
    pub(crate) fn read_token(&self, token: &str) -> Option<Value> {
        let bytes = URL_SAFE.decode(token).ok()?;
        let mut token: Value = serde_json::from_slice(&bytes).ok()?;
        let values = token.get_mut("values")?.take();
        let named = |(name, _): &(&str, Direction)| values.get(*name).is_some();
        (self.order.iter().all(named) && values["id"].is_u64()).then_some(values)
    }

    fn compare<'a>(
        &self,
        a: impl Iterator<Item = Field<'a>>,
        b: impl Iterator<Item = Field<'a>>,
    ) -> Ordering {
        self.order
            .iter()
            .zip(a.zip(b))
            .map(|((_, direction), (a, b))| compare_cells(a, b, *direction))
            .find(|order| order.is_ne())
            .unwrap_or(Ordering::Equal)
    }
}

fn keys(order: Option<&Value>) -> Result<Vec<(&'static str, Direction)>, QueryError> {
    let wrong = || QueryError("order_by is not [{\"col\": …, \"dir\": …}, …]".to_owned());
    let given = match order {
        None | Some(Value::Null) => &[][..],
        Some(order) => order.as_array().ok_or_else(wrong)?,
    };
    let mut keys = Vec::new();
    for key in given {
        let name = key["col"].as_str().ok_or_else(wrong)?;
        let direction = match key.get("dir").and_then(Value::as_str) {
            None | Some("asc" | "ASC") => Direction::Ascending,
            Some("desc" | "DESC") => Direction::Descending,
            Some(_) => return Err(wrong()),
        };
        let known = INSTANCE_FIELDS.iter().find(|(known, _)| *known == name);
        let Some((name, _)) = known else {
            return refuse(format!("{name} is not a valid search key"));
        };
        keys.push((*name, direction));
    }
    let mut keys = super::decisive(keys);
    let by_id = keys.iter().position(|(name, _)| *name == "id");
    match by_id {
        Some(at) => keys.truncate(at + 1),
        None => keys.push(("id", Direction::Ascending)),
    }
    Ok(keys)
}

fn value(field: Field<'_>) -> Value {
    match field {
        Field::Null => Value::Null,
        Field::Number(number) if number.fract() == 0.0 && number.abs() < 9.0e15 => {
            json!(number as i64)
        }
        Field::Number(number) => json!(number),
        Field::Text(text) => json!(text),
        Field::Flag(flag) => json!(flag),
    }
}

fn field(value: &Value) -> Field<'_> {
    match value {
        Value::Number(number) => number.as_f64().map_or(Field::Null, Field::Number),
        Value::String(text) => Field::Text(text),
        Value::Bool(flag) => Field::Flag(*flag),
        _ => Field::Null,
    }
}
