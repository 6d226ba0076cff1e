//! What the row plane does in the middle of an edge, while the gate is closed
//! and the route drained (DESIGN §7): bring the other side up to date, fence,
//! take the position the next follower begins at.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use mysql_async::Conn;
use tokio::sync::OwnedRwLockWriteGuard;

use crate::Side;
use crate::binlog::Position;
use crate::follow::writer::{Worker, WriteError};
use crate::route::gate::Prepared;
use crate::route::table::{FollowStart, Phase, Route};
use crate::rows::service::ServiceConn;
use crate::schema::{self, Object};

use super::fence::{self, Fence};
use super::journal::Drained;
use super::objects::Objects;
use super::{Plane, position, shapes, work};

/// The least that is waited for a log's end, whatever went before.
const POSITION_MIN: Duration = Duration::from_millis(250);

/// The least that a forced edge waits for what the follower has sent.
const OUTLIVE_MIN: Duration = Duration::from_secs(1);

/// What an edge asks of the row plane.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Change {
    /// Everything written on the old active side must be on the other first.
    pub barrier: bool,
    /// The side that stops being active.
    pub fence: Option<Side>,
    /// What is followed afterwards.
    pub follow: Following,
}

/// What becomes of the follower.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Following {
    /// Its stream goes on, in the new phase's mode.
    Kept,
    /// A new one reads this side from now on.
    From(Side),
    /// None.
    Ends,
}

impl Change {
    /// Of an edge.
    pub fn of(from: Phase, to: Phase) -> Change {
        let (before, after) = (work(from), work(to));
        let flips = from.active() != to.active();
        let follow = match (before, after) {
            (_, None) => Following::Ends,
            (Some(before), Some(after)) if before.from == after.from => Following::Kept,
            (_, Some(after)) => Following::From(after.from),
        };
        // Inline writes must not meet images of older rows, and the new active
        // side must have all there is.
        let barrier = before.is_some() && (flips || (!from.mirrored() && to.mirrored()));
        Change {
            barrier,
            fence: flips.then(|| from.active()),
            follow,
        }
    }
}

/// A route in the hands of an edge. Dropping it gives the route back.
pub struct Handover<'a> {
    plane: &'a Plane,
    route: Route,
    change: Change,
    /// Whether what cannot be reached is left.
    force: bool,
    /// The new active side has triggers or events to be brought back.
    acting: AtomicBool,
    /// The barrier was left.
    unpassed: AtomicBool,
    /// Events were stopped, or something of ours may still be waiting on a
    /// server: only a follower that begins puts that right.
    unsettled: AtomicBool,
    /// Healed by the barrier.
    drained: Mutex<Option<Drained>>,
    /// The stream to come, and where the old active side's log goes on that
    /// is watched beside it.
    watched: Mutex<Option<(String, Position)>>,
    /// Opened while writes still go on.
    opened: tokio::sync::Mutex<Opened>,
    /// No row is repaired by a comparison meanwhile.
    repairs: tokio::sync::Mutex<Option<OwnedRwLockWriteGuard<()>>>,
}

/// Connections for what is done under the closed gate.
#[derive(Default)]
struct Opened {
    /// For the fence.
    fence: Option<Conn>,
    /// Tells where the log ends that is followed next.
    position: Option<ServiceConn>,
}

impl Drop for Handover<'_> {
    fn drop(&mut self) {
        self.plane.tasks.lock().held.remove(&self.route.name);
    }
}

impl Plane {
    /// A new stream from the end that a side's log has now.
    ///
    /// # Errors
    /// The side does not answer, or has no log.
    pub async fn begin(&self, route: &str, side: Side, epoch: u64) -> Result<FollowStart, String> {
        let mut conn = ServiceConn::new(self.inner.account(side).clone());
        self.begin_by(&mut conn, route, epoch, true).await
    }

    async fn begin_by(
        &self,
        conn: &mut ServiceConn,
        route: &str,
        epoch: u64,
        fresh: bool,
    ) -> Result<FollowStart, String> {
        let end = position::end(conn).await.map_err(|e| e.to_string())?;
        Ok(FollowStart {
            stream: stream(route, &self.inner.instance, epoch, nonce()?),
            from: end.to_string(),
            fresh,
        })
    }

    /// Takes a route out of the reconciliation's hands for an edge.
    pub fn handover(&self, route: &Route, to: Phase, force: bool) -> Handover<'_> {
        self.tasks.lock().held.insert(route.name.clone());
        Handover {
            plane: self,
            route: route.clone(),
            change: Change::of(route.phase, to),
            force,
            acting: AtomicBool::new(true),
            unpassed: AtomicBool::new(false),
            unsettled: AtomicBool::new(false),
            drained: Mutex::default(),
            watched: Mutex::default(),
            opened: tokio::sync::Mutex::default(),
            repairs: tokio::sync::Mutex::default(),
        }
    }
}

impl Handover<'_> {
    /// Waits until the follower is close behind, before writes are held: a
    /// barrier under load takes as long as the follower lags.
    ///
    /// # Errors
    /// Why it is not close.
    pub async fn approach(&self, limit: Duration) -> Result<(), String> {
        if let Some(old) = self.change.fence {
            // Asked now: nothing to do costs nothing under the closed gate.
            // Forced past a follower that is not there: without what it keeps.
            let keep = !self.force || self.plane.view(&self.route.name).is_some();
            let holds = self.objects().approach(old.other(), keep).await;
            self.acting.store(holds.unwrap_or(true), Ordering::Relaxed);
        }
        self.open().await;
        self.hold_repairs(Instant::now() + limit).await?;
        if self.change.barrier {
            return self.barrier(Instant::now() + limit).await;
        }
        Ok(())
    }

    /// Comparisons stop repairing, where a flip would make them write the wrong
    /// side.
    async fn hold_repairs(&self, until: Instant) -> Result<(), String> {
        let mut held = self.repairs.lock().await;
        if held.is_none() && self.change.fence.is_some() {
            let compared = self.plane.compared(&self.route.name);
            *held = Some(compared.hold_repairs(until).await?);
        }
        Ok(())
    }

    /// Connects for what is to be done under the closed gate. What fails is
    /// tried again there.
    async fn open(&self) {
        let inner = &self.plane.inner;
        let mut opened = self.opened.lock().await;
        if let Some(side) = self.change.fence {
            opened.fence = inner.account(side).connect().await.ok();
        }
        if let Following::From(side) = self.change.follow {
            let mut conn = ServiceConn::new(inner.account(side).clone());
            let asked = position::end(&mut conn).await;
            opened.position = asked.is_ok().then_some(conn);
        }
    }

    /// Under the closed gate.
    ///
    /// # Errors
    /// What could not be reached in time; the route goes on as it was.
    pub async fn prepare(
        &self,
        epoch: u64,
        until: Instant,
    ) -> Result<Prepared<Option<Fence>>, String> {
        let mut held = None;
        // Not to be forced: rows would be lost.
        self.hold_repairs(until).await?;
        if let Some(side) = self.change.fence {
            if self.acting.load(Ordering::Relaxed) {
                self.unsettled.store(true, Ordering::Relaxed);
                let stopped = self.objects().stop_events(side, until).await;
                self.or_forced("events", stopped)?;
            }
            let put_up = self.fence(side, until).await;
            held = self.or_forced("fence", put_up)?.flatten();
        }
        if self.change.barrier {
            let drained = self.plane.to_be_drained(&self.route);
            let passed = self.barrier(until).await;
            match self.or_forced("barrier", passed)? {
                Some(()) => *self.drained.lock() = drained,
                None => self.unpassed.store(true, Ordering::Relaxed),
            }
        }
        let read_to = self.plane.view(&self.route.name).and_then(|v| v.position());
        if self.change.follow != Following::Kept || self.change.barrier {
            // The old mode must have ended before statements of the new phase
            // write: an image it still had in hand would be older than they.
            let running = self.plane.tasks.lock().running.remove(&self.route.name);
            if let Some(task) = running {
                task.end().await;
            }
            self.outlive(until).await?;
        }
        self.bring_back(Object::Trigger, until).await?;
        let follow = match self.change.follow {
            Following::Ends => None,
            Following::Kept => self.route.follow.clone(),
            Following::From(side) => {
                let started = self.position(side, epoch, until).await;
                self.or_forced("log position", started)?
            }
        };
        *self.watched.lock() = self.watched_from(follow.as_ref(), read_to);
        // What one writes from now on is followed.
        let until = until.max(Instant::now() + POSITION_MIN);
        self.bring_back(Object::Event, until).await?;
        Ok(Prepared { follow, held })
    }

    /// On the new active side.
    async fn bring_back(&self, kind: Object, until: Instant) -> Result<(), String> {
        if let Some(old) = self.change.fence
            && self.acting.load(Ordering::Relaxed)
        {
            self.unsettled.store(true, Ordering::Relaxed);
            let back = self.objects().activate(old.other(), kind, until).await;
            self.or_forced(&format!("{}s", kind.as_str()), back)?;
        }
        Ok(())
    }

    /// Where the next follower begins. Writes are held: not beyond `until`, and
    /// a little longer where all else took until then.
    async fn position(
        &self,
        side: Side,
        epoch: u64,
        until: Instant,
    ) -> Result<FollowStart, String> {
        let opened = self.opened.lock().await.position.take();
        let account = self.plane.inner.account(side).clone();
        let mut conn = opened.unwrap_or_else(|| ServiceConn::new(account));
        let (name, fresh) = (&self.route.name, work(self.route.phase).is_none());
        let begins = self.plane.begin_by(&mut conn, name, epoch, fresh);
        let left = until.saturating_duration_since(Instant::now());
        match tokio::time::timeout(left.max(POSITION_MIN), begins).await {
            Ok(begun) => begun,
            Err(_) => Err(format!("the {side} does not tell in time")),
        }
    }

    fn objects(&self) -> Objects<'_> {
        Objects::new(&self.plane.inner, &self.route.name, &self.route.tables)
    }

    /// The follower was left behind: what its writers have sent is waited for.
    ///
    /// 1. A batch of rows is on its way to the side that is going to be active;
    ///    2. its follower is ended, the phase forced; 3. a client writes row r
    ///    there; 4. the batch gets to r, with an older row.
    ///
    /// # Errors
    /// It is still being written. Not to be forced: 4 would come.
    async fn outlive(&self, until: Instant) -> Result<(), String> {
        let (Some(work), Some(start)) = (work(self.route.phase), &self.route.follow) else {
            return Ok(());
        };
        if !self.unpassed.load(Ordering::Relaxed) || self.change.fence.is_none() {
            return Ok(());
        }
        let (inner, side) = (&self.plane.inner, work.from.other());
        let waiting = async {
            for n in 0..inner.settings.workers {
                let mut writer = Worker::new(inner.account(side).clone(), &start.stream, n);
                writer.outlive().await?;
            }
            Ok::<_, WriteError>(())
        };
        let left = until.saturating_duration_since(Instant::now());
        match tokio::time::timeout(left.max(OUTLIVE_MIN), waiting).await {
            Ok(waited) => {
                let waited = waited.map_err(|e| e.to_string());
                self.or_forced("follower's last rows", waited).map(|_| ())
            }
            Err(_) => Err(format!(
                "the follower's last rows are still being written on the {side}: try again"
            )),
        }
    }

    /// Where the watcher of the new phase goes on.
    ///
    /// 1. A stranger's UPDATE on the old active side waits for the fence; 2. the
    ///    phase is swapped, the fence taken down, the UPDATE committed; 3. the
    ///    watcher begins at that log's end, behind it: nobody ever sees it.
    ///
    /// The old follower has read that log up to its barrier, so from there.
    fn watched_from(
        &self,
        follow: Option<&FollowStart>,
        read_to: Option<Position>,
    ) -> Option<(String, Position)> {
        match self.change.follow {
            Following::From(_) if !self.unpassed.load(Ordering::Relaxed) => {
                Some((follow?.stream.clone(), read_to?))
            }
            _ => None,
        }
    }

    /// Whether rows may stay behind that no follower brings: to be noted before
    /// the new phase is on disk. A line too many costs a comparison; one that came
    /// behind would be missing after a crash between the two. `follows`: there is
    /// a place from which on the new phase is followed.
    pub fn leaves_behind(&self, follows: bool) -> bool {
        let lost = self.change.follow != Following::Ends && !follows;
        self.unpassed.load(Ordering::Relaxed) || lost
    }

    /// The new phase is on disk: what is healed may go.
    pub fn persisted(&self) {
        self.unsettled.store(false, Ordering::Relaxed);
        if let Some(watched) = self.watched.lock().take() {
            let compared = self.plane.compared(&self.route.name);
            compared.known.lock().watched = Some(watched);
        }
        let ends = self.change.follow != Following::Kept;
        self.plane.passed(self.drained.lock().take(), ends);
    }

    /// The edge was refused, with the route's writes going on: the follower
    /// begins anew, which lets events go on and takes triggers back that were
    /// brought over. What of ours still waits for a lock on a server has to have
    /// ended by then:
    /// 1. A CREATE TRIGGER waits for a reader; nobody waits for it any more.
    /// 2. The follower finds no trigger to be held back. 3. The reader ends.
    pub async fn refused(&self) {
        if self.unsettled.load(Ordering::Relaxed) {
            tokio::time::sleep(schema::HELD_WAIT).await;
            let running = self.plane.tasks.lock().running.remove(&self.route.name);
            if let Some(task) = running {
                task.end().await;
            }
        }
    }

    /// Lets a forced edge go on without.
    fn or_forced<T>(&self, what: &str, reached: Result<T, String>) -> Result<Option<T>, String> {
        match reached {
            Ok(done) => Ok(Some(done)),
            Err(why) if self.force => {
                let route = &self.route.name;
                tracing::warn!(route, "forced on without the {what}: {why}");
                Ok(None)
            }
            Err(why) => Err(why),
        }
    }

    async fn fence(&self, side: Side, until: Instant) -> Result<Option<Fence>, String> {
        let inner = &self.plane.inner;
        let fold = inner.routes.load().fold_names;
        let covers = |db: &[u8], t: &[u8]| self.route.covers(db, t, fold);
        let tables = shapes::tables(covers, side, &inner.catalog.snapshot());
        let left = until.saturating_duration_since(Instant::now());
        let opened = self.opened.lock().await.fence.take();
        let put_up = fence::put_up(inner.account(side), opened, &tables, left).await;
        put_up.map_err(|e| e.to_string())
    }

    async fn barrier(&self, until: Instant) -> Result<(), String> {
        let left = until.saturating_duration_since(Instant::now());
        match self.plane.caught_up(&self.route.name, left).await {
            Ok(true) => Ok(()),
            Ok(false) => {
                let fact = self.plane.follow_fact(&self.route);
                let why = fact.map_or_else(String::new, |f| f.detail);
                Err(format!("nothing brings the other side up to date: {why}"))
            }
            Err(late) => Err(late),
        }
    }
}

/// Longest part of a route's name and of the installation's in a stream's:
/// with the epoch they fit the 64 characters of the checkpoint's key.
const NAME_MAX: usize = 20;
const INSTANCE_MAX: usize = 8;

/// Tells beginnings of one name apart. A route may be removed and added again,
/// and its state come out of a backup: with the old name its checkpoint, its
/// finished copies and what it was copied over would count for the new one.
fn nonce() -> Result<u32, String> {
    let mut bytes = [0; 4];
    aws_lc_rs::rand::fill(&mut bytes).map_err(|_| "no randomness for a stream's name")?;
    Ok(u32::from_le_bytes(bytes))
}

/// A name for a beginning: ASCII, at most 64 characters.
fn stream(route: &str, instance: &str, epoch: u64, nonce: u32) -> String {
    let plain = |text: &str, max: usize| -> String {
        let kept = text.chars().filter(char::is_ascii_alphanumeric);
        kept.take(max).collect()
    };
    // Two long names may begin alike.
    let sum = route
        .bytes()
        .fold(0u16, |sum, b| sum.rotate_left(5) ^ u16::from(b));
    format!(
        "{}.{sum:04x}{nonce:08x}.{}.{epoch}",
        plain(route, NAME_MAX),
        plain(instance, INSTANCE_MAX)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_edges_ask() {
        let of = Change::of;
        assert_eq!(
            of(Phase::SourceOnly, Phase::Syncing),
            Change {
                barrier: false,
                fence: None,
                follow: Following::From(Side::Source)
            }
        );
        assert_eq!(
            of(Phase::Syncing, Phase::SourceFirst),
            Change {
                barrier: true,
                fence: None,
                follow: Following::Kept
            }
        );
        assert!(!of(Phase::SourceFirst, Phase::Syncing).barrier);
        let flip = of(Phase::SourceFirst, Phase::TargetFirst);
        assert!(flip.barrier && flip.fence == Some(Side::Source));
        assert_eq!(flip.follow, Following::From(Side::Target));
        let back = of(Phase::TargetOnly, Phase::Syncing);
        assert!(back.barrier && back.fence == Some(Side::Target));
        assert_eq!(back.follow, Following::From(Side::Source));
        assert!(!of(Phase::TargetFirst, Phase::TargetOnly).barrier);
        assert!(of(Phase::TargetOnly, Phase::TargetFirst).barrier);
        assert_eq!(of(Phase::TargetOnly, Phase::Done).follow, Following::Ends);
    }

    #[test]
    fn streams_fit_their_column() {
        let long = "r".repeat(64);
        let name = stream(&long, "0123456789abcdef", u64::MAX, u32::MAX);
        assert!(name.len() <= 64 && name.is_ascii());
        assert_ne!(stream("a-b", "i", 1, 0), stream("ab", "i", 1, 0));
        assert_ne!(stream("ab", "i", 1, 0), stream("ab", "i", 1, 1));
    }
}
