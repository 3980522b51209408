//! The secret from which the keys of runs are made.

use std::fs::{self, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use hmac::{Hmac, KeyInit, Mac};
use secrecy::{ExposeSecret, SecretString};
use sha2::Sha256;

use crate::types::hex::hex;
use crate::types::ids::Label;

/// Characters of a key: 128 bits in hexadecimal.
const KEY_LENGTH: usize = 32;

/// A secret is at least so long, in characters; what is shorter is a file that was cut.
const SECRET_MIN: usize = 32;

/// The key of one run: HMAC-SHA256 of its label under the secret, cut to 128 bits, in hexadecimal. Who
/// has one run's key, as its host does, learns nothing of another's.
pub fn key_of(secret: &SecretString, label: &Label) -> String {
    let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(secret.expose_secret().as_bytes()) else {
        // HMAC takes keys of any length.
        return String::new();
    };
    mac.update(label.to_string().as_bytes());
    let mut key = hex(&mac.finalize().into_bytes());
    key.truncate(KEY_LENGTH);
    key
}

/// The secret that a file holds, which is made where it is not there. Only its owner can read it.
///
/// # Errors
/// Where it cannot be read, or made, or holds too little to be a secret.
pub fn secret_in(path: &Path) -> io::Result<SecretString> {
    match fs::read_to_string(path) {
        Ok(text) if text.trim().len() >= SECRET_MIN => Ok(SecretString::from(text.trim())),
        Ok(_) => Err(io::Error::new(
            io::ErrorKind::InvalidData,
            format!(
                "{} holds no secret; remove it, and a new one is made (the lines of runs that go on \
                 now are then not believed)",
                path.display()
            ),
        )),
        Err(error) if error.kind() == io::ErrorKind::NotFound => made(path),
        Err(error) => Err(error),
    }
}

fn made(path: &Path) -> io::Result<SecretString> {
    let mut bytes = [0_u8; 32];
    fs::File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    let text = hex(&bytes);
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    Ok(SecretString::from(text))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::types::ids::{Installation, IntentId, ReplicaId};

    fn label(intent: u64) -> Label {
        Label {
            installation: Installation::from_seed(1),
            replica: ReplicaId {
                job: "train".parse().unwrap(),
                index: 0,
            },
            intent: IntentId(intent),
        }
    }

    #[test]
    fn a_run_has_a_key_of_its_own_that_lasts() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("runner.key");
        let secret = secret_in(&path).unwrap();
        let key = key_of(&secret, &label(7));
        assert_eq!(key.len(), KEY_LENGTH);
        assert_eq!(key, key_of(&secret_in(&path).unwrap(), &label(7)));
        assert_ne!(key, key_of(&secret, &label(8)));
        let other = SecretString::from("x".repeat(64));
        assert_ne!(key, key_of(&other, &label(7)));
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn a_file_that_was_cut_is_told_and_not_taken() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("runner.key");
        fs::write(&path, "short\n").unwrap();
        let error = secret_in(&path).unwrap_err().to_string();
        assert!(error.contains("runner.key holds no secret"), "{error}");
    }
}
