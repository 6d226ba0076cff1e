//! Chunks of a copy that are handed to the server as a file (LOAD DATA LOCAL):
//! it parses no SQL then, and here no value is taken apart.
//!
//! A chunk is written before the batch it came in, and by itself:
//! 1. Row r has changed to 2; its event is in the batch.
//! 2. The chunk's window opens; r is read, as 2 or as 3. No event of it comes
//!    before the window is settled, or r is not written from the chunk.
//! 3. The chunk is written, then the batch: r is 2.
//! 4. The event of r's change to 3, if there was one, is still to come.
//!
//! Behind the batch it would not do: events that came after the window was
//! settled are in the batch as well.
//!
//! LOCAL makes warnings of what would be errors. So a chunk stands only if all
//! of its rows were taken without any; otherwise it is written by statements,
//! which say what is wrong, and so is what comes of its table.

use std::collections::{HashSet, VecDeque};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use parking_lot::Mutex;

use crate::binlog::{Change, Images};
use crate::copy::raw::{RawRows, written};
use crate::rows::literal::{put_name, put_table};
use crate::rows::shape::{ColumnShape, TableShape};

use super::batch::{Batch, TableName};
use super::tables::Followed;
use super::{FollowError, Follower, WriteError, join_all};

/// Bytes of one packet of the file: the server works on one while the next is
/// on its way.
const PACKET: usize = 256 << 10;

/// Rows to be loaded.
pub(super) struct Load {
    pub name: TableName,
    pub table: Arc<Followed>,
    pub rows: RawRows,
}

/// Chunks that wait for the batch's turn.
#[derive(Default)]
pub(super) struct Loads {
    waiting: Vec<Load>,
    /// Tables whose chunks are written by statements: a server would not take
    /// one as a file.
    refused: HashSet<TableName>,
}

impl Loads {
    /// Whether as many wait as can be written at the same time.
    pub fn are(&self, count: usize) -> bool {
        self.waiting.len() >= count.max(1)
    }

    fn take(&self, table: &TableName, followed: &Followed) -> bool {
        !self.refused.contains(table) && is_loadable(followed)
    }
}

/// A column whose text is the same in a file as in a statement, on both sides.
fn is_plain(here: &ColumnShape, there: &ColumnShape) -> bool {
    const PLAIN: [&str; 25] = [
        "tinyint",
        "smallint",
        "mediumint",
        "int",
        "bigint",
        "year",
        "decimal",
        "float",
        "double",
        "date",
        "datetime",
        "time",
        "timestamp",
        "char",
        "varchar",
        "tinytext",
        "text",
        "mediumtext",
        "longtext",
        "binary",
        "varbinary",
        "tinyblob",
        "blob",
        "mediumblob",
        "longblob",
    ];
    // Bytes are bytes in the file, so nothing converts them; nor does anything
    // tell a character set's escape from one of its letters' bytes.
    const CHARSETS: [&str; 6] = ["ascii", "latin1", "utf8", "utf8mb3", "utf8mb4", "binary"];
    let charset = here.charset.as_deref();
    PLAIN.contains(&here.type_name())
        && here.type_name() == there.type_name()
        && charset == there.charset.as_deref()
        && charset.is_none_or(|c| CHARSETS.contains(&c))
}

fn is_loadable(followed: &Followed) -> bool {
    let Some(other) = &followed.other else {
        return false;
    };
    let mut columns = written(&followed.shape).peekable();
    let there = |name: &[u8]| other.columns.iter().find(|c| c.name == name);
    columns.peek().is_some()
        && columns.all(|(_, here)| there(&here.name).is_some_and(|there| is_plain(here, there)))
}

/// The statement that asks for the file.
pub(super) fn statement(name: &TableName, shape: &TableShape) -> Vec<u8> {
    let mut out = b"LOAD DATA LOCAL INFILE 'lockstep' REPLACE INTO TABLE ".to_vec();
    put_table(&mut out, &name.schema, &name.table);
    out.extend_from_slice(
        b" CHARACTER SET binary FIELDS TERMINATED BY '\\t' ESCAPED BY '\\\\' \
          LINES TERMINATED BY '\\n' (",
    );
    for (i, (_, column)) in written(shape).enumerate() {
        if i > 0 {
            out.push(b',');
        }
        put_name(&mut out, &column.name);
    }
    out.push(b')');
    out
}

/// The file.
pub(super) fn file(rows: &RawRows) -> Bytes {
    let mut out = Vec::with_capacity(rows.size() + rows.size() / 16 + 64);
    for row in rows.iter() {
        for (i, text) in row.texts().enumerate() {
            if i > 0 {
                out.push(b'\t');
            }
            match text {
                Some(text) => put_field(&mut out, text),
                None => out.extend_from_slice(b"\\N"),
            }
        }
        out.push(b'\n');
    }
    out.into()
}

fn put_field(out: &mut Vec<u8>, mut text: &[u8]) {
    while let Some(at) = memchr::memchr3(b'\t', b'\n', b'\\', text) {
        let (plain, special) = text.split_at(at);
        out.extend_from_slice(plain);
        out.push(b'\\');
        out.push(match special.first() {
            Some(b'\t') => b't',
            Some(b'\n') => b'n',
            _ => b'\\',
        });
        text = special.get(1..).unwrap_or_default();
    }
    out.extend_from_slice(text);
}

/// Whether a server's answer says that it has taken so many rows as they are:
/// `Records: 3  Deleted: 0  Skipped: 0  Warnings: 0`, in its own language.
pub(super) fn is_whole(said: &str, rows: usize) -> bool {
    let numbers = said.split(|c: char| !c.is_ascii_digit());
    let numbers: Vec<usize> = numbers.filter_map(|n| n.parse().ok()).collect();
    matches!(numbers[..], [taken, _, 0, 0] if taken == rows)
}

/// The file as packets.
pub(super) struct Packets(pub Bytes);

impl futures_core::Stream for Packets {
    type Item = std::io::Result<Bytes>;

    fn poll_next(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let next = self.0.len().min(PACKET);
        let packet = self.0.split_to(next);
        Poll::Ready((next > 0).then_some(Ok(packet)))
    }
}

impl Follower {
    /// Takes the rows of a settled chunk: to be loaded, or into the batch.
    pub(super) fn load(&mut self, load: Load) -> Result<(), FollowError> {
        // A transaction that is open on the first worker's connection has them,
        // too.
        let apart = !self.heals && !self.in_order.held;
        if apart && self.loads.take(&load.name, &load.table) {
            self.loads.waiting.push(load);
            return Ok(());
        }
        let mut batch = std::mem::take(&mut self.batch);
        let merged = self.merge(&mut batch, &load);
        self.batch = batch;
        merged
    }

    fn merge(&self, batch: &mut Batch, load: &Load) -> Result<(), FollowError> {
        let Followed { shape, key, .. } = &*load.table;
        for row in load.rows.iter() {
            let Some(after) = row.image(shape) else {
                let table = &load.name;
                return Err(self.stopped(format!("{table}: a copied row that cannot be read")));
            };
            let images = Images {
                before: None,
                after: Some(after),
            };
            let added = batch.add(&load.name, shape, key, Change::Insert, images);
            added.map_err(|e| self.stopped(e.to_string()))?;
        }
        Ok(())
    }

    /// Writes the chunks that wait, several at a time.
    pub(super) async fn write_loads(&mut self) -> Result<(), FollowError> {
        let waiting = std::mem::take(&mut self.loads.waiting);
        if waiting.is_empty() {
            return Ok(());
        }
        let queue = Mutex::new(VecDeque::from(waiting));
        let next = || queue.lock().pop_front();
        let workers = self.workers.iter_mut().map(async |worker| {
            let mut refused = Vec::new();
            while let Some(load) = next() {
                if !worker.load(&load).await? {
                    refused.push(load);
                }
            }
            Ok::<_, WriteError>(refused)
        });
        let mut instead = Batch::default();
        for refused in join_all(workers.collect()).await {
            for load in refused? {
                self.merge(&mut instead, &load)?;
                self.loads.refused.insert(load.name);
            }
        }
        let parts = instead.split(self.workers.len());
        self.write_parts(parts).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn column(name: &str, column_type: &str, charset: Option<&str>) -> ColumnShape {
        ColumnShape {
            name: name.into(),
            column_type: column_type.into(),
            charset: charset.map(str::to_owned),
            ..ColumnShape::default()
        }
    }

    #[test]
    fn nothing_ends_a_field_early() {
        let shape = TableShape {
            columns: vec![column("a", "blob", None), column("b", "int(11)", None)],
            ..TableShape::default()
        };
        let mut rows = RawRows::default();
        for text in [&b"a\tb\\c\nd\0\r'"[..], b"", b"\\N"] {
            let values = [
                mysql_async::Value::Bytes(text.to_vec()),
                mysql_async::Value::NULL,
            ];
            assert!(rows.push(values.into_iter(), &shape));
        }
        assert_eq!(
            file(&rows),
            &b"a\\tb\\\\c\\nd\0\r'\t\\N\n\t\\N\n\\\\N\t\\N\n"[..]
        );
        let name = TableName {
            schema: b"s".to_vec(),
            table: b"t".to_vec(),
        };
        let sql = String::from_utf8(statement(&name, &shape)).unwrap();
        assert!(
            sql.contains("TABLE `s`.`t` ") && sql.ends_with("(`a`,`b`)"),
            "{sql}"
        );
        assert!(
            sql.contains(r"BY '\t' ESCAPED BY '\\' LINES TERMINATED BY '\n'"),
            "{sql}"
        );
    }

    #[test]
    fn what_both_sides_read_alike_is_loaded() {
        let followed = |here: ColumnShape, there: Option<ColumnShape>| {
            let shape = |column| {
                Arc::new(TableShape {
                    columns: vec![column],
                    ..TableShape::default()
                })
            };
            let key = super::super::batch::Key {
                columns: Vec::new(),
                bytewise: false,
            };
            is_loadable(&Followed::new(shape(here), there.map(shape), key))
        };
        let text = |t: &str, charset| column("a", t, Some(charset));
        let plain = |t: &str| column("a", t, None);
        assert!(followed(
            text("varchar(9)", "utf8mb4"),
            Some(text("varchar(9)", "utf8mb4"))
        ));
        assert!(followed(
            plain("bigint(20) unsigned"),
            Some(plain("bigint unsigned"))
        ));
        // Converted; of another type; with letters that end in a backslash.
        for (here, there) in [
            (text("char(9)", "latin1"), Some(text("char(9)", "utf8mb4"))),
            (text("longtext", "utf8mb4"), Some(plain("json"))),
            (text("char(9)", "sjis"), Some(text("char(9)", "sjis"))),
            (plain("bit(3)"), Some(plain("bit(3)"))),
            (plain("enum('a')"), Some(plain("enum('a')"))),
            (plain("int(11)"), None),
            (plain("int(11)"), Some(column("b", "int(11)", None))),
        ] {
            assert!(!followed(here.clone(), there), "{here:?}");
        }
    }

    #[test]
    fn an_answer_is_read_in_any_language() {
        assert!(is_whole(
            "Records: 3  Deleted: 2  Skipped: 0  Warnings: 0",
            3
        ));
        assert!(is_whole(
            "Datensätze: 3  Gelöscht: 0  Ausgelassen: 0  Warnungen: 0",
            3
        ));
        for said in [
            "Records: 2  Deleted: 0  Skipped: 0  Warnings: 0",
            "Records: 3  Deleted: 0  Skipped: 1  Warnings: 0",
            "Records: 3  Deleted: 0  Skipped: 0  Warnings: 1",
            "",
        ] {
            assert!(!is_whole(said, 3), "{said}");
        }
    }

    #[test]
    fn a_file_is_sent_in_packets() {
        use futures_core::Stream;
        let mut packets = Packets(Bytes::from(vec![7; PACKET + 1]));
        let mut cx = Context::from_waker(std::task::Waker::noop());
        let mut sizes = Vec::new();
        while let Poll::Ready(Some(Ok(packet))) = Pin::new(&mut packets).poll_next(&mut cx) {
            sizes.push(packet.len());
        }
        assert_eq!(sizes, [PACKET, 1]);
    }
}
