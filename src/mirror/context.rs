//! What a statement depends on beside its text and its rows: A evaluates it,
//! M is given A's values.

use crate::leg::{ANSWER_MAX, Answer, Leg, Lost};
use crate::wire::Capabilities;
use crate::wire::command::ResponseKind;
use crate::wire::session_track::{Change, changes};
use crate::wire::text_rows::{QueryAnswer, parse_text_result};

use super::write::Request;

/// What A evaluated for M.
#[derive(Default)]
pub(super) struct Evaluated {
    pub timestamp: Option<Vec<u8>>,
    pub last_insert_id: Option<Vec<u8>>,
    pub user_variables: Vec<Vec<u8>>,
    /// A part could not be had: the statement must not be mirrored.
    pub incomplete: bool,
}

/// Sets both seeds of RAND().
pub(super) fn seed_statement((a, b): (u32, u32)) -> String {
    format!("SET RAND_SEED1={a}, RAND_SEED2={b}")
}

/// The longest values of user variables that M is given with one statement, in
/// bytes together.
const VARIABLES_MAX: usize = 1 << 20;

/// The largest answer with them: results may come in a character set of four
/// bytes each, and with the columns' names.
const VARIABLES_ANSWER_MAX: usize = 5 * VARIABLES_MAX;

/// Asks for the variables' values; longer ones are no row, and the write is
/// deferred. Their answer would be larger than what is read of one:
/// 1. `UPDATE t SET v = @x`, with 2 MiB in @x; 2. A has executed it and its
///    connection is given up; 3. nobody knows whether it was committed.
pub(super) fn select_variables(names: &[Vec<u8>]) -> Vec<u8> {
    let mut sql = b"SELECT ".to_vec();
    sql.extend_from_slice(&names.join(&b", "[..]));
    sql.extend_from_slice(b" FROM DUAL WHERE 0");
    for name in names {
        sql.extend_from_slice(&[b"+COALESCE(LENGTH(", &name[..], b"),0)"].concat());
    }
    sql.extend_from_slice(format!("<={VARIABLES_MAX}").as_bytes());
    sql
}

/// Reads A's answers to the context statements and the BEGIN.
pub(super) async fn read_context(
    a: &mut Leg,
    request: &Request<'_>,
    sent: usize,
) -> Result<Evaluated, Lost> {
    let context = request.inline.context;
    let mut evaluated = Evaluated::default();
    let mut left = sent;
    if context.time {
        left -= 1;
        let answer = a.answer(ResponseKind::Generic, ANSWER_MAX).await?;
        evaluated.timestamp = tracked(&answer, a.capabilities, b"timestamp");
        evaluated.incomplete |= evaluated.timestamp.is_none();
    }
    if context.rand {
        left -= 1;
        let answer = a.answer(ResponseKind::Generic, ANSWER_MAX).await?;
        evaluated.incomplete |= answer.summary.is_error;
    }
    if context.last_insert_id {
        left -= 1;
        let answer = a.answer(ResponseKind::Generic, ANSWER_MAX).await?;
        evaluated.last_insert_id = first_value(&answer, a.capabilities);
        evaluated.incomplete |= evaluated.last_insert_id.is_none();
    }
    if context.user_variables {
        left -= 1;
        let kind = ResponseKind::Generic;
        let answer = a.answer(kind, VARIABLES_ANSWER_MAX).await?;
        match variables(&answer, a.capabilities, request.user_variables) {
            Some(sets) => evaluated.user_variables = sets,
            None => evaluated.incomplete = true,
        }
    }
    for _ in 0..left {
        // The BEGIN: whether it took is told by IN_TRANS in the statement's
        // answer, which also sees a KILL QUERY that swallowed it.
        a.answer(ResponseKind::Generic, ANSWER_MAX).await?;
    }
    Ok(evaluated)
}

/// The value a tracker reports for a system variable.
fn tracked(answer: &Answer, capabilities: Capabilities, wanted: &[u8]) -> Option<Vec<u8>> {
    let ok = answer.ok(capabilities)?;
    changes(ok.session_state?).find_map(|change| match change {
        Ok((Change::SystemVariable { name, value }, _)) if name == wanted => Some(value.to_vec()),
        _ => None,
    })
}

fn first_value(answer: &Answer, capabilities: Capabilities) -> Option<Vec<u8>> {
    match parse_text_result(&answer.bytes, capabilities) {
        Ok(QueryAnswer::Rows(rows)) => rows.value(0, 0).flatten().map(<[u8]>::to_vec),
        _ => None,
    }
}

/// `SET @x=…` statements that give user variables A's values, type and
/// collation kept. None when a value cannot be carried exactly.
fn variables(
    answer: &Answer,
    capabilities: Capabilities,
    names: &[Vec<u8>],
) -> Option<Vec<Vec<u8>>> {
    let Ok(QueryAnswer::Rows(rows)) = parse_text_result(&answer.bytes, capabilities) else {
        return None;
    };
    let mut sets = Vec::with_capacity(names.len());
    for (i, name) in names.iter().enumerate() {
        let column = rows.columns.get(i)?;
        let mut sql = b"SET ".to_vec();
        sql.extend_from_slice(name);
        sql.extend_from_slice(b"=");
        match rows.value(0, i)? {
            None => sql.extend_from_slice(b"NULL"),
            Some(value) => match column.column_type {
                // LONGLONG, NEWDECIMAL: literals of the same type.
                8 | 246 => sql.extend_from_slice(value),
                // DOUBLE: an exponent makes the literal a double.
                5 => {
                    sql.extend_from_slice(value);
                    if !value.iter().any(|b| matches!(b, b'e' | b'E')) {
                        sql.extend_from_slice(b"e0");
                    }
                }
                // Text comes converted to the connection's character set, so
                // only what no conversion changes is carried.
                _ if value.is_ascii() => {
                    sql.push(b'\'');
                    for &b in value {
                        if matches!(b, b'\'' | b'\\') {
                            return None;
                        }
                        sql.push(b);
                    }
                    sql.push(b'\'');
                }
                _ => return None,
            },
        }
        sets.push(sql);
    }
    Some(sets)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_variables_are_no_row() {
        let names = [b"@a".to_vec(), b"@`b c`".to_vec()];
        let sql = String::from_utf8(select_variables(&names)).unwrap();
        assert_eq!(
            sql,
            "SELECT @a, @`b c` FROM DUAL WHERE 0+COALESCE(LENGTH(@a),0)\
             +COALESCE(LENGTH(@`b c`),0)<=1048576"
        );
    }
}
