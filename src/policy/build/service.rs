//! A service: what holds of its replicas together.

use super::super::reader::Reading;
use crate::types::job::{Finish, RentalChoice, Service};

/// Notes what is wrong with it.
pub(super) fn check(reading: &mut Reading) {
    if !reading.given("service") {
        return;
    }
    if reading.given("array") {
        reading.fault(
            "service",
            "[service] and [array] exclude each other: elements of an array end, and a service does not",
            "keep one of the two",
        );
        return;
    }
    if reading.given("finish")
        && reading
            .finish()
            .is_some_and(|finish| finish != Finish::Never)
    {
        reading.fault(
            "finish",
            "a service never finishes",
            "remove it, or use finish = \"never\"",
        );
    }
    let Some(base) = reading
        .whole("service.base_on_demand")
        .filter(|base| *base > 0)
    else {
        return;
    };
    match reading.rental() {
        Some(RentalChoice::OnDemand) => reading.fault(
            "service.base_on_demand",
            "`service.base_on_demand` has no effect with rental = \"on-demand\": all replicas are",
            "remove it, or use rental = \"auto\"",
        ),
        Some(RentalChoice::Interruptible) => reading.fault(
            "service.base_on_demand",
            "`service.base_on_demand` contradicts rental = \"interruptible\", which only places bids",
            "remove it, or use rental = \"auto\"",
        ),
        Some(RentalChoice::Auto) | None => {}
    }
    if let Some(replicas) = reading.whole("replicas").filter(|all| *all < base) {
        reading.fault(
            "service.base_on_demand",
            format!("{base} replicas on demand are more than the {replicas} that there are"),
            "lower it, or raise `replicas`",
        );
    }
}

/// The service; `None`: it is none.
pub(super) fn service(reading: &Reading) -> Option<Service> {
    reading.given("service").then_some(())?;
    Some(Service {
        one_per_host: reading.flag("service.one_per_host")?,
        base_on_demand: reading.whole("service.base_on_demand")?,
    })
}
