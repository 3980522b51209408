//! The gateway's operations, their paths, and the two forms of a URL.

use std::collections::BTreeMap;

use crate::marketplace::limits::Gate;
use crate::ports::Method;

/// Paths that have their working URL form in common: how the gateway matches them depends on how
/// the provider was defined, family by family.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Family {
    /// Searches and offers.
    Offers,
    /// Instances.
    Instances,
    /// Bids, which are interruptible instances.
    Bids,
    /// Invoices and charges.
    Invoices,
    /// The user.
    Users,
    /// The balance.
    Balance,
}

impl Family {
    /// The key under which its working form is remembered.
    pub fn key(self) -> &'static str {
        match self {
            Self::Offers => "lowcode.path.offers",
            Self::Instances => "lowcode.path.instances",
            Self::Bids => "lowcode.path.bids",
            Self::Invoices => "lowcode.path.invoices",
            Self::Users => "lowcode.path.users",
            Self::Balance => "lowcode.path.balance",
        }
    }

    /// All of them.
    pub const ALL: [Self; 6] = [
        Self::Offers,
        Self::Instances,
        Self::Bids,
        Self::Invoices,
        Self::Users,
        Self::Balance,
    ];

    /// The harmless read by id of this family, by which its form is learnt.
    pub fn read_by_id(self) -> Option<Operation> {
        match self {
            Self::Offers => Some(Operation::Offer),
            Self::Instances => Some(Operation::Instance),
            Self::Bids => Some(Operation::BidById),
            Self::Invoices | Self::Users | Self::Balance => None,
        }
    }
}

/// An operation of the gateway.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Operation {
    /// List available GPU offers.
    Offers,
    /// Get specific offer details.
    Offer,
    /// List instances.
    Instances,
    /// Get instance details.
    Instance,
    /// Create new instance.
    CreateInstance,
    /// Stop instance.
    StopInstance,
    /// Start instance.
    StartInstance,
    /// Delete instance.
    DeleteInstance,
    /// Get bid details.
    BidById,
    /// Create new bid.
    CreateBid,
    /// Update bid.
    UpdateBid,
    /// List invoices.
    Invoices,
    /// Get account balance.
    Balance,
    /// Get current user information.
    User,
}

/// What there is to know of an operation.
struct Fact {
    name: &'static str,
    method: Method,
    path: &'static str,
    family: Family,
    gate: Gate,
}

impl Operation {
    /// All of them.
    pub const ALL: [Self; 14] = [
        Self::Offers,
        Self::Offer,
        Self::Instances,
        Self::Instance,
        Self::CreateInstance,
        Self::StopInstance,
        Self::StartInstance,
        Self::DeleteInstance,
        Self::BidById,
        Self::CreateBid,
        Self::UpdateBid,
        Self::Invoices,
        Self::Balance,
        Self::User,
    ];

    /// The gateway's documented operations. It gives paths for the first ones only; the others
    /// follow by analogy and can be overridden in the configuration. The limits are those of the
    /// provider's route behind each.
    fn fact(self) -> Fact {
        use {Family as F, Gate as G, Method as M};
        let (name, method, path, family, gate) = match self {
            Self::Offers => ("offers", M::Get, "/offers", F::Offers, G::Search),
            Self::Offer => ("offer", M::Get, "/offers/{offer_id}", F::Offers, G::Search),
            Self::Instances => (
                "instances",
                M::Get,
                "/instances",
                F::Instances,
                G::Instances,
            ),
            Self::Instance => (
                "instance",
                M::Get,
                "/instances/{instance_id}",
                F::Instances,
                G::Instance,
            ),
            Self::CreateInstance => (
                "create_instance",
                M::Post,
                "/instances",
                F::Instances,
                G::Create,
            ),
            Self::StopInstance => (
                "stop_instance",
                M::Post,
                "/instances/{instance_id}/stop",
                F::Instances,
                G::Manage,
            ),
            Self::StartInstance => (
                "start_instance",
                M::Post,
                "/instances/{instance_id}/start",
                F::Instances,
                G::Manage,
            ),
            Self::DeleteInstance => (
                "delete_instance",
                M::Delete,
                "/instances/{instance_id}",
                F::Instances,
                G::Destroy,
            ),
            Self::BidById => ("bid", M::Get, "/bids/{bid_id}", F::Bids, G::Instance),
            Self::CreateBid => ("create_bid", M::Post, "/bids", F::Bids, G::Create),
            Self::UpdateBid => ("update_bid", M::Put, "/bids/{bid_id}", F::Bids, G::Bid),
            Self::Invoices => ("invoices", M::Get, "/invoices", F::Invoices, G::Charges),
            Self::Balance => ("balance", M::Get, "/balance", F::Balance, G::User),
            Self::User => ("user", M::Get, "/users/me", F::Users, G::User),
        };
        Fact {
            name,
            method,
            path,
            family,
            gate,
        }
    }

    /// Its name in the configuration's `paths`.
    pub fn name(self) -> &'static str {
        self.fact().name
    }

    /// Its method.
    pub fn method(self) -> Method {
        self.fact().method
    }

    /// Its family.
    pub fn family(self) -> Family {
        self.fact().family
    }

    /// Its rate limit.
    pub fn gate(self) -> Gate {
        self.fact().gate
    }
}

/// One of the gateway's two forms of a URL.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    /// `/instances/777`.
    New,
    /// `/instances/instance_id?instance_id=777`.
    Old,
}

impl Form {
    /// The word under which it is remembered.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::New => "new",
            Self::Old => "old",
        }
    }

    /// From the word.
    pub(crate) fn from_word(word: &str) -> Option<Self> {
        match word {
            "new" => Some(Self::New),
            "old" => Some(Self::Old),
            _ => None,
        }
    }

    /// The other one.
    pub(crate) fn other(self) -> Self {
        match self {
            Self::New => Self::Old,
            Self::Old => Self::New,
        }
    }
}

/// A path with its query, of one operation on one id.
pub(crate) type Target = (String, Vec<(String, String)>);

/// The paths of the operations.
#[derive(Clone, Debug)]
pub(crate) struct Routes {
    overridden: BTreeMap<String, String>,
}

impl Routes {
    pub(crate) fn new(overridden: BTreeMap<String, String>) -> Self {
        Self { overridden }
    }

    /// Where an operation goes in a form of URL. The id is a number, so an empty one, which would
    /// name the whole list, and one that needs escaping cannot come up. 0 is refused: `None`.
    pub(crate) fn target(
        &self,
        operation: Operation,
        id: Option<u64>,
        form: Form,
    ) -> Option<Target> {
        let template = self
            .overridden
            .get(operation.name())
            .map_or(operation.fact().path, String::as_str);
        let mut path = String::with_capacity(template.len() + 20);
        let mut query = Vec::new();
        for segment in template.split('/').filter(|segment| !segment.is_empty()) {
            path.push('/');
            match parameter(segment) {
                None => path.push_str(segment),
                Some(name) => {
                    let id = id.filter(|&id| id > 0)?;
                    match form {
                        Form::New => path.push_str(&id.to_string()),
                        Form::Old => {
                            path.push_str(name);
                            query.push((name.to_owned(), id.to_string()));
                        }
                    }
                }
            }
        }
        // An id that the path has no place for would act on the list.
        if id.is_some() && !template.contains('{') {
            return None;
        }
        Some((path, query))
    }
}

fn parameter(segment: &str) -> Option<&str> {
    segment.strip_prefix('{')?.strip_suffix('}')
}

/// What is wrong with configured paths; `None` where nothing is.
pub fn problem_with_paths(paths: &BTreeMap<String, String>) -> Option<String> {
    for (name, path) in paths {
        let Some(operation) = Operation::ALL.into_iter().find(|op| op.name() == name) else {
            let known: Vec<&str> = Operation::ALL.into_iter().map(Operation::name).collect();
            return Some(format!(
                "there is no operation `{name}`; there are {}",
                known.join(", ")
            ));
        };
        let plain = |c: char| c.is_ascii_alphanumeric() || "/_-.{}".contains(c);
        if !path.starts_with('/') || !path.chars().all(plain) {
            return Some(format!(
                "the path of `{name}` must begin with / and hold only letters, digits and / _ - . {{ }}"
            ));
        }
        let wanted = operation.fact().path.matches('{').count();
        let places = path.split('/').filter(|s| parameter(s).is_some()).count();
        if places != wanted || path.matches(['{', '}']).count() != 2 * wanted {
            return Some(format!(
                "the path of `{name}` must have {wanted} segment(s) of the form {{id}}, like {}",
                operation.fact().path
            ));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn routes(overridden: &[(&str, &str)]) -> Routes {
        Routes::new(
            overridden
                .iter()
                .map(|&(name, path)| (name.to_owned(), path.to_owned()))
                .collect(),
        )
    }

    #[test]
    fn both_forms() {
        let routes = routes(&[]);
        let target = |op, form| routes.target(op, Some(777), form).unwrap();
        assert_eq!(
            target(Operation::Instance, Form::New),
            ("/instances/777".into(), vec![])
        );
        assert_eq!(
            target(Operation::StopInstance, Form::Old),
            (
                "/instances/instance_id/stop".into(),
                vec![("instance_id".into(), "777".into())]
            )
        );
        let list = routes.target(Operation::Instances, None, Form::Old);
        assert_eq!(list, Some(("/instances".into(), vec![])));
    }

    #[test]
    fn an_id_that_would_name_the_list_is_refused() {
        let routes = routes(&[("delete_instance", "/instances")]);
        assert_eq!(routes.target(Operation::Instance, Some(0), Form::New), None);
        assert_eq!(routes.target(Operation::Instance, None, Form::New), None);
        assert_eq!(
            routes.target(Operation::DeleteInstance, Some(7), Form::New),
            None
        );
    }

    #[test]
    fn configured_paths_are_checked() {
        let problem = |name: &str, path: &str| {
            problem_with_paths(&BTreeMap::from([(name.to_owned(), path.to_owned())]))
        };
        assert_eq!(problem("update_bid", "/bids/{id}/price"), None);
        assert!(
            problem("update_bit", "/bids/{id}")
                .unwrap()
                .contains("update_bid")
        );
        for bad in ["bids/{id}", "/bids", "/bids/x{id}", "/bids/{id}?a=b"] {
            assert!(problem("update_bid", bad).is_some(), "{bad}");
        }
    }
}
