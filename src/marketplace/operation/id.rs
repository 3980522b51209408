//! Ids that are safe to put into a path.

use std::fmt;

/// The longest id: a template's hash has 32 characters, an invoice's may have more.
const CHARS_MAX: usize = 64;

/// An id that names one thing and nothing else: not empty, which would name the whole list; no
/// slash, dot or escape, which would name another path; and none of the words that stand for
/// nothing.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct PlainId(String);

impl PlainId {
    /// Checks an id.
    ///
    /// # Errors
    /// What is wrong with it, in words that follow its name.
    pub fn new(text: &str) -> Result<Self, String> {
        const NOTHING: [&str; 4] = ["null", "undefined", "none", "nan"];
        let plain = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
        if text.is_empty() {
            Err("is empty, and would name the whole list".to_owned())
        } else if text.len() > CHARS_MAX {
            Err(format!("is longer than {CHARS_MAX} characters"))
        } else if !text.chars().all(plain) {
            Err("may hold only letters, digits, - and _".to_owned())
        } else if NOTHING.iter().any(|word| text.eq_ignore_ascii_case(word))
            || text.bytes().all(|byte| byte == b'0')
        {
            Err(format!("is {text}, which names nothing"))
        } else {
            Ok(Self(text.to_owned()))
        }
    }

    /// Of a number; `None` for 0, which names nothing.
    pub fn number(id: u64) -> Option<Self> {
        (id > 0).then(|| Self(id.to_string()))
    }

    /// As it stands in a path.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for PlainId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_would_name_something_else_is_no_id() {
        for bad in [
            "", "0", "000", "null", "NULL", "a/b", "..", "7%2F8", "7?x=1", "7#", "7 8", "a.b", "é",
        ] {
            assert!(PlainId::new(bad).is_err(), "{bad}");
        }
        for good in ["777", "d4c3b2a1", "in_1OZ-x"] {
            assert_eq!(PlainId::new(good).unwrap().as_str(), good);
        }
        assert_eq!(PlainId::number(0), None);
    }
}
