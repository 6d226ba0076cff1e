//! Relayed statements and whole sessions: CPU, latency and throughput beside HAProxy.

use super::Plan;
use super::crowd::{Crowd, Endpoint, Sample};
use super::report::{self, Column};
use super::stage::Stage;
use super::work::Work;
use std::io::Result;
use std::time::Duration;

/// Before the clock runs: caches, statement digests, the kernel's buffers.
const WARM_UP: Duration = Duration::from_millis(150);

const CELLS: [(&str, Work, u64); 11] = [
    ("point select, text, 1 client", Work::PointText, 1),
    ("point select, text, 8 clients", Work::PointText, 8),
    ("point select, text, 64 clients", Work::PointText, 64),
    ("point select, prepared, 1 client", Work::PointPrepared, 1),
    ("point select, prepared, 8 clients", Work::PointPrepared, 8),
    (
        "point select, prepared, 64 clients",
        Work::PointPrepared,
        64,
    ),
    ("wide read (1,000 x 200 B), 1 client", Work::Wide, 1),
    ("wide read (1,000 x 200 B), 8 clients", Work::Wide, 8),
    ("oltp_read_write, 8 clients", Work::ReadWrite, 8),
    ("login, query and quit, 1 client", Work::Login, 1),
    ("login, query and quit, 8 clients", Work::Login, 8),
];

pub fn all(plan: &Plan, stage: &Stage) -> Result<()> {
    let endpoints = [
        stage.direct(),
        stage.haproxy(),
        stage.plain(),
        stage.mirroring(),
    ];
    for (heading, work, clients) in CELLS {
        if plan.wants(heading) {
            let rounds = alternate(plan, &endpoints, work, clients)?;
            cell(heading, &endpoints, &rounds);
        }
    }
    Ok(())
}

/// `rounds[r][e]`: endpoint `e` in round `r`. The order within a round moves on.
pub fn alternate(
    plan: &Plan,
    endpoints: &[Endpoint],
    work: Work,
    clients: u64,
) -> Result<Vec<Vec<Sample>>> {
    let mut rounds = Vec::new();
    for round in 0..plan.rounds {
        let mut samples: Vec<Option<Sample>> = vec![None; endpoints.len()];
        for turn in 0..endpoints.len() {
            let at = (round + turn) % endpoints.len();
            let mut crowd = Crowd::connect(&endpoints[at], work, clients)?;
            crowd.run(WARM_UP)?;
            samples[at] = Some(crowd.run(plan.seconds)?);
        }
        rounds.push(samples.into_iter().flatten().collect());
    }
    Ok(rounds)
}

fn cell(heading: &str, endpoints: &[Endpoint], rounds: &[Vec<Sample>]) {
    report::heading(heading);
    report::samples(endpoints, rounds);
    let [direct, haproxy, plain, mirroring] = [0, 1, 2, 3].map(|e| Column::new(rounds, e));
    for (name, column) in [("lockstep", &plain), ("lockstep, mirroring", &mirroring)] {
        let cpu = column.ratios(&haproxy, Sample::cpu_each);
        let rate = column.ratios(&haproxy, Sample::rate);
        println!("  {name} / HAProxy: CPU per statement {cpu}, throughput {rate}");
    }
    let added = |column: &Column<'_>| column.median(|s| s.p50) - direct.median(|s| s.p50);
    println!(
        "  latency added to direct (p50): HAProxy {:+.1}, lockstep {:+.1}, mirroring {:+.1} us",
        added(&haproxy),
        added(&plain),
        added(&mirroring)
    );
}
