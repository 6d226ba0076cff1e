//! A command packet with a wrong sequence id: the client and the server are
//! out of step, and a server says so and closes.

use std::time::Duration;

use super::{End, Session};
use crate::leg::buffer::BUFFER_LEN;
use crate::wire::frame::HEADER_LEN;

/// For the server's verdict: it needs no more than the header to come to it.
const VERDICT_LIMIT: Duration = Duration::from_secs(2);

/// A refused client's bytes still on their way, read and dropped: closed with
/// bytes unread, a connection is reset, and the error may never be seen.
const LINGER: Duration = Duration::from_millis(50);
const LINGER_BYTES: usize = 256 * 1024;

impl Session {
    /// Hands the lead the pending packet's header and no more, so that nothing
    /// can be executed, and the client what the lead says to it.
    pub(super) async fn out_of_order(&mut self) -> End {
        let side = self.lead();
        if let Err(end) = self.need_leg(side).await {
            return end;
        }
        let (Some(leg), Some(head)) = (
            self.legs[side.index()].as_mut(),
            self.client.input.pending().get(..HEADER_LEN),
        ) else {
            return End::Protocol("no leg");
        };
        self.legs_broken = true;
        if leg.send(head).await.is_ok() {
            let verdict = async {
                while leg.input.pending().len() < BUFFER_LEN && leg.fill().await.is_ok() {}
            };
            let _ = tokio::time::timeout(VERDICT_LIMIT, verdict).await;
            let _ = self.client.send(leg.input.pending()).await;
        }
        let _ = tokio::io::AsyncWriteExt::shutdown(&mut self.client.stream).await;
        let _ = tokio::time::timeout(LINGER, self.drop_rest()).await;
        End::Protocol("a packet out of order")
    }

    async fn drop_rest(&mut self) {
        let mut left = LINGER_BYTES;
        while left > 0 {
            let n = self.client.input.pending().len();
            self.client.input.consume(n);
            left = left.saturating_sub(n);
            if self.client.fill().await.is_err() {
                return;
            }
        }
    }
}
