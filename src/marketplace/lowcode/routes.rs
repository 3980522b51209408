//! The paths of the gateway's operations, and the two forms of a URL.

use std::collections::BTreeMap;
use std::sync::{PoisonError, RwLock};

use super::describe::Description;
use crate::marketplace::operation::{Group, Operation, PlainId, Source, Wire};
use crate::types::spelling::nearest;

/// Paths that have their working URL form in common: how the gateway matches them depends on how
/// the provider was defined, family by family.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Family {
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
    /// Machines that the account lets to others.
    Machines,
    /// Templates.
    Templates,
    /// SSH keys.
    SshKeys,
}

impl Family {
    /// The family of an operation.
    pub(crate) fn of(operation: Operation) -> Self {
        match operation.group() {
            Group::Offers => Self::Offers,
            Group::Instances => Self::Instances,
            Group::Bids => Self::Bids,
            Group::Invoices => Self::Invoices,
            Group::Users | Group::Notifications => Self::Users,
            Group::Account => Self::Balance,
            Group::Machines => Self::Machines,
            Group::Templates => Self::Templates,
            Group::SshKeys => Self::SshKeys,
        }
    }

    /// The key under which its working form is remembered.
    pub(crate) fn key(self) -> &'static str {
        match self {
            Self::Offers => "lowcode.path.offers",
            Self::Instances => "lowcode.path.instances",
            Self::Bids => "lowcode.path.bids",
            Self::Invoices => "lowcode.path.invoices",
            Self::Users => "lowcode.path.users",
            Self::Balance => "lowcode.path.balance",
            Self::Machines => "lowcode.path.machines",
            Self::Templates => "lowcode.path.templates",
            Self::SshKeys => "lowcode.path.ssh_keys",
        }
    }

    /// All of them.
    pub(crate) const ALL: [Self; 9] = [
        Self::Offers,
        Self::Instances,
        Self::Bids,
        Self::Invoices,
        Self::Users,
        Self::Balance,
        Self::Machines,
        Self::Templates,
        Self::SshKeys,
    ];

    /// The harmless read by id of this family, by which its form is learnt.
    pub(crate) fn read_by_id(self) -> Option<Operation> {
        match self {
            Self::Offers => Some(Operation::Offer),
            Self::Instances => Some(Operation::Instance),
            Self::Bids => Some(Operation::BidById),
            Self::Invoices => Some(Operation::Invoice),
            Self::Users => Some(Operation::UserById),
            Self::Machines => Some(Operation::Machine),
            Self::Templates => Some(Operation::Template),
            Self::Balance | Self::SshKeys => None,
        }
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

/// The paths of the operations: as configured, else as this gateway describes them, else built in.
#[derive(Debug, Default)]
pub struct Routes {
    overridden: BTreeMap<String, String>,
    described: RwLock<Option<Description>>,
}

impl Routes {
    /// With the paths that the configuration gives; see [`problem_with_paths`].
    pub fn new(overridden: BTreeMap<String, String>) -> Self {
        Self {
            overridden,
            described: RwLock::default(),
        }
    }

    /// Takes up what the gateway says of itself.
    pub fn describe(&self, description: Description) {
        let mut described = self
            .described
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        *described = Some(description);
    }

    fn description<T>(&self, read: impl FnOnce(&Description) -> T) -> Option<T> {
        let described = self
            .described
            .read()
            .unwrap_or_else(PoisonError::into_inner);
        described.as_ref().map(read)
    }

    /// The path of an operation with its ids in braces, and where it is known from; `None` where
    /// the gateway has no such operation.
    pub fn path(&self, operation: Operation) -> Option<(String, Source)> {
        let route = operation.route(Wire::Gateway)?;
        if let Some(path) = self.overridden.get(operation.name()) {
            return Some((path.clone(), Source::Overridden));
        }
        let described = self.description(|all| all.get(operation).map(|d| d.path.clone()));
        Some(match described.flatten() {
            Some(path) => (path, Source::Described),
            None => (route.path.to_owned(), route.source),
        })
    }

    /// Whether the gateway's description surely lacks an operation, and the configuration does not
    /// know better.
    pub fn lacks(&self, operation: Operation) -> bool {
        !self.overridden.contains_key(operation.name())
            && self.description(|all| all.lacks(operation)) == Some(true)
    }

    /// The form in which the gateway describes an operation's ids, where it describes but one that
    /// is not the usual one.
    pub(crate) fn hint(&self, operation: Operation) -> Option<Form> {
        if self.overridden.contains_key(operation.name()) {
            return None;
        }
        let only_old =
            self.description(|all| all.get(operation).is_some_and(|found| found.only_old));
        (only_old == Some(true)).then_some(Form::Old)
    }

    /// Where an operation goes in a form of URL. `None` where the path has no place for the id, or
    /// a place and no id: it would then name the whole list.
    pub(crate) fn target(
        &self,
        operation: Operation,
        id: Option<&PlainId>,
        form: Form,
    ) -> Option<Target> {
        let (template, _) = self.path(operation)?;
        let mut path = String::with_capacity(template.len() + 20);
        let mut query = Vec::new();
        for segment in template.split('/').filter(|segment| !segment.is_empty()) {
            path.push('/');
            match parameter(segment) {
                None => path.push_str(segment),
                Some(name) => {
                    let id = id?.as_str();
                    match form {
                        Form::New => path.push_str(id),
                        Form::Old => {
                            path.push_str(name);
                            query.push((name.to_owned(), id.to_owned()));
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
        let operation = Operation::named(name).and_then(|op| op.route(Wire::Gateway));
        let Some(route) = operation else {
            let known = || Operation::of(Wire::Gateway).map(Operation::name);
            let near = nearest(name, known())
                .map_or_else(String::new, |near| format!("did you mean `{near}`? "));
            let known: Vec<&str> = known().collect();
            return Some(format!(
                "there is no operation `{name}`; {near}There are {}",
                known.join(", ")
            ));
        };
        let plain = |c: char| c.is_ascii_alphanumeric() || "/_-.{}".contains(c);
        if !path.starts_with('/') || !path.chars().all(plain) {
            return Some(format!(
                "the path of `{name}` must begin with / and hold only letters, digits and / _ - . {{ }}"
            ));
        }
        let wanted = route.path.matches('{').count();
        let places = path.split('/').filter(|s| parameter(s).is_some()).count();
        if places != wanted || path.matches(['{', '}']).count() != 2 * wanted {
            return Some(format!(
                "the path of `{name}` must have {wanted} segment(s) of the form {{id}}, like {}",
                route.path
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
        let id = PlainId::number(777).unwrap();
        let target = |op, form| routes.target(op, Some(&id), form).unwrap();
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
        let id = PlainId::number(7).unwrap();
        assert_eq!(routes.target(Operation::Instance, None, Form::New), None);
        assert_eq!(
            routes.target(Operation::DeleteInstance, Some(&id), Form::New),
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
