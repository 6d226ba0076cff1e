//! DDL that may be on one side only.

use std::sync::Arc;

use crate::Side;
use crate::mirror::debts::Debts;
use crate::mirror::{Env, circuit};
use crate::route::plan::Planned;
use crate::route::table::{RouteMask, RouteTable, route_bit};
use crate::session::{Session, Shared};
use crate::telemetry;

/// From before the active side is sent DDL until the mirror has it. Dropped in
/// between, a session was ended in the middle of it, or the active side was
/// lost: nobody knows what either has, and the routes say so.
pub(super) struct Halfway {
    shared: Arc<Shared>,
    table: Arc<RouteTable>,
    mask: RouteMask,
    active: Side,
    since: Option<Arc<String>>,
    debts: Arc<Debts>,
    open: bool,
}

impl Halfway {
    pub fn new(
        session: &Session,
        active: Side,
        table: &Arc<RouteTable>,
        planned: &Planned,
    ) -> Halfway {
        Halfway {
            shared: session.shared.clone(),
            table: table.clone(),
            mask: planned.routes,
            active,
            since: session.since(active),
            debts: session.debts.clone(),
            open: true,
        }
    }

    /// The names of the routes that are mirrored.
    pub fn routes(&self) -> Vec<String> {
        mirrored(&self.table, self.mask)
    }

    /// The side that is to get it second.
    pub fn mirror(&self) -> Side {
        self.active.other()
    }

    /// Both sides have it, or neither.
    pub fn settled(mut self) {
        self.open = false;
    }

    /// The mirror does not have it.
    pub fn failed(mut self, why: &str) {
        self.open = false;
        self.say(&format!("DDL failed on the {}: {why}", self.mirror()));
    }

    fn say(&self, reason: &str) {
        telemetry::error(self.mirror().as_str(), "ddl");
        for (index, route) in self.table.routes.iter().enumerate() {
            if self.mask & route_bit(index) == 0 || !route.phase.mirrored() {
                continue;
            }
            let env = Env {
                shared: &self.shared.mirror,
                table: &self.table,
                route: index,
                active: self.active,
                since: self.since.clone(),
                debts: &self.debts,
            };
            env.failed("ddl");
            circuit::suspend_for_tables(route, reason);
        }
    }
}

/// The names of those routes of a mask that are mirrored.
pub(super) fn mirrored(table: &RouteTable, mask: RouteMask) -> Vec<String> {
    let routes = table.routes.iter().enumerate();
    let mirrored = routes.filter(|(i, r)| mask & route_bit(*i) != 0 && r.phase.mirrored());
    mirrored.map(|(_, r)| r.name.clone()).collect()
}

impl Drop for Halfway {
    fn drop(&mut self) {
        if self.open {
            self.say("DDL was cut off: a side may lack it");
        }
    }
}
