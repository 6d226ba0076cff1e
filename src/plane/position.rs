//! Where a server's log ends now.

use std::time::Duration;

use crate::binlog::Position;
use crate::rows::service::{ServiceConn, ServiceError, text};

/// For one question. An edge holds writes meanwhile.
const LIMIT: Duration = Duration::from_secs(2);

/// One question for both families, so that it is one round trip: each leaves the
/// other's comment out (MariaDB those that name a version of MySQL 5.7 to 9).
const END: &str = "SELECT VERSION(), /*M! @@global.gtid_binlog_pos, 'ON' */\
     /*!50700 @@global.gtid_executed, @@global.gtid_mode */";

/// The log's end as a position to follow from: by GTID where the server has
/// them, else by file. Everything committed later comes after it.
///
/// # Errors
/// The server does not answer, or its log is off.
pub async fn end(conn: &mut ServiceConn) -> Result<Position, ServiceError> {
    let rows = conn.rows(END, LIMIT).await?;
    let value = |n| {
        let value = rows.first().and_then(|row| text(row, n));
        value.filter(|v| !v.is_empty())
    };
    let mariadb = value(0).is_some_and(|v| v.contains("MariaDB"));
    let family = if mariadb { "mariadb" } else { "mysql" };
    let gtid = value(1).filter(|_| value(2).as_deref() == Some("ON"));
    let gtid = gtid.map(|set| format!("{family}:{}", set.replace('\n', "")));
    match gtid.and_then(|p| p.parse().ok()) {
        Some(position) => Ok(position),
        None => by_file(conn).await,
    }
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
