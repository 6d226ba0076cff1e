//! Faults between the proxy and its servers (DESIGN §2, promise 3): a cut at
//! every packet, full disks, clocks that jump, servers that restart, names that
//! move. Afterwards rows are equal or the journal names them, and nothing of
//! any client is left over.

mod cuts;
mod disk;
mod surroundings;

use crate::support::proc::block_on;
use crate::support::{Proxy, Server};
use mysql_async::prelude::Queryable;
use mysql_async::{Conn, Error};

/// Whether an error is one that a client gets when its server goes away.
fn connection_lost(e: &Error) -> bool {
    match e {
        Error::Io(_) | Error::Driver(_) => true,
        // Shutdown in progress, and the farewells of killed connections.
        Error::Server(e) => matches!(e.code, 1053 | 1927 | 2013 | 4031),
        _ => false,
    }
}

/// How many ids of `table` the first server has and the second lacks.
fn lacking(of: &Server, on: &Server, table: &str) -> usize {
    let ids = |server: &Server| -> std::collections::BTreeSet<String> {
        let rows = server.query(&format!("SELECT id, v FROM {table}"));
        let texts = rows.into_iter().map(|row| format!("{row:?}"));
        texts.collect()
    };
    let there = ids(on);
    ids(of).iter().filter(|row| !there.contains(*row)).count()
}

fn insert(conn: &mut Conn, table: &str, id: usize) -> Result<(), Error> {
    block_on(conn.query_drop(format!("INSERT INTO {table} VALUES ({id}, 1)")))
}

/// Connects as the application; None when the proxy refused as a server does.
fn connect(proxy: &Proxy) -> Result<Conn, Error> {
    block_on(Conn::new(proxy.opts(Some("t"))))
}
