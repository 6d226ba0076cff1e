//! How far a copy is, how fast, and when it will be done.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::follow::batch::TableName;

/// The rate is an average over about this time: long enough to be readable,
/// short enough to show that a throttle has set in.
const RATE_OVER: Duration = Duration::from_secs(20);

/// Shortest time between two samples of the rate.
const SAMPLE: Duration = Duration::from_millis(500);

/// One table's copy.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct TableProgress {
    /// Rows copied, those of earlier runs included.
    pub rows_done: u64,
    /// Rows in all, as the server estimates.
    pub rows_estimated: u64,
    /// Parts of it that are not copied yet.
    pub parts_left: u64,
}

#[derive(Debug)]
struct Rate {
    at: Instant,
    done: u64,
    /// Rows a second; None before the first sample.
    average: Option<f64>,
}

/// How far a copy is.
#[derive(Debug, Default)]
pub struct Status {
    /// Rows copied, those of earlier runs included.
    pub rows_done: AtomicU64,
    /// Rows in all, as the server estimates.
    pub rows_estimated: AtomicU64,
    /// Parts left.
    pub parts_left: AtomicU64,
    /// All is copied.
    pub finished: AtomicBool,
    /// What holds the copy back now; None while it runs.
    pub throttled: Mutex<Option<&'static str>>,
    tables: Mutex<BTreeMap<TableName, TableProgress>>,
    rate: Mutex<Option<Rate>>,
}

impl Status {
    /// Rows of a table have been written.
    pub(super) fn copied(&self, name: &TableName, rows: u64) {
        self.rows_done.fetch_add(rows, Ordering::Relaxed);
        if let Some(table) = self.tables.lock().get_mut(name) {
            table.rows_done += rows;
        }
        self.sample(Instant::now());
    }

    /// A table that is to be copied.
    pub(super) fn planned(&self, name: &TableName, rows_estimated: u64) {
        let mut tables = self.tables.lock();
        let table = tables.entry(name.clone()).or_default();
        table.rows_estimated = rows_estimated;
    }

    /// One of its parts, as an earlier run left it.
    pub(super) fn part(&self, name: &TableName, rows_done: u64, finished: bool) {
        let mut tables = self.tables.lock();
        let table = tables.entry(name.clone()).or_default();
        table.rows_done += rows_done;
        table.parts_left += u64::from(!finished);
    }

    /// Starts over.
    pub(super) fn clear(&self) {
        self.tables.lock().clear();
        self.finished.store(false, Ordering::Relaxed);
        *self.rate.lock() = None;
    }

    pub(super) fn part_finished(&self, name: &TableName) {
        self.parts_left.fetch_sub(1, Ordering::Relaxed);
        if let Some(table) = self.tables.lock().get_mut(name) {
            table.parts_left = table.parts_left.saturating_sub(1);
        }
    }

    /// Each table's progress.
    pub fn tables(&self) -> BTreeMap<TableName, TableProgress> {
        self.tables.lock().clone()
    }

    fn sample(&self, now: Instant) {
        let done = self.rows_done.load(Ordering::Relaxed);
        let mut rate = self.rate.lock();
        let Some(last) = rate.as_mut() else {
            *rate = Some(Rate {
                at: now,
                done,
                average: None,
            });
            return;
        };
        let passed = now.saturating_duration_since(last.at);
        if passed < SAMPLE {
            return;
        }
        let seconds = passed.as_secs_f64();
        let current = done.saturating_sub(last.done) as f64 / seconds;
        // Weighted by the time it stands for.
        let weight = 1.0 - (-seconds / RATE_OVER.as_secs_f64()).exp();
        let average = last.average.map_or(current, |a| a + weight * (current - a));
        *last = Rate {
            at: now,
            done,
            average: Some(average),
        };
    }

    /// Rows a second, lately.
    pub fn rows_per_s(&self) -> f64 {
        if self.finished.load(Ordering::Relaxed) {
            return 0.0;
        }
        self.sample(Instant::now());
        let rate = self.rate.lock();
        rate.as_ref().and_then(|r| r.average).unwrap_or(0.0)
    }

    /// Until all is copied, at the rate of lately; None while nobody knows.
    pub fn eta(&self) -> Option<Duration> {
        let rate = self.rows_per_s();
        let estimated = self.rows_estimated.load(Ordering::Relaxed);
        let left = estimated.saturating_sub(self.rows_done.load(Ordering::Relaxed));
        (rate >= 1.0).then(|| Duration::from_secs_f64((left as f64 / rate).min(1e9)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_follows_what_is_done() {
        let status = Status::default();
        status.rows_estimated.store(10_000, Ordering::Relaxed);
        let start = Instant::now();
        status.sample(start);
        for second in 1..=60 {
            status.rows_done.fetch_add(100, Ordering::Relaxed);
            status.sample(start + Duration::from_secs(second));
        }
        let average = status.rate.lock().as_ref().unwrap().average.unwrap();
        assert!((average - 100.0).abs() < 1.0, "{average}");
        for second in 61..=80 {
            status.rows_done.fetch_add(500, Ordering::Relaxed);
            status.sample(start + Duration::from_secs(second));
        }
        let average = status.rate.lock().as_ref().unwrap().average.unwrap();
        assert!((300.0..450.0).contains(&average), "{average}");
    }
}
