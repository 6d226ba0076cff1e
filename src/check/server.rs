//! Settings of one server.

use super::{At, Checked, Context, Findings};
use crate::Side;

/// Shortest time a binlog should be kept, in seconds: a long copy, an outage
/// over night.
const RETENTION_SECONDS: u64 = 86_400;

/// Connections beside the clients': the row plane's and an operator's.
const OWN_CONNECTIONS: u64 = 30;

/// Oldest versions that were ever tried.
const OLDEST: [(u32, u32, u32); 2] = [(8, 0, 22), (10, 5, 0)];

/// Everything that one server's settings tell.
pub async fn check(checked: &mut Checked, context: &Context, findings: &mut Findings) {
    binlog(checked, findings);
    durability(checked, findings);
    identity(checked, findings);
    limits(checked, context, findings);
    version(checked, findings);
    writable(checked, findings);
    replica(checked, findings).await;
}

fn log_is_for(side: Side) -> &'static str {
    match side {
        Side::Source => "the follower reads it",
        Side::Target => "the follower reads it once the target is active; going back rests on it",
    }
}

fn binlog(checked: &Checked, findings: &mut Findings) {
    let at = At::Side(checked.side);
    let purpose = log_is_for(checked.side);
    if !checked.on("log_bin") {
        let why = format!("there is no binary log; {purpose}");
        findings.error("binlog_off", at, why, "start the server with log_bin");
        return;
    }
    let format = checked.get("binlog_format");
    if !format.is_empty() && format != "ROW" {
        let why = format!("binlog_format is {format}: rows are not in the log; {purpose}");
        findings.error(
            "binlog_format",
            at,
            why,
            "SET GLOBAL binlog_format='ROW', and reconnect the applications",
        );
    }
    let image = checked.get("binlog_row_image");
    if !image.is_empty() && !image.starts_with("FULL") {
        let why = format!("binlog_row_image is {image}: rows in the log lack columns; {purpose}");
        findings.error(
            "binlog_row_image",
            at,
            why,
            "SET GLOBAL binlog_row_image='FULL', and reconnect the applications",
        );
    }
    if checked
        .get("binlog_row_value_options")
        .contains("PARTIAL_JSON")
    {
        let why = format!("JSON is logged as changes, not as values; {purpose}");
        findings.error(
            "partial_json",
            at,
            why,
            "SET GLOBAL binlog_row_value_options=''",
        );
    }
    if checked.get("binlog_order_commits") == "OFF" {
        let why =
            "transactions become visible in another order than the log's: the copy could miss rows";
        findings.error(
            "binlog_order_commits",
            at,
            why,
            "SET GLOBAL binlog_order_commits=ON",
        );
    }
    if !checked
        .get("binlog_row_metadata")
        .eq_ignore_ascii_case("FULL")
    {
        let why = "names of columns are not in the log: a change of a table that is not seen otherwise is noticed by the number and types of its columns only";
        findings.info(
            "binlog_row_metadata",
            at,
            why,
            "SET GLOBAL binlog_row_metadata='FULL'",
        );
    }
    retention(checked, findings);
    for name in ["rpl_semi_sync_master", "rpl_semi_sync_source"] {
        let on = checked.on(&format!("{name}_enabled"));
        if on && checked.get(&format!("{name}_wait_point")) == "AFTER_SYNC" {
            let why = "semi-sync AFTER_SYNC: a transaction is in the log before it can be read; the copy waits for its own marks, so nothing is lost, but it stalls while replicas do not answer";
            findings.warning(
                "semi_sync",
                at,
                why,
                "nothing, or AFTER_COMMIT for the time of the copy",
            );
        }
    }
}

fn retention(checked: &Checked, findings: &mut Findings) {
    let at = At::Side(checked.side);
    let seconds = checked.number("binlog_expire_logs_seconds").unwrap_or(0);
    let days = checked
        .get("expire_logs_days")
        .parse::<f64>()
        .unwrap_or(0.0);
    // Whole seconds; fractions of a day are MariaDB's.
    let seconds = seconds.max((days * 86_400.0) as u64);
    let never = checked.get("binlog_expire_logs_auto_purge") == "OFF";
    if seconds > 0 && seconds < RETENTION_SECONDS && !never {
        let why = format!(
            "the log is kept for {seconds} s: what is older than that cannot be followed any more, and the copy begins anew"
        );
        findings.warning(
            "binlog_retention",
            at,
            why,
            "SET GLOBAL binlog_expire_logs_seconds=259200",
        );
    }
    if checked
        .number("max_binlog_total_size")
        .is_some_and(|n| n > 0)
    {
        let why = "the log is cut by its size, whatever still has to be read of it";
        findings.warning(
            "binlog_retention",
            at,
            why,
            "SET GLOBAL max_binlog_total_size=0, or make it large",
        );
    }
}

fn durability(checked: &Checked, findings: &mut Findings) {
    let at = At::Side(checked.side);
    let remedy = "SET GLOBAL sync_binlog=1, innodb_flush_log_at_trx_commit=1";
    let mut lax = Vec::new();
    if checked.get("sync_binlog") != "1" {
        lax.push(format!("sync_binlog is {}", checked.get("sync_binlog")));
    }
    if checked.get("innodb_flush_log_at_trx_commit") != "1" {
        let value = checked.get("innodb_flush_log_at_trx_commit");
        lax.push(format!("innodb_flush_log_at_trx_commit is {value}"));
    }
    if !lax.is_empty() {
        let why = format!(
            "{}: after a power loss the log's tail is gone, and with it what the other side was to be told (said as `history lost`, then a full compare repairs)",
            lax.join(", ")
        );
        findings.warning("not_durable", at, why, remedy);
    }
    for name in ["foreign_key_checks", "unique_checks"] {
        if checked.get(name) == "OFF" {
            let why = format!(
                "{name} is off for every new session: rows may stand here that the other side refuses"
            );
            findings.warning(
                "checks_off",
                at,
                why,
                "SET GLOBAL foreign_key_checks=1, unique_checks=1",
            );
        }
    }
}

fn identity(checked: &Checked, findings: &mut Findings) {
    let at = At::Side(checked.side);
    if checked.number("server_id").unwrap_or(0) == 0 {
        findings.error(
            "server_id",
            at,
            "server_id is 0: no log can be read from it",
            "set server_id",
        );
    }
    if checked.get("gtid_mode").starts_with("OFF") {
        let why = "gtid_mode is OFF: places in the log are files and offsets, which no other server of a failover knows";
        findings.warning(
            "gtid_mode",
            at,
            why,
            "turn on enforce_gtid_consistency, then gtid_mode step by step",
        );
    }
}

fn limits(checked: &Checked, context: &Context, findings: &mut Findings) {
    let at = At::Side(checked.side);
    let wanted = context.connections.saturating_add(OWN_CONNECTIONS);
    if let Some(has) = checked.number("max_connections").filter(|n| *n < wanted) {
        let why = format!(
            "max_connections is {has}; the proxy lets {} clients in, and each may have a connection here",
            context.connections
        );
        findings.warning(
            "max_connections",
            at,
            why,
            "raise max_connections, or lower limits.connections",
        );
    }
    if checked.number("innodb_autoinc_lock_mode") == Some(2) {
        let why = "innodb_autoinc_lock_mode is 2: ids of INSERT … SELECT and LOAD DATA are not consecutive; such statements are deferred anyway";
        findings.info("autoinc_lock_mode", at, why, "nothing");
    }
    if checked.side == Side::Target && !checked.on("local_infile") {
        let why =
            "local_infile is off: rows are copied by statements, which takes this server longer";
        findings.info(
            "local_infile",
            at,
            why,
            "SET GLOBAL local_infile=ON while rows are copied",
        );
    }
}

fn version(checked: &Checked, findings: &mut Findings) {
    let at = At::Side(checked.side);
    let server = &checked.session.server;
    let oldest = OLDEST[usize::from(server.mariadb)];
    if server.version < oldest {
        let (major, minor, patch) = oldest;
        let why = format!("{} is older than any that was tried", server.full);
        let remedy = format!("{} {major}.{minor}.{patch} or newer", server.family());
        findings.warning("version", at, why, &remedy);
    }
}

fn writable(checked: &Checked, findings: &mut Findings) {
    let at = At::Side(checked.side);
    let which = ["super_read_only", "read_only"]
        .into_iter()
        .find(|n| !matches!(checked.get(n), "" | "OFF" | "0"));
    if let Some(which) = which {
        let why = format!("{which} is on: neither applications nor the row plane can write");
        findings.error("read_only", at, why, "SET GLOBAL read_only=0");
    }
}

async fn replica(checked: &mut Checked, findings: &mut Findings) {
    let sql = if checked.session.server.mariadb {
        "SHOW ALL SLAVES STATUS"
    } else {
        "SHOW REPLICA STATUS"
    };
    // Without the right to ask nobody is told of replication that is not there.
    let replicates = matches!(checked.session.rows(sql).await, Ok(rows) if !rows.is_empty());
    if !replicates {
        return;
    }
    let at = At::Side(checked.side);
    let updates = ["log_replica_updates", "log_slave_updates"];
    if checked.any(&updates).is_some_and(|(_, v)| v == "OFF") {
        let why = "it replicates from another server and does not log what it gets: such writes are followed by nobody";
        findings.error(
            "log_replica_updates",
            at,
            why,
            "start the server with log_replica_updates",
        );
    } else if checked.side == Side::Target {
        let why = "it replicates from another server: whatever comes from there to routed tables is a divergence";
        findings.warning(
            "replicates",
            at,
            why,
            "stop replication into the target, or keep routed tables out of it",
        );
    }
}
