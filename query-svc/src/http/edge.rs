//! What every request passes through: a request id, metrics by route, one log line for what went wrong here, and
//! no panic that reaches the client.

use std::any::Any;

use axum::extract::{MatchedPath, Request};
use axum::http::{HeaderName, HeaderValue, Method};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use tokio::time::Instant;
use tracing::{error, warn};
use ulid::Ulid;

use super::answer::Told;
use crate::error::ApiError;
use crate::metrics;

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

tokio::task_local! {
    static ID: String;
}

/// The id of the request that is being answered.
pub(crate) fn request_id() -> String {
    ID.try_with(Clone::clone).unwrap_or_default()
}

/// The client's id when it is a sane one, else one of our own.
fn id_of(request: &Request) -> String {
    let sane = |text: &&str| {
        (1..=64).contains(&text.len())
            && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
    };
    let given = request.headers().get(REQUEST_ID).and_then(|v| v.to_str().ok()).filter(sane);
    given.map_or_else(|| Ulid::generate().to_string(), str::to_owned)
}

/// Methods as metric labels: few, whatever clients send.
fn label(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::POST => "POST",
        Method::PUT => "PUT",
        Method::DELETE => "DELETE",
        Method::HEAD => "HEAD",
        _ => "other",
    }
}

/// The outermost layer.
pub(crate) async fn edge(request: Request, next: Next) -> Response {
    let begun = Instant::now();
    let id = id_of(&request);
    let method = label(request.method());
    let route = request.extensions().get::<MatchedPath>().cloned();
    let route = route.as_ref().map_or("unknown", MatchedPath::as_str);
    let mut response = ID.scope(id.clone(), next.run(request)).await;
    let status = response.status();
    if status.is_server_error()
        && let Some(Told { code, detail }) = response.extensions().get::<Told>()
    {
        warn!(request_id = id, route, status = status.as_u16(), code, detail, "request failed");
    }
    if let Ok(value) = HeaderValue::try_from(id) {
        response.headers_mut().insert(REQUEST_ID, value);
    }
    metrics::request(route, method, status.as_u16(), begun.elapsed());
    response
}

/// A panic is a bug: the client learns that much and the request id, the log of the service the rest.
pub(crate) fn panicked(panic: Box<dyn Any + Send + 'static>) -> Response {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    let text = text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("no text");
    error!(request_id = request_id(), panic = text, "a handler panicked");
    ApiError::Internal.into_response()
}
