//! Rows of the bill, in the two shapes that the marketplace documents.

use serde::Deserialize;
use serde_json::Value;

use super::BadRow;
use super::lenient::{Num, Text};
use crate::ports::Charge;
use crate::types::ids::InstanceId;
use crate::types::ledger::Component;
use crate::types::money::Money;
use crate::types::time::Time;

/// Amounts are shown with three decimals, so each is off by at most half of the last.
const ROUNDING: Money = Money(500_000);

/// Charges read from one row of the bill.
pub type ChargeRows = Vec<Charge>;

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Row<'a> {
    #[serde(rename = "type", borrow)]
    kind: Text<'a>,
    #[serde(borrow)]
    source: Text<'a>,
    #[serde(borrow)]
    description: Text<'a>,
    instance_id: Num,
    start: Num,
    end: Num,
    timestamp: Num,
    amount: Num,
    #[serde(borrow)]
    metadata: Option<Metadata<'a>>,
    #[serde(borrow)]
    items: Option<Vec<Item<'a>>>,
}

/// What the marketplace documents beside a row: among other things the instance's label.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Metadata<'a> {
    #[serde(borrow)]
    label: Text<'a>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Item<'a> {
    #[serde(rename = "type", borrow)]
    kind: Text<'a>,
    amount: Num,
}

/// The charges of one row; none where the row is a payment. A charge that cannot be read is an
/// error: a bill with a hole in it is no bill.
pub fn charges(row: &Value) -> Result<ChargeRows, BadRow> {
    let row = Row::deserialize(row).map_err(|_| BadRow("row"))?;
    let kind = row.kind.get().unwrap_or_default();
    if matches!(
        kind,
        "payment" | "credit" | "transfer" | "payout" | "refund" | "reserved"
    ) {
        return Ok(Vec::new());
    }
    let amount = row.amount.amount().ok_or(BadRow("amount"))?;
    let start = row
        .start
        .time()
        .or(row.timestamp.time())
        .ok_or(BadRow("start"))?;
    let end = row.end.time().unwrap_or(start).max(start);
    let instance = instance_of(&row);
    let label = row.metadata.as_ref().and_then(|more| more.label.get());
    let charge = |component, amount| Charge {
        instance,
        label: label.map(str::to_owned),
        component,
        start,
        end,
        amount,
    };
    let items = row.items.as_deref().unwrap_or_default();
    let parts: Option<Vec<(Option<Component>, Money)>> = items
        .iter()
        .map(|item| Some((component_of(item.kind.get()), item.amount.amount()?)))
        .collect();
    let Some(parts) = parts.filter(|parts| !parts.is_empty()) else {
        let component = row.description.get().and_then(described);
        return Ok(vec![charge(component, amount)]);
    };
    let rest = amount - parts.iter().map(|&(_, amount)| amount).sum();
    let explained = ROUNDING.0 * (parts.len() as i64 + 1);
    let mut all: Vec<Charge> = parts
        .into_iter()
        .map(|(part, amount)| charge(part, amount))
        .collect();
    // The row's own amount is what is billed. What rounding explains belongs to the largest part,
    // and what it does not explain is charged all the same, for what the row does not say.
    let largest = all.iter_mut().max_by_key(|charge| charge.amount);
    match largest {
        Some(largest) if rest.0.abs() <= explained => largest.amount += rest,
        _ => all.push(charge(None, rest)),
    }
    Ok(all)
}

fn instance_of(row: &Row<'_>) -> Option<InstanceId> {
    let named = row
        .source
        .get()
        .and_then(|source| source.strip_prefix("instance-"))
        .and_then(|digits| digits.parse().ok());
    row.instance_id.id().or(named).map(InstanceId)
}

fn component_of(kind: Option<&str>) -> Option<Component> {
    match kind? {
        "gpu" => Some(Component::Gpu),
        "disk" | "storage" => Some(Component::Disk),
        "bwd" | "bwu" => Some(Component::Traffic),
        _ => None,
    }
}

/// The component that a description speaks of, where the row has no items.
fn described(description: &str) -> Option<Component> {
    let words = description.to_ascii_lowercase();
    let speaks_of = |names: &[&str]| names.iter().any(|name| words.contains(name));
    if speaks_of(&["storage", "disk"]) {
        Some(Component::Disk)
    } else if speaks_of(&["bandwidth", "upload", "download", "traffic"]) {
        Some(Component::Traffic)
    } else if speaks_of(&["gpu"]) {
        Some(Component::Gpu)
    } else {
        None
    }
}

/// Whether a charge touches a span of time.
pub(crate) fn touches(charge: &Charge, from: Time, to: Time) -> bool {
    charge.end >= from && charge.start <= to
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_native_row_is_its_items() {
        let row = json!({"start":1000,"end":4600,"type":"instance","source":"instance-31884210",
            "amount":0.197,"items":[{"type":"gpu","amount":0.1901},{"type":"disk","amount":"0.006"},
            {"type":"bwd","amount":0.0004}]});
        let read = charges(&row).unwrap();
        assert_eq!(read.len(), 3);
        assert!(
            read.iter()
                .all(|c| c.instance == Some(InstanceId(31884210)))
        );
        assert_eq!(read[0].component, Some(Component::Gpu));
        let total: Money = read.iter().map(|charge| charge.amount).sum();
        assert_eq!(total, Money(197_000_000), "the row's own amount is billed");
        assert_eq!(read[0].amount, Money(190_600_000));
        assert_eq!(read[1].component, Some(Component::Disk));
        assert_eq!(read[2].component, Some(Component::Traffic));
        assert_eq!(
            (read[0].start, read[0].end),
            (Time(1_000_000), Time(4_600_000))
        );
    }

    #[test]
    fn a_row_says_the_label_of_what_it_is_for_where_it_knows_it() {
        let of = |metadata| {
            let row = json!({"start":1000,"end":4600,"source":"instance-1","amount":0.5,
                "metadata":metadata});
            charges(&row).unwrap()[0].label.clone()
        };
        assert_eq!(of(json!({"label":"hg-abc"})).as_deref(), Some("hg-abc"));
        for none in [json!({}), json!(null), json!({"label":null})] {
            assert_eq!(of(none), None);
        }
    }

    #[test]
    fn what_items_do_not_explain_is_charged_too() {
        let row = json!({"start":1000,"end":4600,"type":"instance","source":"instance-1",
            "amount":0.5,"items":[{"type":"gpu","amount":0.19}]});
        let read = charges(&row).unwrap();
        assert_eq!(read[1].component, None);
        assert_eq!(read[1].amount, Money(310_000_000));
    }

    #[test]
    fn a_deprecated_row_and_a_payment() {
        let row = json!({"type":"charge","instance_id":"7","amount":"0.25","timestamp":"1000.5",
            "description":"Instance 7 GPU charge"});
        let read = charges(&row).unwrap();
        assert_eq!(read[0].instance, Some(InstanceId(7)));
        assert_eq!(read[0].component, Some(Component::Gpu));
        assert_eq!(read[0].start, Time(1_000_500));
        assert_eq!(charges(&json!({"type":"payment","amount":-50})), Ok(vec![]));
        assert_eq!(
            charges(&json!({"type":"charge","timestamp":1,"amount":"much"})),
            Err(BadRow("amount"))
        );
    }
}
