//! Child processes that never outlive the test, free ports, temp folders, and
//! blocking calls into async clients.

use std::future::Future;
use std::io::Write;
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// Waits are stretched by no more than this, however crowded the machine is.
const CROWD_MAX: u32 = 8;

/// Between two looks at something that is awaited.
const POLL: Duration = Duration::from_millis(20);

/// Runs when the pipe from the test process ends: `$1` is the child's pid, `$2`
/// a folder to remove. A line on the pipe instead means "it was ended in order".
const WATCHDOG: &str = r#"
trap '' INT TERM HUP
if read -r order; then exit 0; fi
kill -9 "$1" 2>/dev/null
i=0
while kill -0 "$1" 2>/dev/null && [ $i -lt 100 ]; do i=$((i+1)); sleep 0.05; done
case "$2" in */lockstep-it-*) rm -rf "$2" ;; esac
"#;

/// A child process and the watchdog that ends it when this process is gone,
/// however it went: the watchdog holds the reading end of a pipe whose only
/// writing end is here.
pub struct Guarded {
    child: Child,
    watchdog: Child,
}

impl Guarded {
    /// Starts `command` in a process group of its own, so that Ctrl-C in the
    /// terminal reaches the test alone. `folder` is removed if this process dies.
    pub fn spawn(command: &mut Command, folder: &Path) -> std::io::Result<Guarded> {
        let child = command.stdin(Stdio::null()).process_group(0).spawn()?;
        let watchdog = Command::new("sh")
            .args(["-c", WATCHDOG, "watchdog"])
            .arg(child.id().to_string())
            .arg(folder)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()?;
        Ok(Guarded { child, watchdog })
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends a signal by name (`TERM`, `STOP`, …) to the child.
    pub fn signal(&self, name: &str) {
        let pid = self.pid().to_string();
        let sent = Command::new("sh")
            .args(["-c", "kill -s \"$1\" \"$2\"", "kill", name, &pid])
            .stderr(Stdio::null())
            .status();
        assert!(sent.is_ok(), "cannot send {name} to {pid}");
    }

    /// Some status once the child has ended.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().ok().flatten()
    }

    /// Asks the child to end, kills it after `patience`, and waits for it.
    pub fn stop(mut self, patience: Duration) -> Option<ExitStatus> {
        self.signal("CONT");
        self.signal("TERM");
        let until = Instant::now() + patience;
        while self.ended().is_none() && Instant::now() < until {
            std::thread::sleep(POLL);
        }
        self.end()
    }

    /// SIGKILL, then waits until the process is gone.
    pub fn kill9(mut self) {
        self.end();
    }

    /// Closes the watchdog's pipe without a word, as a dying test process does.
    pub fn abandon(&mut self) {
        drop(self.watchdog.stdin.take());
    }

    fn end(&mut self) -> Option<ExitStatus> {
        let _ = self.child.kill();
        let status = self.child.wait().ok();
        if let Some(mut pipe) = self.watchdog.stdin.take() {
            let _ = pipe.write_all(b"done\n");
        }
        let _ = self.watchdog.wait();
        status
    }
}

impl Drop for Guarded {
    fn drop(&mut self) {
        self.end();
    }
}

/// A folder under the system's temp folder, removed on drop.
pub struct TempDir(PathBuf);

impl TempDir {
    pub fn new(name: &str) -> TempDir {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let n = COUNT.fetch_add(1, Ordering::Relaxed);
        let own = format!("lockstep-it-{}-{n}-{name}", std::process::id());
        let path = std::env::temp_dir().join(own);
        std::fs::create_dir_all(&path).expect("temp folder");
        TempDir(path)
    }

    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for TempDir {
    fn drop(&mut self) {
        if std::env::var_os("LOCKSTEP_KEEP").is_none() {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }
}

/// A port nobody listens on now. Taken below the range the kernel gives to
/// outgoing connections, so that it is still free after a server's restart.
pub fn free_port() -> u16 {
    const FIRST: u32 = 10_100;
    const COUNT: u32 = 22_000;
    static NEXT: OnceLock<AtomicU32> = OnceLock::new();
    // Processes side by side start far apart.
    let next = NEXT.get_or_init(|| AtomicU32::new(std::process::id().wrapping_mul(977)));
    for _ in 0..COUNT {
        let port = (FIRST + next.fetch_add(1, Ordering::Relaxed) % COUNT) as u16;
        if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            return port;
        }
    }
    panic!("no free port in {FIRST}..{}", FIRST + COUNT);
}

/// Polls until `done` or panics with `what` after `limit`, which is for a machine
/// that has nothing else to do: see [`is_over`].
pub fn wait_for(what: &str, limit: Duration, mut done: impl FnMut() -> bool) {
    let began = Instant::now();
    while !done() {
        assert!(!is_over(began, limit), "{what}: not within {limit:?}");
        std::thread::sleep(POLL);
    }
}

/// Whether something that began then has had its time: `limit`, and as often
/// that as there are tasks waiting for each core. For what must happen some
/// time; what must happen soon is measured where nothing else runs.
pub fn is_over(began: Instant, limit: Duration) -> bool {
    began.elapsed() > limit && began.elapsed() > limit * crowd()
}

/// Tasks for each core in the last minute, between 1 and [`CROWD_MAX`].
fn crowd() -> u32 {
    let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let load = load.split(' ').next().and_then(|n| n.parse::<f64>().ok());
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    ((load.unwrap_or(0.0) / cores as f64) as u32).clamp(1, CROWD_MAX)
}

/// Where the servers' programs and prepared datadirs are kept.
pub fn cache() -> PathBuf {
    match std::env::var_os("LOCKSTEP_CACHE") {
        Some(folder) => PathBuf::from(folder),
        None => Path::new(env!("CARGO_MANIFEST_DIR")).join(".cache"),
    }
}

/// The runtime that blocking helpers use; one for the whole process, so that
/// connections made by one call stay alive for the next.
pub fn runtime() -> &'static tokio::runtime::Runtime {
    static RUNTIME: OnceLock<tokio::runtime::Runtime> = OnceLock::new();
    RUNTIME.get_or_init(|| {
        tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .expect("tokio runtime")
    })
}

/// Connects, to something that may die meanwhile. A listener's end can forget a
/// connection that the client believes in: it was told of it, and its last
/// packet was lost with the listener. It would wait for a greeting for ever, as
/// every client without a limit would.
pub async fn connect(opts: mysql_async::OptsBuilder) -> Option<mysql_async::Conn> {
    const LIMIT: Duration = Duration::from_secs(10);
    let connected = tokio::time::timeout(LIMIT, mysql_async::Conn::new(opts)).await;
    connected.ok()?.ok()
}

/// Waits for a future from anywhere, from inside an async test too (the waiting
/// is done on a thread of its own).
pub fn block_on<F>(future: F) -> F::Output
where
    F: Future + Send,
    F::Output: Send,
{
    let waited = std::thread::scope(|s| s.spawn(|| runtime().block_on(future)).join());
    waited.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

/// The last `lines` of a text file, or nothing.
pub fn tail(path: &Path, lines: usize) -> String {
    let bytes = std::fs::read(path).unwrap_or_default();
    let text = String::from_utf8_lossy(&bytes);
    let all: Vec<&str> = text.lines().collect();
    all[all.len().saturating_sub(lines)..].join("\n")
}
