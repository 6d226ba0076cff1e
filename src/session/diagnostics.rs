//! Questions about the previous statement, answered from memory where our
//! COMMIT wiped the answer on the server.
//!
//! Only whole statements of an enumerated list are (DESIGN §5). Counts are
//! answered by asking the server the same question and replacing the number
//! in its answer, so that every other byte is the server's own.

use super::{End, Session, relay};
use crate::leg::ANSWER_MAX;
use crate::mirror::write::Diagnostics;
use crate::sql::DiagnosticsForm;
use crate::wire::Capabilities;
use crate::wire::Status;
use crate::wire::command::ResponseKind;
use crate::wire::frame::{self, HEADER_LEN};
use crate::wire::lenenc::{Reader, put_bytes};
use crate::wire::ok::OkPacket;

impl Session {
    /// Whether such a statement is answered from memory, and not by the leg that
    /// ran the one before it.
    pub(super) fn is_kept(&self, form: DiagnosticsForm) -> bool {
        let counts = matches!(form, DiagnosticsForm::RowCount { .. });
        let here = counts && self.values.last == Some(self.lead());
        (self.diagnostics.as_ref()).is_some_and(|kept| here || !kept.only_count)
    }

    /// Serves such a statement; [`Session::is_kept`].
    pub(super) async fn answer_diagnostics(
        &mut self,
        length: usize,
        form: DiagnosticsForm,
    ) -> Result<(), End> {
        let Some(kept) = self.diagnostics.clone() else {
            return Ok(());
        };
        let lead = self.lead();
        if let Some(kept) = &mut self.diagnostics {
            // The count of any statement that answers with rows.
            kept.row_count = -1;
            // To MySQL a SELECT is a statement of its own, whatever it asks for.
            let shows = matches!(
                form,
                DiagnosticsForm::ShowWarnings { .. }
                    | DiagnosticsForm::ShowErrors { .. }
                    | DiagnosticsForm::CountWarnings
                    | DiagnosticsForm::CountErrors
            );
            if !shows && !self.state.mode.server.mariadb {
                (kept.warnings, kept.errors, kept.list) = (0, 0, None);
            }
        }
        match form {
            DiagnosticsForm::ShowWarnings { offset, count } => {
                self.answer_list(length, &kept.list, false, offset, count)
                    .await
            }
            DiagnosticsForm::ShowErrors { offset, count } => {
                let list = if kept.errors > 0 { kept.list } else { None };
                self.answer_list(length, &list, true, offset, count).await
            }
            DiagnosticsForm::CountWarnings | DiagnosticsForm::WarningCount { .. } => {
                self.answer_number(length, i64::from(kept.warnings)).await
            }
            DiagnosticsForm::CountErrors | DiagnosticsForm::ErrorCount { .. } => {
                self.answer_number(length, i64::from(kept.errors)).await
            }
            DiagnosticsForm::RowCount { .. } => self.answer_number(length, kept.row_count).await,
            DiagnosticsForm::LastInsertId { .. } => {
                self.plain(lead, ResponseKind::Generic).await?;
                Ok(())
            }
        }
    }

    /// COM_PING, in whose answer MySQL counts the warnings of the statement
    /// before it: the lead has not seen a read on the mirror, and has seen our
    /// COMMIT after a mirrored write.
    pub(super) async fn ping(&mut self, length: usize) -> Result<(), End> {
        let lead = self.lead();
        let kept = self.diagnostics.as_ref().filter(|kept| !kept.only_count);
        let kept = match (kept, self.values.last) {
            (Some(kept), _) => Some(kept.warnings),
            (None, Some(last)) if last != lead => Some(self.read_warnings),
            _ => None,
        };
        let Some(warnings) = kept.filter(|_| !self.state.mode.server.mariadb) else {
            return self.plain(lead, ResponseKind::Generic).await.map(drop);
        };
        Box::pin(async {
            self.whole_command(length).await?;
            self.need_leg(lead).await?;
            let command = self.client.input.pending()[..HEADER_LEN + length].to_vec();
            self.consume_command(length);
            let Some(leg) = self.legs[lead.index()].as_mut() else {
                return Err(End::Protocol("no leg"));
            };
            leg.send(&command).await?;
            let answer = leg.answer(ResponseKind::Generic, ANSWER_MAX).await?;
            let caps = leg.capabilities;
            let mut out = Vec::with_capacity(answer.bytes.len());
            if let Some(ok) = answer.ok(caps) {
                let mut packet = Vec::with_capacity(answer.bytes.len());
                let ok = OkPacket { warnings, ..ok };
                frame::put_packet(&mut packet, &mut 1, &ok.build(caps));
                let client = self.client.capabilities;
                relay::shown(&packet, caps, client, &mut self.state, &mut out);
            } else {
                out.extend_from_slice(&answer.bytes);
            }
            self.client.send(&out).await
        })
        .await
    }

    async fn answer_list(
        &mut self,
        length: usize,
        list: &Option<Vec<u8>>,
        errors_only: bool,
        offset: u64,
        count: u64,
    ) -> Result<(), End> {
        let lead = self.lead();
        let Some(list) = list else {
            self.plain(lead, ResponseKind::Generic).await?;
            return Ok(());
        };
        let caps = self.legs[lead.index()]
            .as_ref()
            .map_or(self.client.capabilities, |l| l.capabilities);
        self.consume_command(length);
        let out = select_rows(list, caps, errors_only, offset, count, self.state.status);
        self.client.send(&out).await
    }

    /// Asks the server and replaces the one number of its answer.
    async fn answer_number(&mut self, length: usize, number: i64) -> Result<(), End> {
        let lead = self.lead();
        self.need_leg(lead).await?;
        let command = self.client.input.pending()[..HEADER_LEN + length].to_vec();
        let mut row = Vec::with_capacity(24);
        put_bytes(&mut row, number.to_string().as_bytes());
        self.ask_and_replace(length, &command, &row).await
    }

    /// An EXECUTE of `SELECT ROW_COUNT()`; `command` is it as the lead knows it.
    pub(super) async fn answer_row_count(
        &mut self,
        length: usize,
        command: &[u8],
        kept: Diagnostics,
    ) -> Result<(), End> {
        // Header, no NULLs, and the number.
        let row = [&[0, 0][..], &kept.row_count.to_le_bytes()].concat();
        self.diagnostics = Some(Diagnostics {
            row_count: -1,
            ..kept
        });
        self.ask_and_replace(length, command, &row).await
    }

    /// Sends `command` to the lead and relays its answer of one row with `row`
    /// in the place of the server's.
    async fn ask_and_replace(
        &mut self,
        length: usize,
        command: &[u8],
        row: &[u8],
    ) -> Result<(), End> {
        let lead = self.lead();
        let Some(leg) = self.legs[lead.index()].as_mut() else {
            return Err(End::Protocol("no leg"));
        };
        leg.send(command).await?;
        let answer = leg.answer(ResponseKind::Generic, ANSWER_MAX).await?;
        let caps = leg.capabilities;
        self.consume_command(length);
        let mut out = Vec::with_capacity(answer.bytes.len() + 8);
        let eofs = !caps.has(Capabilities::DEPRECATE_EOF);
        // Column count, one definition, EOF unless deprecated, then the row.
        let row_at = if eofs { 3 } else { 2 };
        let mut rest = &answer.bytes[..];
        let mut index = 0;
        while let Some((payload, used, sequence)) = frame::packet(rest) {
            if index == row_at && !answer.summary.is_error {
                let mut sequence = sequence;
                frame::put_packet(&mut out, &mut sequence, row);
            } else if payload.first() == Some(&0xFE) {
                let client = self.client.capabilities;
                relay::shown(&rest[..used], caps, client, &mut self.state, &mut out);
            } else {
                out.extend_from_slice(&rest[..used]);
            }
            rest = &rest[used..];
            index += 1;
        }
        self.client.send(&out).await
    }
}

/// A kept SHOW WARNINGS answer with LIMIT applied, errors only if asked, and
/// the status flags of now in its end packet.
fn select_rows(
    list: &[u8],
    caps: Capabilities,
    errors_only: bool,
    offset: u64,
    count: u64,
    status: Status,
) -> Vec<u8> {
    let eofs = !caps.has(Capabilities::DEPRECATE_EOF);
    // Column count and three definitions, EOF unless deprecated.
    let head = if eofs { 5 } else { 4 };
    let mut out = Vec::with_capacity(list.len());
    let mut sequence = 1;
    let (mut index, mut row) = (0, 0);
    let mut rest = list;
    while let Some((payload, used, _)) = frame::packet(rest) {
        rest = &rest[used..];
        index += 1;
        let end = payload.first() == Some(&0xFE) && payload.len() < 64;
        if end {
            let packet = with_status(payload, caps, status);
            frame::put_packet(&mut out, &mut sequence, &packet);
        } else if index <= head {
            frame::put_packet(&mut out, &mut sequence, payload);
        } else {
            let level = Reader::new(payload).lenenc_bytes().unwrap_or(&[]);
            if errors_only && level != b"Error" {
                continue;
            }
            if row >= offset && row - offset < count {
                frame::put_packet(&mut out, &mut sequence, payload);
            }
            row += 1;
        }
    }
    out
}

/// An EOF (or the OK in its place) with these flags, and without the session
/// state that our question changed.
pub(super) fn with_status(payload: &[u8], caps: Capabilities, status: Status) -> Vec<u8> {
    let Ok(end) = OkPacket::parse(payload, caps) else {
        return payload.to_vec();
    };
    let transaction = Status::IN_TRANS.with(Status::IN_TRANS_READONLY);
    let kept = end
        .status
        .without(transaction)
        .without(Status::SESSION_STATE_CHANGED);
    OkPacket {
        status: kept.with(Status(status.0 & transaction.0)),
        session_state: None,
        has_info: false,
        ..end
    }
    .build(caps)
}
