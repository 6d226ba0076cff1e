//! The client's session trackers and ours on the same leg.
//!
//! Ours are on all the time ([`TRACK`]); the client's are known to
//! [`super::state::State`], which filters what it is shown. For a statement
//! that reads or sets trackers the leg gets the client's for as long as it
//! takes.

use super::legs::DEFAULT_NAMES;
use super::{End, Session};
use crate::Side;
use crate::sql::{Facts, Flags, Verb};
use crate::wire::text_rows::{QueryAnswer, parse_text_result};

/// Our own trackers. What they report is filtered before a client sees it.
pub(super) const TRACK: &[u8] =
    b"SET @@session.session_track_system_variables='*', @@session.session_track_schema=ON";

/// True for a text that names a session tracker.
pub(super) fn mentions_trackers(sql: &[u8]) -> bool {
    let word = b"session_track_";
    sql.windows(word.len())
        .any(|w| w.eq_ignore_ascii_case(word))
}

/// True for a statement whose answer would show our own trackers.
pub(super) fn asks_for_trackers(sql: &[u8], facts: &Facts) -> bool {
    let mentions = |word: &[u8]| {
        sql.windows(word.len())
            .any(|w| w.eq_ignore_ascii_case(word))
    };
    match facts.verb {
        Verb::Show => mentions(b"variables"),
        _ => facts.flags.has(Flags::SYSTEM_VARIABLE) && mentions(b"session_track"),
    }
}

impl Session {
    /// `SELECT @@session_track_…` shows the client's own values.
    pub(super) async fn show_own_trackers(&mut self, side: Side) -> Result<(), End> {
        self.need_leg(side).await?;
        let mut sql = b"SET @@session.session_track_system_variables='".to_vec();
        sql.extend(
            self.state
                .client_tracked()
                .iter()
                .filter(|b| !matches!(b, b'\'' | b'\\')),
        );
        let schema = if self.state.client_tracks_schema() {
            "ON"
        } else {
            "OFF"
        };
        sql.extend(format!("', @@session.session_track_schema={schema}").bytes());
        self.state.own_trackers_shown = true;
        if let Some(leg) = self.legs[side.index()].as_mut() {
            leg.query(&sql).await?;
        }
        Ok(())
    }

    /// The client may have set trackers of its own, on a leg that
    /// [`Session::show_own_trackers`] prepared: notes which, and sets ours over
    /// them again. They are read and not taken from the report of the change,
    /// because a list that does not name itself is never reported.
    pub(super) async fn client_trackers(&mut self, side: Side) -> Result<(), End> {
        self.state.trackers_changed = false;
        self.state.own_trackers_shown = false;
        let Some(leg) = self.legs[side.index()].as_mut() else {
            return Ok(());
        };
        let names = &DEFAULT_NAMES[..2];
        let sql = format!("SELECT @@session.{}, @@session.{}", names[0], names[1]);
        let answer = leg.query(sql.as_bytes()).await?;
        leg.query(TRACK).await?;
        let parsed = parse_text_result(&answer.bytes, leg.capabilities);
        if let Ok(QueryAnswer::Rows(rows)) = parsed {
            for (i, name) in names.iter().enumerate() {
                if let Some(Some(value)) = rows.value(0, i) {
                    self.state.set_defaults(name.as_bytes(), value);
                }
            }
        }
        Ok(())
    }

    /// Our trackers again, over the client's.
    pub(super) async fn own_trackers(&mut self, side: Side) -> Result<(), End> {
        self.state.trackers_changed = false;
        self.state.own_trackers_shown = false;
        if let Some(leg) = self.legs[side.index()].as_mut() {
            leg.query(TRACK).await?;
        }
        Ok(())
    }
}
