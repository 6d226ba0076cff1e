//! Cases that need more than a list of SQL: the binary protocol, commands other
//! than queries, two connections, packets above 16 MiB.

use super::raw::Raw;
use super::run::{Param, Run, broken, without_digits, without_nonce};
use crate::support::Family;
use lockstep::wire::Capabilities;
use lockstep::wire::command::*;
use std::io;
use std::time::{Duration, Instant};

pub struct Special {
    pub name: &'static str,
    pub run: fn(&mut Run, Family) -> io::Result<()>,
}

macro_rules! specials {
    ($($name:ident),* $(,)?) => {
        &[$(Special { name: stringify!($name), run: $name }),*]
    };
}

pub const SPECIALS: &[Special] = specials![
    thread_id,
    multi_statements,
    multi_statements_failing,
    parameters,
    prepared_writes,
    prepared_transactions,
    types_are_remembered,
    cursor,
    long_data,
    statement_commands,
    reset_connection,
    change_user,
    change_user_refused,
    init_db,
    statistics,
    field_list,
    set_option,
    unknown_commands,
    pipelined,
    load_data_local,
    large_packets,
    large_parameters,
    lock_wait,
    kill_own_query,
    kill_own_connection,
    killed_by_another,
    without_database,
];

fn thread_id(run: &mut Run, _: Family) -> io::Result<()> {
    let id = run.raw.greeting.thread_id;
    let packets = run.raw.query("SELECT CONNECTION_ID()")?;
    let digits = id.to_string().into_bytes();
    let same = packets
        .iter()
        .any(|p| p.payload.get(1..) == Some(&digits[..]));
    run.fact("greeted id is CONNECTION_ID()", same);
    assert!(same, "greeted as {id}");
    Ok(())
}

fn multi_statements(run: &mut Run, _: Family) -> io::Result<()> {
    run.text("SELECT 1; SELECT 2, 'x'; DO 1; SELECT * FROM b WHERE id = 99")?;
    run.text(
        "INSERT INTO b (v) VALUES (5); SELECT LAST_INSERT_ID(); UPDATE b SET v = 6 WHERE id = 1; ",
    )?;
    run.text("BEGIN; INSERT INTO b (v) VALUES (6); COMMIT; SELECT COUNT(*) FROM b")?;
    run.text("SET @x = 1; CALL two_results(); SELECT @x")?;
    run.text("USE tr_other; SELECT DATABASE(); USE tr")?;
    run.text("UPDATE b SET v = 1; UPDATE a SET s = 'y'; DELETE FROM b WHERE id = 3")
}

fn multi_statements_failing(run: &mut Run, _: Family) -> io::Result<()> {
    run.text(
        "INSERT INTO b (v) VALUES (5); INSERT INTO b (id) VALUES (1); INSERT INTO b (v) VALUES (7)",
    )?;
    run.text("SELECT COUNT(*) FROM b")?;
    run.text("SELECT 1; SELEC 2")?;
    run.text("BEGIN; UPDATE b SET v = 0; SELECT nothing; COMMIT")?;
    run.text("ROLLBACK")?;
    run.text("SELECT * FROM b ORDER BY id")
}

fn parameters(run: &mut Run, _: Family) -> io::Result<()> {
    let all = [
        Param::Null,
        Param::Int(-5),
        Param::Unsigned(u64::MAX),
        Param::Tiny(-1),
        Param::Float(1.5),
        Param::Double(-2.25),
        Param::Text("größe 🦀"),
        Param::Blob(b"\x00\xff\x0a"),
        Param::Time(2024, 2, 29, 23, 59, 58, 123_456),
    ];
    if let Some(id) = run.prepare("SELECT ?, ?, ?, ?, ?, ?, ?, HEX(?), ?")? {
        run.execute(id, 0, &all, true)?;
        run.execute(id, 0, &all, true)?;
    }
    if let Some(id) = run.prepare("SELECT * FROM types WHERE id > ? ORDER BY id LIMIT ?")? {
        run.execute(id, 0, &[Param::Int(0), Param::Int(2)], true)?;
        run.execute(id, 0, &[Param::Int(1), Param::Int(5)], true)?;
        run.execute(id, 0, &[Param::Int(99), Param::Int(5)], true)?;
    }
    let wide = format!("SELECT {}", ["?"; 300].join(" + "));
    if let Some(id) = run.prepare(&wide)? {
        run.execute(id, 0, &[Param::Int(2); 300], true)?;
    }
    Ok(())
}

fn prepared_writes(run: &mut Run, _: Family) -> io::Result<()> {
    if let Some(id) = run.prepare("INSERT INTO b (id, v, s) VALUES (?, ?, ?)")? {
        run.execute(id, 0, &[Param::Null, Param::Int(1), Param::Text("n")], true)?;
        run.execute(id, 0, &[Param::Int(40), Param::Int(2), Param::Null], true)?;
        run.execute(
            id,
            0,
            &[Param::Int(0), Param::Int(3), Param::Text("z")],
            true,
        )?;
        run.execute(id, 0, &[Param::Int(40), Param::Int(4), Param::Null], true)?;
        run.execute(
            id,
            0,
            &[
                Param::Null,
                Param::Int(5),
                Param::Text("far too long to fit"),
            ],
            true,
        )?;
        run.text("SHOW WARNINGS")?;
    }
    if let Some(id) = run.prepare("INSERT INTO b (v) VALUES (?), (?)")? {
        run.execute(id, 0, &[Param::Int(8), Param::Int(9)], true)?;
        run.text("SELECT LAST_INSERT_ID()")?;
    }
    if let Some(id) = run.prepare("UPDATE b SET v = ? WHERE id = ?")? {
        run.execute(id, 0, &[Param::Int(77), Param::Int(1)], true)?;
        run.execute(id, 0, &[Param::Int(77), Param::Int(1)], true)?;
        run.execute(id, 0, &[Param::Int(78), Param::Int(999)], true)?;
    }
    if let Some(id) = run.prepare("DELETE FROM b WHERE id = ?")? {
        run.execute(id, 0, &[Param::Text("2")], true)?;
    }
    run.text("SELECT * FROM b ORDER BY id")
}

fn prepared_transactions(run: &mut Run, _: Family) -> io::Result<()> {
    let insert = run
        .prepare("INSERT INTO b (v) VALUES (?)")?
        .unwrap_or_default();
    let select = run.prepare("SELECT COUNT(*) FROM b")?.unwrap_or_default();
    let begin = run.prepare("START TRANSACTION")?;
    for end in ["ROLLBACK", "COMMIT"] {
        match begin {
            Some(id) => run.execute(id, 0, &[], true)?,
            None => run.text("START TRANSACTION")?,
        }
        run.execute(insert, 0, &[Param::Int(1)], true)?;
        run.execute(select, 0, &[], true)?;
        run.text(end)?;
        run.execute(select, 0, &[], true)?;
    }
    run.text("SET autocommit = 0")?;
    run.execute(insert, 0, &[Param::Int(2)], true)?;
    run.text("ROLLBACK")?;
    run.execute(select, 0, &[], true)
}

/// Types may be sent once and left out afterwards.
fn types_are_remembered(run: &mut Run, _: Family) -> io::Result<()> {
    if let Some(id) = run.prepare("INSERT INTO b (v, s) VALUES (?, ?)")? {
        run.execute(id, 0, &[Param::Int(1), Param::Text("a")], true)?;
        run.execute(id, 0, &[Param::Int(2), Param::Text("b")], false)?;
        run.execute(id, 0, &[Param::Null, Param::Text("c")], false)?;
        run.execute(id, 0, &[Param::Tiny(3), Param::Blob(b"d")], true)?;
        run.execute(id, 0, &[Param::Tiny(4), Param::Blob(b"e")], false)?;
    }
    run.text("SELECT * FROM b ORDER BY id")
}

fn cursor(run: &mut Run, _: Family) -> io::Result<()> {
    const READ_ONLY: u8 = 1;
    let Some(id) = run.prepare("SELECT id, v, s FROM b ORDER BY id")? else {
        return Ok(());
    };
    run.execute(id, READ_ONLY, &[], true)?;
    run.statement(COM_STMT_FETCH, id, &2u32.to_le_bytes())?;
    run.statement(COM_STMT_FETCH, id, &2u32.to_le_bytes())?;
    run.statement(COM_STMT_FETCH, id, &2u32.to_le_bytes())?;
    run.execute(id, READ_ONLY, &[], true)?;
    run.statement(COM_STMT_FETCH, id, &1u32.to_le_bytes())?;
    run.text("SELECT 'between'")?;
    run.statement(COM_STMT_FETCH, id, &1u32.to_le_bytes())?;
    run.statement(COM_STMT_RESET, id, &[])?;
    run.statement(COM_STMT_FETCH, id, &1u32.to_le_bytes())?;
    // Without rows, and on a statement that has none.
    if let Some(id) = run.prepare("SELECT id FROM b WHERE id = ?")? {
        run.execute(id, READ_ONLY, &[Param::Int(99)], true)?;
        run.statement(COM_STMT_FETCH, id, &5u32.to_le_bytes())?;
    }
    if let Some(id) = run.prepare("UPDATE b SET v = ? WHERE id = 1")? {
        run.execute(id, READ_ONLY, &[Param::Int(3)], true)?;
    }
    Ok(())
}

fn long_data(run: &mut Run, _: Family) -> io::Result<()> {
    let piece = |parameter: u16, data: &[u8]| [&parameter.to_le_bytes(), data].concat();
    let empty = [Param::Int(11), Param::Blob(b"")];
    let Some(id) = run.prepare("INSERT INTO b (v, s) VALUES (?, ?)")? else {
        return Ok(());
    };
    // The value of a parameter sent as long data is left out of EXECUTE.
    let execute = |run: &mut Run| {
        let mut body = vec![0, 1, 0, 0, 0];
        if run.raw.capabilities.has(Capabilities::QUERY_ATTRIBUTES) {
            body[0] = 8;
            body.extend_from_slice(&[2, 0, 1, 8, 0, 0, 252, 0, 0]);
        } else {
            body.extend_from_slice(&[0, 1, 8, 0, 252, 0]);
        }
        body.extend_from_slice(&11i64.to_le_bytes());
        run.statement(COM_STMT_EXECUTE, id, &body)
    };
    run.statement(COM_STMT_SEND_LONG_DATA, id, &piece(1, b"long"))?;
    run.statement(COM_STMT_SEND_LONG_DATA, id, &piece(1, b"data"))?;
    execute(run)?;
    // After an execution the data are gone, and after a reset too.
    run.execute(id, 0, &empty, true)?;
    run.statement(COM_STMT_SEND_LONG_DATA, id, &piece(1, b"thrown away"))?;
    run.statement(COM_STMT_RESET, id, &[])?;
    run.execute(id, 0, &empty, true)?;
    // A piece for a parameter or a statement that does not exist has no answer.
    run.statement(COM_STMT_SEND_LONG_DATA, id, &piece(9, b"x"))?;
    run.execute(id, 0, &empty, true)?;
    run.statement(COM_STMT_RESET, id, &[])?;
    run.statement(COM_STMT_SEND_LONG_DATA, 4_000_000_000, &piece(0, b"x"))?;
    run.text("SELECT * FROM b ORDER BY id")
}

fn statement_commands(run: &mut Run, _: Family) -> io::Result<()> {
    let missing = 4_000_000_000;
    run.statement(COM_STMT_EXECUTE, missing, &[0, 1, 0, 0, 0])?;
    run.statement(COM_STMT_FETCH, missing, &[1, 0, 0, 0])?;
    run.statement(COM_STMT_RESET, missing, &[])?;
    run.statement(COM_STMT_CLOSE, missing, &[])?;
    run.com(COM_STMT_EXECUTE, &[1, 2])?;
    let closed = run.prepare("SELECT 1")?.unwrap_or_default();
    run.statement(COM_STMT_CLOSE, closed, &[])?;
    run.execute(closed, 0, &[], true)?;
    for sql in [
        "SELECT ?",
        "SELEC ?",
        "SHOW WARNINGS",
        "BEGIN; COMMIT",
        "",
        "UPDATE b SET v = ?",
    ] {
        if let Some(id) = run.prepare(sql)? {
            run.statement(COM_STMT_RESET, id, &[])?;
        }
    }
    Ok(())
}

fn reset_connection(run: &mut Run, _: Family) -> io::Result<()> {
    let id = run.prepare("SELECT 1")?.unwrap_or_default();
    run.text("SET @x = 1, NAMES latin1, SESSION sql_mode = ''")?;
    run.text("CREATE TEMPORARY TABLE gone (i INT)")?;
    run.text("INSERT INTO b (v) VALUES (1)")?;
    run.text("USE tr_other")?;
    run.text("BEGIN")?;
    run.text("UPDATE tr.b SET v = 9")?;
    run.com(COM_RESET_CONNECTION, &[])?;
    run.text("SELECT @x, @@sql_mode <> '', LAST_INSERT_ID(), DATABASE()")?;
    run.text("SELECT @@character_set_client, @@autocommit")?;
    run.text("SELECT * FROM gone")?;
    run.execute(id, 0, &[], true)?;
    run.text("UPDATE tr.b SET v = 10 WHERE id = 1")?;
    run.text("SELECT * FROM tr.b ORDER BY id")
}

/// The nonce of a switch is random, so only the verdict is compared.
fn change_user(run: &mut Run, _: Family) -> io::Result<()> {
    run.text("SET @x = 1, autocommit = 0")?;
    run.text("INSERT INTO b (v) VALUES (1)")?;
    let id = run.raw.greeting.thread_id;
    let packets = run.raw.change_user("root", "tr_other")?;
    let verdict = packets.into_iter().last().map(|p| p.payload);
    run.fact("verdict", verdict.map(|v| v.escape_ascii().to_string()));
    run.text("SELECT @x, @@autocommit, DATABASE(), USER(), CURRENT_USER()")?;
    let packets = run
        .raw
        .query(&format!("SELECT CONNECTION_ID() = {id} AS same"))?;
    run.note("the same thread id", packets);
    run.text("SELECT COUNT(*) FROM tr.b")?;
    run.text("UPDATE tr.b SET v = 8 WHERE id = 1")?;
    let packets = run.raw.change_user("root", "nowhere")?;
    let verdict = packets.into_iter().last().map(|p| p.payload);
    run.fact(
        "unknown database",
        verdict.map(|v| v.escape_ascii().to_string()),
    );
    Ok(())
}

fn change_user_refused(run: &mut Run, _: Family) -> io::Result<()> {
    let packets = run.raw.change_user("nobody", "tr")?;
    let verdict = packets.into_iter().last().map(|p| p.payload);
    run.fact("verdict", verdict.map(|v| v.escape_ascii().to_string()));
    let after = run.raw.ask(COM_PING, &[]);
    run.fact("ping afterwards", after.map(|p| p.len()).map_err(drop));
    Ok(())
}

fn init_db(run: &mut Run, _: Family) -> io::Result<()> {
    run.com(COM_INIT_DB, b"tr_other")?;
    run.text("SELECT DATABASE()")?;
    run.text("INSERT INTO o (v) VALUES (9)")?;
    run.com(COM_INIT_DB, b"nowhere")?;
    run.text("SELECT DATABASE()")?;
    run.com(COM_INIT_DB, b"tr")?;
    run.text("UPDATE b SET v = 5 WHERE id = 1")?;
    run.com(COM_INIT_DB, b"")
}

fn statistics(run: &mut Run, _: Family) -> io::Result<()> {
    let packets = run.raw.ask(COM_STATISTICS, &[])?;
    let texts = packets.iter().map(|p| without_digits(&p.payload));
    let texts: Vec<String> = texts.map(|t| t.escape_ascii().to_string()).collect();
    run.fact("statistics", texts);
    Ok(())
}

fn field_list(run: &mut Run, _: Family) -> io::Result<()> {
    run.com(COM_FIELD_LIST, b"types\0")?;
    run.com(COM_FIELD_LIST, b"b\0v%")?;
    run.com(COM_FIELD_LIST, b"nowhere\0")
}

fn set_option(run: &mut Run, _: Family) -> io::Result<()> {
    run.text("SELECT 1; SELECT 2")?;
    run.com(COM_SET_OPTION, &[1, 0])?;
    run.text("SELECT 1; SELECT 2")?;
    run.com(COM_SET_OPTION, &[0, 0])?;
    run.text("SELECT 1; SELECT 2")?;
    run.com(COM_SET_OPTION, &[9, 0])
}

fn unknown_commands(run: &mut Run, _: Family) -> io::Result<()> {
    for com in [0x00, 0x0b, 0x0f, 0x10, 0x14, 0x2f, 0x7f, 0xee] {
        run.com(com, b"whatever")?;
    }
    run.com(COM_PROCESS_KILL, &u32::MAX.to_le_bytes())?;
    run.com(COM_DEBUG, &[])?;
    run.com(COM_PING, &[])
}

/// Clients may send a command before the last one is answered.
fn pipelined(run: &mut Run, _: Family) -> io::Result<()> {
    let commands = [
        "SELECT 1",
        "UPDATE b SET v = v + 1 WHERE id = 1",
        "SELECT v FROM b WHERE id = 1",
        "SELEC",
        "INSERT INTO b (v) VALUES (4)",
    ];
    let attributes = run.raw.capabilities.has(Capabilities::QUERY_ATTRIBUTES);
    for sql in commands {
        let head: &[u8] = if attributes { &[0, 1] } else { &[] };
        run.raw
            .command(COM_QUERY, &[head, sql.as_bytes()].concat())?;
    }
    for sql in commands {
        let packets = run.raw.answer(COM_QUERY)?;
        run.note(format!("pipelined {sql}"), packets);
    }
    Ok(())
}

fn load_data_local(run: &mut Run, _: Family) -> io::Result<()> {
    let load = "LOAD DATA LOCAL INFILE 'none.csv' INTO TABLE b FIELDS TERMINATED BY ',' (id, v, s)";
    run.raw.infile = b"20,1,a\n21,2,far too long for ten\n1,3,dup\n".to_vec();
    run.text(load)?;
    run.text("SHOW WARNINGS")?;
    run.raw.infile = Vec::new();
    run.text(load)?;
    run.raw.infile = b"30,1,a\n".to_vec();
    run.text(&format!("SELECT 1; {load}; SELECT 2"))?;
    run.raw.infile = b"x\n".to_vec();
    run.text("LOAD DATA LOCAL INFILE 'none.csv' INTO TABLE nowhere")?;
    run.text("SELECT * FROM b ORDER BY id")
}

const LARGE: usize = 17_000_000;

fn large_packets(run: &mut Run, _: Family) -> io::Result<()> {
    run.text(&format!("SELECT REPEAT('x', {LARGE}) AS r, 'end'"))?;
    run.text(&format!("SELECT LENGTH('{}')", "y".repeat(LARGE)))?;
    // Exactly one full physical packet, which an empty one must follow.
    let fixed = 1
        + "SELECT LENGTH('')".len()
        + 2 * usize::from(run.raw.capabilities.has(Capabilities::QUERY_ATTRIBUTES));
    run.text(&format!(
        "SELECT LENGTH('{}')",
        "z".repeat(0xFF_FFFF - fixed)
    ))?;
    run.text(&format!("SELECT REPEAT('x', {})", 0xFF_FFFF - 4))?;
    run.text(&format!(
        "UPDATE b SET v = LENGTH('{}') WHERE id = 1",
        "w".repeat(LARGE)
    ))?;
    run.text("SELECT v FROM b WHERE id = 1")
}

fn large_parameters(run: &mut Run, _: Family) -> io::Result<()> {
    let blob = vec![b'p'; LARGE];
    if let Some(id) = run.prepare("SELECT LENGTH(?), MD5(?)")? {
        run.execute(id, 0, &[Param::Blob(&blob), Param::Blob(&blob)], true)?;
    }
    if let Some(id) = run.prepare("INSERT INTO b (v) VALUES (LENGTH(?))")? {
        run.execute(id, 0, &[Param::Blob(&blob)], true)?;
    }
    Ok(())
}

fn lock_wait(run: &mut Run, _: Family) -> io::Result<()> {
    let mut other = run.other()?;
    other.query("BEGIN")?;
    other.query("UPDATE b SET v = 1000 WHERE id = 1")?;
    run.text("SET innodb_lock_wait_timeout = 1")?;
    run.text("UPDATE b SET v = 5 WHERE id = 1")?;
    run.text("SHOW WARNINGS")?;
    run.text("BEGIN")?;
    run.text("UPDATE b SET v = 5 WHERE id = 2")?;
    run.text("UPDATE b SET v = 5 WHERE id = 1")?;
    other.query("ROLLBACK")?;
    run.text("UPDATE b SET v = 6 WHERE id = 1")?;
    run.text("COMMIT")
}

fn kill_own_query(run: &mut Run, _: Family) -> io::Result<()> {
    let id = run.raw.greeting.thread_id;
    let packets = run.raw.query(&format!("KILL QUERY {id}"))?;
    run.note("KILL QUERY own id", packets);
    run.text("SELECT 1")?;
    run.text("KILL 4294967290")?;
    run.text("KILL QUERY 4294967290")
}

fn kill_own_connection(run: &mut Run, _: Family) -> io::Result<()> {
    run.text("BEGIN")?;
    run.text("UPDATE b SET v = 1 WHERE id = 1")?;
    let id = run.raw.greeting.thread_id;
    let packets = run.raw.query(&format!("KILL {id}"));
    match packets {
        Ok(packets) => run.note("KILL own id", packets),
        Err(e) => run.fact("KILL own id", broken(&e)),
    }
    Ok(())
}

/// Waits until a statement that sleeps is seen to run, for at most two of its
/// four seconds.
fn wait_for_sleep(asking: &mut Raw) {
    let sleeping = "SELECT COUNT(*) FROM information_schema.processlist \
                    WHERE info LIKE 'SELECT SLEEP(4)%' AND state LIKE 'User sleep'";
    let began = Instant::now();
    while began.elapsed() < Duration::from_secs(2) {
        let seen = asking.query(sleeping).unwrap_or_default();
        if seen.iter().any(|p| p.payload == b"\x011") {
            return;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn killed_by_another(run: &mut Run, family: Family) -> io::Result<()> {
    let mut other = run.other()?;
    let id = run.raw.greeting.thread_id;
    let killer = std::thread::spawn(move || {
        wait_for_sleep(&mut other);
        other.query(&format!("KILL QUERY {id}")).map(|p| p.len())
    });
    // MySQL's SLEEP answers 1 when killed; a join with it fails instead.
    run.text("SELECT SLEEP(4) FROM types x")?;
    let said = killer.join().expect("killer");
    run.fact("KILL", said.map_err(|e| broken(&e)));
    run.text("SELECT 1")?;
    let mut other = run.other()?;
    let killer = std::thread::spawn(move || {
        wait_for_sleep(&mut other);
        match family {
            Family::MariaDb => other.ask(COM_PROCESS_KILL, &id.to_le_bytes()),
            // MySQL 9 does not know the command any more.
            Family::MySql => other.query(&format!("KILL CONNECTION {id}")),
        }
        .map(|p| p.len())
    });
    let packets = run.raw.query("SELECT SLEEP(4) FROM types x");
    let said = killer.join().expect("killer");
    run.fact("KILL of the connection", said.map_err(|e| broken(&e)));
    run.fact(
        "then",
        packets
            .map(|p| p.iter().map(|p| p.payload.len()).collect::<Vec<_>>())
            .map_err(|e| e.kind()),
    );
    Ok(())
}

fn without_database(run: &mut Run, _: Family) -> io::Result<()> {
    run.login.database = None;
    let mut raw = run.other()?;
    std::mem::swap(&mut raw, &mut run.raw);
    let packets = run.raw.login.clone().into_iter().map(without_nonce);
    run.note("login without a database", packets.collect());
    run.text("SELECT DATABASE()")?;
    run.text("SELECT * FROM b")?;
    run.text("SELECT COUNT(*) FROM tr.b")?;
    run.text("UPDATE tr.b SET v = 2 WHERE id = 1")?;
    run.text("USE tr")?;
    run.text("UPDATE b SET v = 3 WHERE id = 1")
}
