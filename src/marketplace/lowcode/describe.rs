//! What a gateway says of itself: its OpenAPI description, read with distrust.
//!
//! A description only chooses among paths. It is believed for an operation where the method is the
//! same, the number of ids is the same, and the path is either the built-in one (but for the names
//! of its ids, case, dashes and underscores), or one of the operation's own title that is made of
//! nothing but the operation's own words. So it can never turn a read into a change, an id's route
//! into a list's, one action into another, nor lead away from the base URL. All else leaves the
//! built-in paths as they are.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use crate::marketplace::operation::{Group, Operation, Wire};
use crate::ports::{Method, Request, Transport, TransportError};

/// Where a gateway describes itself: the documented place, then the older one.
const PLACES: [&str; 2] = ["/openapi", "/definition"];

/// The largest description that is read; one of a thousand paths has a tenth of it.
const BYTES_MAX: usize = 4 * 1024 * 1024;

/// The most paths that are looked at.
const PATHS_MAX: usize = 2000;

/// The longest path.
const PATH_CHARS_MAX: usize = 200;

/// Operations without which a description is not of this marketplace: what the document itself
/// gives paths for. Nothing is concluded from one that lacks them.
const CORE: [Operation; 3] = [
    Operation::Offers,
    Operation::Instances,
    Operation::CreateInstance,
];

/// Where a description has an operation, and in which forms of URL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Described {
    /// The path of the new form.
    pub(crate) path: String,
    /// Whether only the old form is described: the id's name stands for itself in the path and is
    /// a parameter of the query.
    pub(crate) only_old: bool,
}

/// A description that was understood.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Description {
    found: BTreeMap<Operation, Described>,
    missing: BTreeSet<Operation>,
}

/// What came of asking for a description.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Asked {
    /// The gateway describes itself.
    Described(Box<Description>),
    /// It answers, but with no description of this marketplace.
    Undescribed,
    /// It did not answer, or not properly: it may another time.
    Unanswered(String),
}

impl Description {
    /// Where it has an operation.
    pub(crate) fn get(&self, operation: Operation) -> Option<&Described> {
        self.found.get(&operation)
    }

    /// The operations that it surely lacks.
    pub fn missing(&self) -> impl Iterator<Item = Operation> {
        self.missing.iter().copied()
    }

    /// Whether it surely lacks one.
    pub fn lacks(&self, operation: Operation) -> bool {
        self.missing.contains(&operation)
    }

    /// How many operations it has.
    pub fn count(&self) -> usize {
        self.found.len()
    }

    /// Reads a description; `None` where it is not one of this marketplace.
    pub fn parse(body: &[u8]) -> Option<Self> {
        if body.len() > BYTES_MAX {
            return None;
        }
        let document: Value = serde_json::from_slice(body).ok()?;
        let document = ["data", "result"]
            .iter()
            .filter(|_| document.get("paths").is_none())
            .find_map(|name| document.get(name))
            .unwrap_or(&document);
        let entries = entries(document)?;
        let mut description = Self::default();
        for op in Operation::of(Wire::Gateway) {
            match find(op, &entries) {
                Found::At(described) => {
                    description.found.insert(op, described);
                }
                Found::Unclear => {}
                Found::Nowhere => {
                    description.missing.insert(op);
                }
            }
        }
        CORE.iter()
            .all(|op| description.found.contains_key(op))
            .then_some(description)
    }
}

/// Asks a gateway to describe itself. No token is sent: none is needed.
pub async fn describe(transport: &dyn Transport) -> Asked {
    let mut asked = Asked::Undescribed;
    for place in PLACES {
        let request = Request {
            method: Method::Get,
            path: place.to_owned(),
            query: Vec::new(),
            bearer: None,
            body: None,
        };
        match transport.send(request).await {
            Ok(reply) if (200..300).contains(&reply.status) => {
                if let Some(description) = Description::parse(&reply.body) {
                    return Asked::Described(Box::new(description));
                }
            }
            Ok(reply) if reply.status == 429 || reply.status >= 500 => {
                asked = Asked::Unanswered(format!("it answered {}", reply.status));
            }
            Ok(_) => {}
            Err(error @ TransportError::Connect(_)) => return Asked::Unanswered(error.to_string()),
            // One that is silent at the first place may still answer at the second.
            Err(error) => asked = Asked::Unanswered(error.to_string()),
        }
    }
    asked
}

/// A piece of a path.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Segment {
    Word(String),
    Id(String),
}

/// One method of one path of a description.
struct Entry {
    method: Method,
    segments: Vec<Segment>,
    /// Whether it is of the old form.
    old: bool,
    /// What it calls itself, for comparing.
    titles: Vec<String>,
}

fn entries(document: &Value) -> Option<Vec<Entry>> {
    let paths = document.get("paths")?.as_object()?;
    if paths.len() > PATHS_MAX {
        return None;
    }
    let prefix = common_prefix(paths.keys());
    let mut entries = Vec::new();
    for (path, item) in paths {
        let path = match &prefix {
            Some(prefix) => path.strip_prefix(prefix.as_str()).unwrap_or(path),
            None => path,
        };
        for (word, method) in [
            ("get", Method::Get),
            ("post", Method::Post),
            ("put", Method::Put),
            ("delete", Method::Delete),
        ] {
            let Some(operation) = item.get(word).filter(|value| value.is_object()) else {
                continue;
            };
            let queries: BTreeSet<&str> = [item, operation]
                .into_iter()
                .filter_map(|holder| holder.get("parameters")?.as_array())
                .flatten()
                .filter(|parameter| parameter.get("in").and_then(Value::as_str) == Some("query"))
                .filter_map(|parameter| parameter.get("name")?.as_str())
                .collect();
            let Some((segments, old)) = segments(path, &queries) else {
                continue;
            };
            let titles = ["summary", "operationId", "title"]
                .iter()
                .filter_map(|name| Some(plain(operation.get(name)?.as_str()?)))
                .collect();
            entries.push(Entry {
                method,
                segments,
                old,
                titles,
            });
        }
    }
    Some(entries)
}

/// What all paths begin with, such as `/vastai`: the provider's name, which the base URL has.
fn common_prefix<'a>(mut paths: impl Iterator<Item = &'a String>) -> Option<String> {
    let first_of = |path: &'a String| path.strip_prefix('/')?.split('/').next();
    let first = first_of(paths.next()?)?;
    let mut others = paths.peekable();
    others.peek()?;
    others
        .all(|path| first_of(path) == Some(first))
        .then(|| format!("/{first}"))
}

/// A path taken apart, and whether it is of the old form; `None` where it is no plain path.
fn segments(path: &str, queries: &BTreeSet<&str>) -> Option<(Vec<Segment>, bool)> {
    let inner = path.strip_prefix('/')?;
    let inner = inner.strip_suffix('/').unwrap_or(inner);
    if path.len() > PATH_CHARS_MAX {
        return None;
    }
    let name = |text: &str| {
        let plain = |c: char| c.is_ascii_alphanumeric() || c == '_';
        !text.is_empty() && text.chars().all(plain)
    };
    let (mut new, mut old) = (false, false);
    let mut segments = Vec::new();
    for segment in inner.split('/') {
        let braced = segment
            .strip_prefix('{')
            .and_then(|rest| rest.strip_suffix('}'))
            .or_else(|| segment.strip_prefix(':'));
        let plain = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
        if let Some(id) = braced {
            new = true;
            segments.push(Segment::Id(name(id).then(|| id.to_owned())?));
        } else if segment.is_empty() || !segment.chars().all(plain) {
            return None;
        } else if queries.contains(segment) && name(segment) {
            old = true;
            segments.push(Segment::Id(segment.to_owned()));
        } else {
            segments.push(Segment::Word(segment.to_owned()));
        }
    }
    (!(new && old)).then_some((segments, old))
}

/// Letters and digits in lower case: what is compared of words and titles.
fn plain(text: &str) -> String {
    text.chars()
        .filter(char::is_ascii_alphanumeric)
        .map(|c| c.to_ascii_lowercase())
        .collect()
}

/// The same, without the ending of a plural.
fn stem(text: &str) -> String {
    let word = plain(text);
    word.strip_suffix('s').map_or(word.clone(), str::to_owned)
}

/// Whether two paths differ in nothing but the names of ids, case, dashes and underscores.
fn same_shape(a: &[Segment], b: &[Segment]) -> bool {
    a.len() == b.len()
        && a.iter().zip(b).all(|pair| match pair {
            (Segment::Word(a), Segment::Word(b)) => plain(a) == plain(b),
            (Segment::Id(_), Segment::Id(_)) => true,
            _ => false,
        })
}

enum Found {
    At(Described),
    /// Something of its name is there, but cannot be believed.
    Unclear,
    Nowhere,
}

fn built_in(op: Operation) -> Option<(Method, Vec<Segment>)> {
    let route = op.route(Wire::Gateway)?;
    let (segments, _) = segments(route.path, &BTreeSet::new())?;
    Some((route.method, segments))
}

fn find(op: Operation, entries: &[Entry]) -> Found {
    let Some((method, shape)) = built_in(op) else {
        return Found::Nowhere;
    };
    let exact: Vec<&Entry> = entries
        .iter()
        .filter(|entry| entry.method == method && same_shape(&entry.segments, &shape))
        .collect();
    if let Some(described) = described(&exact) {
        return Found::At(described);
    }
    let names = [plain(op.fact().title), plain(op.name())];
    let titled: Vec<&Entry> = entries
        .iter()
        .filter(|entry| entry.titles.iter().any(|title| names.contains(title)))
        .collect();
    if titled.is_empty() {
        return Found::Nowhere;
    }
    let ids = |segments: &[Segment]| {
        let ids = segments.iter().filter(|s| matches!(s, Segment::Id(_)));
        ids.count()
    };
    let believed: Vec<&Entry> = titled
        .into_iter()
        .filter(|entry| entry.method == method && ids(&entry.segments) == ids(&shape))
        .filter(|entry| looks_like(op, &entry.segments) && !is_another(entry))
        .collect();
    let alike = believed
        .windows(2)
        .all(|pair| same_shape(&pair[0].segments, &pair[1].segments));
    match described(&believed) {
        Some(described) if alike => Found::At(described),
        _ => Found::Unclear,
    }
}

fn described(entries: &[&Entry]) -> Option<Described> {
    let entry = entries
        .iter()
        .find(|entry| !entry.old)
        .or(entries.first())?;
    let has_id = entry.segments.iter().any(|s| matches!(s, Segment::Id(_)));
    let pieces: Vec<String> = entry
        .segments
        .iter()
        .map(|segment| match segment {
            Segment::Word(word) => word.clone(),
            Segment::Id(name) => format!("{{{name}}}"),
        })
        .collect();
    Some(Described {
        path: format!("/{}", pieces.join("/")),
        only_old: has_id && entry.old,
    })
}

/// Whether it is where another operation is at home.
fn is_another(entry: &Entry) -> bool {
    Operation::of(Wire::Gateway).any(|op| {
        built_in(op).is_some_and(|(method, shape)| {
            method == entry.method && same_shape(&shape, &entry.segments)
        })
    })
}

/// Whether a path is made of nothing but an operation's own words, and names what it is about.
fn looks_like(op: Operation, segments: &[Segment]) -> bool {
    const HARMLESS: [&str; 5] = ["api", "v0", "v1", "v2", "new"];
    let Some((_, shape)) = built_in(op) else {
        return false;
    };
    let title = op.fact().title.split(' ').map(stem);
    let own = shape.iter().filter_map(|segment| match segment {
        Segment::Word(word) => Some(stem(word)),
        Segment::Id(_) => None,
    });
    let allowed: BTreeSet<String> = title
        .chain(own)
        .chain(HARMLESS.map(str::to_owned))
        .collect();
    let words: Vec<String> = segments
        .iter()
        .filter_map(|segment| match segment {
            Segment::Word(word) => Some(stem(word)),
            Segment::Id(_) => None,
        })
        .collect();
    let nouns: &[&str] = match op.group() {
        Group::Offers => &["offer"],
        Group::Machines => &["machine"],
        Group::Instances => &["instance"],
        Group::Bids => &["bid"],
        Group::Users => &["user"],
        Group::Templates => &["template"],
        Group::SshKeys => &["sshkey", "ssh", "key"],
        Group::Invoices => &["invoice"],
        Group::Account => &["balance"],
        Group::Notifications => &[],
    };
    words.iter().all(|word| allowed.contains(word))
        && words.iter().any(|word| nouns.contains(&word.as_str()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Map, json};

    use super::*;
    use crate::marketplace::operation::old_form;

    /// A description of the built-in paths, with changes.
    fn document(old: bool, change: impl FnOnce(&mut Map<String, Value>)) -> Vec<u8> {
        let mut paths = Map::new();
        for op in Operation::of(Wire::Gateway) {
            let route = op.route(Wire::Gateway).unwrap();
            let ids: Vec<Value> = route.required().iter().filter(|name| **name != "price").map(|name| {
                json!({"name": name, "in": if old { "query" } else { "path" }, "required": true})
            }).collect();
            let path = if old {
                old_form(route.path).split('?').next().unwrap().to_owned()
            } else {
                route.path.to_owned()
            };
            let method = route.method.as_str().to_ascii_lowercase();
            paths.entry(path).or_insert_with(|| json!({}))[method] =
                json!({"summary": op.fact().title, "parameters": ids});
        }
        change(&mut paths);
        json!({"openapi": "3.0.0", "paths": paths})
            .to_string()
            .into_bytes()
    }

    fn path_of(body: &[u8], op: Operation) -> Option<String> {
        let description = Description::parse(body).unwrap();
        description.get(op).map(|described| described.path.clone())
    }

    #[test]
    fn both_forms_are_told_apart() {
        for old in [false, true] {
            let description = Description::parse(&document(old, |_| {})).unwrap();
            assert_eq!(description.count(), 33, "{:?}", description.missing);
            let stop = description.get(Operation::StopInstance).unwrap();
            assert_eq!(stop.path, "/instances/{instance_id}/stop");
            assert_eq!(stop.only_old, old);
            assert!(!description.get(Operation::Offers).unwrap().only_old);
        }
    }

    #[test]
    fn a_provider_in_front_and_other_names_are_understood() {
        let body = document(false, |paths| {
            let all = std::mem::take(paths);
            for (path, item) in all {
                let path = path
                    .replace("ssh_keys", "ssh-keys")
                    .replace("{instance_id}", ":id");
                paths.insert(format!("/vastai{path}"), item);
            }
        });
        assert_eq!(
            path_of(&body, Operation::DeleteSshKey).unwrap(),
            "/ssh-keys/{key_id}"
        );
        assert_eq!(
            path_of(&body, Operation::StopInstance).unwrap(),
            "/instances/{id}/stop"
        );
        let moved = document(false, |paths| {
            paths.remove("/users/me");
            paths.insert(
                "/user/current".to_owned(),
                json!({"get": {"summary": "Get current user information"}}),
            );
            paths.remove("/balance");
            paths.insert(
                "/account/balance".to_owned(),
                json!({"get": {"operationId": "balance"}}),
            );
        });
        assert_eq!(path_of(&moved, Operation::User).unwrap(), "/user/current");
        assert_eq!(
            path_of(&moved, Operation::Balance).unwrap(),
            "/account/balance"
        );
    }

    #[test]
    fn what_a_gateway_lacks_is_known_and_what_is_unclear_is_not_called_lacking() {
        let body = document(false, |paths| {
            paths.remove("/bids");
            paths.remove("/bids/{bid_id}");
            // Its name is there, but at a place that is not believed.
            paths.remove("/ssh_keys/{key_id}");
            paths.insert(
                "/zap/{key_id}".to_owned(),
                json!({"delete": {"summary": "Delete SSH key"}}),
            );
        });
        let description = Description::parse(&body).unwrap();
        let missing: Vec<&str> = description.missing().map(Operation::name).collect();
        assert_eq!(
            missing,
            ["bids", "bid", "create_bid", "update_bid", "delete_bid"]
        );
        assert_eq!(description.get(Operation::DeleteSshKey), None);
    }

    #[test]
    fn nothing_is_led_astray() {
        let put = |op: &'static str, method: &'static str, path: &'static str| {
            document(false, move |paths| {
                let op = Operation::named(op).unwrap();
                let route = op.route(Wire::Gateway).unwrap();
                let home = paths.get_mut(route.path).unwrap().as_object_mut().unwrap();
                home.remove(&route.method.as_str().to_ascii_lowercase());
                let item = paths.entry(path).or_insert_with(|| json!({}));
                item[method] = json!({"summary": op.fact().title});
            })
        };
        for (op, method, path) in [
            ("instance", "delete", "/instance/{instance_id}"),
            ("instance", "get", "/instance"),
            ("delete_instance", "delete", "/instance"),
            ("delete_instance", "delete", "/machines/{instance_id}"),
            ("stop_instance", "post", "/instances/{instance_id}/start"),
            ("stop_instance", "post", "/instances/{instance_id}/destroy"),
            ("stop_instance", "post", "/instances/{instance_id}/../stop"),
            (
                "stop_instance",
                "post",
                "//evil.example/instances/{instance_id}/stop",
            ),
            (
                "stop_instance",
                "post",
                "/instances/{instance_id}/stop?force=1",
            ),
            ("stop_instance", "post", "/instances/{instance_id}%2Fstop"),
            (
                "stop_instance",
                "post",
                "http://evil.example/instances/{instance_id}/stop",
            ),
            ("stop_instance", "post", "/instances/{instance_id}/{stop}"),
            ("user", "get", "/bids/current"),
        ] {
            assert_eq!(
                path_of(&put(op, method, path), Operation::named(op).unwrap()),
                None,
                "{path}"
            );
        }
    }

    #[test]
    fn what_describes_something_else_is_passed_over() {
        for body in [
            &b""[..],
            b"null",
            b"[]",
            b"<html>",
            br#"{"paths":7}"#,
            br#"{"paths":{}}"#,
            br#"{"paths":{"/pets":{"get":{"summary":"List pets"}}}}"#,
            br#"{"paths":{"/balance":{"get":{}}}}"#,
        ] {
            assert_eq!(Description::parse(body), None);
        }
        let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
        assert_eq!(Description::parse(deep.as_bytes()), None);
    }

    proptest! {
        /// Whatever a description says, an operation keeps its ids, plain characters and the base URL.
        #[test]
        fn no_description_changes_what_an_operation_is(
            path in "(/(vastai|instances?|bids|stop|\\{id\\}|:id|id|\\.\\.|%2F|new|//|[a-z:{}?#]{1,5})){1,5}",
            pick in 0_usize..33,
        ) {
            let op = Operation::of(Wire::Gateway).nth(pick).unwrap();
            let route = op.route(Wire::Gateway).unwrap();
            let body = document(false, |paths| {
                paths.get_mut(route.path).unwrap().as_object_mut().unwrap()
                    .remove(&route.method.as_str().to_ascii_lowercase());
                let method = route.method.as_str().to_ascii_lowercase();
                paths.entry(path).or_insert_with(|| json!({}))[method] = json!({
                    "summary": op.fact().title,
                    "parameters": [{"name": "id", "in": "query"}],
                });
            });
            if let Some(found) = Description::parse(&body).and_then(|d| d.get(op).cloned()) {
                prop_assert_eq!(found.path.matches('{').count(), route.path.matches('{').count());
                prop_assert!(found.path.starts_with('/') && !found.path.contains("//"));
                let plain = |c: char| c.is_ascii_alphanumeric() || "/_-{}".contains(c);
                let is_plain = found.path.chars().all(plain);
                prop_assert!(is_plain, "not plain");
            }
        }
    }
}
