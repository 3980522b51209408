//! The work of making one job's inputs ready: it is done beside the ticks, and may take hours.

use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use super::inputs::{Asked, Known, Sent, Shared, locked};
use crate::ports::Clock;
use crate::storage::{Key, Local, LocalError, Objects, Sum};
use crate::types::ids::JobName;
use crate::types::input::{Found, Source, in_the_way, size};

/// The inputs of one job, being made ready.
pub(super) struct Work {
    pub(super) job: JobName,
    pub(super) asked: Asked,
    pub(super) shared: Arc<Mutex<Shared>>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) ends: Arc<AtomicBool>,
    pub(super) beats: Arc<AtomicU64>,
}

impl Work {
    /// Makes all of them ready, and says what was found of each; or what is wrong.
    pub(super) async fn all(&self, objects: &Objects) -> Result<Vec<Option<Found>>, String> {
        let mut inputs = self.asked.0.clone();
        for input in &mut inputs {
            self.beats.fetch_add(1, Ordering::Relaxed);
            input.found = match &input.from {
                Source::Address(_) => None,
                Source::Object(key) => Some(self.object(objects, key).await?),
                Source::Path(path) => {
                    Some(self.local(objects, path, input.sha256.as_deref()).await?)
                }
            };
        }
        if let Some((earlier, number, place)) = in_the_way(&inputs) {
            return Err(format!(
                "data.inputs[{earlier}] is in the way of data.inputs[{number}] at {place}: a directory \
                 fills its place as a whole; give each a place of its own"
            ));
        }
        Ok(inputs.into_iter().map(|input| input.found).collect())
    }

    /// What the server says of an object.
    async fn object(&self, objects: &Objects, key: &str) -> Result<Found, String> {
        let named = Key::named(key).ok_or_else(|| format!("storage:{key} is no key"))?;
        let about = objects.about(&named, self.clock.now()).await;
        let Some((bytes, mark)) = about.map_err(|error| error.to_string())? else {
            return Err(format!(
                "storage:{key} is not in the bucket `{}`: upload it, or correct `from`",
                objects.place().bucket()
            ));
        };
        Ok(Found {
            mark,
            bytes,
            is_directory: false,
        })
    }

    /// Brings what lies here to storage, where it is not there yet.
    async fn local(
        &self,
        objects: &Objects,
        path: &Path,
        expected: Option<&str>,
    ) -> Result<Found, String> {
        let local = self.blocking(path, Local::look).await?;
        let is_directory = local.is_directory();
        let (sum, bytes) = self.digest(&local, path).await?;
        if let Some(expected) = expected {
            if is_directory {
                return Err(format!(
                    "{} is a directory, which has no SHA-256 of its own: remove `sha256`",
                    path.display()
                ));
            }
            if sum.to_string() != expected {
                return Err(format!(
                    "{} has the SHA-256 {sum}, and its policy wants {expected}: give the right file, or \
                     correct `sha256`",
                    path.display()
                ));
            }
        }
        let key = objects.place().input_key(&self.job, sum);
        let length = objects.length(&key, self.clock.now()).await;
        if length.map_err(|error| error.to_string())? != Some(bytes) {
            self.upload(objects, &key, local, (sum, bytes), path)
                .await?;
        }
        Ok(Found {
            mark: sum.to_string(),
            bytes,
            is_directory,
        })
    }

    /// The sum of what lies here, which is read only where it changed.
    async fn digest(&self, local: &Local, path: &Path) -> Result<(Sum, u64), String> {
        let stamp = local.stamp();
        let known = locked(&self.shared).known.get(path).cloned();
        if let Some(known) = known.filter(|known| known.stamp == stamp) {
            return Ok((known.sum, known.bytes));
        }
        let amount = size(local.content_bytes());
        self.does(format!("{} is read ({amount})", path.display()), None);
        let (local, ends) = (local.clone(), Arc::clone(&self.ends));
        let beats = Arc::clone(&self.beats);
        let read = move |_: &Path| {
            local.digest(&|| {
                beats.fetch_add(1, Ordering::Relaxed);
                ends.load(Ordering::Relaxed)
            })
        };
        let (sum, bytes) = self.blocking(path, read).await?;
        let known = Known { stamp, sum, bytes };
        locked(&self.shared).known.insert(path.to_owned(), known);
        Ok((sum, bytes))
    }

    async fn upload(
        &self,
        objects: &Objects,
        key: &Key,
        local: Local,
        (sum, bytes): (Sum, u64),
        path: &Path,
    ) -> Result<(), String> {
        let sent = Arc::new(AtomicU64::new(0));
        let what = format!("{} is uploaded", path.display());
        tracing::info!("{what} for {} ({})", self.job, size(bytes));
        self.does(what, Some((Arc::clone(&sent), bytes)));
        let put = objects.put_local(key, local, (sum, bytes), sent, self.clock.now());
        put.await.map_err(|error| error.to_string())?;
        match objects.length(key, self.clock.now()).await {
            Ok(Some(length)) if length == bytes => Ok(()),
            Ok(_) => Err(format!(
                "{} was uploaded to `{key}` and is not there as it was sent; it is tried again",
                path.display()
            )),
            Err(error) => Err(error.to_string()),
        }
    }

    fn does(&self, what: String, sent: Option<Sent>) {
        self.beats.fetch_add(1, Ordering::Relaxed);
        locked(&self.shared).doing = Some((self.job.clone(), what, sent));
    }

    /// Reads the disk, away from what may not wait.
    async fn blocking<T: Send + 'static>(
        &self,
        path: &Path,
        read: impl FnOnce(&Path) -> Result<T, LocalError> + Send + 'static,
    ) -> Result<T, String> {
        let path = path.to_owned();
        let done = tokio::task::spawn_blocking(move || read(&path)).await;
        let done = done.map_err(|_| "it was interrupted".to_owned())?;
        done.map_err(|error| error.to_string())
    }
}
