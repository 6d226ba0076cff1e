//! Commands as lists of exchanges, to be compared byte by byte.

use super::rare::{denied_commands, process_info};
use crate::support::Family;
use crate::transparency::run::{Param, Run, broken};
use crate::transparency::special::Special;
use lockstep::wire::command::*;
use lockstep::wire::{Capabilities, frame, lenenc};
use std::io;
use std::time::Duration;

pub struct Case {
    pub special: Special,
    /// Takes a second or more: in one mode only.
    pub slow: bool,
    pub only: Option<Family>,
}

macro_rules! cases {
    ($($name:ident $(: $slow:ident)? $(@ $family:ident)?),* $(,)?) => {
        &[$(Case {
            special: Special { name: stringify!($name), run: $name },
            slow: cases!(@slow $($slow)?),
            only: cases!(@only $($family)?),
        }),*]
    };
    (@slow) => { false };
    (@slow slow) => { true };
    (@only) => { None };
    (@only $family:ident) => { Some(Family::$family) };
}

pub static CASES: &[Case] = cases![
    every_byte,
    denied_commands,
    process_info,
    empty_commands,
    short_commands,
    cursors_side_by_side,
    cursor_in_a_transaction,
    cursor_kinds,
    procedures_prepared,
    procedures_in_text,
    last_statement @ MariaDb,
    bulk @ MariaDb,
    bulk_refused @ MariaDb,
    many_parameters,
    altered_under_a_statement,
    prepared_forms,
    local_files,
    local_file_of_many_packets: slow,
    handlers,
    xa_over_two_connections,
    query_attributes,
    sizes_around_a_full_packet: slow,
    rows_around_a_full_packet: slow,
    long_data_of_a_full_packet: slow,
    more_than_the_server_allows: slow,
    refused_texts,
];

/// Bytes that end the server or the connection by design, go on for ever, or
/// are answered with what differs between any two calls.
const NOT_SENT: [u8; 9] = [
    COM_QUIT,
    COM_SHUTDOWN,
    COM_STATISTICS,
    COM_PROCESS_INFO,
    COM_CHANGE_USER,
    COM_BINLOG_DUMP,
    COM_BINLOG_DUMP_GTID,
    COM_REGISTER_SLAVE,
    COM_CLONE,
];

/// Sends a command; if the server ends the connection, goes on with another.
fn survives(run: &mut Run, com: u8, body: &[u8]) -> io::Result<()> {
    // MySQL answers these with an error when they are too short.
    let needs = match com {
        COM_STMT_CLOSE => 4,
        COM_STMT_SEND_LONG_DATA => 6,
        _ => 0,
    };
    let version = run.raw.greeting.version.clone();
    let silent = version.windows(7).any(|w| w == b"MariaDB");
    if body.len() < needs && !silent {
        run.raw.command(com, body)?;
        let packet = run.raw.packet()?;
        run.note(format!("short {com:#x}"), vec![packet]);
        return Ok(());
    }
    if let Err(e) = run.com(com, body) {
        run.fact(&format!("command {com:#x}"), broken(&e));
        run.raw = run.other()?;
    }
    Ok(())
}

fn every_byte(run: &mut Run, _: Family) -> io::Result<()> {
    for com in (0..=255).filter(|com| !NOT_SENT.contains(com)) {
        survives(run, com, &[0])?;
        survives(run, COM_PING, &[])?;
    }
    run.text("INSERT INTO b (v) VALUES (1)")?;
    run.text("SELECT * FROM b ORDER BY id")
}

fn empty_commands(run: &mut Run, _: Family) -> io::Result<()> {
    for com in (0..=255).filter(|com| !NOT_SENT.contains(com)) {
        survives(run, com, &[])?;
    }
    for _ in 0..2 {
        // A packet without even a command byte.
        let packets = run.raw.empty_command();
        match packets {
            Ok(packets) => run.note("an empty packet", packets),
            Err(e) => {
                run.fact("an empty packet", broken(&e));
                run.raw = run.other()?;
            }
        }
    }
    run.text("SELECT 1")
}

fn short_commands(run: &mut Run, _: Family) -> io::Result<()> {
    run.prepare("SELECT id FROM b WHERE id = ?")?;
    let id = [1, 2, 3, 4];
    for cut in 0..4 {
        for com in [
            COM_STMT_EXECUTE,
            COM_STMT_FETCH,
            COM_STMT_RESET,
            COM_STMT_CLOSE,
        ] {
            survives(run, com, &id[..cut])?;
        }
    }
    for body in [&[][..], &[1], &[1, 0, 0], &[2, 0]] {
        survives(run, COM_SET_OPTION, body)?;
    }
    for body in [&[][..], &[1], &[1, 2, 3]] {
        survives(run, COM_PROCESS_KILL, body)?;
    }
    run.text("SELECT 1")
}

const READ_ONLY: u8 = 1;

fn cursors_side_by_side(run: &mut Run, _: Family) -> io::Result<()> {
    let fetch = |run: &mut Run, id, n: u32| run.statement(COM_STMT_FETCH, id, &n.to_le_bytes());
    let (Some(b), Some(t), Some(update)) = (
        run.prepare("SELECT * FROM b ORDER BY id")?,
        run.prepare("SELECT id, vc FROM types WHERE id > ? ORDER BY id")?,
        run.prepare("UPDATE b SET v = v + ? WHERE id = ?")?,
    ) else {
        return Ok(());
    };
    run.execute(b, READ_ONLY, &[], true)?;
    run.execute(t, READ_ONLY, &[Param::Int(0)], true)?;
    fetch(run, b, 1)?;
    fetch(run, t, 2)?;
    run.execute(update, 0, &[Param::Int(100), Param::Int(2)], true)?;
    fetch(run, b, 1)?;
    run.text("BEGIN")?;
    run.execute(update, 0, &[Param::Int(100), Param::Int(3)], true)?;
    fetch(run, b, 5)?;
    run.text("COMMIT")?;
    fetch(run, t, 5)?;
    fetch(run, t, 5)?;
    // A new execution closes what is open; so do RESET and CLOSE.
    run.execute(b, READ_ONLY, &[], true)?;
    run.execute(b, READ_ONLY, &[], true)?;
    fetch(run, b, 2)?;
    run.statement(COM_STMT_RESET, b, &[])?;
    fetch(run, b, 2)?;
    run.execute(b, READ_ONLY, &[], true)?;
    run.statement(COM_STMT_CLOSE, b, &[])?;
    fetch(run, b, 2)?;
    fetch(run, update, 1)
}

fn cursor_in_a_transaction(run: &mut Run, _: Family) -> io::Result<()> {
    run.text("BEGIN")?;
    run.text("INSERT INTO b (v) VALUES (50), (60)")?;
    let Some(b) = run.prepare("SELECT id, v FROM b ORDER BY id")? else {
        return Ok(());
    };
    run.execute(b, READ_ONLY, &[], true)?;
    run.statement(COM_STMT_FETCH, b, &[3, 0, 0, 0])?;
    run.text("DELETE FROM b WHERE id = 5")?;
    run.statement(COM_STMT_FETCH, b, &[3, 0, 0, 0])?;
    run.text("ROLLBACK")?;
    run.statement(COM_STMT_FETCH, b, &[3, 0, 0, 0])?;
    run.execute(b, READ_ONLY, &[], true)?;
    run.text("SELECT COUNT(*) FROM b")?;
    run.statement(COM_STMT_FETCH, b, &[3, 0, 0, 0])
}

fn cursor_kinds(run: &mut Run, _: Family) -> io::Result<()> {
    for flags in [2, 4, 3, 7] {
        if let Some(id) = run.prepare("SELECT id, v FROM b ORDER BY id")? {
            run.execute(id, flags, &[], true)?;
            run.statement(COM_STMT_FETCH, id, &[2, 0, 0, 0])?;
            run.statement(COM_STMT_RESET, id, &[])?;
        }
    }
    for sql in ["CALL two_results()", "SELECT * FROM b WHERE id = 99"] {
        if let Some(id) = run.prepare(sql)? {
            run.execute(id, READ_ONLY, &[], true)?;
            run.statement(COM_STMT_FETCH, id, &[2, 0, 0, 0])?;
        }
    }
    // No rows wanted.
    if let Some(id) = run.prepare("SELECT id FROM b ORDER BY id")? {
        run.execute(id, READ_ONLY, &[], true)?;
        run.statement(COM_STMT_FETCH, id, &[0, 0, 0, 0])?;
        run.statement(COM_STMT_FETCH, id, &[255, 255, 255, 255])?;
    }
    Ok(())
}

fn procedures_prepared(run: &mut Run, _: Family) -> io::Result<()> {
    if let Some(id) = run.prepare("CALL add_b(?, ?)")? {
        run.execute(id, 0, &[Param::Int(70), Param::Null], true)?;
        run.execute(id, 0, &[Param::Int(71), Param::Int(5)], true)?;
        run.text("BEGIN")?;
        run.execute(id, 0, &[Param::Int(72), Param::Int(5)], false)?;
        run.text("ROLLBACK")?;
    }
    for sql in ["CALL two_results()", "CALL fails()", "CALL nothing()"] {
        if let Some(id) = run.prepare(sql)? {
            run.execute(id, 0, &[], true)?;
            run.execute(id, 0, &[], true)?;
        }
    }
    run.text("SELECT * FROM b ORDER BY id")
}

fn procedures_in_text(run: &mut Run, _: Family) -> io::Result<()> {
    run.text("CALL two_results(); SELECT 1; CALL two_results()")?;
    run.text("SET @o = 0; CALL add_b(3, @o); SELECT @o; CALL fails(); SELECT 2")?;
    run.text("CALL two_results()")?;
    run.text("CALL add_b(3, 4)")?;
    run.text("SELECT * FROM b ORDER BY id")
}

/// MariaDB: -1 is the statement prepared last.
fn last_statement(run: &mut Run, _: Family) -> io::Result<()> {
    const LAST: u32 = u32::MAX;
    run.execute(LAST, 0, &[], true)?;
    run.prepare("INSERT INTO b (v) VALUES (?)")?;
    run.execute(LAST, 0, &[Param::Int(80)], true)?;
    run.execute(LAST, 0, &[Param::Int(81)], false)?;
    run.statement(COM_STMT_SEND_LONG_DATA, LAST, &[0, 0, b'8', b'2'])?;
    run.statement(COM_STMT_RESET, LAST, &[])?;
    let select = run.prepare("SELECT id, v FROM b ORDER BY id")?;
    run.execute(LAST, READ_ONLY, &[], true)?;
    run.statement(COM_STMT_FETCH, LAST, &[2, 0, 0, 0])?;
    run.prepare("SELEC")?;
    run.execute(LAST, 0, &[], true)?;
    run.prepare("SELECT 5")?;
    run.statement(COM_STMT_CLOSE, LAST, &[])?;
    run.execute(LAST, 0, &[], true)?;
    // PREPARE and EXECUTE in one write, as MariaDB's connectors do.
    run.raw
        .command(COM_STMT_PREPARE, b"UPDATE b SET v = v + 1 WHERE id = 1")?;
    let execute = [&LAST.to_le_bytes()[..], &[0, 1, 0, 0, 0]].concat();
    run.raw.command(COM_STMT_EXECUTE, &execute)?;
    run.prepared_answer("pipelined")?;
    let packets = run.raw.answer(COM_STMT_EXECUTE)?;
    run.note("pipelined EXECUTE", packets);
    match select {
        Some(id) => run.execute(id, 0, &[], true),
        None => Ok(()),
    }
}

/// One row of a bulk EXECUTE: an indicator for each parameter, and its value.
type Row<'a> = &'a [(u8, Param<'a>)];

pub fn bulk_body(types: Option<&[Param]>, rows: &[Row]) -> Vec<u8> {
    let mut body = if types.is_some() {
        vec![128, 0]
    } else {
        vec![0, 0]
    };
    for param in types.unwrap_or(&[]) {
        body.extend_from_slice(&param.kind().to_le_bytes());
    }
    for (indicator, value) in rows.iter().flat_map(|row| row.iter()) {
        body.push(*indicator);
        if *indicator == 0 {
            value.put(&mut body);
        }
    }
    body
}

fn bulk(run: &mut Run, _: Family) -> io::Result<()> {
    let types = [Param::Int(0), Param::Text("")];
    let Some(insert) = run.prepare("INSERT INTO b (v, s) VALUES (?, ?)")? else {
        return Ok(());
    };
    let rows: [Row; 3] = [
        &[(0, Param::Int(5)), (0, Param::Text("five"))],
        &[(0, Param::Int(6)), (1, Param::Null)],
        &[(2, Param::Null), (0, Param::Text("far too long to fit"))],
    ];
    run.statement(
        COM_STMT_BULK_EXECUTE,
        insert,
        &bulk_body(Some(&types), &rows),
    )?;
    run.text("SHOW WARNINGS")?;
    run.text("SELECT LAST_INSERT_ID(), ROW_COUNT()")?;
    run.statement(COM_STMT_BULK_EXECUTE, insert, &bulk_body(None, &rows[..2]))?;
    run.text("BEGIN")?;
    run.statement(COM_STMT_BULK_EXECUTE, insert, &bulk_body(None, &rows[..1]))?;
    run.text("ROLLBACK")?;
    run.execute(insert, 0, &[Param::Int(9), Param::Text("one")], true)?;
    run.statement(
        COM_STMT_BULK_EXECUTE,
        u32::MAX,
        &bulk_body(None, &rows[..1]),
    )?;
    if let Some(update) = run.prepare("UPDATE b SET v = ?, s = ? WHERE id = ?")? {
        let types = [Param::Int(0), Param::Text(""), Param::Int(0)];
        let rows: [Row; 3] = [
            &[
                (0, Param::Int(1)),
                (0, Param::Text("a")),
                (0, Param::Int(1)),
            ],
            &[(3, Param::Null), (0, Param::Text("b")), (0, Param::Int(2))],
            &[(2, Param::Null), (1, Param::Null), (0, Param::Int(99))],
        ];
        run.statement(
            COM_STMT_BULK_EXECUTE,
            update,
            &bulk_body(Some(&types), &rows),
        )?;
    }
    if let Some(delete) = run.prepare("DELETE FROM b WHERE id = ?")? {
        let rows: [Row; 2] = [&[(0, Param::Int(1))], &[(0, Param::Int(2))]];
        let body = bulk_body(Some(&[Param::Int(0)]), &rows);
        run.statement(COM_STMT_BULK_EXECUTE, delete, &body)?;
    }
    run.text("SELECT * FROM b ORDER BY id")
}

fn bulk_refused(run: &mut Run, _: Family) -> io::Result<()> {
    let one: [Row; 1] = [&[(0, Param::Int(1))]];
    let types = [Param::Int(0)];
    let body = bulk_body(Some(&types), &one);
    run.statement(COM_STMT_BULK_EXECUTE, 4_000_000_000, &body)?;
    // Twice the same key, in and after other rows.
    if let Some(insert) = run.prepare("INSERT INTO b (id) VALUES (?)")? {
        let rows: [Row; 3] = [
            &[(0, Param::Int(70))],
            &[(0, Param::Int(1))],
            &[(0, Param::Int(71))],
        ];
        run.statement(
            COM_STMT_BULK_EXECUTE,
            insert,
            &bulk_body(Some(&types), &rows),
        )?;
        run.statement(COM_STMT_BULK_EXECUTE, insert, &bulk_body(Some(&types), &[]))?;
        let mut cut = bulk_body(Some(&types), &one);
        cut.truncate(cut.len() - 2);
        run.statement(COM_STMT_BULK_EXECUTE, insert, &cut)?;
        run.statement(COM_STMT_BULK_EXECUTE, insert, &[128])?;
    }
    if let Some(select) = run.prepare("SELECT id FROM b WHERE id = ?")? {
        run.statement(COM_STMT_BULK_EXECUTE, select, &body)?;
    }
    if let Some(without) = run.prepare("INSERT INTO b (v) VALUES (1)")? {
        run.statement(COM_STMT_BULK_EXECUTE, without, &[0, 0])?;
    }
    run.text("SELECT * FROM b ORDER BY id")
}

fn many_parameters(run: &mut Run, _: Family) -> io::Result<()> {
    for count in [900, 65_535, 65_536] {
        let sql = format!(
            "SELECT COUNT(*) FROM b WHERE id IN ({})",
            vec!["?"; count].join(",")
        );
        let (id, packets) = run.prepare_only(&sql)?;
        // Its thousands of definitions are all alike.
        let sizes: Vec<usize> = packets.iter().map(|p| p.payload.len()).collect();
        run.fact(
            &format!("{count} parameters"),
            (sizes.len(), sizes.iter().sum::<usize>()),
        );
        if let Some(id) = id {
            run.execute(id, 0, &vec![Param::Int(2); count], true)?;
        }
    }
    Ok(())
}

/// The columns of a prepared statement may change while it stands.
fn altered_under_a_statement(run: &mut Run, _: Family) -> io::Result<()> {
    run.text("CREATE TABLE made (id INT PRIMARY KEY, v INT)")?;
    run.text("INSERT INTO made VALUES (1, 1), (2, 2)")?;
    let select = run.prepare("SELECT * FROM made ORDER BY id")?.unwrap_or(1);
    let update = run
        .prepare("UPDATE made SET v = ? WHERE id = ?")?
        .unwrap_or(1);
    run.execute(select, 0, &[], true)?;
    let mut other = run.other()?;
    other.query("ALTER TABLE made ADD COLUMN w VARCHAR(5) DEFAULT 'w', MODIFY v BIGINT")?;
    run.execute(select, 0, &[], true)?;
    run.execute(update, 0, &[Param::Int(7), Param::Int(1)], true)?;
    other.query("ALTER TABLE made DROP COLUMN v")?;
    run.execute(select, 0, &[], true)?;
    run.execute(update, 0, &[Param::Int(7), Param::Int(1)], true)?;
    run.text("DROP TABLE made")?;
    run.execute(select, 0, &[], true)
}

/// Forms that proxies have refused to prepare, or should have.
fn prepared_forms(run: &mut Run, _: Family) -> io::Result<()> {
    for sql in [
        "WITH x AS (SELECT 1 AS one) SELECT one FROM x",
        "(SELECT 1) UNION (SELECT 2)",
        "/* first */ SELECT 1",
        "SELECT 1; ",
        "SET @y = 5",
        "BEGIN",
        "COMMIT",
        "USE tr",
        "LOAD DATA LOCAL INFILE 'none.csv' INTO TABLE b",
        "CREATE TEMPORARY TABLE prepared_tmp (i INT)",
        "INSERT INTO prepared_tmp VALUES (1)",
        "DROP TEMPORARY TABLE prepared_tmp",
        "LOCK TABLES b READ",
        "UNLOCK TABLES",
        "HANDLER b OPEN",
        "PREPARE x FROM 'SELECT 1'",
        "KILL QUERY 4294967290",
        "SHOW TABLES LIKE 'b'",
        "EXPLAIN SELECT 1",
    ] {
        if let Some(id) = run.prepare(sql)? {
            run.execute(id, 0, &[], true)?;
            run.statement(COM_STMT_CLOSE, id, &[])?;
        }
    }
    run.text("SELECT @y")
}

fn local_files(run: &mut Run, _: Family) -> io::Result<()> {
    let load = "LOAD DATA LOCAL INFILE 'none.csv' INTO TABLE b FIELDS TERMINATED BY ',' (id, v, s)";
    // A client that refuses, or has no such file, sends the empty packet only.
    run.raw.infile = Vec::new();
    run.text(load)?;
    run.raw.infile = b"20,1,a\n21,2,b\n".to_vec();
    run.text(&format!("BEGIN; {load}; SELECT COUNT(*) FROM b; ROLLBACK"))?;
    run.raw.infile = b"20,1,a\n20,2,b\nx,y\n".to_vec();
    run.text(&load.replace("INTO TABLE", "REPLACE INTO TABLE"))?;
    run.text("SHOW WARNINGS")?;
    run.raw.infile = b"1,9,a\n".to_vec();
    run.text(&load.replace("INTO TABLE", "IGNORE INTO TABLE"))?;
    run.raw.infile = b"30,1,a\n".to_vec();
    run.text(&format!("{load}; {load}"))?;
    run.raw.infile = b"40,1,a\n".to_vec();
    run.text(&load.replace("(id, v, s)", "(id, nothing)"))?;
    run.text("LOAD DATA INFILE '/nowhere/none.csv' INTO TABLE b")?;
    run.text("SELECT * FROM b ORDER BY id")
}

fn local_file_of_many_packets(run: &mut Run, _: Family) -> io::Result<()> {
    let load =
        "LOAD DATA LOCAL INFILE 'none.csv' INTO TABLE b FIELDS TERMINATED BY ',' (v, @skipped)";
    let mut file = Vec::new();
    for row in 0..18 {
        file.extend_from_slice(format!("{row},{}\n", "x".repeat(1 << 20)).as_bytes());
    }
    run.raw.infile = file;
    run.text(load)?;
    run.text("SELECT COUNT(*), SUM(v) FROM b")
}

fn handlers(run: &mut Run, _: Family) -> io::Result<()> {
    run.text("HANDLER b OPEN")?;
    run.text("HANDLER b READ FIRST")?;
    run.text("UPDATE b SET v = 90 WHERE id = 2")?;
    run.text("HANDLER b READ NEXT")?;
    run.text("INSERT INTO b (v) VALUES (91)")?;
    run.text("HANDLER b READ `PRIMARY` > (2) LIMIT 5")?;
    run.text("BEGIN")?;
    run.text("HANDLER b READ FIRST")?;
    run.text("COMMIT")?;
    run.text("HANDLER b CLOSE")?;
    run.text("HANDLER b READ FIRST")
}

/// Goes on with another connection when the server has forgotten this one.
fn leave(run: &mut Run) -> io::Result<()> {
    let gone = run.raw.greeting.thread_id;
    let next = run.other()?;
    std::mem::replace(&mut run.raw, next).vanish();
    let sql = format!("SELECT 1 FROM information_schema.processlist WHERE id = {gone}");
    for _ in 0..500 {
        let packets = run.raw.query(&sql)?;
        if !packets.iter().any(|p| p.payload == [1, b'1']) {
            break;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    Ok(())
}

fn xa_over_two_connections(run: &mut Run, _: Family) -> io::Result<()> {
    for end in ["XA COMMIT 'lockstep_xa'", "XA ROLLBACK 'lockstep_xa'"] {
        run.text("XA START 'lockstep_xa'")?;
        run.text("UPDATE b SET v = v + 1 WHERE id = 1")?;
        run.text("COMMIT")?;
        run.text("XA END 'lockstep_xa'")?;
        run.text("SELECT 1")?;
        run.text("XA PREPARE 'lockstep_xa'")?;
        leave(run)?;
        run.text("XA RECOVER")?;
        run.text(end)?;
        run.text("SELECT v FROM b WHERE id = 1")?;
    }
    run.text("XA START 'one_phase'")?;
    run.text("INSERT INTO b (v) VALUES (5)")?;
    run.text("XA END 'one_phase'")?;
    run.text("XA COMMIT 'one_phase' ONE PHASE")?;
    run.text("SELECT COUNT(*) FROM b")
}

fn query_attributes(run: &mut Run, _: Family) -> io::Result<()> {
    if !run.raw.capabilities.has(Capabilities::QUERY_ATTRIBUTES) {
        return Ok(());
    }
    for sql in [
        "SELECT * FROM b ORDER BY id",
        "INSERT INTO b (v) VALUES (3)",
        "UPDATE b SET v = 4 WHERE id = 1",
        "SELECT mysql_query_attribute_string('name')",
        "BEGIN; UPDATE b SET v = 5 WHERE id = 2; COMMIT",
        "SELEC",
    ] {
        let mut body = vec![3, 1, 0b100, 1];
        for (kind, name) in [(253u16, "name"), (8, "n"), (8, "")] {
            body.extend_from_slice(&kind.to_le_bytes());
            lenenc::put_bytes(&mut body, name.as_bytes());
        }
        lenenc::put_bytes(&mut body, b"value");
        body.extend_from_slice(&7u64.to_le_bytes());
        body.extend_from_slice(sql.as_bytes());
        run.com(COM_QUERY, &body)?;
    }
    // With a prepared statement: one parameter, one attribute.
    for sql in [
        "SELECT v FROM b WHERE id = ?",
        "UPDATE b SET v = 6 WHERE id = ?",
    ] {
        if let Some(id) = run.prepare(sql)? {
            let mut body = vec![8, 1, 0, 0, 0, 2, 0, 1];
            body.extend_from_slice(&[8, 0, 0, 253, 0, 4]);
            body.extend_from_slice(b"name");
            body.extend_from_slice(&1u64.to_le_bytes());
            body.extend_from_slice(&[2, b'a', b'b']);
            run.statement(COM_STMT_EXECUTE, id, &body)?;
        }
    }
    // Attributes cut short.
    survives(run, COM_QUERY, &[9, 1, 0])?;
    survives(run, COM_QUERY, &[1, 1, 0, 1, 253, 0, 200])?;
    run.text("SELECT * FROM b ORDER BY id")
}

/// Payloads of one byte less than a full packet, of one and of two.
const SIZES: [usize; 4] = [
    frame::PAYLOAD_MAX - 1,
    frame::PAYLOAD_MAX,
    frame::PAYLOAD_MAX + 1,
    2 * frame::PAYLOAD_MAX,
];

fn sizes_around_a_full_packet(run: &mut Run, _: Family) -> io::Result<()> {
    let attributes = 2 * usize::from(run.raw.capabilities.has(Capabilities::QUERY_ATTRIBUTES));
    for size in SIZES {
        for (head, tail) in [
            ("SELECT LENGTH('", "')"),
            ("UPDATE b SET v = LENGTH('", "') WHERE id = 1"),
            ("INSERT INTO b (v) VALUES (LENGTH('", "'))"),
        ] {
            let fill = size - 1 - attributes - head.len() - tail.len();
            run.text(&format!("{head}{}{tail}", "y".repeat(fill)))?;
        }
        let fixed = 1
            + 4
            + 5
            + if attributes > 0 {
                1 + 1 + 1 + 3
            } else {
                1 + 1 + 2
            }
            + 4;
        let blob = vec![b'p'; size - fixed];
        if let Some(id) = run.prepare("INSERT INTO b (v) VALUES (LENGTH(?))")? {
            run.execute(id, 0, &[Param::Blob(&blob)], true)?;
            run.execute(id, 0, &[Param::Blob(b"short")], false)?;
        }
    }
    // A text to prepare: nearly all of it is a comment.
    let comment = format!("/*{}*/", "c".repeat(frame::PAYLOAD_MAX + 9));
    if let Some(id) = run.prepare(&format!("UPDATE b {comment} SET v = ? WHERE id = 2"))? {
        run.execute(id, 0, &[Param::Int(5)], true)?;
        run.execute(id, 0, &[Param::Int(6)], false)?;
    }
    run.text("SELECT * FROM b ORDER BY id")
}

fn rows_around_a_full_packet(run: &mut Run, _: Family) -> io::Result<()> {
    // A text row is the value behind four bytes (or nine) of length.
    for n in [
        frame::PAYLOAD_MAX - 5,
        frame::PAYLOAD_MAX - 4,
        frame::PAYLOAD_MAX - 3,
        2 * frame::PAYLOAD_MAX - 9,
    ] {
        run.text(&format!("SELECT REPEAT('x', {n}) FROM b WHERE id < 3"))?;
        if let Some(id) = run.prepare("SELECT REPEAT('x', ?)")? {
            run.execute(id, 0, &[Param::Int(n as i64)], true)?;
        }
    }
    Ok(())
}

fn long_data_of_a_full_packet(run: &mut Run, _: Family) -> io::Result<()> {
    let Some(id) = run.prepare("INSERT INTO b (v) VALUES (LENGTH(?))")? else {
        return Ok(());
    };
    for size in SIZES {
        let body = [&[0, 0][..], &vec![b'l'; size - 7]].concat();
        run.statement(COM_STMT_SEND_LONG_DATA, id, &body)?;
        run.statement(COM_STMT_SEND_LONG_DATA, id, &[0, 0, b'e', b'n', b'd'])?;
        run.execute_long(id)?;
    }
    // Nothing of it is left over.
    run.execute(id, 0, &[Param::Blob(b"four")], true)?;
    run.text("SELECT * FROM b ORDER BY id")
}

/// The servers here take 64 MiB.
fn more_than_the_server_allows(run: &mut Run, _: Family) -> io::Result<()> {
    let over = 65 << 20;
    let sql = format!(
        "UPDATE b SET v = LENGTH('{}') WHERE id = 1",
        "y".repeat(over)
    );
    match run.raw.query(&sql) {
        Ok(packets) => run.note("a query", packets),
        Err(e) => run.fact("a query", broken(&e)),
    }
    let after = run.raw.ask(COM_PING, &[]);
    run.fact(
        "ping afterwards",
        after.map(|p| p.len()).map_err(|e| broken(&e)),
    );
    run.raw = run.other()?;
    run.text("SELECT LENGTH(REPEAT('x', 70000000))")?;
    run.text("SHOW WARNINGS")?;
    run.text("SELECT * FROM b ORDER BY id")
}

fn refused_texts(run: &mut Run, _: Family) -> io::Result<()> {
    run.text("BEGIN")?;
    run.text("UPDATE b SET v = 1 WHERE id = 1")?;
    run.text("SELEC 1")?;
    run.text("UPDATE b SET v = 2 WHERE id = 2")?;
    run.text("CALL nothing()")?;
    run.text("INSERT INTO b SELECT * FROM b")?;
    run.text("UPDATE b SET v = 3 WHERE id = 3")?;
    run.text("COMMIT")?;
    run.text("SELECT * FROM b ORDER BY id")
}
