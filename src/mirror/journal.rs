//! The journal of writes the mirror did not get.
//!
//! The active side's binlog is the intent log of every write; an entry here
//! only says from where on it has to be read again for a route, so it holds a
//! lower-bound position and never a statement or a value. Entries of the same
//! route, kind, reason and position sample are one line with a count.
//!
//! The file is capped: on overflow it is rewritten to one line per route that
//! says "everything since P". After an unclean stop the last positions that
//! were checkpointed are such lines too, for a crash between the two commits
//! of a write leaves no other trace.
//!
//! A line names the follower's stream that its route had. Whatever was noted
//! while a stream was a route's is read by it: the stream began before the
//! statement was planned, and goes on from its checkpoint after any crash. So
//! lines go when their writes are healed ([`Journal::drained`]). The one who
//! runs a route's follower does it so:
//! 1. `mark = journal.mark(route)`.
//! 2. A barrier: everything committed before it is healed, retries included.
//! 3. `journal.drained(mark, …)` takes the lines that the follower covers.
//!
//! A write noted before 1 whose transaction ends after 2 is ahead of the
//! follower, and its checkpoint is before it: it needs no line either. A write
//! noted after 1 keeps one, though it coalesced with a line from before.
//!
//! What no follower covers ([`Covers`]) stays until the route's rows have been
//! compared as a whole and none differed.

use std::collections::{HashMap, HashSet, hash_map};
use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use crate::Side;

mod drain;

pub use drain::{Covers, Mark, Standing};

/// The file in the state directory.
const FILE: &str = "journal.log";

/// The positions last seen, beside it.
const POSITIONS_FILE: &str = "positions.json";

/// Why there is a line of all routes.
const UNCLEAN: &str = "the proxy did not stop cleanly";

/// Different (route, kind, reason) sums kept in memory.
const TOTALS_MAX: usize = 4096;

/// Keys of the current position sample kept for coalescing; beyond it a key
/// may get a second line.
const CURRENT_MAX: usize = 1024;

/// What happened to the write.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// Not sent to the mirror by plan.
    Deferred,
    /// The mirror failed, or was too late.
    Failed,
    /// Both sides succeeded with different numbers of rows.
    Suspect,
    /// The journal overflowed: everything since the position.
    Overflow,
    /// The process did not stop cleanly: everything since the position.
    Unclean,
    /// An operator forced a phase without waiting for the follower.
    Forced,
}

impl Kind {
    /// The label metrics use.
    pub const fn as_str(self) -> &'static str {
        match self {
            Kind::Deferred => "deferred",
            Kind::Failed => "failed",
            Kind::Suspect => "suspect",
            Kind::Overflow => "overflow",
            Kind::Unclean => "unclean",
            Kind::Forced => "forced",
        }
    }
}

/// One line of the journal.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Entry {
    /// Seconds since 1970 of the first write it stands for.
    pub at: u64,
    /// The route; empty for all routes.
    pub route: String,
    /// What happened.
    pub kind: Kind,
    /// Why, in words of ours.
    pub reason: String,
    /// A position on the active side before the write's events; None when
    /// none was known: heal from the last checkpoint.
    pub since: Option<String>,
    /// The side that was active; None in lines of older versions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub side: Option<Side>,
    /// The stream that followed the route; None: none did, or a line of an
    /// older version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stream: Option<String>,
}

impl Entry {
    fn place(&self) -> Place {
        Place {
            route: self.route.clone(),
            side: self.side,
            stream: self.stream.clone(),
        }
    }
}

/// What a write belongs to.
#[derive(Clone, Copy, Debug)]
pub struct Of<'a> {
    /// The route.
    pub route: &'a str,
    /// The side that was active.
    pub side: Side,
    /// The stream that followed the route.
    pub stream: Option<&'a str>,
}

#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum Line {
    Entry(Entry),
    Mark { mark: String },
}

/// Sums for `status` and tests.
#[derive(Clone, Debug, Default, Serialize)]
pub struct JournalSummary {
    /// Bytes of the file.
    pub bytes: u64,
    /// Whether it overflowed.
    pub overflowed: bool,
    /// Whether its file lacks something that is known here: the disk is full.
    pub unwritten: bool,
    /// Writes since start by route, kind and reason.
    pub totals: Vec<Total>,
    /// The oldest position per route from which healing has to begin.
    pub since: Vec<(String, Option<String>)>,
    /// Lines per route.
    pub lines: HashMap<String, u64>,
}

/// One sum.
#[derive(Clone, Debug, Serialize)]
pub struct Total {
    /// The route.
    pub route: String,
    /// What happened.
    pub kind: Kind,
    /// Why.
    pub reason: String,
    /// How many writes since start.
    pub writes: u64,
}

type Key = (String, Kind, &'static str);

/// What lines have in common of which one says all once the journal is full.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
struct Place {
    route: String,
    side: Option<Side>,
    stream: Option<String>,
}

struct State {
    file: File,
    bytes: u64,
    overflowed: bool,
    /// What memory knows and the file does not: the disk is full, say. No
    /// checkpoint may pass until it is written, for a crash would then leave
    /// no trace of it.
    unwritten: bool,
    /// The stream and position each key was last written with.
    current: HashMap<Key, (Option<String>, Option<String>)>,
    totals: HashMap<Key, u64>,
    oldest: HashMap<Place, Option<String>>,
    /// Lines in the file, a route.
    lines: HashMap<String, u64>,
    marks: Vec<drain::Marked>,
    marks_made: u64,
    /// Streams that ended healed: nothing is noted with them any more.
    ended: HashSet<String>,
    /// How often the file was replaced.
    rewrites: u64,
}

impl State {
    fn new(file: File, bytes: u64, entries: &[Entry]) -> State {
        let mut state = State {
            file,
            bytes,
            overflowed: false,
            unwritten: false,
            current: HashMap::new(),
            totals: HashMap::new(),
            oldest: HashMap::new(),
            lines: HashMap::new(),
            marks: Vec::new(),
            marks_made: 0,
            ended: HashSet::new(),
            rewrites: 0,
        };
        state.learn(entries);
        state
    }

    /// These are all lines of the file.
    fn learn(&mut self, entries: &[Entry]) {
        self.current.clear();
        self.overflowed = entries.iter().any(|e| e.kind == Kind::Overflow);
        self.oldest.clear();
        self.lines.clear();
        for entry in entries {
            self.know(entry);
        }
    }

    /// This is a line of the file.
    fn know(&mut self, entry: &Entry) {
        let oldest = self.oldest.entry(entry.place());
        oldest.or_insert_with(|| entry.since.clone());
        *self.lines.entry(entry.route.clone()).or_default() += 1;
    }

    /// This is the journal's file now.
    fn replaced(&mut self, file: File) {
        self.bytes = file.metadata().map(|m| m.len()).unwrap_or_default();
        self.file = file;
        self.unwritten = false;
        self.rewrites += 1;
    }

    fn count(&mut self, key: Key) {
        if self.totals.len() < TOTALS_MAX || self.totals.contains_key(&key) {
            *self.totals.entry(key).or_default() += 1;
        }
    }
}

/// The journal.
pub struct Journal {
    directory: PathBuf,
    bytes_max: u64,
    state: Mutex<State>,
    /// One drain at a time.
    draining: Mutex<()>,
}

/// The positions checkpointed beside the journal.
#[derive(Default, Serialize, Deserialize)]
struct Checkpoint {
    source: Option<String>,
    target: Option<String>,
}

impl Journal {
    /// Opens or creates the journal in `directory`, capped at `bytes_max`
    /// bytes. Lines that cannot be read (a torn last line) are dropped: the
    /// unclean mark covers what they said.
    ///
    /// # Errors
    /// The file system's.
    pub fn open(directory: &Path, bytes_max: u64) -> io::Result<Journal> {
        let path = directory.join(FILE);
        let (entries, clean) = read(&path)?;
        let file = OpenOptions::new().create(true).append(true).open(&path)?;
        let bytes = file.metadata()?.len();
        let journal = Journal {
            directory: directory.to_path_buf(),
            bytes_max,
            state: Mutex::new(State::new(file, bytes, &entries)),
            draining: Mutex::default(),
        };
        if !clean {
            journal.mark_unclean()?;
        }
        journal.sign("opened")?;
        Ok(journal)
    }

    fn mark_unclean(&self) -> io::Result<()> {
        let stored = std::fs::read(self.directory.join(POSITIONS_FILE)).unwrap_or_default();
        let checkpoint: Checkpoint = serde_json::from_slice(&stored).unwrap_or_default();
        let mut state = self.state.lock();
        for (side, since) in [
            (Side::Source, checkpoint.source),
            (Side::Target, checkpoint.target),
        ] {
            let entry = Entry {
                at: now(),
                route: String::new(),
                kind: Kind::Unclean,
                reason: UNCLEAN.into(),
                since,
                side: Some(side),
                stream: None,
            };
            state.know(&entry);
            self.write(&mut state, &Line::Entry(entry))?;
        }
        state.count((String::new(), Kind::Unclean, UNCLEAN));
        Ok(())
    }

    fn sign(&self, mark: &str) -> io::Result<()> {
        let mut state = self.state.lock();
        self.write(&mut state, &Line::Mark { mark: mark.into() })
    }

    fn write(&self, state: &mut State, line: &Line) -> io::Result<()> {
        let mut text = serde_json::to_vec(line)?;
        text.push(b'\n');
        state.file.write_all(&text)?;
        state.bytes += text.len() as u64;
        Ok(())
    }

    /// Notes one write. The line is in the file (not fsynced) when this
    /// returns; a failing file system is reported once per line and counted
    /// as overflow, never to the client.
    pub fn note(&self, of: Of<'_>, kind: Kind, reason: &'static str, since: Option<&str>) {
        let key = (of.route.to_string(), kind, reason);
        let entry = Entry {
            at: now(),
            route: of.route.to_string(),
            kind,
            reason: reason.to_string(),
            since: since.map(str::to_string),
            side: Some(of.side),
            stream: of.stream.map(str::to_string),
        };
        let mut state = self.state.lock();
        state.count(key.clone());
        for mark in state.marks.iter_mut().filter(|m| m.route == of.route) {
            mark.note(&entry);
        }
        if state.overflowed {
            // Its route's line says everything since; a route that has none
            // yet gets one.
            if let hash_map::Entry::Vacant(new) = state.oldest.entry(entry.place()) {
                new.insert(entry.since);
                self.overflow(&mut state);
            }
            return;
        }
        let current = (entry.stream.clone(), entry.since.clone());
        if state.current.get(&key) == Some(&current) {
            return;
        }
        if state.current.len() >= CURRENT_MAX {
            state.current.clear();
        }
        state.current.insert(key, current);
        state.know(&entry);
        let failed = self.write(&mut state, &Line::Entry(entry)).is_err();
        if failed || state.bytes > self.bytes_max {
            if failed {
                tracing::error!("the journal cannot be written; it now says \"everything since\"");
            }
            self.overflow(&mut state);
        }
    }

    /// Replaces all lines by one per route: everything since its oldest
    /// position.
    fn overflow(&self, state: &mut State) {
        state.overflowed = true;
        state.current.clear();
        let entries: Vec<Entry> = state
            .oldest
            .iter()
            .map(|(place, since)| Entry {
                at: now(),
                route: place.route.clone(),
                kind: Kind::Overflow,
                reason: "the journal was full".into(),
                since: since.clone(),
                side: place.side,
                stream: place.stream.clone(),
            })
            .collect();
        match self.rewrite(state, &entries) {
            Ok(()) => state.learn(&entries),
            Err(e) if !std::mem::replace(&mut state.unwritten, true) => {
                tracing::error!(error = %e, "the journal cannot be rewritten");
            }
            Err(_) => {}
        }
    }

    /// Makes these the only lines.
    fn rewrite(&self, state: &mut State, entries: &[Entry]) -> io::Result<()> {
        let temporary = self.directory.join("journal.tmp");
        let write = || -> io::Result<File> {
            let file = written(&temporary, entries)?;
            std::fs::rename(&temporary, self.directory.join(FILE))?;
            Ok(file)
        };
        match write() {
            Ok(file) => {
                state.replaced(file);
                Ok(())
            }
            Err(e) => {
                // Half of it may be all that fitted.
                let _ = std::fs::remove_file(&temporary);
                Err(e)
            }
        }
    }

    /// Writes what could not be written before.
    fn catch_up(&self, state: &mut State) -> io::Result<()> {
        if state.unwritten {
            self.overflow(state);
            if state.unwritten {
                return Err(io::Error::other("the journal cannot be written"));
            }
            tracing::info!("the journal can be written again");
        }
        Ok(())
    }

    /// Stores the positions from which an unclean stop would have to heal,
    /// and makes the lines so far durable. Called about once a second.
    ///
    /// # Errors
    /// The file system's; the positions stored before stand.
    pub fn checkpoint(&self, source: Option<String>, target: Option<String>) -> io::Result<()> {
        let file = {
            let mut state = self.state.lock();
            self.catch_up(&mut state)?;
            state.file.try_clone()?
        };
        // Not under the lock: sessions that note a write would wait for the
        // disk.
        file.sync_data()?;
        let text = serde_json::to_vec(&Checkpoint { source, target })?;
        let temporary = self.directory.join("positions.tmp");
        std::fs::write(&temporary, text)?;
        std::fs::rename(&temporary, self.directory.join(POSITIONS_FILE))
    }

    /// Marks a clean stop. A journal that could not say everything has none:
    /// the next start says "everything since" the last checkpoint.
    ///
    /// # Errors
    /// The file system's.
    pub fn close(&self) -> io::Result<()> {
        self.catch_up(&mut self.state.lock())?;
        self.sign("closed")?;
        self.state.lock().file.sync_data()
    }

    /// Sums so far.
    pub fn summary(&self) -> JournalSummary {
        let state = self.state.lock();
        JournalSummary {
            bytes: state.bytes,
            overflowed: state.overflowed,
            unwritten: state.unwritten,
            totals: state
                .totals
                .iter()
                .map(|((route, kind, reason), writes)| Total {
                    route: route.clone(),
                    kind: *kind,
                    reason: reason.to_string(),
                    writes: *writes,
                })
                .collect(),
            since: state
                .oldest
                .iter()
                .map(|(place, since)| (place.route.clone(), since.clone()))
                .collect(),
            lines: state.lines.clone(),
        }
    }
}

/// A file with these lines, on disk.
fn written(path: &Path, entries: &[Entry]) -> io::Result<File> {
    let mut text = Vec::new();
    for entry in entries {
        serde_json::to_writer(&mut text, entry)?;
        text.push(b'\n');
    }
    let mark = "opened".into();
    serde_json::to_writer(&mut text, &Line::Mark { mark })?;
    text.push(b'\n');
    let mut file = File::create(path)?;
    file.write_all(&text)?;
    file.sync_data()?;
    Ok(file)
}

/// Reads the entries, and whether the last stop was clean (so is a journal
/// that does not exist).
fn read(path: &Path) -> io::Result<(Vec<Entry>, bool)> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok((Vec::new(), true)),
        Err(e) => return Err(e),
    };
    parse(BufReader::new(file))
}

fn parse(text: impl BufRead) -> io::Result<(Vec<Entry>, bool)> {
    let mut entries = Vec::new();
    let mut clean = true;
    for line in text.split(b'\n') {
        match serde_json::from_slice(&line?) {
            Ok(Line::Entry(entry)) => entries.push(entry),
            Ok(Line::Mark { mark }) => clean = mark == "closed",
            Err(_) => clean = false,
        }
    }
    Ok((entries, clean))
}

fn now() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map(|d| d.as_secs())
        .unwrap_or_default()
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(super) fn directory(name: &str) -> PathBuf {
        let d =
            std::env::temp_dir().join(format!("lockstep-journal-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&d);
        std::fs::create_dir_all(&d).unwrap();
        d
    }

    pub(super) const SHOP: Of<'_> = Of {
        route: "shop",
        side: Side::Source,
        stream: Some("shop.1"),
    };

    #[test]
    fn coalesces_and_reads_back() {
        let d = directory("a");
        let j = Journal::open(&d, 1 << 20).unwrap();
        for _ in 0..10 {
            j.note(SHOP, Kind::Deferred, "subquery", Some("p1"));
        }
        j.note(SHOP, Kind::Deferred, "subquery", Some("p2"));
        assert_eq!(j.summary().lines.get("shop"), Some(&2));
        assert_eq!(j.summary().totals[0].writes, 11);
        j.close().unwrap();
        let (entries, clean) = read(&d.join(FILE)).unwrap();
        assert!(clean);
        assert_eq!(entries.len(), 2);
        let j = Journal::open(&d, 1 << 20).unwrap();
        assert_eq!(j.summary().since, vec![("shop".into(), Some("p1".into()))]);
    }

    #[test]
    fn overflow_says_everything_since() {
        let d = directory("b");
        let j = Journal::open(&d, 2000).unwrap();
        for n in 0..1000 {
            j.note(SHOP, Kind::Failed, "deadline", Some(&format!("p{n}")));
        }
        let s = j.summary();
        assert!(s.overflowed && s.bytes < 2000, "{s:?}");
        let (entries, _) = read(&d.join(FILE)).unwrap();
        assert_eq!(entries[0].kind, Kind::Overflow);
        assert_eq!(entries[0].since.as_deref(), Some("p0"));
    }

    #[test]
    fn an_unclean_stop_is_an_entry() {
        let d = directory("c");
        let j = Journal::open(&d, 1 << 20).unwrap();
        j.checkpoint(Some("s9".into()), None).unwrap();
        drop(j);
        let _again = Journal::open(&d, 1 << 20).unwrap();
        let (entries, _) = read(&d.join(FILE)).unwrap();
        assert_eq!(entries[0].kind, Kind::Unclean);
        assert_eq!(entries[0].since.as_deref(), Some("s9"));
    }

    #[test]
    fn what_could_not_be_written_is_written_before_a_checkpoint() {
        let d = directory("d");
        let j = Journal::open(&d, 200).unwrap();
        j.checkpoint(Some("s1".into()), None).unwrap();
        std::fs::remove_dir_all(&d).unwrap();
        for n in 0..9 {
            j.note(SHOP, Kind::Failed, "deadline", Some(&format!("p{n}")));
        }
        let bar = Of {
            route: "bar",
            ..SHOP
        };
        j.note(bar, Kind::Failed, "deadline", Some("p9"));
        assert!(j.summary().unwritten);
        assert!(j.checkpoint(Some("s2".into()), None).is_err());
        std::fs::create_dir_all(&d).unwrap();
        j.checkpoint(Some("s3".into()), None).unwrap();
        assert!(!j.summary().unwritten);
        let (entries, _) = read(&d.join(FILE)).unwrap();
        let since = |route: &str| entries.iter().find(|e| e.route == route)?.since.clone();
        assert_eq!(since("shop").as_deref(), Some("p0"));
        assert_eq!(since("bar").as_deref(), Some("p9"));
    }
}
