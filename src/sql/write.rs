//! The forms of single-table writes that are fully understood.

use super::facts::{Facts, Flags, Span, Verb, unquote};
use super::lex::Kind;
use super::mode::ScanMode;
use super::scan::Values;
use super::session::Cursor;
use super::words::Keyword as K;

/// A single-table INSERT, REPLACE, UPDATE or DELETE.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum WriteShape {
    /// INSERT or REPLACE … VALUES | SET.
    Insert(InsertShape),
    /// UPDATE t SET … [WHERE …].
    Update(KeyedShape),
    /// DELETE FROM t [WHERE …].
    Delete(KeyedShape),
}

/// INSERT or REPLACE with its values in the text.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct InsertShape {
    /// REPLACE.
    pub replace: bool,
    /// The columns as written (quotes included, qualifiers dropped), or None
    /// for all visible ones in the table's order.
    pub columns: Option<Vec<Span>>,
    /// Rows of values.
    pub rows: u32,
    /// ON DUPLICATE KEY UPDATE.
    pub on_duplicate: bool,
    /// `INSERT … SET`.
    pub set_form: bool,
    /// Where the first row (or assignment) begins.
    pub values_at: u32,
    /// Markers before `values_at`.
    pub parameters_before: u32,
}

/// One value of a row, as far as an AUTO_INCREMENT column cares.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ValueKind {
    /// NULL.
    Null,
    /// DEFAULT, or a row without values.
    Default,
    /// An integer literal 0.
    Zero,
    /// A positive integer literal, bare or quoted.
    Literal,
    /// A negative integer literal.
    NegativeLiteral,
    /// The n-th `?` of the text, from 0.
    Parameter(u32),
    /// Anything else.
    Expression,
}

/// A literal or marker a key column is compared with.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum EqValue {
    /// A number.
    Number(Span),
    /// A string.
    Text(Span),
    /// The n-th `?` of the text, from 0.
    Parameter(u32),
}

/// `column = value` or `column IN (values)`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Equality {
    /// The column as written, qualifier dropped.
    pub column: Span,
    /// What it must be one of.
    pub values: Vec<EqValue>,
}

/// UPDATE or DELETE of one table.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct KeyedShape {
    /// Some if the whole WHERE is an AND of equalities with literals.
    pub where_equalities: Option<Vec<Equality>>,
    /// ORDER BY.
    pub order_by: bool,
    /// LIMIT.
    pub limit: bool,
    /// Columns an UPDATE assigns, as written, qualifiers dropped.
    pub assigned: Vec<Span>,
}

/// Columns, assignments or equalities one statement may have before its form
/// counts as not understood: servers allow 4096 columns.
const COLUMNS_MAX: usize = 4096;

/// Values in one IN list before the form counts as not understood.
const IN_VALUES_MAX: usize = 1000;

/// Flags that make a write's form more than these shapes say.
const BEYOND: Flags = Flags::MULTI_TABLE
    .with(Flags::SELECT_SOURCE)
    .with(Flags::WITH_CTE)
    .with(Flags::SET_STATEMENT)
    .with(Flags::ODD)
    .with(Flags::OVERFLOW)
    .with(Flags::UNTERMINATED);

/// The form of a single write, if it is understood to the end.
pub(super) fn shape(
    facts: &Facts,
    values: &Values,
    sql: &[u8],
    mode: ScanMode,
) -> Option<WriteShape> {
    if facts.flags.any(BEYOND) || facts.explain {
        return None;
    }
    let mut c = Cursor::new(sql, mode);
    match facts.verb {
        Verb::Insert | Verb::Replace => insert(facts, values, &mut c).map(WriteShape::Insert),
        Verb::Update => update(facts, &mut c).map(WriteShape::Update),
        Verb::Delete => delete(facts, &mut c).map(WriteShape::Delete),
        _ => None,
    }
}

/// Moves behind the verb, its modifiers and the table. None when the table
/// stands elsewhere.
fn to_table(facts: &Facts, c: &mut Cursor<'_>) -> Option<()> {
    let table = facts.tables.as_slice().first()?;
    if facts.tables.len() != 1 {
        return None;
    }
    while !c.ended() && c.cur.span() != table.name {
        c.advance();
    }
    c.advance();
    if c.keyword() == K::Partition {
        c.advance();
        skip_parens(c)?;
    }
    Some(())
}

/// At `(`: moves behind the matching `)`.
fn skip_parens(c: &mut Cursor<'_>) -> Option<()> {
    let mut depth = 0u32;
    loop {
        if c.ended() {
            return None;
        }
        if c.cur.is(b'(') {
            depth += 1;
        } else if c.cur.is(b')') {
            depth = depth.checked_sub(1)?;
        }
        c.advance();
        if depth == 0 {
            return Some(());
        }
    }
}

/// `[[db.]t.]column`: the column's span.
fn column(c: &mut Cursor<'_>) -> Option<Span> {
    let mut span = c.cur.is_name().then(|| c.cur.span())?;
    c.advance();
    while c.eat_punct(b'.') {
        span = c.cur.is_name().then(|| c.cur.span())?;
        c.advance();
    }
    Some(span)
}

fn insert(facts: &Facts, values: &Values, c: &mut Cursor<'_>) -> Option<InsertShape> {
    if !values.seen || values.odd || values.rows == 0 {
        return None;
    }
    to_table(facts, c)?;
    let mut columns = None;
    if values.set_form {
        columns = Some(assigned(c, values.at)?);
    } else if c.eat_punct(b'(') {
        let mut list = Vec::new();
        while !c.eat_punct(b')') {
            list.push(column(c)?);
            c.eat_punct(b',');
            if list.len() > COLUMNS_MAX {
                return None;
            }
        }
        // `t () VALUES ()` means all defaults, as no list does for no values.
        columns = (!list.is_empty()).then_some(list);
    }
    if !values.set_form && !matches!(c.keyword(), K::Values | K::Value) {
        return None;
    }
    Some(InsertShape {
        replace: facts.verb == Verb::Replace,
        columns,
        rows: values.rows,
        on_duplicate: facts.flags.any(Flags::ON_DUPLICATE),
        set_form: values.set_form,
        values_at: values.at,
        parameters_before: values.parameters_before,
    })
}

/// The columns of `SET a = x, b = y`, up to a clause or the end.
fn assigned(c: &mut Cursor<'_>, at: u32) -> Option<Vec<Span>> {
    while !c.ended() && c.cur.start < at as usize {
        c.advance();
    }
    let mut list = Vec::new();
    loop {
        list.push(column(c)?);
        if !(c.cur.is(b'=') || c.cur.kind == Kind::Assign) || list.len() > COLUMNS_MAX {
            return None;
        }
        c.advance();
        skip_expression(c);
        if !c.eat_punct(b',') {
            return Some(list);
        }
    }
}

/// Moves to the comma, clause or end behind an assignment's expression.
fn skip_expression(c: &mut Cursor<'_>) {
    let mut depth = 0u32;
    while !c.ended() {
        match c.cur.kind {
            Kind::Punct(b'(') => depth += 1,
            Kind::Punct(b')') => depth = depth.saturating_sub(1),
            Kind::Punct(b',') if depth == 0 => return,
            Kind::Word if depth == 0 => {
                if matches!(
                    c.keyword(),
                    K::Where | K::Order | K::Limit | K::On | K::As | K::Returning
                ) {
                    return;
                }
            }
            _ => {}
        }
        c.advance();
    }
}

fn update(facts: &Facts, c: &mut Cursor<'_>) -> Option<KeyedShape> {
    to_table(facts, c)?;
    alias(c);
    let at = c.cur.end as u32;
    if !c.eat(K::Set) {
        return None;
    }
    let assigned = assigned(c, at)?;
    keyed(facts, c, assigned)
}

fn delete(facts: &Facts, c: &mut Cursor<'_>) -> Option<KeyedShape> {
    to_table(facts, c)?;
    alias(c);
    keyed(facts, c, Vec::new())
}

/// `[AS] alias`, if there.
fn alias(c: &mut Cursor<'_>) {
    let clause = matches!(
        c.keyword(),
        K::Set | K::Where | K::Order | K::Limit | K::Returning | K::Use | K::Force | K::Ignore
    );
    if c.eat(K::As) || (c.cur.is_name() && !clause) {
        c.advance();
    }
}

/// WHERE to the end.
fn keyed(facts: &Facts, c: &mut Cursor<'_>, assigned: Vec<Span>) -> Option<KeyedShape> {
    let mut equalities = None;
    if c.eat(K::Where) {
        equalities = conjunction(c);
    } else if !(c.ended() || matches!(c.keyword(), K::Order | K::Limit | K::Returning)) {
        return None;
    }
    Some(KeyedShape {
        where_equalities: equalities,
        order_by: facts.flags.any(Flags::ORDER_BY),
        limit: facts.flags.any(Flags::LIMIT),
        assigned,
    })
}

/// `a = 1 AND (b IN (2, 3) AND c = ?)` to the end of the WHERE.
fn conjunction(c: &mut Cursor<'_>) -> Option<Vec<Equality>> {
    let mut list = Vec::new();
    let mut open = 0u32;
    loop {
        while c.eat_punct(b'(') {
            open += 1;
        }
        list.push(equality(c)?);
        while open > 0 && c.eat_punct(b')') {
            open -= 1;
        }
        if list.len() > COLUMNS_MAX {
            return None;
        }
        if c.eat(K::And) {
            continue;
        }
        let done = c.ended() || matches!(c.keyword(), K::Order | K::Limit | K::Returning);
        return (open == 0 && done).then_some(list);
    }
}

fn equality(c: &mut Cursor<'_>) -> Option<Equality> {
    if !c.cur.is_name() {
        // Literal first: `5 = id`.
        let value = literal(c)?;
        if !c.eat_punct(b'=') {
            return None;
        }
        return Some(Equality {
            column: column(c)?,
            values: vec![value],
        });
    }
    let column = column(c)?;
    if c.eat_punct(b'=') {
        return Some(Equality {
            column,
            values: vec![literal(c)?],
        });
    }
    if !(c.eat(K::In) && c.eat_punct(b'(')) {
        return None;
    }
    let mut values = Vec::new();
    loop {
        values.push(literal(c)?);
        if values.len() > IN_VALUES_MAX {
            return None;
        }
        if c.eat_punct(b')') {
            return Some(Equality { column, values });
        }
        if !c.eat_punct(b',') {
            return None;
        }
    }
}

fn literal(c: &mut Cursor<'_>) -> Option<EqValue> {
    let start = c.cur.start;
    let negative = c.eat_punct(b'-');
    let value = match c.cur.kind {
        Kind::Number => EqValue::Number(Span::new(start, c.cur.end)),
        Kind::Text if !negative => EqValue::Text(c.cur.span()),
        // Numbered by the walk that knows how many came before.
        Kind::Parameter if !negative => EqValue::Parameter(c.parameters()),
        _ => return None,
    };
    c.advance();
    Some(value)
}

impl InsertShape {
    /// Visits the value that each row has at `column` (an index into the
    /// row). One walk over the text; stops when `visit` returns false.
    pub fn values_of(
        &self,
        sql: &[u8],
        mode: ScanMode,
        column: usize,
        visit: &mut dyn FnMut(ValueKind) -> bool,
    ) {
        let mut c = Cursor::at(sql, mode, self.values_at as usize);
        if self.set_form {
            for at in 0..=column {
                if at > 0 && !c.eat_punct(b',') {
                    visit(ValueKind::Expression);
                    return;
                }
                if self::column(&mut c).is_none() {
                    visit(ValueKind::Expression);
                    return;
                }
                c.advance(); // =
                let kind = value(&mut c, self.parameters_before);
                if at == column {
                    visit(kind);
                    return;
                }
            }
        }
        for _ in 0..self.rows {
            if !visit(row_value(&mut c, self.parameters_before, column)) {
                return;
            }
            c.eat_punct(b',');
        }
    }
}

/// At a row's `(`: its value at `column`; moves behind the row.
fn row_value(c: &mut Cursor<'_>, before: u32, column: usize) -> ValueKind {
    if !c.eat_punct(b'(') {
        return ValueKind::Expression;
    }
    if c.eat_punct(b')') {
        return ValueKind::Default;
    }
    let mut found = ValueKind::Expression;
    let mut at = 0usize;
    while !c.ended() {
        let kind = value(c, before);
        if at == column {
            found = kind;
        }
        if c.eat_punct(b')') {
            break;
        }
        if !c.eat_punct(b',') {
            break;
        }
        at += 1;
    }
    found
}

/// One value up to the comma or parenthesis behind it.
fn value(c: &mut Cursor<'_>, before: u32) -> ValueKind {
    let negative = c.cur.is(b'-');
    if negative || c.cur.is(b'+') {
        c.advance();
    }
    let kind = match c.cur.kind {
        Kind::Null if !negative => ValueKind::Null,
        Kind::Parameter if !negative => ValueKind::Parameter(before + c.parameters()),
        Kind::Word if !negative => match c.keyword() {
            K::Null => ValueKind::Null,
            K::Default => ValueKind::Default,
            _ => ValueKind::Expression,
        },
        Kind::Number => integer(c.text(), negative),
        Kind::Text if !negative => integer(&unquote(c.text()), false),
        _ => ValueKind::Expression,
    };
    let mut depth = 0u32;
    let mut tokens = 0u32;
    while !c.ended() {
        match c.cur.kind {
            Kind::Punct(b'(') => depth += 1,
            Kind::Punct(b')') if depth == 0 => break,
            Kind::Punct(b')') => depth -= 1,
            Kind::Punct(b',') if depth == 0 => break,
            Kind::Word if depth == 0 && matches!(c.keyword(), K::On | K::As | K::Returning) => {
                break;
            }
            _ => {}
        }
        tokens += 1;
        c.advance();
    }
    if tokens == 1 {
        kind
    } else {
        ValueKind::Expression
    }
}

fn integer(text: &[u8], negative: bool) -> ValueKind {
    if text.is_empty() || !text.iter().all(u8::is_ascii_digit) {
        return ValueKind::Expression;
    }
    match (text.iter().all(|&b| b == b'0'), negative) {
        (true, _) => ValueKind::Zero,
        (false, true) => ValueKind::NegativeLiteral,
        (false, false) => ValueKind::Literal,
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Facts, scan};
    use super::*;

    fn insert_of(sql: &str) -> (Facts, InsertShape) {
        let facts = scan(sql.as_bytes(), ScanMode::default());
        match facts.write.as_deref() {
            Some(WriteShape::Insert(i)) => (facts.clone(), i.clone()),
            other => panic!("{sql}: {other:?}"),
        }
    }

    fn values(sql: &str, column: usize) -> Vec<ValueKind> {
        let (_, shape) = insert_of(sql);
        let mut out = Vec::new();
        shape.values_of(sql.as_bytes(), ScanMode::default(), column, &mut |v| {
            out.push(v);
            true
        });
        out
    }

    #[test]
    fn values_of_a_column() {
        use ValueKind::*;
        let sql = "INSERT INTO t (id, a) VALUES (NULL, 1), (0,'x'), (DEFAULT,f(1,2)), (7,?), (-3,?), (?,1), (1+1,2), ('12',3), ('x',4)";
        assert_eq!(
            values(sql, 0),
            [
                Null,
                Zero,
                Default,
                Literal,
                NegativeLiteral,
                Parameter(2),
                Expression,
                Literal,
                Expression
            ]
        );
        assert_eq!(values(sql, 1)[3..5], [Parameter(0), Parameter(1)]);
        assert_eq!(values("INSERT t VALUES (),()", 0), [Default, Default]);
        let set = "INSERT INTO t SET a=?, id = ? ON DUPLICATE KEY UPDATE a=1";
        assert_eq!(values(set, 1), [Parameter(1)]);
        assert_eq!(values(set, 0), [Parameter(0)]);
        let (_, shape) = insert_of(set);
        assert_eq!(shape.columns.map(|c| c.len()), Some(2));
        assert_eq!(values("REPLACE `d`.`t`(`id`)VALUES(5)", 0), [Literal]);
    }

    fn keyed_of(sql: &str) -> Option<KeyedShape> {
        match *scan(sql.as_bytes(), ScanMode::default()).write? {
            WriteShape::Update(k) | WriteShape::Delete(k) => Some(k),
            WriteShape::Insert(_) => None,
        }
    }

    #[test]
    fn where_of_equalities() {
        let count = |sql| {
            keyed_of(sql)
                .and_then(|k| k.where_equalities)
                .map(|e| e.len())
        };
        assert_eq!(count("UPDATE t SET a=1 WHERE id=5"), Some(1));
        assert_eq!(
            count("UPDATE t x SET x.a=1 WHERE x.id=? AND (b IN (1,'2',?)) LIMIT 1"),
            Some(2)
        );
        assert_eq!(count("DELETE FROM t WHERE -5 = id"), Some(1));
        for no in [
            "DELETE FROM t",
            "DELETE FROM t WHERE a=1 OR b=2",
            "DELETE FROM t WHERE a=1+1",
            "DELETE FROM t WHERE a=b",
            "DELETE FROM t WHERE a>1",
            "DELETE FROM t WHERE NOT a=1",
            "DELETE FROM t WHERE a=1=1",
            "DELETE FROM t WHERE a=NULL",
            "DELETE FROM t WHERE (a=1",
        ] {
            assert_eq!(count(no), None, "{no}");
        }
        let params = keyed_of("UPDATE t SET a=?, b=? WHERE id=?").unwrap();
        assert_eq!(
            params.where_equalities.unwrap()[0].values,
            [EqValue::Parameter(2)]
        );
        assert_eq!(params.assigned.len(), 2);
        assert!(keyed_of("UPDATE t, u SET t.a=1").is_none());
        assert!(keyed_of("DELETE t FROM t WHERE a=1").is_none());
    }
}
