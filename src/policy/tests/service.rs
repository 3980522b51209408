//! Services.

use super::*;
use crate::types::job::Service;

pub(super) const SERVICE: &str = "[service]\none_per_host = false\nbase_on_demand = 2";

#[test]
fn a_service_never_finishes_and_is_spread() {
    let job = parse("a.toml", &with("replicas = 3", SERVICE)).unwrap();
    let service = Service {
        one_per_host: false,
        base_on_demand: 2,
    };
    assert_eq!((job.finish, job.service), (Finish::Never, Some(service)));
    let job = parse("a.toml", &with("", "[service]")).unwrap();
    let service = Service {
        one_per_host: true,
        base_on_demand: 0,
    };
    assert_eq!(job.service, Some(service));
    assert_eq!(parse("a.toml", LEAST).unwrap().service, None);
}

#[test]
fn what_contradicts_a_service_is_told() {
    for (top, below, parts) in [
        (
            "replicas = 1",
            SERVICE,
            &["9:18", "2 replicas on demand", "the 1 that there are"][..],
        ),
        (
            "replicas = 3\nrental = \"on-demand\"",
            SERVICE,
            &["10:18", "has no effect", "\"auto\""],
        ),
        (
            "replicas = 3\nrental = \"interruptible\"",
            SERVICE,
            &["10:18", "contradicts", "only places bids"],
        ),
        (
            "replicas = 3\nfinish = \"manual\"",
            SERVICE,
            &["2:10", "a service never finishes"],
        ),
        (
            "",
            "[service]\nhealth = \"http://x\"",
            &["8:1", "`service.health` is not in effect yet"],
        ),
        (
            "",
            "[service]\nreplace_first = true",
            &["8:1", "not in effect yet"],
        ),
        (
            "",
            "[service]\n[work]\ngpu_hours = 0.5",
            &["9:13", "never finishes has no amount of work"],
        ),
    ] {
        one_mistake(&with(top, below), parts);
    }
    let array = super::array::text("", "", super::array::VALUES) + "[service]\n";
    one_mistake(&array, &["13:2", "exclude each other"]);
}
