//! The command line's side of the control port.

use std::time::Duration;

use serde_json::Value;

use crate::config::Password;

/// For an answer. An edge that waits is bounded by the server's own limit.
const TIMEOUT: Duration = Duration::from_secs(660);

/// To connect.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// A control port to talk to.
pub struct Client {
    base: String,
    token: Password,
    agent: ureq::Agent,
}

impl Client {
    /// `base` as in `http://127.0.0.1:6080`.
    pub fn new(base: &str, token: Password) -> Client {
        let config = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .timeout_global(Some(TIMEOUT))
            .timeout_connect(Some(CONNECT_TIMEOUT))
            .build();
        Client {
            base: base.trim_end_matches('/').to_owned(),
            token,
            agent: config.into(),
        }
    }

    /// One request. The answer's status and its JSON.
    ///
    /// # Errors
    /// The control port was not reached or did not answer in JSON; as text.
    pub fn call(
        &self,
        method: &str,
        path: &str,
        body: Option<&Value>,
    ) -> Result<(u16, Value), String> {
        let url = format!("{}{path}", self.base);
        let unreachable =
            |e: ureq::Error| format!("{}: {e}; is `lockstep serve` running?", self.base);
        let mut request = ureq::http::Request::builder().method(method).uri(&url);
        if !self.token.is_empty() {
            let bearer = format!("Bearer {}", self.token.reveal());
            request = request.header("authorization", bearer);
        }
        let request = request.header("content-type", "application/json");
        let text = body.map(Value::to_string).unwrap_or_default();
        let request = request.body(text).map_err(|e| format!("{url}: {e}"))?;
        let mut answer = self.agent.run(request).map_err(unreachable)?;
        let status = answer.status().as_u16();
        let text = answer
            .body_mut()
            .read_to_string()
            .map_err(|e| format!("{url}: {e}"))?;
        if text.is_empty() {
            return Ok((status, Value::Null));
        }
        serde_json::from_str(&text)
            .map(|json| (status, json))
            .map_err(|_| format!("{url}: the answer ({status}) is not JSON"))
    }
}

/// A name as one part of a path.
pub fn segment(name: &str) -> String {
    name.bytes()
        .map(|b| match b {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'_' | b'-' | b'.' => {
                char::from(b).to_string()
            }
            b => format!("%{b:02X}"),
        })
        .collect()
}
