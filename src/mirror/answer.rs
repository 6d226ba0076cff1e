//! The client's answer to a mirrored statement, made from A's packets.

use crate::leg::{Answer, Leg};
use crate::wire::ok::OkPacket;
use crate::wire::session_track::{Change, changes, put_change};
use crate::wire::{Status, frame};

use super::write::{Diagnostics, Written};

/// The client's OK is the statement's: affected rows, insert id, warnings and
/// info; the transaction state as it would be without our BEGIN, and the GTID
/// of our COMMIT, where it now is (protocol-review H9).
pub(super) fn answer_client(
    a: &Leg,
    answer: &Answer,
    commit: Option<&Answer>,
    diagnostics: Option<Diagnostics>,
    poisoned: bool,
    commit_pending: bool,
) -> Written {
    let caps = a.capabilities;
    let mut written = Written {
        answer: Vec::new(),
        is_error: false,
        status: answer.summary.status,
        diagnostics,
        poisoned,
        commit_pending,
    };
    let Some(ok) = answer.ok(caps) else {
        written.answer = answer.bytes.clone();
        return written;
    };
    let statement_changes = ok.session_state.unwrap_or(&[]);
    // And the COMMIT's GTID.
    let mut state = Vec::with_capacity(statement_changes.len() + 128);
    let Some(commit) = commit else {
        written.answer = answer.bytes.clone();
        return written;
    };
    for (change, _) in changes(statement_changes).flatten() {
        match change {
            Change::TransactionState(_)
            | Change::TransactionCharacteristics(_)
            | Change::Gtids { .. } => {}
            other => put_change(&mut state, &other),
        }
    }
    let commit_ok = commit.ok(caps);
    for (change, _) in changes(commit_ok.and_then(|ok| ok.session_state).unwrap_or(&[])).flatten() {
        match change {
            Change::Gtids { .. } => put_change(&mut state, &change),
            // MariaDB's form of the same.
            Change::SystemVariable {
                name: b"last_gtid", ..
            } => put_change(&mut state, &change),
            _ => {}
        }
    }
    let mut status = ok.status.without(Status::IN_TRANS);
    status = if state.is_empty() {
        status.without(Status::SESSION_STATE_CHANGED)
    } else {
        status.with(Status::SESSION_STATE_CHANGED)
    };
    let rebuilt = OkPacket {
        status,
        session_state: (!state.is_empty()).then_some(&state[..]),
        ..ok
    };
    let mut sequence = 1;
    frame::put_packet(&mut written.answer, &mut sequence, &rebuilt.build(caps));
    written.status = status;
    written
}

/// The client gets the error of our COMMIT.
pub(super) fn failed_commit(a: &Leg, commit: &Answer) -> Written {
    Written {
        answer: commit.bytes.clone(),
        is_error: true,
        status: a.status.without(Status::IN_TRANS),
        diagnostics: None,
        poisoned: false,
        commit_pending: false,
    }
}

/// The number in `Rows matched: N`; servers of other languages say it in
/// other words, so only digits count: the first number of the text.
pub(super) fn matched_rows(ok: &OkPacket<'_>) -> Option<u64> {
    let start = ok.info.iter().position(u8::is_ascii_digit)?;
    let digits = ok.info.get(start..)?;
    let end = digits
        .iter()
        .position(|b| !b.is_ascii_digit())
        .unwrap_or(digits.len());
    std::str::from_utf8(&digits[..end]).ok()?.parse().ok()
}
