use secrecy::ExposeSecret;

use super::keys::KEYS;
use super::*;

const CANARY: &str = "canary-91c2";

fn layers(
    file: &str,
    variables: &[(&str, &str)],
    overrides: &[(&str, Value)],
) -> Result<Config, ConfigError> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("haggle.toml");
    std::fs::write(&path, file).unwrap();
    let variables = variables
        .iter()
        .map(|&(name, value)| (name.to_owned(), value.to_owned()))
        .collect();
    Config::from_layers(Some(&path), &variables, overrides)
}

fn wrong(file: &str, variables: &[(&str, &str)]) -> String {
    layers(file, variables, &[]).unwrap_err().to_string()
}

#[test]
fn defaults() {
    let config = layers("", &[], &[]).unwrap();
    assert_eq!(config.database, Path::new("haggle.db"));
    assert_eq!(config.policies, Path::new("policies"));
    assert!(!config.live);
    assert_eq!(config.listen.to_string(), "127.0.0.1:9464");
    assert_eq!(config.timezone, Tz::UTC);
    assert_eq!(config.poll, Poll::Every(Duration::from_mins(1)));
    let token = SecretRef::Env("HAGGLE_TOKEN".to_owned());
    assert_eq!(config.provider.token, token);
    assert_eq!(config.provider.timeout, Duration::from_secs(30));
    // The engine's own defaults and the documented ones are the same, but that a gateway stands
    // between, which may see no secrets and shows no logs.
    let engine = EngineConfig {
        withhold_secrets: true,
        shows_no_logs: true,
        ..EngineConfig::default()
    };
    assert_eq!(config.engine(), engine);
    let agreed = [("HAGGLE_PROVIDER__SHARE_JOB_SECRETS", "true")];
    let config = layers("", &agreed, &[]).unwrap();
    let engine = EngineConfig {
        withhold_secrets: false,
        ..engine
    };
    assert_eq!(config.engine(), engine);
}

#[test]
fn where_a_marketplace_is_follows_from_its_kind() {
    let of = |file: &str| layers(file, &[], &[]).unwrap().provider;
    let gateway = of("");
    assert_eq!(gateway.kind, ProviderKind::LowCodeApi);
    assert_eq!(gateway.base_url, "https://api.lowcodeapi.com/vastai");
    let vast = of("[provider]\nkind = \"vast\"\ntoken = { env = \"VAST_API_KEY\" }");
    assert_eq!(vast.kind, ProviderKind::Vast);
    assert_eq!(vast.base_url, "https://console.vast.ai");
    assert_eq!(vast.token, SecretRef::Env("VAST_API_KEY".to_owned()));
    let other = of("[provider]\nkind = \"vast\"\nbase_url = \"http://127.0.0.1:1/\"");
    assert_eq!(other.base_url, "http://127.0.0.1:1");
}

#[test]
fn the_token_of_one_side_is_not_configured_to_go_to_the_other() {
    for (kind, url, refused) in [
        ("vast", "https://api.lowcodeapi.com/vastai", true),
        ("vast", "https://API.LowCodeAPI.com.:443/vastai", true),
        ("lowcodeapi", "https://console.vast.ai", true),
        ("lowcodeapi", "https://vast.ai/x", true),
        ("lowcodeapi", "https://gateway.example/vast.ai", false),
        ("lowcodeapi", "https://notvast.ai", false),
        ("vast", "https://vast.proxy.example", false),
    ] {
        let file = format!("[provider]\nkind = \"{kind}\"\nbase_url = \"{url}\"");
        match layers(&file, &[], &[]) {
            Ok(_) => assert!(!refused, "{kind} {url}"),
            Err(error) => {
                let text = error.to_string();
                assert!(
                    refused && text.contains("provider.base_url"),
                    "{url}: {text}"
                );
            }
        }
    }
}

#[test]
fn every_default_in_the_reference_is_the_one_that_holds() {
    let written: Vec<String> = KEYS
        .iter()
        .filter(|key| !key.default.is_empty())
        .map(|key| format!("{} = {}", key.path, key.default))
        .collect();
    let written = written.join("\n");
    assert_eq!(layers(&written, &[], &[]), layers("", &[], &[]));
}

#[test]
fn later_layers_win() {
    let file =
        "live = false\ndatabase = \"file.db\"\npolicies = \"file\"\n[limits]\nper_day = \"$5\"\n";
    let variables = [
        ("HAGGLE_DATABASE", "variable.db"),
        ("HAGGLE_LIVE", "true"),
        ("HAGGLE_LIMITS__PER_HOUR", "$2.50/hour"),
        ("HAGGLE_POLL__EVERY", "90s"),
        ("HAGGLE_PROVIDER__TOKEN__FILE", "/run/token"),
        ("HAGGLE_PROVIDER__PATHS__bids", "/offers/bids"),
        ("HAGGLE_TOKEN", CANARY),
        ("HAGGLE_OTHER_TOKEN", CANARY),
        ("HAGGLE_SEEDS", "7"),
        ("HAGGLE_MARKET_RUN_FOR", "1h"),
    ];
    let overrides = [
        ("live", Value::from(false)),
        ("limits.instances_max", Value::from(3)),
    ];
    let config = layers(file, &variables, &overrides).unwrap();
    assert_eq!(config.database, Path::new("variable.db"));
    assert_eq!(config.policies, Path::new("file"));
    assert!(!config.live);
    assert_eq!(config.poll, Poll::Every(Duration::from_secs(90)));
    assert_eq!(config.provider.token, SecretRef::File("/run/token".into()));
    assert_eq!(config.provider.paths["bids"], "/offers/bids");
    let engine = config.engine();
    assert_eq!(engine.per_day, Some(Money::dollars(5)));
    assert_eq!(engine.per_hour, Some(Rate(2_500_000_000)));
    assert_eq!(engine.instances_max, 3);
    assert_eq!(engine.poll_every, Duration::from_secs(90));
}

#[test]
fn a_named_file_must_be_there_and_be_toml() {
    let none = BTreeMap::new();
    let missing = Config::from_layers(Some(Path::new("no/such.toml")), &none, &[]);
    assert!(matches!(missing, Err(ConfigError::Unreadable { .. })));
    let told = wrong(&format!("live = true\n[provider]\ntoken = \"{CANARY}"), &[]);
    assert!(
        told.contains("haggle.toml:3:") && told.contains("not TOML"),
        "{told}"
    );
    assert!(!told.contains(CANARY), "{told}");
}

#[test]
fn an_unknown_key_is_told_with_its_place() {
    for (file, parts) in [
        (
            "lisen = \"x\"",
            [
                "haggle.toml",
                "unknown key `lisen`",
                "did you mean `listen`?",
            ],
        ),
        (
            "[limits]\nper_dya = \"$1\"",
            ["haggle.toml", "`limits.per_dya`", "credit_reserve, per_day"],
        ),
        (
            "[provider]\nurl = \"x\"",
            ["haggle.toml", "`provider.url`", "base_url"],
        ),
        (
            "[pol]\nevery = \"60s\"",
            ["haggle.toml", "`pol`", "did you mean `poll`?"],
        ),
    ] {
        let told = wrong(file, &[]);
        for part in parts {
            assert!(told.contains(part), "{part} is not in {told}");
        }
    }
    let told = wrong("", &[("HAGGLE_DATBASE", "x")]);
    assert!(
        told.contains("HAGGLE_DATBASE") && told.contains("HAGGLE_DATABASE?"),
        "{told}"
    );
    let told = wrong("", &[("HAGGLE_POLL__EVRY", "60s")]);
    assert!(told.contains("HAGGLE_POLL__EVERY?"), "{told}");
}

#[test]
fn what_is_out_of_bounds_is_told_all_at_once() {
    let told = wrong(
        "[poll]\nevery = \"5s\"\n[provider]\nkind = \"aws\"\nbase_url = \"x\"\ntimeout = \"1h\"\n[limits]\ninstances_max = 0\noutage_allowance = \"2d\"\n",
        &[],
    );
    for key in [
        "poll.every",
        "provider.kind",
        "provider.base_url",
        "provider.timeout",
        "limits.instances_max",
        "limits.outage_allowance",
    ] {
        assert!(told.contains(key), "{key}: {told}");
    }
    for (file, part) in [
        ("[poll]\nevery = 60", "poll.every"),
        ("[poll]\nevery = \"60\"", "unit is missing"),
        (
            "[poll]\nevery = \"60s\"\ncron = \"* * * * *\"",
            "exclude each other",
        ),
        ("[poll]\ncron = \"* * * *\"", "five fields"),
        (
            "timezone = \"Europe/Berln\"",
            "did you mean \"Europe/Berlin\"?",
        ),
        ("listen = \"here\"", "listen"),
        ("live = \"yes\"", "live"),
        ("[limits]\nper_day = \"5\"", "currency is missing"),
        ("[limits]\nper_day = \"$-5\"", "per_day"),
        ("[limits]\nper_hour = \"$5\"", "/hour"),
        ("[provider]\nkind = \"vaste\"", "\"lowcodeapi\" or \"vast\""),
        (
            "[provider]\nkind = \"vast\"\npaths = { offers = \"/x\" }",
            "are the gateway's",
        ),
        (
            "[provider]\nbase_url = \"https://x/?api_token=1\"",
            "base_url",
        ),
    ] {
        let told = wrong(file, &[]);
        assert!(told.contains(part), "{part} is not in {told}");
    }
}

#[test]
fn a_token_is_never_inline_and_never_shown() {
    for file in [
        format!("[provider]\ntoken = \"{CANARY}\""),
        format!("[provider]\ntoken = [\"{CANARY}\"]"),
        format!("[provider.token]\nvalue = \"{CANARY}\""),
        "[provider]\ntoken = 918273".to_owned(),
        format!("[provider]\nbase_url = \"https://x?api_token={CANARY}\""),
    ] {
        let told = wrong(&file, &[]);
        assert!(!told.contains(CANARY) && !told.contains("918273"), "{told}");
    }
    let told = wrong("", &[("HAGGLE_PROVIDER__TOKEN", CANARY)]);
    assert!(
        told.contains("HAGGLE_PROVIDER__TOKEN") && told.contains("by reference"),
        "{told}"
    );
    assert!(!told.contains(CANARY));
    let told = wrong("[provider]\ntoken = { env = \"A\", file = \"b\" }", &[]);
    assert!(told.contains("one place"), "{told}");
}

#[test]
fn secrets_are_found_where_they_are_said_to_be() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("token");
    let of_file = || resolve_secret(&SecretRef::File(path.clone()));
    assert!(
        of_file()
            .unwrap_err()
            .to_string()
            .contains("cannot be read")
    );
    std::fs::write(&path, format!("{CANARY}\r\n")).unwrap();
    assert_eq!(of_file().unwrap().expose_secret(), CANARY);
    std::fs::write(&path, " \n").unwrap();
    assert!(of_file().unwrap_err().to_string().contains("is empty"));
    std::fs::write(&path, b"\xff").unwrap();
    assert!(of_file().unwrap_err().to_string().contains("not UTF-8"));
    let directory = resolve_secret(&SecretRef::File(dir.path().to_owned()));
    assert!(directory.unwrap_err().to_string().contains("directory"));
    let unset = resolve_secret(&SecretRef::Env("HAGGLE_NO_SUCH_VARIABLE".to_owned()));
    assert!(unset.unwrap_err().to_string().contains("is not set"));
    // A variable that every process has.
    let path = resolve_secret(&SecretRef::Env("PATH".to_owned())).unwrap();
    assert!(!path.expose_secret().is_empty());
}

#[test]
fn polls_on_a_schedule() {
    let config = layers(
        "timezone = \"Europe/Berlin\"\n[poll]\ncron = \"*/5 8-18 * * *\"",
        &[],
        &[],
    );
    let config = config.unwrap();
    // From 18:55 to 08:00; an hour more in the night of the autumn change.
    let hours = |h: u64, m: u64| Duration::from_secs(h * 3600 + m * 60);
    let gap = config.engine().poll_every;
    assert!(gap == hours(13, 5) || gap == hours(14, 5), "{gap:?}");
    // 2026-01-05 20:00 UTC is past the day's last; 08:00 in Berlin is 07:00 UTC.
    assert_eq!(
        config.poll.next_after(Time(1_767_643_200_000)).to_string(),
        "2026-01-06T07:00:00Z"
    );
}

#[test]
fn owners_and_tags_have_limits_of_their_own() {
    let file = "[limits]\nper_month = \"$300\"\ngpus_max = 16\nmin_runway = \"2h\"\n\
         [limits.owner.ml]\nper_month = \"$200\"\ntotal = \"$900\"\ninstances_max = 0\n\
         [limits.tag.nightly]\nper_hour = \"$1/hour\"\n";
    let variable = ("HAGGLE_LIMITS__OWNER__ML__GPUS_MAX", "8");
    let engine = layers(file, &[variable], &[]).unwrap().engine();
    assert_eq!(engine.per_month, Some(Money::dollars(300)));
    assert_eq!(engine.gpus_max, Some(16));
    assert_eq!(engine.min_runway, Some(Duration::from_hours(2)));
    let ml = Bounds {
        total: Some(Money::dollars(900)),
        per_month: Some(Money::dollars(200)),
        instances_max: Some(0),
        gpus_max: Some(8),
        ..Bounds::default()
    };
    let nightly = Bounds {
        per_hour: Some(Rate(1_000_000_000)),
        ..Bounds::default()
    };
    let groups = BTreeMap::from([
        (Scope::Owner("ml".to_owned()), ml),
        (Scope::Tag("nightly".to_owned()), nightly),
    ]);
    assert_eq!(engine.groups, groups);
}

#[test]
fn a_wrong_limit_of_a_group_is_told_by_its_key() {
    for (file, parts) in [
        (
            "[limits.owner.ml]\nper_week = \"$5\"",
            &["limits.owner.ml.per_week", "per_month", "gpus_max"][..],
        ),
        ("[limits.tag.x]\nper_day = \"5\"", &["limits.tag.x.per_day"]),
        ("[limits]\nmin_runway = \"5s\"", &["limits.min_runway"]),
        ("[limits]\ngpus_max = 0", &["limits.gpus_max"]),
        (
            "[limits.tag.x]\ngpus_max = 20000",
            &["limits.tag.x.gpus_max", "0 to 10000"],
        ),
    ] {
        let text = wrong(file, &[]);
        for part in parts {
            assert!(text.contains(part), "{text:?} lacks {part:?}");
        }
    }
}

const CHANNELS: &str = r#"
[[notify]]
name = "phone"
kind = "ntfy"
url = { env = "NTFY_URL" }
events = ["usual", "outbid"]
severity = "warning"
per_hour = 5
quiet = "22:00-07:30"
[[notify]]
kind = "email"
smtp = "smtp.example.org"
from = "haggle <haggle@example.org>"
to = ["me@example.org"]
user = "me"
password = { file = "/etc/haggle/mail" }
[[notify]]
kind = "webhook"
url = { env = "HOOK" }
secret = { env = "KEY" }
"#;

#[test]
fn channels_say_where_and_of_what_people_are_told() {
    use crate::types::state::Severity;
    use crate::types::telling::{Mail, MailTls, Way, kind_of};
    let config = layers(CHANNELS, &[], &[]).unwrap();
    let [phone, mail, hook] = &config.notify[..] else {
        panic!("{:?}", config.notify);
    };
    assert_eq!(
        (phone.name.as_str(), phone.least, phone.per_hour),
        ("phone", Severity::Warning, 5)
    );
    assert!(phone.wants(kind_of("outbid"), Severity::Warning));
    assert!(phone.wants(kind_of("failed"), Severity::Warning));
    assert!(!phone.wants(kind_of("running"), Severity::Alarm));
    let at = |h, m| chrono::NaiveTime::from_hms_opt(h, m, 0).unwrap();
    let quiet = phone.quiet.unwrap();
    assert!(quiet.holds(at(7, 29)) && !quiet.holds(at(7, 30)));
    assert_eq!(
        mail.way,
        Way::Email(Mail {
            host: "smtp.example.org".to_owned(),
            port: 587,
            tls: MailTls::StartTls,
            login: Some(("me".to_owned(), SecretRef::File("/etc/haggle/mail".into()))),
            from: "haggle <haggle@example.org>".to_owned(),
            to: vec!["me@example.org".to_owned()],
        })
    );
    assert_eq!(
        (hook.name.as_str(), hook.per_hour, hook.quiet),
        ("webhook", 20, None)
    );
}

#[test]
fn the_channels_in_the_document_are_right() {
    let text = include_str!("../../docs/notifications.md");
    let (_, rest) = text.split_once("```toml\n").unwrap();
    let (example, _) = rest.split_once("```").unwrap();
    let config = layers(example, &[], &[]).unwrap();
    assert_eq!(config.notify.len(), 3);
}

#[test]
fn a_channel_that_cannot_work_is_refused_with_what_would_be_right() {
    let of = |lines: &str| {
        layers(&format!("[[notify]]\n{lines}"), &[], &[])
            .unwrap_err()
            .to_string()
    };
    for (lines, says) in [
        ("kind = \"discrod\"", "did you mean \"discord\"?"),
        ("kind = \"slack\"", "needs `url`, given by reference"),
        (
            "kind = \"slack\"\nurl = \"https://hooks.slack.com/T0K3N\"",
            "a secret is given by reference",
        ),
        (
            "kind = \"slack\"\nurl = { env = \"U\" }\ncommand = \"x\"",
            "`command` is not for",
        ),
        (
            "kind = \"command\"\ncommand = \"x\"\nevnts = []",
            "did you mean `events`?",
        ),
        (
            "kind = \"command\"\ncommand = \"x\"\nevents = [\"outbid-lnog\"]",
            "did you mean \"outbid-long\"?",
        ),
        (
            "kind = \"command\"\ncommand = \"x\"\nseverity = \"bad\"",
            "\"info\", \"warning\", \"alarm\"",
        ),
        (
            "kind = \"command\"\ncommand = \"x\"\nquiet = \"late\"",
            "such as \"22:00-07:00\"",
        ),
        (
            "kind = \"command\"\ncommand = \"x\"\nper_hour = 0",
            "from 1 to 1000",
        ),
        (
            "kind = \"command\"\ncommand = \"x\"\nname = \"a\\nb\"",
            "a name is 1 to 40",
        ),
        (
            "kind = \"email\"\nsmtp = \"x:0\"\nfrom = \"a@b\"\nto = [\"c\"]",
            "no server",
        ),
        (
            "kind = \"email\"\nsmtp = \"x\"\nfrom = \"a@b\"\nto = [\"c\"]",
            "\"c\" is no address",
        ),
        (
            "kind = \"email\"\nsmtp = \"x\"\ntls = \"off\"\nfrom = \"a@b\"\nto = [\"c@d\"]",
            "to this machine only",
        ),
        (
            "kind = \"email\"\nsmtp = \"x\"\nuser = \"u\"\nfrom = \"a@b\"\nto = [\"c@d\"]",
            "belong together",
        ),
    ] {
        let said = of(lines);
        assert!(said.contains(says), "{lines}: {said}");
        assert!(said.contains("notify"), "{lines}: {said}");
        assert!(!said.contains("T0K3N"), "{said}");
    }
    let twice =
        "kind = \"command\"\ncommand = \"x\"\n[[notify]]\nkind = \"command\"\ncommand = \"y\"";
    assert!(of(twice).contains("another one has this name"));
}
