//! What the proxy knows about accounts: learned from logins
//! ([`AccountStore`]) or told by the operator ([`UserMap`]).

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use parking_lot::Mutex;

use super::tls::LegTls;
use super::{CACHING_SHA2, NATIVE, NONCE_LEN, Secret, Stage1, caching_sha2, native};
use crate::Side;

/// Most accounts remembered at a time. An account takes about 200 bytes; a
/// server with more than this many *active* application accounts loses the
/// least recently used ones, which a later login teaches again.
pub const ACCOUNTS_MAX: usize = 4096;

/// What is needed to log one user in.
#[derive(Clone, PartialEq, Eq)]
pub enum Account {
    /// The password itself: answers every plugin.
    Password {
        /// User name as the client sent it.
        user: Vec<u8>,
        /// The password.
        password: Secret,
    },
    /// SHA1(password): answers `mysql_native_password` only.
    NativeStage1 {
        /// User name as the client sent it.
        user: Vec<u8>,
        /// SHA1(password).
        stage1: Stage1,
    },
    /// No password.
    Empty {
        /// User name as the client sent it.
        user: Vec<u8>,
    },
}

impl Account {
    /// An account with a password, which may be empty.
    pub fn new(user: Vec<u8>, password: Secret) -> Account {
        if password.is_empty() {
            return Account::Empty { user };
        }
        Account::Password { user, password }
    }

    /// The user name.
    pub fn user(&self) -> &[u8] {
        match self {
            Account::Password { user, .. }
            | Account::NativeStage1 { user, .. }
            | Account::Empty { user } => user,
        }
    }

    /// The clear password, if it is known; empty for [`Account::Empty`].
    pub fn password(&self) -> Option<Secret> {
        match self {
            Account::Password { password, .. } => Some(password.clone()),
            Account::NativeStage1 { .. } => None,
            Account::Empty { .. } => Some(Secret::new(Vec::new())),
        }
    }

    /// The answer of this account to a server's nonce under `plugin`. None if
    /// the plugin needs something we do not have or do not implement.
    pub fn answer(&self, plugin: &[u8], nonce: &[u8; NONCE_LEN]) -> Option<Vec<u8>> {
        if plugin == NATIVE {
            return match self {
                Account::Password { password, .. } => {
                    Some(native::scramble(&native::stage1(password.expose()), nonce).to_vec())
                }
                Account::NativeStage1 { stage1, .. } => {
                    Some(native::scramble(stage1, nonce).to_vec())
                }
                Account::Empty { .. } => Some(Vec::new()),
            };
        }
        if plugin == CACHING_SHA2 {
            return self.password().map(|p| caching_sha2::scramble(&p, nonce));
        }
        None
    }

    /// True if a client's `answer` to `nonce` under `plugin` is the one this
    /// account gives: the client knows the same password.
    pub fn verify(&self, plugin: &[u8], nonce: &[u8; NONCE_LEN], answer: &[u8]) -> bool {
        self.answer(plugin, nonce).is_some_and(|expected| {
            aws_lc_rs::constant_time::verify_slices_are_equal(answer, &expected).is_ok()
        })
    }
}

/// Accounts learned from clients' logins. In memory only, bounded by
/// [`ACCOUNTS_MAX`], zeroed when dropped.
///
/// Keyed by what a backend tells accounts apart by ([`AccountStore::key`]).
#[derive(Default)]
pub struct AccountStore {
    inner: Mutex<Learned>,
}

#[derive(Default)]
struct Learned {
    /// Value: the account and the tick it was last used at.
    accounts: HashMap<Vec<u8>, (Account, u64)>,
    tick: u64,
}

impl AccountStore {
    /// An empty store.
    pub fn new() -> AccountStore {
        AccountStore::default()
    }

    /// What an account is kept under. `host` is the client's address where the
    /// backends see it (one user may then have a password for each host); where
    /// they see the proxy's, one name is one account row.
    pub fn key(user: &[u8], host: Option<IpAddr>) -> Vec<u8> {
        let mut key = user.to_vec();
        if let Some(host) = host {
            key.push(0);
            key.extend_from_slice(host.to_canonical().to_string().as_bytes());
        }
        key
    }

    /// What is known under a key.
    pub fn get(&self, key: &[u8]) -> Option<Account> {
        let mut inner = self.inner.lock();
        inner.tick += 1;
        let tick = inner.tick;
        let (account, used) = inner.accounts.get_mut(key)?;
        *used = tick;
        Some(account.clone())
    }

    /// Remembers an account that a backend has just accepted. A clear password
    /// already known is not replaced by the weaker SHA1 of the same password.
    pub fn learn(&self, key: Vec<u8>, account: Account) {
        let mut inner = self.inner.lock();
        inner.tick += 1;
        let tick = inner.tick;
        let known = inner.accounts.get(&key).map(|(a, _)| a);
        if let (Account::NativeStage1 { stage1, .. }, Some(Account::Password { password, .. })) =
            (&account, known)
            && native::stage1(password.expose()) == *stage1
        {
            return;
        }
        if known.is_none() && inner.accounts.len() >= ACCOUNTS_MAX {
            inner.evict_oldest();
        }
        inner.accounts.insert(key, (account, tick));
    }

    /// Forgets an account that a backend has refused, unless another login has
    /// taught a different one meanwhile.
    pub fn forget(&self, key: &[u8], refused: &Account) {
        let mut inner = self.inner.lock();
        let known = inner.accounts.get(key);
        if known.is_some_and(|(known, _)| known == refused) {
            inner.accounts.remove(key);
        }
    }

    /// How many accounts are known.
    pub fn len(&self) -> usize {
        self.inner.lock().accounts.len()
    }

    /// True if none is known.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl Learned {
    /// Linear, and only when [`ACCOUNTS_MAX`] accounts are in use.
    fn evict_oldest(&mut self) {
        let oldest = self
            .accounts
            .iter()
            .min_by_key(|(_, (_, used))| *used)
            .map(|(user, _)| user.clone());
        if let Some(user) = oldest {
            self.accounts.remove(&user);
        }
    }
}

/// `users:` of proxy.yaml: client users whose credentials differ between the
/// backends.
#[derive(Default)]
pub struct UserMap {
    users: HashMap<Vec<u8>, [Option<Mapped>; 2]>,
}

/// A mapped client user on one side.
#[derive(Clone)]
pub struct Mapped {
    /// Its credentials there.
    pub account: Account,
    /// The certificate its legs show there, if it has one of its own.
    pub certificate: Option<Arc<LegTls>>,
}

impl UserMap {
    /// An empty map.
    pub fn new() -> UserMap {
        UserMap::default()
    }

    /// Adds the credentials client user `name` has on `side`.
    pub fn insert(&mut self, name: Vec<u8>, side: Side, mapped: Mapped) {
        let pair = self.users.entry(name).or_default();
        match side {
            Side::Source => pair[0] = Some(mapped),
            Side::Target => pair[1] = Some(mapped),
        }
    }

    /// The credentials of client user `name` on `side`, if they are mapped.
    pub fn get(&self, name: &[u8], side: Side) -> Option<&Mapped> {
        let [source, target] = self.users.get(name)?;
        match side {
            Side::Source => source.as_ref(),
            Side::Target => target.as_ref(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NONCE: [u8; NONCE_LEN] = *b"abcdefghijklmnopqrst";

    fn account(user: &str, password: &str) -> Account {
        Account::new(
            user.as_bytes().to_vec(),
            Secret::new(password.as_bytes().to_vec()),
        )
    }

    fn hashed(user: &str, password: &str) -> Account {
        Account::NativeStage1 {
            user: user.as_bytes().to_vec(),
            stage1: native::stage1(password.as_bytes()),
        }
    }

    fn learn(store: &AccountStore, account: Account) {
        store.learn(account.user().to_vec(), account);
    }

    #[test]
    fn keys_tell_hosts_apart_where_the_backends_do() {
        let host = "10.0.0.1".parse().ok();
        assert_eq!(AccountStore::key(b"u", None), b"u");
        assert_eq!(
            AccountStore::key(b"u", host),
            [&b"u"[..], b"\0", b"10.0.0.1"].concat()
        );
    }

    #[test]
    fn a_hash_answers_native_only() {
        let (full, hash) = (account("u", "pw"), hashed("u", "pw"));
        let native = hash.answer(NATIVE, &NONCE);
        assert!(native.is_some() && native == full.answer(NATIVE, &NONCE));
        assert!(full.answer(CACHING_SHA2, &NONCE).is_some());
        assert!(hash.answer(CACHING_SHA2, &NONCE).is_none());
        assert!(full.answer(b"client_ed25519", &NONCE).is_none());
        assert!(hash.password().is_none());
        let empty = account("u", "");
        assert!(matches!(empty, Account::Empty { .. }));
        assert_eq!(empty.answer(CACHING_SHA2, &NONCE), Some(Vec::new()));
        assert!(!full.verify(NATIVE, &NONCE, b""));
    }

    #[test]
    fn a_password_is_not_replaced_by_its_own_hash() {
        let store = AccountStore::new();
        learn(&store, account("u", "pw"));
        learn(&store, hashed("u", "pw"));
        assert!(store.get(b"u") == Some(account("u", "pw")));
        learn(&store, hashed("u", "changed"));
        assert!(store.get(b"u") == Some(hashed("u", "changed")));
        learn(&store, account("u", "changed"));
        assert!(store.get(b"u") == Some(account("u", "changed")));
    }

    #[test]
    fn only_the_refused_account_is_forgotten() {
        let store = AccountStore::new();
        learn(&store, account("u", "new"));
        store.forget(b"u", &account("u", "old"));
        assert!(store.get(b"u").is_some());
        store.forget(b"u", &account("u", "new"));
        assert!(store.get(b"u").is_none());
    }

    #[test]
    fn a_full_store_drops_the_least_recently_used() {
        let store = AccountStore::new();
        for i in 0..ACCOUNTS_MAX {
            learn(&store, account(&format!("u{i}"), "pw"));
        }
        assert!(store.get(b"u0").is_some());
        learn(&store, account("one more", "pw"));
        assert_eq!(store.len(), ACCOUNTS_MAX);
        assert!(store.get(b"u0").is_some());
        assert!(store.get(b"u1").is_none());
    }

    #[test]
    fn a_map_answers_for_its_side_only() {
        let mut map = UserMap::new();
        let mapped = Mapped {
            account: account("app2", "pw"),
            certificate: None,
        };
        map.insert(b"app".to_vec(), Side::Target, mapped);
        assert!(map.get(b"app", Side::Source).is_none());
        assert!(map.get(b"other", Side::Target).is_none());
        let target = map.get(b"app", Side::Target).map(|m| m.account.user());
        assert_eq!(target, Some(&b"app2"[..]));
    }
}
