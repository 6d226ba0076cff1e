//! The one integration binary: real servers, started once.
//!
//! `support/` holds what the tests stand on; every other file is a group of
//! tests about one promise.

mod docker;
mod harness;
mod support;
mod tidy;
mod transparency;
