//! The session state block of OK packets.
//!
//! A block is a list of entries: type, length, data. The families differ in
//! two places: MariaDB may put several variables into one entry, and the
//! data of a state change is one byte with or without its own length.

use super::WireError;
use super::lenenc::{Reader, int_size, put_bytes, put_int};

/// One change that the server reports.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Change<'a> {
    /// A tracked variable has this value now.
    SystemVariable {
        /// Its name.
        name: &'a [u8],
        /// Its value as text.
        value: &'a [u8],
    },
    /// The default database.
    Schema(&'a [u8]),
    /// Something changed that a new connection would not have.
    StateChange(bool),
    /// GTIDs of the commit.
    Gtids {
        /// The data as it stands (encoding byte and string).
        raw: &'a [u8],
        /// The GTID text.
        gtid: &'a [u8],
    },
    /// Statements that would set up the open transaction again.
    TransactionCharacteristics(&'a [u8]),
    /// Eight letters that tell what the open transaction has done.
    TransactionState(&'a [u8]),
    /// A type that is not known; keep its raw entry.
    Unknown {
        /// Its type byte.
        kind: u8,
        /// Its data as it stands.
        data: &'a [u8],
    },
}

const SYSTEM_VARIABLES: u8 = 0;
const SCHEMA: u8 = 1;
const STATE_CHANGE: u8 = 2;
const GTIDS: u8 = 3;
const TRANSACTION_CHARACTERISTICS: u8 = 4;
const TRANSACTION_STATE: u8 = 5;

/// The changes in a block, each with its raw entry (type and length
/// included). Variables that share an entry are given one by one with the
/// same raw entry. After an error nothing more is given.
pub fn changes(block: &[u8]) -> Changes<'_> {
    Changes {
        block: Reader::new(block),
        entry: &[],
        pairs: Reader::new(&[]),
    }
}

/// Iterator of [`changes`].
#[derive(Clone)]
pub struct Changes<'a> {
    block: Reader<'a>,
    /// The entry that `pairs` belongs to.
    entry: &'a [u8],
    /// Variables of the current entry that are still to be given.
    pairs: Reader<'a>,
}

impl<'a> Iterator for Changes<'a> {
    type Item = Result<(Change<'a>, &'a [u8]), WireError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.pairs.is_empty() && self.block.is_empty() {
            return None;
        }
        let at = self.block.pos();
        let next = self.read().ok_or(WireError::new("session state", at));
        if next.is_err() {
            self.block.rest();
            self.pairs = Reader::new(&[]);
        }
        Some(next)
    }
}

impl<'a> Changes<'a> {
    fn read(&mut self) -> Option<(Change<'a>, &'a [u8])> {
        if !self.pairs.is_empty() {
            return Some((pair(&mut self.pairs)?, self.entry));
        }
        let mut after = self.block;
        let kind = after.u8()?;
        let data = after.lenenc_bytes()?;
        let len = after.pos() - self.block.pos();
        let raw = self.block.bytes(len)?;
        if kind == SYSTEM_VARIABLES {
            self.entry = raw;
            self.pairs = Reader::new(data);
            return Some((pair(&mut self.pairs)?, raw));
        }
        Some((single(kind, data)?, raw))
    }
}

fn pair<'a>(r: &mut Reader<'a>) -> Option<Change<'a>> {
    Some(Change::SystemVariable {
        name: r.lenenc_bytes()?,
        value: r.lenenc_bytes()?,
    })
}

fn single(kind: u8, data: &[u8]) -> Option<Change<'_>> {
    let mut r = Reader::new(data);
    Some(match kind {
        SCHEMA => Change::Schema(r.lenenc_bytes()?),
        STATE_CHANGE => Change::StateChange(*data.last()? == b'1'),
        GTIDS => {
            r.u8()?;
            Change::Gtids {
                raw: data,
                gtid: r.lenenc_bytes()?,
            }
        }
        TRANSACTION_CHARACTERISTICS => Change::TransactionCharacteristics(r.lenenc_bytes()?),
        TRANSACTION_STATE => Change::TransactionState(r.lenenc_bytes()?),
        _ => Change::Unknown { kind, data },
    })
}

/// Appends one entry to a block.
pub fn put_change(out: &mut Vec<u8>, change: &Change<'_>) {
    match change {
        Change::SystemVariable { name, value } => {
            put_strings(out, SYSTEM_VARIABLES, &[name, value])
        }
        Change::Schema(s) => put_strings(out, SCHEMA, &[s]),
        Change::StateChange(on) => put_data(out, STATE_CHANGE, &[b'0' + u8::from(*on)]),
        Change::Gtids { raw, .. } => put_data(out, GTIDS, raw),
        Change::TransactionCharacteristics(s) => {
            put_strings(out, TRANSACTION_CHARACTERISTICS, &[s]);
        }
        Change::TransactionState(s) => put_strings(out, TRANSACTION_STATE, &[s]),
        Change::Unknown { kind, data } => put_data(out, *kind, data),
    }
}

fn put_data(out: &mut Vec<u8>, kind: u8, data: &[u8]) {
    out.push(kind);
    put_bytes(out, data);
}

fn put_strings(out: &mut Vec<u8>, kind: u8, strings: &[&[u8]]) {
    let sizes = strings.iter().map(|s| int_size(s.len() as u64) + s.len());
    let size: usize = sizes.sum();
    out.reserve(size + 10);
    out.push(kind);
    put_int(out, size as u64);
    for string in strings {
        put_bytes(out, string);
    }
}

/// The data of a GTID entry: encoding 0, then the text.
pub fn gtid_data(gtid: &[u8]) -> Vec<u8> {
    let mut data = vec![0];
    put_bytes(&mut data, gtid);
    data
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn all(block: &[u8]) -> Vec<Change<'_>> {
        changes(block).map(|c| c.expect("well formed").0).collect()
    }

    #[test]
    fn each_kind_round_trips() {
        let gtid = gtid_data(b"0-1-4711");
        let list = [
            Change::SystemVariable {
                name: b"autocommit",
                value: b"ON",
            },
            Change::Schema(b"shop"),
            Change::StateChange(true),
            Change::Gtids {
                raw: &gtid,
                gtid: b"0-1-4711",
            },
            Change::TransactionCharacteristics(b"START TRANSACTION;"),
            Change::TransactionState(b"T___W___"),
            Change::Unknown {
                kind: 99,
                data: b"x",
            },
        ];
        let mut block = Vec::new();
        for change in &list {
            put_change(&mut block, change);
        }
        assert_eq!(all(&block), list);
        let raw: Vec<u8> = changes(&block)
            .flat_map(|c| c.expect("ok").1.to_vec())
            .collect();
        assert_eq!(raw, block, "raw entries cover the block");
    }

    #[test]
    fn variables_that_share_an_entry() {
        let block = b"\x00\x08\x01a\x01b\x01c\x01d\x01\x02\x01x";
        let given: Vec<_> = changes(block).map(|c| c.expect("ok")).collect();
        assert_eq!(given.len(), 3);
        assert_eq!(given[0].1, given[1].1);
        assert_eq!(
            given[1].0,
            Change::SystemVariable {
                name: b"c",
                value: b"d"
            }
        );
        assert_eq!(given[2].0, Change::Schema(b"x"));
    }

    #[test]
    fn state_change_with_and_without_inner_length() {
        assert_eq!(all(b"\x02\x01\x31"), [Change::StateChange(true)]);
        assert_eq!(all(b"\x02\x02\x01\x31"), [Change::StateChange(true)]);
        assert_eq!(all(b"\x02\x01\x30"), [Change::StateChange(false)]);
    }

    proptest! {
        #[test]
        fn any_bytes_end(b in proptest::collection::vec(any::<u8>(), 0..80)) {
            let given: Vec<_> = changes(&b).collect();
            prop_assert!(given.len() <= b.len());
            let errors = given.iter().filter(|c| c.is_err()).count();
            prop_assert!(errors <= 1);
        }
    }
}
