//! Taking lines off the journal once their writes are healed.

use std::io;

use super::{Entry, FILE, Journal, Kind, Mark, Oldest, State, read};
use crate::Side;
use crate::mirror::positions::Sample;

impl Journal {
    /// From where on a route has to be healed while `side` is active.
    pub fn oldest(&self, route: &str, side: Side) -> Oldest {
        let state = self.state.lock();
        let mut oldest: Option<Sample> = None;
        for ((_, _), since) in state
            .oldest
            .iter()
            .filter(|((r, s), _)| (r == route || r.is_empty()) && s.is_none_or(|s| s == side))
        {
            let Some(Ok(sample)) = since.as_ref().map(|s| s.parse::<Sample>()) else {
                return Oldest::Unknown;
            };
            oldest = match oldest {
                None => Some(sample),
                Some(known) => match sample.is_passed_by(known.position()) {
                    Some(true) => Some(sample),
                    Some(false) => Some(known),
                    None => return Oldest::Unknown,
                },
            };
        }
        oldest.map_or(Oldest::Nothing, Oldest::Since)
    }

    /// Lines that stand for all routes become one a route. To be called when
    /// the routes are known, before any is drained.
    ///
    /// # Errors
    /// The file system's; the lines stand as they were.
    pub fn assign(&self, routes: &[&str]) -> io::Result<()> {
        let mut state = self.state.lock();
        if !state.oldest.keys().any(|(route, _)| route.is_empty()) {
            return Ok(());
        }
        self.catch_up(&mut state)?;
        let (all, _) = read(&self.directory.join(FILE))?;
        let mut entries = Vec::with_capacity(all.len());
        for entry in all {
            if !entry.route.is_empty() {
                entries.push(entry);
                continue;
            }
            entries.extend(routes.iter().map(|route| Entry {
                route: (*route).to_string(),
                ..entry.clone()
            }));
        }
        self.replace(&mut state, &entries)
    }

    /// Rewrites, and what memory knows with it.
    fn replace(&self, state: &mut State, entries: &[Entry]) -> io::Result<()> {
        self.rewrite(state, entries)?;
        state.current.clear();
        state.overflowed = entries.iter().any(|e| e.kind == Kind::Overflow);
        state.oldest.clear();
        for e in entries {
            let key = (e.route.clone(), e.side);
            state.oldest.entry(key).or_insert(e.since.clone());
        }
        Ok(())
    }

    /// What is noted from now on keeps a line when the route is drained.
    pub fn mark(&self, route: &str) -> Mark {
        let mut state = self.state.lock();
        let healing = state.healing.entry(route.to_string()).or_default();
        healing.mark += 1;
        healing.after = None;
        Mark(healing.mark)
    }

    /// The route's writes noted before `upto` are healed: their lines go. False:
    /// another mark was taken since, and nothing is changed. Reads and writes
    /// the file: not on a runtime's thread.
    ///
    /// # Errors
    /// The file system's; the lines stay.
    pub fn drained(&self, route: &str, upto: Mark) -> io::Result<bool> {
        let mut state = self.state.lock();
        let after = match state.healing.get(route) {
            Some(healing) if healing.mark == upto.0 => healing.after.clone(),
            _ => return Ok(false),
        };
        if !state.oldest.keys().any(|(r, _)| r == route) {
            return Ok(true);
        }
        self.catch_up(&mut state)?;
        let (mut entries, _) = read(&self.directory.join(FILE))?;
        entries.retain(|e| e.route != route);
        entries.extend(after);
        self.replace(&mut state, &entries)?;
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::directory;
    use super::*;

    #[test]
    fn healed_lines_go_and_later_ones_stay() {
        let d = directory("e");
        let j = Journal::open(&d, 1 << 20).unwrap();
        let note = |route, at: &str| {
            let since = format!("binlog.000001:{at}");
            j.note(route, Side::Source, Kind::Failed, "lost", Some(&since));
        };
        let since = |route| match j.oldest(route, Side::Source) {
            Oldest::Since(sample) => sample.position().to_string(),
            other => format!("{other:?}"),
        };
        note("shop", "1");
        note("bar", "2");
        let mark = j.mark("shop");
        // The same sample: no line of its own, but for the mark.
        note("shop", "1");
        note("shop", "9");
        assert!(j.drained("shop", mark).unwrap());
        assert_eq!(since("shop"), "file:binlog.000001:1");
        let (mark, late) = (j.mark("shop"), j.mark("shop"));
        assert!(!j.drained("shop", mark).unwrap());
        assert!(j.drained("shop", late).unwrap());
        assert_eq!(j.oldest("shop", Side::Source), Oldest::Nothing);
        assert_eq!(since("bar"), "file:binlog.000001:2");
        note("shop", "9");
        assert_eq!(since("shop"), "file:binlog.000001:9");
        j.close().unwrap();
        let again = Journal::open(&d, 1 << 20).unwrap();
        assert_eq!(again.summary().since.len(), 2);
    }

    #[test]
    fn overflow_and_unclean_lines_are_drained_by_route() {
        let d = directory("f");
        let j = Journal::open(&d, 2000).unwrap();
        j.checkpoint(Some("binlog.000001:7".into()), None).unwrap();
        for n in 10..1000 {
            let since = format!("binlog.000001:{n}");
            j.note("shop", Side::Source, Kind::Failed, "deadline", Some(&since));
        }
        let mark = j.mark("shop");
        j.note(
            "shop",
            Side::Source,
            Kind::Failed,
            "late",
            Some("binlog.000001:1000"),
        );
        assert!(j.drained("shop", mark).unwrap());
        let s = j.summary();
        assert!(!s.overflowed);
        assert_eq!(s.since[0].1.as_deref(), Some("binlog.000001:1000"));
        drop(j);
        let j = Journal::open(&d, 2000).unwrap();
        // Unclean: from the checkpoint on, on the side that was sampled.
        let Oldest::Since(sample) = j.oldest("bar", Side::Source) else {
            panic!("{:?}", j.summary());
        };
        assert_eq!(sample.position().to_string(), "file:binlog.000001:7");
        assert_eq!(j.oldest("bar", Side::Target), Oldest::Unknown);
        j.assign(&["shop", "bar"]).unwrap();
        let mark = j.mark("bar");
        assert!(j.drained("bar", mark).unwrap());
        assert_eq!(j.oldest("bar", Side::Target), Oldest::Nothing);
        assert_ne!(j.oldest("shop", Side::Source), Oldest::Nothing);
    }
}
