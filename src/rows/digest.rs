//! SQL expressions that digest a row, so that equal rows on two servers give
//! equal digests and others do not. Pure.
//!
//! ```text
//! fast    CRC32(CONCAT_WS('#', null bitmap, column, column, …))
//! strong  SHA2(CONCAT_WS('#', null bitmap, column, column, …), 256)
//! ```
//!
//! Each column is written so that no value holds the separator, nothing is
//! longer than a few hundred bytes, and both families print it alike:
//!
//! - text and bytes as their own digest, in hexadecimal, or (short ones, in a
//!   fast digest, which is servers' work) as they are behind their length: a `#`
//!   inside is no separator, case and trailing spaces show whatever the
//!   collation says, and a value longer than `max_allowed_packet` does not turn
//!   the row into NULL;
//! - NULL in a bitmap at the beginning: `CONCAT_WS` leaves it out;
//! - FLOAT and DOUBLE exactly: as text the families differ in form and in
//!   where they cut, so a number is scaled by a power of two, which changes no
//!   digit, into a range where they do not;
//! - ENUM, SET and BIT as numbers where both sides define them alike.
//!
//! Rows are added up (`SUM`), never XORed: CRC32 is linear, so equal changes of
//! an even number of rows would cancel each other out.
//!
//! SHA2 and not MD5, which MySQL has not any more (9.6). It costs 2.5 times
//! CRC32 over a sysbench table on both families.
//!
//! Equality of JSON: two MySQL servers compare values, which know no order of
//! keys and no spaces; a DECIMAL in JSON counts as the double it becomes as
//! text. Two MariaDB servers compare text, which is what they keep and show, so
//! another order of keys is a difference. Between the families the text is
//! fetched and compared as a value ([`fetched`]).

use super::literal::put_name;
use super::shape::{ColumnShape, TableShape};

/// How sure a digest is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Strength {
    /// CRC32, a number: two different rows are alike once in 4 billion.
    Fast,
    /// SHA2, 64 hexadecimal digits.
    Strong,
}

/// Longest text, in bytes, that a strong digest takes in hexadecimal; longer
/// columns are digested by themselves first. A row's short columns together
/// are at most the 65,535 bytes that servers allow, far below the smallest
/// usual `max_allowed_packet`.
const HEX_MAX: usize = 1020;

/// Bytes of a row's text that no server refuses: the least `max_allowed_packet`
/// is 1,024.
const SURE_MAX: usize = 1000;

/// More than any number, time, digest or list takes as text, in bytes.
const SHORT_TEXT: usize = 100;

/// Stand in a sum for a row without a digest: above what the digests of a
/// billion rows add up to ([`unread`]). Fast ones are integers, which are
/// added up faster.
const NO_DIGEST: [u128; 2] = [1 << 62, 1 << 100];

/// How a column of one side is compared with its partner.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Form {
    /// As text; holds no separator.
    Plain,
    /// The same without the zeros of ZEROFILL; BIT as a number.
    Number,
    /// ENUM and SET as a number.
    Members,
    /// With so many digits behind the point.
    Decimal(u32),
    /// With six digits of a second.
    Seconds(u32),
    /// Exactly.
    Float,
    /// Bytes as they are.
    Bytes,
    /// Text of different character sets, or something that is shown as text.
    Text,
    /// MySQL's JSON on both sides.
    Json,
    /// JSON on one side and text on a side of the other family.
    Fetched,
}

/// The number of `type(number…)`, the second one of `decimal(10,2)`.
fn argument(column: &ColumnShape, index: usize) -> Option<u32> {
    let (_, inner) = column.column_type.split_once('(')?;
    let (inner, _) = inner.split_once(')')?;
    inner.split(',').nth(index)?.trim().parse().ok()
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Kind {
    Integer,
    Decimal,
    Float,
    Bit,
    List,
    Time,
    Json,
    /// Comparable as text only: UUID, INET4, INET6.
    Address,
    Bytes,
}

fn kind(column: &ColumnShape) -> Kind {
    match column.type_name() {
        "tinyint" | "smallint" | "mediumint" | "int" | "integer" | "bigint" => Kind::Integer,
        "decimal" | "numeric" => Kind::Decimal,
        "float" | "double" | "real" => Kind::Float,
        "bit" => Kind::Bit,
        "enum" | "set" => Kind::List,
        "year" | "date" | "datetime" | "time" | "timestamp" => Kind::Time,
        "json" => Kind::Json,
        "uuid" | "inet4" | "inet6" => Kind::Address,
        // Text, bytes, GEOMETRY (whose bytes begin with the SRID), VECTOR.
        _ => Kind::Bytes,
    }
}

/// Character sets whose bytes are those of utf8mb4.
fn is_utf8(charset: &str) -> bool {
    matches!(charset, "utf8mb4" | "utf8mb3" | "utf8" | "ascii")
}

fn same_bytes(mine: &ColumnShape, theirs: &ColumnShape) -> bool {
    match (&mine.charset, &theirs.charset) {
        (Some(mine), Some(theirs)) => mine == theirs || (is_utf8(mine) && is_utf8(theirs)),
        _ => true,
    }
}

/// Symmetric: both sides come to the same form.
fn form(mine: &ColumnShape, theirs: &ColumnShape, same_family: bool) -> Form {
    let scale = |c: &ColumnShape| match kind(c) {
        Kind::Decimal => argument(c, 1).unwrap_or(0),
        _ => 0,
    };
    let zerofill = |c: &ColumnShape| c.column_type.contains("zerofill");
    match (kind(mine), kind(theirs)) {
        (Kind::Integer, Kind::Integer) if zerofill(mine) || zerofill(theirs) => Form::Number,
        (Kind::Integer, Kind::Integer) => Form::Plain,
        (Kind::Bit, Kind::Bit | Kind::Integer) | (Kind::Integer, Kind::Bit) => Form::Number,
        (Kind::Decimal, Kind::Decimal) if scale(mine) == scale(theirs) => {
            if zerofill(mine) || zerofill(theirs) {
                Form::Decimal(scale(mine))
            } else {
                Form::Plain
            }
        }
        (Kind::Decimal | Kind::Integer, Kind::Decimal | Kind::Integer) => {
            Form::Decimal(scale(mine).max(scale(theirs)))
        }
        (Kind::Float, Kind::Float) => Form::Float,
        (Kind::List, Kind::List) if mine.column_type == theirs.column_type => Form::Members,
        (Kind::Time, Kind::Time) if mine.type_name() == theirs.type_name() => {
            let digits = |c: &ColumnShape| argument(c, 0).unwrap_or(0);
            if mine.type_name() == "year" || digits(mine) == digits(theirs) {
                Form::Plain
            } else {
                Form::Seconds(digits(mine))
            }
        }
        (Kind::Json, Kind::Json) => Form::Json,
        (Kind::Json, _) | (_, Kind::Json) if !same_family => Form::Fetched,
        (Kind::Bytes, Kind::Bytes) if same_bytes(mine, theirs) => Form::Bytes,
        _ => Form::Text,
    }
}

/// A column on this side and on the other.
type Pair<'a> = (&'a ColumnShape, &'a ColumnShape);

/// The columns that are compared, as `shape` and `other` have them, in an
/// order that does not depend on which is which.
fn pairs<'a>(shape: &'a TableShape, other: &'a TableShape) -> Vec<Pair<'a>> {
    let mut pairs: Vec<_> = shape
        .columns
        .iter()
        .filter_map(|mine| {
            let theirs = other.columns.get(other.column(&mine.name)?)?;
            (!mine.generated && !theirs.generated).then_some((mine, theirs))
        })
        .collect();
    pairs.sort_by_key(|(c, _)| c.name.to_ascii_lowercase());
    pairs
}

/// The longest that a column gets on either side, if a fast digest may take its
/// bytes as they are.
fn as_it_is((mine, theirs): &Pair<'_>, same_family: bool) -> Option<usize> {
    let plain = |c: &ColumnShape| match c.charset.as_deref() {
        None => true,
        // Digits in it are ASCII: nothing is converted in joining them.
        Some(charset) => is_utf8(charset) || charset == "latin1",
    };
    let bytes = form(mine, theirs, same_family) == Form::Bytes && plain(mine) && plain(theirs);
    let longest = longest(mine)?.max(longest(theirs)?);
    (bytes && longest <= HEX_MAX).then_some(longest)
}

/// The columns that a fast digest takes as they are: the longest of the short
/// ones, which stands behind all others (whatever is in it, it ends with the
/// row), and those that can be joined with it: two collations cannot.
fn raw(pairs: &[Pair<'_>], same_family: bool) -> Option<(usize, Vec<usize>)> {
    let lengths = pairs.iter().enumerate();
    let lengths = lengths.filter_map(|(n, pair)| Some((as_it_is(pair, same_family)?, n)));
    let (_, last) = lengths.max_by_key(|(length, n)| (*length, usize::MAX - n))?;
    // Asked of both: the other side must come to the same.
    let joined = |(mine, theirs): &Pair<'_>| {
        pairs.get(last).is_some_and(|(a, b)| {
            (a.collation.is_some() && b.collation.is_some())
                && mine.collation == a.collation
                && theirs.collation == b.collation
        })
    };
    let others = pairs
        .iter()
        .enumerate()
        .filter(|(n, pair)| *n != last && joined(pair) && as_it_is(pair, same_family).is_some());
    Some((last, others.map(|(n, _)| n).collect()))
}

/// Whether a row's text is so short that the server digests it, whatever is in
/// it.
fn is_sure(pairs: &[Pair<'_>], same_family: bool) -> bool {
    let longest = |pair| as_it_is(pair, same_family).unwrap_or_default() + SHORT_TEXT;
    pairs.iter().map(longest).sum::<usize>() <= SURE_MAX
}

/// Names of columns that one side has and the other has not, which nothing can
/// make equal. Generated ones do not count, nor invisible ones that only one
/// side has: a key that the server made up.
pub fn alone(shape: &TableShape, other: &TableShape) -> Vec<String> {
    let missing = |of: &TableShape, on: &TableShape| {
        of.columns
            .iter()
            .filter(|c| !c.generated && !c.invisible && on.column(&c.name).is_none())
            .map(|c| String::from_utf8_lossy(&c.name).into_owned())
            .collect::<Vec<_>>()
    };
    let mut names = missing(shape, other);
    names.extend(missing(other, shape));
    names
}

/// Columns of `shape`, in order, that the digest leaves out because only their
/// text tells whether they are equal: JSON between MySQL, which keeps values,
/// and MariaDB, which keeps text. Read them as [`put_fetched`] says.
pub fn fetched(shape: &TableShape, other: &TableShape, same_family: bool) -> Vec<usize> {
    pairs(shape, other)
        .into_iter()
        .filter(|(mine, theirs)| form(mine, theirs, same_family) == Form::Fetched)
        .filter_map(|(mine, _)| shape.column(&mine.name))
        .collect()
}

/// Appends the text of a [`fetched`] column.
pub fn put_fetched(out: &mut Vec<u8>, column: &ColumnShape) {
    wrapped(out, "CAST(", column, " AS CHAR CHARACTER SET utf8mb4)");
}

fn wrapped(out: &mut Vec<u8>, before: &str, column: &ColumnShape, after: &str) {
    out.extend_from_slice(before.as_bytes());
    put_name(out, &column.name);
    out.extend_from_slice(after.as_bytes());
}

/// At most so many bytes; None: not bounded by a few hundred.
fn longest(column: &ColumnShape) -> Option<usize> {
    let n = usize::try_from(argument(column, 0)?).ok()?;
    match column.type_name() {
        "char" | "varchar" => Some(n.saturating_mul(4)),
        "binary" | "varbinary" => Some(n),
        _ => None,
    }
}

/// Appends `before` column `after`, digested or in hexadecimal.
fn put_text(
    out: &mut Vec<u8>,
    (mine, theirs): (&ColumnShape, &ColumnShape),
    strength: Strength,
    [before, after]: [&str; 2],
) {
    let short = |c: &ColumnShape| longest(c).is_some_and(|n| n <= HEX_MAX);
    let (open, close) = match strength {
        Strength::Fast => ("CRC32(", ")"),
        Strength::Strong if short(mine) && short(theirs) => ("HEX(", ")"),
        Strength::Strong => ("SHA2(", ",256)"),
    };
    let (open, close) = (format!("{open}{before}"), format!("{after}{close}"));
    wrapped(out, &open, mine, &close);
}

/// Appends sign and size as two values. Powers of two: 2^50, 2^750, 2^400.
///
/// MySQL prints 22 characters of a computed number at most, MariaDB more; both
/// print 17 digits of a positive one if it is at least 0.001 or if its
/// exponent shows and has two digits.
fn put_float(out: &mut Vec<u8>, column: &ColumnShape, same_family: bool) {
    let mut name = Vec::new();
    put_name(&mut name, &column.name);
    let name = String::from_utf8_lossy(&name);
    // MySQL keeps -0, MariaDB does not.
    let sign = if same_family {
        format!("IF({name}=0,{name}*1e0,{name}<0)")
    } else {
        format!("{name}<0")
    };
    // As text a FLOAT has six digits, and DOUBLE(9,2) two behind the point.
    let v = format!("ABS({name}*1e0)");
    out.extend_from_slice(
        format!(
            "{sign},IF({v}>=1e-3 OR ({v}<1e-16 AND {v}>=1e-99),{v},\
             IF({v}<1e-99,CONCAT('t',{v}*5.922386521532856e225*2.5822498780869086e120),\
             CONCAT('m',{v}*1125899906842624e0)))"
        )
        .as_bytes(),
    );
}

fn put_column(
    out: &mut Vec<u8>,
    pair: (&ColumnShape, &ColumnShape),
    same_family: bool,
    strength: Strength,
) {
    const UTF8: &str = " CHARACTER SET utf8mb4)";
    let mine = pair.0;
    match form(mine, pair.1, same_family) {
        Form::Plain => put_name(out, &mine.name),
        Form::Number => wrapped(out, "", mine, "+0"),
        Form::Members => wrapped(out, "CAST(", mine, " AS UNSIGNED)"),
        Form::Decimal(scale) => wrapped(out, "CAST(", mine, &format!(" AS DECIMAL(65,{scale}))")),
        Form::Seconds(digits) => {
            let dot = if digits == 0 { "." } else { "" };
            let zeros = "0".repeat(6usize.saturating_sub(digits as usize));
            wrapped(out, "CONCAT(", mine, &format!(",'{dot}{zeros}')"));
        }
        Form::Float => put_float(out, mine, same_family),
        Form::Bytes => put_text(out, pair, strength, ["", ""]),
        Form::Text => match (&mine.charset, kind(mine)) {
            (Some(charset), _) if is_utf8(charset) => put_text(out, pair, strength, ["", ""]),
            (Some(_), _) => put_text(out, pair, strength, ["CONVERT(", " USING utf8mb4)"]),
            (None, Kind::Bytes) => put_text(out, pair, strength, ["", ""]),
            (None, _) => {
                put_text(
                    out,
                    pair,
                    strength,
                    ["CAST(", &format!(" AS CHAR{}", &UTF8)],
                );
            }
        },
        Form::Json => {
            // Twice: what a follower writes has been text once.
            let inner = format!(" AS CHAR{UTF8} AS JSON) AS CHAR{UTF8}");
            put_text(out, pair, strength, ["CAST(CAST(CAST(", &inner]);
        }
        Form::Fetched => {}
    }
}

/// Appends an expression over one row of `shape`, a table whose partner on the
/// other server is `other`. Columns are matched by name; generated ones are
/// left out. The session must be prepared by [`super::literal::SESSION`].
pub fn row_digest(
    out: &mut Vec<u8>,
    shape: &TableShape,
    other: &TableShape,
    same_family: bool,
    strength: Strength,
) {
    let pairs = digested(shape, other, same_family);
    let (last, behind_length) = match strength {
        Strength::Fast => raw(&pairs, same_family).unzip(),
        Strength::Strong => (None, None),
    };
    let behind_length = behind_length.unwrap_or_default();
    let (open, close): (&[u8], &[u8]) = match strength {
        Strength::Fast => (b"CRC32(CONCAT_WS('#'", b"))"),
        Strength::Strong => (b"SHA2(CONCAT_WS('#'", b"),256)"),
    };
    out.extend_from_slice(open);
    put_nulls(out, &pairs);
    for (n, pair) in pairs.iter().enumerate() {
        if Some(n) == last {
            continue;
        }
        out.push(b',');
        if behind_length.contains(&n) {
            wrapped(out, "LENGTH(", pair.0, "),");
            put_name(out, &pair.0.name);
        } else {
            put_column(out, *pair, same_family, strength);
        }
    }
    match last.and_then(|n| pairs.get(n)) {
        Some((mine, _)) => wrapped(out, ",", mine, ""),
        // CONCAT_WS needs something besides the separator.
        None if pairs.is_empty() => out.extend_from_slice(b",''"),
        None => {}
    }
    out.extend_from_slice(close);
}

/// The columns that servers digest.
fn digested<'a>(shape: &'a TableShape, other: &'a TableShape, same_family: bool) -> Vec<Pair<'a>> {
    let mut pairs = pairs(shape, other);
    pairs.retain(|(a, b)| form(a, b, same_family) != Form::Fetched);
    pairs
}

/// Which columns are NULL. First, so that what follows can be told apart:
/// behind other columns, a text that ends the row could hold the like of it.
fn put_nulls(out: &mut Vec<u8>, pairs: &[Pair<'_>]) {
    let nullable = pairs.iter().filter(|(a, b)| a.nullable || b.nullable);
    let mut between: &[u8] = b",CONCAT(";
    for (mine, _) in nullable {
        out.extend_from_slice(std::mem::replace(&mut between, b","));
        wrapped(out, "ISNULL(", mine, ")");
    }
    if between == b"," {
        out.push(b')');
    }
}

/// Appends the digest of some columns only, a key's: equal on both sides where
/// the values are.
pub fn columns_digest(
    out: &mut Vec<u8>,
    shape: &TableShape,
    columns: &[usize],
    other: &TableShape,
    same_family: bool,
    strength: Strength,
) {
    let columns = columns.iter().filter_map(|c| shape.columns.get(*c));
    let part = TableShape {
        columns: columns.cloned().collect(),
        ..TableShape::default()
    };
    row_digest(out, &part, other, same_family, strength);
}

/// Appends `COUNT(*), sum of the rows' digests`, to be compared as texts.
///
/// Of a strong digest 64 bits are added up: two chunks that differ are alike
/// once in 10^19.
pub fn chunk_digest(
    out: &mut Vec<u8>,
    shape: &TableShape,
    other: &TableShape,
    same_family: bool,
    strength: Strength,
) {
    if strength == Strength::Fast && is_sure(&digested(shape, other, same_family), same_family) {
        out.extend_from_slice(b"COUNT(*),SUM(");
        row_digest(out, shape, other, same_family, strength);
        out.push(b')');
        return;
    }
    out.extend_from_slice(b"COUNT(*),SUM(IFNULL(");
    if strength == Strength::Strong {
        out.extend_from_slice(b"CAST(CONV(LEFT(");
    }
    row_digest(out, shape, other, same_family, strength);
    if strength == Strength::Strong {
        out.extend_from_slice(b",16),16,10) AS UNSIGNED)");
    }
    let [fast, strong] = NO_DIGEST;
    let nothing = match strength {
        Strength::Fast => fast,
        Strength::Strong => strong,
    };
    out.extend_from_slice(format!(",{nothing}))").as_bytes());
}

/// Whether a sum of [`chunk_digest`] over `rows` rows says that a row has no
/// digest: the server gave NULL for one, with no more than a warning. Such a
/// chunk is not compared.
pub fn unread(rows: u64, sum: &[u8], strength: Strength) -> bool {
    let bits = match strength {
        Strength::Fast => 32,
        Strength::Strong => 64,
    };
    let text = std::str::from_utf8(sum).unwrap_or_default();
    match text.parse::<u128>() {
        Ok(sum) => sum >= u128::from(rows) << bits,
        // NULL: the sum of no rows.
        Err(_) => rows > 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn column(name: &str, column_type: &str, charset: Option<&str>) -> ColumnShape {
        ColumnShape {
            name: name.into(),
            column_type: column_type.into(),
            charset: charset.map(str::to_owned),
            ..ColumnShape::default()
        }
    }

    fn table(columns: Vec<ColumnShape>) -> TableShape {
        TableShape {
            columns,
            ..TableShape::default()
        }
    }

    fn digest(mine: &TableShape, theirs: &TableShape, same: bool, strength: Strength) -> String {
        let mut out = Vec::new();
        row_digest(&mut out, mine, theirs, same, strength);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn columns_are_matched_by_name_and_ordered_alike() {
        let mut made = column("g", "int", None);
        made.generated = true;
        let mut b = column("B", "int", None);
        b.nullable = true;
        let mine = table(vec![b, column("a", "bigint(20)", None), made]);
        let theirs = table(vec![column("a", "bigint", None), column("b", "int", None)]);
        assert_eq!(
            digest(&mine, &theirs, false, Strength::Fast),
            "CRC32(CONCAT_WS('#',CONCAT(ISNULL(`B`)),`a`,`B`))"
        );
        assert_eq!(
            digest(&theirs, &mine, false, Strength::Fast),
            "CRC32(CONCAT_WS('#',CONCAT(ISNULL(`b`)),`a`,`b`))"
        );
        assert!(alone(&mine, &theirs).is_empty());
        let further = table(vec![column("c", "int", None)]);
        assert_eq!(alone(&further, &theirs), ["c", "a", "b"]);
    }

    #[test]
    fn free_text_is_digested() {
        let mine = table(vec![
            column("c", "varchar(20)", Some("latin1")),
            column("t", "text", Some("utf8mb3")),
        ]);
        let theirs = table(vec![
            column("c", "varchar(20)", Some("utf8mb4")),
            column("t", "text", Some("utf8mb4")),
        ]);
        assert_eq!(
            digest(&mine, &theirs, true, Strength::Fast),
            "CRC32(CONCAT_WS('#',CRC32(CONVERT(`c` USING utf8mb4)),CRC32(`t`)))"
        );
        assert_eq!(
            digest(&theirs, &mine, true, Strength::Strong),
            "SHA2(CONCAT_WS('#',HEX(`c`),SHA2(`t`,256)),256)"
        );
    }

    #[test]
    fn types_that_differ_meet_in_one_form() {
        let cases = [
            ("int(5) zerofill", "int", true, Form::Number),
            ("decimal(10,2)", "decimal(12,4)", true, Form::Decimal(4)),
            ("bigint", "decimal(20,0)", true, Form::Decimal(0)),
            ("enum('a','b')", "enum('a','b')", true, Form::Members),
            ("enum('a','b')", "enum('b','a')", true, Form::Text),
            ("float", "double", false, Form::Float),
            ("json", "json", true, Form::Json),
            ("json", "longtext", true, Form::Text),
            ("json", "longtext", false, Form::Fetched),
            ("uuid", "char(36)", false, Form::Text),
            ("point", "geometry", false, Form::Bytes),
            ("int", "varchar(9)", true, Form::Text),
        ];
        for (mine, theirs, same, expected) in cases {
            let (mine, theirs) = (column("c", mine, None), column("c", theirs, None));
            assert_eq!(form(&mine, &theirs, same), expected, "{mine:?} {theirs:?}");
            assert_eq!(form(&theirs, &mine, same), expected, "{theirs:?} {mine:?}");
        }
        let seconds = column("c", "datetime(3)", None);
        let whole = column("c", "datetime", None);
        assert_eq!(form(&seconds, &whole, true), Form::Seconds(3));
        assert_eq!(form(&whole, &seconds, true), Form::Seconds(0));
        let mut out = Vec::new();
        put_column(&mut out, (&whole, &seconds), true, Strength::Fast);
        assert_eq!(out, b"CONCAT(`c`,'.000000')");
    }

    #[test]
    fn short_texts_of_one_collation_stand_as_they_are() {
        let mut long = column("a", "varchar(200)", Some("utf8mb4"));
        long.nullable = true;
        let both = table(vec![
            long,
            column("b", "char(20)", Some("latin1")),
            column("c", "varchar(255)", Some("utf16")),
            column("d", "int", None),
        ]);
        assert_eq!(
            digest(&both, &both, true, Strength::Fast),
            "CRC32(CONCAT_WS('#',CONCAT(ISNULL(`a`)),CRC32(`b`),CRC32(`c`),`d`,`a`))"
        );
        let text = |name: &str, kind: &str, collation: &str| {
            let mut column = column(name, kind, Some("utf8mb4"));
            column.collation = Some(collation.to_owned());
            column
        };
        let both = table(vec![
            text("a", "varchar(20)", "utf8mb4_bin"),
            text("b", "varchar(30)", "utf8mb4_bin"),
            text("c", "varchar(20)", "utf8mb4_general_ci"),
            text("d", "text", "utf8mb4_bin"),
        ]);
        assert_eq!(
            digest(&both, &both, true, Strength::Fast),
            "CRC32(CONCAT_WS('#',LENGTH(`a`),`a`,CRC32(`c`),CRC32(`d`),`b`))"
        );
        assert_eq!(
            digest(&table(vec![]), &both, true, Strength::Fast),
            "CRC32(CONCAT_WS('#',''))"
        );
    }

    #[test]
    fn both_sides_take_the_same_columns_as_they_are() {
        let sides = [Some("utf8mb4_bin"), Some("utf8mb4_general_ci"), None];
        let side = |collations: [Option<&str>; 2]| {
            let columns = ["a", "b"].iter().zip(collations).map(|(name, collation)| {
                let kind = if collation.is_some() {
                    "varchar(20)"
                } else {
                    "varbinary(20)"
                };
                let mut column = column(name, kind, collation.map(|_| "utf8mb4"));
                column.collation = collation.map(str::to_owned);
                column
            });
            table(columns.collect())
        };
        let every = || {
            sides
                .iter()
                .flat_map(|a| sides.iter().map(|b| side([*a, *b])))
        };
        for mine in every() {
            for theirs in every() {
                let [one, other] = [(&mine, &theirs), (&theirs, &mine)]
                    .map(|(a, b)| digest(a, b, true, Strength::Fast));
                assert_eq!(one, other);
            }
        }
    }

    #[test]
    fn only_long_rows_may_be_without_a_digest() {
        let sum = |kind: &str| {
            let both = table(vec![column("a", kind, Some("utf8mb4"))]);
            let mut out = Vec::new();
            chunk_digest(&mut out, &both, &both, true, Strength::Fast);
            String::from_utf8(out).unwrap()
        };
        let of = "CRC32(CONCAT_WS('#',`a`))";
        assert_eq!(sum("varchar(200)"), format!("COUNT(*),SUM({of})"));
        let long = format!("COUNT(*),SUM(IFNULL({of},{}))", 1_u64 << 62);
        assert_eq!(sum("varchar(250)"), long);
    }

    #[test]
    fn a_row_without_a_digest_is_seen() {
        let fast = |rows, sum: &[u8]| unread(rows, sum, Strength::Fast);
        assert!(!fast(2, b"8589934590") && fast(1, b"8589934590"));
        assert!(fast(1_000_000_000, b"4611686018427387905"));
        assert!(!fast(0, b"") && fast(1, b""));
        let strong = |rows, sum: &[u8]| unread(rows, sum, Strength::Strong);
        assert!(!strong(2, b"18446744073709551616"));
        assert!(strong(1_000_000, b"1267650600228229401496703205376"));
    }
}
