//! The one integration binary: real servers, started once.
//!
//! `support/` holds what the tests stand on; every other file is a group of
//! tests about one promise.

mod anywhere;
mod between;
mod binlog;
mod check;
mod commands;
mod compare_rows;
mod crash;
mod ddl;
mod docker;
mod drivers;
mod faults;
mod fill;
mod findings;
mod flips;
mod follow;
mod harness;
mod heal;
mod hostile;
mod journal;
mod leaks;
mod login;
mod logins;
mod oracle;
mod order;
mod pipe;
mod plane;
mod readme;
mod schema;
mod state;
mod support;
mod tidy;
mod transparency;
mod watch;
mod workload;
