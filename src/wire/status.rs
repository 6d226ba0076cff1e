//! The server status word that OK and EOF packets carry.

/// Status flags of a session after a command, as the server reports them.
#[derive(Copy, Clone, PartialEq, Eq, Debug, Default)]
pub struct Status(pub u16);

impl Status {
    /// A transaction is open.
    pub const IN_TRANS: Self = Self(0x0001);
    /// Autocommit mode is on.
    pub const AUTOCOMMIT: Self = Self(0x0002);
    /// Another result follows in this response.
    pub const MORE_RESULTS: Self = Self(0x0008);
    /// No good index was used.
    pub const NO_GOOD_INDEX: Self = Self(0x0010);
    /// No index was used.
    pub const NO_INDEX: Self = Self(0x0020);
    /// A read-only cursor is open: rows come by COM_STMT_FETCH.
    pub const CURSOR_EXISTS: Self = Self(0x0040);
    /// The cursor has given its last row.
    pub const LAST_ROW_SENT: Self = Self(0x0080);
    /// A database was dropped.
    pub const DB_DROPPED: Self = Self(0x0100);
    /// NO_BACKSLASH_ESCAPES is in the SQL mode: literals are read otherwise.
    pub const NO_BACKSLASH_ESCAPES: Self = Self(0x0200);
    /// A re-prepare changed the columns of a statement.
    pub const METADATA_CHANGED: Self = Self(0x0400);
    /// The statement was slow.
    pub const SLOW: Self = Self(0x0800);
    /// This result holds OUT parameters of a procedure.
    pub const PS_OUT_PARAMS: Self = Self(0x1000);
    /// The open transaction is read only.
    pub const IN_TRANS_READONLY: Self = Self(0x2000);
    /// The OK packet carries a session state block.
    pub const SESSION_STATE_CHANGED: Self = Self(0x4000);
    /// MariaDB: ANSI_QUOTES is in the SQL mode (`"x"` is a name). MySQL never
    /// sets it.
    pub const ANSI_QUOTES: Self = Self(0x8000);

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

    /// The word as it stands in a packet.
    #[inline]
    pub const fn bits(self) -> u16 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::Status;

    #[test]
    fn flags() {
        let s = Status::AUTOCOMMIT.with(Status::IN_TRANS);
        assert!(s.has(Status::IN_TRANS) && !s.has(Status::MORE_RESULTS));
        assert!(!s.has(Status::IN_TRANS.with(Status::MORE_RESULTS)));
        assert_eq!(s.without(Status::IN_TRANS), Status::AUTOCOMMIT);
        assert_eq!(s.bits(), 3);
    }
}
