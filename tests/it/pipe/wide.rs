//! Rows of many sizes, up to those that no packet of 16 MiB holds.

use super::Pipe;
use crate::or_skip;
use crate::support::proc::block_on;
use crate::support::servers::ServerOptions;
use crate::support::{Family, Server, compare};
use std::sync::Arc;

/// For one row of 17 MiB: its packet, and the log that InnoDB writes it to.
const ROOM: [&str; 3] = [
    "--max-allowed-packet=256M",
    "--loose-innodb-redo-log-capacity=512M",
    "--loose-innodb-log-file-size=512M",
];

fn replaced(server: &Server) -> u64 {
    let row = server.query("SHOW GLOBAL STATUS LIKE 'Com_replace'");
    let number = row.first().and_then(|r| r.get(1)?.as_ref()?.parse().ok());
    number.expect("a number")
}

/// Narrow rows first, so that a chunk may have many, and wide ones behind: a
/// chunk ends by its bytes. One row is larger than a packet of the protocol.
#[test]
fn chunks_end_by_their_bytes() {
    use Family::{MariaDb, MySql};
    for (from, to) in [(MariaDb, MySql), (MySql, MariaDb)] {
        let source = or_skip!(Server::start(from, ServerOptions::args(ROOM)));
        let target = or_skip!(Server::start(to, ServerOptions::args(ROOM)));
        let pipe = Pipe::new(&source, &target, "wd");
        pipe.exec_both(
            "CREATE DATABASE wd; CREATE TABLE wd.rows1 (id INT PRIMARY KEY, b LONGBLOB)",
        );
        let series = |n: u32| {
            format!(
                "WITH RECURSIVE s AS (SELECT 1 n UNION ALL SELECT n + 1 FROM s WHERE n < {n}) SELECT"
            )
        };
        for insert in [
            format!("INSERT INTO wd.rows1 {} n, 'narrow' FROM s", series(900)),
            format!(
                "INSERT INTO wd.rows1 {} n + 900, 'narrow' FROM s",
                series(900)
            ),
            format!(
                "INSERT INTO wd.rows1 {} n + 2000, REPEAT(CHAR(65 + n % 26), 1048576) FROM s",
                series(80)
            ),
            "INSERT INTO wd.rows1 VALUES (3000, REPEAT('y', 17825792))".to_string(),
        ] {
            source.exec(&insert);
        }
        let start = pipe.now();
        let before = replaced(&source);
        block_on(pipe.copy(&["rows1"], &start, Arc::default()))
            .unwrap_or_else(|e| panic!("{from} → {to}: {e}"));
        // Each chunk begins with a watermark.
        let chunks = replaced(&source) - before;
        assert!(chunks > 20, "{from} → {to}: {chunks} chunks");
        source.exec(
            "INSERT INTO wd.rows1 VALUES (3001, REPEAT('z', 17825792));
             UPDATE wd.rows1 SET b = CONCAT(b, 'y') WHERE id = 3000",
        );
        pipe.catch_up(&start)
            .unwrap_or_else(|e| panic!("{from} → {to}: {e}"));
        let rows = compare::assert_equal(&source, &target, &["wd.rows1"]);
        assert_eq!(rows, 1882, "{from} → {to}");
    }
}
