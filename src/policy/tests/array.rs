//! Arrays: one policy for many sets of parameters.

use super::*;
use crate::types::job::{Array, Parameters};

/// Sets one by one.
pub(super) const VALUES: &str =
    "values = [{ lr = 0.1, seed = \"1\" }, { lr = 1e-3, big = true }]\nmax_running = 2";

/// Every combination, and some left out.
pub(super) const MATRIX: &str = "matrix = { seed = [2, 1], lr = [\"0.1\", 0.01] }\n\
                      exclude = [{ seed = 1, lr = 0.1 }]\nmax_running = 8";

/// A job of an array: lines at the top, in `[run]`, and in `[array]`. The first of these is line 10.
pub(super) fn text(top: &str, run: &str, array: &str) -> String {
    format!(
        "{top}\nname = \"a\"\n[price]\nmax = \"$1/gpu-hour\"\n[run]\nimage = \"x\"\nsupervised = true\n\
         command = \"c\"\n{run}\n[array]\n{array}\n"
    )
}

#[track_caller]
fn array(lines: &str) -> Array {
    let text = text("", "", lines);
    let job = parse("a.toml", &text).unwrap_or_else(|errors| panic!("{text}\n{errors:#?}"));
    let array = job.array.unwrap();
    assert_eq!(
        (job.finish, job.replicas as usize),
        (Finish::Exit, array.elements.len())
    );
    array
}

/// Each set as a line.
fn lines(elements: &[Parameters]) -> Vec<String> {
    let line = |set: &Parameters| {
        let pairs: Vec<String> = set
            .iter()
            .map(|(name, value)| format!("{name}={value}"))
            .collect();
        pairs.join(" ")
    };
    elements.iter().map(line).collect()
}

#[test]
fn sets_are_taken_as_they_stand() {
    let values = array(VALUES);
    assert_eq!(
        lines(&values.elements),
        ["lr=0.1 seed=1", "big=true lr=1e-3"]
    );
    assert_eq!(values.max_running, 2);
    let tables = "max_running = 1\n[[array.values]]\nseed = 1\n[[array.values]]\nseed = 2";
    assert_eq!(lines(&array(tables).elements), ["seed=1", "seed=2"]);
}

#[test]
fn a_matrix_is_every_combination_but_for_those_left_out() {
    let matrix = array(MATRIX);
    // In the order of the file, the first name changing slowest.
    let all = ["lr=0.1 seed=2", "lr=0.01 seed=2", "lr=0.01 seed=1"];
    assert_eq!(
        (&lines(&matrix.elements)[..], matrix.max_running),
        (&all.map(str::to_owned)[..], 8)
    );
    let part = MATRIX.replace("{ seed = 1, lr = 0.1 }", "{ seed = 2 }");
    assert_eq!(
        lines(&array(&part).elements),
        ["lr=0.1 seed=1", "lr=0.01 seed=1"]
    );
}

#[test]
fn a_thousand_elements_are_taken_and_no_more() {
    let seeds = |count: usize| {
        let all: Vec<String> = (0..count).map(|seed| seed.to_string()).collect();
        all.join(", ")
    };
    let matrix = |first: usize, second: usize| {
        format!(
            "max_running = 1\nmatrix = {{ a = [{}], b = [{}] }}\n[data]\ndisposable = true",
            seeds(first),
            seeds(second)
        )
    };
    assert_eq!(array(&matrix(10, 100)).elements.len(), 1000);
    for (first, second) in [(7, 143), (1000, 1000)] {
        let parts = [
            "12:10",
            "at most 1000 elements",
            &(first * second).to_string(),
        ];
        one_mistake(&text("", "", &matrix(first, second)), &parts);
    }
    let many: Vec<String> = (0..1001).map(|seed| format!("{{ s = {seed} }}")).collect();
    let values = format!("max_running = 1\nvalues = [{}]", many.join(", "));
    one_mistake(
        &text("", "", &values),
        &["12:10", "at most 1000", "these are 1001"],
    );
}

/// Policies are read at each tick: what is looked at to find the elements is bounded.
#[test]
fn only_so_many_combinations_are_looked_at() {
    let list = |count: usize| {
        let all: Vec<String> = (0..count).map(|at| at.to_string()).collect();
        all.join(", ")
    };
    let file = |second: usize, name: &str, excluded: usize| {
        let sets: Vec<String> = (0..excluded)
            .map(|at| format!("{{ {name} = {at} }}"))
            .collect();
        format!(
            "max_running = 1\nmatrix = {{ a = [{}], b = [{}] }}\nexclude = [{}]\n[data]\ndisposable = true",
            list(100),
            list(second),
            sets.join(", ")
        )
    };
    assert_eq!(array(&file(100, "a", 90)).elements.len(), 1000);
    one_mistake(
        &text("", "", &file(101, "b", 92)),
        &["12:10", "10100 combinations", "92 sets", "at most 10000"],
    );
    one_mistake(
        &text("", "", &file(100, "a = 1, b", 101)),
        &["12:10", "10000 combinations", "101 sets", "at most 9900"],
    );
}

/// Each disk that is kept is billed, and counts as an instance.
#[test]
fn many_elements_may_not_leave_their_disks_behind() {
    let values = |count: usize, data: &str| {
        let sets: Vec<String> = (0..count).map(|seed| format!("{{ s = {seed} }}")).collect();
        let sets = sets.join(", ");
        text(
            "",
            "",
            &format!("max_running = 1\nvalues = [{sets}]\n{data}"),
        )
    };
    one_mistake(
        &values(17, ""),
        &[
            "10:2",
            "with 17 elements",
            "at most 16",
            "[data.storage]",
            "disposable = true",
        ],
    );
    one_mistake(
        &values(17, "[data]\noutputs = \"/out\""),
        &["10:2", "with 17"],
    );
    assert!(parse("a.toml", &values(16, "")).is_ok());
    let stored = "[data]\ncheckpoint = \"/c\"\noutputs = \"/out\"\n[data.storage]\n\
                  endpoint = \"https://s3.example\"\nbucket = \"abc\"\n\
                  access_key = { env = \"A\" }\nsecret_key = { env = \"B\" }";
    for data in ["[data]\ndisposable = true", stored] {
        let job = parse("a.toml", &values(17, data)).unwrap();
        assert!(job.may_lose_disks(), "{data}");
    }
}

#[test]
fn what_is_wrong_is_told_where_it_is() {
    let set = |set: &str| format!("max_running = 1\nvalues = [{{ a = 1 }}, {set}]");
    let matrix = |inside: &str| format!("max_running = 1\nmatrix = {{ {inside} }}");
    for (array, parts) in [
        (
            set("{ a = 1 }"),
            &["12:22", "element 0, too", "run = 2"][..],
        ),
        (set("{ a = \"1\" }"), &["12:22", "element 0, too"]),
        (set("{}"), &["12:22", "a set needs a parameter"]),
        (set("3"), &["12:22", "a set of parameters is a table"]),
        (
            set("{ HAGGLE_X = 1 }"),
            &[
                "12:24",
                "begin with HAGGLE_ are reserved",
                "HAGGLE_ARRAY_INDEX",
            ],
        ),
        (
            set("{ CONTAINER_ID = 1 }"),
            &["12:24", "begin with CONTAINER_"],
        ),
        (
            set("{ \"a-b\" = 1 }"),
            &["12:24", "not the name of an environment variable"],
        ),
        (
            set("{ HF_TOKEN = \"x\" }"),
            &["12:24", "looks like a secret", "secrets = {"],
        ),
        (set("{ a = 0x10 }"), &["12:28", "put it in quotes"]),
        (
            set("{ a = \"x\\ny\" }"),
            &["12:28", "the value of `a`", "control character", "one line"],
        ),
        (
            matrix("a = [\"x\\u0000\"]"),
            &["12:17", "control character"],
        ),
        (
            set("{ a = [1] }"),
            &["12:28", "a text, a number, true or false"],
        ),
        (
            "max_running = 1\nvalues = []".to_owned(),
            &["12:10", "no set of parameters"],
        ),
        (
            "max_running = 1\nvalues = { a = 1 }".to_owned(),
            &["12:10", "must be a list of tables"],
        ),
        (matrix(""), &["12:10", "no parameter in it"]),
        (matrix("a = []"), &["12:16", "a list of at least one"]),
        (matrix("a = 1"), &["12:16", "a list of at least one"]),
        (
            matrix("a = [1, 2, \"1\"]"),
            &["12:23", "has this value twice"],
        ),
        (matrix("HAGGLE_A = [1]"), &["12:12", "reserved"]),
        (
            "values = [{ a = 1 }]".to_owned(),
            &["10:2", "`array.max_running` is missing"],
        ),
        (
            "max_running = 0\nvalues = [{ a = 1 }]".to_owned(),
            &["11:15", "from 1 to 1000"],
        ),
        (
            "max_running = 1".to_owned(),
            &["10:2", "neither `array.values` nor `array.matrix`"],
        ),
        (
            set("{ a = 2 }") + "\nmatrix = { a = [1] }",
            &["13:10", "both say"],
        ),
        (
            set("{ a = 2 }") + "\nexclude = [{ a = 1 }]",
            &["13:11", "which is not given"],
        ),
        (
            matrix("a = [1, 2]") + "\nexclude = [{ a = 3 }]",
            &["13:12", "leaves nothing out"],
        ),
        (
            matrix("a = [1, 2]") + "\nexclude = [{ b = 1 }]",
            &["13:12", "leaves nothing out"],
        ),
        (
            matrix("a = [1]") + "\nexclude = [{ a = 1 }]",
            &["13:11", "every combination is left out"],
        ),
    ] {
        one_mistake(&text("", "", &array), parts);
    }
    let long = format!("{{ a = \"{}\" }}", "x".repeat(255));
    one_mistake(&text("", "", &set(&long)), &["12:28", "257 characters"]);
}

#[test]
fn the_job_around_it_has_to_fit() {
    let values = "max_running = 1\nvalues = [{ a = 1 }]";
    for (top, run, parts) in [
        (
            "replicas = 3",
            "",
            &[
                "1:12",
                "`replicas` has no effect with [array]",
                "max_running",
            ][..],
        ),
        (
            "finish = \"manual\"",
            "",
            &["1:10", "when its command ends", "finish = \"exit\""],
        ),
        ("finish = \"never\"", "", &["1:10", "when its command ends"]),
        (
            "",
            "env = { a = \"2\" }",
            &["12:11", "`a` is a parameter here, and in `run.env`"],
        ),
        (
            "",
            "secrets = { a = { env = \"A\" } }",
            &["12:11", "and in `run.secrets`"],
        ),
    ] {
        one_mistake(&text(top, run, values), parts);
    }
    let bare = text("", "", values).replace("supervised = true\n", "");
    one_mistake(
        &bare,
        &["[array] needs `run.supervised = true`", "nobody hears"],
    );
    // Work is that of all elements together, and does not end any of them.
    let work = text(
        "restartable = true",
        "",
        &format!("{values}\n[work]\ngpu_hours = 3"),
    );
    assert_eq!(parse("a.toml", &work).unwrap().finish, Finish::Exit);
}

/// The parameters travel beside the runner, the longest set of them counted.
#[test]
fn what_does_not_fit_into_the_environment_is_told() {
    let set = |count: usize| {
        let all: Vec<String> = (0..count)
            .map(|at| format!("P{at} = \"{}\"", "x".repeat(240)))
            .collect();
        format!(
            "max_running = 1\nvalues = [{{ {} }}, {{ a = 1 }}]",
            all.join(", ")
        )
    };
    let file = |count| text("", "", &set(count));
    assert!(parse("a.toml", &file(70)).is_ok());
    let parts = [
        "10:2",
        "the longest set of parameters",
        "characters of environment",
    ];
    one_mistake(&file(125), &parts);
}
