//! The background work of one route in one phase: a follower, and beside it
//! the copier while the phase is `syncing`.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch::Receiver};

use crate::binlog::Position;
use crate::binlog::stream::{BinlogStream, Request, StreamError};
use crate::copy::{Copier, CopyError, Throttle};
use crate::follow::batch::TableName;
use crate::follow::beat::Beat;
use crate::follow::cascade;
use crate::follow::heal::Healer;
use crate::follow::tables::{CatalogTables, Tables};
use crate::follow::writer::{Worker, WriteError};
use crate::follow::{FollowError, Follower, Mode};
use crate::route::table::{DdlPolicy, FollowStart, TableGlob};
use crate::rows::service::{ServiceAccount, ServiceError};

use super::compare::Compared;
use super::definitions::{Known, What, remedy};
use super::objects::Objects;
use super::replay::{self, Failed};
use super::view::{Copying, State, View, Work};
use super::watch::{self, Watch};
use super::{Inner, make, over, shapes};

/// Chunks handed over and not yet written: as many as are read at a time, so
/// that reading never waits for writing alone.
const CHUNKS_MAX: usize = 8;

/// Pause before the work is tried again, doubled up to the most.
const PAUSE: Duration = Duration::from_millis(500);
const PAUSE_MAX: Duration = Duration::from_secs(5);

/// The follower works alone for this long when the copy has failed.
const COPY_PAUSE: Duration = Duration::from_secs(2);

/// Between attempts at keys that the target refused, doubled up to the most: one
/// that fails at its end may take hours each time.
const KEYS_PAUSE: Duration = Duration::from_secs(30);
const KEYS_PAUSE_MAX: Duration = Duration::from_secs(1800);

/// What a route's task needs to know.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Spec {
    /// The route.
    pub name: String,
    /// Its tables.
    pub tables: Vec<TableGlob>,
    /// What is done.
    pub work: Work,
    /// Where it began.
    pub start: FollowStart,
}

/// Why one run ended.
pub(super) enum Ended {
    /// Trying again may help.
    Passing(String),
    /// It will not.
    Stuck(String),
}

impl From<ServiceError> for Ended {
    fn from(e: ServiceError) -> Ended {
        Ended::Passing(e.to_string())
    }
}

impl From<FollowError> for Ended {
    fn from(e: FollowError) -> Ended {
        let said = e.to_string();
        match e {
            FollowError::Stream(StreamError::Lost(_))
            | FollowError::Write(WriteError::Service(_)) => Ended::Passing(said),
            _ => Ended::Stuck(said),
        }
    }
}

impl From<CopyError> for Ended {
    fn from(e: CopyError) -> Ended {
        let said = e.to_string();
        match e {
            CopyError::Table { .. } => Ended::Stuck(said),
            _ => Ended::Passing(said),
        }
    }
}

/// Between two looks at a log's end while both sides are written: what a flip
/// may wait longer by it.
const HEAL_PAUSE: Duration = Duration::from_millis(4);

/// What need not be done again when a run ended.
#[derive(Default)]
struct Ready {
    /// The target has the tables. Later ones are made where the log has them,
    /// for the source's definitions may be ahead of the follower.
    made: bool,
    /// Where the log is read from in place of the stored beginning.
    start: Option<Position>,
    /// Triggers and events are where they belong.
    settled: bool,
}

/// Works until told to stop. A run that ended is begun again from its
/// checkpoint: also one that is stuck, for what stood in its way may have been
/// seen to.
pub(super) async fn work(
    inner: Arc<Inner>,
    spec: Spec,
    view: Arc<View>,
    compared: Arc<Compared>,
    mut stop: Receiver<bool>,
) {
    let mut pause = PAUSE;
    let mut told = String::new();
    let mut ready = Ready::default();
    loop {
        let begun = tokio::time::Instant::now();
        view.set(State::Starting, None);
        let ended = tokio::select! {
            ended = once(&inner, &spec, &view, &compared, &mut ready) => ended,
            _ = stop.wait_for(|s| *s) => return,
        };
        let (state, why) = match ended {
            Err(Ended::Passing(why)) => (State::Waiting, why),
            Err(Ended::Stuck(why)) => {
                view.stopped();
                // A definition may have changed, or a trigger come to be.
                ready.settled = false;
                match changed(&inner, &spec, &view, &mut stop, why).await {
                    Some(ended) => ended,
                    None => continue,
                }
            }
            Ok(()) => (State::Waiting, "the log ended".to_owned()),
        };
        if begun.elapsed() > PAUSE_MAX {
            pause = PAUSE;
        }
        if told != why {
            tracing::warn!(route = spec.name, "the row plane: {why}");
            told.clone_from(&why);
        }
        crate::telemetry::error("proxy", "row_plane");
        view.set(state, Some(why));
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            _ = stop.wait_for(|s| *s) => return,
        }
        pause = (pause * 2).min(PAUSE_MAX);
    }
}

/// The follower stopped. At a change of a definition that it can see to, None:
/// it goes on at once.
async fn changed(
    inner: &Inner,
    spec: &Spec,
    view: &View,
    stop: &mut Receiver<bool>,
    why: String,
) -> Option<(State, String)> {
    let Some(query) = view.met() else {
        return Some((State::Stopped, why));
    };
    let what = What::logged(&query);
    if what.is_trigger() {
        return None;
    }
    let table = inner.routes.load();
    let policy = table.index_of(&spec.name).and_then(|i| table.routes.get(i));
    if spec.work.heal || policy.is_none_or(|r| r.ddl == DdlPolicy::Refuse) {
        let remedy = remedy(&query, spec.work.from, &spec.name);
        return Some((State::Stopped, format!("{why}; {remedy}")));
    }
    let doing = format!("{why}: run on the {}", spec.work.from.other());
    view.set(State::Starting, Some(doing));
    let replayed = tokio::select! {
        done = replay::run(inner, spec, view, &query) => done,
        // The loop's own wait ends then, too.
        _ = stop.wait_for(|s| *s) => Err(Failed::Passing(why.clone())),
    };
    match replayed {
        Ok(()) => None,
        Err(Failed::Passing(e)) => Some((State::Waiting, format!("{why}: {e}"))),
        Err(Failed::Stuck(e)) => {
            let remedy = remedy(&query, spec.work.from, &spec.name);
            Some((State::Stopped, format!("{why}: {e}; {remedy}")))
        }
    }
}

async fn once(
    inner: &Arc<Inner>,
    spec: &Spec,
    view: &Arc<View>,
    compared: &Arc<Compared>,
    ready: &mut Ready,
) -> Result<(), Ended> {
    let read = spec.work.from;
    let [from, to] = [read, read.other()].map(|side| inner.account(side).clone());
    begin(inner, spec, view, ready).await?;
    let (names, tables) = known_tables(inner, spec, view, &from).await?;
    let start = match &ready.start {
        Some(start) => start.clone(),
        None => {
            let stored = spec.start.from.parse();
            stored.map_err(|_| Ended::Stuck("the stored position cannot be read".to_owned()))?
        }
    };
    let stream = &spec.start.stream;
    let workers = (0..inner.settings.workers)
        .map(|n| Worker::new(to.clone(), stream, n))
        .map(|worker| worker.with_loads_logged(inner.settings.copy.binlog))
        .collect();
    let followed = view.followed.clone();
    let healer = |n| Healer::new(from.clone(), to.clone(), stream, n);
    let mode = if spec.work.heal {
        Mode::Heal((0..inner.settings.workers).map(healer).collect())
    } else {
        Mode::Apply(vec![healer(0)])
    };
    let (sample, samples) = watch::sampled();
    let mut follower =
        Follower::new(workers, tables.clone(), start, followed.clone(), mode).await?;
    let pulse = inner.pulse(read);
    follower = follower.with_pulse(pulse.name()).with_sample(sample);
    view.begins();
    let request = Request {
        from: follower.position().clone(),
        server_id: server_id(stream),
        uuid: uuid(stream),
        until_end: false,
        texts: false,
        pause: if spec.work.heal {
            HEAL_PAUSE
        } else {
            Duration::ZERO
        },
    };
    let leg = inner.leg(read).await.map_err(Ended::Passing)?;
    let verified = follower.verify(&from, leg, &request).await;
    verified.inspect_err(|e| void(compared, e))?;
    let leg = inner.leg(read).await.map_err(Ended::Passing)?;
    let log = BinlogStream::start(leg, &request).await;
    let log = log.map_err(FollowError::from)?;
    let (send, chunks) = mpsc::channel(CHUNKS_MAX);
    let copied = view.copied.clone();
    let beat = Beat::listen(pulse, followed);
    let lag = view.clone();
    let lag = move || lag.lag_ms().map(Duration::from_millis);
    let throttle = Throttle::new(inner.settings.copy.clone(), Arc::new(lag));
    let (legs, windows) = (inner.legs(read), follower.windows());
    let copier = Copier::new([from, to], legs, stream, tables, windows, send, copied)
        .with_throttle(throttle);
    let _beating = view.beating(beat);
    let prepared = match spec.work.copy {
        true => copier.prepare(&names).await,
        false => Ok(()),
    };
    // Before it is seen running: what was copied by the run before may be to be
    // copied anew, and an edge asks for both.
    if spec.work.copy {
        view.set_copying(Copying::Running);
    }
    view.set(State::Running, None);
    let copying = copying(inner, spec, view, &copier, &names, prepared);
    let watch = Watch {
        inner,
        spec,
        view,
        compared,
    };
    tokio::select! {
        done = follower.run(log, chunks) => Ok(done.inspect_err(|e| void(compared, e))?),
        failed = copying => failed,
        never = watch.run(samples) => match never {},
    }
}

/// What is to be there before the log is read.
async fn begin(inner: &Inner, spec: &Spec, view: &View, ready: &mut Ready) -> Result<(), Ended> {
    if spec.work.copy && !ready.made {
        ready.start = make::make(inner, spec).await?;
        // Known before the copy can be said to be done.
        *view.over.lock() = over::load(inner, spec).await?;
        ready.made = true;
    }
    if !ready.settled {
        let objects = Objects::new(inner, &spec.name, &spec.tables);
        let done = objects.settle(spec.work.from).await;
        done.map_err(|e| Ended::Passing(format!("triggers and events: {e}")))?;
        ready.settled = true;
    }
    Ok(())
}

/// The tables that are copied, and what the follower knows of all.
async fn known_tables(
    inner: &Inner,
    spec: &Spec,
    view: &Arc<View>,
    from: &ServiceAccount,
) -> Result<(Vec<TableName>, Arc<dyn Tables>), Ended> {
    let (read, written) = (spec.work.from, spec.work.from.other());
    for loaded in inner.catalog.refresh().await {
        loaded?;
    }
    let catalog = inner.catalog.snapshot();
    let fold = inner.routes.load().fold_names;
    let covered = covers(inner, &spec.tables);
    // All rows of a table that the other side does not have yet are to come in
    // the log, behind its making.
    let mut names = shapes::tables(&covered, read, &catalog);
    let there: HashSet<_> = shapes::tables(&covered, written, &catalog)
        .into_iter()
        .collect();
    names.retain(|name| there.contains(name));
    let known = Known {
        view: view.clone(),
        route: spec.name.clone(),
        book: inner.ddl.clone(),
        catalog: catalog.clone(),
        read,
    };
    // Healing reads both sides as they are now; applying writes what was.
    let shapes = match spec.work.heal {
        true => catalog,
        false => replay::at_log(inner, &catalog, read, &covered, fold).await?,
    };
    let logs_cascades = cascade::are_logged(from).await?;
    let tables = CatalogTables::new(shapes, read, covered)
        .with_cascades_logged(logs_cascades)
        .with_definitions(Arc::new(known));
    Ok((names, Arc::new(tables)))
}

/// Copies what was there before, where that is to be done; ends only where it
/// fails.
async fn copying(
    inner: &Inner,
    spec: &Spec,
    view: &View,
    copier: &Copier,
    names: &[TableName],
    prepared: Result<(), CopyError>,
) -> Result<(), Ended> {
    if spec.work.copy {
        let slots = usize::try_from(inner.settings.copy.slots).unwrap_or(1);
        let copied = match prepared {
            Ok(()) => copier.run(names, slots).await,
            failed => failed,
        };
        if let Err(failed) = copied {
            // A table may be another already than where the follower is:
            // it must come further for that to end.
            tokio::time::sleep(COPY_PAUSE).await;
            return Err(failed.into());
        }
        // Rows without their keys are not what was to be copied: reads of the
        // target would be as slow as the table is large.
        let mut pause = KEYS_PAUSE;
        while let Some(unbuilt) = make::finish(inner, spec).await? {
            view.set_unbuilt(Some(unbuilt));
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(KEYS_PAUSE_MAX);
        }
        view.set_copying(Copying::Done);
    }
    std::future::pending().await
}

/// A side whose history is lost may have rows that no log will ever name.
fn void(compared: &Compared, e: &FollowError) {
    if let FollowError::Stream(StreamError::HistoryLost { .. }) = e {
        compared.void(&e.to_string());
    }
}

/// Whether a route with these tables covers one.
pub(super) fn covers(
    inner: &Inner,
    tables: &[TableGlob],
) -> impl Fn(&[u8], &[u8]) -> bool + Send + Sync + Clone + use<> {
    let (globs, fold) = (tables.to_vec(), inner.routes.load().fold_names);
    move |db, table| globs.iter().any(|g| g.matches(db, table, fold))
}

/// Two numbers from a stream's name: they only have to differ from those of
/// other streams and, most likely, of servers.
fn numbers(stream: &str) -> (u32, u64) {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    for byte in stream.bytes() {
        hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    }
    (hash as u32, hash)
}

/// Our number among the server's replicas: the upper half, where nobody
/// numbers servers by hand.
pub(super) fn server_id(stream: &str) -> u32 {
    0x8000_0000 | numbers(stream).0
}

pub(super) fn uuid(stream: &str) -> String {
    let (low, high) = numbers(stream);
    format!(
        "{:08x}-{:04x}-4000-8000-{:012x}",
        low,
        (high >> 48) as u16,
        high & 0xffff_ffff_ffff
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_are_told_apart() {
        assert_ne!(server_id("a:1"), server_id("a:2"));
        assert_eq!(uuid("a").len(), 36);
        assert!(server_id("x") >= 0x8000_0000);
    }
}
