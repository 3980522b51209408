//! `haggle run`: the daemon, put together from its parts.

use std::future::Future;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use secrecy::{ExposeSecret, SecretString};
use serde::Serialize;
use tokio::sync::oneshot;

use super::adapters::count;
use super::clock::ClockChoice;
use super::context::{Context, Override, Patience, block_on, load_policies, missing_directory};
use super::dry_run::DryRun;
use super::failure::{Done, Exit, Failure, OrFail};
use super::notify;
use super::output::Output;
use super::scribe::Scribe;
use super::service::{Follower, Reloaded, Service};
use super::sources::{PolicyDirectory, SystemSecrets};
use crate::clock::SystemClock;
use crate::config::{Config, Poll};
use crate::daemon::Secrets;
use crate::daemon::events::Mailbox;
use crate::daemon::heartbeat::Pulse;
use crate::daemon::life::Life;
use crate::daemon::metrics::Metrics;
use crate::daemon::watch::Watch;
use crate::daemon::web::{self, Shared};
use crate::daemon::webhook::Webhook;
use crate::daemon::{Daemon, DaemonError, Looking, Observer, Pace, Parts, RunEnd, Settings};
use crate::logbook::Book;
use crate::marketplace::counted::Counted;
use crate::marketplace::redact::Redactor;
use crate::ports::Store;
use crate::runner::secret_in;
use crate::store::{DaemonLock, Group, LockError, Reader, SqliteStore};
use crate::types::ledger::Component;
use crate::view::shown::Redact;
use crate::web::{self as page, Access, Desk, Publisher, Sources, TOKEN_CHARS_MIN};

/// Events of before that the page begins with.
const EVENTS_PRIMED: u32 = 40;

/// How long everything may take to be destroyed and settled at the end.
const DESTROY_WITHIN: Duration = Duration::from_mins(15);

/// Runs the daemon.
#[derive(Args, Clone, Debug)]
pub(crate) struct RunArgs {
    /// Carry plans out. Without it, or `live = true`, they are only shown: a dry run.
    #[arg(long)]
    live: bool,
    /// Tick once, giving up where something cannot be read, and end.
    #[arg(long)]
    once: bool,
    /// Where the page, its API, metrics and health are served.
    #[arg(long, value_name = "ADDR")]
    listen: Option<SocketAddr>,
    /// Destroy everything of ours at the end.
    #[arg(long)]
    destroy_on_exit: bool,
    /// Whose time it goes by: `market` follows a `haggle market` on this machine, however fast.
    #[arg(long, value_name = "WHOSE", default_value = "system")]
    clock: ClockChoice,
}

#[derive(Debug, Serialize)]
struct RemainingDocument {
    instance: u64,
    replica: String,
    status: &'static str,
    worst_dollars_per_hour: String,
}

#[derive(Debug, Serialize)]
struct RunDocument {
    still_rented: Vec<RemainingDocument>,
    unsettled_requests: usize,
}

pub(crate) fn run(context: &Context, args: &RunArgs) -> Done {
    let mut overrides: Vec<Override> = Vec::new();
    if args.live {
        overrides.push(("live", true.into()));
    }
    if let Some(listen) = args.listen {
        overrides.push(("listen", listen.to_string().into()));
    }
    let config = context.config_with(overrides.clone())?;
    if args.destroy_on_exit && !config.live {
        return Err(Failure::mendable(
            "--destroy-on-exit changes what is rented, and this is a dry run",
        )
        .hint("add --live; `haggle kill` destroys everything of ours without a daemon"));
    }
    let context = &args.clock.of(context, &config.provider)?;
    // A directory that is not there is a mistake to tell before anything starts.
    let loaded = load_policies(&config)?;
    context.note_broken(&loaded);
    let _lock = lock(&config)?;
    let mut store = SqliteStore::open(&config.database, None, seed(context)).map_err(|error| {
        Failure::from(error).context(format!("cannot open {}", config.database.display()))
    })?;
    let state = store.load()?;
    let metrics = Arc::new(Metrics::new());
    seed_spend(&metrics, &config)?;
    let mailbox = Arc::new(Mailbox::default());
    let shared = Arc::new(shared(context, &config, &mailbox, &metrics)?);
    let database = Some(config.database.clone());
    let watch = Watch::new(Arc::clone(&metrics), Arc::clone(&shared), database);
    watch.prime(&state);
    let engine = config.engine();
    let mut pulse = Pulse::new(Arc::clone(&shared), &config.database, pace(&config.poll));
    pulse.prime(&state, context.now(), config.live, engine.poll_every);
    let desk = Arc::new(Desk::new(Sources {
        database: config.database.clone(),
        policies: Some(config.policies.clone()),
        clock: context.clock.clone(),
        redact: lasting_secrets(&context.redactor),
        redact_logs: known_secrets(&context.redactor),
        access: access(context, &config)?,
    }));
    let mut publisher = Publisher::new(Arc::clone(&desk), pace(&config.poll));
    let events = Reader::open(&config.database)?.events(None, EVENTS_PRIMED)?;
    let broken: Vec<_> = loaded.errors.iter().map(super::sources::broken).collect();
    let jobs: Vec<_> = loaded.jobs.into_iter().map(|of| Arc::new(of.job)).collect();
    publisher.prime(
        &state,
        &events,
        (&jobs, &broken),
        (context.now(), config.live, &engine),
    );
    let patience = if args.once {
        Patience::GiveUp
    } else {
        Patience::Retry
    };
    // Whether it hangs is told by the system's clock, whatever the loop goes by.
    let life = Life::new(Arc::new(SystemClock::new()), config.provider.timeout);
    let life = Arc::new(life);
    let watched = context.with_clock(life.watching(Arc::clone(&context.clock)));
    let service = Service::new(life);
    let marketplace = watched.connect(&config, &state.wire, patience)?;
    let scribe = Scribe::new(
        Book::of_database(&config.database),
        Arc::clone(&context.redactor),
    );
    let mut observers: Vec<Box<dyn Observer>> = vec![
        Box::new(watch),
        Box::new(pulse),
        Box::new(scribe),
        Box::new(publisher),
        Box::new(Follower {
            service: Arc::clone(&service),
            pace: pace(&config.poll),
        }),
    ];
    if !config.live {
        observers.push(Box::new(DryRun::new(context.output)));
    }
    let told = notify::start(context, &config, &metrics)?;
    let telling = told.map(|(herald, telling)| {
        observers.push(Box::new(herald));
        telling
    });
    let parts = Parts {
        marketplace: Arc::new(Counted::new(marketplace, count(&metrics))),
        store: Box::new(store),
        clock: watched.clock,
        policies: Box::new(Reloaded {
            directory: PolicyDirectory(config.policies.clone()),
            service: Arc::clone(&service),
        }),
        secrets: Box::new(SystemSecrets(Arc::clone(&context.redactor))),
        run_secret: run_secret(context, &config)?,
        observers,
    };
    let settings = Settings {
        engine,
        live: config.live,
        pace: pace(&config.poll),
        seed: seed(context),
        looking: Looking {
            instances_every: config.instances_every,
            history_every: config.history_every,
            history_kept: config.history_kept,
            ..Looking::default()
        },
    };
    let daemon = Daemon::new(parts, settings)?.with_mailbox(Arc::clone(&mailbox));
    let outside = Outside {
        shared,
        desk,
        mailbox,
        service,
        overrides,
    };
    let done = block_on(drive(context, args, &config, daemon, outside));
    // The daemon is gone, and with it who puts in more.
    if let Some(telling) = telling {
        // Who asked for a single tick sees how it ended.
        if !args.once {
            telling.ended(done.as_ref().err().map(Failure::in_short));
        }
        telling.finish(notify::FINISH_WITHIN);
    }
    done
}

/// The secret of runs, beside the database; it is never shown.
fn run_secret(context: &Context, config: &Config) -> Result<SecretString, Failure> {
    let path = config.database.with_file_name("runner.key");
    let secret = secret_in(&path).map_err(|error| {
        Failure::mendable(format!("the secret of runs cannot be had: {error}")).hint(format!(
            "{} is made where it is missing; its directory must be writable",
            path.display()
        ))
    })?;
    context.redactor.add_lasting(secret.expose_secret());
    Ok(secret)
}

/// What the web server hands out, with an endpoint for notifications where they have a secret.
fn shared(
    context: &Context,
    config: &Config,
    mailbox: &Arc<Mailbox>,
    metrics: &Arc<Metrics>,
) -> Result<Shared, Failure> {
    let Some(reference) = &config.webhook_secret else {
        return Ok(Shared::new());
    };
    // Resolving it also keeps it out of whatever is shown.
    let redactor = Arc::clone(&context.redactor);
    let secret = SystemSecrets(Arc::clone(&redactor))
        .resolve(reference)
        .map_err(|why| {
            Failure::mendable(format!("`events.webhook_secret`: {why}"))
                .hint("without the key no notifications are received")
        })?;
    redactor.add_lasting(secret.expose_secret());
    let webhook = Webhook::new(
        secret,
        context.clock.clone(),
        Arc::clone(mailbox),
        Arc::clone(metrics),
        Arc::new(move |text| redactor.show(text)),
    );
    Ok(Shared::new().with_webhook(webhook))
}

/// Takes up what was spent before this process began, so that spend does not begin at zero.
fn seed_spend(metrics: &Metrics, config: &Config) -> Result<(), Failure> {
    let reader = Reader::open(&config.database)?;
    for spend in reader.spend_by(Group::Job, config.timezone)? {
        let Ok(job) = spend.key.parse() else { continue };
        for (component, amount) in [
            (Component::Gpu, spend.gpu),
            (Component::Disk, spend.disk),
            (Component::Traffic, spend.traffic),
        ] {
            metrics.seed_spend(&job, component, amount);
        }
    }
    Ok(())
}

/// Drawn from the clock at the start: two installations should not move in step.
fn seed(context: &Context) -> u64 {
    let milliseconds = context.now().0.unsigned_abs();
    // Spreads the low digits, that differ, over all of them.
    milliseconds.wrapping_mul(0x9E37_79B9_7F4A_7C15)
}

/// When the daemon polls.
pub(crate) fn pace(poll: &Poll) -> Pace {
    match poll {
        Poll::Every(_) => Pace::Every,
        Poll::At(schedule) => Pace::Cron(schedule.clone()),
    }
}

fn lock(config: &Config) -> Result<DaemonLock, Failure> {
    if let Some(directory) = missing_directory(&config.database) {
        return Err(Failure::mendable(format!(
            "the database is to be {}, and there is no directory {}",
            config.database.display(),
            directory.display()
        ))
        .hint(format!(
            "make it (`mkdir -p {}`), or name another database with --database",
            directory.display()
        )));
    }
    DaemonLock::acquire(&config.database).map_err(|error| {
        let held = matches!(error, LockError::Held { .. });
        let failure = Failure::new(Exit::Mendable, error.into());
        if held {
            failure.hint("stop the other one, or name another database with --database")
        } else {
            failure.hint("the database's directory has to be there, and writable")
        }
    })
}

/// What a run has to do with beside its loop.
struct Outside {
    shared: Arc<Shared>,
    desk: Arc<Desk>,
    mailbox: Arc<Mailbox>,
    service: Arc<Service>,
    /// What flags say over the configuration.
    overrides: Vec<Override>,
}

async fn drive(
    context: &Context,
    args: &RunArgs,
    config: &Config,
    mut daemon: Daemon,
    outside: Outside,
) -> Done {
    let Outside {
        shared,
        desk,
        mailbox,
        service,
        overrides,
    } = outside;
    if !config.live {
        context
            .output
            .note("dry run: plans are shown and not carried out; --live carries them out");
    }
    if args.once {
        if let Some(error) = daemon.tick().await?.into_iter().next() {
            return Err(error.into());
        }
        return end(context, args, daemon).await;
    }
    let server = serve(context.output, config.listen, shared, Arc::clone(&desk))?;
    let told = "ending: what was sent is settled first; interrupt again to quit at once";
    let (first, second) = interruptions(context.output, told);
    let first = async {
        first.await;
        service.stopping();
        desk.ends();
    };
    let reloads = service.reload_when_asked(&mailbox, || {
        note_other_configuration(context, config, &overrides);
    });
    let beating = service.ready()?;
    let work = async {
        if let Err(error) = daemon.run(None, first).await {
            if matches!(error, DaemonError::Store(_)) {
                note_what_goes_on(context, &daemon.end());
            }
            return Err(error.into());
        }
        end(context, args, daemon).await
    };
    let ended = tokio::select! {
        biased;
        ended = work => ended,
        () = second => Err(Failure::world("quit at once; the next start settles what is open")
            .hint("`haggle instances` shows what goes on billing")),
        never = reloads => match never {},
    };
    drop((server, beating));
    ended
}

/// Says where the configuration is no longer the one that the daemon was started with: policies are
/// read anew while it runs, the rest is not.
fn note_other_configuration(context: &Context, config: &Config, overrides: &[Override]) {
    match context.config_with(overrides.to_vec()) {
        Ok(now) if now == *config => {}
        Ok(_) => context.output.note(
            "the configuration was changed: the policies are read anew, but the rest holds as it was \
             until the daemon is started again",
        ),
        Err(failure) => context.output.note(&format!(
            "the configuration cannot be used any more, and the daemon would not start again: {failure}"
        )),
    }
}

async fn end(context: &Context, args: &RunArgs, mut daemon: Daemon) -> Done {
    let ended = if args.destroy_on_exit {
        let ended = daemon.destroy_all(DESTROY_WITHIN).await?;
        // The next start may be long after. What is billed later than now, it takes up.
        daemon.reconcile().await?;
        ended
    } else {
        daemon.shut_down().await?
    };
    tell_end(context, &ended)?;
    let failed = args.destroy_on_exit && !ended.remaining.is_empty();
    Ok(if failed { Exit::World } else { Exit::Success })
}

/// Says what goes on billing although nobody can record it any more.
fn note_what_goes_on(context: &Context, end: &RunEnd) {
    for remaining in &end.remaining {
        context.output.note(&format!(
            "instance {} of {} goes on billing, at most {:.4}/h; `haggle kill` destroys it without a \
             database",
            remaining.instance, remaining.replica, remaining.rate
        ));
    }
}

fn tell_end(context: &Context, ended: &RunEnd) -> Result<(), Failure> {
    let document = RunDocument {
        still_rented: ended
            .remaining
            .iter()
            .map(|remaining| RemainingDocument {
                instance: remaining.instance.0,
                replica: remaining.replica.clone(),
                status: remaining.phase.as_str(),
                worst_dollars_per_hour: remaining.rate.decimal(),
            })
            .collect(),
        unsettled_requests: ended.unsettled,
    };
    context.output.show(&document, || {
        let mut lines = Vec::new();
        if ended.remaining.is_empty() {
            lines.push("nothing goes on billing".to_owned());
        }
        for remaining in &ended.remaining {
            lines.push(format!(
                "instance {} of {} goes on: {}, at most {:.4}/h",
                remaining.instance,
                remaining.replica,
                remaining.phase.as_str(),
                remaining.rate
            ));
        }
        if ended.unsettled > 0 {
            lines.push(format!(
                "{} requests are not settled; the next start does it",
                ended.unsettled
            ));
        }
        lines.join("\n")
    })
}

/// Who may ask for what through the page.
fn access(context: &Context, config: &Config) -> Result<Access, Failure> {
    let Some(reference) = &config.web_token else {
        return Ok(Access::new(None, config.web_hosts.clone()));
    };
    let secrets = SystemSecrets(Arc::clone(&context.redactor));
    let token = secrets.resolve(reference).map_err(|why| {
        Failure::mendable(format!("`web.token`: {why}"))
            .hint("leave it away, and the page can be read only")
    })?;
    if token.expose_secret().chars().count() < TOKEN_CHARS_MIN {
        return Err(Failure::mendable(format!(
            "`web.token` has fewer than {TOKEN_CHARS_MIN} characters, which can be guessed"
        ))
        .hint("`openssl rand -hex 32` makes one"));
    }
    context.redactor.add_lasting(token.expose_secret());
    Ok(Access::new(Some(token), config.web_hosts.clone()))
}

/// Takes lasting secrets out of a text.
fn lasting_secrets(redactor: &Arc<Redactor>) -> Redact {
    let redactor = Arc::clone(redactor);
    Arc::new(move |text| redactor.clean_lasting(text))
}

/// Takes known secrets out of a text.
pub(crate) fn known_secrets(redactor: &Arc<Redactor>) -> Redact {
    let redactor = Arc::clone(redactor);
    Arc::new(move |text| redactor.clean_known(text))
}

/// Serves metrics, health, the page and its API while the returned handle lives.
pub(crate) fn serve(
    output: Output,
    listen: SocketAddr,
    shared: Arc<Shared>,
    desk: Arc<Desk>,
) -> Result<oneshot::Sender<()>, Failure> {
    let listener = TcpListener::bind(listen)
        .or_mendable(format!("cannot listen on {listen}"))
        .map_err(|failure| failure.hint("name another address with --listen"))?;
    let address = listener.local_addr().unwrap_or(listen);
    if let Some(warning) = web::warning(address) {
        output.note(&format!("warning: {warning}"));
    }
    output.note(&format!(
        "page at http://{address}/, metrics at http://{address}/metrics"
    ));
    page::serve(listener, shared, desk).or_mendable("the page cannot be served")
}

/// The first interruption and the second. They are watched from now on and apart from the daemon,
/// so that neither is missed during a tick, and the second quits at once.
pub(crate) fn interruptions(
    output: Output,
    told_first: &'static str,
) -> (
    impl Future<Output = ()> + Send,
    impl Future<Output = ()> + Send,
) {
    let (end, ended) = oneshot::channel::<()>();
    let (quit, quitted) = oneshot::channel::<()>();
    let mut signals = Signals::watch();
    tokio::spawn(async move {
        signals.next().await;
        output.note(told_first);
        // Nobody waits any more where the daemon has ended by itself.
        let _ = end.send(());
        signals.next().await;
        let _ = quit.send(());
    });
    let or_never = |signal: oneshot::Receiver<()>| async {
        if signal.await.is_err() {
            std::future::pending::<()>().await;
        }
    };
    (or_never(ended), or_never(quitted))
}

/// Ready when the user, or the system, wants the process to end.
pub(crate) async fn interrupted() {
    Signals::watch().next().await;
}

/// The wishes of the user and the system that the process ends. Where they cannot be watched, only
/// killing ends it.
#[cfg(unix)]
struct Signals(Vec<tokio::signal::unix::Signal>);

#[cfg(unix)]
impl Signals {
    /// Watches from now on.
    fn watch() -> Self {
        use tokio::signal::unix::{SignalKind, signal};
        let kinds = [SignalKind::interrupt(), SignalKind::terminate()];
        Self(
            kinds
                .into_iter()
                .filter_map(|kind| signal(kind).ok())
                .collect(),
        )
    }

    async fn next(&mut self) {
        let any = std::future::poll_fn(|context| {
            let ready = self
                .0
                .iter_mut()
                .any(|signal| signal.poll_recv(context).is_ready());
            if ready {
                std::task::Poll::Ready(())
            } else {
                std::task::Poll::Pending
            }
        });
        any.await;
    }
}

#[cfg(not(unix))]
struct Signals;

#[cfg(not(unix))]
impl Signals {
    fn watch() -> Self {
        Self
    }

    async fn next(&mut self) {
        if tokio::signal::ctrl_c().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

impl From<DaemonError> for Failure {
    fn from(error: DaemonError) -> Self {
        match error {
            DaemonError::Store(error) => Self::from(error).context("spending stops"),
            DaemonError::Token(error) | DaemonError::Unreachable(error) => error.into(),
            DaemonError::OtherAccount { .. } => Self::new(Exit::Mendable, error.into())
                .hint("use that account's token, or another database with --database"),
        }
    }
}
