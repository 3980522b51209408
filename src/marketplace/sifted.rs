//! A long answer without what nobody reads of its rows.
//!
//! A row of the list of instances has a hundred fields, and few of them are read. What the others
//! hold is passed over, which costs a fraction of keeping it.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

/// Reads a body as it is, but for the rows of the list of a name: of these, only some fields.
pub(crate) fn sift(text: &str, list: &str, fields: &[&str]) -> Option<Value> {
    let mut deserializer = serde_json::Deserializer::from_str(text);
    let sieve = Sieve {
        list,
        fields,
        place: Place::Above,
    };
    let value = sieve.deserialize(&mut deserializer).ok()?;
    deserializer.end().ok()?;
    Some(value)
}

#[derive(Clone, Copy)]
struct Sieve<'s> {
    list: &'s str,
    fields: &'s [&'s str],
    place: Place,
}

/// Where in the body a value stands.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    /// Where the list may be.
    Above,
    /// Where the list stands if there is one.
    List,
    /// A row of the list.
    Row,
    /// Anywhere else: all is kept.
    Beside,
}

impl Sieve<'_> {
    fn at(self, place: Place) -> Self {
        Self { place, ..self }
    }

    /// The place of a field's value.
    fn of_field(self, name: &str) -> Place {
        match self.place {
            Place::Above if name == self.list => Place::List,
            Place::Above => Place::Above,
            Place::List | Place::Row | Place::Beside => Place::Beside,
        }
    }
}

impl<'de> DeserializeSeed<'de> for Sieve<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Sieve<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, truth: bool) -> Result<Value, E> {
        Ok(Value::Bool(truth))
    }

    fn visit_i64<E>(self, number: i64) -> Result<Value, E> {
        Ok(Value::Number(number.into()))
    }

    fn visit_u64<E>(self, number: u64) -> Result<Value, E> {
        Ok(Value::Number(number.into()))
    }

    fn visit_f64<E>(self, number: f64) -> Result<Value, E> {
        Ok(Number::from_f64(number).map_or(Value::Null, Value::Number))
    }

    fn visit_str<E>(self, text: &str) -> Result<Value, E> {
        Ok(Value::String(text.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Value, A::Error> {
        let place = match self.place {
            Place::List => Place::Row,
            Place::Above | Place::Row | Place::Beside => Place::Beside,
        };
        let mut items = Vec::new();
        while let Some(item) = seq.next_element_seed(self.at(place))? {
            items.push(item);
        }
        Ok(Value::Array(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        let mut map = Map::new();
        while let Some(name) = entries.next_key::<Name>()? {
            if self.place == Place::Row && !self.fields.contains(&&*name.0) {
                entries.next_value::<IgnoredAny>()?;
                continue;
            }
            let value = entries.next_value_seed(self.at(self.of_field(&name.0)))?;
            map.insert(name.0.into_owned(), value);
        }
        Ok(Value::Object(map))
    }
}

/// A field's name, borrowed where it can be.
#[derive(serde::Deserialize)]
#[serde(transparent)]
struct Name<'a>(#[serde(borrow, deserialize_with = "name")] std::borrow::Cow<'a, str>);

fn name<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<std::borrow::Cow<'de, str>, D::Error> {
    struct Either;
    impl<'de> Visitor<'de> for Either {
        type Value = std::borrow::Cow<'de, str>;
        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a field's name")
        }
        fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Self::Value, E> {
            Ok(text.into())
        }
        fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
            Ok(text.to_owned().into())
        }
    }
    deserializer.deserialize_str(Either)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    const FIELDS: [&str; 2] = ["id", "deep"];

    #[test]
    fn of_rows_only_what_is_read_is_kept() {
        let body = json!({"data": {"success": true, "instances": [
            {"id": 1, "deep": {"id": [2, {"other": 3}], "other": 4}, "other": {"id": 5}}, 6, null
        ]}, "id": 7, "other": [{"instances": [{"other": 8}]}]});
        let sifted = sift(&body.to_string(), "instances", &FIELDS).unwrap();
        let mut expected = body;
        let row = expected["data"]["instances"][0].as_object_mut().unwrap();
        row.remove("other");
        assert_eq!(sifted, expected);
    }

    #[test]
    fn what_is_no_json_is_nothing() {
        for text in ["", "{", "[1] 2", "<html>", r#"{"instances":[{"other":]}"#] {
            assert_eq!(sift(text, "instances", &FIELDS), None, "{text}");
        }
    }

    fn any_json() -> impl Strategy<Value = Value> {
        let names = || prop::sample::select(vec!["id", "deep", "a", "a\"b", "data"]);
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<u64>().prop_map(Value::from),
            (-1.0e9_f64..1.0e9).prop_map(Value::from),
            ".*".prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 24, 5, move |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::btree_map(names(), inner, 0..4).prop_map(|map| {
                    let map = map
                        .into_iter()
                        .map(|(name, value)| (name.to_owned(), value));
                    Value::Object(map.collect())
                }),
            ]
        })
    }

    proptest! {
        #[test]
        fn without_the_list_a_body_is_read_as_it_is(body in any_json()) {
            let text = body.to_string();
            let whole: Value = serde_json::from_str(&text).unwrap();
            prop_assert_eq!(sift(&text, "instances", &FIELDS), Some(whole));
        }
    }
}
