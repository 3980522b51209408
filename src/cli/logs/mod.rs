//! `haggle logs JOB`: what a job wrote, from the daemon's book and, while its machine is there, from
//! the marketplace.
//!
//! It works without the daemon: the database says which instances there are and were, the book has
//! what was read of their logs before.

mod attempts;
mod follow;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use clap::Args;
use serde::Serialize;

use super::context::{
    Context, Patience, block_on, known_jobs, load_policies, open_reader, require_known,
};
use super::failure::{Done, Exit, Failure, OrFail};
use super::run::{interrupted, known_secrets};
use crate::config::Config;
use crate::logbook::{Book, LOOK_BACK_BYTES, news, recent};
use crate::ports::{Marketplace, ReadError};
use crate::types::ids::InstanceId;
use crate::types::state::State;
use crate::view::attempts::{Known, known};
use crate::view::shown::{Shown, Style, last_lines};
use crate::view::which::Of;
use attempts::Choice;
use follow::{End, Follow};

/// Lines that are asked for at least, so that they join on to what was read before.
const ASKED_MIN: u32 = 1000;

/// Lines that are asked for at most.
const ASKED_MAX: u32 = 10_000;

/// Instances that are gone and are looked at, the newest of all jobs.
const ENDED_SEEN: u32 = 5000;

/// Shows what a job wrote.
#[derive(Args, Clone, Debug)]
pub(crate) struct LogsArgs {
    /// The job, or one of its replicas.
    #[arg(value_name = "JOB[/REPLICA]")]
    of: Of,
    /// Go on with what is written from now on, until the instance is gone or Ctrl-C.
    #[arg(short, long)]
    follow: bool,
    /// At most so many of the last lines.
    #[arg(short = 'n', long, value_name = "LINES", default_value_t = 200,
          value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    lines: u32,
    /// Which attempt, counted from the newest, which is 1.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..),
          conflicts_with_all = ["all", "instance"])]
    attempt: Option<u32>,
    /// Every attempt that something is known of, the oldest first.
    #[arg(long, conflicts_with_all = ["follow", "instance"])]
    all: bool,
    /// The attempt that this instance is, or was.
    #[arg(long, value_name = "ID")]
    instance: Option<u64>,
    /// Show lines of haggle's runner as they came; where no terminal is, all bytes as they came.
    #[arg(long)]
    raw: bool,
    /// Time between two looks while following: from 1s to 1h.
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = every)]
    every: Duration,
}

fn every(text: &str) -> Result<Duration, String> {
    let every = humantime::parse_duration(text).map_err(|error| error.to_string())?;
    if (Duration::from_secs(1)..=Duration::from_hours(1)).contains(&every) {
        Ok(every)
    } else {
        Err("from 1s to 1h".to_owned())
    }
}

impl LogsArgs {
    fn choice(&self) -> Choice {
        match (self.all, self.attempt, self.instance) {
            (true, ..) => Choice::All,
            (_, Some(number), _) => Choice::Number(number as usize),
            (_, _, Some(instance)) => Choice::Instance(InstanceId(instance)),
            _ => Choice::Newest,
        }
    }
}

#[derive(Debug, Serialize)]
struct LogDocument {
    replica: String,
    /// Counted from the newest, which is 1.
    attempt: usize,
    instance: u64,
    /// `there`, or `gone`.
    machine: &'static str,
    ended_at: Option<String>,
    /// As they came, but for bytes that are no text.
    lines: Vec<String>,
    /// Why there may be newer lines than these.
    newer_unread: Option<String>,
}

#[derive(Debug, Serialize)]
struct LogsDocument {
    logs: Vec<LogDocument>,
}

pub(crate) fn run(context: &Context, args: &LogsArgs) -> Done {
    if args.follow && context.global.json {
        return Err(
            Failure::mendable("--json writes one document, and --follow has no end")
                .hint("leave one of them away"),
        );
    }
    let config = context.config()?;
    let reader = open_reader(&config)?;
    let state = reader.state()?;
    let policies = config.policies.is_dir();
    let loaded = policies.then(|| load_policies(&config)).transpose()?;
    require_known(&args.of.job, &known_jobs(Some(&state), loaded.as_ref()))?;
    let book = Book::of_database(&config.database);
    let kept = book
        .kept(&args.of.job)
        .or_mendable("the logs that were kept cannot be listed")?;
    let known = known(&args.of, &state, reader.ended(ENDED_SEEN)?, kept);
    drop(reader);
    let chosen = attempts::choose(&args.of, args.choice(), known)?;
    let asking = Asking {
        context,
        config: &config,
        state: &state,
        lines: args.lines.clamp(ASKED_MIN, ASKED_MAX),
    };
    block_on(show(&asking, args, &book, chosen))
}

/// What a log came to.
struct View {
    number: usize,
    known: Known,
    text: Vec<u8>,
    /// Why what is newer could not be read.
    failed: Option<Failure>,
}

/// Asks the marketplace for logs.
struct Asking<'a> {
    context: &'a Context,
    config: &'a Config,
    state: &'a State,
    lines: u32,
}

impl Asking<'_> {
    fn connect(&self) -> Result<Arc<dyn Marketplace>, Failure> {
        self.context
            .connect(self.config, &self.state.wire, Patience::GiveUp)
    }

    /// What an instance wrote last; `None` where the marketplace says that there is no such.
    async fn read(&self, instance: InstanceId) -> Result<Option<Bytes>, Failure> {
        let marketplace = self.connect()?;
        match marketplace.logs(instance, self.lines).await {
            Ok(read) => Ok(Some(read)),
            // The daemon may not have settled it yet.
            Err(ReadError::Failed { .. }) if marketplace.instance(instance).await == Ok(None) => {
                Ok(None)
            }
            Err(error) => Err(unread(instance, error)),
        }
    }

    /// What the book has of an attempt, and what the marketplace has beyond.
    async fn view(&self, book: &Book, (number, known): (usize, Known)) -> Result<View, Failure> {
        let mut known = known;
        let kept = book
            .read(&known.attempt)
            .or_mendable("a log that was kept cannot be read")?;
        let mut text = kept.unwrap_or_default();
        let mut failed = None;
        if known.live {
            match self.read(known.attempt.instance).await {
                Ok(Some(read)) => {
                    let new = news(recent(&text, LOOK_BACK_BYTES), &read);
                    text.extend_from_slice(&new.bytes);
                }
                Ok(None) => known.live = false,
                Err(failure) => failed = Some(failure),
            }
        }
        Ok(View {
            number,
            known,
            text,
            failed,
        })
    }
}

/// A log could not be read.
fn unread(instance: InstanceId, error: ReadError) -> Failure {
    let doing = format!("what instance {instance} wrote last cannot be read");
    match error {
        ReadError::Unsupported(_) => {
            Failure::mendable(format!("{doing}: this marketplace cannot show logs")).hint(
                "the gateway has no operation for it; provider.kind = \"vast\", with a key of \
                 Vast's own, has",
            )
        }
        error => Failure::from(error).context(doing),
    }
}

async fn show(
    asking: &Asking<'_>,
    args: &LogsArgs,
    book: &Book,
    chosen: Vec<(usize, Known)>,
) -> Done {
    let output = asking.context.output;
    let mut views = Vec::new();
    for one in chosen {
        let mut view = asking.view(book, one).await?;
        if !args.follow {
            let shown = last_lines(&view.text, args.lines).len();
            view.text.drain(..view.text.len() - shown);
        }
        views.push(view);
    }
    if asking.context.global.json {
        let document = |view| document(asking.context, view);
        let logs = views.iter().map(document).collect();
        output.document(&LogsDocument { logs })?;
        return fail_or_end(views);
    }
    let mut shown = Shown::new(
        style(asking.context, args.raw),
        known_secrets(&asking.context.redactor),
    );
    for view in &views {
        let about = view.known.told(view.number, asking.state);
        if args.all {
            shown.finish();
            shown.title(&format!("== {about} =="));
        } else {
            output.note(&about);
        }
        shown.take(last_lines(&view.text, args.lines));
        if !args.follow {
            shown.finish();
        }
        if !output.flow(&shown.ready())? {
            return Ok(Exit::Success);
        }
    }
    match views.pop() {
        Some(view) if args.follow => follow(asking, args, view, shown).await,
        last => {
            views.extend(last);
            fail_or_end(views)
        }
    }
}

/// The first failure is told once all is shown that could be.
fn fail_or_end(views: Vec<View>) -> Done {
    let nothing = views.iter().all(|view| view.text.is_empty());
    let gone = views.iter().find(|view| !view.known.live);
    let gone = gone.map(|view| {
        (
            view.known.attempt.instance,
            view.known.attempt.replica.clone(),
        )
    });
    if let Some(failure) = views.into_iter().find_map(|view| view.failed) {
        return Err(failure);
    }
    match gone {
        Some((instance, replica)) if nothing => Err(Failure::mendable(format!(
            "instance {instance} of {replica} is gone, and nothing that it wrote was kept"
        ))
        .hint("`--all` shows what was kept of others")),
        _ => Ok(Exit::Success),
    }
}

fn style(context: &Context, raw: bool) -> Style {
    match (raw, context.output.is_terminal()) {
        (true, false) => Style::Untouched,
        (true, true) => Style::Plain,
        (false, _) => Style::Short,
    }
}

async fn follow(asking: &Asking<'_>, args: &LogsArgs, view: View, mut shown: Shown) -> Done {
    let output = asking.context.output;
    let instance = view.known.attempt.instance;
    if !view.known.live {
        shown.finish();
        output.flow(&shown.ready())?;
        output.note(&format!("instance {instance} is gone; it writes no more"));
        return fail_or_end(vec![view]);
    }
    if let Some(failure) = view.failed {
        // What may pass is tried again; what only the user can mend is not.
        if failure.exit() == Exit::Mendable {
            shown.finish();
            output.flow(&shown.ready())?;
            return Err(failure);
        }
        output.note(&format!("{failure}\ntrying again"));
    }
    let marketplace = asking.connect()?;
    let follow = Follow {
        clock: &*asking.context.clock,
        marketplace: &*marketplace,
        instance,
        every: args.every,
        lines: asking.lines,
    };
    let write = |shown: &mut Shown, new: &[u8]| {
        shown.take(new);
        output.flow(&shown.ready())
    };
    let note = |text: &str| output.note(text);
    let ended = follow
        .run(view.text, interrupted(), |new| write(&mut shown, new), note)
        .await;
    shown.finish();
    output.flow(&shown.ready())?;
    if ended? == End::Gone {
        output.note(&format!("instance {instance} is gone"));
    }
    Ok(Exit::Success)
}

fn document(context: &Context, view: &View) -> LogDocument {
    let text = String::from_utf8_lossy(&view.text);
    let text = context.redactor.clean_known(&text);
    LogDocument {
        replica: view.known.attempt.replica.to_string(),
        attempt: view.number,
        instance: view.known.attempt.instance.0,
        machine: if view.known.live { "there" } else { "gone" },
        ended_at: view.known.ended.map(|at| at.to_string()),
        lines: text.lines().map(str::to_owned).collect(),
        newer_unread: view.failed.as_ref().map(ToString::to_string),
    }
}
