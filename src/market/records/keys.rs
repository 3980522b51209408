//! SSH keys.

use serde_json::{Value, json};

use crate::market::api::MarketError;
use crate::types::time::Time;

/// So many keys an account may have.
const KEYS_MAX: usize = 100;
/// Longest key, in characters.
const KEY_MAX: usize = 8192;

/// A public key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SshKey {
    /// Its id.
    pub(crate) id: u64,
    /// In the form of an `authorized_keys` line.
    pub(crate) key: String,
    /// When it was added.
    pub(crate) at: Time,
}

impl SshKey {
    /// As the marketplace writes it; a list calls the key `key`, the answer to a creation
    /// `public_key`.
    pub(crate) fn shown(&self, user: u64, name: &str) -> Value {
        json!({
            "id": self.id, "user_id": user, name: self.key,
            "created_at": self.at.epoch_seconds(), "deleted_at": null,
        })
    }
}

/// An account's keys.
#[derive(Clone, Debug, Default)]
pub(crate) struct Keys {
    last: u64,
    keys: Vec<SshKey>,
}

impl Keys {
    pub(crate) fn of(_account: u64) -> Self {
        Self {
            last: 300,
            keys: Vec::new(),
        }
    }

    /// All, oldest first.
    pub(crate) fn all(&self) -> &[SshKey] {
        &self.keys
    }

    /// Adds one.
    ///
    /// # Errors
    /// `invalid_args` where it is no public key, or there are too many.
    pub(crate) fn add(&mut self, at: Time, key: &str) -> Result<SshKey, MarketError> {
        let key = checked(key)?;
        if self.keys.len() >= KEYS_MAX {
            return Err(MarketError::invalid_args("too many SSH keys"));
        }
        self.last += 1;
        let key = SshKey {
            id: self.last,
            key,
            at,
        };
        self.keys.push(key.clone());
        Ok(key)
    }

    /// Puts another key in one's place.
    ///
    /// # Errors
    /// `no_ssh_key` where there is none of that id; `invalid_args` where it is no public key.
    pub(crate) fn replace(&mut self, id: u64, key: &str) -> Result<SshKey, MarketError> {
        let key = checked(key)?;
        let held = self.keys.iter_mut().find(|held| held.id == id);
        let held = held.ok_or_else(no_ssh_key)?;
        held.key = key;
        Ok(held.clone())
    }

    /// Deletes one.
    ///
    /// # Errors
    /// `no_ssh_key` where there is none of that id.
    pub(crate) fn delete(&mut self, id: u64) -> Result<(), MarketError> {
        let at = self.keys.iter().position(|held| held.id == id);
        self.keys.remove(at.ok_or_else(no_ssh_key)?);
        Ok(())
    }
}

/// The documented refusal of what names no key.
pub(crate) fn no_ssh_key() -> MarketError {
    MarketError::new(400, "no_ssh_key", "No such SSH key.")
}

/// The documented refusal covers a missing key, too; what is no key at all is a bad argument.
fn checked(key: &str) -> Result<String, MarketError> {
    const KINDS: &[&str] = &["ssh-", "ecdsa-", "sk-ssh-", "sk-ecdsa-"];
    let key = key.trim();
    if key.is_empty() {
        return Err(no_ssh_key());
    }
    let known = KINDS.iter().any(|kind| key.starts_with(kind));
    let has_body = key
        .split_ascii_whitespace()
        .nth(1)
        .is_some_and(|body| body.len() >= 4);
    let plain = !key.chars().any(char::is_control) && key.chars().count() <= KEY_MAX;
    if known && has_body && plain {
        Ok(key.to_owned())
    } else {
        Err(MarketError::invalid_args("ssh_key is not a public SSH key"))
    }
}
