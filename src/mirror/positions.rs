//! The binlog positions sampled on both sides.
//!
//! A transaction's events are written when it commits, so any position seen
//! before the commit is a lower bound of where they are. A sampler stores one
//! every 100 ms; a journal entry takes the last one, without asking a server
//! on the data path.

use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use arc_swap::ArcSwapOption;

use crate::Side;
use crate::binlog::Position;

/// The last position seen on each side, as text (see [`Sample`]).
#[derive(Default)]
pub struct Positions {
    sides: [ArcSwapOption<String>; 2],
    /// Whether a transaction took one since [`Positions::were_taken`] was
    /// asked the last time.
    taken: [AtomicBool; 2],
}

impl Positions {
    /// Stores a sample, taken from the server just now.
    pub fn set(&self, side: Side, position: String) {
        self.sides[side.index()].store(Some(Arc::new(position)));
    }

    /// The last sample, for a transaction that begins now; None before the
    /// first one.
    pub fn take(&self, side: Side) -> Option<Arc<String>> {
        let taken = &self.taken[side.index()];
        // Read first: who writes often shares the cache line with nobody.
        if !taken.load(Ordering::Relaxed) {
            taken.store(true, Ordering::Relaxed);
        }
        self.last(side)
    }

    /// The last sample; None before the first one.
    pub fn last(&self, side: Side) -> Option<Arc<String>> {
        self.sides[side.index()].load_full()
    }

    /// Whether a transaction took a side's sample since this was asked the
    /// last time: the next ones want a newer one. A transaction that takes one
    /// unseen has an older lower bound, and is seen the next time.
    pub fn were_taken(&self, side: Side) -> bool {
        self.taken[side.index()].swap(false, Ordering::Relaxed)
    }
}

/// A sampled position: `file:offset`, and the GTIDs executed behind a space
/// where the server has any.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Sample {
    by_file: Position,
    by_gtid: Option<Position>,
}

/// A text that is not a sample.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("not a sampled binlog position")]
pub struct BadSample;

impl FromStr for Sample {
    type Err = BadSample;

    fn from_str(text: &str) -> Result<Sample, BadSample> {
        let (file, gtid) = match text.split_once(' ') {
            Some((file, gtid)) => (file, Some(gtid)),
            None => (text, None),
        };
        let by_file = format!("file:{file}").parse().map_err(|_| BadSample)?;
        let by_gtid = gtid.map(|gtid| {
            // A MySQL GTID has a colon before its number, a MariaDB one has
            // none.
            let family = if gtid.contains(':') {
                "mysql"
            } else {
                "mariadb"
            };
            format!("{family}:{gtid}").parse().map_err(|_| BadSample)
        });
        Ok(Sample {
            by_file,
            by_gtid: by_gtid.transpose()?,
        })
    }
}

/// A log file's name without its number, and the number.
fn numbered(file: &str) -> Option<(&str, u64)> {
    let (name, number) = file.rsplit_once('.')?;
    Some((name, number.parse().ok()?))
}

/// Whether all before `b` is before `a` too; None: they cannot be compared.
fn covers(a: &Position, b: &Position) -> Option<bool> {
    match (a, b) {
        (Position::Mysql(a), Position::Mysql(b)) => Some(a.covers(b)),
        (Position::Maria(a), Position::Maria(b)) => Some(a.covers(b)),
        (
            Position::File { file, offset },
            Position::File {
                file: other,
                offset: at,
            },
        ) => {
            let ((name, number), (other, no)) = (numbered(file)?, numbered(other)?);
            (name == other).then_some((number, offset) >= (no, at))
        }
        _ => None,
    }
}

impl Sample {
    /// Where a stream has to start to see all that comes after the sample.
    pub fn position(&self) -> &Position {
        self.by_gtid.as_ref().unwrap_or(&self.by_file)
    }

    fn like(&self, position: &Position) -> &Position {
        match position {
            Position::File { .. } => &self.by_file,
            _ => self.position(),
        }
    }

    /// Whether a reader at `position` has read all before the sample. None:
    /// they cannot be compared.
    pub fn is_passed_by(&self, position: &Position) -> Option<bool> {
        covers(position, self.like(position))
    }

    /// Whether a reader that starts at `position` sees all that comes after
    /// the sample. None: they cannot be compared.
    pub fn is_seen_from(&self, position: &Position) -> Option<bool> {
        covers(self.like(position), position)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(text: &str) -> Sample {
        text.parse().unwrap()
    }

    fn position(text: &str) -> Position {
        text.parse().unwrap()
    }

    #[test]
    fn who_takes_a_sample_wants_the_next_one() {
        let positions = Positions::default();
        positions.set(Side::Source, "log.000001:4".into());
        assert!(positions.last(Side::Source).is_some());
        assert!(!positions.were_taken(Side::Source));
        assert!(positions.take(Side::Source).is_some());
        assert!(positions.take(Side::Target).is_none());
        for side in [Side::Source, Side::Target] {
            assert!(positions.were_taken(side));
            assert!(!positions.were_taken(side));
        }
    }

    #[test]
    fn samples_compare_with_positions() {
        let uuid = "3e11fa47-71ca-11e1-9e33-c80aa9429562";
        let mysql = sample(&format!("binlog.000009:4711 {uuid}:1-20"));
        let maria = sample("binlog.000009:4711 0-1-20,1-1-3");
        let file = sample("binlog.000009:4711");
        for (sample, before, after) in [
            (
                &mysql,
                format!("mysql:{uuid}:1-19"),
                format!("mysql:{uuid}:1-21"),
            ),
            (
                &maria,
                "mariadb:0-1-19,1-1-3".into(),
                "mariadb:0-2-21,1-1-3".into(),
            ),
            (
                &maria,
                "mariadb:0-1-19".into(),
                "mariadb:0-2-21,1-1-4".into(),
            ),
            (
                &file,
                "file:binlog.000009:4710".into(),
                "file:binlog.000010:4".into(),
            ),
            (
                &file,
                "file:binlog.000008:9999".into(),
                "file:binlog.1000000:4".into(),
            ),
            (
                &mysql,
                "file:binlog.000008:9999".into(),
                "file:binlog.000009:4712".into(),
            ),
        ] {
            let (before, after) = (position(&before), position(&after));
            assert_eq!(sample.is_passed_by(&before), Some(false), "{sample:?}");
            assert_eq!(sample.is_passed_by(&after), Some(true), "{sample:?}");
            assert_eq!(sample.is_seen_from(&before), Some(true), "{sample:?}");
            assert_eq!(sample.is_seen_from(&after), Some(false), "{sample:?}");
        }
        for sample in [&mysql, &maria, &file] {
            assert_eq!(sample.is_passed_by(sample.position()), Some(true));
            assert_eq!(sample.is_seen_from(sample.position()), Some(true));
        }
        assert_eq!(file.is_passed_by(&position("mariadb:0-1-1")), None);
        assert_eq!(file.is_passed_by(&position("file:other.000009:5")), None);
        for bad in ["", "x", "binlog.000009", "binlog.000009:5 0-x"] {
            assert!(bad.parse::<Sample>().is_err(), "{bad}");
        }
    }
}
