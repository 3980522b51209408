//! What the audit log notes of a call.

use super::routes::{Family, Operation, ROUTES};
use crate::ports::Method;

/// What the audit log calls an operation; `None` for one that changes nothing.
pub(super) fn route(operation: Operation) -> Option<String> {
    let route = ROUTES.iter().find(|route| route.operation == operation)?;
    let changes = route.method != Method::Get && route.family != Family::Offers;
    changes.then(|| {
        let words = route.path.trim_start_matches("/api/v0/").split('/');
        let words: Vec<&str> = words.filter(|word| !word.starts_with('{')).collect();
        let method = route.method.as_str().to_ascii_lowercase();
        format!("api.{}__{method}", words.join("."))
    })
}
