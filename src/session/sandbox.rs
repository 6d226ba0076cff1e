//! Sessions whose password has expired: servers refuse them everything but the
//! statement that sets another one. They refuse our own statements too, so
//! nothing is mirrored, and no state is followed, until that has been done.

use memchr::memchr;

use super::unmirrored::OnError;
use super::{End, Session};
use crate::route::table::ALL_ROUTES;
use crate::wire::command::{COM_QUERY, response_kind};

impl Session {
    /// A statement goes to the server as it is. One that sets the password and
    /// then writes, in a single text, is counted as a write that only the
    /// active side has.
    pub(super) async fn sandboxed_query(&mut self, length: usize) -> Result<(), End> {
        let text = self.payload(length);
        let several = text.len() < length || memchr(b';', text.trim_ascii_end()).is_some();
        self.diagnostics = None;
        self.hold(ALL_ROUTES).await;
        if several {
            self.unmirrored_anywhere("expired_password", OnError::Unclear);
        }
        let side = self.lead();
        let answered = self.plain(side, response_kind(COM_QUERY)).await;
        self.after(side);
        self.unmirrored_done();
        answered.map(|_| ())
    }
}
