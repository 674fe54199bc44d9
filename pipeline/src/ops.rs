//! What an indexer shows over HTTP: health, metrics, and the state of each of its partitions. Nothing can be changed.

use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use metrics_exporter_prometheus::PrometheusHandle;
use serde_json::{Value, json};

use crate::index::Board;

struct Ops {
    board: Board,
    metrics: PrometheusHandle,
}

/// `/status` alone, for a process that has a query service too.
pub(crate) fn status_route(board: Board) -> Router {
    Router::new().route("/status", get(|| async move { Json(board.report()) }))
}

/// `/health/live`, `/health/ready`, `/metrics`, `/status`, for a process that only indexes.
pub(crate) fn router(board: Board, metrics: PrometheusHandle) -> Router {
    Router::new()
        .route("/health/live", get(|| async { Json(json!({"status": "live"})) }))
        .route("/health/ready", get(ready))
        .route("/metrics", get(render))
        .fallback(|| async { (StatusCode::NOT_FOUND, Json(not_found())) })
        .with_state(Arc::new(Ops { board: board.clone(), metrics }))
        .merge(status_route(board))
}

fn not_found() -> Value {
    json!({
        "title": "not found", "status": 404, "code": "route_not_found",
        "detail": "this is an indexer: it has /health/live, /health/ready, /metrics and /status; \
                   search is served by `sluice serve`",
    })
}

/// Ready once the group is joined and the indexes are listed. Partitions that need somebody are named, and do not
/// make the process unready: the others go on.
async fn ready(State(ops): State<Arc<Ops>>) -> (StatusCode, Json<Value>) {
    let report = ops.board.report();
    let parked: Vec<_> = report.parked().cloned().collect();
    let (code, status) =
        if report.ready { (StatusCode::OK, "ready") } else { (StatusCode::SERVICE_UNAVAILABLE, "starting") };
    let body = json!({
        "status": status, "partitions": report.states(), "parked": parked, "stopped_indexes": report.problems,
    });
    (code, Json(body))
}

async fn render(State(ops): State<Arc<Ops>>) -> Response {
    ([(CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], ops.metrics.render()).into_response()
}
