//! Logs: one line per event on stderr, filtered by `LOCKSTEP_LOG`.

use tracing_subscriber::EnvFilter;

/// The variable that holds the filter, in tracing's syntax
/// (`debug`, `lockstep::session=trace,info`).
pub const FILTER_VARIABLE: &str = "LOCKSTEP_LOG";

/// What is logged when the variable is unset: our own news, other crates'
/// warnings.
const DEFAULT_FILTER: &str = "warn,lockstep=info";

/// Starts logging to stderr. A filter that cannot be read is replaced by the
/// default and named. Calling it twice changes nothing.
pub fn init() {
    let wanted = std::env::var(FILTER_VARIABLE).unwrap_or_default();
    let parsed = if wanted.trim().is_empty() {
        EnvFilter::try_new(DEFAULT_FILTER)
    } else {
        EnvFilter::try_new(&wanted)
    };
    let (filter, refused) = match parsed {
        Ok(filter) => (filter, false),
        Err(_) => (EnvFilter::new(DEFAULT_FILTER), true),
    };
    let terminal = std::io::IsTerminal::is_terminal(&std::io::stderr());
    let done = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(terminal)
        .with_target(false)
        .try_init();
    if done.is_ok() && refused {
        tracing::warn!("{FILTER_VARIABLE} cannot be read as a log filter: using {DEFAULT_FILTER}");
    }
}
