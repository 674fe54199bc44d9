//! `PUT`, `DELETE` and `GET` of indexes.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde_json::{Map, Value};
use sluice_core::{Generation, IndexName, IndexSpec, Metadata};
use sluice_snapshotter::{Created, StoredSpec};
use tokio::time::Instant;
use tracing::info;

use super::answer::Answer;
use super::extract::{Media, PathParams, RawBody};
use super::{App, status};
use crate::error::ApiError;
use crate::types::{IndexList, IndexResponse, IndexStatus, Problem, RetiredResponse};

/// Most bytes of a spec.
const MAX_SPEC_BYTES: usize = 64 << 10;
/// How long an answer waits until this process serves what it stored. Others follow at their next look.
const SERVED_WITHIN: Duration = Duration::from_secs(5);

/// Every index and how it is served.
#[utoipa::path(
    get, path = "/v1/indexes", tag = "indexes",
    responses(
        (status = 200, description = "Every index, by name", body = IndexList),
        (status = 503, description = "Which indexes there are is not known yet", body = Problem),
    )
)]
pub(crate) async fn list(State(app): State<Arc<App>>) -> Answer<IndexList> {
    if !app.catalogue.is_listed() {
        return Err(ApiError::Starting);
    }
    let indexes: Vec<_> = app.catalogue.all().values().cloned().collect();
    Ok(Json(IndexList { indexes: status::of(&app, &indexes).await }))
}

/// One index and how it is served.
#[utoipa::path(
    get, path = "/v1/indexes/{index}", tag = "indexes", params(("index" = String, Path)),
    responses(
        (status = 200, description = "Spec and status", body = IndexStatus),
        (status = 404, description = "No such index", body = Problem),
    )
)]
pub(crate) async fn get(
    State(app): State<Arc<App>>,
    PathParams(index): PathParams<String>,
) -> Answer<IndexStatus> {
    let index = app.index(&index)?;
    status::of(&app, &[index]).await.pop().map(Json).ok_or(ApiError::Internal)
}

/// Create an index; the body is its spec, `name` may be left out.
///
/// A spec that differs from the stored one only in what may change in place becomes a new version of it. The number
/// of partitions is that of the topic; `partitions` counts when the topic has to be created.
#[utoipa::path(
    put, path = "/v1/indexes/{index}", tag = "indexes", params(("index" = String, Path)),
    request_body(content = Object, description = "name, topic, partitions, format, dimension, metric, vector_type, quantization, fields, graph, seal, merge"),
    responses(
        (status = 201, description = "Created", body = IndexResponse),
        (status = 200, description = "The same was there already, or changed in place", body = IndexResponse),
        (status = 400, description = "Not a valid spec", body = Problem),
        (status = 409, description = "Another spec is there, `differences` says where; or the topic feeds another index", body = Problem),
        (status = 503, description = "Store or log cannot be reached", body = Problem),
    )
)]
pub(crate) async fn put(
    State(app): State<Arc<App>>,
    PathParams(index): PathParams<String>,
    body: RawBody,
) -> Result<(StatusCode, Json<IndexResponse>), ApiError> {
    let name = IndexName::new(&index)?;
    if body.media != Media::Json {
        return Err(ApiError::MediaType("this route takes application/json".into()));
    }
    let mut spec = parse_spec(&name, &body.bytes)?;
    // the log decided the number of partitions when the index was created; a later wish changes nothing
    match app.registry.get(&name).await? {
        Some(stored) => spec.partitions = stored.spec.partitions,
        None => spec.partitions = app.log()?.producer.ensure_topic(&spec.topic(), spec.partitions).await?,
    }
    spec.validate()?;
    let (status, stored) = match app.registry.create(&spec).await? {
        Created::Created(stored) => (StatusCode::CREATED, stored),
        Created::Same(stored) => (StatusCode::OK, stored),
        Created::Differs { differences, .. } if differences.iter().all(|d| d.in_place) => {
            let stored = app.registry.update(&spec).await?;
            app.catalogue.refresh(&stored.spec, stored.generation);
            (StatusCode::OK, stored)
        }
        Created::Differs { differences, .. } => return Err(ApiError::SpecDiffers(differences)),
    };
    info!(index = %name, generation = stored.generation.get(), version = stored.version, "index stored");
    served(&app, &name, Some(stored.generation)).await;
    let StoredSpec { generation, spec, .. } = stored;
    Ok((status, Json(IndexResponse { name: index, generation: generation.get(), spec })))
}

/// Retire an index: it is no longer consumed or served; its objects go with the next garbage collection.
#[utoipa::path(
    delete, path = "/v1/indexes/{index}", tag = "indexes", params(("index" = String, Path)),
    responses(
        (status = 200, description = "Retired", body = RetiredResponse),
        (status = 404, description = "No such index", body = Problem),
        (status = 503, description = "The store cannot be reached", body = Problem),
    )
)]
pub(crate) async fn retire(
    State(app): State<Arc<App>>,
    PathParams(index): PathParams<String>,
) -> Answer<RetiredResponse> {
    let unknown = || ApiError::IndexNotFound(index.chars().take(80).collect());
    let name = IndexName::new(&index).map_err(|_| unknown())?;
    let retired = app.registry.retire(&name).await?.ok_or_else(unknown)?;
    info!(index = %name, generation = retired.generation.get(), "index retired by request");
    app.catalogue.remove(&name, retired.generation);
    served(&app, &name, None).await;
    Ok(Json(RetiredResponse { name: index, retired: true }))
}

/// Reads a spec; refuses unknown and repeated fields.
fn parse_spec(name: &IndexName, body: &[u8]) -> Result<IndexSpec, ApiError> {
    let refuse =
        |text: String| ApiError::SpecBody(text.replace("metadata", "it").chars().take(300).collect());
    let text = std::str::from_utf8(body).map_err(|_| ApiError::Body("it is not UTF-8".into()))?;
    let strict = Metadata::parse(text, MAX_SPEC_BYTES)
        .map_err(|e| ApiError::Body(e.to_string().replace("metadata", "it")))?;
    let mut fields: Map<String, Value> =
        serde_json::from_str(strict.as_str()).map_err(|e| refuse(e.to_string()))?;
    let given = fields.entry("name").or_insert_with(|| name.as_str().into());
    if given.as_str() != Some(name.as_str()) {
        return Err(refuse(format!("name: {given} is not the name in the path, {name}")));
    }
    // sections are objects; a derived reader would take their values from an array too, by their places
    if let Some((key, _)) = fields.iter().find(|(_, value)| value.is_array()) {
        return Err(refuse(format!("{key}: an array stands there")));
    }
    let spec: IndexSpec = serde_json::from_value(fields.into()).map_err(|e| refuse(e.to_string()))?;
    spec.validate()?;
    if spec.topic().as_str().ends_with(".dead-letter") {
        return Err(refuse(
            "topic: names that end in .dead-letter are those of dead letters; take another".into(),
        ));
    }
    Ok(spec)
}

/// Waits, for a while, until the catalogue has the index in this generation, or no more.
async fn served(app: &App, name: &IndexName, generation: Option<Generation>) {
    app.catalogue.rediscover();
    let until = Instant::now() + SERVED_WITHIN;
    let mut changes = app.catalogue.changes();
    loop {
        changes.mark_unchanged();
        if app.catalogue.get(name).map(|i| i.info().generation) == generation {
            return;
        }
        match tokio::time::timeout_at(until, changes.changed()).await {
            Ok(Ok(())) => {}
            _ => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(body: &str) -> Result<IndexSpec, ApiError> {
        parse_spec(&IndexName::new("a").unwrap(), body.as_bytes())
    }

    #[test]
    fn the_name_may_be_left_out_but_not_differ() {
        assert_eq!(parse(r#"{"dimension":2}"#).unwrap().name.as_str(), "a");
        assert!(parse(r#"{"name":"a","dimension":2}"#).is_ok());
        assert!(parse(r#"{"name":"b","dimension":2}"#).unwrap_err().to_string().contains("\"b\""));
    }

    #[test]
    fn unknown_repeated_and_bad_keys_are_refused_by_name() {
        for (body, named) in [
            (r#"{"dimension":2,"dimensions":3}"#, "dimensions"),
            (r#"{"dimension":2,"dimension":3}"#, "dimension"),
            (r#"{"dimension":2,"graph":{"m":1}}"#, "graph.m"),
            (r#"{"dimension":2,"metric":"cos"}"#, "cosine"),
            (r#"{"dimension":1}"#, "2 to 4096"),
            (r#"{"dimension":2,"topic":"b.dead-letter"}"#, "topic"),
            (r#"{"dimension":2,"seal":[10,"1MiB","1s"]}"#, "seal"),
            (r#"["a",null,4,"auto",2]"#, "object"),
            (r#"{}"#, "dimension"),
        ] {
            let error = parse(body).unwrap_err().to_string();
            assert!(error.contains(named), "{body}: {error}");
        }
    }
}
