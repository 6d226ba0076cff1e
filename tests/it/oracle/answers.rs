//! How many answers a text gets, each with its columns, packet by packet:
//! drivers tell the last of several from the end only roughly.

use crate::support::Server;
use crate::transparency::raw::{Login, ORDINARY, Raw};
use lockstep::wire::command::COM_QUERY;

/// Answers up to the first error.
pub struct Answers {
    /// Columns of each answer; 0 is an OK.
    pub columns: Vec<usize>,
    /// Number of the error that ended them.
    pub error: Option<u16>,
}

/// A connection as root that may send several statements at once.
pub fn connect(server: &Server, database: &str) -> Raw {
    Raw::connect(server.port(), &Login::root(database, ORDINARY)).expect("connect")
}

/// Runs a text and reads all its answers.
pub fn ask(raw: &mut Raw, sql: &[u8]) -> Answers {
    let packets = raw
        .ask(COM_QUERY, sql)
        .unwrap_or_else(|e| panic!("no answer to {}: {e}", sql.escape_ascii()));
    let mut answers = Answers {
        columns: Vec::new(),
        error: None,
    };
    let mut rest = packets.iter().map(|p| p.payload.as_slice());
    while let Some(head) = rest.next() {
        let columns = match head {
            [0, ..] => 0,
            [0xFF, low, high, ..] => {
                answers.error = Some(u16::from_le_bytes([*low, *high]));
                break;
            }
            [columns, ..] => usize::from(*columns),
            [] => panic!("an empty packet"),
        };
        if columns > 0 {
            // Definitions and their EOF, then rows and theirs.
            rest.nth(columns).expect("definitions");
            let end = rest.find(|p| matches!(p.first(), Some(0xFE | 0xFF)) && p.len() < 512);
            if let Some([0xFF, low, high, ..]) = end {
                answers.error = Some(u16::from_le_bytes([*low, *high]));
                break;
            }
        }
        answers.columns.push(columns);
    }
    answers
}
