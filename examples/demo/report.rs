//! What the demo prints.

use super::support::compare::TableDiff;
use super::tally::Stage;
use serde_json::Value;
use std::fmt;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

/// A line of progress, with the seconds since the first one.
pub fn say(line: &str) {
    static BEGAN: OnceLock<Instant> = OnceLock::new();
    let seconds = BEGAN.get_or_init(Instant::now).elapsed().as_secs_f64();
    println!("[{seconds:>5.1}s] {line}");
}

/// One phase change.
pub struct Flip {
    from: String,
    to: String,
    /// How long the gate held the route's writes, as the proxy says.
    gate_ms: Option<f64>,
    /// The longest write around it, as the application saw it.
    longest: Duration,
}

impl Flip {
    /// The edges in the control port's answer.
    pub fn read(answer: &Value, longest: Duration) -> Vec<Flip> {
        let steps = answer["steps"].as_array().cloned().unwrap_or_default();
        let word = |value: &Value| value.as_str().unwrap_or("?").to_string();
        steps
            .iter()
            .map(|step| Flip {
                from: word(&step["from"]),
                to: word(&step["to"]),
                gate_ms: step["pause_ms"].as_f64(),
                longest,
            })
            .collect()
    }
}

impl fmt::Display for Flip {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let way = format!("{} → {}", self.from, self.to);
        let gate = match self.gate_ms {
            Some(ms) => format!("{ms:.1} ms"),
            None => "unknown".to_string(),
        };
        write!(f, "{way:<30} writes held {gate:>9}")?;
        match self.longest.as_secs_f64() * 1e3 {
            0.0 => write!(f, "   (no writers)"),
            ms => write!(f, "   longest write around it {ms:.1} ms"),
        }
    }
}

/// One line per stage.
pub fn stages(stages: &[Stage]) {
    println!(
        "\n{:<32} {:>7} {:>10} {:>8} {:>15} {:>15} {:>9} {:>6} {:>7}",
        "stage",
        "seconds",
        "statements",
        "per s",
        "reads p50/p99",
        "writes p50/p99",
        "on target",
        "errors",
        "retried"
    );
    for stage in stages {
        let statements = stage.statements();
        let pair = |times: &hdrhistogram::Histogram<u64>| -> String {
            if times.is_empty() {
                return "–".to_string();
            }
            let ms = |q| times.value_at_quantile(q) as f64 / 1e3;
            format!("{:.2}/{:.1} ms", ms(0.5), ms(0.99))
        };
        println!(
            "{:<32} {:>7.1} {:>10} {:>8.0} {:>15} {:>15} {:>7.0} % {:>6} {:>7}",
            stage.name,
            stage.seconds,
            statements,
            statements as f64 / stage.seconds.max(0.001),
            pair(&stage.reads),
            pair(&stage.writes),
            stage.on_target(),
            stage.errors,
            stage.retried
        );
    }
    footnote();
}

/// What the table of stages leaves open.
fn footnote() {
    println!(
        "on target: as the servers count their reads; those inside transactions always go to the \
         active side"
    );
}

/// One line per phase change.
pub fn flips(flips: &[Flip]) {
    println!("\nphase changes");
    for flip in flips {
        println!("  {flip}");
    }
}

/// One line per table.
pub fn rows(diffs: &[TableDiff]) {
    println!("\ntable                    rows    different");
    for diff in diffs {
        println!(
            "  {:<18} {:>8} {:>12}",
            diff.table, diff.rows, diff.different
        );
        for example in &diff.examples {
            println!("      {example}");
        }
    }
}

/// The proxy's own count of mirrored writes.
pub fn mirror(mirror: &Value) {
    let count = |name: &str| {
        mirror[name]
            .as_u64()
            .map_or("?".to_string(), |n| n.to_string())
    };
    println!(
        "\nmirrored writes: {} ok, {} failed, {} deferred",
        count("writes_ok"),
        count("writes_failed"),
        count("writes_deferred")
    );
}

/// The sums, and the first errors in full.
pub fn totals(stages: &[Stage], examples: &[String]) {
    let sum = |of: fn(&Stage) -> u64| -> u64 { stages.iter().map(of).sum() };
    println!(
        "{} statements ({} reads, {} writes), {} application errors, {} deadlocks retried",
        sum(Stage::statements),
        sum(|s| s.reads.len()),
        sum(|s| s.writes.len()),
        sum(|s| s.errors),
        sum(|s| s.retried)
    );
    for example in examples {
        println!("  error: {example}");
    }
}
