//! Walks a parsed document along the table of fields. Nothing stops it: what is wrong is collected
//! with its place, and what is right can be had by its path.

use std::collections::BTreeMap;
use std::ops::Range;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::error::Fault;
use super::fields::{Absent, Applies, SECTIONS, Section};
use super::kind::Value;
use crate::types::job::Parameters;
use crate::types::spelling::nearest;

/// What a document holds, by path (`gpu.vram`, `window[0].cron`).
#[derive(Debug)]
pub(super) struct Reading {
    values: BTreeMap<String, Value>,
    /// Where each key stands that the document has, valid or not.
    places: BTreeMap<String, Range<usize>>,
    /// Tables of each repeated section.
    repeated: BTreeMap<&'static str, usize>,
    /// The parameters of each element of an array, reckoned once; `None`: there is no array, or it was
    /// told what is wrong with it.
    pub(super) elements: Option<Vec<Parameters>>,
    /// What is wrong.
    pub(super) faults: Vec<Fault>,
    /// What is not there and must be. Kept apart: after a syntax error nobody knows what is there.
    pub(super) missing: Vec<Fault>,
}

impl Reading {
    /// Reads a document.
    pub(super) fn of(document: &DeTable<'_>) -> Self {
        let mut reading = Self {
            values: BTreeMap::new(),
            places: BTreeMap::new(),
            repeated: BTreeMap::new(),
            elements: None,
            faults: Vec::new(),
            missing: Vec::new(),
        };
        if let Some(root) = SECTIONS.first() {
            reading.section(root, "", document, 0..0);
        }
        reading
    }

    /// A value that was given and is right, or the field's default.
    pub(super) fn get(&self, path: &str) -> Option<&Value> {
        self.values.get(path)
    }

    /// Whether a key or table stands in the document, right or wrong.
    pub(super) fn given(&self, path: &str) -> bool {
        self.places.contains_key(path)
    }

    /// Where to point for a path: its value, else its section, else the top of the file.
    pub(super) fn place(&self, path: &str) -> Range<usize> {
        let above = path.rsplit_once('.').map(|(above, _)| above);
        self.places
            .get(path)
            .or_else(|| self.places.get(above?))
            .cloned()
            .unwrap_or(0..0)
    }

    /// How many tables a repeated section has.
    pub(super) fn count(&self, section: &str) -> usize {
        self.repeated.get(section).copied().unwrap_or(0)
    }

    /// Notes a mistake at a path.
    pub(super) fn fault(
        &mut self,
        path: &str,
        message: impl Into<String>,
        help: impl Into<String>,
    ) {
        let fault = Fault::new(self.place(path), message).help(help);
        self.faults.push(fault);
    }

    fn section(
        &mut self,
        section: &'static Section,
        path: &str,
        table: &DeTable<'_>,
        place: Range<usize>,
    ) {
        for (key, value) in table {
            let name = key.get_ref().as_ref();
            let here = join(path, name);
            if let Some(field) = section.field(name) {
                self.places.insert(here.clone(), value.span());
                match field.kind.read(value) {
                    Err(faults) => self.faults.extend(faults.into_iter().map(|fault| Fault {
                        message: format!("`{here}`: {}", fault.message),
                        ..fault
                    })),
                    Ok(_) if field.applies == Applies::NotYet => self.faults.push(
                        Fault::new(key.span(), format!("`{here}` is not in effect yet"))
                            .help("this version would ignore it; remove it"),
                    ),
                    Ok(read) => {
                        self.values.insert(here, read);
                    }
                }
            } else if let Some(child) = section.children().find(|child| child.name() == name) {
                self.child(child, &here, key.span(), value);
            } else {
                self.faults.push(unknown(section, name, key.span()));
            }
        }
        self.fill(section, path, place);
    }

    fn child(
        &mut self,
        section: &'static Section,
        path: &str,
        key: Range<usize>,
        value: &Spanned<DeValue<'_>>,
    ) {
        self.places.insert(path.to_owned(), key.clone());
        let header = section.header();
        match value.get_ref() {
            DeValue::Table(table) if !section.repeated => self.section(section, path, table, key),
            DeValue::Array(tables) if section.repeated => {
                self.repeated.insert(section.path, tables.len());
                for (index, item) in tables.iter().enumerate() {
                    let here = format!("{path}[{index}]");
                    self.places.insert(here.clone(), item.span());
                    match item.get_ref() {
                        DeValue::Table(table) => self.section(section, &here, table, item.span()),
                        _ => self.faults.push(
                            Fault::new(item.span(), format!("`{here}` must be a table"))
                                .help(format!("write it as {header}")),
                        ),
                    }
                }
            }
            _ => self.faults.push(
                Fault::new(value.span(), format!("`{path}` is a section, not a value"))
                    .help(format!("write it as {header} with its fields below")),
            ),
        }
    }

    /// Takes up the defaults of what a section leaves out, and tells what it must not.
    fn fill(&mut self, section: &'static Section, path: &str, place: Range<usize>) {
        for field in section.fields {
            let here = join(path, field.key);
            match field.default {
                Absent::Required if !self.given(&here) => {
                    let fault = Fault::new(place.clone(), format!("`{here}` is missing"));
                    self.missing.push(fault.help(format!(
                        "add {} = {} to {}",
                        field.key,
                        field.kind.example(),
                        section.header()
                    )));
                }
                Absent::Is(text) if !self.given(&here) => {
                    let default = DeValue::parse(text).ok();
                    if let Some(Ok(value)) = default.map(|value| field.kind.read(&value)) {
                        self.values.insert(here, value);
                    }
                }
                _ => {}
            }
        }
        for child in section.children().filter(|child| !child.repeated) {
            let here = join(path, child.name());
            if self.given(&here) {
                continue;
            }
            if child.required {
                // An absent section has no place; the file's top stands for it.
                self.missing.push(
                    Fault::new(0..0, format!("the section [{here}] is missing"))
                        .help(example_of(child)),
                );
            } else {
                self.defaults_of(child, &here);
            }
        }
    }

    /// Takes up the defaults of a section that is absent as a whole.
    fn defaults_of(&mut self, section: &'static Section, path: &str) {
        for field in section.fields {
            if let Absent::Is(text) = field.default
                && let Ok(value) = DeValue::parse(text)
                && let Ok(value) = field.kind.read(&value)
            {
                self.values.insert(join(path, field.key), value);
            }
        }
    }
}

fn join(path: &str, key: &str) -> String {
    if path.is_empty() {
        key.to_owned()
    } else {
        format!("{path}.{key}")
    }
}

/// The least that a missing section must say.
fn example_of(section: &Section) -> String {
    let required = section
        .fields
        .iter()
        .find(|field| matches!(field.default, Absent::Required))
        .or(section.fields.first());
    match required {
        Some(field) => format!(
            "add {} with {} = {}",
            section.header(),
            field.key,
            field.kind.example()
        ),
        None => format!("add {}", section.header()),
    }
}

/// An unknown key, with what was probably meant.
fn unknown(section: &'static Section, name: &str, span: Range<usize>) -> Fault {
    let keys = || {
        let fields = section.fields.iter().map(|field| field.key);
        fields.chain(section.children().map(Section::name))
    };
    // A key that is right elsewhere was put in the wrong section, most likely below its header.
    let elsewhere = SECTIONS
        .iter()
        .find(|other| other.path != section.path && other.field(name).is_some());
    let help = match (nearest(name, keys()), elsewhere) {
        (_, Some(other)) if other.path.is_empty() => {
            format!("`{name}` stands at the top of the file, above the first section")
        }
        (Some(near), None) => format!("did you mean `{near}`?"),
        (_, Some(other)) => format!("`{name}` stands in {}", other.header()),
        (None, None) => format!("known here: {}", keys().collect::<Vec<_>>().join(", ")),
    };
    let shown: String = name.chars().take(60).collect();
    Fault::new(
        span,
        format!("unknown key `{shown}` in {}", section.header()),
    )
    .help(help)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_default_is_a_value_of_its_field() {
        for section in SECTIONS {
            for field in section.fields {
                if let Absent::Is(text) = field.default {
                    let value = DeValue::parse(text).unwrap();
                    assert!(
                        field.kind.read(&value).is_ok(),
                        "{}.{}",
                        section.path,
                        field.key
                    );
                }
            }
        }
    }

    #[test]
    fn sections_come_after_their_parents_and_keys_are_unique() {
        for (index, section) in SECTIONS.iter().enumerate() {
            if let Some((above, _)) = section.path.rsplit_once('.') {
                assert!(SECTIONS[..index].iter().any(|s| s.path == above));
            }
            let mut keys: Vec<&str> = section.fields.iter().map(|f| f.key).collect();
            keys.extend(section.children().map(Section::name));
            keys.sort_unstable();
            let count = keys.len();
            keys.dedup();
            assert_eq!(keys.len(), count, "[{}]", section.path);
        }
    }
}
