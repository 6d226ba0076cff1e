//! What the two servers must agree on.

use super::{At, Checked, Findings};

/// Settings that change what a statement means; the proxy carries a session's
/// own over, these are what sessions begin with.
const ALIKE: [(&str, &str); 5] = [
    ("sql_mode", "statements mean something else, or are refused"),
    (
        "auto_increment_increment",
        "ids are given out in other steps",
    ),
    ("auto_increment_offset", "ids are given out in other steps"),
    (
        "innodb_lock_wait_timeout",
        "a lock is waited for longer on one side",
    ),
    (
        "explicit_defaults_for_timestamp",
        "new TIMESTAMP columns get other defaults",
    ),
];

/// Everything that takes both.
pub async fn check(source: &mut Checked, target: &mut Checked, findings: &mut Findings) {
    same_server(source, target, findings).await;
    time(source, target, findings).await;
    for (name, what) in ALIKE {
        let (a, b) = (source.get(name).to_owned(), target.get(name).to_owned());
        let differ = match name {
            "sql_mode" => modes(&a) != modes(&b),
            _ => !a.is_empty() && !b.is_empty() && a != b,
        };
        if differ {
            let why = format!(
                "{name} differs (source {a:?}, target {b:?}): {what} where a session does not set it"
            );
            let remedy = format!("SET GLOBAL {name} on the target to the source's");
            findings.warning(name, At::Both, why, &remedy);
        }
    }
    names(source, target, findings);
    packets(source, target, findings);
    let older = source.session.server.same_family(&target.session.server)
        && target.session.server.version < source.session.server.version;
    if older {
        let why = format!(
            "the target ({}) is older than the source ({})",
            target.session.server.full, source.session.server.full
        );
        findings.warning(
            "version",
            At::Both,
            why,
            "a target of the same version or newer",
        );
    }
    let (a, b) = (source.get("server_id"), target.get("server_id"));
    if a == b {
        let why = format!("both servers have server_id {a}: they would skip each other's events");
        findings.error(
            "server_id",
            At::Both,
            why,
            "give one of them another server_id",
        );
    }
    let (a, b) = (
        source.get("collation_server"),
        target.get("collation_server"),
    );
    if a != b {
        let why = format!(
            "collation_server differs (source {a}, target {b}): tables and databases made without one get others"
        );
        findings.info(
            "collation_server",
            At::Both,
            why,
            "SET GLOBAL collation_server, where both have it",
        );
    }
}

/// The words of an sql_mode that both families have.
fn modes(mode: &str) -> Vec<&str> {
    const ONE_FAMILY: [&str; 3] = [
        "NO_AUTO_CREATE_USER",
        "TIME_TRUNCATE_FRACTIONAL",
        "TIME_ROUND_FRACTIONAL",
    ];
    let mut words: Vec<&str> = mode
        .split(',')
        .filter(|w| !w.is_empty() && !ONE_FAMILY.contains(w))
        .collect();
    words.sort_unstable();
    words
}

/// A lock taken on one connection and seen on the other.
async fn same_server(source: &mut Checked, target: &mut Checked, findings: &mut Findings) {
    // Of this check alone: others may run at the same time.
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let nonce = now.map_or(0, |n| n.as_nanos());
    let name = format!("lockstep check {} {nonce}", std::process::id());
    let lock = format!("SELECT GET_LOCK('{name}', 0)");
    let look = format!("SELECT IS_USED_LOCK('{name}')");
    let me = source.session.one("SELECT CONNECTION_ID()").await;
    let free = target.session.one(&look).await;
    let (Ok(Some(me)), Ok(None)) = (me, free) else {
        return;
    };
    if !matches!(source.session.one(&lock).await, Ok(Some(got)) if got == "1") {
        return;
    }
    let seen = target.session.one(&look).await;
    let release = format!("SELECT RELEASE_LOCK('{name}')");
    let _ = source.session.one(&release).await;
    if matches!(seen, Ok(Some(holder)) if holder == me) {
        let why = "source and target are one server";
        findings.error(
            "same_server",
            At::Both,
            why,
            "check the addresses in `backends`",
        );
    }
}

async fn time(source: &mut Checked, target: &mut Checked, findings: &mut Findings) {
    let zone = |c: &Checked| match c.get("time_zone") {
        "SYSTEM" => c.get("system_time_zone").to_owned(),
        other => other.to_owned(),
    };
    let (a, b) = (zone(source), zone(target));
    // Names can be many for one zone: what counts is the clock.
    let offset = "SELECT TIMESTAMPDIFF(MINUTE, UTC_TIMESTAMP(), \
                  CONVERT_TZ(UTC_TIMESTAMP(), '+00:00', @@GLOBAL.time_zone))";
    let (x, y) = (
        source.session.one(offset).await,
        target.session.one(offset).await,
    );
    let differ = match (x, y) {
        (Ok(Some(x)), Ok(Some(y))) => x != y,
        _ => a != b,
    };
    if differ {
        let why = format!(
            "the time zone differs (source {a}, target {b}): TIMESTAMP and NOW() are other times to sessions that do not set one"
        );
        findings.error(
            "time_zone",
            At::Both,
            why,
            "SET GLOBAL time_zone to the same on both",
        );
    }
    let named = "SELECT CONVERT_TZ('2020-01-01', 'UTC', 'Europe/Berlin') IS NOT NULL";
    let loaded = |answer: Result<Option<String>, _>| matches!(answer, Ok(Some(v)) if v == "1");
    let on_source = loaded(source.session.one(named).await);
    let on_target = loaded(target.session.one(named).await);
    if on_source && !on_target {
        let why =
            "names of time zones are known on the source only: a session that sets one is refused";
        let remedy =
            "mariadb-tzinfo-to-sql or mysql_tzinfo_to_sql /usr/share/zoneinfo | mysql mysql";
        findings.error("time_zone_tables", At::Side(target.side), why, remedy);
    }
}

fn names(source: &Checked, target: &Checked, findings: &mut Findings) {
    let name = "lower_case_table_names";
    let (a, b) = (source.get(name), target.get(name));
    if a != b {
        let why = format!(
            "{name} differs (source {a}, target {b}): a name can be a table on one side only"
        );
        findings.error(
            name,
            At::Both,
            why,
            "it is set when a server is made: make the target anew",
        );
    }
}

fn packets(source: &Checked, target: &Checked, findings: &mut Findings) {
    let name = "max_allowed_packet";
    if let (Some(a), Some(b)) = (source.number(name), target.number(name))
        && b < a
    {
        let why = format!(
            "the target takes packets of {b} bytes, the source of {a}: large rows cannot be written there"
        );
        let remedy = format!("SET GLOBAL {name}={a} on the target");
        findings.error(name, At::Side(target.side), why, &remedy);
    }
}
