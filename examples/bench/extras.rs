//! System calls per statement, and memory of idle sessions.

use super::Plan;
use super::cost::{Syscalls, memory};
use super::crowd::{Crowd, Endpoint};
use super::report;
use super::stage::Stage;
use super::work::Work;
use std::io::Result;
use std::time::Duration;

/// Sessions that stay idle, and how many are opened before, for what a process
/// allocates once.
const IDLE: u64 = 500;
const FIRST: u64 = 20;
/// For closed sessions to be gone on both ends.
const SETTLE: Duration = Duration::from_millis(700);
/// Of a run under strace, which is slow.
const TRACED: Duration = Duration::from_secs(1);
/// Calls rarer than this per statement are not shown.
const RARE: f64 = 0.01;

pub fn syscalls(plan: &Plan, stage: &Stage) -> Result<()> {
    const HEADING: &str = "system calls per statement (strace -c -f)";
    if !plan.wants(HEADING) {
        return Ok(());
    }
    report::heading(HEADING);
    let cells = [
        ("point select, text", Work::PointText, 1),
        ("point select, text", Work::PointText, 8),
        ("point select, prepared", Work::PointPrepared, 8),
        ("wide read", Work::Wide, 8),
        ("update", Work::Update, 1),
        ("update", Work::Update, 8),
        ("login, query and quit", Work::Login, 1),
    ];
    for (name, work, clients) in cells {
        for endpoint in [stage.haproxy(), stage.plain(), stage.mirroring()] {
            let line = traced(&endpoint, work, clients)?;
            let who = format!("{name}, {clients} clients, {}", endpoint.name);
            println!("  {who:<58} {line}");
        }
    }
    Ok(())
}

fn traced(endpoint: &Endpoint, work: Work, clients: u64) -> Result<String> {
    let Some(pid) = endpoint.pid else {
        return Ok(String::new());
    };
    let mut crowd = Crowd::connect(endpoint, work, clients)?;
    crowd.run(Duration::from_millis(100))?;
    let Some(strace) = Syscalls::attach(pid) else {
        return Ok("not measured: strace is not installed or may not attach".to_string());
    };
    let sample = crowd.run(TRACED)?;
    let calls = strace.detach();
    let each = |count: u64| count as f64 / (sample.statements as f64).max(1.0);
    let total: u64 = calls.iter().map(|(_, count)| count).sum();
    let parts: Vec<String> = calls
        .iter()
        .filter(|(_, count)| each(*count) >= RARE)
        .map(|(name, count)| format!("{name} {:.2}", each(*count)))
        .collect();
    Ok(format!("{:>6.2}  ({})", each(total), parts.join(", ")))
}

pub fn idle(plan: &Plan, stage: &Stage) -> Result<()> {
    const HEADING: &str = "memory per idle session (the process's own; sockets not counted)";
    if !plan.wants(HEADING) {
        return Ok(());
    }
    report::heading(HEADING);
    let cells = [
        ("HAProxy", stage.haproxy(), false),
        ("lockstep, one leg", stage.plain(), false),
        ("lockstep, both legs", stage.mirroring(), true),
    ];
    let mut haproxy = None;
    for (name, endpoint, write) in cells {
        let Some(pid) = endpoint.pid else {
            continue;
        };
        let open = |count: u64| -> Result<Crowd> {
            let mut crowd = Crowd::connect(&endpoint, Work::PointText, count)?;
            if write {
                crowd.touch()?;
            } else {
                crowd.run(Duration::from_millis(50))?;
            }
            Ok(crowd)
        };
        drop(open(FIRST)?);
        std::thread::sleep(SETTLE);
        let before = memory(pid);
        let crowd = open(IDLE)?;
        std::thread::sleep(SETTLE);
        let each = memory(pid).saturating_sub(before) as f64 / IDLE as f64 / 1024.0;
        let times = each / *haproxy.get_or_insert(each);
        println!("  {name:<22} {each:>6.1} KiB each over {IDLE} sessions, {times:.2} x HAProxy's");
        drop(crowd);
        std::thread::sleep(SETTLE);
    }
    Ok(())
}
