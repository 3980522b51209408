//! What a supervised job needs on its machine before its command begins.

use super::*;
use crate::types::input::{Packing, Source};
use crate::types::job::Runner;

const STORAGE: &str = "[data.storage]\nendpoint = \"https://s3.example\"\nbucket = \"my-bucket\"\n\
                       access_key = { env = \"A\" }\nsecret_key = { env = \"B\" }";

/// A supervised job with lines below its command.
fn job(below: &str) -> String {
    format!(
        "name = \"a\"\n[price]\nmax = \"$1/gpu-hour\"\n[run]\nimage = \"x\"\nsupervised = true\n\
         command = \"c\"\n{below}\n"
    )
}

/// One with an input of each of these lines.
fn with_inputs(inputs: &[&str], below: &str) -> String {
    let tables: Vec<String> = inputs
        .iter()
        .map(|lines| format!("[[data.inputs]]\n{lines}"))
        .collect();
    job(&format!("{below}\n{}", tables.join("\n")))
}

fn runner_of(file: &str, text: &str) -> Runner {
    let job = parse(file, text).unwrap_or_else(|errors| panic!("{text}\n{errors:#?}"));
    *job.run.runner.unwrap()
}

#[test]
fn inputs_come_from_addresses_storage_and_here() {
    let text = with_inputs(
        &[
            "from = \"https://a.example/m.bin?download=true\"\nto = \"/w/models/\"\nsha256 = \"AB01AB01AB01AB01AB01AB01AB01AB01AB01AB01AB01AB01AB01AB01AB01AB01\"",
            "from = \"storage:sets/a.tgz\"\nto = \"/w/set/\"\nunpack = true",
            "from = \"../code\"\nto = \"/w/code\"",
            "from = \"/srv/x.tar\"\nto = \"/w/x.tar\"",
        ],
        STORAGE,
    );
    let runner = runner_of("/etc/haggle/policies/a.toml", &text);
    let inputs = &runner.inputs;
    assert_eq!(
        inputs[0].from,
        Source::Address("https://a.example/m.bin?download=true".to_owned())
    );
    assert_eq!(inputs[0].place(), "/w/models/m.bin");
    assert_eq!(inputs[0].sha256, Some("ab01".repeat(16)));
    assert_eq!(inputs[1].from, Source::Object("sets/a.tgz".to_owned()));
    assert_eq!(
        (inputs[1].place(), inputs[1].packing),
        ("/w/set".to_owned(), Some(Packing::TarGz))
    );
    assert_eq!(
        inputs[2].from,
        Source::Path("/etc/haggle/policies/../code".into()),
        "it is beside its policy"
    );
    assert_eq!(inputs[3].from, Source::Path("/srv/x.tar".into()));
    assert_eq!(
        (inputs[3].packing, runner.inputs_wait.clone()),
        (None, None)
    );
    // An address needs no storage.
    let text = with_inputs(&["from = \"https://a.example/m\"\nto = \"/m\""], "");
    assert_eq!(runner_of("a.toml", &text).inputs.len(), 1);
}

#[test]
fn what_is_wrong_with_an_input_is_told_where_it_is() {
    let to = "to = \"/w/x\"";
    let from = "from = \"https://a.example/x\"";
    let local = "from = \"./x\"\nto = \"/w/x\"";
    for (lines, below, parts) in [
        (
            to,
            "",
            &["9:1", "`data.inputs[0].from` is missing", "[[data.inputs]]"][..],
        ),
        (
            "from = \"x\"\nto = \"/w/x\"",
            "",
            &["10:8", "begin it with https://, storage:"],
        ),
        (
            "from = \"https://me:canary@a.example/x\"\nto = \"/w/x\"",
            "",
            &["without a login"],
        ),
        (
            "from = \"https://a.example/x?sig=canary\"\nto = \"/w/x\"",
            "",
            &["such as a signature", "storage:KEY"],
        ),
        (
            "from = \"http://a.example/x\"\nto = \"/w/x\"",
            "",
            &["only on this machine itself"],
        ),
        (
            "from = \"https://a.example/x{1,2}\"\nto = \"/w/x\"",
            "",
            &["10:8", "write [ ] { } as %5B %5D %7B %7D"],
        ),
        (
            "from = \"https://a.example/x?a=[1]\"\nto = \"/w/x\"",
            "",
            &["write [ ] { } as %5B %5D %7B %7D"],
        ),
        (
            &format!("{from}\nto = \"w/x\""),
            "",
            &["11:6", "begin it with a slash"],
        ),
        (
            &format!("{from}\nto = \"/w/../x\""),
            "",
            &["without . and .."],
        ),
        (
            &format!("{from}\nto = \"/haggle/x\""),
            "",
            &["the runner keeps files"],
        ),
        (
            &format!("{from}\n{to}\nsha256 = \"ab\""),
            "",
            &["12:10", "64 of 0-9 and a-f"],
        ),
        (
            &format!("{from}\n{to}\nunpack = true"),
            "",
            &["12:10", "no archive by its name", ".tar.gz"],
        ),
        (
            &format!("{from}\n{to}\nunpak = true"),
            "",
            &["did you mean `unpack`"],
        ),
        (
            "from = \"https://a.example/x/\"\nto = \"/w/\"",
            "",
            &["has no name of its own"],
        ),
        (
            local,
            "",
            &["10:8", "needs [data.storage]", "https:// address"],
        ),
        (
            "from = \"storage:x\"\nto = \"/w/x\"",
            "",
            &["an object of the job's storage needs [data.storage]"],
        ),
        (
            &format!("{from}\nto = \"/w\""),
            "[data]\noutputs = \"/w\"",
            &["`data.outputs` are in each other's way"],
        ),
        (
            &format!("{from}\nto = \"/c/x\""),
            "[data]\ncheckpoint = \"/c\"",
            &["`data.checkpoint` are in each other's way"],
        ),
        (
            "from = \"https://a.example/x.tar\"\nto = \"/w\"\nunpack = true",
            "[data]\noutputs = \"/w/out\"",
            &[
                "`data.outputs` are in each other's way",
                "a place of its own",
            ],
        ),
    ] {
        let text = with_inputs(&[lines], below);
        one_mistake(&text, parts);
        let shown = format!("{:?}", parse("a.toml", &text).unwrap_err());
        assert!(!shown.contains("canary"), "{shown}");
    }
    let here = "from = \"./d\"\nto = \"/w\"";
    let out = format!("[data]\noutputs = \"/w/out\"\n{STORAGE}");
    one_mistake(&with_inputs(&[here], &out), &["in each other's way"]);
    one_mistake(
        &job("[data]\ninputs = [\"https://a.example/x\"]"),
        &["`data.inputs", "must be a table", "[[data.inputs]]"],
    );
    for bad in [
        "./", "../", "/", "//", "../../", "..", "../.", "./x/..", "/x/../",
    ] {
        let text = with_inputs(&[&format!("from = \"{bad}\"\nto = \"/w/x\"")], STORAGE);
        let told = mistakes(&text);
        let right = |told: &String| {
            told.contains("the name of a file or directory")
                || told.contains("begin it with https://")
        };
        assert!(told.iter().any(right), "{bad}: {told:?}");
    }
    for good in ["./x/", "../x", "/x", "./..x"] {
        let text = with_inputs(&[&format!("from = \"{good}\"\nto = \"/w/x\"")], STORAGE);
        assert!(parse("a.toml", &text).is_ok(), "{good}");
    }
    let unsupervised = with_inputs(&[from, to], "").replace("supervised = true\n", "");
    assert!(
        mistakes(&unsupervised)
            .iter()
            .any(|told| told.contains("`data.inputs` needs `run.supervised = true`"))
    );
}

#[test]
fn no_two_inputs_are_at_the_same_place_and_there_are_not_too_many() {
    let at = |to: &str| format!("from = \"https://a.example/x\"\nto = \"{to}\"");
    let two = with_inputs(&[&at("/w/"), &at("/w/x")], "");
    one_mistake(
        &two,
        &[
            "14:6",
            "`data.inputs[0]` is in the way of /w/x",
            "a place of its own",
        ],
    );
    let tree = "from = \"https://a.example/d.tar\"\nto = \"/w\"\nunpack = true";
    one_mistake(
        &with_inputs(&[tree, &at("/w/x")], ""),
        &["`data.inputs[0]` is in the way"],
    );
    let many: Vec<String> = (0..65).map(|number| at(&format!("/w/{number}"))).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    one_mistake(
        &with_inputs(&many, ""),
        &[
            "at most 64 inputs, and these are 65",
            "a directory, or an archive",
        ],
    );
    assert!(parse("a.toml", &with_inputs(&many[..64], "")).is_ok());
}

#[test]
fn what_does_not_fit_into_the_environment_is_told_with_what_would() {
    // Addresses that hardly shrink when they are compressed.
    let long = |number: u32| {
        let digest = |part: u32| {
            use sha2::Digest as _;
            crate::types::hex::hex(&sha2::Sha256::digest(format!("{number}.{part}")))
        };
        let path: Vec<String> = (0..14).map(digest).collect();
        format!(
            "from = \"https://a.example/{}\"\nto = \"/w/{number}\"",
            path.concat()
        )
    };
    let many: Vec<String> = (0..64).map(long).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    one_mistake(
        &with_inputs(&many, ""),
        &[
            "with what is said of the inputs",
            "characters of environment",
            "or [data.storage]",
        ],
    );
    // In a document they have room.
    assert!(
        parse(
            "a.toml",
            &with_inputs(&many, &format!("[data]\noutputs = \"/o\"\n{STORAGE}"))
        )
        .is_ok()
    );
}

#[test]
fn storage_may_be_there_for_inputs_alone() {
    let stored = with_inputs(&["from = \"storage:a\"\nto = \"/a\""], STORAGE);
    let runner = runner_of("a.toml", &stored);
    assert!(runner.storage.is_some() && runner.checkpoint.is_none());
    let unused = with_inputs(&["from = \"https://a.example/a\"\nto = \"/a\""], STORAGE);
    one_mistake(&unused, &["[data.storage] needs", "`data.inputs`"]);
}
