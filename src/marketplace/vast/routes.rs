//! The marketplace's own routes that haggle uses, as data.

use crate::marketplace::limits::Gate;
use crate::ports::Method;
use crate::types::ids::{InstanceId, MachineId, OfferId};

/// A route with what its path names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Route {
    Search,
    Create(OfferId),
    Instances,
    /// The older list without pages.
    InstancesUnpaged,
    Instance(InstanceId),
    /// Start, stop, label.
    Manage(InstanceId),
    ChangeBid(InstanceId),
    Destroy(InstanceId),
    DestroyMany,
    User,
    Charges,
    Payments,
    PriceIncreases,
    Reports(MachineId),
    Inbox,
    RequestLogs(InstanceId),
    Copy,
    CloudCopy,
}

/// Where a request goes, and under which limit.
pub(super) struct Place {
    pub(super) method: Method,
    pub(super) path: String,
    pub(super) gate: Gate,
}

impl Route {
    /// As the marketplace documents it; its paths end in a slash. `None` where the id is 0: a path
    /// without an id would act on the whole list.
    pub(super) fn place(self) -> Option<Place> {
        use Method::{Delete, Get, Post, Put};
        let (method, path, gate) = match self {
            Self::Search => (Post, "/api/v0/bundles/".to_owned(), Gate::Search),
            Self::Create(offer) => (Put, with("/api/v0/asks", offer.0)?, Gate::Create),
            Self::Instances => (Get, "/api/v1/instances/".to_owned(), Gate::Instances),
            Self::InstancesUnpaged => {
                let path = "/api/v0/instances/".to_owned();
                (Get, path, Gate::InstancesUnpaged)
            }
            Self::Instance(id) => (Get, with("/api/v0/instances", id.0)?, Gate::Instance),
            Self::Manage(id) => (Put, with("/api/v0/instances", id.0)?, Gate::Manage),
            Self::ChangeBid(id) => (Put, with("/api/v0/instances/bid_price", id.0)?, Gate::Bid),
            Self::Destroy(id) => (Delete, with("/api/v0/instances", id.0)?, Gate::Destroy),
            Self::DestroyMany => (Delete, "/api/v0/instances/".to_owned(), Gate::DestroyMany),
            Self::User => (Get, "/api/v0/users/current/".to_owned(), Gate::User),
            Self::Charges => (Get, "/api/v0/charges/".to_owned(), Gate::Charges),
            Self::Payments => (Get, "/api/v1/invoices/".to_owned(), Gate::Payments),
            Self::PriceIncreases => {
                let path = "/api/v0/instances/pending-price-increases/".to_owned();
                (Get, path, Gate::PriceIncreases)
            }
            Self::Reports(machine) => {
                let path = format!("{}reports/", with("/api/v0/machines", machine.0)?);
                (Get, path, Gate::Reports)
            }
            Self::Inbox => {
                let path = "/api/v0/notifications/inbox/".to_owned();
                (Get, path, Gate::Inbox)
            }
            Self::RequestLogs(id) => {
                let path = with("/api/v0/instances/request_logs", id.0)?;
                (Put, path, Gate::Logs)
            }
            Self::Copy => {
                let path = "/api/v0/commands/copy_direct/".to_owned();
                (Put, path, Gate::Copy)
            }
            Self::CloudCopy => {
                let path = "/api/v0/commands/rclone/".to_owned();
                (Post, path, Gate::CloudCopy)
            }
        };
        Some(Place { method, path, gate })
    }
}

fn with(base: &str, id: u64) -> Option<String> {
    (id > 0).then(|| format!("{base}/{id}/"))
}
