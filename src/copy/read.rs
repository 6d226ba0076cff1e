//! A SELECT's rows as they come: packets that are copied once and never taken
//! apart.

use super::raw::{RawRows, written};
use crate::leg::{Answer, Leg, Lost, put_query};
use crate::rows::shape::TableShape;
use crate::wire::frame::{HEADER_LEN, PAYLOAD_MAX, header};
use crate::wire::{Capabilities, Reader};

/// Largest row, in bytes: what servers let any be.
const ROW_MAX: usize = 1 << 30;

/// An EOF packet is shorter, and a row that begins as one is not.
const EOF_LEN: usize = 9;

/// Rows that were read.
pub(super) struct Selected {
    pub rows: RawRows,
    /// There are no more; else the connection has the rest of the answer still.
    pub ended: bool,
}

/// Reads rows until there are `most` bytes of them.
///
/// # Errors
/// The server's, or the connection's. Unless all rows were read, the leg is of
/// no use any more.
pub(super) async fn select(
    leg: &mut Leg,
    sql: &[u8],
    shape: &TableShape,
    most: usize,
) -> Result<Selected, Lost> {
    let mut out = Vec::with_capacity(sql.len() + 8);
    put_query(&mut out, leg.capabilities, sql);
    leg.send(&out).await?;
    let mut packets = Packets {
        leg,
        joined: Vec::new(),
        used: 0,
    };
    packets.columns(written(shape).count()).await?;
    let short = match packets.leg.capabilities.has(Capabilities::DEPRECATE_EOF) {
        true => PAYLOAD_MAX,
        false => EOF_LEN,
    };
    let mut rows = RawRows::default();
    while rows.size() < most {
        let packet = packets.next().await?;
        match packet.first() {
            Some(0xFF) => return Err(packets.refused()),
            Some(0xFE) if packet.len() < short => {
                packets.consume();
                return Ok(Selected { rows, ended: true });
            }
            _ => rows.push_packet(packet),
        }
    }
    Ok(Selected { rows, ended: false })
}

/// The logical packets of an answer.
struct Packets<'a> {
    leg: &'a mut Leg,
    /// A payload of several physical packets.
    joined: Vec<u8>,
    /// Bytes of the leg's input that the last packet takes up.
    used: usize,
}

impl Packets<'_> {
    fn consume(&mut self) {
        self.leg.input.consume(std::mem::take(&mut self.used));
        self.joined.clear();
    }

    /// The next one's payload.
    async fn next(&mut self) -> Result<&[u8], Lost> {
        self.consume();
        let mut goes_on = false;
        loop {
            let length = self.physical().await?;
            if length < PAYLOAD_MAX && !goes_on {
                self.used = HEADER_LEN + length;
                return Ok(self
                    .leg
                    .input
                    .pending()
                    .get(HEADER_LEN..self.used)
                    .unwrap_or_default());
            }
            if self.joined.len() + length > ROW_MAX {
                return Err(self.leg.lost(format!("a row over {ROW_MAX} bytes")));
            }
            let pending = self.leg.input.pending();
            let part = pending.get(HEADER_LEN..HEADER_LEN + length);
            self.joined.extend_from_slice(part.unwrap_or_default());
            self.leg.input.consume(HEADER_LEN + length);
            goes_on = length == PAYLOAD_MAX;
            if !goes_on {
                return Ok(&self.joined);
            }
        }
    }

    /// Waits until a physical packet is there as a whole: its payload's length.
    async fn physical(&mut self) -> Result<usize, Lost> {
        loop {
            let pending = self.leg.input.pending();
            if let Some(head) = header(pending) {
                if pending.len() >= head.total() {
                    return Ok(head.len);
                }
                self.leg.input.reserve(head.total());
            }
            self.leg.fill().await?;
        }
    }

    /// Takes the head of a result of so many columns.
    async fn columns(&mut self, count: usize) -> Result<(), Lost> {
        let head = self.next().await?;
        match head.first() {
            Some(0xFF) => return Err(self.refused()),
            Some(0x00 | 0xFB | 0xFE) | None => {
                return Err(self.leg.lost("no rows where rows were asked for"));
            }
            Some(_) => {}
        }
        let columns = Reader::new(head).lenenc_int();
        if columns != u64::try_from(count).ok() {
            return Err(self.leg.lost("rows of other columns than were asked for"));
        }
        let eof = usize::from(!self.leg.capabilities.has(Capabilities::DEPRECATE_EOF));
        for _ in 0..count + eof {
            self.next().await?;
        }
        Ok(())
    }

    /// The packet is an error's.
    fn refused(&mut self) -> Lost {
        let end = self.used;
        let bytes = self.leg.input.pending().get(..end).unwrap_or_default();
        let answer = Answer {
            bytes: bytes.to_vec(),
            ..Answer::default()
        };
        let lost = self.leg.lost(answer.error_text());
        self.consume();
        lost
    }
}
