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
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::index::{Board, IndexerReport};

struct Ops {
    board: Board,
    metrics: PrometheusHandle,
}

/// Serves until `stop`, then lets the running answers end.
///
/// # Errors
/// When the listener fails.
pub(crate) async fn serve(
    listener: TcpListener,
    board: Board,
    metrics: PrometheusHandle,
    stop: CancellationToken,
) -> std::io::Result<()> {
    let router = router(board, metrics);
    axum::serve(listener, router).with_graceful_shutdown(async move { stop.cancelled().await }).await
}

/// `/health/live`, `/health/ready`, `/metrics`, `/status`.
pub(crate) fn router(board: Board, metrics: PrometheusHandle) -> Router {
    Router::new()
        .route("/health/live", get(|| async { Json(json!({"status": "live"})) }))
        .route("/health/ready", get(ready))
        .route("/metrics", get(render))
        .route("/status", get(status))
        .fallback(|| async { (StatusCode::NOT_FOUND, Json(not_found())) })
        .with_state(Arc::new(Ops { board, metrics }))
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

async fn status(State(ops): State<Arc<Ops>>) -> Json<IndexerReport> {
    Json(ops.board.report())
}
