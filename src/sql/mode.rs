//! What a statement's text means depends on: the session's SQL mode, its
//! client character set, and the server that will read it.

/// How client bytes are to be read: which bytes may be the second half of a
/// character, and so must not be taken for a quote or a backslash.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub enum CharsetClass {
    /// Bytes below 0x80 always stand for themselves (utf8, latin1, euc…).
    #[default]
    Safe,
    /// gbk and gb18030: lead 0x81–0xFE, trail from 0x40.
    Gbk,
    /// sjis and cp932: lead 0x81–0x9F and 0xE0–0xFC, trail from 0x40.
    Sjis,
    /// big5: lead 0xA1–0xF9, trail from 0x40.
    Big5,
}

impl CharsetClass {
    /// The class of a MySQL character set (or collation) name.
    pub fn of_name(name: &[u8]) -> CharsetClass {
        let is = |prefix: &[u8]| {
            name.get(..prefix.len())
                .is_some_and(|head| head.eq_ignore_ascii_case(prefix))
        };
        if is(b"gbk") || is(b"gb18030") {
            CharsetClass::Gbk
        } else if is(b"sjis") || is(b"cp932") {
            CharsetClass::Sjis
        } else if is(b"big5") {
            CharsetClass::Big5
        } else {
            CharsetClass::Safe
        }
    }

    /// Whether `lead`, `trail` are one character of two bytes.
    #[inline]
    pub(crate) fn pair(self, lead: u8, trail: u8) -> bool {
        let is_lead = match self {
            CharsetClass::Safe => return false,
            CharsetClass::Gbk => (0x81..=0xFE).contains(&lead),
            CharsetClass::Sjis => matches!(lead, 0x81..=0x9F | 0xE0..=0xFC),
            CharsetClass::Big5 => (0xA1..=0xF9).contains(&lead),
        };
        is_lead && matches!(trail, 0x40..=0x7E | 0x80..=0xFE)
    }
}

/// The server that reads the text: decides which executable comments live.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct ServerKind {
    /// MariaDB, not MySQL.
    pub mariadb: bool,
    /// major × 10000 + minor × 100 + patch: 101119, 90704.
    pub version: u32,
}

impl Default for ServerKind {
    fn default() -> Self {
        ServerKind {
            mariadb: false,
            version: 80_000,
        }
    }
}

/// All that [`super::scan`] needs to know about the session.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct ScanMode {
    /// `"x"` is a name, not a string.
    pub ansi_quotes: bool,
    /// A backslash in a string is a plain character.
    pub no_backslash_escapes: bool,
    /// The client character set's class.
    pub charset: CharsetClass,
    /// The server the text goes to.
    pub server: ServerKind,
}

/// Transaction isolation.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub enum Isolation {
    /// READ UNCOMMITTED
    ReadUncommitted,
    /// READ COMMITTED
    ReadCommitted,
    /// REPEATABLE READ, the servers' default
    #[default]
    RepeatableRead,
    /// SERIALIZABLE
    Serializable,
}

impl Isolation {
    /// As `SET TRANSACTION ISOLATION LEVEL` writes it.
    pub const fn as_sql(self) -> &'static str {
        match self {
            Isolation::ReadUncommitted => "READ UNCOMMITTED",
            Isolation::ReadCommitted => "READ COMMITTED",
            Isolation::RepeatableRead => "REPEATABLE READ",
            Isolation::Serializable => "SERIALIZABLE",
        }
    }

    /// Reads the value of `tx_isolation`/`transaction_isolation`, with `-`,
    /// `_` or blanks between the words, in any case.
    pub fn parse(text: &[u8]) -> Option<Isolation> {
        let mut folded = [0u8; 16];
        let folded = folded.get_mut(..text.len())?;
        for (to, from) in folded.iter_mut().zip(text) {
            *to = match from.to_ascii_uppercase() {
                b'-' | b'_' => b' ',
                other => other,
            };
        }
        match &*folded {
            b"READ UNCOMMITTED" => Some(Isolation::ReadUncommitted),
            b"READ COMMITTED" => Some(Isolation::ReadCommitted),
            b"REPEATABLE READ" => Some(Isolation::RepeatableRead),
            b"SERIALIZABLE" => Some(Isolation::Serializable),
            _ => None,
        }
    }
}
