//! The marketplace's own routes, as data, and how a path is matched to one.

use crate::market::routes::percent_decoded;
use crate::ports::Method;

/// What performs a route.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::market) enum Family {
    Offers,
    Instances,
    Commands,
    Account,
    Records,
    Host,
}

macro_rules! routes {
    ($($operation:ident $family:ident $method:ident $path:literal $calls:literal / $ms:literal;)*) => {
        /// An operation of the marketplace.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub(in crate::market) enum Operation { $($operation,)* }

        /// Every route. Several paths of one operation follow in [`ALIASES`].
        pub(in crate::market) const ROUTES: &[Route] = &[$(Route {
            operation: Operation::$operation,
            family: Family::$family,
            method: Method::$method,
            path: $path,
            limit: ($calls, $ms),
        },)*];
    };
}

/// One route.
#[derive(Debug)]
pub(in crate::market) struct Route {
    pub(in crate::market) operation: Operation,
    pub(in crate::market) family: Family,
    pub(in crate::market) method: Method,
    /// Parameters in braces; no slash at the end.
    pub(in crate::market) path: &'static str,
    /// At most so many calls in so many milliseconds of market time. No calls: unlimited.
    pub(in crate::market) limit: (usize, i64),
}

impl Route {
    /// Whether it is a search for offers.
    pub(in crate::market) fn is_search(&self) -> bool {
        matches!(
            self.operation,
            Operation::Search | Operation::SearchByQuery | Operation::SearchAsks
        )
    }

    /// Whether it is answered without a key.
    pub(in crate::market) fn is_anonymous(&self) -> bool {
        self.is_search() || self.operation == Operation::GpuNames
    }

    /// Whether a bad key reads as if something were not found, as documented for searches and
    /// bills.
    pub(in crate::market) fn hides_bad_keys(&self) -> bool {
        self.is_search()
            || matches!(
                self.operation,
                Operation::Payments
                    | Operation::Charges
                    | Operation::OldInvoices
                    | Operation::SearchInvoices
            )
    }
}

// The documented intervals; where none is documented, none holds.
routes! {
    Search Offers Post "/api/v0/bundles" 10 / 60000;
    SearchByQuery Offers Get "/api/v0/bundles" 10 / 60000;
    SearchAsks Offers Put "/api/v0/search/asks" 10 / 60000;
    GpuNames Offers Get "/api/v0/gpu_names/unique" 0 / 0;

    Create Instances Put "/api/v0/asks/{id}" 1 / 4500;
    CreateMany Instances Post "/api/v0/asks/bulk" 1 / 4500;
    Launch Instances Put "/api/v0/launch_instance" 1 / 5000;
    ListPaged Instances Get "/api/v1/instances" 1 / 1000;
    List Instances Get "/api/v0/instances" 1 / 1000;
    ListFilters Instances Get "/api/v0/instances/filters" 0 / 0;
    Count Instances Get "/api/v0/instances/count" 0 / 0;
    PriceIncreases Instances Get "/api/v0/instances/pending-price-increases" 0 / 0;
    AcceptPriceIncrease Instances Put "/api/v0/instances/accept-price-increase" 0 / 0;
    RejectPriceIncrease Instances Put "/api/v0/instances/reject-price-increase" 0 / 0;
    Show Instances Get "/api/v0/instances/{id}" 1 / 2000;
    Manage Instances Put "/api/v0/instances/{id}" 1 / 1000;
    ManageMany Instances Put "/api/v0/instances" 1 / 1000;
    StartMany Instances Post "/api/v0/instances/start" 1 / 2000;
    ChangeBid Instances Put "/api/v0/instances/bid_price/{id}" 1 / 5500;
    Destroy Instances Delete "/api/v0/instances/{id}" 1 / 3000;
    DestroyMany Instances Delete "/api/v0/instances" 1 / 3000;
    Reboot Instances Put "/api/v0/instances/reboot/{id}" 1 / 1000;
    Recycle Instances Put "/api/v0/instances/recycle/{id}" 1 / 1000;
    Prepay Instances Put "/api/v0/instances/prepay/{id}" 1 / 2000;
    PrepaidBalance Instances Get "/api/v0/instances/balance/{id}" 1 / 3000;
    UpdateTemplateOf Instances Put "/api/v0/instances/update_template/{id}" 0 / 0;

    RequestLogs Commands Put "/api/v0/instances/request_logs/{id}" 0 / 0;
    Command Commands Put "/api/v0/instances/command/{id}" 0 / 0;
    Result Commands Get "/results/{id}" 0 / 0;
    Copy Commands Put "/api/v0/commands/copy_direct" 1 / 3500;
    CancelCopy Commands Delete "/api/v0/commands/copy_direct" 0 / 0;
    CloudCopy Commands Post "/api/v0/commands/rclone" 0 / 0;
    CancelCloudCopy Commands Delete "/api/v0/commands/rclone" 0 / 0;
    LocalCopy Commands Put "/api/v0/commands/rsync" 1 / 3500;
    AttachSshKey Commands Post "/api/v0/instances/{id}/ssh" 1 / 1000;
    AttachedSshKeys Commands Get "/api/v0/instances/{id}/ssh" 0 / 0;
    DetachSshKey Commands Delete "/api/v0/instances/{id}/ssh/{key}" 0 / 0;

    User Account Get "/api/v0/users/current" 0 / 0;
    UpdateUser Account Put "/api/v0/users" 1 / 5000;
    Payments Account Get "/api/v1/invoices" 1 / 3000;
    Charges Account Get "/api/v0/charges" 1 / 1000;
    OldInvoices Account Get "/api/v0/users/me/invoices" 0 / 0;
    SearchInvoices Account Get "/api/v0/invoices" 0 / 0;
    AuditLogs Account Get "/api/v0/audit_logs" 0 / 0;
    Earnings Account Get "/api/v0/users/me/machine-earnings" 1 / 2000;
    TransferCredit Account Put "/api/v0/commands/transfer_credit" 1 / 2500;

    SshKeys Records Get "/api/v0/ssh" 0 / 0;
    CreateSshKey Records Post "/api/v0/ssh" 1 / 1000;
    UpdateSshKey Records Put "/api/v0/ssh/{id}" 1 / 1000;
    DeleteSshKey Records Delete "/api/v0/ssh/{id}" 0 / 0;
    Templates Records Get "/api/v0/template" 1 / 3000;
    CreateTemplate Records Post "/api/v0/template" 0 / 0;
    UpdateTemplate Records Put "/api/v0/template" 0 / 0;
    DeleteTemplate Records Delete "/api/v0/template" 0 / 0;
    NotificationTypes Records Get "/api/v0/notification-types" 0 / 0;
    Inbox Records Get "/api/v0/notifications/inbox" 0 / 0;
    Webhooks Records Get "/api/v0/webhooks" 0 / 0;
    CreateWebhook Records Post "/api/v0/webhooks" 0 / 0;
    UpdateWebhook Records Put "/api/v0/webhooks/{id}" 0 / 0;
    DeleteWebhook Records Delete "/api/v0/webhooks/{id}" 0 / 0;
    RotateWebhookSecret Records Post "/api/v0/webhooks/{id}/rotate-secret" 0 / 0;
    TestWebhook Records Post "/api/v0/webhooks/{id}/test" 0 / 0;

    Machines Host Get "/api/v0/machines" 0 / 0;
    Machine Host Get "/api/v0/machines/{id}" 0 / 0;
    ListMachine Host Put "/api/v0/machines/create_asks" 0 / 0;
    UnlistMachine Host Delete "/api/v0/machines/{id}/asks" 1 / 1800;
    SetMinBid Host Put "/api/v0/machines/{id}/minbid" 1 / 1500;
    SetDefaultJob Host Put "/api/v0/machines/create_bids" 0 / 0;
    RemoveDefaultJob Host Delete "/api/v0/machines/{id}/defjob" 0 / 0;
    ScheduleMaintenance Host Put "/api/v0/machines/{id}/dnotify" 0 / 0;
    CancelMaintenance Host Put "/api/v0/machines/{id}/cancel_maint" 0 / 0;
    CleanupMachine Host Put "/api/v0/machines/{id}/cleanup" 0 / 0;
    ForceDeleteMachine Host Post "/api/v0/machines/{id}/force_delete" 0 / 0;
    MachineReports Host Get "/api/v0/machines/{id}/reports" 1 / 1200;
}

/// Other paths of the same operations: (path, the path in [`ROUTES`]).
pub(in crate::market) const ALIASES: &[(&str, &str)] = &[
    ("/api/v0/users/me", "/api/v0/users/current"),
    (
        "/api/v0/users/current/invoices",
        "/api/v0/users/me/invoices",
    ),
    (
        "/api/v0/users/current/machine-earnings",
        "/api/v0/users/me/machine-earnings",
    ),
    ("/api/v1/audit_logs", "/api/v0/audit_logs"),
    ("/api/v1/template", "/api/v0/template"),
    ("/api/v1/instances/lite", "/api/v1/instances"),
    ("/api/v1/counts", "/api/v0/instances/count"),
];

/// A route that was found, with the values of its parameters in their order.
#[derive(Debug)]
pub(in crate::market) struct Matched {
    pub(in crate::market) route: &'static Route,
    pub(in crate::market) ids: Vec<String>,
}

/// The route of a path, its segments percent-encoded. A slash at its end does not matter, case
/// does. Where several routes match, the one that says more wins: `/instances/filters` is no id.
pub(in crate::market) fn find(method: Method, path: &str) -> Option<Matched> {
    let path = path.strip_suffix('/').unwrap_or(path);
    let segments: Vec<String> = path
        .strip_prefix('/')?
        .split('/')
        .map(percent_decoded)
        .collect();
    let aliased = ALIASES.iter().find(|(alias, _)| {
        alias[1..]
            .split('/')
            .eq(segments.iter().map(String::as_str))
    });
    let segments = match aliased {
        Some((_, path)) => path[1..].split('/').map(str::to_owned).collect(),
        None => segments,
    };
    let matching = |route: &'static Route| {
        let ids = parameters(route.path, &segments)?;
        Some(Matched { route, ids })
    };
    ROUTES
        .iter()
        .filter(|route| route.method == method)
        .filter_map(matching)
        .min_by_key(|matched| matched.ids.len())
}

/// The values of a pattern's parameters, where the path is one of it.
fn parameters(pattern: &str, segments: &[String]) -> Option<Vec<String>> {
    let parts: Vec<&str> = pattern[1..].split('/').collect();
    if parts.len() != segments.len() {
        return None;
    }
    let mut ids = Vec::new();
    for (part, segment) in parts.iter().zip(segments) {
        if part.starts_with('{') {
            if segment.is_empty() {
                return None;
            }
            ids.push(segment.clone());
        } else if part != segment {
            return None;
        }
    }
    Some(ids)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn found(method: Method, path: &str) -> Option<(Operation, Vec<String>)> {
        find(method, path).map(|matched| (matched.route.operation, matched.ids))
    }

    #[test]
    fn a_path_names_one_operation_with_or_without_its_last_slash() {
        use Method::{Delete, Get, Post, Put};
        for (method, path, operation, ids) in [
            (Post, "/api/v0/bundles/", Operation::Search, &[][..]),
            (Post, "/api/v0/bundles", Operation::Search, &[]),
            (
                Get,
                "/api/v0/instances/filters/",
                Operation::ListFilters,
                &[],
            ),
            (Get, "/api/v0/instances/7", Operation::Show, &["7"]),
            (
                Put,
                "/api/v0/instances/bid_price/7/",
                Operation::ChangeBid,
                &["7"],
            ),
            (
                Delete,
                "/api/v0/instances/7/ssh/9/",
                Operation::DetachSshKey,
                &["7", "9"],
            ),
            (Get, "/api/v0/users/me/", Operation::User, &[]),
            (Get, "/api/v1/template", Operation::Templates, &[]),
            (Put, "/api/v0/asks/%37/", Operation::Create, &["7"]),
        ] {
            let ids: Vec<String> = ids.iter().map(|id| (*id).to_owned()).collect();
            assert_eq!(found(method, path), Some((operation, ids)), "{path}");
        }
    }

    #[test]
    fn what_is_no_route_is_not_found() {
        for path in [
            "",
            "/",
            "/api/v0",
            "/api/v0/Bundles/",
            "/api/v0/bundles//",
            "//api/v0/bundles",
            "/api/v0/instances/../bundles",
            "/api/v0/instances/a/b",
            "/api/v0/instances//",
            "/api/v0/instances%2F7",
            "/api/v2/instances",
        ] {
            assert_eq!(found(Method::Get, path), None, "{path}");
        }
        let escaped = found(Method::Get, "/api/v0/instances/..%2Fbundles");
        assert_eq!(
            escaped,
            Some((Operation::Show, vec!["../bundles".to_owned()])),
            "an escaped slash divides nothing"
        );
    }

    #[test]
    fn every_route_is_found_by_its_own_path_and_every_alias_leads_to_one() {
        for route in ROUTES {
            let path = route.path.replace(['{', '}'], "");
            assert_eq!(
                found(route.method, &path).map(|(operation, _)| operation),
                Some(route.operation)
            );
        }
        for (alias, path) in ALIASES {
            assert!(ROUTES.iter().any(|route| route.path == *path), "{alias}");
        }
    }

    proptest! {
        #[test]
        fn any_path_is_found_or_not(path in ".{0,60}") {
            let _ = find(Method::Get, &path);
        }
    }
}
