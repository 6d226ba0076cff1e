//! `lockstep check`: what stands in the way of a migration, before it begins.
//!
//! Every finding has a severity, a name that scripts can rely on, where it is,
//! why it matters and what to do. Nothing on the servers is changed, but for a
//! table in the private schema `lockstep` that is made and dropped to see that
//! it can be.
//!
//! A finding is an `error` if going on would fail or differ silently, a
//! `warning` if something works less well or must be known, and `info`
//! otherwise.

mod accounts;
mod grants;
mod names;
mod pair;
mod server;
mod tables;

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Serialize;

use crate::Side;
use crate::config::Config;
use crate::rows::service::ServiceAccount;
use crate::schema::{Refused, SchemaError, Session};

pub use names::Scope;

/// For the whole check: thousands of tables on slow servers.
const LIMIT: Duration = Duration::from_secs(300);

/// Findings of one name that are listed one by one; the rest is counted.
const LISTED_MAX: usize = 50;

/// How bad it is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Going on would fail, or differ without a word.
    Error,
    /// Works less well, or must be known.
    Warning,
    /// Worth knowing.
    Info,
}

impl Severity {
    /// As operators read it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Severity::Error => "error",
            Severity::Warning => "warning",
            Severity::Info => "info",
        }
    }
}

/// One thing that was found.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Finding {
    /// How bad it is.
    pub severity: Severity,
    /// What it is, for scripts: `binlog_format`.
    pub name: &'static str,
    /// On which side; None: about both.
    pub side: Option<Side>,
    /// The route, where it is about one.
    pub route: Option<String>,
    /// The table or other object, where it is about one.
    pub table: Option<String>,
    /// Why it matters.
    pub why: String,
    /// What to do.
    pub remedy: String,
}

/// What is checked.
#[derive(Clone)]
pub struct Context {
    /// The service accounts, by [`Side::index`].
    pub accounts: [ServiceAccount; 2],
    /// The routes.
    pub scopes: Vec<Scope>,
    /// Client users whose credentials are given in the settings.
    pub users: Vec<String>,
    /// Client connections the proxy lets in.
    pub connections: u64,
    /// Whether the target's binlog gets the rows that are copied.
    pub copy_logged: bool,
}

impl Context {
    /// What the settings say of both sides, for these routes.
    pub fn of(config: &Config, scopes: Vec<Scope>) -> Context {
        Context {
            accounts: [Side::Source, Side::Target].map(|s| ServiceAccount::of(config, s)),
            scopes,
            users: config.users.iter().map(|u| u.name.clone()).collect(),
            connections: config.limits.connections,
            copy_logged: config.copy.binlog,
        }
    }
}

/// Collects findings.
#[derive(Default)]
pub(crate) struct Findings {
    all: Vec<Finding>,
    route: Option<String>,
}

impl Findings {
    fn put(
        &mut self,
        severity: Severity,
        name: &'static str,
        at: At<'_>,
        why: impl Into<String>,
        remedy: impl Into<String>,
    ) {
        let (side, table) = match at {
            At::Both => (None, None),
            At::Side(side) => (Some(side), None),
            At::Table(table) => (None, Some(table.to_owned())),
            At::TableOn(side, table) => (Some(side), Some(table.to_owned())),
        };
        self.all.push(Finding {
            severity,
            name,
            side,
            route: self.route.clone(),
            table,
            why: why.into(),
            remedy: remedy.into(),
        });
    }

    fn error(&mut self, name: &'static str, at: At<'_>, why: impl Into<String>, remedy: &str) {
        self.put(Severity::Error, name, at, why, remedy);
    }

    fn warning(&mut self, name: &'static str, at: At<'_>, why: impl Into<String>, remedy: &str) {
        self.put(Severity::Warning, name, at, why, remedy);
    }

    fn info(&mut self, name: &'static str, at: At<'_>, why: impl Into<String>, remedy: &str) {
        self.put(Severity::Info, name, at, why, remedy);
    }
}

/// Where a finding is.
#[derive(Clone, Copy)]
pub(crate) enum At<'a> {
    Both,
    Side(Side),
    Table(&'a str),
    TableOn(Side, &'a str),
}

/// One side, connected.
pub(crate) struct Checked {
    pub side: Side,
    pub session: Session,
    /// Global settings, names in lower case.
    pub settings: BTreeMap<String, String>,
}

impl Checked {
    /// A setting; empty where the server has none of that name.
    pub fn get(&self, name: &str) -> &str {
        self.settings.get(name).map_or("", String::as_str)
    }

    /// The first of these that the server has.
    pub fn any(&self, names: &[&str]) -> Option<(&str, &str)> {
        let mut all = names.iter().filter_map(|n| self.settings.get_key_value(*n));
        all.next().map(|(n, v)| (n.as_str(), v.as_str()))
    }

    /// A setting as a number.
    pub fn number(&self, name: &str) -> Option<u64> {
        self.get(name).parse().ok()
    }

    /// Whether a setting is on.
    pub fn on(&self, name: &str) -> bool {
        matches!(self.get(name), "ON" | "1" | "YES")
    }
}

/// Checks everything. Findings that are worst come first.
pub async fn run(context: &Context) -> Vec<Finding> {
    let mut findings = Findings::default();
    if tokio::time::timeout(LIMIT, all(context, &mut findings))
        .await
        .is_err()
    {
        let why = format!("not everything was looked at within {} s", LIMIT.as_secs());
        findings.error(
            "timeout",
            At::Both,
            why,
            "try again when the servers are less busy",
        );
    }
    finish(findings.all)
}

/// Worst first, and no endless lists.
fn finish(mut all: Vec<Finding>) -> Vec<Finding> {
    let mut seen: BTreeMap<(Severity, &'static str), usize> = BTreeMap::new();
    let mut last: BTreeMap<(Severity, &'static str), Finding> = BTreeMap::new();
    all.retain(|f| {
        let count = seen.entry((f.severity, f.name)).or_default();
        *count += 1;
        if *count > LISTED_MAX {
            last.insert((f.severity, f.name), f.clone());
        }
        *count <= LISTED_MAX
    });
    for (key, mut finding) in last {
        let more = seen.get(&key).map_or(0, |n| n - LISTED_MAX);
        finding.table = None;
        finding.why = format!("and {more} more of these");
        all.push(finding);
    }
    all.sort_by(|a, b| {
        let of = |f: &Finding| (f.severity, f.name, f.route.clone(), f.side.map(Side::index));
        of(a).cmp(&of(b))
    });
    all
}

async fn all(context: &Context, findings: &mut Findings) {
    let (source, target) =
        tokio::join!(connect(&context.accounts[0]), connect(&context.accounts[1]));
    let mut sides = Vec::new();
    for (side, connected) in [(Side::Source, source), (Side::Target, target)] {
        match connected {
            Ok(checked) => sides.push(checked),
            Err(e) => findings.error(
                "unreachable",
                At::Side(side),
                e.to_string(),
                "check `backends` in the settings, and that the service account exists there",
            ),
        }
    }
    for checked in &mut sides {
        server::check(checked, context, findings).await;
        if let Err(e) = grants::check(checked, context, findings).await {
            gave_up(findings, checked.side, &e);
        }
    }
    let Ok([mut source, mut target]) = <[Checked; 2]>::try_from(sides) else {
        return;
    };
    pair::check(&mut source, &mut target, findings).await;
    if let Err(e) = accounts::check(&mut source, &mut target, context, findings).await {
        gave_up(findings, Side::Source, &e);
    }
    for scope in &context.scopes {
        findings.route = Some(scope.name.clone());
        tables::check(&mut source, &mut target, context, scope, findings).await;
    }
    findings.route = None;
    source.session.close().await;
    target.session.close().await;
}

fn gave_up(findings: &mut Findings, side: Side, e: &SchemaError) {
    let why = format!("could not be looked at: {e}");
    findings.error("incomplete", At::Side(side), why, "see the reason");
}

async fn connect(account: &ServiceAccount) -> Result<Checked, SchemaError> {
    let mut session = Session::open(account).await?;
    let rows = match session.rows("SHOW GLOBAL VARIABLES").await {
        Ok(rows) => rows,
        Err(Refused::Server(code, said)) => {
            return Err(SchemaError::Refused(format!("{said} ({code})")));
        }
        Err(Refused::Lost(e)) => return Err(e),
    };
    let text = crate::rows::service::text;
    let settings = rows.iter().filter_map(|r| {
        let name = text(r, 0)?.to_ascii_lowercase();
        Some((name, text(r, 1).unwrap_or_default()))
    });
    Ok(Checked {
        side: account.side,
        settings: settings.collect(),
        session,
    })
}
