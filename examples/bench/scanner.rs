//! What the scanner costs for one text, with nothing else around it.

use super::{Plan, report};
use lockstep::sql::{ScanMode, scan};
use std::hint::black_box;
use std::time::Instant;

/// Scans timed at once, and how often: the best of them is shown, since what
/// the machine does besides only adds.
const SCANS: u32 = 20_000;
const TIMES: u32 = 15;

pub fn all(plan: &Plan) {
    const HEADING: &str = "scanner, ns a text";
    if !plan.wants(HEADING) {
        return;
    }
    report::heading(HEADING);
    let row = "(50123, 4992833, 'ab', 'x1', NULL, 3.5)";
    let rows = [row; 50].join(", ");
    let long = format!("(50123, 4992833, '{}')", "83868641912-".repeat(10));
    for (name, text) in [
        ("BEGIN", "BEGIN".to_owned()),
        (
            "point select",
            "SELECT c FROM sbtest1 WHERE id=50123".to_owned(),
        ),
        (
            "point update",
            "UPDATE sbtest1 SET k=k+1 WHERE id=50123".to_owned(),
        ),
        (
            "insert, one row",
            format!("INSERT INTO t (id, k, c) VALUES {long}"),
        ),
        (
            "insert, 50 rows",
            format!("INSERT INTO t (id, k, c, d, e, f) VALUES {rows}"),
        ),
    ] {
        let best = (0..TIMES)
            .map(|_| {
                let start = Instant::now();
                for _ in 0..SCANS {
                    black_box(scan(black_box(text.as_bytes()), ScanMode::default()));
                }
                start.elapsed() / SCANS
            })
            .min()
            .unwrap_or_default();
        println!(
            "  {name:<20} {:>5} bytes {:>6} ns",
            text.len(),
            best.as_nanos()
        );
    }
}
