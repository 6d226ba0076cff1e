//! Transactions of XA: prepared here, committed later or never.

use super::Pipe;
use crate::follow::PAIRS;
use crate::or_skip;
use crate::support::proc::{block_on, wait_for};
use crate::support::{Family, Server, ServerOptions, compare};
use mysql_async::Error;
use mysql_async::prelude::Queryable;
use std::sync::OnceLock;
use std::time::Duration;

/// "Unknown XID".
const XAER_NOTA: u16 = 1397;

/// Servers of its own: whoever begins to follow while a transaction is prepared
/// does not know its rows.
fn pair(from: Family, to: Family) -> Result<(&'static Server, &'static Server), String> {
    static SERVERS: [OnceLock<Result<Server, String>>; 4] = [const { OnceLock::new() }; 4];
    let start = |family: Family, second: bool| {
        let index = 2 * usize::from(family == Family::MySql) + usize::from(second);
        let made = SERVERS[index].get_or_init(|| {
            Server::start(family, ServerOptions::default()).map_err(|m| m.to_string())
        });
        made.as_ref().map_err(String::clone)
    };
    Ok((start(from, false)?, start(to, from == to)?))
}

/// A connection of its own, so that a prepared transaction outlives it.
fn prepare(pipe: &Pipe, id: &str, sql: &str) {
    pipe.source.exec(&format!(
        "XA START '{id}'; {sql}; XA END '{id}'; XA PREPARE '{id}'"
    ));
}

/// Its connection has ended for us; for the server perhaps a moment later, and
/// until then nobody else may end its transaction.
fn end(source: &Server, how: &str, id: &str) {
    let sql = format!("XA {how} '{id}'");
    wait_for(&sql, Duration::from_secs(30), || {
        block_on(async {
            let mut conn = source.conn().await;
            let done = conn.query_drop(&sql).await;
            let _ = conn.disconnect().await;
            match done {
                Err(Error::Server(e)) if e.code == XAER_NOTA => false,
                done => done.map(|()| true).expect("a transaction's end"),
            }
        })
    });
}

#[test]
fn prepared_rows_wait_for_their_fate() {
    for (from, to) in PAIRS {
        let (source, target) = or_skip!(pair(from, to));
        let pipe = Pipe::new(source, target, "px");
        pipe.exec_both("DROP DATABASE IF EXISTS px; CREATE DATABASE px");
        pipe.exec_both("CREATE TABLE px.a (id INT PRIMARY KEY, v INT NOT NULL)");
        pipe.exec_both("CREATE TABLE px.nokey (v INT)");
        let start = pipe.now();
        let say = |e| panic!("{from} → {to}: {e}");
        source.exec("INSERT INTO px.a VALUES (1, 0), (2, 0), (3, 0)");
        prepare(
            &pipe,
            "one",
            "UPDATE px.a SET v = 7 WHERE id = 1; INSERT INTO px.nokey VALUES (1)",
        );
        prepare(&pipe, "two", "INSERT INTO px.a VALUES (9, 9)");
        source.exec(
            "XA START 'x'; INSERT INTO px.a VALUES (4, 4); XA END 'x'; XA COMMIT 'x' ONE PHASE",
        );
        source.exec("INSERT INTO px.nokey VALUES (2), (3)");
        source.exec("UPDATE px.a SET v = v + 1 WHERE id = 2");
        pipe.catch_up(&start).unwrap_or_else(say);
        let names = ["px.a", "px.nokey"];
        compare::assert_equal(source, target, &names);
        // Another process: it reads what is prepared again, and nothing twice.
        source.exec("INSERT INTO px.nokey VALUES (4)");
        pipe.catch_up(&start).unwrap_or_else(say);
        compare::assert_equal(source, target, &names);
        end(source, "COMMIT", "one");
        source.exec("UPDATE px.nokey SET v = v + 10 WHERE v = 4");
        pipe.catch_up(&start).unwrap_or_else(say);
        assert_eq!(target.one("SELECT v FROM px.a WHERE id = 1"), "7");
        compare::assert_equal(source, target, &names);
        end(source, "ROLLBACK", "two");
        source.exec("INSERT INTO px.a VALUES (5, 5)");
        pipe.catch_up(&start).unwrap_or_else(say);
        assert_eq!(compare::assert_equal(source, target, &names), 9);
        // Nothing is prepared any more: the next one starts at the checkpoint.
        let resume = format!(
            "SELECT COUNT(*) FROM lockstep.checkpoint WHERE stream='{}' AND resume_from IS NULL",
            pipe.stream
        );
        assert_eq!(target.one(&resume), "1");
        // Rows that were prepared before anybody listened are not known.
        prepare(&pipe, "early", "INSERT INTO px.a VALUES (6, 6)");
        let late = Pipe::new(source, target, "px");
        let start = late.now();
        end(source, "COMMIT", "early");
        let error = late.catch_up(&start).expect_err("unknown rows").to_string();
        assert!(error.contains("XA COMMIT"), "{from}: {error}");
    }
}
