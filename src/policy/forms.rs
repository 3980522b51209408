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

/// A part is neither empty nor one or two dots.
const PATH_PATTERN: &str =
    r"^(/([^/.\x00-\x1f\x7f]|\.[^/.\x00-\x1f\x7f]|\.\.[^/\x00-\x1f\x7f])[^/\x00-\x1f\x7f]*)+$";

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
