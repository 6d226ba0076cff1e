//! Plans for writes and DDL: inline where row-local and still locked, else
//! deferred, with the reason (DESIGN §5).

use super::*;
use crate::rows::shape::ColumnShape;
use crate::sql::{Equality, Span};

pub(super) fn ddl(facts: &Facts, table: &RouteTable, t: &Touched) -> Planned {
    let mut out = Planned {
        plan: Plan::Active(t.side),
        routes: t.mask,
        route: t.first,
        reason: Reason::UNROUTED,
    };
    if t.first.is_none() {
        return out;
    }
    let own = t.temporary_first && facts.verb != Verb::DropTable;
    if facts.flags.any(Flags::TEMPORARY) || own {
        out.reason = Reason::TEMPORARY;
        return out;
    }
    out.reason = Reason::DDL;
    if t.mirrored {
        let both = table
            .routes
            .iter()
            .enumerate()
            .filter(|(i, r)| t.mask & route_bit(*i) != 0 && r.phase.mirrored())
            .all(|(_, r)| r.ddl == DdlPolicy::Both);
        out.plan = Plan::Ddl {
            active: t.side,
            both,
        };
    }
    out
}

pub(super) fn write(
    sql: &[u8],
    facts: &Facts,
    view: &SessionView<'_>,
    table: &RouteTable,
    catalog: &Catalog,
    parameters: Option<&dyn Parameters>,
    t: &Touched,
) -> Planned {
    let mut out = Planned {
        plan: Plan::Active(t.side),
        routes: t.mask,
        route: t.first,
        reason: Reason::PHASE,
    };
    if facts.tables.is_empty() {
        // A write that names no table we can see.
        return anything(table, t, Reason::UNKNOWN);
    }
    if t.first.is_none() {
        out.reason = Reason::UNROUTED;
        return out;
    }
    if !t.mirrored {
        return out;
    }
    let one_target = facts.verb != Verb::Update && facts.verb != Verb::Delete
        || !facts.flags.any(Flags::MULTI_TABLE);
    if t.temporary_first && one_target {
        out.reason = Reason::TEMPORARY;
        return out;
    }
    let decided = refusal(facts, view, t)
        .map_or_else(|| inline(sql, facts, view, catalog, parameters, t), Err);
    let routes = table.routes.iter().enumerate();
    let mut own = routes.filter(|(i, _)| t.mask & route_bit(*i) != 0);
    (out.plan, out.reason) = match decided {
        Err(reason) => (Plan::Deferred(t.side), reason),
        Ok(_) if own.clone().any(|(_, r)| r.suspended()) => {
            (Plan::Deferred(t.side), Reason::SUSPENDED)
        }
        Ok(_) if own.any(|(_, r)| r.being_altered()) => {
            (Plan::Deferred(t.side), Reason::BEING_ALTERED)
        }
        Ok(inline) => (Plan::Inline(inline), Reason::MIRRORED),
    };
    out
}

/// Why a write is deferred whatever its table's shape.
fn refusal(facts: &Facts, view: &SessionView<'_>, t: &Touched) -> Option<Reason> {
    let f = facts.flags;
    let state = [
        (view.poisoned, Reason::POISONED),
        (view.locked_tables, Reason::LOCKED),
        (view.xa, Reason::XA),
        // Wrapped in a transaction of ours, the statement would use up what
        // waits for the client's next one even where it fails.
        (view.one_shot && !view.in_transaction, Reason::ONE_SHOT),
        (view.log_bin_off, Reason::LOG_BIN_OFF),
        (!view.other_leg, Reason::NO_OTHER_LEG),
        (t.temporary, Reason::TEMPORARY),
        (t.unrouted, Reason::NOT_ROW_LOCAL),
        (facts.verb == Verb::LoadData, Reason::NOT_ROW_LOCAL),
    ];
    let text = [
        (
            Flags::SUBQUERY
                .with(Flags::MULTI_TABLE)
                .with(Flags::SELECT_SOURCE)
                .with(Flags::WITH_CTE)
                .with(Flags::SYSTEM_TIME),
            Reason::NOT_ROW_LOCAL,
        ),
        (Flags::LIMIT, Reason::LIMIT),
        (Flags::IGNORE, Reason::IGNORE),
        (Flags::RETURNING, Reason::RETURNING),
        (
            Flags::UNSAFE_FUNCTION
                .with(Flags::SEQUENCE)
                .with(Flags::GET_LOCK)
                .with(Flags::FOUND_ROWS),
            Reason::UNSAFE_FUNCTION,
        ),
        (
            Flags::ROW_COUNT.with(Flags::DIAGNOSTICS),
            Reason::DIAGNOSTICS,
        ),
        (Flags::USER_VARIABLE_WRITE, Reason::USER_VARIABLE_WRITE),
        (Flags::SYSTEM_VARIABLE, Reason::SYSTEM_VARIABLE),
        (
            Flags::EXECUTABLE_COMMENT.with(Flags::OPTIMIZER_HINT),
            Reason::COMMENT,
        ),
        (
            Flags::SET_STATEMENT
                .with(Flags::INDEX_HINT)
                .with(Flags::PARTITION)
                .with(Flags::UNTERMINATED)
                .with(Flags::ODD),
            Reason::UNKNOWN,
        ),
    ];
    state
        .into_iter()
        .find(|(found, _)| *found)
        .or_else(|| {
            text.into_iter()
                .map(|(flags, r)| (f.any(flags), r))
                .find(|(found, _)| *found)
        })
        .map(|(_, reason)| reason)
}

/// Judges a single-table write by its form and its table's shapes.
fn inline(
    sql: &[u8],
    facts: &Facts,
    view: &SessionView<'_>,
    catalog: &Catalog,
    parameters: Option<&dyn Parameters>,
    t: &Touched,
) -> Result<Inline, Reason> {
    let form = facts.write.as_deref().ok_or(Reason::UNKNOWN)?;
    let (db, name) = facts.tables.iter(sql).next().ok_or(Reason::UNKNOWN)?;
    let db = db.as_deref().or(view.database).ok_or(Reason::UNKNOWN)?;
    let pair = catalog.get(db, &name).ok_or(Reason::NO_SHAPE)?;
    let active = pair.on(t.side).ok_or(Reason::NO_SHAPE)?;
    let mirror = pair.on(t.side.other()).ok_or(Reason::NO_SHAPE)?;
    for shape in [active, mirror] {
        if shape.is_view {
            return Err(Reason::VIEW);
        }
        if !shape.transactional {
            return Err(Reason::ENGINE);
        }
        if shape.triggers > 0 {
            return Err(Reason::TRIGGER);
        }
    }
    // `SET a = DEFAULT` evaluates a default just as an INSERT does.
    if !matches!(form, WriteShape::Delete(_))
        && (active.volatile_defaults || mirror.volatile_defaults)
    {
        return Err(Reason::VOLATILE_DEFAULT);
    }
    let mut ahead = Ahead::No;
    let searches;
    let (ids, matched_rows) = match form {
        WriteShape::Insert(insert) => {
            let upsert = insert.replace || insert.on_duplicate;
            if upsert && view.isolation < Isolation::RepeatableRead {
                return Err(Reason::ISOLATION);
            }
            if upsert && (active.unique_keys.len() > 1 || mirror.unique_keys.len() > 1) {
                return Err(Reason::SEVERAL_KEYS);
            }
            let ids = ids(sql, insert, active, mirror, view, parameters)?;
            if upsert && ids == Ids::Generated {
                return Err(Reason::UPSERT_IDS);
            }
            searches = upsert;
            (ids, None)
        }
        WriteShape::Update(keyed) | WriteShape::Delete(keyed) => {
            let keys = keys_given(sql, keyed, active, parameters);
            let each = [active, mirror].map(|shape| way(sql, keyed, shape, parameters));
            searches = each.iter().any(|(_, searches)| *searches);
            ahead = each[0].0.min(each[1].0);
            // Rows may be visited in another order on the other side, and
            // each takes the next number.
            if facts.flags.any(Flags::RAND) && keys != Some(1) {
                return Err(Reason::RAND);
            }
            if view.isolation < Isolation::RepeatableRead {
                (Ids::None, Some(keys.ok_or(Reason::ISOLATION)?))
            } else {
                (Ids::None, None)
            }
        }
    };
    let defaults =
        !matches!(form, WriteShape::Delete(_)) && (active.time_defaults || mirror.time_defaults);
    let context = Context {
        time: facts.flags.any(Flags::TIME_FUNCTION) || defaults,
        rand: facts.flags.any(Flags::RAND),
        last_insert_id: facts.flags.any(Flags::LAST_INSERT_ID),
        user_variables: facts.flags.any(Flags::USER_VARIABLE_READ),
    };
    if context != Context::default() {
        ahead = Ahead::No;
    }
    Ok(Inline {
        active: t.side,
        context,
        ids,
        ahead,
        searches,
        matched_rows,
    })
}

/// Where the ids of an INSERT come from.
fn ids(
    sql: &[u8],
    insert: &InsertShape,
    active: &TableShape,
    mirror: &TableShape,
    view: &SessionView<'_>,
    parameters: Option<&dyn Parameters>,
) -> Result<Ids, Reason> {
    let auto = |shape: &TableShape| {
        let column = shape.columns.get(shape.auto_increment?)?;
        Some(column.name.clone())
    };
    let (Some(name), other) = (auto(active), auto(mirror)) else {
        // No ids on the active side; the mirror must not make any up.
        return match auto(mirror) {
            None => Ok(Ids::None),
            Some(_) => Err(Reason::MIXED_IDS),
        };
    };
    if !other.is_some_and(|o| o.eq_ignore_ascii_case(&name)) {
        return Err(Reason::MIXED_IDS);
    }
    let position = match &insert.columns {
        Some(columns) => {
            let names = || columns.iter().map(|c| unquote(c.of(sql)));
            if !name.is_ascii() && names().any(|n| !n.is_ascii()) {
                // The text's character set may not be the catalog's.
                return Err(Reason::MIXED_IDS);
            }
            match names().position(|n| n.eq_ignore_ascii_case(&name)) {
                Some(position) => position,
                None => return Ok(Ids::Generated),
            }
        }
        None => {
            let visible = active.columns.iter().filter(|c| !c.invisible);
            match visible.map(|c| &c.name).position(|n| *n == name) {
                Some(position) => position,
                None => return Ok(Ids::Generated),
            }
        }
    };
    let mut found: Option<Result<Ids, Reason>> = None;
    insert.values_of(sql, view.mode, position, &mut |value| {
        let this = id_of(value, view, parameters);
        let merged = match found {
            None => this,
            Some(before) if before == this => this,
            Some(_) => Err(Reason::MIXED_IDS),
        };
        found = Some(merged);
        merged.is_ok()
    });
    found.unwrap_or(Err(Reason::MIXED_IDS))
}

fn id_of(
    value: ValueKind,
    view: &SessionView<'_>,
    parameters: Option<&dyn Parameters>,
) -> Result<Ids, Reason> {
    let zero = if view.no_auto_value_on_zero {
        Ids::Given
    } else {
        Ids::Generated
    };
    match value {
        ValueKind::Null | ValueKind::Default => Ok(Ids::Generated),
        ValueKind::Zero => Ok(zero),
        ValueKind::Literal | ValueKind::NegativeLiteral => Ok(Ids::Given),
        ValueKind::Expression => Err(Reason::MIXED_IDS),
        ValueKind::Parameter(i) => {
            let bound = parameters.ok_or(Reason::MIXED_IDS)?;
            Ok(if bound.is_null(i as usize) {
                Ids::Generated
            } else if bound.is_zero(i as usize) {
                zero
            } else {
                Ids::Given
            })
        }
    }
}

/// Whether an UPDATE or DELETE may be executed on both sides at once, as far as
/// this side's table goes, and whether it searches for its rows.
///
/// One that names a row by the primary key waits for that record before it has
/// locked anything. If it changes no column of an index that is all. The entries
/// of other indexes go with their row: those who have found the row by its
/// primary key too are met at its record, and only those who search lock entries,
/// and gaps between them, without it. A unique key, a foreign key and a generated
/// column have the server look at other rows, and a DELETE at those that refer to
/// its row.
fn way(
    sql: &[u8],
    keyed: &KeyedShape,
    shape: &TableShape,
    parameters: Option<&dyn Parameters>,
) -> (Ahead, bool) {
    let columns = |names: &mut dyn Iterator<Item = &Span>| -> Option<Vec<usize>> {
        names.map(|n| shape.column(&unquote(n.of(sql)))).collect()
    };
    let equalities = keyed.where_equalities.as_deref().unwrap_or_default();
    let (Some(given), Some(assigned)) = (
        columns(&mut equalities.iter().map(|e| &e.column)),
        columns(&mut keyed.assigned.iter()),
    ) else {
        return (Ahead::No, true);
    };
    let primary = shape.unique_keys.iter().find(|k| k.primary);
    // A number that a server makes of another text may match many rows: it looks
    // at all of them, whatever the key.
    let is_plain = |equality: &Equality| {
        equality.values.iter().all(|value| match *value {
            EqValue::Number(_) => true,
            // In quotes.
            EqValue::Text(span) => matches!(span.of(sql), [_, text @ .., _] if is_integer(text)),
            EqValue::Parameter(i) => parameters.is_some_and(|p| p.is_integer(i as usize)),
        })
    };
    let pinned = |column: &usize| {
        given.iter().zip(equalities).any(|(given, equality)| {
            let served = |c: &ColumnShape| {
                is_served(equality, c, parameters) && (c.is_text() || is_plain(equality))
            };
            given == column
                && equality.values.len() == 1
                && shape.columns.get(*column).is_some_and(served)
        })
    };
    // What else the WHERE asks of the row is looked at when it is locked.
    let by_primary = primary.is_some_and(|k| !k.columns.is_empty() && k.columns.iter().all(pinned));
    let nothing_else = keys_given(sql, keyed, shape, parameters) == Some(1)
        && primary.is_some_and(|k| k.columns.len() == given.len());
    let others = |of: &[usize]| assigned.iter().all(|c| !of.contains(c));
    let known = !assigned.is_empty() && !shape.expression_index && !shape.generated_columns;
    let ahead = match by_primary && nothing_else && known {
        true if others(&shape.indexed) => Ahead::Yes,
        true if others(&shape.constrained) => Ahead::Unsearched,
        _ => Ahead::No,
    };
    (ahead, !by_primary)
}

/// Whether an index serves the comparison. A text column compared with a number
/// converts every row's value: no key serves that, and several rows may match.
fn is_served(
    equality: &Equality,
    column: &ColumnShape,
    parameters: Option<&dyn Parameters>,
) -> bool {
    let text = |v: &EqValue| match *v {
        EqValue::Text(_) => true,
        EqValue::Number(_) => false,
        EqValue::Parameter(i) => parameters.is_some_and(|p| p.is_text(i as usize)),
    };
    !column.is_text() || equality.values.iter().all(text)
}

/// How many keys the WHERE gives, if it is nothing but equality or IN on all
/// columns of one unique key and the server compares them by that key.
fn keys_given(
    sql: &[u8],
    keyed: &KeyedShape,
    shape: &TableShape,
    parameters: Option<&dyn Parameters>,
) -> Option<u64> {
    let equalities = keyed.where_equalities.as_deref()?;
    let mut columns = Vec::with_capacity(equalities.len());
    let mut keys = 1u64;
    for equality in equalities {
        let column = shape.column(&unquote(equality.column.of(sql)))?;
        if columns.contains(&column) {
            return None;
        }
        columns.push(column);
        keys = keys.checked_mul(equality.values.len() as u64)?;
        if !is_served(equality, shape.columns.get(column)?, parameters) {
            return None;
        }
    }
    shape
        .unique_keys
        .iter()
        .any(|key| {
            !key.columns.is_empty()
                && key.columns.len() == columns.len()
                && key.columns.iter().all(|c| columns.contains(c))
        })
        .then_some(keys)
}
