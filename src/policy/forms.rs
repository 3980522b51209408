//! Texts with a rule of their own: paths on an instance, and what names a place in S3-compatible
//! storage.

use std::net::{Ipv4Addr, Ipv6Addr};

/// A rule for texts.
pub(super) struct Form {
    /// What it is, for messages and for the reference.
    pub(super) wants: &'static str,
    /// One that is right.
    pub(super) example: &'static str,
    /// A regular expression that all that are right match.
    pub(super) pattern: &'static str,
    /// The most characters.
    pub(super) most: usize,
    /// What would be right, where one is wrong. It never repeats the text: that may hold a login.
    check: fn(&str) -> Result<(), &'static str>,
}

/// The path of a file on the instance.
pub(super) const FILE: Form = Form {
    wants: "the absolute path of a file",
    example: "/workspace/progress",
    pattern: PATH_PATTERN,
    most: 1024,
    check: path,
};

/// The path of a directory on the instance.
pub(super) const DIRECTORY: Form = Form {
    wants: "the absolute path of a directory",
    example: "/workspace/out",
    pattern: PATH_PATTERN,
    most: 1024,
    check: path,
};

/// Where storage is.
pub(super) const ENDPOINT: Form = Form {
    wants: "the https:// address of a storage service, with no more than a port after its host",
    example: "https://s3.eu-central-1.amazonaws.com",
    pattern: r"^https?://(\[[0-9a-fA-F:.]+\]|[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?)(:[0-9]{1,5})?$",
    most: 300,
    check: endpoint,
};

/// The region that requests are signed for. Not only Amazon has them, nor all in lower case.
pub(super) const REGION: Form = Form {
    wants: "a region of 1 to 64 letters, digits, hyphens and underscores",
    example: "eu-central-1",
    pattern: "^[A-Za-z0-9_-]{1,64}$",
    most: 64,
    check: region,
};

/// A bucket.
pub(super) const BUCKET: Form = Form {
    wants: "a bucket of 3 to 63 of a-z, 0-9, hyphens and dots",
    example: "my-bucket",
    pattern: r"^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$",
    most: 63,
    check: bucket,
};

/// What keys begin with.
pub(super) const PREFIX: Form = Form {
    wants: "a prefix of letters, digits, and - _ . between single slashes, or nothing",
    example: "haggle/train",
    pattern: "^([A-Za-z0-9_.-]+(/[A-Za-z0-9_.-]+)*)?$",
    most: 512,
    check: prefix,
};

/// Where an input comes from. What depends on its beginning is checked in `source`.
pub(super) const SOURCE: Form = Form {
    wants: "an https:// address, storage:KEY of the job's own bucket, or a path here that begins with ./, ../ or /",
    example: "./data",
    pattern: r"^(https?://[^\s/]+/\S*|storage:[^\s/]\S*|\.{0,2}/.+)$",
    most: 1024,
    check: source,
};

/// Where an input goes to on the instance.
pub(super) const PLACE: Form = Form {
    wants: "the absolute path of a file, or of a directory with a slash at its end",
    example: "/workspace/data/",
    pattern: PLACE_PATTERN,
    most: 512,
    check: place,
};

/// A SHA-256.
pub(super) const SUM: Form = Form {
    wants: "a SHA-256 of 64 hexadecimal digits",
    example: "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    pattern: "^[0-9A-Fa-f]{64}$",
    most: 64,
    check: sum,
};

/// A part is neither empty nor one or two dots.
const PATH_PATTERN: &str =
    r"^(/([^/.\x00-\x1f\x7f]|\.[^/.\x00-\x1f\x7f]|\.\.[^/\x00-\x1f\x7f])[^/\x00-\x1f\x7f]*)+$";

/// The same, and perhaps a slash at its end.
const PLACE_PATTERN: &str =
    r"^(/([^/.\x00-\x1f\x7f]|\.[^/.\x00-\x1f\x7f]|\.\.[^/\x00-\x1f\x7f])[^/\x00-\x1f\x7f]*)+/?$";

/// What a parameter of an address is called where it lets whoever has it in.
const SECRET_PARAMETERS: [&str; 9] = [
    "TOKEN",
    "SECRET",
    "PASSWORD",
    "PASSWD",
    "KEY",
    "SIGNATURE",
    "SIG",
    "CREDENTIAL",
    "AUTH",
];

/// Where the runner keeps its own files first of all (`HAGGLE_DIR` in `run.sh`): it removes from there
/// what it has packed.
const ROOM: &str = "/haggle";

/// What Amazon keeps for itself at the beginning of a bucket's name.
const BUCKET_BEGINNINGS: [&str; 3] = ["xn--", "sthree-", "amzn-s3-demo-"];

/// The same at its end: aliases, and buckets whose requests are signed otherwise.
const BUCKET_ENDINGS: [&str; 5] = ["-s3alias", "--ol-s3", ".mrap", "--x-s3", "--table-s3"];

impl Form {
    /// Whether a text follows the rule.
    ///
    /// # Errors
    /// What would be right.
    pub(super) fn check(&self, text: &str) -> Result<(), String> {
        if text.chars().count() > self.most {
            return Err(format!("write it in at most {} characters", self.most));
        }
        (self.check)(text).map_err(|right| format!("{right}, such as \"{}\"", self.example))
    }
}

fn path(text: &str) -> Result<(), &'static str> {
    let Some(parts) = text.strip_prefix('/') else {
        return Err("begin it with a slash");
    };
    if parts.is_empty() {
        return Err("name something below the root");
    }
    if text.chars().any(char::is_control) {
        return Err("write it without control characters");
    }
    if parts.split('/').any(|part| matches!(part, "" | "." | "..")) {
        return Err(
            "write it without . and .., without a slash at its end, and without two in a row",
        );
    }
    if parts.split('/').next() == ROOM.strip_prefix('/') {
        return Err("choose another: the runner keeps files of its own in /haggle");
    }
    Ok(())
}

fn source(text: &str) -> Result<(), &'static str> {
    if text.chars().any(char::is_control) {
        return Err("write it without control characters");
    }
    if let Some(key) = text.strip_prefix("storage:") {
        return object(key);
    }
    if text.starts_with("./") || text.starts_with("../") || text.starts_with('/') {
        return match text.trim_end_matches('/').rsplit('/').next() {
            Some(".." | "." | "") => Err("end it with the name of a file or directory"),
            _ => Ok(()),
        };
    }
    address(text)
}

/// The key of an object.
fn object(key: &str) -> Result<(), &'static str> {
    let plain = |byte: u8| {
        byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b'/' | b'=' | b'+')
    };
    if key.is_empty() || !key.bytes().all(plain) {
        return Err("write its key in letters, digits, and - _ . = + between slashes");
    }
    // Clients take dots out of an address before they ask for it.
    if key.split('/').any(|part| matches!(part, "" | "." | "..")) {
        return Err(
            "write its key without . and .., without a slash at either end, and without two in a row",
        );
    }
    Ok(())
}

/// An address that a machine reads by itself.
fn address(text: &str) -> Result<(), &'static str> {
    let Some((scheme @ ("https" | "http"), rest)) = text.split_once("://") else {
        return Err("begin it with https://, storage:, ./, ../ or /");
    };
    if !rest.bytes().all(|byte| byte.is_ascii_graphic()) || rest.contains(['\'', '"', '\\']) {
        return Err(
            "write it as ASCII without blanks, quotes and backslashes: others as %20 and so on",
        );
    }
    let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
    if authority.contains('@') {
        return Err(
            "write it without a login: policies are stored and shown; use storage:KEY for what is private",
        );
    }
    endpoint(&format!("{scheme}://{authority}")).map_err(|why| match why {
        why if why.starts_with("use https") => "use https://: http:// only on this machine itself",
        why => why,
    })?;
    if path.is_empty() {
        return Err("name a file after the host");
    }
    // Some clients take them for a pattern of many addresses.
    if path.contains(['[', ']', '{', '}']) {
        return Err("write [ ] { } as %5B %5D %7B %7D");
    }
    let query = path.split_once('?').map_or("", |(_, query)| query);
    let names = query.split('&').filter_map(|pair| pair.split('=').next());
    let mut names = names.map(|name| name.to_ascii_uppercase().replace('-', "_"));
    if names.any(|name| SECRET_PARAMETERS.iter().any(|end| name.ends_with(end))) {
        return Err(
            "write it without what lets others in, such as a signature: policies are stored and shown; \
             use storage:KEY for what is private",
        );
    }
    Ok(())
}

fn place(text: &str) -> Result<(), &'static str> {
    let bare = match text {
        "/" => text,
        text => text.strip_suffix('/').unwrap_or(text),
    };
    path(bare).map_err(|why| match why {
        why if why.contains("slash at its end") => {
            "write it without . and .., and without two slashes in a row"
        }
        why => why,
    })?;
    let own = |part: &str| part.starts_with(".haggle") || part.contains(".haggle-brought");
    if bare
        .split('/')
        .any(|part| own(part) || part.ends_with(".haggle"))
    {
        return Err("choose another: such names are haggle's own");
    }
    let first = bare.split('/').nth(1).unwrap_or_default();
    if matches!(first, "proc" | "sys" | "dev") {
        return Err("choose another: that is the system's own");
    }
    Ok(())
}

fn sum(text: &str) -> Result<(), &'static str> {
    if text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        Ok(())
    } else {
        Err("write 64 of 0-9 and a-f, as sha256sum shows it")
    }
}

fn endpoint(text: &str) -> Result<(), &'static str> {
    let (is_secret, rest) = match text.split_once("://") {
        Some(("https", rest)) => (true, rest),
        Some(("http", rest)) => (false, rest),
        _ => return Err("begin it with https://"),
    };
    if rest.contains('@') {
        return Err(
            "write it without a login, which is `access_key` and `secret_key` by reference",
        );
    }
    if rest.contains(['/', '?', '#', '\\']) {
        return Err("end it after the host and its port: what follows is `bucket` and `prefix`");
    }
    // An address of IPv6 has colons of its own, in brackets.
    let inside = rest.find(']').unwrap_or(0);
    let (name, port) = match rest[inside..].find(':') {
        Some(at) => (&rest[..inside + at], Some(&rest[inside + at + 1..])),
        None => (rest, None),
    };
    let Some(is_here) = host(name) else {
        return Err("name a host after https://");
    };
    let is_port = |port: &str| {
        let digits = port.bytes().all(|byte| byte.is_ascii_digit());
        digits && port.parse::<u16>().is_ok_and(|port| port > 0)
    };
    if !port.is_none_or(is_port) {
        return Err("write a port from 1 to 65535 after the colon");
    }
    if !is_secret && !is_here {
        return Err("use https://: http:// would let others read and change what is kept");
    }
    Ok(())
}

/// Whether a well-formed host is this machine itself by what it says; `None`: it is not well-formed.
fn host(text: &str) -> Option<bool> {
    if let Some(rest) = text.strip_prefix('[') {
        let address: Ipv6Addr = rest.strip_suffix(']')?.parse().ok()?;
        return Some(address.is_loopback());
    }
    // What ends in a number is an address, and has spellings that not all programs read alike. Only the
    // plain one is taken.
    let last = text.rsplit('.').next().unwrap_or_default();
    if last.starts_with("0x") || last.bytes().all(|byte| byte.is_ascii_digit()) {
        return text
            .parse()
            .ok()
            .map(|address: Ipv4Addr| address.is_loopback());
    }
    let is_label = |label: &str| {
        let edges = label.starts_with('-') || label.ends_with('-');
        let plain = label
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
        (1..=63).contains(&label.len()) && plain && !edges
    };
    (text.len() <= 253 && text.split('.').all(is_label)).then_some(text == "localhost")
}

fn region(text: &str) -> Result<(), &'static str> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    if text.is_empty() || !text.bytes().all(plain) {
        return Err("write it as the storage service names it");
    }
    Ok(())
}

fn bucket(text: &str) -> Result<(), &'static str> {
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    if text.len() < 3 || !text.bytes().all(|b| plain(b) || matches!(b, b'.' | b'-')) {
        return Err("write 3 to 63 of a-z, 0-9, hyphens and dots");
    }
    let edge = |byte: Option<u8>| byte.is_some_and(plain);
    if !edge(text.bytes().next()) || !edge(text.bytes().last()) {
        return Err("begin and end it with a letter or digit");
    }
    if text.contains("..") {
        return Err("write single dots");
    }
    if text.parse::<Ipv4Addr>().is_ok() {
        return Err("a bucket is not named like an address");
    }
    let reserved = BUCKET_BEGINNINGS.iter().any(|part| text.starts_with(part))
        || BUCKET_ENDINGS.iter().any(|part| text.ends_with(part));
    if reserved {
        return Err("name a bucket of your own: this beginning or ending is reserved");
    }
    Ok(())
}

fn prefix(text: &str) -> Result<(), &'static str> {
    if text.is_empty() {
        return Ok(());
    }
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    if !text.bytes().all(|byte| plain(byte) || byte == b'/') {
        return Err("write it in letters, digits, and - _ . between slashes");
    }
    // Clients take dots out of an address before they ask for it.
    if text.split('/').any(|part| matches!(part, "" | "." | "..")) {
        return Err(
            "write it without . and .., without a slash at either end, and without two in a row",
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each that is right is taken by the schema's pattern as well; of each that is wrong the reason is
    /// told.
    #[track_caller]
    fn holds(form: &Form, right: &[&str], wrong: &[(&str, &str)]) {
        let pattern = regex::Regex::new(form.pattern).unwrap();
        for text in right.iter().chain([&form.example]) {
            assert_eq!(form.check(text), Ok(()), "{text}");
            assert!(pattern.is_match(text), "{text} is not {}", form.pattern);
        }
        for (text, reason) in wrong {
            let told = form.check(text).unwrap_err();
            assert!(told.contains(reason), "{text}: {told}");
        }
    }

    #[test]
    fn paths() {
        for form in [&FILE, &DIRECTORY] {
            let long = format!("/{}", "a".repeat(1024));
            holds(
                form,
                &["/a", "/a b/.c/..d/...", "/hagglers/x", "/work/haggle", "/ø"],
                &[
                    ("", "begin it with a slash"),
                    ("a/b", "begin it with a slash"),
                    ("~/a", "begin it with a slash"),
                    ("/", "below the root"),
                    ("/a/", "without a slash at its end"),
                    ("/a//b", "two in a row"),
                    ("/a/../b", "without . and .."),
                    ("/./a", "without . and .."),
                    ("/a\nb", "control characters"),
                    ("/haggle", "the runner keeps files"),
                    ("/haggle/x", "the runner keeps files"),
                    (&long, "at most 1024"),
                ],
            );
            let pattern = regex::Regex::new(form.pattern).unwrap();
            for text in ["a", "/", "/a/", "/a//b", "/a/../b", "/.", "/a\nb"] {
                assert!(!pattern.is_match(text), "{text}");
            }
        }
    }

    #[test]
    fn sources() {
        holds(
            &SOURCE,
            &[
                "https://a.example/x/model.bin?download=true",
                "http://127.0.0.1:80/x",
                "storage:data/set=1/a.tar",
                "../data",
                "/srv/data/",
            ],
            &[
                ("data", "begin it with https://, storage:"),
                ("s3://bucket/key", "begin it with https://, storage:"),
                ("ftp://a.example/x", "begin it with https://, storage:"),
                ("http://a.example/x", "only on this machine itself"),
                ("https://me:word@a.example/x", "without a login"),
                (
                    "https://a.example/x?X-Amz-Signature=ab",
                    "such as a signature",
                ),
                (
                    "https://a.example/x?a=b&access_token=ab",
                    "such as a signature",
                ),
                ("https://a.example", "name a file after the host"),
                ("https://a.example/", "name a file after the host"),
                ("https://a.example/a b", "as %20"),
                ("https://a.example/a'b", "as %20"),
                ("https:///x", "name a host"),
                ("storage:", "write its key in letters"),
                ("storage:/a", "without a slash at either end"),
                ("storage:a/../b", "without . and .."),
                ("storage:a b", "write its key in letters"),
                ("./..", "the name of a file"),
                ("./a\nb", "control characters"),
            ],
        );
    }

    #[test]
    fn places_of_inputs() {
        let long = format!("/{}", "a".repeat(512));
        holds(
            &PLACE,
            &["/a", "/a/", "/a b/.c", "/ø/"],
            &[
                ("a/", "begin it with a slash"),
                ("/", "below the root"),
                ("/a//", "two slashes in a row"),
                ("/a/../b", "without . and .."),
                ("/haggle/x", "the runner keeps files"),
                ("/w/.haggle-input.x", "haggle's own"),
                ("/w/checkpoint.haggle", "haggle's own"),
                ("/proc/x", "the system's own"),
                (&long, "at most 512"),
            ],
        );
        holds(&SUM, &[], &[("ab", "64 of 0-9"), ("", "64 of 0-9")]);
    }

    #[test]
    fn endpoints() {
        let long = format!("https://{}.com", "a".repeat(64));
        holds(
            &ENDPOINT,
            &[
                "https://minio.example:9000",
                "https://10.0.0.1",
                "https://[2001:db8::1]:9000",
                "http://127.0.0.1:9000",
                "http://127.9.9.9",
                "http://[::1]:1",
                "http://localhost",
            ],
            &[
                ("", "begin it with https://"),
                ("s3.amazonaws.com", "begin it with https://"),
                ("ftp://a.example", "begin it with https://"),
                ("HTTPS://a.example", "begin it with https://"),
                ("https://", "name a host"),
                ("https://a..b", "name a host"),
                ("https://-a.example", "name a host"),
                ("https://a_b.example", "name a host"),
                ("https://a b", "name a host"),
                ("https://[::1", "name a host"),
                ("https://[x]", "name a host"),
                ("https://[::1]x", "name a host"),
                (&long, "name a host"),
                ("https://a.example:", "a port from 1"),
                ("https://a.example:0", "a port from 1"),
                ("https://a.example:70000", "a port from 1"),
                ("https://a.example:+80", "a port from 1"),
                ("https://a.example/", "end it after the host"),
                ("https://a.example/bucket", "end it after the host"),
                ("https://a.example?x=1", "end it after the host"),
                ("https://a.example#x", "end it after the host"),
                ("https://key:word@a.example", "without a login"),
                ("http://a.example", "use https://"),
                ("http://10.0.0.1", "use https://"),
                ("http://localhost.example", "use https://"),
                ("http://[2001:db8::1]", "use https://"),
                // Other spellings of addresses, of this machine and of others.
                ("http://127.1", "name a host"),
                ("http://2130706433", "name a host"),
                ("http://0x7f.0x1", "name a host"),
                ("http://0127.0.0.1", "name a host"),
            ],
        );
    }

    #[test]
    fn buckets_prefixes_and_regions() {
        let long = "a".repeat(64);
        holds(
            &BUCKET,
            &["abc", "a-b.c", "1x1", &long[..63]],
            &[
                ("ab", "3 to 63"),
                ("My-Bucket", "a-z"),
                ("a_b", "a-z"),
                ("a/b", "a-z"),
                ("-abc", "begin and end"),
                ("abc.", "begin and end"),
                ("a..b", "single dots"),
                ("192.168.5.4", "like an address"),
                ("xn--abc", "reserved"),
                ("sthree-abc", "reserved"),
                ("abc-s3alias", "reserved"),
                ("abc--usw2-az1--x-s3", "reserved"),
                (&long, "at most 63"),
            ],
        );
        let deep = "a".repeat(513);
        holds(
            &PREFIX,
            &["", "a", "a/b.c/_d-e", "..."],
            &[
                ("/a", "without a slash at either end"),
                ("a/", "without a slash at either end"),
                ("a//b", "two in a row"),
                ("a/../b", "without . and .."),
                ("a b", "in letters"),
                ("a%2Fb", "in letters"),
                ("ø", "in letters"),
                (&deep, "at most 512"),
            ],
        );
        holds(
            &REGION,
            &["us-east-1", "auto", "RegionOne", "a_b"],
            &[
                ("", "as the storage service names it"),
                ("us east", "as the storage service names it"),
                ("a/b", "as the storage service names it"),
                (&long.repeat(2), "at most 64"),
            ],
        );
    }
}
