//! Bare connections of the service account: a log's stream, rows that are
//! handed on as they come.

use std::time::Duration;

use super::connect::{self, BackendConfig, LegError};
use super::grants::service_params;
use super::{Leg, Lost};
use crate::auth::Account;

/// Connecting and logging in, each.
const LIMIT: Duration = Duration::from_secs(5);

/// Opens connections to one backend.
#[derive(Clone)]
pub struct ServiceLegs {
    backend: BackendConfig,
    account: Account,
}

impl ServiceLegs {
    /// To `backend`, as `account`.
    pub fn new(backend: BackendConfig, account: Account) -> ServiceLegs {
        ServiceLegs { backend, account }
    }

    /// A connection that is logged in and has no default schema.
    ///
    /// # Errors
    /// The backend, the network, or the deadline.
    pub async fn open(&self) -> Result<Leg, Lost> {
        let side = self.backend.side;
        let lost = |e: LegError| Lost {
            side,
            what: e.to_string(),
        };
        let opened = connect::open(&self.backend, LIMIT, None).await;
        let params = service_params();
        let login = connect::login(opened.map_err(lost)?, &self.account, &params);
        match tokio::time::timeout(LIMIT, login).await {
            Ok(login) => Ok(Leg::new(side, login.map_err(lost)?, None)),
            Err(_) => Err(Lost {
                side,
                what: "the login takes too long".to_owned(),
            }),
        }
    }
}
