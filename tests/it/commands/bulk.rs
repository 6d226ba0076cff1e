//! MariaDB's bulk EXECUTE where its answers are not enough: what is counted,
//! and what becomes of it after a flip to a server that does not know it.

use super::cases::bulk_body;
use super::counted::{numbered, proxy};
use super::pair;
use crate::order::{counts, journal};
use crate::support::Family;
use crate::transparency::raw::MODERN;
use crate::transparency::run::{Mode, Param, Run};
use lockstep::wire::Capabilities;
use lockstep::wire::command::COM_STMT_BULK_EXECUTE;
use lockstep::wire::ok::OkPacket;

/// Affected rows and insert id of the last answer.
fn acknowledged(run: &Run) -> (u64, u64) {
    let last = run.record.last().and_then(|e| e.packets.first());
    let payload = &last.expect("an answer").payload;
    match OkPacket::parse(payload, run.mode.capabilities) {
        Ok(ok) => (ok.affected_rows, ok.insert_id),
        Err(e) => panic!("{e}: {}", payload.escape_ascii()),
    }
}

#[test]
fn bulk_is_deferred_and_crosses_a_flip() {
    for target in Family::BOTH {
        let Some(pair) = pair(Family::MariaDb, target) else {
            return;
        };
        let proxy = proxy(&pair, "bulked");
        let mode = Mode {
            name: "bulk",
            capabilities: MODERN.with(Capabilities::MARIADB_BULK),
            prepared: false,
            diagnostics: false,
        };
        let mut run = Run::start(proxy.port(), "t", mode).expect("login");
        assert!(run.raw.capabilities.has(Capabilities::MARIADB_BULK));
        let insert = run.prepare("INSERT INTO bulked (v, s) VALUES (?, ?)");
        let insert = insert.expect("prepare").expect("id");
        let types = [Param::Int(0), Param::Text("")];
        let rows: [&[(u8, Param)]; 3] = [
            &[(0, Param::Int(10)), (0, Param::Text("ten"))],
            &[(1, Param::Null), (0, Param::Text("none"))],
            &[(0, Param::Int(30)), (1, Param::Null)],
        ];
        let body = bulk_body(Some(&types), &rows);
        let again = bulk_body(None, &rows);
        for (n, phase) in ["source_only", "source_first", "target_first"]
            .iter()
            .enumerate()
        {
            if *phase != "source_only" {
                proxy.must_advance("r", phase);
            }
            numbered(&pair, "t.bulked");
            let before = counts(&proxy, "r");
            // The types were sent once, to one leg.
            let sent = if n == 0 { &body } else { &again };
            run.statement(COM_STMT_BULK_EXECUTE, insert, sent)
                .expect("bulk");
            assert_eq!(acknowledged(&run), (3, 4), "{target} {phase}");
            let server = if *phase == "target_first" {
                pair.target
            } else {
                pair.source
            };
            let sql = "SELECT GROUP_CONCAT(COALESCE(v, 'NULL'), ':', COALESCE(s, 'NULL') ORDER BY id) \
                       FROM t.bulked WHERE id > 3";
            assert_eq!(
                server.one(sql),
                "10:ten,NULL:none,30:NULL",
                "{target} {phase}"
            );
            let now = counts(&proxy, "r");
            let deferred = u64::from(*phase != "source_only");
            assert_eq!(
                (now.failed - before.failed, now.deferred - before.deferred),
                (0, deferred),
                "{target} {phase}\n{}",
                journal(&proxy)
            );
        }
        // An error undoes all of its rows.
        let twice = run.prepare("INSERT INTO bulked (id, v) VALUES (?, 1)");
        let twice = twice.expect("prepare").expect("id");
        let rows: [&[(u8, Param)]; 2] = [&[(0, Param::Int(70))], &[(0, Param::Int(1))]];
        let body = bulk_body(Some(&types[..1]), &rows);
        run.statement(COM_STMT_BULK_EXECUTE, twice, &body)
            .expect("bulk");
        let count = "SELECT COUNT(*) FROM t.bulked WHERE id = 70";
        assert_eq!(pair.target.one(count), "0", "{target}");
        // And the session is none the worse for it.
        run.text("SELECT 1").expect("alive");
    }
}
