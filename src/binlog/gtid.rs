//! Places in a binlog: GTID sets of both families, and file and offset.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

/// Most intervals in a set that is read from text. A set has one interval per
/// server, and more only where transactions are missing.
const INTERVALS_MAX: usize = 1 << 20;

/// Longest tag of a MySQL GTID, in bytes.
const TAG_MAX: usize = 32;

/// The largest transaction number of MySQL.
const GNO_MAX: u64 = i64::MAX as u64;

/// Where a reader of a binlog stands: everything before has been read.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Position {
    /// MySQL with `gtid_mode=ON`: the transactions read.
    Mysql(GtidSet),
    /// MariaDB: the last transaction of each domain.
    Maria(MariaPosition),
    /// Without GTIDs.
    File {
        /// Log file's name.
        file: String,
        /// Offset of the next event, in bytes.
        offset: u64,
    },
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Position::Mysql(set) => write!(f, "mysql:{set}"),
            Position::Maria(position) => write!(f, "mariadb:{position}"),
            Position::File { file, offset } => write!(f, "file:{file}:{offset}"),
        }
    }
}

/// A text that is not a position or a GTID set.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("not a binlog position: {0}")]
pub struct BadPosition(&'static str);

impl FromStr for Position {
    type Err = BadPosition;

    /// Reads what `Display` writes.
    fn from_str(text: &str) -> Result<Position, BadPosition> {
        let (kind, rest) = text.split_once(':').ok_or(BadPosition("no kind"))?;
        match kind {
            "mysql" => Ok(Position::Mysql(rest.parse()?)),
            "mariadb" => Ok(Position::Maria(rest.parse()?)),
            "file" => {
                let (file, offset) = rest.rsplit_once(':').ok_or(BadPosition("no offset"))?;
                let offset = offset.parse().map_err(|_| BadPosition("bad offset"))?;
                Ok(Position::File {
                    file: file.to_owned(),
                    offset,
                })
            }
            _ => Err(BadPosition("unknown kind")),
        }
    }
}

/// Who numbered a MySQL transaction: a server, and a tag since MySQL 8.3.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Origin {
    /// `server_uuid`.
    pub uuid: [u8; 16],
    /// Lower case; empty without one.
    pub tag: String,
}

/// A MySQL transaction's id.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Gtid {
    /// Who numbered it.
    pub origin: Origin,
    /// Its number, from 1.
    pub number: u64,
}

/// A MariaDB transaction's id.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct MariaGtid {
    /// Replication domain.
    pub domain: u32,
    /// Server that wrote it.
    pub server: u32,
    /// Number within the domain.
    pub sequence: u64,
}

impl fmt::Display for MariaGtid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}-{}", self.domain, self.server, self.sequence)
    }
}

fn write_uuid(f: &mut fmt::Formatter<'_>, uuid: &[u8; 16]) -> fmt::Result {
    for (i, b) in uuid.iter().enumerate() {
        if matches!(i, 4 | 6 | 8 | 10) {
            f.write_str("-")?;
        }
        write!(f, "{b:02x}")?;
    }
    Ok(())
}

fn read_uuid(text: &str) -> Option<[u8; 16]> {
    let digits: Vec<u8> = text
        .bytes()
        .filter(|b| *b != b'-')
        .map(|b| {
            char::from(b)
                .to_digit(16)
                .and_then(|d| u8::try_from(d).ok())
        })
        .collect::<Option<_>>()?;
    let mut uuid = [0; 16];
    if digits.len() != 32 {
        return None;
    }
    for (to, pair) in uuid.iter_mut().zip(digits.chunks(2)) {
        *to = pair.iter().fold(0, |v, d| v << 4 | d);
    }
    Some(uuid)
}

impl fmt::Display for Gtid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_uuid(f, &self.origin.uuid)?;
        if !self.origin.tag.is_empty() {
            write!(f, ":{}", self.origin.tag)?;
        }
        write!(f, ":{}", self.number)
    }
}

/// A set of MySQL GTIDs: for each origin, half-open intervals in order, apart
/// from each other.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct GtidSet {
    origins: BTreeMap<Origin, Vec<(u64, u64)>>,
}

impl GtidSet {
    /// Holds nothing?
    pub fn is_empty(&self) -> bool {
        self.origins.is_empty()
    }

    /// Adds one transaction.
    pub fn add(&mut self, gtid: &Gtid) {
        // Nearly always the number behind the last interval.
        if let Some(intervals) = self.origins.get_mut(&gtid.origin)
            && let Some(last) = intervals.last_mut()
            && last.1 == gtid.number
        {
            last.1 += 1;
            return;
        }
        self.add_interval(&gtid.origin, gtid.number, gtid.number.saturating_add(1));
    }

    /// Adds `start..end`.
    pub fn add_interval(&mut self, origin: &Origin, start: u64, end: u64) {
        if start >= end {
            return;
        }
        let intervals = self.origins.entry(origin.clone()).or_default();
        let first = intervals.partition_point(|i| i.1 < start);
        let last = intervals.partition_point(|i| i.0 <= end);
        let touched = intervals.get(first..last).unwrap_or_default();
        let low = touched.first().map_or(start, |i| i.0.min(start));
        let high = touched.last().map_or(end, |i| i.1.max(end));
        intervals.splice(first..last, [(low, high)]);
    }

    /// Whether the transaction is in the set.
    pub fn contains(&self, gtid: &Gtid) -> bool {
        self.origins.get(&gtid.origin).is_some_and(|intervals| {
            let i = intervals.partition_point(|i| i.1 <= gtid.number);
            intervals.get(i).is_some_and(|i| i.0 <= gtid.number)
        })
    }

    /// Whether every transaction of `other` is in the set.
    pub fn covers(&self, other: &GtidSet) -> bool {
        other.origins.iter().all(|(origin, wanted)| {
            let have = self.origins.get(origin).map_or(&[][..], Vec::as_slice);
            wanted.iter().all(|(start, end)| {
                let i = have.partition_point(|i| i.1 <= *start);
                have.get(i).is_some_and(|i| i.0 <= *start && *end <= i.1)
            })
        })
    }

    /// The form COM_BINLOG_DUMP_GTID takes (server source,
    /// `Gtid_set::encode`): with tags where any origin has one.
    pub fn encode(&self) -> Vec<u8> {
        let tagged = self.origins.keys().any(|o| !o.tag.is_empty());
        let count = self.origins.len() as u64;
        let mut out = Vec::new();
        let head = if tagged {
            1 << 56 | count << 8 | 1
        } else {
            count
        };
        out.extend_from_slice(&head.to_le_bytes());
        for (origin, intervals) in &self.origins {
            out.extend_from_slice(&origin.uuid);
            if tagged {
                // A tag has at most 32 bytes, so one byte holds its length.
                let length = u8::try_from(origin.tag.len()).unwrap_or(0);
                out.push(length << 1);
                out.extend_from_slice(origin.tag.as_bytes());
            }
            out.extend_from_slice(&(intervals.len() as u64).to_le_bytes());
            for (start, end) in intervals {
                out.extend_from_slice(&start.to_le_bytes());
                out.extend_from_slice(&end.to_le_bytes());
            }
        }
        out
    }
}

impl fmt::Display for GtidSet {
    /// As `@@gtid_executed` prints it: `uuid:1-5:7:tag:1-3,uuid:…`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut before: Option<[u8; 16]> = None;
        for (origin, intervals) in &self.origins {
            if before != Some(origin.uuid) {
                if before.is_some() {
                    f.write_str(",")?;
                }
                write_uuid(f, &origin.uuid)?;
                before = Some(origin.uuid);
            }
            if !origin.tag.is_empty() {
                write!(f, ":{}", origin.tag)?;
            }
            for (start, end) in intervals {
                write!(f, ":{start}")?;
                if *end > start + 1 {
                    write!(f, "-{}", end - 1)?;
                }
            }
        }
        Ok(())
    }
}

impl FromStr for GtidSet {
    type Err = BadPosition;

    fn from_str(text: &str) -> Result<GtidSet, BadPosition> {
        let mut set = GtidSet::default();
        let mut budget = INTERVALS_MAX;
        for part in text.split(',') {
            let part = part.trim();
            if part.is_empty() {
                continue;
            }
            let mut pieces = part.split(':').map(str::trim);
            let uuid = pieces.next().and_then(read_uuid);
            let mut origin = Origin {
                uuid: uuid.ok_or(BadPosition("bad UUID"))?,
                tag: String::new(),
            };
            for piece in pieces {
                if !piece.starts_with(|c: char| c.is_ascii_digit()) {
                    origin.tag = tag(piece)?;
                    continue;
                }
                budget = budget
                    .checked_sub(1)
                    .ok_or(BadPosition("too many intervals"))?;
                let (start, last) = piece.split_once('-').unwrap_or((piece, piece));
                let number = |t: &str| t.trim().parse::<u64>().ok().filter(|n| *n <= GNO_MAX);
                let (Some(start), Some(last)) = (number(start), number(last)) else {
                    return Err(BadPosition("bad transaction number"));
                };
                if start == 0 {
                    return Err(BadPosition("transaction number 0"));
                }
                set.add_interval(&origin, start, last + 1);
            }
        }
        Ok(set)
    }
}

/// A tag in its normal form: a letter or `_`, then letters, digits, `_`.
pub(crate) fn tag(text: &str) -> Result<String, BadPosition> {
    let fits = text.len() <= TAG_MAX
        && text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
    if fits {
        Ok(text.to_ascii_lowercase())
    } else {
        Err(BadPosition("bad tag"))
    }
}

/// The last transaction of every MariaDB domain.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct MariaPosition {
    domains: BTreeMap<u32, MariaGtid>,
}

impl MariaPosition {
    /// Moves the transaction's domain to it.
    pub fn add(&mut self, gtid: MariaGtid) {
        self.domains.insert(gtid.domain, gtid);
    }

    /// The last transaction of a domain.
    pub fn last(&self, domain: u32) -> Option<MariaGtid> {
        self.domains.get(&domain).copied()
    }

    /// Whether every domain of `other` has been read as far. Sequence numbers
    /// grow within a domain whatever the server (`gtid_strict_mode`).
    pub fn covers(&self, other: &MariaPosition) -> bool {
        other.domains.values().all(|o| {
            self.last(o.domain)
                .is_some_and(|g| g.sequence >= o.sequence)
        })
    }
}

impl fmt::Display for MariaPosition {
    /// As `@@gtid_binlog_pos` prints it: `0-1-4711,1-2-3`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, gtid) in self.domains.values().enumerate() {
            if i > 0 {
                f.write_str(",")?;
            }
            write!(f, "{gtid}")?;
        }
        Ok(())
    }
}

impl FromStr for MariaPosition {
    type Err = BadPosition;

    fn from_str(text: &str) -> Result<MariaPosition, BadPosition> {
        let mut position = MariaPosition::default();
        for part in text.split(',').map(str::trim).filter(|p| !p.is_empty()) {
            let mut numbers = part.split('-');
            let gtid = (|| {
                Some(MariaGtid {
                    domain: numbers.next()?.parse().ok()?,
                    server: numbers.next()?.parse().ok()?,
                    sequence: numbers.next()?.parse().ok()?,
                })
            })();
            let gtid = gtid.filter(|_| numbers.next().is_none());
            position.add(gtid.ok_or(BadPosition("bad MariaDB GTID"))?);
        }
        Ok(position)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const U: &str = "3e11fa47-71ca-11e1-9e33-c80aa9429562";

    #[test]
    fn sets_are_printed_as_the_server_does() {
        let text = format!("{U}:1-5:7,{}:1", U.replace("3e", "4e"));
        let set: GtidSet = text.parse().unwrap();
        assert_eq!(set.to_string(), text);
        let tagged = format!("{U}:1-3:abc:5");
        let set: GtidSet = tagged.parse().unwrap();
        assert_eq!(set.to_string(), tagged);
        assert_eq!(set.encode().len(), 8 + 2 * (16 + 1 + 8 + 16) + 3);
        let touching: GtidSet = format!("{U}:4-6:1-3:9").parse().unwrap();
        assert_eq!(touching.to_string(), format!("{U}:1-6:9"));
        for bad in [
            "x",
            "3e:1",
            &format!("{U}:0"),
            &format!("{U}:1-x"),
            &format!("{U}:a-b"),
        ] {
            assert!(bad.parse::<GtidSet>().is_err(), "{bad}");
        }
    }

    #[test]
    fn positions_survive_text() {
        for text in [
            "file:binlog.000003:4711".to_owned(),
            "mariadb:0-1-4711,1-2-3".to_owned(),
            format!("mysql:{U}:1-5"),
            "mysql:".to_owned(),
            "mariadb:".to_owned(),
        ] {
            let position: Position = text.parse().unwrap();
            assert_eq!(position.to_string(), text);
        }
        for bad in ["", "file:x", "mariadb:0-1", "mariadb:0-1-2-3", "other:1"] {
            assert!(bad.parse::<Position>().is_err(), "{bad}");
        }
    }

    proptest! {
        /// Against a plain set of numbers.
        #[test]
        fn intervals_are_a_set(adds in proptest::collection::vec((1u64..60, 0u64..6), 0..40)) {
            let origin = Origin::default();
            let mut set = GtidSet::default();
            let mut model = std::collections::BTreeSet::new();
            for (start, length) in adds {
                set.add_interval(&origin, start, start + length);
                model.extend(start..start + length);
            }
            for number in 0..70 {
                let gtid = Gtid { origin: origin.clone(), number };
                prop_assert_eq!(set.contains(&gtid), model.contains(&number));
            }
            let again: GtidSet = set.to_string().parse().unwrap();
            prop_assert!(again.covers(&set) && set.covers(&again));
            if !model.is_empty() {
                prop_assert!(!GtidSet::default().covers(&set));
            }
        }
    }
}
