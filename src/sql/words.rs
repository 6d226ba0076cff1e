//! Words the scanner knows: keywords and builtin functions, in one hash table
//! that is built at compile time. A word costs one probe of one cache line.
//!
//! The functions are those of MySQL 9 and MariaDB 11; what is not here is
//! taken for a stored function, which may write.

/// Keywords that matter to the scanner.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Keyword {
    /// Not a keyword.
    None,
    Add,
    Against,
    All,
    Alter,
    Analyze,
    And,
    Any,
    As,
    Asc,
    Atomic,
    Backup,
    Begin,
    Between,
    Binary,
    Binlog,
    By,
    Cache,
    Call,
    Case,
    Chain,
    Change,
    Character,
    Charset,
    Check,
    Checksum,
    Clone,
    Collate,
    Column,
    Columns,
    Comment,
    Commit,
    Committed,
    Concurrent,
    Connection,
    Consistent,
    Constraint,
    Count,
    Create,
    Cross,
    Current,
    Data,
    Database,
    Databases,
    Deallocate,
    Declare,
    Default,
    Definer,
    Delayed,
    Delete,
    Delimiter,
    Desc,
    Describe,
    Diagnostics,
    Distinct,
    Distinctrow,
    Div,
    Do,
    Drop,
    Dual,
    Dumpfile,
    Duplicate,
    Else,
    Empty,
    End,
    Engine,
    Error,
    Errors,
    Escape,
    Event,
    Except,
    Exclusive,
    Execute,
    Exists,
    Explain,
    Export,
    Extended,
    False,
    Fields,
    Flush,
    For,
    Force,
    Foreign,
    Format,
    From,
    Full,
    Fulltext,
    Function,
    Generated,
    Get,
    Global,
    Grant,
    Group,
    Handler,
    Hash,
    Having,
    Help,
    HighPriority,
    If,
    Ignore,
    Immediate,
    Import,
    In,
    Index,
    Indexes,
    Infile,
    Inner,
    Inout,
    Insert,
    Install,
    Instance,
    Intersect,
    Interval,
    Into,
    Is,
    Isolation,
    Join,
    Key,
    Keys,
    Kill,
    Lateral,
    Left,
    Less,
    Level,
    Like,
    Limit,
    Linear,
    List,
    Listen,
    Load,
    Local,
    Lock,
    Locked,
    Logs,
    Loop,
    LowPriority,
    Match,
    Member,
    Minus,
    Mod,
    Mode,
    Names,
    Natural,
    Nested,
    Next,
    No,
    Not,
    Nowait,
    Null,
    Of,
    Offset,
    Oj,
    On,
    Online,
    Only,
    Open,
    Optimize,
    Option,
    Or,
    Order,
    Out,
    Outer,
    Outfile,
    Over,
    Overlaps,
    Partition,
    Partitions,
    Password,
    Persist,
    PersistOnly,
    Prepare,
    Previous,
    Primary,
    Procedure,
    Purge,
    Qualify,
    Query,
    Quick,
    Range,
    Read,
    Readonly,
    Recursive,
    References,
    Regexp,
    Release,
    Rename,
    Repair,
    Repeat,
    Repeatable,
    Replace,
    Replica,
    Reset,
    Resignal,
    Resource,
    Restart,
    Return,
    Returning,
    Revoke,
    Right,
    Rlike,
    Role,
    Rollback,
    Rollup,
    Row,
    Rows,
    Savepoint,
    Schema,
    Select,
    Separator,
    Sequence,
    Serializable,
    Server,
    Session,
    Set,
    Share,
    Show,
    Shutdown,
    Signal,
    Signed,
    Skip,
    Slave,
    Snapshot,
    Sounds,
    Spatial,
    SqlBigResult,
    SqlBufferResult,
    SqlCache,
    SqlCalcFoundRows,
    SqlNoCache,
    SqlSmallResult,
    Start,
    Statement,
    Status,
    Stop,
    StraightJoin,
    SystemTime,
    Table,
    Tables,
    Tablespace,
    Temporary,
    Than,
    Then,
    To,
    Transaction,
    Trigger,
    True,
    Truncate,
    Uncommitted,
    Uninstall,
    Union,
    Unique,
    Unlock,
    Unsigned,
    Update,
    Use,
    User,
    Using,
    Value,
    Values,
    View,
    Wait,
    Warnings,
    When,
    Where,
    While,
    Window,
    With,
    Within,
    Work,
    Write,
    Xa,
    Xml,
    Xor,
    Zerofill,
}

/// What calling a function means.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Function {
    /// Not a function.
    None,
    /// The same arguments give the same result on any server.
    Pure,
    /// Depends on `timestamp`.
    Time,
    /// Depends on RAND_SEED1/2.
    Rand,
    /// Depends on the server, the session or the moment.
    Unsafe,
    /// NEXTVAL and its kin.
    Sequence,
    /// User-level locks.
    Lock,
    /// LAST_INSERT_ID.
    LastInsertId,
    /// FOUND_ROWS.
    FoundRows,
    /// ROW_COUNT.
    RowCount,
}

/// What is known of a word.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Known {
    pub keyword: Keyword,
    pub function: Function,
}

struct Entry {
    name: &'static [u8],
    known: Known,
}

const fn e(name: &'static str, keyword: Keyword, function: Function) -> Entry {
    Entry {
        name: name.as_bytes(),
        known: Known { keyword, function },
    }
}

/// A word that is not known.
pub(crate) static UNKNOWN: Known = Known {
    keyword: Keyword::None,
    function: Function::None,
};

/// Slots of the table: a power of two with room to spare.
const SLOTS: usize = 2048;

/// What stands in for a word: its first and last four bytes in upper case. Up
/// to [`KEY_BYTES`] bytes, with the length, that is all of it.
const KEY_BYTES: usize = 8;

/// One word in one piece of a cache line.
#[derive(Clone, Copy)]
struct Slot {
    key: u64,
    /// 0: the slot is empty.
    len: u8,
    known: Known,
    /// In [`WORDS`].
    index: u16,
}

/// `a` to `z` in all eight bytes become `A` to `Z`; others stay.
const fn upper(bytes: u64) -> u64 {
    const HIGH: u64 = 0x8080_8080_8080_8080;
    const LOW: u64 = 0x0101_0101_0101_0101;
    let seven = bytes & !HIGH;
    let from_a = seven + LOW * (0x80 - b'a' as u64);
    let past_z = seven + LOW * (0x7F - b'z' as u64);
    let lower = !bytes & HIGH & (from_a ^ past_z);
    bytes - (lower >> 2)
}

/// First and last bytes of a word that is not empty.
#[inline(always)]
const fn key(word: &[u8]) -> u64 {
    if let (Some(first), Some(last)) = (word.first_chunk::<4>(), word.last_chunk::<4>()) {
        let (first, last) = (u32::from_le_bytes(*first), u32::from_le_bytes(*last));
        return upper(first as u64 | (last as u64) << 32);
    }
    if let (Some(first), Some(last)) = (word.first_chunk::<2>(), word.last_chunk::<2>()) {
        let (first, last) = (u16::from_le_bytes(*first), u16::from_le_bytes(*last));
        return upper(first as u64 | (last as u64) << 32);
    }
    match word.first() {
        Some(&only) => upper(only as u64),
        None => 0,
    }
}

const fn hash(key: u64, len: usize) -> usize {
    ((key ^ (len as u64) << 24).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 40) as usize & (SLOTS - 1)
}

/// By [`hash`], linear probing.
static TABLE: [Slot; SLOTS] = {
    let mut table = [Slot {
        key: 0,
        len: 0,
        known: UNKNOWN,
        index: 0,
    }; SLOTS];
    let mut i = 0;
    while i < WORDS.len() {
        let word = &WORDS[i];
        let key = key(word.name);
        let mut at = hash(key, word.name.len());
        while table[at].len != 0 {
            at = (at + 1) & (SLOTS - 1);
        }
        table[at] = Slot {
            key,
            len: word.name.len() as u8,
            known: word.known,
            index: i as u16,
        };
        i += 1;
    }
    table
};

/// Longer words are not known.
const WORD_MAX: usize = 40;

/// What is known of a word, in any case. By reference: two bytes that are
/// stored one by one and copied as two make the processor wait.
#[inline]
pub(crate) fn lookup(word: &[u8]) -> &'static Known {
    if word.is_empty() || word.len() > WORD_MAX {
        return &UNKNOWN;
    }
    let key = key(word);
    let mut at = hash(key, word.len());
    loop {
        let Some(slot) = TABLE.get(at).filter(|slot| slot.len != 0) else {
            return &UNKNOWN;
        };
        let alike = slot.key == key && usize::from(slot.len) == word.len();
        if alike && (word.len() <= KEY_BYTES || slot.is_named(word)) {
            return &slot.known;
        }
        at = (at + 1) & (SLOTS - 1);
    }
}

impl Slot {
    fn is_named(&self, word: &[u8]) -> bool {
        WORDS
            .get(usize::from(self.index))
            .is_some_and(|known| known.name.eq_ignore_ascii_case(word))
    }
}

use Function as F;
use Keyword as K;

#[rustfmt::skip]
static WORDS: &[Entry] = &[
    e("ABS", K::None, F::Pure), e("ACOS", K::None, F::Pure), e("ADD", K::Add, F::None), e("ADDDATE", K::None, F::Pure),
    e("ADDTIME", K::None, F::Pure), e("AES_DECRYPT", K::None, F::Pure), e("AES_ENCRYPT", K::None, F::Pure), e("AGAINST", K::Against, F::None),
    e("ALL", K::All, F::None), e("ALTER", K::Alter, F::None), e("ANALYSE", K::None, F::Unsafe), e("ANALYZE", K::Analyze, F::None),
    e("AND", K::And, F::None), e("ANY", K::Any, F::None), e("ANY_VALUE", K::None, F::Pure), e("AREA", K::None, F::Pure), e("AS", K::As, F::None),
    e("ASBINARY", K::None, F::Pure), e("ASC", K::Asc, F::None), e("ASCII", K::None, F::Pure), e("ASIN", K::None, F::Pure),
    e("ASTEXT", K::None, F::Pure), e("ASWKB", K::None, F::Pure), e("ASWKT", K::None, F::Pure), e("ATAN", K::None, F::Pure),
    e("ATAN2", K::None, F::Pure), e("ATOMIC", K::Atomic, F::None), e("AVG", K::None, F::Pure), e("BACKUP", K::Backup, F::None),
    e("BEGIN", K::Begin, F::None), e("BENCHMARK", K::None, F::Unsafe), e("BETWEEN", K::Between, F::Pure), e("BIGINT", K::None, F::Pure),
    e("BIN", K::None, F::Pure), e("BINARY", K::Binary, F::None), e("BINARY_CHECKSUM", K::None, F::Pure), e("BINLOG", K::Binlog, F::None),
    e("BINLOG_GTID_POS", K::None, F::Unsafe), e("BIN_TO_UUID", K::None, F::Pure), e("BIT", K::None, F::Pure), e("BIT_AND", K::None, F::Pure),
    e("BIT_COUNT", K::None, F::Pure), e("BIT_LENGTH", K::None, F::Pure), e("BIT_OR", K::None, F::Pure), e("BIT_XOR", K::None, F::Pure),
    e("BLOB", K::None, F::Pure), e("BOUNDARY", K::None, F::Pure), e("BUFFER", K::None, F::Pure), e("BY", K::By, F::None),
    e("CACHE", K::Cache, F::None), e("CALL", K::Call, F::None), e("CAN_ACCESS_COLUMN", K::None, F::Pure), e("CASE", K::Case, F::Pure),
    e("CAST", K::None, F::Pure), e("CEIL", K::None, F::Pure), e("CEILING", K::None, F::Pure), e("CENTROID", K::None, F::Pure),
    e("CHAIN", K::Chain, F::None), e("CHANGE", K::Change, F::None), e("CHAR", K::None, F::Pure), e("CHARACTER", K::Character, F::None),
    e("CHARACTER_LENGTH", K::None, F::Pure), e("CHARSET", K::Charset, F::Pure), e("CHAR_LENGTH", K::None, F::Pure), e("CHECK", K::Check, F::None),
    e("CHECKSUM", K::Checksum, F::None), e("CHR", K::None, F::Pure), e("CLONE", K::Clone, F::None), e("COALESCE", K::None, F::Pure),
    e("COERCIBILITY", K::None, F::Pure), e("COLLATE", K::Collate, F::None), e("COLLATION", K::None, F::Pure), e("COLUMN", K::Column, F::None),
    e("COLUMNS", K::Columns, F::None), e("COLUMN_ADD", K::None, F::Pure), e("COLUMN_CHECK", K::None, F::Pure), e("COLUMN_CREATE", K::None, F::Pure),
    e("COLUMN_DELETE", K::None, F::Pure), e("COLUMN_EXISTS", K::None, F::Pure), e("COLUMN_GET", K::None, F::Pure), e("COLUMN_JSON", K::None, F::Pure),
    e("COLUMN_LIST", K::None, F::Pure), e("COMMENT", K::Comment, F::None), e("COMMIT", K::Commit, F::None), e("COMMITTED", K::Committed, F::None),
    e("COMPRESS", K::None, F::Unsafe), e("CONCAT", K::None, F::Pure), e("CONCAT_WS", K::None, F::Pure), e("CONCURRENT", K::Concurrent, F::None),
    e("CONNECTION", K::Connection, F::None), e("CONNECTION_ID", K::None, F::Unsafe), e("CONSISTENT", K::Consistent, F::None),
    e("CONSTRAINT", K::Constraint, F::None), e("CONTAINS", K::None, F::Pure), e("CONV", K::None, F::Pure), e("CONVERT", K::None, F::Pure),
    e("CONVERT_TZ", K::None, F::Pure), e("CONVEXHULL", K::None, F::Pure), e("COS", K::None, F::Pure), e("COT", K::None, F::Pure),
    e("COUNT", K::Count, F::Pure), e("CRC32", K::None, F::Pure), e("CRC32C", K::None, F::Pure), e("CREATE", K::Create, F::None),
    e("CROSS", K::Cross, F::None), e("CROSSES", K::None, F::Pure), e("CUME_DIST", K::None, F::Pure), e("CURDATE", K::None, F::Time),
    e("CURRENT", K::Current, F::None), e("CURRENT_DATE", K::None, F::Time), e("CURRENT_ROLE", K::None, F::Unsafe),
    e("CURRENT_TIME", K::None, F::Time), e("CURRENT_TIMESTAMP", K::None, F::Time), e("CURRENT_USER", K::None, F::Unsafe),
    e("CURTIME", K::None, F::Time), e("DATA", K::Data, F::None), e("DATABASE", K::Database, F::Pure), e("DATABASES", K::Databases, F::None),
    e("DATE", K::None, F::Pure), e("DATEDIFF", K::None, F::Pure), e("DATETIME", K::None, F::Pure), e("DATE_ADD", K::None, F::Pure),
    e("DATE_FORMAT", K::None, F::Pure), e("DATE_SUB", K::None, F::Pure), e("DAY", K::None, F::Pure), e("DAYNAME", K::None, F::Pure),
    e("DAYOFMONTH", K::None, F::Pure), e("DAYOFWEEK", K::None, F::Pure), e("DAYOFYEAR", K::None, F::Pure), e("DEALLOCATE", K::Deallocate, F::None),
    e("DEC", K::None, F::Pure), e("DECIMAL", K::None, F::Pure), e("DECLARE", K::Declare, F::None), e("DECODE", K::None, F::Unsafe),
    e("DECODE_HISTOGRAM", K::None, F::Pure), e("DEFAULT", K::Default, F::Pure), e("DEFINER", K::Definer, F::None), e("DEGREES", K::None, F::Pure),
    e("DELAYED", K::Delayed, F::None), e("DELETE", K::Delete, F::None), e("DELIMITER", K::Delimiter, F::None), e("DENSE_RANK", K::None, F::Pure),
    e("DESC", K::Desc, F::None), e("DESCRIBE", K::Describe, F::None), e("DES_DECRYPT", K::None, F::Unsafe), e("DES_ENCRYPT", K::None, F::Unsafe),
    e("DIAGNOSTICS", K::Diagnostics, F::None), e("DIMENSION", K::None, F::Pure), e("DISJOINT", K::None, F::Pure), e("DISTANCE", K::None, F::Pure),
    e("DISTINCT", K::Distinct, F::None), e("DISTINCTROW", K::Distinctrow, F::None), e("DIV", K::Div, F::None), e("DO", K::Do, F::None),
    e("DOUBLE", K::None, F::Pure), e("DROP", K::Drop, F::None), e("DUAL", K::Dual, F::None), e("DUMPFILE", K::Dumpfile, F::None),
    e("DUPLICATE", K::Duplicate, F::None), e("ELSE", K::Else, F::None), e("ELT", K::None, F::Pure), e("EMPTY", K::Empty, F::None),
    e("ENCODE", K::None, F::Unsafe), e("ENCRYPT", K::None, F::Unsafe), e("END", K::End, F::None), e("ENDPOINT", K::None, F::Pure),
    e("ENGINE", K::Engine, F::None), e("ENUM", K::None, F::Pure), e("ENVELOPE", K::None, F::Pure), e("EQUALS", K::None, F::Pure),
    e("ERROR", K::Error, F::None), e("ERRORS", K::Errors, F::None), e("ESCAPE", K::Escape, F::None), e("EVENT", K::Event, F::None),
    e("EXCEPT", K::Except, F::None), e("EXCLUSIVE", K::Exclusive, F::None), e("EXECUTE", K::Execute, F::None), e("EXISTS", K::Exists, F::Pure),
    e("EXP", K::None, F::Pure), e("EXPLAIN", K::Explain, F::None), e("EXPORT", K::Export, F::None), e("EXPORT_SET", K::None, F::Pure),
    e("EXTENDED", K::Extended, F::None), e("EXTERIORRING", K::None, F::Pure), e("EXTRACT", K::None, F::Pure), e("EXTRACTVALUE", K::None, F::Pure),
    e("FALSE", K::False, F::None), e("FIELD", K::None, F::Pure), e("FIELDS", K::Fields, F::None), e("FIND_IN_SET", K::None, F::Pure),
    e("FIRST_VALUE", K::None, F::Pure), e("FIXED", K::None, F::Pure), e("FLOAT", K::None, F::Pure), e("FLOOR", K::None, F::Pure),
    e("FLUSH", K::Flush, F::None), e("FOR", K::For, F::None), e("FORCE", K::Force, F::None), e("FOREIGN", K::Foreign, F::None),
    e("FORMAT", K::Format, F::Pure), e("FORMAT_BYTES", K::None, F::Pure), e("FORMAT_PICO_TIME", K::None, F::Pure),
    e("FOUND_ROWS", K::None, F::FoundRows), e("FROM", K::From, F::None), e("FROM_BASE64", K::None, F::Pure), e("FROM_DAYS", K::None, F::Pure),
    e("FROM_UNIXTIME", K::None, F::Pure), e("FROM_VECTOR", K::None, F::Pure), e("FULL", K::Full, F::None), e("FULLTEXT", K::Fulltext, F::None),
    e("FUNCTION", K::Function, F::None), e("GENERATED", K::Generated, F::None), e("GEOMCOLLECTION", K::None, F::Pure),
    e("GEOMETRYCOLLECTION", K::None, F::Pure), e("GEOMETRYCOLLECTIONFROMTEXT", K::None, F::Pure), e("GEOMETRYFROMTEXT", K::None, F::Pure),
    e("GEOMETRYN", K::None, F::Pure), e("GEOMETRYTYPE", K::None, F::Pure), e("GEOMFROMTEXT", K::None, F::Pure), e("GEOMFROMWKB", K::None, F::Pure),
    e("GET", K::Get, F::None), e("GET_FORMAT", K::None, F::Pure), e("GET_LOCK", K::None, F::Lock), e("GLENGTH", K::None, F::Pure),
    e("GLOBAL", K::Global, F::None), e("GRANT", K::Grant, F::None), e("GREATEST", K::None, F::Pure), e("GROUP", K::Group, F::None),
    e("GROUPING", K::None, F::Pure), e("GROUP_CONCAT", K::None, F::Pure), e("GROUP_REPLICATION_SET_AS_PRIMARY", K::None, F::Unsafe),
    e("GTID_SUBSET", K::None, F::Unsafe), e("GTID_SUBTRACT", K::None, F::Unsafe), e("HANDLER", K::Handler, F::None), e("HASH", K::Hash, F::None),
    e("HAVING", K::Having, F::None), e("HELP", K::Help, F::None), e("HEX", K::None, F::Pure), e("HIGH_PRIORITY", K::HighPriority, F::None),
    e("HOUR", K::None, F::Pure), e("ICU_VERSION", K::None, F::Unsafe), e("IF", K::If, F::Pure), e("IFNULL", K::None, F::Pure),
    e("IGNORE", K::Ignore, F::None), e("IMMEDIATE", K::Immediate, F::None), e("IMPORT", K::Import, F::None), e("IN", K::In, F::None),
    e("INDEX", K::Index, F::None), e("INDEXES", K::Indexes, F::None), e("INET6_ATON", K::None, F::Pure), e("INET6_NTOA", K::None, F::Pure),
    e("INET_ATON", K::None, F::Pure), e("INET_NTOA", K::None, F::Pure), e("INFILE", K::Infile, F::None), e("INNER", K::Inner, F::None),
    e("INOUT", K::Inout, F::None), e("INSERT", K::Insert, F::Pure), e("INSTALL", K::Install, F::None), e("INSTANCE", K::Instance, F::None),
    e("INSTR", K::None, F::Pure), e("INT", K::None, F::Pure), e("INTEGER", K::None, F::Pure), e("INTERIORRINGN", K::None, F::Pure),
    e("INTERSECT", K::Intersect, F::None), e("INTERSECTS", K::None, F::Pure), e("INTERVAL", K::Interval, F::Pure), e("INTO", K::Into, F::None),
    e("IS", K::Is, F::None), e("ISCLOSED", K::None, F::Pure), e("ISEMPTY", K::None, F::Pure), e("ISNULL", K::None, F::Pure),
    e("ISOLATION", K::Isolation, F::None), e("ISRING", K::None, F::Pure), e("ISSIMPLE", K::None, F::Pure), e("IS_FREE_LOCK", K::None, F::Lock),
    e("IS_IPV4", K::None, F::Pure), e("IS_IPV4_COMPAT", K::None, F::Pure), e("IS_IPV4_MAPPED", K::None, F::Pure), e("IS_IPV6", K::None, F::Pure),
    e("IS_USED_LOCK", K::None, F::Lock), e("IS_UUID", K::None, F::Pure), e("JOIN", K::Join, F::None), e("JSON_ARRAY", K::None, F::Pure),
    e("JSON_ARRAYAGG", K::None, F::Pure), e("JSON_ARRAY_APPEND", K::None, F::Pure), e("JSON_ARRAY_INSERT", K::None, F::Pure),
    e("JSON_ARRAY_INTERSECT", K::None, F::Pure), e("JSON_COMPACT", K::None, F::Pure), e("JSON_CONTAINS", K::None, F::Pure),
    e("JSON_CONTAINS_PATH", K::None, F::Pure), e("JSON_DEPTH", K::None, F::Pure), e("JSON_DETAILED", K::None, F::Pure),
    e("JSON_EQUALS", K::None, F::Pure), e("JSON_EXISTS", K::None, F::Pure), e("JSON_EXTRACT", K::None, F::Pure), e("JSON_INSERT", K::None, F::Pure),
    e("JSON_KEYS", K::None, F::Pure), e("JSON_KEY_VALUE", K::None, F::Pure), e("JSON_LENGTH", K::None, F::Pure), e("JSON_LOOSE", K::None, F::Pure),
    e("JSON_MERGE", K::None, F::Pure), e("JSON_MERGE_PATCH", K::None, F::Pure), e("JSON_MERGE_PRESERVE", K::None, F::Pure),
    e("JSON_NORMALIZE", K::None, F::Pure), e("JSON_OBJECT", K::None, F::Pure), e("JSON_OBJECTAGG", K::None, F::Pure),
    e("JSON_OBJECT_FILTER_KEYS", K::None, F::Pure), e("JSON_OBJECT_TO_ARRAY", K::None, F::Pure), e("JSON_OVERLAPS", K::None, F::Pure),
    e("JSON_PRETTY", K::None, F::Pure), e("JSON_QUERY", K::None, F::Pure), e("JSON_QUOTE", K::None, F::Pure), e("JSON_REMOVE", K::None, F::Pure),
    e("JSON_REPLACE", K::None, F::Pure), e("JSON_SCHEMA_VALID", K::None, F::Pure), e("JSON_SCHEMA_VALIDATION_REPORT", K::None, F::Pure),
    e("JSON_SEARCH", K::None, F::Pure), e("JSON_SET", K::None, F::Pure), e("JSON_STORAGE_FREE", K::None, F::Pure),
    e("JSON_STORAGE_SIZE", K::None, F::Pure), e("JSON_TABLE", K::None, F::Pure), e("JSON_TYPE", K::None, F::Pure),
    e("JSON_UNQUOTE", K::None, F::Pure), e("JSON_VALID", K::None, F::Pure), e("JSON_VALUE", K::None, F::Pure), e("KDF", K::None, F::Pure),
    e("KEY", K::Key, F::None), e("KEYS", K::Keys, F::None), e("KILL", K::Kill, F::None), e("LAG", K::None, F::Pure),
    e("LASTVAL", K::None, F::Sequence), e("LAST_DAY", K::None, F::Pure), e("LAST_INSERT_ID", K::None, F::LastInsertId),
    e("LAST_VALUE", K::None, F::Pure), e("LATERAL", K::Lateral, F::None), e("LCASE", K::None, F::Pure), e("LEAD", K::None, F::Pure),
    e("LEAST", K::None, F::Pure), e("LEFT", K::Left, F::Pure), e("LENGTH", K::None, F::Pure), e("LENGTHB", K::None, F::Pure),
    e("LESS", K::Less, F::None), e("LEVEL", K::Level, F::None), e("LIKE", K::Like, F::Pure), e("LIMIT", K::Limit, F::None),
    e("LINEAR", K::Linear, F::None), e("LINEFROMTEXT", K::None, F::Pure), e("LINESTRING", K::None, F::Pure),
    e("LINESTRINGFROMTEXT", K::None, F::Pure), e("LIST", K::List, F::None), e("LISTEN", K::Listen, F::None), e("LN", K::None, F::Pure),
    e("LOAD", K::Load, F::None), e("LOAD_FILE", K::None, F::Unsafe), e("LOCAL", K::Local, F::None), e("LOCALTIME", K::None, F::Time),
    e("LOCALTIMESTAMP", K::None, F::Time), e("LOCATE", K::None, F::Pure), e("LOCK", K::Lock, F::None), e("LOCKED", K::Locked, F::None),
    e("LOG", K::None, F::Pure), e("LOG10", K::None, F::Pure), e("LOG2", K::None, F::Pure), e("LOGS", K::Logs, F::None), e("LOOP", K::Loop, F::None),
    e("LOWER", K::None, F::Pure), e("LOW_PRIORITY", K::LowPriority, F::None), e("LPAD", K::None, F::Pure), e("LTRIM", K::None, F::Pure),
    e("MAKEDATE", K::None, F::Pure), e("MAKETIME", K::None, F::Pure), e("MAKE_SET", K::None, F::Pure), e("MASTER_GTID_POS", K::None, F::Unsafe),
    e("MASTER_GTID_WAIT", K::None, F::Unsafe), e("MASTER_POS_WAIT", K::None, F::Unsafe), e("MATCH", K::Match, F::Pure), e("MAX", K::None, F::Pure),
    e("MBRCONTAINS", K::None, F::Pure), e("MBRCOVEREDBY", K::None, F::Pure), e("MBRCOVERS", K::None, F::Pure), e("MBRDISJOINT", K::None, F::Pure),
    e("MBREQUAL", K::None, F::Pure), e("MBREQUALS", K::None, F::Pure), e("MBRINTERSECTS", K::None, F::Pure), e("MBROVERLAPS", K::None, F::Pure),
    e("MBRTOUCHES", K::None, F::Pure), e("MBRWITHIN", K::None, F::Pure), e("MD5", K::None, F::Pure), e("MEDIAN", K::None, F::Pure),
    e("MEDIUMINT", K::None, F::Pure), e("MEMBER", K::Member, F::None), e("MICROSECOND", K::None, F::Pure), e("MID", K::None, F::Pure),
    e("MIN", K::None, F::Pure), e("MINUS", K::Minus, F::None), e("MINUTE", K::None, F::Pure), e("MOD", K::Mod, F::Pure), e("MODE", K::Mode, F::None),
    e("MONTH", K::None, F::Pure), e("MONTHNAME", K::None, F::Pure), e("MULTILINESTRING", K::None, F::Pure), e("MULTIPOINT", K::None, F::Pure),
    e("MULTIPOLYGON", K::None, F::Pure), e("NAMES", K::Names, F::None), e("NAME_CONST", K::None, F::Pure), e("NATIONAL", K::None, F::Pure),
    e("NATURAL", K::Natural, F::None), e("NATURAL_SORT_KEY", K::None, F::Pure), e("NCHAR", K::None, F::Pure), e("NESTED", K::Nested, F::None),
    e("NEXT", K::Next, F::None), e("NEXTVAL", K::None, F::Sequence), e("NO", K::No, F::None), e("NOT", K::Not, F::None), e("NOW", K::None, F::Time),
    e("NOWAIT", K::Nowait, F::None), e("NTH_VALUE", K::None, F::Pure), e("NTILE", K::None, F::Pure), e("NULL", K::Null, F::None),
    e("NULLIF", K::None, F::Pure), e("NUMERIC", K::None, F::Pure), e("NUMGEOMETRIES", K::None, F::Pure), e("NUMINTERIORRINGS", K::None, F::Pure),
    e("NUMPOINTS", K::None, F::Pure), e("NVARCHAR", K::None, F::Pure), e("NVL", K::None, F::Pure), e("NVL2", K::None, F::Pure),
    e("OCT", K::None, F::Pure), e("OCTET_LENGTH", K::None, F::Pure), e("OF", K::Of, F::None), e("OFFSET", K::Offset, F::None),
    e("OJ", K::Oj, F::None), e("OLD_PASSWORD", K::None, F::Unsafe), e("ON", K::On, F::None), e("ONLINE", K::Online, F::None),
    e("ONLY", K::Only, F::None), e("OPEN", K::Open, F::None), e("OPTIMIZE", K::Optimize, F::None), e("OPTION", K::Option, F::None),
    e("OR", K::Or, F::None), e("ORD", K::None, F::Pure), e("ORDER", K::Order, F::None), e("OUT", K::Out, F::None), e("OUTER", K::Outer, F::None),
    e("OUTFILE", K::Outfile, F::None), e("OVER", K::Over, F::None), e("OVERLAPS", K::Overlaps, F::Pure), e("PARTITION", K::Partition, F::None),
    e("PARTITIONS", K::Partitions, F::None), e("PASSWORD", K::Password, F::Unsafe), e("PERCENTILE_CONT", K::None, F::Pure),
    e("PERCENTILE_DISC", K::None, F::Pure), e("PERCENT_RANK", K::None, F::Pure), e("PERIOD_ADD", K::None, F::Pure),
    e("PERIOD_DIFF", K::None, F::Pure), e("PERSIST", K::Persist, F::None), e("PERSIST_ONLY", K::PersistOnly, F::None), e("PI", K::None, F::Pure),
    e("POINT", K::None, F::Pure), e("POINTFROMTEXT", K::None, F::Pure), e("POINTFROMWKB", K::None, F::Pure), e("POINTN", K::None, F::Pure),
    e("POLYFROMTEXT", K::None, F::Pure), e("POLYGON", K::None, F::Pure), e("POLYGONFROMTEXT", K::None, F::Pure), e("POSITION", K::None, F::Pure),
    e("POW", K::None, F::Pure), e("POWER", K::None, F::Pure), e("PREPARE", K::Prepare, F::None), e("PREVIOUS", K::Previous, F::None),
    e("PRIMARY", K::Primary, F::None), e("PROCEDURE", K::Procedure, F::None), e("PS_CURRENT_THREAD_ID", K::None, F::Unsafe),
    e("PS_THREAD_ID", K::None, F::Unsafe), e("PURGE", K::Purge, F::None), e("QUALIFY", K::Qualify, F::None), e("QUARTER", K::None, F::Pure),
    e("QUERY", K::Query, F::None), e("QUICK", K::Quick, F::None), e("QUOTE", K::None, F::Pure), e("RADIANS", K::None, F::Pure),
    e("RAND", K::None, F::Rand), e("RANDOM_BYTES", K::None, F::Unsafe), e("RANGE", K::Range, F::None), e("RANK", K::None, F::Pure),
    e("READ", K::Read, F::None), e("READONLY", K::Readonly, F::None), e("REAL", K::None, F::Pure), e("RECURSIVE", K::Recursive, F::None),
    e("REFERENCES", K::References, F::None), e("REGEXP", K::Regexp, F::None), e("REGEXP_INSTR", K::None, F::Pure), e("REGEXP_LIKE", K::None, F::Pure),
    e("REGEXP_REPLACE", K::None, F::Pure), e("REGEXP_SUBSTR", K::None, F::Pure), e("RELEASE", K::Release, F::None),
    e("RELEASE_ALL_LOCKS", K::None, F::Lock), e("RELEASE_LOCK", K::None, F::Lock), e("RENAME", K::Rename, F::None), e("REPAIR", K::Repair, F::None),
    e("REPEAT", K::Repeat, F::Pure), e("REPEATABLE", K::Repeatable, F::None), e("REPLACE", K::Replace, F::Pure), e("REPLICA", K::Replica, F::None),
    e("RESET", K::Reset, F::None), e("RESIGNAL", K::Resignal, F::None), e("RESOURCE", K::Resource, F::None), e("RESTART", K::Restart, F::None),
    e("RETURN", K::Return, F::None), e("RETURNING", K::Returning, F::None), e("REVERSE", K::None, F::Pure), e("REVOKE", K::Revoke, F::None),
    e("RIGHT", K::Right, F::Pure), e("RLIKE", K::Rlike, F::None), e("ROLE", K::Role, F::None), e("ROLES_GRAPHML", K::None, F::Unsafe),
    e("ROLLBACK", K::Rollback, F::None), e("ROLLUP", K::Rollup, F::None), e("ROUND", K::None, F::Pure), e("ROW", K::Row, F::Pure),
    e("ROWNUM", K::None, F::Unsafe), e("ROWS", K::Rows, F::None), e("ROW_COUNT", K::None, F::RowCount), e("ROW_NUMBER", K::None, F::Pure),
    e("RPAD", K::None, F::Pure), e("RTRIM", K::None, F::Pure), e("SAVEPOINT", K::Savepoint, F::None), e("SCHEMA", K::Schema, F::Pure),
    e("SECOND", K::None, F::Pure), e("SEC_TO_TIME", K::None, F::Pure), e("SELECT", K::Select, F::None), e("SEPARATOR", K::Separator, F::None),
    e("SEQUENCE", K::Sequence, F::None), e("SERIALIZABLE", K::Serializable, F::None), e("SERVER", K::Server, F::None),
    e("SESSION", K::Session, F::None), e("SESSION_USER", K::None, F::Unsafe), e("SET", K::Set, F::None), e("SETVAL", K::None, F::Sequence),
    e("SFORMAT", K::None, F::Pure), e("SHA", K::None, F::Pure), e("SHA1", K::None, F::Pure), e("SHA2", K::None, F::Pure),
    e("SHARE", K::Share, F::None), e("SHOW", K::Show, F::None), e("SHUTDOWN", K::Shutdown, F::None), e("SIGN", K::None, F::Pure),
    e("SIGNAL", K::Signal, F::None), e("SIGNED", K::Signed, F::None), e("SIN", K::None, F::Pure), e("SKIP", K::Skip, F::None),
    e("SLAVE", K::Slave, F::None), e("SLEEP", K::None, F::Unsafe), e("SMALLINT", K::None, F::Pure), e("SNAPSHOT", K::Snapshot, F::None),
    e("SOUNDEX", K::None, F::Pure), e("SOUNDS", K::Sounds, F::None), e("SOURCE_POS_WAIT", K::None, F::Unsafe), e("SPACE", K::None, F::Pure),
    e("SPATIAL", K::Spatial, F::None), e("SQL_BIG_RESULT", K::SqlBigResult, F::None), e("SQL_BUFFER_RESULT", K::SqlBufferResult, F::None),
    e("SQL_CACHE", K::SqlCache, F::None), e("SQL_CALC_FOUND_ROWS", K::SqlCalcFoundRows, F::None), e("SQL_NO_CACHE", K::SqlNoCache, F::None),
    e("SQL_SMALL_RESULT", K::SqlSmallResult, F::None), e("SQRT", K::None, F::Pure), e("SRID", K::None, F::Pure), e("START", K::Start, F::None),
    e("STARTPOINT", K::None, F::Pure), e("STATEMENT", K::Statement, F::None), e("STATEMENT_DIGEST", K::None, F::Pure),
    e("STATEMENT_DIGEST_TEXT", K::None, F::Pure), e("STATUS", K::Status, F::None), e("STD", K::None, F::Pure), e("STDDEV", K::None, F::Pure),
    e("STDDEV_POP", K::None, F::Pure), e("STDDEV_SAMP", K::None, F::Pure), e("STOP", K::Stop, F::None), e("STRAIGHT_JOIN", K::StraightJoin, F::None),
    e("STRCMP", K::None, F::Pure), e("STRING_TO_VECTOR", K::None, F::Pure), e("STR_TO_DATE", K::None, F::Pure), e("ST_AREA", K::None, F::Pure),
    e("ST_ASBINARY", K::None, F::Pure), e("ST_ASGEOJSON", K::None, F::Pure), e("ST_ASTEXT", K::None, F::Pure), e("ST_ASWKB", K::None, F::Pure),
    e("ST_ASWKT", K::None, F::Pure), e("ST_BOUNDARY", K::None, F::Pure), e("ST_BUFFER", K::None, F::Pure), e("ST_BUFFER_STRATEGY", K::None, F::Pure),
    e("ST_CENTROID", K::None, F::Pure), e("ST_COLLECT", K::None, F::Pure), e("ST_CONTAINS", K::None, F::Pure), e("ST_CONVEXHULL", K::None, F::Pure),
    e("ST_CROSSES", K::None, F::Pure), e("ST_DIFFERENCE", K::None, F::Pure), e("ST_DIMENSION", K::None, F::Pure), e("ST_DISJOINT", K::None, F::Pure),
    e("ST_DISTANCE", K::None, F::Pure), e("ST_DISTANCE_SPHERE", K::None, F::Pure), e("ST_ENDPOINT", K::None, F::Pure),
    e("ST_ENVELOPE", K::None, F::Pure), e("ST_EQUALS", K::None, F::Pure), e("ST_EXTERIORRING", K::None, F::Pure),
    e("ST_FRECHETDISTANCE", K::None, F::Pure), e("ST_GEOHASH", K::None, F::Pure), e("ST_GEOMCOLLFROMTEXT", K::None, F::Pure),
    e("ST_GEOMCOLLFROMWKB", K::None, F::Pure), e("ST_GEOMETRYCOLLECTIONFROMTEXT", K::None, F::Pure), e("ST_GEOMETRYFROMTEXT", K::None, F::Pure),
    e("ST_GEOMETRYFROMWKB", K::None, F::Pure), e("ST_GEOMETRYN", K::None, F::Pure), e("ST_GEOMETRYTYPE", K::None, F::Pure),
    e("ST_GEOMFROMGEOJSON", K::None, F::Pure), e("ST_GEOMFROMTEXT", K::None, F::Pure), e("ST_GEOMFROMWKB", K::None, F::Pure),
    e("ST_HAUSDORFFDISTANCE", K::None, F::Pure), e("ST_INTERIORRINGN", K::None, F::Pure), e("ST_INTERSECTION", K::None, F::Pure),
    e("ST_INTERSECTS", K::None, F::Pure), e("ST_ISCLOSED", K::None, F::Pure), e("ST_ISEMPTY", K::None, F::Pure), e("ST_ISRING", K::None, F::Pure),
    e("ST_ISSIMPLE", K::None, F::Pure), e("ST_ISVALID", K::None, F::Pure), e("ST_LATFROMGEOHASH", K::None, F::Pure),
    e("ST_LATITUDE", K::None, F::Pure), e("ST_LENGTH", K::None, F::Pure), e("ST_LINEFROMTEXT", K::None, F::Pure),
    e("ST_LINEFROMWKB", K::None, F::Pure), e("ST_LINEINTERPOLATEPOINT", K::None, F::Pure), e("ST_LINEINTERPOLATEPOINTS", K::None, F::Pure),
    e("ST_LONGFROMGEOHASH", K::None, F::Pure), e("ST_LONGITUDE", K::None, F::Pure), e("ST_MAKEENVELOPE", K::None, F::Pure),
    e("ST_MLINEFROMTEXT", K::None, F::Pure), e("ST_MLINEFROMWKB", K::None, F::Pure), e("ST_MPOINTFROMTEXT", K::None, F::Pure),
    e("ST_MPOLYFROMTEXT", K::None, F::Pure), e("ST_NUMGEOMETRIES", K::None, F::Pure), e("ST_NUMINTERIORRING", K::None, F::Pure),
    e("ST_NUMINTERIORRINGS", K::None, F::Pure), e("ST_NUMPOINTS", K::None, F::Pure), e("ST_OVERLAPS", K::None, F::Pure),
    e("ST_POINTATDISTANCE", K::None, F::Pure), e("ST_POINTFROMGEOHASH", K::None, F::Pure), e("ST_POINTFROMTEXT", K::None, F::Pure),
    e("ST_POINTFROMWKB", K::None, F::Pure), e("ST_POINTN", K::None, F::Pure), e("ST_POLYFROMTEXT", K::None, F::Pure),
    e("ST_POLYFROMWKB", K::None, F::Pure), e("ST_POLYGONFROMTEXT", K::None, F::Pure), e("ST_RELATE", K::None, F::Pure),
    e("ST_SIMPLIFY", K::None, F::Pure), e("ST_SRID", K::None, F::Pure), e("ST_STARTPOINT", K::None, F::Pure), e("ST_SWAPXY", K::None, F::Pure),
    e("ST_SYMDIFFERENCE", K::None, F::Pure), e("ST_TOUCHES", K::None, F::Pure), e("ST_TRANSFORM", K::None, F::Pure), e("ST_UNION", K::None, F::Pure),
    e("ST_VALIDATE", K::None, F::Pure), e("ST_WITHIN", K::None, F::Pure), e("ST_X", K::None, F::Pure), e("ST_Y", K::None, F::Pure),
    e("SUBDATE", K::None, F::Pure), e("SUBSTR", K::None, F::Pure), e("SUBSTRING", K::None, F::Pure), e("SUBSTRING_INDEX", K::None, F::Pure),
    e("SUBTIME", K::None, F::Pure), e("SUM", K::None, F::Pure), e("SYSDATE", K::None, F::Unsafe), e("SYSTEM_TIME", K::SystemTime, F::None),
    e("SYSTEM_USER", K::None, F::Unsafe), e("SYS_GUID", K::None, F::Unsafe), e("TABLE", K::Table, F::None), e("TABLES", K::Tables, F::None),
    e("TABLESPACE", K::Tablespace, F::None), e("TAN", K::None, F::Pure), e("TEMPORARY", K::Temporary, F::None), e("TEXT", K::None, F::Pure),
    e("THAN", K::Than, F::None), e("THEN", K::Then, F::None), e("TIME", K::None, F::Pure), e("TIMEDIFF", K::None, F::Pure),
    e("TIMESTAMP", K::None, F::Pure), e("TIMESTAMPADD", K::None, F::Pure), e("TIMESTAMPDIFF", K::None, F::Pure), e("TIME_FORMAT", K::None, F::Pure),
    e("TIME_TO_SEC", K::None, F::Pure), e("TINYINT", K::None, F::Pure), e("TO", K::To, F::None), e("TOUCHES", K::None, F::Pure),
    e("TO_BASE64", K::None, F::Pure), e("TO_CHAR", K::None, F::Pure), e("TO_DAYS", K::None, F::Pure), e("TO_SECONDS", K::None, F::Pure),
    e("TO_VECTOR", K::None, F::Pure), e("TRANSACTION", K::Transaction, F::None), e("TRIGGER", K::Trigger, F::None), e("TRIM", K::None, F::Pure),
    e("TRIM_ORACLE", K::None, F::Pure), e("TRT_BEGIN_TS", K::None, F::Unsafe), e("TRT_COMMIT_ID", K::None, F::Unsafe),
    e("TRT_COMMIT_TS", K::None, F::Unsafe), e("TRT_ISO_LEVEL", K::None, F::Unsafe), e("TRT_TRX_ID", K::None, F::Unsafe),
    e("TRT_TRX_SEES", K::None, F::Unsafe), e("TRT_TRX_SEES_EQ", K::None, F::Unsafe), e("TRUE", K::True, F::None), e("TRUNCATE", K::Truncate, F::Pure),
    e("UCASE", K::None, F::Pure), e("UNCOMMITTED", K::Uncommitted, F::None), e("UNCOMPRESS", K::None, F::Unsafe),
    e("UNCOMPRESSED_LENGTH", K::None, F::Pure), e("UNHEX", K::None, F::Pure), e("UNINSTALL", K::Uninstall, F::None), e("UNION", K::Union, F::None),
    e("UNIQUE", K::Unique, F::None), e("UNIX_TIMESTAMP", K::None, F::Time), e("UNLOCK", K::Unlock, F::None), e("UNSIGNED", K::Unsigned, F::None),
    e("UPDATE", K::Update, F::None), e("UPDATEXML", K::None, F::Pure), e("UPPER", K::None, F::Pure), e("USE", K::Use, F::None),
    e("USER", K::User, F::Unsafe), e("USING", K::Using, F::None), e("UTC_DATE", K::None, F::Time), e("UTC_TIME", K::None, F::Time),
    e("UTC_TIMESTAMP", K::None, F::Time), e("UUID", K::None, F::Unsafe), e("UUIDV4", K::None, F::Unsafe), e("UUIDV7", K::None, F::Unsafe),
    e("UUID_SHORT", K::None, F::Unsafe), e("UUID_TO_BIN", K::None, F::Pure), e("UUID_V4", K::None, F::Unsafe), e("UUID_V7", K::None, F::Unsafe),
    e("VALIDATE_PASSWORD_STRENGTH", K::None, F::Pure), e("VALUE", K::Value, F::Pure), e("VALUES", K::Values, F::Pure),
    e("VARBINARY", K::None, F::Pure), e("VARCHAR", K::None, F::Pure), e("VARIANCE", K::None, F::Pure), e("VAR_POP", K::None, F::Pure),
    e("VAR_SAMP", K::None, F::Pure), e("VECTOR", K::None, F::Pure), e("VECTOR_DIM", K::None, F::Pure), e("VECTOR_TO_STRING", K::None, F::Pure),
    e("VEC_DISTANCE", K::None, F::Pure), e("VEC_DISTANCE_COSINE", K::None, F::Pure), e("VEC_DISTANCE_EUCLIDEAN", K::None, F::Pure),
    e("VEC_FROMTEXT", K::None, F::Pure), e("VEC_TOTEXT", K::None, F::Pure), e("VERSION", K::None, F::Unsafe), e("VIEW", K::View, F::None),
    e("WAIT", K::Wait, F::None), e("WAIT_FOR_EXECUTED_GTID_SET", K::None, F::Unsafe), e("WAIT_UNTIL_SQL_THREAD_AFTER_GTIDS", K::None, F::Unsafe),
    e("WARNINGS", K::Warnings, F::None), e("WEEK", K::None, F::Pure), e("WEEKDAY", K::None, F::Pure), e("WEEKOFYEAR", K::None, F::Pure),
    e("WEIGHT_STRING", K::None, F::Pure), e("WHEN", K::When, F::None), e("WHERE", K::Where, F::None), e("WHILE", K::While, F::None),
    e("WINDOW", K::Window, F::None), e("WITH", K::With, F::None), e("WITHIN", K::Within, F::Pure), e("WORK", K::Work, F::None),
    e("WRITE", K::Write, F::None), e("WSREP_LAST_SEEN_GTID", K::None, F::Unsafe), e("WSREP_LAST_WRITTEN_GTID", K::None, F::Unsafe),
    e("WSREP_SYNC_WAIT_UPTO_GTID", K::None, F::Unsafe), e("X", K::None, F::Pure), e("XA", K::Xa, F::None), e("XML", K::Xml, F::None),
    e("XOR", K::Xor, F::None), e("Y", K::None, F::Pure), e("YEAR", K::None, F::Pure), e("YEARWEEK", K::None, F::Pure),
    e("ZEROFILL", K::Zerofill, F::None),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_all_words_in_any_case_and_nothing_else() {
        for w in WORDS {
            let lower = w.name.to_ascii_lowercase();
            assert_eq!(*lookup(&lower), w.known);
            assert_ne!(w.known, UNKNOWN);
        }
        for no in [&b"ordersx"[..], b"", b"_", b"x1", b"SELEC", b"SELECTT"] {
            assert_eq!(*lookup(no), UNKNOWN, "{no:?}");
        }
        // One byte of each word made any other one.
        let is_word = |word: &[u8]| WORDS.iter().any(|w| w.name.eq_ignore_ascii_case(word));
        for w in WORDS {
            for at in 0..w.name.len() {
                let mut other = w.name.to_vec();
                for byte in 0..=255 {
                    other[at] = byte;
                    let found = *lookup(&other) != UNKNOWN;
                    assert_eq!(found, is_word(&other), "{other:?}");
                }
            }
        }
    }

    #[test]
    fn probes_are_short() {
        let mut run = 0;
        let mut longest = 0;
        for slot in TABLE.iter() {
            run = if slot.len == 0 { 0 } else { run + 1 };
            longest = longest.max(run);
        }
        assert!(longest < 16, "{longest}");
    }
}
