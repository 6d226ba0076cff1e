//! Cuts a table into chunks: bounds of the key, sizes by the time that the
//! last ones took.
//!
//! An integer key is cut by arithmetic, which costs nothing; other keys by
//! asking the active side for the key so many rows further on. The first chunk
//! has no lower bound and the last one no upper, so that rows of the mirror
//! beyond the active side's keys are seen.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;

use crate::copy::select::Bound;

use super::reader::{ReadError, Reader};
use super::table::{Estimate, Extent, Order, Table};
use super::{Kind, TableReport, Verdict};

/// What a chunk's queries should take: long against a round trip, short
/// against what a server minds of an old snapshot.
const AIM: Duration = Duration::from_millis(500);

/// Bytes in a table's first chunk: what a disk reads in [`AIM`] at 200 MB/s.
/// Most tables are read as a whole by it, without bounds, which would cost the
/// servers a tenth more per row.
const FIRST_BYTES: u64 = 100_000_000;

/// Rows in it where nothing is known of them, and the bounds of all others.
const FIRST_ROWS: u64 = 10_000;
const ROWS_MIN: u64 = 1_000;
const ROWS_MAX: u64 = 1_000_000;

/// The same where the rows themselves are read.
const FETCHED_ROWS_MAX: u64 = 5_000;

/// A chunk grows by this at most from one to the next.
const GROWTH: u64 = 4;

/// Where the next chunk begins.
#[derive(Debug)]
enum Cursor {
    Start,
    /// Behind `after`; `last` is the greatest key when the walk began.
    Integer {
        after: i128,
        last: i128,
        first: bool,
    },
    Lookup(Option<Bound>),
    Done,
}

#[derive(Debug)]
struct State {
    cursor: Cursor,
    /// Rows for the next chunk.
    rows: u64,
    /// The same as a distance between integer keys.
    width: i128,
    /// The last chunk had no rows: look where the next key is.
    gap: bool,
}

/// A table that is walked, by several slots at once.
pub(super) struct Walk {
    pub(super) table: Arc<Table>,
    rows: AtomicU64,
    state: tokio::sync::Mutex<State>,
    verdict: Mutex<Option<Verdict>>,
}

/// A chunk, and how wide it is.
#[derive(Debug)]
pub(super) struct Chunk {
    pub(super) extent: Extent,
    width: Option<i128>,
}

fn literal(n: i128) -> Bound {
    Bound(vec![n.to_string().into_bytes()])
}

impl Walk {
    pub(super) fn new(table: Arc<Table>, size: Estimate) -> Walk {
        let rows = FIRST_BYTES.checked_div(size.row_bytes);
        let rows = rows.unwrap_or(FIRST_ROWS).max(ROWS_MIN);
        let rows = rows.min(Self::rows_max(&table));
        Walk {
            table,
            rows: AtomicU64::new(0),
            state: tokio::sync::Mutex::new(State {
                cursor: Cursor::Start,
                rows,
                width: i128::from(rows),
                gap: false,
            }),
            verdict: Mutex::default(),
        }
    }

    fn rows_max(table: &Table) -> u64 {
        if table.is_fetched() {
            FETCHED_ROWS_MAX
        } else {
            ROWS_MAX
        }
    }

    /// Takes the whole table; false: somebody else has.
    pub(super) async fn claim(&self) -> bool {
        let mut state = self.state.lock().await;
        let cursor = std::mem::replace(&mut state.cursor, Cursor::Done);
        matches!(cursor, Cursor::Start)
    }

    /// Counts rows that were compared.
    pub(super) fn add(&self, rows: u64) {
        self.rows.fetch_add(rows, Ordering::Relaxed);
    }

    /// Says something else than `Compared`, and ends the walk.
    pub(super) async fn end(&self, verdict: Verdict) {
        self.verdict.lock().get_or_insert(verdict);
        self.state.lock().await.cursor = Cursor::Done;
    }

    pub(super) fn report(&self, kind: Kind) -> TableReport {
        let verdict = self.verdict.lock().clone();
        TableReport {
            table: self.table.shown(),
            rows: self.rows.load(Ordering::Relaxed),
            verdict: verdict.unwrap_or(match kind {
                Kind::Window => Verdict::NotProof,
                _ => Verdict::Compared,
            }),
        }
    }

    /// The next chunk; None: there is none left.
    pub(super) async fn next(&self, active: &mut Reader) -> Result<Option<Chunk>, ReadError> {
        let mut state = self.state.lock().await;
        if matches!(state.cursor, Cursor::Start) {
            state.cursor = self.start(active).await?;
        }
        let chunk = match &mut state.cursor {
            Cursor::Done => return Ok(None),
            Cursor::Start => {
                state.cursor = Cursor::Done;
                Chunk {
                    extent: Extent::ALL,
                    width: None,
                }
            }
            Cursor::Integer { .. } => self.integer(&mut state, active).await?,
            Cursor::Lookup(after) => {
                let after = after.clone();
                let sql = self.table.lookup(after.as_ref(), state.rows);
                let until = active.lookup(&self.table, sql).await?;
                state.cursor = match &until {
                    Some(bound) => Cursor::Lookup(Some(bound.clone())),
                    None => Cursor::Done,
                };
                Chunk {
                    extent: Extent::Range { after, until },
                    width: None,
                }
            }
        };
        Ok(Some(chunk))
    }

    /// `Start` again: one chunk for all.
    async fn start(&self, active: &mut Reader) -> Result<Cursor, ReadError> {
        if self.table.order != Order::Ranges {
            return Ok(Cursor::Start);
        }
        let mut edges = [None; 2];
        for (edge, greatest) in edges.iter_mut().zip([false, true]) {
            let Some(sql) = self.table.integer_edge(greatest, None) else {
                return Ok(Cursor::Lookup(None));
            };
            *edge = active.text(sql).await?.and_then(|t| t.parse::<i128>().ok());
        }
        Ok(match edges {
            [Some(first), Some(last)] => Cursor::Integer {
                after: first - 1,
                last,
                first: true,
            },
            _ => Cursor::Start,
        })
    }

    async fn integer(&self, state: &mut State, active: &mut Reader) -> Result<Chunk, ReadError> {
        let (width, gap) = (state.width.max(1), state.gap);
        let Cursor::Integer { after, last, first } = &mut state.cursor else {
            return Ok(Chunk {
                extent: Extent::ALL,
                width: None,
            });
        };
        let mut from = *after;
        if gap && let Some(sql) = self.table.integer_edge(false, Some(from)) {
            // The gap belongs to the chunk behind it: the mirror may have rows
            // there.
            let next = active.text(sql).await?.and_then(|t| t.parse::<i128>().ok());
            from = next.map_or(*last, |next| next - 1);
        }
        let until = from + width;
        let lower = (!std::mem::take(first)).then(|| literal(*after));
        let done = until >= *last;
        *after = until;
        state.gap = false;
        if done {
            state.cursor = Cursor::Done;
        }
        Ok(Chunk {
            extent: Extent::Range {
                after: lower,
                until: (!done).then(|| literal(until)),
            },
            width: Some(width),
        })
    }

    /// A chunk was read: `rows` in so much time.
    pub(super) async fn measured(&self, chunk: &Chunk, rows: u64, took: Duration) {
        self.add(rows);
        let mut state = self.state.lock().await;
        let Some(rate) = (u128::from(rows) * AIM.as_micros()).checked_div(took.as_micros().max(1))
        else {
            return;
        };
        if rows == 0 {
            state.gap = true;
            return;
        }
        let wanted = u64::try_from(rate).unwrap_or(u64::MAX);
        let most = Self::rows_max(&self.table).min(state.rows.saturating_mul(GROWTH));
        state.rows = wanted.clamp(ROWS_MIN.min(most), most);
        if let Some(width) = chunk.width {
            // As dense as this chunk; but its few rows may stand before many.
            let most = width.saturating_mul(i128::from(GROWTH));
            let width = width.saturating_mul(i128::from(state.rows)) / i128::from(rows);
            state.width = width.clamp(1, most.max(1));
        }
    }
}
