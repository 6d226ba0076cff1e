//! Changes of definitions that a follower meets in the log: which of them the
//! side that is written has too.
//!
//! | met | passes |
//! | --- | --- |
//! | run by the proxy on both sides ([`Book`]) | once both have had it, with the shapes of then |
//! | the log's side alone was given it, `apply` | after [`super::replay`] has run it on the other |
//! | anything else | by the shapes: a second run meets it first, its tables are alike, and shapes show all it did |
//! | what shapes do not show (TRUNCATE, RENAME …) | on an operator's word: `resume` |
//!
//! Why by the shapes only in a second run: the shapes are those that a run read
//! before it began, and they are newer than a change only if an earlier run
//! stopped at it.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::watch;

use crate::Side;
use crate::binlog::Position;
use crate::binlog::event::Query;
use crate::follow::tables::{Ddl, Definitions, Verdict};
use crate::rows::catalog::CatalogLoader;
use crate::rows::shape::Catalog;
use crate::sql::{Facts, ScanMode, Verb, scan, unquote};

use super::compare::Compared;
use super::shapes;
use super::view::View;

/// Changes remembered of one route until its follower has met them: a follower
/// this far behind stops, and is told by an operator.
const KEPT_MAX: usize = 256;

/// Words of an ALTER that does what shapes do not show.
const UNSEEN: [&[u8]; 4] = [b"PARTITION", b"TABLESPACE", b"RENAME", b"ENGINE"];

/// What a statement changes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct What {
    /// How it begins.
    pub verb: Verb,
    /// The tables it names, with their schemas.
    pub tables: Vec<(Vec<u8>, Vec<u8>)>,
    /// The schema it names where it names no table.
    pub schema: Option<Vec<u8>>,
}

impl What {
    /// Of a statement, in a session with this default schema.
    pub fn of(sql: &[u8], facts: &Facts, database: Option<&[u8]>) -> What {
        let tables = facts.tables.iter(sql).filter_map(|(db, name)| {
            let db = db.as_deref().or(database)?;
            Some((db.to_vec(), name.to_vec()))
        });
        What {
            verb: facts.verb,
            tables: tables.collect(),
            schema: facts.database.map(|d| unquote(d.of(sql)).into_owned()),
        }
    }

    /// Of a statement in the log.
    pub(super) fn logged(query: &Query) -> What {
        let mode = ScanMode {
            ansi_quotes: query.context.ansi_quotes(),
            no_backslash_escapes: query.context.no_backslash_escapes(),
            ..ScanMode::default()
        };
        let schema = (!query.schema.is_empty()).then_some(&query.schema[..]);
        What::of(&query.sql, &scan(&query.sql, mode), schema)
    }

    /// Whether `logged` is this, or a part of it: servers write some anew, and
    /// leave out tables that are not there.
    fn is(&self, logged: &What) -> bool {
        let same = |a: &(Vec<u8>, Vec<u8>), b: &(Vec<u8>, Vec<u8>)| {
            a.0.eq_ignore_ascii_case(&b.0) && a.1.eq_ignore_ascii_case(&b.1)
        };
        let has = |table: &(Vec<u8>, Vec<u8>)| self.tables.iter().any(|t| same(t, table));
        self.verb == logged.verb
            && logged.tables.iter().all(has)
            && logged.tables.is_empty() == self.tables.is_empty()
            && (!self.tables.is_empty() || self.schema == logged.schema)
    }

    /// Whether it may give rows that are there values that the log does not
    /// have, and each side its own: `ADD COLUMN at TIMESTAMP(6) DEFAULT NOW(6)`,
    /// `DEFAULT (UUID())`, an AUTO_INCREMENT column.
    pub(super) fn fills_rows(&self) -> bool {
        self.verb == Verb::AlterTable
    }

    /// Whether it only makes or drops triggers.
    pub(super) fn is_trigger(&self) -> bool {
        self.verb.is_of_triggers()
    }
}

struct Kept {
    id: u64,
    what: What,
    over: watch::Receiver<bool>,
    /// The shapes of then, once both sides have had it.
    catalog: Option<Arc<Catalog>>,
    /// Where the follower met it.
    met: Option<Position>,
}

/// What the proxy runs on both sides of one route, in its order.
#[derive(Default)]
struct Page {
    list: VecDeque<Kept>,
    next: u64,
}

/// What the proxy runs on both sides, by route.
#[derive(Default)]
pub struct Book(Mutex<HashMap<String, Page>>);

impl Book {
    fn open(&self, route: &str, what: What, over: watch::Receiver<bool>) -> u64 {
        let mut pages = self.0.lock();
        let page = pages.entry(route.to_owned()).or_default();
        page.next += 1;
        if page.list.len() >= KEPT_MAX {
            page.list.pop_front();
        }
        page.list.push_back(Kept {
            id: page.next,
            what,
            over,
            catalog: None,
            met: None,
        });
        page.next
    }

    fn close(&self, route: &str, id: u64, catalog: Option<&Arc<Catalog>>) {
        let mut pages = self.0.lock();
        let Some(page) = pages.get_mut(route) else {
            return;
        };
        match catalog {
            Some(catalog) => {
                for kept in page.list.iter_mut().filter(|k| k.id == id) {
                    kept.catalog = Some(catalog.clone());
                }
            }
            None => page.list.retain(|k| k.id != id),
        }
    }

    /// Everything run before now has been met: a follower has passed a barrier.
    pub(super) fn clear(&self, route: &str) {
        if let Some(page) = self.0.lock().get_mut(route) {
            page.list.retain(|k| k.catalog.is_none());
        }
    }

    fn under_way(&self, route: &str, what: &What) -> Option<watch::Receiver<bool>> {
        let pages = self.0.lock();
        let mut open = pages.get(route)?.list.iter().filter(|k| k.met.is_none());
        open.find(|k| k.what.is(what)).map(|k| k.over.clone())
    }

    /// The shapes behind a statement met at `at`, if both sides have had it.
    /// One that is met again there, after a lost connection, is the same one;
    /// dropping several tables may be logged as several statements.
    fn pass(&self, route: &str, what: &What, at: Option<&Position>) -> Option<Arc<Catalog>> {
        let mut pages = self.0.lock();
        let page = pages.get_mut(route)?;
        let several = matches!(what.verb, Verb::DropTable | Verb::DropView);
        let found = page.list.iter().position(|k| {
            k.what.is(what) && (k.met.is_none() || several || k.met.as_ref() == at)
        })?;
        // What was run before it is behind the follower.
        page.list.drain(..found);
        let kept = page.list.front_mut()?;
        kept.met = kept.catalog.as_ref().and(at.cloned());
        kept.catalog.clone()
    }
}

/// Statements that are about to be run on both sides of routes. Dropped before
/// [`UnderWay::done`], they are no more known than any other.
pub struct UnderWay {
    book: Arc<Book>,
    catalog: Arc<CatalogLoader>,
    kept: Vec<(String, u64)>,
    over: watch::Sender<bool>,
    /// Routes whose rows are not what a comparison found any more.
    voids: Vec<Arc<Compared>>,
}

impl UnderWay {
    pub(super) fn new(
        book: &Arc<Book>,
        catalog: &Arc<CatalogLoader>,
        routes: &[String],
        all: &[What],
        voids: Vec<Arc<Compared>>,
    ) -> UnderWay {
        let (over, waits) = watch::channel(false);
        // Triggers are made on the active side alone; the follower sees to them.
        let all = || all.iter().filter(|w| !w.is_trigger());
        let pairs = routes.iter().flat_map(|r| all().map(move |w| (r, w)));
        let kept = pairs.map(|(route, what)| {
            let id = book.open(route, what.clone(), waits.clone());
            (route.clone(), id)
        });
        UnderWay {
            kept: kept.collect(),
            book: book.clone(),
            catalog: catalog.clone(),
            over,
            voids,
        }
    }

    /// Both sides have had them, and the shapes were read since.
    pub fn done(mut self) {
        let catalog = self.catalog.snapshot();
        for (route, id) in self.kept.drain(..) {
            self.book.close(&route, id, Some(&catalog));
        }
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        for (route, id) in &self.kept {
            self.book.close(route, *id, None);
        }
        // At the end: a comparison that began meanwhile has read rows of before.
        for compared in &self.voids {
            compared.altered();
        }
        self.over.send_replace(true);
    }
}

/// What one run of a route's follower knows.
pub(super) struct Known {
    pub view: Arc<View>,
    pub route: String,
    pub book: Arc<Book>,
    /// The shapes when the run began.
    pub catalog: Arc<Catalog>,
    /// The side that is read.
    pub read: Side,
}

impl Known {
    /// Why it cannot be told by the shapes that both sides have had it.
    fn unproven(&self, what: &What, query: &Query) -> Option<String> {
        if let Some(difference) = differ(&self.catalog, self.read, what) {
            return Some(format!("the sides differ: {difference}"));
        }
        let upper = query.sql.to_ascii_uppercase();
        let unseen = |word: &&[u8]| memchr::memmem::find(&upper, word).is_some();
        let gone = || {
            let mut tables = what.tables.iter();
            tables.all(|(db, t)| {
                self.catalog
                    .get(db, t)
                    .is_none_or(|p| p.source.is_none() && p.target.is_none())
            })
        };
        let seen = match what.verb {
            Verb::AlterTable => !UNSEEN.iter().any(unseen),
            Verb::DropTable => gone(),
            Verb::CreateTable
            | Verb::CreateIndex
            | Verb::DropIndex
            | Verb::CreateView
            | Verb::DropView
            | Verb::CreateDatabase
            | Verb::AlterDatabase => true,
            _ => false,
        };
        (!seen).then(|| "definitions do not show whether the other side has had it".to_owned())
    }
}

/// How the sides differ in the tables that a statement names, or in all of its
/// schema.
pub(super) fn differ(catalog: &Catalog, read: Side, what: &What) -> Option<String> {
    let named = |db: &[u8], t: &[u8]| {
        let mut tables = what.tables.iter();
        let schema = what.schema.as_ref().filter(|_| what.tables.is_empty());
        tables.any(|(d, n)| d.eq_ignore_ascii_case(db) && n.eq_ignore_ascii_case(t))
            || schema.is_some_and(|s| s.eq_ignore_ascii_case(db))
    };
    let (_, differing) = shapes::compare(named, read, catalog);
    differing.into_iter().next()
}

impl Definitions for Known {
    fn under_way(&self, ddl: Ddl<'_>) -> Option<watch::Receiver<bool>> {
        let what = What::logged(ddl.query);
        let open = self.book.under_way(&self.route, &what);
        Some(open.unwrap_or_else(|| watch::channel(true).1))
    }

    fn changed(&self, ddl: Ddl<'_>) -> Verdict {
        let what = What::logged(ddl.query);
        let at = self.view.position();
        if let Some(catalog) = self.book.pass(&self.route, &what, at.as_ref()) {
            return Verdict::Pass(Some(catalog));
        }
        let again = self.view.is_where_it_stopped();
        // Each run begins with holding triggers back where they must not act.
        if self.view.is_to_pass() || (what.is_trigger() && again) {
            return Verdict::Pass(None);
        }
        let unproven = self.unproven(&what, ddl.query);
        let told = self.view.is_resumed() && differ(&self.catalog, self.read, &what).is_none();
        if told || (again && unproven.is_none()) {
            return Verdict::Pass(None);
        }
        self.view.meets(Some(ddl.query.clone()));
        Verdict::Stop
    }
}

/// What an operator is to do about one that the follower stopped at.
pub(super) fn remedy(query: &Query, read: Side, route: &str) -> String {
    let what = What::logged(query);
    let tables: Vec<String> = what
        .tables
        .iter()
        .map(|(db, t)| {
            format!(
                "{}.{}",
                String::from_utf8_lossy(db),
                String::from_utf8_lossy(t)
            )
        })
        .collect();
    format!(
        "{} {} came past the proxy, or was not run on both sides: make the same change on the \
         {}, then `lockstep resume {route}`",
        what.verb.as_str(),
        tables.join(", "),
        read.other()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn what(sql: &str) -> What {
        let sql = sql.as_bytes();
        What::of(sql, &scan(sql, ScanMode::default()), Some(b"d"))
    }

    #[test]
    fn statements_are_known_again_as_servers_write_them() {
        let drop = what("DROP TABLE IF EXISTS a, e.b");
        assert!(drop.is(&what(
            "DROP TABLE IF EXISTS `a`,`e`.`b` /* generated by server */"
        )));
        assert!(drop.is(&what("DROP TABLE `e`.`b`")));
        assert!(!drop.is(&what("DROP TABLE d.b")));
        assert!(!what("ALTER TABLE a ADD x INT").is(&what("TRUNCATE TABLE a")));
        assert!(what("CREATE TABLE a LIKE b").is(&what("CREATE TABLE `a` (id int)")));
        assert!(what("CREATE DATABASE x").is(&what("CREATE DATABASE x")));
        assert!(!what("CREATE DATABASE x").is(&what("CREATE DATABASE y")));
    }
}
