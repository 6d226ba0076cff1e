//! What the scanner found out about a statement: plain data.

use std::borrow::Cow;

use super::mode::Isolation;
use super::write::WriteShape;

/// A range of bytes of the statement's text.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct Span {
    /// First byte.
    pub start: u32,
    /// One past the last byte.
    pub end: u32,
}

impl Span {
    /// The bytes; empty if the text is not the one that was scanned.
    pub fn of(self, sql: &[u8]) -> &[u8] {
        sql.get(self.start as usize..self.end as usize)
            .unwrap_or(&[])
    }

    /// Whether it covers nothing.
    pub fn is_empty(self) -> bool {
        self.start >= self.end
    }

    pub(crate) fn new(start: usize, end: usize) -> Span {
        // Texts beyond u32 are never scanned (see `scan`), so this is exact.
        Span {
            start: start as u32,
            end: end as u32,
        }
    }
}

/// Undoes the quotes of a name or string as written: the outer quotes go,
/// doubled ones inside become one. Backslash escapes are left alone.
pub fn unquote(raw: &[u8]) -> Cow<'_, [u8]> {
    let (Some(&quote), Some(&last)) = (raw.first(), raw.last()) else {
        return Cow::Borrowed(raw);
    };
    if !matches!(quote, b'`' | b'"' | b'\'') || raw.len() < 2 || last != quote {
        return Cow::Borrowed(raw);
    }
    let inner = raw.get(1..raw.len() - 1).unwrap_or(&[]);
    if memchr::memchr(quote, inner).is_none() {
        return Cow::Borrowed(inner);
    }
    let mut out = Vec::with_capacity(inner.len());
    let mut skip = false;
    for &b in inner {
        if b == quote && skip {
            skip = false;
            continue;
        }
        skip = b == quote;
        out.push(b);
    }
    Cow::Owned(out)
}

/// What a statement begins with. `WITH …` and `SET STATEMENT … FOR …` carry
/// the verb of the statement proper.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[allow(missing_docs)] // the names are the statements
pub enum Verb {
    Empty,
    Unknown,
    Select,
    Table,
    Values,
    Insert,
    Replace,
    Update,
    Delete,
    LoadData,
    Call,
    Do,
    Handler,
    Set,
    SetTransaction,
    SetNames,
    Use,
    Show,
    /// EXPLAIN, DESCRIBE, DESC, MariaDB's `ANALYZE <statement>`.
    Explain,
    Help,
    Begin,
    Commit,
    Rollback,
    Savepoint,
    RollbackTo,
    ReleaseSavepoint,
    LockTables,
    UnlockTables,
    Xa,
    Prepare,
    /// EXECUTE of a named statement, or EXECUTE IMMEDIATE.
    ExecutePrepared,
    DeallocatePrepare,
    GetDiagnostics,
    Signal,
    Kill,
    Flush,
    CreateTable,
    AlterTable,
    DropTable,
    RenameTable,
    Truncate,
    CreateIndex,
    DropIndex,
    CreateView,
    DropView,
    CreateTrigger,
    DropTrigger,
    CreateDatabase,
    AlterDatabase,
    DropDatabase,
    /// CREATE, ALTER or DROP of anything else: routines, events, users, …
    OtherDdl,
    Grant,
    Revoke,
    /// ANALYZE, OPTIMIZE, CHECK, REPAIR, CHECKSUM TABLE.
    TableMaintenance,
    /// RESET, PURGE, CHANGE, START/STOP REPLICA, INSTALL, SHUTDOWN, …
    Admin,
}

impl Verb {
    /// Whether it makes or drops a trigger: no row changes by it.
    pub const fn is_of_triggers(self) -> bool {
        matches!(self, Verb::CreateTrigger | Verb::DropTrigger)
    }

    /// Lower-case name for `explain` and metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Verb::Empty => "empty",
            Verb::Unknown => "unknown",
            Verb::Select => "select",
            Verb::Table => "table",
            Verb::Values => "values",
            Verb::Insert => "insert",
            Verb::Replace => "replace",
            Verb::Update => "update",
            Verb::Delete => "delete",
            Verb::LoadData => "load_data",
            Verb::Call => "call",
            Verb::Do => "do",
            Verb::Handler => "handler",
            Verb::Set => "set",
            Verb::SetTransaction => "set_transaction",
            Verb::SetNames => "set_names",
            Verb::Use => "use",
            Verb::Show => "show",
            Verb::Explain => "explain",
            Verb::Help => "help",
            Verb::Begin => "begin",
            Verb::Commit => "commit",
            Verb::Rollback => "rollback",
            Verb::Savepoint => "savepoint",
            Verb::RollbackTo => "rollback_to",
            Verb::ReleaseSavepoint => "release_savepoint",
            Verb::LockTables => "lock_tables",
            Verb::UnlockTables => "unlock_tables",
            Verb::Xa => "xa",
            Verb::Prepare => "prepare",
            Verb::ExecutePrepared => "execute",
            Verb::DeallocatePrepare => "deallocate",
            Verb::GetDiagnostics => "get_diagnostics",
            Verb::Signal => "signal",
            Verb::Kill => "kill",
            Verb::Flush => "flush",
            Verb::CreateTable => "create_table",
            Verb::AlterTable => "alter_table",
            Verb::DropTable => "drop_table",
            Verb::RenameTable => "rename_table",
            Verb::Truncate => "truncate",
            Verb::CreateIndex => "create_index",
            Verb::DropIndex => "drop_index",
            Verb::CreateView => "create_view",
            Verb::DropView => "drop_view",
            Verb::CreateTrigger => "create_trigger",
            Verb::DropTrigger => "drop_trigger",
            Verb::CreateDatabase => "create_database",
            Verb::AlterDatabase => "alter_database",
            Verb::DropDatabase => "drop_database",
            Verb::OtherDdl => "ddl",
            Verb::Grant => "grant",
            Verb::Revoke => "revoke",
            Verb::TableMaintenance => "table_maintenance",
            Verb::Admin => "admin",
        }
    }
}

/// What a statement does, from harmless to dangerous.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Class {
    /// Reads rows or metadata (look at the flags: a locking read is a Read).
    Read,
    /// Changes the session: SET, USE, PREPARE, LOCK TABLES, HANDLER, …
    Session,
    /// BEGIN, COMMIT, ROLLBACK, savepoints, XA.
    Transaction,
    /// Server administration without rows: KILL, FLUSH, ANALYZE TABLE, …
    Admin,
    /// Changes rows.
    Write,
    /// Changes definitions (commits implicitly).
    Ddl,
    /// May do anything: CALL, EXECUTE, compound statements, unknown words.
    Unknown,
}

impl Class {
    /// Lower-case name for `explain` and metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Class::Read => "read",
            Class::Session => "session",
            Class::Transaction => "transaction",
            Class::Admin => "admin",
            Class::Write => "write",
            Class::Ddl => "ddl",
            Class::Unknown => "unknown",
        }
    }
}

/// A set of properties of the text. Each is set when *anything* in the text
/// (executable comments that live included) has it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Flags(pub u64);

macro_rules! flags {
    ($($(#[$doc:meta])* $name:ident = $bit:expr;)*) => {
        impl Flags {
            $($(#[$doc])* pub const $name: Flags = Flags(1 << $bit);)*
            const NAMES: &'static [(&'static str, Flags)] = &[$((stringify!($name), Flags::$name)),*];
        }
    };
}

flags! {
    /// FOR UPDATE, FOR SHARE, LOCK IN SHARE MODE.
    LOCKING_READ = 0;
    /// Reads `@x`.
    USER_VARIABLE_READ = 1;
    /// Assigns `@x` (`:=`, `INTO @x`, `SET @x`).
    USER_VARIABLE_WRITE = 2;
    /// NOW() and friends: deterministic under `SET timestamp`.
    TIME_FUNCTION = 3;
    /// RAND(): deterministic under RAND_SEED1/2.
    RAND = 4;
    /// UUID(), SYSDATE(), SLEEP(), USER(), VERSION(), sequences, …
    UNSAFE_FUNCTION = 5;
    /// Calls what is no known builtin: maybe a stored function, which may write.
    UNKNOWN_FUNCTION = 6;
    /// LAST_INSERT_ID() read.
    LAST_INSERT_ID = 7;
    /// LAST_INSERT_ID(expr).
    LAST_INSERT_ID_SET = 8;
    /// FOUND_ROWS().
    FOUND_ROWS = 9;
    /// ROW_COUNT().
    ROW_COUNT = 10;
    /// Reads `@@x`.
    SYSTEM_VARIABLE = 11;
    /// GET_LOCK, RELEASE_LOCK, IS_FREE_LOCK, …
    GET_LOCK = 12;
    /// SELECT … INTO @x | OUTFILE | DUMPFILE.
    SELECT_INTO = 13;
    /// An executable comment, live or not: servers may read it differently.
    EXECUTABLE_COMMENT = 14;
    /// A SELECT, TABLE or VALUES query inside another statement.
    SUBQUERY = 15;
    /// A join, comma list or multi-table form.
    MULTI_TABLE = 16;
    /// LIMIT.
    LIMIT = 17;
    /// IGNORE as a statement modifier.
    IGNORE = 18;
    /// RETURNING.
    RETURNING = 19;
    /// ON DUPLICATE KEY UPDATE.
    ON_DUPLICATE = 20;
    /// INSERT … VALUES.
    VALUES_FORM = 21;
    /// INSERT … SELECT | TABLE | WITH.
    SELECT_SOURCE = 22;
    /// `?` markers.
    PARAMETERS = 23;
    /// SQL_CALC_FOUND_ROWS.
    CALC_FOUND_ROWS = 24;
    /// CREATE/DROP TEMPORARY.
    TEMPORARY = 25;
    /// PARTITION (…) on a table reference.
    PARTITION = 26;
    /// More nesting or names than the scanner keeps: tables are incomplete.
    OVERFLOW = 27;
    /// SET ROLE.
    SET_ROLE = 28;
    /// A string, name or comment that never ends.
    UNTERMINATED = 29;
    /// GET DIAGNOSTICS, @@warning_count, @@error_count, ROW_COUNT(), SHOW WARNINGS/ERRORS.
    DIAGNOSTICS = 30;
    /// WITH … AS (…).
    WITH_CTE = 31;
    /// COMMIT/ROLLBACK with AND [NO] CHAIN or [NO] RELEASE.
    COMPLETION = 32;
    /// MariaDB's SET STATEMENT … FOR.
    SET_STATEMENT = 33;
    /// An optimizer hint comment (may set variables on one family only).
    OPTIMIZER_HINT = 34;
    /// USE/FORCE/IGNORE INDEX: fails where the index does not exist.
    INDEX_HINT = 35;
    /// ORDER BY.
    ORDER_BY = 36;
    /// FLUSH TABLES WITH READ LOCK, FLUSH … FOR EXPORT.
    FLUSH_READ_LOCK = 37;
    /// NEXTVAL, NEXT VALUE FOR, SETVAL, LASTVAL.
    SEQUENCE = 38;
    /// FOR SYSTEM_TIME, AS OF: rows of the past.
    SYSTEM_TIME = 39;
    /// LOCAL INFILE: the server asks the client for a file.
    LOCAL_INFILE = 40;
    /// A token that fits nowhere in what the scanner knows of this verb.
    ODD = 41;
    /// The statement calls any function at all.
    ANY_FUNCTION = 42;
}

impl Flags {
    /// Whether all of `other` is set.
    #[inline]
    pub const fn has(self, other: Flags) -> bool {
        self.0 & other.0 == other.0
    }

    /// Whether anything of `other` is set.
    #[inline]
    pub const fn any(self, other: Flags) -> bool {
        self.0 & other.0 != 0
    }

    /// Both sets.
    #[inline]
    pub const fn with(self, other: Flags) -> Flags {
        Flags(self.0 | other.0)
    }

    #[inline]
    pub(crate) fn set(&mut self, other: Flags) {
        self.0 |= other.0;
    }
}

impl std::fmt::Debug for Flags {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut first = true;
        for (name, flag) in Flags::NAMES {
            if self.has(*flag) {
                if !first {
                    f.write_str("|")?;
                }
                f.write_str(name)?;
                first = false;
            }
        }
        Ok(())
    }
}

/// A table as the text names it, quotes included.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct TableName {
    /// The schema, if written.
    pub db: Option<Span>,
    /// The table.
    pub name: Span,
}

impl TableName {
    /// The schema without quotes.
    pub fn db<'a>(&self, sql: &'a [u8]) -> Option<Cow<'a, [u8]>> {
        self.db.map(|d| unquote(d.of(sql)))
    }

    /// The table without quotes.
    pub fn name<'a>(&self, sql: &'a [u8]) -> Cow<'a, [u8]> {
        unquote(self.name.of(sql))
    }
}

/// Most tables a statement may name before [`Tables::overflow`]: joins of
/// more than this are rare, and the list lives inside `Facts`.
pub const TABLES_MAX: usize = 8;

/// The tables a statement names, in the text's order but for the written one,
/// which comes first.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tables {
    list: [TableName; TABLES_MAX],
    len: u8,
    /// More than [`TABLES_MAX`] were named, or names could not be followed.
    pub overflow: bool,
}

impl Tables {
    /// The names as written.
    pub fn as_slice(&self) -> &[TableName] {
        self.list.get(..usize::from(self.len)).unwrap_or(&[])
    }

    /// Schema and name of each, without quotes.
    pub fn iter<'a, 's>(
        &'a self,
        sql: &'s [u8],
    ) -> impl Iterator<Item = (Option<Cow<'s, [u8]>>, Cow<'s, [u8]>)> + use<'a, 's> {
        self.as_slice()
            .iter()
            .map(move |t| (t.db(sql), t.name(sql)))
    }

    /// Whether no table is named.
    pub fn is_empty(&self) -> bool {
        self.len == 0 && !self.overflow
    }

    /// How many distinct spellings are kept.
    pub fn len(&self) -> usize {
        usize::from(self.len)
    }

    pub(crate) fn push(&mut self, sql: &[u8], table: TableName) {
        let same = |t: &TableName| {
            t.name.of(sql) == table.name.of(sql)
                && t.db.map(|d| d.of(sql)) == table.db.map(|d| d.of(sql))
        };
        if self.as_slice().iter().any(same) {
            return;
        }
        match self.list.get_mut(usize::from(self.len)) {
            Some(slot) => {
                *slot = table;
                self.len += 1;
            }
            None => self.overflow = true,
        }
    }

    /// Moves a table to the front.
    pub(crate) fn promote(&mut self, sql: &[u8], table: TableName) {
        let at = self.as_slice().iter().position(|t| {
            t.name.of(sql) == table.name.of(sql)
                && t.db.map(|d| d.of(sql)) == table.db.map(|d| d.of(sql))
        });
        if let Some(head) = at.and_then(|at| self.list.get_mut(..=at)) {
            head.rotate_right(1);
        }
    }

    pub(crate) fn clear(&mut self) {
        self.len = 0;
    }
}

/// How a transaction was begun.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct BeginKind {
    /// READ ONLY.
    pub read_only: bool,
    /// READ WRITE, written out.
    pub read_write: bool,
    /// WITH CONSISTENT SNAPSHOT.
    pub consistent_snapshot: bool,
    /// None of the above: `BEGIN`, `BEGIN WORK`, `START TRANSACTION`.
    pub plain: bool,
}

/// What a `SET` reaches.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Scope {
    /// The next transaction only: `SET TRANSACTION`, `SET @@transaction_isolation`.
    NextOnly,
    /// The session.
    Session,
    /// The server: GLOBAL, PERSIST, PERSIST_ONLY.
    Global,
}

/// A system variable that a `SET` assigns.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SetVariable {
    /// The name as written, without `@@` and scope.
    pub name: Span,
    /// What the assignment reaches.
    pub scope: Scope,
    /// The right side as written, blanks trimmed.
    pub value: Span,
}

/// A whole statement that asks about the previous one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum DiagnosticsForm {
    /// SHOW WARNINGS [LIMIT [offset,] count]
    ShowWarnings {
        /// rows to skip
        offset: u64,
        /// rows to return
        count: u64,
    },
    /// SHOW ERRORS [LIMIT [offset,] count]
    ShowErrors {
        /// rows to skip
        offset: u64,
        /// rows to return
        count: u64,
    },
    /// SHOW COUNT(*) WARNINGS
    CountWarnings,
    /// SHOW COUNT(*) ERRORS
    CountErrors,
    /// SELECT @@warning_count, with the column's name as the server shows it
    WarningCount {
        /// alias if given (quotes included), else the expression as written
        label: Span,
    },
    /// SELECT @@error_count
    ErrorCount {
        /// see `WarningCount`
        label: Span,
    },
    /// SELECT ROW_COUNT()
    RowCount {
        /// see `WarningCount`
        label: Span,
    },
    /// SELECT LAST_INSERT_ID()
    LastInsertId {
        /// see `WarningCount`
        label: Span,
    },
}

/// `KILL [CONNECTION|QUERY] id` with a literal id.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Kill {
    /// KILL QUERY.
    pub query_only: bool,
    /// The connection.
    pub id: u64,
    /// Where the id stands in the text.
    pub id_range: Span,
}

/// All that the scanner found out.
#[derive(Clone, Debug)]
pub struct Facts {
    /// The statement; of a multi-statement text the first.
    pub verb: Verb,
    /// What it does; of a multi-statement text the most dangerous.
    pub class: Class,
    /// Statements in the text; 0 when it is empty.
    pub statements: u32,
    /// Properties, the union over all statements.
    pub flags: Flags,
    /// Tables it names.
    pub tables: Tables,
    /// The form of a single-table write, if it is fully understood.
    pub write: Option<Box<WriteShape>>,
    /// COMMIT/ROLLBACK AND [NO] CHAIN.
    pub chain: Option<bool>,
    /// COMMIT/ROLLBACK [NO] RELEASE.
    pub release: Option<bool>,
    /// The savepoint's name as written.
    pub savepoint: Option<Span>,
    /// Of BEGIN / START TRANSACTION.
    pub begin: BeginKind,
    /// SET TRANSACTION ISOLATION LEVEL, SET tx_isolation=….
    pub transaction_isolation: Option<(Scope, Isolation)>,
    /// SET TRANSACTION READ ONLY (true) or READ WRITE.
    pub transaction_read_only: Option<(Scope, bool)>,
    /// The statement only asks about the previous one.
    pub diagnostics: Option<DiagnosticsForm>,
    /// KILL with a literal id.
    pub kill: Option<Kill>,
    /// System variables that SET assigns.
    pub set_variables: Vec<SetVariable>,
    /// PREPARE x, EXECUTE x, DEALLOCATE PREPARE x: the name as written.
    pub prepared_name: Option<Span>,
    /// USE, CREATE/ALTER/DROP DATABASE: the schema's name as written.
    pub database: Option<Span>,
    /// EXPLAIN, DESCRIBE, ANALYZE <statement>.
    pub explain: bool,
    /// `?` markers.
    pub parameters: u32,
    /// Operators and commas: what makes a parser's tree large.
    pub operators: u32,
    /// Deepest nesting of parentheses.
    pub nesting: u32,
}

/// What a SELECT may have that neither reads nor changes its session.
const PLAIN: Flags = Flags::TIME_FUNCTION
    .with(Flags::RAND)
    .with(Flags::SUBQUERY)
    .with(Flags::MULTI_TABLE)
    .with(Flags::LIMIT)
    .with(Flags::PARAMETERS)
    .with(Flags::PARTITION)
    .with(Flags::WITH_CTE)
    .with(Flags::INDEX_HINT)
    .with(Flags::ORDER_BY)
    .with(Flags::ANY_FUNCTION);

impl Facts {
    /// One SELECT of named tables that neither reads nor changes anything of
    /// its session (its variables, locks, diagnostics), as far as its text
    /// tells, and calls no stored function.
    pub fn is_plain_read(&self) -> bool {
        self.verb == Verb::Select
            && self.class == Class::Read
            && self.statements == 1
            && PLAIN.has(self.flags)
            && !self.tables.is_empty()
            && !self.tables.overflow
            && self.diagnostics.is_none()
    }

    /// Nothing known: the most dangerous reading.
    pub fn unknown() -> Facts {
        Facts {
            verb: Verb::Unknown,
            class: Class::Unknown,
            statements: 1,
            flags: Flags::default(),
            tables: Tables::default(),
            write: None,
            chain: None,
            release: None,
            savepoint: None,
            begin: BeginKind::default(),
            transaction_isolation: None,
            transaction_read_only: None,
            diagnostics: None,
            kill: None,
            set_variables: Vec::new(),
            prepared_name: None,
            database: None,
            explain: false,
            parameters: 0,
            operators: 0,
            nesting: 0,
        }
    }
}
