//! `POST .../count`.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;

use super::App;
use super::answer::Answer;
use super::extract::{JsonBody, PathParams};
use super::query;
use crate::fan_out;
use crate::search as scan;
use crate::types::{CountRequest, CountResponse, Problem};

/// Count the live records that match, exactly: without some partition there is no answer.
#[utoipa::path(
    post, path = "/v1/indexes/{index}/count", tag = "search",
    params(("index" = String, Path)), request_body = CountRequest,
    responses(
        (status = 200, description = "An exact count", body = CountResponse),
        (status = 400, description = "The request breaks a rule", body = Problem),
        (status = 404, description = "No such index", body = Problem),
        (status = 412, description = "`min_offsets` not visible in time", body = Problem),
        (status = 503, description = "Too many queries, or partitions missing", body = Problem),
        (status = 504, description = "Partitions missed the deadline", body = Problem),
    )
)]
pub(crate) async fn count(
    State(app): State<Arc<App>>,
    PathParams(index): PathParams<String>,
    JsonBody(request, _held): JsonBody<CountRequest>,
) -> Answer<CountResponse> {
    let index = app.index(&index)?;
    let filter = query::filter(&index.info(), request.filter.as_ref())?;
    let view = query::view(&app, &index, request.consistency.as_ref()).await?;
    let ticket = app.fan_out.admit().await?;
    let parts = app.fan_out.each_partition(&ticket, &view, move |view, partition, cancelled| {
        scan::count(view, partition, filter.as_ref(), cancelled)
    });
    let (counts, answers) = fan_out::collect(&view, parts.await);
    fan_out::require(&answers, true)?;
    Ok(Json(CountResponse { count: counts.into_iter().sum() }))
}
