//! Taking lines off the journal once their writes are healed.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::sync::Arc;

use super::{Entry, FILE, Journal, Kind, Of, Place, State, parse, read, written};
use crate::Side;
use crate::binlog::Position;
use crate::mirror::positions::Sample;

/// A journal that was replaced while it was read is read again so often; then
/// the lines stay for the next time.
const TRIES_MAX: u32 = 3;

/// Written, and then put in the journal's place.
const TEMPORARY: &str = "drain.tmp";

/// Streams whose end is remembered: one each time a route changes sides.
const ENDED_MAX: usize = 10_000;

/// What a follower reads.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Covers {
    /// The side.
    pub side: Side,
    /// Its stream.
    pub stream: String,
    /// Where the stream began.
    pub from: Position,
}

impl Covers {
    /// Whether all that a line stands for is in what the follower reads.
    fn line(&self, place: &Place, since: Option<&str>) -> bool {
        if place.stream.as_ref() == Some(&self.stream) {
            return true;
        }
        if place.side.is_some_and(|side| side != self.side) {
            return false;
        }
        let sample = since.and_then(|s| s.parse::<Sample>().ok());
        sample.is_some_and(|s| s.is_seen_from(&self.from) == Some(true))
    }
}

/// A route as the journal has to know it at the start.
#[derive(Clone, Copy, Debug)]
pub struct Standing<'a> {
    /// Its name.
    pub route: &'a str,
    /// Its active side.
    pub active: Side,
    /// Whether writes reach both sides.
    pub mirrored: bool,
    /// The stream that follows it.
    pub stream: Option<&'a str>,
}

/// What is noted from now on keeps a line. Made by [`Journal::mark`], taken by
/// [`Journal::drained`].
pub struct Mark {
    journal: Arc<Journal>,
    id: u64,
    route: String,
}

impl Drop for Mark {
    fn drop(&mut self) {
        let id = self.id;
        self.journal.state.lock().marks.retain(|m| m.id != id);
    }
}

/// A mark that is not used yet.
pub(super) struct Marked {
    id: u64,
    pub(super) route: String,
    /// Stands for the writes noted since.
    after: Option<Entry>,
}

impl Marked {
    pub(super) fn note(&mut self, entry: &Entry) {
        match &mut self.after {
            None => self.after = Some(entry.clone()),
            // A stream is read as a whole. Else the oldest counts, and they
            // need not come in order.
            Some(after) if after.stream != entry.stream || entry.stream.is_none() => {
                if after.stream != entry.stream || after.since != entry.since {
                    (after.stream, after.since) = (None, None);
                }
            }
            Some(_) => {}
        }
    }
}

impl State {
    fn has_ended(&self, place: &Place) -> bool {
        let stream = place.stream.as_ref();
        stream.is_some_and(|s| self.ended.contains(s))
    }
}

impl Journal {
    /// Lines that stand for all routes become one a route, for those that were
    /// mirrored; lines of routes that are gone go. To be called at the start,
    /// before anything is noted or drained.
    ///
    /// Where the process ended between the two commits of a write, that write's
    /// event is ahead of the follower, whose stream is still the route's. One
    /// of the other side is not: a phase changes sides only behind a barrier,
    /// and has a line of its own where that was forced.
    ///
    /// # Errors
    /// The file system's; the lines stand as they were.
    pub fn assign(&self, routes: &[Standing<'_>]) -> io::Result<()> {
        let mut state = self.state.lock();
        let (all, _) = read(&self.directory.join(FILE))?;
        let mut entries = Vec::with_capacity(all.len());
        let mut changed = false;
        for entry in all {
            if routes.iter().any(|r| r.route == entry.route) {
                entries.push(entry);
                continue;
            }
            changed = true;
            if !entry.route.is_empty() {
                continue;
            }
            let of = routes
                .iter()
                .filter(|r| r.mirrored && entry.side.is_none_or(|side| side == r.active));
            entries.extend(of.map(|r| Entry {
                route: r.route.to_owned(),
                side: Some(r.active),
                stream: r.stream.map(str::to_owned),
                ..entry.clone()
            }));
        }
        if changed {
            self.rewrite(&mut state, &entries)?;
            state.learn(&entries);
        }
        Ok(())
    }

    /// A stream ended, and all that it read before is healed: a phase changed
    /// sides behind a barrier. Remembered at once, for the lines go later.
    pub fn ended(&self, stream: &str) {
        let mut state = self.state.lock();
        // Without one of them its lines only wait for a comparison.
        if state.ended.len() < ENDED_MAX {
            state.ended.insert(stream.to_owned());
        }
    }

    /// Lines that a route has.
    pub fn lines(&self, route: &str) -> u64 {
        let state = self.state.lock();
        let lines = state.lines.get(route).copied().unwrap_or_default();
        // What could not be written is a line, too.
        lines.max(u64::from(state.unwritten))
    }

    /// Whether a route has lines that the follower covers.
    pub fn is_covered(&self, route: &str, covers: &Covers) -> bool {
        let state = self.state.lock();
        let mut of_route = state.oldest.iter().filter(|(p, _)| p.route == route);
        of_route.any(|(p, since)| state.has_ended(p) || covers.line(p, since.as_deref()))
    }

    /// Whether a route has lines that the follower does not cover; without a
    /// follower, any.
    pub fn is_uncovered(&self, route: &str, covers: Option<&Covers>) -> bool {
        let state = self.state.lock();
        let mut of_route = state
            .oldest
            .iter()
            .filter(|(p, _)| p.route == route && !state.has_ended(p));
        of_route.any(|(place, since)| !covers.is_some_and(|c| c.line(place, since.as_deref())))
    }

    /// What is noted from now on keeps a line when the route is drained.
    pub fn mark(self: &Arc<Self>, route: &str) -> Mark {
        let mut state = self.state.lock();
        state.marks_made += 1;
        let id = state.marks_made;
        state.marks.push(Marked {
            id,
            route: route.to_owned(),
            after: None,
        });
        Mark {
            journal: self.clone(),
            id,
            route: route.to_owned(),
        }
    }

    /// The route's writes noted before the mark are healed, as far as `covers`
    /// covers them (None: all are, the rows were compared): their lines go.
    /// Reads and writes files: not on a runtime's thread.
    ///
    /// # Errors
    /// The file system's; the lines stay.
    pub fn drained(&self, mark: Mark, covers: Option<&Covers>) -> io::Result<()> {
        let _one = self.draining.lock();
        for _ in 0..TRIES_MAX {
            if self.drain(&mark, covers)? {
                return Ok(());
            }
        }
        Ok(())
    }

    /// Without the lock where it takes long: who notes a write waits for it. So
    /// 1. what is there is read, and what stays of it is written and synced;
    /// 2. under the lock, what came meanwhile is added, and the file replaced.
    fn drain(&self, mark: &Mark, covers: Option<&Covers>) -> io::Result<bool> {
        let (bytes, rewrites, ended) = {
            let mut state = self.state.lock();
            if !state.lines.contains_key(&mark.route) {
                return Ok(true);
            }
            self.catch_up(&mut state)?;
            (state.bytes, state.rewrites, state.ended.clone())
        };
        let path = self.directory.join(FILE);
        let mut text = Vec::new();
        File::open(&path)?.take(bytes).read_to_end(&mut text)?;
        let (mut entries, _) = parse(&text[..])?;
        let before = entries.len();
        entries.retain(|e| {
            let has_ended = e.stream.as_ref().is_some_and(|s| ended.contains(s));
            let healed = covers.is_none_or(|c| c.line(&e.place(), e.since.as_deref()));
            e.route != mark.route || !(healed || has_ended)
        });
        if entries.len() == before {
            return Ok(true);
        }
        let temporary = self.directory.join(TEMPORARY);
        let replaced = written(&temporary, &entries)
            .and_then(|file| self.put_in(mark, file, (bytes, rewrites), entries));
        if !matches!(replaced, Ok(true)) {
            let _ = std::fs::remove_file(&temporary);
        }
        replaced
    }

    fn put_in(
        &self,
        mark: &Mark,
        mut file: File,
        (bytes, rewrites): (u64, u64),
        mut entries: Vec<Entry>,
    ) -> io::Result<bool> {
        let path = self.directory.join(FILE);
        let mut state = self.state.lock();
        if state.rewrites != rewrites || state.unwritten {
            return Ok(false);
        }
        let mut now = File::open(&path)?;
        now.seek(SeekFrom::Start(bytes))?;
        let mut tail = Vec::new();
        now.read_to_end(&mut tail)?;
        let marked = state.marks.iter().find(|m| m.id == mark.id);
        let after = marked.and_then(|m| m.after.clone());
        let (late, _) = parse(&tail[..])?;
        if let Some(after) = &after {
            serde_json::to_writer(&mut tail, after)?;
            tail.push(b'\n');
        }
        file.write_all(&tail)?;
        std::fs::rename(self.directory.join(TEMPORARY), &path)?;
        entries.extend(late);
        entries.extend(after);
        state.replaced(file);
        state.learn(&entries);
        Ok(true)
    }

    /// An operator forced the route on without waiting for the follower: only
    /// a comparison can tell what the other side lacks.
    pub fn forced(&self, route: &str, side: Side, reason: &'static str) {
        let of = Of {
            route,
            side,
            stream: None,
        };
        self.note(of, Kind::Forced, reason, None);
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{SHOP, directory};
    use super::*;

    fn covers(stream: &str, at: u64) -> Covers {
        Covers {
            side: Side::Source,
            stream: stream.to_owned(),
            from: format!("file:binlog.000001:{at}").parse().unwrap(),
        }
    }

    fn open(name: &str, bytes_max: u64) -> Arc<Journal> {
        Arc::new(Journal::open(&directory(name), bytes_max).unwrap())
    }

    fn again(journal: Arc<Journal>) -> Arc<Journal> {
        let (d, max) = (journal.directory.clone(), journal.bytes_max);
        drop(journal);
        Arc::new(Journal::open(&d, max).unwrap())
    }

    fn note(j: &Journal, of: Of<'_>, at: u64) {
        let since = format!("binlog.000001:{at}");
        j.note(of, Kind::Failed, "lost", Some(&since));
    }

    const BAR: Of<'_> = Of {
        route: "bar",
        side: Side::Source,
        stream: None,
    };

    #[test]
    fn healed_lines_go_and_later_ones_stay() {
        let j = open("e", 1 << 20);
        note(&j, SHOP, 1);
        note(&j, BAR, 2);
        let mark = j.mark("shop");
        // The same sample: no line of its own, but for the mark.
        note(&j, SHOP, 1);
        note(&j, SHOP, 9);
        assert_eq!(j.lines("shop"), 2);
        j.drained(mark, Some(&covers("shop.1", 100))).unwrap();
        assert!(j.lines("shop") > 0);
        let (first, second) = (j.mark("shop"), j.mark("shop"));
        note(&j, SHOP, 11);
        j.drained(first, Some(&covers("shop.1", 100))).unwrap();
        j.drained(second, Some(&covers("shop.1", 100))).unwrap();
        assert_eq!(j.lines("shop"), 1);
        let mark = j.mark("shop");
        j.drained(mark, Some(&covers("shop.1", 100))).unwrap();
        assert_eq!((j.lines("shop"), j.lines("bar")), (0, 1));
        note(&j, SHOP, 11);
        j.close().unwrap();
        let j = again(j);
        assert_eq!((j.lines("shop"), j.lines("bar")), (1, 1));
        assert!(j.state.lock().marks.is_empty());
    }

    #[test]
    fn what_no_follower_covers_stays() {
        let j = open("g", 1 << 20);
        note(&j, SHOP, 5);
        let old = Of {
            stream: None,
            ..SHOP
        };
        note(&j, old, 6);
        let other = Of {
            side: Side::Target,
            ..old
        };
        note(&j, other, 1000);
        // Another stream from position 6 on: the line at 5 is before it.
        let new = covers("shop.2", 6);
        assert!(j.is_uncovered("shop", Some(&new)) && !j.is_uncovered("bar", None));
        assert!(j.is_covered("shop", &new) && !j.is_covered("bar", &new));
        j.drained(j.mark("shop"), Some(&new)).unwrap();
        assert_eq!(j.lines("shop"), 2);
        assert!(!j.is_covered("shop", &new));
        // Unknown: never by position.
        j.forced("shop", Side::Source, "without a barrier");
        j.drained(j.mark("shop"), Some(&new)).unwrap();
        assert_eq!(j.lines("shop"), 3);
        // Compared.
        let mark = j.mark("shop");
        note(&j, old, 7);
        note(&j, old, 8);
        j.drained(mark, None).unwrap();
        // One line for the later two, and neither's position speaks for both.
        assert!(j.is_uncovered("shop", Some(&covers("shop.2", 0))));
        j.drained(j.mark("shop"), None).unwrap();
        assert_eq!(j.lines("shop"), 0);
    }

    #[test]
    fn a_stream_that_ended_healed_covers_its_lines() {
        let j = open("i", 1 << 20);
        note(&j, SHOP, 5);
        let next = covers("shop.2", 100);
        assert!(j.is_uncovered("shop", Some(&next)));
        j.ended("shop.1");
        assert!(!j.is_uncovered("shop", Some(&next)));
        j.drained(j.mark("shop"), Some(&next)).unwrap();
        assert_eq!(j.lines("shop"), 0);
    }

    #[test]
    fn an_unclean_stop_is_its_routes() {
        let j = open("f", 2000);
        let at = |n: u64| Some(format!("binlog.000001:{n}"));
        j.checkpoint(at(7), at(8)).unwrap();
        for n in 10..1000 {
            note(&j, SHOP, n);
        }
        assert!(j.summary().overflowed);
        let mark = j.mark("shop");
        note(&j, SHOP, 1000);
        j.drained(mark, Some(&covers("shop.1", 0))).unwrap();
        assert!(!j.summary().overflowed && j.lines("shop") == 1);
        let j = again(j);
        let standing = |route, mirrored, stream| Standing {
            route,
            active: Side::Source,
            mirrored,
            stream,
        };
        let routes = [
            standing("shop", true, Some("shop.2")),
            standing("bar", true, None),
            standing("rest", false, None),
        ];
        j.assign(&routes).unwrap();
        let lines = ["shop", "bar", "rest", ""].map(|r| j.lines(r));
        // Of the source alone: nothing is mirrored to it.
        assert_eq!(lines, [2, 1, 0, 0]);
        j.drained(j.mark("bar"), Some(&covers("bar.1", 8))).unwrap();
        assert_eq!(j.lines("bar"), 1);
        j.drained(j.mark("bar"), Some(&covers("bar.1", 7))).unwrap();
        assert_eq!(j.lines("bar"), 0);
        // Its end was unclean in the life of its stream; the line before is of
        // another.
        j.drained(j.mark("shop"), Some(&covers("shop.2", 2000)))
            .unwrap();
        assert!(j.lines("shop") == 1 && j.is_uncovered("shop", Some(&covers("shop.2", 2000))));
        j.close().unwrap();
        let j = again(j);
        j.assign(&routes[1..]).unwrap();
        assert_eq!(j.lines("shop"), 0);
    }

    #[test]
    fn a_drain_beside_notes_loses_none() {
        let j = open("h", 1 << 20);
        let noting = {
            let j = j.clone();
            std::thread::spawn(move || {
                for n in 0..2000 {
                    note(&j, BAR, n);
                }
            })
        };
        while !noting.is_finished() {
            note(&j, SHOP, 1);
            j.drained(j.mark("shop"), Some(&covers("shop.1", 0)))
                .unwrap();
        }
        noting.join().unwrap();
        assert_eq!((j.lines("shop"), j.lines("bar")), (0, 2000));
        let j = again(j);
        assert_eq!((j.lines("shop"), j.lines("bar")), (0, 2000));
    }
}
