//! The schema for editors and the reference for people, both from the table of fields.

use serde_json::{Map, Value as Json, json};

use super::fields::{Absent, Field, SECTIONS, Section};

/// The JSON Schema (draft 2020-12) of a policy file. Editors check and complete by it; what
/// concerns more than one field is checked by `haggle check` alone.
pub fn schema() -> Json {
    let mut schema = SECTIONS.first().map_or_else(|| json!({}), section);
    schema["$schema"] = json!("https://json-schema.org/draft/2020-12/schema");
    schema["title"] = json!("A haggle policy");
    schema
}

fn section(section: &Section) -> Json {
    let mut properties = Map::new();
    let mut required: Vec<&str> = Vec::new();
    for field in section.fields {
        properties.insert(field.key.to_owned(), property(field));
        if matches!(field.default, Absent::Required) {
            required.push(field.key);
        }
    }
    for child in section.children() {
        let inner = self::section(child);
        let inner = if child.repeated {
            json!({ "type": "array", "items": inner })
        } else {
            inner
        };
        properties.insert(child.name().to_owned(), inner);
        if child.required {
            required.push(child.name());
        }
    }
    json!({
        "type": "object",
        "description": section.meaning,
        "properties": properties,
        "required": required,
        "additionalProperties": false,
    })
}

fn property(field: &Field) -> Json {
    let mut schema = field.kind.schema();
    if field.applies == super::fields::Applies::NotYet {
        schema["deprecated"] = json!(true);
    }
    schema["description"] = json!(match field.default {
        Absent::Is(default) => format!("{}. Default: {default}", field.meaning),
        Absent::Unset(default) => format!("{}. Without it: {default}", field.meaning),
        Absent::Required => format!("{}. Required", field.meaning),
    });
    schema
}

/// A Markdown table of all fields, a section after the other.
pub fn reference_table() -> String {
    let mut text = String::new();
    for section in SECTIONS {
        let heading = match section.path {
            "" => "Top of the file".to_owned(),
            _ => format!("`{}`", section.header()),
        };
        let optional = if section.required { "" } else { ", optional" };
        text.push_str(&format!(
            "### {heading}\n\n{}{optional}.\n\n",
            section.meaning
        ));
        text.push_str("| field | type | default | meaning | a change applies |\n");
        text.push_str("|---|---|---|---|---|\n");
        for field in section.fields {
            let default = match field.default {
                Absent::Required => "required".to_owned(),
                Absent::Unset(what) => what.to_owned(),
                Absent::Is(value) => format!("`{value}`"),
            };
            text.push_str(&format!(
                "| `{}` | {}, such as `{}` | {default} | {} | {} |\n",
                field.key,
                field.kind.wants(),
                field.kind.example(),
                field.meaning,
                field.applies.as_str(),
            ));
        }
        text.push('\n');
    }
    text
}
