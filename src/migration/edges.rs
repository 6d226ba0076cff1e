//! Which phase follows which, and what must hold before: pure rules.
//!
//! The caller gathers [`Facts`]; nothing here asks a server.

use crate::Side;
use crate::route::table::Phase;

/// Which way an operator wants to go.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Direction {
    /// `advance`.
    Forward,
    /// `rollback`.
    Back,
}

/// One condition of an edge, as `status` shows it.
#[derive(Clone, PartialEq, Eq, Debug, serde::Serialize, serde::Deserialize)]
pub struct Condition {
    /// A stable name.
    pub name: String,
    /// Whether it holds; None: not known.
    pub ok: Option<bool>,
    /// For people.
    pub detail: String,
}

impl Condition {
    fn new(name: &str, ok: Option<bool>, detail: impl Into<String>) -> Condition {
        Condition {
            name: name.to_owned(),
            ok,
            detail: detail.into(),
        }
    }
}

/// How far the copy is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CopyFact {
    /// All rows are over.
    pub done: bool,
    /// For people.
    pub detail: String,
}

/// How the follower does.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct FollowFact {
    /// It is at work.
    pub running: bool,
    /// How far behind, in milliseconds.
    pub lag_ms: Option<u64>,
    /// The most the edge allows.
    pub lag_max_ms: u64,
    /// Why it is not at work.
    pub detail: String,
}

/// What comparing has shown.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CompareFact {
    /// A complete pass without a difference, younger than the bound.
    pub clean: bool,
    /// For people.
    pub detail: String,
}

/// What the edges' conditions are judged by.
#[derive(Clone, Debug, Default)]
pub struct Facts {
    /// Whether each backend answers the service account; None: not asked yet.
    pub up: [Option<bool>; 2],
    /// Whether each backend refuses writes.
    pub read_only: [Option<bool>; 2],
    /// Whether both addresses lead to one server.
    pub same_server: Option<bool>,
    /// The route's tables whose shapes differ or that one side lacks, the
    /// first few by name; None: a side's shapes are not known.
    pub unequal_tables: Option<Vec<String>>,
    /// Tables the route covers on its active side.
    pub tables: usize,
    /// Why inline mirroring is suspended.
    pub suspended: Option<String>,
    /// Sessions whose leg to the other backend cannot be opened.
    pub without_other_leg: usize,
    /// The copy of this phase; None: there is none.
    pub copy: Option<CopyFact>,
    /// Tables of the target that held rows before they were copied; None: none.
    pub over: Option<String>,
    /// The follower of this phase; None: there is none.
    pub follow: Option<FollowFact>,
    /// None: never compared in this phase.
    pub compare: Option<CompareFact>,
    /// Rows that any comparison found different, and nobody has repaired.
    pub open: u64,
    /// Why following alone does not heal what the journal names.
    pub unhealed: Option<String>,
}

/// Why no way leads there.
#[derive(thiserror::Error, Clone, PartialEq, Eq, Debug)]
pub enum NoWay {
    /// The last or first phase.
    #[error("there is no phase {0} {1}")]
    End(&'static str, Phase),
    /// The wanted phase lies the other way.
    #[error("{0} is {1} {2}: use {3}")]
    OtherWay(Phase, &'static str, Phase, &'static str),
    /// Nothing leads out of `done`.
    #[error("nothing leads out of done")]
    Done,
}

/// The phases to go through, in order. Empty: it is there already.
///
/// Two edges jump. A forced advance beyond `syncing` from `source_only` goes
/// straight to `source_first`: the operator's word that both sides hold the
/// same rows replaces the copy. And `target_only` is reached from `syncing`,
/// and left for it, without writing to both in between, where that is asked
/// for.
///
/// # Errors
/// No way leads there.
pub fn path(
    from: Phase,
    to: Option<Phase>,
    direction: Direction,
    force: bool,
) -> Result<Vec<Phase>, NoWay> {
    if from == Phase::Done && to != Some(Phase::Done) {
        return Err(NoWay::Done);
    }
    let to = match (to, direction) {
        (Some(to), _) => to,
        (None, Direction::Forward) => next(from).ok_or(NoWay::End("after", from))?,
        (None, Direction::Back) => previous(from).ok_or(NoWay::End("before", from))?,
    };
    let mut way = Vec::new();
    let mut at = from;
    while at != to {
        let step = match direction {
            Direction::Forward if to < at => {
                return Err(NoWay::OtherWay(to, "before", at, "rollback"));
            }
            Direction::Back if to > at => return Err(NoWay::OtherWay(to, "after", at, "advance")),
            Direction::Forward if at == Phase::SourceOnly && force && to > Phase::Syncing => {
                Some(Phase::SourceFirst)
            }
            Direction::Forward if from == Phase::Syncing && to == Phase::TargetOnly => Some(to),
            Direction::Forward => next(at),
            Direction::Back if from == Phase::TargetOnly && to == Phase::Syncing => Some(to),
            Direction::Back => previous(at),
        };
        match step {
            Some(step) => way.push(step),
            None => return Err(NoWay::End("beyond", at)),
        }
        at = way.last().copied().unwrap_or(to);
    }
    Ok(way)
}

/// The phase after.
pub fn next(phase: Phase) -> Option<Phase> {
    let at = Phase::ALL.iter().position(|p| *p == phase)?;
    Phase::ALL.get(at + 1).copied()
}

/// The phase before.
fn previous(phase: Phase) -> Option<Phase> {
    if phase == Phase::Done {
        return None;
    }
    let at = Phase::ALL.iter().position(|p| *p == phase)?;
    Phase::ALL.get(at.checked_sub(1)?).copied()
}

/// The target's share of reads after an edge (DESIGN §3).
pub fn reads_after(from: Phase, to: Phase, reads: u8) -> u8 {
    match to {
        Phase::SourceFirst if from < to => 0,
        Phase::TargetFirst if from < to => 100,
        _ => reads,
    }
}

/// The conditions of one edge.
pub fn conditions(from: Phase, to: Phase, facts: &Facts) -> Vec<Condition> {
    match (from, to) {
        // Stopping to mirror or to copy asks nothing: it is the way out when
        // the target is broken.
        (Phase::SourceFirst, Phase::Syncing) | (_, Phase::SourceOnly) => Vec::new(),
        (Phase::SourceOnly, Phase::Syncing) => {
            let mut list = reachable(facts);
            list.push(writable(Side::Target, facts));
            list
        }
        // Both sides hold the same rows: so the operator says by forcing.
        (Phase::SourceOnly, _) => {
            let mut list = vec![unknown("copy_complete", "rows from before were not copied")];
            list.extend(both_sides(facts));
            list.push(writable(Side::Target, facts));
            list
        }
        (Phase::Syncing, to) => {
            let mut list = vec![copied(facts), following(facts)];
            // On the way through the phases a later edge asks for it.
            if to == Phase::TargetOnly
                && let Some(over) = &facts.over
            {
                list.insert(1, copied_over(over, facts));
            }
            if to == Phase::TargetOnly {
                list.push(healed(facts));
                // Not asked for; but if one found rows that differ, they do.
                if facts.open > 0 && facts.over.is_none() {
                    list.push(compared(facts));
                }
            }
            list.extend(both_sides(facts));
            list.push(writable(Side::Target, facts));
            list
        }
        (Phase::SourceFirst, Phase::TargetFirst) | (Phase::TargetFirst, Phase::SourceFirst) => {
            let mut list = vec![following(facts)];
            // The way back does not wait for a comparison.
            if from < to {
                list.insert(0, compared(facts));
            }
            list.push(healed(facts));
            list.extend(both_sides(facts));
            list.push(mirror_running(facts));
            list.push(other_legs(facts));
            list.push(writable(to.active(), facts));
            list
        }
        (Phase::TargetFirst, Phase::TargetOnly) => {
            vec![following(facts), up(facts, Side::Target)]
        }
        (Phase::TargetOnly, Phase::TargetFirst | Phase::Syncing) => {
            let mut list = vec![following(facts), healed(facts)];
            list.extend(both_sides(facts));
            list.push(writable(Side::Source, facts));
            list
        }
        // Nothing can be undone afterwards; only the operator knows.
        (Phase::TargetOnly, Phase::Done) => vec![up(facts, Side::Target)],
        _ => Vec::new(),
    }
}

fn unknown(name: &str, detail: &str) -> Condition {
    Condition::new(name, None, detail)
}

fn copied(facts: &Facts) -> Condition {
    let name = "copy_complete";
    match &facts.copy {
        Some(copy) => Condition::new(name, Some(copy.done), &*copy.detail),
        None => Condition::new(name, Some(false), "the copy has not begun"),
    }
}

fn following(facts: &Facts) -> Condition {
    let name = "follow_lag";
    let Some(follow) = &facts.follow else {
        return Condition::new(name, Some(false), "no log is followed");
    };
    if !follow.running {
        return Condition::new(name, Some(false), &*follow.detail);
    }
    match follow.lag_ms {
        None => Condition::new(name, Some(false), "the lag is not known yet"),
        Some(lag) => Condition::new(
            name,
            Some(lag <= follow.lag_max_ms),
            format!("{lag} ms behind, {} allowed", follow.lag_max_ms),
        ),
    }
}

fn healed(facts: &Facts) -> Condition {
    let name = "journal_healed";
    match &facts.unhealed {
        None => Condition::new(name, Some(true), "what the mirror missed is followed"),
        Some(why) => Condition::new(name, Some(false), &**why),
    }
}

fn compared(facts: &Facts) -> Condition {
    let name = "compare_clean";
    match &facts.compare {
        Some(compare) => Condition::new(name, Some(compare.clean), &*compare.detail),
        None => unknown(name, "rows were not compared in this phase"),
    }
}

/// A copy over rows that were there: those that the source has not are there
/// still.
fn copied_over(over: &str, facts: &Facts) -> Condition {
    let mut condition = compared(facts);
    if condition.ok != Some(true) {
        condition.detail = format!(
            "{over}: on the target there were rows before they were copied, and a copy removes \
             none: lockstep compare --repair until a pass finds no difference ({})",
            condition.detail
        );
    }
    condition
}

fn up(facts: &Facts, side: Side) -> Condition {
    let [source, target] = facts.up;
    let up = match side {
        Side::Source => source,
        Side::Target => target,
    };
    let detail = match up {
        Some(true) => "answers",
        Some(false) => "does not answer the service account",
        None => "was not reached yet",
    };
    Condition::new(&format!("{side}_up"), up, format!("the {side} {detail}"))
}

fn reachable(facts: &Facts) -> Vec<Condition> {
    let distinct = match facts.same_server {
        Some(true) => "source and target are the same server",
        Some(false) => "source and target are different servers",
        None => "not known while a backend is down",
    };
    vec![
        up(facts, Side::Source),
        up(facts, Side::Target),
        Condition::new("backends_distinct", facts.same_server.map(|s| !s), distinct),
    ]
}

fn both_sides(facts: &Facts) -> Vec<Condition> {
    let mut list = reachable(facts);
    list.push(tables_equal(facts));
    list
}

fn tables_equal(facts: &Facts) -> Condition {
    let name = "tables_equal";
    match &facts.unequal_tables {
        None => Condition::new(name, None, "table shapes of a side could not be read"),
        Some(list) if list.is_empty() => {
            Condition::new(name, Some(true), format!("{} tables", facts.tables))
        }
        Some(list) => Condition::new(name, Some(false), list.join("; ")),
    }
}

fn mirror_running(facts: &Facts) -> Condition {
    let name = "mirror_not_suspended";
    match &facts.suspended {
        None => Condition::new(name, Some(true), "writes are mirrored inline"),
        Some(reason) => Condition::new(name, Some(false), format!("suspended: {reason}")),
    }
}

fn other_legs(facts: &Facts) -> Condition {
    let n = facts.without_other_leg;
    let detail = if n == 0 {
        "every session reaches both backends".to_owned()
    } else {
        format!("{n} session(s) cannot open their leg to the other backend")
    };
    Condition::new("sessions_have_both_legs", Some(n == 0), detail)
}

fn writable(side: Side, facts: &Facts) -> Condition {
    let [source, target] = facts.read_only;
    let read_only = match side {
        Side::Source => source,
        Side::Target => target,
    };
    let detail = match read_only {
        Some(true) => "is read-only",
        Some(false) => "takes writes",
        None => "was not reached yet",
    };
    let name = format!("{side}_writable");
    Condition::new(&name, read_only.map(|r| !r), format!("the {side} {detail}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use Direction::{Back, Forward};
    use Phase::{Done, SourceFirst, SourceOnly, Syncing, TargetFirst, TargetOnly};

    fn good() -> Facts {
        Facts {
            up: [Some(true); 2],
            read_only: [Some(false); 2],
            same_server: Some(false),
            unequal_tables: Some(Vec::new()),
            tables: 3,
            copy: Some(CopyFact {
                done: true,
                detail: "done".to_owned(),
            }),
            follow: Some(FollowFact {
                running: true,
                lag_ms: Some(3),
                lag_max_ms: 1000,
                detail: String::new(),
            }),
            compare: Some(CompareFact {
                clean: true,
                detail: "clean".to_owned(),
            }),
            ..Facts::default()
        }
    }

    #[test]
    fn the_way_past_mirroring_asks_for_what_is_known() {
        let failing = |facts: &Facts| -> Vec<String> {
            let list = conditions(Syncing, TargetOnly, facts);
            let failing = list.into_iter().filter(|c| c.ok != Some(true));
            failing.map(|c| c.name).collect()
        };
        let fine = Facts {
            compare: None,
            ..good()
        };
        assert_eq!(failing(&fine), [""; 0]);
        let differ = Facts {
            open: 5,
            ..fine.clone()
        };
        assert_eq!(failing(&differ), ["compare_clean"]);
        let missed = Facts {
            unhealed: Some("forced".to_owned()),
            ..fine
        };
        assert_eq!(failing(&missed), ["journal_healed"]);
    }

    #[test]
    fn ways() {
        assert_eq!(path(SourceOnly, None, Forward, false), Ok(vec![Syncing]));
        assert_eq!(
            path(SourceOnly, Some(SourceFirst), Forward, false),
            Ok(vec![Syncing, SourceFirst])
        );
        assert_eq!(
            path(SourceOnly, Some(SourceFirst), Forward, true),
            Ok(vec![SourceFirst])
        );
        assert_eq!(
            path(SourceOnly, Some(TargetOnly), Forward, true),
            Ok(vec![SourceFirst, TargetFirst, TargetOnly])
        );
        assert_eq!(
            path(SourceOnly, Some(TargetOnly), Forward, false),
            Ok(vec![Syncing, SourceFirst, TargetFirst, TargetOnly])
        );
        assert_eq!(
            path(Syncing, Some(TargetOnly), Forward, false),
            Ok(vec![TargetOnly])
        );
        assert_eq!(
            path(TargetOnly, Some(Syncing), Back, false),
            Ok(vec![Syncing])
        );
        assert_eq!(path(TargetOnly, None, Forward, false), Ok(vec![Done]));
        assert_eq!(path(SourceFirst, None, Back, false), Ok(vec![Syncing]));
        assert_eq!(
            path(TargetOnly, Some(SourceOnly), Back, false),
            Ok(vec![TargetFirst, SourceFirst, Syncing, SourceOnly])
        );
        assert_eq!(
            path(SourceFirst, Some(SourceFirst), Back, false),
            Ok(vec![])
        );
        assert!(matches!(
            path(SourceFirst, Some(TargetOnly), Back, false),
            Err(NoWay::OtherWay(..))
        ));
        assert!(matches!(
            path(TargetFirst, Some(SourceOnly), Forward, true),
            Err(NoWay::OtherWay(..))
        ));
        assert!(matches!(
            path(SourceOnly, None, Back, true),
            Err(NoWay::End(..))
        ));
        for to in [None, Some(SourceOnly), Some(TargetOnly)] {
            assert_eq!(path(Done, to, Back, true), Err(NoWay::Done));
            assert_eq!(path(Done, to, Forward, true), Err(NoWay::Done));
        }
    }

    #[test]
    fn every_way_ends() {
        for from in Phase::ALL {
            for to in Phase::ALL.into_iter().map(Some).chain([None]) {
                for (direction, force) in [
                    (Forward, true),
                    (Forward, false),
                    (Back, true),
                    (Back, false),
                ] {
                    if let Ok(way) = path(from, to, direction, force) {
                        assert!(way.len() <= 5);
                    }
                }
            }
        }
    }

    #[test]
    fn reads_follow_the_edges() {
        assert_eq!(reads_after(SourceOnly, SourceFirst, 40), 0);
        assert_eq!(reads_after(Syncing, SourceFirst, 40), 0);
        assert_eq!(reads_after(SourceFirst, TargetFirst, 40), 100);
        assert_eq!(reads_after(TargetFirst, SourceFirst, 40), 40);
        assert_eq!(reads_after(TargetFirst, TargetOnly, 40), 40);
        assert_eq!(reads_after(TargetOnly, TargetFirst, 40), 40);
        assert_eq!(reads_after(SourceFirst, SourceOnly, 40), 40);
    }

    #[test]
    fn conditions_say_what_is_known() {
        let failing = |from, to, facts: &Facts| -> Vec<(String, Option<bool>)> {
            conditions(from, to, facts)
                .into_iter()
                .filter(|c| c.ok != Some(true))
                .map(|c| (c.name, c.ok))
                .collect()
        };
        let none = |n: &str| (n.to_owned(), None);
        let no = |n: &str| (n.to_owned(), Some(false));
        let at = |i: usize| Phase::ALL[i];
        for i in 0..5 {
            assert!(failing(at(i), at(i + 1), &good()).is_empty());
            assert!(i == 0 || failing(at(i), at(i - 1), &good()).is_empty());
        }
        assert_eq!(
            failing(SourceOnly, SourceFirst, &good()),
            [none("copy_complete")]
        );
        assert!(failing(SourceFirst, SourceOnly, &Facts::default()).is_empty());
        let bad = Facts {
            up: [Some(true), Some(false)],
            read_only: [Some(false), Some(true)],
            same_server: None,
            unequal_tables: Some(vec!["shop.a".to_owned()]),
            suspended: Some("timeout".to_owned()),
            without_other_leg: 2,
            tables: 1,
            unhealed: Some("before the follower".to_owned()),
            ..Facts::default()
        };
        assert_eq!(
            failing(SourceFirst, TargetFirst, &bad),
            [
                none("compare_clean"),
                no("follow_lag"),
                no("journal_healed"),
                no("target_up"),
                none("backends_distinct"),
                no("tables_equal"),
                no("mirror_not_suspended"),
                no("sessions_have_both_legs"),
                no("target_writable"),
            ]
        );
        let mut late = good();
        if let Some(follow) = &mut late.follow {
            follow.lag_ms = Some(1001);
        }
        assert_eq!(failing(Syncing, SourceFirst, &late), [no("follow_lag")]);
        let mut over = good();
        over.over = Some("shop.a".to_owned());
        assert!(failing(Syncing, TargetOnly, &over).is_empty());
        over.compare = None;
        assert_eq!(failing(Syncing, TargetOnly, &over), [none("compare_clean")]);
        assert!(failing(Syncing, SourceFirst, &over).is_empty());
        over.over = None;
        assert!(failing(Syncing, TargetOnly, &over).is_empty());
    }
}
