//! What may run on the mirror before the active side has answered, and beside whom.

use super::*;

/// What may run on both sides at once locks one record of one index.
#[test]
fn one_record_of_one_index() {
    for (text, one) in [
        ("UPDATE t SET b = 'x' WHERE id = 5", true),
        ("UPDATE t SET a = a + 1, b = 'x' WHERE id IN (5)", true),
        ("UPDATE t SET b = 'x' WHERE id IN (5, 6)", false),
        ("UPDATE t SET b = 'x' WHERE id = 5 AND a = 1", false),
        ("UPDATE t SET b = 'x' WHERE a = 5", false),
        ("UPDATE t SET id = 6 WHERE id = 5", false),
        ("UPDATE t SET b = NOW() WHERE id = 5", false),
        ("UPDATE t SET b = @v WHERE id = 5", false),
        ("UPDATE t SET b = 'x'", false),
        ("DELETE FROM t WHERE id = 5", false),
        ("INSERT INTO t (id, a) VALUES (5, 1)", false),
        // The whole WHERE is a key, but not the primary one.
        ("UPDATE two SET b = 'x' WHERE a = 5", false),
    ] {
        let ahead = inline_of(text, &view()).ahead;
        assert_eq!(ahead == Ahead::Yes, one, "{text}");
    }
    let planned = |shape: TableShape| {
        let mut c = Catalog::new(false);
        c.insert(b"s", b"t", Side::Source, auto());
        c.insert(b"s", b"t", Side::Target, shape);
        let text = "UPDATE t SET b = 'x' WHERE id = 5";
        let facts = sql::scan(text.as_bytes(), view().mode);
        match plan(text.as_bytes(), &facts, &view(), &mirrored(), &c, None).plan {
            Plan::Inline(inline) => inline.ahead,
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(planned(auto()), Ahead::Yes);
    let indexed = |t: &mut TableShape| t.indexed = vec![0, 2];
    assert_eq!(planned(with(indexed)), Ahead::Unsearched);
    let changes: [fn(&mut TableShape); 4] = [
        |t| t.constrained = vec![0, 2],
        |t| t.expression_index = true,
        |t| t.generated_columns = true,
        |t| t.unique_keys[0].primary = false,
    ];
    for change in changes {
        let shape = with(|t| {
            indexed(t);
            change(t);
        });
        assert_eq!(planned(shape.clone()), Ahead::No, "{shape:?}");
    }
}

/// What may lock entries of indexes, and gaps, beside the rows it names.
#[test]
fn who_searches() {
    for (text, searches) in [
        ("UPDATE t SET b = 'x' WHERE id = 5", false),
        ("UPDATE t SET b = 'x' WHERE id = 5 AND a = 1", false),
        ("DELETE FROM t WHERE id = 5", false),
        ("INSERT INTO t (id, a) VALUES (5, 1), (6, 1)", false),
        (
            "INSERT INTO t (id, a) VALUES (5, 1) ON DUPLICATE KEY UPDATE a = 2",
            true,
        ),
        ("REPLACE INTO t (id, a) VALUES (5, 1)", true),
        ("UPDATE t SET b = 'x' WHERE a = 5", true),
        ("UPDATE t SET b = 'x' WHERE id > 5", true),
        ("UPDATE t SET b = 'x' WHERE id = '-5'", false),
        ("UPDATE t SET b = 'x' WHERE id = 'x'", true),
        ("UPDATE t SET b = 'x' WHERE id = ''", true),
        ("UPDATE t SET b = 'x'", true),
        ("DELETE FROM t WHERE id IN (5, 6)", true),
        ("UPDATE two SET b = 'x' WHERE a = 5", true),
    ] {
        assert_eq!(inline_of(text, &view()).searches, searches, "{text}");
    }
}
