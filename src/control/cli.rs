//! The command line: `serve`, and the control commands that talk HTTP.
//!
//! Exit codes: 0 done, 1 refused or failed with the reason on stderr, 2 usage.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};
use serde_json::{Value, json};

use super::client::{Client, segment};
use super::{preflight, print};
use crate::config::Password;

/// Between two looks of `status --watch`.
const WATCH_INTERVAL: Duration = Duration::from_secs(1);

/// Where the control port is unless said otherwise.
const DEFAULT_CONTROL: &str = "http://127.0.0.1:6080";

/// Changes the MySQL database under a running application.
#[derive(Parser)]
#[command(name = "lockstep", version, about)]
pub struct Cli {
    /// Settings file of `serve` [env: LOCKSTEP_CONFIG] [default: proxy.yaml]
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Control port [env: LOCKSTEP_CONTROL] [default: http://127.0.0.1:6080]
    #[arg(long, global = true, value_name = "URL")]
    control: Option<String>,
    /// Bearer token of the control port [env: LOCKSTEP_TOKEN]
    #[arg(long, global = true, value_name = "TOKEN")]
    token: Option<String>,
    /// Print the answer as JSON
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run the proxy and its control port
    Serve,
    /// Preflight: every finding with severity, table, why and remedy. Asks the
    /// servers itself with the settings file; with --control the running proxy
    /// does
    Check {
        /// Only this route
        route: Option<String>,
    },
    /// Phases, mirror, conditions of the next step
    Status {
        /// Only this route
        route: Option<String>,
        /// Again every second until interrupted
        #[arg(long)]
        watch: bool,
    },
    /// Move a route forward, one phase or to --to
    Advance(Edge),
    /// Move a route back, one phase or to --to
    Rollback(Edge),
    /// Set the target's share of a route's reads
    Reads {
        /// The route
        route: String,
        /// 0 to 100
        #[arg(value_parser = clap::value_parser!(u8).range(0..=100))]
        percent: u8,
        /// What the percentage is of
        #[arg(long)]
        by: Option<By>,
    },
    /// Compare both sides' rows
    Compare {
        /// The route
        route: String,
        /// Compare by MD5
        #[arg(long)]
        strong: bool,
        /// Only what a column of update times shows to have changed lately: no
        /// proof
        #[arg(long, conflicts_with = "strong")]
        window: bool,
        /// Repair what differs
        #[arg(long)]
        repair: bool,
        /// Until it is done
        #[arg(long)]
        wait: bool,
    },
    /// Rows proven different
    Divergences {
        /// The route
        route: String,
    },
    /// The routing decision for a statement, and why
    Explain {
        /// The schema in use
        #[arg(short = 'D', long, value_name = "DB")]
        database: Option<String>,
        /// The statement
        sql: String,
    },
    /// Pause a route's background work
    Pause {
        /// The route
        route: String,
    },
    /// Resume a route's background work: also one that waits, or is stuck
    Resume {
        /// The route
        route: String,
    },
    /// Clients, their legs, how long in transaction
    Sessions,
    /// Capture traffic (not in this version)
    Record {
        /// Where to
        file: PathBuf,
    },
    /// Replay captured traffic (not in this version)
    Replay {
        /// What
        file: PathBuf,
    },
}

#[derive(Args)]
struct Edge {
    /// The route
    route: String,
    /// The phase to reach, edge by edge
    #[arg(long, value_name = "PHASE")]
    to: Option<PhaseName>,
    /// Override conditions that do not hold or are not known
    #[arg(long)]
    force: bool,
    /// End sessions that hold it up
    #[arg(long)]
    kill: bool,
    /// Only show what would be done
    #[arg(long)]
    dry_run: bool,
    /// Wait until the conditions hold
    #[arg(long)]
    wait: bool,
}

#[derive(Clone, Copy, ValueEnum)]
enum By {
    Session,
    Statement,
}

#[derive(Clone, Copy, ValueEnum)]
#[value(rename_all = "snake_case")]
enum PhaseName {
    SourceOnly,
    Syncing,
    SourceFirst,
    TargetFirst,
    TargetOnly,
    Done,
}

/// Reads the arguments and does what they say; `serve` runs the proxy with the
/// settings file given.
pub fn run(serve: impl FnOnce(&std::path::Path) -> Result<(), String>) -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(e) => {
            let usage = e.use_stderr();
            let _ = e.print();
            return if usage {
                ExitCode::from(2)
            } else {
                ExitCode::SUCCESS
            };
        }
    };
    let done = match &cli.command {
        Command::Serve => serve(&settings_file(&cli)),
        Command::Check { route } => check(&cli, route.as_deref()),
        Command::Record { .. } | Command::Replay { .. } => {
            Err("this is not in this version".to_owned())
        }
        Command::Status { watch: true, route } => watch(&cli, route.as_deref()),
        _ => once(&cli),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(reason) => {
            eprintln!("{}", reason.trim_end());
            ExitCode::from(1)
        }
    }
}

fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|v| !v.is_empty())
}

fn client(cli: &Cli) -> Client {
    let base = cli
        .control
        .clone()
        .or_else(|| variable("LOCKSTEP_CONTROL"))
        .unwrap_or_else(|| DEFAULT_CONTROL.to_owned());
    let token = cli.token.clone().or_else(|| variable("LOCKSTEP_TOKEN"));
    Client::new(&base, Password::new(token.unwrap_or_default()))
}

fn settings_file(cli: &Cli) -> PathBuf {
    let path = cli.config.clone();
    let path = path.or_else(|| variable("LOCKSTEP_CONFIG").map(PathBuf::from));
    path.unwrap_or_else(|| PathBuf::from("proxy.yaml"))
}

/// Asks the servers with the settings file, unless a control port is named or
/// there is no file. An error among the findings is a failure.
fn check(cli: &Cli, route: Option<&str>) -> Result<(), String> {
    let file = settings_file(cli);
    let named = cli.control.is_some() || variable("LOCKSTEP_CONTROL").is_some();
    let answer = if named || !file.exists() {
        let path = route.map_or("/v1/check".to_owned(), |r| of_route(r, "check"));
        let (code, answer) = client(cli).call("GET", &path, None)?;
        if code != 200 {
            return Err(refusal(code, &answer));
        }
        answer
    } else {
        preflight::from_settings(&file, route)?
    };
    show(&if cli.json {
        pretty(&answer)
    } else {
        preflight::human(&answer)
    });
    match answer["errors"].as_u64() {
        Some(0) => Ok(()),
        Some(1) => Err("1 error stands in the way".to_owned()),
        Some(n) => Err(format!("{n} errors stand in the way")),
        None => Err("the answer is not a check's".to_owned()),
    }
}

/// One request and its answer.
fn once(cli: &Cli) -> Result<(), String> {
    let (method, path, body) = request(&cli.command);
    let (code, answer) = client(cli).call(method, &path, body.as_ref())?;
    let good = (200..300).contains(&code);
    if !good {
        if cli.json {
            show(&pretty(&answer));
        }
        return Err(refusal(code, &answer));
    }
    if let Command::Status {
        route: Some(name), ..
    } = &cli.command
    {
        known_route(&answer, name)?;
    }
    show(&if cli.json {
        pretty(&only_route(&cli.command, answer))
    } else {
        human(&cli.command, &answer)
    });
    Ok(())
}

/// Writes to stdout; a reader that went away (`| head`) is no failure.
fn show(text: &str) {
    use std::io::Write;
    let mut out = std::io::stdout().lock();
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}

fn pretty(answer: &Value) -> String {
    format!("{answer:#}\n")
}

fn known_route(answer: &Value, name: &str) -> Result<(), String> {
    let mut routes = answer["routes"].as_array().into_iter().flatten();
    routes
        .any(|r| r["name"] == name)
        .then_some(())
        .ok_or_else(|| format!("no route named {name}"))
}

/// `status ROUTE --json` shows that route alone among the routes.
fn only_route(command: &Command, mut answer: Value) -> Value {
    if let Command::Status {
        route: Some(name), ..
    } = command
        && let Some(routes) = answer.get_mut("routes").and_then(Value::as_array_mut)
    {
        routes.retain(|r| r["name"] == name.as_str());
    }
    answer
}

fn watch(cli: &Cli, route: Option<&str>) -> Result<(), String> {
    let client = client(cli);
    loop {
        let (code, answer) = client.call("GET", "/v1/status", None)?;
        if code != 200 {
            return Err(refusal(code, &answer));
        }
        if let Some(name) = route {
            known_route(&answer, name)?;
        }
        if cli.json {
            show(&format!("{}\n", only_route(&cli.command, answer)));
        } else {
            // Clear the screen, cursor home.
            show(&format!("\x1b[2J\x1b[H{}", print::status(&answer, route)));
        }
        std::thread::sleep(WATCH_INTERVAL);
    }
}

fn refusal(code: u16, answer: &Value) -> String {
    let reason = answer["error"].as_str().unwrap_or("refused").to_owned();
    let mut out = match code {
        401 => format!("{reason}: --token or LOCKSTEP_TOKEN"),
        _ => reason,
    };
    for step in answer["done"].as_array().into_iter().flatten() {
        out.push_str(&format!(
            "\nalready done: {} to {}",
            step["from"].as_str().unwrap_or("-"),
            step["to"].as_str().unwrap_or("-")
        ));
    }
    let conditions = print::conditions(&answer["conditions"]);
    if !conditions.is_empty() {
        out.push('\n');
        out.push_str(&conditions);
    }
    out
}

fn of_route(name: &str, what: &str) -> String {
    format!("/v1/routes/{}/{what}", segment(name))
}

fn edge(edge: &Edge) -> Option<Value> {
    let mut body = json!({
        "force": edge.force, "kill": edge.kill, "dry_run": edge.dry_run, "wait": edge.wait,
    });
    let to = edge.to.as_ref().and_then(ValueEnum::to_possible_value);
    if let (Some(to), Some(map)) = (to, body.as_object_mut()) {
        map.insert("to".to_owned(), Value::from(to.get_name()));
    }
    Some(body)
}

/// Method, path and body.
fn request(command: &Command) -> (&'static str, String, Option<Value>) {
    match command {
        Command::Advance(e) => ("POST", of_route(&e.route, "advance"), edge(e)),
        Command::Rollback(e) => ("POST", of_route(&e.route, "rollback"), edge(e)),
        Command::Reads { route, percent, by } => {
            let by = by.as_ref().and_then(ValueEnum::to_possible_value);
            let by = by.as_ref().map(|b| b.get_name());
            let body = json!({ "percent": percent, "by": by });
            ("PUT", of_route(route, "reads"), Some(body))
        }
        Command::Compare {
            route,
            strong,
            window,
            repair,
            wait,
        } => {
            let body =
                json!({ "strong": strong, "window": window, "repair": repair, "wait": wait });
            ("POST", of_route(route, "compare"), Some(body))
        }
        Command::Divergences { route } => ("GET", of_route(route, "divergences"), None),
        Command::Pause { route } => ("POST", of_route(route, "pause"), None),
        Command::Resume { route } => ("POST", of_route(route, "resume"), None),
        Command::Explain { database, sql } => {
            let body = json!({ "sql": sql, "database": database });
            ("POST", "/v1/explain".to_owned(), Some(body))
        }
        Command::Sessions => ("GET", "/v1/sessions".to_owned(), None),
        Command::Status { .. }
        | Command::Serve
        | Command::Check { .. }
        | Command::Record { .. }
        | Command::Replay { .. } => ("GET", "/v1/status".to_owned(), None),
    }
}

fn human(command: &Command, answer: &Value) -> String {
    match command {
        Command::Status { route, .. } => print::status(answer, route.as_deref()),
        Command::Advance(_) | Command::Rollback(_) => print::outcome(answer),
        Command::Explain { .. } => print::explain(answer),
        Command::Sessions => print::sessions(answer),
        Command::Reads { .. } => format!(
            "{}: {} % of reads go to the target, by {}\n",
            answer["route"].as_str().unwrap_or("-"),
            answer["reads_target_percent"],
            answer["reads_by"].as_str().unwrap_or("-")
        ),
        Command::Pause { .. } | Command::Resume { .. } => print::routes(&[answer]),
        Command::Compare { .. } => print::compared(answer),
        Command::Divergences { .. } => print::divergences(answer),
        _ => pretty(answer),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_arguments_are_sound() {
        Cli::command().debug_assert();
        let parse = |line: &str| Cli::try_parse_from(line.split(' '));
        let cli = parse("lockstep advance shop --to source_first --force --json")
            .ok()
            .unwrap();
        let (method, path, body) = request(&cli.command);
        assert_eq!((method, path.as_str()), ("POST", "/v1/routes/shop/advance"));
        let body = body.unwrap();
        assert_eq!(
            (&body["to"], &body["force"]),
            (&json!("source_first"), &json!(true))
        );
        assert!(cli.json);
        for bad in [
            "lockstep reads shop 101",
            "lockstep advance",
            "lockstep advance shop --to nowhere",
            "lockstep fly",
        ] {
            assert!(parse(bad).is_err_and(|e| e.exit_code() == 2), "{bad}");
        }
    }

    #[test]
    fn paths_are_encoded() {
        assert_eq!(segment("a/b c"), "a%2Fb%20c");
    }

    #[test]
    fn the_openapi_document_names_every_command_path() {
        let doc: Value = serde_json::from_str(include_str!("openapi.json")).unwrap();
        for line in [
            "lockstep advance x",
            "lockstep rollback x",
            "lockstep reads x 1",
            "lockstep compare x",
            "lockstep divergences x",
            "lockstep pause x",
            "lockstep resume x",
            "lockstep explain y",
            "lockstep sessions",
            "lockstep status",
        ] {
            let cli = Cli::try_parse_from(line.split(' ')).ok().unwrap();
            let (method, path, _) = request(&cli.command);
            let path = path.replace("/x", "/{name}");
            let method = method.to_lowercase();
            assert!(doc["paths"][&path][&method].is_object(), "{method} {path}");
        }
    }
}
