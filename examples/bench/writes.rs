//! Mirrored writes against both servers' own times, added.

use super::Plan;
use super::crowd::Sample;
use super::reads::alternate;
use super::report::{self, Column};
use super::stage::{Stage, mirrored, mirrored_by};
use super::support::Proxy;
use super::support::compare::compare;
use super::work::{BOTH, Work};
use std::io::Result;

const CELLS: [(&str, Work, u64); 5] = [
    ("mirrored autocommit update, 1 client", Work::Update, 1),
    ("mirrored autocommit update, 8 clients", Work::Update, 8),
    (
        "mirrored autocommit update without an index, 1 client",
        Work::UpdatePlain,
        1,
    ),
    ("mirrored autocommit insert, 1 client", Work::Insert, 1),
    ("mirrored autocommit insert, 8 clients", Work::Insert, 8),
];

pub fn all(plan: &Plan, stage: &Stage) -> Result<()> {
    let apart = stage.apart(true);
    let done = all_cells(plan, stage, apart);
    stage.apart(false);
    done
}

fn all_cells(plan: &Plan, stage: &Stage, apart: bool) -> Result<()> {
    let ran = cells(plan, stage, &stage.mirroring, "lockstep, mirroring", "")?;
    let wanted = |durable| {
        CELLS
            .iter()
            .any(|c| plan.wants(&heading(c.0, durable, EARLY)))
    };
    let early = if wanted(true) || wanted(false) {
        let proxy = stage.early(plan);
        cells(plan, stage, &proxy, "lockstep, ack: active", EARLY)?
    } else {
        false
    };
    if ran || early {
        let placed = match apart {
            true => "each server on its half of the cores",
            false => "both servers on all cores: what they do at once may take turns",
        };
        println!("\nMirrored writes: {placed}.");
        report::heading("rows of the mirrored tables");
        for diff in compare(&stage.source, &stage.target, &BOTH) {
            println!("  {diff}");
        }
    }
    Ok(())
}

/// The client is answered when the active side has committed.
const EARLY: &str = ", ack: active";

fn heading(what: &str, durable: bool, ack: &str) -> String {
    let kind = if durable { "durable" } else { "relaxed" };
    format!("{what}, {kind} commits{ack}")
}

/// All cells with one proxy; whether there were any.
fn cells(plan: &Plan, stage: &Stage, proxy: &Proxy, name: &str, ack: &str) -> Result<bool> {
    let endpoints = [
        stage.source_alone(),
        stage.target_alone(),
        mirrored_by(proxy, name),
        stage.by_hand(),
    ];
    let mut ran = false;
    for durable in [true, false] {
        stage.commits(durable);
        for (what, work, clients) in CELLS {
            let heading = heading(what, durable, ack);
            if !plan.wants(&heading) {
                continue;
            }
            ran = true;
            let before = mirrored(proxy);
            let rounds = alternate(plan, &endpoints, work, clients)?;
            report::heading(&heading);
            report::samples(&endpoints, &rounds);
            ratio(&rounds);
            say_mirrored(before, mirrored(proxy));
        }
    }
    stage.commits(false);
    Ok(ran)
}

/// Mean time of a mirrored write, and of one that the client itself makes on
/// both servers, to the sum of both alone, within each round.
fn ratio(rounds: &[Vec<Sample>]) {
    let of = |which: usize| -> Vec<f64> {
        let sum = |r: &[Sample]| Some(r.first()?.mean + r.get(1)?.mean);
        let each = rounds.iter();
        each.filter_map(|r| Some(r.get(which)?.mean / sum(r)?))
            .collect()
    };
    let [source, target, mirrored, hand] =
        [0, 1, 2, 3].map(|e| Column::new(rounds, e).median(|s| s.mean));
    println!(
        "  mean: source {source:.0} + target {target:.0} us, mirrored {mirrored:.0} us, \
         by hand {hand:.0} us"
    );
    println!("  mirrored / (source + target): {}", report::spread(&of(2)));
    println!("  by hand / (source + target): {}", report::spread(&of(3)));
}

/// Times mean nothing if the mirror was left out.
fn say_mirrored(before: (u64, u64), after: (u64, u64)) {
    let (ok, missed) = (after.0 - before.0, after.1 - before.1);
    println!("  {ok} writes mirrored, {missed} not");
    if missed > 0 {
        println!("  VOID: the figures above are partly of writes to one side only");
    }
}
