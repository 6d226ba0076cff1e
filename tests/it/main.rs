//! The one integration binary: real servers, started once.
