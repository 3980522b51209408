//! Every operation of both wire formats, as data: one table, from which requests are built, paths
//! are checked, a gateway's own description is understood, and the documents are written.

mod call;
mod id;
mod reference;
mod table;

use std::fmt;

pub use call::{Given, Prepared, prepare};
pub use id::PlainId;
pub use reference::reference_table;
pub use table::Operation;

use super::limits::Gate;
use crate::ports::Method;

/// What operations are about, as the gateway's document groups them; the last ones have only the
/// marketplace's own format.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Group {
    /// Searches and offers.
    Offers,
    /// Machines that the account lets to others.
    Machines,
    /// Instances.
    Instances,
    /// Bids, which are interruptible instances.
    Bids,
    /// The user.
    Users,
    /// Templates.
    Templates,
    /// SSH keys.
    SshKeys,
    /// Invoices and charges.
    Invoices,
    /// The balance.
    Account,
    /// Notifications and webhooks.
    Notifications,
}

impl Group {
    /// Its title.
    pub fn title(self) -> &'static str {
        match self {
            Self::Offers => "Offers",
            Self::Machines => "Machines",
            Self::Instances => "Instances",
            Self::Bids => "Bids",
            Self::Users => "Users",
            Self::Templates => "Templates",
            Self::SshKeys => "SSH Keys",
            Self::Invoices => "Invoices",
            Self::Account => "Account",
            Self::Notifications => "Notifications",
        }
    }
}

/// Where a path is known from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Source {
    /// The gateway's or the marketplace's documentation gives it.
    Documented,
    /// It follows from the documented ones by analogy.
    Inferred,
    /// This gateway's own description gives it.
    Described,
    /// The configuration gives it.
    Overridden,
}

impl Source {
    /// The word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Documented => "documented",
            Self::Inferred => "inferred",
            Self::Described => "described",
            Self::Overridden => "overridden",
        }
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// Which wire format a request is made for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wire {
    /// The LowCodeAPI gateway's.
    Gateway,
    /// The marketplace's own.
    Native,
}

/// How an operation is asked for in one wire format.
#[derive(Clone, Copy, Debug)]
pub struct Route {
    /// The method.
    pub method: Method,
    /// The path under the base URL, with its parameters in braces.
    pub path: &'static str,
    /// Where the path is known from.
    pub source: Source,
    /// What it takes in the query, as far as is known.
    pub query: &'static [&'static str],
    /// What it takes in the body, as far as is known.
    pub body: &'static [&'static str],
    /// What the query always has: names and values, parameters in braces.
    pub fixed_query: &'static [(&'static str, &'static str)],
    /// What the body always has, a JSON object; a value that is a parameter in braces is replaced.
    pub fixed_body: &'static str,
}

impl Route {
    /// The parameters without which it cannot be asked: of the path first, then of what is fixed.
    pub fn required(&self) -> Vec<&'static str> {
        let fixed = self.fixed_query.iter().map(|&(_, value)| value);
        let texts = std::iter::once(self.path)
            .chain(fixed)
            .chain(std::iter::once(self.fixed_body));
        let mut names: Vec<&str> = Vec::new();
        for name in texts.flat_map(placeholders) {
            if !names.contains(&name) {
                names.push(name);
            }
        }
        names
    }
}

/// The names in braces of a text, where they hold nothing but letters, digits and underscores.
fn placeholders(text: &'static str) -> impl Iterator<Item = &'static str> {
    text.split('{').skip(1).filter_map(|rest| {
        let (name, _) = rest.split_once('}')?;
        let plain = |c: char| c.is_ascii_alphanumeric() || c == '_';
        (!name.is_empty() && name.chars().all(plain)).then_some(name)
    })
}

/// All there is to know of an operation.
#[derive(Clone, Copy, Debug)]
pub struct Fact {
    /// Its name, as in the configuration's `provider.paths` and in `haggle api`.
    pub name: &'static str,
    /// Its title, for the gateway's operations as its document has it.
    pub title: &'static str,
    /// What it is about.
    pub group: Group,
    /// Whether it changes anything, and so is sent once and never again by itself.
    pub changes: bool,
    /// The rate limit that it counts against: that of the marketplace's route behind it.
    pub gate: Gate,
    /// Through the gateway; `None` where the gateway has no such operation.
    pub gateway: Option<&'static Route>,
    /// By the marketplace's own format; `None` where there is no such route.
    pub native: Option<&'static Route>,
    /// How the two differ.
    pub remark: &'static str,
    /// The commands that use it, beside `haggle api`.
    pub command: &'static str,
    /// The tests that run it.
    pub tested: &'static [&'static str],
}

impl Operation {
    /// Its name.
    pub fn name(self) -> &'static str {
        self.fact().name
    }

    /// What it is about.
    pub fn group(self) -> Group {
        self.fact().group
    }

    /// Its rate limit.
    pub fn gate(self) -> Gate {
        self.fact().gate
    }

    /// Whether it changes anything.
    pub fn changes(self) -> bool {
        self.fact().changes
    }

    /// Its route in a wire format.
    pub fn route(self, wire: Wire) -> Option<&'static Route> {
        match wire {
            Wire::Gateway => self.fact().gateway,
            Wire::Native => self.fact().native,
        }
    }

    /// The operation of a name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|op| op.name() == name)
    }

    /// The operations that a wire format has.
    pub fn of(wire: Wire) -> impl Iterator<Item = Self> {
        Self::ALL
            .into_iter()
            .filter(move |op| op.route(wire).is_some())
    }
}

/// The gateway's older form of a path: each parameter's name stands for itself, and its value goes
/// into the query, as the gateway documents it.
pub fn old_form(path: &str) -> String {
    let names: Vec<&str> = path
        .split('/')
        .filter_map(|segment| segment.strip_prefix('{')?.strip_suffix('}'))
        .collect();
    let plain = path.replace(['{', '}'], "");
    if names.is_empty() {
        return plain;
    }
    let query: Vec<String> = names
        .iter()
        .map(|name| format!("{name}={{{name}}}"))
        .collect();
    format!("{plain}?{}", query.join("&"))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn the_gateway_has_its_documented_thirty_three() {
        assert_eq!(Operation::of(Wire::Gateway).count(), 33);
        let documented = Operation::of(Wire::Gateway)
            .filter(|op| op.route(Wire::Gateway).unwrap().source == Source::Documented)
            .count();
        assert_eq!(
            documented, 13,
            "ten in the present document, three in an older one"
        );
    }

    #[test]
    fn names_titles_and_routes_are_unique() {
        let mut names = BTreeSet::new();
        let mut titles = BTreeSet::new();
        let mut gateway = BTreeSet::new();
        for op in Operation::ALL {
            let fact = op.fact();
            assert!(names.insert(fact.name), "{}", fact.name);
            assert!(titles.insert(fact.title), "{}", fact.title);
            assert_eq!(Operation::named(fact.name), Some(op));
            assert!(
                fact.gateway.is_some() || fact.native.is_some(),
                "{}",
                fact.name
            );
            if let Some(route) = fact.gateway {
                assert!(gateway.insert((route.method, route.path)), "{}", fact.name);
            }
        }
    }

    #[test]
    fn a_read_never_has_the_method_of_a_change() {
        for op in Operation::ALL {
            let fact = op.fact();
            if let Some(route) = fact.gateway {
                assert_eq!(route.method != Method::Get, fact.changes, "{}", fact.name);
            }
            if let Some(route) = fact.native {
                assert!(
                    route.method != Method::Get || !fact.changes,
                    "{}",
                    fact.name
                );
            }
        }
    }

    #[test]
    fn what_is_fixed_is_json_and_paths_are_plain() {
        for op in Operation::ALL {
            for route in [op.fact().gateway, op.fact().native].into_iter().flatten() {
                if !route.fixed_body.is_empty() {
                    let body: serde_json::Value = serde_json::from_str(route.fixed_body).unwrap();
                    assert!(body.is_object(), "{}", op.name());
                }
                assert!(route.path.starts_with('/'), "{}", op.name());
                let plain = |c: char| c.is_ascii_alphanumeric() || "/_-{}".contains(c);
                assert!(route.path.chars().all(plain), "{}", op.name());
            }
        }
    }

    #[test]
    fn the_old_form_follows_from_the_new_one() {
        assert_eq!(
            old_form("/instances/{instance_id}/stop"),
            "/instances/instance_id/stop?instance_id={instance_id}"
        );
        assert_eq!(old_form("/instances"), "/instances");
    }

    #[test]
    fn the_tests_that_are_named_are_there() {
        let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
        for op in Operation::ALL {
            assert!(!op.fact().tested.is_empty(), "{}", op.name());
            for file in op.fact().tested {
                assert!(root.join(file).exists(), "{file}");
            }
        }
    }
}
