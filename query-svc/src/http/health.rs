//! Health, metrics, and the description of the API.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};

use super::App;
use crate::types::{LiveResponse, PartitionState, ReadyResponse, UnreadyPartition};

/// The process runs.
#[utoipa::path(
    get, path = "/health/live", tag = "service",
    responses((status = 200, description = "It runs", body = LiveResponse))
)]
pub(crate) async fn live() -> Json<LiveResponse> {
    Json(LiveResponse { status: "live".into() })
}

/// Every partition of every index has been loaded at least once; names those that are not up to date.
#[utoipa::path(
    get, path = "/health/ready", tag = "service",
    responses(
        (status = 200, description = "Ready; stale partitions are named", body = ReadyResponse),
        (status = 503, description = "Some partition has nothing to answer from yet", body = ReadyResponse),
    )
)]
pub(crate) async fn ready(State(app): State<Arc<App>>) -> (StatusCode, Json<ReadyResponse>) {
    let ready = app.catalogue.is_ready();
    let mut partitions = Vec::new();
    for (name, index) in app.catalogue.all().iter() {
        for slot in &index.slots {
            let status = slot.state();
            if status == PartitionState::Ok {
                continue;
            }
            let (partition, error) = (slot.partition.partition.get(), slot.trouble().map(|t| t.detail));
            partitions.push(UnreadyPartition { index: name.to_string(), partition, status, error });
        }
    }
    let (code, status) =
        if ready { (StatusCode::OK, "ready") } else { (StatusCode::SERVICE_UNAVAILABLE, "starting") };
    (code, Json(ReadyResponse { status: status.into(), partitions }))
}

/// Metrics in the text format of Prometheus.
#[utoipa::path(
    get, path = "/metrics", tag = "service",
    responses((status = 200, description = "Metrics", body = String, content_type = "text/plain"))
)]
pub(crate) async fn metrics(State(app): State<Arc<App>>) -> Response {
    ([(CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], app.metrics.render()).into_response()
}

/// This description.
#[utoipa::path(
    get, path = "/openapi.json", tag = "service",
    responses((status = 200, description = "OpenAPI 3.1", body = Object))
)]
pub(crate) async fn openapi() -> Response {
    ([(CONTENT_TYPE, "application/json")], super::DESCRIPTION.as_str()).into_response()
}
