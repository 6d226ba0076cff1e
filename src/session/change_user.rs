//! COM_CHANGE_USER: a second login on a connection that has one.

use super::login::{LoginContext, LoginEnd};
use crate::leg::connect::Authenticated;
use crate::leg::stream::Stream;
use crate::wire::capability::Capabilities;

/// How a COM_CHANGE_USER ended. The client has its answer.
pub enum ChangeUserEnd {
    /// The session now belongs to another user; all its state is gone and its
    /// other leg must be closed.
    Changed(Changed),
    /// The server refused with this error number; the session goes on as it
    /// was, unless the server closes it.
    Refused(u16),
}

/// The new user's session parameters.
pub struct Changed {
    /// User name as the client sent it.
    pub user: Vec<u8>,
    /// Initial database.
    pub database: Option<Vec<u8>>,
    /// Collation id the client asked for; None: the server's default.
    pub charset: Option<u16>,
    /// The client's attributes as it sent them.
    pub connect_attrs: Vec<u8>,
}

/// Runs a COM_CHANGE_USER whose payload has been read from the client, against
/// the home leg, which must be idle. A user mapped by `users:` may replace the
/// leg by a new connection.
pub async fn change_user(
    _ctx: &LoginContext,
    _client: &mut Stream,
    _capabilities: Capabilities,
    _leg: &mut Authenticated,
    _payload: &[u8],
) -> Result<ChangeUserEnd, LoginEnd> {
    Err(LoginEnd::Protocol("not written yet"))
}
