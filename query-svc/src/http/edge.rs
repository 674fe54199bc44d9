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

#[cfg(test)]
mod tests {
    use axum::Router;
    use axum::body::{Body, to_bytes};
    use axum::middleware::from_fn;
    use axum::routing::get;
    use tower::ServiceExt;
    use tower_http::catch_panic::CatchPanicLayer;

    use super::*;

    #[tokio::test]
    async fn a_panic_is_a_500_problem_without_its_text() {
        async fn broken() {
            panic!("planted: /internal/path");
        }
        let router = Router::new()
            .route("/", get(broken))
            .layer(CatchPanicLayer::custom(panicked))
            .layer(from_fn(edge));
        let request = Request::builder().uri("/").header(REQUEST_ID, "r-1").body(Body::empty()).unwrap();
        let response = router.oneshot(request).await.unwrap();
        assert_eq!(response.status(), 500);
        assert_eq!(response.headers()[REQUEST_ID], "r-1");
        assert_eq!(response.headers()["content-type"], "application/problem+json");
        let body = to_bytes(response.into_body(), 10_000).await.unwrap();
        let body = String::from_utf8(body.to_vec()).unwrap();
        assert!(body.contains(r#""code":"internal""#) && body.contains(r#""request_id":"r-1""#), "{body}");
        assert!(!body.contains("planted") && !body.contains("path"), "{body}");
    }
}
