//! XA transactions that are prepared: they outlive their sessions, and this
//! process.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use mysql_async::Row;
use parking_lot::Mutex;

use crate::route::gate::{Routes, Slot};
use crate::route::pins::Pins;
use crate::rows::service::{ServiceAccount, ServiceConn, bytes, text};
use crate::sql::unquote;

/// Prepared XA transactions kept track of per process: beyond any server's
/// connection limit.
const PREPARED_XA_MAX: usize = 100_000;

/// For one XA RECOVER.
const RECOVER_LIMIT: Duration = Duration::from_secs(5);

/// Between two of them.
const RECOVER_INTERVAL: Duration = Duration::from_secs(3);

/// XA transactions that are prepared on the active side: they belong to no
/// session, and only the server that prepared them can commit them.
pub struct PreparedXa {
    slot: Arc<Slot>,
    ids: Mutex<Ids>,
}

#[derive(Default)]
struct Ids {
    /// Prepared through this process.
    seen: BTreeSet<Vec<u8>>,
    /// Prepared before it began, and not ended since.
    found: BTreeSet<Vec<u8>>,
    /// Home has not been asked for those yet.
    unknown: bool,
}

impl PreparedXa {
    /// None yet. A slot of its own stands for them at the gate.
    pub fn new(routes: &Routes) -> PreparedXa {
        let slot = routes.register();
        slot.set_label("prepared XA transactions".to_owned());
        PreparedXa {
            slot,
            ids: Mutex::default(),
        }
    }

    pub(super) fn change(&self, id: Vec<u8>, prepared: bool) {
        let mut ids = self.ids.lock();
        if !prepared {
            ids.seen.remove(&id);
            ids.found.remove(&id);
        } else if ids.seen.len() < PREPARED_XA_MAX {
            ids.seen.insert(id);
        }
        self.show(&ids);
    }

    fn unknown(&self, unknown: bool) {
        let mut ids = self.ids.lock();
        ids.unknown = unknown;
        self.show(&ids);
    }

    fn show(&self, ids: &Ids) {
        let any = ids.unknown || !ids.seen.is_empty() || !ids.found.is_empty();
        self.slot.pin(Pins::default().with(Pins::XA, any));
    }

    /// Asks `home` for those prepared before this process began, until it has
    /// answered; then, while some of them are left, whether they still are:
    /// they may be ended beside the proxy.
    pub async fn recover(&self, home: ServiceAccount) {
        let side = home.side;
        self.unknown(true);
        let mut conn = ServiceConn::new(home);
        let mut first = true;
        loop {
            match conn.rows("XA RECOVER", RECOVER_LIMIT).await {
                Ok(rows) => {
                    let listed: BTreeSet<_> = rows.iter().filter_map(listed).collect();
                    let mut ids = self.ids.lock();
                    ids.unknown = false;
                    if std::mem::take(&mut first) {
                        let room = listed.into_iter().take(PREPARED_XA_MAX);
                        ids.found = room.collect();
                        if !ids.found.is_empty() {
                            tracing::info!(%side, count = ids.found.len(), "XA transactions are prepared");
                        }
                    } else {
                        ids.found.retain(|id| listed.contains(id));
                    }
                    self.show(&ids);
                    if ids.found.is_empty() {
                        return;
                    }
                }
                Err(e) if e.kind == "server" || e.kind == "refused" => {
                    tracing::warn!(%side, error = %e, "prepared XA transactions cannot be listed");
                    self.unknown(false);
                    return;
                }
                // A home that is gone must not keep a forced flip from it.
                Err(_) => self.unknown(false),
            }
            tokio::time::sleep(RECOVER_INTERVAL).await;
        }
    }
}

/// The identity of a row of XA RECOVER, as [`xid`] writes it.
fn listed(row: &Row) -> Option<Vec<u8>> {
    let number = |i| text(row, i)?.parse::<usize>().ok();
    let (format, global, data) = (number(0)?, number(1)?, bytes(row, 3));
    let (global, branch) = data.split_at_checked(global)?;
    Some(identity(&[global, branch], format.to_string().as_bytes()))
}

fn identity(parts: &[&[u8]; 2], format: &[u8]) -> Vec<u8> {
    let [global, branch] = parts;
    [global, &b"0"[..], branch, b"1", format].concat()
}

/// The transaction's identity, whichever way it is written: `'a'`, `X'61'`,
/// `0x61`, with or without the parts that have defaults.
pub(super) fn xid(sql: &[u8]) -> Option<Vec<u8>> {
    let at = sql.iter().position(|b| matches!(b, b'\'' | b'"'));
    let hexadecimal = memchr::memmem::find(sql, b"0x");
    let mut from = match (at, hexadecimal) {
        (Some(a), Some(h)) => a.min(h),
        (a, h) => a.or(h)?,
    };
    if from > 0 && matches!(sql[from - 1], b'x' | b'X') {
        from -= 1;
    }
    let text = sql.get(from..)?;
    let mut found: [Vec<u8>; 2] = Default::default();
    let mut parts = text.split(|b| *b == b',').map(<[u8]>::trim_ascii);
    for found in &mut found {
        let part = parts.next().unwrap_or(b"''");
        // What stands behind the last part: ONE PHASE, a semicolon.
        let end = part.iter().rposition(|b| matches!(b, b'\'' | b'"'));
        let part = match end {
            Some(end) => part.get(..=end)?,
            None => part.split(u8::is_ascii_whitespace).next()?,
        };
        *found = match part {
            [b'x' | b'X', hex @ ..] => unhex(&unquote(hex))?,
            [b'0', b'x', hex @ ..] => unhex(hex)?,
            _ => unquote(part).into_owned(),
        };
    }
    let format = parts.next().unwrap_or(b"1");
    let digits = format.iter().take_while(|b| b.is_ascii_digit()).count();
    let [global, branch] = &found;
    Some(identity(&[global, branch], format.get(..digits)?))
}

fn unhex(digits: &[u8]) -> Option<Vec<u8>> {
    let text = std::str::from_utf8(digits).ok()?;
    (0..text.len())
        .step_by(2)
        .map(|i| u8::from_str_radix(text.get(i..i + 2)?, 16).ok())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_xid_is_the_same_however_it_is_written() {
        let one = xid(b"XA PREPARE 'ab'").unwrap();
        assert_eq!(xid(b"xa commit X'6162' ONE PHASE"), Some(one.clone()));
        assert_eq!(xid(b"XA COMMIT 0x6162,X'',1;"), Some(one.clone()));
        assert_ne!(xid(b"XA COMMIT 'ab','c'"), Some(one.clone()));
        assert_ne!(xid(b"XA COMMIT 'ab','',2"), Some(one));
        assert_eq!(xid(b"XA RECOVER"), None);
        assert_eq!(xid(b"XA COMMIT X'6"), None);
    }
}
