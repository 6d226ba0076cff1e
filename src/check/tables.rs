//! The routed tables of one route.

use std::collections::{BTreeMap, BTreeSet};

use super::{At, Checked, Context, Findings, Scope, Severity};
use crate::Side;
use crate::follow::batch::Key;
use crate::rows::load;
use crate::rows::service::{ServiceConn, text};
use crate::rows::shape::{ColumnShape, TableShape};
use crate::schema::{self, Note, Object, Options, Outcome, Refused, SchemaError};

type Shapes = BTreeMap<(Vec<u8>, Vec<u8>), TableShape>;

/// MySQL logs the rows that foreign keys change from this version on.
const CASCADES_LOGGED: (u32, u32, u32) = (9, 6, 0);

/// A table's column with the time of its last change, and whether a key leads
/// with it.
type Updated = BTreeMap<(Vec<u8>, Vec<u8>), (String, bool)>;

/// Everything about one route's tables.
pub async fn check(
    source: &mut Checked,
    target: &mut Checked,
    context: &Context,
    scope: &Scope,
    findings: &mut Findings,
) {
    let mut shapes = Vec::new();
    for (side, account) in [Side::Source, Side::Target]
        .into_iter()
        .zip(&context.accounts)
    {
        let mut conn = ServiceConn::new(account.clone());
        match load::side(&mut conn, scope).await {
            Ok(tables) => {
                let by_name = tables.into_iter().map(|(s, t, shape)| ((s, t), shape));
                shapes.push(by_name.collect::<Shapes>());
            }
            Err(e) => {
                let why = format!("its tables could not be read: {e}");
                findings.error("incomplete", At::Side(side), why, "see the reason");
                return;
            }
        }
    }
    let Ok([theirs, ours]) = <[Shapes; 2]>::try_from(shapes) else {
        return;
    };
    if theirs.is_empty() {
        let why = "the route covers no table of the source";
        findings.warning(
            "no_tables",
            At::Side(Side::Source),
            why,
            "check the route's `tables`, and that the service account may see them",
        );
        return;
    }
    let crosses = !source.session.server.same_family(&target.session.server);
    let logged = [&*source, &*target]
        .map(|c| !c.session.server.mariadb && c.session.server.version >= CASCADES_LOGGED);
    for (name, shape) in theirs.iter().filter(|(_, s)| !s.is_view) {
        let title = title(name);
        let other = ours.get(name);
        let kind = Kind {
            logged,
            crosses,
            mirror: scope.active.other(),
        };
        one(&title, shape, other, kind, findings);
    }
    extra(&theirs, &ours, findings);
    if let Err(e) = modes(source, &theirs, findings).await {
        super::gave_up(findings, Side::Source, &e);
    }
    if let Err(e) = room(source, target, scope, findings).await {
        super::gave_up(findings, Side::Target, &e);
    }
    if let Err(e) = objects(source, target, scope, findings).await {
        super::gave_up(findings, Side::Source, &e);
    }
    definitions(context, scope, findings).await;
}

fn title(name: &(Vec<u8>, Vec<u8>)) -> String {
    format!(
        "{}.{}",
        String::from_utf8_lossy(&name.0),
        String::from_utf8_lossy(&name.1)
    )
}

/// What both servers are to each other.
#[derive(Clone, Copy)]
struct Kind {
    /// Each logs the rows that foreign keys change.
    logged: [bool; 2],
    /// Two families.
    crosses: bool,
    /// The side that is not active.
    mirror: Side,
}

fn one(
    title: &str,
    shape: &TableShape,
    other: Option<&TableShape>,
    kind: Kind,
    findings: &mut Findings,
) {
    let at = At::Table(title);
    let key = Key::of(shape);
    // Sequences and the like are no plain tables either.
    let plain = shape.transactional || !shape.engine.eq_ignore_ascii_case("InnoDB");
    if key.is_none() && plain {
        let why = "it has no primary key and no unique one of whole columns without NULL: its rows are copied as a whole, followed one by one, and compared by their number";
        findings.warning("no_key", at, why, "give it a primary key");
    }
    if !plain {
        let why = "it is a sequence or system-versioned: its writes are deferred and never mirrored at once";
        findings.warning("engine", at, why, "nothing, or a plain table");
    } else if !shape.transactional {
        let why = format!(
            "its engine is {}: no row locks, so its writes are deferred and never mirrored at once",
            shape.engine
        );
        findings.warning("engine", at, why, "ALTER TABLE … ENGINE=InnoDB");
    }
    effects(title, shape, other, kind, findings);
    if let (Some(key), Some(other)) = (&key, other) {
        collated(title, shape, other, key, findings);
    }
    if kind.crosses {
        values(title, shape, findings);
    }
}

/// What a write to the table does beside the write.
fn effects(
    title: &str,
    shape: &TableShape,
    other: Option<&TableShape>,
    kind: Kind,
    findings: &mut Findings,
) {
    let at = At::Table(title);
    if shape.triggers > 0 {
        let why = "it has triggers: they run on the active side only (on the other their effects come with the rows), and its writes are deferred";
        findings.info(
            "triggers",
            at,
            why,
            "nothing: they are held back on the other side",
        );
    }
    if other.is_some_and(|o| o.triggers > 0) && shape.triggers > 0 {
        let why = "its triggers are live on the side that is not active too: what they do would be done twice";
        let at = At::TableOn(kind.mirror, title);
        findings.error(
            "triggers_on_mirror",
            at,
            why,
            "going to `syncing` holds them back; or drop them there",
        );
    }
    if shape.fk_parent_cascades && kind.logged != [true, true] {
        let why = "rows of other tables follow it by CASCADE or SET NULL, and the server does not log them: they are followed by the foreign key itself, which must be on both sides";
        findings.warning(
            "cascades",
            at,
            why,
            "nothing; keep the foreign keys equal on both sides",
        );
    }
    if shape.generated_columns {
        let why = "it has generated columns: each side computes its own";
        findings.info("generated_columns", at, why, "nothing");
    }
    if shape.volatile_defaults {
        let why =
            "a default calls UUID(), RAND() or the like: inserts that leave it out are deferred";
        findings.info(
            "volatile_defaults",
            at,
            why,
            "nothing, or let the application give the value",
        );
    }
}

/// Key columns that order differently: ranges of one side are not ranges of
/// the other.
fn collated(
    title: &str,
    shape: &TableShape,
    other: &TableShape,
    key: &Key,
    findings: &mut Findings,
) {
    let columns = key.columns.iter().filter_map(|c| shape.columns.get(*c));
    for column in columns {
        let there = other
            .column(&column.name)
            .and_then(|c| other.columns.get(c));
        let Some(there) = there else { continue };
        if there.collation != column.collation && column.collation.is_some() {
            let why = format!(
                "key column {}: {} on the source, {} on the target; values that are two keys here may be one there",
                String::from_utf8_lossy(&column.name),
                column.collation.as_deref().unwrap_or("none"),
                there.collation.as_deref().unwrap_or("none")
            );
            findings.warning(
                "key_collation",
                At::Table(title),
                why,
                "one collation that both servers have, utf8mb4_bin for instance",
            );
        }
    }
}

/// Types whose values the other family does not show alike.
fn values(title: &str, shape: &TableShape, findings: &mut Findings) {
    let mut by_why: BTreeMap<&'static str, Vec<String>> = BTreeMap::new();
    for column in &shape.columns {
        if let Some(why) = unlike(column) {
            let name = String::from_utf8_lossy(&column.name).into_owned();
            by_why.entry(why).or_default().push(name);
        }
    }
    for (why, columns) in by_why {
        let why = format!("{}: {why}", columns.join(", "));
        findings.warning(
            "types",
            At::Table(title),
            why,
            "look whether the application depends on it",
        );
    }
}

fn unlike(column: &ColumnShape) -> Option<&'static str> {
    let end = column.column_type.find(['(', ' ']);
    let head = column
        .column_type
        .get(..end.unwrap_or(column.column_type.len()))?
        .to_ascii_lowercase();
    Some(match head.as_str() {
        "json" => {
            "MariaDB keeps JSON as the text it was given, MySQL as values: spaces, the order of keys and digits of long numbers differ"
        }
        "geometry" | "point" | "linestring" | "polygon" | "multipoint" | "multilinestring"
        | "multipolygon" | "geomcollection" | "geometrycollection" => {
            "axes of geographic reference systems are swapped between the families: ST_X, ST_AsText and distances differ"
        }
        "uuid" | "inet6" | "inet4" => "text on MySQL, which orders and accepts other spellings",
        "vector" => "bytes without functions where the other family has no VECTOR",
        _ => return None,
    })
}

fn extra(theirs: &Shapes, ours: &Shapes, findings: &mut Findings) {
    for name in ours.keys().filter(|n| !theirs.contains_key(*n)) {
        let title = title(name);
        let why = "the target has it, the source has not";
        findings.warning(
            "only_on_target",
            At::TableOn(Side::Target, &title),
            why,
            "drop it there, or leave it out of the route",
        );
    }
}

/// Which compare modes each table can have.
async fn modes(
    source: &mut Checked,
    theirs: &Shapes,
    findings: &mut Findings,
) -> Result<(), SchemaError> {
    let mut updated = Updated::new();
    let schemas: BTreeSet<&Vec<u8>> = theirs.keys().map(|(s, _)| s).collect();
    for schema in schemas {
        let literal = schema::tokens::quote_text(&String::from_utf8_lossy(schema));
        let sql = format!(
            "SELECT c.TABLE_NAME, c.COLUMN_NAME, EXISTS (SELECT 1 FROM information_schema.STATISTICS s \
             WHERE s.TABLE_SCHEMA = {literal} AND s.TABLE_NAME = c.TABLE_NAME \
             AND s.COLUMN_NAME = c.COLUMN_NAME AND s.SEQ_IN_INDEX = 1) \
             FROM information_schema.COLUMNS c WHERE c.TABLE_SCHEMA = {literal} \
             AND c.EXTRA LIKE '%on update current_timestamp%'"
        );
        for row in source.session.rows(&sql).await? {
            let of = |n| text(&row, n).unwrap_or_default();
            let name = (schema.clone(), of(0).into_bytes());
            updated.insert(name, (of(1), of(2) == "1"));
        }
    }
    let mut without = 0_usize;
    for (name, shape) in theirs.iter().filter(|(_, s)| !s.is_view) {
        let title = title(name);
        let at = At::Table(&title);
        if Key::of(shape).is_none() {
            continue;
        }
        match updated.get(name) {
            Some((column, true)) => {
                let why = format!(
                    "{column} tells when a row changed and has a key: full, strong and windowed compares"
                );
                findings.info("compare_modes", at, why, "nothing");
            }
            Some((column, false)) => {
                let why = format!(
                    "{column} tells when a row changed but no key leads with it: full and strong compares; a windowed one would read all of it"
                );
                findings.info(
                    "compare_modes",
                    at,
                    why,
                    "a key on that column, if windowed compares are wanted",
                );
            }
            None => without += 1,
        }
    }
    if without > 0 {
        let why = format!(
            "{without} tables have no column that tells when a row changed: full and strong compares, not windowed ones"
        );
        findings.info("compare_modes", At::Both, why, "nothing");
    }
    Ok(())
}

/// What the rows take, and what the target says of its disks.
async fn room(
    source: &mut Checked,
    target: &mut Checked,
    scope: &Scope,
    findings: &mut Findings,
) -> Result<(), SchemaError> {
    let sql = "SELECT TABLE_SCHEMA, TABLE_NAME, COALESCE(DATA_LENGTH, 0) + COALESCE(INDEX_LENGTH, 0) \
               FROM information_schema.TABLES WHERE TABLE_TYPE = 'BASE TABLE'";
    let mut bytes = 0_u64;
    for row in source.session.rows(sql).await? {
        let of = |n| text(&row, n).unwrap_or_default();
        if scope.covers(of(0).as_bytes(), of(1).as_bytes()) {
            bytes = bytes.saturating_add(of(2).parse().unwrap_or(0));
        }
    }
    // A plugin of MariaDB; without it no server tells.
    let disks = "SELECT MAX(AVAILABLE) * 1024 FROM information_schema.DISKS";
    let free = match target.session.one(disks).await {
        Ok(free) => free.and_then(|f| f.parse::<u64>().ok()),
        Err(Refused::Server(..)) => None,
        Err(e) => return Err(e.into()),
    };
    let needed = size(bytes);
    match free {
        Some(free) if free < bytes => {
            let why = format!(
                "the route's tables take {needed} on the source; the target has {} left",
                size(free)
            );
            findings.error(
                "free_space",
                At::Side(Side::Target),
                why,
                "more room on the target",
            );
        }
        Some(_) => {}
        None => {
            let why = format!(
                "the route's tables take {needed} on the source; the target does not say how much room it has"
            );
            findings.info(
                "free_space",
                At::Side(Side::Target),
                why,
                "look at its disks: the binary log grows by as much while the copy runs",
            );
        }
    }
    Ok(())
}

fn size(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["bytes", "KiB", "MiB", "GiB", "TiB"];
    let (mut value, mut unit) = (bytes, 0);
    while value >= 10_240 && unit + 1 < UNITS.len() {
        value /= 1024;
        unit += 1;
    }
    format!("{value} {}", UNITS.get(unit).copied().unwrap_or_default())
}

/// Events, and foreign keys that cross the route's border.
async fn objects(
    source: &mut Checked,
    target: &mut Checked,
    scope: &Scope,
    findings: &mut Findings,
) -> Result<(), SchemaError> {
    let sql = "SELECT EVENT_SCHEMA, EVENT_NAME FROM information_schema.EVENTS \
               WHERE STATUS = 'ENABLED'";
    let mut sides = [(Side::Source, &mut *source), (Side::Target, &mut *target)];
    let mut on = Vec::new();
    for (side, checked) in &mut sides {
        for row in checked.session.rows(sql).await? {
            let of = |n| text(&row, n).unwrap_or_default();
            if scope.covers(of(0).as_bytes(), of(1).as_bytes()) {
                on.push((*side, format!("{}.{}", of(0), of(1))));
            }
        }
    }
    for (side, name) in on {
        if side == scope.active {
            let why = "an event: it runs on the active side only, and is brought over disabled";
            findings.info("events", At::TableOn(side, &name), why, "nothing");
        } else {
            let why =
                "an event that runs on the side that is not active: its writes are divergences";
            findings.error(
                "events_on_mirror",
                At::TableOn(side, &name),
                why,
                "going to `syncing` disables it; or ALTER EVENT … DISABLE",
            );
        }
    }
    let sql = "SELECT CONSTRAINT_SCHEMA, TABLE_NAME, CONSTRAINT_NAME, \
               UNIQUE_CONSTRAINT_SCHEMA, REFERENCED_TABLE_NAME \
               FROM information_schema.REFERENTIAL_CONSTRAINTS";
    for row in source.session.rows(sql).await? {
        let of = |n| text(&row, n).unwrap_or_default();
        let child = scope.covers(of(0).as_bytes(), of(1).as_bytes());
        let parent = scope.covers(of(3).as_bytes(), of(4).as_bytes());
        if child != parent {
            let name = format!("{}.{}", of(0), of(1));
            let why = format!(
                "foreign key {} goes to {}.{}: one of both is not of this route, and they will be active on different sides",
                of(2),
                of(3),
                of(4)
            );
            findings.warning(
                "foreign_key_border",
                At::Table(&name),
                why,
                "both tables in one route",
            );
        }
    }
    Ok(())
}

/// What of the definitions is not, or not alike, on the target.
async fn definitions(context: &Context, scope: &Scope, findings: &mut Findings) {
    let [source, target] = &context.accounts;
    let covers = |s: &[u8], t: &[u8]| scope.covers(s, t);
    let report = match schema::compare(source, target, &covers, Options::default()).await {
        Ok(report) => report,
        Err(e) => {
            super::gave_up(findings, Side::Target, &e);
            return;
        }
    };
    let mut absent: Vec<String> = Vec::new();
    for note in &report.notes {
        if note.why == schema::NOT_THERE {
            absent.push(format!("{} {}", note.object.as_str(), full_name(note)));
        } else {
            noted(note, findings);
        }
    }
    if !absent.is_empty() {
        let some = absent
            .iter()
            .take(3)
            .cloned()
            .collect::<Vec<_>>()
            .join(", ");
        let more = absent.len().saturating_sub(3);
        let more = match more {
            0 => String::new(),
            n => format!(" and {n} more"),
        };
        let why = format!("not on the target yet: {some}{more}");
        findings.info(
            "not_on_target",
            At::Side(Side::Target),
            why,
            "nothing: going to `syncing` makes them",
        );
    }
}

fn full_name(note: &Note) -> String {
    match (note.schema.is_empty(), note.name.is_empty()) {
        (true, _) => note.name.clone(),
        (false, true) => note.schema.clone(),
        (false, false) => format!("{}.{}", note.schema, note.name),
    }
}

fn noted(note: &Note, findings: &mut Findings) {
    let title = full_name(note);
    let why = match note.part.is_empty() {
        true => note.why.clone(),
        false => format!("{}: {}", note.part, note.why),
    };
    let table = note.object == Object::Table;
    let (severity, name, remedy) = match note.outcome {
        Outcome::Missing if table && note.part.is_empty() => (
            Severity::Error,
            "cannot_carry",
            "change the table, or leave it out of the route",
        ),
        Outcome::Missing => (
            Severity::Warning,
            "cannot_carry",
            "make it on the target by hand, in that server's words",
        ),
        // Those that wait for the rows, for instance.
        Outcome::Differs if note.part.starts_with("key ") && note.why == schema::diff::MISSING => (
            Severity::Warning,
            "key_not_there",
            "made at the end of the copy, if it was left out for it; or by hand",
        ),
        Outcome::Differs if table => (
            Severity::Error,
            "schema_differs",
            "ALTER TABLE on the target; or drop it there, and `syncing` makes it",
        ),
        Outcome::Differs => (
            Severity::Warning,
            "schema_differs",
            "make both sides equal, or accept it",
        ),
        Outcome::Adapted => (Severity::Info, "adapted", "nothing"),
        Outcome::Noted => (Severity::Info, "note", "nothing"),
    };
    findings.put(
        severity,
        name,
        At::TableOn(Side::Target, &title),
        why,
        remedy,
    );
}

#[cfg(test)]
mod tests {
    use super::size;

    #[test]
    fn sizes_are_read_easily() {
        assert_eq!(size(9000), "9000 bytes");
        assert_eq!(size(20 << 20), "20 MiB");
        assert_eq!(size(u64::MAX), "16777215 TiB");
    }
}
