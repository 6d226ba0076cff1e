//! The follower's part about rows of tables with a key.

use std::sync::Arc;
use std::time::Instant;

use crate::binlog::{Change, Images, Rows};
use crate::rows::shape::ChildKey;

use super::batch::TableName;
use super::ordered::Ordered;
use super::snapshots::Due;
use super::tables::Followed;
use super::{FollowError, Follower};

/// What of a change may not wait although the copy is still to bring the row:
/// that it is not any more what it was.
///
/// The target may have the row of an earlier copy, and a copy removes none:
/// 1. A copy is begun anew over a target that has row 7.
/// 2. Row 7 is deleted; its table's turn has not come, so the event is skipped.
/// 3. The copy reads the table, without row 7; the target keeps it for ever.
///
/// Of a row that changed, too, though the copy reads it:
/// 1. The target has child 7 of parent 1. It becomes parent 2's: skipped.
/// 2. Parent 2 is deleted, and child 7 with it, which the log does not show. The
///    target does the same, where 7 is parent 1's still.
/// 3. The copy reads the table, without row 7.
///
/// What is put is left to the copy: a child must not be there without its
/// parent. So are removals that would take rows of a copied child along: such a
/// table may keep rows of an earlier copy until a comparison.
fn removal(images: Images) -> Option<Images> {
    Some(Images {
        before: Some(images.before?),
        after: None,
    })
}

impl Follower {
    /// Whether what goes with a removed row on the target comes with a copy that
    /// is still to begin: of a child that is copied nothing would bring it back.
    fn takes_none_along(&self, followed: &Followed) -> bool {
        let waits = |child: &ChildKey| {
            let name = TableName {
                schema: child.schema.clone(),
                table: child.table.clone(),
            };
            matches!(self.windows.snapshots.due(&name), Due::Skip)
        };
        !followed.cascades || followed.shape.children.iter().all(waits)
    }

    /// Takes the rows of one event into the batch.
    pub(super) fn keyed(
        &mut self,
        name: &TableName,
        followed: &Arc<Followed>,
        rows: &Rows,
    ) -> Result<(), FollowError> {
        let due = match self.windows.snapshots.due(name) {
            Due::Write => true,
            Due::Skip if rows.change != Change::Insert && self.takes_none_along(followed) => false,
            // Of a transaction of XA that was prepared before the copy.
            Due::Skip | Due::Wait(_) => return Ok(()),
        };
        if let Some(why) = followed.misfit(&rows.table) {
            return Err(self.stopped(format!("{name}: {why}")));
        }
        if rows.change != Change::Delete && !rows.is_full() {
            return Err(self.stopped(format!(
                "{name}: an image lacks columns (binlog_row_image must be FULL)"
            )));
        }
        // Only what is written may keep a chunk from being:
        // 1. Row 7 becomes row 8; the table's turn has not come: 7 is removed,
        //    8 is left to the copy.
        // 2. The turn comes right here; a window is opened, and 8 noted in it.
        // 3. The chunk has 8, which is not written, for an event had it: lost.
        // Unnoted is right, since the window's watermark is behind this event.
        let watched = due && self.windows.is_open(name);
        self.inside = true;
        self.since.get_or_insert_with(Instant::now);
        self.batch.bytes += rows.size();
        for images in rows.images(Some(&followed.unsigned)) {
            let mut images = images.map_err(|e| self.unreadable(rows, &e))?;
            let mut change = rows.change;
            if watched {
                self.windows.note(name, &followed.key, &images);
            }
            if !due {
                match removal(images) {
                    Some(removed) => (images, change) = (removed, Change::Delete),
                    None => continue,
                }
            }
            if Ordered::needed(followed, change, &images) {
                match self.cascades(name, followed, rows, images) {
                    Some(back) => images = back,
                    None => continue,
                }
            }
            let added = self
                .batch
                .add(name, &followed.shape, &followed.key, change, images);
            added.map_err(|e| self.stopped(e.to_string()))?;
        }
        Ok(())
    }
}
