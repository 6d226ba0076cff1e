//! Tables whose keys the sides order differently, or that have none; what is
//! refused; windows; pauses.

use super::{Rig, pairs, quiet, servers, verdict};
use crate::support::servers::ServerOptions;
use crate::support::{Family, Server, compare};
use lockstep::compare::{Kind, Verdict};
use std::sync::atomic::Ordering;
use std::time::Duration;

/// Numbers from 1 to 5,000.
const MANY: &str = "(WITH RECURSIVE s AS (SELECT 1 n UNION ALL SELECT n + 1 FROM s WHERE n < 500) SELECT a.n + 500 * b.n n FROM s a, s b WHERE b.n <= 10) q";

fn fresh(active: &Server, mirror: &Server, create: [&str; 2], rows: &[String]) {
    for (server, create) in [active, mirror].into_iter().zip(create) {
        server.exec("DROP DATABASE IF EXISTS od;\nCREATE DATABASE od");
        server.exec(create);
        rows.iter().for_each(|sql| server.exec(sql));
    }
}

#[test]
fn tables_of_all_sorts() {
    let Some(servers) = servers(&ServerOptions::default()) else {
        return;
    };
    for (active, mirror) in pairs(&servers) {
        other_order(active, mirror);
        no_key(active, mirror);
        refused(active, mirror);
        windows(active, mirror);
        paused(active, mirror);
    }
    let [[active, replica], [mirror, _]] = &servers;
    replicas(active, replica, mirror);
}

/// A replica that is behind makes suspects, which the backend itself clears;
/// what both it and the backend have wrong is found.
fn replicas(active: &Server, replica: &Server, mirror: &Server) {
    let create = "CREATE TABLE od.q (id INT PRIMARY KEY, v INT NOT NULL)";
    let rows = [format!("INSERT INTO od.q SELECT n, n FROM {MANY}")];
    fresh(active, mirror, [create, create], &rows);
    fresh(replica, mirror, [create, create], &rows);
    replica.exec("UPDATE od.q SET v = 0 WHERE id % 100 = 0;\nDELETE FROM od.q WHERE id = 1007");
    mirror.exec("UPDATE od.q SET v = 0 WHERE id = 1009");
    let address = [Some(replica.address()), None];
    let rig = Rig::with(active, mirror, "od", quiet(), address);
    let report = rig.run(Kind::Full, false);
    let suspects = rig.comparer.status().suspects.load(Ordering::Relaxed);
    assert_eq!((suspects, report.open), (52, 1), "{report:?}");
}

/// A key of text that the two sides collate differently, with JSON, which two
/// families compare by value.
fn other_order(active: &Server, mirror: &Server) {
    let collation = |family| match family {
        Family::MariaDb => "utf8mb4_uca1400_ai_ci",
        Family::MySql => "utf8mb4_0900_ai_ci",
    };
    let create = |collation: &str| {
        format!(
            "CREATE TABLE od.w (w VARCHAR(40) COLLATE {collation} PRIMARY KEY, v INT NOT NULL, j JSON) DEFAULT CHARSET utf8mb4"
        )
    };
    let (first, second) = if active.family() == mirror.family() {
        ("utf8mb4_unicode_ci", collation(mirror.family()))
    } else {
        (collation(active.family()), collation(mirror.family()))
    };
    let rows = [
        format!("INSERT INTO od.w SELECT CONCAT(CHAR(97 + n % 26), '_-', n), n, CONCAT('{{\"bb\": ', n, ', \"a\": [1.5, 2]}}') FROM {MANY}"),
        "INSERT INTO od.w VALUES ('ä', 1, NULL), ('z-', 2, '1e100'), ('_', 3, '{}'), ('ß x', 4, '\"q\"')".to_string(),
    ];
    fresh(active, mirror, [&create(first), &create(second)], &rows);
    let rig = Rig::new(active, mirror, "od", quiet());
    let pair = format!("{} → {}", active.family(), mirror.family());
    let report = rig.run(Kind::Full, false);
    assert!(report.is_clean(), "{pair}: {report:?} {:?}", rig.open());
    assert_eq!(report.rows, 5004, "{pair}");
    let json = if active.family() == mirror.family() {
        "[1, 2.5]"
    } else {
        "[1.5, 3]"
    };
    for sql in [
        "DELETE FROM od.w WHERE v = 700",
        "UPDATE od.w SET v = -1 WHERE v = 4000",
        "UPDATE od.w SET w = UPPER(w) WHERE v = 4001",
        "INSERT INTO od.w VALUES ('___', 1, NULL), ('zzzz', 1, NULL)",
    ] {
        mirror.exec(sql);
    }
    mirror.exec(&format!(
        "UPDATE od.w SET j = '{{\"bb\": 4002, \"a\": {json}}}' WHERE v = 4002"
    ));
    for kind in [Kind::Full, Kind::Strong] {
        let report = rig.run(kind, false);
        assert_eq!(report.open, 6, "{pair}: {:?}", rig.open());
    }
    let report = rig.run(Kind::Full, true);
    assert_eq!(
        (report.open, report.repaired),
        (0, 6),
        "{pair}: {:?}",
        rig.open()
    );
    compare::assert_equal(active, mirror, &["od.w"]);
}

fn no_key(active: &Server, mirror: &Server) {
    let create = "CREATE TABLE od.n (a INT, t VARCHAR(20)) DEFAULT CHARSET utf8mb4";
    let rows = [
        format!("INSERT INTO od.n SELECT n % 10, IF(n % 3 = 0, NULL, 'x') FROM {MANY}"),
        "INSERT INTO od.n VALUES (NULL, NULL), (NULL, NULL)".to_string(),
    ];
    fresh(active, mirror, [create, create], &rows);
    let rig = Rig::new(active, mirror, "od", quiet());
    assert!(rig.run(Kind::Full, false).is_clean());
    // A row twice instead of another once: the same set, not the same rows.
    mirror.exec("DELETE FROM od.n WHERE a = 1 LIMIT 1;\nINSERT INTO od.n VALUES (2, 'x')");
    let report = rig.run(Kind::Full, true);
    assert_eq!(verdict(&report, "od.n"), Verdict::Different);
    assert_eq!((report.open, report.is_clean()), (1, false));
    mirror.exec("DELETE FROM od.n");
    rows.iter().for_each(|sql| mirror.exec(sql));
    assert!(rig.run(Kind::Full, false).is_clean());
}

fn refused(active: &Server, mirror: &Server) {
    let create = [
        "CREATE TABLE od.r (a INT PRIMARY KEY, b INT)",
        "CREATE TABLE od.r (a INT PRIMARY KEY, c INT)",
    ];
    fresh(active, mirror, create, &[]);
    active.exec("CREATE TABLE od.alone (a INT PRIMARY KEY)");
    let rig = Rig::new(active, mirror, "od", quiet());
    let report = rig.run(Kind::Full, false);
    for (table, why) in [
        ("od.r", "on one side only: b, c"),
        ("od.alone", "no such table"),
    ] {
        let said = format!("{:?}", verdict(&report, table));
        assert!(said.contains(why), "{said}");
    }
    assert!(!report.is_clean());
    // Gone while it is compared.
    let rig = Rig::new(active, mirror, "od", quiet());
    mirror.exec("DROP TABLE od.r");
    assert!(!rig.run(Kind::Full, false).is_clean());
}

fn windows(active: &Server, mirror: &Server) {
    let create = "CREATE TABLE od.u (id INT PRIMARY KEY, v INT NOT NULL, at TIMESTAMP(3) NOT NULL DEFAULT CURRENT_TIMESTAMP(3) ON UPDATE CURRENT_TIMESTAMP(3), KEY (at));\nCREATE TABLE od.x (id INT PRIMARY KEY)";
    let rows = ["SET time_zone = '+00:00', timestamp = UNIX_TIMESTAMP(NOW() - INTERVAL 1 HOUR);\nINSERT INTO od.u (id, v, at) VALUES (1,1,NOW(3)), (2,2,NOW(3)), (3,3,NOW(3)), (4,4,NOW(3)), (5,5,'2001-01-01')".to_string()];
    fresh(active, mirror, [create, create], &rows);
    active.exec("UPDATE od.u SET at = '2001-01-01' WHERE id = 5");
    mirror.exec(&format!(
        "DELETE FROM od.u;\nINSERT INTO od.u VALUES {}",
        active
            .query("SELECT CONCAT('(', id, ',', v, ',''', at, ''')') FROM od.u")
            .into_iter()
            .flatten()
            .flatten()
            .collect::<Vec<_>>()
            .join(",")
    ));
    let rig = Rig::new(active, mirror, "od", quiet());
    let report = rig.run(Kind::Window, false);
    assert_eq!(verdict(&report, "od.u"), Verdict::NotProof);
    assert!(matches!(verdict(&report, "od.x"), Verdict::NotCompared(_)));
    assert_eq!((report.rows, report.open), (4, 0));
    // One that the window has, one that it has not, one newer on the mirror.
    mirror.exec("UPDATE od.u SET v = -1, at = at WHERE id IN (2, 5)");
    mirror.exec("UPDATE od.u SET v = -1 WHERE id = 3");
    let report = rig.run(Kind::Window, false);
    assert_eq!((report.rows, report.open), (0, 0), "behind the last window");
    let rig = Rig::new(active, mirror, "od", quiet());
    let report = rig.run(Kind::Window, true);
    assert_eq!(
        (report.rows, report.repaired),
        (4, 1),
        "{:?}",
        rig.list.list()
    );
    assert_eq!(rig.run(Kind::Full, true).repaired, 2);
    compare::assert_equal(active, mirror, &["od.u"]);
}

fn paused(active: &Server, mirror: &Server) {
    let create = "CREATE TABLE od.p (id INT PRIMARY KEY, v INT NOT NULL)";
    let rows = [format!("INSERT INTO od.p SELECT n * 1000, n FROM {MANY}")];
    fresh(active, mirror, [create, create], &rows);
    let rig = Rig::new(active, mirror, "od", quiet());
    let status = rig.comparer.status().clone();
    status.pause();
    std::thread::scope(|scope| {
        let running = scope.spawn(|| rig.run(Kind::Full, false));
        std::thread::sleep(Duration::from_millis(500));
        assert_eq!(status.rows_compared.load(Ordering::Relaxed), 0);
        assert!(!running.is_finished());
        status.resume();
        let report = running.join().expect("a report");
        assert!(report.is_clean());
        assert_eq!(report.rows, 5000);
    });
}
