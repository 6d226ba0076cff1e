//! Large packets in both directions take the proxy no memory to speak of.

use super::counted::{connect, error, proxy};
use super::pair;
use crate::support::Family;
use crate::support::proc::wait_for;
use crate::transparency::raw::Raw;
use lockstep::wire::command::*;
use std::time::Duration;

/// How much the proxy may grow while packets of [`SIZES`] pass, in MiB: its
/// buffers and the sockets' are 16 KiB, and what the allocator keeps is noise.
const GROWTH_MAX: u64 = 6;

/// How much the row plane may grow while it heals rows of a bulk load, in MiB:
/// 16 of events read ahead, a batch of 8 as events, as keys, as rows of both
/// sides and as the statements that ask for them, and what the allocator keeps
/// of that.
const HEALING_GROWTH_MAX: u64 = 128;

const SIZES: [usize; 2] = [17 << 20, 40 << 20];

/// For what was missed while paused: 100 MB of rows that are gone again.
const HEALED_LIMIT: Duration = Duration::from_secs(90);

/// The process's peak, in KiB, since it was last reset.
fn peak_kib(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("status");
    let line = status.lines().find_map(|l| l.strip_prefix("VmHWM:"));
    let digits = line.unwrap_or_default().trim().trim_end_matches(" kB");
    digits.parse().expect("a number")
}

fn reset_peak(pid: u32) {
    std::fs::write(format!("/proc/{pid}/clear_refs"), "5").expect("clear_refs");
}

fn statement(raw: &mut Raw, sql: &str) -> Vec<u8> {
    let packets = raw.ask(COM_STMT_PREPARE, sql.as_bytes()).expect("prepare");
    assert_eq!(error(&packets), None, "{sql}");
    packets[0].payload[1..5].to_vec()
}

/// Every way for `size` bytes to pass.
fn pass(raw: &mut Raw, size: usize) {
    let blob = vec![b'x'; size];
    let text = String::from_utf8_lossy(&blob).into_owned();
    for sql in [
        format!("SELECT LENGTH('{text}')"),
        format!("UPDATE large SET v = LENGTH('{text}') WHERE id = 1"),
        format!("SELECT REPEAT('y', {size})"),
        "SELECT REPEAT('z', 1000) FROM large a, large b, large c, large d, large e, large f, \
         large g, large h, large i, large j, large k LIMIT 40000"
            .to_string(),
    ] {
        let packets = raw.query(&sql).expect("an answer");
        assert_eq!(error(&packets), None);
    }
    let id = statement(raw, "UPDATE large SET v = LENGTH(?) WHERE id = 2");
    let mut body = [&id[..], &[0, 1, 0, 0, 0, 0, 1, 252, 0, 0xFE]].concat();
    body.extend_from_slice(&(size as u64).to_le_bytes());
    body.extend_from_slice(&blob);
    assert_eq!(
        error(&raw.ask(COM_STMT_EXECUTE, &body).expect("execute")),
        None
    );
    let data = [&id[..], &[0, 0], &blob].concat();
    raw.ask(COM_STMT_SEND_LONG_DATA, &data).expect("long data");
    let body = [&id[..], &[0, 1, 0, 0, 0, 0, 1, 252, 0]].concat();
    assert_eq!(
        error(&raw.ask(COM_STMT_EXECUTE, &body).expect("execute")),
        None
    );
    let file = "LOAD DATA LOCAL INFILE 'x' INTO TABLE large (s)";
    // Servers read a line of megabytes slowly.
    raw.infile = [&[b'x'; 65_535][..], b"\n"]
        .concat()
        .repeat(size / 65_536 + 1);
    assert_eq!(error(&raw.query(file).expect("load")), None);
}

#[test]
fn memory_stays_flat() {
    for family in Family::BOTH {
        let Some(pair) = pair(family, family) else {
            return;
        };
        let proxy = proxy(&pair, "large");
        for place in ["source_only", "source_first"] {
            if place != "source_only" {
                proxy.must_advance("r", place);
                // Followers read rows into memory: see below.
                proxy.pause("r");
            }
            let mut raw = connect(proxy.port());
            // Everything has been used once.
            pass(&mut raw, 1000);
            reset_peak(proxy.pid());
            let before = peak_kib(proxy.pid());
            for size in SIZES {
                pass(&mut raw, size);
            }
            let grown = peak_kib(proxy.pid()).saturating_sub(before) / 1024;
            println!("{family} {place}: {before} KiB, grown by {grown} MiB");
            assert!(grown <= GROWTH_MAX, "{family} {place}: {grown} MiB");
            for server in [pair.source, pair.target] {
                server.exec("DELETE FROM t.large WHERE id > 3");
            }
        }
        reset_peak(proxy.pid());
        let before = peak_kib(proxy.pid());
        let answer = proxy.post("/v1/routes/r/resume", &serde_json::json!({}));
        assert!(answer.ok(), "{answer:?}");
        let caught_up = || {
            proxy.route("r")["follow"]["lag_ms"]
                .as_u64()
                .is_some_and(|l| l < 2000)
        };
        wait_for("the follower", HEALED_LIMIT, caught_up);
        let grown = peak_kib(proxy.pid()).saturating_sub(before) / 1024;
        println!("{family}, what was passed is healed: grown by {grown} MiB");
        assert!(grown <= HEALING_GROWTH_MAX, "{family}: {grown} MiB");
    }
}
