//! The routes a process starts with: what the store has, and what the file
//! adds to it.
//!
//! The store owns phase, epoch and reads. The file owns the rest of the routes
//! it names, save that the tables of a route that has moved cannot change: a
//! file that says otherwise is an old one, or the store is of another
//! installation, and only a person can tell.

use std::sync::Arc;

use crate::config::RouteConfig;
use crate::config::validate::check_routes;
use crate::route::table::{Phase, Route, RouteLive, RouteTable, TableGlob};
use crate::store::{Store, StoreError, StoredRoute};

/// Why the proxy cannot start with these routes.
#[derive(thiserror::Error, Debug)]
pub enum SeedError {
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// File and store disagree about a route that has moved.
    #[error(
        "route {name} is in {phase} with tables [{stored}], and the settings say [{configured}]: \
         tables change only in source_only; restore the settings, or roll the route back first"
    )]
    Moved {
        /// The route.
        name: String,
        /// Where it stands.
        phase: Phase,
        /// Its tables in the store.
        stored: String,
        /// Its tables in the settings.
        configured: String,
    },
    /// The two together do not make a valid table.
    #[error("routes of the settings and of the store together: {0}")]
    Invalid(String),
}

/// Merges the settings' routes into the store, and makes the routing table.
///
/// # Errors
/// See [`SeedError`]; the store is unchanged then.
pub fn seed(configured: &[RouteConfig], store: &dyn Store) -> Result<RouteTable, SeedError> {
    let stored = store.load_routes()?;
    let merged = merge(configured, stored.clone())?;
    let configs: Vec<RouteConfig> = merged.iter().map(stored_config).collect();
    check(&configs).map_err(SeedError::Invalid)?;
    let mut table = RouteTable::default();
    for route in &merged {
        if !stored.contains(route) {
            store.save_route(route)?;
        }
        table
            .routes
            .push(route_of(route).map_err(SeedError::Invalid)?);
    }
    Ok(table)
}

fn merge(
    configured: &[RouteConfig],
    mut stored: Vec<StoredRoute>,
) -> Result<Vec<StoredRoute>, SeedError> {
    let mut merged = Vec::new();
    for config in configured {
        let mut route = StoredRoute::new(config);
        if let Some(at) = stored.iter().position(|s| s.name == config.name) {
            let old = stored.swap_remove(at);
            if old.phase != Phase::SourceOnly && old.tables != config.tables {
                return Err(SeedError::Moved {
                    name: old.name,
                    phase: old.phase,
                    stored: old.tables.join(", "),
                    configured: config.tables.join(", "),
                });
            }
            route.phase = old.phase;
            route.epoch = old.epoch;
            route.reads_percent = old.reads_percent;
            route.reads_by = old.reads_by;
            route.follow = old.follow;
        }
        merged.push(route);
    }
    stored.sort_by(|a, b| a.name.cmp(&b.name));
    for route in &stored {
        tracing::info!("route {} is in the store only: kept", route.name);
    }
    merged.extend(stored);
    Ok(merged)
}

/// All problems of a set of routes, as one text.
pub fn check(routes: &[RouteConfig]) -> Result<(), String> {
    let mut problems = Vec::new();
    check_routes(&routes.iter().collect::<Vec<_>>(), &mut problems);
    if problems.is_empty() {
        Ok(())
    } else {
        Err(problems.join("; "))
    }
}

fn stored_config(route: &StoredRoute) -> RouteConfig {
    RouteConfig {
        name: route.name.clone(),
        tables: route.tables.clone(),
        ack: route.ack,
        deferred: route.deferred,
        ddl: route.ddl,
        reads_by: route.reads_by,
    }
}

/// A live route's settings.
pub fn config_of(route: &Route) -> RouteConfig {
    stored_config(&StoredRoute::from(route))
}

/// A live route from what is kept of it.
pub fn route_of(stored: &StoredRoute) -> Result<Route, String> {
    let tables = stored
        .tables
        .iter()
        .map(|t| TableGlob::parse(t).ok_or_else(|| format!("{t} is not db.table")))
        .collect::<Result<Vec<_>, _>>()?;
    Ok(Route {
        name: stored.name.clone(),
        tables,
        phase: stored.phase,
        epoch: stored.epoch,
        reads_percent: stored.reads_percent.min(100),
        reads_by: stored.reads_by,
        ack: stored.ack,
        deferred: stored.deferred,
        ddl: stored.ddl,
        follow: stored.follow.clone(),
        live: Arc::new(RouteLive::default()),
    })
}
