//! `POST .../search` and `.../search/batch`.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use futures::stream::{self, StreamExt, TryStreamExt};
use sluice_core::Vector;

use super::App;
use super::answer::Answer;
use super::extract::{JsonBody, PathParams};
use super::query::{self, Plan, Target};
use super::round::{self, Task};
use crate::error::ApiError;
use crate::fan_out::Ticket;
use crate::search::Search;
use crate::types::{BatchRequest, BatchResponse, Problem, SearchRequest, SearchResponse};
use crate::view::View;

/// Find the records nearest to a vector, or to a record (which is left out of its own answer).
#[utoipa::path(
    post, path = "/v1/indexes/{index}/search", tag = "search",
    params(("index" = String, Path)), request_body = SearchRequest,
    responses(
        (status = 200, description = "Hits, best first", body = SearchResponse),
        (status = 400, description = "The request breaks a rule", body = Problem),
        (status = 404, description = "No such index, or no record with this id", body = Problem),
        (status = 412, description = "`min_offsets` not visible in time", body = Problem),
        (status = 503, description = "Too many queries, or partitions missing", body = Problem),
        (status = 504, description = "Partitions missed the deadline", body = Problem),
    )
)]
pub(crate) async fn search(
    State(app): State<Arc<App>>,
    PathParams(index): PathParams<String>,
    JsonBody(mut request, _held): JsonBody<SearchRequest>,
) -> Answer<SearchResponse> {
    let index = app.index(&index)?;
    let consistency = request.consistency.take();
    let plan = query::plan(&app, &index.info(), request)?;
    // those who wait for an offset hold no place
    let view = query::view(&app, &index, consistency.as_ref()).await?;
    let ticket = app.fan_out.admit().await?;
    let task = task(&app, &ticket, &view, plan).await?;
    let mut answers = round::answer(&app, &ticket, &view, vec![task]).await?;
    answers.pop().map(Json).ok_or(ApiError::Internal)
}

/// Answer several searches from one view.
#[utoipa::path(
    post, path = "/v1/indexes/{index}/search/batch", tag = "search",
    params(("index" = String, Path)), request_body = BatchRequest,
    responses(
        (status = 200, description = "One answer per search, in their order", body = BatchResponse),
        (status = 400, description = "A search breaks a rule; none was run", body = Problem),
        (status = 404, description = "No such index, or no record with one of the ids", body = Problem),
        (status = 412, description = "`min_offsets` not visible in time", body = Problem),
        (status = 503, description = "Too many queries, or partitions missing", body = Problem),
        (status = 504, description = "Partitions missed the deadline", body = Problem),
    )
)]
pub(crate) async fn batch(
    State(app): State<Arc<App>>,
    PathParams(index): PathParams<String>,
    JsonBody(request, _held): JsonBody<BatchRequest>,
) -> Answer<BatchResponse> {
    let index = app.index(&index)?;
    let max = app.limits.max_batch;
    if !(1..=max).contains(&request.searches.len()) {
        let text = format!("searches: {} is outside 1 to {max}", request.searches.len());
        return Err(ApiError::Invalid(text));
    }
    let consistency = query::strictest(request.searches.iter().filter_map(|s| s.consistency.as_ref()));
    let info = index.info();
    let plan = |(at, search)| query::plan(&app, &info, search).map_err(|error| error.of_batch(at));
    let plans = request.searches.into_iter().enumerate().map(plan).collect::<Result<Vec<_>, _>>()?;
    let view = query::view(&app, &index, consistency.as_ref()).await?;
    let ticket = app.fan_out.admit().await?;
    let tasks = stream::iter(plans)
        .enumerate()
        .map(async |(at, plan)| task(&app, &ticket, &view, plan).await.map_err(|e| e.of_batch(at)))
        .buffered(app.fan_out.threads())
        .try_collect()
        .await?;
    let results = round::answer(&app, &ticket, &view, tasks).await?;
    Ok(Json(BatchResponse { results }))
}

/// Finds the vector of a search that names a record.
async fn task(app: &App, ticket: &Ticket, view: &Arc<View>, plan: Plan) -> Result<Task, ApiError> {
    let (vector, skip) = match plan.target {
        Target::Vector(vector) => (vector, None),
        Target::Record(key) => {
            let key: Box<str> = key.as_str().into();
            (vector_of(app, ticket, view, key.clone()).await?, Some(key))
        }
    };
    let (k, ef, exact, filter, bound) = (plan.k, plan.ef, plan.exact, plan.filter, plan.bound);
    let search = Arc::new(Search { vector, k, ef, exact, filter, bound, skip });
    Ok(Task { search, include: plan.include, require_complete: plan.require_complete })
}

/// The vector of the live version of `key`.
async fn vector_of(app: &App, ticket: &Ticket, view: &Arc<View>, key: Box<str>) -> Result<Vector, ApiError> {
    let of = Arc::clone(view);
    let found =
        app.fan_out.run(ticket, move |_| Ok(of.find(&key).map(|(_, row)| row.vector.to_vec()))).await?;
    let schema = &view.index.schema;
    match found {
        Some(vector) => Vector::try_new(vector, schema.dimension, schema.metric).map_err(ApiError::from),
        None => Err(super::records::absent(view)),
    }
}
