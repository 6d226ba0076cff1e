//! READ locks on a route's tables on the side that stops being active.
//!
//! The gate holds back what comes through the proxy. A client that writes past
//! it could still change a row between the barrier and the swap:
//! 1. The barrier is passed: both sides are equal.
//! 2. A foreign client commits a write on the old active side.
//! 3. The phase changes; the new follower reads the other side's log.
//! 4. Nothing brings the foreign write over.
//!
//! The locks wait for every writer and keep new ones out until the swap; a
//! foreign write that waited behind them comes after it, and is the watcher's.

use std::time::Duration;

use mysql_async::Conn;
use mysql_async::prelude::Queryable;

use crate::follow::batch::TableName;
use crate::rows::literal::put_table;
use crate::rows::service::{ServiceAccount, ServiceError};

/// The locks. They end with the connection.
pub struct Fence {
    _conn: Conn,
}

/// Locks the tables, waiting at most `limit` for their writers, over a
/// connection that is open already where there is one.
///
/// # Errors
/// A writer does not end, a privilege is missing (LOCK TABLES), the side does
/// not answer.
pub async fn put_up(
    account: &ServiceAccount,
    opened: Option<Conn>,
    tables: &[TableName],
    limit: Duration,
) -> Result<Option<Fence>, ServiceError> {
    if tables.is_empty() {
        return Ok(None);
    }
    let failed = |kind, message: String| ServiceError {
        side: account.side,
        kind,
        message,
    };
    let mut sql = format!("SET SESSION lock_wait_timeout={};", limit.as_secs().max(1)).into_bytes();
    sql.extend_from_slice(b"LOCK TABLES ");
    for (i, name) in tables.iter().enumerate() {
        if i > 0 {
            sql.push(b',');
        }
        put_table(&mut sql, &name.schema, &name.table);
        sql.extend_from_slice(b" READ");
    }
    let locking = async {
        let mut conn = match opened {
            Some(conn) => conn,
            None => account.connect().await?,
        };
        let locked = conn.query_drop(sql).await;
        locked.map_err(|e| failed("fence", format!("its tables cannot be locked: {e}")))?;
        Ok(Fence { _conn: conn })
    };
    match tokio::time::timeout(limit, locking).await {
        Ok(locked) => locked.map(Some),
        Err(_) => Err(failed(
            "fence",
            "its tables are not locked in time: a client that is not ours writes to them and does \
             not end, or the side is slow"
                .to_owned(),
        )),
    }
}
