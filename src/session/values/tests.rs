use super::*;
use crate::sql::scan;

const MODE: fn() -> ScanMode = ScanMode::default;

fn misses(values: &mut Values, sql: &str) -> bool {
    let facts = scan(sql.as_bytes(), MODE());
    values.misses(&facts, sql.as_bytes(), MODE(), opaque(&facts))
}

/// @x was set on the target; the source has a leg, too.
fn set_on_target() -> Values {
    let mut values = Values::new(Side::Source);
    values.leg_opened(Side::Target);
    values.remember_names(b"SET @x = 1", MODE());
    values.variables.changed(Side::Target);
    values
}

#[test]
fn what_went_with_a_leg_is_missed_once_it_is_asked_for() {
    let mut values = set_on_target();
    assert!(values.settled_on(Side::Target) && !misses(&mut values, "SELECT @x"));
    assert!(values.leg_gone(Side::Target));
    assert!(!values.leg_gone(Side::Target));
    values.leg_opened(Side::Target);
    assert!(!values.settled_on(Side::Source) && !values.settled_on(Side::Target));
    assert!(misses(&mut values, "SELECT @`X` + 1"));
    assert!(misses(&mut values, "CALL p()"));
    assert!(!misses(&mut values, "SELECT @y"));
    assert!(!misses(&mut values, "SELECT 1"));
    assert!(!misses(&mut values, "SELECT LAST_INSERT_ID()"));
    // It has a value again.
    for sets in [
        "SET @x = 2",
        "SET @x=1, @b := 2",
        "SET @x = @@sql_mode, @@sql_mode=''",
    ] {
        let mut values = set_on_target();
        values.leg_gone(Side::Target);
        assert!(!misses(&mut values, sets), "{sets}");
        assert!(!misses(&mut values, "SELECT @x"), "{sets}");
    }
    for reads in [
        "SET @y = @x",
        "SET @y = 1, @z = @x + 1",
        "SET sql_mode = @x",
    ] {
        assert!(misses(&mut values, reads), "{reads}");
    }
}

/// What a session that names no variable may have set unseen ends no other.
#[test]
fn what_nobody_saw_is_not_missed() {
    let mut values = Values::new(Side::Source);
    values.leg_opened(Side::Target);
    values.unclassified(Side::Source);
    assert!(!values.leg_gone(Side::Source));
    for sql in [
        "SET @a=1, @b=2",
        "SELECT 1 INTO @a",
        "CALL p(@out)",
        "SELECT @a",
    ] {
        assert!(!misses(&mut values, sql), "{sql}");
    }
    assert!(misses(&mut values, "SELECT LAST_INSERT_ID()"));
    values.id_again();
    assert!(!misses(&mut values, "SELECT LAST_INSERT_ID()"));
    assert!(values.gone.is_none());
}

#[test]
fn what_both_legs_had_is_not_missed() {
    let mut values = set_on_target();
    values.variables.moved(Side::Source);
    values.ids.changed(Side::Target);
    values.ids.moved(Side::Source);
    assert!(!values.leg_gone(Side::Target));
    assert!(values.settled_on(Side::Source));
    values.leg_opened(Side::Target);
    assert!(!values.settled_on(Side::Target) && !values.has_id(Side::Target));
    assert!(!misses(&mut values, "SELECT @x, LAST_INSERT_ID()"));
}

#[test]
fn a_lost_insert_id_is_missed() {
    let mut values = Values::new(Side::Source);
    values.ids.changed(Side::Target);
    assert!(!values.leg_gone(Side::Target));
    assert!(!values.has_id(Side::Source));
    assert!(misses(&mut values, "SELECT LAST_INSERT_ID()"));
    assert!(!misses(&mut values, "INSERT INTO t VALUES (1)"));
}
