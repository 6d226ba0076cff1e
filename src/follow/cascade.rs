//! Rows that foreign keys change without a row event.
//!
//! MariaDB, and MySQL before 9.6, delete and change the children of a row
//! inside of InnoDB: the log has the parent's event only. The follower has the
//! side that is written do the same ([`super::ordered`]); whoever wants to look
//! at the children again is told of each such parent.

use mysql_async::prelude::Queryable;

use crate::binlog::Value;
use crate::rows::service::{ServiceAccount, ServiceError};
use crate::rows::shape::TableShape;

use super::batch::TableName;

/// A parent whose children were changed unseen.
pub struct Parent<'a> {
    /// Its table.
    pub name: &'a TableName,
    /// As the side that is read has it; [`TableShape::children`] says who
    /// refers to which columns.
    pub shape: &'a TableShape,
    /// The row before; children that still have its key are suspect.
    pub before: &'a [Value],
    /// The row after, unless it is gone.
    pub after: Option<&'a [Value]>,
}

/// Is told of parents, to look at their children again. Must not wait: the
/// follower does. The event is not written yet when it is called.
pub trait Children: Send + Sync {
    /// The children of this row may have changed.
    fn changed(&self, parent: Parent<'_>);
}

/// Whether a server logs the rows that foreign keys change: MySQL from 9.6 on,
/// unless `innodb_native_foreign_keys` is ON.
///
/// # Errors
/// The server does not answer.
pub async fn are_logged(account: &ServiceAccount) -> Result<bool, ServiceError> {
    let mut conn = account.connect().await?;
    let sql = "SHOW GLOBAL VARIABLES LIKE 'innodb_native_foreign_keys'";
    let row: Option<(String, String)> = conn.query_first(sql).await.map_err(|e| ServiceError {
        side: account.side,
        kind: "server",
        message: e.to_string(),
    })?;
    let _ = conn.disconnect().await;
    Ok(row.is_some_and(|(_, value)| value.eq_ignore_ascii_case("OFF")))
}
