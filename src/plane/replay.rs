//! Changes of definitions in `apply` mode: the side that is written gets them
//! from the log, where the follower meets them.
//!
//! While one side alone is active a statement of the application goes there and
//! nowhere else, whether it changes rows or tables; the log has both in their
//! order. So the follower stops before the change, everything before it being
//! written in the old shape, the statement is run on the other side as it was
//! logged, and the follower goes on behind it. No gate, no barrier, and no
//! difference whether it came through the proxy.
//!
//! `lockstep.ddl` on the side that is written makes it once: a row before, with
//! the place in the log, and its change after. A process that dies between the
//! two leaves a statement of which nobody knows whether it ran: then the
//! definitions decide, and where they show nothing an operator does.

use std::sync::Arc;
use std::time::Duration;

use mysql_async::Conn;
use mysql_async::prelude::Queryable;

use crate::Side;
use crate::binlog::event::Query;
use crate::rows::literal::put_quoted;
use crate::rows::service::{ServiceConn, ServiceError, text};
use crate::rows::shape::{Catalog, TableShape};
use crate::schema::{self, tokens::quote_name};
use crate::sql::Verb;

use super::definitions::{What, differ};
use super::route::Spec;
use super::view::{Copying, View};
use super::{Inner, shapes};

/// The longest one may take: an ALTER that copies a large table.
const DDL_LIMIT: Duration = Duration::from_secs(24 * 3600);

/// For everything else that is asked.
const QUERY_LIMIT: Duration = Duration::from_secs(10);

/// `sql_mode` bits that both families know, and that keep their meaning.
const MODES: u64 = 0xe7f8_00cf;
/// MariaDB's ORACLE mode: another grammar.
const ORACLE: u64 = 1 << 9;

const CREATE: [&str; 2] = [
    "CREATE DATABASE IF NOT EXISTS lockstep",
    "CREATE TABLE IF NOT EXISTS lockstep.ddl (\
     stream VARCHAR(80) CHARACTER SET ascii NOT NULL PRIMARY KEY, \
     position LONGTEXT CHARACTER SET ascii NOT NULL, done TINYINT NOT NULL) ENGINE=InnoDB",
];

/// Words of an ALTER after which a copy that is not done begins anew: the order
/// of its rows, or the name it is kept under, may be another.
const RECOPIED: [&[u8]; 6] = [
    b"PRIMARY",
    b"UNIQUE",
    b"CHANGE",
    b"MODIFY",
    b"RENAME",
    b"EXCHANGE",
];

/// Why it was not run.
pub(super) enum Failed {
    /// Trying again may help.
    Passing(String),
    /// An operator has to see to it.
    Stuck(String),
}

struct Replay<'a> {
    inner: &'a Inner,
    spec: &'a Spec,
    query: &'a Query,
    what: What,
    position: String,
    conn: Conn,
}

/// Brings one to the side that is written.
pub(super) async fn run(
    inner: &Inner,
    spec: &Spec,
    view: &View,
    query: &Query,
) -> Result<(), Failed> {
    let side = spec.work.from.other();
    let position = view.position();
    let conn = inner.account(side).connect().await;
    let conn = conn.map_err(|e| Failed::Passing(e.to_string()))?;
    let mut replay = Replay {
        inner,
        spec,
        query,
        what: What::logged(query),
        position: position
            .as_ref()
            .map_or_else(String::new, ToString::to_string),
        conn,
    };
    replay.once().await?;
    if view.copy().is_some_and(|c| c.state != Copying::Done) {
        replay.plan_again().await.map_err(Failed::Passing)?;
    }
    let _ = replay.conn.disconnect().await;
    view.let_pass(position);
    Ok(())
}

impl Replay<'_> {
    fn written(&self) -> Side {
        self.spec.work.from.other()
    }

    /// A short statement, or a question with one number for an answer.
    async fn ask(&mut self, sql: &str) -> Result<Option<u8>, String> {
        let asked = self.conn.query_first::<u8, _>(sql);
        match tokio::time::timeout(QUERY_LIMIT, asked).await {
            Ok(answer) => answer.map_err(|e| e.to_string()),
            Err(_) => Err("no answer in time".to_owned()),
        }
    }

    /// Has the copy begin anew where what it kept is no longer true.
    async fn plan_again(&mut self) -> Result<(), String> {
        let all = format!(
            "DELETE FROM lockstep.copied WHERE stream='{}'",
            self.spec.start.stream
        );
        if self.is_recopied() {
            self.ask(&all).await?;
        } else if self.what.verb == Verb::DropTable {
            for (schema, table) in self.what.tables.clone() {
                let [mut of, mut named] = [Vec::new(), Vec::new()];
                put_quoted(&mut of, &schema);
                put_quoted(&mut named, &table);
                let [of, named] = [of, named].map(|n| String::from_utf8_lossy(&n).into_owned());
                let sql = format!("{all} AND schema_name={of} AND table_name={named}");
                self.ask(&sql).await?;
            }
        }
        Ok(())
    }

    fn is_recopied(&self) -> bool {
        let upper = self.query.sql.to_ascii_uppercase();
        let has = |word: &&[u8]| memchr::memmem::find(&upper, word).is_some();
        matches!(self.what.verb, Verb::RenameTable | Verb::DropDatabase)
            || (self.what.verb == Verb::AlterTable && RECOPIED.iter().any(has))
    }

    /// Whether the sides are alike in what it names.
    async fn alike(&self) -> Result<(), Failed> {
        for read in self.inner.catalog.refresh().await {
            read.map_err(|e| Failed::Passing(e.to_string()))?;
        }
        let catalog = self.inner.catalog.snapshot();
        match differ(&catalog, self.spec.work.from, &self.what) {
            None => Ok(()),
            Some(difference) => Err(Failed::Stuck(difference)),
        }
    }

    async fn once(&mut self) -> Result<(), Failed> {
        for sql in CREATE {
            self.ask(sql).await.map_err(Failed::Passing)?;
        }
        let mut place = Vec::new();
        put_quoted(&mut place, self.position.as_bytes());
        let place = String::from_utf8_lossy(&place).into_owned();
        let stream = self.spec.start.stream.clone();
        let sql =
            format!("SELECT done FROM lockstep.ddl WHERE stream='{stream}' AND position={place}");
        match self.ask(&sql).await.map_err(Failed::Passing)? {
            Some(1) => return Ok(()),
            // Cut off. Emptying a table again does no harm: no row of behind it
            // is written yet.
            Some(_) if self.what.verb != Verb::Truncate => return self.cut_off().await,
            _ => {}
        }
        let note = |done: u8| {
            format!("REPLACE INTO lockstep.ddl VALUES ('{stream}', {place}, {done}); COMMIT")
        };
        if self.what.verb == Verb::CreateTable && self.is_foreign().await? && self.made().await? {
            return Ok(());
        }
        self.ask(&note(0)).await.map_err(Failed::Passing)?;
        if let Err(failed) = self.execute().await {
            // The server has answered: nothing was done.
            let sql = format!("DELETE FROM lockstep.ddl WHERE stream='{stream}'");
            if matches!(failed, Failed::Stuck(_)) {
                let _ = self.ask(&sql).await;
            }
            return match (failed, self.what.verb) {
                (Failed::Stuck(said), verb) if verb != Verb::Truncate => {
                    // It may be there already: made from the other side's
                    // definition, or by an operator.
                    let alike = self.alike().await;
                    alike.map_err(|e| match e {
                        Failed::Stuck(difference) => Failed::Stuck(format!("{said}; {difference}")),
                        passing => passing,
                    })
                }
                (failed, _) => Err(failed),
            };
        }
        self.ask(&note(1)).await.map_err(Failed::Passing)?;
        Ok(())
    }

    /// Makes a table from the definition that the read side has now, adapted to
    /// the other's family. False: it has none any more.
    async fn made(&self) -> Result<bool, Failed> {
        let accounts = [self.spec.work.from, self.written()].map(|s| self.inner.account(s));
        let [from, to] = accounts;
        // The first is the new one; LIKE and SELECT name others.
        let Some((schema, table)) = self.what.tables.first().cloned() else {
            return Ok(false);
        };
        let (made_in, made) = (schema.clone(), table.clone());
        let covers = move |db: &[u8], t: &[u8]| {
            db.eq_ignore_ascii_case(&schema) && t.eq_ignore_ascii_case(&table)
        };
        let options = schema::Options::default();
        let progress = schema::Progress::default();
        let failed = |e: schema::SchemaError| Failed::Passing(e.to_string());
        let created = schema::create(from, to, &covers, options, &progress).await;
        created.map_err(failed)?;
        let finished = schema::finish(from, to, &covers, options, &progress).await;
        finished.map_err(failed)?;
        for read in self.inner.catalog.refresh().await {
            read.map_err(|e| Failed::Passing(e.to_string()))?;
        }
        let catalog = self.inner.catalog.snapshot();
        let pair = catalog.get(&made_in, &made);
        Ok(pair.is_some_and(|p| p.on(self.written()).is_some()))
    }

    /// Whether a new table's text means another table on the other side: the
    /// families have other defaults. MySQL logs CREATE TABLE ... SELECT in words
    /// of its own.
    async fn is_foreign(&self) -> Result<bool, Failed> {
        const OWN: &[u8] = b"START TRANSACTION";
        if memchr::memmem::find(&self.query.sql, OWN).is_some() {
            return Ok(true);
        }
        let failed = |e: ServiceError| Failed::Passing(e.to_string());
        let here = is_mariadb(self.inner, self.written())
            .await
            .map_err(failed)?;
        let there = is_mariadb(self.inner, self.spec.work.from)
            .await
            .map_err(failed)?;
        Ok(here != there)
    }

    async fn cut_off(&self) -> Result<(), Failed> {
        let shown = matches!(
            self.what.verb,
            Verb::AlterTable
                | Verb::CreateTable
                | Verb::DropTable
                | Verb::CreateIndex
                | Verb::DropIndex
        );
        let alike = self.alike().await;
        match alike {
            Ok(()) if shown => Ok(()),
            Ok(()) => Err(Failed::Stuck(
                "it was begun when the proxy was ended, and definitions do not show whether it \
                 was done"
                    .to_owned(),
            )),
            Err(failed) => Err(failed),
        }
    }

    /// Runs the text in the session it was logged with.
    async fn execute(&mut self) -> Result<(), Failed> {
        let context = self.query.context;
        let mode = context.mode.unwrap_or_default();
        if mode & ORACLE != 0 {
            return Err(Failed::Stuck("it was run in sql_mode=ORACLE".to_owned()));
        }
        // Set as the number it is: names would have to be known.
        let mut settings = vec![
            format!("SET sql_mode={}, foreign_key_checks=0", mode & MODES),
            format!("SET timestamp={}", self.query.at_s),
        ];
        let charset = match context.collations {
            Some([client, connection, server]) => format!(
                "SET @@session.character_set_client={client}, \
                 @@session.collation_connection={connection}, @@session.collation_server={server}"
            ),
            None => "SET NAMES utf8mb4".to_owned(),
        };
        for sql in settings.drain(..) {
            self.ask(&sql).await.map_err(Failed::Passing)?;
        }
        // The families number newer collations differently.
        if self.ask(&charset).await.is_err() {
            if std::str::from_utf8(&self.query.sql).is_err() {
                return Err(Failed::Stuck(
                    "its character set is not known there".to_owned(),
                ));
            }
            let utf8 = "SET NAMES utf8mb4";
            self.ask(utf8).await.map_err(Failed::Passing)?;
        }
        if !self.query.schema.is_empty() {
            let name = quote_name(&String::from_utf8_lossy(&self.query.schema));
            // A schema that is made or dropped need not be there.
            let _ = self.ask(&format!("USE {name}")).await;
        }
        let sql = self.query.sql.to_vec();
        let (route, side) = (&self.spec.name, self.written());
        tracing::info!(
            route,
            "{} is run on the {side}, from the log",
            self.what.verb.as_str()
        );
        match tokio::time::timeout(DDL_LIMIT, self.conn.query_drop(sql)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(mysql_async::Error::Server(e))) => Err(Failed::Stuck(format!(
                "the {side} refuses it: {} ({})",
                e.message, e.code
            ))),
            Ok(Err(e)) => Err(Failed::Passing(e.to_string())),
            Err(_) => Err(Failed::Passing("it takes too long".to_owned())),
        }
    }
}

/// The shapes that rows have where the follower is, which is behind the place
/// that the read side's definitions are of if that side went on meanwhile. The
/// side that is written has got each change from the log so far: between
/// servers of one family its definitions are those of that place. Between the
/// families it has others for the same, so there only names of columns tell,
/// and what both have stays as the read side says.
///
/// # Errors
/// A side does not answer.
pub(super) async fn at_log(
    inner: &Inner,
    catalog: &Arc<Catalog>,
    read: Side,
    covers: impl Fn(&[u8], &[u8]) -> bool,
    fold: bool,
) -> Result<Arc<Catalog>, ServiceError> {
    if shapes::compare(&covers, read, catalog).1.is_empty() {
        return Ok(catalog.clone());
    }
    let one_family = is_mariadb(inner, read).await? == is_mariadb(inner, read.other()).await?;
    let mut derived = Catalog::new(fold);
    derived.generation = catalog.generation;
    for (db, name, pair) in catalog.iter() {
        let written = pair.on(read.other());
        let shape = match (pair.on(read), written) {
            (now, Some(then)) if covers(db, name) => {
                let mut shape = match now {
                    Some(now) if !one_family => merged(now, then),
                    _ => then.clone(),
                };
                if let Some(now) = now {
                    // The target's may be another one from the beginning.
                    shape.engine.clone_from(&now.engine);
                    shape.transactional = now.transactional;
                }
                Some(shape)
            }
            (now, _) => now.cloned(),
        };
        for (side, shape) in [(read, shape), (read.other(), written.cloned())] {
            if let Some(shape) = shape {
                derived.insert(db, name, side, shape);
            }
        }
    }
    Ok(Arc::new(derived))
}

async fn is_mariadb(inner: &Inner, side: Side) -> Result<bool, ServiceError> {
    let mut conn = ServiceConn::new(inner.account(side).clone());
    let sql = "SELECT VERSION() LIKE '%MariaDB%'";
    let rows = conn.rows(sql, QUERY_LIMIT).await?;
    Ok(rows.first().and_then(|r| text(r, 0)).as_deref() == Some("1"))
}

fn merged(now: &TableShape, then: &TableShape) -> TableShape {
    let names = |shape: &TableShape| -> Vec<Vec<u8>> {
        let columns = shape.columns.iter();
        columns.map(|c| c.name.to_ascii_lowercase()).collect()
    };
    if names(now) == names(then) {
        return now.clone();
    }
    let mut shape = then.clone();
    for column in &mut shape.columns {
        if let Some(same) = now.column(&column.name).and_then(|i| now.columns.get(i)) {
            *column = same.clone();
        }
    }
    shape
}
