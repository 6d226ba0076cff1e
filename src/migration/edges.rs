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
    /// Writes that reached only the active side since this process started.
    pub unmirrored: u64,
}

/// Why no way leads there.
#[derive(thiserror::Error, Clone, PartialEq, Eq, Debug)]
pub enum NoWay {
    /// The phase needs what this version does not have.
    #[error("{0} needs the row plane, which is not in this version{1}")]
    RowPlane(Phase, &'static str),
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

/// What `--force` may do for an advance that stops at `syncing`.
const FORCE_HINT: &str = "; `advance --to source_first --force` asserts that both sides hold the \
                          same rows and skips it";

/// The phases to go through, in order. Empty: it is there already.
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
            // The operator's word replaces copy and follow.
            Direction::Forward if at == Phase::SourceOnly && force && to > Phase::Syncing => {
                Some(Phase::SourceFirst)
            }
            Direction::Forward => next(at),
            Direction::Back if to == Phase::Syncing => Some(Phase::Syncing),
            Direction::Back => previous(at),
        };
        match step {
            Some(Phase::Syncing) => {
                let hint = if from == Phase::SourceOnly {
                    FORCE_HINT
                } else {
                    ""
                };
                return Err(NoWay::RowPlane(Phase::Syncing, hint));
            }
            Some(Phase::Done) => return Err(NoWay::RowPlane(Phase::Done, "")),
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

/// The phase before; from `source_first` that is `source_only`, as there is no
/// follower to fall back on.
fn previous(phase: Phase) -> Option<Phase> {
    match phase {
        Phase::SourceOnly => None,
        Phase::Syncing | Phase::SourceFirst => Some(Phase::SourceOnly),
        Phase::TargetFirst => Some(Phase::SourceFirst),
        Phase::TargetOnly => Some(Phase::TargetFirst),
        Phase::Done => None,
    }
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
        // Stopping to mirror asks nothing: it is the way out when the target
        // is broken.
        (Phase::SourceFirst, Phase::SourceOnly) => Vec::new(),
        (Phase::SourceOnly | Phase::Syncing, _) => {
            let mut list = vec![
                row_plane(
                    "copy_complete",
                    "rows from before are not copied by this version",
                ),
                row_plane(
                    "follow_lag",
                    "nothing follows the source's binlog in this version",
                ),
            ];
            list.extend(both_sides(facts));
            list.push(writable(Side::Target, facts));
            list
        }
        (Phase::SourceFirst, Phase::TargetFirst) | (Phase::TargetFirst, Phase::SourceFirst) => {
            let mut list = vec![row_plane(
                "compare_clean",
                "rows are not compared by this version",
            )];
            list.push(complete(from.active(), facts));
            list.extend(both_sides(facts));
            list.push(mirror_running(facts));
            list.push(other_legs(facts));
            list.push(writable(to.active(), facts));
            list
        }
        (Phase::TargetFirst, Phase::TargetOnly) => {
            let detail = "nothing keeps the source current afterwards in this version: \
                          going back would lose writes";
            vec![row_plane("reverse_follow", detail), up(facts, Side::Target)]
        }
        (Phase::TargetOnly, Phase::TargetFirst) => {
            let detail = "nothing has kept the source current in this version";
            let mut list = vec![row_plane("reverse_follow", detail)];
            list.extend(both_sides(facts));
            list.push(writable(Side::Source, facts));
            list
        }
        _ => vec![row_plane("row_plane", "this step is not in this version")],
    }
}

fn row_plane(name: &str, detail: &str) -> Condition {
    Condition::new(name, None, detail)
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

fn both_sides(facts: &Facts) -> Vec<Condition> {
    let distinct = match facts.same_server {
        Some(true) => "source and target are the same server",
        Some(false) => "source and target are different servers",
        None => "not known while a backend is down",
    };
    vec![
        up(facts, Side::Source),
        up(facts, Side::Target),
        Condition::new("backends_distinct", facts.same_server.map(|s| !s), distinct),
        tables_equal(facts),
    ]
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

fn complete(active: Side, facts: &Facts) -> Condition {
    let n = facts.unmirrored;
    let detail = if n == 0 {
        "no write reached only one side since this process started".to_owned()
    } else {
        format!("{n} write(s) reached only the {active}; nothing heals them in this version")
    };
    Condition::new("mirror_complete", Some(n == 0), detail)
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
            ..Facts::default()
        }
    }

    #[test]
    fn ways() {
        let rp = |r: Result<Vec<Phase>, NoWay>| matches!(r, Err(NoWay::RowPlane(..)));
        assert!(rp(path(SourceOnly, None, Forward, false)));
        assert!(rp(path(SourceOnly, None, Forward, true)));
        assert!(rp(path(SourceOnly, Some(SourceFirst), Forward, false)));
        assert_eq!(
            path(SourceOnly, Some(SourceFirst), Forward, true),
            Ok(vec![SourceFirst])
        );
        assert_eq!(
            path(SourceOnly, Some(TargetOnly), Forward, true),
            Ok(vec![SourceFirst, TargetFirst, TargetOnly])
        );
        assert!(rp(path(TargetOnly, None, Forward, true)));
        assert!(rp(path(SourceFirst, Some(Done), Forward, true)));
        assert_eq!(
            path(SourceFirst, None, Forward, false),
            Ok(vec![TargetFirst])
        );
        assert_eq!(path(SourceFirst, None, Back, false), Ok(vec![SourceOnly]));
        assert_eq!(
            path(TargetOnly, Some(SourceOnly), Back, false),
            Ok(vec![TargetFirst, SourceFirst, SourceOnly])
        );
        assert!(rp(path(SourceFirst, Some(Syncing), Back, true)));
        assert!(rp(path(TargetOnly, Some(Syncing), Back, true)));
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
                        assert!(way.len() <= 3);
                    }
                }
            }
        }
    }

    #[test]
    fn reads_follow_the_edges() {
        assert_eq!(reads_after(SourceOnly, SourceFirst, 40), 0);
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
        assert_eq!(
            failing(SourceOnly, SourceFirst, &good()),
            [none("copy_complete"), none("follow_lag")]
        );
        assert_eq!(
            failing(SourceFirst, TargetFirst, &good()),
            [none("compare_clean")]
        );
        assert!(failing(SourceFirst, SourceOnly, &Facts::default()).is_empty());
        let bad = Facts {
            up: [Some(true), Some(false)],
            read_only: [Some(false), Some(true)],
            same_server: None,
            unequal_tables: Some(vec!["shop.a".to_owned()]),
            suspended: Some("timeout".to_owned()),
            without_other_leg: 2,
            unmirrored: 5,
            tables: 1,
        };
        assert_eq!(
            failing(SourceFirst, TargetFirst, &bad),
            [
                none("compare_clean"),
                no("mirror_complete"),
                no("target_up"),
                none("backends_distinct"),
                no("tables_equal"),
                no("mirror_not_suspended"),
                no("sessions_have_both_legs"),
                no("target_writable"),
            ]
        );
    }
}
