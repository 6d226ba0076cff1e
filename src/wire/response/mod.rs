//! The response cursor: follows the server's answer without reading rows.
//!
//! [`ResponseCursor::feed`] takes the bytes as they arrive, jumps from
//! header to header and looks at the first bytes of those packets that can
//! decide something:
//!
//! ```text
//! Head → OK | ERR | INFILE | column count → definitions → [EOF] → rows → end → Head if MORE_RESULTS
//! Prepare head → parameter definitions [EOF] → column definitions [EOF]
//! ```
//!
//! A packet head split over two feeds is kept in a stash of [`STASH_MAX`]
//! bytes. While session state is reported the head is not taken at all
//! before it is complete ([`Event::NeedWhole`]), because a packet that the
//! caller may rewrite must not be half forwarded.
//!
//! Rules that are easy to get wrong, each with a test: a row may begin with
//! 0xFE (its length then is 0xFFFFFF, or above 8 without DEPRECATE_EOF); the
//! packet after a full one is a continuation, whatever its first byte; error
//! 0xFFFF is a progress report only where MARIADB_PROGRESS was negotiated;
//! MySQL announces the OK after a procedure's OUT parameters in the EOF
//! *before* their row and no longer in the one after it.

use super::frame::{HEADER_LEN, Header, PAYLOAD_MAX, header};
use super::{Capabilities, ResponseKind, Status, WireError};

mod look;
#[cfg(test)]
mod tests;

/// Bytes of a packet head the cursor may keep between feeds: header and
/// [`LOOK_MAX`] payload bytes, rounded up.
pub const STASH_MAX: usize = 32;
/// Payload bytes looked at: an OK packet up to its warnings
/// (1 + 9 + 9 + 2 + 2).
const LOOK_MAX: usize = 23;
/// Largest OK packet handed out for rewriting, bytes with its header; a
/// larger one (a variable of a megabyte) passes unexamined rather than being
/// buffered.
pub const STATE_PACKET_MAX: usize = 1 << 20;

/// What [`ResponseCursor::feed`] did.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Fed {
    /// Bytes of the slice that belong to what was followed so far: forward
    /// them, and feed what is left again.
    pub consumed: usize,
    /// Why it stopped.
    pub event: Event,
}

/// Why [`ResponseCursor::feed`] stopped.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Event {
    /// All bytes consumed, the response is not over.
    More,
    /// The response is over after the consumed bytes. Fed again before
    /// [`ResponseCursor::begin`], the cursor consumes nothing and says so
    /// again: such bytes are unsolicited (an error of a server going away).
    Done,
    /// The server asked for a local file: the client now sends packets up to
    /// an empty one. Then keep feeding: OK or ERR follows.
    InfileRequest,
    /// COM_CHANGE_USER: one packet that is neither OK nor ERR was consumed;
    /// the client answers, or (caching_sha2's fast path) the OK follows at
    /// once. The kind also serves for the login after the greeting.
    AuthContinue,
    /// The OK packet at [`Summary::state_packet`] (whole, its end is the end
    /// of the consumed bytes) carries session state. [`Summary::done`] tells
    /// whether the response is over with it; if not, keep feeding.
    StateChange,
    /// The consumed bytes end before a packet's header; feed again with at
    /// least this many bytes (4 ..= [`STATE_PACKET_MAX`]) from there. Occurs
    /// only while state is reported: for OK packets with state, and (below
    /// 28 bytes) for heads too short to tell.
    NeedWhole(usize),
}

/// The numbers of a COM_STMT_PREPARE answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct PrepareOk {
    /// Statement id on this leg.
    pub statement_id: u32,
    /// Columns of its result.
    pub columns: u16,
    /// Parameters.
    pub params: u16,
}

/// What is known of a response so far.
#[derive(Clone, Copy, Default, Debug, PartialEq, Eq)]
pub struct Summary {
    /// The response is over.
    pub done: bool,
    /// Status of the last OK or EOF that ended a result. Error packets carry
    /// none: see [`Summary::is_error`].
    pub status: Status,
    /// Warnings, from the same packet.
    pub warnings: u16,
    /// Affected rows of the last OK.
    pub affected_rows: u64,
    /// Insert id of the last OK.
    pub insert_id: u64,
    /// The response ended with an error.
    pub is_error: bool,
    /// Its number, or 0.
    pub error_code: u16,
    /// Results that ended well, with columns or without.
    pub results: u32,
    /// Results with columns begun.
    pub result_sets: u32,
    /// Columns of the last of them.
    pub columns: u32,
    /// Answer of a COM_STMT_PREPARE.
    pub prepare: Option<PrepareOk>,
    /// Physical packets seen.
    pub packets: u64,
    /// First byte of the last packet that decided something (OK, ERR, EOF,
    /// column count, file request).
    pub last_head: u8,
    /// After [`Event::StateChange`]: where the packet lies in the slice fed
    /// last, header included.
    pub state_packet: Option<(usize, usize)>,
}

/// Where the cursor stands, at the border of logical packets.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    /// The first packet of an answer or of a further result.
    Head,
    /// Column or parameter definitions left, and what comes after.
    Defs { left: u32, then: Then },
    /// The EOF after definitions (never under DEPRECATE_EOF).
    DefsEnd(Then),
    /// Rows (definitions for COM_FIELD_LIST) up to the end packet.
    Rows,
    /// COM_STMT_PREPARE's first packet.
    Prepare,
    /// One packet of any content, or ERR.
    OnePacket,
    /// COM_CHANGE_USER.
    Auth,
    /// Events up to EOF or ERR.
    Binlog,
    /// Nothing is expected.
    Over,
}

/// What follows definitions.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Then {
    Rows,
    /// Column definitions of a prepared statement (0: none).
    Columns(u16),
    Over,
}

/// What to say at the end of the current logical packet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum After {
    Go,
    Infile,
    Auth,
}

/// Follows one leg's responses. Small and cheap to clone.
#[derive(Clone, Debug)]
pub struct ResponseCursor {
    caps: Capabilities,
    kind: ResponseKind,
    state: State,
    after: After,
    /// The current physical packet is full: the next one continues it.
    continues: bool,
    report: bool,
    /// Status of a definitions' EOF that holds for the result's end too.
    carried: Status,
    stash_len: u8,
    stash: [u8; STASH_MAX],
    /// Payload bytes of the current physical packet not yet seen.
    skip: usize,
    summary: Summary,
}

/// What one step over a packet head decided.
enum Step {
    /// Keep going.
    On,
    /// Stop here with this event.
    Stop(Event),
}

impl ResponseCursor {
    /// A cursor for a leg on which `caps` were negotiated. Nothing is
    /// expected until [`Self::begin`]; session state is reported if `caps`
    /// have SESSION_TRACK.
    pub fn new(caps: Capabilities) -> Self {
        Self {
            caps,
            kind: ResponseKind::None,
            state: State::Over,
            after: After::Go,
            continues: false,
            report: caps.has(Capabilities::SESSION_TRACK),
            carried: Status(0),
            stash_len: 0,
            stash: [0; STASH_MAX],
            skip: 0,
            summary: Summary {
                done: true,
                ..Summary::default()
            },
        }
    }

    /// Turns [`Event::StateChange`] and [`Event::NeedWhole`] on or off; on
    /// has no effect without SESSION_TRACK. Call between responses.
    pub fn report_state(&mut self, on: bool) {
        self.report = on && self.caps.has(Capabilities::SESSION_TRACK);
    }

    /// A command whose answer is of `kind` was sent; whatever was not read
    /// of the last answer is forgotten.
    pub fn begin(&mut self, kind: ResponseKind) {
        self.kind = kind;
        self.after = After::Go;
        self.continues = false;
        self.stash_len = 0;
        self.skip = 0;
        self.carried = Status(0);
        self.summary = Summary::default();
        self.state = match kind {
            ResponseKind::None => State::Over,
            ResponseKind::Generic | ResponseKind::OneEof => State::Head,
            ResponseKind::Prepare => State::Prepare,
            ResponseKind::FieldList | ResponseKind::Fetch => State::Rows,
            ResponseKind::Statistics => State::OnePacket,
            ResponseKind::ChangeUser => State::Auth,
            ResponseKind::BinlogDump => State::Binlog,
        };
        self.summary.done = self.state == State::Over;
    }

    /// The response so far; final once [`Summary::done`].
    pub fn summary(&self) -> &Summary {
        &self.summary
    }

    /// True when no response is being followed.
    pub fn is_done(&self) -> bool {
        self.summary.done
    }

    /// True between packets: nothing of a packet has been consumed whose
    /// rest is still to come, so other packets may be put in here.
    pub fn at_packet_border(&self) -> bool {
        self.skip == 0 && self.stash_len == 0 && !self.continues
    }

    /// Follows `data`, the next bytes from the server. Constant work per
    /// packet; never copies more than [`STASH_MAX`] bytes.
    ///
    /// # Errors
    /// Bytes that cannot be an answer to the command: the stream's borders
    /// are lost and the leg must be closed.
    #[inline]
    pub fn feed(&mut self, data: &[u8]) -> Result<Fed, WireError> {
        let mut pos = 0;
        self.summary.state_packet = None;
        if self.summary.done {
            return Ok(fed(0, Event::Done));
        }
        loop {
            if self.skip > 0 {
                let n = self.skip.min(data.len() - pos);
                pos += n;
                self.skip -= n;
                if self.skip > 0 {
                    return Ok(fed(pos, Event::More));
                }
                if let Some(event) = self.packet_over() {
                    return Ok(fed(pos, event));
                }
            }
            if self.state == State::Rows && self.stash_len == 0 && !self.continues {
                pos = self.skip_rows(data, pos);
            }
            if pos == data.len() {
                return Ok(fed(pos, Event::More));
            }
            if let Step::Stop(event) = self.step(data, &mut pos)? {
                return Ok(fed(pos, event));
            }
        }
    }

    /// The hot loop: whole rows that lie in `data` and cannot be an end.
    #[inline]
    fn skip_rows(&mut self, data: &[u8], mut pos: usize) -> usize {
        let mut packets = 0;
        while let Some(&[a, b, c, _, first]) =
            data.get(pos..).and_then(|rest| rest.first_chunk::<5>())
        {
            let len = u32::from_le_bytes([a, b, c, 0]) as usize;
            let next = pos + HEADER_LEN + len;
            if first >= 0xFE || len == 0 || len == PAYLOAD_MAX || next > data.len() {
                break;
            }
            pos = next;
            packets += 1;
        }
        self.summary.packets += packets;
        pos
    }

    /// Takes one packet head at `data[*pos..]`, or as much of it as there is.
    fn step(&mut self, data: &[u8], pos: &mut usize) -> Result<Step, WireError> {
        let rest = data.get(*pos..).unwrap_or_default();
        if self.stash_len == 0 {
            return match self.wanted(rest) {
                Ok(head) => self.enter(head, rest, data, pos, 0),
                Err(need) if self.report && !self.continues => {
                    Ok(Step::Stop(Event::NeedWhole(need)))
                }
                Err(_) => self.put_aside(data, pos),
            };
        }
        self.put_aside(data, pos)
    }

    /// Adds bytes to the stash until the packet head in it is complete.
    fn put_aside(&mut self, data: &[u8], pos: &mut usize) -> Result<Step, WireError> {
        loop {
            let stash = self.stash;
            let kept = usize::from(self.stash_len);
            let have = stash.get(..kept).unwrap_or_default();
            let need = match self.wanted(have) {
                Ok(head) => {
                    self.stash_len = 0;
                    return self.enter(head, have, data, pos, kept);
                }
                Err(need) => need.min(STASH_MAX),
            };
            let rest = data.get(*pos..).unwrap_or_default();
            let n = need.saturating_sub(kept).min(rest.len());
            if n == 0 {
                return Ok(Step::Stop(Event::More));
            }
            for (slot, byte) in self.stash.iter_mut().skip(kept).zip(rest.iter().take(n)) {
                *slot = *byte;
            }
            self.stash_len += n as u8;
            *pos += n;
        }
    }

    /// The header at the start of `have` if enough of its payload follows to
    /// decide, else the bytes needed.
    #[inline]
    fn wanted(&self, have: &[u8]) -> Result<Header, usize> {
        let Some(head) = header(have) else {
            return Err(HEADER_LEN);
        };
        let look = if self.continues {
            0
        } else {
            match self.state {
                State::Head | State::Prepare | State::DefsEnd(_) => LOOK_MAX,
                // ERR and the end packets are looked into, the rest is not.
                _ => match have.get(HEADER_LEN) {
                    Some(0xFE | 0xFF) => LOOK_MAX,
                    Some(0) if self.state == State::Auth => LOOK_MAX,
                    _ => 1,
                },
            }
        };
        let need = HEADER_LEN + look.min(head.len);
        if have.len() < need {
            Err(need)
        } else {
            Ok(head)
        }
    }

    /// Goes into the packet whose head is in `have`; `taken` bytes of it
    /// came from the stash and are consumed already.
    fn enter(
        &mut self,
        head: Header,
        have: &[u8],
        data: &[u8],
        pos: &mut usize,
        taken: usize,
    ) -> Result<Step, WireError> {
        let start = *pos;
        let look = have
            .get(HEADER_LEN..)
            .map_or(&[][..], |p| p.get(..head.len.min(LOOK_MAX)).unwrap_or(p));
        let state_ok = !self.continues && self.report && taken == 0 && self.has_state(head, look);
        let whole = state_ok && head.total() <= STATE_PACKET_MAX;
        if whole && data.len() - start < head.total() {
            return Ok(Step::Stop(Event::NeedWhole(head.total())));
        }
        self.summary.packets += 1;
        if !self.continues {
            self.decide(head, look)
                .map_err(|what| WireError::new(what, start))?;
        }
        self.continues = head.len == PAYLOAD_MAX;
        if whole {
            *pos = start + head.total();
            self.summary.state_packet = Some((start, *pos));
            self.summary.done = self.state == State::Over;
            return Ok(Step::Stop(Event::StateChange));
        }
        let left = data.len() - start;
        let unseen = head.total().saturating_sub(taken);
        *pos = start + unseen.min(left);
        self.skip = unseen.saturating_sub(left);
        if self.skip == 0
            && let Some(event) = self.packet_over()
        {
            return Ok(Step::Stop(event));
        }
        Ok(Step::On)
    }

    /// A physical packet has been consumed to its end.
    #[inline]
    fn packet_over(&mut self) -> Option<Event> {
        if self.continues {
            return None;
        }
        match std::mem::replace(&mut self.after, After::Go) {
            After::Infile => return Some(Event::InfileRequest),
            After::Auth => return Some(Event::AuthContinue),
            After::Go => {}
        }
        if self.state == State::Over {
            self.summary.done = true;
            return Some(Event::Done);
        }
        None
    }
}

#[inline]
const fn fed(consumed: usize, event: Event) -> Fed {
    Fed { consumed, event }
}
