//! `lockstep.mark`: the first write of every transaction of ours, so that a
//! follower of the side that is written knows it as ours and skips it.

use crate::binlog::{DecodeError, Images, Rows, Value};
use std::time::{SystemTime, UNIX_EPOCH};

/// One row a stream and writer: a shared one would make writers wait for each
/// other.
pub(super) const TABLE: &str = "CREATE TABLE IF NOT EXISTS lockstep.mark (\
     stream VARCHAR(64) CHARACTER SET ascii NOT NULL, \
     worker INT UNSIGNED NOT NULL, token BIGINT UNSIGNED NOT NULL, \
     PRIMARY KEY (stream, worker)) ENGINE=InnoDB";

/// Writes the mark. `token` must differ from the row's last one.
pub(super) fn sql(stream: &str, number: usize, token: u64) -> Vec<u8> {
    format!("REPLACE INTO lockstep.mark VALUES ('{stream}', {number}, {token})").into_bytes()
}

/// Which columns of `lockstep.mark` are unsigned.
const UNSIGNED: [bool; 3] = [false, true, true];

/// Whether a mark is another installation's. What that writes is to this one
/// what any client's is:
/// 1. An installation moves a schema from A to B; another, beside it, from B to
///    C.
/// 2. The second follows B, where the first one's rows stand behind its marks.
/// 3. Taken for its own they never reach C.
pub(super) fn is_foreign(rows: &Rows, own: &str) -> bool {
    let theirs = |images: Result<Images, DecodeError>| match images.ok()?.after?.first()? {
        Value::Bytes(stream) => Some(are_foreign(stream, own.as_bytes())),
        _ => None,
    };
    let mut all = rows.images(Some(&UNSIGNED)).filter_map(theirs);
    all.next().unwrap_or(false)
}

/// Streams are called `route.sum.installation.epoch`.
fn are_foreign(stream: &[u8], own: &[u8]) -> bool {
    let installation = |stream: &[u8]| -> Option<Vec<u8>> {
        let mut parts = stream.rsplit(|b| *b == b'.').skip(1);
        let installation = parts.next()?.to_vec();
        parts.next().and(Some(installation))
    };
    match (installation(stream), installation(own)) {
        (Some(theirs), Some(own)) => theirs != own,
        _ => false,
    }
}

/// Where a writer's tokens begin: by the clock, so that one that starts again
/// never writes what is there already.
/// 1. A writer that counts from 0 writes token 1 and ends.
/// 2. Its successor replaces the row with the same: the server changes and
///    logs nothing.
/// 3. The opposite follower sees no mark, and takes the transaction back.
pub(super) fn first_token() -> u64 {
    now_us()
}

/// Microseconds since 1970.
pub(super) fn now_us() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.map_or(0, |d| u64::try_from(d.as_micros()).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::are_foreign;

    #[test]
    fn a_mark_names_its_installation() {
        let own = b"shop.1f2e.0a1b2c3d.7";
        assert!(!are_foreign(b"shop.1f2e.0a1b2c3d.8", own));
        assert!(!are_foreign(b"other.0000.0a1b2c3d.1/watch", own));
        assert!(are_foreign(b"shop.1f2e.ffffffff.7", own));
        // Not called so: nobody's but ours.
        assert!(!are_foreign(b"pipe-1-2", own));
        assert!(!are_foreign(own, b"pipe-1-2"));
        assert!(!are_foreign(b"a.b", own));
    }
}
