//! How whoever reads a backend's log can tell the proxy's writes there.
//!
//! By the thread id, those of connections just closed included. MariaDB 10.11
//! logs none with rows, but the statement's text: there a copy of a client's
//! write begins with a comment of ours ([`MARK`]).

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::wire::Capabilities;
use crate::wire::command::COM_QUERY;
use crate::wire::frame::{HEADER_LEN, put_command};

/// What the copy of a client's statement begins with on a MariaDB.
pub const MARK: &[u8] = b"/*lockstep*/ ";

/// Longer statements are not marked, in bytes: the mark could be what makes
/// one larger than the server takes.
const MARKED_MAX: usize = 1 << 20;

/// Whether a statement of this length is marked on this leg.
pub fn is_marked(leg: &super::Leg, length: usize) -> bool {
    leg.info.mariadb && length <= MARKED_MAX
}

/// Appends a framed command for the mirror, marked where that is of use: a
/// COM_QUERY to a MariaDB.
pub fn put_marked(out: &mut Vec<u8>, leg: &super::Leg, command: &[u8]) {
    let sql = command.get(HEADER_LEN + 1..).unwrap_or_default();
    let is_query = command.get(HEADER_LEN) == Some(&COM_QUERY);
    // With attributes the text does not begin where it does elsewhere; no
    // MariaDB has them.
    let plain = !leg.capabilities.has(Capabilities::QUERY_ATTRIBUTES);
    if is_query && plain && is_marked(leg, sql.len()) {
        put_command(out, COM_QUERY, &[MARK, sql].concat());
    } else {
        out.extend_from_slice(command);
    }
}

/// How long a closed leg's thread id is known: its last transaction may still
/// be on its way through the log. A server gives the number to nobody else
/// before it has given out 4 billion, unless it is started again.
const CLOSED_KEPT: Duration = Duration::from_secs(600);

/// Closed ids kept: some hundred a second for as long.
const CLOSED_MAX: usize = 100_000;

/// Closed within so long, they have one time.
const SAME_TIME: Duration = Duration::from_secs(1);

/// Thread ids of the proxy's connections to one backend.
#[derive(Default)]
pub struct Threads {
    inner: Mutex<Known>,
}

#[derive(Default)]
struct Known {
    /// How often each is open or among the closed.
    known: HashMap<u32, u32>,
    /// In the order in which they were closed.
    closed: VecDeque<u32>,
    /// Since when that many of them were closed: a time beside each would be
    /// most of what a closed connection leaves in memory.
    since: VecDeque<(Instant, u32)>,
}

impl Known {
    fn forget_first(&mut self) {
        if let Some((_, left)) = self.since.front_mut() {
            *left -= 1;
            if *left == 0 {
                self.since.pop_front();
            }
        }
        let Some(id) = self.closed.pop_front() else {
            return;
        };
        if let Some(count) = self.known.get_mut(&id) {
            *count -= 1;
            if *count == 0 {
                self.known.remove(&id);
            }
        }
    }
}

impl Threads {
    /// A connection was opened; to be called before it writes.
    pub fn opened(&self, id: u32) {
        *self.inner.lock().known.entry(id).or_default() += 1;
    }

    /// It was closed.
    pub fn closed(&self, id: u32) {
        let mut inner = self.inner.lock();
        if !inner.known.contains_key(&id) {
            return;
        }
        let now = Instant::now();
        inner.closed.push_back(id);
        match inner.since.back_mut() {
            Some((at, closed)) if now.duration_since(*at) < SAME_TIME => *closed += 1,
            _ => inner.since.push_back((now, 1)),
        }
        while let Some((at, _)) = inner.since.front()
            && (inner.closed.len() > CLOSED_MAX
                || now.duration_since(*at) > CLOSED_KEPT + SAME_TIME)
        {
            inner.forget_first();
        }
    }

    /// Whether a connection with this id is, or was lately, one of ours.
    pub fn knows(&self, id: u32) -> bool {
        self.inner.lock().known.contains_key(&id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn closed_legs_stay_known() {
        let threads = Threads::default();
        threads.opened(7);
        threads.opened(8);
        assert!(threads.knows(7) && threads.knows(8) && !threads.knows(9));
        threads.closed(7);
        threads.closed(9);
        assert!(threads.knows(7) && !threads.knows(9));
        for id in 1000..1000 + u32::try_from(CLOSED_MAX).unwrap() {
            threads.opened(id);
            threads.closed(id);
        }
        assert!(!threads.knows(7) && threads.knows(8));
        assert_eq!(threads.inner.lock().closed.len(), CLOSED_MAX);
    }
}
