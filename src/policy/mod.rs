//! Policies: one TOML file a job, read into a [`Job`] that cannot be wrong.
//!
//! All fields stand in one table (`fields`), from which reading (`reader`), the schema and the
//! reference (`schema`) are made. A file's mistakes are told all at once, each where it is: serde
//! would stop at the first, so the document is walked by hand, with its places. `kind` knows what a
//! single value must be (`forms` what follows a rule of its own, `sets` the parameters of arrays),
//! `build` what must hold between values. What looks like a secret is masked (`mask`) before any text is shown.

mod build;
mod error;
mod fields;
mod forms;
mod kind;
mod mask;
mod reader;
mod schema;
mod sets;

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read as _;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use miette::NamedSource;
use toml::de::DeTable;

pub use error::PolicyError;
pub use schema::{reference_table, schema};

use crate::types::ids::JobName;
use crate::types::input::{Source, beside};
use crate::types::job::Job;
use error::Fault;
use reader::Reading;

/// Largest policy file, bytes. Anything larger is some other file in the wrong place.
const FILE_BYTES_MAX: u64 = 256 * 1024;

/// Most mistakes told of one file; who has more has given us another kind of file.
const ERRORS_MAX: usize = 100;

/// Most policy files in a directory: far over what one daemon can serve.
const FILES_MAX: usize = 10_000;

/// What a directory of policies holds.
#[derive(Clone, Debug, Default)]
pub struct Loaded {
    /// The jobs whose files are right, by file name.
    pub jobs: Vec<LoadedJob>,
    /// All mistakes of all other files, by file name, then place.
    pub errors: Vec<PolicyError>,
}

/// A job and its file.
#[derive(Clone, Debug)]
pub struct LoadedJob {
    /// The file.
    pub path: PathBuf,
    /// The job.
    pub job: Job,
}

/// Reads one policy. `file_name` is shown in errors, and names the job where the text does not.
pub fn parse(file_name: &str, text: &str) -> Result<Job, Vec<PolicyError>> {
    Parsed::of(file_name, text).result
}

/// Reads every `*.toml` of a directory, hidden files aside, in the order of their names. A file
/// that is wrong costs only its own job. Two files with the same name of a job are both wrong.
pub fn load_dir(dir: &Path) -> Loaded {
    let mut loaded = Loaded::default();
    let paths = match policy_files(dir) {
        Ok(paths) => paths,
        Err(error) => {
            loaded.errors.push(*error);
            return loaded;
        }
    };
    let mut files: Vec<(PathBuf, Parsed)> = Vec::new();
    for path in paths {
        match read_file(&path) {
            Ok(text) => {
                let parsed = Parsed::of(&path.display().to_string(), &text);
                files.push((path, parsed));
            }
            Err(error) => loaded.errors.push(*error),
        }
    }
    let mut by_name: BTreeMap<JobName, Vec<usize>> = BTreeMap::new();
    for (index, (_, parsed)) in files.iter().enumerate() {
        if let Some((name, _)) = &parsed.name {
            by_name.entry(name.clone()).or_default().push(index);
        }
    }
    for (name, indices) in by_name.into_iter().filter(|(_, files)| files.len() > 1) {
        for &index in &indices {
            let others: Vec<String> = indices
                .iter()
                .filter(|&&other| other != index)
                .map(|&other| files[other].0.display().to_string())
                .collect();
            files[index].1.duplicate(&name, &others.join(", "));
        }
    }
    for (path, parsed) in files {
        match parsed.result {
            Ok(job) => loaded.jobs.push(LoadedJob { path, job }),
            Err(errors) => loaded.errors.extend(errors),
        }
    }
    // Files that could not be read at all were told first; all are put in the order of their names.
    loaded.errors.sort_by(|a, b| a.file().cmp(b.file()));
    loaded
}

/// A commented policy that is right, for a start.
pub fn example() -> &'static str {
    include_str!("example.toml")
}

/// The job's name that a file's own name suggests.
fn name_of_file(path: &Path) -> Option<JobName> {
    path.file_stem()?.to_str()?.parse().ok()
}

/// The job with the paths of its inputs as they are from where the daemon runs.
fn placed(mut job: Job, file: &Path) -> Job {
    let runner = job.run.runner.iter_mut();
    for input in runner.flat_map(|runner| &mut runner.inputs) {
        if let Source::Path(path) = &mut input.from {
            *path = beside(file, path);
        }
    }
    job
}

/// A file that was read, right or wrong.
struct Parsed {
    result: Result<Job, Vec<PolicyError>>,
    source: Arc<NamedSource<String>>,
    /// The name that the text gives, and where.
    name: Option<(JobName, Range<usize>)>,
}

impl Parsed {
    fn of(file_name: &str, text: &str) -> Self {
        let (document, syntax) = DeTable::parse_recoverable(text);
        let document = document.get_ref();
        let name = document.get("name").and_then(|value| {
            let name: JobName = value.get_ref().as_str()?.parse().ok()?;
            Some((name, value.span()))
        });
        let shown = mask::mask(text, document);
        let source = Arc::new(NamedSource::new(file_name, shown).with_language("TOML"));

        let mut reading = Reading::of(document);
        let mut built = None;
        let faults = if syntax.is_empty() {
            let windows = build::check(&mut reading);
            let mut faults = std::mem::take(&mut reading.faults);
            faults.append(&mut reading.missing);
            if faults.is_empty() {
                built = build::job(&reading, windows).map(|job| placed(job, Path::new(file_name)));
            }
            faults
        } else {
            with_syntax(text, syntax, reading.faults)
        };
        let result = built.ok_or_else(|| {
            let job_name = name
                .as_ref()
                .map(|(name, _)| name.clone())
                .or_else(|| name_of_file(Path::new(file_name)));
            errors(&source, job_name.as_ref(), faults)
        });
        Self {
            result,
            source,
            name,
        }
    }

    fn duplicate(&mut self, name: &JobName, others: &str) {
        let place = self.name.as_ref().map_or(0..0, |(_, place)| place.clone());
        let fault = Fault::new(
            place,
            format!("the name \"{name}\" is also that of {others}"),
        )
        .help("a job's name is its own: rename one of them");
        let error = PolicyError::at(&self.source, Some(name), fault);
        match &mut self.result {
            Ok(_) => self.result = Err(vec![error]),
            Err(errors) => errors.push(error),
        }
    }
}

/// The syntax errors, and of the others those that do not stand on a line with one: they may be no
/// more than its echo.
fn with_syntax(text: &str, syntax: Vec<toml::de::Error>, faults: Vec<Fault>) -> Vec<Fault> {
    let line = |offset: usize| {
        let before = text.as_bytes().iter().take(offset);
        before.filter(|&&byte| byte == b'\n').count()
    };
    let mut lines = Vec::new();
    let mut all = Vec::new();
    for error in syntax {
        let span = error.span().unwrap_or(0..0);
        // One slip of the pen makes several errors on its line; the first says it.
        if !lines.contains(&line(span.start)) {
            lines.push(line(span.start));
            all.push(
                Fault::new(span, format!("this is not TOML: {}", error.message()))
                    .help("text is put in quotes, a key stands once, and brackets are closed"),
            );
        }
    }
    all.extend(
        faults
            .into_iter()
            .filter(|fault| !lines.contains(&line(fault.span.start))),
    );
    all
}

fn errors(
    source: &Arc<NamedSource<String>>,
    job_name: Option<&JobName>,
    mut faults: Vec<Fault>,
) -> Vec<PolicyError> {
    if faults.is_empty() {
        // The table of fields and the builder disagree: a bug, told as what it is.
        faults.push(
            Fault::new(0..0, "this policy was read and could not be built")
                .help("this is a mistake in haggle; please report it with the policy"),
        );
    }
    faults.sort_by_key(|fault| fault.span.start);
    let more = faults.len().saturating_sub(ERRORS_MAX);
    faults.truncate(ERRORS_MAX);
    if more > 0 {
        let end = source.inner().len();
        faults.push(Fault::new(end..end, format!("and {more} more mistakes")));
    }
    faults
        .into_iter()
        .map(|fault| PolicyError::at(source, job_name, fault))
        .collect()
}

fn policy_files(dir: &Path) -> Result<Vec<PathBuf>, Box<PolicyError>> {
    let error = |message: String, help: &str| Box::new(PolicyError::whole(dir, message, help));
    let unreadable = |why: std::io::Error| match why.kind() {
        std::io::ErrorKind::NotFound => error(
            "the directory of policies does not exist".to_owned(),
            "create it with a policy in it (`haggle init` writes one), or name another with --policies",
        ),
        std::io::ErrorKind::NotADirectory => error(
            "this is not a directory".to_owned(),
            "name the directory that holds the policies",
        ),
        _ => error(
            format!("the directory of policies cannot be read: {why}"),
            "let the user that haggle runs as read it",
        ),
    };
    let mut paths = Vec::new();
    for entry in std::fs::read_dir(dir).map_err(unreadable)? {
        let path = entry.map_err(unreadable)?.path();
        let hidden = path
            .file_name()
            .is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
        if !hidden
            && path
                .extension()
                .is_some_and(|extension| extension == "toml")
        {
            paths.push(path);
        }
        if paths.len() > FILES_MAX {
            return Err(error(
                format!("there are more than {FILES_MAX} policies here"),
                "this is hardly the directory that was meant",
            ));
        }
    }
    paths.sort();
    Ok(paths)
}

fn read_file(path: &Path) -> Result<String, Box<PolicyError>> {
    let error = |message: String, help: &str| Box::new(PolicyError::whole(path, message, help));
    let unreadable = |why: std::io::Error| {
        error(
            format!("cannot be read: {why}"),
            "let the user that haggle runs as read it",
        )
    };
    // Asked before it is opened: a pipe would be waited on forever.
    if !std::fs::metadata(path).map_err(unreadable)?.is_file() {
        return Err(error(
            "this is not a file".to_owned(),
            "policies are files that end in .toml",
        ));
    }
    let mut bytes = Vec::new();
    File::open(path)
        .and_then(|file| file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes))
        .map_err(unreadable)?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        return Err(error(
            format!("larger than {} KB", FILE_BYTES_MAX / 1024),
            "this is hardly a policy; move it elsewhere",
        ));
    }
    String::from_utf8(bytes).map_err(|why| {
        let at = why.utf8_error().valid_up_to();
        error(
            format!("not UTF-8 text: the byte at {at} is none"),
            "save it as UTF-8",
        )
    })
}

#[cfg(test)]
mod tests;
