//! Which backend a statement goes to: the table of routes, the plan for a
//! statement, and the gate that changes a phase under load.

pub mod gate;
pub mod pins;
pub mod plan;
pub mod table;
