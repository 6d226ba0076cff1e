//! Drivers and frameworks at work while their tables move: the route's active
//! side flips back and forth and the target's share of the reads changes under
//! them. What each script prints must be what it prints on a direct connection,
//! and afterwards both sides hold the same tables with the same rows.
//!
//! A script has a database of the route, where its writes are mirrored, and one
//! beside it, for those that only the active side gets (LOAD DATA, CALL).

use super::{PATIENCE, installed};
use crate::order::{counts, journal};
use crate::support::proc::{TempDir, cache};
use crate::support::{Family, Proxy, ProxyOptions, Server, ServerOptions, compare, servers, skip};
use parking_lot::Mutex;
use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Scripts at once: they wait for servers more than they compute.
const WORKERS: usize = 4;
/// Between two flips, so that statements run in each phase.
const BETWEEN: Duration = Duration::from_millis(70);
/// For what only the active side had to be on both.
const HEALED: Duration = Duration::from_secs(60);
/// Fewer flips than this were no test.
const FLIPS: usize = 10;
/// The target's share of the reads after each flip, in turn.
const READS: [u8; 4] = [0, 100, 30, 60];

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Script {
    Mysqlclient,
    Connector,
    Pools,
    Mysqli,
    Pdo,
    DbdMysql,
    DbdMariaDb,
    JdbcTwo,
    JdbcThree,
    Django,
    Sequelize,
}

const SCRIPTS: [Script; 11] = [
    // The longest first. The last two make their tables themselves.
    Script::Django,
    Script::Sequelize,
    Script::JdbcTwo,
    Script::JdbcThree,
    Script::Pools,
    Script::DbdMysql,
    Script::DbdMariaDb,
    Script::Mysqlclient,
    Script::Connector,
    Script::Mysqli,
    Script::Pdo,
];

impl Script {
    fn name(self) -> &'static str {
        match self {
            Script::Mysqlclient => "mysqlclient",
            Script::Connector => "connector",
            Script::Pools => "pools",
            Script::Mysqli => "mysqli",
            Script::Pdo => "pdo",
            Script::DbdMysql => "dbdmysql",
            Script::DbdMariaDb => "dbdmariadb",
            Script::JdbcTwo => "jdbc2",
            Script::JdbcThree => "jdbc3",
            Script::Django => "django",
            Script::Sequelize => "sequelize",
        }
    }

    /// The command that runs it, or why it cannot.
    fn command(self) -> Result<Command, String> {
        let scripts = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/drivers");
        let drivers = cache().join("drivers");
        let mut command = Command::new("timeout");
        // Django's migrations wait for edges, and edges for them.
        let patience = if soaking() { "1200" } else { PATIENCE };
        command.args(["-k", "5", patience]).stdin(Stdio::null());
        let python = || installed(drivers.join("python/bin/python"));
        match self {
            Script::Mysqlclient => {
                command
                    .arg(python()?)
                    .arg(scripts.join("python/mysqlclient.py"));
            }
            Script::Connector => {
                command
                    .arg(python()?)
                    .arg(scripts.join("python/connector.py"));
            }
            Script::Django => {
                command.arg(python()?).arg(scripts.join("django/manage.py"));
                command.env("PYTHONDONTWRITEBYTECODE", "1");
            }
            Script::Pools | Script::Sequelize => {
                installed(drivers.join("node/node_modules/sequelize"))?;
                let script = scripts.join(format!("node/{}.js", self.name()));
                command.arg(program("node")?).arg(script);
                command.env("DRIVERS_NODE", drivers.join("node"));
            }
            Script::Mysqli | Script::Pdo => {
                command.arg(program("php")?);
                command.args(["-d", "mysqli.allow_local_infile=1"]);
                command.arg(scripts.join(format!("php/{}.php", self.name())));
            }
            Script::DbdMysql | Script::DbdMariaDb => {
                let driver = if self == Script::DbdMysql {
                    "mysql"
                } else {
                    "MariaDB"
                };
                command
                    .arg(program("perl")?)
                    .arg(scripts.join("perl/dbd.pl"));
                command.arg(driver);
            }
            Script::JdbcTwo | Script::JdbcThree => {
                let version = if self == Script::JdbcTwo { 2 } else { 3 };
                let jar = installed(drivers.join(format!("java/mariadb-{version}.jar")))?;
                let path = format!("{}:{}", jar.display(), compiled_java()?.display());
                command.args(["java", "-XX:TieredStopAtLevel=1", "-cp", &path, "Main"]);
            }
        }
        Ok(command)
    }
}

/// A program of the system's, or that it is missing.
fn program(name: &str) -> Result<PathBuf, String> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path)
        .map(|f| f.join(name))
        .find(|p| p.is_file());
    found.ok_or_else(|| format!("{name} is missing (run scripts/install-drivers.sh)"))
}

/// The folder of the Java program's classes, compiled once.
fn compiled_java() -> Result<PathBuf, String> {
    static CLASSES: OnceLock<Result<TempDir, String>> = OnceLock::new();
    let compile = || {
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/drivers/java/Main.java");
        let folder = TempDir::new("java");
        let mut command = Command::new(program("javac")?);
        let out = command.arg("-d").arg(folder.path()).arg(source).output();
        let out = out.map_err(|e| e.to_string())?;
        let said = String::from_utf8_lossy(&out.stderr);
        assert!(out.status.success(), "javac: {said}");
        Ok(folder)
    };
    let classes = CLASSES.get_or_init(compile).as_ref();
    classes
        .map(|f| f.path().to_path_buf())
        .map_err(Clone::clone)
}

/// One run of a script.
struct Job {
    script: Script,
    tls: bool,
}

impl Job {
    /// All that there are.
    fn all() -> Vec<Job> {
        let both = |script| [false, true].map(|tls| Job { script, tls });
        SCRIPTS.into_iter().flat_map(both).collect()
    }

    /// One of each script: with TLS on one family, without on the other.
    fn some(family: Family) -> Vec<Job> {
        let first = usize::from(family == Family::MySql);
        let all = Job::all().into_iter().enumerate();
        let some = all.filter(|(n, _)| n % 2 == (n / 2 + first) % 2);
        some.map(|(_, job)| job).collect()
    }

    fn name(&self) -> String {
        format!("{}{}", self.script.name(), u8::from(self.tls))
    }

    /// What the script prints, with its databases' names made the same.
    fn run(&self, port: u16, family: Family, databases: &Databases) -> Result<String, String> {
        let mut command = self.script.command()?;
        command.env("DRIVER_PORT", port.to_string());
        command.env("DRIVER_USER", servers::APP.0);
        command.env("DRIVER_PASSWORD", servers::APP.1);
        command.env("DRIVER_TLS", if self.tls { "1" } else { "0" });
        command.env("DRIVER_SOURCE", family.name());
        command.env("DRIVER_DATABASE", &databases.routed);
        command.env("DRIVER_SIDE", &databases.side);
        let out = command.output().map_err(|e| e.to_string())?;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let printed = text(&out.stdout);
        if !out.status.success() || !printed.trim_end().ends_with("passed") {
            return Err(format!("{}: {printed}{}", out.status, text(&out.stderr)));
        }
        let printed = printed.replace(&databases.routed, "ROUTED");
        Ok(printed.replace(&databases.side, "SIDE"))
    }
}

struct Databases {
    routed: String,
    side: String,
}

impl Databases {
    /// Those of a run through the proxy, whose first is the route's, or of a
    /// run on a direct connection.
    fn of(job: &Job, direct: bool) -> Databases {
        let (routed, side) = if direct { ("d", "e") } else { ("r", "s") };
        Databases {
            routed: format!("{routed}_{}", job.name()),
            side: format!("{side}_{}", job.name()),
        }
    }

    fn create(&self, server: &Server) {
        let schema = include_str!("../../drivers/schema.sql");
        let schema = schema.replace("ROUTED", &self.routed);
        server.exec(&schema.replace("SIDE", &self.side));
    }
}

/// Both servers and the proxy between them.
struct Stage {
    family: Family,
    source: Server,
    target: Server,
    proxy: Proxy,
}

impl Stage {
    fn start(family: Family, jobs: &[Job]) -> Result<Stage, crate::support::Missing> {
        let options = || ServerOptions {
            tls: true,
            ..ServerOptions::args(["--max-allowed-packet=64M", "--local-infile=1"])
        };
        let source = Server::start(family, options())?;
        let target = Server::start(family, options())?;
        for job in jobs {
            Databases::of(job, true).create(&source);
            Databases::of(job, false).create(&source);
            Databases::of(job, false).create(&target);
        }
        let mut options = ProxyOptions::route("moving", &["r_*.*"]);
        // Lateness is no subject here: other tests run beside.
        options.extra_yaml =
            "limits: { mirror_deadline_ms: 10000, drain_ms: 5000, gate_ms: 15000 }".to_string();
        let proxy = Proxy::start(&source, &target, options);
        proxy.must_advance("moving", "source_first");
        Ok(Stage {
            family,
            source,
            target,
            proxy,
        })
    }

    /// Flips until told to stop; how often it did.
    fn flip(&self, stop: &AtomicBool) -> usize {
        let mut done = 0;
        let mut there = false;
        for reads in READS.into_iter().cycle() {
            if stop.load(Ordering::Relaxed) {
                break;
            }
            std::thread::sleep(BETWEEN);
            let answer = if there {
                self.proxy.rollback("moving", Some("source_first"), true)
            } else {
                self.proxy.advance("moving", Some("target_first"), true)
            };
            // A session in a long transaction may hold a flip up: refused.
            if answer.ok() {
                there = !there;
                done += 1;
            } else {
                println!("{}: flip refused: {}", self.family, answer.body);
            }
            // Refused while a table is made on one side and not yet on both.
            self.proxy.reads("moving", reads);
        }
        done
    }

    /// Runs one script directly and through the proxy: what differs.
    fn compare_run(&self, job: &Job) -> Option<String> {
        let direct = job.run(self.source.port(), self.family, &Databases::of(job, true));
        let direct = match direct {
            Ok(printed) => printed,
            Err(why) => return Some(format!("{}, directly: {why}", job.name())),
        };
        let started = Instant::now();
        let proxied = job.run(self.proxy.port(), self.family, &Databases::of(job, false));
        println!("{} {}: {:?}", self.family, job.name(), started.elapsed());
        match proxied {
            Err(why) => Some(format!("{}: {why}", job.name())),
            Ok(printed) if printed != direct => Some(format!(
                "{}:\n{}",
                job.name(),
                first_difference(&printed, &direct)
            )),
            Ok(_) => None,
        }
    }

    /// Rows and tables of one job that are not the same on both sides.
    fn compare_sides(&self, job: &Job) -> Vec<String> {
        let database = Databases::of(job, false).routed;
        let tables = compare::tables_of(&self.source, &database);
        let names: Vec<&str> = tables.iter().map(String::as_str).collect();
        let rows = compare::compare(&self.source, &self.target, &names);
        let rows = rows.iter().filter(|t| t.different > 0);
        let mut wrong: Vec<String> = rows.map(ToString::to_string).collect();
        let shape = |server: &Server| shapes(server, &database);
        let (ours, theirs) = (shape(&self.source), shape(&self.target));
        if ours != theirs {
            wrong.push(format!(
                "{database}: tables differ: {}",
                first_difference(&theirs.join("\n"), &ours.join("\n"))
            ));
        }
        wrong
    }
}

/// The definitions of a database's tables, counters left out: an id that was
/// rolled back may have been burned on one side only.
fn shapes(server: &Server, database: &str) -> Vec<String> {
    let tables = compare::tables_of(server, database);
    let shape = |table: &String| {
        let (database, name) = compare::split(table);
        let row = server.query(&format!("SHOW CREATE TABLE `{database}`.`{name}`"));
        let text = row
            .into_iter()
            .flatten()
            .flatten()
            .collect::<Vec<_>>()
            .join(" ");
        text.split(' ')
            .filter(|word| !word.starts_with("AUTO_INCREMENT="))
            .collect::<Vec<_>>()
            .join(" ")
    };
    tables.iter().map(shape).collect()
}

fn first_difference(got: &str, wanted: &str) -> String {
    let mut wanted = wanted.lines();
    for line in got.lines() {
        let other = wanted.next();
        if other != Some(line) {
            return format!("  {line}\ninstead of\n  {}", other.unwrap_or("(nothing)"));
        }
    }
    format!(
        "  the end\ninstead of\n  {}",
        wanted.next().unwrap_or("(nothing)")
    )
}

/// The jobs that can run here.
fn possible(jobs: &[Job]) -> VecDeque<&Job> {
    let can = |job: &&Job| match job.script.command() {
        Ok(_) => true,
        Err(why) => {
            skip(&why);
            false
        }
    };
    jobs.iter().filter(can).collect()
}

/// With `moving`, routes are flipped all the while and both sides' rows and
/// tables are compared afterwards.
fn drivers_are_served(family: Family, moving: bool) {
    let jobs = match moving {
        true => Job::all(),
        false => Job::some(family),
    };
    let stage = crate::or_skip!(Stage::start(family, &jobs));
    // Only a first, full login shows the password to the proxy.
    crate::support::proc::block_on(async {
        let conn = stage.proxy.conn(Some("shop")).await;
        let _ = conn.disconnect().await;
    });
    let queue = Mutex::new(possible(&jobs));
    let failures = Mutex::new(Vec::new());
    let stop = AtomicBool::new(false);
    let flips = std::thread::scope(|scope| {
        let flipper = moving.then(|| scope.spawn(|| stage.flip(&stop)));
        let work = || {
            while let Some(job) = { queue.lock().pop_front() } {
                failures.lock().extend(stage.compare_run(job));
            }
        };
        let workers: Vec<_> = (0..WORKERS).map(|_| scope.spawn(work)).collect();
        let ended = workers.into_iter().all(|w| w.join().is_ok());
        stop.store(true, Ordering::Relaxed);
        assert!(ended, "a worker panicked");
        flipper.map_or(0, |f| f.join().unwrap_or_default())
    });
    let mut failures = failures.into_inner();
    if moving {
        // Deferred writes are healed a moment later.
        stage.proxy.wait_followed("moving", HEALED);
    }
    for job in jobs.iter().filter(|_| moving) {
        failures.extend(stage.compare_sides(job));
    }
    let counted = counts(&stage.proxy, "moving");
    println!("{family}: {flips} flips, mirrored {counted:?}");
    let journal = journal(&stage.proxy);
    assert!(
        failures.is_empty(),
        "{}\n{counted:?}\n{journal}",
        failures.join("\n\n")
    );
    // A CALL may write anything, so each of them counts as deferred.
    assert_eq!(counted.failed, 0, "{journal}");
    assert!(!moving || flips >= FLIPS, "only {flips} flips");
}

#[test]
fn drivers_are_as_direct_on_mariadb() {
    drivers_are_served(Family::MariaDb, false);
}

#[test]
fn drivers_are_as_direct_on_mysql() {
    drivers_are_served(Family::MySql, false);
}

fn soaking() -> bool {
    std::env::var_os("LOCKSTEP_SOAK").is_some()
}

fn soak_moving(family: Family) {
    if soaking() {
        drivers_are_served(family, true);
    }
}

#[test]
fn soak_drivers_notice_no_moving_route_on_mariadb() {
    soak_moving(Family::MariaDb);
}

#[test]
fn soak_drivers_notice_no_moving_route_on_mysql() {
    soak_moving(Family::MySql);
}
