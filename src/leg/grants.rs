//! Reads native double hashes from a backend's grant tables.
//!
//! A client's answer to `mysql_native_password` and the hash the server stores
//! give SHA1(password) (`auth::native`), which opens the other leg. The hashes
//! are read with the service account over one connection a side, opened when
//! first needed, and cached; a login whose answer fits no cached hash makes
//! them be read again, so changed passwords work at once.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::connect::{
    Authenticated, BackendConfig, LegError, LoginParams, UTF8MB4_GENERAL_CI, login, lost, open,
};
use super::put_query;
use super::stream::Stream;
use crate::Side;
use crate::auth::{Account, native};
use crate::wire::capability::Capabilities;
use crate::wire::text_rows::{QueryAnswer, parse_text_result};

/// Time for one reading, connecting included. A login waits for it at most
/// this long, after its OK has been sent.
const READ_TIMEOUT: Duration = Duration::from_secs(3);

/// After a failed reading, time during which no other is tried, so that a
/// wrong service account costs one session the wait and not every one.
const BACK_OFF: Duration = Duration::from_secs(5);

/// Most users whose hashes are cached. Above it the cache is emptied: it only
/// saves readings.
const CACHE_MAX: usize = 4096;

/// Largest result accepted, in bytes. A user's rows (one a host) take about
/// 60 bytes each.
const RESULT_MAX: usize = 256 * 1024;

/// A stored hash: SHA1(SHA1(password)).
pub type Stage2 = [u8; native::HASH_LEN];

/// Reader of one backend's grant tables.
pub struct GrantReader {
    backend: BackendConfig,
    service: Account,
    cache: Mutex<HashMap<Vec<u8>, Vec<Stage2>>>,
    connection: tokio::sync::Mutex<Connection>,
}

#[derive(Default)]
struct Connection {
    leg: Option<Authenticated>,
    failed_at: Option<Instant>,
}

impl GrantReader {
    /// A reader that connects when first asked.
    pub fn new(backend: BackendConfig, service: Account) -> GrantReader {
        GrantReader {
            backend,
            service,
            cache: Mutex::default(),
            connection: tokio::sync::Mutex::default(),
        }
    }

    /// The account the proxy itself uses on this backend.
    pub fn service(&self) -> &Account {
        &self.service
    }

    /// What `fits` makes of one of the user's hashes (one for each host of the
    /// user that has a native password): of the cached ones, else of those
    /// read now. None if it fits none.
    ///
    /// Errors: the connection's and the login's; `Timeout` also while the
    /// reader backs off after a failure.
    pub async fn find<T>(
        &self,
        user: &[u8],
        fits: impl Fn(&Stage2) -> Option<T>,
    ) -> Result<Option<T>, LegError> {
        if let Some(found) = self.cached(user, &fits) {
            return Ok(Some(found));
        }
        match tokio::time::timeout(READ_TIMEOUT, self.read(user, &fits)).await {
            Ok(result) => result,
            Err(_) => Err(LegError::Timeout {
                side: self.backend.side,
                what: "reading the grant tables",
            }),
        }
    }

    fn cached<T>(&self, user: &[u8], fits: &impl Fn(&Stage2) -> Option<T>) -> Option<T> {
        self.cache.lock().get(user)?.iter().find_map(fits)
    }

    async fn read<T>(
        &self,
        user: &[u8],
        fits: &impl Fn(&Stage2) -> Option<T>,
    ) -> Result<Option<T>, LegError> {
        let mut connection = self.connection.lock().await;
        // Of many sessions that log in at once, the first reads for all.
        if let Some(found) = self.cached(user, fits) {
            return Ok(Some(found));
        }
        let sql = format!(
            "SELECT authentication_string FROM mysql.user WHERE user = {}",
            as_text(user)
        );
        let cells = self.ask(&mut connection, &sql).await?;
        let stored = cells.iter().filter_map(Option::as_deref);
        let hashes: Vec<Stage2> = stored.filter_map(native::parse_stored).collect();
        let mut cache = self.cache.lock();
        if cache.len() >= CACHE_MAX {
            cache.clear();
        }
        let found = hashes.iter().find_map(fits);
        cache.insert(user.to_vec(), hashes);
        Ok(found)
    }

    /// Whether `account` (`user@host`, as CURRENT_USER() says) has REQUIRE SSL
    /// or more. Never cached: it is asked only where `backends.*.tls` orders TLS
    /// and a client has none.
    ///
    /// Errors: as [`GrantReader::find`].
    pub async fn needs_tls(&self, account: &[u8]) -> Result<bool, LegError> {
        let sql = format!(
            "SELECT ssl_type FROM mysql.user WHERE CONCAT(user, '@', host) = {}",
            as_text(account)
        );
        let asking = async {
            let mut connection = self.connection.lock().await;
            self.ask(&mut connection, &sql).await
        };
        let cells = match tokio::time::timeout(READ_TIMEOUT, asking).await {
            Ok(cells) => cells?,
            Err(_) => {
                return Err(LegError::Timeout {
                    side: self.backend.side,
                    what: "reading the grant tables",
                });
            }
        };
        Ok(cells.iter().flatten().any(|kind| !kind.is_empty()))
    }

    /// The first column of a query's rows.
    async fn ask(&self, connection: &mut Connection, sql: &str) -> Result<Cells, LegError> {
        let side = self.backend.side;
        if connection
            .failed_at
            .is_some_and(|at| at.elapsed() < BACK_OFF)
        {
            return Err(LegError::Timeout {
                side,
                what: "backing off from the grant tables",
            });
        }
        // Set before and cleared after, so that a timeout, which drops this
        // future anywhere, counts as a failure.
        connection.failed_at = Some(Instant::now());
        let mut leg = connection.leg.take();
        let cells = loop {
            let reused = leg.is_some();
            let mut usable = match leg.take() {
                Some(usable) => usable,
                None => self.connect().await?,
            };
            let caps = usable.capabilities;
            match query_cells(&mut usable.stream, caps, side, sql.as_bytes()).await {
                Ok(cells) => {
                    connection.leg = Some(usable);
                    break cells;
                }
                // An idle connection may have been closed by the server.
                Err(LegError::Io { .. }) if reused => {}
                Err(e) => return Err(e),
            }
        };
        connection.failed_at = None;
        Ok(cells)
    }

    async fn connect(&self) -> Result<Authenticated, LegError> {
        let opened = open(&self.backend, READ_TIMEOUT, None).await?;
        login(opened, &self.service, &service_params()).await
    }
}

/// Parameters of the proxy's own connections.
pub(crate) fn service_params() -> LoginParams {
    LoginParams {
        capabilities: Capabilities::LONG_PASSWORD | Capabilities::DEPRECATE_EOF,
        charset: u16::from(UTF8MB4_GENERAL_CI),
        max_packet: 16 * 1024 * 1024,
        ..LoginParams::default()
    }
}

/// Text for a query, as hex: nothing in it can be read as SQL.
fn as_text(bytes: &[u8]) -> String {
    let hex: String = bytes.iter().map(|b| format!("{b:02x}")).collect();
    format!("CONVERT(x'{hex}' USING utf8mb4)")
}

/// The first column of a small result.
type Cells = Vec<Option<Vec<u8>>>;

/// Runs a query with a small result on a connection that is idle.
///
/// Errors: the connection's, an answer that is not a result, and
/// [`LegError::Credentials`] when the server refuses the query.
pub(crate) async fn query_cells(
    stream: &mut Stream,
    capabilities: Capabilities,
    side: Side,
    sql: &[u8],
) -> Result<Cells, LegError> {
    let mut out = Vec::with_capacity(sql.len() + 8);
    put_query(&mut out, capabilities, sql);
    stream.write_all(&out).await.map_err(lost(side))?;
    stream.flush().await.map_err(lost(side))?;
    let mut raw = Vec::with_capacity(1024);
    while raw.len() < RESULT_MAX {
        if stream.read_buf(&mut raw).await.map_err(lost(side))? == 0 {
            return Err(lost(side)(std::io::ErrorKind::UnexpectedEof.into()));
        }
        // Incomplete responses do not parse. A user has few rows, so trying
        // after every read costs less than following the response.
        match parse_text_result(&raw, capabilities) {
            Ok(QueryAnswer::Rows(result)) => {
                let first = |row: Vec<Option<Vec<u8>>>| row.into_iter().next().flatten();
                return Ok(result.rows.into_iter().map(first).collect());
            }
            Ok(QueryAnswer::Err(..)) => {
                return Err(LegError::Credentials {
                    side,
                    why: "the server refuses to be asked; may the service account read mysql.user?",
                });
            }
            Ok(QueryAnswer::Ok(_)) => break,
            Err(_) => {}
        }
    }
    Err(LegError::Protocol {
        side,
        what: "unexpected answer to a query of the proxy's",
    })
}
