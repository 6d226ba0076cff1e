//! Triggers and events act on the active side only: on the side that a follower
//! writes a trigger would run again for rows that are its effect already, and
//! an event would run on both.
//!
//! 1. At a flip, behind the gate, events of the old active side are stopped
//!    before its tables are fenced, for one that waited at the fence would write
//!    after the swap. Once the old follower has ended, triggers are brought back
//!    on the new active side ([`Objects::activate`]): not earlier, or the old
//!    follower's rows would fire them; not later, or the first write would miss
//!    them. Events come back last, behind the new follower's position:
//!    (a) `tick` is enabled; (b) it fires and writes a row; (c) the position is
//!    taken: nobody would ever carry that row to the other side.
//! 2. Each time a follower begins, before it writes anything, what acts on the
//!    side it writes is held back there, and what the side it reads has is kept
//!    there ([`Objects::settle`]). After a flip that is the old active side:
//!    its fence is down by then, which dropping a trigger would wait for.
//!
//! A process that dies, or an edge that is refused, leaves the phase that is
//! stored, and 2. makes that phase's sides right: the one that 1. brought
//! something back on is then the one that is written.

use std::time::{Duration, Instant};

use crate::Side;
use crate::route::table::TableGlob;
use crate::schema::{self, Object, SchemaError};

use super::{Inner, make, route};

/// For the objects of one route on one side while its follower begins: they
/// wait for transactions that use their tables.
const SETTLE_LIMIT: Duration = Duration::from_secs(60);

/// The objects of some tables.
pub struct Objects<'a> {
    inner: &'a Inner,
    route: &'a str,
    tables: &'a [TableGlob],
}

impl<'a> Objects<'a> {
    /// Of a route.
    pub fn new(inner: &'a Inner, route: &'a str, tables: &'a [TableGlob]) -> Objects<'a> {
        Objects {
            inner,
            route,
            tables,
        }
    }

    fn covers(&self) -> impl Fn(&[u8], &[u8]) -> bool + Send + Sync + use<> {
        route::covers(self.inner, self.tables)
    }

    /// Before a flip: keeps the events that were made since the follower began
    /// (nobody tells of them), with `keep`: that asks for both sides' whole
    /// inventory. Whether anything is to be brought back on `next`.
    ///
    /// # Errors
    /// A side does not answer.
    pub async fn approach(&self, next: Side, keep: bool) -> Result<bool, SchemaError> {
        let covers = self.covers();
        if !keep {
            return schema::holds(self.inner.account(next), &covers).await;
        }
        let [active, next] = [next.other(), next].map(|s| self.inner.account(s));
        let options = schema::Options::default();
        schema::carry(active, next, &covers, options, false).await?;
        schema::holds(next, &covers).await
    }

    /// Brings back what is held back of one kind on a side that becomes active.
    ///
    /// # Errors
    /// What could not be brought back, or not in time.
    pub async fn activate(&self, side: Side, kind: Object, until: Instant) -> Result<(), String> {
        let left = until.saturating_duration_since(Instant::now());
        let covers = self.covers();
        let run = schema::activate(self.inner.account(side), &covers, Some(kind));
        let report = match tokio::time::timeout(left, run).await {
            Ok(done) => done.map_err(|e| e.to_string())?,
            Err(_) => return Err(format!("the {side}'s {}s take too long", kind.as_str())),
        };
        self.say(side, "bringing back", &report);
        match report.notes.first() {
            None => Ok(()),
            Some(note) => Err(format!(
                "{} {}.{} cannot be brought back on the {side}: {}",
                note.object.as_str(),
                note.schema,
                note.name,
                note.why
            )),
        }
    }

    /// Stops the events of a side that is about to be active no more. Where the
    /// edge is not taken, the next follower's beginning lets them go on.
    ///
    /// # Errors
    /// The side does not answer, or not in time.
    pub async fn stop_events(&self, side: Side, until: Instant) -> Result<(), String> {
        let left = until.saturating_duration_since(Instant::now());
        let covers = self.covers();
        let run = schema::stop_events(self.inner.account(side), &covers);
        match tokio::time::timeout(left, run).await {
            Ok(Ok(report)) => {
                self.say(side, "holding back", &report);
                Ok(())
            }
            Ok(Err(e)) => Err(e.to_string()),
            Err(_) => Err(format!("the {side}'s events take too long")),
        }
    }

    /// Makes both sides right for a follower that reads `active` and is about
    /// to begin.
    ///
    /// # Errors
    /// A side does not answer, or too late.
    pub async fn settle(&self, active: Side) -> Result<(), String> {
        let mirror = active.other();
        let covers = self.covers();
        let [active_account, mirror_account] = [active, mirror].map(|s| self.inner.account(s));
        let run = async {
            let on = schema::activate(active_account, &covers, None).await?;
            let options = schema::Options::default();
            let off = schema::carry(active_account, mirror_account, &covers, options, true).await?;
            Ok::<_, SchemaError>((on, off))
        };
        let (on, off) = match tokio::time::timeout(SETTLE_LIMIT, run).await {
            Ok(done) => done.map_err(|e| e.to_string())?,
            Err(_) => return Err("they take too long".to_owned()),
        };
        self.say(active, "bringing back", &on);
        self.say(mirror, "holding back", &off);
        Ok(())
    }

    fn say(&self, side: Side, doing: &str, report: &schema::Report) {
        make::say(self.route, &format!("{doing} on the {side}"), report);
    }
}
