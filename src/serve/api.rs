//! The routes, and what each answers.

use super::desk::{Answer, Question};
use super::{Shared, control, events, health, http, metrics, now};
use crate::cli::exit::Exit;
use crate::cli::failure::Failure;
use crate::cli::project;
use crate::core::id::Version;
use crate::report::{json, metrics::text::CONTENT_TYPE};
use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::rejection::BytesRejection;
use axum::extract::{Path, RawQuery, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, post};
use serde_json::{Value, json};
use std::sync::Arc;
use tokio::sync::oneshot;

/// The page that shows it all.
pub const PAGE: &str = include_str!("page.html");

type Known = State<Arc<Shared>>;

/// Every route.
pub fn routes(shared: &Arc<Shared>) -> Router {
    let mut routes = Router::new()
        .route("/", get(async || typed("text/html; charset=utf-8", PAGE)))
        .route(
            "/health/live",
            get(async |shared: Known| answer(StatusCode::OK, &health::live(&shared))),
        )
        .route("/health/ready", get(ready))
        .route("/health", get(async |shared: Known| well(health::whole(&shared))))
        .route("/metrics", get(async |shared: Known| typed(CONTENT_TYPE, metrics::text(&shared))))
        .route("/api/status", get(status))
        .route("/api/backfills", get(backfills))
        .route("/api/invariants", get(invariants))
        .route("/api/plan", get(plan))
        .route("/api/history", get(history))
        .route("/api/events", get(listen));
    if shared.control.is_some() {
        routes = routes.route("/api/backfills/{what}", post(steer));
    }
    routes
        .fallback(async || {
            refuse(StatusCode::NOT_FOUND, "NOT_FOUND", "there is nothing here", ROUTES)
        })
        .method_not_allowed_fallback(async || {
            let message = "that is not how it is asked for";
            refuse(StatusCode::METHOD_NOT_ALLOWED, "METHOD_NOT_ALLOWED", message, ROUTES)
        })
        .with_state(Arc::clone(shared))
}

const ROUTES: &str = "docs/serve.md has the routes";

fn typed(kind: &'static str, body: impl Into<Body>) -> Response {
    let mut response = Response::new(body.into());
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}

fn answer(status: StatusCode, object: &Value) -> Response {
    text_answer(status, object.to_string())
}

fn text_answer(status: StatusCode, text: String) -> Response {
    let mut response = typed("application/json", text + "\n");
    *response.status_mut() = status;
    response
}

/// An error of this very request.
pub fn refuse(status: StatusCode, code: &str, message: &str, next: &str) -> Response {
    let error = json!({ "code": code, "message": message, "next": next });
    answer(status, &json!({ "v": json::VERSION, "error": error }))
}

/// Why a command would have failed.
fn failed(failure: &Failure) -> Response {
    let status = match failure.exit {
        Exit::Unreachable | Exit::Timeout => StatusCode::SERVICE_UNAVAILABLE,
        Exit::Conflict | Exit::Locked | Exit::Refused | Exit::Usage => StatusCode::CONFLICT,
        _ => StatusCode::INTERNAL_SERVER_ERROR,
    };
    let next = failure.next.as_deref().unwrap_or_default();
    // What was done all the same, and what else is known.
    let details = failure.details.iter().map(|(label, text)| format!("; {label}: {text}"));
    let message = format!("{}{}", failure.message, details.collect::<String>());
    refuse(status, failure.code, &message, next)
}

fn well((is_well, object): (bool, Value)) -> Response {
    let status = if is_well { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    answer(status, &object)
}

/// The object that a command would have written.
fn object(event: &str, fields: &Value) -> Response {
    text_answer(StatusCode::OK, json::object(event, now(), fields))
}

/// The version that is asked for, if one is.
fn version(query: Option<&str>) -> Result<Option<Version>, Response> {
    let pairs = query.unwrap_or_default().split('&').filter(|pair| !pair.is_empty());
    let mut wanted = None;
    for pair in pairs {
        let Some(text) = pair.strip_prefix("version=") else {
            let message = "this query knows nothing but `version`";
            return Err(refuse(StatusCode::BAD_REQUEST, "BAD_QUERY", message, ROUTES));
        };
        wanted = Some(project::version(text).map_err(|failure| {
            let next = failure.next.as_deref().unwrap_or_default();
            refuse(StatusCode::BAD_REQUEST, "BAD_QUERY", &failure.message, next)
        })?);
    }
    Ok(wanted)
}

async fn ready(shared: Known, RawQuery(query): RawQuery) -> Response {
    match version(query.as_deref()) {
        Ok(wanted) => well(health::ready(&shared, wanted)),
        Err(refused) => refused,
    }
}

async fn status(shared: Known) -> Response {
    match shared.now() {
        Ok(view) => object("status", &view.status()),
        Err(failure) => failed(&failure),
    }
}

async fn backfills(shared: Known) -> Response {
    match shared.now() {
        Ok(view) => object("backfill", &view.backfills()),
        Err(failure) => failed(&failure),
    }
}

async fn invariants(shared: Known) -> Response {
    match shared.now() {
        Ok(view) => object("invariants", &view.invariants()),
        Err(failure) => failed(&failure),
    }
}

async fn plan(shared: Known) -> Response {
    match ask(&shared, Question::Plan).await {
        Ok(fields) => object("plan", &fields),
        Err(failure) => failed(&failure),
    }
}

async fn history(shared: Known, RawQuery(query): RawQuery) -> Response {
    let version = match version(query.as_deref()) {
        Ok(version) => version,
        Err(refused) => return refused,
    };
    match ask(&shared, Question::History(version)).await {
        Ok(fields) => object("history", &fields),
        Err(failure) => failed(&failure),
    }
}

/// Asks at the desk, if the stores can be reached at all.
async fn ask(shared: &Shared, question: Question) -> Answer {
    for store in shared.stores() {
        shared.reachable(store)?;
    }
    let (reply, answer) = oneshot::channel();
    let busy = || {
        Failure::new(Exit::Timeout, "BUSY", "too much is asked at the same time")
            .next("ask again in a moment")
    };
    let desk = match question {
        Question::Steer(_) => &shared.steering,
        Question::Plan | Question::History(_) => &shared.desk,
    };
    desk.try_send((question, reply)).map_err(|_| busy())?;
    answer.await.map_err(|_| busy())?
}

async fn listen(shared: Known) -> Response {
    let Ok(permit) = Arc::clone(&shared.streams).try_acquire_owned() else {
        let (message, next) = ("too many listen already", "ask `/api/status` now and then instead");
        return refuse(StatusCode::SERVICE_UNAVAILABLE, "BUSY", message, next);
    };
    let mut response = typed("text/event-stream", events::body(&shared, permit));
    // Else nginx keeps events until there are many.
    let buffering = header::HeaderName::from_static("x-accel-buffering");
    response.headers_mut().insert(buffering, HeaderValue::from_static("no"));
    response
}

async fn steer(
    shared: Known,
    Path(what): Path<String>,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Response {
    if !["pause", "resume", "speed"].contains(&what.as_str()) {
        return refuse(StatusCode::NOT_FOUND, "NOT_FOUND", "there is nothing here", ROUTES);
    }
    let given = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    let given = given.and_then(|value| value.strip_prefix("Bearer "));
    if !shared.control.as_ref().is_some_and(|token| given.is_some_and(|given| token.is(given))) {
        let (message, next) = (
            "this needs the token",
            "send `Authorization: Bearer TOKEN`, as --control-token-file has it",
        );
        let mut response = refuse(StatusCode::UNAUTHORIZED, "UNAUTHORIZED", message, next);
        let challenge = HeaderValue::from_static("Bearer");
        response.headers_mut().insert(header::WWW_AUTHENTICATE, challenge);
        return response;
    }
    let kind = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let kind = kind.and_then(|kind| kind.split(';').next()).unwrap_or_default().trim();
    if !kind.eq_ignore_ascii_case("application/json") {
        let message = "the body must be JSON";
        let next = "send `Content-Type: application/json`";
        return refuse(StatusCode::UNSUPPORTED_MEDIA_TYPE, "NO_JSON", message, next);
    }
    let Ok(body) = body else {
        let message = format!("the body is longer than {} bytes", http::BODY_MAX);
        return refuse(StatusCode::PAYLOAD_TOO_LARGE, "TOO_LONG", &message, ROUTES);
    };
    let question = match control::question(&what, &body) {
        Ok(question) => question,
        Err(problem) => return refuse(StatusCode::BAD_REQUEST, "BAD_BODY", &problem, ROUTES),
    };
    match ask(&shared, question).await {
        Ok(fields) => object("backfill", &fields),
        Err(failure) => failed(&failure),
    }
    .into_response()
}
