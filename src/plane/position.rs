//! Where a server's log ends now.

use std::time::Duration;

use crate::binlog::Position;
use crate::rows::service::{ServiceConn, ServiceError, text};

/// For one question. An edge holds writes meanwhile.
const LIMIT: Duration = Duration::from_secs(2);

/// The log's end as a position to follow from: by GTID where the server has
/// them, else by file. Everything committed later comes after it.
///
/// # Errors
/// The server does not answer, or its log is off.
pub async fn end(conn: &mut ServiceConn) -> Result<Position, ServiceError> {
    let rows = conn.rows("SELECT VERSION()", LIMIT).await?;
    let version = rows.first().and_then(|r| text(r, 0)).unwrap_or_default();
    let gtid = if version.contains("MariaDB") {
        one(conn, "SELECT @@global.gtid_binlog_pos")
            .await?
            .map(|p| format!("mariadb:{p}"))
    } else {
        let mode = one(conn, "SELECT @@global.gtid_mode").await?;
        let executed = one(conn, "SELECT @@global.gtid_executed").await?;
        executed
            .filter(|_| mode.as_deref() == Some("ON"))
            .map(|set| format!("mysql:{}", set.replace('\n', "")))
    };
    if let Some(position) = gtid.and_then(|p| p.parse().ok()) {
        return Ok(position);
    }
    by_file(conn).await
}

/// A single value; None where it is empty.
async fn one(conn: &mut ServiceConn, sql: &str) -> Result<Option<String>, ServiceError> {
    let rows = conn.rows(sql, LIMIT).await?;
    let value = rows.first().and_then(|r| text(r, 0));
    Ok(value.filter(|v| !v.is_empty()))
}

async fn by_file(conn: &mut ServiceConn) -> Result<Position, ServiceError> {
    // MySQL 8.4 dropped the old words, everything else lacks the new ones.
    let rows = match conn.rows("SHOW MASTER STATUS", LIMIT).await {
        Ok(rows) => rows,
        Err(e) if e.kind != "server" => return Err(e),
        Err(_) => conn.rows("SHOW BINARY LOG STATUS", LIMIT).await?,
    };
    let place = rows.first().and_then(|row| {
        let (file, offset) = (text(row, 0)?, text(row, 1)?);
        format!("file:{file}:{offset}").parse().ok()
    });
    place.ok_or_else(|| ServiceError {
        side: conn.side(),
        kind: "binlog",
        message: "its binary log is off".to_owned(),
    })
}
