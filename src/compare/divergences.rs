//! The list of rows proven different (DESIGN §1, *divergence*), open and
//! repaired. Bounded; what does not fit is counted.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{SystemTime, UNIX_EPOCH};

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use crate::copy::select::Bound;
use crate::follow::batch::TableName;

use super::reader::{Id, Seen};
use super::table::{shown, shown_key};

/// Divergences kept: more than anybody reads, and at some 300 bytes each about
/// 15 MB. The others are counted, and found again by the next compare.
pub const LISTED_MAX: usize = 50_000;

/// Repaired ones kept, the newest: to see what was, and to notice a row that
/// diverges again.
pub const REPAIRED_MAX: usize = 1_000;

/// How a row differs.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Difference {
    /// Both sides have the row, with other values.
    Changed,
    /// The mirror lacks it.
    Missing,
    /// Only the mirror has it.
    Extra,
    /// A table without a key: how many rows differ is not known.
    Table,
}

impl Difference {
    /// Of what the two sides have; None if that is the same.
    pub fn of(active: Option<Seen>, mirror: Option<Seen>) -> Option<Difference> {
        match (active, mirror) {
            (Some(a), Some(m)) if a.digest == m.digest => None,
            (Some(_), Some(_)) => Some(Difference::Changed),
            (Some(_), None) => Some(Difference::Missing),
            (None, Some(_)) => Some(Difference::Extra),
            (None, None) => None,
        }
    }
}

/// Where a divergence stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// Still different when last looked at.
    Open,
    /// Made equal, or found equal later.
    Repaired,
}

/// A row proven different.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Divergence {
    /// `schema.table`.
    pub table: String,
    /// The row's key, for people.
    pub key: String,
    /// How it differs.
    pub kind: Difference,
    /// When it was first seen, in milliseconds since 1970.
    pub first_seen_ms: u64,
    /// Digest of the active side's row, if there is one, in hexadecimal.
    pub active_digest: Option<String>,
    /// Of the mirror's.
    pub mirror_digest: Option<String>,
    /// Open or repaired.
    pub state: State,
    /// How often it has been proven different; more than once after a repair
    /// means that something keeps writing to the mirror, or that we are wrong.
    pub times: u32,
    schema_name: Vec<u8>,
    table_name: Vec<u8>,
    /// [`Bound::encode`]d.
    bound: Vec<u8>,
    id: Id,
}

impl Divergence {
    /// Which table.
    pub fn name(&self) -> TableName {
        TableName {
            schema: self.schema_name.clone(),
            table: self.table_name.clone(),
        }
    }

    /// The row's key; None for a whole table.
    pub fn bound(&self) -> Option<Bound> {
        Bound::decode(&self.bound).filter(|b| !b.0.is_empty())
    }
}

/// What was proven about a row.
#[derive(Clone, Debug)]
pub struct Proof<'a> {
    /// Its table.
    pub name: &'a TableName,
    /// Its key, as the side has it that has the row.
    pub key: &'a Bound,
    /// The active side's row.
    pub active: Option<Seen>,
    /// The mirror's.
    pub mirror: Option<Seen>,
    /// How it differs.
    pub kind: Difference,
}

impl Proof<'_> {
    /// One row is one entry, whatever bytes of its key each side has.
    fn id(&self) -> Id {
        let seen = self.active.or(self.mirror);
        seen.map_or_else(Id::default, |s| s.id)
    }
}

/// What adding one found.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Added {
    /// Not known before.
    New,
    /// Open already.
    Known,
    /// It had been repaired: see [`Divergence::times`].
    Again,
}

type Place = (TableName, Id);

/// An entry that is not kept as it is.
pub struct Change {
    place: Place,
    /// None: forgotten.
    pub now: Option<Divergence>,
}

impl Change {
    /// A name of its own for the entry.
    pub fn name(&self) -> String {
        let (TableName { schema, table }, id) = &self.place;
        let [schema, table] = [schema, table].map(|n| hex(n));
        format!("{schema}.{table}.{}", hex(id))
    }
}

#[derive(Default)]
struct Inner {
    listed: BTreeMap<Place, Divergence>,
    /// Repaired ones, oldest first, by a running number.
    repaired: BTreeMap<u64, Place>,
    repairs: u64,
    more: u64,
    /// Entries that are not kept as they are: as many as are listed, and
    /// those forgotten since.
    unkept: BTreeSet<Place>,
}

/// The list.
#[derive(Default)]
pub struct Divergences {
    inner: Mutex<Inner>,
}

fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |d| u64::try_from(d.as_millis()).unwrap_or(u64::MAX))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

impl Inner {
    fn forget_oldest(&mut self) {
        while self.repaired.len() > REPAIRED_MAX {
            let Some((_, place)) = self.repaired.pop_first() else {
                return;
            };
            let state = self.listed.get(&place).map(|d| d.state);
            if state == Some(State::Repaired) {
                self.listed.remove(&place);
                self.unkept.insert(place);
            }
        }
    }
}

impl Divergences {
    /// As kept before.
    pub fn restore(kept: Vec<Divergence>, more: u64) -> Divergences {
        let mut inner = Inner {
            more,
            ..Inner::default()
        };
        for one in kept.into_iter().take(LISTED_MAX) {
            let place = (one.name(), one.id);
            if one.state == State::Repaired {
                inner.repairs += 1;
                let number = inner.repairs;
                inner.repaired.insert(number, place.clone());
            }
            inner.listed.insert(place, one);
        }
        inner.forget_oldest();
        Divergences {
            inner: Mutex::new(inner),
        }
    }

    /// Up to `most` entries to be kept: under a name that is an entry's own,
    /// what it is now, None for one that was forgotten. Who could not keep them
    /// says so ([`Divergences::not_kept`]).
    pub fn to_keep(&self, most: usize) -> Vec<Change> {
        let mut inner = self.inner.lock();
        let mut changes = Vec::new();
        while changes.len() < most
            && let Some(place) = inner.unkept.pop_first()
        {
            let now = inner.listed.get(&place).cloned();
            changes.push(Change { place, now });
        }
        changes
    }

    /// They are to be kept again.
    pub fn not_kept(&self, changes: Vec<Change>) {
        let mut inner = self.inner.lock();
        inner.unkept.extend(changes.into_iter().map(|c| c.place));
    }

    /// All of them, by table.
    pub fn list(&self) -> Vec<Divergence> {
        self.inner.lock().listed.values().cloned().collect()
    }

    /// How many are open, those that did not fit included.
    pub fn open(&self) -> u64 {
        let inner = self.inner.lock();
        let open = inner.listed.values().filter(|d| d.state == State::Open);
        open.count() as u64 + inner.more
    }

    /// How many did not fit into the list.
    pub fn more(&self) -> u64 {
        self.inner.lock().more
    }

    /// Open ones of a table.
    pub fn open_of(&self, name: &TableName) -> Vec<Divergence> {
        let inner = self.inner.lock();
        let first = (name.clone(), Id::default());
        let of_table = inner
            .listed
            .range(first..)
            .take_while(|((n, _), _)| n == name);
        of_table
            .map(|(_, d)| d)
            .filter(|d| d.state == State::Open)
            .cloned()
            .collect()
    }

    /// A new pass begins: what did not fit is found again by it, if it is still
    /// there.
    pub fn begin(&self) {
        self.inner.lock().more = 0;
    }

    /// Adds what was proven.
    pub fn add(&self, proof: &Proof<'_>) -> Added {
        let mut inner = self.inner.lock();
        let place = (proof.name.clone(), proof.id());
        if inner.listed.len() < LISTED_MAX || inner.listed.contains_key(&place) {
            inner.unkept.insert(place.clone());
        }
        let digests = [proof.active, proof.mirror].map(|s| s.map(|s| hex(&s.digest)));
        let [active_digest, mirror_digest] = digests;
        if let Some(known) = inner.listed.get_mut(&place) {
            known.active_digest = active_digest;
            known.mirror_digest = mirror_digest;
            known.kind = proof.kind;
            if known.state == State::Open {
                return Added::Known;
            }
            known.state = State::Open;
            known.times = known.times.saturating_add(1);
            return Added::Again;
        }
        if inner.listed.len() >= LISTED_MAX {
            inner.more += 1;
            return Added::New;
        }
        let one = Divergence {
            table: shown(proof.name),
            key: shown_key(proof.key),
            kind: proof.kind,
            first_seen_ms: now_ms(),
            active_digest,
            mirror_digest,
            state: State::Open,
            times: 1,
            schema_name: proof.name.schema.clone(),
            table_name: proof.name.table.clone(),
            bound: proof.key.encode(),
            id: place.1,
        };
        inner.listed.insert(place, one);
        Added::New
    }

    /// The row is equal now. One that did not fit into the list is counted
    /// off.
    pub fn repaired(&self, name: &TableName, id: Id) {
        let mut inner = self.inner.lock();
        let place = (name.clone(), id);
        match inner.listed.get_mut(&place) {
            Some(known) if known.state == State::Open => {
                known.state = State::Repaired;
                inner.repairs += 1;
                let number = inner.repairs;
                inner.unkept.insert(place.clone());
                inner.repaired.insert(number, place);
                inner.forget_oldest();
            }
            Some(_) => {}
            None => inner.more = inner.more.saturating_sub(1),
        }
    }

    /// It was no divergence: found equal under a lock before anything was
    /// repaired. True if it had not been repaired before either, and is
    /// forgotten.
    pub fn withdraw(&self, name: &TableName, id: Id) -> bool {
        let mut inner = self.inner.lock();
        let place = (name.clone(), id);
        match inner.listed.get(&place).map(|d| (d.state, d.times)) {
            Some((State::Open, 1)) => {
                inner.listed.remove(&place);
                inner.unkept.insert(place);
                true
            }
            Some(_) => {
                drop(inner);
                self.repaired(name, id);
                false
            }
            None => {
                inner.more = inner.more.saturating_sub(1);
                true
            }
        }
    }

    /// Neither side has the row with this key any more.
    pub fn gone(&self, name: &TableName, key: &Bound) {
        let bound = key.encode();
        let found = {
            let inner = self.inner.lock();
            let first = (name.clone(), Id::default());
            let of_table = inner.listed.range(first..);
            let mut of_table = of_table.take_while(|((n, _), _)| n == name);
            of_table.find(|(_, d)| d.bound == bound).map(|(_, d)| d.id)
        };
        if let Some(id) = found {
            self.repaired(name, id);
        }
    }

    /// Whether this row is listed as open.
    pub fn is_open(&self, name: &TableName, id: Id) -> bool {
        let inner = self.inner.lock();
        let one = inner.listed.get(&(name.clone(), id));
        one.is_some_and(|d| d.state == State::Open)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name() -> TableName {
        TableName {
            schema: b"s".to_vec(),
            table: b"t".to_vec(),
        }
    }

    fn add(list: &Divergences, n: u32) -> Added {
        let mut id = Id::default();
        id[..4].copy_from_slice(&n.to_be_bytes());
        let seen = Seen { id, digest: id };
        list.add(&Proof {
            name: &name(),
            key: &Bound(vec![n.to_string().into_bytes(), b"_utf8mb4'x\ny'".to_vec()]),
            active: None,
            mirror: Some(seen),
            kind: Difference::Extra,
        })
    }

    fn id(n: u32) -> Id {
        let mut id = Id::default();
        id[..4].copy_from_slice(&n.to_be_bytes());
        id
    }

    #[test]
    fn a_row_that_diverges_again_says_so() {
        let list = Divergences::default();
        assert_eq!(add(&list, 1), Added::New);
        assert_eq!(add(&list, 1), Added::Known);
        list.repaired(&name(), id(1));
        assert_eq!(list.open(), 0);
        assert_eq!(add(&list, 1), Added::Again);
        let all = list.list();
        assert_eq!((all[0].times, all[0].state), (2, State::Open));
        assert_eq!(all[0].key, "1,'x\u{FFFD}y'");
        assert_eq!(all[0].bound().unwrap().0.len(), 2);
        assert_eq!(list.open_of(&name()), all);
    }

    #[test]
    fn the_list_is_bounded_and_kept() {
        let list = Divergences::default();
        let many = u32::try_from(LISTED_MAX).unwrap();
        for n in 0..many + 7 {
            add(&list, n);
        }
        assert_eq!((list.list().len(), list.more()), (LISTED_MAX, 7));
        assert_eq!(list.open(), LISTED_MAX as u64 + 7);
        for n in 0..2000 {
            list.repaired(&name(), id(n));
        }
        assert_eq!(list.list().len(), LISTED_MAX - 2000 + REPAIRED_MAX);
        let mut kept = BTreeMap::new();
        let (mut rounds, lost) = (0, list.to_keep(1000));
        list.not_kept(lost);
        loop {
            let changes = list.to_keep(20_000);
            if changes.is_empty() {
                break;
            }
            rounds += 1;
            for change in changes {
                match change.name() {
                    name if change.now.is_none() => _ = kept.remove(&name),
                    name => _ = kept.insert(name, change.now),
                }
            }
        }
        let all: Vec<Divergence> = kept.into_values().flatten().collect();
        assert_eq!((all, rounds), (list.list(), 3));
        list.repaired(&name(), id(3000));
        assert_eq!(list.to_keep(10).len(), 2);
        let text = serde_json::to_string(&list.list()).unwrap();
        let kept = Divergences::restore(serde_json::from_str(&text).unwrap(), list.more());
        assert_eq!(kept.list(), list.list());
        assert_eq!(kept.open(), list.open());
        list.begin();
        assert_eq!(list.more(), 0);
    }
}
