//! The example policies, the schema and the documents, each held against what reads them.

#![allow(clippy::unwrap_used)] // A test that cannot go on says so.

use std::path::{Path, PathBuf};
use std::time::Duration;

use haggle::policy;
use haggle::types::job::{Finish, Job};
use haggle::types::time::Time;
use serde_json::{Value, json};

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn examples() -> Vec<(PathBuf, Job)> {
    let loaded = policy::load_dir(&root().join("policies"));
    assert!(loaded.errors.is_empty(), "{:#?}", loaded.errors);
    loaded.jobs.into_iter().map(|l| (l.path, l.job)).collect()
}

/// What a schema has against a value: the part of JSON Schema that ours uses.
fn violations(schema: &Value, value: &Value, at: &str, found: &mut Vec<String>) {
    let mut check = |holds: bool, what: &str| {
        if !holds {
            found.push(format!("{at}: {what}"));
        }
    };
    if let Some(kind) = schema["type"].as_str() {
        let holds = match kind {
            "object" => value.is_object(),
            "array" => value.is_array(),
            "string" => value.is_string(),
            "boolean" => value.is_boolean(),
            "integer" => value.is_i64() || value.is_u64(),
            "number" => value.is_number(),
            other => panic!("the test does not know the type {other}"),
        };
        check(holds, kind);
    }
    if let Some(words) = schema["enum"].as_array() {
        check(words.contains(value), "enum");
    }
    if let Some(choices) = schema["anyOf"].as_array() {
        let any = choices.iter().any(|choice| {
            let mut inner = Vec::new();
            violations(choice, value, at, &mut inner);
            inner.is_empty()
        });
        check(any, "anyOf");
    }
    if let (Some(pattern), Some(text)) = (schema["pattern"].as_str(), value.as_str()) {
        let pattern = regex::Regex::new(pattern).unwrap();
        check(pattern.is_match(text), "pattern");
    }
    if let Some(number) = value.as_f64() {
        let over = schema["minimum"].as_f64().is_none_or(|m| number >= m);
        let above = schema["exclusiveMinimum"]
            .as_f64()
            .is_none_or(|m| number > m);
        let under = schema["maximum"].as_f64().is_none_or(|m| number <= m);
        check(over && above && under, "bounds");
    }
    if let Some(text) = value.as_str() {
        let length = text.chars().count() as u64;
        let over = schema["minLength"].as_u64().is_none_or(|m| length >= m);
        let under = schema["maxLength"].as_u64().is_none_or(|m| length <= m);
        check(over && under, "length");
    }
    if let Some(items) = value.as_array() {
        let under = schema["maxItems"]
            .as_u64()
            .is_none_or(|m| items.len() as u64 <= m);
        check(under, "maxItems");
        for (index, item) in items.iter().enumerate() {
            violations(&schema["items"], item, &format!("{at}[{index}]"), found);
        }
    }
    if let Some(entries) = value.as_object() {
        for key in schema["required"].as_array().into_iter().flatten() {
            let key = key.as_str().unwrap();
            if !entries.contains_key(key) {
                found.push(format!("{at}: {key} is required"));
            }
        }
        for (key, entry) in entries {
            let here = format!("{at}.{key}");
            match (&schema["properties"][key], &schema["additionalProperties"]) {
                (Value::Null, Value::Bool(false)) => found.push(format!("{here}: unknown")),
                (Value::Null, more) => violations(more, entry, &here, found),
                (property, _) => violations(property, entry, &here, found),
            }
        }
    }
}

fn against_the_schema(text: &str) -> Vec<String> {
    let table: toml::Table = toml::from_str(text).unwrap();
    let value = serde_json::to_value(table).unwrap();
    let mut found = Vec::new();
    violations(&policy::schema(), &value, "", &mut found);
    found
}

#[test]
fn the_examples_are_right_and_fit_the_schema() {
    let examples = examples();
    let names: Vec<&str> = examples.iter().map(|(_, job)| job.name.as_str()).collect();
    assert_eq!(names, ["finetune", "inference", "overnight", "sweep"]);
    for (path, job) in &examples {
        let text = std::fs::read_to_string(path).unwrap();
        assert_eq!(against_the_schema(&text), Vec::<String>::new());
        // They run on a machine where nothing is set up.
        assert!(job.run.secrets.is_empty() && job.run.login.is_none());
        // The file is called as its job is.
        assert_eq!(path.file_stem().unwrap().to_str(), Some(job.name.as_str()));
    }
    assert_eq!(against_the_schema(policy::example()), Vec::<String>::new());
}

#[test]
fn the_night_opens_within_the_demonstrations_six_hours() {
    // The demonstration begins on Monday 2026-01-05 at 20:00 UTC.
    const START: Time = Time(1_767_643_200_000);
    let examples = examples();
    let overnight = examples.iter().find(|(_, job)| !job.windows.is_empty());
    let (_, overnight) = overnight.unwrap();
    let window = &overnight.windows[0];
    let opens = window.next_opening(START).unwrap();
    assert!(!window.is_open(START));
    assert_eq!(opens.to_string(), "2026-01-05T21:00:00Z");
    assert!(window.is_open(START + Duration::from_hours(6)));
    // What is left of the six hours is enough for the work of both jobs that have an end.
    for (_, job) in examples
        .iter()
        .filter(|(_, job)| job.finish == Finish::Work)
    {
        let gpu_hours = job.work_mgpu_h.unwrap() as f64 / 1000.0;
        let hours = gpu_hours / f64::from(job.replicas * job.requirements.gpu_count);
        assert!(hours < 4.0, "{}: {hours}", job.name);
    }
}

#[test]
fn the_schema_refuses_what_the_reader_refuses() {
    let least = "name = \"a\"\n[run]\nimage = \"x\"\n[price]\nmax = \"$1/gpu-hour\"\n";
    assert_eq!(against_the_schema(least), Vec::<String>::new());
    for line in [
        "[gpu]\nvram = 24",
        "[gpu]\nvram = \"24\"",
        "[gpu]\nvram = \"24gb\"",
        "[gpu]\ncount = 0",
        "[gpu]\ncolour = \"red\"",
        "[budget]\ntotal = \"25\"",
        "[budget]\nper_hour = \"$2\"",
        "[machine]\nreliability = 95",
        "[machine]\ncountries = [\"NOR\"]",
        "[work]\nfactors = { A = 0 }",
        "[checkpoint]\nevery = \"15m\"",
        "[[window]]\ncron = \"0 22 * *\"\nlasts = \"1h\"",
        "[run.login]\nregistry = \"r\"\nuser = \"u\"\npassword = \"p\"",
        "[data]\ncheckpoint = \"checkpoints\"",
        "[data]\noutputs = [\"/out\"]",
        "[data.storage]\nendpoint = \"s3.example\"\nbucket = \"abc\"\naccess_key = { env = \"A\" }\nsecret_key = { env = \"B\" }",
        "[data.storage]\nendpoint = \"https://s3.example\"\nbucket = \"A\"\naccess_key = { env = \"A\" }\nsecret_key = { env = \"B\" }",
        "[data.storage]\nendpoint = \"https://s3.example\"\nbucket = \"abc\"\naccess_key = \"A\"\nsecret_key = { env = \"B\" }",
    ] {
        let text = format!("{least}{line}\n");
        assert!(policy::parse("a.toml", &text).is_err(), "{line}");
        assert!(!against_the_schema(&text).is_empty(), "{line}");
    }
}

#[test]
fn the_schema_says_what_it_is() {
    let schema = policy::schema();
    assert_eq!(
        schema["$schema"],
        json!("https://json-schema.org/draft/2020-12/schema")
    );
    assert_eq!(schema["required"], json!(["name", "run", "price"]));
    let window = &schema["properties"]["window"]["items"];
    assert_eq!(window["required"], json!(["cron", "lasts"]));
    let service = &schema["properties"]["service"]["properties"];
    assert_eq!(service["health"]["deprecated"], json!(true));
    let deadline = &schema["properties"]["deadline"];
    assert_eq!(deadline["deprecated"], Value::Null, "it is in effect");
}

/// Asserts that a document ends with a generated part; `UPDATE_EXPECT=1` writes it anew.
fn generated(document: &Path, marker: &str, part: &str) {
    let text = std::fs::read_to_string(document).unwrap();
    let (head, _) = text.split_once(marker).unwrap();
    let whole = format!("{head}{marker}\n\n{}\n", part.trim_end());
    expect_test::expect_file![document].assert_eq(&whole);
}

#[test]
fn the_documents_say_what_is_read() {
    generated(
        &root().join("docs/policies.md"),
        "<!-- Generated from the table of fields; a test tells when it is out of date. -->",
        &policy::reference_table(),
    );
    generated(
        &root().join("docs/configuration.md"),
        "<!-- Generated from the table of keys; a test tells when it is out of date. -->",
        &haggle::config::reference_table(),
    );
    generated(
        &root().join("docs/notifications.md"),
        "<!-- Generated from the table of kinds; a test tells when it is out of date. -->",
        &haggle::types::telling::reference_table(),
    );
    generated(
        &root().join("docs/metrics.md"),
        "<!-- Generated from the table of metrics; a test tells when it is out of date. -->",
        &haggle::daemon::metrics::reference_table(),
    );
}

#[test]
fn the_policies_in_the_documents_are_right() {
    let text = std::fs::read_to_string(root().join("docs/policies.md")).unwrap();
    let blocks = text.split("```toml\n").skip(1);
    let policies: Vec<&str> = blocks
        .filter_map(|block| block.split("```").next())
        .filter(|block| block.starts_with("name"))
        .collect();
    assert!(!policies.is_empty());
    for policy in policies {
        policy::parse("docs/policies.md", policy).unwrap();
    }
}
