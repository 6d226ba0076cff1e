//! One test per finding of the protocol review that DESIGN §5 and §7 answer:
//! each reproduces its interleaving through the proxy, on both families where
//! it applies.
//!
//! Interleavings are forced with locks that root holds on the mirror's rows
//! itself: what the proxy sends there waits until the test lets go. All share
//! one proxy per family, with a route for each finding, so that its counters
//! are its own.

mod ahead;
mod answers;
mod context;
mod errors;
mod flip;
mod legs;
mod order;
mod prepared;
mod second;

use crate::order::{Counts, counts, journal, patient};
use crate::support::proc::{block_on, runtime};
use crate::support::{Family, Proxy, ProxyOptions, Server, compare, servers};
use mysql_async::prelude::{FromValue, Queryable};
use mysql_async::{Conn, Error};
use std::sync::OnceLock;
use std::time::Duration;
use tokio::task::JoinHandle;

/// Long enough that a statement which is not held up has been answered.
const MEANWHILE: Duration = Duration::from_millis(300);

/// Routes, and the tables of each: `t.f_{route}_*`.
const ROUTES: [&str; 22] = [
    "c1rr", "c1rc", "c2", "c3", "h2", "h4", "h5", "h6", "h7", "h9", "m1", "m2", "m3", "m4", "m5",
    "ah", "ahq", "ahi", "ahs", "pt", "ps", "lv",
];

/// Two servers of one family, and the proxy between them in `source_first`.
struct Pair {
    family: Family,
    source: &'static Server,
    target: &'static Server,
    proxy: Proxy,
}

/// The pair of the family, started by the first test that asks.
fn pair(family: Family) -> Option<&'static Pair> {
    static PAIRS: [OnceLock<Option<Pair>>; 2] = [const { OnceLock::new() }; 2];
    let index = usize::from(family == Family::MySql);
    PAIRS[index].get_or_init(|| start(family)).as_ref()
}

fn start(family: Family) -> Option<Pair> {
    let (source, target) = shared(family)?;
    create(source);
    create(target);
    // H7: a trigger on one side is enough.
    let trigger = |on: &str| {
        format!(
            "CREATE TRIGGER t.f_h7_{on}_t BEFORE INSERT ON t.f_h7_{on} FOR EACH ROW SET NEW.v=7"
        )
    };
    target.exec(&trigger("t"));
    source.exec(&trigger("s"));
    let mut options = ProxyOptions::default();
    for route in ROUTES {
        options = options.and_route(route, &[&format!("t.f_{route}_*")]);
    }
    options.extra_yaml = patient();
    let proxy = Proxy::start(source, target, options);
    for route in ROUTES {
        proxy.must_advance(route, "source_first");
        // What the mirror does is looked at, and not healed meanwhile.
        proxy.pause(route);
    }
    Some(Pair {
        family,
        source,
        target,
        proxy,
    })
}

fn shared(family: Family) -> Option<(&'static Server, &'static Server)> {
    let both = servers::shared(family, 0).and_then(|a| Ok((a, servers::shared(family, 1)?)));
    both.map_err(|missing| crate::support::skip(&missing)).ok()
}

/// The tables of all findings. `_a` always holds rows 1 to 6 with `v=id`.
fn create(server: &Server) {
    let mut sql = String::new();
    for table in [
        "c2_a", "c3_a", "h4_a", "h5_a", "h6_a", "h9_a", "m1_a", "m2_a", "m2_b", "m5_a", "ah_a",
        "ah_b", "ahq_a", "pt_a", "ps_a", "ps_b",
    ] {
        sql.push_str(&numbered(&format!("t.f_{table}")));
    }
    sql.push_str(
        "CREATE TABLE t.f_c1rr_a (id INT PRIMARY KEY, status VARCHAR(8), n INT);\n\
         CREATE TABLE t.f_ahi_a (id INT PRIMARY KEY, k INT NOT NULL, v BIGINT NOT NULL, KEY k (k));\n\
         CREATE TABLE t.f_ahs_a LIKE t.f_ahi_a;\n\
         CREATE TABLE t.f_ahi_p (id INT PRIMARY KEY);\n\
         CREATE TABLE t.f_ahi_c (id INT PRIMARY KEY, parent INT NOT NULL, pos INT NOT NULL, \
         KEY (parent, pos), FOREIGN KEY (parent) REFERENCES t.f_ahi_p (id) ON DELETE CASCADE);\n\
         INSERT INTO t.f_ahi_p VALUES (1);\n\
         INSERT INTO t.f_ahi_c VALUES (1,1,1);\n\
         INSERT INTO t.f_ahi_a VALUES (1,10,1),(2,20,2),(3,30,3),(4,40,4),(5,50,5),(6,60,6);\n\
         CREATE TABLE t.f_c1rc_a (id INT PRIMARY KEY, status VARCHAR(8), n INT);\n\
         INSERT INTO t.f_c1rr_a VALUES (1,'x',0),(5,'x',0);\n\
         INSERT INTO t.f_c1rc_a VALUES (1,'x',0),(5,'x',0);\n\
         CREATE TABLE t.f_h2_a (id BIGINT AUTO_INCREMENT PRIMARY KEY, u INT UNIQUE, s TEXT);\n\
         CREATE TABLE t.f_h2_child (id BIGINT AUTO_INCREMENT PRIMARY KEY, parent BIGINT);\n\
         CREATE TABLE t.f_h4_l (n INT);\n\
         CREATE TABLE t.f_h7_t (id INT PRIMARY KEY, v INT);\n\
         CREATE TABLE t.f_h7_s (id INT PRIMARY KEY, v INT);\n\
         CREATE TABLE t.f_m3_a (id INT PRIMARY KEY, v INT, at DATETIME(6), \
         made DATETIME(6) DEFAULT CURRENT_TIMESTAMP(6), \
         changed DATETIME(6) DEFAULT CURRENT_TIMESTAMP(6) ON UPDATE CURRENT_TIMESTAMP(6));\n\
         CREATE TABLE t.f_m4_uuid (id INT PRIMARY KEY, u VARCHAR(36) DEFAULT (UUID()));\n\
         CREATE TABLE t.f_m5_l (id INT PRIMARY KEY, s LONGTEXT, n BIGINT UNSIGNED);\n\
         CREATE TABLE t.f_ps_l (id INT PRIMARY KEY, s LONGTEXT);\n\
         CREATE TABLE t.f_ps_g (id INT AUTO_INCREMENT PRIMARY KEY, v INT UNIQUE);\n\
         CREATE TABLE t.f_lv_a (id INT PRIMARY KEY, v INT, s LONGTEXT);\n\
         INSERT INTO t.f_lv_a (id) VALUES (1),(2);\n\
         CREATE TABLE t.f_lv_w (id INT PRIMARY KEY, v INT);\n\
         CREATE DATABASE f_ps_other;\n\
         CREATE TABLE f_ps_other.f_ps_a LIKE t.f_ps_a;\n\
         INSERT INTO f_ps_other.f_ps_a SELECT * FROM t.f_ps_a;\n",
    );
    if server.family() == Family::MariaDb {
        sql.push_str(
            "CREATE SEQUENCE t.f_m4_numbers;\n\
             CREATE TABLE t.f_m4_seq (id INT PRIMARY KEY, n BIGINT DEFAULT NEXTVAL(t.f_m4_numbers));\n",
        );
    }
    let rows: Vec<String> = (1..2000).map(|id| format!("({id},{},0)", id * 7)).collect();
    sql.push_str(&format!(
        "INSERT INTO t.f_ahs_a VALUES {};\nANALYZE TABLE t.f_ahs_a;\n",
        rows.join(",")
    ));
    server.exec(&sql);
}

/// SQL of a table with rows 1 to 6, `v=id`.
fn numbered(table: &str) -> String {
    format!(
        "CREATE TABLE {table} (id INT PRIMARY KEY, v BIGINT NOT NULL);\n\
         INSERT INTO {table} VALUES (1,1),(2,2),(3,3),(4,4),(5,5),(6,6);\n"
    )
}

impl Pair {
    /// A client's session in database `t`.
    fn client(&self) -> Client {
        Client(block_on(self.proxy.conn(Some("t"))))
    }

    fn equal(&self, table: &str) {
        compare::assert_equal(self.source, self.target, &[table]);
    }

    /// The route's counters now.
    fn counts(&self, route: &str) -> Counts {
        counts(&self.proxy, route)
    }

    /// Panics unless so many writes failed and were deferred since `before`.
    fn assert_unmirrored(&self, route: &str, before: Counts, failed: u64, deferred: u64) {
        let now = self.counts(route);
        assert_eq!(
            (now.failed - before.failed, now.deferred - before.deferred),
            (failed, deferred),
            "{} {route}: (failed, deferred)\n{}\n{}",
            self.family,
            journal(&self.proxy),
            self.proxy.log()
        );
    }

    /// The first value of the statement on each side.
    fn both(&self, sql: &str) -> [Option<String>; 2] {
        [self.source, self.target].map(|s| first(s, sql))
    }
}

/// The first value, `None` for NULL and for no row.
fn first(server: &Server, sql: &str) -> Option<String> {
    server.query(sql).into_iter().next()?.into_iter().next()?
}

/// Root's own session on a server, to hold locks with.
fn root(server: &Server) -> Client {
    Client(block_on(server.conn()))
}

/// A session driven step by step.
struct Client(Conn);

impl Client {
    fn try_run(&mut self, sql: &str) -> Result<(), Error> {
        block_on(self.0.query_drop(sql))
    }

    /// Runs a statement that has to succeed; affected rows.
    fn run(&mut self, sql: &str) -> u64 {
        if let Err(e) = self.try_run(sql) {
            panic!("{sql}: {e}");
        }
        self.0.affected_rows()
    }

    /// The number of the error that the statement has to give.
    fn error(&mut self, sql: &str) -> u16 {
        match self.try_run(sql) {
            Err(Error::Server(e)) => e.code,
            other => panic!("{sql}: {other:?} where an error was expected"),
        }
    }

    fn value<T: FromValue + Send + 'static>(&mut self, sql: &str) -> T {
        let value: Result<Option<T>, Error> = block_on(self.0.query_first(sql));
        value
            .unwrap_or_else(|e| panic!("{sql}: {e}"))
            .unwrap_or_else(|| panic!("{sql}: no row"))
    }

    /// Runs a statement while the test goes on.
    fn start(mut self, sql: &str) -> Pending {
        let text = sql.to_string();
        let task = runtime().spawn(async move {
            let done = self.0.query_drop(&text).await;
            (self, done)
        });
        Pending {
            task,
            sql: sql.to_string(),
        }
    }
}

/// A statement under way.
struct Pending {
    task: JoinHandle<(Client, Result<(), Error>)>,
    sql: String,
}

impl Pending {
    /// Waits a moment, and says whether the statement is still not answered.
    fn waits(&self) -> bool {
        std::thread::sleep(MEANWHILE);
        !self.task.is_finished()
    }

    fn end(self) -> (Client, Result<(), Error>) {
        block_on(self.task).expect("the statement's task panicked")
    }

    /// The session, after a success.
    fn ok(self) -> Client {
        let sql = self.sql.clone();
        let (client, done) = self.end();
        done.unwrap_or_else(|e| panic!("{sql}: {e}"));
        client
    }
}

/// Runs a test on both families.
fn on_both(test: impl Fn(&Pair)) {
    for family in Family::BOTH {
        if let Some(pair) = pair(family) {
            test(pair);
        }
    }
}
