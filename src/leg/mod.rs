//! One backend connection.

pub mod connect;
pub mod grants;
pub mod stream;
