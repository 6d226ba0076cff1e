//! `lockstep.mark`: the first write of every transaction of ours, so that a
//! follower of the side that is written knows it as ours and skips it.

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
