//! Phases' edges.

pub mod edges;
pub mod events;
