//! Bytes of one event after the other into [`Event`]s.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;

use super::event::{self, Body, Event, HEADER_LEN, Header, Origin};
use super::payload::Payload;
use super::rows::{Form, Rows};
use super::table_map::TableMap;
use super::{DecodeError, gtid_event, need};
use crate::wire::Reader;

/// Most table maps that one statement may name. A multi-table statement names
/// at most 61 tables and their triggers' and children's.
const MAPS_MAX: usize = 4096;

/// Bytes of a CRC32 behind an event.
const CHECKSUM_LEN: usize = 4;

/// What an event's bytes were.
pub enum Decoded {
    /// An event.
    Event(Event),
    /// A whole transaction's events: feed each to
    /// [`Decoder::decode_inner`].
    Payload(Header, Payload),
}

/// Keeps what events need of the ones before: format and table maps.
#[derive(Default)]
pub struct Decoder {
    /// From the format description; None before it.
    checksums: Option<bool>,
    /// Table ids have 4 bytes (MySQL 5.1's first versions).
    short_ids: bool,
    maps: HashMap<u64, Arc<TableMap>>,
    /// Of the event read last from the log.
    origin: Origin,
}

/// CRC-32 as the servers compute it (that of zlib).
fn crc32(parts: [&[u8]; 2]) -> u32 {
    let mut crc = flate2::Crc::new();
    for part in parts {
        crc.update(part);
    }
    crc.sum()
}

impl Decoder {
    /// For a new connection.
    pub fn new() -> Decoder {
        Decoder::default()
    }

    /// Reads one event as the server sent it.
    ///
    /// # Errors
    /// Truncated, damaged, or of an unknown kind that may matter.
    pub fn decode(&mut self, bytes: &Bytes) -> Result<Decoded, DecodeError> {
        let header = Header::read(bytes).ok_or(DecodeError::new("header", 0))?;
        let place = |e: DecodeError| DecodeError {
            kind: header.kind,
            end: header.end,
            ..e
        };
        let (bytes, sum) = self.verified(bytes, &header).map_err(place)?;
        self.origin = Origin {
            start: header.end.saturating_sub(header.length),
            end: header.end,
            sum,
        };
        let body = bytes.slice(HEADER_LEN..);
        self.body(&header, &body).map_err(place)
    }

    /// Reads one event out of a payload: it has no checksum of its own.
    ///
    /// # Errors
    /// As [`Decoder::decode`]; a payload in a payload.
    pub fn decode_inner(&mut self, bytes: &Bytes) -> Result<Event, DecodeError> {
        let header = Header::read(bytes).ok_or(DecodeError::new("header", 0))?;
        let place = |e: DecodeError| DecodeError {
            kind: header.kind,
            end: header.end,
            ..e
        };
        let body = bytes.slice(HEADER_LEN..);
        match self.body(&header, &body).map_err(place)? {
            Decoded::Event(event) => Ok(event),
            Decoded::Payload(..) => Err(place(DecodeError::new("payload in a payload", 0))),
        }
    }

    /// The event without its checksum, which is right, and the sum.
    fn verified(&self, bytes: &Bytes, header: &Header) -> Result<(Bytes, u32), DecodeError> {
        const FORMAT: u8 = 15;
        if usize::try_from(header.length) != Ok(bytes.len()) {
            return Err(DecodeError::new("length of the event", 9));
        }
        let end = bytes.len() - CHECKSUM_LEN.min(bytes.len() - HEADER_LEN);
        let (data, sum) = bytes.split_at(end);
        let sum = Reader::new(sum).u32();
        if self.checksums == Some(false) && header.kind != FORMAT {
            // Only needed to know the event again.
            return Ok((bytes.clone(), crc32([bytes, &[]])));
        }
        let made = crc32([data, &[]]);
        let right = || Some(made) == sum || Some(Self::crc_not_in_use(data)) == sum;
        match self.checksums {
            _ if header.kind == FORMAT => {
                // It always has the place, and a sum if it says so.
                if Self::announces_checksums(data) && !right() {
                    return Err(DecodeError::new("checksum", end));
                }
            }
            Some(true) if !right() => return Err(DecodeError::new("checksum", end)),
            Some(_) => {}
            // Before the format is known there are artificial events only;
            // whether they have a sum shows.
            None if right() => {}
            None => return Ok((bytes.clone(), made)),
        }
        Ok((bytes.slice(..end), made))
    }

    /// A format description's sum is made without its "in use" flag.
    fn crc_not_in_use(data: &[u8]) -> u32 {
        const FLAGS_AT: usize = 17;
        let mut head = [0; HEADER_LEN];
        for (to, from) in head.iter_mut().zip(data) {
            *to = *from;
        }
        if let Some(flags) = head.get_mut(FLAGS_AT) {
            *flags &= !1;
        }
        crc32([&head, data.get(HEADER_LEN..).unwrap_or_default()])
    }

    /// The last byte before the sum is the algorithm: 1 is CRC32.
    fn announces_checksums(data: &[u8]) -> bool {
        data.last() == Some(&1)
    }

    fn body(&mut self, header: &Header, body: &Bytes) -> Result<Decoded, DecodeError> {
        if header.kind == 40 {
            self.maps.clear();
            return Ok(Decoded::Payload(*header, Payload::read(body)?));
        }
        let body = if let Some(form) = Form::of(header.kind) {
            let maps = &self.maps;
            let rows = Rows::read(body, &form, self.short_ids, |id| maps.get(&id).cloned())?;
            if rows.ends_statement {
                self.maps.clear();
            }
            Body::Rows(rows)
        } else {
            self.other(header, body)?
        };
        Ok(Decoded::Event(Event {
            header: *header,
            origin: self.origin,
            body,
        }))
    }

    fn other(&mut self, header: &Header, body: &Bytes) -> Result<Body, DecodeError> {
        let r = &mut Reader::new(body);
        Ok(match header.kind {
            2 | 18 | 165 => {
                self.maps.clear();
                Body::Query(event::query(body, header.kind, header.timestamp)?)
            }
            3 => Body::Stop,
            4 => {
                self.maps.clear();
                event::rotate(body)?
            }
            5 | 13 | 14 => Body::StatementContext,
            15 => self.format(body)?,
            16 => {
                self.maps.clear();
                Body::Commit {
                    xid: need(r.u64(), "commit", r)?,
                }
            }
            19 => {
                let map = Arc::new(TableMap::read(body, self.short_ids)?);
                if self.maps.len() >= MAPS_MAX {
                    return Err(DecodeError::new("too many tables in a statement", 0));
                }
                self.maps.insert(map.id, map.clone());
                Body::TableMap(map)
            }
            26 => event::incident(body)?,
            27 | 41 => Body::Heartbeat,
            29 => Body::Text(body.slice(body.len().min(1)..)),
            33 => Body::Transaction(gtid_event::mysql(body, false)?),
            34 => Body::Transaction(gtid_event::mysql(body, true)?),
            38 => event::xa_prepare(body)?,
            42 => Body::Transaction(gtid_event::tagged(body)?),
            160 => Body::Text(body.clone()),
            162 => Body::Transaction(gtid_event::maria(body, header.server_id)?),
            163 => Body::Positions(gtid_event::maria_list(body)?),
            // Previous GTIDs, group replication's, MariaDB's binlog checkpoint
            // and start of encryption (the dump is decrypted).
            28 | 35..=37 | 161 | 164 => Body::Ignored,
            _ if header.flags & Header::IGNORABLE != 0 => Body::Ignored,
            _ => return Err(DecodeError::new("event of an unknown type", 0)),
        })
    }

    /// FORMAT_DESCRIPTION (15); `body` is without the sum.
    fn format(&mut self, body: &Bytes) -> Result<Body, DecodeError> {
        const TABLE_MAP: usize = 19;
        const VERSION_LEN: usize = 50;
        let r = &mut Reader::new(body);
        if need(r.u16(), "binlog version", r)? != 4 {
            return Err(DecodeError::new("binlog version is not 4", 0));
        }
        let version = need(r.bytes(VERSION_LEN), "server version", r)?;
        need(r.u32(), "format description", r)?;
        if usize::from(need(r.u8(), "format description", r)?) != HEADER_LEN {
            return Err(DecodeError::new("length of headers", r.pos()));
        }
        let lengths = r.rest();
        self.short_ids = lengths.get(TABLE_MAP - 1) == Some(&6);
        self.checksums = Some(Self::announces_checksums(lengths));
        self.maps.clear();
        let version = version.split(|b| *b == 0).next().unwrap_or_default();
        Ok(Body::Format(String::from_utf8_lossy(version).into_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn event(kind: u8, body: &[u8]) -> Bytes {
        let mut out = vec![0; 4];
        out.push(kind);
        out.extend_from_slice(&1u32.to_le_bytes());
        let length = u32::try_from(HEADER_LEN + body.len()).unwrap();
        out.extend_from_slice(&length.to_le_bytes());
        out.extend_from_slice(&[0; 6]);
        out.extend_from_slice(body);
        out.into()
    }

    fn plain() -> Decoder {
        Decoder {
            checksums: Some(false),
            ..Decoder::default()
        }
    }

    #[test]
    fn unknown_kinds_stop_the_reader() {
        let error = plain().decode(&event(99, b"x")).err().unwrap();
        assert_eq!(error.kind, 99);
        let mut ignorable = event(99, b"x").to_vec();
        ignorable[17] = 0x80;
        assert!(plain().decode(&ignorable.into()).is_ok());
    }

    #[test]
    fn truncated_and_damaged_events_are_refused() {
        let whole = event(16, &7u64.to_le_bytes());
        assert!(plain().decode(&whole).is_ok());
        for n in 0..whole.len() {
            assert!(plain().decode(&whole.slice(..n)).is_err(), "{n} bytes");
        }
        let mut summed = event(16, &[7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]).to_vec();
        let at = summed.len() - 4;
        let sum = crc32([&summed[..at], &[]]);
        summed[at..].copy_from_slice(&sum.to_le_bytes());
        let mut decoder = Decoder {
            checksums: Some(true),
            ..Decoder::default()
        };
        assert!(decoder.decode(&summed.clone().into()).is_ok());
        summed[20] ^= 1;
        assert!(decoder.decode(&summed.into()).is_err());
    }

    proptest! {
        #[test]
        fn any_body_is_read_or_refused(
            kind in any::<u8>(),
            body in proptest::collection::vec(any::<u8>(), 0..120),
        ) {
            let mut decoder = plain();
            if let Ok(Decoded::Event(Event { body: Body::Rows(rows), .. })) =
                decoder.decode(&event(kind, &body))
            {
                let unsigned = vec![false; rows.table.columns.len()];
                for row in rows.images(Some(&unsigned)).take(1000) {
                    let _ = row;
                }
            }
        }
    }
}
