//! What a server has, and its definitions.

use std::collections::HashMap;

use super::model::Table;
use super::notes::Object;
use super::parse;
use super::session::{Refused, Session, exact};
use super::tokens::{literal_value, quote_name, quote_text};
use super::{Covers, SchemaError};
use crate::rows::service::{bytes, text};

/// Most objects of one kind that are looked at. Beyond it the run fails rather
/// than leave some out.
const OBJECTS_MAX: usize = 100_000;

/// Schemas that are never carried over: the server's, and ours.
const OWN: [&str; 5] = [
    "mysql",
    "information_schema",
    "performance_schema",
    "sys",
    "lockstep",
];

/// A database.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Database {
    /// Its name.
    pub name: String,
    /// Default character set.
    pub charset: String,
    /// Default collation.
    pub collation: String,
}

/// Something with a name in a schema.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Item {
    /// What.
    pub object: Object,
    /// Where.
    pub schema: String,
    /// Its name.
    pub name: String,
    /// A trigger's table; otherwise empty.
    pub table: String,
    /// An event is ENABLED.
    pub enabled: bool,
}

/// All that the routes cover on one server.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Inventory {
    /// Databases with anything in them.
    pub databases: Vec<Database>,
    /// Everything else, triggers in the order they fire.
    pub items: Vec<Item>,
}

impl Inventory {
    /// The items of one kind.
    pub fn of(&self, object: Object) -> impl Iterator<Item = &Item> {
        self.items.iter().filter(move |i| i.object == object)
    }

    /// Whether an item of this kind and name is there.
    pub fn has(&self, item: &Item) -> bool {
        let same = |i: &&Item| i.schema == item.schema && i.name == item.name;
        self.of(item.object).any(|i| same(&i))
    }
}

/// Reads what a server has.
///
/// # Errors
/// The server's.
pub async fn inventory(
    session: &mut Session,
    covers: &Covers<'_>,
) -> Result<Inventory, SchemaError> {
    let sql = "SELECT SCHEMA_NAME, DEFAULT_CHARACTER_SET_NAME, DEFAULT_COLLATION_NAME \
               FROM information_schema.SCHEMATA ORDER BY SCHEMA_NAME";
    let mut all = Inventory::default();
    for row in session.rows(sql).await? {
        let Some(name) = exact(&row, 0) else { continue };
        if OWN.iter().any(|s| name.eq_ignore_ascii_case(s)) {
            continue;
        }
        let before = all.items.len();
        schema(session, &name, covers, &mut all.items).await?;
        if all.items.len() > OBJECTS_MAX {
            return Err(SchemaError::TooMany(OBJECTS_MAX));
        }
        if all.items.len() > before {
            all.databases.push(Database {
                name,
                charset: text(&row, 1).unwrap_or_default(),
                collation: text(&row, 2).unwrap_or_default(),
            });
        }
    }
    Ok(all)
}

async fn schema(
    session: &mut Session,
    schema: &str,
    covers: &Covers<'_>,
    items: &mut Vec<Item>,
) -> Result<(), SchemaError> {
    let literal = quote_text(schema);
    let questions = [
        format!(
            "SELECT TABLE_NAME, TABLE_TYPE, '', '' FROM information_schema.TABLES \
             WHERE TABLE_SCHEMA = {literal} ORDER BY TABLE_NAME"
        ),
        format!(
            "SELECT ROUTINE_NAME, ROUTINE_TYPE, '', '' FROM information_schema.ROUTINES \
             WHERE ROUTINE_SCHEMA = {literal} ORDER BY ROUTINE_NAME"
        ),
        format!(
            "SELECT TRIGGER_NAME, 'TRIGGER', EVENT_OBJECT_TABLE, '' \
             FROM information_schema.TRIGGERS WHERE TRIGGER_SCHEMA = {literal} \
             ORDER BY EVENT_OBJECT_TABLE, EVENT_MANIPULATION, ACTION_TIMING, ACTION_ORDER"
        ),
        format!(
            "SELECT EVENT_NAME, 'EVENT', '', STATUS FROM information_schema.EVENTS \
             WHERE EVENT_SCHEMA = {literal} ORDER BY EVENT_NAME"
        ),
    ];
    for sql in questions {
        for row in session.rows(&sql).await? {
            let Some(name) = exact(&row, 0) else { continue };
            let object = match text(&row, 1).unwrap_or_default().as_str() {
                "VIEW" => Object::View,
                "SEQUENCE" => Object::Sequence,
                "PROCEDURE" => Object::Procedure,
                "FUNCTION" => Object::Function,
                "TRIGGER" => Object::Trigger,
                "EVENT" => Object::Event,
                "BASE TABLE" | "SYSTEM VERSIONED" => Object::Table,
                // Packages, temporary tables.
                _ => continue,
            };
            let table = exact(&row, 2).unwrap_or_default();
            // A trigger goes with its table.
            let by = if object == Object::Trigger {
                &table
            } else {
                &name
            };
            if covers(schema.as_bytes(), by.as_bytes()) {
                items.push(Item {
                    object,
                    schema: schema.to_owned(),
                    name,
                    table,
                    enabled: text(&row, 3).is_some_and(|s| s == "ENABLED"),
                });
            }
        }
    }
    Ok(())
}

/// Character set and collation of the text columns of a schema, and of its
/// tables under an empty column name: `SHOW CREATE TABLE` of some servers leaves
/// out what is their own default.
#[derive(Default)]
pub struct Collations(HashMap<(String, String), (String, String)>);

/// Reads them.
///
/// # Errors
/// The server's.
pub async fn collations(session: &mut Session, schema: &str) -> Result<Collations, SchemaError> {
    let literal = quote_text(schema);
    let columns = format!(
        "SELECT TABLE_NAME, COLUMN_NAME, CHARACTER_SET_NAME, COLLATION_NAME \
         FROM information_schema.COLUMNS WHERE TABLE_SCHEMA = {literal} \
         AND COLLATION_NAME IS NOT NULL AND COLLATION_NAME <> 'binary'"
    );
    let tables = format!(
        "SELECT TABLE_NAME, '', '', TABLE_COLLATION FROM information_schema.TABLES \
         WHERE TABLE_SCHEMA = {literal} AND TABLE_COLLATION IS NOT NULL"
    );
    let mut all = Collations::default();
    for sql in [columns, tables] {
        for row in session.rows(&sql).await? {
            let of = |n| exact(&row, n).unwrap_or_default();
            let collation = of(3);
            let charset = collation.split('_').next().unwrap_or_default().to_owned();
            all.0.insert((of(0), of(1)), (charset, collation));
        }
    }
    Ok(all)
}

/// A table's definition. The inner error says what was not understood.
///
/// # Errors
/// The server's.
pub async fn table(
    session: &mut Session,
    schema: &str,
    name: &str,
    collations: &Collations,
) -> Result<Result<Table, String>, Refused> {
    let sql = format!(
        "SHOW CREATE TABLE {}.{}",
        quote_name(schema),
        quote_name(name)
    );
    let rows = session.rows(&sql).await?;
    let text = rows
        .first()
        .map(|r| marked(&bytes(r, 1)))
        .unwrap_or_default();
    let mut table = match parse::table(&text) {
        Ok(table) => table,
        Err(why) => return Ok(Err(why)),
    };
    for column in &mut table.columns {
        let raw = column.default.as_ref().and_then(|d| unmarked(d));
        column.default = raw.or(column.default.take());
    }
    let of_table = collations.0.get(&(name.to_owned(), String::new()));
    if let Some((charset, collation)) = of_table {
        table.set_option("CHARSET", charset.clone());
        table.set_option("COLLATE", collation.clone());
    }
    for column in &mut table.columns {
        let known = collations.0.get(&(name.to_owned(), column.name.clone()));
        // The table's own is left unsaid where the server leaves its character
        // set unsaid: said, it would be the column's own.
        if let Some((charset, collation)) = known {
            let own = of_table.is_none_or(|(_, c)| c != collation);
            if column.charset.is_some() || (own && column.collation.is_none()) {
                column.charset = Some(charset.clone());
                column.collation = Some(collation.clone());
            } else {
                column.collation = own.then(|| collation.clone());
            }
        }
    }
    Ok(Ok(table))
}

/// Where bytes that are not UTF-8 stand for themselves in a text: MariaDB
/// prints the default of a binary column as it is.
const MARK: u32 = 0xF700;

/// A definition's text, each byte that is not UTF-8 as a mark.
fn marked(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        out.push_str(chunk.valid());
        let marks = chunk.invalid().iter();
        out.extend(marks.filter_map(|b| char::from_u32(MARK + u32::from(*b))));
    }
    out
}

/// A literal with marks as a hexadecimal one.
fn unmarked(literal: &str) -> Option<String> {
    let mark = |c: char| {
        u32::from(c)
            .checked_sub(MARK)
            .and_then(|b| u8::try_from(b).ok())
    };
    if !literal.contains(|c| mark(c).is_some()) {
        return None;
    }
    let mut out = String::from("x'");
    for c in literal_value(literal).chars() {
        let mut utf8 = [0; 4];
        let one = mark(c).map(|b| [b]);
        let bytes: &[u8] = match &one {
            Some(byte) => byte,
            None => c.encode_utf8(&mut utf8).as_bytes(),
        };
        out.extend(bytes.iter().map(|b| format!("{b:02X}")));
    }
    out.push('\'');
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::{marked, unmarked};

    #[test]
    fn bytes_that_are_no_text_become_hexadecimal() {
        let text = marked(b"'\0\xffa\\'\xc3\xa9'");
        assert_eq!(unmarked(&text).as_deref(), Some("x'00FF6127C3A9'"));
        assert_eq!(unmarked(&marked("'\u{e9}'".as_bytes())), None);
    }
}
