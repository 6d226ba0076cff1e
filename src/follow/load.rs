//! Chunks of a copy that are handed to the server as a file (LOAD DATA LOCAL):
//! it parses no SQL then, and here no value is taken apart.
//!
//! A chunk keeps its place in the log: what was taken before it is settled is
//! written before it, and what comes behind it afterwards. Loaded behind the
//! batch it would undo what came meanwhile; loaded ahead of all of the batch:
//! 1. Parent 5 is deleted, parent 4 becomes 5; both are in the batch, and keep
//!    their places. The log does not show the child of 4.
//! 2. The child is read, with parent 5, and loaded.
//! 3. The batch is written: with parent 5 goes the child, for good.
//!
//! LOCAL may make warnings of what would be errors. So a chunk stands only if
//! all of its rows were taken without any; otherwise it is written by
//! statements, which say what is wrong, and so is what comes of its table.
//!
//! Both sides' columns are those of the run's beginning. Whoever changes a
//! column's character set on the target while rows are copied has to compare.

use std::collections::{HashSet, VecDeque};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

use bytes::Bytes;
use parking_lot::Mutex;

use crate::binlog::{Change, Images};
use crate::copy::raw::{RawRows, written};
use crate::rows::literal::{put_name, put_table};
use crate::rows::shape::{ColumnShape, TableShape};

use super::batch::{Batch, TableName};
use super::tables::Followed;
use super::windows::Chunk;
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

    fn takes(&self, table: &TableName, followed: &Followed) -> bool {
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
    // A file's NULL is the current time to a TIMESTAMP that must not be NULL.
    let nulls = there.nullable || !here.nullable;
    PLAIN.contains(&here.type_name())
        && nulls
        && !there.generated
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
    /// Takes a chunk from the copier.
    pub(super) async fn arrived(&mut self, chunk: Chunk) -> Result<(), FollowError> {
        // One with a place of its own waits for it, or is there, and is merged.
        let file = chunk.behind.is_none() && self.loads.takes(&chunk.name, &chunk.table);
        if self.heals || !file {
            return self.chunk(chunk);
        }
        if !self.batch.is_empty() {
            self.flush().await?;
        }
        // A transaction that is open on the first worker's connection has to
        // have them, too.
        if self.in_order.held {
            return self.chunk(chunk);
        }
        if let Some(load) = self.settled_chunk(chunk) {
            self.loads.waiting.push(load);
        }
        Ok(())
    }

    /// Takes a chunk into the batch.
    pub(super) fn chunk(&mut self, chunk: Chunk) -> Result<(), FollowError> {
        let due = self.in_order.due(chunk);
        let Some(load) = due.and_then(|chunk| self.settled_chunk(chunk)) else {
            return Ok(());
        };
        let mut batch = std::mem::take(&mut self.batch);
        let merged = self.merge(&mut batch, &load);
        self.batch = batch;
        merged
    }

    /// Of a chunk's rows those that no event changed since its window was
    /// opened. None: it is to be read again.
    fn settled_chunk(&mut self, mut chunk: Chunk) -> Option<Load> {
        let Some(rows) = self.windows.settle(&mut chunk) else {
            let _ = chunk.done.send(false);
            return None;
        };
        self.batch.bytes += rows.size();
        self.since.get_or_insert_with(Instant::now);
        self.copied.push((chunk.progress, chunk.done));
        Some(Load {
            name: chunk.name,
            table: chunk.table,
            rows,
        })
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
        let written = self.write_all(waiting).await;
        if written.is_err() {
            // 1. A chunk cannot be written; it is no longer waiting.
            // 2. What ends the follower flushes once more.
            // 3. The chunk's progress would be recorded.
            self.copied.clear();
            self.batch = Batch::default();
            (self.whole, self.since) = (None, None);
        }
        written
    }

    async fn write_all(&mut self, waiting: Vec<Load>) -> Result<(), FollowError> {
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
            (
                ColumnShape {
                    nullable: true,
                    ..plain("timestamp")
                },
                Some(plain("timestamp")),
            ),
            (
                plain("int(11)"),
                Some(ColumnShape {
                    generated: true,
                    ..plain("int(11)")
                }),
            ),
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
