//! What the book keeps of logs that are read in windows.

use std::fs;
use std::path::Path;

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;

fn attempt(index: u32, intent: u64, instance: u64) -> Attempt {
    Attempt {
        replica: ReplicaId {
            job: "train".parse().unwrap(),
            index,
        },
        intent: IntentId(intent),
        instance: InstanceId(instance),
    }
}

fn one() -> Attempt {
    attempt(0, 36, 7)
}

/// A book in a directory that is not there yet.
fn book() -> (tempfile::TempDir, Book) {
    let directory = tempfile::tempdir().unwrap();
    let book = Book::of_database(&directory.path().join("haggle.db"));
    (directory, book)
}

fn text(book: &Book, attempt: &Attempt) -> String {
    String::from_utf8(book.read(attempt).unwrap().unwrap_or_default()).unwrap()
}

#[test]
fn reads_that_overlap_become_one_text() {
    let (directory, book) = book();
    assert_eq!(book.read(&one()).unwrap(), None);
    assert_eq!(book.add(&one(), b"").unwrap(), 0);
    assert!(!directory.path().join("logs").exists(), "nothing to keep");
    assert_eq!(book.add(&one(), b"a\nb\nc\n").unwrap(), 6);
    assert_eq!(book.add(&one(), b"a\nb\nc\n").unwrap(), 0, "the same again");
    assert_eq!(book.add(&one(), b"b\nc\nd\n").unwrap(), 2);
    assert_eq!(book.add(&one(), b"d\n").unwrap(), 0, "a shorter one");
    assert_eq!(book.add(&one(), b"b\nc\n").unwrap(), 0, "an older one");
    assert_eq!(
        book.add(&one(), b"x\na\nb\nc\nd\ne\n").unwrap(),
        2,
        "a longer one"
    );
    assert_eq!(text(&book, &one()), "a\nb\nc\nd\ne\n");
    assert!(directory.path().join("logs/train/r0/10-7.log").is_file());
}

#[test]
fn a_line_that_was_not_finished_is_completed() {
    let (_directory, book) = book();
    for (read, added) in [
        ("step 1\nste", 10),
        ("step 1\nste", 0),
        ("step 1\nstep 2", 3),
        ("step 1\nst", 0),
        ("step 2\n", 1),
        ("step 2\n50%\r", 4),
        ("step 2\n50%\r60%\r", 4),
        ("step 2\n50%\r60%\r\nstep 3\n", 8),
    ] {
        assert_eq!(
            book.add(&one(), read.as_bytes()).unwrap(),
            added,
            "{read:?}"
        );
    }
    assert_eq!(text(&book, &one()), "step 1\nstep 2\n50%\r60%\r\nstep 3\n");
}

#[test]
fn where_nothing_overlaps_it_says_so() {
    let (_directory, book) = book();
    book.add(&one(), b"boot 1\nstep 1\nstep").unwrap();
    // Much was written; then the container began anew.
    book.add(&one(), b"step 8\nstep 9\n").unwrap();
    book.add(&one(), b"boot 2\nstep 1\n").unwrap();
    book.add(&one(), b"boot 2\nstep 1\nstep 2\n").unwrap();
    // A longer window than before reaches back over the mark.
    book.add(&one(), b"step 9\nboot 2\nstep 1\nstep 2\nstep 3\n")
        .unwrap();
    let expected = format!(
        "boot 1\nstep 1\nstep\n{MISSING}\nstep 8\nstep 9\n{MISSING}\nboot 2\nstep 1\nstep 2\nstep 3\n"
    );
    assert_eq!(text(&book, &one()), expected);
}

#[test]
fn a_log_that_repeats_our_mark_deceives_only_itself() {
    let (_directory, book) = book();
    let forged = format!("a\n{MISSING}\n");
    assert!(book.add(&one(), forged.as_bytes()).unwrap() > 0);
    assert_eq!(book.add(&one(), forged.as_bytes()).unwrap(), 0);
    let more = format!("{forged}{MISSING}\nb\n");
    book.add(&one(), more.as_bytes()).unwrap();
    assert_eq!(book.add(&one(), more.as_bytes()).unwrap(), 0);
    assert_eq!(text(&book, &one()), more);
}

#[test]
fn bytes_are_kept_as_they_came_and_long_lines_are_cut() {
    let (_directory, book) = book();
    let odd = b"\xff\xfe\x00\x1b[2J\xe2\x80\xae\n";
    book.add(&one(), odd).unwrap();
    assert_eq!(book.read(&one()).unwrap().unwrap(), odd);
    let long = attempt(1, 1, 1);
    let endless = vec![b'x'; 40 * 1024 * 1024];
    let added = book.add(&long, &endless).unwrap();
    assert!(
        (LINE_BYTES_MAX..LINE_BYTES_MAX + 100).contains(&added),
        "{added}"
    );
    assert_eq!(book.add(&long, &endless).unwrap(), 0);
    let mut ended = endless;
    ended.extend_from_slice(b"\nnext\n");
    // The line before is too far back to be looked at: of the read only its end is.
    book.add(&long, &ended).unwrap();
    assert!(text(&book, &long).ends_with("\nnext\n"));
    let two = attempt(2, 1, 1);
    let mut line = vec![b'y'; LINE_BYTES_MAX];
    assert_eq!(book.add(&two, &line).unwrap(), LINE_BYTES_MAX);
    line.extend_from_slice(b"yyy");
    book.add(&two, &line).unwrap();
    line.extend_from_slice(b"yyy\nz\n");
    book.add(&two, &line).unwrap();
    assert_eq!(book.add(&two, &line).unwrap(), 0);
    let kept = text(&book, &two);
    assert!(kept.ends_with("was not kept\nz\n") && !kept.contains(MISSING));
    assert_eq!(kept.lines().count(), 2);
}

#[test]
fn a_window_longer_than_what_is_looked_at_is_recognised() {
    let (_directory, book) = book();
    let lines = |count: u32| {
        let all: Vec<String> = (0..count)
            .map(|n| format!("line {n:08} {}\n", "x".repeat(90)))
            .collect();
        all.concat()
    };
    assert!(lines(10_000).len() > 3 * LOOK_BACK_BYTES);
    book.add(&one(), lines(10_000).as_bytes()).unwrap();
    book.add(&one(), lines(10_003).as_bytes()).unwrap();
    assert_eq!(text(&book, &one()), lines(10_003));
}

#[test]
fn a_file_is_cut_at_a_line_and_never_much_longer_than_it_may_be() {
    let (directory, book) = book();
    let mut number = 0_u32;
    for _ in 0..16 {
        let mut read = String::new();
        while read.len() < 1024 * 1024 {
            number += 1;
            read.push_str(&format!("line {number:010} {}\n", "x".repeat(1000)));
        }
        book.add(&one(), read.as_bytes()).unwrap();
        let bytes = book.kept(&one().replica.job).unwrap()[0].bytes;
        assert!(bytes <= FILE_BYTES_MAX, "{bytes}");
    }
    let kept = text(&book, &one());
    assert!(kept.len() as u64 > FILE_BYTES_KEPT - 2000);
    assert!(kept.starts_with("line ") || kept.starts_with(MISSING));
    assert!(kept.contains(&format!("line {number:010}")));
    let beside = fs::read_dir(directory.path().join("logs/train/r0")).unwrap();
    assert_eq!(beside.count(), 1, "nothing unfinished is left");
}

#[test]
fn the_logs_that_nobody_wrote_to_for_longest_go_first() {
    let (directory, book) = book();
    let book = book.with_attempts_kept(3);
    let path = |attempt: &Attempt| {
        directory.path().join("logs/train").join(format!(
            "r{}/{}-{}.log",
            attempt.replica.index, attempt.intent, attempt.instance
        ))
    };
    let age = |attempt: &Attempt, seconds: u64| {
        let then = UNIX_EPOCH + std::time::Duration::from_secs(seconds);
        File::options()
            .write(true)
            .open(path(attempt))
            .unwrap()
            .set_modified(then)
            .unwrap();
    };
    let all: Vec<Attempt> = (0..5)
        .map(|n| attempt((n % 2) as u32, 100 + n, n))
        .collect();
    for (n, attempt) in all[..3].iter().enumerate() {
        book.add(attempt, b"a\n").unwrap();
        age(attempt, 1000 + n as u64);
    }
    // The oldest attempt goes on, so the one after it is the one to go.
    age(&all[0], 5000);
    book.add(&all[3], b"a\n").unwrap();
    age(&all[3], 6000);
    let kept = |book: &Book| -> Vec<Attempt> {
        let kept = book.kept(&one().replica.job).unwrap();
        kept.into_iter().map(|kept| kept.attempt).collect()
    };
    assert_eq!(
        kept(&book),
        [all[0].clone(), all[2].clone(), all[3].clone()]
    );
    // Even what is newest by its date is not removed in favour of what is being added.
    for attempt in kept(&book) {
        age(&attempt, u64::from(u32::MAX));
    }
    let few = book.with_attempts_kept(0);
    few.add(&all[4], b"a\n").unwrap();
    assert_eq!(kept(&few), [all[4].clone()]);
}

#[test]
fn what_is_no_log_of_ours_is_passed_over() {
    let (directory, book) = book();
    book.add(&one(), b"a\n").unwrap();
    let replica = directory.path().join("logs/train/r0");
    for name in [
        "x.log",
        "10-7.log.new",
        "10-07.log",
        "010-7.log",
        "10-7",
        "10-7-1.log",
        "-.log",
    ] {
        fs::write(replica.join(name), "x").unwrap();
    }
    fs::create_dir(directory.path().join("logs/train/rx")).unwrap();
    fs::write(directory.path().join("logs/train/r1"), "a file").unwrap();
    let kept = book.kept(&one().replica.job).unwrap();
    let kept: Vec<Attempt> = kept.into_iter().map(|kept| kept.attempt).collect();
    assert_eq!(kept, [one()]);
    assert!(book.kept(&"never".parse().unwrap()).unwrap().is_empty());
}

#[cfg(unix)]
#[test]
fn only_the_owner_may_read() {
    use std::os::unix::fs::PermissionsExt;
    let (directory, book) = book();
    book.add(&one(), b"a\n").unwrap();
    let mode = |path: &str| {
        let path = directory.path().join(path);
        fs::metadata(path).unwrap().permissions().mode() & 0o777
    };
    for path in ["logs", "logs/train", "logs/train/r0"] {
        assert_eq!(mode(path), 0o700, "{path}");
    }
    assert_eq!(mode("logs/train/r0/10-7.log"), 0o600);
}

#[test]
fn what_cannot_be_written_is_an_error_and_nothing_else() {
    let (directory, book) = book();
    fs::write(directory.path().join("logs"), "in the way").unwrap();
    assert!(book.add(&one(), b"a\n").is_err());
    assert!(book.read(&one()).is_err());
    assert!(book.kept(&one().replica.job).unwrap().is_empty());
    fs::remove_file(directory.path().join("logs")).unwrap();
    assert_eq!(book.add(&one(), b"a\n").unwrap(), 2);
}

/// A device that is always full, where there is one.
#[cfg(target_os = "linux")]
#[test]
fn a_full_disk_is_told_as_one() {
    let full = Path::new("/dev/full");
    let (directory, book) = book();
    let replica = directory.path().join("logs/train/r0");
    fs::create_dir_all(&replica).unwrap();
    std::os::unix::fs::symlink(full, replica.join("10-7.log")).unwrap();
    let error = book.add(&one(), b"a\n").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::StorageFull);
    // Another attempt's log is not touched by that.
    assert_eq!(book.add(&attempt(0, 37, 8), b"a\n").unwrap(), 2);
}

/// The last lines of a text, as a marketplace shows a log.
fn window(text: &str, lines: usize) -> &str {
    let starts: Vec<usize> = std::iter::once(0)
        .chain(text.match_indices('\n').map(|(at, _)| at + 1))
        .filter(|&at| at < text.len())
        .collect();
    let first = starts.len().saturating_sub(lines);
    &text[starts.get(first).copied().unwrap_or(text.len())..]
}

#[derive(Clone, Debug)]
struct Look {
    /// Lines written since the last.
    written: Vec<String>,
    /// How much of the last line is not there yet, in characters.
    unfinished: usize,
    /// How many lines are shown that were there at the last look and are whole, at least.
    before: usize,
}

fn look() -> impl Strategy<Value = Look> {
    // Few letters, so that lines repeat, and empty ones.
    let line = "[ab]{0,2}";
    (vec(line, 0..6), 0..3_usize, 1..9_usize).prop_map(|(written, unfinished, before)| Look {
        written,
        unfinished,
        before,
    })
}

proptest! {
    /// A stream that is read in windows which have a whole line in common that occurs but once is
    /// put together again as it was, whatever else repeats in it.
    #[test]
    fn the_book_is_the_stream(looks in vec(look(), 1..20)) {
        let (_directory, book) = book();
        let mut stream = String::new();
        let (mut lines, mut whole) = (0_usize, 0_usize);
        let mut unique = Vec::new();
        for (n, look) in looks.iter().enumerate() {
            // A line that was whole at the last look, occurs but once, and is shown again.
            let common = unique.iter().rev().find(|&&at| at < whole);
            let from = common.map_or(0, |&at| whole.saturating_sub(look.before).min(at));
            unique.push(lines);
            stream.push_str(&format!("unique {n}\n"));
            for line in &look.written {
                stream.push_str(&format!("{line}\n"));
            }
            lines += 1 + look.written.len();
            let seen = &stream[..stream.len() - look.unfinished];
            whole = seen.matches('\n').count();
            let shown = window(seen, whole + usize::from(!seen.ends_with('\n')) - from);
            book.add(&one(), shown.as_bytes()).unwrap();
            prop_assert_eq!(text(&book, &one()), seen, "look {}", n);
            prop_assert_eq!(book.add(&one(), shown.as_bytes()).unwrap(), 0);
        }
    }

    /// Whatever bytes come, in whatever order: a read that comes again adds nothing, no line is
    /// longer than it may be, and what is read is there at the end.
    #[test]
    fn any_read_is_taken_once(reads in vec(vec(prop_oneof![Just(b'\n'), Just(b'\r'), Just(b'a'), any::<u8>()], 0..40), 1..12)) {
        let (_directory, book) = book();
        for read in &reads {
            book.add(&one(), read).unwrap();
            prop_assert_eq!(book.add(&one(), read).unwrap(), 0);
            let kept = book.read(&one()).unwrap().unwrap_or_default();
            let last = read.split_inclusive(|byte| matches!(byte, b'\n' | b'\r')).next_back();
            let last = last.unwrap_or_default();
            let there = last.is_empty() || kept.windows(last.len()).any(|part| part == last);
            prop_assert!(there, "{last:?} is not in {kept:?}");
        }
    }
}
