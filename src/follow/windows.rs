//! Where copied rows meet the log.
//!
//! The copier reads chunks of rows beside the running follower, without a lock.
//! For each chunk:
//!
//! 1. it opens a *window* here: from now on the follower notes the key of every
//!    row of that table that its events change, as it was and as it is;
//! 2. it commits a row of its own on the side that is read (the *watermark*)
//!    and waits for the OK;
//! 3. it reads the chunk, in a new snapshot;
//! 4. it hands the rows over; the follower writes those whose keys were not
//!    noted, at the place in the log where it then is, and closes the window.
//!
//! Why a row that is written is never older than what the target has. Let E be
//! an event of the row that the follower took before step 1. E's transaction is
//! in the log before the watermark's. Servers commit in the order of the log
//! (`binlog_order_commits`), so with the watermark's OK it is readable, and the
//! chunk has E's change or a later one. Without step 2:
//! 1. T is in the log, and its event has come, but its server still waits for a
//!    semi-sync replica: T is not readable.
//! 2. The follower writes T's row; the window opens; the chunk is read without
//!    T and written over it. T is lost.
//!
//! Why a row that is newer than the follower's place does no harm: its later
//! events are still to come, and each is written over it in order.
//!
//! Why the keys' bytes suffice where a collation calls different bytes equal:
//! the chunk has one version of a row. If it is not the last, the event that
//! replaced it names its bytes as the image before.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use parking_lot::Mutex;

use crate::copy::raw::RawRows;

use super::batch::{Key, TableName};
use super::snapshots::Snapshots;
use super::tables::Followed;

/// Keys noted in one window before it is given up, and its chunk read again:
/// what a busy table changes within seconds.
const TOUCHED_MAX: usize = 1_000_000;

#[derive(Default)]
struct Window {
    touched: HashSet<Vec<u8>>,
    overflow: bool,
}

/// All open windows.
#[derive(Default)]
pub struct Windows {
    open: Mutex<HashMap<TableName, HashMap<u64, Window>>>,
    /// Copies of tables without a key.
    pub snapshots: Snapshots,
}

/// Rows read by the copier.
pub struct Chunk {
    /// The window it was read in.
    pub window: u64,
    /// The table's name.
    pub name: TableName,
    /// How the table is followed.
    pub table: Arc<Followed>,
    /// The rows.
    pub rows: RawRows,
    /// A watermark that was committed behind the reading. Until the follower
    /// has met it, rows may be ahead of its place, which is not good where
    /// foreign keys change them without an event:
    /// 1. Parent 5 is deleted; later parent 4 becomes 5, and its child with it.
    /// 2. The child is read, with parent 5, and written.
    /// 3. The follower comes to 1, and the child of then 4 goes with 5.
    pub behind: Option<u64>,
    /// Statement that records that the chunk is copied.
    pub progress: Vec<u8>,
    /// Told when the chunk is written; false: its window overflowed, read it
    /// again.
    pub done: tokio::sync::oneshot::Sender<bool>,
}

impl Windows {
    /// Opens a window (step 1). `id` is the copier's own, unique among the open
    /// ones.
    pub fn open(&self, name: &TableName, id: u64) {
        let mut open = self.open.lock();
        let windows = open.entry(name.clone()).or_default();
        windows.insert(id, Window::default());
    }

    /// Closes a window whose chunk is not handed over.
    pub fn close(&self, name: &TableName, id: u64) {
        self.take(name, id);
    }

    fn take(&self, name: &TableName, id: u64) -> Option<Window> {
        let mut open = self.open.lock();
        let windows = open.get_mut(name)?;
        let window = windows.remove(&id);
        if windows.is_empty() {
            open.remove(name);
        }
        window
    }

    /// Notes a changed row.
    pub(super) fn note(&self, name: &TableName, key: &Key, images: &crate::binlog::Images) {
        let mut open = self.open.lock();
        let Some(windows) = open.get_mut(name) else {
            return;
        };
        for image in [&images.before, &images.after].into_iter().flatten() {
            let bytes = key.bytes(image);
            for window in windows.values_mut() {
                match &bytes {
                    Some(bytes) if window.touched.len() < TOUCHED_MAX => {
                        window.touched.insert(bytes.clone());
                    }
                    _ => window.overflow = true,
                }
            }
        }
    }

    /// Has the chunks of a table that are being read, read again.
    pub(super) fn spoil(&self, name: &TableName) {
        for window in self.open.lock().get_mut(name).into_iter().flatten() {
            window.1.overflow = true;
        }
    }

    /// Has every chunk that is being read, read again: definitions changed.
    pub(super) fn spoil_all(&self) {
        for windows in self.open.lock().values_mut() {
            for window in windows.values_mut() {
                window.overflow = true;
            }
        }
    }

    /// Whether the table has an open window.
    pub(super) fn is_open(&self, name: &TableName) -> bool {
        self.open.lock().contains_key(name)
    }

    /// Closes the chunk's window; the rows that may be written. None: too much
    /// changed, or the window is not open.
    pub(super) fn settle(&self, chunk: &mut Chunk) -> Option<RawRows> {
        let window = self.take(&chunk.name, chunk.window)?;
        if window.overflow {
            return None;
        }
        let rows = std::mem::take(&mut chunk.rows);
        if window.touched.is_empty() {
            return Some(rows);
        }
        let Followed { key, shape, .. } = &*chunk.table;
        // What cannot be read is kept: whoever writes it says so.
        let kept = |key: Option<Vec<u8>>| key.is_none_or(|key| !window.touched.contains(&key));
        Some(rows.retained(|row| kept(row.key(key, shape))))
    }
}
