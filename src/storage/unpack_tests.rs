//! Archives as a hostile host may make them, and as honest ones do.

use std::fs;
use std::path::{Path, PathBuf};

use tar::{Builder, EntryType, Header};

use super::manifest::{Manifest, PathFault};
use super::unpack::{UnpackError, Unpacked, unpack};
use super::{Listed, Sum};

/// One entry, written as it stands: the crate that makes archives would refuse most of them.
struct Put<'a> {
    kind: EntryType,
    name: &'a str,
    link: &'a str,
    body: &'a [u8],
}

fn file<'a>(name: &'a str, body: &'a [u8]) -> Put<'a> {
    let kind = EntryType::Regular;
    let link = "";
    Put {
        kind,
        name,
        link,
        body,
    }
}

fn other<'a>(kind: EntryType, name: &'a str, link: &'a str) -> Put<'a> {
    let body = b"";
    Put {
        kind,
        name,
        link,
        body,
    }
}

fn header(kind: EntryType, name: &[u8], link: &[u8], size: u64) -> Header {
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(0o4777);
    header.set_size(size);
    let old = header.as_old_mut();
    old.name[..name.len()].copy_from_slice(name);
    old.linkname[..link.len()].copy_from_slice(link);
    header.set_cksum();
    header
}

fn tar_of(entries: &[Put]) -> Vec<u8> {
    let mut builder = Builder::new(Vec::new());
    for put in entries {
        let size = put.body.len() as u64;
        let header = header(put.kind, put.name.as_bytes(), put.link.as_bytes(), size);
        builder.append(&header, put.body).unwrap();
    }
    builder.into_inner().unwrap()
}

fn manifest_of(archive: &[u8], files: &[(&str, &[u8])]) -> Manifest {
    let mut text = format!("haggle 1 5 {} {}\n", Sum::of(archive), archive.len());
    for (path, body) in files {
        text += &format!("{} {} ./{path}\n", Sum::of(body), body.len());
    }
    Manifest::parse(text.as_bytes()).unwrap()
}

/// A disk: a folder with another one beside it, which nothing may touch.
struct Disk {
    dir: tempfile::TempDir,
}

impl Disk {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("mine")).unwrap();
        fs::write(dir.path().join("victim"), "untouched").unwrap();
        Self { dir }
    }

    fn mine(&self) -> PathBuf {
        self.dir.path().join("mine")
    }

    fn outputs(&self) -> PathBuf {
        self.mine().join("outputs")
    }

    fn unpack(&self, archive: &[u8], manifest: &Manifest) -> Result<Unpacked, UnpackError> {
        let path = self.dir.path().join("archive");
        fs::write(&path, archive).unwrap();
        let unpacked = unpack(&path, manifest, &self.outputs());
        let victim = fs::read_to_string(self.dir.path().join("victim")).unwrap();
        assert_eq!(victim, "untouched");
        let beside = fs::read_dir(self.dir.path()).unwrap().count();
        assert_eq!(beside, 3, "something was written outside");
        unpacked
    }

    /// What must fail, and leave nothing.
    fn refuses(&self, archive: &[u8], manifest: &Manifest) -> UnpackError {
        let error = self.unpack(archive, manifest).unwrap_err();
        let left: Vec<_> = fs::read_dir(self.mine()).unwrap().collect();
        assert!(left.is_empty(), "{error}: {left:?}");
        assert!(!error.to_string().contains(char::is_control), "{error:?}");
        error
    }
}

fn tree(root: &Path) -> Vec<String> {
    let mut found = Vec::new();
    for entry in fs::read_dir(root).unwrap() {
        let path = entry.unwrap().path();
        let kind = path.symlink_metadata().unwrap().file_type();
        if kind.is_dir() {
            found.extend(tree(&path).iter().map(|below| {
                let name = path.file_name().unwrap().to_string_lossy();
                format!("{name}/{below}")
            }));
        } else {
            assert!(kind.is_file(), "{}", path.display());
            found.push(path.file_name().unwrap().to_string_lossy().into_owned());
        }
    }
    found.sort();
    found
}

const A: (&str, &[u8]) = ("a", b"aaa");

#[test]
fn an_honest_archive_is_unpacked() {
    let disk = Disk::new();
    let large = vec![7; 200_000];
    let archive = tar_of(&[
        other(EntryType::Directory, "./", ""),
        file("./a", b"aaa"),
        other(EntryType::Directory, "./empty/", ""),
        other(EntryType::Directory, "./deep/", ""),
        file("./deep/er/large", &large),
        file("./deep/er/none", b""),
        // As results have them, and as no manifest lists them.
        other(EntryType::Symlink, "./latest", "deep"),
        other(EntryType::Symlink, "./up", "../../victim"),
        file("./deep/.haggle-speed", b"of the runner"),
    ]);
    let manifest = manifest_of(
        &archive,
        &[A, ("deep/er/large", &large), ("deep/er/none", b"")],
    );
    let unpacked = disk.unpack(&archive, &manifest).unwrap();
    let expected = Unpacked {
        files: 3,
        bytes: 200_003,
        left_out: 3,
    };
    assert_eq!(unpacked, expected);
    assert_eq!(
        tree(&disk.outputs()),
        ["a", "deep/er/large", "deep/er/none"]
    );
    assert_eq!(
        fs::read(disk.outputs().join("deep/er/large")).unwrap(),
        large
    );
    // Nothing beside it is left, and nothing runs as somebody else.
    assert_eq!(fs::read_dir(disk.mine()).unwrap().count(), 1);
    use std::os::unix::fs::PermissionsExt as _;
    let mode = fs::metadata(disk.outputs().join("a"))
        .unwrap()
        .permissions();
    assert_eq!(mode.mode() & 0o7111, 0);
}

#[test]
fn what_is_there_is_not_touched() {
    let disk = Disk::new();
    let archive = tar_of(&[file("a", A.1)]);
    let manifest = manifest_of(&archive, &[A]);
    fs::create_dir(disk.outputs()).unwrap();
    fs::write(disk.outputs().join("a"), "older").unwrap();
    let error = disk.unpack(&archive, &manifest).unwrap_err();
    assert!(matches!(error, UnpackError::There(_)), "{error}");
    assert_eq!(fs::read(disk.outputs().join("a")).unwrap(), b"older");
    // A link to nowhere is there, too.
    fs::remove_dir_all(disk.outputs()).unwrap();
    std::os::unix::fs::symlink(disk.dir.path().join("x"), disk.outputs()).unwrap();
    let error = disk.unpack(&archive, &manifest).unwrap_err();
    assert!(matches!(error, UnpackError::There(_)), "{error}");
    // A parent that is not there is not made.
    let missing = disk.mine().join("no/such");
    let error = unpack(&disk.dir.path().join("archive"), &manifest, &missing);
    assert!(matches!(error, Err(UnpackError::Disk { .. })));
}

#[test]
fn paths_that_lead_elsewhere_are_refused() {
    for (name, expected) in [
        ("/victim", PathFault::Absolute),
        (".//victim", PathFault::Absolute),
        ("../victim", PathFault::Dots),
        ("./../victim", PathFault::Dots),
        ("a/../../victim", PathFault::Dots),
        ("a/./b", PathFault::Dots),
        ("..", PathFault::Dots),
        ("a//b", PathFault::Empty),
        ("a/", PathFault::Empty),
        ("", PathFault::Empty),
        ("a\nb", PathFault::Control),
        ("a\x1b]0;b", PathFault::Control),
    ] {
        let kinds = [EntryType::Regular, EntryType::Symlink, EntryType::Link];
        for kind in kinds {
            let archive = tar_of(&[file("a", A.1), other(kind, name, "a")]);
            let error = Disk::new().refuses(&archive, &manifest_of(&archive, &[A]));
            let UnpackError::Path { entry: 2, why } = error else {
                panic!("{name:?}: {error}")
            };
            assert_eq!(why, expected, "{name:?}");
        }
    }
    for name in ["/d/", "../d/", "a/../../d/", "..", "d//"] {
        let archive = tar_of(&[other(EntryType::Directory, name, ""), file("a", A.1)]);
        let error = Disk::new().refuses(&archive, &manifest_of(&archive, &[A]));
        assert!(
            matches!(error, UnpackError::Path { entry: 1, .. }),
            "{name}"
        );
    }
    // Bytes that are no text.
    let mut builder = Builder::new(Vec::new());
    builder
        .append(&header(EntryType::Regular, b"\xff\xfe", b"", 0), &b""[..])
        .unwrap();
    let archive = builder.into_inner().unwrap();
    let error = Disk::new().refuses(&archive, &manifest_of(&archive, &[]));
    let why = PathFault::NotText;
    assert!(matches!(error, UnpackError::Path { why: w, .. } if w == why));
}

#[test]
fn no_file_is_written_through_a_link() {
    // The classic: a link, and then a file "in" it. The link is not made, so the file is ours.
    for (kind, target) in [
        (EntryType::Symlink, ".."),
        (EntryType::Symlink, "/tmp"),
        (EntryType::Link, "../victim"),
    ] {
        let disk = Disk::new();
        let archive = tar_of(&[other(kind, "d", target), file("d/victim", b"evil")]);
        let manifest = manifest_of(&archive, &[("d/victim", b"evil")]);
        let unpacked = disk.unpack(&archive, &manifest).unwrap();
        assert_eq!((unpacked.files, unpacked.left_out), (1, 1));
        assert_eq!(tree(&disk.outputs()), ["d/victim"]);
    }
    // One in the place of a listed file: left out, and so the file is missing.
    for kind in [EntryType::Symlink, EntryType::Link] {
        let archive = tar_of(&[other(kind, "a", "../victim")]);
        let error = Disk::new().refuses(&archive, &manifest_of(&archive, &[A]));
        assert!(matches!(error, UnpackError::Missing(path) if path == "a"));
    }
    // One and then the file, as for writing through it.
    let disk = Disk::new();
    let archive = tar_of(&[
        other(EntryType::Symlink, "a", "../../victim"),
        file("a", A.1),
    ]);
    disk.unpack(&archive, &manifest_of(&archive, &[A])).unwrap();
    assert_eq!(tree(&disk.outputs()), ["a"]);
}

#[test]
fn what_is_neither_file_nor_directory_is_refused() {
    for kind in [
        EntryType::Char,
        EntryType::Block,
        EntryType::Fifo,
        EntryType::Continuous,
        EntryType::GNUSparse,
        EntryType::XGlobalHeader,
        EntryType::new(b'Z'),
    ] {
        let archive = tar_of(&[file("a", A.1), other(kind, "b", "")]);
        let error = Disk::new().refuses(&archive, &manifest_of(&archive, &[A]));
        let second = matches!(error, UnpackError::Kind { entry: 2, .. });
        assert!(second, "{kind:?}: {error}");
    }
}

#[test]
fn what_the_manifest_does_not_say_is_refused() {
    let refused = |entries: &[Put], files: &[(&str, &[u8])]| {
        let archive = tar_of(entries);
        Disk::new().refuses(&archive, &manifest_of(&archive, files))
    };
    let error = refused(&[file("a", A.1), file("b", b"b")], &[A]);
    assert!(matches!(error, UnpackError::Unlisted(path) if path == "b"));
    let error = refused(&[file("a", A.1), file("a", A.1)], &[A]);
    assert!(matches!(error, UnpackError::Unlisted(path) if path == "a"));
    let error = refused(&[file("a", A.1)], &[A, ("b", b"b")]);
    assert!(matches!(error, UnpackError::Missing(path) if path == "b"));
    for (body, expected) in [
        (&b"aa"[..], "its size"),
        (b"aaaa", "its size"),
        (b"aab", "its SHA-256"),
    ] {
        let error = refused(&[file("a", body)], &[A]);
        let UnpackError::Differs { path, what } = error else {
            panic!("{error}")
        };
        assert_eq!((path.as_str(), what), ("a", expected));
    }
    // One that shows in front of all others that it is left out is in no way more trusted.
    let error = refused(&[file("x/.haggle/b", b"b"), file("a", A.1)], &[A]);
    assert!(matches!(error, UnpackError::Unlisted(_)));
}

#[test]
fn another_archive_than_the_manifests_is_refused() {
    let archive = tar_of(&[file("a", A.1)]);
    let manifest = manifest_of(&archive, &[A]);
    // The same files, and other bytes elsewhere: a mode, what comes after the end.
    let mut changed = archive.clone();
    *changed.last_mut().unwrap() = 1;
    let longer = [archive.as_slice(), &[0]].concat();
    let shorter = &archive[..archive.len() - 1];
    for bad in [&changed, &longer, shorter] {
        let error = Disk::new().refuses(bad, &manifest);
        assert!(matches!(error, UnpackError::Another(_)), "{error}");
    }
    // Cut off in a file, by a manifest that says that this is right.
    let cut = &archive[..513];
    let error = Disk::new().refuses(cut, &manifest_of(cut, &[A]));
    assert!(matches!(error, UnpackError::Differs { .. }), "{error}");
}

#[test]
fn headers_that_lie_are_refused() {
    // A check sum that is wrong.
    let mut archive = tar_of(&[file("a", A.1)]);
    archive[0] = b'b';
    let error = Disk::new().refuses(&archive, &manifest_of(&archive, &[A]));
    assert!(matches!(error, UnpackError::Broken { entry: 1, .. }));
    // A size that is none, of a name that would write on a terminal.
    let mut lying = header(EntryType::Regular, b"\x1b[2J", b"", 0);
    lying.as_old_mut().size = *b"none of them";
    lying.set_cksum();
    let archive = [&lying.as_bytes()[..], &[0; 1024]].concat();
    let error = Disk::new().refuses(&archive, &manifest_of(&archive, &[A]));
    assert!(matches!(error, UnpackError::Broken { entry: 1, .. }));
    // More than there is, by far.
    for size in [u64::MAX, u64::MAX - 511, 1 << 62] {
        let mut builder = Builder::new(Vec::new());
        let lying = header(EntryType::Regular, b"a", b"", size);
        builder.append(&lying, A.1).unwrap();
        let archive = builder.into_inner().unwrap();
        Disk::new().refuses(&archive, &manifest_of(&archive, &[A]));
        // By a manifest that says the same.
        let text = format!("haggle 1 5 {} {}\n", Sum::of(&archive), archive.len());
        let text = format!("{text}{} {size} a\n", Sum::of(A.1));
        let manifest = Manifest::parse(text.as_bytes()).unwrap();
        assert_eq!(
            manifest.files()[0],
            Listed {
                sum: Sum::of(A.1),
                size,
                path: "a".to_owned()
            }
        );
        Disk::new().refuses(&archive, &manifest);
    }
    // No archive at all.
    for bytes in [&b"not an archive"[..], &[1; 1024]] {
        Disk::new().refuses(bytes, &manifest_of(bytes, &[A]));
    }
}

#[test]
fn long_names_are_taken_in_both_ways_of_writing_them() {
    let long = format!("{}/{}", "d".repeat(120), "n".repeat(200));
    let name = format!("./{long}\0");
    let disk = Disk::new();
    let gnu = tar_of(&[
        Put {
            kind: EntryType::GNULongLink,
            name: "././@LongLink",
            link: "",
            body: name.as_bytes(),
        },
        Put {
            kind: EntryType::GNULongName,
            name: "././@LongLink",
            link: "",
            body: name.as_bytes(),
        },
        file("./short", b"x"),
    ]);
    disk.unpack(&gnu, &manifest_of(&gnu, &[(&long, b"x")]))
        .unwrap();
    assert_eq!(tree(&disk.outputs()), [long.as_str()]);

    let disk = Disk::new();
    let mut builder = Builder::new(Vec::new());
    let records = [("mtime", &b"1.5"[..]), ("path", long.as_bytes())];
    builder.append_pax_extensions(records).unwrap();
    builder
        .append(&header(EntryType::Regular, b"short", b"", 1), &b"x"[..])
        .unwrap();
    builder
        .append(&header(EntryType::Regular, b"a", b"", 3), A.1)
        .unwrap();
    let pax = builder.into_inner().unwrap();
    disk.unpack(&pax, &manifest_of(&pax, &[(&long, b"x"), A]))
        .unwrap();
    // The name is of the next entry only.
    assert_eq!(tree(&disk.outputs()), ["a", long.as_str()]);
}

#[test]
fn extensions_that_lie_are_refused() {
    let extended = |records: &[(&str, &[u8])]| {
        let mut builder = Builder::new(Vec::new());
        builder
            .append_pax_extensions(records.iter().copied())
            .unwrap();
        builder
            .append(&header(EntryType::Regular, b"a", b"", 3), A.1)
            .unwrap();
        let archive = builder.into_inner().unwrap();
        Disk::new().refuses(&archive, &manifest_of(&archive, &[A]))
    };
    let error = extended(&[("path", b"../victim")]);
    let why = PathFault::Dots;
    assert!(matches!(error, UnpackError::Path { why: w, .. } if w == why));
    for key in ["size", "GNU.sparse.major", "GNU.sparse.name"] {
        let error = extended(&[(key, b"1")]);
        assert!(matches!(error, UnpackError::Kind { .. }), "{key}: {error}");
    }
    let put = |kind, body| Put {
        kind,
        name: "x",
        link: "",
        body,
    };
    let refused = |entries: &[Put]| {
        let archive = tar_of(entries);
        Disk::new().refuses(&archive, &manifest_of(&archive, &[A]))
    };
    // Not even read, for its size.
    let huge = vec![b'a'; 64 * 1024 + 1];
    for kind in [
        EntryType::GNULongName,
        EntryType::GNULongLink,
        EntryType::XHeader,
    ] {
        let error = refused(&[put(kind, &huge), file("a", A.1)]);
        assert!(matches!(error, UnpackError::Kind { entry: 1, .. }));
    }
    let twice = put(EntryType::GNULongName, b"../victim");
    let error = refused(&[put(EntryType::GNULongName, b"a"), twice, file("a", A.1)]);
    assert!(matches!(error, UnpackError::Kind { entry: 2, .. }));
    let up = put(EntryType::GNULongName, b"../victim\0");
    let error = refused(&[up, file("a", A.1)]);
    assert!(matches!(error, UnpackError::Path { entry: 2, .. }));
    for records in [&b"9999 path=x\n"[..], b"x", b"-1 path=x\n"] {
        let error = refused(&[put(EntryType::XHeader, records), file("a", A.1)]);
        assert!(matches!(error, UnpackError::Broken { entry: 1, .. }));
    }
}

#[test]
fn what_this_systems_tar_makes_of_a_directory_is_unpacked() {
    let source = tempfile::tempdir().unwrap();
    let long = format!("{}/{}", "d".repeat(120), "n".repeat(200));
    let files: [(&str, &[u8]); 3] = [A, ("sub/b c", b"bb"), (&long, b"x")];
    for (path, body) in files {
        let path = source.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, body).unwrap();
    }
    fs::create_dir(source.path().join("empty")).unwrap();
    std::os::unix::fs::symlink("sub", source.path().join("latest")).unwrap();
    let made = std::process::Command::new("tar")
        .args(["-cf", "-", "-C"])
        .arg(source.path())
        .arg(".")
        .output()
        .unwrap();
    assert!(made.status.success());
    let disk = Disk::new();
    let manifest = manifest_of(&made.stdout, &files);
    let unpacked = disk.unpack(&made.stdout, &manifest).unwrap();
    assert_eq!((unpacked.files, unpacked.left_out), (3, 1));
    assert_eq!(tree(&disk.outputs()), ["a", long.as_str(), "sub/b c"]);
}
