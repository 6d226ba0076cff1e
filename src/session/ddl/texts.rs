//! DDL among several statements of one text.
//!
//! The text runs on the active side as it is, because its answer is one. Then
//! the mirror is given the definitions in it, and the settings they stand
//! under, in their order; its writes are deferred.

use super::{Halfway, OPEN_LIMIT, as_wanted};
use crate::Side;
use crate::route::plan::{Plan, Reason, SessionView, plan};
use crate::route::table::{RouteMask, RouteTable};
use crate::session::legs::Role;
use crate::session::statement::Statement;
use crate::session::{End, Session};
use crate::sql::{Class, Facts, Scope, Verb, scan, statements, unquote};
use crate::telemetry;

/// What one statement of a text is to the mirror.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// A definition of a mirrored route's.
    Ddl,
    /// A definition that the route's settings forbid.
    Refused,
    /// What definitions behind it depend on.
    Setting,
    /// Nothing; it is answered once.
    Other,
    /// Nothing is known of it, nor how many results it has.
    Unclear,
}

/// One statement of a text.
struct Piece {
    text: Vec<u8>,
    facts: Facts,
    kind: Kind,
    /// The default schema it stands under.
    database: Option<Vec<u8>>,
}

/// A text with DDL in it.
pub(in crate::session) struct Pieces {
    list: Vec<Piece>,
    routes: RouteMask,
}

impl Session {
    /// The statements of a text, if some of them are DDL on mirrored routes.
    pub(in crate::session) fn ddl_pieces(&self, sql: &[u8], table: &RouteTable) -> Option<Pieces> {
        let mut mode = self.state.mode;
        let catalog = self.shared.catalog.load();
        let mut database = self.state.database.clone();
        let mut routes = 0;
        let mut list = Vec::new();
        for text in statements(sql, mode) {
            let facts = scan(text, mode);
            if facts.statements == 0 {
                continue;
            }
            let view = SessionView {
                database: database.as_deref(),
                mode,
                ..self.view(table)
            };
            let kind = match plan(text, &facts, &view, table, &catalog, None) {
                planned if facts.statements == 1 && facts.class == Class::Ddl => {
                    match planned.plan {
                        Plan::Ddl { both, .. } => {
                            routes |= planned.routes;
                            if both { Kind::Ddl } else { Kind::Refused }
                        }
                        _ => Kind::Other,
                    }
                }
                _ if facts.statements > 1 || facts.class == Class::Unknown => Kind::Unclear,
                _ if is_setting(&facts) => Kind::Setting,
                _ => Kind::Other,
            };
            if facts.verb == Verb::Use
                && let Some(name) = facts.database
            {
                database = Some(unquote(name.of(text)).into_owned());
            }
            if let Some(quotes) = sets_quotes(&facts, text) {
                mode.ansi_quotes = quotes.unwrap_or(self.state.mode.ansi_quotes);
            }
            let text = text.to_vec();
            let database = database.clone();
            list.push(Piece {
                text,
                facts,
                kind,
                database,
            });
        }
        (routes != 0).then_some(Pieces { list, routes })
    }

    /// Serves such a text. It runs beside other statements of the routes, whose
    /// writes are deferred meanwhile: the answers to its SELECTs go to a client
    /// that may take its time.
    pub(in crate::session) async fn ddl_text(
        &mut self,
        length: usize,
        sql: &[u8],
        facts: &Facts,
        pieces: Pieces,
    ) -> Result<(), End> {
        if pieces.list.iter().any(|p| p.kind == Kind::Refused) {
            return self.refuse_ddl(length).await;
        }
        let shared = self.shared.clone();
        shared.routes.leave(&self.slot);
        let exclusive = shared.routes.exclusive(pieces.routes).await;
        let (table, planned) = self.plan_and_hold(sql, facts).await;
        let s = Statement {
            length,
            facts,
            sql,
            table: &table,
            planned,
            commands: None,
            sent: None,
        };
        let Plan::Deferred(active) = s.planned.plan else {
            drop(exclusive);
            return self.act_boxed(s).await;
        };
        let deferring = exclusive.defer(&table);
        let mirror = active.other();
        // In the state before the text: its own settings come with it.
        let ready = self.try_leg(mirror, Role::Mirror, OPEN_LIMIT).await;
        let mut planned = s.planned;
        planned.routes = pieces.routes;
        let halfway = Halfway::new(self, active, &table, &planned);
        let said = {
            let ddl = pieces.list.iter().filter(|p| p.kind == Kind::Ddl);
            let all = ddl.map(|p| (&p.text[..], &p.facts, p.database.as_deref()));
            let all: Vec<_> = all.collect();
            self.shared.followers.ddl(&halfway.routes(), &all)
        };
        let mut on_both = false;
        let label = telemetry::UNROUTED;
        let reason = Reason::MULTI_STATEMENT.as_str();
        self.run_unmirrored(active, &s, label, reason).await?;
        match executed(&pieces.list, self.pending.last()) {
            None => halfway.failed("how much of the text was executed is not known"),
            Some(done) if !done.iter().any(|p| p.kind == Kind::Ddl) => halfway.settled(),
            Some(_) if !ready => halfway.failed("no leg"),
            Some(done) => match self.repeat(mirror, done).await {
                Ok(()) => {
                    halfway.settled();
                    on_both = true;
                }
                Err(why) => halfway.failed(&why),
            },
        }
        self.refresh_catalog().await;
        if on_both {
            said();
        }
        drop(deferring);
        Ok(())
    }

    /// Definitions and settings, on the mirror.
    async fn repeat(&mut self, mirror: Side, pieces: &[Piece]) -> Result<(), String> {
        let mut failed = Ok(());
        for piece in pieces {
            let trigger = piece.facts.verb.is_of_triggers();
            if !matches!(piece.kind, Kind::Ddl | Kind::Setting) || trigger {
                continue;
            }
            let answer = match self.on_mirror(mirror, &piece.text).await {
                Ok(answer) => answer,
                Err(what) => {
                    self.drop_leg(mirror);
                    return Err(what);
                }
            };
            let fine = as_wanted(&piece.facts, None, &answer);
            if piece.kind == Kind::Ddl && !fine && failed.is_ok() {
                failed = Err(answer.error_text());
            }
            if let (Verb::Use, Some(name)) = (piece.facts.verb, piece.facts.database)
                && !answer.summary.is_error
                && let Some(leg) = self.legs[mirror.index()].as_mut()
            {
                leg.database = Some(unquote(name.of(&piece.text)).into_owned());
            }
        }
        // What it was told beside the session's state is told anew.
        if let Some(leg) = self.legs[mirror.index()].as_mut() {
            leg.applied = 0;
        }
        failed
    }
}

/// Whether it sets an sql_mode in which `"` quotes names; None inside: to a
/// value that its text does not show, such as the one from before.
fn sets_quotes(facts: &Facts, text: &[u8]) -> Option<Option<bool>> {
    let mut modes = facts.set_variables.iter();
    let set = modes.find(|s| s.name.of(text).eq_ignore_ascii_case(b"sql_mode"))?;
    let value = set.value.of(text).to_ascii_uppercase();
    let literal = value.starts_with(b"'") || value.starts_with(b"\"");
    Some(literal.then(|| memchr::memmem::find(&value, b"ANSI").is_some()))
}

/// Settings of the session alone.
fn is_setting(facts: &Facts) -> bool {
    let own = || facts.set_variables.iter().all(|s| s.scope != Scope::Global);
    match facts.verb {
        Verb::Use | Verb::SetNames => true,
        Verb::Set => own(),
        _ => false,
    }
}

/// The statements of a text that were executed, told by how many results were
/// answered. None: nobody can tell.
fn executed(pieces: &[Piece], (results, refused): (u32, bool)) -> Option<&[Piece]> {
    if !refused {
        return pieces
            .iter()
            .all(|p| p.kind != Kind::Unclear || p.facts.class != Class::Ddl)
            .then_some(pieces);
    }
    let done = pieces.get(..results as usize)?;
    let clear = done.iter().all(|p| p.kind != Kind::Unclear);
    clear.then_some(done)
}
