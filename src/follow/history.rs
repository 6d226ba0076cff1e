//! Is the log still the one that was followed?
//!
//! A server that loses its log's tail (power, without `sync_binlog=1`), or is
//! replaced by a replica that lagged, takes a follower's position without a
//! word and goes on from there with other transactions under the same numbers.
//! What was written from the lost ones is then on one side only. So the
//! checkpoint remembers the last event behind it, and a follower that goes on
//! reads that event again first: same server, same place, same sum, same time.

use std::fmt;
use std::str::FromStr;

use mysql_async::prelude::Queryable;

use crate::binlog::event::{Body, Event};
use crate::binlog::stream::{BinlogStream, Request, StreamError};
use crate::binlog::{Header, Position};
use crate::leg::Leg;
use crate::rows::service::{ServiceAccount, ServiceError};

/// The last event of the last transaction that was written.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Witness {
    /// Who wrote it: [`identity`].
    pub server: String,
    /// The log's file.
    pub file: String,
    /// Offset of its first byte.
    pub start: u32,
    /// Offset behind its last.
    pub end: u32,
    /// Its sum.
    pub sum: u32,
    /// Its time, in seconds since 1970.
    pub at_s: u32,
}

impl fmt::Display for Witness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Witness {
            server,
            file,
            start,
            end,
            sum,
            at_s,
        } = self;
        write!(f, "{server}|{file}|{start}|{end}|{sum}|{at_s}")
    }
}

/// A text that is not a witness.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("not an event's place and sum")]
pub struct BadWitness;

impl FromStr for Witness {
    type Err = BadWitness;

    fn from_str(text: &str) -> Result<Witness, BadWitness> {
        let mut parts = text.split('|');
        let mut next = || parts.next().ok_or(BadWitness);
        let (server, file) = (next()?.to_owned(), next()?.to_owned());
        let mut number = || next()?.parse().map_err(|_| BadWitness);
        Ok(Witness {
            server,
            file,
            start: number()?,
            end: number()?,
            sum: number()?,
            at_s: number()?,
        })
    }
}

impl Witness {
    /// None for an event that stands in no file.
    pub(super) fn of(server: &str, file: &str, event: &Event) -> Option<Witness> {
        let origin = event.origin;
        (origin.start > 0 && !file.is_empty()).then(|| Witness {
            server: server.to_owned(),
            file: file.to_owned(),
            start: origin.start,
            end: origin.end,
            sum: origin.sum,
            at_s: event.header.timestamp,
        })
    }
}

/// Who a server is: MySQL's `server_uuid`, MariaDB's `server_id`.
///
/// # Errors
/// The server does not answer.
pub async fn identity(account: &ServiceAccount) -> Result<String, ServiceError> {
    let failed = |e: mysql_async::Error| ServiceError {
        side: account.side,
        kind: "server",
        message: e.to_string(),
    };
    let mut conn = account.connect().await?;
    let sql = "SHOW GLOBAL VARIABLES WHERE Variable_name IN ('server_uuid', 'server_id')";
    let mut rows: Vec<(String, String)> = conn.query(sql).await.map_err(failed)?;
    let _ = conn.disconnect().await;
    // The uuid, where there is one, is behind the id.
    rows.sort();
    let last = rows.pop().map(|(_, value)| value);
    Ok(last.unwrap_or_default().replace('|', "_"))
}

/// Reads the witness again, on a connection of its own.
///
/// # Errors
/// [`StreamError::HistoryLost`], or no answer.
pub async fn verify(
    leg: Leg,
    server: &str,
    request: &Request,
    witness: &Witness,
) -> Result<(), StreamError> {
    let side = leg.side;
    let lost = |message: String| StreamError::HistoryLost { side, message };
    if server != witness.server {
        return Err(lost(format!(
            "another server answers: {server} instead of {}",
            witness.server
        )));
    }
    let mut request = request.clone();
    request.until_end = true;
    request.from = Position::File {
        file: witness.file.clone(),
        offset: u64::from(witness.start),
    };
    let mut stream = BinlogStream::start(leg, &request).await?;
    let place = format!("{} at {}", witness.file, witness.start);
    loop {
        let event = match stream.next().await {
            Ok(event) => event,
            // Other bytes than an event's start stand there.
            Err(StreamError::Event { error, .. }) => return Err(lost(format!("{place}: {error}"))),
            Err(e) => return Err(e),
        };
        let Some(event) = event else {
            return Err(lost(format!("the log ends before {place}")));
        };
        let artificial = event.header.flags & Header::ARTIFICIAL != 0 || event.origin.end == 0;
        if artificial || matches!(event.body, Body::Format(_) | Body::Positions(_)) {
            continue;
        }
        let found = Witness::of(server, &witness.file, &event);
        // Out of a payload comes the time of each event in it.
        let same = found
            .is_some_and(|f| (f.start, f.end, f.sum) == (witness.start, witness.end, witness.sum));
        return if same {
            Ok(())
        } else {
            Err(lost(format!("another event stands in {place}")))
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn witnesses_survive_text() {
        let witness = Witness {
            server: "3e11fa47".into(),
            file: "binlog.000003".into(),
            start: 4,
            end: 200,
            sum: 7,
            at_s: 9,
        };
        assert_eq!(witness.to_string().parse(), Ok(witness));
        assert_eq!("a|b|1|2|3".parse::<Witness>(), Err(BadWitness));
    }
}
