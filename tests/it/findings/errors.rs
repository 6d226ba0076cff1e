//! What a refused statement, or one of several, leaves behind in its session.

use super::second::on_both;
use super::{numbered, shared};
use crate::order::patient;
use crate::support::proc::block_on;
use crate::support::{Family, Proxy, ProxyOptions};

/// The race: 1. A text's first statement is refused; 2. those behind it are believed
/// to have run; 3. the clock of every later write stands still.
#[test]
fn what_stands_behind_a_refused_statement_is_not_believed() {
    on_both("sf", |two| {
        let mut client = two.client();
        client.error("SELECT nope FROM f_sfx; SET timestamp=1000");
        for n in [1, 2] {
            client.run("UPDATE f_sfx SET v=UNIX_TIMESTAMP() WHERE id=1");
            let now: u64 = client.value("SELECT UNIX_TIMESTAMP()");
            assert!(now > 1_000_000, "{} {n}: {now}", two.family);
            let slept: u64 = client.value("SELECT SLEEP(1.1) + UNIX_TIMESTAMP()");
            let later: u64 = client.value("SELECT UNIX_TIMESTAMP()");
            assert!(later > now, "{} {n}: {now} {slept}", two.family);
        }
        client.run("LOCK TABLES f_sfu WRITE");
        client.error("SELECT nope FROM f_sfu; UNLOCK TABLES");
        client.run("UPDATE f_sfu SET v=5 WHERE id=1");
        assert_eq!(client.error("UPDATE f_sfx SET v=5 WHERE id=1"), 1100);
        client.run("UNLOCK TABLES");
        client.run("UPDATE f_sfx SET v=6 WHERE id=1");
    });
}

/// What a routine has set before it failed, the mirror's copies run under, too;
/// and what was set aside by sql_mode is rolled back where it was asked for.
#[test]
fn a_failed_routine_has_set_what_it_has_set() {
    on_both("sg", |two| {
        for server in [two.source, two.target] {
            server.exec(
                "CREATE PROCEDURE t.f_sg_zone() BEGIN SET time_zone='+05:00'; \
                 SIGNAL SQLSTATE '45000'; END",
            );
        }
        let mut client = two.client();
        client.run("UPDATE f_sgx SET v=2 WHERE id=1"); // both legs are open
        assert_eq!(client.error("CALL f_sg_zone()"), 1644, "{}", two.family);
        client.run("UPDATE f_sgx SET v=UNIX_TIMESTAMP('2020-01-01 00:00:00') WHERE id=1");
        let kept = two.v(two.source, "f_sgx", 1);
        assert_eq!(kept, "1577818800", "{}", two.family);
        assert_eq!(two.v(two.target, "f_sgx", 1), kept, "{}", two.family);
        if two.family == Family::MariaDb {
            client.run("BEGIN");
            client.run("UPDATE f_sgx SET v=99 WHERE id=2");
            client.run("UPDATE f_sgy SET v=99 WHERE id=2");
            client.run("SET sql_mode=ORACLE");
            client.run("ROLLBACK");
            client.run("SET sql_mode=DEFAULT");
            for server in [two.source, two.target] {
                assert_eq!(two.v(server, "f_sgx", 2), "2");
                assert_eq!(two.v(server, "f_sgy", 2), "2");
            }
        }
    });
}

/// COMMIT without a word of it begins the next transaction under
/// `completion_type=CHAIN`: what is in that is no part of the one before, and a
/// client that only chains holds no change of phase up.
#[test]
fn a_chain_by_completion_type_is_one() {
    on_both("sj", |two| {
        let mut client = two.client();
        client.run("SET completion_type=CHAIN");
        client.run("BEGIN");
        client.run("UPDATE f_sjx SET v=10 WHERE id=1");
        client.run("COMMIT");
        client.run("UPDATE f_sjx SET v=11 WHERE id=1");
        client.run("ROLLBACK");
        for server in [two.source, two.target] {
            assert_eq!(two.v(server, "f_sjx", 1), "10", "{}", two.family);
        }
        client.run("UPDATE f_sjx SET v=12 WHERE id=1");
        client.run("COMMIT");
        two.proxy.must_advance("sx", "target_first");
        client.run("UPDATE f_sjx SET v=13 WHERE id=1");
        client.run("COMMIT AND NO CHAIN");
        for server in [two.source, two.target] {
            assert_eq!(two.v(server, "f_sjx", 1), "13", "{}", two.family);
        }
    });
}

/// LOCK TABLES commits, with autocommit off, too; one that is refused has let go
/// of the tables before it; and what MariaDB drops before it says that another
/// table is unknown, it has dropped.
#[test]
fn what_a_refused_statement_has_done_is_known() {
    on_both("sk", |two| {
        let mut client = two.client();
        client.run("SET autocommit=0");
        client.run("UPDATE f_skx SET v=10 WHERE id=1");
        client.run("LOCK TABLES f_sku WRITE");
        client.run("UNLOCK TABLES");
        client.run("ROLLBACK");
        for server in [two.source, two.target] {
            assert_eq!(two.v(server, "f_skx", 1), "10", "{}", two.family);
        }
        client.run("SET autocommit=1");
        client.run("LOCK TABLES f_sku WRITE");
        assert_eq!(client.error("LOCK TABLES f_sk_none WRITE"), 1146);
        client.run("UPDATE f_skx SET v=11 WHERE id=1");
        assert_eq!(two.v(two.target, "f_skx", 1), "11", "{}", two.family);
        client.run("CREATE TEMPORARY TABLE f_skx (id INT PRIMARY KEY, v BIGINT)");
        assert_eq!(client.error("DROP TABLE f_skx, f_sk_none"), 1051);
        client.run("UPDATE f_skx SET v=12 WHERE id=1");
        let kept = two.v(two.source, "f_skx", 1);
        assert_eq!(two.v(two.target, "f_skx", 1), kept, "{}", two.family);
        client.run("DROP TEMPORARY TABLE IF EXISTS f_skx");
        client.run("CREATE TEMPORARY TABLE f_skx (id INT PRIMARY KEY, v BIGINT)");
        let several = "DROP TABLE f_sk_none; UPDATE f_skx SET v=13 WHERE id=1";
        assert_eq!(client.error(several), 1051, "{}", two.family);
        client.run("UPDATE f_skx SET v=13 WHERE id=1");
        assert_eq!(two.v(two.target, "f_skx", 1), kept, "{}", two.family);
        client.run("DROP TEMPORARY TABLE f_skx");
    });
}

/// The race: 1. Every route is on the source alone, and what begins like an INSERT
/// is not looked at; 2. behind it stands a temporary table; 3. a flip takes its
/// session away from it.
#[test]
fn what_stands_behind_an_insert_is_known_while_nothing_is_mirrored() {
    for family in Family::BOTH {
        let Some((source, target)) = shared(family) else {
            return;
        };
        for server in [source, target] {
            server.exec(&numbered("t.f_sm"));
        }
        let mut options = ProxyOptions::route("sm", &["t.f_sm"]);
        options.extra_yaml = patient();
        let proxy = Proxy::start(source, target, options);
        let mut client = super::Client(block_on(proxy.conn(Some("t"))));
        client.run("INSERT INTO f_sm VALUES (7,7); CREATE TEMPORARY TABLE f_sm_own (i INT)");
        target.exec("INSERT INTO t.f_sm VALUES (7,7);");
        proxy.must_advance("sm", "source_first");
        let flip = proxy.advance("sm", Some("target_first"), true);
        assert!(!flip.ok() && flip.body.contains("temporary"), "{flip:?}");
        client.run("INSERT INTO f_sm_own VALUES (1)");
    }
}

/// However a session's setting came to be, both sides' copies run under it.
#[test]
fn a_setting_is_told_to_a_leg_that_is_open_however_it_was_made() {
    on_both("sn", |two| {
        for server in [two.source, two.target] {
            server.exec(
                "CREATE PROCEDURE t.f_sn_plain(z TEXT) BEGIN SET time_zone=z; END;\n\
                 CREATE PROCEDURE t.f_sn_at(z TEXT) BEGIN SET @@time_zone=z; END;\n\
                 CREATE PROCEDURE t.f_sn_fails(z TEXT) BEGIN SET time_zone=z; \
                 SIGNAL SQLSTATE '45000'; END;\n\
                 CREATE PROCEDURE t.f_sn_atfails(z TEXT) BEGIN SET @@time_zone=z; \
                 SIGNAL SQLSTATE '45000'; END",
            );
        }
        let mut client = two.client();
        client.run("UPDATE f_snx SET v=0 WHERE id=1"); // both legs are open
        let mut wrong = Vec::new();
        let ways = [
            "SET time_zone='{}'",
            "SET @@time_zone='{}'",
            "SET @@session.time_zone='{}'",
            "CALL f_sn_plain('{}')",
            "CALL f_sn_at('{}')",
            "CALL f_sn_fails('{}')",
            "CALL f_sn_atfails('{}')",
            "SET @@time_zone='{}'; SELECT nope",
            "SET time_zone='{}'; SELECT nope",
            "SELECT 1; SET @@time_zone='{}'",
            "EXECUTE IMMEDIATE \"SET @@time_zone='{}'\"",
            "SET @z=1, @@time_zone=CONCAT('{}','')",
        ];
        for (minute, way) in (10..).zip(ways) {
            if way.starts_with("EXECUTE") && two.family == Family::MySql {
                continue;
            }
            let sql = way.replace("{}", &format!("+01:{minute}"));
            let _ = client.try_run(&sql);
            client.run("UPDATE f_snx SET v=UNIX_TIMESTAMP('2020-01-02 00:00:00') WHERE id=1");
            let is = 1_577_923_200 - 3600 - i64::from(minute) * 60;
            let (source, target) = (two.v(two.source, "f_snx", 1), two.v(two.target, "f_snx", 1));
            if source != is.to_string() || target != source {
                wrong.push(format!("{sql}: {is} {source} {target}"));
            }
        }
        assert_eq!(wrong, Vec::<String>::new(), "{}", two.family);
        // Set back to what new sessions have, by a routine, and then a flip.
        client.run("CALL f_sn_at('SYSTEM')");
        two.proxy.must_advance("sx", "target_first");
        client.run("UPDATE f_snx SET v=UNIX_TIMESTAMP('2020-01-02 00:00:00') WHERE id=1");
        let is = two
            .target
            .one("SELECT UNIX_TIMESTAMP('2020-01-02 00:00:00')");
        assert_eq!(two.v(two.target, "f_snx", 1), is, "{}", two.family);
        assert_eq!(two.v(two.source, "f_snx", 1), is, "{}", two.family);
    });
}
