//! Beside a route's follower: the mirror's log is watched for writes that are
//! not ours, and rows are verified as they change ([`crate::compare`]).
//!
//! ```text
//! mirror's log ─► Watcher ─ keys of foreign and unknown writes ─┐
//!                                                               ├─► Comparer::verify ─► list, repair
//! active's log ─► Follower ─ some of the keys it has written ───┘
//! ```
//!
//! Keys that wait hold the watcher back, and none is left out: the log is the
//! queue. What could not be verified voids the last clean pass.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use serde::Serialize;
use tokio::sync::mpsc;

use crate::Side;
use crate::binlog::Position;
use crate::binlog::stream::{BinlogStream, Request, StreamError};
use crate::compare::watcher::{Foreign, Ours, WatchStatus, Watcher};
use crate::compare::{self, Suspected};
use crate::copy::select::Bound;
use crate::follow::batch::TableName;
use crate::follow::tables::CatalogTables;
use crate::leg::ours::{MARK, Threads};
use crate::rows::service::{ServiceConn, text};

use super::Inner;
use super::compare::{Compared, Sides};
use super::position;
use super::route::{self, Spec};
use super::view::View;

/// Between two looks at the end of the mirror's log: whatever is found there is
/// gathered for longer.
const READ_PAUSE: Duration = Duration::from_millis(20);

/// Keys between the watcher and the comparer.
const KEYS_MAX: usize = 20_000;

/// Keys of the follower's that wait to be verified; others are left out.
const SAMPLED_MAX: usize = 64;

/// From one of them to the next: some 50 a second are verified.
const A_SAMPLE: Duration = Duration::from_millis(20);

/// How often what was seen is looked at: who wrote, and how far all is verified.
const TICK: Duration = Duration::from_millis(500);

/// For one question to the mirror.
const LIMIT: Duration = Duration::from_secs(2);

/// Pause before it is tried again.
const PAUSE: Duration = Duration::from_secs(2);

/// Without a watcher for longer, no comparison counts as clean.
const BLIND: Duration = Duration::from_secs(5);

/// Seconds by which an event's time may be wrong.
const CLOCK_S: u32 = 2;

/// Number of its healer among those of the stream.
const HEALER: usize = 1001;

/// What is kept of a route's watcher while the process lives.
#[derive(Default)]
pub(super) struct Watching {
    status: Arc<WatchStatus>,
    /// It is at work; or why not.
    state: Mutex<(bool, Option<String>)>,
    /// Since when it has not been at work; None before it first was.
    down: Mutex<Option<Instant>>,
    /// Events of before, in seconds since 1970, may be another process's of
    /// this installation.
    since_s: Mutex<Option<u32>>,
    /// Rows that could not be handed on, as told.
    told: Mutex<u64>,
}

/// `compare.watch` of a route in `status`.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct WatchView {
    /// The mirror's log is read.
    pub running: bool,
    /// Why not.
    pub detail: Option<String>,
    /// Rows of the route that others have written on the mirror.
    pub foreign_rows: u64,
    /// Rows whose writer the log does not tell; each was verified.
    pub unknown_rows: u64,
    /// Rows that could not be verified by key.
    pub unverified_rows: u64,
    /// Who writes there besides us, the latest last.
    pub writers: Vec<Foreign>,
}

impl Watching {
    pub(super) fn view(&self) -> WatchView {
        let (running, detail) = self.state.lock().clone();
        let status = &self.status;
        WatchView {
            running,
            detail,
            foreign_rows: status.foreign_rows.load(Ordering::Relaxed),
            unknown_rows: status.unknown_rows.load(Ordering::Relaxed),
            unverified_rows: status.dropped_rows.load(Ordering::Relaxed),
            writers: status.foreign(),
        }
    }

    fn set(&self, running: bool, detail: Option<String>) {
        *self.state.lock() = (running, detail);
        let mut down = self.down.lock();
        *down = (!running).then(|| down.unwrap_or_else(Instant::now));
    }

    /// What others write on the mirror is not seen, and has not been for longer
    /// than a beginning takes.
    pub(super) fn is_blind(&self) -> bool {
        self.down.lock().is_some_and(|d| d.elapsed() > BLIND)
    }
}

/// Shows as not running when it is dropped.
struct Shown<'a>(&'a Watching);

impl Drop for Shown<'_> {
    fn drop(&mut self) {
        self.0.set(false, None);
    }
}

/// The sessions' writes on one side.
struct Legs {
    threads: Arc<[Threads; 2]>,
    side: Side,
}

impl Ours for Legs {
    fn thread(&self, id: u32) -> bool {
        let threads = self.threads.get(self.side.index());
        threads.is_some_and(|t| t.knows(id))
    }

    fn text(&self, sql: &[u8]) -> bool {
        sql.starts_with(MARK)
    }
}

/// A row that the follower has written.
type Sampled = (TableName, Bound);

/// Where a follower hands some of its keys on.
pub(super) fn sampled() -> (mpsc::Sender<Sampled>, mpsc::Receiver<Sampled>) {
    mpsc::channel(SAMPLED_MAX)
}

/// A route's watcher in one run of its follower.
pub(super) struct Watch<'a> {
    pub(super) inner: &'a Arc<Inner>,
    pub(super) spec: &'a Spec,
    pub(super) view: &'a Arc<View>,
    pub(super) compared: &'a Arc<Compared>,
}

impl Watch<'_> {
    /// Watches and verifies until it is dropped. A failure of its own is no
    /// reason for the follower to end: it is shown, and tried again.
    pub(super) async fn run(&self, mut sampled: mpsc::Receiver<Sampled>) -> Infallible {
        let watching = &self.compared.watching;
        let _shown = Shown(watching);
        if !self.spec.work.heal {
            // What the mirror gets from now on is not looked at.
            self.compared.known.lock().watched = None;
        }
        if self.spec.work.copy {
            // There is no mirror yet whose rows could be wrong.
            std::future::pending::<()>().await;
        }
        let mut told = None;
        loop {
            let why = self.once(&mut sampled).await;
            if told.as_ref() != Some(&why) {
                let route = &self.spec.name;
                tracing::warn!(route, "watching the mirror: {why}");
                told = Some(why.clone());
            }
            watching.set(false, Some(why));
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Why it ended.
    async fn once(&self, sampled: &mut mpsc::Receiver<Sampled>) -> String {
        let work = self.spec.work;
        let (keys, received) = mpsc::channel(KEYS_MAX);
        let sides = Sides {
            route: &self.spec.name,
            active: work.from,
            stream: &self.spec.start.stream,
            healer: HEALER,
            view: Some(self.view.clone()),
            repair: work.heal,
        };
        let status = self.compared.watching.status.clone();
        let proven = Arc::new(move |table| status.proven(table));
        let verifying = Arc::<compare::Status>::default();
        let comparer = self
            .compared
            .comparer(self.inner, &sides, verifying.clone(), Some(proven));
        let watched = keys.clone();
        let watching = async {
            match work.heal {
                true => self.watch(watched).await,
                false => std::future::pending().await,
            }
        };
        let handing_over = async {
            while let Some((name, key)) = sampled.recv().await {
                let one = Suspected {
                    name,
                    key,
                    unknown: false,
                    hold: None,
                };
                // A sample: what does not fit is left out.
                let _ = keys.try_send(one);
                tokio::time::sleep(A_SAMPLE).await;
            }
            std::future::pending::<Infallible>().await
        };
        // Once one of them has ended none is polled again, so a place is never
        // taken for verified because its keys were dropped: they go with the
        // ticking.
        tokio::select! {
            biased;
            ended = comparer.verify(received, work.heal) => match ended {
                Ok(()) => "nothing is left to be verified".to_owned(),
                Err(e) => e.to_string(),
            },
            why = watching => why,
            never = handing_over => match never {},
            never = self.tick(&verifying) => match never {},
        }
    }

    /// Reads the mirror's log; why it ended.
    async fn watch(&self, keys: mpsc::Sender<Suspected>) -> String {
        let (side, stream) = (self.spec.work.from.other(), &self.spec.start.stream);
        let (start, since_s) = match self.start(side).await {
            Ok(start) => start,
            Err(why) => return why,
        };
        let covered = route::covers(self.inner, &self.spec.tables);
        let tables = CatalogTables::new(self.inner.catalog.snapshot(), side, covered);
        let ours = Legs {
            threads: self.inner.threads.clone(),
            side,
        };
        let own = format!("{stream}/watch");
        let request = Request {
            from: start.clone(),
            server_id: route::server_id(&own),
            uuid: route::uuid(&own),
            until_end: false,
            texts: true,
            pause: READ_PAUSE,
        };
        let status = self.compared.watching.status.clone();
        let mut watcher = Watcher::new(Arc::new(tables), Arc::new(ours), keys, start, status)
            .unknown_until(since_s);
        let leg = match self.inner.leg(side).await {
            Ok(leg) => leg,
            Err(why) => return why,
        };
        let ended = match BinlogStream::start(leg, &request).await {
            Ok(log) => {
                self.compared.watching.set(true, None);
                watcher.run(log).await
            }
            Err(e) => Err(e),
        };
        match ended {
            Ok(()) => "the log ended".to_owned(),
            Err(e @ StreamError::HistoryLost { .. }) => {
                self.compared.known.lock().watched = None;
                let why = format!("what others wrote on the mirror is not known: {e}");
                self.compared.void(&why);
                why
            }
            Err(e) => e.to_string(),
        }
    }

    /// Where to read from, and until when (the server's seconds since 1970)
    /// another process of this installation may have written.
    async fn start(&self, side: Side) -> Result<(Position, u32), String> {
        let mut conn = ServiceConn::new(self.inner.account(side).clone());
        let stream = &self.spec.start.stream;
        let watched = self.compared.known.lock().watched.clone();
        let watched = watched.filter(|(of, _)| of == stream);
        let since = *self.compared.watching.since_s.lock();
        let since = match (since, &watched) {
            (Some(since), _) => since,
            // Nothing that was written before now is going to be read.
            (None, None) => 0,
            (None, Some(_)) => {
                let now = conn.rows("SELECT UNIX_TIMESTAMP()", LIMIT).await;
                let now = now.map_err(|e| e.to_string())?;
                let now = now.first().and_then(|row| text(row, 0)?.parse().ok());
                now.unwrap_or(0_u32).saturating_add(CLOCK_S)
            }
        };
        *self.compared.watching.since_s.lock() = Some(since);
        if let Some((_, place)) = watched {
            return Ok((place, since));
        }
        let end = position::end(&mut conn).await.map_err(|e| e.to_string())?;
        self.compared.known.lock().watched = Some((stream.clone(), end.clone()));
        Ok((end, since))
    }

    /// Looks at what was seen, from time to time.
    async fn tick(&self, verifying: &compare::Status) -> Infallible {
        let side = self.spec.work.from.other();
        let mut conn = ServiceConn::new(self.inner.account(side).clone());
        let mut asked: Option<u32> = None;
        loop {
            tokio::time::sleep(TICK).await;
            let (compared, watching) = (self.compared, &self.compared.watching);
            let status = &watching.status;
            // In this order, here and on disk: a place behind what could not
            // be verified is one only once that is known.
            let place = status.verified_to().filter(|_| self.spec.work.heal);
            let skipped = verifying.unverified.swap(0, Ordering::AcqRel);
            status.dropped_rows.fetch_add(skipped, Ordering::Relaxed);
            let unverified = status.dropped_rows.load(Ordering::Relaxed);
            if std::mem::replace(&mut *watching.told.lock(), unverified) < unverified {
                compared.void("writes to the mirror by others could not be verified");
            }
            if let Some(place) = place {
                let stream = self.spec.start.stream.clone();
                compared.known.lock().watched = Some((stream, place));
            }
            let nameless = |f: &Foreign| f.user.is_none() && f.thread_id != asked;
            let writers = status.foreign().into_iter().rev();
            let nameless = writers.filter(nameless).find_map(|f| f.thread_id);
            if let Some(thread) = nameless {
                asked = Some(thread);
                // Only while its connection lives; not knowing is no failure.
                let sql = format!(
                    "SELECT USER, HOST FROM information_schema.PROCESSLIST WHERE ID = {thread}"
                );
                let rows = conn.rows(&sql, LIMIT).await.unwrap_or_default();
                if let Some(row) = rows.first() {
                    let [user, host] = [0, 1].map(|n| text(row, n).unwrap_or_default());
                    let host = host.rsplit_once(':').map_or(&*host, |(host, _)| host);
                    status.set_user(thread, &format!("{user}@{host}"));
                }
            }
        }
    }
}
