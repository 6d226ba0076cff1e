//! The chunks of one part, one behind the other.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use tokio::sync::oneshot;

use super::select::Bound;
use super::{
    ATTEMPTS_MAX, CHUNK_BYTES, Copier, CopyError, FIRST_ROWS, LEAST_ROWS, PAUSE, Part, ROWS_MAX,
    Read, shown,
};
use crate::follow::tables::Followed;
use crate::follow::windows::Chunk;
use crate::leg::Leg;

/// A chunk that was read in its window, to be handed over.
struct Gathered {
    chunk: Chunk,
    written: oneshot::Receiver<bool>,
    /// The part behind it.
    next: Part,
    /// Nothing is behind it.
    finished: bool,
}

/// Rows of a chunk at most, and whether it must not be ahead of the follower's
/// place ([`Chunk::behind`]).
type Wanted = (usize, bool);

impl Copier {
    /// Copies a part, chunk after chunk; while one is written the next is read.
    /// That is handed over once the one before is written, since its progress
    /// says that all before it is:
    /// 1. Chunks 1 and 2 are handed over.
    /// 2. Too much changed in the window of 1, not in that of 2.
    /// 3. 2 is written, and its progress; a crash: 1 is never read again.
    pub(super) async fn part(
        &self,
        slot: usize,
        mut part: Part,
        exact: bool,
        leg: &mut Option<Leg>,
    ) -> Result<(), CopyError> {
        let mut limit = self.throttle.chunk_max(FIRST_ROWS);
        let mut ahead = None;
        loop {
            let read = match ahead.take() {
                Some(read) => Some(read),
                None => self.gather(slot, &part, (limit, exact), leg).await?,
            };
            let Some(Gathered {
                chunk,
                written,
                next,
                finished,
            }) = read
            else {
                return Ok(());
            };
            let (rows, bytes) = (chunk.rows.len(), chunk.rows.size());
            if let Some(fitting) = rows.saturating_mul(CHUNK_BYTES).checked_div(bytes) {
                let most = self.throttle.chunk_max(ROWS_MAX);
                limit = fitting.clamp(1, most).min(limit * 4);
            }
            let sent = self.chunks.send(chunk).await;
            sent.map_err(|_| CopyError::Follower)?;
            let (written, further) = if finished || exact {
                (written.await, Ok(None))
            } else {
                let further = self.gather(slot, &next, (limit, exact), leg);
                tokio::join!(written, further)
            };
            match written {
                Ok(true) => {
                    self.status.copied(&part.name, rows as u64);
                    if finished {
                        return Ok(());
                    }
                    part = next;
                    ahead = further?;
                }
                // Too much changed meanwhile: read it again, faster.
                Ok(false) => {
                    limit = (rows / 2).max(LEAST_ROWS);
                    if let Ok(Some(further)) = further {
                        self.windows.close(&part.name, further.chunk.window);
                    }
                }
                Err(_) => return Err(CopyError::Follower),
            }
        }
    }

    /// Reads the part's next chunk, again where that fails; None: the copy is to
    /// stop.
    async fn gather(
        &self,
        slot: usize,
        part: &Part,
        wanted: Wanted,
        leg: &mut Option<Leg>,
    ) -> Result<Option<Gathered>, CopyError> {
        let mut failures = 0;
        while !self.stop.load(Ordering::Relaxed) {
            match self.attempt(slot, part, wanted, leg).await? {
                Err(_) if failures + 1 < ATTEMPTS_MAX => {}
                read => return read.map(Some),
            }
            *leg = None;
            failures += 1;
            tokio::time::sleep(PAUSE).await;
        }
        Ok(None)
    }

    /// The outer error is one that does not pass.
    async fn attempt(
        &self,
        slot: usize,
        part: &Part,
        wanted: Wanted,
        leg: &mut Option<Leg>,
    ) -> Result<Result<Gathered, CopyError>, CopyError> {
        if let Err(e) = self.admitted(leg).await {
            return Ok(Err(e));
        }
        let window = self.next_window.fetch_add(1, Ordering::Relaxed);
        self.windows.open(&part.name, window);
        // Behind the window: a definition that changes from here on spoils it.
        let read = match self.followed(&part.name) {
            Ok(followed) => Ok(self
                .in_window(slot, part, followed, wanted, (window, leg))
                .await),
            Err(e) => Err(e),
        };
        if !matches!(read, Ok(Ok(_))) {
            self.windows.close(&part.name, window);
        }
        read
    }

    async fn in_window(
        &self,
        slot: usize,
        part: &Part,
        followed: Arc<Followed>,
        (limit, exact): Wanted,
        (window, leg): (u64, &mut Option<Leg>),
    ) -> Result<Gathered, CopyError> {
        let read = self.read(slot, part, &followed, limit, leg).await?;
        let Read { rows, last } = read;
        let behind = match exact {
            true => Some(self.mark(slot, leg).await?),
            false => None,
        };
        self.throttle.spent(rows.len() as u64);
        let finished = last;
        let mut next = part.clone();
        next.rows += rows.len() as u64;
        if let Some(last) = rows.last() {
            let last = last.image(&followed.shape);
            let last = last.ok_or_else(|| self.strange(&part.name))?;
            let bound = Bound::of(&last, &followed.key, &followed.shape);
            next.after = Some(bound.map_err(|e| CopyError::Table {
                table: shown(&part.name),
                what: e.to_string(),
            })?);
        }
        let mut progress = b"REPLACE INTO lockstep.copied VALUES ".to_vec();
        progress.extend_from_slice(&self.progress_values(&next, finished));
        let (done, written) = oneshot::channel();
        let chunk = Chunk {
            window,
            name: part.name.clone(),
            table: followed,
            rows,
            behind,
            progress,
            done,
        };
        Ok(Gathered {
            chunk,
            written,
            next,
            finished,
        })
    }
}
