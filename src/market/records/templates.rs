//! Templates: what to run, kept under a name.

use serde_json::{Map, Value, json};

use super::digest;
use crate::market::api::{CreateParams, MarketError};
use crate::types::time::Time;

/// So many templates an account may have.
const TEMPLATES_MAX: usize = 500;
/// Longest text of most fields, in characters.
const TEXT_MAX: usize = 4096;

/// Texts of a template, and the longest of each.
const TEXTS: &[(&str, usize)] = &[
    ("name", 256),
    ("image", 1024),
    ("tag", 256),
    ("href", 2048),
    ("repo", 1024),
    ("desc", TEXT_MAX),
    ("readme", 65_536),
    // Docker flags in one text, unlike in a rental.
    ("env", 32_768),
    ("onstart", TEXT_MAX),
    ("args_str", TEXT_MAX),
    ("runtype", 64),
    ("jupyter_dir", 1024),
    ("docker_login_repo", 1024),
    ("docker_login_user", 1024),
    ("docker_login_pass", 1024),
];
const TRUTHS: &[&str] = &[
    "use_ssh",
    "ssh_direct",
    "jup_direct",
    "use_jupyter_lab",
    "private",
    "readme_visible",
];
const RUNTYPES: &[&str] = &["ssh", "jupyter", "args"];

/// A template.
#[derive(Clone, Debug)]
pub(crate) struct Template {
    /// Its number; it stays.
    pub(crate) id: u64,
    /// Follows from what it holds, and changes with every edit.
    pub(crate) hash_id: String,
    /// When it was made.
    pub(crate) at: Time,
    /// How often it was edited.
    edits: u64,
    /// What it holds, by the names of the wire.
    pub(crate) fields: Map<String, Value>,
}

impl Template {
    /// As the marketplace writes it. The password of its registry is never given back.
    pub(crate) fn shown(&self, creator: u64) -> Value {
        let mut row = json!({
            "name": null, "image": null, "tag": null, "env": null, "onstart": null,
            "runtype": "ssh", "use_ssh": true, "ssh_direct": false, "jup_direct": false,
            "use_jupyter_lab": false, "recommended_disk_space": 8.0, "private": true,
            "href": null, "repo": null, "desc": null, "readme": null, "readme_visible": false,
            "extra_filters": {}, "args_str": null, "jupyter_dir": null,
            "docker_login_repo": null, "docker_login_user": null,
        });
        for (name, value) in &self.fields {
            if name != "docker_login_pass" {
                row[name] = value.clone();
            }
        }
        row["id"] = json!(self.id);
        row["hash_id"] = json!(self.hash_id);
        row["creator_id"] = json!(creator);
        row["created_at"] = json!(self.at.epoch_seconds());
        row["count_created"] = json!(0);
        row["recent_create_date"] = json!(self.at.epoch_seconds());
        row["default_tag"] = row["tag"].clone();
        row["recommended"] = json!(false);
        row
    }
}

impl Template {
    /// Completes what is to be rented: what is given there counts, and of the environment each
    /// entry.
    pub(crate) fn complete(&self, params: &mut CreateParams) {
        let text = |name: &str| {
            let text = self.fields.get(name).and_then(Value::as_str);
            text.filter(|text| !text.is_empty())
        };
        let image = text("image").map(|image| match text("tag") {
            Some(tag) if !image.contains(':') => format!("{image}:{tag}"),
            _ => image.to_owned(),
        });
        let disk = self.fields.get("recommended_disk_space");
        let disk = disk.and_then(Value::as_f64).filter(|disk| *disk > 0.0);
        params.image = params.image.take().or(image);
        params.disk = params.disk.or(disk);
        for (field, name) in [
            (&mut params.onstart, "onstart"),
            (&mut params.runtype, "runtype"),
        ] {
            *field = field.take().or_else(|| text(name).map(str::to_owned));
        }
        if params.args.is_empty() {
            let words = text("args_str").unwrap_or_default().split_whitespace();
            params.args = words.map(str::to_owned).collect();
        }
        let mut env = flags(text("env").unwrap_or_default());
        env.retain(|(name, _)| params.env.iter().all(|(given, _)| given != name));
        env.append(&mut params.env);
        params.env = env;
        params.template_hash_id = Some(self.hash_id.clone());
    }
}

/// Docker flags as entries of an environment, in the form that rentals take: `-e A=1` is A, and
/// `-p 80:80` an entry of that name. A value does not hold blanks.
fn flags(text: &str) -> Vec<(String, String)> {
    let mut entries = Vec::new();
    let mut words = text.split_whitespace();
    while let Some(flag) = words.next() {
        let Some(word) = words.next() else { break };
        match (flag, word.split_once('=')) {
            ("-e" | "--env", Some((name, value))) => {
                entries.push((name.to_owned(), value.trim_matches(['"', '\'']).to_owned()));
            }
            ("-p" | "-h", _) => entries.push((format!("{flag} {word}"), "1".to_owned())),
            _ => {}
        }
    }
    entries
}

/// An account's templates.
#[derive(Clone, Debug, Default)]
pub(crate) struct Templates {
    account: u64,
    last: u64,
    templates: Vec<Template>,
}

impl Templates {
    pub(crate) fn of(account: u64) -> Self {
        Self {
            account,
            last: 3000,
            templates: Vec::new(),
        }
    }

    /// All, oldest first.
    pub(crate) fn all(&self) -> &[Template] {
        &self.templates
    }

    /// The one of a hash.
    pub(crate) fn by_hash(&self, hash_id: &str) -> Option<&Template> {
        self.templates.iter().find(|held| held.hash_id == hash_id)
    }

    /// Makes one. Fields that no template has are left out in silence: clients send them along.
    ///
    /// # Errors
    /// `invalid_args` where a field is of the wrong kind or too long, where the name or the image
    /// is missing, or where there are too many.
    pub(crate) fn add(
        &mut self,
        at: Time,
        fields: &Map<String, Value>,
    ) -> Result<Template, MarketError> {
        let fields = checked(Map::new(), fields)?;
        if self.templates.len() >= TEMPLATES_MAX {
            return Err(MarketError::invalid_args("too many templates"));
        }
        self.last += 1;
        let template = Template {
            id: self.last,
            hash_id: hash_of(self.account, self.last, 0, &fields),
            at,
            edits: 0,
            fields,
        };
        self.templates.push(template.clone());
        Ok(template)
    }

    /// Changes one, found by its number or else by its hash. What is not given stays.
    ///
    /// # Errors
    /// `no_such_template`, and as [`Self::add`].
    pub(crate) fn edit(
        &mut self,
        id: Option<u64>,
        hash_id: Option<&str>,
        fields: &Map<String, Value>,
    ) -> Result<Template, MarketError> {
        let at = self.position(id, hash_id)?;
        let held = &mut self.templates[at];
        let next = checked(held.fields.clone(), fields)?;
        held.edits += 1;
        held.hash_id = hash_of(self.account, held.id, held.edits, &next);
        held.fields = next;
        Ok(held.clone())
    }

    /// Deletes one, found by its number or else by its hash.
    ///
    /// # Errors
    /// `no_such_template`.
    pub(crate) fn delete(
        &mut self,
        id: Option<u64>,
        hash_id: Option<&str>,
    ) -> Result<(), MarketError> {
        let at = self.position(id, hash_id)?;
        self.templates.remove(at);
        Ok(())
    }

    fn position(&self, id: Option<u64>, hash_id: Option<&str>) -> Result<usize, MarketError> {
        let by_id = |held: &Template| id == Some(held.id);
        let by_hash = |held: &Template| hash_id == Some(held.hash_id.as_str());
        let mut held = self.templates.iter();
        let at = match id {
            Some(_) => held.position(by_id),
            None => held.position(by_hash),
        };
        at.ok_or_else(|| MarketError::new(404, "no_such_template", "No such template."))
    }
}

fn hash_of(account: u64, id: u64, edits: u64, fields: &Map<String, Value>) -> String {
    let content = Value::Object(fields.clone()).to_string();
    let mut hash = digest(&[
        &account.to_be_bytes(),
        &id.to_be_bytes(),
        &edits.to_be_bytes(),
        content.as_bytes(),
    ]);
    hash.truncate(32);
    hash
}

/// What a template held, with what a call gives in its place.
fn checked(
    mut held: Map<String, Value>,
    given: &Map<String, Value>,
) -> Result<Map<String, Value>, MarketError> {
    let bad = |name: &str, what: &str| {
        Err(MarketError::invalid_args(format_args!(
            "{name} is not {what}"
        )))
    };
    for (name, value) in given.iter().filter(|(_, value)| !value.is_null()) {
        let name = name.as_str();
        if let Some((_, most)) = TEXTS.iter().find(|(text, _)| *text == name) {
            match value {
                Value::String(text) if text.chars().count() <= *most => {}
                _ => return bad(name, "a text of a fit length"),
            }
            held.insert(name.to_owned(), value.clone());
        } else if TRUTHS.contains(&name) {
            if !value.is_boolean() {
                return bad(name, "a boolean");
            }
            held.insert(name.to_owned(), value.clone());
        } else if name == "recommended_disk_space" {
            // The official client sends it as a text.
            let number = match value {
                Value::String(text) => text.trim().parse().ok(),
                value => value.as_f64(),
            };
            match number.filter(|gb: &f64| (0.0..=1.0e6).contains(gb)) {
                Some(gigabytes) => held.insert(name.to_owned(), json!(gigabytes)),
                None => return bad(name, "a number of gigabytes"),
            };
        } else if name == "extra_filters" {
            let filters = match value {
                Value::Object(_) => Some(value.clone()),
                Value::String(text) => serde_json::from_str(text).ok().filter(Value::is_object),
                _ => None,
            };
            match filters {
                Some(filters) if filters.to_string().len() <= 16_384 => {
                    held.insert(name.to_owned(), filters);
                }
                _ => return bad(name, "a JSON object"),
            }
        }
    }
    for required in ["name", "image"] {
        let given = held.get(required).and_then(Value::as_str);
        if given.is_none_or(|text| text.trim().is_empty()) {
            return bad(required, "given");
        }
    }
    let runtype = held.get("runtype").and_then(Value::as_str);
    if runtype.is_some_and(|word| !RUNTYPES.contains(&word)) {
        return bad("runtype", "one of ssh, jupyter, args");
    }
    Ok(held)
}
