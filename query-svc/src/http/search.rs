//! `POST .../search` and `.../search/batch`.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use axum::Json;
use axum::extract::State;
use futures::stream::{self, StreamExt, TryStreamExt};
use serde_json::value::RawValue;
use sluice_core::Vector;
use tokio::time::Instant;

use super::App;
use super::answer::Answer;
use super::extract::{JsonBody, PathParams};
use super::query::{self, Included, Plan, Target};
use crate::error::ApiError;
use crate::fan_out::{self, Ticket};
use crate::metrics;
use crate::search::{self as scan, Search};
use crate::top_k::{self, Candidate, Settled, Verdict};
use crate::types::{
    AnswerStatus, BatchRequest, BatchResponse, Hit, PartitionAnswer, Problem, SearchRequest, SearchResponse,
};
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
    let room = Arc::new(Room::new(app.limits.max_answer_bytes));
    execute(&app, &ticket, &view, plan, &room).await.map(Json)
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
    let plan = |search| query::plan(&app, &info, search);
    let plans = request.searches.into_iter().map(plan).collect::<Result<Vec<_>, _>>()?;
    let view = query::view(&app, &index, consistency.as_ref()).await?;
    let ticket = app.fan_out.admit().await?;
    let room = Arc::new(Room::new(app.limits.max_answer_bytes));
    let results = stream::iter(plans)
        .map(|plan| execute(&app, &ticket, &view, plan, &room))
        .buffered(app.fan_out.threads())
        .try_collect()
        .await?;
    Ok(Json(BatchResponse { results }))
}

/// Runs one search on one view.
async fn execute(
    app: &App,
    ticket: &Ticket,
    view: &Arc<View>,
    plan: Plan,
    room: &Arc<Room>,
) -> Result<SearchResponse, ApiError> {
    let begun = Instant::now();
    let (vector, skip) = match plan.target {
        Target::Vector(vector) => (vector, None),
        Target::Record(key) => {
            let key: Box<str> = key.as_str().into();
            (vector_of(app, ticket, view, key.clone()).await?, Some(key))
        }
    };
    let (k, ef, exact, filter, bound) = (plan.k, plan.ef, plan.exact, plan.filter, plan.bound);
    let search = Arc::new(Search { vector, k, ef, exact, filter, bound, skip });
    let shape =
        Shape { include: plan.include, require_complete: plan.require_complete, room: Arc::clone(room) };
    let (hits, partitions) = gather(app, ticket, view, &search, &shape).await?;
    if partitions.iter().any(|p| p.status != AnswerStatus::Ok) {
        metrics::partial_answer(&view.index.name);
    }
    let took_ms = (begun.elapsed().as_secs_f64() * 1e6).round() / 1e3;
    Ok(SearchResponse { hits, partitions, took_ms })
}

/// What an answer is to look like.
struct Shape {
    include: Included,
    require_complete: bool,
    room: Arc<Room>,
}

/// Bytes that the hits of one request may still take.
struct Room {
    left: AtomicUsize,
    max: usize,
}

impl Room {
    fn new(max: usize) -> Self {
        Self { left: AtomicUsize::new(max), max }
    }

    /// # Errors
    /// `AnswerTooLarge` when so much is not left.
    fn take(&self, bytes: usize) -> Result<(), ApiError> {
        let taken =
            self.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(bytes));
        taken.map(drop).map_err(|_| ApiError::AnswerTooLarge { max: self.max })
    }
}

/// Searches with a growing number of candidates until k hits survive or there are no more (QRY-3).
async fn gather(
    app: &App,
    ticket: &Ticket,
    view: &Arc<View>,
    search: &Arc<Search>,
    shape: &Shape,
) -> Result<(Vec<Hit>, Vec<PartitionAnswer>), ApiError> {
    let mut want = search.k + usize::from(search.skip.is_some());
    loop {
        let begun = Instant::now();
        let job = Arc::clone(search);
        let parts = app.fan_out.each_partition(ticket, view, move |view, partition, cancelled| {
            scan::partition(view, partition, &job, want, cancelled)
        });
        let (lists, answers) = fan_out::collect(view, parts.await);
        let answers = fan_out::require(answers, shape.require_complete)?;
        metrics::stage("search", begun.elapsed());

        let begun = Instant::now();
        let (job, of, include, room) =
            (Arc::clone(search), Arc::clone(view), shape.include, Arc::clone(&shape.room));
        let settle = move |_: &AtomicBool| {
            let settled = settle(&of, &job, lists, want);
            let hits = if settled.short { Vec::new() } else { render(&of, &settled.hits, include, &room)? };
            Ok((settled, hits))
        };
        let (settled, hits) = app.fan_out.run(ticket, settle).await?;
        metrics::stage("settle", begun.elapsed());
        if !settled.short {
            metrics::key_conflicts(&view.index.name, settled.superseded);
            return Ok((hits, answers));
        }
        want = want.saturating_mul(2);
    }
}

fn settle(view: &View, search: &Search, lists: Vec<Vec<Candidate>>, want: usize) -> Settled {
    let merged = top_k::merge(lists, view.index.schema.metric.larger_is_better(), want);
    top_k::settle(&merged, search.k, want, |candidate| {
        let skipped = |skip: &str| view.row(candidate.at).is_none_or(|row| row.key == skip);
        if search.skip.as_deref().is_some_and(skipped) {
            Verdict::Skip
        } else if view.is_superseded(candidate.at) {
            Verdict::Superseded
        } else {
            Verdict::Keep
        }
    })
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

/// Turns rows into hits.
fn render(view: &View, hits: &[Candidate], include: Included, room: &Room) -> Result<Vec<Hit>, ApiError> {
    let render = |candidate: &Candidate| {
        let row = view.row(candidate.at).ok_or(ApiError::Internal)?;
        let metadata = if include.metadata { row.metadata.len() } else { 0 };
        let vector = if include.vector { row.vector.len() * COMPONENT_BYTES } else { 0 };
        room.take(HIT_BYTES + row.key.len() + metadata + vector)?;
        Ok(Hit {
            id: row.key.to_owned(),
            score: candidate.score,
            metadata: include.metadata.then(|| raw(row.metadata)).transpose()?,
            vector: include.vector.then(|| row.vector.to_vec()),
        })
    };
    hits.iter().map(render).collect()
}

/// A component of a vector in JSON, about.
pub(super) const COMPONENT_BYTES: usize = 12;
/// A hit's own fields in JSON, about.
const HIT_BYTES: usize = 48;

/// Metadata as it stands in an answer. It was checked when it was decoded.
pub(super) fn raw(metadata: &str) -> Result<Box<RawValue>, ApiError> {
    RawValue::from_string(metadata.to_owned()).map_err(|_| ApiError::Internal)
}
