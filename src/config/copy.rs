//! How hard the copy of existing rows may work.

/// The settings under `copy`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CopySettings {
    /// Chunks copied at a time.
    pub slots: u64,
    /// Rows a second, all tables together; 0: no limit.
    pub rows_per_s: u64,
    /// The copy waits while the follower's lag is above; 0: never.
    pub max_lag_ms: u64,
    /// The copy waits while more threads run on the side that is read; 0:
    /// never.
    pub max_threads_running: u64,
    /// Whether the binlog of the side that is written gets the rows. Without,
    /// what replicates from it lacks them.
    pub binlog: bool,
    /// Hours of the day with another rate; the first that fits counts.
    pub schedule: Vec<Hours>,
}

impl Default for CopySettings {
    fn default() -> Self {
        CopySettings {
            slots: 4,
            rows_per_s: 0,
            max_lag_ms: 1_000,
            max_threads_running: 64,
            binlog: true,
            schedule: Vec::new(),
        }
    }
}

/// A part of the day, in UTC.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Hours {
    /// Minute of the day it begins.
    pub from: u16,
    /// Minute of the day it ends, before `from` where it goes over midnight.
    pub to: u16,
    /// Rows a second then; 0: no limit.
    pub rows_per_s: u64,
    /// Nothing is copied then.
    pub pause: bool,
}

impl Hours {
    /// Whether a minute of the day is in it. The same minute twice is all day.
    pub fn contains(&self, minute: u16) -> bool {
        if self.from < self.to {
            (self.from..self.to).contains(&minute)
        } else {
            minute >= self.from || minute < self.to
        }
    }
}

/// Reads `22:30`.
pub fn minute_of_day(text: &str) -> Option<u16> {
    let (hours, minutes) = text.split_once(':')?;
    let (hours, minutes): (u16, u16) = (hours.parse().ok()?, minutes.parse().ok()?);
    (hours < 24 && minutes < 60).then_some(hours * 60 + minutes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nights_go_over_midnight() {
        let hours = |from: &str, to: &str| Hours {
            from: minute_of_day(from).unwrap(),
            to: minute_of_day(to).unwrap(),
            rows_per_s: 0,
            pause: false,
        };
        let at = |text: &str| minute_of_day(text).unwrap();
        let night = hours("22:00", "06:00");
        assert!(night.contains(at("23:59")) && night.contains(0) && night.contains(at("05:59")));
        assert!(!night.contains(at("06:00")) && !night.contains(at("21:59")));
        let day = hours("08:00", "18:00");
        assert!(day.contains(at("08:00")) && !day.contains(at("18:00")));
        for bad in ["24:00", "1", "1:60", "a:b", ""] {
            assert_eq!(minute_of_day(bad), None, "{bad}");
        }
    }
}
