//! Puts the process together and runs it: `lockstep serve`.
//!
//! ```text
//! control runtime (this thread and two more)      worker threads, one each
//!   accept ── sockets, round robin ─────────────▶  current_thread runtime
//!   control port, monitor, catalog, journal          sessions
//! ```
//!
//! A session never leaves its worker, so the data path has no work stealing;
//! everything that may be slow runs on the control runtime.
//!
//! Start: settings, store, routes, a bounded look at both backends, then the
//! data port. Stop (SIGTERM, SIGINT): the data port closes, sessions end at
//! safe points, what is left after the limit is ended. A second signal does
//! not wait.

mod accept;
mod build;
mod certificates;
mod memory;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};

use crate::Side;
use crate::config::{self, Config};
use crate::migration::{Migration, monitor};
use crate::rows::service::ServiceAccount;
use crate::session::Shared;
use crate::telemetry;
use accept::Workers;
use build::{Built, Sampled};

/// Threads of the control runtime: enough for a scrape beside a slow store.
const CONTROL_THREADS: usize = 2;

/// How long the start waits for both backends to be seen once, so that the
/// first client is greeted with what both can do.
const FIRST_LOOK_LIMIT: Duration = Duration::from_secs(5);

/// Between two looks while waiting at start and stop.
const POLL: Duration = Duration::from_millis(20);

/// Between two looks at what is held for clients, for the metrics.
const HELD_INTERVAL: Duration = Duration::from_secs(1);

/// Between two moves of histogram samples into their buckets.
const UPKEEP_INTERVAL: Duration = Duration::from_secs(5);

/// Between two checkpoints of the journal.
const CHECKPOINT_INTERVAL: Duration = Duration::from_secs(1);

/// For killed sessions to end their backend connections, at the very end.
const KILL_LIMIT: Duration = Duration::from_secs(2);

/// For background tasks to end when the process does.
const RUNTIME_STOP_LIMIT: Duration = Duration::from_millis(500);

/// Runs the proxy until a signal ends it.
///
/// # Errors
/// Why it could not start, for people.
pub fn run(config_path: &Path) -> Result<(), String> {
    telemetry::init_log();
    let config = config::load(config_path).map_err(|e| e.to_string())?;
    // Another provider installed before is as good.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(CONTROL_THREADS)
        .thread_name("lockstep-control")
        .enable_all()
        .build()
        .map_err(|e| format!("the control runtime cannot start: {e}"))?;
    let result = runtime.block_on(serve(&config));
    runtime.shutdown_timeout(RUNTIME_STOP_LIMIT);
    result
}

async fn serve(config: &Config) -> Result<(), String> {
    let mut stop = Stop::new()?;
    let mut built = build::all(config)?;
    let control_listener = listen("control.http", &config.control.http).await?;
    let data_listener = listen("listen", &config.listen).await?;
    let workers = Arc::new(Workers::start(config, built.shared.clone())?);
    tokio::spawn(held(built.shared.clone(), workers.clone()));
    accept::check_descriptors(config.limits.connections);
    background(config, &built);
    tokio::spawn(std::mem::take(&mut built.certificates).watch());
    let control = built.control.clone();
    tokio::spawn(async move {
        if let Err(e) =
            crate::control::serve(control_listener, control, std::future::pending()).await
        {
            tracing::error!("the control port failed: {e}");
        }
    });
    tokio::select! {
        () = first_look(&built) => {}
        () = stop.asked() => return Ok(()),
    }
    built.control.listening.store(true, Ordering::Release);
    tracing::info!(
        listen = %config.listen,
        control = %config.control.http,
        "lockstep {} serves",
        crate::control::VERSION
    );
    tokio::select! {
        () = workers.accept(data_listener) => {}
        () = stop.asked() => {}
    }
    tracing::info!("stopping: no new connections");
    tokio::select! {
        () = drain(&built.shared, &workers, config.limits.shutdown()) => {}
        () = stop.asked() => tracing::warn!("stopping at once"),
    }
    if let Err(e) = built.shared.mirror.journal.close() {
        tracing::error!("the journal could not be closed: {e}");
    }
    Ok(())
}

async fn listen(setting: &str, address: &str) -> Result<TcpListener, String> {
    TcpListener::bind(address)
        .await
        .map_err(|e| format!("{setting}: cannot listen on {address}: {e}"))
}

/// SIGTERM and SIGINT.
struct Stop {
    term: tokio::signal::unix::Signal,
    int: tokio::signal::unix::Signal,
}

impl Stop {
    fn new() -> Result<Stop, String> {
        let on = |kind| signal(kind).map_err(|e| format!("signals cannot be caught: {e}"));
        Ok(Stop {
            term: on(SignalKind::terminate())?,
            int: on(SignalKind::interrupt())?,
        })
    }

    async fn asked(&mut self) {
        tokio::select! {
            _ = self.term.recv() => {}
            _ = self.int.recv() => {}
        }
    }
}

/// Waits, within a bound, until each backend was seen or found down, and its
/// capabilities and shapes are known.
async fn first_look(built: &Built) {
    let looked = async {
        for side in [Side::Source, Side::Target] {
            while built.migration.backends().get(side).up.is_none() {
                tokio::time::sleep(POLL).await;
            }
        }
        let _ = built.migration.catalog().refresh().await;
        for side in [Side::Source, Side::Target] {
            let up = || built.migration.backends().get(side).up == Some(true);
            while up() && built.shared.login.seen.get(side).is_none() {
                tokio::time::sleep(POLL).await;
            }
        }
    };
    if tokio::time::timeout(FIRST_LOOK_LIMIT, looked)
        .await
        .is_err()
    {
        tracing::warn!("starting without having seen both backends");
    }
}

/// Starts what runs beside the sessions.
fn background(config: &Config, built: &Built) {
    let migration: &Arc<Migration> = &built.migration;
    let accounts = [Side::Source, Side::Target].map(|side| ServiceAccount::of(config, side));
    for account in &accounts {
        let hooks: Arc<dyn monitor::Hooks> = Arc::new(Sampled::new(&built.shared, config));
        tokio::spawn(monitor::health(
            migration.clone(),
            account.clone(),
            hooks.clone(),
        ));
        tokio::spawn(monitor::positions(
            migration.clone(),
            account.clone(),
            hooks,
        ));
    }
    let [source, target] = accounts.clone();
    let home = match built.shared.routes.load().home() {
        Side::Source => source,
        Side::Target => target,
    };
    let shared = built.shared.clone();
    tokio::spawn(async move { shared.prepared_xa.recover(home).await });
    tokio::spawn(monitor::resume(migration.clone(), accounts));
    tokio::spawn(migration.plane().clone().run());
    tokio::spawn(monitor::adopt(migration.clone()));
    tokio::spawn(migration.catalog().clone().run());
    let shared = built.shared.clone();
    tokio::spawn(async move { shared.variables.keep_fresh().await });
    tokio::spawn(async {
        loop {
            tokio::time::sleep(UPKEEP_INTERVAL).await;
            telemetry::upkeep();
        }
    });
    tokio::spawn(checkpoints(built.shared.clone()));
}

/// Shows what is held for clients: nobody can tell a leak otherwise.
async fn held(shared: Arc<Shared>, workers: Arc<Workers>) {
    let control = tokio::runtime::Handle::current().metrics();
    let mut left = memory::Left::default();
    loop {
        let connections = workers.connections();
        if left.is_worth_it(connections) {
            tokio::task::spawn_blocking(memory::give_back);
        }
        telemetry::held(
            connections,
            shared.registry.legs(),
            control.num_alive_tasks(),
            workers.tasks(),
        );
        tokio::time::sleep(HELD_INTERVAL).await;
    }
}

async fn checkpoints(shared: Arc<Shared>) {
    let mut failing = false;
    loop {
        tokio::time::sleep(CHECKPOINT_INTERVAL).await;
        let at = |side| {
            shared
                .mirror
                .positions
                .last(side)
                .map(|p| p.as_ref().clone())
        };
        let (source, target) = (at(Side::Source), at(Side::Target));
        let inner = shared.clone();
        // Syncs a file: off the runtime's threads.
        let done =
            tokio::task::spawn_blocking(move || inner.mirror.journal.checkpoint(source, target));
        match done.await {
            Ok(Ok(())) => failing = false,
            Ok(Err(e)) if !std::mem::replace(&mut failing, true) => {
                telemetry::error("proxy", "journal");
                tracing::error!("the journal's positions cannot be stored: {e}");
            }
            _ => {}
        }
    }
}

/// Lets sessions end, then ends them.
async fn drain(shared: &Shared, workers: &Workers, limit: Duration) {
    shared.draining.store(true, Ordering::Release);
    let ended = async {
        while workers.connections() > 0 {
            // Who holds no route and no transaction is at a safe point.
            for session in shared.registry.list() {
                let idle = shared
                    .routes
                    .slot(session.id)
                    .is_none_or(|s| s.holding() == 0);
                if idle && !session.in_transaction {
                    shared.registry.kill(session.id);
                }
            }
            tokio::time::sleep(POLL).await;
        }
    };
    if tokio::time::timeout(limit, ended).await.is_ok() {
        return;
    }
    tracing::warn!(sessions = workers.connections(), "ending what is left");
    for session in shared.registry.list() {
        shared.registry.kill(session.id);
    }
    let gone = async {
        while workers.connections() > 0 {
            tokio::time::sleep(POLL).await;
        }
    };
    let _ = tokio::time::timeout(KILL_LIMIT, gone).await;
}
