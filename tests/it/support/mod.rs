//! What every test on real servers stands on: servers, the proxy as a child
//! process, and comparisons that use none of the product's code.
//!
//! Also used by `examples/` through `#[path]`, so nothing here may depend on
//! the test binary around it.
#![allow(dead_code, unused_imports)]

pub mod binlog_order;
pub mod breaker;
pub mod census;
pub mod compare;
pub mod http;
pub mod proc;
pub mod proxy;
pub mod relay;
pub mod servers;

pub use proxy::{Proxy, ProxyOptions};
pub use servers::{Family, Missing, Server, ServerOptions};

/// Set by `make test` and `.ci/run`: a server that is not installed fails the
/// test instead of skipping it.
pub const REQUIRE: &str = "LOCKSTEP_REQUIRE_SERVERS";

/// Says loudly that a test did not run, or fails where servers are required.
pub fn skip(why: &dyn std::fmt::Display) {
    let required = std::env::var(REQUIRE).is_ok_and(|v| v == "1");
    assert!(!required, "{REQUIRE}=1 and {why}");
    eprintln!("SKIPPED: {why}");
}

/// The value, or an early return from the test after [`skip`].
#[macro_export]
macro_rules! or_skip {
    ($started:expr) => {
        match $started {
            Ok(value) => value,
            Err(missing) => {
                $crate::support::skip(&missing);
                return;
            }
        }
    };
}
