//! Commands: their names, what they are answered with, and the two bodies
//! that are read (query text, EXECUTE parameters).

use core::ops::Range;

use super::lenenc::Reader;
use super::{Capabilities, WireError};

mod bulk;
mod execute;
pub use bulk::{Bulk, bulk_for_leg, parse_bulk, single_executions};
pub use execute::{Execute, ParamValue, execute_for_leg, parameter, parameters, parse_execute};

macro_rules! commands {
    ($($konst:ident = $byte:expr, $kind:ident;)*) => {
        $(#[doc = concat!("Command byte ", stringify!($byte), ".")] pub const $konst: u8 = $byte;)*

        /// The command's name, or `"COM_UNKNOWN"`.
        pub fn name(com: u8) -> &'static str {
            match com {
                $($konst => stringify!($konst),)*
                _ => "COM_UNKNOWN",
            }
        }

        /// What a command is answered with. Bytes that no server knows are
        /// answered with an error, which [`ResponseKind::Generic`] covers.
        pub fn response_kind(com: u8) -> ResponseKind {
            match com {
                $($konst => ResponseKind::$kind,)*
                _ => ResponseKind::Generic,
            }
        }
    };
}

commands! {
    COM_SLEEP = 0x00, Generic;
    COM_QUIT = 0x01, None;
    COM_INIT_DB = 0x02, Generic;
    COM_QUERY = 0x03, Generic;
    COM_FIELD_LIST = 0x04, FieldList;
    COM_CREATE_DB = 0x05, Generic;
    COM_DROP_DB = 0x06, Generic;
    COM_REFRESH = 0x07, Generic;
    COM_SHUTDOWN = 0x08, OneEof;
    COM_STATISTICS = 0x09, Statistics;
    COM_PROCESS_INFO = 0x0a, Generic;
    COM_CONNECT = 0x0b, Generic;
    COM_PROCESS_KILL = 0x0c, Generic;
    COM_DEBUG = 0x0d, OneEof;
    COM_PING = 0x0e, Generic;
    COM_TIME = 0x0f, Generic;
    COM_DELAYED_INSERT = 0x10, Generic;
    COM_CHANGE_USER = 0x11, ChangeUser;
    COM_BINLOG_DUMP = 0x12, BinlogDump;
    COM_TABLE_DUMP = 0x13, Generic;
    COM_CONNECT_OUT = 0x14, Generic;
    COM_REGISTER_SLAVE = 0x15, Generic;
    COM_STMT_PREPARE = 0x16, Prepare;
    COM_STMT_EXECUTE = 0x17, Generic;
    COM_STMT_SEND_LONG_DATA = 0x18, None;
    COM_STMT_CLOSE = 0x19, None;
    COM_STMT_RESET = 0x1a, Generic;
    COM_SET_OPTION = 0x1b, OneEof;
    COM_STMT_FETCH = 0x1c, Fetch;
    COM_DAEMON = 0x1d, Generic;
    COM_BINLOG_DUMP_GTID = 0x1e, BinlogDump;
    COM_RESET_CONNECTION = 0x1f, Generic;
    COM_CLONE = 0x20, Generic;
    COM_SUBSCRIBE_GROUP_REPLICATION_STREAM = 0x21, Generic;
    COM_STMT_BULK_EXECUTE = 0xfa, Generic;
    COM_MULTI = 0xfe, Generic;
}

/// The shapes of an answer.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum ResponseKind {
    /// No answer.
    None,
    /// OK, ERR, EOF, results, or a request for a local file.
    Generic,
    /// COM_STMT_PREPARE's.
    Prepare,
    /// Definitions up to an end packet.
    FieldList,
    /// Rows up to an end packet.
    Fetch,
    /// One packet of text, or ERR.
    Statistics,
    /// An authentication exchange; the caller carries the client's part.
    ChangeUser,
    /// Events up to EOF or ERR.
    BinlogDump,
    /// EOF, OK or ERR.
    OneEof,
}

/// Parameters one statement may have: what the protocol's 16 bits in the
/// PREPARE answer can say; more is refused before any loop over them.
pub const PARAMETERS_MAX: usize = 65_535;

/// Where the text of a COM_QUERY (or COM_STMT_PREPARE) lies in its payload,
/// the command byte included in the offsets.
///
/// Under QUERY_ATTRIBUTES a COM_QUERY begins with a parameter block, which
/// is skipped: counts, NULL bitmap, types, names, values.
///
/// # Errors
/// An empty payload or a block cut short.
pub fn query_text(payload: &[u8], caps: Capabilities) -> Result<Range<usize>, WireError> {
    let mut r = Reader::new(payload);
    let com = r.u8().ok_or(WireError::new("a command byte", 0))?;
    if com == COM_QUERY && caps.has(Capabilities::QUERY_ATTRIBUTES) {
        let at = |r: &Reader<'_>| WireError::new("query attributes", r.pos());
        let count = r.lenenc_int().ok_or(at(&r))?;
        r.lenenc_int().ok_or(at(&r))?;
        let count = execute::checked_count(count, &r)?;
        if count > 0 {
            skip_attributes(&mut r, count)?;
        }
    }
    Ok(r.pos()..payload.len())
}

/// Skips the bitmap, types, names and values of `count` attributes.
fn skip_attributes(r: &mut Reader<'_>, count: usize) -> Result<(), WireError> {
    let at = |r: &Reader<'_>| WireError::new("query attributes", r.pos());
    let bitmap = r.bytes(count.div_ceil(8)).ok_or(at(r))?;
    if r.u8().ok_or(at(r))? == 0 {
        return Err(WireError::new("query attributes without types", r.pos()));
    }
    let mut types = *r;
    for _ in 0..count {
        r.u16().ok_or(at(r))?;
        r.lenenc_bytes().ok_or(at(r))?;
    }
    for i in 0..count {
        let ty = types.u16().ok_or(at(r))?;
        types.lenenc_bytes().ok_or(at(r))?;
        if !execute::is_null(bitmap, i) {
            execute::skip_value(r, ty)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
