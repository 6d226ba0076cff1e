//! Makes what is missing on the target.

use super::adapt::{self, Options, Way};
use super::model::Table;
use super::notes::{Object, Outcome, Report, Subject};
use super::session::{Refused, Server, Session};
use super::source::{self, Collations, Inventory, Item};
use super::tokens::quote_name;
use super::{Covers, Pair, Progress, SchemaError, accounts, diff, held, objects};
use crate::rows::service::ServiceAccount;

/// A name that is taken once per schema is taken: of a CHECK, of a foreign key.
const DUPLICATE_CHECK: u16 = 3822;
const TABLE_EXISTS: u16 = 1050;

/// Makes the routes' databases, sequences, tables, routines, views, triggers
/// and events on the target where they are missing. The target must not be
/// active: its triggers and events are held back, those it has included.
///
/// # Errors
/// A connection's, or a missing right to what all rests on. What single
/// objects lack is in the report.
pub async fn create(
    source: &ServiceAccount,
    target: &ServiceAccount,
    covers: &Covers<'_>,
    options: Options,
    progress: &Progress,
) -> Result<Report, SchemaError> {
    let mut pair = Pair::open(source, target).await?;
    let there = source::inventory(&mut pair.source, covers).await?;
    let here = source::inventory(&mut pair.target, covers).await?;
    held::prepare(&mut pair.target).await?;
    progress.start(there.databases.len() + there.items.len());
    let mut run = Run::new(pair, here, options, progress, true);
    run.databases(&there).await?;
    run.sequences(&there).await?;
    run.tables(&there).await?;
    objects::routines(&mut run, &there).await?;
    objects::views(&mut run, &there).await?;
    held::triggers(&mut run, &there).await?;
    held::events(&mut run, &there).await?;
    held::hold(&mut run.pair.target, covers).await?;
    if options.accounts {
        accounts::carry(&mut run.pair, &mut run.report).await?;
    }
    run.pair.close().await;
    run.report.gather();
    Ok(run.report)
}

/// Keeps on `mirror` the events, and with `triggers` the triggers, that
/// `active` has now, so that they can be brought back there, and holds back what
/// acts there. Nothing else is made. With `triggers` nobody may write rows on
/// `mirror` meanwhile: each new one is made there for a moment.
///
/// # Errors
/// As [`create`].
pub async fn carry(
    active: &ServiceAccount,
    mirror: &ServiceAccount,
    covers: &Covers<'_>,
    options: Options,
    triggers: bool,
) -> Result<Report, SchemaError> {
    let mut pair = Pair::open(active, mirror).await?;
    let there = source::inventory(&mut pair.source, covers).await?;
    held::prepare(&mut pair.target).await?;
    // First, for what acts there would act while the others are made.
    let mut report = held::hold(&mut pair.target, covers).await?;
    let here = source::inventory(&mut pair.target, covers).await?;
    let progress = Progress::default();
    let mut run = Run::new(pair, here, options, &progress, true);
    if triggers {
        held::triggers(&mut run, &there).await?;
    }
    held::events(&mut run, &there).await?;
    held::forget_gone(&mut run.pair, &there, covers).await?;
    run.pair.close().await;
    run.report.gather();
    report.created.append(&mut run.report.created);
    report.notes.append(&mut run.report.notes);
    Ok(report)
}

/// Only compares: what [`create`] would make is reported as missing. Nothing is
/// written.
///
/// # Errors
/// A connection's.
pub async fn compare(
    source: &ServiceAccount,
    target: &ServiceAccount,
    covers: &Covers<'_>,
    options: Options,
) -> Result<Report, SchemaError> {
    let mut pair = Pair::open(source, target).await?;
    let there = source::inventory(&mut pair.source, covers).await?;
    let here = source::inventory(&mut pair.target, covers).await?;
    let progress = Progress::default();
    let mut run = Run::new(pair, here, options, &progress, false);
    run.databases(&there).await?;
    run.sequences(&there).await?;
    run.tables(&there).await?;
    for item in &there.items {
        let compared = matches!(item.object, Object::Table | Object::Sequence);
        if !compared && !run.here.has(item) && !held::is_held(&mut run.pair.target, item).await? {
            let subject = Subject::new(item.object, &item.schema, &item.name);
            let note = subject.note(Outcome::Missing, "", super::NOT_THERE);
            run.report.notes.push(note);
        }
    }
    run.report.gather();
    run.pair.close().await;
    Ok(run.report)
}

/// One run's state.
pub(super) struct Run<'a> {
    pub pair: Pair,
    /// What the target had before.
    pub here: Inventory,
    pub options: Options,
    pub progress: &'a Progress,
    pub report: Report,
    /// False: only compare.
    pub writes: bool,
}

impl<'a> Run<'a> {
    fn new(
        pair: Pair,
        here: Inventory,
        options: Options,
        progress: &'a Progress,
        writes: bool,
    ) -> Run<'a> {
        Run {
            pair,
            here,
            options,
            progress,
            report: Report::default(),
            writes,
        }
    }

    pub(super) fn servers(&self) -> (Server, Server) {
        (
            self.pair.source.server.clone(),
            self.pair.target.server.clone(),
        )
    }

    pub(super) fn note(&mut self, subject: &Subject, outcome: Outcome, why: impl Into<String>) {
        self.report.notes.push(subject.note(outcome, "", why));
    }

    /// A statement of the target; false where it was refused, which is noted.
    pub(super) async fn make(&mut self, subject: &Subject, sql: &str) -> Result<bool, SchemaError> {
        match self.pair.target.run(sql).await {
            Ok(()) => {
                self.report.created.push(subject.title());
                Ok(true)
            }
            Err(Refused::Server(code, said)) => {
                self.note(subject, Outcome::Missing, refusal(code, &said));
                Ok(false)
            }
            Err(Refused::Lost(e)) => Err(e),
        }
    }

    async fn databases(&mut self, there: &Inventory) -> Result<(), SchemaError> {
        let (from, to) = self.servers();
        for database in &there.databases {
            let subject = Subject::new(Object::Schema, &database.name, "");
            self.progress.at(subject.title());
            let mut way = Way::new(&from, &to, self.options, subject.clone());
            let collation = way.collation("", &database.collation);
            self.report.notes.append(&mut way.notes);
            let sql = format!(
                "SELECT DEFAULT_COLLATION_NAME FROM information_schema.SCHEMATA \
                 WHERE SCHEMA_NAME = {}",
                super::tokens::quote_text(&database.name)
            );
            let has = self.pair.target.one(&sql).await?;
            match (has, collation) {
                (Some(has), Some(wanted)) if has == wanted => self.report.existing += 1,
                (Some(has), wanted) => {
                    let why = format!(
                        "its default collation is {has}, the source's is {}",
                        wanted.unwrap_or_else(|| database.collation.clone())
                    );
                    self.note(&subject, Outcome::Differs, why);
                }
                (None, _) if !self.writes => {
                    self.note(&subject, Outcome::Missing, super::NOT_THERE);
                }
                (None, Some(collation)) => {
                    let name = quote_name(&database.name);
                    let sql = format!("CREATE DATABASE IF NOT EXISTS {name} COLLATE {collation}");
                    self.make(&subject, &sql).await?;
                }
                (None, None) => {}
            }
            self.progress.step();
        }
        Ok(())
    }

    async fn sequences(&mut self, there: &Inventory) -> Result<(), SchemaError> {
        let (_, to) = self.servers();
        for item in there.of(Object::Sequence) {
            let subject = Subject::new(Object::Sequence, &item.schema, &item.name);
            self.progress.at(subject.title());
            if !to.mariadb {
                self.note(&subject, Outcome::Missing, "MySQL has no sequences");
            } else if self.here.has(item) {
                self.report.existing += 1;
            } else if self.writes {
                objects::sequence(self, &subject, item).await?;
            } else {
                self.note(&subject, Outcome::Missing, super::NOT_THERE);
            }
            self.progress.step();
        }
        Ok(())
    }

    async fn tables(&mut self, there: &Inventory) -> Result<(), SchemaError> {
        let mut schema = String::new();
        let mut theirs = Collations::default();
        let mut ours = Collations::default();
        let referenced = diff::referenced(&mut self.pair.source, there).await?;
        for item in there.of(Object::Table) {
            if schema != item.schema {
                schema.clone_from(&item.schema);
                theirs = source::collations(&mut self.pair.source, &schema).await?;
                ours = source::collations(&mut self.pair.target, &schema).await?;
            }
            let subject = Subject::new(Object::Table, &item.schema, &item.name);
            self.progress.at(subject.title());
            if let Some(wanted) = self.wanted(&subject, item, &theirs, there).await? {
                if self.here.has(item) {
                    self.same(&subject, item, &wanted, &ours).await?;
                } else if self.here.of(Object::View).any(|v| same_name(v, item)) {
                    self.note(&subject, Outcome::Differs, "a view on the target");
                } else if self.writes {
                    let keep = referenced.of(&item.schema, &item.name);
                    self.table(&subject, wanted, &keep).await?;
                } else {
                    self.note(&subject, Outcome::Missing, super::NOT_THERE);
                }
            }
            self.progress.step();
        }
        Ok(())
    }

    /// The table as the target is to have it.
    async fn wanted(
        &mut self,
        subject: &Subject,
        item: &Item,
        collations: &Collations,
        there: &Inventory,
    ) -> Result<Option<Table>, SchemaError> {
        let read = source::table(&mut self.pair.source, &item.schema, &item.name, collations).await;
        let table = match read {
            Ok(Ok(table)) => table,
            Ok(Err(why)) => {
                self.note(subject, Outcome::Missing, why);
                return Ok(None);
            }
            // Dropped since it was listed.
            Err(Refused::Server(1146, _)) => return Ok(None),
            Err(e) => return Err(e.into()),
        };
        let (from, to) = self.servers();
        let mut way = Way::new(&from, &to, self.options, subject.clone());
        let mut wanted = adapt::table(&mut way, table);
        self.report.notes.append(&mut way.notes);
        if let Some(table) = &mut wanted {
            self.parents(subject, item, table, there).await?;
        }
        Ok(wanted)
    }

    /// Leaves foreign keys out whose parents will not be there: no row could be
    /// written with them.
    async fn parents(
        &mut self,
        subject: &Subject,
        item: &Item,
        table: &mut Table,
        there: &Inventory,
    ) -> Result<(), SchemaError> {
        let mut kept = Vec::new();
        for foreign in std::mem::take(&mut table.foreign) {
            let schema = foreign.schema.as_ref().unwrap_or(&item.schema);
            let parent = Item {
                schema: schema.clone(),
                name: foreign.table.clone(),
                ..item.clone()
            };
            let folded = |i: &&Item| {
                i.schema.eq_ignore_ascii_case(schema) && i.name.eq_ignore_ascii_case(&parent.name)
            };
            if there.of(Object::Table).any(|i| folded(&i))
                || exists(&mut self.pair.target, &parent).await?
            {
                kept.push(foreign);
                continue;
            }
            let why = format!(
                "its parent {schema}.{} is not of this route and not on the target",
                foreign.table
            );
            let part = format!("foreign key {}", foreign.name);
            self.report
                .notes
                .push(subject.note(Outcome::Missing, part, why));
        }
        table.foreign = kept;
        Ok(())
    }

    /// Compares a table that is there.
    async fn same(
        &mut self,
        subject: &Subject,
        item: &Item,
        wanted: &Table,
        collations: &Collations,
    ) -> Result<(), SchemaError> {
        let read = source::table(&mut self.pair.target, &item.schema, &item.name, collations);
        let mut differences = match read.await {
            Ok(Ok(has)) => {
                let same = self
                    .pair
                    .source
                    .server
                    .same_family(&self.pair.target.server);
                diff::tables(wanted, &has, same)
            }
            Ok(Err(why)) => vec![(String::new(), why)],
            Err(e) => return Err(e.into()),
        };
        if self.writes && self.options.defer_keys {
            // Those that are not made yet.
            let late = |part: &str| {
                let mut keys = wanted.keys.iter().filter(|k| k.deferrable());
                keys.any(|k| diff::title(k) == part)
            };
            differences.retain(|(part, why)| why != diff::MISSING || !late(part));
        }
        if differences.is_empty() {
            self.report.existing += 1;
        }
        for (part, why) in differences {
            self.report
                .notes
                .push(subject.note(Outcome::Differs, part, why));
        }
        Ok(())
    }

    /// Makes a table. Where the server refuses, without what it may refuse one
    /// by one, each noted.
    async fn table(
        &mut self,
        subject: &Subject,
        mut table: Table,
        keep: &[Vec<String>],
    ) -> Result<(), SchemaError> {
        if self.options.defer_keys {
            diff::defer(&mut table, keep);
        }
        let mariadb = self.pair.target.server.mariadb;
        let mut left_out: Vec<String> = Vec::new();
        let mut first = None;
        for attempt in 0..4_u8 {
            let sql = table.create(&subject.schema, &subject.name, mariadb);
            let (code, said) = match self.pair.target.run(&sql).await {
                Ok(()) => {
                    self.report.created.push(subject.title());
                    let why = first.unwrap_or_default();
                    for part in left_out {
                        let note = subject.note(Outcome::Missing, part, format!("left out: {why}"));
                        self.report.notes.push(note);
                    }
                    return Ok(());
                }
                Err(Refused::Server(TABLE_EXISTS, _)) => return Ok(()),
                Err(Refused::Server(code, said)) => (code, said),
                Err(Refused::Lost(e)) => return Err(e),
            };
            let why = refusal(code, &said);
            let said = first.get_or_insert_with(|| why.clone()).clone();
            if !simpler(&mut table, code, attempt, &mut left_out) {
                self.note(subject, Outcome::Missing, said);
                return Ok(());
            }
            if code == DUPLICATE_CHECK {
                first = None;
            }
        }
        let said = first.unwrap_or_default();
        self.note(subject, Outcome::Missing, said);
        Ok(())
    }
}

/// Takes something away that a table can do without; false: nothing is left.
fn simpler(table: &mut Table, code: u16, attempt: u8, left_out: &mut Vec<String>) -> bool {
    if code == DUPLICATE_CHECK && table.checks.iter().any(|c| c.name.is_some()) {
        // The name is of no consequence: the server gives it another.
        table.checks.iter_mut().for_each(|c| c.name = None);
        return true;
    }
    if attempt == 3 {
        return false;
    }
    if !table.checks.is_empty() {
        let checks = table.checks.drain(..);
        left_out.extend(checks.map(|c| format!("check {}", c.expression)));
        return true;
    }
    if !table.foreign.is_empty() {
        let keys = table.foreign.drain(..);
        left_out.extend(keys.map(|f| format!("foreign key {}", f.name)));
        return true;
    }
    false
}

/// A server's refusal for people.
pub(super) fn refusal(code: u16, said: &str) -> String {
    format!("the target refused it: {said} ({code})")
}

fn same_name(a: &Item, b: &Item) -> bool {
    a.schema == b.schema && a.name == b.name
}

pub(super) async fn exists(session: &mut Session, item: &Item) -> Result<bool, SchemaError> {
    let sql = format!(
        "SELECT 1 FROM information_schema.TABLES WHERE TABLE_SCHEMA = {} AND TABLE_NAME = {}",
        super::tokens::quote_text(&item.schema),
        super::tokens::quote_text(&item.name)
    );
    Ok(session.one(&sql).await?.is_some())
}
