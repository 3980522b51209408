//! A request made from the table and from what a person gave.
//!
//! What is surely wrong is refused; what is only not known to us is warned of, for the marketplace
//! may know more than its documentation.

use serde_json::{Map, Value};

use super::{Operation, PlainId, Route, Wire, placeholders};
use crate::ports::Method;
use crate::types::spelling::nearest;

/// What a person gave.
#[derive(Clone, Debug, Default)]
pub struct Given {
    /// Names with values.
    pub params: Vec<(String, String)>,
    /// A body, if there is one.
    pub body: Option<Map<String, Value>>,
}

/// A request, all but its credentials.
#[derive(Clone, Debug, PartialEq)]
pub struct Prepared {
    /// The ids that the path names, in the order of the path.
    pub ids: Vec<(&'static str, PlainId)>,
    /// The query.
    pub query: Vec<(String, String)>,
    /// The body.
    pub body: Option<Map<String, Value>>,
    /// What may be a mistake.
    pub warnings: Vec<String>,
}

/// Names by which credentials travel. They are configured, and a second one is an error.
const CREDENTIALS: [&str; 3] = ["api_token", "api_key", "authorization"];

/// Fields that are texts, whatever they look like.
const TEXTS: [&str; 21] = [
    "label",
    "name",
    "image",
    "onstart",
    "ssh_key",
    "username",
    "fullname",
    "email",
    "phone_number",
    "tag",
    "desc",
    "readme",
    "command",
    "filter",
    "tail",
    "daemon_logs",
    "offer_id",
    "hash_id",
    "template_hash_id",
    "image_login",
    "recipient",
];

/// Fields that are amounts of money, which are numbers over zero.
const AMOUNTS: [&str; 2] = ["price", "amount"];

/// Makes a request of an operation in a wire format. `renamed` gives the usual names of body fields
/// with those that this gateway has instead.
///
/// # Errors
/// What is missing or wrong, in a sentence.
pub fn prepare(
    operation: Operation,
    wire: Wire,
    given: Given,
    renamed: &[(&str, &str)],
) -> Result<Prepared, String> {
    let route = operation.route(wire).ok_or_else(|| match wire {
        Wire::Gateway => format!(
            "the gateway has no operation `{0}`; it needs provider.kind = \"vast\"",
            operation.name()
        ),
        Wire::Native => format!(
            "the marketplace's own format has nothing for `{}`: {}",
            operation.name(),
            operation.fact().remark
        ),
    })?;
    let mut builder = Builder {
        operation,
        route,
        required: route.required(),
        named: Vec::new(),
        query: Vec::new(),
        body: Map::new(),
        had_body: given.body.is_some(),
        warnings: Vec::new(),
    };
    builder.take_body(given.body.unwrap_or_default(), renamed)?;
    for (name, value) in given.params {
        builder.take_param(&name, value)?;
    }
    builder.finish(renamed)
}

struct Builder {
    operation: Operation,
    route: &'static Route,
    required: Vec<&'static str>,
    /// Values of what is required.
    named: Vec<(&'static str, String)>,
    query: Vec<(String, String)>,
    body: Map<String, Value>,
    had_body: bool,
    warnings: Vec<String>,
}

impl Builder {
    fn take_body(
        &mut self,
        body: Map<String, Value>,
        renamed: &[(&str, &str)],
    ) -> Result<(), String> {
        if self.had_body && self.route.method == Method::Get {
            return Err(format!(
                "`{}` is a read and takes no body",
                self.operation.name()
            ));
        }
        for (name, value) in body {
            let usual = renamed.iter().find(|&&(_, actual)| actual == name);
            let name = usual.map_or(name, |&(usual, _)| usual.to_owned());
            refuse_credentials(&name)?;
            // What the path or the fixed part needs may be given in the body as well.
            if let Some(required) = self.required_name(&name, false) {
                let text = match value {
                    Value::String(text) => text,
                    Value::Number(number) => number.to_string(),
                    _ => return Err(format!("`{name}` must be a number or a text")),
                };
                self.name(required, text)?;
                continue;
            }
            self.put(name, value)?;
        }
        Ok(())
    }

    fn take_param(&mut self, name: &str, value: String) -> Result<(), String> {
        refuse_credentials(name)?;
        if name.is_empty() {
            return Err("a parameter is given as name=value".to_owned());
        }
        let known_field = self.route.body.contains(&name) || self.route.query.contains(&name);
        if let Some(required) = self.required_name(name, !known_field) {
            return self.name(required, value);
        }
        let reads = matches!(self.route.method, Method::Get | Method::Delete);
        let in_query =
            self.route.query.contains(&name) || (reads && !self.route.body.contains(&name));
        if !in_query {
            let value = if TEXTS.contains(&name) {
                Value::String(value)
            } else {
                serde_json::from_str(&value).unwrap_or(Value::String(value))
            };
            return self.put(name.to_owned(), value);
        }
        if !self.route.query.contains(&name) {
            self.warn_unknown(name);
        }
        if self.query.iter().any(|(known, _)| known == name) {
            return Err(format!("`{name}` is given twice"));
        }
        self.query.push((name.to_owned(), value));
        Ok(())
    }

    /// The required parameter of a name. Where only one is required, `id` means it.
    fn required_name(&self, name: &str, short: bool) -> Option<&'static str> {
        if let Some(found) = self.required.iter().find(|&&required| required == name) {
            return Some(found);
        }
        match self.required.as_slice() {
            [only] if short && name == "id" && only.ends_with("_id") => Some(only),
            _ => None,
        }
    }

    fn name(&mut self, required: &'static str, value: String) -> Result<(), String> {
        if self.named.iter().any(|&(name, _)| name == required) {
            return Err(format!("`{required}` is given twice"));
        }
        self.named.push((required, value));
        Ok(())
    }

    fn put(&mut self, name: String, value: Value) -> Result<(), String> {
        let on_demand = self.operation == Operation::CreateInstance;
        if on_demand && name == "price" && !value.is_null() {
            return Err(
                "`create_instance` rents on-demand, at the host's price; a bid is `create_bid`"
                    .to_owned(),
            );
        }
        if self.body.contains_key(&name) {
            return Err(format!("`{name}` is given twice"));
        }
        if !self.route.body.contains(&name.as_str()) {
            self.warn_unknown(&name);
        }
        self.body.insert(name, value);
        Ok(())
    }

    fn warn_unknown(&mut self, name: &str) {
        let known = || {
            let route = self.route;
            let names = route.query.iter().chain(route.body).chain(&self.required);
            names.copied()
        };
        let operation = self.operation.name();
        let warning = match nearest(name, known()) {
            Some(near) => {
                format!("`{operation}` is not known to take `{name}`; did you mean `{near}`?")
            }
            None if known().next().is_none() => {
                format!("`{operation}` is not known to take anything, so not `{name}`")
            }
            None => {
                let names: Vec<&str> = known().collect();
                format!(
                    "`{operation}` is not known to take `{name}`; it takes {}",
                    names.join(", ")
                )
            }
        };
        self.warnings.push(warning);
    }

    fn finish(mut self, renamed: &[(&str, &str)]) -> Result<Prepared, String> {
        let missing: Vec<String> = self
            .required
            .iter()
            .filter(|&required| self.named.iter().all(|(name, _)| name != required))
            .map(|required| format!("--param {required}=…"))
            .collect();
        if !missing.is_empty() {
            return Err(format!(
                "`{}` needs {}",
                self.operation.name(),
                missing.join(" and ")
            ));
        }
        let mut ids = Vec::new();
        for name in placeholders(self.route.path) {
            ids.push((name, self.id(name)?));
        }
        for &(name, template) in self.route.fixed_query {
            let mut value = template.to_owned();
            for placeholder in placeholders(template) {
                let id = self.id(placeholder)?;
                // Inside JSON a number stands without quotes.
                let quoted = format!("\"{{{placeholder}}}\"");
                value = match id.as_str().parse::<u64>() {
                    Ok(number) => value.replace(&quoted, &number.to_string()),
                    Err(_) => value.replace(&format!("{{{placeholder}}}"), id.as_str()),
                };
            }
            if self.query.iter().any(|(known, _)| known == name) {
                return Err(format!(
                    "`{name}` is set by `{}` itself",
                    self.operation.name()
                ));
            }
            self.query.push((name.to_owned(), value));
        }
        self.fix_body()?;
        let keeps = !self.body.is_empty() || self.had_body || !self.route.fixed_body.is_empty();
        let body = keeps.then(|| {
            let rename = |name: String| {
                let actual = renamed.iter().find(|&&(usual, _)| usual == name);
                actual.map_or(name, |&(_, actual)| actual.to_owned())
            };
            std::mem::take(&mut self.body)
                .into_iter()
                .map(|(name, value)| (rename(name), value))
                .collect()
        });
        Ok(Prepared {
            ids,
            query: self.query,
            body,
            warnings: self.warnings,
        })
    }

    fn fix_body(&mut self) -> Result<(), String> {
        if self.route.fixed_body.is_empty() {
            return Ok(());
        }
        let fixed: Map<String, Value> = serde_json::from_str(self.route.fixed_body)
            .map_err(|error| format!("`{}`: {error}", self.operation.name()))?;
        for (name, value) in fixed {
            if self.body.contains_key(&name) {
                return Err(format!(
                    "`{name}` is set by `{}` itself",
                    self.operation.name()
                ));
            }
            let value = self.filled(value)?;
            self.body.insert(name, value);
        }
        Ok(())
    }

    /// A value with every parameter in braces replaced by what was given.
    fn filled(&self, value: Value) -> Result<Value, String> {
        Ok(match value {
            Value::Object(map) => {
                let mut filled = Map::new();
                for (name, value) in map {
                    filled.insert(name, self.filled(value)?);
                }
                Value::Object(filled)
            }
            Value::String(text) => {
                let name = text
                    .strip_prefix('{')
                    .and_then(|rest| rest.strip_suffix('}'));
                match name.and_then(|name| self.required_name(name, false)) {
                    Some(name) => self.value(name)?,
                    None => Value::String(text),
                }
            }
            other => other,
        })
    }

    fn given(&self, name: &str) -> &str {
        let found = self.named.iter().find(|(known, _)| *known == name);
        found.map_or("", |(_, value)| value.as_str())
    }

    fn id(&self, name: &str) -> Result<PlainId, String> {
        PlainId::new(self.given(name)).map_err(|why| format!("`{name}` {why}"))
    }

    fn value(&self, name: &str) -> Result<Value, String> {
        let text = self.given(name);
        if AMOUNTS.contains(&name) {
            return amount(text)
                .ok_or_else(|| format!("`{name}` must be a number over 0, in dollars"));
        }
        if name.ends_with("_id") {
            let id = self.id(name)?;
            let number = id
                .as_str()
                .parse::<u64>()
                .ok()
                .filter(|_| name != "hash_id");
            return Ok(number.map_or_else(|| Value::from(id.as_str()), Value::from));
        }
        if text.trim().is_empty() {
            return Err(format!("`{name}` is empty"));
        }
        Ok(Value::from(text))
    }
}

fn amount(text: &str) -> Option<Value> {
    let value: Value = serde_json::from_str(text).ok()?;
    let number = value.as_f64()?;
    (number.is_finite() && number > 0.0).then_some(value)
}

fn refuse_credentials(name: &str) -> Result<(), String> {
    if CREDENTIALS
        .iter()
        .any(|known| name.eq_ignore_ascii_case(known))
    {
        return Err(format!(
            "`{name}` is taken from the configuration's `provider.token` alone"
        ));
    }
    Ok(())
}

impl Prepared {
    /// The path of the marketplace's own format.
    pub fn native_path(&self, route: &Route) -> String {
        let mut path = route.path.to_owned();
        for (name, id) in &self.ids {
            path = path.replace(&format!("{{{name}}}"), id.as_str());
        }
        path
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn given(params: &[(&str, &str)], body: Value) -> Given {
        Given {
            params: params
                .iter()
                .map(|&(name, value)| (name.to_owned(), value.to_owned()))
                .collect(),
            body: body.as_object().cloned(),
        }
    }

    fn native(op: Operation, params: &[(&str, &str)], body: Value) -> Result<String, String> {
        let prepared = prepare(op, Wire::Native, given(params, body), &[])?;
        let route = op.route(Wire::Native).unwrap();
        let query: Vec<String> = prepared
            .query
            .iter()
            .map(|(name, value)| format!("{name}={value}"))
            .collect();
        let body = prepared
            .body
            .as_ref()
            .map(|body| Value::from(body.clone()).to_string());
        Ok(format!(
            "{} {}?{} {}",
            route.method.as_str(),
            prepared.native_path(route),
            query.join("&"),
            body.unwrap_or_default()
        ))
    }

    #[test]
    fn native_requests_say_what_the_marketplace_documents() {
        for (op, params, body, expected) in [
            (
                Operation::StopInstance,
                &[("instance_id", "7")][..],
                Value::Null,
                r#"PUT /api/v0/instances/7/? {"state":"stopped"}"#,
            ),
            (
                Operation::CreateBid,
                &[("offer_id", "5"), ("price", "0.21")],
                json!({"image":"a","label":"x"}),
                r#"PUT /api/v0/asks/5/? {"image":"a","label":"x","price":0.21}"#,
            ),
            (
                Operation::CreateBid,
                &[],
                json!({"offer_id":"5","price":0.21}),
                r#"PUT /api/v0/asks/5/? {"price":0.21}"#,
            ),
            (
                Operation::UpdateBid,
                &[("id", "7"), ("price", "0.2")],
                Value::Null,
                "",
            ),
            (
                Operation::UpdateBid,
                &[("bid_id", "7"), ("price", "0.2")],
                Value::Null,
                r#"PUT /api/v0/instances/bid_price/7/? {"client_id":"me","price":0.2}"#,
            ),
            (
                Operation::Offer,
                &[("id", "5")],
                Value::Null,
                r#"POST /api/v0/bundles/? {"ask_contract_id":{"eq":5},"rentable":{"in":[true,false]},"rented":{"in":[true,false]},"verified":{"in":[true,false]}}"#,
            ),
            (
                Operation::Offers,
                &[("type", "bid"), ("gpu_name", r#"{"eq":"RTX 4090"}"#)],
                Value::Null,
                r#"POST /api/v0/bundles/? {"gpu_name":{"eq":"RTX 4090"},"type":"bid"}"#,
            ),
            (
                Operation::Template,
                &[("template_id", "3")],
                Value::Null,
                r#"GET /api/v0/template/?select_filters={"id":{"eq":3}} "#,
            ),
            (
                Operation::DeleteTemplate,
                &[("template_id", "3")],
                Value::Null,
                r#"DELETE /api/v0/template/? {"template_id":3}"#,
            ),
            (
                Operation::UpdateTemplate,
                &[("hash_id", "12345678")],
                Value::Null,
                r#"PUT /api/v0/template/? {"hash_id":"12345678"}"#,
            ),
            (
                Operation::DetachSshKey,
                &[("instance_id", "7"), ("key_id", "2")],
                Value::Null,
                "DELETE /api/v0/instances/7/ssh/2/? ",
            ),
            (
                Operation::Machines,
                &[],
                Value::Null,
                "GET /api/v0/machines/?owner=me ",
            ),
        ] {
            let made = native(op, params, body);
            if expected.is_empty() {
                assert!(made.is_err(), "`id` is not clear among several: {made:?}");
            } else {
                assert_eq!(made.unwrap(), expected);
            }
        }
    }

    #[test]
    fn every_operation_can_be_made_of_what_it_needs_and_of_nothing_less() {
        for op in Operation::ALL {
            for wire in [Wire::Gateway, Wire::Native] {
                let Some(route) = op.route(wire) else {
                    continue;
                };
                let required = route.required();
                let full: Vec<(&str, &str)> = required.iter().map(|&name| (name, "17")).collect();
                let made = prepare(op, wire, given(&full, Value::Null), &[]).unwrap();
                assert_eq!(made.warnings, Vec::<String>::new(), "{}", op.name());
                let text = format!(
                    "{} {:?} {:?}",
                    made.native_path(route),
                    made.query,
                    made.body
                );
                for name in &required {
                    assert!(!text.contains(&format!("{{{name}}}")), "{text}");
                }
                for left_out in 0..full.len() {
                    let mut fewer = full.clone();
                    let (name, _) = fewer.remove(left_out);
                    let why = prepare(op, wire, given(&fewer, Value::Null), &[]).unwrap_err();
                    assert!(why.contains(&format!("--param {name}=")), "{why}");
                }
            }
        }
    }

    #[test]
    fn what_is_wrong_is_refused_and_what_is_unknown_is_warned_of() {
        let refused = |op, params: &[(&str, &str)], body: Value| {
            prepare(op, Wire::Gateway, given(params, body), &[]).unwrap_err()
        };
        let op = Operation::DeleteInstance;
        assert!(refused(op, &[("instance_id", "")], Value::Null).contains("whole list"));
        assert!(refused(op, &[("instance_id", "7/../8")], Value::Null).contains("only letters"));
        assert!(refused(op, &[("id", "7"), ("instance_id", "8")], Value::Null).contains("twice"));
        assert!(
            refused(op, &[("id", "7"), ("API_TOKEN", "x")], Value::Null).contains("provider.token")
        );
        let reads = Operation::Instances;
        assert!(refused(reads, &[], json!({"a": 1})).contains("takes no body"));
        let priced = json!({"offer_id": "1", "price": 0.2});
        assert!(refused(Operation::CreateInstance, &[], priced).contains("create_bid"));
        let bid = Operation::UpdateBid;
        for price in ["0", "-1", "null", "cheap", "1e999"] {
            let why = refused(bid, &[("bid_id", "7"), ("price", price)], Value::Null);
            assert!(why.contains("over 0"), "{price}: {why}");
        }
        assert!(refused(Operation::AuditLogs, &[], Value::Null).contains("provider.kind"));

        let made = prepare(
            reads,
            Wire::Gateway,
            given(&[("stat", "running")], Value::Null),
            &[],
        )
        .unwrap();
        assert_eq!(made.query, vec![("stat".to_owned(), "running".to_owned())]);
        assert!(
            made.warnings[0].contains("did you mean `state`?"),
            "{:?}",
            made.warnings
        );
    }

    #[test]
    fn a_gateway_may_name_its_fields_otherwise() {
        let renamed = [("price", "bid_price")];
        for body in [json!({"price": 0.2}), json!({"bid_price": 0.2})] {
            let made = prepare(
                Operation::UpdateBid,
                Wire::Gateway,
                given(&[("bid_id", "7")], body),
                &renamed,
            );
            assert_eq!(
                Value::from(made.unwrap().body.unwrap()),
                json!({"bid_price": 0.2})
            );
        }
    }
}
