//! What a packet's first bytes decide. Pure state changes: no positions.

use super::{After, PrepareOk, ResponseCursor, State, Then};
use crate::wire::frame::{Header, PAYLOAD_MAX};
use crate::wire::{Capabilities, Reader, ResponseKind, Status};

/// Longest EOF packet without DEPRECATE_EOF, bytes; servers send 5.
const EOF_LEN_MAX: usize = 8;

impl ResponseCursor {
    /// True for an OK packet (0xFE included) whose status announces session
    /// state, in a place where an OK packet can stand, and for an EOF packet
    /// in its place: MariaDB sets the flag there as well.
    #[inline]
    pub(super) fn has_state(&self, head: Header, look: &[u8]) -> bool {
        let status = match (self.state, look.first()) {
            (State::Head | State::Auth, Some(0)) => read_ok(look).map(|ok| ok.status),
            (State::Head | State::Rows | State::DefsEnd(_), Some(0xFE)) if self.is_end(head) => {
                if self.caps.has(Capabilities::DEPRECATE_EOF) {
                    read_ok(look).map(|ok| ok.status)
                } else {
                    read_eof(look).map(|(_, status)| status)
                }
            }
            _ => None,
        };
        status.is_some_and(|status| status.has(Status::SESSION_STATE_CHANGED))
    }

    /// True when a packet that begins with 0xFE is an end and not a row.
    #[inline]
    fn is_end(&self, head: Header) -> bool {
        if self.caps.has(Capabilities::DEPRECATE_EOF) {
            head.len < PAYLOAD_MAX
        } else {
            head.len <= EOF_LEN_MAX
        }
    }

    /// Moves on by the packet with this header, whose first payload bytes
    /// are `look`.
    #[inline]
    pub(super) fn decide(&mut self, head: Header, look: &[u8]) -> Result<(), &'static str> {
        let first = look.first().copied();
        if first == Some(0xFF) {
            return self.error(look);
        }
        match self.state {
            State::Head => self.head(head, look),
            State::Defs { left, then } => {
                self.definition(left, then);
                Ok(())
            }
            State::DefsEnd(then) => self.definitions_end(head, look, then),
            State::Rows => {
                if first == Some(0xFE) && self.is_end(head) {
                    self.end(look)?;
                }
                Ok(())
            }
            State::Prepare => self.prepared(look),
            State::OnePacket => {
                self.over(first.unwrap_or(0));
                Ok(())
            }
            State::Auth => {
                if first == Some(0) {
                    self.ok(look)?;
                    self.state = State::Over;
                } else {
                    self.after = After::Auth;
                }
                Ok(())
            }
            State::Binlog => {
                // Events begin with 0x00. MySQL ends with an OK under
                // DEPRECATE_EOF, MariaDB always with an EOF.
                if first == Some(0xFE) && self.is_end(head) {
                    self.over(0xFE);
                }
                Ok(())
            }
            State::Over => Err("a packet after the end of the response"),
        }
    }

    fn head(&mut self, head: Header, look: &[u8]) -> Result<(), &'static str> {
        match look.first().copied() {
            None => Err("an empty packet at the head of a response"),
            Some(0x00) => {
                self.ok(look)?;
                self.next_result();
                Ok(())
            }
            Some(0xFE) => {
                if !self.is_end(head) {
                    return Err("a column count of eight bytes");
                }
                self.end(look)
            }
            Some(0xFB) => {
                self.summary.last_head = 0xFB;
                self.after = After::Infile;
                Ok(())
            }
            Some(first) => {
                let count = Reader::new(look)
                    .lenenc_int()
                    .and_then(|n| u32::try_from(n).ok())
                    .ok_or("a column count")?;
                self.summary.last_head = first;
                self.summary.result_sets = self.summary.result_sets.saturating_add(1);
                self.summary.columns = count;
                self.definitions(count, Then::Rows);
                Ok(())
            }
        }
    }

    /// `count` definitions come next, then `then`.
    fn definitions(&mut self, count: u32, then: Then) {
        if count == 0 {
            return self.after_definitions(then);
        }
        self.state = State::Defs { left: count, then };
    }

    #[inline]
    fn definition(&mut self, left: u32, then: Then) {
        let left = left.saturating_sub(1);
        if left > 0 {
            self.state = State::Defs { left, then };
        } else if self.caps.has(Capabilities::DEPRECATE_EOF) {
            self.after_definitions(then);
        } else {
            self.state = State::DefsEnd(then);
        }
    }

    fn after_definitions(&mut self, then: Then) {
        match then {
            Then::Rows => self.state = State::Rows,
            Then::Columns(n) => self.definitions(u32::from(n), Then::Over),
            Then::Over => self.over(0),
        }
    }

    /// The EOF after definitions. With a cursor open it is the end of an
    /// EXECUTE's answer; otherwise its status is not yet the result's.
    fn definitions_end(
        &mut self,
        head: Header,
        look: &[u8],
        then: Then,
    ) -> Result<(), &'static str> {
        if look.first() != Some(&0xFE) || head.len > EOF_LEN_MAX {
            return Err("no EOF after the definitions");
        }
        let (_, status) = read_eof(look).ok_or("an EOF packet")?;
        if then == Then::Rows && status.has(Status::CURSOR_EXISTS) {
            return self.end(look);
        }
        // MySQL without DEPRECATE_EOF: the EOF after the row of OUT
        // parameters lacks MORE_RESULTS, yet an OK follows.
        if status.has(Status::PS_OUT_PARAMS.with(Status::MORE_RESULTS)) {
            self.carried = Status::PS_OUT_PARAMS.with(Status::MORE_RESULTS);
        }
        self.after_definitions(then);
        Ok(())
    }

    fn prepared(&mut self, look: &[u8]) -> Result<(), &'static str> {
        let mut r = Reader::new(look);
        let read = (|| {
            let zero = r.u8()? == 0;
            let ok = PrepareOk {
                statement_id: r.u32()?,
                columns: r.u16()?,
                params: r.u16()?,
            };
            // A filler byte, then warnings, which old servers leave out.
            let _ = r.u8();
            zero.then_some((ok, r.u16().unwrap_or(0)))
        })();
        let (ok, warnings) = read.ok_or("the answer to a PREPARE")?;
        self.summary.prepare = Some(ok);
        self.summary.warnings = warnings;
        self.summary.last_head = 0;
        if ok.params > 0 {
            self.definitions(u32::from(ok.params), Then::Columns(ok.columns));
        } else {
            self.after_definitions(Then::Columns(ok.columns));
        }
        Ok(())
    }

    /// An OK packet's numbers.
    fn ok(&mut self, look: &[u8]) -> Result<(), &'static str> {
        let ok = read_ok(look).ok_or("an OK packet")?;
        self.summary.last_head = 0;
        self.summary.affected_rows = ok.affected_rows;
        self.summary.insert_id = ok.insert_id;
        self.summary.status = ok.status;
        self.summary.warnings = ok.warnings;
        Ok(())
    }

    /// The end of a result: EOF, or OK with 0xFE. A five-byte packet under
    /// DEPRECATE_EOF would be an EOF from a server that sends one anyway
    /// (an OK has at least seven).
    fn end(&mut self, look: &[u8]) -> Result<(), &'static str> {
        let oks = self.caps.has(Capabilities::DEPRECATE_EOF) && look.len() > 5;
        let (warnings, status) = if oks {
            let ok = read_ok(look).ok_or("the OK at the end of a result")?;
            (ok.warnings, ok.status)
        } else {
            // A bare 0xFE byte is an EOF of the oldest protocol.
            read_eof(look).unwrap_or_default()
        };
        self.summary.last_head = 0xFE;
        self.summary.warnings = warnings;
        self.summary.status = status.with(self.carried);
        self.carried = Status(0);
        self.next_result();
        Ok(())
    }

    /// After a result: the next one, or the end of the response.
    fn next_result(&mut self) {
        self.summary.results = self.summary.results.saturating_add(1);
        let more = self.summary.status.has(Status::MORE_RESULTS);
        self.state = if more && self.kind == ResponseKind::Generic {
            State::Head
        } else {
            State::Over
        };
    }

    fn over(&mut self, first: u8) {
        self.summary.last_head = first;
        self.state = State::Over;
    }

    /// An ERR packet, which ends any response, or a progress report.
    fn error(&mut self, look: &[u8]) -> Result<(), &'static str> {
        let mut r = Reader::new(look);
        let code = r.u8().and_then(|_| r.u16()).ok_or("an ERR packet")?;
        if code == 0xFFFF && self.caps.has(Capabilities::MARIADB_PROGRESS) {
            return Ok(());
        }
        self.summary.is_error = true;
        self.summary.error_code = code;
        self.over(0xFF);
        Ok(())
    }
}

struct OkHead {
    affected_rows: u64,
    insert_id: u64,
    status: Status,
    warnings: u16,
}

/// The fixed part of an OK packet.
#[inline]
fn read_ok(look: &[u8]) -> Option<OkHead> {
    let mut r = Reader::new(look);
    r.u8()?;
    Some(OkHead {
        affected_rows: r.lenenc_int()?,
        insert_id: r.lenenc_int()?,
        status: Status(r.u16()?),
        warnings: r.u16().unwrap_or(0),
    })
}

/// Warnings and status of an EOF packet.
#[inline]
fn read_eof(look: &[u8]) -> Option<(u16, Status)> {
    let mut r = Reader::new(look);
    r.u8()?;
    Some((r.u16()?, Status(r.u16()?)))
}
