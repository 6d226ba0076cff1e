//! The marks of another installation on a server that both write.

use super::Pipe;
use crate::or_skip;
use crate::support::Family;
use crate::support::servers::shared;
use lockstep::Side;

/// What one installation has written is skipped by its own follower of the other
/// direction, and is a client's writing to that of another.
#[test]
fn what_another_installation_wrote_is_followed() {
    for family in Family::BOTH {
        let source = or_skip!(shared(family, 0));
        let target = or_skip!(shared(family, 1));
        let to = |source, target, side, stream| Pipe {
            source,
            target,
            schema: "pm",
            stream,
            side,
        };
        let there = to(source, target, Side::Source, "r.0000.one.x-9001");
        there.exec_both("DROP DATABASE IF EXISTS pm; CREATE DATABASE pm");
        there.exec_both("CREATE TABLE pm.a (id INT PRIMARY KEY, v INT)");
        let (start, on_target) = (
            there.now(),
            to(target, source, Side::Target, there.stream).now(),
        );
        source.exec("INSERT INTO pm.a VALUES (1, 1), (2, 2); UPDATE pm.a SET v = 3 WHERE id = 2");
        there.catch_up(&start).expect("followed");
        assert_eq!(target.one("SELECT SUM(v) FROM pm.a"), "4");
        for (stream, expected) in [("r.0000.one.x-9002", "0"), ("r.0000.two.x-9003", "2")] {
            source.exec("SET sql_log_bin=0; DELETE FROM pm.a");
            let back = to(target, source, Side::Target, stream);
            back.catch_up(&on_target).expect("followed back");
            let rows = source.one("SELECT COUNT(*) FROM pm.a");
            assert_eq!(rows, expected, "{family}: by {stream}");
        }
    }
}
