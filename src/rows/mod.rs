//! Table shapes, keys, row values.

pub mod catalog;
pub mod digest;
pub mod literal;
pub mod service;
pub mod shape;
pub mod variables;

pub(crate) mod load;
