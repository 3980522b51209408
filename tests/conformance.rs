//! The marketplace's official command line, unmodified, goes through its life on the embedded
//! market: `VASTAI_CLI` names its executable. What it exits with says little, so what it prints
//! is looked at, and what the market then holds.

#![allow(clippy::unwrap_used, clippy::print_stderr)]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;

const KEY: &str = "play-key";

/// A still market ten minutes of which pass in a second, and the command line pointed at it.
struct World {
    vastai: PathBuf,
    market: Child,
    address: String,
    home: TempDir,
}

impl Drop for World {
    fn drop(&mut self) {
        let _ = self.market.kill();
        let _ = self.market.wait();
    }
}

/// What a command printed.
struct Said {
    out: String,
    err: String,
}

impl World {
    /// `None` where there is no command line to try.
    fn new() -> Option<Self> {
        let Some(vastai) = std::env::var_os("VASTAI_CLI") else {
            eprintln!("skipped: VASTAI_CLI names no `vastai` command line");
            return None;
        };
        let arguments = "market --json --listen 127.0.0.1:0 --wire vast --seed 3 --speed 600 \
                         --intensity 0 --failures 0 --control";
        let mut market = Command::new(env!("CARGO_BIN_EXE_haggle"))
            .args(arguments.split_whitespace())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut document = String::new();
        let mut lines = BufReader::new(market.stdout.take().unwrap());
        let url = loop {
            assert_ne!(lines.read_line(&mut document).unwrap(), 0, "no market");
            if let Ok(read) = serde_json::from_str::<Value>(&document) {
                break read["vast_base_url"].as_str().unwrap().to_owned();
            }
        };
        Some(Self {
            vastai: vastai.into(),
            market,
            address: url.strip_prefix("http://").unwrap().to_owned(),
            home: tempfile::tempdir().unwrap(),
        })
    }

    /// Runs a command. An argument with spaces in it is put between bars.
    fn vastai(&self, command: &str) -> Said {
        let mut arguments = Vec::new();
        for (index, part) in command.split('|').enumerate() {
            if index % 2 == 1 {
                arguments.push(part.to_owned());
            } else {
                arguments.extend(part.split_whitespace().map(str::to_owned));
            }
        }
        let output = Command::new(&self.vastai)
            .args(arguments)
            .env("HOME", self.home.path())
            .env("XDG_CONFIG_HOME", self.home.path().join("config"))
            .env("XDG_CACHE_HOME", self.home.path().join("cache"))
            .env("VAST_API_KEY", KEY)
            .env("VAST_URL", format!("http://{}", self.address))
            .env("VASTAI_NO_UPDATE_CHECK", "1")
            .env("COLUMNS", "200")
            .env_remove("http_proxy")
            .env_remove("HTTP_PROXY")
            .stdin(Stdio::null())
            .output()
            .unwrap();
        let said = Said {
            out: String::from_utf8(output.stdout).unwrap(),
            err: String::from_utf8(output.stderr).unwrap(),
        };
        let all = format!("{}{}", said.out, said.err);
        assert!(!all.contains("Traceback"), "vastai {command}: {all}");
        said
    }

    /// The document that a command prints.
    fn document(&self, command: &str) -> Value {
        let said = self.vastai(&format!("{command} --raw"));
        serde_json::from_str(&said.out)
            .unwrap_or_else(|_| panic!("vastai {command}: {}{}", said.out, said.err))
    }

    fn says(&self, command: &str, words: &str) {
        let said = self.vastai(command);
        let all = format!("{}{}", said.out, said.err);
        assert!(all.contains(words), "vastai {command}: {all}");
    }

    /// What the marketplace refuses: the status and the words.
    fn refused(&self, command: &str) -> (u64, String) {
        let said = self.vastai(&format!("{command} --raw"));
        let line = said.err.lines().find(|line| line.starts_with('{'));
        let line = line.unwrap_or_else(|| panic!("vastai {command}: {}{}", said.out, said.err));
        let error: Value = serde_json::from_str(line).unwrap();
        assert_eq!(error["error"], true, "{command}");
        let words = error["msg"].as_str().unwrap().to_owned();
        (error["status_code"].as_u64().unwrap(), words)
    }

    /// The market's own answer to a call, without the command line between. Its rate limits hold
    /// here, too.
    fn api(&self, method: &str, path: &str, body: &str) -> Value {
        let answer = (0..100)
            .map(|_| self.exchange(method, path, body))
            .find(|answer| !answer.starts_with("HTTP/1.1 429"))
            .unwrap();
        let (_, body) = answer.split_once("\r\n\r\n").unwrap();
        serde_json::from_str(body).unwrap_or_else(|_| panic!("{method} {path}: {answer}"))
    }

    fn exchange(&self, method: &str, path: &str, body: &str) -> String {
        let mut stream = TcpStream::connect(&self.address).unwrap();
        let length = body.len();
        write!(
            stream,
            "{method} {path} HTTP/1.1\r\nHost: {}\r\nAuthorization: Bearer {KEY}\r\n\
             Connection: close\r\nContent-Length: {length}\r\n\r\n{body}",
            self.address
        )
        .unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    }

    fn instances(&self) -> Vec<Value> {
        let listing = self.api("GET", "/api/v0/instances/", "");
        listing["instances"].as_array().unwrap().clone()
    }

    /// The instance once it is in a state; market time passes fast.
    fn when(&self, id: u64, field: &str, value: &str) -> Value {
        const LOOKS: u32 = 600;
        for _ in 0..LOOKS {
            let row = self.instances().into_iter().find(|row| row["id"] == id);
            if let Some(row) = row.filter(|row| row[field] == value) {
                return row;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        panic!("instance {id} never had {field} {value}");
    }

    /// Offers of one GPU with floors, cheapest first.
    fn offers(&self) -> Vec<Value> {
        let rows = self.document("search offers |num_gpus=1 verified=any| --type bid -o dph_total");
        rows.as_array().unwrap().clone()
    }
}

fn number(value: &Value) -> f64 {
    value.as_f64().unwrap()
}

#[test]
fn searches_find_what_they_ask_for_in_the_order_asked_for() {
    let Some(world) = World::new() else { return };
    let rows = world.document(
        "search offers |num_gpus=1 gpu_name=RTX_4090 reliability>0.9 geolocation notin [CN,VN] \
         gpu_ram>20 duration>2 driver_version>=535.86.05 dph<0.8 verified=any| \
         --type bid -o |dph_total,score-| --limit 20 --storage 16",
    );
    let rows = rows.as_array().unwrap();
    assert!(!rows.is_empty() && rows.len() <= 20);
    for row in rows {
        assert_eq!(
            (&row["num_gpus"], &row["gpu_name"]),
            (&json!(1), &json!("RTX 4090"))
        );
        assert!(number(&row["reliability"]) > 0.9 && number(&row["gpu_ram"]) > 20_000.0);
        assert!(number(&row["dph_total"]) < 0.8 && number(&row["duration"]) > 2.0 * 86_400.0);
        assert!(
            number(&row["driver_vers"]) >= 535_086_005.0,
            "{}",
            row["driver_version"]
        );
        assert_eq!(
            (&row["is_bid"], &row["dph_base"]),
            (&json!(true), &row["min_bid"])
        );
        let storage = number(&row["storage_cost"]) * 16.0 / 720.0;
        assert!((number(&row["dph_total"]) - number(&row["min_bid"]) - storage).abs() < 1e-6);
        let place = row["geolocation"].as_str().unwrap_or_default();
        assert!(!place.ends_with("CN") && !place.ends_with("VN"));
    }
    let totals: Vec<f64> = rows.iter().map(|row| number(&row["dph_total"])).collect();
    assert!(totals.is_sorted(), "{totals:?}");

    let rows = world.document("search offers --new |num_gpus>=2| -o |num_gpus-,dph_total|");
    let rows = rows.as_array().unwrap();
    assert!(rows.len() > 10 && rows.len() <= 64, "{}", rows.len());
    let keys: Vec<(f64, f64)> = rows
        .iter()
        .map(|row| (-number(&row["num_gpus"]), number(&row["dph_total"])))
        .collect();
    assert!(keys.is_sorted() && keys.iter().all(|(gpus, _)| *gpus <= -2.0));
    assert!(
        rows.iter()
            .all(|row| row["is_bid"] == false && row["verification"] == "verified")
    );

    world.says("search offers |num_gpus=1| --limit 3", "Model");
    let (status, words) = world.refused("search offers |nonsense=1|");
    assert_eq!(
        (status, words.as_str()),
        (400, "nonsense is not a valid search key")
    );
    let nothing = world.document("search offers |num_gpus>500|");
    assert_eq!(nothing, json!([]));
}

#[test]
fn a_rental_goes_through_its_life() {
    let Some(world) = World::new() else { return };
    let offer = &world.offers()[0];
    let bid = ((number(&offer["min_bid"]) + 0.05) * 10_000.0).round() / 10_000.0;
    let created = world.document(&format!(
        "create instance {} --image pytorch/pytorch --disk 20 --ssh --direct --label bot-1 \
         --bid_price {bid} --env |-e A=1 -p 8000:8000| --onstart-cmd |echo hi|",
        offer["id"]
    ));
    assert_eq!(created["success"], true);
    let id = created["new_contract"].as_u64().unwrap();
    let row = world.when(id, "actual_status", "running");
    assert_eq!(
        (&row["is_bid"], number(&row["dph_base"])),
        (&json!(true), bid)
    );
    assert_eq!(row["extra_env"], json!([["-p 8000:8000", "1"], ["A", "1"]]));
    assert!(row["ports"]["8000/tcp"][0]["HostPort"].is_string());

    let listed = world.document("show instances");
    assert_eq!(
        (&listed[0]["id"], &listed[0]["label"]),
        (&json!(id), &json!("bot-1"))
    );
    assert_eq!(listed[0]["extra_env"]["A"], "1");
    world.says("show instances", "bot-1");
    assert_eq!(world.document(&format!("show instance {id}"))["id"], id);

    world.says(
        &format!("change bid {id} --price {}", bid + 0.01),
        "bid price changed",
    );
    let row = world.api("GET", &format!("/api/v0/instances/{id}/"), "");
    assert!((number(&row["instances"]["dph_base"]) - bid - 0.01).abs() < 1e-9);
    let (status, words) = world.refused(&format!("change bid {id} --price 1000"));
    assert!(
        status == 400 && words.contains("Invalid price"),
        "{status} {words}"
    );

    world.says(&format!("label instance {id} again"), "label for");
    world.when(id, "label", "again");
    world.says(&format!("reboot instance {id}"), "Rebooting");
    world.when(id, "actual_status", "running");
    world.says(&format!("recycle instance {id}"), "Recycling");
    world.when(id, "actual_status", "running");
    // Market time flies: by now the script's first lines may be far behind the last ones.
    let logs = world.vastai(&format!("logs {id} --tail 100000")).out;
    assert!(logs.contains("+ echo hi\nhi\n"), "{logs}");
    let logs = world.vastai(&format!("logs {id} --tail 2")).out;
    let lines = logs.lines().filter(|line| line.contains("working"));
    assert!(lines.count() <= 2, "{logs}");
    let logs = world.vastai(&format!("logs {id} --filter echo")).out;
    assert!(
        logs.lines()
            .filter(|line| !line.is_empty())
            .all(|line| line.contains("echo")),
        "{logs}"
    );

    world.says(&format!("stop instance {id}"), "stopping instance");
    let row = world.when(id, "cur_state", "stopped");
    assert_eq!(
        (&row["ports"], &row["instance"]["gpuCostPerHour"]),
        (&Value::Null, &json!(0.0))
    );
    world.says(&format!("start instance {id}"), "starting instance");
    world.when(id, "actual_status", "running");

    world.says(&format!("destroy instance {id} -y"), "destroying instance");
    assert_eq!(world.instances(), Vec::<Value>::new());
    assert_eq!(
        world.document(&format!("show instance {id}")),
        json!({"instances": null})
    );
    let (status, words) = world.refused(&format!("destroy instance {id} -y"));
    assert!(
        status == 404 && words.contains("was not found"),
        "{status} {words}"
    );
}

#[test]
fn what_cannot_be_rented_is_refused_and_a_low_bid_leaves_a_stopped_instance() {
    let Some(world) = World::new() else { return };
    let offers = world.offers();
    let rent = |offer: &Value, more: &str| format!("create instance {offer} --image a:b {more}");
    let (status, words) = world.refused(&rent(&json!(1), "--disk 10"));
    assert!(
        status == 404 && words.contains("no_such_ask"),
        "{status} {words}"
    );
    let (status, words) = world.refused(&rent(&offers[0]["id"], "--disk 4"));
    assert!(
        status == 400 && words.contains("Invalid args"),
        "{status} {words}"
    );
    let (status, _) = world.refused(&rent(&offers[0]["id"], "--disk 10 --bid_price 0"));
    assert_eq!((status, world.instances().len()), (400, 0));

    let (status, words) = world.refused(&rent(&offers[0]["id"], "--disk 10 --bid_price 0.001"));
    assert!(
        status == 400 && words.contains("stopped"),
        "{status} {words}"
    );
    let left = world.instances();
    assert_eq!((left.len(), &left[0]["cur_state"]), (1, &json!("stopped")));
    let id = left[0]["id"].as_u64().unwrap();
    let enough = number(&offers[0]["min_bid"]) + 0.05;
    world.says(
        &format!("change bid {id} --price {enough:.4}"),
        "bid price changed",
    );
    world.when(id, "cur_state", "running");
    let (status, words) = world.refused(&rent(&offers[0]["id"], "--disk 10"));
    assert!(
        status == 410 && words.contains("no_such_ask"),
        "{status} {words}"
    );
}

#[test]
fn several_are_made_copied_between_stopped_and_destroyed_at_once() {
    let Some(world) = World::new() else { return };
    let rows = world.document("search offers |num_gpus=1| -o dph_total --limit 10");
    let (first, second) = (&rows[0]["id"], &rows[1]["id"]);
    world.says(
        &format!("create instances {first} {second} --image a:b --disk 10 --label pair"),
        "Started",
    );
    let made = world.instances();
    let ids: Vec<u64> = made.iter().filter_map(|row| row["id"].as_u64()).collect();
    let [a, b] = ids[..] else { panic!("{made:?}") };
    assert!(
        made.iter()
            .all(|row| row["label"] == "pair" && row["is_bid"] == false)
    );
    world.when(b, "actual_status", "running");

    world.says(&format!("stop instances {a} {b}"), "stopping instance");
    world.says(
        &format!("copy C.{a}:/workspace/ C.{b}:/workspace/"),
        "copy initiated",
    );
    let shown = (0..600).any(|_| {
        std::thread::sleep(Duration::from_millis(20));
        let rows = world.instances();
        let row = rows.iter().find(|row| row["id"] == b);
        row.is_some_and(|row| {
            row["status_msg"]
                .as_str()
                .is_some_and(|words| words.contains("rsync"))
        })
    });
    assert!(shown, "progress of the copy shows in the status");
    for target in ["/", "/root", "/root/x/.."] {
        world.says(
            &format!("copy {a}:/workspace {b}:{target}"),
            "must not be / or /root",
        );
    }
    world.says(
        &format!("copy {a}:/workspace 999:/workspace"),
        "was not found",
    );
    world.says(
        &format!(
            "cloud copy --src /workspace --dst /backup --instance {a} --connection 7 \
             --transfer |Instance To Cloud|"
        ),
        "Cloud Copy Started",
    );
    world.says(&format!("start instances {a} {b}"), "starting instance");
    world.says(&format!("prepay instance {a} 10"), "prepaid for");
    world.says("show pending-price-increases", "No pending price increases");

    world.says(
        &format!("destroy instances {a} {b} -y"),
        "destroying instance",
    );
    assert_eq!(world.instances(), Vec::<Value>::new());
}

#[test]
fn it_comes_through_what_goes_wrong() {
    let Some(world) = World::new() else { return };
    let faults = |spec: &str| {
        let set = world.api("PUT", "/faults", &json!({ "faults": spec }).to_string());
        assert_eq!(set["faults"], spec);
    };
    world.says("search offers |num_gpus=1| --limit 1", "Model");
    faults("quota=100%");
    let (status, words) = world.refused("search offers |num_gpus=1|");
    assert!(
        status == 429 && words.contains("00:00 UTC"),
        "{status} {words}"
    );
    faults("key-deleted=100%");
    let (status, words) = world.refused("show instances");
    assert_eq!((status, words.as_str()), (401, "Invalid user key"));
    faults("session-expired=100%");
    assert_eq!(world.refused("show instances").0, 404);
    faults("none");
    world.says("search offers |num_gpus=1| --limit 1", "Model");
}

#[test]
fn the_account_and_what_it_keeps_can_be_managed() {
    let Some(world) = World::new() else { return };
    let user = world.document("show user");
    assert_eq!(number(&user["credit"]), 100.0);
    assert!(user["id"].is_u64() && user["email"].is_string());

    let rows = world.document("search offers |num_gpus=1| -o dph_total --limit 1");
    world.says(
        &format!("create instance {} --image a:b --disk 10", rows[0]["id"]),
        "Started",
    );
    let id = world.instances()[0]["id"].as_u64().unwrap();
    world.when(id, "actual_status", "running");
    world.says(&format!("destroy instance {id} -y"), "destroying");
    let range = "-s 2020-11-01 -e 2037-12-31";
    let charges = world.document(&format!(
        "show invoices-v1 --charges {range} --charge-type instance"
    ));
    assert!(
        charges.to_string().contains(&format!("instance-{id}")),
        "{charges}"
    );
    let paid = world.document(&format!("show invoices-v1 --invoices {range}"));
    assert!(paid.to_string().contains("-100"), "{paid}");
    assert!(
        world
            .document("search invoices |amount_cents>3000|")
            .is_array()
    );

    let key =
        "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIDq1cYkqcX0qk6bq4mG4yY1Jj3tZb5Y0h4i8hQ5eXW1f me@x";
    world.says(&format!("create ssh-key |{key}| -y"), "ssh-key created");
    let keys = world.document("show ssh-keys");
    let number = &keys[0]["id"];
    assert!(
        number.is_u64() && keys.to_string().contains("AAAAC3NzaC1lZDI1NTE5"),
        "{keys}"
    );
    world.vastai(&format!("delete ssh-key {number}"));
    assert!(
        !world
            .vastai("show ssh-keys --raw")
            .out
            .contains("AAAAC3NzaC1lZDI1NTE5")
    );

    world.says(
        "create template --name t1 --image a/b --ssh --direct --env |-e A=1| --disk_space 16",
        "New Template",
    );
    let found = world.document("search templates |name=t1|");
    let (hash, id) = (
        found[0]["hash_id"].as_str().unwrap(),
        found[0]["id"].clone(),
    );
    world.says(
        &format!("update template {hash} --name t2 --image a/c"),
        "updated template",
    );
    let found = world.document("search templates |name=t2|");
    assert_eq!((&found[0]["id"], &found[0]["image"]), (&id, &json!("a/c")));
    assert_ne!(found[0]["hash_id"], hash, "the hash follows what it holds");
    world.vastai(&format!("delete template --template-id {id}"));
    assert_eq!(world.document("search templates |name=t2|"), json!([]));

    let log = world.document("show audit-logs");
    assert!(log.as_array().is_some_and(|rows| !rows.is_empty()), "{log}");
}

#[test]
fn a_host_lists_prices_and_unlists_its_machines() {
    let Some(world) = World::new() else { return };
    let machines = world.document("show machines");
    let id = machines["machines"][0]["id"].as_u64().unwrap();
    let shown = || world.document(&format!("show machine {id}"))[0].clone();
    world.vastai(&format!(
        "list machine {id} -g 0.34 -b 0.12 -s 0.15 -u 0.004 -d 0.002 -m 1 -e 12/31/2037 -r 0.2"
    ));
    let row = shown();
    assert_eq!(
        (&row["listed"], number(&row["listed_gpu_cost"])),
        (&json!(true), 0.34)
    );
    let query = json!({"machine_id": {"eq": id}, "verified": {"in": [true, false]}, "type": "bid"});
    let found = || world.api("POST", "/api/v0/bundles/", &query.to_string())["offers"].clone();
    let offer = found()[0].clone();
    assert!((number(&offer["min_bid"]) - 0.12 * number(&offer["num_gpus"])).abs() < 1e-9);
    world.says(
        &format!("set min-bid {id} --price 0.15"),
        "min bid price changed",
    );
    assert!((number(&shown()["min_bid_price"]) - 0.15).abs() < 1e-9);
    world.says(&format!("unlist machine {id}"), "delisted");
    assert_eq!(
        (shown()["listed"].clone(), found()),
        (json!(false), json!([]))
    );
    assert!(world.document("show earnings").is_object());
    world.says(&format!("reports {id}"), "reports: [");
}
