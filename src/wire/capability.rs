//! Capability flags: what client and server may say to each other.
//!
//! The low 32 bits are the protocol's own; the high 32 are MariaDB's
//! extension, which exists only where [`Capabilities::LONG_PASSWORD`] is
//! *absent* (MariaDB calls that bit CLIENT_MYSQL).

use core::ops::{BitAnd, BitOr};

/// A set of capability flags.
#[derive(Copy, Clone, PartialEq, Eq, Debug, Default)]
pub struct Capabilities(pub u64);

macro_rules! flags {
    ($($(#[$doc:meta])* $name:ident = $bit:expr;)*) => {
        impl Capabilities {
            $($(#[$doc])* pub const $name: Self = Self(1 << $bit);)*
            /// Every flag this module has a name for.
            const NAMED: u64 = 0 $(| (1 << $bit))*;
        }
        /// Name and flag of each capability, for logs.
        const NAMES: &[(&str, Capabilities)] = &[$((stringify!($name), Capabilities::$name)),*];
    };
}

flags! {
    /// Set by MySQL; its absence says MariaDB with extended flags.
    LONG_PASSWORD = 0;
    /// Affected rows count matched rows.
    FOUND_ROWS = 1;
    /// Long column flags.
    LONG_FLAG = 2;
    /// The login names a database.
    CONNECT_WITH_DB = 3;
    /// `db.table.column` is not allowed.
    NO_SCHEMA = 4;
    /// zlib compression.
    COMPRESS = 5;
    /// ODBC client.
    ODBC = 6;
    /// LOAD DATA LOCAL is possible.
    LOCAL_FILES = 7;
    /// Spaces before `(` are ignored.
    IGNORE_SPACE = 8;
    /// The 4.1 protocol.
    PROTOCOL_41 = 9;
    /// wait_timeout is interactive_timeout.
    INTERACTIVE = 10;
    /// TLS after the greeting.
    SSL = 11;
    /// Client-side only.
    IGNORE_SIGPIPE = 12;
    /// Status flags tell about transactions.
    TRANSACTIONS = 13;
    /// Old 4.1 flag.
    RESERVED = 14;
    /// 4.1 authentication (20-byte nonce).
    SECURE_CONNECTION = 15;
    /// Several statements in one query.
    MULTI_STATEMENTS = 16;
    /// Several results in one response.
    MULTI_RESULTS = 17;
    /// The same for prepared statements.
    PS_MULTI_RESULTS = 18;
    /// Named authentication plugins.
    PLUGIN_AUTH = 19;
    /// Connection attributes in the login.
    CONNECT_ATTRS = 20;
    /// Length-encoded authentication answer.
    PLUGIN_AUTH_LENENC = 21;
    /// Client copes with expired passwords.
    CAN_HANDLE_EXPIRED_PASSWORDS = 22;
    /// OK packets carry session state.
    SESSION_TRACK = 23;
    /// OK (0xFE) instead of EOF at the end of rows, no EOF after columns.
    DEPRECATE_EOF = 24;
    /// Column definitions may be left out.
    OPTIONAL_RESULTSET_METADATA = 25;
    /// zstd compression.
    ZSTD = 26;
    /// COM_QUERY and EXECUTE may carry attributes.
    QUERY_ATTRIBUTES = 27;
    /// Multi-factor authentication.
    MULTI_FACTOR = 28;
    /// Reserved to extend the flags (MariaDB: old progress flag).
    CAPABILITY_EXTENSION = 29;
    /// Client-side only.
    SSL_VERIFY_SERVER_CERT = 30;
    /// Client-side only.
    REMEMBER_OPTIONS = 31;
    /// MariaDB: progress reports as ERR packets with code 0xFFFF.
    MARIADB_PROGRESS = 32;
    /// MariaDB: COM_MULTI.
    MARIADB_COM_MULTI = 33;
    /// MariaDB: COM_STMT_BULK_EXECUTE.
    MARIADB_BULK = 34;
    /// MariaDB: type names and formats in column definitions.
    MARIADB_EXTENDED_METADATA = 35;
    /// MariaDB: EXECUTE may leave out column definitions.
    MARIADB_CACHE_METADATA = 36;
    /// MariaDB: one result per bulk row.
    MARIADB_BULK_UNIT_RESULTS = 37;
}

impl Capabilities {
    /// No flag.
    pub const NONE: Self = Self(0);

    /// True when every flag of `o` is set.
    #[inline]
    pub const fn has(self, o: Self) -> bool {
        self.0 & o.0 == o.0
    }

    /// With the flags of `o` set.
    #[inline]
    #[must_use]
    pub const fn with(self, o: Self) -> Self {
        Self(self.0 | o.0)
    }

    /// With the flags of `o` cleared.
    #[inline]
    #[must_use]
    pub const fn without(self, o: Self) -> Self {
        Self(self.0 & !o.0)
    }

    /// All 64 bits.
    #[inline]
    pub const fn bits(self) -> u64 {
        self.0
    }

    /// The protocol's own 32 bits.
    #[inline]
    pub const fn low(self) -> u32 {
        self.0 as u32
    }

    /// MariaDB's extended 32 bits.
    #[inline]
    pub const fn extended(self) -> u32 {
        (self.0 >> 32) as u32
    }

    /// Builds a set from both halves; the extended half counts only where
    /// LONG_PASSWORD is absent.
    pub const fn from_parts(low: u32, extended: u32) -> Self {
        let low = Self(low as u64);
        if low.has(Self::LONG_PASSWORD) {
            return low;
        }
        Self(low.0 | ((extended as u64) << 32))
    }

    /// Names of the flags set, for logs.
    pub fn names(self) -> impl Iterator<Item = &'static str> {
        NAMES
            .iter()
            .filter(move |(_, c)| self.has(*c))
            .map(|(n, _)| *n)
    }
}

impl BitAnd for Capabilities {
    type Output = Self;
    fn bitand(self, o: Self) -> Self {
        Self(self.0 & o.0)
    }
}

impl BitOr for Capabilities {
    type Output = Self;
    fn bitor(self, o: Self) -> Self {
        Self(self.0 | o.0)
    }
}

/// Flags never offered to a client: flag, name, reason.
pub const MASKED: &[(Capabilities, &str, &str)] = &[
    (
        Capabilities::COMPRESS,
        "COMPRESS",
        "compression hides packet boundaries",
    ),
    (
        Capabilities::ZSTD,
        "ZSTD",
        "compression hides packet boundaries",
    ),
    (
        Capabilities::OPTIONAL_RESULTSET_METADATA,
        "OPTIONAL_RESULTSET_METADATA",
        "column definitions may be missing, so results cannot be followed",
    ),
    (
        Capabilities::MULTI_FACTOR,
        "MULTI_FACTOR",
        "a second factor cannot be answered for the other backend",
    ),
    (
        Capabilities::CAPABILITY_EXTENSION,
        "CAPABILITY_EXTENSION",
        "promises flags that are not known yet",
    ),
    (
        Capabilities::MARIADB_PROGRESS,
        "MARIADB_PROGRESS",
        "error packets that are not the end of a response",
    ),
    (
        Capabilities::MARIADB_CACHE_METADATA,
        "MARIADB_CACHE_METADATA",
        "depends on what one backend has sent before",
    ),
    (
        Capabilities::MARIADB_COM_MULTI,
        "MARIADB_COM_MULTI",
        "several commands in one packet",
    ),
    (
        Capabilities::MARIADB_BULK_UNIT_RESULTS,
        "MARIADB_BULK_UNIT_RESULTS",
        "no server here has it: an answer of another form to a bulk EXECUTE",
    ),
];

/// The flags that may be offered to a client at all.
pub const fn understood() -> Capabilities {
    let mut bits = Capabilities::NAMED;
    let mut i = 0;
    while i < MASKED.len() {
        bits &= !MASKED[i].0.0;
        i += 1;
    }
    Capabilities(bits)
}

/// What the greeting offers: home's flags that the other backend has too
/// (when known) and that we understand.
///
/// LONG_PASSWORD keeps home's meaning: where home lacks it (MariaDB) the
/// extended flags are offered, where home has it they are not. MARIADB_BULK
/// needs home's alone: what another family's server does not know is executed
/// there row by row. SSL is never in the answer: TLS towards the client is
/// ours, so the caller adds it when it can serve it.
pub fn offered(home: Capabilities, other: Option<Capabilities>) -> Capabilities {
    let own = Capabilities::MARIADB_BULK;
    let both = home & (other.unwrap_or(home) | own) & understood();
    let kept = both.without(Capabilities::SSL | Capabilities::SSL_VERIFY_SERVER_CERT);
    if home.has(Capabilities::LONG_PASSWORD) {
        return Capabilities(u64::from(kept.low())).with(Capabilities::LONG_PASSWORD);
    }
    kept.without(Capabilities::LONG_PASSWORD)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn masked_flags_never_pass() {
        let all = Capabilities(u64::MAX).without(Capabilities::LONG_PASSWORD);
        for other in [None, Some(all)] {
            let o = offered(all, other);
            for (flag, name, _) in MASKED {
                assert!(!o.has(*flag), "{name}");
                assert!(NAMES.iter().any(|(n, f)| n == name && f == flag));
            }
            assert_eq!(o.bits() >> 38, 0, "unknown flags");
            assert!(!o.has(Capabilities::SSL));
            assert!(o.has(Capabilities::MARIADB_EXTENDED_METADATA | Capabilities::SESSION_TRACK));
        }
    }

    #[test]
    fn long_password_follows_home() {
        let mysql = Capabilities(0xFFFF_FFFF);
        let maria = Capabilities(0x1F_81BF_F7FE);
        let o = offered(mysql, Some(maria));
        assert!(o.has(Capabilities::LONG_PASSWORD));
        assert_eq!(o.extended(), 0);
        let o = offered(maria, Some(mysql));
        assert!(!o.has(Capabilities::LONG_PASSWORD));
        assert_eq!(
            o.extended(),
            Capabilities::MARIADB_BULK.extended(),
            "the other backend has none"
        );
        let o = offered(maria, Some(maria));
        assert!(o.has(Capabilities::MARIADB_EXTENDED_METADATA));
    }

    #[test]
    fn extended_flags_need_long_password_absent() {
        assert_eq!(Capabilities::from_parts(1, 0x1D).extended(), 0);
        assert_eq!(Capabilities::from_parts(2, 0x1D).extended(), 0x1D);
        let names: Vec<_> = Capabilities(6).names().collect();
        assert_eq!(names, ["FOUND_ROWS", "LONG_FLAG"]);
    }
}
