//! Statements prepared by SQL PREPARE, which live on a leg under a name.
//!
//! Their texts are kept, and prepared again on the other leg before it is to
//! execute one.

use std::sync::Arc;

use super::under::{Journey, Under};
use super::values::{Values, put_name};
use super::{End, Session};
use crate::Side;
use crate::leg::put_query;
use crate::sql::{Class, Facts, Flags, Verb};
use crate::telemetry;
use crate::wire::response::Summary;
use crate::wire::text_rows::{QueryAnswer, parse_text_result};

/// Statements that are carried, and the bytes of the largest.
const PREPARED_MAX: usize = 1024;
const PREPARED_TEXT_MAX: usize = 64 << 10;

/// ER_PARSE_ERROR: of the PREPARE itself, or of what it prepares.
const ER_PARSE: u16 = 1064;

/// A statement prepared by SQL PREPARE.
pub(super) struct Kept {
    /// `PREPARE name FROM …`.
    text: Vec<u8>,
    /// What it was prepared under.
    under: Arc<Under>,
}

impl Values {
    /// The text that PREPARE gave a name.
    pub fn prepared_text(&self, name: &[u8]) -> Option<&[u8]> {
        self.kept(name).map(|kept| &kept.text[..])
    }

    /// What it was prepared under.
    pub fn prepared_under(&self, name: &[u8]) -> Option<Arc<Under>> {
        self.kept(name).map(|kept| kept.under.clone())
    }

    fn kept(&self, name: &[u8]) -> Option<&Kept> {
        let name = crate::sql::unquote(name).to_ascii_lowercase();
        self.prepared.get(&name)?.as_ref()
    }
}

/// Whether a PREPARE that was refused has been read: the server has forgotten
/// the older statement of its name by then, whatever is wrong with the new one.
fn was_read(sql: &[u8], error: u16) -> bool {
    error != ER_PARSE || sql.iter().any(|b| matches!(b, b'\'' | b'"' | b'@'))
}

impl Session {
    /// A PREPARE or DEALLOCATE was answered on `side`; `text` is the statement
    /// as it can be repeated.
    pub(super) fn learn_named(
        &mut self,
        side: Side,
        (facts, sql): (&Facts, &[u8]),
        text: Option<Vec<u8>>,
        summary: &Summary,
    ) {
        let Some(name) = facts
            .prepared_name
            .filter(|_| facts.class == Class::Session)
        else {
            return;
        };
        let name = name.of(sql);
        if !summary.is_error {
            self.note_prepared(side, name, text);
        } else if facts.verb == Verb::Prepare
            && was_read(sql, summary.error_code)
            && self.values.kept(name).is_some()
        {
            self.note_prepared(side, name, None);
        }
    }

    /// Without a text it is deallocated, or cannot be carried: the other leg's
    /// older one of the name must not run.
    fn note_prepared(&mut self, side: Side, name: &[u8], text: Option<Vec<u8>>) {
        let name = crate::sql::unquote(name).to_ascii_lowercase();
        let under = self.under_now();
        self.values.prepared_on.changed(side);
        let list = &mut self.values.prepared;
        if list.len() >= PREPARED_MAX && !list.contains_key(&name) {
            list.retain(|_, kept| kept.is_some());
        }
        let fits = text.as_ref().is_none_or(|t| t.len() <= PREPARED_TEXT_MAX);
        if !fits {
            telemetry::error("client", "prepare_not_kept");
        }
        if list.len() >= PREPARED_MAX && !list.contains_key(&name) {
            telemetry::error("client", "prepare_not_kept");
            return;
        }
        let text = text.filter(|_| fits);
        list.insert(name, text.map(|text| Kept { text, under }));
    }

    /// What a PREPARE prepares, in a form that can be repeated; of one FROM @x
    /// the value, which has to be on this leg by now. None: it cannot be had.
    ///
    /// Only as much is asked for as is kept. A longer answer would be left half
    /// unread: 1. @x has 2 MiB; 2. its first MiB is read; 3. the rest is taken
    /// for the answer to the client's PREPARE.
    pub(super) async fn prepare_text(
        &mut self,
        side: Side,
        facts: &Facts,
        sql: &[u8],
    ) -> Result<Option<Vec<u8>>, End> {
        let Some(name) = facts.prepared_name.filter(|_| facts.verb == Verb::Prepare) else {
            return Ok(None);
        };
        let name = name.of(sql);
        if !facts.flags.has(Flags::USER_VARIABLE_READ) {
            return Ok(Some(sql.to_vec()));
        }
        let variable = crate::sql::user_variables(sql, self.state.mode).pop();
        let (Some(variable), Some(leg)) = (variable, self.legs[side.index()].as_mut()) else {
            return Ok(None);
        };
        let variable = String::from_utf8_lossy(&variable);
        let ask =
            format!("SELECT IF(LENGTH({variable})>{PREPARED_TEXT_MAX},NULL,{variable}) LIMIT 1");
        let answer = leg.query(ask.as_bytes()).await?;
        let Ok(QueryAnswer::Rows(rows)) = parse_text_result(&answer.bytes, leg.capabilities) else {
            return Ok(None);
        };
        let Some(Some(text)) = rows.value(0, 0) else {
            return Ok(None);
        };
        let mut out = [b"PREPARE ", name, b" FROM '"].concat();
        for &b in text {
            out.push(b);
            if b == b'\'' || (b == b'\\' && !self.state.mode.no_backslash_escapes) {
                out.push(b);
            }
        }
        out.push(b'\'');
        Ok(Some(out))
    }

    /// Each is prepared under what was in force at its own PREPARE. One that
    /// cannot be is deallocated: an older one of its name must not run.
    pub(super) async fn move_prepared(&mut self, to: Side) -> Result<(), End> {
        let Some(leg) = self.legs[to.index()].as_mut() else {
            return Ok(());
        };
        for (name, kept) in &self.values.prepared {
            let mut done = false;
            if let Some(kept) = kept
                && let Some(journey) = Journey::new(leg, &kept.under, &self.state)
            {
                let mut command = Vec::with_capacity(kept.text.len() + 8);
                put_query(&mut command, leg.capabilities, &kept.text);
                let answer = journey.run(leg, &command).await?;
                done = answer.is_some_and(|answer| !answer.summary.is_error);
            }
            if done {
                continue;
            }
            if kept.is_some() {
                telemetry::error(to.as_str(), "value_refused");
            }
            let mut drop = put_name(name);
            drop.remove(0);
            leg.query(&[b"DEALLOCATE PREPARE ", &drop[..]].concat())
                .await?;
        }
        self.values.prepared_on.moved(to);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refused_prepare_forgets_the_older_one_if_it_was_read() {
        assert!(was_read(b"PREPARE s FROM 'SELEC'", ER_PARSE));
        assert!(was_read(b"PREPARE s FROM @q", ER_PARSE));
        assert!(was_read(b"PREPARE s FROM 'SELECT * FROM gone'", 1146));
        assert!(!was_read(b"PREPARE s FROM", ER_PARSE));
    }
}
