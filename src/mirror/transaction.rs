//! The end of a transaction that has a part on the mirror: A first, then M.
//!
//! "A first" makes "the mirror has it, the active side has not" impossible.

use std::pin::pin;
use std::time::Duration;

use crate::leg::{ANSWER_MAX, put_query};
use crate::telemetry;
use crate::wire::command::ResponseKind;

use super::write::{COMMIT, acknowledges_early};
use super::{Env, Failure, MirrorLeg, Part};

/// Commits M's part after A's commit succeeded. With `ack: active` the COMMIT
/// is only sent and true is returned: read its answer with
/// [`await_commit`] once the client was answered.
pub async fn commit_mirror(m: &mut MirrorLeg<'_>, env: &Env<'_>) -> bool {
    *m.part = Part::None;
    let limit = env.shared.deadline;
    let Some(leg) = m.leg.as_mut() else {
        env.fail(m, Failure::Lost, "no leg at COMMIT");
        return false;
    };
    let in_flight = env.in_flight();
    let mut out = Vec::with_capacity(48);
    put_query(&mut out, leg.capabilities, COMMIT);
    let sent = m.timer.within(limit, pin!(leg.send(&out))).await;
    match sent {
        Ok(Ok(())) => {}
        Ok(Err(lost)) => {
            in_flight.settled();
            env.fail(m, Failure::Lost, &lost.what);
            return false;
        }
        Err(_) => {
            in_flight.settled();
            env.fail(m, Failure::Deadline, "COMMIT could not be sent");
            return false;
        }
    }
    in_flight.settled();
    if acknowledges_early(env) {
        return true;
    }
    await_commit(m, env).await;
    false
}

/// Reads M's answer to COMMIT. M's own commit has until the deadline; whether
/// it took after that is told by A's log, which the journal names.
pub async fn await_commit(m: &mut MirrorLeg<'_>, env: &Env<'_>) {
    let limit: Duration = env.shared.deadline;
    let Some(leg) = m.leg.as_mut() else { return };
    let in_flight = env.in_flight();
    let kind = ResponseKind::Generic;
    let answer = m
        .timer
        .within(limit, pin!(leg.answer(kind, ANSWER_MAX)))
        .await;
    in_flight.settled();
    match answer {
        Ok(Ok(answer)) if !answer.summary.is_error => {
            if let Some(route) = env.route() {
                let live = &route.live;
                live.writes_ok
                    .fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                telemetry::mirror_write(&route.name, "ok");
            }
        }
        Ok(Ok(answer)) => env.fail(m, Failure::Refused, &answer.error_text()),
        Ok(Err(lost)) => env.fail(m, Failure::Lost, &lost.what),
        Err(_) => env.fail(m, Failure::Deadline, "COMMIT was not answered"),
    }
}
