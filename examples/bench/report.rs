//! Tables and paired ratios.

use super::Plan;
use super::crowd::{Endpoint, Sample};
use super::stage::Stage;
use std::io::Write;

/// One endpoint's samples, round by round.
pub struct Column<'a>(Vec<&'a Sample>);

impl<'a> Column<'a> {
    pub fn new(rounds: &'a [Vec<Sample>], endpoint: usize) -> Column<'a> {
        Column(rounds.iter().filter_map(|r| r.get(endpoint)).collect())
    }

    pub fn median(&self, of: impl Fn(&Sample) -> f64) -> f64 {
        let values: Vec<f64> = self.0.iter().map(|s| of(s)).collect();
        quantile(&values, 0.5)
    }

    /// Ratios to another endpoint within each round.
    pub fn ratios(&self, to: &Column<'_>, of: impl Fn(&Sample) -> f64) -> String {
        let pairs = self.0.iter().zip(&to.0);
        let ratios: Vec<f64> = pairs.map(|(a, b)| of(a) / of(b)).collect();
        spread(&ratios)
    }

    /// The share of user space in the CPU time, over all rounds: ticks are too
    /// coarse for one.
    fn user_share(&self) -> f64 {
        let user: f64 = self.0.iter().map(|s| s.cpu.user).sum();
        let system: f64 = self.0.iter().map(|s| s.cpu.system).sum();
        user / (user + system).max(1.0)
    }
}

/// Median, and the quartiles.
pub fn spread(values: &[f64]) -> String {
    let at = |q| quantile(values, q);
    format!("{:.2} ({:.2}–{:.2})", at(0.5), at(0.25), at(0.75))
}

fn quantile(values: &[f64], q: f64) -> f64 {
    let mut sorted: Vec<f64> = values.iter().copied().filter(|v| v.is_finite()).collect();
    sorted.sort_by(f64::total_cmp);
    let at = q * sorted.len().saturating_sub(1) as f64;
    let below = sorted.get(at.floor() as usize).copied();
    let above = sorted.get(at.ceil() as usize).copied();
    match (below, above) {
        (Some(below), Some(above)) => below + (above - below) * at.fract(),
        _ => f64::NAN,
    }
}

pub fn heading(text: &str) {
    println!("\n{text}");
    let _ = std::io::stdout().flush();
}

/// One line per endpoint: medians over the rounds.
pub fn samples(endpoints: &[Endpoint], rounds: &[Vec<Sample>]) {
    println!(
        "  {:<20} {:>9} {:>7} {:>7} {:>9} {:>9} {:>10}",
        "", "CPU us", "user", "system", "p50 us", "p99 us", "per s"
    );
    for (e, endpoint) in endpoints.iter().enumerate() {
        let column = Column::new(rounds, e);
        let cpu = column.median(Sample::cpu_each);
        let user = cpu * column.user_share();
        let parts = match endpoint.pid {
            Some(_) => format!("{cpu:>9.1} {user:>7.1} {:>7.1}", cpu - user),
            None => format!("{:>9} {:>7} {:>7}", "–", "–", "–"),
        };
        println!(
            "  {:<20} {parts} {:>9.1} {:>9.1} {:>10.0}",
            endpoint.name,
            column.median(|s| s.p50),
            column.median(|s| s.p99),
            column.median(Sample::rate)
        );
    }
}

/// What all of it ran on.
pub fn machine(plan: &Plan, stage: &Stage) {
    let cores = std::thread::available_parallelism().map_or(0, |n| n.get());
    let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    println!(
        "{cores} cores, load {}; MariaDB {}; {} rounds of {:.1} s; {} thread(s) each for lockstep and HAProxy",
        load.split_whitespace().next().unwrap_or("?"),
        stage.source.version(),
        plan.rounds,
        plan.seconds.as_secs_f64(),
        plan.threads
    );
    println!(
        "Medians over the rounds; CPU is the proxy's per statement; ratios are paired within rounds (quartiles)."
    );
    println!(
        "p50 and p99 are of one unit of work: a statement, or a whole transaction for oltp_read_write."
    );
}
