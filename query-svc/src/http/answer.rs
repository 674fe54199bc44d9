//! How answers and errors become responses, and how answers are paid for until they are taken.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use axum::Json;
use axum::body::{Body, Bytes, HttpBody};
use axum::extract::{Request, State};
use axum::http::header::{CONTENT_TYPE, RETRY_AFTER};
use axum::http::{HeaderValue, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use hyper::body::{Frame, SizeHint};
use sluice_core::BytePermit;

use super::{App, edge};
use crate::error::ApiError;

/// The media type of problems (RFC 9457).
pub(super) const PROBLEM_JSON: &str = "application/problem+json";

/// A JSON answer or a problem.
pub(crate) type Answer<T> = Result<Json<T>, ApiError>;

/// What the log of the service is told about an error; travels beside the response.
#[derive(Debug, Clone)]
pub(crate) struct Told {
    pub(crate) code: &'static str,
    pub(crate) detail: String,
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let face = self.face();
        let told = Told { code: face.code, detail: self.internal_detail() };
        let retry_after = self.retry_after();
        let status = StatusCode::from_u16(face.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut response = (status, Json(self.problem(&edge::request_id()))).into_response();
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(PROBLEM_JSON));
        if let Some(seconds) = retry_after {
            headers.insert(RETRY_AFTER, HeaderValue::from(seconds));
        }
        response.extensions_mut().insert(told);
        response
    }
}

/// Answers below this many bytes are not counted: connections bound them well enough.
const SMALL: u64 = 64 << 10;

/// Charges a large answer to the budget until its last byte was handed to the connection.
pub(crate) async fn charge(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    let response = next.run(request).await;
    let bytes = response.body().size_hint().lower();
    if bytes < SMALL {
        return response;
    }
    match app.answers.try_acquire(usize::try_from(bytes).unwrap_or(usize::MAX)) {
        Some(permit) => response.map(|body| Body::new(Charged { body, _permit: permit })),
        None => ApiError::Overloaded.into_response(),
    }
}

/// A body that is paid for while it exists.
struct Charged {
    body: Body,
    _permit: BytePermit,
}

impl HttpBody for Charged {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
