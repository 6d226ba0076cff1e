//! Suspects into divergences, or into nothing.
//!
//! A round for a row: the active side (1), the barrier (2), the mirror (3), the
//! active side again (4).
//!
//! - 3 shows what 1 or 4 shows: equal. Also where 1 and the mirror, read at the
//!   same time, are equal: then 2 to 4 are not needed.
//! - 1 and 4 differ: the row changes; later, and not for ever.
//! - 1 and 4 are one state, 3 another: as if different. If no write came
//!   between 1 and 4, the mirror had to have that state at 3, for it was
//!   committed before the barrier. If a row goes to and fro between two states,
//!   one may have come; so several rounds must show exactly the same.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::sync::mpsc::Receiver;
use tokio::time::Instant;

use crate::copy::select::Bound;
use crate::telemetry;

use super::divergences::{Added, Difference, Proof};
use super::reader::{Id, ReadError, Reader, Seen};
use super::table::Table;
use super::{CompareError, Comparer, Mark, Pair, Repair, Repaired, pause};

/// Rows settled in one round.
const BATCH: usize = 2_000;

/// Keys in one query.
const KEYS_A_QUERY: usize = 100;

/// Rounds that must show the same difference, and the pause between them,
/// which doubles.
const ROUNDS: u32 = 3;
const ROUND_PAUSE: Duration = Duration::from_millis(100);

/// Rounds after which a row that changes in each of them is let go, and the
/// pause between them, which doubles up to the longest.
const HOT_ROUNDS: u32 = 12;
const HOT_PAUSE: Duration = Duration::from_millis(20);
const HOT_PAUSE_MAX: Duration = Duration::from_secs(1);

/// Rows between two rounds; while there are more, no new ones are taken.
const WAITING_MAX: usize = 20_000;

/// The time that stands for a barrier while nothing follows.
const WITHOUT_BARRIER: Duration = Duration::from_secs(1);

/// Barriers in a row that may fail.
const BARRIERS_MAX: u32 = 10;

/// Connections are given back after this time without a row to look at.
const IDLE: Duration = Duration::from_secs(30);

/// Repairs of one row in a run, and attempts while somebody holds it.
const REPAIRS_MAX: u32 = 3;
const BUSY_MAX: u32 = 200;

/// Keys given to the healer at once.
const REPAIR_KEYS: usize = 200;

/// A row that may differ.
#[derive(Clone, Debug)]
pub struct Item {
    /// Its table.
    pub table: Arc<Table>,
    /// Its key, as either side has it.
    pub key: Bound,
    mark: Mark,
}

impl Item {
    /// Found by comparing.
    pub fn new(table: Arc<Table>, key: Bound) -> Item {
        Item::marked(table, key, Mark::default())
    }

    pub(super) fn marked(table: Arc<Table>, key: Bound, mark: Mark) -> Item {
        Item { table, key, mark }
    }
}

/// Tells tables of one run apart.
fn address(table: &Arc<Table>) -> usize {
    Arc::as_ptr(table).addr()
}

/// What both sides have.
type Both = (Option<Seen>, Option<Seen>);

/// Between rounds.
struct Suspect {
    item: Item,
    /// What the last round showed as different, and for how many rounds.
    shown: Option<(Both, u32)>,
    changes: u32,
    repairs: u32,
    busy: u32,
    /// The healer saw no difference, and has written nothing.
    doubted: bool,
    /// It was added to the list as a new one.
    added: bool,
    due: Instant,
}

impl Suspect {
    fn new(item: Item) -> Suspect {
        Suspect {
            item,
            shown: None,
            changes: 0,
            repairs: 0,
            busy: 0,
            doubted: false,
            added: false,
            due: Instant::now(),
        }
    }

    fn place(&self) -> (usize, Vec<u8>) {
        (address(&self.item.table), self.item.key.encode())
    }

    /// Takes a round's readings.
    fn round(&mut self, before: Option<Seen>, mirror: Option<Seen>, after: Option<Seen>) -> Step {
        let same = |a: Option<Seen>, b: Option<Seen>| Difference::of(a, b).is_none();
        if same(before, mirror) || same(after, mirror) {
            return Step::Equal(after.or(mirror).map(|s| s.id));
        }
        if !same(before, after) {
            self.shown = None;
            self.changes += 1;
            let doubled = HOT_PAUSE.saturating_mul(1 << self.changes.min(10));
            self.due = Instant::now() + doubled.min(HOT_PAUSE_MAX);
            return if self.changes >= HOT_ROUNDS {
                Step::Hot
            } else {
                Step::Later
            };
        }
        let both = (after, mirror);
        let rounds = match self.shown {
            Some((known, rounds)) if known == both => rounds + 1,
            _ => 1,
        };
        self.shown = Some((both, rounds));
        self.due = Instant::now() + ROUND_PAUSE.saturating_mul(1 << rounds.min(10));
        match Difference::of(after, mirror) {
            Some(kind) if rounds >= ROUNDS => Step::Different(both, kind),
            _ => Step::Later,
        }
    }
}

enum Step {
    /// With the row's identity, if a side has it.
    Equal(Option<Id>),
    Hot,
    Later,
    Different(Both, Difference),
}

/// A divergence that is to be repaired.
struct Proven {
    suspect: Suspect,
    id: Id,
}

/// The queue and what waits.
struct Queue {
    received: Receiver<Item>,
    closed: bool,
    waiting: Vec<Suspect>,
}

impl Queue {
    fn take_due(&mut self) -> Vec<Suspect> {
        let now = Instant::now();
        let mut batch = Vec::new();
        let mut at = 0;
        while at < self.waiting.len() && batch.len() < BATCH {
            if self.waiting.get(at).is_some_and(|s| s.due <= now) {
                batch.push(self.waiting.swap_remove(at));
            } else {
                at += 1;
            }
        }
        batch
    }

    /// The next rows to look at; None: there are none left and none to come.
    async fn next(&mut self) -> Option<Vec<Suspect>> {
        loop {
            let mut batch = self.take_due();
            while batch.len() < BATCH && self.waiting.len() < WAITING_MAX {
                match self.received.try_recv() {
                    Ok(item) => batch.push(Suspect::new(item)),
                    Err(_) => break,
                }
            }
            if !batch.is_empty() {
                return Some(batch);
            }
            let due = self.waiting.iter().map(|s| s.due).min();
            let taking = !self.closed && self.waiting.len() < WAITING_MAX;
            let sleep = async {
                match due {
                    Some(due) => tokio::time::sleep_until(due).await,
                    None => std::future::pending().await,
                }
            };
            if !taking && due.is_none() {
                return None;
            }
            tokio::select! {
                item = self.received.recv(), if taking => match item {
                    Some(item) => self.waiting.push(Suspect::new(item)),
                    None => self.closed = true,
                },
                () = sleep => {}
            }
        }
    }
}

/// One row once, however often it was named.
fn without_doubles(batch: Vec<Suspect>) -> Vec<Suspect> {
    let mut places: HashMap<_, usize> = HashMap::new();
    let mut once: Vec<Suspect> = Vec::with_capacity(batch.len());
    for suspect in batch {
        let known = places.get(&suspect.place()).copied();
        if let Some(first) = known.and_then(|n| once.get_mut(n)) {
            let Mark { unknown, holds } = suspect.item.mark;
            first.item.mark.add(unknown, holds);
        } else {
            places.insert(suspect.place(), once.len());
            once.push(suspect);
        }
    }
    once
}

/// What a side has of all these rows.
async fn read(
    reader: &mut Reader,
    side: usize,
    batch: &[Suspect],
) -> Result<Vec<Option<Seen>>, CompareError> {
    let mut tables: HashMap<usize, Vec<usize>> = HashMap::new();
    for (n, suspect) in batch.iter().enumerate() {
        tables
            .entry(address(&suspect.item.table))
            .or_default()
            .push(n);
    }
    let mut out = vec![None; batch.len()];
    for places in tables.values() {
        for places in places.chunks(KEYS_A_QUERY) {
            let suspects = places.iter().filter_map(|n| batch.get(*n));
            let items: Vec<&Item> = suspects.map(|s| &s.item).collect();
            let Some(table) = items.first().map(|i| i.table.clone()) else {
                continue;
            };
            let keys: Vec<&Bound> = items.iter().map(|i| &i.key).collect();
            let seen = by_keys(reader, side, &table, &keys).await?;
            for (place, seen) in places.iter().zip(seen) {
                if let Some(out) = out.get_mut(*place) {
                    *out = seen;
                }
            }
        }
    }
    Ok(out)
}

async fn by_keys(
    reader: &mut Reader,
    side: usize,
    table: &Table,
    keys: &[&Bound],
) -> Result<Vec<Option<Seen>>, CompareError> {
    for attempt in 0.. {
        match (reader.by_keys(table, side, keys).await, pause(attempt)) {
            (Ok(seen), _) => return Ok(seen),
            (Err(ReadError::Refused(what)), _) => {
                let table = table.shown();
                return Err(CompareError::Table { table, what });
            }
            (Err(ReadError::Lost(_)), Some(pause)) => tokio::time::sleep(pause).await,
            (Err(ReadError::Lost(e)), None) => return Err(e.into()),
        }
    }
    Ok(Vec::new())
}

impl Comparer {
    /// Until everything committed so far on the active side is on the mirror.
    pub(super) async fn barrier(&self) -> Result<(), CompareError> {
        let Some(barrier) = &self.parts.barrier else {
            tokio::time::sleep(WITHOUT_BARRIER).await;
            return Ok(());
        };
        for attempt in 1.. {
            match barrier().await {
                Ok(()) => break,
                Err(e) if attempt >= BARRIERS_MAX => return Err(CompareError::Barrier(e)),
                Err(_) => tokio::time::sleep(WITHOUT_BARRIER).await,
            }
        }
        Ok(())
    }

    /// Settles what comes, until the senders are gone and nothing is left.
    pub(super) async fn settle(
        &self,
        received: Receiver<Item>,
        repair: bool,
    ) -> Result<(), CompareError> {
        let mut pair = Pair::new(&self.parts.accounts);
        let healers = self.parts.healers.as_ref().filter(|_| repair);
        let mut healer = healers.map(|new| new());
        let mut queue = Queue {
            received,
            closed: false,
            waiting: Vec::new(),
        };
        loop {
            let batch = match tokio::time::timeout(IDLE, queue.next()).await {
                Ok(Some(batch)) => batch,
                Ok(None) => return Ok(()),
                Err(_) => {
                    // Connects again when it is needed.
                    pair = Pair::new(&self.parts.accounts);
                    healer = healers.map(|new| new());
                    continue;
                }
            };
            let batch = without_doubles(batch);
            let proven = self.round(batch, &mut pair, &mut queue).await?;
            if let Some(healer) = &mut healer {
                self.repair(proven, healer.as_mut(), &mut queue).await;
            }
        }
    }

    /// One round for these rows; those that must be looked at again go back.
    async fn round(
        &self,
        batch: Vec<Suspect>,
        pair: &mut Pair,
        queue: &mut Queue,
    ) -> Result<Vec<Proven>, CompareError> {
        let (active, mirror) = tokio::join!(
            read(&mut pair.active, 0, &batch),
            read(&mut pair.mirror, 1, &batch)
        );
        let (active, mirror) = (active?, mirror?);
        let mut left = Vec::new();
        let mut before = Vec::new();
        for (suspect, (active, mirror)) in batch.into_iter().zip(active.into_iter().zip(mirror)) {
            if Difference::of(active, mirror).is_none() {
                self.equal(&suspect, active.or(mirror).map(|s| s.id));
            } else {
                left.push(suspect);
                before.push(active);
            }
        }
        let mut proven = Vec::new();
        if left.is_empty() {
            return Ok(proven);
        }
        self.barrier().await?;
        let mirror = read(&mut pair.mirror, 1, &left).await?;
        let after = read(&mut pair.active, 0, &left).await?;
        for (((mut suspect, before), mirror), after) in
            left.into_iter().zip(before).zip(mirror).zip(after)
        {
            match suspect.round(before, mirror, after) {
                Step::Equal(id) => self.equal(&suspect, id),
                Step::Hot => {
                    self.parts.status.hot.fetch_add(1, Ordering::Relaxed);
                }
                Step::Later => queue.waiting.push(suspect),
                Step::Different(both, kind) => proven.extend(self.different(suspect, both, kind)),
            }
        }
        Ok(proven)
    }

    fn equal(&self, suspect: &Suspect, id: Option<Id>) {
        let name = &suspect.item.table.name;
        let list = &self.parts.divergences;
        match id {
            Some(id) if suspect.doubted => {
                if list.withdraw(name, id) && suspect.added {
                    self.parts.status.divergent.fetch_sub(1, Ordering::Relaxed);
                }
            }
            Some(id) if list.is_open(name, id) => {
                list.repaired(name, id);
                if suspect.busy > 0 {
                    // The healer's COMMIT was too slow to be told.
                    self.parts.status.repaired.fetch_add(1, Ordering::Relaxed);
                }
            }
            Some(_) => {}
            // Neither side has it: it is known by its key only.
            None => list.gone(name, &suspect.item.key),
        }
    }

    fn different(&self, mut suspect: Suspect, both: Both, kind: Difference) -> Option<Proven> {
        let (active, mirror) = both;
        let table = &suspect.item.table;
        let proof = Proof {
            name: &table.name,
            key: &suspect.item.key,
            active,
            mirror,
            kind,
        };
        let id = active.or(mirror).map(|s| s.id)?;
        match self.parts.divergences.add(&proof) {
            Added::New => {
                suspect.added = true;
                self.tell_proven(&suspect.item);
                self.parts.status.divergent.fetch_add(1, Ordering::Relaxed);
            }
            Added::Known => {}
            Added::Again => {
                self.parts.status.divergent.fetch_add(1, Ordering::Relaxed);
                let [_, side] = self.sides();
                telemetry::error(side.as_str(), "diverged_again");
                self.tell_proven(&suspect.item);
                tracing::error!(
                    table = table.shown(),
                    "a row differs again that had been repaired: somebody else writes to the mirror"
                );
            }
        }
        Some(Proven { suspect, id })
    }

    fn tell_proven(&self, item: &Item) {
        if let Some(proven) = &self.parts.proven
            && item.mark.unknown
        {
            proven(item.table.shown());
        }
    }

    /// Has them repaired, and looked at again.
    async fn repair(&self, proven: Vec<Proven>, healer: &mut dyn Repair, queue: &mut Queue) {
        let mut tables: HashMap<usize, Vec<Proven>> = HashMap::new();
        // A row may be there under two keys that are one to its server.
        let mut rows = HashSet::new();
        for one in proven {
            let table = address(&one.suspect.item.table);
            if !rows.insert((table, one.id)) {
                continue;
            }
            if one.suspect.repairs < REPAIRS_MAX && one.suspect.busy < BUSY_MAX {
                tables.entry(table).or_default().push(one);
            }
        }
        for mut proven in tables.into_values() {
            while !proven.is_empty() {
                let some = proven.split_off(proven.len().saturating_sub(REPAIR_KEYS));
                self.repair_some(some, healer, queue).await;
            }
        }
    }

    async fn repair_some(&self, some: Vec<Proven>, healer: &mut dyn Repair, queue: &mut Queue) {
        let Some(table) = some.first().map(|p| p.suspect.item.table.clone()) else {
            return;
        };
        let keys: Vec<Bound> = some.iter().map(|p| p.suspect.item.key.clone()).collect();
        let done = match healer.repair(&table.name, &table.followed, &keys).await {
            Ok(done) => done,
            Err(e) => return self.not_repaired(&table, &e),
        };
        let list = &self.parts.divergences;
        for (Proven { mut suspect, id }, done) in some.into_iter().zip(done) {
            suspect.due = Instant::now();
            match done {
                // Read again, and withdrawn if that shows the same.
                Repaired::Equal => {
                    suspect.repairs += 1;
                    suspect.shown = None;
                    suspect.doubted = suspect.repairs == 1;
                }
                Repaired::Written => {
                    list.repaired(&table.name, id);
                    self.parts.status.repaired.fetch_add(1, Ordering::Relaxed);
                    suspect.repairs += 1;
                    suspect.shown = None;
                    suspect.doubted = false;
                }
                // What was shown stands; one more round comes before the next
                // attempt.
                Repaired::Busy => {
                    suspect.busy += 1;
                    suspect.due += HOT_PAUSE;
                }
                Repaired::Refused(why) => {
                    self.not_repaired(&table, &why);
                    continue;
                }
            }
            queue.waiting.push(suspect);
        }
    }

    fn not_repaired(&self, table: &Table, why: &str) {
        tracing::warn!(table = table.shown(), "rows cannot be repaired: {why}");
        let text = format!("{}: {why}", table.shown());
        *self.parts.status.repair_error.lock() = Some(text);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn suspect() -> Suspect {
        Suspect::new(Item::new(
            Arc::new(super::super::table::tests::plain()),
            Bound(vec![b"1".to_vec()]),
        ))
    }

    fn row(digest: u8) -> Option<Seen> {
        Some(Seen {
            id: [1; 16],
            digest: [digest; 16],
        })
    }

    #[test]
    fn only_what_is_stable_and_different_is_a_divergence() {
        let mut s = suspect();
        for _ in 1..ROUNDS {
            assert!(matches!(s.round(row(1), row(2), row(1)), Step::Later));
        }
        let last = s.round(row(1), row(2), row(1));
        assert!(matches!(last, Step::Different(_, Difference::Changed)));

        // Another state of the mirror begins anew.
        let mut s = suspect();
        for n in 0..20 {
            assert!(matches!(
                s.round(row(1), row(2 + n % 2), row(1)),
                Step::Later
            ));
        }
        let mut s = suspect();
        assert!(matches!(
            s.round(row(1), row(2), row(2)),
            Step::Equal(Some(_))
        ));
        assert!(matches!(s.round(None, None, row(2)), Step::Equal(Some(_))));
        assert!(matches!(s.round(None, None, None), Step::Equal(None)));
    }

    #[test]
    fn a_row_that_always_changes_is_let_go() {
        let mut s = suspect();
        for n in 1..HOT_ROUNDS {
            let (before, after) = (row(3), row(4 + u8::try_from(n).unwrap()));
            assert!(matches!(s.round(before, row(2), after), Step::Later));
        }
        assert!(matches!(s.round(row(3), row(2), None), Step::Hot));
        // A round in which it changed ends a row of rounds in which it did not.
        let mut s = suspect();
        for _ in 0..4 {
            assert!(matches!(s.round(None, row(2), None), Step::Later));
            assert!(matches!(s.round(None, row(2), row(3)), Step::Later));
        }
    }

    #[tokio::test]
    async fn the_queue_waits_for_what_is_due_and_ends() {
        let (sender, received) = tokio::sync::mpsc::channel(10);
        let mut queue = Queue {
            received,
            closed: false,
            waiting: Vec::new(),
        };
        let mut later = suspect();
        later.due = Instant::now() + Duration::from_millis(100);
        queue.waiting.push(later);
        let item = suspect().item;
        sender.send(item).await.unwrap();
        drop(sender);
        assert_eq!(queue.next().await.map(|b| b.len()), Some(1));
        let began = Instant::now();
        assert_eq!(queue.next().await.map(|b| b.len()), Some(1));
        assert!(began.elapsed() >= Duration::from_millis(90));
        assert!(queue.next().await.is_none());
    }
}
