//! `POST /v1/explain`: the routing decision for a statement, and why. Made as
//! a fresh session in autocommit would get it; nothing is executed.

use serde_json::{Value, json};

use super::Control;
use crate::Side;
use crate::route::plan::{Plan, Planned, SessionView, plan};
use crate::route::table::RouteTable;
use crate::sql::{Facts, Isolation, ScanMode, ServerKind, scan};

/// What to explain.
#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Question {
    /// The statement.
    pub sql: String,
    /// The schema in use.
    #[serde(default)]
    pub database: Option<String>,
}

/// The answer.
pub fn explain(control: &Control, question: &Question) -> Value {
    let table = control.migration.routes().load();
    let catalog = control.migration.catalog().snapshot();
    let sql = question.sql.as_bytes();
    let home = control.migration.backends().get(table.home());
    let mode = ScanMode {
        server: match home.version_number() {
            0 => ServerKind::default(),
            version => ServerKind {
                mariadb: home.is_mariadb(),
                version,
            },
        },
        ..ScanMode::default()
    };
    let facts = scan(sql, mode);
    let view = SessionView {
        database: question.database.as_deref().map(str::as_bytes),
        in_transaction: false,
        isolation: Isolation::RepeatableRead,
        poisoned: false,
        locked_tables: false,
        xa: false,
        log_bin_off: false,
        no_auto_value_on_zero: false,
        // The last place: the other side is shown only when all reads go there.
        read_bucket: 99,
        statement_bucket: 99,
        temporary_tables: &[],
        own_timestamp: false,
        one_shot: false,
        oracle_mode: false,
        other_leg: true,
        mode,
    };
    let planned = plan(sql, &facts, &view, &table, &catalog, None);
    let mut answer = answer(sql, &facts, &planned, &table);
    if let Some(route) = planned.route.and_then(|i| table.routes.get(i)) {
        let journal = control.migration.plane().journal_view(route);
        answer["journal_lines"] = json!(journal.lines);
    }
    answer
}

fn answer(sql: &[u8], facts: &Facts, planned: &Planned, table: &RouteTable) -> Value {
    let tables: Vec<String> = facts
        .tables
        .iter(sql)
        .map(|(db, name)| {
            let name = String::from_utf8_lossy(&name).into_owned();
            match db {
                Some(db) => format!("{}.{name}", String::from_utf8_lossy(&db)),
                None => name,
            }
        })
        .collect();
    let route = planned.route.and_then(|i| table.routes.get(i));
    let (decision, backends) = decision(planned.plan, route.is_some_and(|r| r.phase.mirrored()));
    json!({
        "verb": facts.verb.as_str(),
        "class": facts.class.as_str(),
        "tables": tables,
        "route": route.map(|r| &r.name),
        "phase": route.map(|r| r.phase),
        "reads_target_percent": route.map(|r| r.reads_percent),
        "decision": decision,
        "backends": backends.iter().map(|s| s.as_str()).collect::<Vec<_>>(),
        "reason": planned.reason.as_str(),
    })
}

/// The word and the backends, the active one first.
fn decision(plan: Plan, mirrored: bool) -> (&'static str, Vec<Side>) {
    match plan {
        Plan::Active(side) => ("active", vec![side]),
        Plan::MirrorRead(side) => ("mirror_read", vec![side]),
        Plan::Inline(inline) => ("inline", vec![inline.active, inline.active.other()]),
        Plan::Deferred(side) => ("deferred", vec![side]),
        Plan::RefusedMixed { .. } => ("refused", Vec::new()),
        Plan::Ddl { active, both: true } => ("inline", vec![active, active.other()]),
        Plan::Ddl { both: false, .. } if mirrored => ("refused", Vec::new()),
        Plan::Ddl {
            active,
            both: false,
        } => ("active", vec![active]),
    }
}
