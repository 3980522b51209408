//! Holds the documents against the house: links lead somewhere, commands are those of the command
//! line, and words that are said to be printed stand in the code.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use regex::Regex;

/// What the operating system prints, and not haggle.
const WORDS_OF_OTHERS: &[&str] = &["Permission denied", "No such file or directory"];

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// The documents, by their paths from the root.
fn documents() -> Vec<(String, String)> {
    let mut paths = vec!["README.md".to_owned(), "CHANGELOG.md".to_owned()];
    for directory in ["docs", "docs/decisions"] {
        let entries = fs::read_dir(root().join(directory)).unwrap();
        let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let documents = names.filter(|name| Path::new(name).extension().is_some_and(|e| e == "md"));
        paths.extend(documents.map(|name| format!("{directory}/{name}")));
    }
    paths.sort();
    paths
        .into_iter()
        .map(|path| {
            let text = fs::read_to_string(root().join(&path)).unwrap();
            (path, text)
        })
        .collect()
}

/// A document's prose, and its fenced blocks with the word after the fence.
struct Parts {
    prose: String,
    blocks: Vec<(String, String)>,
}

fn parts(text: &str) -> Parts {
    let mut prose = String::new();
    let mut blocks = Vec::new();
    let mut open: Option<(String, String)> = None;
    for line in text.lines() {
        let fence = line.trim_start().strip_prefix("```");
        match (&mut open, fence) {
            (None, Some(word)) => open = Some((word.trim().to_owned(), String::new())),
            (Some(_), Some(_)) => blocks.extend(open.take()),
            (Some((_, body)), None) => {
                body.push_str(line.trim_start());
                body.push('\n');
            }
            (None, None) => {
                prose.push_str(line);
                prose.push('\n');
            }
        }
    }
    assert!(open.is_none(), "a fence is not closed");
    Parts { prose, blocks }
}

/// Spans of code in prose: between double backquotes, or single ones.
fn spans(prose: &str) -> Vec<String> {
    let code = Regex::new(r"``(.+?)``|`([^`]+)`").unwrap();
    code.captures_iter(prose)
        .map(|found| {
            let span = found.get(1).or(found.get(2)).unwrap().as_str();
            span.split_whitespace().collect::<Vec<_>>().join(" ")
        })
        .collect()
}

/// The anchors of a document's headings, as GitHub makes them.
fn anchors(prose: &str) -> BTreeSet<String> {
    let link = Regex::new(r"\[([^\]]*)\]\([^)]*\)").unwrap();
    let mut seen: BTreeMap<String, usize> = BTreeMap::new();
    let headings = prose.lines().filter_map(|line| {
        let text = line.trim_start_matches('#');
        let level = line.len() - text.len();
        ((1..=6).contains(&level) && text.starts_with(' ')).then_some(text.trim())
    });
    headings
        .map(|heading| {
            let heading = link.replace_all(heading, "$1").to_lowercase();
            let kept = heading
                .chars()
                .filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
            let anchor: String = kept.map(|c| if c == ' ' { '-' } else { c }).collect();
            let times = seen.entry(anchor.clone()).or_default();
            *times += 1;
            match *times {
                1 => anchor,
                times => format!("{anchor}-{}", times - 1),
            }
        })
        .collect()
}

/// The targets of links in prose; what stands in code is no link.
fn links(prose: &str) -> Vec<String> {
    let code = Regex::new(r"``.+?``|`[^`]+`").unwrap();
    let target = Regex::new(r"\]\(([^()\s]+)\)").unwrap();
    let prose = code.replace_all(prose, "");
    target
        .captures_iter(&prose)
        .map(|found| found[1].to_owned())
        .collect()
}

/// Where a path leads from a document, both from the root; `None`: out of the repository.
fn reached(from: &str, path: &str) -> Option<String> {
    let mut place: Vec<&str> = from.split('/').collect();
    place.pop();
    for step in path.split('/') {
        match step {
            "" | "." => {}
            ".." => {
                place.pop()?;
            }
            step => place.push(step),
        }
    }
    Some(place.join("/"))
}

/// What is wrong with a link of a document.
fn broken(from: &str, link: &str, anchors: &BTreeMap<String, BTreeSet<String>>) -> Option<String> {
    let (path, anchor) = match link.split_once('#') {
        Some((path, anchor)) => (path, Some(anchor)),
        None => (link, None),
    };
    let target = match path {
        "" => Some(from.to_owned()),
        path => reached(from, path),
    };
    let Some(target) = target.filter(|target| root().join(target).exists()) else {
        return Some(format!("{from}: {link}: there is no such file"));
    };
    let known = anchors.get(&target);
    let is_there = |anchor| known.is_some_and(|anchors| anchors.contains(anchor));
    let missing = anchor.filter(|anchor| !is_there(*anchor))?;
    Some(format!("{from}: there is no heading {missing} in {target}"))
}

#[test]
fn links_lead_somewhere() {
    let documents: Vec<(String, Parts)> = documents()
        .into_iter()
        .map(|(path, text)| (path, parts(&text)))
        .collect();
    let anchors_of: BTreeMap<String, BTreeSet<String>> = documents
        .iter()
        .map(|(path, parts)| (path.clone(), anchors(&parts.prose)))
        .collect();
    let mut inside = 0;
    let mut problems = Vec::new();
    for (path, parts) in &documents {
        for link in links(&parts.prose) {
            if link.starts_with("https://") || link.starts_with("http://") {
                continue;
            }
            inside += 1;
            problems.extend(broken(path, &link, &anchors_of));
        }
    }
    assert!(inside > 100, "only {inside} links are found");
    super::report(problems);
}

#[test]
fn a_broken_link_is_found() {
    let prose = "# A `heading`, or two\n\n## Same\n## Same\n[a](b.md) `[no](link.md)`\n";
    let found = anchors(prose);
    let expected = ["a-heading-or-two", "same", "same-1"].map(ToOwned::to_owned);
    assert_eq!(found, BTreeSet::from(expected));
    assert_eq!(links(prose), ["b.md"]);
    let known = BTreeMap::from([("README.md".to_owned(), found)]);
    assert_eq!(broken("docs/guard.md", "../README.md#same-1", &known), None);
    assert!(broken("docs/guard.md", "../README.md#other", &known).is_some());
    assert!(broken("README.md", "docs/no-such.md", &known).is_some());
    assert!(broken("README.md", "../README.md", &known).is_some());
    assert_eq!(broken("README.md", "#same", &known), None);
}

/// The words of a line of the shell, up to what ends a command; `None` where a quote is open.
fn words(line: &str) -> Option<Vec<String>> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quote: Option<char> = None;
    for c in line.chars() {
        match (quote, c) {
            (Some(open), c) if c == open => quote = None,
            (None, '\'' | '"') => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            (None, '|' | '&' | ';' | '>') => break,
            (None, '#') if word.is_none() => break,
            (None, c) if c.is_whitespace() => words.extend(word.take()),
            (_, c) => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    quote.is_none().then_some(words)
}

/// The arguments of haggle in a line of the shell, its own name first; `None` where the line runs
/// something else.
fn of_haggle(line: &str) -> Option<Vec<String>> {
    let line = line.strip_prefix("$ ").unwrap_or(line);
    let words = words(line).unwrap_or_else(|| panic!("a quote is open: {line}"));
    let is_variable = |word: &&String| {
        word.split_once('=').is_some_and(|(name, _)| {
            !name.is_empty() && name.chars().all(|c| c.is_ascii_uppercase() || c == '_')
        })
    };
    let at = words.iter().take_while(is_variable).count();
    let command: Vec<&str> = words[at..].iter().map(String::as_str).collect();
    let (["cargo", "run", "--release", "--", arguments @ ..] | ["haggle", arguments @ ..]) =
        command.as_slice()
    else {
        return None;
    };
    let arguments = arguments.iter().map(|word| (*word).to_owned());
    Some(
        std::iter::once("haggle".to_owned())
            .chain(arguments)
            .collect(),
    )
}

#[test]
fn commands_are_those_of_the_command_line() {
    let known: BTreeSet<String> = haggle::cli::command()
        .get_subcommands()
        .map(|command| command.get_name().to_owned())
        .collect();
    let mut seen = 0;
    let mut problems = Vec::new();
    for (path, text) in documents() {
        let parts = parts(&text);
        let shell = parts
            .blocks
            .iter()
            .filter(|(word, _)| word == "sh" || word == "console");
        for (word, body) in shell {
            let body = body.replace("\\\n", " ");
            // In a console, what has no prompt is what was printed.
            let lines = body
                .lines()
                .filter(|line| word == "sh" || line.starts_with("$ "));
            for arguments in lines.filter_map(of_haggle) {
                seen += 1;
                if let Err(error) = haggle::cli::command().try_get_matches_from(&arguments) {
                    problems.push(format!("{path}: {}: {error}", arguments.join(" ")));
                }
            }
        }
        for span in spans(&parts.prose) {
            let named = span.strip_prefix("haggle ");
            let command = named.and_then(|rest| rest.split_whitespace().next());
            let Some(command) = command.filter(|word| word.starts_with(char::is_alphabetic)) else {
                continue;
            };
            let command = command.trim_end_matches(',');
            if !known.contains(command) {
                problems.push(format!("{path}: `{span}`: there is no command {command}"));
            }
        }
    }
    assert!(seen > 60, "only {seen} commands are found");
    super::report(problems);
}

#[test]
fn a_line_of_the_shell_is_read_as_the_shell_does() {
    let read = |line| of_haggle(line).map(|words| words.join("|"));
    assert_eq!(read("mkdir -p haggle/policies"), None);
    assert_eq!(
        read("$ A_B=c haggle kill --yes  # now"),
        Some("haggle|kill|--yes".into())
    );
    let quoted = "haggle guard --on-alert 'mail -s \"$1\" a' --once &";
    let expected = "haggle|guard|--on-alert|mail -s \"$1\" a|--once";
    assert_eq!(read(quoted), Some(expected.into()));
    assert!(
        haggle::cli::command()
            .try_get_matches_from(["haggle", "kill", "--no"])
            .is_err()
    );
}

/// The lines of the code that hold texts, with those that go over several lines put together.
fn texts() -> String {
    let files = super::sources(&root().join("src"));
    let code: Vec<String> = files
        .iter()
        .map(|path| fs::read_to_string(path).unwrap())
        .collect();
    let broken = Regex::new(r"\\\n\s*").unwrap();
    let joined = broken
        .replace_all(&code.join("\n"), "")
        .replace("\\\"", "\"");
    let lines = joined.lines().filter(|line| line.contains('"'));
    lines.collect::<Vec<_>>().join("\n")
}

/// The first words of a message that stand in none of the code's texts; `…` stands for what differs. A
/// message is put together from pieces, so it is read as the longest ones that they have. One of
/// them may be a single word: with more of these, anything could be said.
fn unknown_words(message: &str, texts: &str) -> Option<String> {
    for piece in message.split('…') {
        let piece = piece.trim_matches(|c: char| !c.is_alphanumeric());
        if WORDS_OF_OTHERS.iter().any(|words| piece.contains(words)) {
            continue;
        }
        let words: Vec<&str> = piece.split_whitespace().collect();
        let mut rest = words.as_slice();
        let mut single = 0;
        while !rest.is_empty() {
            let known = |count: &usize| {
                let text = rest[..*count].join(" ");
                texts.contains(text.trim_end_matches([':', ',']))
            };
            let longest = (1..=rest.len()).rev().find(known).unwrap_or(0);
            single += usize::from(longest == 1);
            if longest == 0 || (single > 1 && words.len() > 1) {
                return Some(rest.join(" "));
            }
            rest = &rest[longest..];
        }
    }
    None
}

#[test]
fn the_words_of_troubleshooting_are_those_that_are_printed() {
    let texts = texts();
    let text = fs::read_to_string(root().join("docs/troubleshooting.md")).unwrap();
    let first_cells = text.lines().filter_map(|line| {
        let cell = line.strip_prefix("| ")?.split(" | ").next()?;
        Some(cell.to_owned())
    });
    let messages: Vec<String> = first_cells.flat_map(|cell| spans(&cell)).collect();
    assert!(messages.len() > 80, "only {} are found", messages.len());
    let unknown = messages.iter().filter_map(|message| {
        let words = unknown_words(message, &texts)?;
        Some(format!(
            "troubleshooting: `{message}`: nothing prints \"{words}\""
        ))
    });
    super::report(unknown.collect());
    let invented = unknown_words("the token was refused by the moon of Saturn", &texts);
    assert!(invented.is_some());
}
