//! One mirrored statement (DESIGN §5, steps 1 to 4).
//!
//! ```text
//! A: [context] [BEGIN] statement ──────── answer ┐            COMMIT ─ ok ┐
//! M: (autocommit=0, A's isolation) ──────────────┴─ [savepoints] [context] statement ─ ok ─┴─ COMMIT
//! ```
//!
//! The statement runs on M between A's answer and A's COMMIT. The race this
//! order prevents:
//! 1. T1 updates row r on A and commits; 2. T2 updates r on A and commits;
//! 3. T2 updates r on M; 4. T1 updates r on M: the order differs for ever.
//!
//! Here T2 cannot pass step 2's update before T1's commit, and T1 has executed
//! on M before it: T1 holds r's lock on M until its own commit there.

use std::pin::{Pin, pin};
use std::sync::Arc;

use crate::leg::ours::put_marked;
use crate::leg::{ANSWER_MAX, Answer, Leg, Lost, put_query};
use crate::route::plan::{Ids, Inline};
use crate::route::table::Ack;
use crate::sql::Isolation;
use crate::telemetry;
use crate::wire::command::ResponseKind;
use crate::wire::{Capabilities, Status};

use super::ahead::{self, Copied};
use super::answer::{answer_client, failed_commit, matched_rows};
use super::context::{Evaluated, seed_statement, select_variables};
use super::journal::Kind;
use super::timer::{Expired, Timer};
use super::{Env, Failure, MirrorLeg, Part};

/// The commit of a transaction we wrapped. `completion_type` would chain or
/// release it (protocol-review H6), so both are ruled out.
pub const COMMIT: &[u8] = b"COMMIT AND NO CHAIN NO RELEASE";

/// The rollback of a transaction we wrapped.
pub const ROLLBACK: &[u8] = b"ROLLBACK AND NO CHAIN NO RELEASE";

/// Evaluated by A: its tracker returns the value, with microseconds, so NOW()
/// agrees with A's own clock (protocol-review M3).
const FREEZE_TIME: &[u8] = b"SET timestamp=UNIX_TIMESTAMP(NOW(6))";
const UNFREEZE_TIME: &[u8] = b"SET timestamp=DEFAULT";

/// How often a statement of ours is repeated that a KILL QUERY interrupted:
/// one for each of a burst of them. Then the leg is given up.
pub const INSIST_MAX: usize = 100;

/// A statement to execute on both sides.
pub struct Request<'a> {
    /// The client's command as A gets it, framed.
    pub active_command: &'a [u8],
    /// The same as M gets it.
    pub mirror_command: &'a [u8],
    /// What the plan asks for.
    pub inline: Inline,
    /// No client transaction is open: we wrap the statement in one.
    pub implicit: bool,
    /// The isolation of A's transaction.
    pub isolation: Isolation,
    /// Savepoints set before M's part began, as written.
    pub savepoints: &'a [Vec<u8>],
    /// User variables the statement reads, as `@name` written.
    pub user_variables: &'a [Vec<u8>],
    /// A value for RAND_SEED1/2 on both sides, should the statement need it.
    pub seed: (u32, u32),
    /// The client's `timestamp` is set by the client itself: it stands.
    pub client_timestamp: bool,
}

/// What our COMMIT wiped on A and may be asked for by the client's next
/// statement.
#[derive(Clone, Debug, Default)]
pub struct Diagnostics {
    /// What ROW_COUNT() would say.
    pub row_count: i64,
    /// Warnings the statement left.
    pub warnings: u16,
    /// Of which errors.
    pub errors: u16,
    /// The raw answer of SHOW WARNINGS; None when there were none.
    pub list: Option<Vec<u8>>,
    /// Only ROW_COUNT() was wiped: the rest stands on the server.
    pub only_count: bool,
}

impl Diagnostics {
    /// After an error, and a ping of ours, which wipes ROW_COUNT() alone.
    pub fn pinged() -> Diagnostics {
        Diagnostics {
            row_count: -1,
            only_count: true,
            ..Diagnostics::default()
        }
    }
}

/// How it went.
pub struct Written {
    /// The packet the client gets, framed from sequence id 1.
    pub answer: Vec<u8>,
    /// An error was answered.
    pub is_error: bool,
    /// A's flags as the client is to see them.
    pub status: Status,
    /// Set when the statement's diagnostics do not stand on A any more.
    pub diagnostics: Option<Diagnostics>,
    /// M did not get the write: the rest of the transaction is deferred.
    pub poisoned: bool,
    /// M's COMMIT was sent and its answer not read yet (`ack: active`).
    pub commit_pending: bool,
}

/// Executes a statement on both legs.
///
/// # Errors
/// A is lost; M's part is rolled back. Everything M does wrong is in the
/// result. Not cancel safe: both legs must be dropped.
pub async fn write(
    a: &mut Leg,
    mut m: MirrorLeg<'_>,
    request: &Request<'_>,
    env: &Env<'_>,
) -> Result<Written, Lost> {
    let opens = *m.part == Part::None;
    let in_flight = env.in_flight();
    let result = attempt(a, &mut m, request, env, opens).await;
    in_flight.settled();
    if result.is_err() {
        // A lost, perhaps during COMMIT: M is rolled back, always; A's log
        // decides (protocol-review M9).
        env.failed("active_lost");
        env.discard(&mut m);
    }
    result
}

async fn attempt(
    a: &mut Leg,
    m: &mut MirrorLeg<'_>,
    request: &Request<'_>,
    env: &Env<'_>,
    opens: bool,
) -> Result<Written, Lost> {
    let ready = !opens || is_ready(m, request) || Box::pin(ready_mirror(m, request, env)).await;
    let sent = send_active(a, request).await?;
    let caps = a.capabilities;
    let judge = |evaluated: &Evaluated, answer: &Answer| {
        verdict(answer, caps, request, evaluated, env, ready)
    };
    let begun = (ready && opens).then(|| ahead::begin(request, env));
    let (evaluated, answer, copied) = if let Some(begun) = begun.flatten() {
        ahead::execute(a, m, request, env, sent, begun, judge).await?
    } else {
        let (evaluated, answer) = ahead::answer_of(a, request, sent).await?;
        (evaluated, answer, Copied::Not)
    };
    if answer.summary.is_error {
        return Box::pin(refused(a, m, request, env, answer)).await;
    }
    let mut poisoned = false;
    let judged = match copied {
        Copied::Executed(affected) => {
            executed(m, env, &answer, affected);
            Verdict::Nothing
        }
        Copied::Failed(failure, what) => {
            env.fail(m, failure, &what);
            Verdict::Failed
        }
        Copied::Unwanted(verdict) => verdict,
        Copied::Not => judge(&evaluated, &answer),
    };
    match judged {
        Verdict::Nothing => {}
        Verdict::Defer(reason) => {
            env.deferred(reason);
            poisoned = true;
        }
        Verdict::Failed => poisoned = true,
        Verdict::Mirror if env.shared.mirror_after_commit && request.implicit => {}
        Verdict::Mirror => {
            poisoned = !execute(m, request, env, &answer, &evaluated, opens).await;
        }
    }
    finish(a, m, request, env, answer, &evaluated, poisoned).await
}

/// Sends A everything in one write; returns the number of context answers.
async fn send_active(a: &mut Leg, request: &Request<'_>) -> Result<usize, Lost> {
    let context = request.inline.context;
    let mut out = Vec::with_capacity(request.active_command.len() + 192);
    let mut sent = 0;
    let caps = a.capabilities;
    let mut put = |sql: &[u8]| {
        put_query(&mut out, caps, sql);
        sent += 1;
    };
    if context.time {
        put(FREEZE_TIME);
    }
    if context.rand {
        put(seed_statement(request.seed).as_bytes());
    }
    if context.last_insert_id {
        put(b"SELECT LAST_INSERT_ID()");
    }
    if context.user_variables {
        put(&select_variables(request.user_variables));
    }
    if request.implicit {
        put(b"BEGIN");
    }
    out.extend_from_slice(request.active_command);
    a.send(&out).await?;
    // BEGIN's OK comes while the statement is executed.
    a.wake_for(sent + 1);
    Ok(sent)
}

/// Whether M's leg has been through [`ready_mirror`] and is still so.
fn is_ready(m: &MirrorLeg<'_>, request: &Request<'_>) -> bool {
    m.leg.as_ref().is_some_and(|leg| {
        leg.isolation == Some(request.isolation) && !leg.status.has(Status::AUTOCOMMIT)
    })
}

/// Brings M's leg into the state a mirrored transaction needs, before A
/// executes anything, so that no row lock waits for it: A's isolation, and
/// `autocommit=0`. With that no BEGIN is needed, and none can be lost: were a
/// BEGIN swallowed by a KILL QUERY (C3), the statement after it would commit
/// by itself.
async fn ready_mirror(m: &mut MirrorLeg<'_>, request: &Request<'_>, env: &Env<'_>) -> bool {
    let Some(leg) = m.leg.as_mut() else {
        env.fail(m, Failure::Lost, "no leg");
        return false;
    };
    let mut out = Vec::new();
    let mut answers = 0;
    if leg.isolation != Some(request.isolation) {
        let level = request.isolation.as_sql();
        let sql = format!("SET SESSION TRANSACTION ISOLATION LEVEL {level}");
        put_query(&mut out, leg.capabilities, sql.as_bytes());
        answers += 1;
    }
    if leg.status.has(Status::AUTOCOMMIT) {
        put_query(&mut out, leg.capabilities, b"SET autocommit=0");
        answers += 1;
    }
    let work = async {
        leg.send(&out).await?;
        for _ in 0..answers {
            let answer = leg.answer(ResponseKind::Generic, ANSWER_MAX).await?;
            if answer.summary.is_error {
                return Err(leg.lost(answer.error_text()));
            }
        }
        Ok(())
    };
    let set = bounded(env, m.timer, pin!(work)).await;
    match set {
        Ok(()) if !leg.status.has(Status::AUTOCOMMIT) => {
            leg.isolation = Some(request.isolation);
            true
        }
        Ok(()) => {
            env.fail(m, Failure::Unexpected, "autocommit stayed on");
            false
        }
        Err((failure, what)) => {
            env.fail(m, failure, &what);
            false
        }
    }
}

/// What A's answer says of the statement on M.
pub(super) enum Verdict {
    Mirror,
    /// A examined nothing that it still holds, or changed nothing; or M has
    /// executed it.
    Nothing,
    Defer(&'static str),
    /// Already counted.
    Failed,
}

/// The answer rules of step 2.
fn verdict(
    answer: &Answer,
    capabilities: Capabilities,
    request: &Request<'_>,
    evaluated: &Evaluated,
    env: &Env<'_>,
    ready: bool,
) -> Verdict {
    let Some(ok) = answer.ok(capabilities) else {
        return Verdict::Defer("answered_with_rows");
    };
    if !ok.status.has(Status::IN_TRANS) {
        // Committed already: a KILL QUERY swallowed the BEGIN (C3).
        return Verdict::Defer("committed_early");
    }
    if ok.affected_rows == 0 {
        // Nothing to mirror; and below REPEATABLE READ the rows it examined
        // are not locked any more (C1), so it must not run on M.
        return Verdict::Nothing;
    }
    if !ready {
        return Verdict::Failed;
    }
    if let Some(keys) = request.inline.matched_rows {
        let matched = matched_rows(&ok).unwrap_or(ok.affected_rows);
        if matched != keys {
            return Verdict::Defer("not_every_key_matched");
        }
    }
    if evaluated.incomplete {
        return Verdict::Defer("context_not_known");
    }
    if request.inline.ids == Ids::Generated && ok.insert_id == 0 {
        return Verdict::Defer("no_insert_id");
    }
    if env.route().is_none_or(|r| r.suspended()) {
        return Verdict::Defer("suspended");
    }
    // It waited on A for the DDL's end, which M has not reached yet.
    if env.route().is_some_and(|r| r.being_altered()) {
        return Verdict::Defer("being_altered");
    }
    Verdict::Mirror
}

/// Runs `work` on the mirror until the deadline, or until another statement
/// suspends the route: then everybody lets go at once (H3).
pub(super) async fn bounded<T>(
    env: &Env<'_>,
    timer: &mut Timer,
    work: Pin<&mut impl Future<Output = Result<T, Lost>>>,
) -> Result<T, (Failure, String)> {
    let limit = env.shared.deadline;
    let Some(route) = env.route() else {
        return Err((Failure::Unexpected, "no such route".into()));
    };
    let mut suspension = pin!(route.live.suspension.notified());
    // Registered before the flag is looked at, so that a suspension between
    // the two is not missed.
    suspension.as_mut().enable();
    if route.suspended() {
        return Err((Failure::Suspended, "the route was suspended".into()));
    }
    let first = pin!(async {
        tokio::select! {
            biased;
            done = work => done.map_err(|lost| (Failure::Lost, lost.what)),
            () = suspension => Err((Failure::Suspended, "the route was suspended".into())),
        }
    });
    match timer.within(limit, first).await {
        Ok(done) => done,
        Err(Expired) => {
            let what = format!("no answer within {} ms", limit.as_millis());
            Err((Failure::Deadline, what))
        }
    }
}

/// Executes on M. False when it failed; then everything is counted.
async fn execute(
    m: &mut MirrorLeg<'_>,
    request: &Request<'_>,
    env: &Env<'_>,
    answer: &Answer,
    evaluated: &Evaluated,
    opens: bool,
) -> bool {
    let started = std::time::Instant::now();
    let outcome = {
        let Some(leg) = m.leg.as_mut() else {
            env.fail(m, Failure::Lost, "no leg");
            return false;
        };
        let search = ahead::search(request, env, m.timer, opens).await;
        let outcome = {
            let work = pin!(execute_on(leg, request, answer, evaluated, opens));
            bounded(env, m.timer, work).await
        };
        // One for each route of the transaction.
        if let Some(search) = search
            && !leg.searched.iter().any(|s| Arc::ptr_eq(s, &search))
        {
            leg.searched.push(search);
        }
        outcome
    };
    telemetry::mirror_waited(env.route_name(), started.elapsed());
    match outcome {
        Ok(Ok(affected)) => {
            executed(m, env, answer, affected);
            true
        }
        Ok(Err((failure, what))) => {
            env.fail(m, failure, &what);
            false
        }
        Err((failure, what)) => {
            env.fail(m, failure, &what);
            false
        }
    }
}

/// M has executed it.
fn executed(m: &mut MirrorLeg<'_>, env: &Env<'_>, answer: &Answer, affected: u64) {
    *m.part = Part::Open;
    if affected != answer.summary.affected_rows {
        env.note(Kind::Suspect, "affected_rows_differ");
        telemetry::mirror_write(env.route_name(), "suspect");
    }
}

/// Ok(affected rows), or what M answered instead.
type OnMirror = Result<u64, (Failure, String)>;

async fn execute_on(
    leg: &mut Leg,
    request: &Request<'_>,
    answer: &Answer,
    evaluated: &Evaluated,
    opens: bool,
) -> Result<OnMirror, Lost> {
    let mut out = Vec::with_capacity(request.mirror_command.len() + 128);
    let mut context_answers = 0;
    let caps = leg.capabilities;
    let mut put = |sql: &[u8]| {
        put_query(&mut out, caps, sql);
        context_answers += 1;
    };
    if opens {
        // Set before M's part began (protocol-review M1).
        for name in request.savepoints {
            put(&[b"SAVEPOINT ", &name[..]].concat());
        }
    }
    if let Some(timestamp) = &evaluated.timestamp {
        put(&[b"SET timestamp=", &timestamp[..]].concat());
        leg.timestamp_set = true;
    }
    if request.inline.context.rand {
        put(seed_statement(request.seed).as_bytes());
    }
    if let Some(id) = &evaluated.last_insert_id {
        put(&[b"SET LAST_INSERT_ID=", &id[..]].concat());
    }
    for set in &evaluated.user_variables {
        put(set);
    }
    if request.inline.ids == Ids::Generated {
        put(format!("SET INSERT_ID={}", answer.summary.insert_id).as_bytes());
    }
    put_marked(&mut out, leg, request.mirror_command);
    leg.send(&out).await?;
    leg.wake_for(context_answers + 1);
    let mut refused = None;
    for _ in 0..context_answers {
        let context = leg.answer(ResponseKind::Generic, ANSWER_MAX).await?;
        if context.summary.is_error {
            refused.get_or_insert(context.error_text());
        }
    }
    let mirrored = leg.answer(ResponseKind::Generic, ANSWER_MAX).await?;
    if let Some(what) = refused {
        return Ok(Err((Failure::Refused, what)));
    }
    if mirrored.summary.is_error {
        return Ok(Err((Failure::Refused, mirrored.error_text())));
    }
    if !mirrored.summary.status.has(Status::IN_TRANS) {
        return Ok(Err((Failure::Unexpected, "it committed by itself".into())));
    }
    if request.inline.ids == Ids::Generated
        && mirrored.summary.insert_id != answer.summary.insert_id
    {
        // INSERT_ID was not consumed, so it would leak into the next insert.
        return Ok(Err((Failure::Unexpected, "another insert id".into())));
    }
    Ok(Ok(mirrored.summary.affected_rows))
}

/// Rolls M's transaction back, within the deadline; else discards the leg.
pub async fn rollback(m: &mut MirrorLeg<'_>, env: &Env<'_>) {
    *m.part = Part::None;
    let Some(leg) = m.leg.as_mut() else { return };
    let limit = env.shared.deadline;
    let done = m.timer.within(limit, pin!(leg.query(ROLLBACK))).await;
    match done {
        Ok(Ok(answer)) if !answer.summary.is_error => {}
        _ => env.discard(m),
    }
}

/// A refused the statement: nothing of it reaches M.
async fn refused(
    a: &mut Leg,
    m: &mut MirrorLeg<'_>,
    request: &Request<'_>,
    env: &Env<'_>,
    answer: Answer,
) -> Result<Written, Lost> {
    let mut diagnostics = None;
    let wraps = request.implicit || request.inline.context.time;
    if wraps {
        // Our ROLLBACK (or SET) wipes SHOW ERRORS, so take it first.
        let list = a.warnings().await?;
        diagnostics = Some(Diagnostics {
            row_count: -1,
            warnings: count_rows(&list, a.capabilities),
            errors: 1,
            list: (!list.summary.is_error).then_some(list.bytes),
            only_count: false,
        });
    }
    if request.implicit {
        rollback_active(a).await?;
    }
    reset_time(a, request).await?;
    if *m.part == Part::Open && !request.implicit && !a.ping_in_transaction().await? {
        // A deadlock rolled back the whole transaction on A (C2). Its number
        // does not tell, its flags do.
        rollback(m, env).await;
    }
    let status = Status(a.status.0 & !Status::SESSION_STATE_CHANGED.0);
    Ok(Written {
        answer: answer.bytes,
        is_error: true,
        status,
        diagnostics,
        poisoned: false,
        commit_pending: false,
    })
}

/// Rows of a SHOW WARNINGS answer: its packets without the column count, the
/// three definitions, the EOF after them, and the end.
pub fn count_rows(answer: &Answer, capabilities: Capabilities) -> u16 {
    let others = if capabilities.has(Capabilities::DEPRECATE_EOF) {
        5
    } else {
        6
    };
    u16::try_from(answer.summary.packets.saturating_sub(others)).unwrap_or(u16::MAX)
}

async fn reset_time(a: &mut Leg, request: &Request<'_>) -> Result<(), Lost> {
    if request.inline.context.time && !request.client_timestamp {
        insist(a, UNFREEZE_TIME).await?;
    }
    Ok(())
}

/// Ends our transaction on A. Were it left open, the BEGIN of the next write
/// would commit it, and the mirror would never see that:
/// 1. a KILL QUERY hits our COMMIT, the client is told 1317; 2. its next
///    statement's BEGIN commits what was refused; 3. no journal names it.
async fn rollback_active(a: &mut Leg) -> Result<(), Lost> {
    insist(a, ROLLBACK).await
}

/// Has a leg execute a statement of ours that only a KILL QUERY can make fail.
///
/// # Errors
/// The leg is lost, or refuses again and again, and must be given up.
pub async fn insist(a: &mut Leg, sql: &[u8]) -> Result<(), Lost> {
    for _ in 0..INSIST_MAX {
        if !a.query(sql).await?.summary.is_error {
            return Ok(());
        }
    }
    Err(a.lost("it refused a statement of ours again and again"))
}

/// A refused our COMMIT. In a transaction still: nothing has been committed.
/// Else only its log knows, so the write is counted and journalled.
async fn refused_commit(
    a: &mut Leg,
    m: &mut MirrorLeg<'_>,
    env: &Env<'_>,
    wrote: bool,
) -> Result<(), Lost> {
    if a.ping_in_transaction().await? {
        rollback_active(a).await?;
    } else if wrote {
        env.failed("commit_refused");
    }
    rollback(m, env).await;
    Ok(())
}

/// Steps 3 and 4: commits what was wrapped, and makes the client's answer.
async fn finish(
    a: &mut Leg,
    m: &mut MirrorLeg<'_>,
    request: &Request<'_>,
    env: &Env<'_>,
    answer: Answer,
    evaluated: &Evaluated,
    poisoned: bool,
) -> Result<Written, Lost> {
    let caps = a.capabilities;
    let frozen = request.inline.context.time;
    let unfreeze = frozen && !request.client_timestamp;
    let mut diagnostics = None;
    if request.implicit || frozen {
        let list = if answer.summary.warnings > 0 {
            let list = a.warnings().await?;
            (!list.summary.is_error).then_some(list.bytes)
        } else {
            None
        };
        diagnostics = Some(Diagnostics {
            row_count: i64::try_from(answer.summary.affected_rows).unwrap_or(i64::MAX),
            warnings: answer.summary.warnings,
            errors: 0,
            list,
            only_count: false,
        });
    }
    let mut out = Vec::with_capacity(96);
    if request.implicit {
        put_query(&mut out, caps, COMMIT);
    }
    if unfreeze {
        put_query(&mut out, caps, UNFREEZE_TIME);
    }
    if !out.is_empty() {
        a.send(&out).await?;
    }
    let mut commit = None;
    if request.implicit {
        commit = Some(a.answer(ResponseKind::Generic, ANSWER_MAX).await?);
    }
    if unfreeze {
        let thawed = a.answer(ResponseKind::Generic, ANSWER_MAX).await?;
        if thawed.summary.is_error {
            Box::pin(reset_time(a, request)).await?;
        }
    }
    if let Some(commit) = &commit {
        if commit.summary.is_error {
            let wrote = answer.summary.affected_rows > 0;
            Box::pin(refused_commit(a, m, env, wrote)).await?;
            return Ok(failed_commit(a, commit));
        }
        if env.shared.mirror_after_commit
            && request.implicit
            && !poisoned
            && answer.summary.affected_rows > 0
        {
            Box::pin(execute(m, request, env, &answer, evaluated, true)).await;
        }
    }
    let mut commit_pending = false;
    if commit.is_some() && *m.part == Part::Open {
        commit_pending = super::transaction::commit_mirror(m, env).await;
    }
    Ok(answer_client(
        a,
        &answer,
        commit.as_ref(),
        diagnostics,
        poisoned,
        commit_pending,
    ))
}

/// When the client of a route is answered.
pub fn acknowledges_early(env: &Env<'_>) -> bool {
    env.route().is_some_and(|r| r.ack == Ack::Active)
}
