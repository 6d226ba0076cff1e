//! Paths, methods, bodies, and how refusals become answers.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, Path, Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{Html, IntoResponse, Json, Response};
use axum::routing::{get, post, put};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::{Control, explain, page, status, stream};
use crate::migration::edges::Direction;
use crate::migration::{Compare, Refusal, Wish};
use crate::route::table::{Phase, ReadsBy};

/// Largest request body in bytes: a long statement to explain.
const BODY_MAX: usize = 256 * 1024;

/// Requests answered at once, event streams included: a handful of operators,
/// dashboards and scrapers, with room.
const REQUESTS_MAX: usize = 64;

/// Between two tries of an edge that was asked to wait.
const WAIT_INTERVAL: Duration = Duration::from_millis(500);

/// For a comparison to be refused, where nobody waits for its end.
const COMPARE_STARTS: Duration = Duration::from_millis(100);

/// Longest wait for an edge's conditions. A longer one is a script's loop.
const WAIT_MAX: Duration = Duration::from_secs(600);

type Shared = State<Arc<Control>>;

/// Serves the control port until `stop` resolves.
///
/// # Errors
/// The listener failed.
pub async fn serve(
    listener: tokio::net::TcpListener,
    control: Arc<Control>,
    stop: impl Future<Output = ()> + Send + 'static,
) -> std::io::Result<()> {
    axum::serve(listener, router(control))
        .with_graceful_shutdown(stop)
        .await
}

/// The paths and their handlers.
pub fn router(control: Arc<Control>) -> Router {
    let guarded = Router::new()
        .route("/", get(index))
        .route("/metrics", get(metrics))
        .route("/v1/status", get(show_status))
        .route("/v1/openapi.json", get(openapi))
        .route("/v1/sessions", get(sessions))
        .route("/v1/events", get(events))
        .route("/v1/check", get(check_all))
        .route("/v1/explain", post(explain_it))
        .route(
            "/v1/routes/{name}",
            get(show_route).put(put_route).delete(delete_route),
        )
        .route("/v1/routes/{name}/check", get(check_one))
        .route("/v1/routes/{name}/advance", post(advance))
        .route("/v1/routes/{name}/rollback", post(rollback))
        .route("/v1/routes/{name}/reads", put(reads))
        .route("/v1/routes/{name}/compare", post(compare))
        .route("/v1/routes/{name}/pause", post(pause))
        .route("/v1/routes/{name}/resume", post(resume))
        .route("/v1/routes/{name}/divergences", get(divergences))
        .fallback(async || error(StatusCode::NOT_FOUND, "no such path"))
        .method_not_allowed_fallback(async || {
            error(
                StatusCode::METHOD_NOT_ALLOWED,
                "this path has other methods",
            )
        })
        .layer(middleware::from_fn_with_state(control.clone(), guard));
    Router::new()
        .route("/healthz", get(async || "ok\n"))
        .route("/readyz", get(ready))
        .merge(guarded)
        .layer(DefaultBodyLimit::max(BODY_MAX))
        .with_state(control)
}

/// Counts a request down however it ends.
struct Counted(Arc<Control>);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.requests.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The token, and the bound on requests at once.
async fn guard(State(control): Shared, request: Request, next: Next) -> Response {
    if !control.token.is_empty() && !authorized(&control, request.headers()) {
        let mut refusal = error(StatusCode::UNAUTHORIZED, "a bearer token is required");
        let scheme = header::HeaderValue::from_static("Bearer");
        refusal
            .headers_mut()
            .insert(header::WWW_AUTHENTICATE, scheme);
        return refusal;
    }
    let before = control.requests.fetch_add(1, Ordering::Relaxed);
    let _counted = Counted(control.clone());
    if before >= REQUESTS_MAX {
        return error(StatusCode::SERVICE_UNAVAILABLE, "too many requests at once");
    }
    in_json(next.run(request).await)
}

/// Refusals that axum made (a path that is no UTF-8, a body too large) are
/// plain text; ours are JSON.
fn in_json(answer: Response) -> Response {
    let status = answer.status();
    let kind = answer.headers().get(header::CONTENT_TYPE);
    let json = kind.is_some_and(|k| k.as_bytes().starts_with(b"application/json"));
    if !status.is_client_error() || json {
        return answer;
    }
    let message = match status {
        StatusCode::PAYLOAD_TOO_LARGE => "the body is too large",
        _ => "the path or the body cannot be read",
    };
    error(status, message)
}

fn authorized(control: &Control, headers: &HeaderMap) -> bool {
    headers
        .get(header::AUTHORIZATION)
        .and_then(|v| v.as_bytes().strip_prefix(b"Bearer "))
        .is_some_and(|token| control.token.same_as(token))
}

pub(super) fn error(status: StatusCode, message: &str) -> Response {
    (status, Json(json!({ "error": message }))).into_response()
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let message = self.to_string();
        match self {
            Refusal::NoSuchRoute(_) => error(StatusCode::NOT_FOUND, &message),
            Refusal::Bad(_) => error(StatusCode::BAD_REQUEST, &message),
            Refusal::Failed(_) => error(StatusCode::INTERNAL_SERVER_ERROR, &message),
            Refusal::Refused {
                conditions, done, ..
            } => {
                let body = json!({ "error": message, "conditions": conditions, "done": done });
                (StatusCode::CONFLICT, Json(body)).into_response()
            }
        }
    }
}

/// A body that is not the JSON asked for.
struct BadBody(String);

impl IntoResponse for BadBody {
    fn into_response(self) -> Response {
        error(StatusCode::BAD_REQUEST, &format!("body: {}", self.0))
    }
}

/// A JSON body; an empty one is `{}`.
fn body<T: DeserializeOwned>(bytes: &Bytes) -> Result<T, BadBody> {
    let bytes: &[u8] = if bytes.is_empty() { b"{}" } else { bytes };
    serde_json::from_slice(bytes).map_err(|e| BadBody(e.to_string()))
}

async fn index(State(control): Shared) -> Response {
    Html(page::render(&status::all(&control))).into_response()
}

async fn metrics(State(control): Shared) -> Response {
    let sessions = control.migration.sessions();
    crate::telemetry::sessions(sessions.count(), sessions.without_other_leg());
    let kind = [(header::CONTENT_TYPE, "text/plain; version=0.0.4")];
    (kind, crate::telemetry::render()).into_response()
}

async fn show_status(State(control): Shared) -> Json<Value> {
    Json(status::all(&control))
}

async fn openapi() -> Response {
    let kind = [(header::CONTENT_TYPE, "application/json")];
    (kind, include_str!("openapi.json")).into_response()
}

async fn sessions(State(control): Shared) -> Json<Value> {
    Json(json!({ "sessions": control.views.sessions() }))
}

async fn events(State(control): Shared, headers: HeaderMap) -> Response {
    let after = headers
        .get("last-event-id")
        .and_then(|v| v.to_str().ok())
        .and_then(|v| v.parse().ok())
        .unwrap_or(0);
    stream::watch(&control.migration, after).into_response()
}

async fn explain_it(State(control): Shared, bytes: Bytes) -> Response {
    match body::<explain::Question>(&bytes) {
        Ok(question) => Json(explain::explain(&control, &question)).into_response(),
        Err(refusal) => refusal.into_response(),
    }
}

async fn ready(State(control): Shared) -> Response {
    let home = control.migration.routes().load().home();
    let mut missing = Vec::new();
    if !control.listening.load(Ordering::Acquire) {
        missing.push("the data port does not listen yet".to_owned());
    }
    if control.migration.backends().get(home).up != Some(true) {
        missing.push(format!("the {home} was not reached"));
    }
    if !control.migration.catalog().loaded(home) {
        missing.push(format!("the {home}'s table shapes were not read"));
    }
    // Said in words only: this path asks for no token.
    if missing.is_empty() {
        return "ready\n".into_response();
    }
    let text = format!("{}\n", missing.join("\n"));
    (StatusCode::SERVICE_UNAVAILABLE, text).into_response()
}

fn no_route(name: &str) -> Response {
    Refusal::NoSuchRoute(name.to_owned()).into_response()
}

async fn show_route(State(control): Shared, Path(name): Path<String>) -> Response {
    let table = control.migration.routes().load();
    match table.routes.iter().find(|r| r.name == name) {
        Some(route) => Json(status::route(&control, route, &table)).into_response(),
        None => no_route(&name),
    }
}

async fn put_route(State(control): Shared, Path(name): Path<String>, bytes: Bytes) -> Response {
    let value: Value = match body(&bytes) {
        Ok(value) => value,
        Err(refusal) => return refusal.into_response(),
    };
    let mut problems = Vec::new();
    let wanted = crate::config::read::route(value, &name, &mut problems);
    if wanted.name != name {
        problems.push("name: must be the one in the path".to_owned());
    }
    if !problems.is_empty() {
        return error(StatusCode::BAD_REQUEST, &problems.join("; "));
    }
    let migration = control.migration.clone();
    let done = tokio::spawn(async move { migration.put(&wanted).await }).await;
    let table = control.migration.routes().load();
    match done {
        Ok(Ok(route)) => Json(status::route(&control, &route, &table)).into_response(),
        Ok(Err(refusal)) => refusal.into_response(),
        Err(_) => failed(),
    }
}

fn failed() -> Response {
    crate::telemetry::error("proxy", "control");
    error(
        StatusCode::INTERNAL_SERVER_ERROR,
        "the request failed; see the log",
    )
}

async fn delete_route(State(control): Shared, Path(name): Path<String>) -> Response {
    let migration = control.migration.clone();
    match tokio::spawn(async move { migration.delete(&name).await }).await {
        Ok(Ok(())) => StatusCode::NO_CONTENT.into_response(),
        Ok(Err(refusal)) => refusal.into_response(),
        Err(_) => failed(),
    }
}

/// The body of `advance` and `rollback`.
#[derive(serde::Deserialize, Default)]
#[serde(default, deny_unknown_fields)]
struct EdgeBody {
    to: Option<Phase>,
    force: bool,
    kill: bool,
    dry_run: bool,
    wait: bool,
}

async fn advance(control: Shared, name: Path<String>, bytes: Bytes) -> Response {
    edge(control, name, &bytes, Direction::Forward).await
}

async fn rollback(control: Shared, name: Path<String>, bytes: Bytes) -> Response {
    edge(control, name, &bytes, Direction::Back).await
}

async fn edge(
    State(control): Shared,
    Path(name): Path<String>,
    bytes: &Bytes,
    direction: Direction,
) -> Response {
    let asked: EdgeBody = match body(bytes) {
        Ok(asked) => asked,
        Err(refusal) => return refusal.into_response(),
    };
    let wish = Wish {
        to: asked.to,
        force: asked.force,
        kill: asked.kill,
        dry_run: asked.dry_run,
    };
    let give_up = tokio::time::Instant::now() + WAIT_MAX;
    loop {
        let migration = control.migration.clone();
        let route = name.clone();
        let done = tokio::spawn(async move { migration.go(&route, direction, wish).await }).await;
        let refusal = match done {
            Ok(Ok(outcome)) => return Json(outcome).into_response(),
            Ok(Err(refusal)) => refusal,
            Err(_) => return failed(),
        };
        let again = asked.wait && !asked.dry_run && may_pass(&refusal);
        if !again || tokio::time::Instant::now() >= give_up {
            return refusal.into_response();
        }
        // Dropped here when the client hangs up: nobody waits any more.
        tokio::time::sleep(WAIT_INTERVAL).await;
    }
}

/// Whether waiting can help: something known does not hold yet, and nothing
/// that this version cannot know stands in the way. Open transactions had
/// their time already: holding writes for it again and again would hurt more
/// than the refusal, which names them.
fn may_pass(refusal: &Refusal) -> bool {
    match refusal {
        Refusal::Refused { conditions, .. } => {
            conditions.iter().any(|c| c.ok == Some(false))
                && conditions
                    .iter()
                    .all(|c| c.ok.is_some() && c.name != "drained")
        }
        _ => false,
    }
}

/// The body of `reads`.
#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct ReadsBody {
    percent: u64,
    #[serde(default)]
    by: Option<ReadsBy>,
}

async fn reads(State(control): Shared, Path(name): Path<String>, bytes: Bytes) -> Response {
    let asked: ReadsBody = match body(&bytes) {
        Ok(asked) => asked,
        Err(refusal) => return refusal.into_response(),
    };
    let migration = control.migration.clone();
    let done =
        tokio::spawn(async move { migration.reads(&name, asked.percent, asked.by).await }).await;
    match done {
        Ok(Ok(route)) => Json(json!({
            "route": route.name,
            "reads_target_percent": route.reads_percent,
            "reads_by": route.reads_by,
        }))
        .into_response(),
        Ok(Err(refusal)) => refusal.into_response(),
        Err(_) => failed(),
    }
}

async fn pause(control: Shared, name: Path<String>) -> Response {
    pausing(control, name, true).await
}

async fn resume(control: Shared, name: Path<String>) -> Response {
    pausing(control, name, false).await
}

async fn pausing(State(control): Shared, Path(name): Path<String>, paused: bool) -> Response {
    let table = control.migration.routes().load();
    let Some(route) = table.routes.iter().find(|r| r.name == name) else {
        return no_route(&name);
    };
    let migration = control.migration.clone();
    let named = name.clone();
    let done = tokio::spawn(async move { migration.pause(&named, paused).await }).await;
    match done {
        Ok(()) => Json(status::route(&control, route, &table)).into_response(),
        Err(_) => failed(),
    }
}

async fn check_all(State(control): Shared) -> Response {
    control.preflight.answer(&control.migration, None).await
}

async fn check_one(State(control): Shared, Path(name): Path<String>) -> Response {
    if control.migration.routes().load().index_of(&name).is_none() {
        return no_route(&name);
    }
    let only = Some(name.as_str());
    control.preflight.answer(&control.migration, only).await
}

/// The body of `compare`.
#[derive(serde::Deserialize, Default)]
#[serde(default, deny_unknown_fields)]
struct CompareBody {
    strong: bool,
    window: bool,
    repair: bool,
    wait: bool,
}

/// Starts a comparison; with `wait` the answer is its report. It goes on when
/// the client hangs up.
async fn compare(State(control): Shared, Path(name): Path<String>, bytes: Bytes) -> Response {
    let asked: CompareBody = match body(&bytes) {
        Ok(asked) => asked,
        Err(refusal) => return refusal.into_response(),
    };
    let kind = match (asked.window, asked.strong) {
        (true, true) => {
            let both = "window and strong are two kinds of comparison".to_owned();
            return BadBody(both).into_response();
        }
        (true, false) => Compare::Window,
        (false, true) => Compare::Strong,
        (false, false) => Compare::Full,
    };
    let migration = control.migration.clone();
    let route = name.clone();
    let task = tokio::spawn(async move {
        let done = migration.compare(&route, kind, asked.repair);
        done.await
    });
    if !asked.wait {
        // Long enough for a refusal.
        tokio::time::sleep(COMPARE_STARTS).await;
        if !task.is_finished() {
            return Json(json!({ "route": name, "running": true })).into_response();
        }
    }
    match task.await {
        Ok(Ok(report)) => {
            let clean = report.is_clean();
            Json(json!({ "route": name, "running": false, "clean": clean, "report": report }))
                .into_response()
        }
        Ok(Err(refusal)) => refusal.into_response(),
        Err(_) => failed(),
    }
}

async fn divergences(State(control): Shared, Path(name): Path<String>) -> Response {
    if control.migration.routes().load().index_of(&name).is_none() {
        return no_route(&name);
    }
    let (list, more) = control.migration.plane().divergences(&name);
    Json(json!({ "route": name, "divergences": list, "more": more })).into_response()
}
