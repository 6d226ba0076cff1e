//! Sequences, routines and views.

use super::SchemaError;
use super::adapt::Way;
use super::create::{Run, refusal};
use super::notes::{Object, Outcome, Subject};
use super::session::{Refused, Server, exact};
use super::source::{Inventory, Item};
use super::tokens::{Kind, quote_name, quote_text, tokens};

/// Words of sql_mode that both families know.
const MODES: [&str; 19] = [
    "REAL_AS_FLOAT",
    "PIPES_AS_CONCAT",
    "ANSI_QUOTES",
    "IGNORE_SPACE",
    "ONLY_FULL_GROUP_BY",
    "NO_UNSIGNED_SUBTRACTION",
    "NO_DIR_IN_CREATE",
    "ANSI",
    "NO_AUTO_VALUE_ON_ZERO",
    "NO_BACKSLASH_ESCAPES",
    "STRICT_TRANS_TABLES",
    "STRICT_ALL_TABLES",
    "NO_ZERO_IN_DATE",
    "NO_ZERO_DATE",
    "ALLOW_INVALID_DATES",
    "ERROR_FOR_DIVISION_BY_ZERO",
    "TRADITIONAL",
    "HIGH_NOT_PRECEDENCE",
    "NO_ENGINE_SUBSTITUTION",
];

/// A text with the session it must be created in.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Body {
    pub sql: String,
    pub mode: String,
    pub collation: String,
    pub time_zone: String,
}

/// The sql_mode for the other server, or why it has none.
pub(super) fn sql_mode(from: &Server, to: &Server, mode: &str) -> Result<String, String> {
    let words: Vec<&str> = mode.split(',').map(str::trim).collect();
    if from.same_family(to) {
        return Ok(mode.to_owned());
    }
    if words.contains(&"ORACLE") {
        return Err("written in MariaDB's sql_mode ORACLE, which MySQL has not".to_owned());
    }
    let mut kept: Vec<&str> = words
        .iter()
        .copied()
        .filter(|w| MODES.contains(w))
        .collect();
    // Fractional seconds that do not fit: MySQL rounds them, MariaDB cuts.
    match (to.mariadb, words.as_slice()) {
        (true, words) if !words.contains(&"TIME_TRUNCATE_FRACTIONAL") => {
            kept.push("TIME_ROUND_FRACTIONAL");
        }
        (false, words) if !words.contains(&"TIME_ROUND_FRACTIONAL") => {
            kept.push("TIME_TRUNCATE_FRACTIONAL");
        }
        _ => {}
    }
    Ok(kept.join(","))
}

/// The statements to prepare a session for a body in `schema`.
pub(super) fn context(schema: &str, body: &Body) -> Vec<String> {
    let mut all = vec![
        format!("USE {}", quote_name(schema)),
        format!("SET sql_mode={}", quote_text(&body.mode)),
    ];
    if !body.collation.is_empty() {
        all.push(format!("SET collation_connection={}", body.collation));
    }
    if !body.time_zone.is_empty() {
        all.push(format!("SET time_zone={}", quote_text(&body.time_zone)));
    }
    all
}

/// The account in `DEFINER=…` as the grant tables have it.
pub(super) fn definer(sql: &str) -> Option<(String, String)> {
    let all = tokens(sql);
    let at = all.iter().position(|t| t.is("DEFINER"))?;
    // CREATE … DEFINER comes before the body.
    if at > 5 || !all.get(at + 1)?.punct('=') {
        return None;
    }
    let user = all.get(at + 2)?.name()?;
    let host = all.get(at + 3).filter(|t| t.punct('@'));
    let host = host.and_then(|_| all.get(at + 4)).and_then(|t| t.name());
    Some((user, host.unwrap_or_default()))
}

impl Run<'_> {
    /// Reads an object's text by a `SHOW CREATE` whose columns are `sql_mode`,
    /// the text and `collation_connection` at these places, adapted to the
    /// target. None: it cannot be there, which is noted.
    pub(super) async fn body(
        &mut self,
        subject: &Subject,
        show: &str,
        places: [Option<usize>; 4],
    ) -> Result<Option<Body>, SchemaError> {
        let rows = match self.pair.source.rows(show).await {
            Ok(rows) => rows,
            Err(Refused::Server(code, said)) => {
                let why = format!("the source does not show it: {said} ({code})");
                self.note(subject, Outcome::Missing, why);
                return Ok(None);
            }
            Err(e) => return Err(e.into()),
        };
        let Some(row) = rows.first() else {
            return Ok(None);
        };
        let [mode, sql, collation, zone] =
            places.map(|p| p.and_then(|p| exact(row, p)).unwrap_or_default());
        if sql.is_empty() {
            let why = "the service account may not see its text on the source";
            self.note(subject, Outcome::Missing, why);
            return Ok(None);
        }
        let (from, to) = self.servers();
        let mode = match sql_mode(&from, &to, &mode) {
            Ok(mode) => mode,
            Err(why) => {
                self.note(subject, Outcome::Missing, why);
                return Ok(None);
            }
        };
        let mut way = Way::new(&from, &to, self.options, subject.clone());
        let sql = way.text("", &sql);
        let collation = way.collation("collation_connection", &collation);
        self.report.notes.append(&mut way.notes);
        Ok(Some(Body {
            sql,
            mode,
            collation: collation.unwrap_or_default(),
            time_zone: zone,
        }))
    }

    /// Makes an object in its own context. False: refused, and noted.
    pub(super) async fn put(
        &mut self,
        subject: &Subject,
        body: &Body,
    ) -> Result<bool, SchemaError> {
        for sql in context(&subject.schema, body) {
            match self.pair.target.run(&sql).await {
                Ok(()) => {}
                Err(Refused::Server(code, said)) => {
                    self.note(subject, Outcome::Missing, refusal(code, &said));
                    return self.reset().await.map(|()| false);
                }
                Err(Refused::Lost(e)) => return Err(e),
            }
        }
        let made = self.make(subject, &body.sql).await?;
        self.reset().await?;
        Ok(made)
    }

    async fn reset(&mut self) -> Result<(), SchemaError> {
        self.pair.target.setup().await
    }

    /// Notes a definer that the target does not know.
    pub(super) async fn definer(
        &mut self,
        subject: &Subject,
        sql: &str,
    ) -> Result<(), SchemaError> {
        let Some((user, host)) = definer(sql) else {
            return Ok(());
        };
        let question = format!(
            "SELECT COUNT(*) FROM mysql.user WHERE User = {} AND Host = {}",
            quote_text(&user),
            quote_text(&host)
        );
        match self.pair.target.one(&question).await {
            Ok(Some(n)) if n == "0" => {
                let why = format!(
                    "its definer {user}@{host} has no account on the target: whoever uses it gets an error"
                );
                self.note(subject, Outcome::Noted, why);
                Ok(())
            }
            Ok(_) | Err(Refused::Server(..)) => Ok(()),
            Err(Refused::Lost(e)) => Err(e),
        }
    }
}

/// Procedures and functions.
pub(super) async fn routines(run: &mut Run<'_>, there: &Inventory) -> Result<(), SchemaError> {
    for object in [Object::Function, Object::Procedure] {
        for item in there.of(object) {
            let subject = Subject::new(object, &item.schema, &item.name);
            run.progress.at(subject.title());
            if run.here.has(item) {
                run.report.existing += 1;
            } else {
                let show = format!(
                    "SHOW CREATE {} {}.{}",
                    object.as_str().to_uppercase(),
                    quote_name(&item.schema),
                    quote_name(&item.name)
                );
                let places = [Some(1), Some(2), Some(4), None];
                if let Some(body) = run.body(&subject, &show, places).await?
                    && run.put(&subject, &body).await?
                {
                    run.definer(&subject, &body.sql).await?;
                }
            }
            run.progress.step();
        }
    }
    Ok(())
}

/// Views, those first that stand on tables alone: rounds, until one makes none.
pub(super) async fn views(run: &mut Run<'_>, there: &Inventory) -> Result<(), SchemaError> {
    let mut waiting: Vec<&Item> = Vec::new();
    for item in there.of(Object::View) {
        if run.here.has(item) {
            run.report.existing += 1;
            run.progress.step();
        } else {
            waiting.push(item);
        }
    }
    while !waiting.is_empty() {
        let before = waiting.len();
        let notes = run.report.notes.len();
        let mut again = Vec::new();
        for item in waiting {
            let subject = Subject::new(Object::View, &item.schema, &item.name);
            run.progress.at(subject.title());
            if view(run, &subject, item).await? {
                run.progress.step();
            } else {
                again.push(item);
            }
        }
        waiting = again;
        if waiting.len() == before {
            return Ok(());
        }
        if !waiting.is_empty() {
            // What those that come round again said is said anew.
            let stays = |n: &super::Note| {
                n.object != Object::View
                    || !waiting
                        .iter()
                        .any(|i| i.schema == n.schema && i.name == n.name)
            };
            let later = run.report.notes.split_off(notes);
            run.report.notes.extend(later.into_iter().filter(stays));
        }
    }
    Ok(())
}

async fn view(run: &mut Run<'_>, subject: &Subject, item: &Item) -> Result<bool, SchemaError> {
    let show = format!(
        "SHOW CREATE VIEW {}.{}",
        quote_name(&item.schema),
        quote_name(&item.name)
    );
    let places = [None, Some(1), Some(3), None];
    let Some(body) = run.body(subject, &show, places).await? else {
        return Ok(false);
    };
    let body = Body {
        // Printed for the source session's own mode.
        mode: "NO_ENGINE_SUBSTITUTION,ALLOW_INVALID_DATES".to_owned(),
        ..body
    };
    let made = run.put(subject, &body).await?;
    if made {
        run.definer(subject, &body.sql).await?;
    }
    Ok(made)
}

/// A sequence, and how far it is.
pub(super) async fn sequence(
    run: &mut Run<'_>,
    subject: &Subject,
    item: &Item,
) -> Result<(), SchemaError> {
    let name = format!("{}.{}", quote_name(&item.schema), quote_name(&item.name));
    let rows = run
        .pair
        .source
        .rows(&format!("SHOW CREATE SEQUENCE {name}"))
        .await?;
    let text = rows.first().and_then(|r| exact(r, 1)).unwrap_or_default();
    let all = tokens(&text);
    let Some(at) = all.iter().position(|t| t.kind == Kind::Name) else {
        run.note(
            subject,
            Outcome::Missing,
            "its definition is not understood",
        );
        return Ok(());
    };
    let rest = super::tokens::join(all.get(at + 1..).unwrap_or_default());
    let sql = format!("CREATE SEQUENCE {name} {rest}");
    if run.make(subject, &sql).await? {
        let next = format!("SELECT next_not_cached_value FROM {name}");
        if let Some(next) = run.pair.source.one(&next).await? {
            let sql = format!("DO SETVAL({name}, {next}, 0)");
            run.pair.target.run(&sql).await?;
        }
    }
    Ok(())
}
