//! `make demo`: a shop moves between two databases while it is used.
//!
//! One MariaDB server holds the shop, another one is empty; the proxy stands
//! before them, and sixteen clients go shopping through it. Under them the
//! target is filled, then the route walks to the target and back again. At the
//! end both databases are compared row by row, by code that has nothing of the
//! proxy in it.
//!
//! On a terminal it then stays up until Ctrl-C. Otherwise it exits with 0 only
//! if the application saw no error and no row differs.

#[path = "../../tests/it/support/mod.rs"]
mod support;

mod load;
mod report;
mod tally;

use load::{Mode, Shop};
use report::{Flip, say};
use serde_json::json;
use std::io::IsTerminal;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};
use support::compare::{TableDiff, compare, tables_of};
use support::proc::{block_on, runtime};
use support::servers::{APP, Server};
use support::{Family, Proxy, ProxyOptions, ServerOptions};

const CLIENTS: u64 = 16;
const ROUTE: &str = "shop";
/// For a machine that is busy building: a mirror that answers after the default
/// 200 ms is healed, but the demo shows more when it need not be.
const SETTINGS: &str = "limits: { mirror_deadline_ms: 2000 }\n";
/// For the copy, on a slow machine.
const COPY_LIMIT: Duration = Duration::from_secs(300);

/// For a clean comparison; each takes seconds.
const COMPARE_LIMIT: Duration = Duration::from_secs(120);
/// Held writes show up in the application's times this long after the gate has
/// opened.
const AFTERGLOW: Duration = Duration::from_millis(300);

/// Seconds of each stage; `LOCKSTEP_DEMO_SECONDS` overrides it.
fn stage_seconds() -> f64 {
    let set = std::env::var("LOCKSTEP_DEMO_SECONDS").ok();
    set.and_then(|s| s.parse().ok()).unwrap_or(4.0)
}

fn main() -> ExitCode {
    let (source, target) = match start_servers() {
        Ok(servers) => servers,
        Err(missing) => {
            eprintln!("demo: {missing}");
            return ExitCode::FAILURE;
        }
    };
    fill(&source);
    let options = ProxyOptions {
        extra_yaml: SETTINGS.to_string(),
        ..ProxyOptions::route(ROUTE, &["shop.*"])
    };
    let proxy = Proxy::start(&source, &target, options);
    say(&format!(
        "proxy      127.0.0.1:{} (control http://{})",
        proxy.port(),
        proxy.control()
    ));
    let mut walk = Walk {
        shop: Shop::new(proxy.port()),
        source: &source,
        target: &target,
        proxy: &proxy,
        flips: Vec::new(),
        seconds: stage_seconds(),
    };
    let mut clients = {
        let _inside = runtime().enter();
        walk.shop.open(CLIENTS)
    };
    let walked = walk.all();
    walk.shop.set(Mode::Stop);
    block_on(async { while clients.join_next().await.is_some() {} });
    walk.shop.tally.stage("end");
    say("comparing every row of both databases");
    let tables = tables_of(&source, "shop");
    let names: Vec<&str> = tables.iter().map(String::as_str).collect();
    let diffs = compare(&source, &target, &names);
    let fine = finish(walk, walked, &diffs);
    if std::io::stdout().is_terminal() {
        stay(&proxy);
    }
    if fine {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

fn start_servers() -> Result<(Server, Server), support::Missing> {
    say("starting two MariaDB servers");
    let start = || Server::start(Family::MariaDb, ServerOptions::default());
    let (source, target) = (start()?, start()?);
    for (name, server) in [("source", &source), ("target", &target)] {
        say(&format!(
            "{name}     {} ({})",
            server.address(),
            server.version()
        ));
    }
    Ok((source, target))
}

/// The shop, on the source alone.
fn fill(source: &Server) {
    let began = Instant::now();
    source.exec(&format!("USE shop;\n{}", include_str!("shop.sql")));
    let rows: u64 = tables_of(source, "shop")
        .iter()
        .filter_map(|t| {
            source
                .one(&format!("SELECT COUNT(*) FROM {t}"))
                .parse::<u64>()
                .ok()
        })
        .sum();
    say(&format!(
        "shop       {rows} rows loaded into the source in {:.1} s; the target is empty",
        began.elapsed().as_secs_f64()
    ));
}

/// The route's way, and what is needed on it.
struct Walk<'a> {
    shop: Arc<Shop>,
    source: &'a Server,
    target: &'a Server,
    proxy: &'a Proxy,
    flips: Vec<Flip>,
    seconds: f64,
}

impl Walk<'_> {
    fn all(&mut self) -> Result<(), String> {
        self.shop.set(Mode::Everything);
        self.stage("source_only", 0.5);
        self.advance("syncing")?;
        self.copied()?;
        self.advance("source_first")?;
        self.stage("source_first, reads 0 %", 1.0);
        for percent in [10, 50, 100] {
            self.reads(percent)?;
            self.stage(&format!("source_first, reads {percent} %"), 1.0);
        }
        self.compare()?;
        self.advance("target_first")?;
        self.stage("target_first, reads 100 %", 1.5);
        for percent in [50, 0] {
            self.reads(percent)?;
            self.stage(&format!("target_first, reads {percent} %"), 1.0);
        }
        self.advance("target_only")?;
        self.stage("target_only", 1.0);
        self.rollback("target_first")?;
        self.compare()?;
        self.rollback("source_first")?;
        self.stage("source_first again, reads 0 %", 1.5);
        self.shop.set(Mode::ReadsAlone);
        block_on(self.shop.writers_gone());
        say("writers have stopped and finished");
        // An edge waits until the other side has everything.
        self.rollback("syncing")?;
        self.advance("source_first")
    }

    /// Waits for the copy, and shows how it goes.
    fn copied(&mut self) -> Result<(), String> {
        self.shop.tally.stage("syncing");
        say("── syncing: tables are made and filled under the load");
        let began = Instant::now();
        let mut before = self.shop.tally.totals().0;
        loop {
            std::thread::sleep(Duration::from_secs(1));
            let route = self.proxy.route(ROUTE);
            let (copy, follow) = (&route["copy"], &route["follow"]);
            let (statements, errors, _) = self.shop.tally.totals();
            say(&format!(
                "   copy {} of about {} rows, {} rows/s; follow {} ms behind; application {} \
                 statements/s, errors {errors}",
                copy["rows_done"],
                copy["rows_estimated"],
                copy["rows_per_s"],
                follow["lag_ms"],
                statements - before,
            ));
            before = statements;
            if copy["state"] == "done" {
                say(&format!(
                    "   copied in {:.1} s",
                    began.elapsed().as_secs_f64()
                ));
                return Ok(());
            }
            if began.elapsed() > COPY_LIMIT {
                return Err(format!("the copy does not end: {route:#}"));
            }
        }
    }

    /// Lets the application run for a while and shows how it goes.
    fn stage(&mut self, name: &str, times: f64) {
        self.shop.tally.stage(name);
        say(&format!("── {name}"));
        let selects = self.server_selects();
        let until = Instant::now() + Duration::from_secs_f64(self.seconds * times);
        let mut before = self.shop.tally.totals().0;
        while Instant::now() < until {
            let tick = Instant::now();
            let left = until.saturating_duration_since(tick);
            std::thread::sleep(left.min(Duration::from_secs(1)));
            let (statements, errors, retried) = self.shop.tally.totals();
            let rate = (statements - before) as f64 / tick.elapsed().as_secs_f64();
            before = statements;
            say(&format!(
                "   {rate:>6.0} statements/s   errors {errors}   deadlocks retried {retried}"
            ));
        }
        let now = self.server_selects();
        let of = |side: usize| now[side] - selects[side];
        self.shop.tally.selects([of(0), of(1)]);
    }

    /// Reads each server has answered since it started, as it says itself.
    fn server_selects(&self) -> [u64; 2] {
        [self.source, self.target].map(|server| {
            let row = server
                .query("SHOW GLOBAL STATUS LIKE 'Com_select'")
                .into_iter()
                .next();
            let count = row.and_then(|r| r.into_iter().nth(1).flatten());
            count.and_then(|n| n.parse().ok()).unwrap_or_default()
        })
    }

    fn reads(&self, percent: u8) -> Result<(), String> {
        let answer = self.proxy.reads(ROUTE, percent);
        say(&format!("$ lockstep reads {ROUTE} {percent}"));
        if answer.ok() {
            Ok(())
        } else {
            Err(format!("reads {percent} was refused: {}", answer.body))
        }
    }

    /// Every row of both sides, under the load: what a flip asks for.
    fn compare(&self) -> Result<(), String> {
        say(&format!("$ lockstep compare {ROUTE} --wait"));
        let state = || self.proxy.route(ROUTE)["compare"].clone();
        let began = Instant::now();
        let before = state()["last_clean_at"].clone();
        loop {
            // Refused while the follower of a new phase is starting.
            let asked = self
                .proxy
                .post(&format!("/v1/routes/{ROUTE}/compare"), &json!({}));
            while state()["running"] == true {
                std::thread::sleep(Duration::from_millis(100));
            }
            let now = state();
            if asked.ok() && !now["last_clean_at"].is_null() && now["last_clean_at"] != before {
                say(&format!(
                    "   {} rows equal in {:.1} s",
                    now["rows_compared"],
                    began.elapsed().as_secs_f64()
                ));
                return Ok(());
            }
            if began.elapsed() > COMPARE_LIMIT {
                return Err(format!("no clean comparison: {} {now}", asked.body));
            }
            std::thread::sleep(Duration::from_millis(300));
        }
    }

    fn advance(&mut self, to: &str) -> Result<(), String> {
        self.step("advance", to)
    }

    fn rollback(&mut self, to: &str) -> Result<(), String> {
        self.step("rollback", to)
    }

    /// One phase change, tried again as an operator would when transactions
    /// did not end in time.
    fn step(&mut self, step: &str, to: &str) -> Result<(), String> {
        say(&format!("$ lockstep {step} {ROUTE} --to {to} --wait"));
        let mut why = String::new();
        for _ in 0..5 {
            self.shop.tally.flip_begins();
            let answer = match step {
                "advance" => self.proxy.advance(ROUTE, Some(to), false),
                _ => self.proxy.rollback(ROUTE, Some(to), false),
            };
            std::thread::sleep(AFTERGLOW);
            let longest = self.shop.tally.flip_ended();
            if answer.ok() {
                let flips = Flip::read(&answer.json(), longest);
                flips.iter().for_each(|flip| say(&format!("   {flip}")));
                self.flips.extend(flips);
                return Ok(());
            }
            say(&format!("   refused: {}", answer.body));
            why = answer.body;
        }
        Err(format!("{step} to {to} was refused: {why}"))
    }
}

/// Prints the outcome; true if nothing is wrong.
fn finish(walk: Walk<'_>, walked: Result<(), String>, diffs: &[TableDiff]) -> bool {
    let route = walk.proxy.route(ROUTE);
    let (stages, examples) = walk.shop.tally.report();
    report::stages(&stages);
    report::flips(&walk.flips);
    report::rows(diffs);
    report::mirror(&route["mirror"]);
    let errors: u64 = stages.iter().map(|s| s.errors).sum();
    let different: usize = diffs.iter().map(|d| d.different).sum();
    report::totals(&stages, &examples);
    if let Err(why) = &walked {
        println!("\nThe walk was not finished: {why}");
    }
    let fine = errors == 0 && different == 0 && walked.is_ok();
    let verdict = if fine {
        "No error, no difference."
    } else {
        "FAILED"
    };
    if !fine {
        println!("\nthe proxy's log ends with:\n{}", walk.proxy.log());
    }
    println!("\n{verdict} {errors} application errors, {different} rows different.");
    fine
}

/// For trying by hand.
fn stay(proxy: &Proxy) {
    let (user, password) = APP;
    let (port, control) = (proxy.port(), proxy.control());
    println!(
        "\nThe proxy stays up, in {}. To try it:",
        proxy.phase(ROUTE)
    );
    println!("  mariadb -h 127.0.0.1 -P {port} -u {user} -p{password} shop");
    println!("  mysql://{user}:{password}@127.0.0.1:{port}/shop");
    println!("  target/release/lockstep --control http://{control} status");
    println!("Ctrl-C ends it.");
    let _ = block_on(tokio::signal::ctrl_c());
    println!("\nstopping");
}
