//! What all logins share.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;

use crate::Side;
use crate::auth::rsa::RsaKey;
use crate::auth::{Account, AccountStore, UserMap};
use crate::config::Network;
use crate::leg::connect::{Announce, BackendConfig};
use crate::leg::grants::GrantReader;
use crate::session::registry::Registry;
use crate::wire::capability::Capabilities;

/// Everything logins share. One per process.
pub struct LoginContext {
    /// Bulk executions are offered where home has them.
    pub mariadb_bulk: bool,
    /// Indexed by [`Side::index`].
    pub backends: [BackendConfig; 2],
    /// The certificate for clients, which may change; None: TLS is not offered.
    pub tls: Option<Arc<ArcSwap<rustls::ServerConfig>>>,
    /// What is asked of clients' certificates.
    pub client_certs: ClientCertificates,
    /// From whom a PROXY header is expected.
    pub proxied_by: Vec<Network>,
    /// What logins have taught.
    pub accounts: Arc<AccountStore>,
    /// `users:` of proxy.yaml.
    pub users: Arc<UserMap>,
    /// Our key pair for full authentications in the clear.
    pub rsa: Arc<RsaKey>,
    /// Grant table readers, each holding its side's service account; indexed
    /// by [`Side::index`].
    pub grants: [GrantReader; 2],
    /// Capabilities last greeted by each side.
    pub seen: SeenCapabilities,
    /// Time a client has for its whole login: MySQL's `connect_timeout`, 10 s.
    pub login_timeout: Duration,
    /// The sessions there are: no two clients are to know theirs by one id.
    pub registry: Arc<Registry>,
    /// Our instance id, sent to backends as attribute `_lockstep_instance`.
    pub instance: String,
}

/// What is asked of clients' certificates.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum ClientCertificates {
    /// Nothing; they are not looked at.
    #[default]
    Ignored,
    /// One that is shown must be valid.
    Optional,
    /// No login without a valid one.
    Required,
}

impl LoginContext {
    /// What is known of a client's account.
    pub fn known(&self, user: &[u8], peer: IpAddr) -> Option<Account> {
        self.accounts.get(&self.key(user, peer))
    }

    /// Remembers a client's account, which a backend has accepted.
    pub fn learn(&self, user: &[u8], peer: IpAddr, account: Account) {
        self.accounts.learn(self.key(user, peer), account);
    }

    /// Forgets a client's account, which a backend has refused.
    pub fn forget(&self, user: &[u8], peer: IpAddr, refused: &Account) {
        self.accounts.forget(&self.key(user, peer), refused);
    }

    fn key(&self, user: &[u8], peer: IpAddr) -> Vec<u8> {
        let told = self.backends.iter().any(|b| b.announce != Announce::No);
        AccountStore::key(user, told.then_some(peer))
    }

    /// The configuration of one side.
    pub fn backend(&self, side: Side) -> &BackendConfig {
        let [source, target] = &self.backends;
        match side {
            Side::Source => source,
            Side::Target => target,
        }
    }

    /// The grant table reader of one side.
    pub fn grant_reader(&self, side: Side) -> &GrantReader {
        let [source, target] = &self.grants;
        match side {
            Side::Source => source,
            Side::Target => target,
        }
    }
}

/// Capabilities last seen in each side's greeting. What the other backend
/// lacks must not be promised to a client.
#[derive(Default)]
pub struct SeenCapabilities {
    /// 0: not seen yet (no server offers nothing).
    bits: [AtomicU64; 2],
}

impl SeenCapabilities {
    /// Remembers a greeting's capabilities.
    pub fn note(&self, side: Side, capabilities: Capabilities) {
        self.slot(side)
            .store(capabilities.bits(), Ordering::Relaxed);
    }

    /// The last ones; None before the first connection to that side.
    pub fn get(&self, side: Side) -> Option<Capabilities> {
        match self.slot(side).load(Ordering::Relaxed) {
            0 => None,
            bits => Some(Capabilities(bits)),
        }
    }

    fn slot(&self, side: Side) -> &AtomicU64 {
        let [source, target] = &self.bits;
        match side {
            Side::Source => source,
            Side::Target => target,
        }
    }
}
