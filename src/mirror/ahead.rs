//! An UPDATE of one row by its primary key is executed on M while A executes it,
//! not after A's answer (DESIGN §5, step 2 for all others).
//!
//! ```text
//! A: BEGIN statement ── answer ┐ (both answered) COMMIT ─ ok ┐
//! M: statement ──────── answer ┘                             └─ COMMIT
//! ```
//!
//! The row's lock on A is held for one round trip less, and so is the client.
//! What step 2 is for stays true: A commits only when both sides have executed
//! it and hold the row, so what comes later has the row later on both. But the
//! two rows may now be had in different orders, and no server sees the circle:
//! 1. T1 and T2 update row r. T2 has r on A; T1's copy has r on M.
//! 2. T1 waits on A for T2's commit; 3. T2 waits on M for T1's.
//!
//! So who has r on M and for [`HOLD`] no answer from A gives M's part back:
//! nothing of it was committed there. It waits on A like everybody, and then
//! its copy is executed anew, behind A's answer. The same is done with a copy
//! that A's answer (an error, no row, …) says is not to be, and with one that
//! changed other rows than A's:
//! 1. T1's INSERT of r is on A and not yet on M; 2. T2's copy finds no row there,
//!    and below REPEATABLE READ holds nothing; 3. T1 inserts on M and commits;
//!    4. T2 updates r on A.
//!
//! What it waits for on M is the row's record, when it holds nothing yet: so no
//! deadlock there has a copy in it, and no other session is its victim. If it
//! changes columns of plain indexes ([`Ahead::Unsearched`]) it goes on to entries
//! of these, which nobody locks who has come by the primary key; so it runs ahead
//! only while no transaction on M has searched for its rows:
//! 1. T1's UPDATE … WHERE k=5 has locked r's entry in the index on k, on M;
//!    2. T2's copy locks r, and waits for the entry; 3. T1 waits for r.
//!
//! And who searches waits for the copies that M has not answered yet. (For a
//! while: should one meet the search after that, the server ends one of them. The
//! copy is executed anew, the search is journalled and healed, as ever when M
//! fails.)

use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

use crate::leg::ours::put_marked;
use crate::leg::{ANSWER_MAX, Answer, Leg, Lost};
use crate::route::plan::Ahead;
use crate::route::table::Copying;
use crate::telemetry;
use crate::wire::Status;
use crate::wire::command::ResponseKind;

use super::context::{Evaluated, read_context};
use super::timer::{Expired, Timer};
use super::write::{Request, Verdict, bounded, rollback};
use super::{Env, Failure, MirrorLeg};

/// How long M's row is held without A's answer, in milliseconds: long beside
/// the answer of a server that executes, short beside the mirror's deadline,
/// within which who waits for the row must have it.
const HOLD: Duration = Duration::from_millis(5);

/// How long a copy that is not to be is waited for, in milliseconds. Its leg is
/// discarded then, which costs a login, and the client waits no longer.
const UNWANTED: Duration = Duration::from_millis(20);

/// How long after it began a copy is waited for by a search, as a part of the
/// mirror's deadline: 5 ms of 200. One that is not answered by then waits for its
/// row, perhaps for a client that thinks; the search holds the active side's rows.
const PATIENCE: u32 = 40;

/// What became of the copy.
pub(super) enum Copied {
    /// Nothing of it is on M, and A's answer is to be judged as ever.
    Not,
    /// Nothing of it is on M, nor is to be, for this reason.
    Unwanted(Verdict),
    /// M has executed it, to be committed after A: rows affected there.
    Executed(u64),
    /// A's answer stands and M failed.
    Failed(Failure, String),
}

/// A copy that may begin. If it is one that must not meet a search, it counts as
/// executed until this is dropped.
pub(super) struct Begun<'a>(#[expect(dead_code, reason = "dropped")] Option<Copying<'a>>);

/// Begins the copy of a statement that is one for both sides at once, now.
pub(super) fn begin<'a>(request: &Request<'_>, env: &'a Env<'_>) -> Option<Begun<'a>> {
    if !request.implicit || env.shared.mirror_after_commit {
        return None;
    }
    let route = env.route()?;
    if route.suspended() || route.being_altered() || route.live.turns.are_taken() {
        return None;
    }
    match request.inline.ahead {
        Ahead::No => None,
        Ahead::Yes => Some(Begun(None)),
        Ahead::Unsearched => Some(Begun(Some(route.live.searches.copying()?))),
    }
}

/// To be kept by M's leg until its transaction has ended, where the statement
/// searches there. Copies that it could meet are waited for, a little.
pub(super) async fn search(
    request: &Request<'_>,
    env: &Env<'_>,
    timer: &mut Timer,
    opens: bool,
) -> Option<Arc<()>> {
    let route = env.route().filter(|_| request.inline.searches)?;
    let searches = &route.live.searches;
    // From before it can lock anything.
    let open = searches.begin();
    // Copies may wait for what a transaction has locked that goes on.
    if opens && !route.suspended() {
        let limit = searches.newest(env.shared.deadline / PATIENCE);
        let _ = timer.within(limit, pin!(searches.uncopied())).await;
    }
    Some(open)
}

/// A's answers: to the context and BEGIN, `sent` of them, and to the statement.
pub(super) async fn answer_of(
    a: &mut Leg,
    request: &Request<'_>,
    sent: usize,
) -> Result<(Evaluated, Answer), Lost> {
    let evaluated = read_context(a, request, sent).await?;
    let answer = a.answer(ResponseKind::Generic, ANSWER_MAX).await?;
    Ok((evaluated, answer))
}

/// Executes on M what A was sent already, and reads both answers. `judge` says
/// of A's whether M is to have the statement.
///
/// # Errors
/// A is lost; M's leg, in the middle of something, is to be discarded.
pub(super) async fn execute(
    a: &mut Leg,
    m: &mut MirrorLeg<'_>,
    request: &Request<'_>,
    env: &Env<'_>,
    sent: usize,
    begun: Begun<'_>,
    judge: impl Fn(&Evaluated, &Answer) -> Verdict,
) -> Result<(Evaluated, Answer, Copied), Lost> {
    let mut on_a = pin!(answer_of(a, request, sent));
    let raced = {
        let Some(leg) = m.leg.as_mut() else {
            let (evaluated, answer) = on_a.await?;
            return Ok((evaluated, answer, Copied::Not));
        };
        let on_m = pin!(copy(leg, request.mirror_command, begun));
        race(on_a.as_mut(), on_m, m.timer, env, judge).await
    };
    let (answered, end) = match raced {
        Err(Collided(copied)) => {
            take_turns(env);
            give_back(m, env, copied, "collided").await;
            (on_a.await, None)
        }
        Ok((answered, end)) => (answered, Some(end)),
    };
    let (evaluated, answer) = answered?;
    let copied = match end {
        None => Copied::Not,
        Some(End::Unwanted(copied, verdict)) => {
            give_back(m, env, copied, "unwanted").await;
            Copied::Unwanted(verdict)
        }
        Some(End::Copied(Err((failure, what)))) => Copied::Failed(failure, what),
        Some(End::Copied(Ok(copied))) if copied.summary.is_error => {
            // Perhaps for what is not there yet, behind which A has put it.
            give_back(m, env, true, "refused").await;
            Copied::Not
        }
        Some(End::Copied(Ok(copied)))
            if copied.summary.affected_rows > 0 && !copied.summary.status.has(Status::IN_TRANS) =>
        {
            Copied::Failed(Failure::Unexpected, "it committed by itself".into())
        }
        Some(End::Copied(Ok(copied)))
            if copied.summary.affected_rows != answer.summary.affected_rows =>
        {
            give_back(m, env, true, "differs").await;
            Copied::Not
        }
        Some(End::Copied(Ok(copied))) => {
            if let Some(route) = env.route() {
                route.live.turns.went_well();
            }
            Copied::Executed(copied.summary.affected_rows)
        }
    };
    Ok((evaluated, answer, copied))
}

async fn copy(leg: &mut Leg, command: &[u8], _begun: Begun<'_>) -> Result<Answer, Lost> {
    let mut out = Vec::with_capacity(command.len() + 16);
    put_marked(&mut out, leg, command);
    leg.send(&out).await?;
    leg.answer(ResponseKind::Generic, ANSWER_MAX).await
}

type OnActive = Result<(Evaluated, Answer), Lost>;

/// M's answer came, and for HOLD not A's; whether it can be given back.
struct Collided(bool);

/// M's part of it, when A has answered.
enum End {
    /// A's answer asks for it: M's, or its failure.
    Copied(Result<Answer, (Failure, String)>),
    /// It is not to be; whether M has answered, so that it can be given back.
    Unwanted(bool, Verdict),
}

async fn race(
    mut on_a: Pin<&mut impl Future<Output = OnActive>>,
    mut on_m: Pin<&mut impl Future<Output = Result<Answer, Lost>>>,
    timer: &mut Timer,
    env: &Env<'_>,
    judge: impl Fn(&Evaluated, &Answer) -> Verdict,
) -> Result<(OnActive, End), Collided> {
    let mut copied = None;
    let first = std::future::poll_fn(|cx| {
        if copied.is_none()
            && let Poll::Ready(done) = on_m.as_mut().poll(cx)
        {
            copied = Some(done);
        }
        match on_a.as_mut().poll(cx) {
            Poll::Ready(done) => Poll::Ready(Some(done)),
            Poll::Pending if copied.is_some() => Poll::Ready(None),
            Poll::Pending => Poll::Pending,
        }
    });
    let answered = match first.await {
        Some(answered) => answered,
        None => match timer.within(hold(env), on_a.as_mut()).await {
            Ok(answered) => answered,
            Err(Expired) => return Err(Collided(matches!(copied, Some(Ok(_))))),
        },
    };
    let began = Instant::now();
    let verdict = match &answered {
        Ok((evaluated, answer)) if !answer.summary.is_error => judge(evaluated, answer),
        _ => Verdict::Nothing,
    };
    let end = match (verdict, copied) {
        (Verdict::Mirror, copied) => {
            let copied = match copied {
                Some(copied) => copied.map_err(|lost| (Failure::Lost, lost.what)),
                None => bounded(env, timer, on_m).await,
            };
            telemetry::mirror_waited(env.route_name(), began.elapsed());
            End::Copied(copied)
        }
        (verdict, Some(copied)) => End::Unwanted(copied.is_ok(), verdict),
        // Then nobody waits for M (protocol-review H3).
        (verdict, None) if env.route().is_none_or(|r| r.suspended()) => {
            End::Unwanted(false, verdict)
        }
        (verdict, None) => {
            let copied = timer.within(UNWANTED, on_m).await;
            if copied.is_err() {
                take_turns(env);
            }
            End::Unwanted(matches!(copied, Ok(Ok(_))), verdict)
        }
    };
    Ok((answered, end))
}

/// How long M's row may be held without A's answer: not at all once others have
/// been in each other's way, for those behind this one on M add up.
fn hold(env: &Env<'_>) -> Duration {
    match env.route() {
        Some(route) if !route.live.turns.are_taken() => HOLD,
        _ => Duration::ZERO,
    }
}

fn take_turns(env: &Env<'_>) {
    if let Some(route) = env.route() {
        route.live.turns.begin();
    }
}

/// Takes the copy back. `answered`: the leg can be asked to.
async fn give_back(m: &mut MirrorLeg<'_>, env: &Env<'_>, answered: bool, why: &'static str) {
    telemetry::mirror_taken_back(env.route_name(), why);
    if answered {
        rollback(m, env).await;
        return;
    }
    env.discard(m);
}
