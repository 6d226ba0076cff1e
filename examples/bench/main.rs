//! `make bench`: what the proxy costs, against direct connections and HAProxy;
//! and how fast rows are copied and followed, against the tools for that.
//!
//! All variants run one after the other within each round, in an order that
//! moves on from round to round, so that what the machine does besides hits
//! them alike; ratios are taken within a round and their median is printed.
//! HAProxy (mode tcp) and the proxy get the same number of threads.
//!
//! From the environment: `BENCH_ROUNDS` (5), `BENCH_SECONDS` of each run (1),
//! `BENCH_THREADS` (1), `BENCH_ONLY` (part of a heading: only those).
//! For figures to be quoted: 15 rounds of 3 seconds on an idle machine.

#[path = "../../tests/it/support/mod.rs"]
mod support;

mod client;
mod compare;
mod cost;
mod crowd;
mod extras;
mod follow;
mod plane;
mod reads;
mod report;
mod scanner;
mod stage;
mod work;
mod writes;

use std::process::ExitCode;
use std::time::Duration;

/// How much is measured.
pub struct Plan {
    pub rounds: usize,
    pub seconds: Duration,
    pub threads: u32,
    only: String,
}

impl Plan {
    fn from_env() -> Plan {
        let number = |name: &str, usual: f64| -> f64 {
            let set = std::env::var(name).ok().and_then(|v| v.parse().ok());
            set.filter(|n| *n > 0.0).unwrap_or(usual)
        };
        Plan {
            rounds: number("BENCH_ROUNDS", 5.0) as usize,
            seconds: Duration::from_secs_f64(number("BENCH_SECONDS", 1.0)),
            threads: number("BENCH_THREADS", 1.0) as u32,
            only: std::env::var("BENCH_ONLY").unwrap_or_default(),
        }
    }

    pub fn wants(&self, heading: &str) -> bool {
        heading.contains(&self.only)
    }
}

fn main() -> ExitCode {
    let plan = Plan::from_env();
    if let Err(why) = plane::all(&plan) {
        eprintln!("bench: {why}");
        return ExitCode::FAILURE;
    }
    if plane::is_all(&plan) {
        return ExitCode::SUCCESS;
    }
    let stage = match stage::Stage::start(&plan) {
        Ok(stage) => stage,
        Err(why) => {
            eprintln!("bench: {why}");
            return ExitCode::FAILURE;
        }
    };
    report::machine(&plan, &stage);
    scanner::all(&plan);
    // Memory first: later nothing a process allocates is new to it.
    let measured = extras::idle(&plan, &stage)
        .and_then(|()| reads::all(&plan, &stage))
        .and_then(|()| extras::syscalls(&plan, &stage))
        .and_then(|()| writes::all(&plan, &stage));
    match measured {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("bench: {why}");
            ExitCode::FAILURE
        }
    }
}
