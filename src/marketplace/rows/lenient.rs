//! Fields that take whatever JSON brings.
//!
//! The marketplace and what stands in front of it send numbers as strings, flags as numbers, and
//! null anywhere. A field of these types never fails to parse: it says that it is missing, or that
//! it is bad, and whoever reads the row decides what that means.

use std::borrow::Cow;
use std::fmt;

use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

use crate::types::money::{Money, Rate};
use crate::types::time::Time;

/// A number, also as a string.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum Num {
    /// Not there, null, or an empty string.
    #[default]
    Missing,
    /// A whole number that is not negative. Kept apart, because ids may exceed what a float holds.
    Whole(u64),
    /// Another finite number.
    Float(f64),
    /// There, and not a finite number.
    Bad,
}

impl Num {
    /// As a float; `None` where it is missing or bad.
    pub fn float(self) -> Option<f64> {
        match self {
            Self::Whole(whole) => Some(whole as f64),
            Self::Float(float) => Some(float),
            Self::Missing | Self::Bad => None,
        }
    }

    /// As an id: a whole number over zero.
    pub fn id(self) -> Option<u64> {
        match self {
            Self::Whole(whole) if whole > 0 => Some(whole),
            // Beyond 2^53 a float is no longer exact, and might name something else.
            Self::Float(float)
                if float.fract() == 0.0 && (1.0..9_007_199_254_740_992.0).contains(&float) =>
            {
                Some(float as u64)
            }
            _ => None,
        }
    }

    /// As a count or size: rounded, from 0 to what fits.
    pub fn count(self) -> Option<u32> {
        let float = self.float()?.round();
        (0.0..=f64::from(u32::MAX))
            .contains(&float)
            .then_some(float as u32)
    }

    /// As a quantity that cannot be negative.
    pub fn quantity(self) -> Option<f32> {
        let float = self.float()?;
        (0.0..=f64::from(f32::MAX))
            .contains(&float)
            .then_some(float as f32)
    }

    /// As dollars per hour: from 0 to `max`, `None` where it is missing, an error where it is there
    /// and cannot be a price.
    pub fn rate(self, max: f64, field: &'static str) -> Result<Option<Rate>, super::BadRow> {
        Ok(self.price(max, field)?.map(|money| Rate(money.0)))
    }

    /// As dollars: from 0 to `max`, `None` where it is missing, an error where it is there and
    /// cannot be a price.
    pub fn price(self, max: f64, field: &'static str) -> Result<Option<Money>, super::BadRow> {
        let bad = super::BadRow(field);
        match self {
            Self::Missing => Ok(None),
            Self::Bad => Err(bad),
            Self::Whole(_) | Self::Float(_) => {
                let dollars = self.float().ok_or(bad)?;
                if !(0.0..=max).contains(&dollars) {
                    return Err(bad);
                }
                Money::from_dollars(dollars).map(Some).map_err(|_| bad)
            }
        }
    }

    /// As an amount of dollars that may be negative.
    pub fn amount(self) -> Option<Money> {
        Money::from_dollars(self.float()?).ok()
    }

    /// As seconds since the epoch. Zero is taken as unknown.
    pub fn time(self) -> Option<Time> {
        self.float()
            .filter(|&seconds| seconds > 0.0)
            .and_then(Time::from_epoch_seconds)
    }

    fn from_text(text: &str) -> Self {
        let text = text.trim();
        if text.is_empty() {
            return Self::Missing;
        }
        if let Ok(whole) = text.parse() {
            return Self::Whole(whole);
        }
        text.parse().map_or(Self::Bad, Self::from_float)
    }

    fn from_float(float: f64) -> Self {
        if float.is_finite() {
            Self::Float(float)
        } else {
            Self::Bad
        }
    }
}

/// A flag, also as a number or a word.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flag(
    /// `None` where it is missing or cannot be read.
    pub Option<bool>,
);

/// A text; anything else is missing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Text<'a>(
    /// `None` where it is missing, or not a text.
    pub Option<Cow<'a, str>>,
);

impl Text<'_> {
    /// The text without blanks around it; `None` where nothing is left.
    pub fn get(&self) -> Option<&str> {
        self.0
            .as_deref()
            .map(str::trim)
            .filter(|text| !text.is_empty())
    }
}

/// A list of small whole numbers; what is not one is left out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ints(
    /// The numbers, in their order.
    pub Vec<u32>,
);

/// Swallows the rest of a sequence, so that the parser stands behind it.
fn skip_seq<'de, A: SeqAccess<'de>>(mut seq: A) -> Result<(), A::Error> {
    while seq.next_element::<IgnoredAny>()?.is_some() {}
    Ok(())
}

/// Swallows the rest of a map.
fn skip_map<'de, A: MapAccess<'de>>(mut map: A) -> Result<(), A::Error> {
    while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
    Ok(())
}

/// The visitor methods that all the lenient types share, each mapping to one of their values.
macro_rules! lenient {
    (@seq $de:lifetime, $bad:expr) => {
        fn visit_seq<A: SeqAccess<$de>>(self, seq: A) -> Result<Self::Value, A::Error> {
            skip_seq(seq)?;
            Ok($bad)
        }
    };
    (@seq $de:lifetime, $bad:expr, $s:ident, $seq:expr) => {
        fn visit_seq<A: SeqAccess<$de>>(self, $s: A) -> Result<Self::Value, A::Error> {
            $seq
        }
    };
    ($type:ty, $visitor:ident<$de:lifetime>,
     missing: $missing:expr, bad: $bad:expr,
     bool($b:ident): $bool:expr, whole($w:ident): $whole:expr, float($f:ident): $float:expr,
     text($t:ident): $text:expr $(, borrowed($bt:ident): $borrowed:expr)? $(, seq($s:ident): $seq:expr)?) => {
        struct $visitor;

        impl<$de> Visitor<$de> for $visitor {
            type Value = $type;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("any value")
            }
            fn visit_unit<E>(self) -> Result<Self::Value, E> {
                Ok($missing)
            }
            fn visit_none<E>(self) -> Result<Self::Value, E> {
                Ok($missing)
            }
            fn visit_bool<E>(self, $b: bool) -> Result<Self::Value, E> {
                Ok($bool)
            }
            fn visit_u64<E>(self, $w: u64) -> Result<Self::Value, E> {
                Ok($whole)
            }
            fn visit_i64<E>(self, value: i64) -> Result<Self::Value, E> {
                let $f = value as f64;
                Ok($float)
            }
            fn visit_f64<E>(self, $f: f64) -> Result<Self::Value, E> {
                Ok($float)
            }
            fn visit_str<E>(self, $t: &str) -> Result<Self::Value, E> {
                Ok($text)
            }
            $(fn visit_borrowed_str<E>(self, $bt: &$de str) -> Result<Self::Value, E> {
                Ok($borrowed)
            })?
            lenient!(@seq $de, $bad $(, $s, $seq)?);
            fn visit_map<A: MapAccess<$de>>(self, map: A) -> Result<Self::Value, A::Error> {
                skip_map(map)?;
                Ok($bad)
            }
        }
    };
}

lenient!(Num, NumVisitor<'de>,
    missing: Num::Missing, bad: Num::Bad,
    bool(_b): Num::Bad, whole(w): Num::Whole(w), float(f): Num::from_float(f),
    text(t): Num::from_text(t));

lenient!(Flag, FlagVisitor<'de>,
missing: Flag(None), bad: Flag(None),
bool(b): Flag(Some(b)), whole(w): Flag(Some(w != 0)), float(f): Flag(Some(f != 0.0)),
text(t): Flag(match t {
    "true" | "True" | "1" => Some(true),
    "false" | "False" | "0" => Some(false),
    _ => None,
}));

lenient!(Text<'de>, TextVisitor<'de>,
    missing: Text(None), bad: Text(None),
    bool(_b): Text(None), whole(_w): Text(None), float(_f): Text(None),
    text(t): Text(Some(Cow::Owned(t.to_owned()))),
    borrowed(t): Text(Some(Cow::Borrowed(t))));

lenient!(Ints, IntsVisitor<'de>,
missing: Ints(Vec::new()), bad: Ints(Vec::new()),
bool(_b): Ints(Vec::new()), whole(_w): Ints(Vec::new()), float(_f): Ints(Vec::new()),
text(_t): Ints(Vec::new()),
seq(seq): {
    let mut seq = seq;
    let mut numbers = Vec::new();
    while let Some(number) = seq.next_element::<Num>()? {
        numbers.extend(number.count());
    }
    Ok(Ints(numbers))
});

impl<'de> Deserialize<'de> for Num {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(NumVisitor)
    }
}

impl<'de> Deserialize<'de> for Flag {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(FlagVisitor)
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Text<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(TextVisitor)
    }
}

impl<'de> Deserialize<'de> for Ints {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(IntsVisitor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn num(json: &str) -> Num {
        serde_json::from_str(json).unwrap()
    }

    #[test]
    fn numbers_come_in_any_dress() {
        assert_eq!(num("7").id(), Some(7));
        assert_eq!(num("\"7\"").id(), Some(7));
        assert_eq!(num("7.0").id(), Some(7));
        assert_eq!(num("18446744073709551615").id(), Some(u64::MAX));
        assert_eq!(num("-7").id(), None);
        assert_eq!(num("0").id(), None);
        assert_eq!(num("7.5").id(), None);
        assert_eq!(num("1e300").id(), None);
        assert_eq!(num("\"0.25\"").float(), Some(0.25));
        for missing in ["null", "\"\""] {
            assert_eq!(num(missing), Num::Missing);
        }
        for bad in [
            "\"NaN\"",
            "\"inf\"",
            "\"abc\"",
            "true",
            "{}",
            "[1,{}]",
            "{\"a\":[1]}",
        ] {
            assert_eq!(num(bad), Num::Bad, "{bad}");
        }
    }

    #[test]
    fn prices_are_sane_or_bad() {
        assert_eq!(num("0.19").rate(10.0, "x"), Ok(Some(Rate(190_000_000))));
        assert_eq!(num("null").rate(10.0, "x"), Ok(None));
        for bad in ["-0.1", "11", "\"NaN\"", "[]"] {
            assert_eq!(
                num(bad).rate(10.0, "x"),
                Err(super::super::BadRow("x")),
                "{bad}"
            );
        }
    }

    #[test]
    fn flags_texts_and_lists() {
        let flag = |json: &str| serde_json::from_str::<Flag>(json).unwrap().0;
        assert_eq!(flag("true"), Some(true));
        assert_eq!(flag("0"), Some(false));
        assert_eq!(flag("\"false\""), Some(false));
        assert_eq!(flag("\"maybe\""), None);
        assert_eq!(flag("{}"), None);
        let text = |json: &'static str| serde_json::from_str::<Text<'static>>(json).unwrap();
        assert_eq!(text("\" a \"").get(), Some("a"));
        assert_eq!(text("\"\\u0061b\"").get(), Some("ab"));
        assert_eq!(text("\"\"").get(), None);
        assert_eq!(text("5").get(), None);
        let ints = |json: &str| serde_json::from_str::<Ints>(json).unwrap().0;
        assert_eq!(ints("[0,\"2\",null,3]"), vec![0, 2, 3]);
        assert_eq!(ints("null"), Vec::<u32>::new());
    }
}
