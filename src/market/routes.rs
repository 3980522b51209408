//! The routes of the gateway, as data, and how a path is matched to one.
//!
//! Paths come in two formats. In the new one a parameter stands in the path
//! (`/instances/777`); in the old one its name does, and the value is in the query
//! (`/instances/instance_id?instance_id=777`). Matching ignores case and a trailing slash.

use std::fmt;
use std::str::FromStr;

use serde_json::{Map, Value, json};

use crate::ports::Method;

/// An operation of the gateway.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Operation {
    OffersList,
    OfferGet,
    MachinesList,
    MachineGet,
    MachineCreate,
    MachineUpdate,
    MachineDelete,
    InstancesList,
    InstanceGet,
    InstanceCreate,
    InstanceUpdate,
    InstanceStop,
    InstanceStart,
    InstanceDelete,
    BidsList,
    BidGet,
    BidCreate,
    BidUpdate,
    BidDelete,
    UserCurrent,
    UserGet,
    UserUpdate,
    TemplatesList,
    TemplateGet,
    TemplateCreate,
    TemplateUpdate,
    TemplateDelete,
    SshKeysList,
    SshKeyCreate,
    SshKeyDelete,
    InvoicesList,
    InvoiceGet,
    Balance,
}

/// One route: an operation, where it is, and what it takes.
#[derive(Debug)]
pub(crate) struct Route {
    pub(crate) operation: Operation,
    /// What it is called in the gateway's documentation.
    pub(crate) name: &'static str,
    pub(crate) method: Method,
    /// The path in the new format, parameters in braces.
    pub(crate) path: &'static str,
    /// Query parameters.
    query: &'static [&'static str],
    /// Fields of the body.
    body: &'static [&'static str],
    /// At most so many calls in so many milliseconds of market time: the marketplace's documented
    /// intervals. No calls: unlimited.
    pub(crate) limit: (usize, i64),
}

const PAGE: &[&str] = &["limit", "offset", "owner_id", "state", "after_token"];
const RENT: &[&str] = &[
    "offer_id", "image", "disk", "env", "onstart", "args", "label",
];
const BID: &[&str] = &[
    "offer_id",
    "price",
    "image",
    "disk",
    "env",
    "onstart",
    "args",
    "label",
    "cancel_unavail",
];

const MINE: &[&str] = &["owner_id", "limit", "offset"];
const LIST: &[&str] = &[
    "limit",
    "offset",
    "select_cols",
    "select_filters",
    "order_by",
];
const LISTING: &[&str] = &["discount", "machine_id", "min_bid", "price", "verified"];
const USER: &[&str] = &[
    "ssh_key",
    "email",
    "username",
    "fullname",
    "balance_threshold",
    "balance_threshold_enabled",
    "autobill_threshold",
    "phone_number",
];
const TEMPLATE: &[&str] = &[
    "name",
    "image",
    "tag",
    "env",
    "onstart",
    "runtype",
    "ssh_direct",
    "jup_direct",
    "use_ssh",
    "recommended_disk_space",
    "private",
    "desc",
    "readme",
    "extra_filters",
];

const fn route(
    operation: Operation,
    name: &'static str,
    method: Method,
    path: &'static str,
    query: &'static [&'static str],
    body: &'static [&'static str],
    limit: (usize, i64),
) -> Route {
    Route {
        operation,
        name,
        method,
        path,
        query,
        body,
        limit,
    }
}

/// Every route. Another operation is a line here and an arm where operations are performed.
#[rustfmt::skip]
pub(crate) const ROUTES: &[Route] = &{
    use Method::{Delete, Get, Post, Put};
    use Operation as O;
    const SEARCH: &[&str] = &["type", "limit", "offset", "order", "q", "sort_option"];
    const CHARGES: &[&str] = &["select_filters", "latest_first", "limit", "after_token"];
    [
        route(O::OffersList, "List available GPU offers", Get, "/offers", SEARCH, &[], (10, 60_000)),
        route(O::OfferGet, "Get specific offer details", Get, "/offers/{offer_id}", &["type"], &[], (10, 60_000)),
        route(O::MachinesList, "List your machines", Get, "/machines", MINE, &[], (0, 0)),
        route(O::MachineGet, "Get machine details", Get, "/machines/{machine_id}", &[], &[], (0, 0)),
        route(O::MachineCreate, "Create a new machine offer", Post, "/machines", &[], LISTING, (0, 0)),
        route(O::MachineUpdate, "Update machine offer", Put, "/machines/{machine_id}", &[], &["discount", "min_bid", "price", "verified"], (0, 0)),
        route(O::MachineDelete, "Delete machine offer", Delete, "/machines/{machine_id}", &[], &[], (1, 1800)),
        route(O::InstancesList, "List instances", Get, "/instances", PAGE, &[], (1, 1000)),
        route(O::InstanceGet, "Get instance details", Get, "/instances/{instance_id}", &[], &[], (1, 2000)),
        route(O::InstanceCreate, "Create new instance", Post, "/instances", &[], RENT, (1, 4500)),
        route(O::InstanceUpdate, "Update instance", Put, "/instances/{instance_id}", &[], &["label"], (1, 1000)),
        route(O::InstanceStop, "Stop instance", Post, "/instances/{instance_id}/stop", &[], &[], (1, 1000)),
        route(O::InstanceStart, "Start instance", Post, "/instances/{instance_id}/start", &[], &[], (1, 1000)),
        route(O::InstanceDelete, "Delete instance", Delete, "/instances/{instance_id}", &[], &[], (1, 3000)),
        route(O::BidsList, "List bids", Get, "/bids", MINE, &[], (1, 1000)),
        route(O::BidGet, "Get bid details", Get, "/bids/{bid_id}", &[], &[], (1, 2000)),
        route(O::BidCreate, "Create new bid", Post, "/bids", &[], BID, (1, 4500)),
        route(O::BidUpdate, "Update bid", Put, "/bids/{bid_id}", &[], &["price"], (1, 5500)),
        route(O::BidDelete, "Delete bid", Delete, "/bids/{bid_id}", &[], &[], (1, 3000)),
        // The fixed path stands before the one with a parameter, which matches it, too.
        route(O::UserCurrent, "Get current user information", Get, "/users/me", &[], &[], (0, 0)),
        route(O::UserGet, "Get user information", Get, "/users/{user_id}", &[], &[], (0, 0)),
        route(O::UserUpdate, "Update current user", Put, "/users/me", &[], USER, (1, 5000)),
        route(O::TemplatesList, "List templates", Get, "/templates", LIST, &[], (1, 3000)),
        route(O::TemplateGet, "Get template details", Get, "/templates/{template_id}", &[], &[], (1, 3000)),
        route(O::TemplateCreate, "Create template", Post, "/templates", &[], TEMPLATE, (0, 0)),
        route(O::TemplateUpdate, "Update template", Put, "/templates/{template_id}", &[], TEMPLATE, (0, 0)),
        route(O::TemplateDelete, "Delete template", Delete, "/templates/{template_id}", &[], &[], (0, 0)),
        route(O::SshKeysList, "List SSH keys", Get, "/ssh_keys", &["limit", "offset"], &[], (0, 0)),
        route(O::SshKeyCreate, "Add SSH key", Post, "/ssh_keys", &[], &["ssh_key"], (1, 1000)),
        route(O::SshKeyDelete, "Delete SSH key", Delete, "/ssh_keys/{key_id}", &[], &[], (0, 0)),
        route(O::InvoicesList, "List invoices", Get, "/invoices", CHARGES, &[], (1, 1000)),
        route(O::InvoiceGet, "Get invoice details", Get, "/invoices/{invoice_id}", &[], &[], (1, 1000)),
        route(O::Balance, "Get account balance", Get, "/balance", &[], &[], (0, 0)),
    ]
};

impl Route {
    /// Whether it is one of the bids'.
    pub(crate) fn is_bid(&self) -> bool {
        self.path.starts_with("/bids")
    }
}

/// Which path formats a gateway understands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Paths {
    /// Parameters in the path.
    New,
    /// Parameters in the query.
    Old,
    /// Both.
    #[default]
    Both,
}

impl FromStr for Paths {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "new" => Ok(Self::New),
            "old" => Ok(Self::Old),
            "both" => Ok(Self::Both),
            _ => Err(format!("`{text}` is not one of new, old, both")),
        }
    }
}

impl fmt::Display for Paths {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::New => "new",
            Self::Old => "old",
            Self::Both => "both",
        })
    }
}

/// A route that was found, with the value of its parameter.
#[derive(Debug)]
pub(crate) struct Matched {
    pub(crate) route: &'static Route,
    pub(crate) id: Option<String>,
}

/// The route of a path under the gateway's prefix, its segments percent-encoded.
///
/// `literal_ids`: whether a gateway of the new format only takes the parameter's name for its
/// value when a path of the old format comes in. Gateways were seen to.
pub(crate) fn find(
    method: Method,
    path: &str,
    query: &[(String, String)],
    paths: Paths,
    literal_ids: bool,
) -> Option<Matched> {
    let segments: Vec<String> = path
        .trim_end_matches('/')
        .trim_start_matches('/')
        .split('/')
        .map(percent_decoded)
        .collect();
    ROUTES
        .iter()
        .filter(|r| r.method == method)
        .find_map(|route| {
            let pattern: Vec<&str> = route.path.trim_start_matches('/').split('/').collect();
            if pattern.len() != segments.len() {
                return None;
            }
            let mut id = None;
            for (part, segment) in pattern.iter().zip(&segments) {
                let name = part.strip_prefix('{').and_then(|p| p.strip_suffix('}'));
                match name {
                    None if part.eq_ignore_ascii_case(segment) => {}
                    None => return None,
                    Some(name) => id = Some(parameter(name, segment, query, paths, literal_ids)?),
                }
            }
            Some(Matched { route, id })
        })
}

fn parameter(
    name: &str,
    segment: &str,
    query: &[(String, String)],
    paths: Paths,
    literal_ids: bool,
) -> Option<String> {
    let is_name = segment.eq_ignore_ascii_case(name);
    match paths {
        _ if segment.is_empty() => None,
        Paths::Old | Paths::Both if is_name => {
            let value = query.iter().find(|(key, _)| key == name);
            // A missing parameter does not fail: the provider gets the text `null`.
            Some(value.map_or_else(|| "null".to_owned(), |(_, value)| value.clone()))
        }
        Paths::Old => None,
        Paths::New if is_name && !literal_ids => None,
        Paths::New | Paths::Both => Some(segment.to_owned()),
    }
}

/// A path segment decoded. What is no escape stays as it is; bytes that are no UTF-8 are replaced.
pub(crate) fn percent_decoded(segment: &str) -> String {
    let bytes = segment.as_bytes();
    let mut decoded = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let escape = bytes
            .get(at + 1..at + 3)
            .filter(|_| bytes[at] == b'%')
            .and_then(|hex| std::str::from_utf8(hex).ok())
            .and_then(|hex| u8::from_str_radix(hex, 16).ok());
        decoded.push(escape.unwrap_or(bytes[at]));
        at += if escape.is_some() { 3 } else { 1 };
    }
    String::from_utf8_lossy(&decoded).into_owned()
}

/// The description of the routes, an OpenAPI 3.0 document.
pub(crate) fn definition(prefix: &str, paths: Paths, bids: bool) -> Value {
    let mut described = Map::new();
    for route in ROUTES.iter().filter(|route| bids || !route.is_bid()) {
        let parameter = route.path.split(['{', '}']).nth(1);
        let mut add = |path: String, place: &str| {
            let named = parameter.map(|name| parameter_of(name, place, true));
            let plain = route
                .query
                .iter()
                .map(|name| parameter_of(name, "query", false));
            let mut operation = json!({
                "summary": route.name,
                "parameters": named.into_iter().chain(plain).collect::<Vec<_>>(),
                "responses": {"200": {"description": "Success"}},
            });
            if !route.body.is_empty() {
                let fields: Map<String, Value> = route
                    .body
                    .iter()
                    .map(|name| ((*name).to_owned(), json!({})))
                    .collect();
                operation["requestBody"] = json!({"content": {"application/json": {
                    "schema": {"type": "object", "properties": fields}}}});
            }
            let method = route.method.as_str().to_ascii_lowercase();
            let methods = described.entry(path).or_insert_with(|| json!({}));
            methods[method] = operation;
        };
        if paths != Paths::Old || parameter.is_none() {
            add(route.path.to_owned(), "path");
        }
        if paths != Paths::New && parameter.is_some() {
            add(route.path.replace(['{', '}'], ""), "query");
        }
    }
    json!({
        "openapi": "3.0.0",
        "info": {"title": "vastai", "version": "1.0.0"},
        "servers": [{"url": prefix}],
        "components": {"securitySchemes": {
            "api_token": {"type": "apiKey", "in": "query", "name": "api_token"}}},
        "security": [{"api_token": []}],
        "paths": described,
    })
}

fn parameter_of(name: &str, place: &str, required: bool) -> Value {
    json!({"name": name, "in": place, "required": required, "schema": {"type": "string"}})
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn found(
        paths: Paths,
        literal_ids: bool,
        method: Method,
        path: &str,
    ) -> Option<(Operation, Option<String>)> {
        let (path, query) = path.split_once('?').unwrap_or((path, ""));
        let query: Vec<_> = query
            .split_once('=')
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .into_iter()
            .collect();
        find(method, path, &query, paths, literal_ids).map(|m| (m.route.operation, m.id))
    }

    #[test]
    fn each_format_is_matched_where_it_is_spoken() {
        let stop = |id: &str| Some((Operation::InstanceStop, Some(id.to_owned())));
        let new = "/instances/777/stop";
        let old = "/instances/instance_id/stop?instance_id=777";
        for (paths, path, expected) in [
            (Paths::New, new, stop("777")),
            (Paths::Old, new, None),
            (Paths::Both, new, stop("777")),
            (Paths::New, old, stop("instance_id")),
            (Paths::Old, old, stop("777")),
            (Paths::Both, old, stop("777")),
            (Paths::Both, "/instances/instance_id/stop", stop("null")),
        ] {
            assert_eq!(
                found(paths, true, Method::Post, path),
                expected,
                "{paths} {path}"
            );
        }
        assert_eq!(found(Paths::New, false, Method::Post, old), None);
    }

    #[test]
    fn case_and_a_trailing_slash_are_ignored_and_escapes_decoded() {
        let get = |path| found(Paths::Both, true, Method::Get, path);
        assert_eq!(
            get("/Instances/"),
            Some((Operation::InstancesList, None)),
            "an empty id lists"
        );
        assert_eq!(get("/users/ME/"), Some((Operation::UserCurrent, None)));
        let user = Some((Operation::UserGet, Some("7".to_owned())));
        assert_eq!(get("/users/7"), user);
        assert_eq!(
            get("/offers/a%2Fb%zz"),
            Some((Operation::OfferGet, Some("a/b%zz".to_owned())))
        );
        for path in [
            "/",
            "",
            "/offers/1/2",
            "/openapi",
            "/instances//stop",
            "/users/7/8",
        ] {
            assert_eq!(get(path), None, "{path}");
        }
        assert_eq!(
            found(Paths::Both, true, Method::Delete, "/offers"),
            None,
            "wrong method"
        );
    }

    #[test]
    fn the_definition_lists_the_routes_of_the_formats_spoken() {
        let new = definition("/vastai", Paths::New, true);
        assert!(new["paths"]["/bids/{bid_id}"]["put"]["requestBody"].is_object());
        assert!(new["paths"]["/bids/bid_id"].is_null());
        assert_eq!(new["paths"]["/instances"].as_object().unwrap().len(), 2);
        let old = definition("/vastai", Paths::Old, false);
        let parameter = &old["paths"]["/instances/instance_id"]["delete"]["parameters"][0];
        assert_eq!(*parameter, parameter_of("instance_id", "query", true));
        assert!(old["paths"]["/bids"].is_null());
        assert!(old["paths"]["/instances/{instance_id}"].is_null());
    }

    #[test]
    fn every_documented_operation_has_a_route_and_a_description() {
        assert_eq!(ROUTES.len(), 33);
        let operations: std::collections::BTreeSet<_> =
            ROUTES.iter().map(|route| route.operation).collect();
        assert_eq!(operations.len(), 33);
        let described = definition("/vastai", Paths::Both, true);
        for route in ROUTES {
            let method = route.method.as_str().to_ascii_lowercase();
            for path in [route.path.to_owned(), route.path.replace(['{', '}'], "")] {
                let summary = &described["paths"][&path][&method]["summary"];
                assert_eq!(summary, route.name, "{path}");
            }
        }
    }

    proptest! {
        #[test]
        fn any_path_is_matched_or_not(path in ".{0,60}") {
            let _ = found(Paths::Both, true, Method::Get, &path);
        }
    }
}
