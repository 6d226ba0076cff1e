//! What a session has set on its server, as the server itself reports it.
//!
//! Every leg runs with `session_track_system_variables='*'` and
//! `session_track_schema`, so each change comes back in an OK packet, however
//! it was made (SET, a stored routine, PREPARE). The values are kept to bring
//! a leg opened later to the same state, and the client is shown only the
//! trackers it asked for itself.

use std::collections::{BTreeMap, BTreeSet};

use super::modes::{set_role, set_statement, translate_sql_mode};
use crate::Side;
use crate::sql::{CharsetClass, Isolation, ScanMode, ServerKind};
use crate::wire::Status;
use crate::wire::session_track::{Change, changes, put_change};

/// Variables kept per session: more than any server has (MySQL 9.7 has about
/// 250 session variables).
const VARIABLES_MAX: usize = 1024;

/// The largest value kept, in bytes; `init_connect`-sized text is the largest
/// that occurs.
const VALUE_MAX: usize = 64 * 1024;

/// Variables that are not part of what a new leg must be told: they are one
/// statement's context, our own settings, or follow from others.
const NOT_REPLAYED: &[&[u8]] = &[
    b"autocommit",
    b"timestamp",
    b"insert_id",
    b"last_insert_id",
    b"identity",
    b"rand_seed1",
    b"rand_seed2",
    b"pseudo_thread_id",
    b"pseudo_slave_mode",
    b"pseudo_replica_mode",
    b"session_track_system_variables",
    b"session_track_schema",
    b"session_track_state_change",
    b"session_track_transaction_info",
    b"session_track_gtids",
    b"tx_isolation",
    b"transaction_isolation",
    b"tx_read_only",
    b"transaction_read_only",
    b"last_gtid",
    b"gtid_next",
    b"sql_log_bin",
    b"warning_count",
    b"error_count",
    b"in_transaction",
    b"external_user",
    b"proxy_user",
    b"collation_database",
    b"character_set_database",
    b"resultset_metadata",
    b"statement_id",
    b"original_commit_timestamp",
    b"immediate_server_version",
    b"original_server_version",
    b"gtid_seq_no",
    b"gtid_domain_id",
    b"server_id",
    b"skip_parallel_replication",
    b"rand_seed",
];

/// The session's role among the variables. Its name sorts behind all others,
/// so that a role is set in the session's own character set.
const ROLE: &[u8] = b"\xFFrole";

/// Told to a leg where it differs from what a leg begins with; not among those
/// that are kept.
const LOG_BIN: &[u8] = b"sql_log_bin";

/// What SET NAMES sets.
const CHARSETS: [&[u8]; 4] = [
    b"character_set_client",
    b"character_set_connection",
    b"character_set_results",
    b"collation_connection",
];

/// Variables without which a statement has another effect or meaning.
const CRITICAL: &[&[u8]] = &[
    b"sql_mode",
    b"time_zone",
    b"foreign_key_checks",
    b"unique_checks",
    ROLE,
];

/// How a transaction was begun, to begin it on the other leg.
#[derive(Clone, Copy, Default)]
pub struct Opened {
    /// READ ONLY (true) or READ WRITE, where written.
    pub read_only: Option<bool>,
    /// WITH CONSISTENT SNAPSHOT.
    pub snapshot: bool,
}

impl Opened {
    /// The statement that begins one like it.
    pub fn begin(self) -> Vec<u8> {
        let access = match self.read_only {
            Some(true) => "READ ONLY",
            Some(false) => "READ WRITE",
            None => "",
        };
        let snapshot = if self.snapshot {
            "WITH CONSISTENT SNAPSHOT"
        } else {
            ""
        };
        let comma = if access.is_empty() || snapshot.is_empty() {
            " "
        } else {
            ", "
        };
        format!("START TRANSACTION {snapshot}{comma}{access}").into_bytes()
    }
}

/// One tracked variable.
struct Variable {
    value: Vec<u8>,
    version: u64,
}

/// The state of one session.
pub struct State {
    /// The flags the client last saw.
    pub status: Status,
    /// The default schema.
    pub database: Option<Vec<u8>>,
    /// Bumped by every change a leg would have to be told.
    pub version: u64,
    /// The session's isolation level.
    pub isolation: Isolation,
    /// The session is READ ONLY.
    pub read_only: bool,
    /// SET TRANSACTION: of the next transaction, or the open one, only.
    pub next_isolation: Option<Isolation>,
    /// The same for READ ONLY (true) or READ WRITE.
    pub next_read_only: Option<bool>,
    /// The leg that was told the two.
    pub one_shot_side: Option<Side>,
    /// How the open transaction was begun.
    pub opened: Opened,
    /// The client is told what its transactions have done.
    pub shows_transactions: bool,
    /// SET sql_log_bin=0 is in force.
    pub log_bin_off: bool,
    /// The version that it changed with.
    log_bin_version: u64,
    /// NO_AUTO_VALUE_ON_ZERO is in force.
    pub no_auto_value_on_zero: bool,
    /// The client set `timestamp` itself: it stands after our own use of it.
    pub client_timestamp: bool,
    /// The value last reported for it.
    timestamp: Vec<u8>,
    /// MariaDB's sql_mode=ORACLE.
    pub oracle_mode: bool,
    /// A statement on this leg may have set another role.
    pub role_changed_on: Option<Side>,
    /// COM_SET_OPTION's last argument.
    pub multi_statements: Option<bool>,
    /// How statements are to be read.
    pub mode: ScanMode,
    variables: BTreeMap<Vec<u8>, Variable>,
    /// Names whose value a leg has to be asked for before another is told.
    pub unsure: BTreeSet<Vec<u8>>,
    /// A statement on MariaDB may have set anything without a report.
    pub unsure_of_all: bool,
    /// As `unsure_of_all`, and what a mirror's copies and reads depend on has
    /// not been asked for either.
    pub unsure_of_copied: bool,
    /// The leg that has what nobody is sure of, where a statement is known to
    /// have set it there.
    pub unsure_on: Option<Side>,
    /// SET STATEMENT … FOR runs: what is reported now does not stay.
    pub for_one_statement: bool,
    /// The client's own `session_track_system_variables`.
    tracked: Vec<u8>,
    /// The client's own `session_track_schema`.
    track_schema: bool,
    /// The client changed a tracker; ours have to be set again.
    pub trackers_changed: bool,
    /// The leg has the client's trackers for one statement; whoever set them
    /// sets ours again.
    pub own_trackers_shown: bool,
}

impl State {
    /// The state right after login. `tracked` is what the server tracks by
    /// itself.
    pub fn new(database: Option<Vec<u8>>, status: Status, server: ServerKind) -> State {
        State {
            status,
            database,
            version: 1,
            isolation: Isolation::RepeatableRead,
            read_only: false,
            next_isolation: None,
            next_read_only: None,
            one_shot_side: None,
            opened: Opened::default(),
            shows_transactions: false,
            log_bin_off: false,
            log_bin_version: 1,
            no_auto_value_on_zero: false,
            client_timestamp: false,
            timestamp: Vec::new(),
            oracle_mode: false,
            role_changed_on: None,
            multi_statements: None,
            mode: ScanMode {
                server,
                ..ScanMode::default()
            },
            variables: BTreeMap::new(),
            unsure: BTreeSet::new(),
            unsure_of_all: false,
            unsure_of_copied: false,
            unsure_on: None,
            for_one_statement: false,
            tracked: Vec::new(),
            track_schema: true,
            trackers_changed: false,
            own_trackers_shown: false,
        }
    }

    /// Whether the client has a transaction open or will have one with its
    /// next statement.
    pub fn in_transaction(&self) -> bool {
        self.status.has(Status::IN_TRANS) || !self.status.has(Status::AUTOCOMMIT)
    }

    /// The isolation of the transaction that is open, or would begin now.
    pub fn effective_isolation(&self) -> Isolation {
        self.next_isolation.unwrap_or(self.isolation)
    }

    /// The transaction that SET TRANSACTION was for is over.
    pub fn use_up_one_shots(&mut self) {
        self.next_isolation = None;
        self.next_read_only = None;
        self.one_shot_side = None;
    }

    /// Nobody knows whether it is. Kept where that is the careful reading:
    /// below REPEATABLE READ less is mirrored inline.
    pub fn doubt_one_shots(&mut self) {
        self.next_isolation = self.next_isolation.filter(|next| *next < self.isolation);
    }

    /// The client's own `timestamp`, while one stands.
    pub fn own_timestamp(&self) -> Option<&[u8]> {
        self.client_timestamp.then_some(&self.timestamp[..])
    }

    /// The session's role is this one now, as CURRENT_ROLE() says it.
    pub fn set_role(&mut self, role: &[u8]) {
        let known = self.variables.get(ROLE).map(|v| &v.value[..]);
        if known != Some(role) {
            self.version += 1;
            self.keep(ROLE, role);
        }
    }

    /// What the server tracks unless asked otherwise, and the other values
    /// that are read once at login.
    pub fn set_defaults(&mut self, name: &[u8], value: &[u8]) {
        match name {
            b"session_track_system_variables" => self.tracked = value.to_vec(),
            b"session_track_schema" => self.track_schema = is_on(value),
            _ => {
                self.interpret(name, value);
                self.keep(name, value);
            }
        }
    }

    /// Keeps a value for legs opened later, as of the present version.
    fn keep(&mut self, name: &[u8], value: &[u8]) {
        let fits = value.len() <= VALUE_MAX
            && (self.variables.len() < VARIABLES_MAX || self.variables.contains_key(name));
        if fits && !NOT_REPLAYED.contains(&name) {
            let variable = Variable {
                value: value.to_vec(),
                version: self.version,
            };
            self.variables.insert(name.to_vec(), variable);
        }
    }

    fn interpret(&mut self, name: &[u8], value: &[u8]) {
        match name {
            b"sql_mode" => {
                let has = |mode: &str| contains_word(value, mode.as_bytes());
                self.mode.ansi_quotes = has("ANSI_QUOTES");
                self.mode.no_backslash_escapes = has("NO_BACKSLASH_ESCAPES");
                self.no_auto_value_on_zero = has("NO_AUTO_VALUE_ON_ZERO");
                self.oracle_mode = has("ORACLE");
            }
            b"character_set_client" => self.mode.charset = CharsetClass::of_name(value),
            b"tx_isolation" | b"transaction_isolation" => {
                if let Some(level) = Isolation::parse(value) {
                    self.isolation = level;
                }
            }
            b"tx_read_only" | b"transaction_read_only" => self.read_only = is_on(value),
            b"timestamp" => self.timestamp = value.to_vec(),
            LOG_BIN => self.log_bin_off = !is_on(value),
            _ => {}
        }
    }

    /// Learns from a session-state block and appends to `shown` what the
    /// client is to see of it.
    pub fn learn(&mut self, block: &[u8], client_tracks: bool, shown: &mut Vec<u8>) {
        for change in changes(block) {
            let Ok((change, _)) = change else { break };
            match change {
                Change::SystemVariable { name, value } => {
                    self.variable(name, value);
                    if client_tracks && self.tracks(name) {
                        put_change(shown, &change);
                    }
                }
                Change::Schema(schema) => {
                    self.set_database(schema);
                    if client_tracks && self.track_schema {
                        put_change(shown, &change);
                    }
                }
                _ if client_tracks => {
                    self.shows_transactions |= matches!(change, Change::TransactionState(_));
                    put_change(shown, &change);
                }
                _ => {}
            }
        }
    }

    /// The default schema is this one now.
    pub fn set_database(&mut self, schema: &[u8]) {
        if self.database.as_deref() != Some(schema) {
            self.database = (!schema.is_empty()).then(|| schema.to_vec());
            self.version += 1;
        }
    }

    fn variable(&mut self, name: &[u8], value: &[u8]) {
        match name {
            // Only the client's own settings get here: answers to ours are not
            // learnt from. A list without its own name is not even reported;
            // `Session::client_trackers` covers that.
            b"session_track_system_variables" => {
                self.tracked = value.to_vec();
                self.trackers_changed = true;
                return;
            }
            b"session_track_schema" if !is_on(value) => {
                self.track_schema = false;
                self.trackers_changed = true;
                return;
            }
            b"session_track_schema" => {
                self.track_schema = true;
                return;
            }
            b"session_track_transaction_info" => {
                self.shows_transactions = !value.eq_ignore_ascii_case(b"off");
                return;
            }
            _ if self.for_one_statement => {
                self.unsure_of(name);
                return;
            }
            _ => self.interpret(name, value),
        }
        if name.starts_with(b"character_set_") {
            // SET NAMES does not report its collation.
            self.unsure_of(b"collation_connection");
        }
        if name == LOG_BIN {
            self.version += 1;
            self.log_bin_version = self.version;
        }
        if !NOT_REPLAYED.contains(&name) {
            self.version += 1;
            self.keep(name, value);
        }
    }

    /// Whether a leg opened later is told a value of this variable.
    pub fn knows(&self, name: &[u8]) -> bool {
        self.variables.contains_key(name)
    }

    /// The value of a variable, if it is known.
    pub fn known(&self, name: &[u8]) -> Option<&[u8]> {
        let variable = self.variables.get(name)?;
        (!self.unsure.contains(name)).then_some(&variable.value[..])
    }

    /// The value of a variable is not known any more.
    pub fn unsure_of(&mut self, name: &[u8]) {
        if self.unsure.len() < VARIABLES_MAX && !NOT_REPLAYED.contains(&name) {
            self.unsure.insert(name.to_vec());
        }
    }

    /// A statement on `side` has set a variable there without a report.
    pub fn unsure_of_one(&mut self, name: &[u8], side: Side) {
        self.unsure_of(name);
        if self.unsure.contains(name) {
            self.unsure_on = Some(side);
        }
    }

    /// Names of variables with a value to be told; the role is none.
    pub fn names(&self) -> impl Iterator<Item = &[u8]> {
        let names = self.variables.keys().map(Vec::as_slice);
        names.filter(|name| *name != ROLE)
    }

    /// A statement on `side` may have set anything there without a report.
    pub fn unsure_of_everything(&mut self, side: Side) {
        (self.unsure_of_all, self.unsure_of_copied) = (true, true);
        self.unsure_on = Some(side);
    }

    /// Whether a leg of this version has been told of a variable less than is
    /// known of it by now.
    pub fn newer(&self, name: &[u8], version: u64) -> bool {
        (self.variables.get(name)).is_some_and(|known| known.version > version)
    }

    /// A leg was asked for the value of a variable.
    pub fn told(&mut self, name: &[u8], value: &[u8]) {
        let was_off = self.log_bin_off;
        self.interpret(name, value);
        if self.log_bin_off != was_off {
            self.version += 1;
            self.log_bin_version = self.version;
        }
        let known = self.variables.get(name).map(|v| &v.value[..]);
        if known != Some(value) {
            self.version += 1;
            self.keep(name, value);
        }
    }

    /// Takes over what the flags of an answer tell of the SQL mode: MariaDB
    /// does not report `SET @@sql_mode = …`.
    pub fn take_flags(&mut self, status: Status) {
        self.status = status.without(Status::SESSION_STATE_CHANGED);
        if self.for_one_statement {
            return;
        }
        self.mode.no_backslash_escapes = status.has(Status::NO_BACKSLASH_ESCAPES);
        if self.mode.server.mariadb {
            self.mode.ansi_quotes = status.has(Status::ANSI_QUOTES);
        }
    }

    fn tracks(&self, name: &[u8]) -> bool {
        self.tracked == b"*" || contains_word(&self.tracked, name)
    }

    /// The client's own setting of `session_track_system_variables`.
    pub fn client_tracked(&self) -> &[u8] {
        &self.tracked
    }

    /// The client's own setting of `session_track_schema`.
    pub fn client_tracks_schema(&self) -> bool {
        self.track_schema
    }

    /// The statements that bring a leg of either family from version `from`
    /// to this state, each with whether the leg must not be without it.
    pub fn replay(&self, from: u64, mariadb: bool) -> Vec<(Vec<u8>, bool)> {
        let mut statements = Vec::new();
        // A leg begins with 1, and accounts that may not set it need not.
        if self.log_bin_version > from && (self.log_bin_off || from > 0) {
            let value: &[u8] = if self.log_bin_off { b"0" } else { b"1" };
            statements.push((set_statement(LOG_BIN, value), true));
        }
        let newer = |name: &[u8]| self.variables.get(name).is_some_and(|v| v.version > from);
        if CHARSETS.iter().any(|name| newer(name)) {
            self.put_charsets(&mut statements);
        }
        for (name, variable) in &self.variables {
            if variable.version <= from || CHARSETS.contains(&&name[..]) {
                continue;
            }
            let other_family = mariadb != self.mode.server.mariadb;
            let statement = if name == ROLE {
                set_role(&variable.value, mariadb)
            } else if other_family && name == b"sql_mode" {
                set_statement(name, &translate_sql_mode(&variable.value, mariadb))
            } else {
                set_statement(name, &variable.value)
            };
            statements.push((statement, CRITICAL.contains(&&name[..])));
        }
        statements
    }

    /// The four variables of the connection's character set. SET NAMES with the
    /// collation gives results the same collation id as the login did, which
    /// `SET character_set_results` would not.
    fn put_charsets(&self, statements: &mut Vec<(Vec<u8>, bool)>) {
        let value = |name: &[u8]| self.variables.get(name).map_or(&[][..], |v| &v.value[..]);
        let [client, connection, results, collation] = CHARSETS.map(value);
        // Not to be a client's.
        let wide = [&b"ucs2"[..], b"utf16", b"utf16le", b"utf32"].contains(&connection);
        let own = collation.starts_with(connection) && !collation.is_empty();
        if wide {
            statements.push((set_statement(CHARSETS[1], connection), true));
            statements.push((set_statement(CHARSETS[3], collation), false));
        } else {
            statements.push(([b"SET NAMES ", connection].concat(), true));
            if own {
                // The other family may not know the collation.
                let sql = [b"SET NAMES ", connection, b" COLLATE ", collation].concat();
                statements.push((sql, false));
            }
        }
        if wide || client != connection {
            statements.push((set_statement(CHARSETS[0], client), true));
        }
        if wide || results != connection {
            statements.push((set_statement(CHARSETS[2], results), false));
        }
    }

    /// COM_RESET_CONNECTION or COM_CHANGE_USER: everything is the server's
    /// default again.
    pub fn reset(&mut self, database: Option<Vec<u8>>) {
        let server = self.mode.server;
        let version = self.version + 1;
        let tracked = std::mem::take(&mut self.tracked);
        let isolation = self.isolation;
        *self = State::new(database, self.status, server);
        self.version = version;
        self.tracked = tracked;
        self.isolation = isolation;
    }
}

fn is_on(value: &[u8]) -> bool {
    value == b"1" || value.eq_ignore_ascii_case(b"on")
}

pub(super) fn contains_word(list: &[u8], word: &[u8]) -> bool {
    list.split(|&b| b == b',')
        .any(|item| item.trim_ascii().eq_ignore_ascii_case(word))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn block(changes: &[Change<'_>]) -> Vec<u8> {
        let mut out = Vec::new();
        for c in changes {
            put_change(&mut out, c);
        }
        out
    }

    #[test]
    fn shows_only_what_the_client_tracks() {
        let mut s = State::new(None, Status::AUTOCOMMIT, ServerKind::default());
        s.set_defaults(b"session_track_system_variables", b"time_zone, autocommit");
        let b = block(&[
            Change::SystemVariable {
                name: b"sql_mode",
                value: b"ANSI_QUOTES,STRICT_ALL_TABLES",
            },
            Change::SystemVariable {
                name: b"time_zone",
                value: b"+01:00",
            },
            Change::Schema(b"shop"),
        ]);
        let mut shown = Vec::new();
        s.learn(&b, true, &mut shown);
        let seen: Vec<_> = changes(&shown)
            .map(|c| format!("{:?}", c.unwrap().0))
            .collect();
        assert_eq!(seen.len(), 2, "{seen:?}");
        assert!(s.mode.ansi_quotes && !s.mode.no_backslash_escapes);
        assert_eq!(s.database.as_deref(), Some(&b"shop"[..]));
        assert_eq!(s.replay(1, false).len(), 2);
        assert!(s.replay(s.version, false).is_empty());
        let mut none = Vec::new();
        s.learn(&b, false, &mut none);
        assert!(none.is_empty());
    }

    #[test]
    fn writes_that_are_not_logged_are_not_on_another_leg() {
        let mut s = State::new(None, Status::AUTOCOMMIT, ServerKind::default());
        s.set_defaults(LOG_BIN, b"1");
        assert!(s.replay(0, false).is_empty());
        let before = s.version;
        let set = |value: &[u8]| {
            let name = LOG_BIN;
            block(&[Change::SystemVariable { name, value }])
        };
        s.learn(&set(b"OFF"), false, &mut Vec::new());
        let off = (b"SET @@session.`sql_log_bin`=0".to_vec(), true);
        assert_eq!(s.replay(0, false), std::slice::from_ref(&off));
        assert_eq!(s.replay(before, true), [off]);
        let told = s.version;
        assert!(s.replay(told, false).is_empty());
        s.told(LOG_BIN, b"1");
        assert_eq!(s.replay(told, false)[0].0, b"SET @@session.`sql_log_bin`=1");
        assert!(s.replay(0, false).is_empty());
    }

    #[test]
    fn values_are_set_by_kind() {
        assert_eq!(set_statement(b"x", b"-1.5"), b"SET @@session.`x`=-1.5");
        assert_eq!(set_statement(b"x", b""), b"SET @@session.`x`=''");
        assert_eq!(
            set_statement(b"x", b"ON"),
            b"SET @@session.`x`=_utf8mb4 0x4f4e"
        );
        assert_eq!(
            set_statement(b"x", b"1.2.3"),
            b"SET @@session.`x`=_utf8mb4 0x312e322e33"
        );
    }
}
