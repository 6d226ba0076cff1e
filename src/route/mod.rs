//! Which backend a statement goes to.

pub mod plan;
pub mod table;
