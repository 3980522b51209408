//! Rows of what the marketplace tells beside offers, instances and charges: notifications, price
//! increases, reports of machines, payments. All of it is evidence and none the truth, so a row that
//! cannot be read is left out.

use serde::Deserialize;
use serde_json::Value;

use super::lenient::Num;
use crate::marketplace::redact::Redactor;
use crate::types::ids::{InstanceId, MachineId};
use crate::types::money::{Money, Rate};
use crate::types::notification::{MachineReport, Notification, NotificationKind, PriceIncrease};
use crate::types::time::Time;

/// No contract costs as much per second.
const PER_SECOND_MAX: f64 = 3.0;

/// No bid is as high per hour.
const BID_MAX: f64 = 10_000.0;

/// Seconds since the epoch are smaller for three thousand years to come; what is larger counts
/// milliseconds.
const SECONDS_MAX: f64 = 1e11;

/// The marketplace's ids of events are short; a longer one is cut.
const EVENT_ID_CHARS_MAX: usize = 100;

/// Money that was paid in or out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Payment {
    /// When.
    pub at: Time,
    /// The marketplace's word: `credit`, `transfer`, `payout`, `refund` or `reserved`.
    pub kind: String,
    /// How much; negative is paid in, as the marketplace documents it.
    pub amount: Money,
    /// What it says, redacted.
    pub text: String,
}

/// A notification of the inbox.
pub fn notification(row: &Value, redactor: &Redactor) -> Option<Notification> {
    let slug = text(row, &["notif_type", "type"])?;
    let about = |name: &str| row.get("associated_id").and_then(|about| about.get(name));
    let at = time(row, &["created_at", "timestamp"]);
    let id = row
        .get("event_id")
        .or_else(|| row.get("id"))
        .and_then(|id| match id {
            Value::String(id) if !id.is_empty() => Some(id.clone()),
            Value::Number(id) => Some(id.to_string()),
            _ => None,
        })?;
    let words: Vec<&str> = [text(row, &["subject"]), text(row, &["message"])]
        .into_iter()
        .flatten()
        .collect();
    Some(Notification {
        id: id.chars().take(EVENT_ID_CHARS_MAX).collect(),
        kind: NotificationKind::from_word(slug),
        at,
        instance: about("instance_id").and_then(id_of).map(InstanceId),
        machine: about("machine_id").and_then(id_of).map(MachineId),
        winning_bid: about("new_min_bid").and_then(|bid| {
            let bid = Num::deserialize(bid).ok()?;
            bid.rate(BID_MAX, "new_min_bid").ok()?
        }),
        text: redactor.show(&words.join(": ")),
    })
}

/// A host's request for a higher price. The marketplace counts per second.
pub fn price_increase(row: &Value) -> Option<PriceIncrease> {
    let hourly = |name: &str| {
        let per_second = number(row, &[name]).price(PER_SECOND_MAX, "costpersec");
        let seconds = per_second.ok()??;
        Some(Rate(seconds.saturating_mul(3600).0))
    };
    Some(PriceIncrease {
        id: number(row, &["id", "pending_price_increase_id"]).id()?,
        instance: InstanceId(number(row, &["contract_id", "instance_id"]).id()?),
        old_rate: hourly("old_gpu_costpersec"),
        new_rate: hourly("new_gpu_costpersec"),
        // A zero is no date: taken for one, it would end the rental at once.
        ends_at: time(row, &["contract_end_date"]).filter(|at| at.0 > 0),
    })
}

/// A report of a machine.
pub fn machine_report(row: &Value, redactor: &Redactor) -> Option<MachineReport> {
    let (problem, message) = (text(row, &["problem"]), text(row, &["message"]));
    problem.or(message)?;
    Some(MachineReport {
        problem: redactor.show(problem.unwrap_or_default()),
        message: redactor.show(message.unwrap_or_default()),
        at: time(row, &["created_at", "timestamp"]),
    })
}

/// A payment.
pub fn payment(row: &Value, redactor: &Redactor) -> Option<Payment> {
    Some(Payment {
        at: time(row, &["start", "timestamp", "when"])?,
        kind: text(row, &["type"])?.to_owned(),
        amount: number(row, &["amount"]).amount()?,
        text: redactor.show(text(row, &["description"]).unwrap_or_default()),
    })
}

fn text<'a>(row: &'a Value, names: &[&str]) -> Option<&'a str> {
    names
        .iter()
        .find_map(|name| row.get(name)?.as_str())
        .filter(|text| !text.trim().is_empty())
}

fn number(row: &Value, names: &[&str]) -> Num {
    names
        .iter()
        .filter_map(|name| Num::deserialize(row.get(name)?).ok())
        .find(|number| *number != Num::Missing)
        .unwrap_or_default()
}

fn id_of(value: &Value) -> Option<u64> {
    Num::deserialize(value).ok()?.id()
}

/// A moment in seconds or milliseconds since the epoch, or written out.
fn time(row: &Value, names: &[&str]) -> Option<Time> {
    if let Some(seconds) = number(row, names).float() {
        let scale = if seconds > SECONDS_MAX { 1000.0 } else { 1.0 };
        return Time::from_epoch_seconds(seconds / scale);
    }
    let written = text(row, names)?;
    let date = chrono::DateTime::parse_from_rfc3339(written).map(|date| date.timestamp_millis());
    let naive = || {
        chrono::NaiveDateTime::parse_from_str(written, "%Y-%m-%d %H:%M:%S%.f")
            .or_else(|_| chrono::NaiveDateTime::parse_from_str(written, "%Y-%m-%dT%H:%M:%S%.f"))
            .map(|date| date.and_utc().timestamp_millis())
    };
    date.or_else(|_| naive()).ok().map(Time)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn an_outbid_names_the_price_that_displaced_ours() {
        let row = json!({"event_id":"e-7","notif_type":"outbid","created_at":1795478400.5,
            "subject":"Outbid","message":"instance 7 jupyter_token=abcdefgh",
            "associated_id":{"instance_id":"7","machine_id":9,"your_bid":0.1,"new_min_bid":0.21}});
        let read = notification(&row, &Redactor::default()).unwrap();
        assert_eq!(read.kind, NotificationKind::Outbid);
        assert_eq!(read.instance, Some(InstanceId(7)));
        assert_eq!(read.machine, Some(MachineId(9)));
        assert_eq!(read.winning_bid, Some(Rate(210_000_000)));
        assert_eq!(read.at, Some(Time(1_795_478_400_500)));
        assert!(!read.text.contains("abcdefgh"), "{}", read.text);
        for nothing in [json!(null), json!({}), json!({"notif_type":"outbid"})] {
            assert_eq!(notification(&nothing, &Redactor::default()), None);
        }
        let bare = json!({"id":5,"notif_type":"low_credit","associated_id":null,
            "timestamp":"2026-11-24T00:00:00Z"});
        let read = notification(&bare, &Redactor::default()).unwrap();
        assert_eq!((read.id.as_str(), read.instance), ("5", None));
        assert_eq!(read.at, Some(Time(1_795_478_400_000)));
    }

    #[test]
    fn a_price_increase_is_per_second_at_the_marketplace() {
        let row = json!({"id":3,"contract_id":7,"old_gpu_costpersec":0.0001,
            "new_gpu_costpersec":"0.0002","contract_end_date":1795482000});
        let read = price_increase(&row).unwrap();
        assert_eq!(read.old_rate, Some(Rate(360_000_000)));
        assert_eq!(read.new_rate, Some(Rate(720_000_000)));
        assert_eq!(read.ends_at, Some(Time(1_795_482_000_000)));
        assert_eq!(price_increase(&json!({"contract_id":7})), None);
        let odd = json!({"id":3,"contract_id":7,"new_gpu_costpersec":-1});
        assert_eq!(price_increase(&odd).unwrap().new_rate, None);
        for no_date in [json!(0), json!(-1), json!(null), json!("")] {
            let row = json!({"id":3,"contract_id":7,"contract_end_date":no_date});
            assert_eq!(price_increase(&row).unwrap().ends_at, None, "{row}");
        }
    }

    #[test]
    fn reports_and_payments() {
        let row = json!({"problem":"gpu","message":null,"created_at":"2026-11-24 00:00:00.25"});
        let read = machine_report(&row, &Redactor::default()).unwrap();
        assert_eq!((read.problem.as_str(), read.message.as_str()), ("gpu", ""));
        assert_eq!(read.at, Some(Time(1_795_478_400_250)));
        assert_eq!(machine_report(&json!({}), &Redactor::default()), None);
        let row = json!({"start":1795478400,"type":"credit","amount":"-25.5","description":"card"});
        let read = payment(&row, &Redactor::default()).unwrap();
        assert_eq!(read.amount, Money(-25_500_000_000));
        assert_eq!(
            payment(&json!({"start":1,"type":"credit"}), &Redactor::default()),
            None
        );
    }
}
