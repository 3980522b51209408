//! The table as a document.

use std::fmt::Write as _;

use super::{Operation, Route, Source, Wire, old_form};

/// A Markdown table of all operations: the gateway's, then those that only the marketplace's own
/// format has.
pub fn reference_table() -> String {
    let mut text = String::from(
        "| operation | gateway, new form | gateway, old form | native | commands | tested by |\n\
         |---|---|---|---|---|---|\n",
    );
    for op in Operation::of(Wire::Gateway) {
        row(&mut text, op);
    }
    text.push_str(
        "\n### Only in the marketplace's own format\n\n\
         | operation | native | commands | tested by |\n|---|---|---|---|\n",
    );
    for op in Operation::ALL {
        if op.route(Wire::Gateway).is_none() {
            row(&mut text, op);
        }
    }
    text
}

fn row(text: &mut String, op: Operation) {
    let fact = op.fact();
    let _ = write!(text, "| `{}`: {} ", fact.name, fact.title);
    if let Some(route) = fact.gateway {
        let method = route.method.as_str();
        let mark = match route.source {
            Source::Inferred => ", inferred",
            _ => "",
        };
        let _ = write!(
            text,
            "| `{method} {}`{mark} | `{method} {}` ",
            route.path,
            old_form(route.path)
        );
    }
    let native = fact.native.map_or_else(|| "none".to_owned(), native);
    let remark = match fact.remark {
        "" => String::new(),
        remark => format!("; {remark}"),
    };
    let command = match fact.command {
        "" => String::new(),
        command => format!(", {command}"),
    };
    let tested: Vec<String> = fact.tested.iter().map(|file| format!("`{file}`")).collect();
    let _ = writeln!(
        text,
        "| {native}{remark} | `haggle api {}`{command} | {} |",
        fact.name,
        tested.join(", ")
    );
}

fn native(route: &Route) -> String {
    let fixed = match route.fixed_body {
        "" | "{}" => String::new(),
        body => format!(" `{body}`"),
    };
    let query: Vec<String> = route
        .fixed_query
        .iter()
        .map(|(name, value)| format!("{name}={value}"))
        .collect();
    let mark = if query.is_empty() { "" } else { "?" };
    format!(
        "`{} {}{mark}{}`{fixed}",
        route.method.as_str(),
        route.path,
        query.join("&")
    )
}
