//! Reads requests: path, query string and body, each refused with a problem, each bounded in bytes and time.

use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, HttpBody as _};
use axum::extract::{FromRequest, FromRequestParts, Path, Query, Request};
use axum::http::header::{CONTENT_ENCODING, CONTENT_TYPE, EXPECT};
use axum::http::request::Parts;
use futures::future::poll_fn;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use sluice_core::BytePermit;

use super::App;
use crate::error::ApiError;
use crate::object::Object;

/// Parameters of the path.
pub(crate) struct PathParams<T>(pub(crate) T);

impl<T: DeserializeOwned + Send> FromRequestParts<Arc<App>> for PathParams<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, app: &Arc<App>) -> Result<Self, ApiError> {
        let read = Path::<T>::from_request_parts(parts, app).await;
        read.map(|Path(params)| Self(params))
            .map_err(|e| ApiError::Invalid(format!("path: {}", e.body_text())))
    }
}

/// Parameters of the query string.
pub(crate) struct QueryParams<T>(pub(crate) T);

impl<T: DeserializeOwned + Send> FromRequestParts<Arc<App>> for QueryParams<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, app: &Arc<App>) -> Result<Self, ApiError> {
        let read = Query::<T>::from_request_parts(parts, app).await;
        read.map(|Query(params)| Self(params))
            .map_err(|e| ApiError::Invalid(format!("query string: {}", e.body_text())))
    }
}

/// The kinds of body that some route takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Media {
    Json,
    Protobuf,
}

/// A body as it came, charged to the budget for as long as it is held.
pub(crate) struct RawBody {
    pub(crate) media: Media,
    pub(crate) bytes: Vec<u8>,
    pub(crate) permit: BytePermit,
}

impl FromRequest<Arc<App>> for RawBody {
    type Rejection = ApiError;

    async fn from_request(request: Request, app: &Arc<App>) -> Result<Self, ApiError> {
        let media = media(&request)?;
        let limit = app.limits.body_timeout;
        let read = tokio::time::timeout(limit, read(request, app)).await;
        let (bytes, permit) = read.map_err(|_| ApiError::BodyTimeout(limit))??;
        Ok(Self { media, bytes, permit })
    }
}

fn media(request: &Request) -> Result<Media, ApiError> {
    if request.headers().get(CONTENT_ENCODING).is_some_and(|v| v.as_bytes() != b"identity") {
        return Err(ApiError::MediaType("bodies are taken without content-encoding only".into()));
    }
    let given = request.headers().get(CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or_default();
    let essence = given.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    match essence.as_str() {
        "application/json" => Ok(Media::Json),
        "application/x-protobuf" => Ok(Media::Protobuf),
        _ => Err(ApiError::MediaType("the content-type is not application/json".into())),
    }
}

/// Most that is made room for at once because a client announced it.
const ROOM_AT_ONCE: usize = 4 << 20;

/// Most of a refused body that is read, and how long it is read: an answer to a client that is still sending would be
/// lost with the connection.
const DISCARDED: usize = 16 << 20;
const DISCARDING: Duration = Duration::from_secs(1);

/// Reads what a client is still sending and keeps none of it.
async fn discard(body: &mut Body) {
    let mut left = DISCARDED;
    let reading = async {
        while let Some(Ok(frame)) = poll_fn(|cx| std::pin::Pin::new(&mut *body).poll_frame(cx)).await {
            let Some(rest) = left.checked_sub(frame.data_ref().map_or(0, |data| data.len())) else { return };
            left = rest;
        }
    };
    // whoever sends more, or more slowly, may miss the answer
    tokio::time::timeout(DISCARDING, reading).await.ok();
}

/// Charges bytes as they arrive, so that a slow client holds no more of the budget than it has sent.
async fn read(request: Request, app: &App) -> Result<(Vec<u8>, BytePermit), ApiError> {
    let max = app.limits.max_body_bytes;
    let too_large = ApiError::BodyTooLarge { max };
    let waits = request.headers().contains_key(EXPECT);
    let mut body = request.into_body();
    let announced = usize::try_from(body.size_hint().lower()).unwrap_or(usize::MAX);
    if announced > max {
        if !waits {
            discard(&mut body).await;
        }
        return Err(too_large);
    }
    // growing by doubling would hold up to twice as much; pages that were not sent take no memory
    let mut bytes = Vec::with_capacity(announced.min(ROOM_AT_ONCE));
    let mut permit = BytePermit::none();
    while let Some(frame) = poll_fn(|cx| std::pin::Pin::new(&mut body).poll_frame(cx)).await {
        let broken = |_| ApiError::Body("the body ended early".into());
        let Ok(data) = frame.map_err(broken)?.into_data() else { continue };
        if bytes.len() + data.len() > max {
            drop((bytes, permit));
            discard(&mut body).await;
            return Err(too_large);
        }
        bytes.extend_from_slice(&data);
        // a permit is rounded up: one for each of many small frames would charge far more than they hold
        let missing = bytes.len().saturating_sub(permit.bytes());
        if missing > 0 {
            permit.merge(app.bodies.try_acquire(missing).ok_or(ApiError::Overloaded)?);
        }
    }
    Ok((bytes, permit))
}

/// A JSON body, charged to the budget for as long as it is held.
pub(crate) struct JsonBody<T>(pub(crate) T, pub(crate) BytePermit);

impl<T: DeserializeOwned> FromRequest<Arc<App>> for JsonBody<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, app: &Arc<App>) -> Result<Self, ApiError> {
        let body = RawBody::from_request(request, app).await?;
        if body.media != Media::Json {
            return Err(ApiError::MediaType("this route takes application/json".into()));
        }
        Ok(Self(parse_json(&body.bytes)?, body.permit))
    }
}

/// Parses a JSON body, which is an object.
///
/// # Errors
/// `Body`, with the place of the mistake.
pub(crate) fn parse_json<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Result<T, ApiError> {
    let read = serde_json::from_slice::<Object<T>>(bytes);
    read.map(|Object(body)| body).map_err(|e| {
        let mut text = e.to_string();
        if text.len() > MAX_DETAIL {
            // it quotes the body
            let end = (0..=MAX_DETAIL).rev().find(|i| text.is_char_boundary(*i)).unwrap_or(0);
            text.truncate(end);
        }
        ApiError::Body(text)
    })
}

/// Longest quote of a request in an error.
const MAX_DETAIL: usize = 300;
