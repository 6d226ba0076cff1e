//! Table shapes, keys, row values.

pub mod shape;
