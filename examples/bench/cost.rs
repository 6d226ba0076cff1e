//! What a process costs, as the kernel says: CPU, memory, system calls.

use super::support::proc::TempDir;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// The kernel's USER_HZ: ticks per second in `/proc/PID/stat`, the same on all
/// of Linux's architectures in use.
const TICKS: f64 = 100.0;
/// For strace to attach to every thread, and to write its summary.
const ATTACH: Duration = Duration::from_millis(500);

/// CPU time used by a process so far, in microseconds.
#[derive(Clone, Copy, Default)]
pub struct Cpu {
    /// All of it, to the nanosecond where the kernel keeps schedstat.
    pub all: f64,
    /// In user space and in the kernel, in ticks of 10 ms.
    pub user: f64,
    pub system: f64,
}

impl Cpu {
    pub fn of(pid: u32) -> Cpu {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        // The name in parentheses may hold spaces; fields 14 and 15 follow.
        let after = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
        let fields: Vec<&str> = after.split_whitespace().collect();
        let ticks = |n: usize| -> f64 {
            let value = fields.get(n).and_then(|f| f.parse::<f64>().ok());
            value.unwrap_or_default() * 1e6 / TICKS
        };
        let (user, system) = (ticks(11), ticks(12));
        let all = run_time(pid).unwrap_or(user + system);
        Cpu { all, user, system }
    }

    pub fn since(self, before: Cpu) -> Cpu {
        Cpu {
            all: self.all - before.all,
            user: self.user - before.user,
            system: self.system - before.system,
        }
    }
}

/// The time all threads have run, in microseconds.
fn run_time(pid: u32) -> Option<f64> {
    let mut total = 0.0;
    for task in std::fs::read_dir(format!("/proc/{pid}/task")).ok()? {
        let text = std::fs::read_to_string(task.ok()?.path().join("schedstat")).ok()?;
        total += text.split_whitespace().next()?.parse::<f64>().ok()? / 1e3;
    }
    Some(total)
}

/// Memory of its own that a process holds, in bytes. Sockets' buffers are the
/// kernel's and not in it.
pub fn memory(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|l| l.strip_prefix("RssAnon:"));
    let kib = line.and_then(|l| l.trim().trim_end_matches("kB").trim().parse::<u64>().ok());
    kib.unwrap_or_default() * 1024
}

/// Counts a process's system calls while it lives.
pub struct Syscalls {
    strace: Child,
    folder: TempDir,
}

impl Syscalls {
    /// Attaches strace; None where there is none or it may not attach.
    pub fn attach(pid: u32) -> Option<Syscalls> {
        let folder = TempDir::new("strace");
        let mut strace = Command::new("strace")
            .args(["-c", "-f", "-q", "-p", &pid.to_string(), "-o"])
            .arg(folder.path().join("summary"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .ok()?;
        std::thread::sleep(ATTACH);
        match strace.try_wait() {
            Ok(None) => Some(Syscalls { strace, folder }),
            _ => None,
        }
    }

    /// Detaches: name and count of each call, the most frequent first.
    pub fn detach(mut self) -> Vec<(String, u64)> {
        let pid = self.strace.id().to_string();
        let _ = Command::new("sh")
            .args(["-c", "kill -s INT \"$1\"", "kill", &pid])
            .status();
        let _ = self.strace.wait();
        let mut calls = summary(&self.folder.path().join("summary"));
        calls.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
        calls
    }
}

/// Reads `strace -c`: share, seconds, microseconds per call, calls, errors (or
/// nothing), name.
fn summary(path: &Path) -> Vec<(String, u64)> {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let line = |line: &str| -> Option<(String, u64)> {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let count = fields.get(3)?.parse().ok()?;
        let name = fields.last()?;
        (*name != "total").then(|| (name.to_string(), count))
    };
    text.lines().filter_map(line).collect()
}
