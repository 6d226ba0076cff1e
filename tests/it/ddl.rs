//! DDL on mirrored tables: on both sides, once, in one order, whatever else is
//! under way (DESIGN §5, "DDL on a routed table").

mod acting;
mod followed;
mod stress;

use crate::support::proc::{block_on, wait_for};
use crate::support::{Family, Proxy, ProxyOptions, Server, servers};
use mysql_async::prelude::Queryable;
use mysql_async::{Conn, Error};
use std::time::{Duration, Instant};

const FAMILIES: [Family; 2] = [Family::MariaDb, Family::MySql];
const ROUTE: &str = "ddl";

/// Long enough for a statement to have got to where it waits.
const MEANWHILE: Duration = Duration::from_millis(300);

/// Two servers with schemas of this test's own, mirrored.
struct Pair {
    source: &'static Server,
    target: &'static Server,
    proxy: Proxy,
    database: String,
}

impl Pair {
    /// `limits` is the proxy's section of that name.
    fn start(family: Family, database: &str, limits: &str) -> Option<Pair> {
        let server = |index| match servers::shared(family, index) {
            Ok(server) => Some(server),
            Err(missing) => {
                crate::support::skip(&missing);
                None
            }
        };
        let (source, target) = (server(0)?, server(1)?);
        for server in [source, target] {
            for name in [database.to_string(), format!("{database}_more")] {
                server.exec(&format!("DROP DATABASE IF EXISTS {name}"));
            }
            server.exec(&format!(
                "CREATE DATABASE {database}; CREATE TABLE {database}.t (id INT PRIMARY KEY, v INT); \
                 CREATE TABLE {database}.u (id INT PRIMARY KEY, v INT); \
                 INSERT INTO {database}.t VALUES (1, 1), (2, 2); \
                 INSERT INTO {database}.u VALUES (1, 1); \
                 GRANT ALL PRIVILEGES ON `{database}%`.* TO '{}'@'%'",
                servers::APP.0
            ));
        }
        let mut options = ProxyOptions::route(ROUTE, &[&format!("{database}*.*")]);
        options.extra_yaml = format!(
            "limits: {{ mirror_deadline_ms: 10000, {limits} }}\n{}",
            crate::order::USERS
        );
        let proxy = Proxy::start(source, target, options);
        let pair = Pair {
            source,
            target,
            proxy,
            database: database.to_string(),
        };
        known(&pair.proxy, database);
        pair.proxy.must_advance(ROUTE, "source_first");
        // DDL waits for a follower that has yet to begin.
        pair.proxy.wait_followed(ROUTE, Duration::from_secs(20));
        Some(pair)
    }

    async fn conn(&self) -> Conn {
        self.proxy.conn(Some(&self.database)).await
    }

    /// Every definition in the schemas, one line each.
    fn definitions(&self, server: &Server) -> Vec<String> {
        let sql = format!(
            "SELECT CONCAT_WS(' ', TABLE_SCHEMA, TABLE_NAME, COLUMN_NAME, COLUMN_TYPE, \
             COLUMN_COMMENT) FROM information_schema.COLUMNS WHERE TABLE_SCHEMA LIKE '{0}%' \
             UNION SELECT SCHEMA_NAME FROM information_schema.SCHEMATA \
             WHERE SCHEMA_NAME LIKE '{0}%' ORDER BY 1",
            self.database
        );
        let rows = server.query(&sql);
        rows.into_iter().flatten().flatten().collect()
    }

    fn assert_same(&self) -> Vec<String> {
        let [source, target] = [self.source, self.target].map(|s| self.definitions(s));
        assert_eq!(source, target, "{}", self.proxy.log());
        source
    }

    /// The route is mirrored, and no write went to one side only.
    fn assert_all_mirrored(&self) {
        self.assert_running();
        let missed = (self.failed(), self.deferred());
        assert_eq!(missed, (0, 0), "{}", self.proxy.log());
    }

    fn assert_running(&self) {
        let route = self.proxy.route(ROUTE);
        assert_eq!(route["mirror"]["suspended"], false, "{route}");
    }

    fn failed(&self) -> u64 {
        let route = self.proxy.route(ROUTE);
        route["mirror"]["writes_failed"].as_u64().unwrap_or(0)
    }

    fn deferred(&self) -> u64 {
        let route = self.proxy.route(ROUTE);
        route["mirror"]["writes_deferred"].as_u64().unwrap_or(0)
    }
}

/// Over TLS a first login shows the password to the proxy, whatever the server
/// has cached.
fn known(proxy: &Proxy, database: &str) {
    let (user, password) = servers::APP;
    let opts = servers::tls_opts(proxy.port(), user, password, Some(database));
    block_on(async { Conn::new(opts).await.unwrap().disconnect().await }).unwrap();
}

fn has(definitions: &[String], name: &str) -> bool {
    definitions.iter().any(|d| d.contains(name))
}

async fn run(conn: &mut Conn, sql: &str) {
    let ran = conn.query_drop(sql).await;
    ran.unwrap_or_else(|e| panic!("{sql}: {e}"));
}

fn code(error: &Error) -> u16 {
    match error {
        Error::Server(e) => e.code,
        other => panic!("not the server's error: {other}"),
    }
}

/// An edge that waits for a transaction is waited for, and the DDL then runs
/// by the new phase; neither is refused.
#[test]
fn ddl_waits_for_an_edge_under_way() {
    for family in FAMILIES {
        let Some(pair) = Pair::start(family, "ddl_edge", "drain_ms: 8000, gate_ms: 12000") else {
            return;
        };
        block_on(async {
            let (mut writer, mut other) = (pair.conn().await, pair.conn().await);
            run(&mut writer, "BEGIN").await;
            run(&mut writer, "UPDATE t SET v = v + 1 WHERE id = 1").await;
            std::thread::scope(|scope| {
                let edge = scope.spawn(|| pair.proxy.advance(ROUTE, Some("target_first"), true));
                std::thread::sleep(MEANWHILE);
                let altering = scope.spawn(|| {
                    block_on(async {
                        run(&mut other, "ALTER TABLE u ADD COLUMN first_one INT").await;
                        run(&mut other, "CREATE TABLE made (id INT PRIMARY KEY)").await;
                        other
                    })
                });
                std::thread::sleep(MEANWHILE);
                assert!(!edge.is_finished() && !altering.is_finished());
                block_on(run(&mut writer, "COMMIT"));
                let answer = edge.join().unwrap();
                assert!(answer.ok(), "{answer:?}");
                altering.join().unwrap();
            });
        });
        assert_eq!(pair.proxy.phase(ROUTE), "target_first");
        let now = pair.assert_same();
        assert!(has(&now, "first_one") && has(&now, "made"), "{now:?}");
        pair.assert_running();
        assert_eq!((pair.failed(), pair.deferred()), (0, 0));
    }
}

/// DDL under way is waited for by an edge, for as long as the gate may be
/// closed; beyond it the edge is refused and says why.
#[test]
fn an_edge_waits_for_ddl_and_names_it() {
    for family in FAMILIES {
        let Some(pair) = Pair::start(family, "ddl_wait", "drain_ms: 500, gate_ms: 2000") else {
            return;
        };
        block_on(async {
            // Beside the proxy, so that no drain sees it.
            let mut foreign = pair.source.conn().await;
            let mut other = pair.conn().await;
            for (held, refused) in [(MEANWHILE, false), (Duration::from_secs(4), true)] {
                run(&mut foreign, "BEGIN").await;
                let read = format!("SELECT * FROM {}.t", pair.database);
                run(&mut foreign, &read).await;
                let name = if refused { "late" } else { "soon" };
                let sql = format!("ALTER TABLE t ADD COLUMN {name} INT");
                std::thread::scope(|scope| {
                    let altering = scope.spawn(|| block_on(run(&mut other, &sql)));
                    std::thread::sleep(MEANWHILE);
                    let edge =
                        scope.spawn(|| pair.proxy.advance(ROUTE, Some("target_first"), true));
                    std::thread::sleep(held);
                    assert!(!altering.is_finished());
                    assert_eq!(edge.is_finished(), refused);
                    block_on(run(&mut foreign, "COMMIT"));
                    altering.join().unwrap();
                    let answer = edge.join().unwrap();
                    assert_eq!(answer.ok(), !refused, "{answer:?}");
                    if refused {
                        assert!(answer.body.contains("no_other_change"), "{}", answer.body);
                        assert!(answer.body.contains("DDL on both sides"), "{}", answer.body);
                    } else {
                        pair.proxy.must_rollback(ROUTE, "source_first");
                    }
                });
                assert!(has(&pair.assert_same(), name));
            }
        });
        pair.assert_running();
        assert_eq!(pair.failed(), 0);
    }
}

/// A transaction that does not end is no reason to run on one side only, nor
/// to stop the route: both sides get the DDL beside it.
#[test]
fn ddl_runs_on_both_sides_beside_an_open_transaction() {
    for family in FAMILIES {
        let Some(pair) = Pair::start(family, "ddl_open", "drain_ms: 300, gate_ms: 1000") else {
            return;
        };
        block_on(async {
            let (mut writer, mut other) = (pair.conn().await, pair.conn().await);
            run(&mut writer, "BEGIN").await;
            run(&mut writer, "UPDATE t SET v = v + 1 WHERE id = 1").await;
            // Nobody can have planned a write to it.
            let began = Instant::now();
            run(&mut other, "CREATE TABLE made (id INT PRIMARY KEY)").await;
            run(&mut other, "ALTER TABLE u ADD COLUMN w INT").await;
            println!("{family}: {:?}", began.elapsed());
            run(&mut writer, "UPDATE u SET v = 7, w = 8 WHERE id = 1").await;
            run(&mut writer, "COMMIT").await;
            run(&mut other, "UPDATE u SET w = w + 1 WHERE id = 1").await;
        });
        let now = pair.assert_same();
        assert!(has(&now, " w int") && has(&now, "made"), "{now:?}");
        pair.assert_running();
        assert_eq!(pair.failed(), 0, "{}", pair.proxy.log());
        let sum = format!("SELECT SUM(v) FROM {}.t", pair.database);
        assert_eq!(pair.source.one(&sum), pair.target.one(&sum));
        let row = format!("SELECT CONCAT(v, '/', w) FROM {}.u", pair.database);
        assert_eq!(pair.target.one(&row), "7/9");
    }
}

/// The gate is closed for as long as an edge may close it; then writes go on,
/// deferred, while a side takes its time.
#[test]
fn other_statements_go_on_while_ddl_takes_its_time() {
    for family in FAMILIES {
        let Some(pair) = Pair::start(family, "ddl_long", "drain_ms: 300, gate_ms: 700") else {
            return;
        };
        block_on(async {
            let mut foreign = pair.target.conn().await;
            run(&mut foreign, "BEGIN").await;
            run(&mut foreign, &format!("SELECT * FROM {}.t", pair.database)).await;
            let (mut writer, mut other) = (pair.conn().await, pair.conn().await);
            std::thread::scope(|scope| {
                let altering = scope.spawn(|| {
                    block_on(run(&mut other, "ALTER TABLE t ADD COLUMN w INT"));
                });
                let waiting = "SELECT id FROM information_schema.processlist \
                               WHERE state LIKE 'Waiting for table metadata lock%'";
                wait_for("the target's ALTER to wait", Duration::from_secs(5), || {
                    !pair.target.query(waiting).is_empty()
                });
                block_on(run(&mut writer, "UPDATE u SET v = v + 1 WHERE id = 1"));
                assert!(!altering.is_finished());
                block_on(run(&mut foreign, "COMMIT"));
                altering.join().unwrap();
            });
            assert_eq!(pair.deferred(), 1);
            run(&mut writer, "UPDATE t SET w = 3 WHERE id = 1").await;
        });
        assert!(has(&pair.assert_same(), " w int"));
        pair.assert_running();
        assert_eq!((pair.failed(), pair.deferred()), (0, 1));
        let row = format!("SELECT w FROM {}.t WHERE id = 1", pair.database);
        assert_eq!(pair.target.one(&row), "3");
    }
}

/// A side that refuses it is named, and the route does not advance.
#[test]
fn a_side_that_failed_is_said() {
    for family in FAMILIES {
        let Some(pair) = Pair::start(family, "ddl_fail", "drain_ms: 1000") else {
            return;
        };
        pair.target.exec(&format!(
            "ALTER TABLE {}.t ADD COLUMN w TEXT",
            pair.database
        ));
        block_on(async {
            let mut conn = pair.conn().await;
            run(&mut conn, "ALTER TABLE t ADD COLUMN w INT").await;
            run(&mut conn, "UPDATE t SET w = 1 WHERE id = 1").await;
        });
        let route = pair.proxy.route(ROUTE);
        let why = route["mirror"]["suspended_reason"].as_str().unwrap_or("");
        assert!(why.contains("DDL failed on the target: 1060"), "{route}");
        assert_eq!(pair.failed(), 1);
        let refused = pair.proxy.advance(ROUTE, None, false);
        assert_eq!(refused.status, 409);
        assert!(refused.body.contains("mirror_not_suspended"), "{refused:?}");
        // Until its tables are equal again; that it answers does not do.
        std::thread::sleep(Duration::from_secs(3));
        let route = pair.proxy.route(ROUTE);
        assert_eq!(route["mirror"]["suspended"], true, "{route}");
        pair.target
            .exec(&format!("ALTER TABLE {}.t MODIFY w INT", pair.database));
        let again = || pair.proxy.route(ROUTE)["mirror"]["suspended"] == false;
        wait_for("it is mirrored again", Duration::from_secs(20), again);
    }
}

/// Schemas and tables that no catalog knows yet, prepared statements of both
/// kinds, and texts of several statements.
#[test]
fn ddl_of_every_form_reaches_both_sides() {
    for family in FAMILIES {
        let Some(pair) = Pair::start(family, "ddl_forms", "drain_ms: 1000") else {
            return;
        };
        let more = format!("{}_more", pair.database);
        let texts = [
            format!("CREATE DATABASE {more}"),
            format!("CREATE TABLE {more}.a (id INT PRIMARY KEY)"),
            format!("INSERT INTO {more}.a VALUES (1)"),
            "PREPARE p FROM 'CREATE TABLE prepared (id INT COMMENT ''it\\'\\'s'')'".to_string(),
            "EXECUTE p".to_string(),
            "SET @old = @@sql_mode; SET sql_mode = 'ANSI_QUOTES'; \
             CREATE TABLE \"text one\" (id INT PRIMARY KEY); INSERT INTO t VALUES (10, 10); \
             SELECT COUNT(*) FROM t; SET sql_mode = @old"
                .to_string(),
            format!("USE {more}; CREATE TABLE text_two (id INT); DROP TABLE a"),
            "CREATE TABLE text_three (id INT)".to_string(),
        ];
        block_on(async {
            let mut conn = pair.conn().await;
            for sql in &texts {
                run(&mut conn, sql).await;
            }
            let statement = format!("ALTER TABLE {}.t ADD COLUMN by_id INT", pair.database);
            conn.exec_drop(statement, ()).await.unwrap();
            if family == Family::MariaDb {
                run(
                    &mut conn,
                    "EXECUTE IMMEDIATE 'CREATE TABLE at_once (id INT)'",
                )
                .await;
            }
            // The second statement is refused, so the third is not executed.
            let text = "CREATE TABLE before_it (id INT); CREATE TABLE before_it (id INT); \
                        CREATE TABLE behind_it (id INT)";
            assert_eq!(code(&conn.query_drop(text).await.unwrap_err()), 1050);
            // One of two is there: MariaDB drops it and complains.
            let dropped = conn.query_drop("DROP TABLE before_it, nowhere").await;
            assert_eq!(code(&dropped.unwrap_err()), 1051);
        });
        let now = pair.assert_same();
        for name in [
            "prepared",
            "it's",
            "text one",
            "text_two",
            "text_three",
            "by_id",
        ] {
            assert!(has(&now, name), "{name}: {now:?}");
        }
        assert!(has(&now, &format!("{more} text_three")), "{now:?}");
        assert!(!has(&now, "behind_it") && !has(&now, " a id"), "{now:?}");
        assert_eq!(has(&now, "before_it"), family == Family::MySql, "{now:?}");
        block_on(async {
            let mut conn = pair.conn().await;
            run(&mut conn, &format!("DROP DATABASE {more}")).await;
        });
        assert!(!has(&pair.assert_same(), &more));
        pair.assert_running();
        assert_eq!(pair.failed(), 0, "{}", pair.proxy.log());
    }
}

/// DDL that cannot be parsed commits nothing; DDL that fails for another
/// reason does, as on the server itself.
#[test]
fn refused_ddl_ends_a_transaction_as_on_the_server() {
    for family in FAMILIES {
        let Some(pair) = Pair::start(family, "ddl_parse", "drain_ms: 1000") else {
            return;
        };
        let direct = pair.source.port();
        let verdicts = [direct, pair.proxy.port()].map(|port| {
            let (user, password) = servers::APP;
            let opts = servers::opts(port, user, password, Some(&pair.database));
            block_on(async {
                let mut conn = Conn::new(opts).await.unwrap();
                let mut seen = Vec::new();
                for sql in ["ALTER TABLE t ADD", "CREATE TABLE t (id INT)"] {
                    run(&mut conn, "UPDATE u SET v = 1").await;
                    run(&mut conn, "BEGIN").await;
                    run(&mut conn, "UPDATE u SET v = 2").await;
                    seen.push(u32::from(code(&conn.query_drop(sql).await.unwrap_err())));
                    run(&mut conn, "ROLLBACK").await;
                    let v: Option<u32> = conn.query_first("SELECT v FROM u").await.unwrap();
                    seen.extend(v);
                }
                seen
            })
        });
        assert_eq!(verdicts[0], verdicts[1]);
        assert_eq!(verdicts[1], [1064, 1, 1050, 2]);
        let sum = format!("SELECT v FROM {}.u", pair.database);
        assert_eq!(pair.target.one(&sum), "2");
        pair.assert_running();
    }
}
