//! The binlog through the proxy: home's, to the byte.

use super::counted::{connect, ok, proxy};
use super::pair;
use crate::support::proc::wait_for;
use crate::support::{Family, Server};
use crate::transparency::raw::{Login, MODERN, ORDINARY, Packet, Raw};
use lockstep::wire::Capabilities;
use lockstep::wire::command::*;
use std::process::Command;
use std::time::Duration;

/// BINLOG_DUMP_NON_BLOCK: EOF at the end instead of waiting for more.
const NON_BLOCK: u16 = 1;

fn first_log(server: &Server) -> String {
    let logs = server.query("SHOW BINARY LOGS");
    logs[0][0].clone().expect("a log")
}

/// What a replica of the family says before it asks for the log.
fn introduce(raw: &mut Raw, family: Family) {
    ok(
        raw,
        "SET @master_binlog_checksum = 'NONE', @source_binlog_checksum = 'NONE'",
    );
    if family == Family::MariaDb {
        ok(raw, "SET @mariadb_slave_capability = 4");
    }
}

fn dump(raw: &mut Raw, flags: u16, server_id: u32, file: &str) -> std::io::Result<Vec<Packet>> {
    let mut body = 4u32.to_le_bytes().to_vec();
    body.extend_from_slice(&flags.to_le_bytes());
    body.extend_from_slice(&server_id.to_le_bytes());
    body.extend_from_slice(file.as_bytes());
    raw.command(COM_BINLOG_DUMP, &body)?;
    raw.dumped()
}

fn dump_gtid(raw: &mut Raw, file: &str) -> std::io::Result<Vec<Packet>> {
    let mut body = NON_BLOCK.to_le_bytes().to_vec();
    body.extend_from_slice(&4_000_100u32.to_le_bytes());
    body.extend_from_slice(&(file.len() as u32).to_le_bytes());
    body.extend_from_slice(file.as_bytes());
    body.extend_from_slice(&4u64.to_le_bytes());
    // An empty set of GTIDs: everything.
    body.extend_from_slice(&8u32.to_le_bytes());
    body.extend_from_slice(&0u64.to_le_bytes());
    raw.command(COM_BINLOG_DUMP_GTID, &body)?;
    raw.dumped()
}

/// All that a replica reads from this file on; the last packet is of a ping,
/// where the server goes on after a dump.
fn whole(port: u16, family: Family, capabilities: Capabilities, file: &str) -> Vec<Packet> {
    let mut raw = Raw::connect(port, &Login::root("t", capabilities)).expect("login");
    introduce(&mut raw, family);
    let mut register = 4_000_100u32.to_le_bytes().to_vec();
    register.extend_from_slice(&[0; 13]);
    let mut packets = raw.ask(COM_REGISTER_SLAVE, &register).expect("register");
    let dumped = dump(&mut raw, NON_BLOCK, 0, file).expect("dump");
    assert!(dumped.len() > 3, "{family}: {} packets", dumped.len());
    packets.extend(dumped);
    let ping = raw.ask(COM_PING, &[]);
    if family == Family::MySql {
        let mut raw = Raw::connect(port, &Login::root("t", capabilities)).expect("login");
        introduce(&mut raw, family);
        packets.extend(dump_gtid(&mut raw, file).expect("dump by GTID"));
    }
    packets.extend(ping.unwrap_or_default());
    packets
}

#[test]
fn a_dump_is_the_same_through_the_proxy() {
    for family in Family::BOTH {
        let Some(pair) = pair(family, family) else {
            return;
        };
        let proxy = proxy(&pair, "dumped");
        proxy.must_advance("r", "source_first");
        // The row plane reads the log, too, and writes heartbeats to it.
        proxy.pause("r");
        let mut writer = connect(proxy.port());
        ok(
            &mut writer,
            "INSERT INTO dumped (v, s) VALUES (4, REPEAT('x', 100000))",
        );
        // The largest event, and others, are in a log of their own.
        pair.source.exec("FLUSH BINARY LOGS");
        let logs = pair.source.query("SHOW BINARY LOGS");
        let file = logs[logs.len() - 2][0].clone().expect("a log");
        for capabilities in [ORDINARY, MODERN] {
            let read = |port| whole(port, family, capabilities, &file);
            // The log must not grow meanwhile: MariaDB writes to it in the
            // background, too.
            let (mut direct, mut proxied) = (read(pair.source.port()), Vec::new());
            wait_for("a log at rest", Duration::from_secs(60), || {
                proxied = read(proxy.port());
                let before = std::mem::replace(&mut direct, read(pair.source.port()));
                before == direct
            });
            assert_eq!(direct.len(), proxied.len(), "{family}: packets");
            let differing = direct.iter().zip(&proxied).position(|(d, p)| d != p);
            assert_eq!(differing, None, "{family}: the first packet that differs");
        }
        // A file that is not there is home's own error.
        let said = [pair.source.port(), proxy.port()].map(|port| {
            let mut raw = connect(port);
            introduce(&mut raw, family);
            dump(&mut raw, NON_BLOCK, 0, "nothing.000001")
                .map(|p| p.last().map(|p| p.payload.clone()))
        });
        let [direct, proxied] = said.map(|s| s.expect("an answer"));
        assert_eq!(direct, proxied, "{family}");
    }
}

/// A dump that waits for more holds nothing up, passes events on as they come,
/// and ends with its client.
#[test]
fn a_dump_that_goes_on_holds_nothing_up() {
    for family in Family::BOTH {
        let Some(pair) = pair(family, family) else {
            return;
        };
        let proxy = proxy(&pair, "streamed");
        let file = first_log(pair.source);
        let mut replica = connect(proxy.port());
        introduce(&mut replica, family);
        let mut body = 4u32.to_le_bytes().to_vec();
        body.extend_from_slice(&0u16.to_le_bytes());
        body.extend_from_slice(&4_000_200u32.to_le_bytes());
        body.extend_from_slice(file.as_bytes());
        replica.command(COM_BINLOG_DUMP, &body).expect("dump");
        proxy.must_advance("r", "source_first");
        // The row plane reads the log, too, and writes heartbeats to it.
        proxy.pause("r");
        let mut writer = connect(proxy.port());
        ok(
            &mut writer,
            "UPDATE streamed SET s = 'a_mark_in_the_log' WHERE id = 1",
        );
        let mut seen = false;
        while !seen {
            let event = replica.packet().expect("an event");
            seen = event.payload.windows(17).any(|w| w == b"a_mark_in_the_log");
        }
        let dumping =
            "SELECT id FROM information_schema.processlist WHERE command LIKE 'Binlog Dump%'";
        // The follower's own is over a moment after the pause.
        wait_for("one dump to be left", Duration::from_secs(10), || {
            pair.source.query(dumping).len() == 1
        });
        replica.vanish();
        wait_for("the dump ends", Duration::from_secs(10), || {
            pair.source.query(dumping).is_empty()
        });
    }
}

/// The servers' own tool reads home's log through the proxy.
#[test]
fn the_binlog_tools_read_through_the_proxy() {
    for (family, tool) in [
        (Family::MariaDb, "mariadb-binlog"),
        (Family::MySql, "mysqlbinlog"),
    ] {
        let Some(pair) = pair(family, family) else {
            return;
        };
        let proxy = proxy(&pair, "tooled");
        let tool = family.program(tool).expect("tool");
        let file = first_log(pair.source);
        pair.source.exec("FLUSH BINARY LOGS");
        let [direct, proxied] = [pair.source.port(), proxy.port()].map(|port| {
            let out = Command::new(&tool)
                .args([
                    "--no-defaults",
                    "--read-from-remote-server",
                    "--host=127.0.0.1",
                ])
                .args(["--user=root", "--verbose", "--base64-output=DECODE-ROWS"])
                .arg(format!("--port={port}"))
                .arg(&file)
                .output()
                .expect("tool");
            let said = String::from_utf8_lossy(&out.stderr).into_owned();
            assert!(out.status.success(), "{family}: {said}");
            out.stdout
        });
        assert!(direct.len() > 200, "{family}: an empty log");
        assert!(direct == proxied, "{family}: another log");
    }
}

/// The flags of the tests' clients leave the events as they are.
const _: () =
    assert!(MODERN.has(Capabilities::DEPRECATE_EOF) && !ORDINARY.has(Capabilities::DEPRECATE_EOF));
