//! Hides what looks like a secret before a policy's text is shown beside an error.

use std::ops::Range;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// Endings of keys whose values are hidden: wider than what is refused, for hiding costs nothing.
const ENDINGS: [&str; 6] = [
    "TOKEN",
    "SECRET",
    "PASSWORD",
    "PASSWD",
    "KEY",
    "CREDENTIALS",
];

fn hides(key: &str) -> bool {
    let key = key.to_ascii_uppercase();
    ENDINGS.iter().any(|ending| key.ends_with(ending))
}

/// Whether an address may hold more than a place: a login, or a signature.
fn is_signed(key: &str, value: &str) -> bool {
    let is_address = key.ends_with("endpoint") || (key.ends_with("from") && value.contains("://"));
    is_address && value.contains(['@', '?'])
}

/// The text with the same length and lines, secrets as asterisks.
pub(super) fn mask(text: &str, document: &DeTable<'_>) -> String {
    let mut hidden = Vec::new();
    table(document, "", &mut hidden);
    lines(text, &mut hidden);
    let mut masked: Vec<u8> = text.as_bytes().to_vec();
    for byte in hidden
        .into_iter()
        .flat_map(|range| range.start..range.end.min(text.len()))
    {
        if !matches!(masked[byte], b'\n' | b'\r') {
            masked[byte] = b'*';
        }
    }
    // Whole values are covered, so no character is cut; should one be, all is hidden.
    String::from_utf8(masked).unwrap_or_else(|_| "*".repeat(text.len()))
}

fn table(table_: &DeTable<'_>, parent: &str, hidden: &mut Vec<Range<usize>>) {
    for (key, entry) in table_ {
        let name = key.get_ref().as_ref();
        let text = entry.get_ref().as_str().unwrap_or_default();
        let secret = hides(name)
            || is_signed(name, text)
            || name == "secrets"
            || parent == "secrets"
            || (parent == "login" && !matches!(name, "registry" | "user"));
        value(entry, name, secret, hidden);
    }
}

fn value(entry: &Spanned<DeValue<'_>>, name: &str, secret: bool, hidden: &mut Vec<Range<usize>>) {
    match entry.get_ref() {
        // A reference names where the secret is, and may be shown; its other keys may not.
        DeValue::Table(inner) => {
            for (key, entry) in inner {
                let place = matches!(key.get_ref().as_ref(), "env" | "file");
                let plain = secret && !place && !entry.get_ref().is_table();
                if plain {
                    hidden.push(entry.span());
                }
            }
            table(inner, name, hidden);
        }
        DeValue::Array(items) => {
            for item in items {
                value(item, name, secret, hidden);
            }
        }
        _ if secret => hidden.push(entry.span()),
        _ => {}
    }
}

/// Lines that assign to such a key, for what a syntax error keeps out of the document.
fn lines(text: &str, hidden: &mut Vec<Range<usize>>) {
    let mut start = 0;
    for line in text.split_inclusive('\n') {
        // Every assignment on the line, for inline tables hold several.
        for (at, _) in line.match_indices('=') {
            let key = line[..at].trim_end().trim_end_matches(['"', '\'']);
            let rest = &line[at + 1..];
            let secret = hides(key) || is_signed(key, rest);
            if secret && !rest.trim_start().starts_with('{') {
                hidden.push(start + at + 1..start + line.len());
                break;
            }
        }
        start += line.len();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn masked(text: &str) -> String {
        let (document, _) = DeTable::parse_recoverable(text);
        mask(text, document.get_ref())
    }

    #[test]
    fn secrets_are_hidden_and_all_else_stays() {
        let text = r#"name = "a"
env = { MODE = "x", HF_TOKEN = "canary" }
secrets = { A = "canary", B = { env = "B" }, C = { value = "canary" } }
API_KEY = """
canary
"""
[run.login]
user = "me"
passwrod = "canary"
[data.storage]
endpoint = "https://me:canary@s3.example"
bucket = "b"
access_key = "canary"
secret_key = { env = "S3_SECRET" }
"#;
        let masked = masked(text);
        assert!(!masked.contains("canary"), "{masked}");
        assert_eq!(masked.len(), text.len());
        assert_eq!(masked.lines().count(), text.lines().count());
        for kept in [
            "name = \"a\"",
            "MODE = \"x\"",
            "env = \"B\"",
            "user = \"me\"",
            "bucket = \"b\"",
            "env = \"S3_SECRET\"",
        ] {
            assert!(masked.contains(kept), "{kept}: {masked}");
        }
    }

    #[test]
    fn a_line_that_is_no_toml_is_hidden_too() {
        for text in [
            "HF_TOKEN = canary",
            "HF_TOKEN = \"canary",
            "\"my_secret\" = 'canary",
            "env = { A = \"b\", HF_TOKEN = \"canary",
            "endpoint = https://s3.example?signature=canary",
            "endpoint = \"https://me:canary@s3.example",
            "from = \"https://me:canary@s3.example",
        ] {
            assert!(!masked(text).contains("canary"), "{text}");
        }
    }
}
