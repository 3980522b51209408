//! What a run keeps in S3-compatible storage: by a server on loopback that tries every signature.

#![allow(clippy::unwrap_used, reason = "a test may fail by panicking")]

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use crate::server::{ACCESS, BUCKET, Odd, REGION, SECRET, Server};
use bytes::Bytes;
use haggle::storage::{
    DownloadError, Key, ManifestError, Objects, Place, Restore, RunKeys, StorageError, Sum, Tree,
    Turn, UnpackError, Unpacked, Why, control, download, is_whole,
};
use haggle::types::ids::{IntentId, ReplicaId};
use haggle::types::job::{SecretRef, Storage};
use haggle::types::time::Time;
use reqwest::{Client, Method};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

const NOW: Time = Time(1_795_543_507_000);
const HOUR: Duration = Duration::from_hours(1);
const MIB: u64 = 1024 * 1024;

fn storage(endpoint: &str) -> Storage {
    Storage {
        endpoint: endpoint.to_owned(),
        region: REGION.to_owned(),
        bucket: BUCKET.to_owned(),
        prefix: "runs".to_owned(),
        access_key: SecretRef::Env("A".to_owned()),
        secret_key: SecretRef::Env("S".to_owned()),
    }
}

fn place(endpoint: &str) -> Place {
    Place::new(&storage(endpoint), ACCESS.into(), SECRET.into()).unwrap()
}

fn objects(endpoint: &str) -> Objects {
    Objects::new(place(endpoint)).unwrap()
}

fn replica() -> ReplicaId {
    ReplicaId {
        job: "train".parse().unwrap(),
        index: 0,
    }
}

fn keys(objects: &Objects) -> RunKeys {
    objects.place().keys(&replica(), IntentId(5))
}

/// An error that tells what it must, and nothing that it must not.
fn harmless(error: StorageError) -> Why {
    let shown = format!("{error} {error:?}");
    for hidden in ["X-Amz", "Signature=", "http://", SECRET, ACCESS] {
        assert!(!shown.contains(hidden), "{shown}");
    }
    let named = shown.contains(&error.bucket) && shown.contains(error.key.as_str());
    assert!(named && shown.contains("127.0.0.1"), "{shown}");
    error.why
}

fn refused(status: u16, code: &str) -> Why {
    let code = code.to_owned();
    Why::Refused { status, code }
}

/// What somebody gets who has nothing but an address.
async fn ask(method: Method, url: &str, body: &str) -> (u16, String) {
    let client = Client::builder().no_proxy().build().unwrap();
    let request = client.request(method, url).body(body.to_owned());
    let reply = request.send().await.unwrap();
    (reply.status().as_u16(), reply.text().await.unwrap())
}

// ----------------------------------------------------------------------------------------- objects

#[tokio::test]
async fn objects_are_written_read_and_deleted() {
    let server = Server::start(NOW).await;
    let objects = objects(&server.origin);
    let key = keys(&objects).control();
    assert_eq!(objects.get(&key, MIB, NOW).await, Ok(None));
    let text = Bytes::from_static(b"haggle 1\n");
    objects.put(&key, text.clone(), NOW).await.unwrap();
    assert_eq!(server.keys(), ["runs/train/r0/5/control"]);
    let read = |most| objects.get(&key, most, NOW);
    assert_eq!(read(MIB).await, Ok(Some(text.clone())));
    assert_eq!(read(9).await, Ok(Some(text)));
    // One byte more than is wanted is too much.
    assert_eq!(harmless(read(8).await.unwrap_err()), Why::Large(8));
    objects.put(&key, Bytes::new(), NOW).await.unwrap();
    assert_eq!(read(0).await, Ok(Some(Bytes::new())));
    objects.delete(&key, NOW).await.unwrap();
    assert_eq!(read(MIB).await, Ok(None));
    objects.delete(&key, NOW).await.unwrap();
    assert!(server.keys().is_empty());
}

#[tokio::test]
async fn a_wrong_key_region_bucket_or_clock_is_told_and_never_taken_for_absence() {
    let server = Server::start(NOW).await;
    let of = |storage: Storage, access: &str, secret: &str| {
        Objects::new(Place::new(&storage, access.into(), secret.into()).unwrap()).unwrap()
    };
    let right = storage(&server.origin);
    let region = Storage {
        region: "us-east-1".to_owned(),
        ..right.clone()
    };
    let bucket = Storage {
        bucket: "another".to_owned(),
        ..right.clone()
    };
    for (objects, status, code) in [
        (
            of(right.clone(), ACCESS, "wrong"),
            403,
            "SignatureDoesNotMatch",
        ),
        (
            of(right.clone(), "AKOTHER", SECRET),
            403,
            "InvalidAccessKeyId",
        ),
        (
            of(region, ACCESS, SECRET),
            400,
            "AuthorizationHeaderMalformed",
        ),
        (of(bucket, ACCESS, SECRET), 404, "NoSuchBucket"),
    ] {
        let key = keys(&objects).control();
        let read = objects.get(&key, MIB, NOW).await.unwrap_err();
        assert!(read.to_string().contains(code), "{read}");
        assert_eq!(harmless(read), refused(status, code));
        let put = objects.put(&key, Bytes::from_static(b"x"), NOW).await;
        assert_eq!(harmless(put.unwrap_err()), refused(status, code));
        let deleted = objects.delete(&key, NOW).await.unwrap_err();
        assert_eq!(harmless(deleted), refused(status, code));
    }
    assert!(server.keys().is_empty());
    // A clock that is an hour off, either way.
    let objects = objects(&server.origin);
    let key = keys(&objects).control();
    for (now, code) in [
        (NOW + HOUR, "RequestTimeTooSkewed"),
        (NOW - HOUR, "AccessDenied"),
    ] {
        let read = objects.get(&key, MIB, now).await.unwrap_err();
        assert_eq!(harmless(read), refused(403, code));
    }
}

#[tokio::test]
async fn what_is_no_answer_of_s3_is_an_error_and_no_redirect_is_followed() {
    let server = Server::start(NOW).await;
    let objects = objects(&server.origin);
    let key = keys(&objects).control();
    server.hold("elsewhere", "of another");
    for (odd, why, passing) in [
        (Odd::Lost, refused(404, ""), false),
        (Odd::Redirect, refused(307, ""), false),
        (Odd::Busy, refused(503, "SlowDown"), true),
    ] {
        server.be_odd(key.as_str(), odd);
        let read = objects.get(&key, MIB, NOW).await.unwrap_err();
        assert_eq!(read.why.is_passing(), passing, "{read}");
        assert_eq!(harmless(read), why);
        let deleted = objects.delete(&key, NOW).await.unwrap_err();
        assert_eq!(harmless(deleted), why);
    }
    let asked = server.inside.lock().unwrap().asked.clone();
    assert!(asked.iter().all(|a| !a.ends_with("elsewhere")), "{asked:?}");
}

/// Answers every request with these bytes; then again and again with zeros where it is `endless`.
async fn raw(reply: &'static str, endless: bool) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let origin = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        while let Ok((mut socket, _)) = listener.accept().await {
            let mut request = [0; 4096];
            let _ = socket.read(&mut request).await;
            let mut sent = socket.write_all(reply.as_bytes()).await;
            while endless && sent.is_ok() {
                sent = socket.write_all(&[0; 4096]).await;
            }
        }
    });
    origin
}

#[tokio::test]
async fn an_answer_without_end_or_with_too_early_a_one_is_an_error() {
    let cut = raw(
        "HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\nshort",
        false,
    )
    .await;
    let objects_of_cut = objects(&cut);
    let key = keys(&objects_of_cut).control();
    let read = objects_of_cut.get(&key, MIB, NOW).await.unwrap_err();
    let why = harmless(read);
    assert!(matches!(why, Why::Broken(_)), "{why}");

    let objects_of_endless = objects(&raw("HTTP/1.1 200 OK\r\n\r\n", true).await);
    let read = objects_of_endless.get(&key, MIB, NOW).await.unwrap_err();
    assert_eq!(harmless(read), Why::Large(MIB));
    let file = tempfile::tempfile().unwrap();
    let mut written = tokio::fs::File::from_std(file.try_clone().unwrap());
    let read = objects_of_endless.get_into(&key, &mut written, MIB, NOW);
    assert_eq!(harmless(read.await.unwrap_err()), Why::Large(MIB));
    assert!(file.metadata().unwrap().len() <= MIB);
    // An error's document is not read to its end, either.
    let endless = raw("HTTP/1.1 500 No\r\n\r\n<Code>InternalError</Code>", true).await;
    let read = objects(&endless).get(&key, MIB, NOW).await.unwrap_err();
    assert_eq!(harmless(read), refused(500, "InternalError"));

    // A part of the object is not the object.
    let part = raw("HTTP/1.1 206 Partial\r\ncontent-length: 1\r\n\r\nx", false).await;
    let read = objects(&part).get(&key, MIB, NOW).await.unwrap_err();
    assert_eq!(harmless(read), refused(206, ""));

    // Nobody listens.
    let free = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let origin = format!("http://{}", free.local_addr().unwrap());
    drop(free);
    let put = objects(&origin).put(&key, Bytes::new(), NOW).await;
    let why = harmless(put.unwrap_err());
    assert!(matches!(why, Why::Connect(_)) && why.is_passing(), "{why}");
}

// --------------------------------------------------------------------------------------- addresses

#[tokio::test]
async fn an_address_does_what_it_was_signed_for_until_it_expires() {
    let server = Server::start(NOW).await;
    let objects = objects(&server.origin);
    let (place, keys) = (objects.place(), keys(&objects));
    let (mine, other) = (keys.tar(Tree::Outputs), keys.control());
    server.hold(other.as_str(), "of another");
    let put = place.put_url(&mine, NOW, HOUR).unwrap();
    let get = place.get_url(&mine, NOW, HOUR).unwrap();
    assert_eq!(ask(Method::PUT, put.expose(), "result").await.0, 200);
    let read = ask(Method::GET, get.expose(), "").await;
    assert_eq!(read, (200, "result".to_owned()));

    // Another method, another object, a longer life, another time, no signature at all.
    let (put, get) = (put.expose(), get.expose());
    let elsewhere = |url: &str| url.replace("outputs.tar", "control");
    let bare = get.split_once('?').unwrap().0;
    for (method, url) in [
        (Method::GET, put.to_owned()),
        (Method::DELETE, put.to_owned()),
        (Method::PUT, get.to_owned()),
        (Method::DELETE, get.to_owned()),
        (Method::GET, elsewhere(get)),
        (Method::PUT, elsewhere(put)),
        (Method::GET, get.replace("r0/5/", "r0/6/")),
        (Method::GET, get.replace("Expires=3600", "Expires=7200")),
        (
            Method::GET,
            get.replace("20261124T180507Z", "20261124T180508Z"),
        ),
        (Method::GET, bare.to_owned()),
    ] {
        let reply = ask(method.clone(), &url, "evil").await;
        assert_eq!(reply.0, 403, "{method} {url}: {reply:?}");
    }
    assert_eq!(server.has(mine.as_str()).unwrap(), "result");
    assert_eq!(server.has(other.as_str()).unwrap(), "of another");

    // To the second.
    server.set_clock(NOW + HOUR - Duration::from_secs(1));
    assert_eq!(ask(Method::GET, get, "").await.0, 200);
    server.set_clock(NOW + HOUR);
    assert_eq!(ask(Method::GET, get, "").await.0, 403);
    assert_eq!(ask(Method::PUT, put, "late").await.0, 403);
    assert_eq!(server.has(mine.as_str()).unwrap(), "result");
}

#[tokio::test]
async fn a_control_document_lets_a_run_do_its_work_and_no_more() {
    let server = Server::start(NOW).await;
    let objects = objects(&server.origin);
    let earlier = objects.place().keys(&replica(), IntentId(4));
    let checkpoint = Tree::Checkpoint(Turn::One);
    server.hold(earlier.tar(checkpoint).as_str(), "an archive");
    server.hold(earlier.manifest(checkpoint).as_str(), "its manifest");
    let restore = Restore {
        run: IntentId(4),
        turn: Turn::One,
        manifest: Sum::of(b"its manifest"),
    };
    let place = objects.place();
    let written = control(
        place,
        &replica(),
        IntentId(5),
        (Some(&restore), Some(Turn::Zero)),
        NOW,
        2 * HOUR,
    )
    .unwrap();
    let key = keys(&objects).control();
    objects
        .put(&key, Bytes::from(written.clone()), NOW)
        .await
        .unwrap();

    // As the runner reads it.
    let lines: BTreeMap<&str, &str> = written
        .lines()
        .filter_map(|line| line.split_once(' '))
        .collect();
    assert_eq!(lines["haggle"], "1");
    let again = ask(Method::GET, lines["control"], "").await;
    assert_eq!(again, (200, written.clone()));
    let archive = ask(Method::GET, lines["restore.tar"], "").await;
    assert_eq!(archive, (200, "an archive".to_owned()));
    let manifest = ask(Method::GET, lines["restore.manifest"], "").await;
    assert_eq!(
        Sum::of(manifest.1.as_bytes()).to_string(),
        lines["restore.sum"]
    );
    for tree in Tree::ALL {
        for name in ["tar", "manifest"] {
            let url = lines[format!("{}.{name}", tree.name()).as_str()];
            assert_eq!(ask(Method::PUT, url, "kept").await.0, 200);
            let read = ask(Method::GET, url, "").await;
            assert_eq!(read.0, 403, "what it may write it need not read");
        }
        let keys = keys(&objects);
        for key in [keys.tar(tree), keys.manifest(tree)] {
            assert_eq!(server.has(key.as_str()).unwrap(), "kept");
        }
    }
    for name in ["control", "restore.tar", "restore.manifest"] {
        assert_eq!(ask(Method::PUT, lines[name], "evil").await.0, 403);
        assert_eq!(ask(Method::DELETE, lines[name], "").await.0, 403);
    }
    // When it is given up, it can do all that for so long, and not longer.
    server.set_clock(NOW + 2 * HOUR);
    let addresses = lines.iter().filter(|(_, url)| url.starts_with("http"));
    for (name, url) in addresses.filter(|(name, _)| **name != "control") {
        for method in [Method::GET, Method::PUT] {
            assert_eq!(ask(method, url, "evil").await.0, 403, "{name}");
        }
    }
    assert_eq!(server.keys().len(), 11);
    // It learns of new addresses even after a long time in which nobody renewed them.
    let again = ask(Method::GET, lines["control"], "").await;
    assert_eq!(again, (200, written.clone()));
    assert_eq!(lines["keep"], "0");
}

// ---------------------------------------------------------------------------------------- download

/// An archive and its manifest, as a run makes them.
fn kept(files: &[(&str, &[u8])]) -> (Vec<u8>, String) {
    let mut builder = tar::Builder::new(Vec::new());
    let mut lines = String::new();
    for (path, body) in files {
        let mut header = tar::Header::new_gnu();
        header.set_size(body.len() as u64);
        header.set_mode(0o644);
        builder
            .append_data(&mut header, format!("./{path}"), *body)
            .unwrap();
        lines += &format!("{} {} ./{path}\n", Sum::of(body), body.len());
    }
    let archive = builder.into_inner().unwrap();
    let head = format!("haggle 1 5 {} {}\n", Sum::of(&archive), archive.len());
    (archive, head + &lines)
}

#[tokio::test]
async fn what_is_not_as_it_was_told_is_not_whole() {
    let bench = Bench::new().await;
    let keys = keys(&bench.objects);
    let whole = |told| is_whole(&bench.objects, &keys, Tree::Outputs, told, NOW);
    let (archive, manifest) = kept(&[("a", b"one")]);
    let told = Sum::of(manifest.as_bytes());
    assert_eq!(whole(told).await, Ok(false), "nothing is there");
    bench.hold(&archive, &manifest);
    assert_eq!(whole(told).await, Ok(true));
    assert_eq!(whole(Sum::of(b"another")).await, Ok(false));
    bench.hold(&archive[1..], &manifest);
    assert_eq!(whole(told).await, Ok(false), "the archive is too short");
    let of_another = manifest.replacen("haggle 1 5 ", "haggle 1 6 ", 1);
    bench.hold(&archive, &of_another);
    let told = Sum::of(of_another.as_bytes());
    assert_eq!(whole(told).await, Ok(false), "it is another run's");
    // What cannot be read is not known.
    let key = keys.manifest(Tree::Outputs);
    bench.server.be_odd(key.as_str(), Odd::Busy);
    whole(told).await.unwrap_err();
}

/// A run that kept its outputs, and a disk for them.
struct Bench {
    server: Server,
    objects: Objects,
    dir: tempfile::TempDir,
}

impl Bench {
    async fn new() -> Self {
        let server = Server::start(NOW).await;
        let objects = objects(&server.origin);
        let dir = tempfile::tempdir().unwrap();
        Self {
            server,
            objects,
            dir,
        }
    }

    fn key(&self, of: fn(&RunKeys, Tree) -> Key) -> Key {
        of(&keys(&self.objects), Tree::Outputs)
    }

    fn hold(&self, archive: &[u8], manifest: &str) {
        let tar = self.key(RunKeys::tar);
        self.server.hold(tar.as_str(), archive.to_vec());
        let list = self.key(RunKeys::manifest);
        self.server.hold(list.as_str(), manifest.to_owned());
    }

    fn outputs(&self) -> PathBuf {
        self.dir.path().join("outputs")
    }

    async fn download(
        &self,
        told: Option<Sum>,
        most: u64,
    ) -> Result<Option<Unpacked>, DownloadError> {
        let keys = keys(&self.objects);
        let (tree, into) = (Tree::Outputs, self.outputs());
        download(&self.objects, &keys, tree, told, most, &into, NOW).await
    }

    async fn fails(&self, told: Option<Sum>, most: u64) -> DownloadError {
        let error = self.download(told, most).await.unwrap_err();
        let left = fs::read_dir(self.dir.path()).unwrap().count();
        assert_eq!(left, 0, "{error} left something");
        error
    }
}

#[tokio::test]
async fn outputs_come_whole_or_not_at_all() {
    let bench = Bench::new().await;
    assert!(bench.download(None, MIB).await.unwrap().is_none());
    let large = vec![9; 300_000];
    let (archive, manifest) = kept(&[("a", b"aaa"), ("deep/large", &large)]);
    let told = Some(Sum::of(manifest.as_bytes()));

    // Its manifest without it.
    let list = bench.key(RunKeys::manifest);
    bench.server.hold(list.as_str(), manifest.clone());
    let error = bench.fails(told, MIB).await;
    assert!(matches!(error, DownloadError::NoArchive), "{error}");

    bench.hold(&archive, &manifest);
    let unpacked = bench.download(told, MIB).await.unwrap().unwrap();
    let expected = Unpacked {
        files: 2,
        bytes: 300_003,
        left_out: 0,
    };
    assert_eq!(unpacked, expected);
    assert_eq!(fs::read(bench.outputs().join("deep/large")).unwrap(), large);
    assert_eq!(fs::read(bench.outputs().join("a")).unwrap(), b"aaa");
    // Nothing but it is there, and it is not written over.
    assert_eq!(fs::read_dir(bench.dir.path()).unwrap().count(), 1);
    let asked = bench.server.inside.lock().unwrap().asked.len();
    let again = bench.download(told, MIB).await.unwrap_err();
    let there = matches!(again, DownloadError::Unpack(UnpackError::There(_)));
    assert!(there, "{again}");
    // The archive was not asked for again.
    assert_eq!(bench.server.inside.lock().unwrap().asked.len(), asked + 1);
}

#[tokio::test]
async fn what_a_host_changed_is_not_taken() {
    let bench = Bench::new().await;
    let (archive, manifest) = kept(&[("a", b"aaa")]);
    let told = Some(Sum::of(manifest.as_bytes()));
    // Another result altogether, after the run told of its own.
    let (other, of_other) = kept(&[("a", b"evil")]);
    bench.hold(&other, &of_other);
    let error = bench.fails(told, MIB).await;
    let sum = matches!(error, DownloadError::Manifest(ManifestError::Sum { .. }));
    assert!(sum, "{error}");
    // The archive only: another one, a longer one, a shorter one.
    let mut longer = archive.clone();
    longer.extend_from_slice(&[0; 512]);
    for (bad, expected) in [
        (other.as_slice(), "is not"),
        (&longer, "bytes"),
        (&archive[..512], "is not as"),
        (b"", "less than"),
    ] {
        bench.hold(bad, &manifest);
        let error = bench.fails(told, MIB).await;
        assert!(error.to_string().contains(expected), "{error}");
    }
    // A manifest that is none, and one of another run.
    bench.hold(&archive, "haggle 2\n");
    let error = bench.fails(None, MIB).await;
    let head = matches!(error, DownloadError::Manifest(ManifestError::Head));
    assert!(head, "{error}");
    let of_another = manifest.replacen("haggle 1 5 ", "haggle 1 6 ", 1);
    bench.hold(&archive, &of_another);
    let error = bench.fails(None, MIB).await;
    assert!(matches!(
        error,
        DownloadError::OtherRun {
            expected: IntentId(5),
            found: IntentId(6)
        }
    ));
    // And right all the same.
    bench.hold(&archive, &manifest);
    assert!(bench.download(told, MIB).await.unwrap().is_some());
}

#[tokio::test]
async fn no_more_comes_to_the_disk_than_is_allowed() {
    let bench = Bench::new().await;
    let (archive, manifest) = kept(&[("a", &[1; 1000])]);
    bench.hold(&archive, &manifest);
    let needed = archive.len() as u64 + 1000;
    let error = bench.fails(None, needed - 1).await;
    let DownloadError::Large { bytes, most } = error else {
        panic!("{error}")
    };
    assert_eq!((bytes, most), (u128::from(needed), needed - 1));
    let asked = bench.server.inside.lock().unwrap().asked.clone();
    assert!(
        asked.iter().all(|a| !a.contains("outputs.tar")),
        "{asked:?}"
    );
    // More than all disks together.
    let sum = Sum::of(b"x");
    let most = u64::MAX;
    bench.hold(b"", &format!("haggle 1 5 {sum} {most}\n{sum} {most} a\n"));
    let error = bench.fails(None, u64::MAX).await;
    assert!(matches!(error, DownloadError::Large { .. }), "{error}");
    bench.hold(&archive, &manifest);
    assert!(bench.download(None, needed).await.unwrap().is_some());
}

#[tokio::test]
async fn what_leads_out_of_the_directory_is_not_taken() {
    let bench = Bench::new().await;
    let mut builder = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_size(4);
    header.as_old_mut().name[..9].copy_from_slice(b"../victim");
    header.set_cksum();
    builder.append(&header, &b"evil"[..]).unwrap();
    let archive = builder.into_inner().unwrap();
    let head = format!("haggle 1 5 {} {}\n", Sum::of(&archive), archive.len());
    bench.hold(&archive, &head);
    let error = bench.fails(None, MIB).await;
    let path = matches!(error, DownloadError::Unpack(UnpackError::Path { .. }));
    assert!(path, "{error}");
    let line = format!("{} 4 ../victim\n", Sum::of(b"evil"));
    bench.hold(&archive, &(head + &line));
    let error = bench.fails(None, MIB).await;
    let line = matches!(error, DownloadError::Manifest(ManifestError::Path { .. }));
    assert!(line, "{error}");
}
