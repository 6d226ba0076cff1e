//! Function calls, and the words that are calls without parentheses.

use super::*;

impl Scanner<'_> {
    pub(super) fn call_of_word(&mut self) -> Function {
        let entry = self.prev_entry;
        if entry.function != Function::None {
            return entry.function;
        }
        if self.before_prev != K::As
            && !groups(entry.keyword)
            // Behind WITH the verb is still to come.
            && (self.want_verb
                || matches!(self.class, Class::Read | Class::Write | Class::Session))
        {
            self.flag(Flags::UNKNOWN_FUNCTION);
        }
        Function::None
    }

    /// Behind the `(` of a builtin call.
    pub(super) fn call(&mut self, function: Function) {
        self.flag(Flags::ANY_FUNCTION);
        let flag = match function {
            Function::None | Function::Pure => return,
            Function::Time => Flags::TIME_FUNCTION,
            Function::Rand => Flags::RAND,
            Function::Unsafe => Flags::UNSAFE_FUNCTION,
            Function::Sequence => Flags::SEQUENCE.with(Flags::UNSAFE_FUNCTION),
            Function::Lock => Flags::GET_LOCK,
            Function::LastInsertId if self.cur.is(b')') => Flags::LAST_INSERT_ID,
            Function::LastInsertId => Flags::LAST_INSERT_ID_SET,
            Function::FoundRows => Flags::FOUND_ROWS,
            Function::RowCount => Flags::ROW_COUNT.with(Flags::DIAGNOSTICS),
        };
        self.flag(flag);
    }

    /// A keyword or a function's name.
    pub(super) fn known_word(&mut self) {
        let keyword = self.entry.keyword;
        if self.want_verb && self.depth == self.base && self.dml() {
            return;
        }
        match self.entry.function {
            Function::Time => self.flag(Flags::TIME_FUNCTION),
            Function::Unsafe if self.is_niladic() => self.flag(Flags::UNSAFE_FUNCTION),
            _ => {}
        }
        if self.in_values && self.depth == self.base {
            match keyword {
                K::As | K::On | K::Returning => self.in_values = false,
                _ => self.values.odd = true,
            }
        }
        match keyword {
            K::None => {}
            K::Select => self.select(),
            K::From => {
                if self.frame() & QUERY != 0 && !self.opaque {
                    self.table_list();
                }
            }
            K::Join | K::StraightJoin => self.join(),
            K::Where
            | K::Group
            | K::Having
            | K::Order
            | K::Limit
            | K::Window
            | K::Union
            | K::Except
            | K::Intersect
            | K::Procedure => self.clause(keyword),
            K::With => return self.with(false),
            _ => self.other_word(keyword),
        }
        self.advance();
    }

    pub(super) fn is_niladic(&self) -> bool {
        let word = self.cur.span().of(self.sql);
        [&b"CURRENT_USER"[..], b"CURRENT_ROLE", b"SYSDATE", b"ROWNUM"]
            .iter()
            .any(|n| n.eq_ignore_ascii_case(word))
    }
}

/// Keywords that may stand before a parenthesis without being a call.
fn groups(k: K) -> bool {
    matches!(
        k,
        K::In
            | K::And
            | K::Or
            | K::Xor
            | K::Not
            | K::On
            | K::Using
            | K::Where
            | K::Having
            | K::When
            | K::Then
            | K::Else
            | K::Case
            | K::Select
            | K::Distinct
            | K::Distinctrow
            | K::All
            | K::Any
            | K::Exists
            | K::From
            | K::Join
            | K::StraightJoin
            | K::As
            | K::By
            | K::Set
            | K::Values
            | K::Value
            | K::Key
            | K::Index
            | K::Partition
            | K::Over
            | K::Against
            | K::Between
            | K::Like
            | K::Regexp
            | K::Rlike
            | K::Div
            | K::Mod
            | K::Interval
            | K::Union
            | K::Except
            | K::Intersect
            | K::Limit
            | K::Offset
            | K::Returning
            | K::Of
            | K::Binary
            | K::Collate
            | K::Default
            | K::Is
            | K::Update
            | K::Into
            | K::Columns
            | K::Group
            | K::Table
            | K::Lateral
            | K::Escape
            | K::Row
            | K::Rows
            | K::Insert
            | K::Replace
            | K::Match
            | K::Character
            | K::Separator
            | K::To
    )
}
