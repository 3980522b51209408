//! What a run needs before its command begins: fetched once, tried, and put in its place.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{Path as UrlPath, State};
use axum::http::{StatusCode, Uri};
use axum::response::{IntoResponse, Redirect, Response};
use axum::routing::get;
use haggle::market::Market;
use haggle::runner::{Fault, Run, fetch_lines, input_lines};
use haggle::storage::Sum;
use haggle::types::input::{Found, Input, Packing, Source};
use tokio::net::TcpListener;

use super::{Bench, run, says, tools};

/// What a server has, what it answers to the first requests for a name, and what it was asked for.
#[derive(Clone, Default)]
struct Files {
    there: Arc<Mutex<BTreeMap<String, Bytes>>>,
    first: Arc<Mutex<BTreeMap<String, Vec<u16>>>>,
    asked: Arc<Mutex<Vec<String>>>,
    origin: String,
}

impl Files {
    async fn start() -> Self {
        async fn read(
            State(files): State<Files>,
            UrlPath(name): UrlPath<String>,
            uri: Uri,
        ) -> Response {
            files.asked.lock().unwrap().push(uri.to_string());
            if let Some(rest) = name.strip_prefix("moved-") {
                return Redirect::temporary(&format!("/{rest}")).into_response();
            }
            let mut first = files.first.lock().unwrap();
            let answer = first.get_mut(&name).filter(|left| !left.is_empty());
            if let Some(code) = answer.map(|left| left.remove(0)) {
                return StatusCode::from_u16(code).unwrap().into_response();
            }
            match files.there.lock().unwrap().get(&name) {
                Some(bytes) => bytes.clone().into_response(),
                None => StatusCode::NOT_FOUND.into_response(),
            }
        }
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let files = Self {
            origin: format!("http://{}", listener.local_addr().unwrap()),
            ..Self::default()
        };
        let router = Router::new()
            .route("/{name}", get(read))
            .with_state(files.clone());
        tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        files
    }

    fn hold(&self, name: &str, bytes: impl Into<Bytes>) {
        self.there
            .lock()
            .unwrap()
            .insert(name.to_owned(), bytes.into());
    }

    fn answers_first(&self, name: &str, codes: &[u16]) {
        self.first
            .lock()
            .unwrap()
            .insert(name.to_owned(), codes.to_vec());
    }

    fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }

    /// An input from here.
    fn input(&self, name: &str, to: &Path) -> Input {
        Input {
            from: Source::Address(format!("{}/{name}", self.origin)),
            to: to.display().to_string(),
            into: false,
            sha256: None,
            packing: None,
            found: None,
        }
    }
}

fn packed(files: &[(&str, &str)]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (path, body) in files {
        let mut header = tar::Header::new_gnu();
        header.set_size(body.len() as u64);
        header.set_mode(0o644);
        // As it is written there: what leads elsewhere, too.
        let name = &mut header.as_old_mut().name;
        name[..path.len()].copy_from_slice(path.as_bytes());
        header.set_cksum();
        builder.append(&header, body.as_bytes()).unwrap();
    }
    builder.into_inner().unwrap()
}

fn gzipped(bytes: &[u8]) -> Vec<u8> {
    use std::io::Write as _;
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// A run with inputs, which are fetched by what it is delivered with.
fn needing(inputs: &[Input], command: &str) -> Run {
    Run {
        inputs: inputs.len() as u32,
        fetch: fetch_lines(inputs),
        ..run(command)
    }
}

/// The faults that a run told of its inputs, each with its number.
fn faults(bench: &Bench) -> Vec<(u32, Fault)> {
    let told = bench.told();
    let fetches = told.iter().filter_map(|told| told.fetch.clone());
    fetches
        .filter_map(|fetch| Some((fetch.input, fetch.fault?)))
        .collect()
}

/// A file, an archive and a compressed one are there before the command, whatever the tools are.
async fn are_there_before_the_command(shell: &str, client: Option<&str>) {
    let Some(tools) = tools(shell, client) else {
        return;
    };
    println!("{shell}, {client:?}");
    let mut bench = Bench::new().await;
    let files = Files::start().await;
    let model: Vec<u8> = (0..3_000_000_u32).map(|n| (n % 251) as u8).collect();
    files.hold("model.bin", model.clone());
    files.hold("set.tar", packed(&[("a/one", "1"), ("two", "2")]));
    files.hold("code.tgz", gzipped(&packed(&[("./main", "3")])));
    files.answers_first("set.tar", &[503]);
    let disk = tempfile::tempdir().unwrap();
    let at = |name: &str| disk.path().join(name);
    let mut inputs = [
        files.input("model.bin", &at("deep/er/model")),
        files.input("set.tar", &at("set")),
        files.input("code.tgz", &at("code here")),
    ];
    inputs[0].sha256 = Some(Sum::of(&model).to_string());
    inputs[1].packing = Some(Packing::Tar);
    inputs[2].packing = Some(Packing::TarGz);
    let command = format!(
        "cd '{}' && cat set/a/one set/two 'code here/main' && echo && wc -c <deep/er/model && ls -A",
        disk.path().display()
    );
    let until = bench.now() + Duration::from_hours(50);
    let needs = needing(&inputs, &command);
    bench.rent(&needs, Some(tools.path()), says(1, "go", until));
    let result = bench.until_told("result").await;
    assert_eq!(result.exit, Some(0), "{shell} {client:?}: {}", bench.log());
    let log = bench.log();
    assert!(log.contains("123"), "{log}");
    assert!(log.lines().any(|line| line.trim() == "3000000"), "{log}");
    let order: Vec<String> = bench.told().into_iter().map(|told| told.state).collect();
    let place = |state: &str| order.iter().position(|known| known == state);
    assert!(place("fetching") < place("running"), "{order:?}");
    // Nothing is left beside them but what says which they are.
    let beside: Vec<_> = fs::read_dir(disk.path())
        .unwrap()
        .map(|e| e.unwrap().file_name())
        .collect();
    assert!(
        !beside
            .iter()
            .any(|name| name.to_string_lossy().contains(".new")),
        "{beside:?}"
    );
    assert_eq!(fs::read(at("deep/er/model")).unwrap(), model);

    // Another run on the same disk: what it has it does not get again, and what is another it does.
    let asked = files.asked().len();
    fs::write(at("set/mine"), "written by the command").unwrap();
    let changed: Vec<u8> = model.iter().rev().copied().collect();
    files.hold("model.bin", changed.clone());
    inputs[0].sha256 = Some(Sum::of(&changed).to_string());
    let (account, id) = (bench.account, bench.id);
    bench
        .server
        .with_market(|market| market.destroy(account, id))
        .unwrap();
    bench.until("gone", |bench| !bench.room().exists()).await;
    let next = needing(&inputs, "true");
    bench.rent(&next, Some(tools.path()), says(1, "go", until));
    assert_eq!(bench.until_told("result").await.exit, Some(0));
    let again = files.asked()[asked..].to_vec();
    assert_eq!(again, ["/model.bin"]);
    assert_eq!(fs::read(at("deep/er/model")).unwrap(), changed);
    assert!(at("set/mine").exists(), "it is the same one");
}

#[tokio::test]
async fn inputs_are_there_before_the_command() {
    are_there_before_the_command("dash", Some("curl")).await;
}

#[tokio::test]
async fn any_shell_and_any_client_fetches_them() {
    are_there_before_the_command("bash", Some("wget")).await;
    are_there_before_the_command("ash", Some("python3")).await;
}

#[tokio::test]
async fn a_little_client_fetches_them() {
    are_there_before_the_command("ash", Some("busybox wget")).await;
}

/// What is refused, is wrong, or has no place is told of with its number and place, and never with its
/// address; the command does not begin.
async fn is_told_of(client: &str, cases: usize) {
    let Some(tools) = tools("dash", Some(client)) else {
        return;
    };
    println!("{client}");
    let files = Files::start().await;
    files.hold("good", "good");
    files.hold("evil.tar", packed(&[("../evil", "x")]));
    files.hold("broken.tar", "no archive");
    let disk = tempfile::tempdir().unwrap();
    let at = |name: &str| disk.path().join(name);
    fs::create_dir_all(at("full/of")).unwrap();
    let good = files.input("good", &at("good"));
    let mut wrong = files.input("good", &at("wrong"));
    wrong.sha256 = Some(Sum::of(b"bad").to_string());
    let tree = |name: &str, to: &str| Input {
        packing: Some(Packing::Tar),
        ..files.input(name, &at(to))
    };
    let all = [
        (
            files.input("secret-name", &at("none")),
            Fault::Refused,
            "it is not there",
        ),
        (wrong, Fault::Wrong, "another SHA-256"),
        (
            tree("evil.tar", "tree"),
            Fault::Wrong,
            "no archive that can be unpacked",
        ),
        (tree("broken.tar", "tree"), Fault::Wrong, "no archive"),
        (
            tree("evil.tar", "full"),
            Fault::Place,
            "something else in its place",
        ),
        (
            files.input("good", &at("full")),
            Fault::Place,
            "something else in its place",
        ),
    ];
    for (input, fault, words) in all.into_iter().take(cases) {
        let mut bench = Bench::new().await;
        let until = bench.now() + Duration::from_hours(5);
        let needs = needing(&[good.clone(), input], "echo it began");
        bench.rent_with(
            &needs,
            Some(tools.path()),
            says(1, "go", until),
            &[("HAGGLE_PAUSE", "0.1")],
        );
        let trouble = bench.until_told("trouble").await;
        assert_eq!(
            faults(&bench).first(),
            Some(&(2, fault)),
            "{client}: {}",
            bench.log()
        );
        let said = trouble.trouble.unwrap();
        assert!(
            said.contains(words) && said.contains(": input 2 for "),
            "{said}"
        );
        assert!(!bench.log().contains(&files.origin) && !bench.log().contains("secret-name"));
        assert!(!bench.log().contains("it began"));
        assert!(at("good").exists() && at("full/of").exists());
        assert!(
            !at("wrong").exists() && !at("tree").exists() && !disk.path().join("evil").exists()
        );
    }
    // Three times each.
    let asked = files.asked();
    let refused = asked
        .iter()
        .filter(|path| path.contains("secret-name"))
        .count();
    assert!(refused >= 3, "{asked:?}");
}

#[tokio::test]
async fn an_input_that_cannot_be_had_is_told_of_and_the_command_waits() {
    is_told_of("curl", 6).await;
}

#[tokio::test]
async fn another_client_tells_the_same_of_inputs() {
    is_told_of("wget", 2).await;
    is_told_of("busybox wget", 2).await;
}

#[tokio::test]
async fn python_tells_the_same_of_inputs() {
    is_told_of("python3", 1).await;
}

#[tokio::test]
async fn one_that_resumes_does_not_fetch_them_again() {
    let mut bench = Bench::new().await;
    let files = Files::start().await;
    files.hold("x", "a first start");
    let disk = tempfile::tempdir().unwrap();
    let to = disk.path().join("x");
    let mut input = files.input("moved-x", &to);
    input.sha256 = Some(Sum::of(b"a first start").to_string());
    let started = disk.path().join("started");
    let command = format!(
        "echo x >> '{}'; cat '{}'; sleep 600",
        started.display(),
        to.display()
    );
    let until = bench.now() + Duration::from_hours(50);
    bench.rent(&needing(&[input], &command), None, says(1, "go", until));
    bench.until("at work", |_| started.exists()).await;
    // It followed where it was sent.
    assert_eq!(files.asked(), ["/moved-x", "/x"]);
    // The label says hold, and then go: nothing is asked for again.
    bench.relabel(&says(1, "hold", until));
    bench.until_told("ending").await;
    bench.relabel(&says(1, "go", until));
    let times = |wanted: usize| {
        let started = started.clone();
        move |_: &Bench| fs::read_to_string(&started).unwrap().lines().count() == wanted
    };
    bench.until("at work again", times(2)).await;
    // Its container ends, and starts again on the same disk.
    let (account, id) = (bench.account, bench.id);
    let stop = |market: &mut Market| market.stop(account, id);
    bench.server.with_market(stop).unwrap();
    bench.pass(Duration::from_mins(10));
    let start = |market: &mut Market| market.start(account, id).map(drop);
    bench.server.with_market(start).unwrap();
    bench.pass(Duration::from_mins(10));
    bench.until("started again", times(3)).await;
    assert_eq!(files.asked().len(), 2);
    let fetched = bench
        .told()
        .iter()
        .filter(|told| told.state == "fetching")
        .count();
    assert!(fetched <= 1, "{}", bench.log());
}

#[tokio::test]
async fn what_a_document_says_of_an_input_is_fetched() {
    let mut bench = Bench::new().await;
    let (there, store) = (bench.objects.clone(), bench.store.clone());
    let archive = packed(&[("./a", "1")]);
    let disk = tempfile::tempdir().unwrap();
    let to = disk.path().join("d");
    let input = Input {
        from: Source::Path("d".into()),
        to: to.display().to_string(),
        into: true,
        sha256: None,
        packing: None,
        found: Some(Found {
            mark: Sum::of(&archive).to_string(),
            bytes: archive.len() as u64,
            is_directory: true,
        }),
    };
    let mut needs = run(&format!("cat '{}/a'; echo so it is", to.display()));
    needs.inputs = 1;
    needs.control = Some(bench.control(false));
    let address = |_: &Input| Ok::<_, ()>(format!("{store}/signed"));
    let lines = input_lines(std::slice::from_ref(&input), address).unwrap();
    let mut document = there.lock().unwrap()["control"].to_vec();
    document.extend_from_slice(lines.as_bytes());
    there
        .lock()
        .unwrap()
        .insert("control".to_owned(), document.into());
    let until = bench.now() + Duration::from_hours(5);
    bench.rent_with(
        &needs,
        None,
        says(1, "go", until),
        &[("HAGGLE_PAUSE", "0.1"), ("HAGGLE_AGAIN", "1")],
    );
    // Its address does not work yet: that is no fault of the job's that it could know of.
    bench
        .until("told", |bench| faults(bench) == [(1, Fault::Refused)])
        .await;
    bench.keep_bytes("signed", archive);
    let result = bench.until_told("result").await;
    assert_eq!(result.exit, Some(0));
    assert!(bench.log().contains("1so it is"), "{}", bench.log());
}

/// A run of one input, and what it tells of it first.
async fn first_told(tools: &Path, input: Input, variables: &[(&str, &str)]) -> (Bench, Fault) {
    let mut bench = Bench::new().await;
    let until = bench.now() + Duration::from_hours(5);
    let needs = needing(&[input], "echo it began");
    let mut given = vec![("HAGGLE_PAUSE", "0.1")];
    given.extend(variables);
    bench.rent_with(&needs, Some(tools), says(1, "go", until), &given);
    bench.until_told("trouble").await;
    let first = faults(&bench).first().copied();
    let (_, fault) = first.unwrap_or_else(|| panic!("{}", bench.log()));
    (bench, fault)
}

/// The same, where its length is known.
fn long(input: Input, bytes: u64) -> Input {
    let found = Some(Found {
        mark: "m".to_owned(),
        bytes,
        is_directory: false,
    });
    Input { found, ..input }
}

/// Makes a disk have so many KB free, as long as a file is there.
fn has_free(tools: &Path, kb: u32, once: &Path) {
    use std::os::unix::fs::PermissionsExt as _;
    let df = tools.join("df");
    let _ = fs::remove_file(&df);
    let script = format!(
        "#!/bin/sh\nfree={kb}\n[ ! -e '{}' ] || free=9000000\n\
         echo \"overlay 9999999 1 $free 99% /\"\nrm -f '{}'\n",
        once.display(),
        once.display()
    );
    fs::write(&df, script).unwrap();
    fs::set_permissions(&df, fs::Permissions::from_mode(0o755)).unwrap();
}

#[tokio::test]
async fn a_disk_without_room_is_told_of_and_no_machine_is_to_blame() {
    let Some(tools) = tools("dash", Some("curl")) else {
        return;
    };
    let files = Files::start().await;
    files.hold("large", vec![7; 3_000_000]);
    files.hold("broken.tar", "no archive");
    let disk = tempfile::tempdir().unwrap();
    let to = disk.path().join("x");
    let once = disk.path().join("once");
    // It is known before anything is read, unpacked it takes twice its length.
    has_free(tools.path(), 4000, &once);
    let mut packed = long(files.input("large", &to), 3_000_000);
    packed.packing = Some(Packing::Tar);
    let (bench, fault) = first_told(tools.path(), packed, &[]).await;
    assert_eq!(fault, Fault::Place, "{}", bench.log());
    let log = bench.log();
    assert!(
        log.contains("it needs 5858 KB, and 4000 KB are free"),
        "{log}"
    );
    assert_eq!(files.asked(), Vec::<String>::new());
    // Or it turns out.
    for (name, is_packed) in [("none", false), ("broken.tar", true)] {
        if name == "none" {
            files.answers_first(name, &[503; 9]);
        }
        has_free(tools.path(), 100, &once);
        fs::write(&once, "").unwrap();
        let mut input = files.input(name, &to);
        input.packing = is_packed.then_some(Packing::Tar);
        let (bench, fault) = first_told(tools.path(), input, &[]).await;
        assert_eq!(fault, Fault::Place, "{}", bench.log());
        let log = bench.log();
        assert!(
            log.contains("the disk is full: raise disk in machine"),
            "{log}"
        );
    }
}

#[tokio::test]
async fn an_object_that_was_written_over_is_told_of_as_that() {
    let files = Files::start().await;
    files.hold("x", "longer than before");
    let disk = tempfile::tempdir().unwrap();
    for (client, expected) in [("curl", Fault::Changed), ("busybox wget", Fault::Unread)] {
        let Some(tools) = tools("dash", Some(client)) else {
            continue;
        };
        let input = long(files.input("x", &disk.path().join("x")), 6);
        let (bench, fault) = first_told(tools.path(), input, &[]).await;
        assert_eq!(fault, expected, "{client}: {}", bench.log());
        assert!(!disk.path().join("x").exists());
    }
}

#[tokio::test]
async fn a_download_that_stalls_is_given_up() {
    use tokio::io::AsyncWriteExt as _;
    let Some(tools) = tools("dash", Some("curl")) else {
        return;
    };
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let origin = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        let mut all = Vec::new();
        while let Ok((mut stream, _)) = listener.accept().await {
            let part = b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\na part";
            let _ = stream.write_all(part).await;
            // It stays open, and nothing more is written.
            all.push(stream);
        }
    });
    let disk = tempfile::tempdir().unwrap();
    let stalls = Files {
        origin,
        ..Files::default()
    };
    let input = stalls.input("x", &disk.path().join("x"));
    let variables = [("HAGGLE_STALL", "1")];
    let (bench, fault) = first_told(tools.path(), input, &variables).await;
    assert_eq!(fault, Fault::Unread, "{}", bench.log());
}

#[tokio::test]
async fn what_is_unpacked_is_of_whoever_unpacks_it() {
    use std::os::unix::fs::MetadataExt as _;
    for (shell, client) in [("dash", "curl"), ("ash", "busybox wget")] {
        let Some(tools) = tools(shell, Some(client)) else {
            continue;
        };
        let files = Files::start().await;
        let mut builder = tar::Builder::new(Vec::new());
        let mut header = tar::Header::new_gnu();
        header.set_size(1);
        header.set_mode(0o644);
        header.set_uid(2_000_000);
        header.set_gid(2_000_000);
        builder.append_data(&mut header, "a", &b"1"[..]).unwrap();
        files.hold("set.tar", builder.into_inner().unwrap());
        let disk = tempfile::tempdir().unwrap();
        let mut input = files.input("set.tar", &disk.path().join("d"));
        input.packing = Some(Packing::Tar);
        let mut bench = Bench::new().await;
        let until = bench.now() + Duration::from_hours(5);
        let needs = needing(&[input], "true");
        bench.rent(&needs, Some(tools.path()), says(1, "go", until));
        assert_eq!(bench.until_told("result").await.exit, Some(0));
        let ours = fs::metadata(disk.path()).unwrap().uid();
        let owner = fs::metadata(disk.path().join("d/a")).unwrap().uid();
        assert_eq!(owner, ours, "{shell}");
    }
}
