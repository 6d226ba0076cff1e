//! Triggers and events of the side that is not active.
//!
//! Row images hold what a trigger did already, and an event must run on one
//! side only. So on the side that is not active triggers do not exist and
//! events are disabled; `lockstep.held` there has what to bring back:
//!
//! | column | of a trigger | of an event |
//! | --- | --- | --- |
//! | `statement` | its CREATE TRIGGER, for this server | empty: it stays, disabled |
//! | `sql_mode`, `collation` | the session to create it in | |
//! | `ordinal` | its place among those of one table | |
//! | `seen` | the active side has had it since it is kept: once it has not, it was dropped there | likewise |
//!
//! An object is never lost, wherever a run is cut off:
//! 1. Held back: the row is committed before the object goes.
//! 2. Brought back: the object is there before the row goes.
//! 3. Both there: the next run in either direction finds the object made
//!    already, or the row written already, and does the other half.

use mysql_async::Row;

use super::create::{Run, refusal};
use super::notes::{Note, Object, Outcome, Report, Subject};
use super::objects::{Body, context};
use super::session::{Refused, Session, exact};
use super::source::{self, Inventory, Item};
use super::tokens::{Token, quote_name, quote_text, tokens};
use super::{Covers, Pair, SchemaError};
use crate::rows::service::{ServiceAccount, text};

/// `SHOW CREATE TRIGGER`: sql_mode, text, collation_connection.
const OF_TRIGGER: [usize; 3] = [1, 2, 4];

/// A table with a trigger has an open transaction: waited for this long, for
/// it happens behind a closed gate.
const LOCK_WAIT: &str = "SET lock_wait_timeout=2";

/// How long a statement of ours may go on waiting on a server when nobody waits
/// for it any more: [`LOCK_WAIT`] and the statement.
pub const HELD_WAIT: std::time::Duration = std::time::Duration::from_millis(2_500);

const TRIGGER_EXISTS: u16 = 1359;
const NO_SCHEMA: u16 = 1049;
const NO_TABLE: u16 = 1146;

const TABLE: &str = "CREATE TABLE IF NOT EXISTS lockstep.held (\
     kind VARCHAR(16) CHARACTER SET ascii NOT NULL, \
     schema_name VARBINARY(256) NOT NULL, name VARBINARY(256) NOT NULL, \
     table_name VARBINARY(256) NOT NULL, ordinal INT UNSIGNED NOT NULL, \
     sql_mode VARCHAR(1024) CHARACTER SET ascii NOT NULL, \
     collation VARCHAR(64) CHARACTER SET ascii NOT NULL, \
     statement LONGTEXT CHARACTER SET utf8mb4 NOT NULL, seen TINYINT NOT NULL, \
     PRIMARY KEY (kind, schema_name, name)) ENGINE=InnoDB";

/// Makes the table.
pub(super) async fn prepare(session: &mut Session) -> Result<(), SchemaError> {
    session
        .run("CREATE DATABASE IF NOT EXISTS lockstep")
        .await?;
    Ok(session.run(TABLE).await?)
}

fn same_row(item: &Item) -> String {
    format!(
        "kind = '{}' AND schema_name = {} AND name = {}",
        item.object.as_str(),
        quote_text(&item.schema),
        quote_text(&item.name)
    )
}

/// Whether it is held back.
pub(super) async fn is_held(session: &mut Session, item: &Item) -> Result<bool, SchemaError> {
    let sql = format!("SELECT 1 FROM lockstep.held WHERE {}", same_row(item));
    match session.one(&sql).await {
        Ok(found) => Ok(found.is_some()),
        // No such schema or table yet, or one that we may not read.
        Err(Refused::Server(..)) => Ok(false),
        Err(e) => Err(e.into()),
    }
}

/// Keeps an object, instead of what was kept of it.
async fn keep(
    session: &mut Session,
    item: &Item,
    ordinal: usize,
    body: &Body,
) -> Result<(), SchemaError> {
    let sql = format!(
        "REPLACE INTO lockstep.held VALUES ('{}', {}, {}, {}, {ordinal}, {}, {}, {}, 0)",
        item.object.as_str(),
        quote_text(&item.schema),
        quote_text(&item.name),
        quote_text(&item.table),
        quote_text(&body.mode),
        quote_text(&body.collation),
        quote_text(&body.sql)
    );
    Ok(session.run(&sql).await?)
}

/// An object that is held back.
struct Held {
    item: Item,
    body: Body,
    seen: bool,
}

/// All that is held back on a side, of what is covered; empty where it has no
/// such table.
async fn all_held(session: &mut Session, covers: &Covers<'_>) -> Result<Vec<Held>, SchemaError> {
    let sql = "SELECT kind, schema_name, name, table_name, sql_mode, collation, statement, seen \
               FROM lockstep.held ORDER BY kind, schema_name, table_name, ordinal, name";
    let rows = match session.rows(sql).await {
        Ok(rows) => rows,
        Err(Refused::Server(NO_SCHEMA | NO_TABLE, _)) => return Ok(Vec::new()),
        Err(e) => return Err(e.into()),
    };
    let mut all = Vec::new();
    for row in rows {
        let Some(item) = held_item(&row) else {
            continue;
        };
        let by = match item.object {
            Object::Trigger => &item.table,
            _ => &item.name,
        };
        if !covers(item.schema.as_bytes(), by.as_bytes()) {
            continue;
        }
        let of = |n| text(&row, n).unwrap_or_default();
        let body = Body {
            mode: of(4),
            collation: of(5),
            sql: of(6),
            time_zone: String::new(),
        };
        let seen = of(7) == "1";
        all.push(Held { item, body, seen });
    }
    Ok(all)
}

/// Forgets what the mirror keeps of objects that were dropped on the active
/// side. What that side never had (it may not be able to have it) is kept, and
/// what is held back there itself is only on its way.
pub(super) async fn forget_gone(
    pair: &mut Pair,
    there: &Inventory,
    covers: &Covers<'_>,
) -> Result<(), SchemaError> {
    let coming = all_held(&mut pair.source, covers).await?;
    let same =
        |a: &Item, b: &Item| (a.object, &a.schema, &a.name) == (b.object, &b.schema, &b.name);
    let acts = |item: &Item| {
        let mut others = there.of(item.object);
        others.any(|i| same(i, item) && (i.enabled || i.object == Object::Trigger))
    };
    for Held { item, seen, .. } in all_held(&mut pair.target, covers).await? {
        if acts(&item) {
            let sql = format!(
                "UPDATE lockstep.held SET seen = 1 WHERE {}",
                same_row(&item)
            );
            pair.target.run(&sql).await?;
        } else if seen && !coming.iter().any(|other| same(&other.item, &item)) {
            forget(&mut pair.target, &item).await?;
        }
    }
    Ok(())
}

async fn forget(session: &mut Session, item: &Item) -> Result<(), SchemaError> {
    let sql = format!("DELETE FROM lockstep.held WHERE {}", same_row(item));
    Ok(session.run(&sql).await?)
}

/// Brings the source's triggers over. Each is made once, so that a server that
/// will not have it says so now and not when the side changes, and held back
/// at once.
pub(super) async fn triggers(run: &mut Run<'_>, there: &Inventory) -> Result<(), SchemaError> {
    for (ordinal, item) in there.of(Object::Trigger).enumerate() {
        let subject = Subject::new(Object::Trigger, &item.schema, &item.name);
        run.progress.at(subject.title());
        if run.here.has(item) {
            run.report.existing += 1;
        } else {
            let show = format!(
                "SHOW CREATE TRIGGER {}.{}",
                quote_name(&item.schema),
                quote_name(&item.name)
            );
            let [mode, sql, collation] = OF_TRIGGER.map(Some);
            let body = run.body(&subject, &show, [mode, sql, collation, None]);
            let Some(body) = body.await? else {
                run.progress.step();
                continue;
            };
            // Kept before, of a trigger that is as it was.
            let sql = format!(
                "SELECT statement FROM lockstep.held WHERE {}",
                same_row(item)
            );
            if run.pair.target.one(&sql).await? == Some(body.sql.clone()) {
                run.report.existing += 1;
            } else if run.put(&subject, &body).await? {
                run.definer(&subject, &body.sql).await?;
                keep(&mut run.pair.target, item, ordinal, &body).await?;
                drop_trigger(&mut run.pair.target, item).await?;
            }
        }
        run.progress.step();
    }
    Ok(())
}

/// Brings the source's events over, disabled. Those that are enabled there are
/// remembered.
pub(super) async fn events(run: &mut Run<'_>, there: &Inventory) -> Result<(), SchemaError> {
    for item in there.of(Object::Event) {
        let subject = Subject::new(Object::Event, &item.schema, &item.name);
        run.progress.at(subject.title());
        if run.here.has(item) {
            if item.enabled && !is_held(&mut run.pair.target, item).await? {
                keep(&mut run.pair.target, item, 0, &Body::default()).await?;
            }
            run.report.existing += 1;
        } else {
            let show = format!(
                "SHOW CREATE EVENT {}.{}",
                quote_name(&item.schema),
                quote_name(&item.name)
            );
            let places = [Some(1), Some(3), Some(5), Some(2)];
            if let Some(mut body) = run.body(&subject, &show, places).await? {
                body.sql = disabled(&body.sql);
                if item.enabled {
                    keep(&mut run.pair.target, item, 0, &Body::default()).await?;
                }
                if run.put(&subject, &body).await? {
                    run.definer(&subject, &body.sql).await?;
                } else {
                    forget(&mut run.pair.target, item).await?;
                }
            }
        }
        run.progress.step();
    }
    Ok(())
}

/// An event's text with DISABLE in the place of its state.
fn disabled(sql: &str) -> String {
    let all = tokens(sql);
    let preserve = all.iter().position(|t| t.is("PRESERVE"));
    let Some(state) = preserve.map(|p| p + 1) else {
        return sql.to_owned();
    };
    let mut end = state + 1;
    if all.get(end).is_some_and(|t| t.is("ON")) {
        end += 2;
    }
    let place = |t: Option<&Token<'_>>| {
        t.map_or(sql.len(), |t| {
            t.text.as_ptr() as usize - sql.as_ptr() as usize
        })
    };
    let head = sql.get(..place(all.get(state))).unwrap_or(sql);
    let tail = sql.get(place(all.get(end))..).unwrap_or_default();
    format!("{head}DISABLE {tail}")
}

async fn drop_trigger(session: &mut Session, item: &Item) -> Result<(), SchemaError> {
    let sql = format!(
        "DROP TRIGGER IF EXISTS {}.{}",
        quote_name(&item.schema),
        quote_name(&item.name)
    );
    Ok(session.run(&sql).await?)
}

/// ALTER EVENT, with its definer: without one it becomes ours.
async fn set_event(session: &mut Session, item: &Item, state: &str) -> Result<(), Refused> {
    let name = format!("{}.{}", quote_name(&item.schema), quote_name(&item.name));
    let rows = session.rows(&format!("SHOW CREATE EVENT {name}")).await?;
    let text = rows.first().and_then(|r| exact(r, 3)).unwrap_or_default();
    let definer = super::objects::definer(&text).map_or(String::new(), |(user, host)| {
        format!("DEFINER={}@{} ", quote_name(&user), quote_name(&host))
    });
    session
        .run(&format!("ALTER {definer}EVENT {name} {state}"))
        .await
}

/// Holds everything back that would act on this side.
pub(super) async fn hold(
    session: &mut Session,
    covers: &Covers<'_>,
) -> Result<Report, SchemaError> {
    let mut report = Report::default();
    let has = source::inventory(session, covers).await?;
    for (ordinal, item) in has.of(Object::Trigger).enumerate() {
        let subject = Subject::new(Object::Trigger, &item.schema, &item.name);
        let show = format!(
            "SHOW CREATE TRIGGER {}.{}",
            quote_name(&item.schema),
            quote_name(&item.name)
        );
        let rows = session.rows(&show).await?;
        let [mode, sql, collation] =
            OF_TRIGGER.map(|p| rows.first().and_then(|r| exact(r, p)).unwrap_or_default());
        if sql.is_empty() {
            // Dropped without its text it would be gone.
            let why = "the service account may not see its text: it stays";
            report.notes.push(subject.note(Outcome::Missing, "", why));
            continue;
        }
        let body = Body {
            sql,
            mode,
            collation,
            time_zone: String::new(),
        };
        keep(session, item, ordinal, &body).await?;
        drop_trigger(session, item).await?;
        report.created.push(subject.title());
    }
    still(session, &has, &mut report).await?;
    Ok(report)
}

/// Disables events.
async fn still(
    session: &mut Session,
    has: &Inventory,
    report: &mut Report,
) -> Result<(), SchemaError> {
    for item in has.of(Object::Event).filter(|e| e.enabled) {
        let subject = Subject::new(Object::Event, &item.schema, &item.name);
        keep(session, item, 0, &Body::default()).await?;
        match set_event(session, item, "DISABLE").await {
            Ok(()) => report.created.push(subject.title()),
            Err(Refused::Server(code, said)) => {
                let why = refusal(code, &said);
                report.notes.push(subject.note(Outcome::Missing, "", why));
            }
            Err(e) => return Err(e.into()),
        }
    }
    Ok(())
}

/// Holds a side's triggers and events back: it is no longer active. Safe to be
/// called again. `created` of the report names what was switched off, its notes
/// what was not.
///
/// Behind the gate, and not while the side's tables are fenced: dropping a
/// trigger waits for their locks.
///
/// # Errors
/// The connection's, or a missing right.
pub async fn deactivate(
    account: &ServiceAccount,
    covers: &Covers<'_>,
) -> Result<Report, SchemaError> {
    let mut session = Session::open(account).await?;
    prepare(&mut session).await?;
    session.run(LOCK_WAIT).await?;
    let report = hold(&mut session, covers).await?;
    session.close().await;
    Ok(report)
}

/// Holds a side's events back, and no triggers: it is about to be active no
/// more.
///
/// # Errors
/// The connection's, or a missing right.
pub async fn stop_events(
    account: &ServiceAccount,
    covers: &Covers<'_>,
) -> Result<Report, SchemaError> {
    let mut session = Session::open(account).await?;
    let mut report = Report::default();
    let has = source::inventory(&mut session, covers).await?;
    if has.of(Object::Event).any(|e| e.enabled) {
        prepare(&mut session).await?;
        session.run(LOCK_WAIT).await?;
        still(&mut session, &has, &mut report).await?;
    }
    session.close().await;
    Ok(report)
}

/// Whether [`activate`] has anything to bring back.
///
/// # Errors
/// The connection's.
pub async fn holds(account: &ServiceAccount, covers: &Covers<'_>) -> Result<bool, SchemaError> {
    let mut session = Session::open(account).await?;
    let any = !all_held(&mut session, covers).await?.is_empty();
    session.close().await;
    Ok(any)
}

/// Brings a side's triggers and events back (with `only`, those of one kind):
/// it becomes active. Safe to be called again. `created` of the report names
/// what was switched on, its notes what was not.
///
/// Behind the gate, before the first write goes to this side.
///
/// # Errors
/// The connection's, or a missing right.
pub async fn activate(
    account: &ServiceAccount,
    covers: &Covers<'_>,
    only: Option<Object>,
) -> Result<Report, SchemaError> {
    let mut session = Session::open(account).await?;
    session.run(LOCK_WAIT).await?;
    let mut report = Report::default();
    let mut all = all_held(&mut session, covers).await?;
    all.retain(|held| only.is_none_or(|kind| held.item.object == kind));
    for Held { item, body, .. } in all {
        match bring_back(&mut session, &item, &body).await {
            Ok(()) => {
                let subject = Subject::new(item.object, &item.schema, &item.name);
                report.created.push(subject.title());
                forget(&mut session, &item).await?;
            }
            Err(Refused::Server(code, said)) => report.notes.push(refused(&item, code, &said)),
            Err(e) => return Err(e.into()),
        }
    }
    session.close().await;
    Ok(report)
}

fn refused(item: &Item, code: u16, said: &str) -> Note {
    let subject = Subject::new(item.object, &item.schema, &item.name);
    subject.note(Outcome::Missing, "", refusal(code, said))
}

fn held_item(row: &Row) -> Option<Item> {
    Some(Item {
        object: match text(row, 0)?.as_str() {
            "trigger" => Object::Trigger,
            "event" => Object::Event,
            _ => return None,
        },
        schema: exact(row, 1)?,
        name: exact(row, 2)?,
        table: exact(row, 3)?,
        enabled: false,
    })
}

async fn bring_back(session: &mut Session, item: &Item, body: &Body) -> Result<(), Refused> {
    if item.object == Object::Event {
        return set_event(session, item, "ENABLE").await;
    }
    for sql in context(&item.schema, body) {
        session.run(&sql).await?;
    }
    let made = session.run(&body.sql).await;
    session.setup().await.map_err(Refused::Lost)?;
    session.run(LOCK_WAIT).await?;
    match made {
        Err(Refused::Server(TRIGGER_EXISTS, _)) => Ok(()),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::disabled;

    #[test]
    fn an_events_state_is_replaced() {
        for (sql, rest) in [
            ("ON COMPLETION PRESERVE ENABLE DO x", "DISABLE DO x"),
            (
                "ON COMPLETION NOT PRESERVE DISABLE ON SLAVE COMMENT 'a' DO y",
                "DISABLE COMMENT 'a' DO y",
            ),
            ("ON COMPLETION PRESERVE DISABLE\n DO\n z", "DISABLE DO\n z"),
        ] {
            let done = disabled(sql);
            assert!(done.ends_with(&format!("PRESERVE {rest}")), "{done}");
        }
    }
}
