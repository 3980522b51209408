//! S3-compatible storage for what a supervised run keeps: its checkpoints and its outputs.
//!
//! The rented machine never has the keys. Whoever runs the daemon has them ([`Place`]); the machine
//! gets a [control document](control()) of addresses that are signed, each for one method on one
//! object until it expires. [`RunKeys`] says where the objects of a run are; two runs share none:
//!
//! ```text
//! <prefix>/<job>/r<replica>/<intent>/checkpoint0.tar      and .manifest
//!                                    checkpoint1.tar      and .manifest
//!                                    checkpoint2.tar      and .manifest
//!                                    outputs.tar          and .manifest
//!                                    control
//! <prefix>/<job>/inputs/<SHA-256>    what the job is given from here
//! ```
//!
//! What a signed address cannot do: limit how much is written to it (S3 takes up to 5 GiB in one
//! PUT, and as often as one likes), nor be taken back before it expires. So a machine that was given
//! up can still write over its own checkpoint for a while. What it told of that checkpoint, the
//! SHA-256 of the manifest, is therefore part of what is restored from ([`Restore`]), and in the
//! control document for the runner to try what arrives.
//!
//! All that a machine wrote is its host's word: a manifest is read within bounds ([`Manifest`]), and
//! an archive is unpacked by a reader that trusts nothing of it ([`unpack()`]).
//!
//! The keys need `s3:GetObject`, `s3:PutObject` and `s3:DeleteObject` under the prefix, and
//! `s3:ListBucket` on the bucket: without that one S3 answers 403 for an object that is not there,
//! and then nobody knows whether it is.

mod control;
mod download;
mod keys;
mod local;
mod look;
mod manifest;
mod objects;
mod place;
mod unpack;
#[cfg(test)]
mod unpack_tests;
mod upload;

use crate::types::hex::hex;
use std::fmt;
use std::str::FromStr;

pub use control::{Restore, VALID_MAX, control};
pub use download::{DownloadError, download, is_whole};
pub use keys::{Key, Prefix, PrefixError, RunKeys, Tree, Turn};
pub use local::{Local, LocalError, OBJECT_BYTES_MAX};
pub use look::are_the_same;
pub use manifest::{Listed, MANIFEST_BYTES_MAX, Manifest, ManifestError};
pub use objects::{Objects, StorageError, Why};
pub use place::{Place, PlaceError, SignError, SignedUrl};
pub use unpack::{UnpackError, Unpacked, unpack};

/// A SHA-256.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Sum([u8; 32]);

/// What is not a SHA-256.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a SHA-256 is 64 of 0-9 and a-f")]
pub struct SumError;

impl Sum {
    /// That of some bytes.
    pub fn of(bytes: &[u8]) -> Self {
        use sha2::Digest as _;
        Self(sha2::Sha256::digest(bytes).into())
    }
}

impl From<[u8; 32]> for Sum {
    fn from(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }
}

impl fmt::Display for Sum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex(&self.0))
    }
}

impl FromStr for Sum {
    type Err = SumError;
    fn from_str(text: &str) -> Result<Self, SumError> {
        let mut bytes = [0; 32];
        let (pairs, rest) = text.as_bytes().as_chunks::<2>();
        if pairs.len() != bytes.len() || !rest.is_empty() {
            return Err(SumError);
        }
        for (byte, [high, low]) in bytes.iter_mut().zip(pairs) {
            *byte = digit(*high)? << 4 | digit(*low)?;
        }
        Ok(Self(bytes))
    }
}

fn digit(byte: u8) -> Result<u8, SumError> {
    match byte {
        b'0'..=b'9' => Ok(byte - b'0'),
        b'a'..=b'f' => Ok(byte - b'a' + 10),
        _ => Err(SumError),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sum_is_read_as_it_is_written_and_nothing_else_is() {
        let empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        assert_eq!(Sum::of(b"").to_string(), empty);
        assert_eq!(empty.parse(), Ok(Sum::of(b"")));
        let upper = empty.to_uppercase();
        let wide = format!("é{}", &empty[2..]);
        for bad in ["", "e3", &empty[1..], &format!("{empty}0"), &upper, &wide] {
            assert_eq!(bad.parse::<Sum>(), Err(SumError), "{bad}");
        }
        assert_eq!(format!("{empty}00").parse::<Sum>(), Err(SumError));
        assert_eq!(empty.replace('e', "g").parse::<Sum>(), Err(SumError));
    }
}
