//! One client's life: login, relay, session state.

pub mod auth_relay;
pub mod change_user;
pub mod login;
mod proof;
