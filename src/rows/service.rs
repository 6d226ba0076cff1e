//! Connections of the service account: for reading shapes, positions and
//! health, off the data path.
//!
//! One connection, opened when first needed and given up after any error: a
//! query that ran into its deadline leaves bytes behind that no later query
//! may read.

use std::path::PathBuf;
use std::time::Duration;

use mysql_async::prelude::Queryable;
use mysql_async::{ClientIdentity, Conn, DriverError, Error, Opts, OptsBuilder, Row, SslOpts};

use crate::Side;
use crate::config::{Password, TlsMode, validate::split_address};

/// Largest packet the service account sends or takes, in bytes: a row is copied,
/// healed and compared in one, and this is as large as servers let any be. A
/// bound, not a size: buffers grow with what comes.
const PACKET_MAX: usize = 1 << 30;

/// Seconds the server keeps an idle service connection; asked for so that the
/// driver need not read the setting.
const IDLE_SECONDS: usize = 28_800;

/// Longest message of a server kept for `status`, in characters.
const MESSAGE_MAX: usize = 300;

/// Why a service query gave no answer.
#[derive(thiserror::Error, Debug, Clone, PartialEq, Eq)]
#[error("{side}: {message}")]
pub struct ServiceError {
    /// Whose side it is on.
    pub side: Side,
    /// `connect`, `timeout`, `refused`, `server`, `protocol`: a metric label.
    pub kind: &'static str,
    /// For people.
    pub message: String,
}

/// Where and as whom.
#[derive(Clone)]
pub struct ServiceAccount {
    /// Which backend.
    pub side: Side,
    /// `host:port`.
    pub address: String,
    /// User name.
    pub user: String,
    /// Its password.
    pub password: Password,
    /// Encryption.
    pub tls: TlsMode,
    /// PEM file for [`TlsMode::Verify`], or empty.
    pub ca: String,
    /// PEM files of the certificate to show and its key.
    pub certificate: Option<(PathBuf, PathBuf)>,
    /// To connect and log in.
    pub connect_timeout: Duration,
}

impl ServiceAccount {
    /// One side's service account from the settings.
    pub fn of(config: &crate::config::Config, side: Side) -> ServiceAccount {
        let backend = config.backend(side);
        ServiceAccount {
            side,
            address: backend.address.clone(),
            user: backend.user.clone(),
            password: backend.password.clone(),
            tls: backend.tls,
            ca: backend.ca.clone(),
            certificate: (!backend.cert.is_empty())
                .then(|| (backend.cert.clone().into(), backend.key.clone().into())),
            connect_timeout: config.limits.connect_timeout(),
        }
    }

    fn error(&self, kind: &'static str, message: impl std::fmt::Display) -> ServiceError {
        let message: String = message.to_string().chars().take(MESSAGE_MAX).collect();
        ServiceError {
            side: self.side,
            kind,
            message,
        }
    }

    fn opts(&self, tls: bool) -> Option<Opts> {
        let (host, port) = split_address(&self.address)?;
        let ssl = tls.then(|| {
            let verify = self.tls == TlsMode::Verify;
            let opts = SslOpts::default()
                .with_danger_accept_invalid_certs(!verify)
                .with_danger_skip_domain_validation(!verify);
            let opts = match &self.certificate {
                Some((cert, key)) => {
                    let identity = ClientIdentity::new(cert.clone().into(), key.clone().into());
                    opts.with_client_identity(Some(identity))
                }
                None => opts,
            };
            if verify && !self.ca.is_empty() {
                opts.with_root_certs(vec![PathBuf::from(&self.ca).into()])
                    .with_disable_built_in_roots(true)
            } else {
                opts
            }
        });
        let opts = OptsBuilder::default()
            .ip_or_hostname(host)
            .tcp_port(port)
            .user(Some(&self.user))
            .pass((!self.password.is_empty()).then(|| self.password.reveal()))
            .prefer_socket(false)
            .tcp_nodelay(true)
            .max_allowed_packet(Some(PACKET_MAX))
            .wait_timeout(Some(IDLE_SECONDS))
            .ssl_opts(ssl);
        Some(opts.into())
    }

    async fn connect_once(&self, tls: bool) -> Result<Conn, Error> {
        match self.opts(tls) {
            Some(opts) => Conn::new(opts).await,
            None => Err(Error::Io(mysql_async::IoError::Io(
                std::io::ErrorKind::InvalidInput.into(),
            ))),
        }
    }

    /// Opens a connection, encrypted as the settings say.
    ///
    /// # Errors
    /// The backend, the network, or the deadline.
    pub async fn connect(&self) -> Result<Conn, ServiceError> {
        let opening = async {
            match self.connect_once(self.tls != TlsMode::Off).await {
                Err(Error::Driver(DriverError::NoClientSslFlagFromServer))
                    if self.tls == TlsMode::Preferred =>
                {
                    self.connect_once(false).await
                }
                other => other,
            }
        };
        match tokio::time::timeout(self.connect_timeout, opening).await {
            Err(_) => Err(self.error("timeout", "no login within the connect timeout")),
            Ok(Err(e)) => Err(self.explain(&e)),
            Ok(Ok(conn)) => Ok(conn),
        }
    }

    fn explain(&self, e: &Error) -> ServiceError {
        match e {
            Error::Server(s) if matches!(s.code, 1040 | 1044 | 1045 | 1129 | 1130 | 1698) => {
                self.error("refused", format!("{} ({})", s.message, s.code))
            }
            Error::Server(s) => self.error("server", format!("{} ({})", s.message, s.code)),
            Error::Io(io) => self.error("connect", io),
            other => self.error("protocol", other),
        }
    }
}

/// One connection that comes back by itself.
pub struct ServiceConn {
    account: ServiceAccount,
    conn: Option<Conn>,
}

impl ServiceConn {
    /// Not connected yet.
    pub fn new(account: ServiceAccount) -> ServiceConn {
        ServiceConn {
            account,
            conn: None,
        }
    }

    /// Whose server it is.
    pub fn side(&self) -> Side {
        self.account.side
    }

    /// Whether the next query finds a connection open.
    pub fn is_connected(&self) -> bool {
        self.conn.is_some()
    }

    /// The rows of one query. `limit` bounds the query; connecting has its own
    /// bound.
    ///
    /// # Errors
    /// After any of them the next call connects anew, save that an error the
    /// server itself answered leaves the connection usable.
    pub async fn rows(&mut self, sql: &str, limit: Duration) -> Result<Vec<Row>, ServiceError> {
        // Taken out: dropped at the await, the connection is given up.
        let mut conn = match self.conn.take() {
            Some(conn) => conn,
            None => self.account.connect().await?,
        };
        match tokio::time::timeout(limit, conn.query::<Row, _>(sql)).await {
            Err(_) => Err(self.account.error(
                "timeout",
                format!("no answer within {} ms", limit.as_millis()),
            )),
            Ok(Ok(rows)) => {
                self.conn = Some(conn);
                Ok(rows)
            }
            Ok(Err(e)) => {
                if matches!(e, Error::Server(_)) {
                    self.conn = Some(conn);
                }
                Err(self.account.explain(&e))
            }
        }
    }
}

/// A column of a row as bytes; empty when it is NULL or missing.
pub fn bytes(row: &Row, index: usize) -> Vec<u8> {
    match row.as_ref(index) {
        Some(mysql_async::Value::Bytes(b)) => b.clone(),
        Some(mysql_async::Value::NULL) | None => Vec::new(),
        Some(other) => other.as_sql(true).into_bytes(),
    }
}

/// A column of a row as text; None when it is NULL or missing.
pub fn text(row: &Row, index: usize) -> Option<String> {
    match row.as_ref(index) {
        Some(mysql_async::Value::NULL) | None => None,
        Some(_) => Some(String::from_utf8_lossy(&bytes(row, index)).into_owned()),
    }
}
