//! `POST .../records` and `DELETE .../records/{id}`: writing through the log.
//!
//! A record is checked by the decoder that will read it, so that what is accepted here becomes no dead letter.
//! What the log acknowledged is durable; it is found once its offset is visible (`min_offsets`).

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use serde::Deserialize;
use serde_json::value::RawValue;
use sluice_connectors::decode::{self, ContentType};
use sluice_connectors::{DecodeLimits, Decoder, LogError, Outgoing, Placed, Reject, encode};
use sluice_core::{ErrorKind, Format, Key, Op, Record, TopicName};

use super::App;
use super::answer::Answer;
use super::extract::{Media, PathParams, RawBody, parse_json};
use crate::error::ApiError;
use crate::metrics;
use crate::types::{DeleteResponse, Problem, PublishRequest, PublishResponse, PublishResult, RecordError};
use crate::view::IndexInfo;

/// Records are split off first and read one by one, so that a bad one spoils no other.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Split<'a> {
    #[serde(borrow)]
    records: Vec<&'a RawValue>,
}

/// Publish records; each result says where the log has the record, or why it was refused.
///
/// As `application/x-protobuf` the body is a `sluice.v1.EmbeddingBatch`.
#[utoipa::path(
    post, path = "/v1/indexes/{index}/records", tag = "records",
    params(("index" = String, Path)), request_body = PublishRequest,
    responses(
        (status = 200, description = "One result per record, in their order", body = PublishResponse),
        (status = 400, description = "The body as a whole is refused; nothing was written", body = Problem),
        (status = 404, description = "No such index", body = Problem),
        (status = 413, description = "The body is too large", body = Problem),
        (status = 415, description = "Neither JSON nor protobuf", body = Problem),
        (status = 503, description = "The log cannot be reached; records may or may not have been written", body = Problem),
    )
)]
pub(crate) async fn publish(
    State(app): State<Arc<App>>,
    PathParams(index): PathParams<String>,
    body: RawBody,
) -> Answer<PublishResponse> {
    let info = app.index(&index)?.info();
    let log = app.log()?;
    let (content, values) = split(&body, app.limits.max_publish)?;
    let decoder = decoder(&app, &info);
    let mut results = Vec::with_capacity(values.len());
    let (mut messages, mut places) = (Vec::new(), Vec::new());
    for value in values {
        match outgoing(&app, &info, &decoder, content, value) {
            Ok((id, message)) => {
                places.push(results.len());
                messages.push(message);
                results.push(PublishResult { id, partition: None, offset: None, error: None });
            }
            Err(refused) => results.push(refused),
        }
    }
    // what waits for the log is the messages; the budget is charged for them in the body's place
    let RawBody { bytes, permit: _permit, .. } = body;
    drop(bytes);
    let written = produce(&app, log, &info.spec.topic(), messages).await?;
    if !written.is_empty() && written.iter().all(|w| matches!(w, Err(e) if is_outage(e))) {
        return Err(written.into_iter().find_map(Result::err).map_or(ApiError::Internal, ApiError::from));
    }
    for (place, written) in places.into_iter().zip(written) {
        match written {
            Ok(Placed { partition, offset }) => {
                (results[place].partition, results[place].offset) =
                    (Some(partition.get()), Some(offset.get()));
            }
            Err(error) => results[place].error = Some(record_error(&error)),
        }
    }
    let refused = results.iter().filter(|r| r.error.is_some()).count() as u64;
    metrics::published(&info.name, results.len() as u64 - refused, refused);
    Ok(Json(PublishResponse { results }))
}

/// Delete a record by writing a tombstone to the log.
#[utoipa::path(
    delete, path = "/v1/indexes/{index}/records/{id}", tag = "records",
    params(("index" = String, Path), ("id" = String, Path)),
    responses(
        (status = 200, description = "Where the tombstone stands; also for a record that does not exist", body = DeleteResponse),
        (status = 400, description = "The id cannot be a key", body = Problem),
        (status = 404, description = "No such index", body = Problem),
        (status = 503, description = "The log cannot be reached", body = Problem),
    )
)]
pub(crate) async fn delete(
    State(app): State<Arc<App>>,
    PathParams((index, id)): PathParams<(String, String)>,
) -> Answer<DeleteResponse> {
    let info = app.index(&index)?.info();
    let key = Key::new(&id)?;
    let written = produce(&app, app.log()?, &info.spec.topic(), vec![encode::delete(&key)]).await?;
    let Placed { partition, offset } = written.into_iter().next().ok_or(ApiError::Internal)??;
    metrics::published(&info.name, 1, 0);
    Ok(Json(DeleteResponse { id, partition: partition.get(), offset: offset.get() }))
}

fn decoder(app: &App, info: &IndexInfo) -> Decoder {
    let limits = DecodeLimits {
        max_message_bytes: app.limits.max_message_bytes,
        max_metadata_bytes: app.limits.max_metadata_bytes,
    };
    Decoder { format: info.spec.format, schema: Arc::clone(&info.schema), limits }
}

fn split(body: &RawBody, max: usize) -> Result<(ContentType, Vec<&[u8]>), ApiError> {
    let (content, values) = match body.media {
        Media::Json => {
            let split: Split<'_> = parse_json(&body.bytes)?;
            (ContentType::Json, split.records.into_iter().map(|r| r.get().as_bytes()).collect::<Vec<_>>())
        }
        Media::Protobuf => {
            let values = decode::split_batch(&body.bytes, max).map_err(|e| ApiError::Body(e.to_string()))?;
            (ContentType::Protobuf, values)
        }
    };
    if !(1..=max).contains(&values.len()) {
        return Err(ApiError::Invalid(format!("records: {} is outside 1 to {max}", values.len())));
    }
    Ok((content, values))
}

/// The message for one record, or its refusal.
fn outgoing(
    app: &App,
    info: &IndexInfo,
    decoder: &Decoder,
    content: ContentType,
    value: &[u8],
) -> Result<(String, Outgoing), PublishResult> {
    let refuse = |id: String, code: &str, detail: String| {
        let error = Some(RecordError { code: code.into(), detail });
        PublishResult { id, partition: None, offset: None, error }
    };
    let record = decoder
        .decode_identified(content, value)
        .map_err(|Reject { code, detail }| refuse(claimed_id(content, value), code.as_str(), detail))?;
    let Record { key, op: Op::Upsert(document), .. } = record else {
        let detail = "a record without a vector; delete it by DELETE".into();
        return Err(refuse(record.key.as_str().into(), "vector_missing", detail));
    };
    let vector = document.vector.as_slice();
    let message = match info.spec.format {
        Format::Json => encode::upsert_json(&key, vector, &document.metadata),
        Format::Auto | Format::Protobuf | Format::Debezium => {
            encode::upsert(&key, vector, &document.metadata)
        }
    };
    let bytes = message.value.as_ref().map_or(0, Vec::len);
    let max = app.limits.max_message_bytes;
    if bytes > max {
        let detail = format!("the record has {bytes} bytes when encoded, at most {max} are allowed");
        return Err(refuse(key.as_str().into(), "too_large", detail));
    }
    Ok((key.as_str().into(), message))
}

/// The id that a refused record gives itself; empty where that cannot be read.
fn claimed_id(content: ContentType, value: &[u8]) -> String {
    #[derive(Deserialize)]
    struct Claimed {
        id: String,
    }
    let id = match content {
        ContentType::Json => serde_json::from_slice::<Claimed>(value).map(|c| c.id).unwrap_or_default(),
        ContentType::Protobuf => claimed_protobuf_id(value),
    };
    id.chars().take(sluice_core::ids::MAX_KEY_BYTES).collect()
}

fn claimed_protobuf_id(value: &[u8]) -> String {
    use prost::Message as _;
    let record = sluice_connectors::proto::EmbeddingRecord::decode(value);
    record.ok().and_then(|r| r.id).unwrap_or_default()
}

/// Writes `messages` and waits for the log's word on each.
async fn produce(
    app: &App,
    log: &sluice_connectors::Log,
    topic: &TopicName,
    messages: Vec<Outgoing>,
) -> Result<Vec<Result<Placed, LogError>>, ApiError> {
    if messages.is_empty() {
        return Ok(Vec::new());
    }
    let limit = app.limits.publish_timeout;
    let written = tokio::time::timeout(limit, log.producer.produce(topic, messages)).await;
    written.map_err(|_| ApiError::LogUnavailable(format!("no acknowledgement within {limit:?}")))
}

fn is_outage(error: &LogError) -> bool {
    !matches!(error.kind(), ErrorKind::Invalid)
}

fn record_error(error: &LogError) -> RecordError {
    let code = match error {
        LogError::TooLarge { .. } => "too_large",
        LogError::Refused(_) | LogError::Config { .. } => "log_refused",
        _ => "log_unavailable",
    };
    RecordError { code: code.into(), detail: error.to_string() }
}
