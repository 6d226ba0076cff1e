//! Logins, one combination after the other: every packet a client gets through
//! the proxy is compared with what the same client gets from the server.

mod dialogue;
mod legs;
mod settings;
mod table;

pub use dialogue::{Client, Dialogue};
