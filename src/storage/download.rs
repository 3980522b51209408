//! Brings what a run kept to this machine.

use std::path::{Path, PathBuf};

use super::Sum;
use super::keys::{RunKeys, Tree};
use super::manifest::{MANIFEST_BYTES_MAX, Manifest, ManifestError};
use super::objects::{Objects, StorageError, Why};
use super::unpack::{UnpackError, Unpacked, unpack};
use crate::types::ids::IntentId;
use crate::types::time::Time;

/// Why nothing was brought. What was begun is gone again.
#[derive(Debug, thiserror::Error)]
pub enum DownloadError {
    /// The storage.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// The manifest.
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    /// The manifest is of another run.
    #[error("the manifest in the place of the run {expected} is of the run {found}")]
    OtherRun {
        /// Whose it should be.
        expected: IntentId,
        /// Whose it says it is.
        found: IntentId,
    },
    /// There is more than is wanted on this disk.
    #[error(
        "the archive and its files have {bytes} bytes by their manifest, and at most {most} are taken"
    )]
    Large {
        /// Both together, which is what the disk must hold for a while.
        bytes: u128,
        /// What was allowed.
        most: u64,
    },
    /// There is a manifest, and no archive.
    #[error("the archive of the manifest is not in the storage")]
    NoArchive,
    /// What came is not what the manifest says, or cannot be written.
    #[error(transparent)]
    Unpack(#[from] UnpackError),
    /// The work was given up, as at the end of the process.
    #[error("the unpacking was interrupted")]
    Interrupted,
}

/// Brings a directory that a run kept to a directory that is not there yet, whose parent is: all of
/// it as its manifest says, or nothing. `told` is the manifest's SHA-256 as the run told it, where it
/// did. Archive and files together may have `most_bytes`. `None`: the run kept nothing there.
pub async fn download(
    objects: &Objects,
    keys: &RunKeys,
    tree: Tree,
    told: Option<Sum>,
    most_bytes: u64,
    into: &Path,
    now: Time,
) -> Result<Option<Unpacked>, DownloadError> {
    let manifest = keys.manifest(tree);
    let found = objects.get(&manifest, MANIFEST_BYTES_MAX as u64, now);
    let Some(bytes) = found.await? else {
        return Ok(None);
    };
    let manifest = match told {
        Some(sum) => Manifest::verify(&bytes, sum)?,
        None => Manifest::parse(&bytes)?,
    };
    drop(bytes);
    allow(&manifest, keys, most_bytes)?;
    let (archive, file) = temporary(into)?;
    let mut file = tokio::fs::File::from_std(file);
    let tar = keys.tar(tree);
    let came = objects.get_into(&tar, &mut file, manifest.size, now);
    if came.await?.is_none() {
        return Err(DownloadError::NoArchive);
    }
    drop(file);
    let into = into.to_owned();
    // The temporary file goes along, so that it is there as long as the work is.
    let work = tokio::task::spawn_blocking(move || unpack(&archive, &manifest, &into));
    let unpacked = work.await.map_err(|_| DownloadError::Interrupted)?;
    Ok(Some(unpacked?))
}

/// Whether what a run kept is there as it told: the manifest by its SHA-256, and an archive as long as
/// the manifest says. What the archive holds is tried by whoever unpacks it.
///
/// # Errors
/// What cannot be read: then nobody knows.
pub async fn is_whole(
    objects: &Objects,
    keys: &RunKeys,
    tree: Tree,
    told: Sum,
    now: Time,
) -> Result<bool, StorageError> {
    let manifest = keys.manifest(tree);
    let found = objects.get(&manifest, MANIFEST_BYTES_MAX as u64, now);
    let bytes = match found.await {
        Ok(Some(bytes)) => bytes,
        Ok(None) => return Ok(false),
        Err(error) if matches!(error.why, Why::Large(_)) => return Ok(false),
        Err(error) => return Err(error),
    };
    // By its first line alone: names that are not taken to this disk are no harm on another machine's.
    let head = Some(&bytes).filter(|bytes| Sum::of(bytes) == told);
    let Some((run, size)) = head.and_then(|bytes| Manifest::head(bytes)) else {
        return Ok(false);
    };
    let length = objects.length(&keys.tar(tree), now).await?;
    Ok(run == keys.run() && length == Some(size))
}

fn allow(manifest: &Manifest, keys: &RunKeys, most: u64) -> Result<(), DownloadError> {
    let (expected, found) = (keys.run(), manifest.run);
    if found != expected {
        return Err(DownloadError::OtherRun { expected, found });
    }
    let bytes = u128::from(manifest.size) + u128::from(manifest.total());
    if bytes > u128::from(most) {
        return Err(DownloadError::Large { bytes, most });
    }
    Ok(())
}

/// A file beside the destination, so that it is found out at once whether that can be written.
fn temporary(into: &Path) -> Result<(tempfile::TempPath, std::fs::File), UnpackError> {
    if into.symlink_metadata().is_ok() {
        return Err(UnpackError::There(into.to_owned()));
    }
    let parent = match into.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
        _ => PathBuf::from("."),
    };
    let made = tempfile::Builder::new()
        .prefix(".haggle-archive-")
        .tempfile_in(&parent);
    let (file, path) = made
        .map_err(|why| UnpackError::Disk {
            what: "write in",
            path: parent,
            why,
        })?
        .into_parts();
    Ok((path, file))
}
