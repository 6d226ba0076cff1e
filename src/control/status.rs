//! `GET /v1/status`, in the shape scripts rely on (DESIGN §9).

use std::sync::atomic::Ordering;

use serde_json::{Value, json};

use super::{Control, VERSION};
use crate::Side;
use crate::migration::edges;
use crate::migration::events::rfc3339;
use crate::mirror::circuit;
use crate::route::table::{Route, RouteTable};

/// Everything.
pub fn all(control: &Control) -> Value {
    let migration = &control.migration;
    let table = migration.routes().load();
    let sessions = migration.sessions();
    let routes: Vec<Value> = table
        .routes
        .iter()
        .map(|r| route(control, r, &table))
        .collect();
    let [source, target] = [Side::Source, Side::Target].map(|s| backend(control, s));
    json!({
        "version": VERSION,
        "home": table.home().as_str(),
        "backends": { "source": source, "target": target },
        "sessions": {
            "clients": sessions.count(),
            "without_other_leg": sessions.without_other_leg(),
        },
        "journal": control.views.journal(),
        "routes": routes,
    })
}

fn backend(control: &Control, side: Side) -> Value {
    let state = control.migration.backends().get(side);
    let [source, target] = &control.addresses;
    let address = match side {
        Side::Source => source,
        Side::Target => target,
    };
    json!({
        "address": address,
        "version": state.version,
        "up": state.up == Some(true),
        "read_only": state.read_only,
        "error": state.error,
        "shapes_stale": control.migration.catalog().stale(side),
    })
}

/// One route.
pub fn route(control: &Control, route: &Route, table: &RouteTable) -> Value {
    let live = &route.live;
    let mirror = route.phase.mirrored().then(|| {
        let suspended = route.suspended();
        json!({
            "writes_ok": live.writes_ok.load(Ordering::Relaxed),
            "writes_failed": live.writes_failed.load(Ordering::Relaxed),
            "writes_deferred": live.writes_deferred.load(Ordering::Relaxed),
            "suspended": suspended,
            "suspended_reason": suspended.then(|| circuit::why(live)),
            "reads_waited": live.reads_waited.load(Ordering::Relaxed),
            "reads_kept": live.reads_kept.load(Ordering::Relaxed),
        })
    });
    let (copy, follow) = control.migration.plane().show(route);
    let tables: Vec<String> = route.tables.iter().map(ToString::to_string).collect();
    json!({
        "name": route.name,
        "tables": tables,
        "phase": route.phase,
        "epoch": route.epoch,
        "active": route.phase.active().as_str(),
        "reads_target_percent": route.reads_percent,
        "reads_by": route.reads_by,
        "ack": route.ack,
        "deferred": route.deferred,
        "ddl": route.ddl,
        "copy": copy,
        "follow": follow,
        "compare": compare(control, route),
        "mirror": mirror,
        "journal": control.migration.plane().journal_view(route),
        "next": next(control, route, table),
    })
}

fn compare(control: &Control, route: &Route) -> Value {
    let Some(view) = control.migration.plane().compare_view(route) else {
        return Value::Null;
    };
    json!({
        "running": view.running,
        "last_clean_at": view.last_clean_at.map(rfc3339),
        "rows_compared": view.rows_compared,
        "rows_estimated": view.rows_estimated,
        "divergent_open": view.divergent_open,
        "repaired": view.repaired,
        "error": view.error,
        "watch": view.watch,
    })
}

/// The step that `advance` would take, with its conditions.
fn next(control: &Control, route: &Route, table: &RouteTable) -> Value {
    let Some(next) = edges::next(route.phase) else {
        return Value::Null;
    };
    let facts = control.migration.facts(route, table);
    json!({
        "phase": next,
        "conditions": edges::conditions(route.phase, next, &facts),
    })
}
