//! Tables without a key: their rows cannot be told apart, so that the verdict
//! is about the table as a whole.
//!
//! The rows' strong digests are added up, so that a row which is there twice
//! counts twice.

use std::sync::atomic::Ordering;

use sha2::{Digest, Sha256};

use crate::copy::select::Bound;
use crate::rows::digest::Strength;

use super::divergences::{Added, Difference, Proof};
use super::reader::{Id, ReadError, Seen, Sum};
use super::table::Extent;
use super::walk::Walk;
use super::{CompareError, Comparer, Pair, Verdict};

/// Rounds until a table that changes all the time is given up, and rounds that
/// must show one and the same difference.
const ROUNDS_MAX: u32 = 10;
const ROUNDS_EQUAL: u32 = 2;

fn seen(sum: &Sum) -> Option<Seen> {
    let hash = Sha256::digest([sum.rows.to_string().as_bytes(), b"#", &sum.sum].concat());
    let mut digest = Id::default();
    digest
        .iter_mut()
        .zip(hash)
        .for_each(|(to, from)| *to = from);
    Some(Seen {
        id: Id::default(),
        digest,
    })
}

impl Comparer {
    /// Compares the table once; the first slot that comes does it.
    pub(super) async fn unkeyed(&self, walk: &Walk) -> Result<(), CompareError> {
        let mut pair = Pair::new(&self.parts.accounts);
        let mut attempt = 0;
        let mut stable: Option<([Sum; 2], u32)> = None;
        let mut rounds = 0;
        if !walk.claim().await {
            return Ok(());
        }
        while rounds < ROUNDS_MAX {
            self.parts.status.resumed().await;
            let round = match self.unkeyed_round(walk, &mut pair).await? {
                Ok(round) => round,
                Err(e) => {
                    let refused = matches!(e, ReadError::Refused(_));
                    self.failed(walk, e, attempt).await?;
                    attempt += 1;
                    if refused {
                        return Ok(());
                    }
                    continue;
                }
            };
            rounds += 1;
            let [before, mirror, after] = round;
            if rounds == 1 {
                walk.add(after.rows);
                self.counted(after.rows);
            }
            if mirror == before || mirror == after {
                let list = &self.parts.divergences;
                // Counted off only if it was listed: another table's row may
                // be among those that did not fit.
                if list.is_open(&walk.table.name, Id::default()) {
                    list.repaired(&walk.table.name, Id::default());
                }
                return Ok(());
            }
            if before != after {
                stable = None;
                continue;
            }
            let sums = [after, mirror];
            let times = match &stable {
                Some((known, times)) if *known == sums => times + 1,
                _ => 1,
            };
            if times >= ROUNDS_EQUAL {
                self.differs(walk, &sums);
                walk.end(Verdict::Different).await;
                return Ok(());
            }
            stable = Some((sums, times));
        }
        walk.end(Verdict::Unsettled).await;
        Ok(())
    }

    /// The active side, the mirror, the active side again.
    async fn unkeyed_round(
        &self,
        walk: &Walk,
        pair: &mut Pair,
    ) -> Result<Result<[Sum; 3], ReadError>, CompareError> {
        let strong = Strength::Strong;
        let sql = |side| walk.table.digest(side, &Extent::ALL, strong);
        let before = match pair.active.sum(sql(0), strong).await {
            Ok(sum) => sum,
            Err(e) => return Ok(Err(e)),
        };
        self.barrier().await?;
        let read = async {
            let mirror = pair.mirror.sum(sql(1), strong).await?;
            Ok([before, mirror, pair.active.sum(sql(0), strong).await?])
        };
        Ok(read.await)
    }

    fn differs(&self, walk: &Walk, [active, mirror]: &[Sum; 2]) {
        let proof = Proof {
            name: &walk.table.name,
            key: &Bound(Vec::new()),
            active: seen(active),
            mirror: seen(mirror),
            kind: Difference::Table,
        };
        if self.parts.divergences.add(&proof) != Added::Known {
            self.parts.status.divergent.fetch_add(1, Ordering::Relaxed);
        }
    }
}
