//! What `haggle check` finds of the inputs that lie on this machine.

use serde::Serialize;

use crate::policy::LoadedJob;
use crate::storage::{Local, LocalError};
use crate::types::input::{Found, Input, Source, in_the_way, size};

/// An input that lies here, as programs see it.
#[derive(Debug, Serialize)]
pub(super) struct InputDocument {
    job: String,
    path: String,
    /// Bytes of its files.
    bytes: u64,
    directory: bool,
}

impl InputDocument {
    /// In a line.
    pub(super) fn text(&self) -> String {
        let what = if self.directory { "directory" } else { "file" };
        let size = size(self.bytes);
        format!("input of {}: the {what} {}, {size}", self.job, self.path)
    }
}

/// The inputs of jobs that lie here, and what is wrong with them. Nothing is read but names and lengths.
pub(super) fn look(jobs: &[LoadedJob]) -> (Vec<InputDocument>, Vec<String>) {
    let (mut found, mut wrong) = (Vec::new(), Vec::new());
    for LoadedJob { job, .. } in jobs {
        let runner = job.run.runner.as_deref();
        let mut inputs = runner.map_or_else(Vec::new, |runner| runner.inputs.clone());
        for input in &mut inputs {
            match look_at(input) {
                Ok(None) => {}
                Ok(Some((path, bytes, directory))) => found.push(InputDocument {
                    job: job.name.to_string(),
                    path,
                    bytes,
                    directory,
                }),
                Err(why) => wrong.push(format!("`{}` is not rented: {why}", job.name)),
            }
        }
        if let Some((earlier, number, place)) = in_the_way(&inputs) {
            wrong.push(format!(
                "`{}` is not rented: data.inputs[{earlier}] is in the way of data.inputs[{number}] at \
                 {place}; give each a place of its own",
                job.name
            ));
        }
    }
    (found, wrong)
}

/// What lies here of an input, and makes it known to the input itself; `None`: it is elsewhere.
fn look_at(input: &mut Input) -> Result<Option<(String, u64, bool)>, LocalError> {
    let Source::Path(path) = &input.from else {
        return Ok(None);
    };
    let local = Local::look(path)?;
    let (bytes, is_directory) = (local.content_bytes(), local.is_directory());
    let shown = path.display().to_string();
    input.found = Some(Found {
        mark: String::new(),
        bytes,
        is_directory,
    });
    Ok(Some((shown, bytes, is_directory)))
}
