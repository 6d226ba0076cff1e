//! Which backend a statement goes to.

pub mod table;
