//! The `lockstep` binary: arguments in, exit code out.

fn main() -> std::process::ExitCode {
    lockstep::control::cli::run(lockstep::server::run)
}
