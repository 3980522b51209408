//! `haggle api`: any operation of the marketplace by hand.

use std::io::Read as _;

use clap::Args;
use serde_json::{Map, Value, json};

use super::connect::{field_names, token, transport};
use super::context::{Context, Patience, block_on, state_if_any};
use super::failure::{Done, Exit, Failure, OrFail};
use super::output::{self, Align};
use crate::config::{Config, ProviderKind, resolve_secret};
use crate::marketplace::by_hand::{self, ByHand};
use crate::marketplace::lowcode::{Asked, FieldNames, Routes, describe, problem_with_paths};
use crate::marketplace::operation::{
    Given, Operation, Prepared, Route, Source, Wire, old_form, prepare,
};
use crate::marketplace::redact::percent;
use crate::ports::{ReadError, RefusedWhy};
use crate::types::spelling::nearest;

/// Runs an operation of the marketplace.
///
/// An operation is sent once and never repeated. One that changes something asks first; where
/// nobody is there to ask, it needs --yes. The answer is printed as JSON, its secrets blanked.
#[derive(Args, Clone, Debug)]
pub(crate) struct ApiArgs {
    /// The operation, as `--list` names it.
    #[arg(required_unless_present = "list")]
    operation: Option<String>,
    /// A parameter: of the path, as `instance_id=777`, of the query, or a field of the body.
    #[arg(long = "param", short, value_name = "NAME=VALUE")]
    params: Vec<String>,
    /// The body: a JSON object, `@FILE`, or `-` for standard input.
    #[arg(long, value_name = "JSON")]
    body: Option<String>,
    /// Print the request, with the token blanked, and send nothing.
    #[arg(long)]
    dry_run: bool,
    /// Change what is to be changed without being asked.
    #[arg(long)]
    yes: bool,
    /// Show the secrets in the answer, such as the secret of a new webhook; never the token.
    #[arg(long)]
    reveal: bool,
    /// List all operations, with their paths and where each path is known from.
    #[arg(long, conflicts_with_all = ["operation", "params", "body", "dry_run", "yes", "reveal"])]
    list: bool,
}

/// The largest body that is read, bytes.
const BODY_BYTES_MAX: u64 = 1024 * 1024;

pub(crate) fn run(context: &Context, args: &ApiArgs) -> Done {
    let config = context.config()?;
    if let Some(problem) = problem_with_paths(&config.provider.paths) {
        return Err(Failure::mendable(format!("provider.paths: {problem}")));
    }
    if args.list {
        return list(context, &config);
    }
    let operation = named(args.operation.as_deref().unwrap_or_default())?;
    let wire = wire(&config);
    let renamed = renamed(&config, operation)?;
    let renamed: Vec<(&str, &str)> = renamed
        .iter()
        .map(|(usual, actual)| (usual.as_str(), actual.as_str()))
        .collect();
    let prepared = prepare(operation, wire, given(args)?, &renamed).map_err(|why| {
        Failure::mendable(why).hint("`haggle api --list --json` shows what each takes")
    })?;
    for warning in &prepared.warnings {
        context.output.note(&format!("warning: {warning}"));
    }
    if args.dry_run {
        return dry_run(context, &config, operation, &prepared);
    }
    consent(operation, args.yes)?;
    if let Some(body) = &prepared.body {
        // An error may repeat what was sent.
        context.redactor.add_given(body);
    }
    let outcome = match wire {
        Wire::Gateway => through_gateway(context, &config, operation, &prepared)?,
        Wire::Native => natively(context, &config, operation, &prepared)?,
    };
    tell(context, operation, outcome, args.reveal)
}

fn wire(config: &Config) -> Wire {
    match config.provider.kind {
        ProviderKind::LowCodeApi => Wire::Gateway,
        ProviderKind::Vast => Wire::Native,
    }
}

fn named(name: &str) -> Result<Operation, Failure> {
    let plain = name.replace('-', "_");
    Operation::named(&plain).ok_or_else(|| {
        let near = nearest(&plain, Operation::ALL.into_iter().map(Operation::name));
        let failure = Failure::mendable(format!("there is no operation `{name}`"));
        match near {
            Some(near) => failure.hint(format!("did you mean `{near}`?")),
            None => failure.hint("`haggle api --list` shows all"),
        }
    })
}

/// The usual names of body fields with those that the configuration has instead, for the
/// operations whose fields it names.
fn renamed(config: &Config, operation: Operation) -> Result<Vec<(String, String)>, Failure> {
    let concerned = [
        Operation::CreateInstance,
        Operation::CreateBid,
        Operation::UpdateBid,
        Operation::UpdateInstance,
    ];
    if !concerned.contains(&operation) {
        return Ok(Vec::new());
    }
    let names = |fields: &FieldNames| match serde_json::to_value(fields) {
        Ok(Value::Object(map)) => map,
        _ => Map::new(),
    };
    let actual = names(&field_names(&config.provider.fields)?);
    let changed = names(&FieldNames::default())
        .into_iter()
        .filter_map(|(field, usual)| {
            let actual = actual.get(&field)?.as_str()?;
            let usual = usual.as_str()?;
            (usual != actual).then(|| (usual.to_owned(), actual.to_owned()))
        });
    Ok(changed.collect())
}

// ------------------------------------------------------------------------------------ what is given

fn given(args: &ApiArgs) -> Result<Given, Failure> {
    let params = args
        .params
        .iter()
        .map(|param| {
            let (name, value) = param.split_once('=').ok_or_else(|| {
                Failure::mendable(format!("--param {param} must be of the form name=value"))
            })?;
            Ok((name.trim().to_owned(), value.to_owned()))
        })
        .collect::<Result<_, Failure>>()?;
    let body = args.body.as_deref().map(read_body).transpose()?;
    Ok(Given { params, body })
}

fn read_body(given: &str) -> Result<Map<String, Value>, Failure> {
    let text = match given.strip_prefix('@') {
        Some(path) => {
            let file = std::fs::File::open(path).or_mendable(format!("cannot read {path}"))?;
            read_bounded(file).or_mendable(format!("cannot read {path}"))?
        }
        None if given == "-" => {
            read_bounded(std::io::stdin()).or_mendable("cannot read standard input")?
        }
        None => given.to_owned(),
    };
    if text.len() as u64 > BODY_BYTES_MAX {
        return Err(Failure::mendable("the body is larger than 1 MB"));
    }
    // The parser's message has the place, and none of the text, which may hold secrets.
    let value: Value = serde_json::from_str(&text).or_mendable("the body is not JSON")?;
    match value {
        Value::Object(map) => Ok(map),
        _ => Err(Failure::mendable("the body must be a JSON object")),
    }
}

fn read_bounded(from: impl std::io::Read) -> std::io::Result<String> {
    let mut text = String::new();
    from.take(BODY_BYTES_MAX + 1).read_to_string(&mut text)?;
    Ok(text)
}

fn consent(operation: Operation, yes: bool) -> Result<(), Failure> {
    if yes || !operation.changes() {
        return Ok(());
    }
    let question = format!(
        "`{}` changes something: {}.",
        operation.name(),
        operation.fact().title
    );
    match output::confirm(&question) {
        Some(true) => Ok(()),
        Some(false) => Err(Failure::mendable("not confirmed; nothing was sent")),
        None => Err(Failure::mendable(format!(
            "`{}` changes something, and nobody is there to confirm; nothing was sent",
            operation.name()
        ))
        .hint("say --yes to do it without being asked, or --dry-run to see it")),
    }
}

// --------------------------------------------------------------------------------------- the request

fn dry_run(context: &Context, config: &Config, operation: Operation, prepared: &Prepared) -> Done {
    let base = &config.provider.base_url;
    // It may stand anywhere in what was given. Without one a request can be looked at all the same.
    if let Ok(token) = resolve_secret(&config.provider.token) {
        context
            .redactor
            .add_lasting(secrecy::ExposeSecret::expose_secret(&token));
    }
    let mut document = json!({ "operation": operation.name() });
    let (method, url, old) = match wire(config) {
        Wire::Gateway => {
            let routes = Routes::new(config.provider.paths.clone());
            let (Some((path, source)), Some(route)) =
                (routes.path(operation), operation.route(Wire::Gateway))
            else {
                return Err(Failure::mendable("the gateway has no such operation"));
            };
            document["path_from"] = json!(source.as_str());
            let token = ("api_token".to_owned(), String::new());
            let fill = |template: &str| fill(template, prepared);
            let new = url(base, &fill(&path), &prepared.query, Some(&token));
            // Its query is part of the old form's path already.
            let old = old_form(&path);
            let old = old.contains('?').then(|| {
                let (path, query) = old.split_once('?').unwrap_or((&old, ""));
                let pairs = query.split('&').filter_map(|pair| pair.split_once('='));
                let mut query: Vec<(String, String)> = pairs
                    .map(|(name, value)| (name.to_owned(), fill(value)))
                    .collect();
                query.extend(prepared.query.iter().cloned());
                url(base, path, &query, Some(&token))
            });
            (route.method, new, old)
        }
        Wire::Native => {
            let Some(route) = operation.route(Wire::Native) else {
                return Err(Failure::mendable("the marketplace has no such operation"));
            };
            document["path_from"] = json!(route.source.as_str());
            document["authorization"] = json!("Bearer [redacted]");
            let url = url(base, &prepared.native_path(route), &prepared.query, None);
            (route.method, url, None)
        }
    };
    let url = context.redactor.clean_known(&url);
    let old = old.map(|old| context.redactor.clean_known(&old));
    document["method"] = json!(method.as_str());
    document["url"] = json!(url);
    if let Some(old) = &old {
        document["old_url"] = json!(old);
    }
    if let Some(body) = &prepared.body {
        document["body"] = context.redactor.answer(&Value::from(body.clone()), true);
    }
    context.output.show(&document, || {
        let mut text = format!("{} {url}\n", method.as_str());
        if let Some(old) = &old {
            text.push_str(&format!(
                "or, where the gateway knows the old form alone: {old}\n"
            ));
        }
        if document.get("authorization").is_some() {
            text.push_str("Authorization: Bearer [redacted]\n");
        }
        if let Some(body) = document.get("body") {
            let body = serde_json::to_string_pretty(body).unwrap_or_default();
            text.push_str(&format!("\n{body}\n"));
        }
        text
    })?;
    Ok(Exit::Success)
}

/// A path with its one id put in. The configuration and a gateway may name it otherwise.
fn fill(template: &str, prepared: &Prepared) -> String {
    match (template.split_once('{'), prepared.ids.first()) {
        (Some((before, rest)), Some((_, id))) => {
            let after = rest.split_once('}').map_or("", |(_, after)| after);
            format!("{before}{id}{after}")
        }
        _ => template.to_owned(),
    }
}

/// A URL as it would be sent, but for the token.
fn url(
    base: &str,
    path: &str,
    query: &[(String, String)],
    token: Option<&(String, String)>,
) -> String {
    let mut pairs: Vec<String> = query
        .iter()
        .map(|(name, value)| format!("{}={}", percent(name, true), percent(value, true)))
        .collect();
    pairs.extend(token.map(|(name, _)| format!("{name}=[redacted]")));
    let mark = if pairs.is_empty() { "" } else { "?" };
    format!("{base}{path}{mark}{}", pairs.join("&"))
}

fn through_gateway(
    context: &Context,
    config: &Config,
    operation: Operation,
    prepared: &Prepared,
) -> Result<ByHand, Failure> {
    let remembered = state_if_any(config)
        .ok()
        .flatten()
        .map(|state| state.wire)
        .unwrap_or_default();
    let gateway = context.connect_gateway(config, &remembered, Patience::GiveUp)?;
    let outcome = block_on(async { Ok(gateway.by_hand(operation, prepared).await) })?;
    if gateway.lacks(operation) {
        context.output.note(&format!(
            "warning: this gateway's description has no operation `{}`",
            operation.name()
        ));
    }
    Ok(outcome)
}

fn natively(
    context: &Context,
    config: &Config,
    operation: Operation,
    prepared: &Prepared,
) -> Result<ByHand, Failure> {
    let token = token(&config.provider)?;
    context
        .redactor
        .add_lasting(secrecy::ExposeSecret::expose_secret(&token));
    let transport = transport(&config.provider)?;
    let now = context.now();
    block_on(async {
        let redactor = &context.redactor;
        Ok(by_hand::native(&*transport, &token, redactor, operation, prepared, now).await)
    })
}

// ---------------------------------------------------------------------------------------- the answer

fn tell(context: &Context, operation: Operation, outcome: ByHand, reveal: bool) -> Done {
    match outcome {
        ByHand::Done(answer) => {
            context
                .output
                .document(&context.redactor.answer(&answer, reveal))?;
            Ok(Exit::Success)
        }
        ByHand::Failed(error @ ReadError::Unsupported(_)) => {
            Err(Failure::from(error).hint("`haggle api --list` shows where each path is known from; `provider.paths` overrides it"))
        }
        ByHand::Failed(error) => Err(Failure::from(error)),
        ByHand::Refused {
            why,
            message,
            leftover,
        } => Err(refused(operation, why, &message, leftover.map(|id| id.0))),
        ByHand::Unknown(message) => Err(Failure::world(format!(
            "nobody knows whether `{}` took effect: {message}",
            operation.name()
        ))
        .hint("it was sent once; look before you send it again, as with `haggle api instances`")),
    }
}

fn refused(operation: Operation, why: RefusedWhy, message: &str, leftover: Option<u64>) -> Failure {
    let text = format!(
        "`{}` was refused ({}): {message}",
        operation.name(),
        why.as_str()
    );
    let failure = match why {
        RefusedWhy::NotSent | RefusedWhy::Throttled => Failure::world(text),
        _ => Failure::mendable(text),
    };
    let failure = match why {
        RefusedWhy::NotSent => failure
            .hint("check the network and the configuration's `provider.base_url`"),
        RefusedWhy::Throttled => failure.hint("wait, then try again"),
        RefusedWhy::Unauthorized => failure
            .hint("check the token that the configuration's `provider.token` points at"),
        RefusedWhy::Unsupported => failure.hint(
            "`haggle api --list` shows where each path is known from; `provider.paths` overrides it",
        ),
        RefusedWhy::Queued => failure.hint("it may still happen; stop the instance to cancel it"),
        _ => failure,
    };
    match leftover {
        Some(id) => failure.hint(format!(
            "it left instance {id} behind, whose disk bills: `haggle api delete_instance --param \
             instance_id={id}`"
        )),
        None => failure,
    }
}

// ------------------------------------------------------------------------------------------ the list

fn list(context: &Context, config: &Config) -> Done {
    let wire = wire(config);
    let routes = Routes::new(config.provider.paths.clone());
    let gateway = match wire {
        Wire::Gateway => Some(take_description(context, config, &routes)?),
        Wire::Native => None,
    };
    let rows: Vec<Value> = Operation::of(wire)
        .map(|operation| row(operation, wire, &routes))
        .collect();
    let others: Vec<&str> = Operation::ALL
        .into_iter()
        .filter(|operation| operation.route(wire).is_none())
        .map(Operation::name)
        .collect();
    let other_kind = match wire {
        Wire::Gateway => ProviderKind::Vast,
        Wire::Native => ProviderKind::LowCodeApi,
    };
    let document = json!({
        "kind": config.provider.kind.as_str(),
        "description": gateway,
        "operations": rows,
        "elsewhere": {"kind": other_kind.as_str(), "operations": others},
    });
    context.output.show(&document, || {
        let text = |row: &Value, name: &str| row[name].as_str().unwrap_or_default().to_owned();
        let columns =
            ["operation", "method", "path", "from", "does"].map(|name| (name, Align::Left));
        let cells = rows
            .iter()
            .map(|row| {
                let lacking = if row["lacking"] == json!(true) {
                    "; this gateway does not describe it"
                } else {
                    ""
                };
                let does = if row["changes"] == json!(true) {
                    "changes"
                } else {
                    "reads"
                };
                vec![
                    text(row, "operation"),
                    text(row, "method"),
                    text(row, "path"),
                    text(row, "from"),
                    format!("{does}{lacking}"),
                ]
            })
            .collect();
        let table = context.output.table(&columns, cells);
        format!(
            "{table}\n\nWith provider.kind = \"{}\" also: {}.\n",
            other_kind.as_str(),
            others.join(", ")
        )
    })?;
    Ok(Exit::Success)
}

/// Asks the gateway to describe itself; the word for what came of it.
fn take_description(
    context: &Context,
    config: &Config,
    routes: &Routes,
) -> Result<&'static str, Failure> {
    let transport = transport(&config.provider)?;
    Ok(match block_on(async { Ok(describe(&*transport).await) })? {
        Asked::Described(description) => {
            routes.describe(*description);
            "read"
        }
        Asked::Undescribed => "none",
        Asked::Unanswered(why) => {
            let why = context.redactor.show(&why);
            context.output.note(&format!(
                "warning: the gateway was not reached for its description ({why}); the paths are \
                 the usual ones"
            ));
            "unanswered"
        }
    })
}

fn row(operation: Operation, wire: Wire, routes: &Routes) -> Value {
    let fact = operation.fact();
    let route = operation.route(wire);
    let native = || route.map(|route| (route.path.to_owned(), route.source));
    let (path, from) = match wire {
        Wire::Gateway => routes.path(operation),
        Wire::Native => native(),
    }
    .unwrap_or((String::new(), Source::Documented));
    let old = (wire == Wire::Gateway && path.contains('{')).then(|| old_form(&path));
    json!({
        "operation": fact.name,
        "title": fact.title,
        "group": fact.group.title(),
        "method": route.map(|route| route.method.as_str()),
        "path": path,
        "old_path": old,
        "from": from.as_str(),
        "changes": fact.changes,
        "needs": route.map(Route::required),
        "query": route.map(|route| route.query),
        "body": route.map(|route| route.body),
        "remark": fact.remark,
        "lacking": wire == Wire::Gateway && routes.lacks(operation),
    })
}
