//! COM_STMT_EXECUTE: where its parts lie, and the same for another leg.
//!
//! The types of parameters travel only with the first EXECUTE (or when they
//! change), so a leg that joins later needs them put back in; and a binary
//! value has no length of its own: its type says how to step over it.

use core::ops::Range;

use super::{COM_STMT_EXECUTE, PARAMETERS_MAX};
use crate::wire::lenenc::Reader;
use crate::wire::{Capabilities, WireError};

/// EXECUTE flag: a parameter count precedes the parameters.
const PARAMETER_COUNT_AVAILABLE: u8 = 0x08;
/// Type word flag: unsigned.
const UNSIGNED: u16 = 0x8000;
/// Offset of the bytes after command, id, flags and iterations.
const FIXED_LEN: usize = 10;

/// The parts of a COM_STMT_EXECUTE; ranges are offsets in its payload.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Execute {
    /// Statement id of the leg (or client) that sent it.
    pub statement_id: u32,
    /// Cursor type and PARAMETER_COUNT_AVAILABLE.
    pub flags: u8,
    /// Always 1.
    pub iterations: u32,
    /// One bit per parameter, or empty without parameters.
    pub null_bitmap: Range<usize>,
    /// The types are in this packet.
    pub new_params_bound: bool,
    /// Two bytes each, with a name each when `named_types`; empty when not
    /// bound here.
    pub types: Range<usize>,
    /// The values, one after another.
    pub values: Range<usize>,
    /// Parameters, attributes included.
    pub parameter_count: usize,
    /// Some of them are query attributes.
    pub has_attributes: bool,
    /// Each type is followed by a length-encoded name (QUERY_ATTRIBUTES).
    pub named_types: bool,
}

/// One bound value.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum ParamValue<'a> {
    /// NULL.
    Null,
    /// Sent before with COM_STMT_SEND_LONG_DATA.
    LongData,
    /// A signed integer.
    Int(i64),
    /// An unsigned integer.
    UInt(u64),
    /// A FLOAT or DOUBLE; some drivers send every number as one.
    Double(f64),
    /// A string type (CHAR, VARCHAR, BLOB, ENUM, …), without its length.
    Text(&'a [u8]),
    /// Anything else, as it stands (DECIMAL and JSON without their length).
    Other(&'a [u8]),
}

/// Refuses counts that no statement can have.
pub(super) fn checked_count(count: u64, r: &Reader<'_>) -> Result<usize, WireError> {
    usize::try_from(count)
        .ok()
        .filter(|n| *n <= PARAMETERS_MAX)
        .ok_or(WireError::new("a parameter count", r.pos()))
}

/// True when parameter `i` is NULL by the bitmap.
pub(super) fn is_null(bitmap: &[u8], i: usize) -> bool {
    bitmap.get(i / 8).is_some_and(|b| b >> (i % 8) & 1 == 1)
}

/// Reads a COM_STMT_EXECUTE (command byte included). `declared_params` is
/// what the PREPARE was answered with.
///
/// # Errors
/// A packet of another command, or one cut short.
pub fn parse_execute(
    payload: &[u8],
    declared_params: u16,
    caps: Capabilities,
) -> Result<Execute, WireError> {
    let mut r = Reader::new(payload);
    let at = |r: &Reader<'_>| WireError::new("EXECUTE", r.pos());
    if r.u8() != Some(COM_STMT_EXECUTE) {
        return Err(WireError::new("EXECUTE's command byte", 0));
    }
    let mut ex = Execute {
        statement_id: r.u32().ok_or(at(&r))?,
        flags: r.u8().ok_or(at(&r))?,
        iterations: r.u32().ok_or(at(&r))?,
        null_bitmap: FIXED_LEN..FIXED_LEN,
        new_params_bound: false,
        types: FIXED_LEN..FIXED_LEN,
        values: FIXED_LEN..FIXED_LEN,
        parameter_count: usize::from(declared_params),
        has_attributes: false,
        named_types: caps.has(Capabilities::QUERY_ATTRIBUTES),
    };
    let counted = ex.flags & PARAMETER_COUNT_AVAILABLE != 0;
    if ex.named_types && (declared_params > 0 || counted) {
        let count = r.lenenc_int().ok_or(at(&r))?;
        ex.parameter_count = checked_count(count, &r)?;
        ex.has_attributes = ex.parameter_count > usize::from(declared_params);
    }
    if ex.parameter_count > 0 {
        let bitmap = ex.parameter_count.div_ceil(8);
        ex.null_bitmap = r.range(bitmap).ok_or(at(&r))?;
        ex.new_params_bound = r.u8().ok_or(at(&r))? != 0;
        ex.types = r.pos()..r.pos();
        if ex.new_params_bound {
            skip_types(&mut r, ex.parameter_count, ex.named_types)?;
            ex.types.end = r.pos();
        }
    }
    ex.values = r.pos()..payload.len();
    Ok(ex)
}

/// Steps over `count` types, with names or without.
fn skip_types(r: &mut Reader<'_>, count: usize, named: bool) -> Result<(), WireError> {
    let at = |r: &Reader<'_>| WireError::new("parameter types", r.pos());
    if !named {
        return r.bytes(count * 2).map(|_| ()).ok_or(at(r));
    }
    for _ in 0..count {
        r.u16().ok_or(at(r))?;
        r.lenenc_bytes().ok_or(at(r))?;
    }
    Ok(())
}

/// Appends the payload of `ex` as another leg must see it: its own
/// statement id, and the types put back in where this EXECUTE relied on
/// earlier ones. `remembered_types` are the bytes of an earlier
/// [`Execute::types`] of this statement under the same capabilities; with
/// `None` only the id is patched.
///
/// # Errors
/// An `ex` of another payload, or remembered types that do not fit it.
pub fn execute_for_leg(
    payload: &[u8],
    ex: &Execute,
    leg_statement_id: u32,
    remembered_types: Option<&[u8]>,
    out: &mut Vec<u8>,
) -> Result<(), WireError> {
    let at = |what| WireError::new(what, ex.types.start);
    let after_id = payload.get(5..).ok_or(at("EXECUTE"))?;
    let types = remembered_types.filter(|_| ex.parameter_count > 0 && !ex.new_params_bound);
    let Some(types) = types else {
        out.push(COM_STMT_EXECUTE);
        out.extend_from_slice(&leg_statement_id.to_le_bytes());
        out.extend_from_slice(after_id);
        return Ok(());
    };
    let mut r = Reader::new(types);
    skip_types(&mut r, ex.parameter_count, ex.named_types)?;
    if !r.is_empty() {
        return Err(at("more parameter types than parameters"));
    }
    // The bound flag is the byte before the (empty) types.
    let before_flag = payload
        .get(5..ex.types.start.saturating_sub(1))
        .ok_or(at("EXECUTE"))?;
    let values = payload.get(ex.values.clone()).ok_or(at("EXECUTE"))?;
    out.push(COM_STMT_EXECUTE);
    out.extend_from_slice(&leg_statement_id.to_le_bytes());
    out.extend_from_slice(before_flag);
    out.push(1);
    out.extend_from_slice(types);
    out.extend_from_slice(values);
    Ok(())
}

/// The value of parameter `index` (from 0). `types` are the types in force
/// (this packet's or remembered ones); `is_long_data` says which parameters
/// were sent by COM_STMT_SEND_LONG_DATA and so have no value here. Linear in
/// `index`; for all of them see [`parameters`].
///
/// # Errors
/// An index out of range, an unknown type, or values cut short.
pub fn parameter<'a>(
    payload: &'a [u8],
    ex: &Execute,
    types: &[u8],
    index: usize,
    is_long_data: &dyn Fn(usize) -> bool,
) -> Result<ParamValue<'a>, WireError> {
    parameters(payload, ex, types, is_long_data)
        .nth(index)
        .unwrap_or(Err(WireError::new("a parameter index", ex.values.start)))
}

/// All values of an EXECUTE in order, in one walk; arguments as for
/// [`parameter`]. Ends after the first error, because a value whose length
/// is unknown hides those behind it.
pub fn parameters<'a>(
    payload: &'a [u8],
    ex: &Execute,
    types: &[u8],
    is_long_data: &dyn Fn(usize) -> bool,
) -> impl Iterator<Item = Result<ParamValue<'a>, WireError>> {
    let bitmap = payload.get(ex.null_bitmap.clone());
    let mut values = Reader::at(payload, ex.values.start);
    let mut types = Reader::new(types);
    let mut failed = false;
    (0..ex.parameter_count).map_while(move |i| {
        if failed {
            return None;
        }
        let value = bitmap
            .ok_or(WireError::new("EXECUTE", 0))
            .and_then(|bitmap| {
                let ty = take_type(&mut types, ex.named_types)?;
                // The server asks in this order too: long data wins over NULL.
                if is_long_data(i) {
                    Ok(ParamValue::LongData)
                } else if is_null(bitmap, i) {
                    Ok(ParamValue::Null)
                } else {
                    take_value(&mut values, ty)
                }
            });
        failed = value.is_err();
        Some(value)
    })
}

/// The next type word; its name, if it has one, is skipped.
fn take_type(types: &mut Reader<'_>, named: bool) -> Result<u16, WireError> {
    let at = WireError::new("parameter types", types.pos());
    let ty = types.u16().ok_or(at)?;
    if named {
        types.lenenc_bytes().ok_or(at)?;
    }
    Ok(ty)
}

/// How a binary value of some type is laid out.
enum Layout {
    Nothing,
    Fixed(usize),
    /// One length byte (temporal types).
    Short,
    /// Length-encoded.
    Counted,
}

/// The layout of a type byte, `None` for bytes that are no type.
fn layout(ty: u8) -> Option<Layout> {
    Some(match ty {
        6 => Layout::Nothing,                        // NULL
        1 | 244 => Layout::Fixed(1),                 // TINY, BOOL
        2 | 13 => Layout::Fixed(2),                  // SHORT, YEAR
        3 | 4 | 9 => Layout::Fixed(4),               // LONG, FLOAT, INT24
        5 | 8 => Layout::Fixed(8),                   // DOUBLE, LONGLONG
        7 | 10..=12 | 14 | 17..=19 => Layout::Short, // dates and times
        0 | 15 | 16 => Layout::Counted,              // DECIMAL, VARCHAR, BIT
        242 | 245..=255 => Layout::Counted,          // VECTOR, JSON … GEOMETRY
        _ => return None,
    })
}

/// Steps over one value of the type word `ty`.
pub(super) fn skip_value(r: &mut Reader<'_>, ty: u16) -> Result<(), WireError> {
    take_value(r, ty).map(|_| ())
}

fn take_value<'a>(r: &mut Reader<'a>, ty: u16) -> Result<ParamValue<'a>, WireError> {
    let [kind, _] = ty.to_le_bytes();
    let start = r.pos();
    let layout = layout(kind).ok_or(WireError::new("a parameter's type", start))?;
    let bytes = match layout {
        Layout::Nothing => return Ok(ParamValue::Null),
        Layout::Fixed(n) => r.bytes(n),
        Layout::Short => r.u8().and_then(|n| r.bytes(usize::from(n))),
        Layout::Counted => r.lenenc_bytes(),
    }
    .ok_or(WireError::new("a parameter's value", start))?;
    Ok(match (kind, bytes) {
        (1 | 2 | 3 | 8 | 9 | 13 | 244, bytes) => integer_value(bytes, ty & UNSIGNED != 0),
        (4, &[a, b, c, d]) => ParamValue::Double(f32::from_le_bytes([a, b, c, d]).into()),
        (5, &[a, b, c, d, e, f, g, h]) => {
            ParamValue::Double(f64::from_le_bytes([a, b, c, d, e, f, g, h]))
        }
        (15 | 247..=254, bytes) => ParamValue::Text(bytes),
        (_, bytes) => ParamValue::Other(bytes),
    })
}

fn integer_value(bytes: &[u8], unsigned: bool) -> ParamValue<'_> {
    let mut wide = [0; 8];
    for (slot, byte) in wide.iter_mut().zip(bytes) {
        *slot = *byte;
    }
    let value = u64::from_le_bytes(wide);
    if unsigned {
        return ParamValue::UInt(value);
    }
    // Moves the sign bit of the narrow value to the top and back.
    let unused = 64 - 8 * bytes.len().clamp(1, 8) as u32;
    ParamValue::Int((value << unused) as i64 >> unused)
}
