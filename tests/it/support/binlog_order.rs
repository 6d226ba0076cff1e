//! Was every row written in the same order on both servers?
//!
//! End states cannot answer that: two writers whose order was swapped may leave
//! the same rows. The binlogs can. For each row (by primary key) the list of its
//! changes, with the images before and after, must be the same on both sides.
//!
//! The events are decoded by the servers' own tools (`mariadb-binlog`,
//! `mysqlbinlog`) into pseudo-SQL comments, which [`Decoder`] reads.

use super::compare::primary_key;
use super::servers::{Family, Server};
use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

/// How many differing rows a report describes.
const EXAMPLES: usize = 5;

/// A place in a server's binlog.
#[derive(Clone, Debug)]
pub struct Mark {
    file: String,
    position: u64,
}

/// Where the server's binlog ends now.
pub fn mark(server: &Server) -> Mark {
    let sql = match server.family() {
        Family::MariaDb => "SHOW MASTER STATUS",
        Family::MySql => "SHOW BINARY LOG STATUS",
    };
    let mut row = server
        .query(sql)
        .into_iter()
        .next()
        .expect("the binlog is on")
        .into_iter();
    let file = row.next().flatten().expect("binlog file");
    let position = row
        .next()
        .flatten()
        .and_then(|p| p.parse().ok())
        .expect("binlog position");
    Mark { file, position }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    Insert,
    Update,
    Delete,
}

/// One changed row, its values as the tool prints them.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Change {
    /// `db.table`.
    pub table: String,
    pub kind: Kind,
    /// Empty for an insert.
    pub before: Vec<String>,
    /// Empty for a delete.
    pub after: Vec<String>,
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.kind {
            Kind::Insert => write!(f, "+({})", self.after.join(",")),
            Kind::Update => write!(f, "({})->({})", self.before.join(","), self.after.join(",")),
            Kind::Delete => write!(f, "-({})", self.before.join(",")),
        }
    }
}

/// What [`check`] found.
#[derive(Debug, Default)]
pub struct Order {
    /// Row changes read on the source and on the target.
    pub changes: [usize; 2],
    /// Distinct rows changed on either side.
    pub rows: usize,
    /// Rows whose changes are not the same list on both sides.
    pub differing: usize,
    /// The first few of them, described.
    pub examples: Vec<String>,
}

impl Order {
    /// Panics unless no row's write order differs, and at least `least` changes
    /// were seen (an empty binlog proves nothing).
    pub fn assert_same(&self, least: usize) {
        let Order {
            changes: [source, target],
            rows,
            differing,
            examples,
        } = self;
        assert!(
            *source >= least,
            "only {source} changes in the source's binlog, {target} in the target's"
        );
        assert!(
            *differing == 0,
            "{differing} of {rows} rows were written in another order \
             ({source} changes on the source, {target} on the target):\n{}",
            examples.join("\n")
        );
    }
}

/// Compares what both servers logged for `tables` (`db.table`) since the marks.
/// Nobody may be writing meanwhile.
pub fn check(source: (&Server, &Mark), target: (&Server, &Mark), tables: &[&str]) -> Order {
    let keys: HashMap<String, Vec<usize>> = tables
        .iter()
        .map(|t| (t.to_string(), primary_key(source.0, t)))
        .collect();
    let left = histories(changes(source.0, source.1, tables), &keys);
    let right = histories(changes(target.0, target.1, tables), &keys);
    compare(&left, &right)
}

/// All changes of the tables since the mark, in log order.
pub fn changes(server: &Server, from: &Mark, tables: &[&str]) -> Vec<Change> {
    let tool = match server.family() {
        Family::MariaDb => server.family().program("mariadb-binlog"),
        Family::MySql => server.family().program("mysqlbinlog"),
    };
    let tool = tool.unwrap_or_else(|missing| panic!("{missing}"));
    let logs = server
        .query("SHOW BINARY LOGS")
        .into_iter()
        .filter_map(|row| row.into_iter().next()?);
    let files = logs
        .skip_while(|file| *file != from.file)
        .map(|file| server.datadir().join(file));
    let mut process = Command::new(tool)
        .args(["--no-defaults", "--verbose", "--base64-output=DECODE-ROWS"])
        .arg(format!("--start-position={}", from.position))
        .args(files)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        .spawn()
        .expect("start the binlog tool");
    let mut found = Vec::new();
    let mut decoder = Decoder::default();
    let mut keep = |change: Change| {
        if tables.contains(&change.table.as_str()) {
            found.push(change);
        }
    };
    let mut out = BufReader::new(process.stdout.take().expect("piped"));
    let mut line = Vec::new();
    while out
        .read_until(b'\n', &mut line)
        .expect("read the binlog tool")
        > 0
    {
        decoder
            .line(&characters(line.trim_ascii_end()))
            .map(&mut keep);
        line.clear();
    }
    decoder.finish().map(&mut keep);
    let status = process.wait().expect("binlog tool");
    assert!(status.success(), "the binlog tool failed: {status}");
    found
}

/// Reads the comments of `--verbose`:
///
/// ```text
/// ### UPDATE `t`.`hot`
/// ### WHERE
/// ###   @1=1
/// ###   @2=5
/// ### SET
/// ###   @1=1
/// ###   @2=6
/// ```
#[derive(Default)]
pub struct Decoder {
    change: Option<Change>,
    in_after: bool,
}

impl Decoder {
    /// Takes the next line; gives the change that this line shows to be complete.
    pub fn line(&mut self, line: &str) -> Option<Change> {
        let Some(text) = line.strip_prefix("### ") else {
            return self.finish();
        };
        if let Some(value) = text.trim_start().strip_prefix('@') {
            let change = self.change.as_mut()?;
            let value = value.split_once('=').map_or("", |(_, v)| v);
            let image = if self.in_after {
                &mut change.after
            } else {
                &mut change.before
            };
            image.push(normal(value));
            return None;
        }
        match text.trim_end() {
            "SET" => self.in_after = true,
            "WHERE" => self.in_after = false,
            head => return self.begin(head),
        }
        None
    }

    /// The last change, when the input has ended.
    pub fn finish(&mut self) -> Option<Change> {
        self.change.take()
    }

    fn begin(&mut self, head: &str) -> Option<Change> {
        let kinds = [
            ("INSERT INTO ", Kind::Insert),
            ("UPDATE ", Kind::Update),
            ("DELETE FROM ", Kind::Delete),
        ];
        let parsed = kinds
            .iter()
            .find_map(|(word, kind)| Some((head.strip_prefix(word)?, *kind)));
        let previous = self.change.take();
        self.change = parsed.map(|(table, kind)| Change {
            table: table
                .trim()
                .replace("`.`", ".")
                .trim_matches('`')
                .to_string(),
            kind,
            before: Vec::new(),
            after: Vec::new(),
        });
        previous
    }
}

/// One spelling for what the two families' tools print differently: quotes
/// around temporal values, escapes, spaces in JSON.
fn normal(value: &str) -> String {
    let value = value.trim();
    let inner = value
        .strip_prefix('\'')
        .and_then(|v| v.strip_suffix('\''))
        .unwrap_or(value);
    if inner.starts_with(['{', '[']) {
        let bytes: Vec<u8> = unescape(inner)
            .chars()
            .filter_map(|c| u8::try_from(c).ok())
            .collect();
        if let Ok(json) = serde_json::from_slice::<serde_json::Value>(&bytes) {
            return json.to_string();
        }
    }
    unescape(inner)
}

/// One character per byte: tables may hold bytes that are not UTF-8, and the
/// tools escape some bytes and not others.
fn characters(bytes: &[u8]) -> String {
    bytes.iter().map(|b| char::from(*b)).collect()
}

/// Takes both tools' escapes away: `\xNN`, and MySQL's `\n`, `\'` and the like.
fn unescape(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, tail)) = rest.split_once('\\') {
        plain.push_str(before);
        let hex = tail.strip_prefix('x').and_then(|t| t.get(..2));
        let byte = hex.and_then(|h| u8::from_str_radix(h, 16).ok());
        let escaped = match tail.chars().next() {
            Some('n') => Some('\n'),
            Some('r') => Some('\r'),
            Some('t') => Some('\t'),
            Some('b') => Some('\u{8}'),
            Some('0') => Some('\0'),
            Some(c @ ('\'' | '"' | '\\')) => Some(c),
            _ => None,
        };
        let (character, length) = match (byte, escaped) {
            (Some(byte), _) => (char::from(byte), 3),
            (None, Some(c)) => (c, 1),
            (None, None) => ('\\', 0),
        };
        plain.push(character);
        rest = tail.get(length..).unwrap_or_default();
    }
    plain.push_str(rest);
    plain
}

/// Each row's changes in log order, by table and key.
type Histories = BTreeMap<(String, Vec<String>), Vec<Change>>;

fn histories(changes: Vec<Change>, keys: &HashMap<String, Vec<usize>>) -> Histories {
    let mut histories = Histories::new();
    for change in changes {
        let key = keys.get(&change.table).map_or(&[][..], Vec::as_slice);
        let of = |image: &[String]| -> Vec<String> {
            match key {
                [] => image.to_vec(),
                key => key.iter().filter_map(|i| image.get(*i).cloned()).collect(),
            }
        };
        let (before, after) = (of(&change.before), of(&change.after));
        // A row that changes its key is an event in the life of both keys.
        if !change.before.is_empty() && !change.after.is_empty() && before != after {
            let moved = histories.entry((change.table.clone(), after)).or_default();
            moved.push(change.clone());
            histories
                .entry((change.table.clone(), before))
                .or_default()
                .push(change);
            continue;
        }
        let id = if change.before.is_empty() {
            after
        } else {
            before
        };
        histories
            .entry((change.table.clone(), id))
            .or_default()
            .push(change);
    }
    histories
}

fn compare(left: &Histories, right: &Histories) -> Order {
    let count = |side: &Histories| side.values().map(Vec::len).sum();
    let mut order = Order {
        changes: [count(left), count(right)],
        ..Order::default()
    };
    let only_right = right.keys().filter(|k| !left.contains_key(*k));
    for id in left.keys().chain(only_right) {
        order.rows += 1;
        let (l, r) = (left.get(id), right.get(id));
        if l == r {
            continue;
        }
        order.differing += 1;
        if order.examples.len() < EXAMPLES {
            let (l, r) = (
                l.map_or(&[][..], Vec::as_slice),
                r.map_or(&[][..], Vec::as_slice),
            );
            order.examples.push(example(id, l, r));
        }
    }
    order
}

/// The first place where two histories part.
fn example(id: &(String, Vec<String>), left: &[Change], right: &[Change]) -> String {
    let same = left.iter().zip(right).take_while(|(l, r)| l == r).count();
    let show = |side: &[Change]| -> String {
        let near: Vec<String> = side
            .iter()
            .skip(same)
            .take(3)
            .map(ToString::to_string)
            .collect();
        format!("{} … of {}", near.join(" "), side.len())
    };
    let (table, key) = id;
    format!(
        "{table} key ({}) after {same} equal changes:\n  source {}\n  target {}",
        key.join(","),
        show(left),
        show(right)
    )
}
