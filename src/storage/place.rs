//! A bucket, the keys to it, and addresses that are signed with them.

use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

use jiff::Timestamp;
use reqwest::Url;
use rusty_s3::{Bucket, Method, UrlStyle, signing};
use secrecy::{ExposeSecret, SecretString};

use super::Sum;
use super::control::VALID_MAX;
use super::keys::{Key, Prefix, PrefixError, RunKeys};
use crate::types::ids::{IntentId, JobName, ReplicaId};
use crate::types::job::Storage;
use crate::types::time::Time;

/// A place for objects, with its keys. Its `Debug` shows neither of them.
#[derive(Clone)]
pub struct Place {
    bucket: Bucket,
    prefix: Prefix,
    access_key: SecretString,
    secret_key: SecretString,
}

/// Why there is no such place. The texts are for the user and hold no secret.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PlaceError {
    /// The endpoint.
    #[error(
        "the storage's endpoint is not one ({0}): give one such as https://s3.eu-central-1.amazonaws.com"
    )]
    Endpoint(String),
    /// The region.
    #[error(
        "the storage's region is not one: letters, digits, `-` and `_`, such as eu-central-1; where the server has none, `auto` or us-east-1"
    )]
    Region,
    /// The bucket.
    #[error(
        "the storage's bucket is not one: 3 to 63 of a-z, 0-9, `-` and `.`, with a letter or digit at both ends, and no two dots together"
    )]
    Bucket,
    /// The prefix.
    #[error(transparent)]
    Prefix(#[from] PrefixError),
    /// A key.
    #[error(
        "the storage's {0} is not one: visible ASCII characters, and no `/` in the access key's id; is there a space or a line break at its end?"
    )]
    Key(&'static str),
    /// The HTTP library cannot be set up, as where the system has no root certificates.
    #[error("HTTP cannot be set up: {0}")]
    Setup(String),
}

/// Why an address cannot be signed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SignError {
    /// The clock shows a time that cannot be written.
    #[error("the clock is out of the calendar")]
    Clock,
    /// It would have expired as soon as it is made.
    #[error("an address is valid for a second at least")]
    Expired,
}

/// An address with a signature: whoever has it may do what it was signed for. Its `Debug` does not
/// show it.
#[derive(Clone, PartialEq, Eq)]
pub struct SignedUrl(Url);

impl SignedUrl {
    /// The address, for whom it is meant for.
    pub fn expose(&self) -> &str {
        self.0.as_str()
    }

    pub(super) fn into_url(self) -> Url {
        self.0
    }
}

impl fmt::Debug for SignedUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SignedUrl({}, signed)", self.0.path())
    }
}

impl fmt::Debug for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Place")
            .field("bucket", &self.bucket.base_url().as_str())
            .field("region", &self.bucket.region())
            .field("prefix", &self.prefix)
            .finish_non_exhaustive()
    }
}

impl Place {
    /// The place that a policy names, with its keys. Plain http is taken to this machine only: the
    /// addresses are as good as keys to whoever reads them on the way.
    pub fn new(
        storage: &Storage,
        access_key: SecretString,
        secret_key: SecretString,
    ) -> Result<Self, PlaceError> {
        let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_');
        if !(1..=64).contains(&storage.region.len()) || !storage.region.bytes().all(plain) {
            return Err(PlaceError::Region);
        }
        if !is_bucket(&storage.bucket) {
            return Err(PlaceError::Bucket);
        }
        // The access key's id is a part of the scope that is signed, which slashes divide.
        if !is_key(&access_key) || access_key.expose_secret().contains('/') {
            return Err(PlaceError::Key("access_key"));
        }
        if !is_key(&secret_key) {
            return Err(PlaceError::Key("secret_key"));
        }
        let endpoint = endpoint(&storage.endpoint).map_err(PlaceError::Endpoint)?;
        // The bucket in the path serves every server, and buckets whose names have dots.
        let bucket = Bucket::new(
            endpoint,
            UrlStyle::Path,
            storage.bucket.clone(),
            storage.region.clone(),
        )
        .map_err(|_| PlaceError::Endpoint("no host".to_owned()))?;
        Ok(Self {
            bucket,
            prefix: storage.prefix.parse()?,
            access_key,
            secret_key,
        })
    }

    /// The keys of a run.
    pub fn keys(&self, replica: &ReplicaId, run: IntentId) -> RunKeys {
        RunKeys::new(&self.prefix, replica, run)
    }

    /// Where an input of a job lies, by its SHA-256.
    pub fn input_key(&self, job: &JobName, sum: Sum) -> Key {
        Key::of_input(&self.prefix, job, sum)
    }

    /// The bucket's name.
    pub fn bucket(&self) -> &str {
        self.bucket.name()
    }

    /// The endpoint's host, and its port where it is not the scheme's.
    pub fn host(&self) -> String {
        let url = self.bucket.base_url();
        let host = url.host_str().unwrap_or_default();
        match url.port() {
            Some(port) => format!("{host}:{port}"),
            None => host.to_owned(),
        }
    }

    /// Whether the endpoint is spoken to in clear, which only one on this machine is.
    pub(super) fn is_clear_text(&self) -> bool {
        self.bucket.base_url().scheme() == "http"
    }

    /// An address that reads an object, from `now` on for `valid`: at least a second, and at most
    /// [`VALID_MAX`], where more is cut down to it.
    pub fn get_url(&self, key: &Key, now: Time, valid: Duration) -> Result<SignedUrl, SignError> {
        self.sign(Method::Get, key, now, valid)
    }

    /// As [`Self::get_url`], for one that writes it.
    pub fn put_url(&self, key: &Key, now: Time, valid: Duration) -> Result<SignedUrl, SignError> {
        self.sign(Method::Put, key, now, valid)
    }

    /// As [`Self::get_url`], for one that deletes it.
    pub fn delete_url(
        &self,
        key: &Key,
        now: Time,
        valid: Duration,
    ) -> Result<SignedUrl, SignError> {
        self.sign(Method::Delete, key, now, valid)
    }

    fn sign(
        &self,
        method: Method,
        key: &Key,
        now: Time,
        valid: Duration,
    ) -> Result<SignedUrl, SignError> {
        let seconds = valid.min(VALID_MAX).as_secs();
        if seconds == 0 {
            return Err(SignError::Expired);
        }
        let date = Timestamp::from_millisecond(now.0).map_err(|_| SignError::Clock)?;
        // The lower of the crate's two interfaces: it reads no clock, and copies no key.
        Ok(SignedUrl(signing::sign(
            &date,
            method,
            self.bucket.object_url(key.as_str()),
            self.access_key.expose_secret(),
            self.secret_key.expose_secret(),
            None,
            self.bucket.region(),
            seconds,
            std::iter::empty(),
            std::iter::empty(),
        )))
    }
}

fn is_bucket(name: &str) -> bool {
    let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let bytes = name.as_bytes();
    (3..=63).contains(&bytes.len())
        && bytes.first().copied().is_some_and(plain)
        && bytes.last().copied().is_some_and(plain)
        && bytes.iter().all(|&b| plain(b) || matches!(b, b'-' | b'.'))
        && !name.contains("..")
}

fn is_key(key: &SecretString) -> bool {
    let text = key.expose_secret();
    !text.is_empty() && text.len() <= 512 && text.bytes().all(|b| b.is_ascii_graphic())
}

fn endpoint(text: &str) -> Result<Url, String> {
    let url = Url::parse(text.trim()).map_err(|why| why.to_string())?;
    let plain = url.username().is_empty()
        && url.password().is_none()
        && url.query().is_none()
        && url.fragment().is_none();
    if !plain {
        return Err("it holds credentials, a query or a fragment".to_owned());
    }
    match url.scheme() {
        "https" => Ok(url),
        "http" if is_loopback(&url) => Ok(url),
        "http" => Err("http:// to another machine would show every signature".to_owned()),
        other => Err(format!("it begins with {other}:")),
    }
}

fn is_loopback(url: &Url) -> bool {
    let host = url.host_str().unwrap_or_default();
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost"
        || bare
            .parse::<IpAddr>()
            .is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::storage::keys::{Tree, Turn};
    use crate::types::job::SecretRef;

    const ACCESS: &str = "AKIAIOSFODNN7EXAMPLE";
    const SECRET: &str = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY";
    /// Friday, 24 May 2013, 00:00:00 GMT, and some of a second.
    pub(in crate::storage) const AWS_NOW: Time = Time(1_369_353_600_999);

    fn storage(endpoint: &str) -> Storage {
        Storage {
            endpoint: endpoint.to_owned(),
            region: "us-east-1".to_owned(),
            bucket: "examplebucket".to_owned(),
            prefix: "runs".to_owned(),
            access_key: SecretRef::Env("A".to_owned()),
            secret_key: SecretRef::Env("S".to_owned()),
        }
    }

    fn made(storage: &Storage) -> Result<Place, PlaceError> {
        Place::new(storage, ACCESS.into(), SECRET.into())
    }

    pub(in crate::storage) fn example() -> Place {
        made(&storage("https://s3.amazonaws.com")).unwrap()
    }

    /// The example of AWS's "Authenticating Requests: Using Query Parameters". It has the bucket in
    /// the host's name, and we have it in the path, so the place is made as theirs.
    #[test]
    fn signs_as_in_the_example_of_aws() {
        let endpoint = "https://s3.amazonaws.com".parse().unwrap();
        let mut place = example();
        place.bucket = Bucket::new(
            endpoint,
            UrlStyle::VirtualHost,
            "examplebucket",
            "us-east-1",
        )
        .unwrap();
        let day = Duration::from_secs(86400);
        let url = place.get_url(&Key::raw("test.txt"), AWS_NOW, day).unwrap();
        assert_eq!(
            url.expose(),
            "https://examplebucket.s3.amazonaws.com/test.txt\
             ?X-Amz-Algorithm=AWS4-HMAC-SHA256\
             &X-Amz-Credential=AKIAIOSFODNN7EXAMPLE%2F20130524%2Fus-east-1%2Fs3%2Faws4_request\
             &X-Amz-Date=20130524T000000Z&X-Amz-Expires=86400&X-Amz-SignedHeaders=host\
             &X-Amz-Signature=aeeed9bbccd4d02ee5c0109b86d86835f995330da4c265957d157751f604d404"
        );
    }

    /// What botocore 1.44.8 (`S3SigV4QueryAuth`) makes of a place as ours are: the bucket in the path,
    /// under a path of the endpoint's own, at a port, with a key that must be escaped.
    #[test]
    fn signs_as_the_library_of_aws_does() {
        let storage = Storage {
            region: "eu-test-1".to_owned(),
            bucket: "my.bucket-1".to_owned(),
            prefix: "team/a_b.c".to_owned(),
            ..storage("https://s3.example:8443/base")
        };
        let place = Place::new(&storage, "AK:TEST=".into(), "se/cret+key=".into()).unwrap();
        let replica = ReplicaId {
            job: "train".parse().unwrap(),
            index: 3,
        };
        let key = place
            .keys(&replica, IntentId(36 * 36 + 5))
            .tar(Tree::Checkpoint(Turn::One));
        // 24 November 2026, 18:05:07 GMT.
        let (now, valid) = (Time(1_795_543_507_000), Duration::from_hours(2));
        let signed = |url: Result<SignedUrl, SignError>, signature: &str| {
            let expected = format!(
                "https://s3.example:8443/base/my.bucket-1/team/a_b.c/train/r3/105/checkpoint1.tar\
                 ?X-Amz-Algorithm=AWS4-HMAC-SHA256\
                 &X-Amz-Credential=AK%3ATEST%3D%2F20261124%2Feu-test-1%2Fs3%2Faws4_request\
                 &X-Amz-Date=20261124T180507Z&X-Amz-Expires=7200&X-Amz-SignedHeaders=host\
                 &X-Amz-Signature={signature}"
            );
            assert_eq!(url.unwrap().expose(), expected);
        };
        signed(
            place.get_url(&key, now, valid),
            "8125074601e2aa60c7b800e04af24614f2ebc38bc7f56f01b00e5a587e123d69",
        );
        signed(
            place.put_url(&key, now, valid),
            "b00188b37762ecd62a2dbc1d9bd076d50f827fa489afb3d66471a9ec30057c4b",
        );
        signed(
            place.delete_url(&key, now, valid),
            "94301aa6eaa5b713a505e8d4637c2377b1f3ac46dcfdcc261e48c58c7c95d83d",
        );
    }

    #[test]
    fn an_address_is_for_one_method_one_object_and_one_time() {
        let place = example();
        let hour = Duration::from_hours(1);
        let key = Key::raw("runs/a/r0/5/outputs.tar");
        let get = place.get_url(&key, AWS_NOW, hour).unwrap();
        let path = "https://s3.amazonaws.com/examplebucket/runs/a/r0/5/outputs.tar?";
        assert!(get.expose().starts_with(path), "{}", get.expose());
        let signature = |url: &SignedUrl| url.expose().rsplit_once('=').unwrap().1.to_owned();
        let others = [
            place.put_url(&key, AWS_NOW, hour).unwrap(),
            place.delete_url(&key, AWS_NOW, hour).unwrap(),
            place.get_url(&key, AWS_NOW + hour, hour).unwrap(),
            place.get_url(&key, AWS_NOW, 2 * hour).unwrap(),
            place
                .get_url(&Key::raw("runs/a/r0/6/outputs.tar"), AWS_NOW, hour)
                .unwrap(),
        ];
        let mut all: Vec<String> = others.iter().map(&signature).collect();
        all.push(signature(&get));
        all.sort();
        all.dedup();
        assert_eq!(all.len(), 6);
    }

    #[test]
    fn an_address_lives_for_a_second_to_a_week() {
        let place = example();
        let key = Key::raw("k");
        let url = |valid| place.get_url(&key, AWS_NOW, valid);
        let far = url(Duration::MAX).unwrap();
        assert!(far.expose().contains("X-Amz-Expires=604800&"));
        assert_eq!(url(Duration::from_millis(999)), Err(SignError::Expired));
        assert!(url(Duration::from_secs(1)).is_ok());
        for clock in [i64::MIN, i64::MAX] {
            let signed = place.get_url(&key, Time(clock), Duration::from_secs(9));
            assert_eq!(signed, Err(SignError::Clock));
        }
    }

    #[test]
    fn shows_no_secret() {
        let place = example();
        let url = place
            .get_url(&Key::raw("k"), AWS_NOW, Duration::from_secs(9))
            .unwrap();
        let shown = format!("{place:?} {place:#?} {url:?}");
        assert!(shown.contains("examplebucket"));
        for hidden in [ACCESS, SECRET, "Signature="] {
            assert!(!shown.contains(hidden), "{shown}");
        }
    }

    #[test]
    fn takes_only_what_is_a_place() {
        for good in [
            "https://s3.eu-central-1.amazonaws.com",
            "https://id.r2.cloudflarestorage.com/",
            "https://x.example/storage/v1/s3",
            "http://127.0.0.1:9000",
            "http://[::1]:9000",
            "http://localhost:9000",
        ] {
            assert!(made(&storage(good)).is_ok(), "{good}");
        }
        for bad in [
            "",
            "s3.amazonaws.com",
            "http://192.168.0.2:9000",
            "http://localhost.example",
            "ftp://127.0.0.1",
            "https://me:pw_canary@x.example",
            "https://x.example?token_canary",
            "https://x.example#a",
        ] {
            let error = made(&storage(bad)).unwrap_err();
            assert!(matches!(error, PlaceError::Endpoint(_)), "{bad}");
            assert!(!error.to_string().contains("canary"), "{error}");
        }
        let with = |change: &dyn Fn(&mut Storage)| {
            let mut changed = storage("https://x.example");
            change(&mut changed);
            made(&changed).map(|_| ())
        };
        for bad in ["", "eu/west", "eu west", "é", &"x".repeat(65)] {
            let made = with(&|s| bad.clone_into(&mut s.region));
            assert_eq!(made, Err(PlaceError::Region), "{bad}");
        }
        for bad in [
            "",
            "ab",
            "Abc",
            "a/b",
            "a..b",
            "-ab",
            "ab-",
            "a_b",
            "..",
            &"x".repeat(64),
        ] {
            let made = with(&|s| bad.clone_into(&mut s.bucket));
            assert_eq!(made, Err(PlaceError::Bucket), "{bad}");
        }
        assert!(with(&|s| s.bucket = "my.bucket-1".to_owned()).is_ok());
        assert!(matches!(
            with(&|s| s.prefix = "/a".to_owned()),
            Err(PlaceError::Prefix(_))
        ));
    }

    #[test]
    fn takes_only_what_are_keys_and_shows_none() {
        let storage = storage("https://x.example");
        let place = |access: &str, secret: &str| {
            Place::new(&storage, access.into(), secret.into()).map(|_| ())
        };
        assert_eq!(place("AK", "s/+="), Ok(()));
        for (access, secret, which) in [
            ("", "canary", "access_key"),
            ("canary/x", "canary", "access_key"),
            ("canary\n", "canary", "access_key"),
            ("canary", "", "secret_key"),
            ("canary", "canary ", "secret_key"),
            ("canary", "canäry", "secret_key"),
        ] {
            let error = place(access, secret).unwrap_err();
            assert_eq!(error, PlaceError::Key(which));
            assert!(!error.to_string().contains("can"), "{error}");
        }
    }
}
