//! What the service accounts are asked about sessions' variables: the names of
//! a MySQL session's user variables, which the server shows to accounts with
//! rights on `performance_schema` only, and the settings that the two servers
//! give their sessions differently.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use mysql_async::Row;
use parking_lot::Mutex;

use super::service::{ServiceAccount, ServiceConn, ServiceError, bytes, text};
use crate::Side;
use crate::telemetry;

/// How long a server may take to answer, waiting for other sessions' questions
/// included: a change of the active side makes every session ask.
const LIMIT: Duration = Duration::from_secs(3);

/// How old the list of differing settings may be: SET GLOBAL is rare.
const FRESH: Duration = Duration::from_secs(60);

/// Settings that change what a statement does or answers, or when a session
/// is ended. Others are the server's own business: buffers, optimizers, logs.
const TELLING: &[&str] = &[
    "block_encryption_mode",
    "completion_type",
    "cte_max_recursion_depth",
    "default_regex_flags",
    "default_storage_engine",
    "default_tmp_storage_engine",
    "default_week_format",
    "div_precision_increment",
    "explicit_defaults_for_timestamp",
    "group_concat_max_len",
    "innodb_lock_wait_timeout",
    "innodb_strict_mode",
    "lc_messages",
    "lc_time_names",
    "lock_wait_timeout",
    "low_priority_updates",
    "max_error_count",
    "max_execution_time",
    "max_join_size",
    "max_recursive_iterations",
    "max_sort_length",
    "max_sp_recursion_depth",
    "max_statement_time",
    "net_read_timeout",
    "net_write_timeout",
    "sql_auto_is_null",
    "sql_big_selects",
    "sql_notes",
    "sql_quote_show_create",
    "sql_require_primary_key",
    "sql_safe_updates",
    "sql_select_limit",
    "sql_warnings",
    "updatable_views_with_limit",
    "wait_timeout",
];

/// Defaults of new sessions, by name.
const MARIADB_DEFAULTS: &str = "SELECT LOWER(VARIABLE_NAME), GLOBAL_VALUE \
    FROM information_schema.SYSTEM_VARIABLES \
    WHERE VARIABLE_SCOPE = 'SESSION' AND READ_ONLY = 'NO'";
const MYSQL_DEFAULTS: &str = "SELECT v.VARIABLE_NAME, g.VARIABLE_VALUE \
    FROM performance_schema.variables_by_thread v \
    JOIN performance_schema.global_variables g USING (VARIABLE_NAME) \
    WHERE v.THREAD_ID = PS_CURRENT_THREAD_ID()";

/// The list of differing settings, and when it was made.
type Differing = Option<(Instant, Arc<Vec<Vec<u8>>>)>;

/// One connection per side, asked in turn.
pub struct Variables {
    sides: [tokio::sync::Mutex<ServiceConn>; 2],
    differing: Mutex<Differing>,
}

impl Variables {
    /// Connects when first asked.
    pub fn new(accounts: [ServiceAccount; 2]) -> Variables {
        Variables {
            sides: accounts.map(|a| tokio::sync::Mutex::new(ServiceConn::new(a))),
            differing: Mutex::new(None),
        }
    }

    async fn ask(&self, side: Side, sql: &str) -> Result<Vec<Row>, ServiceError> {
        let asked = async {
            let mut conn = self.sides[side.index()].lock().await;
            conn.rows(sql, LIMIT).await
        };
        match tokio::time::timeout(LIMIT, asked).await {
            Ok(answer) => answer,
            Err(_) => Err(ServiceError {
                side,
                kind: "timeout",
                message: "other questions took too long".to_owned(),
            }),
        }
    }

    /// The names of user variables that the connection `thread_id` of MySQL
    /// has; none, counted, where the service account may not ask.
    pub async fn names(&self, side: Side, thread_id: u32) -> Vec<Vec<u8>> {
        let sql = format!(
            "SELECT v.VARIABLE_NAME FROM performance_schema.user_variables_by_thread v \
             JOIN performance_schema.threads t USING (THREAD_ID) WHERE t.PROCESSLIST_ID = {thread_id}"
        );
        match self.ask(side, &sql).await {
            Ok(rows) => rows.iter().map(|row| bytes(row, 0)).collect(),
            Err(e) => {
                tracing::debug!(%side, error = %e, "user variables not listed");
                telemetry::error(side.as_str(), "variables_not_listed");
                Vec::new()
            }
        }
    }

    /// Settings, known to both servers, that a new session has another value
    /// of on the other side. None where a server may not be asked.
    pub async fn differing(&self) -> Arc<Vec<Vec<u8>>> {
        if let Some((made, list)) = &*self.differing.lock()
            && made.elapsed() < FRESH
        {
            return list.clone();
        }
        self.refresh().await
    }

    /// The same as far as it is known, without asking.
    pub fn known(&self) -> Option<Arc<Vec<Vec<u8>>>> {
        self.differing.lock().as_ref().map(|(_, list)| list.clone())
    }

    /// Keeps the list fresh for ever, so that no login waits for it.
    pub async fn keep_fresh(&self) {
        loop {
            let list = self.refresh().await;
            // A server that was not up yet is asked again soon.
            let pause = if list.is_empty() { LIMIT } else { FRESH / 2 };
            tokio::time::sleep(pause).await;
        }
    }

    async fn refresh(&self) -> Arc<Vec<Vec<u8>>> {
        let list = Arc::new(self.compare().await);
        // What could not be asked is not asked again for each session either.
        *self.differing.lock() = Some((Instant::now(), list.clone()));
        list
    }

    /// The defaults of one side's sessions.
    async fn defaults(&self, side: Side) -> Result<BTreeMap<Vec<u8>, Vec<u8>>, ServiceError> {
        let version = self.ask(side, "SELECT VERSION()").await?;
        let version = version.first().and_then(|row| text(row, 0));
        let sql = if version.is_some_and(|v| v.contains("MariaDB")) {
            MARIADB_DEFAULTS
        } else {
            MYSQL_DEFAULTS
        };
        let rows = self.ask(side, sql).await?;
        Ok(rows
            .iter()
            .map(|row| (bytes(row, 0), bytes(row, 1)))
            .collect())
    }

    async fn compare(&self) -> Vec<Vec<u8>> {
        let mut values: [BTreeMap<Vec<u8>, Vec<u8>>; 2] = Default::default();
        for side in [Side::Source, Side::Target] {
            match self.defaults(side).await {
                Ok(found) => values[side.index()] = found,
                Err(e) => {
                    tracing::debug!(%side, error = %e, "settings not compared");
                    telemetry::error(side.as_str(), "settings_not_compared");
                    return Vec::new();
                }
            }
        }
        let [source, target] = values;
        let differs = |(name, value): &(Vec<u8>, Vec<u8>)| {
            TELLING.iter().any(|t| t.as_bytes() == name)
                && target.get(name).is_some_and(|other| other != value)
        };
        let names = source.into_iter().filter(differs);
        names.map(|(name, _)| name).collect()
    }
}
