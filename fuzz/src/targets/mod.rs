//! One file per target.

pub mod binlog;
pub mod command;
pub mod config;
pub mod control;
pub mod login;
pub mod plan;
pub mod response;
pub mod scanner;
pub mod trackers;
