//! `GET .../records` and `GET .../records/{id}`.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use axum::Json;
use axum::extract::State;
use serde::Deserialize;
use sluice_core::Key;
use tokio::time::Instant;

use super::App;
use super::answer::Answer;
use super::extract::{PathParams, QueryParams};
use super::round::{COMPONENT_BYTES, raw};
use crate::error::ApiError;
use crate::fan_out;
use crate::pins::Cursor;
use crate::types::{AnswerStatus, Include, ListResponse, ListedRecord, Problem, RecordResponse};
use crate::view::{RowId, View};

const DEFAULT_LIMIT: usize = 1000;

/// Which page of a listing.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct ListParams {
    /// Most records of the page; 1,000 unless given.
    limit: Option<usize>,
    /// The `cursor` of the page before.
    cursor: Option<String>,
    /// `vector` or `metadata`, or both with a comma; metadata is always there.
    include: Option<String>,
}

/// List every live record once, all from the view that the first page was taken from.
#[utoipa::path(
    get, path = "/v1/indexes/{index}/records", tag = "records",
    params(("index" = String, Path), ListParams),
    responses(
        (status = 200, description = "A page; `cursor` is null on the last", body = ListResponse),
        (status = 400, description = "The request breaks a rule", body = Problem),
        (status = 404, description = "No such index", body = Problem),
        (status = 410, description = "The cursor has expired; begin again", body = Problem),
        (status = 503, description = "Too many listings, or partitions missing", body = Problem),
        (status = 504, description = "The page missed the deadline", body = Problem),
    )
)]
pub(crate) async fn list(
    State(app): State<Arc<App>>,
    PathParams(index): PathParams<String>,
    QueryParams(params): QueryParams<ListParams>,
) -> Answer<ListResponse> {
    let index = app.index(&index)?;
    let (limit, max) = (params.limit.unwrap_or(DEFAULT_LIMIT), app.limits.max_list);
    if !(1..=max).contains(&limit) {
        return Err(ApiError::Invalid(format!("limit: {limit} is outside 1 to {max}")));
    }
    let vectors = includes_vector(params.include.as_deref())?;
    let cursor = params.cursor.as_deref().map(Cursor::decode).transpose()?;
    let (view, from) = match cursor {
        Some(cursor) => (app.pins.get(cursor.view, &index.info().name, Instant::now())?, cursor.next),
        None => (Arc::new(index.view()), RowId { partition: 0, segment: 0, row: 0 }),
    };
    complete(&view)?;
    let ticket = app.fan_out.admit().await?;
    let (of, max_bytes) = (Arc::clone(&view), app.limits.max_answer_bytes);
    let page = move |cancelled: &AtomicBool| page(&of, from, Page { limit, max_bytes, vectors }, cancelled);
    let (records, next) = app.fan_out.run(&ticket, page).await?;
    let cursor = match (next, cursor) {
        (Some(next), _) => Some(Cursor { view: app.pins.pin(&view, Instant::now())?, next }.encode()),
        (None, before) => {
            if let Some(before) = before {
                app.pins.finish(before.view, Instant::now());
            }
            None
        }
    };
    Ok(Json(ListResponse { records, cursor }))
}

fn includes_vector(include: Option<&str>) -> Result<bool, ApiError> {
    let mut vector = false;
    for name in include.unwrap_or("metadata").split(',') {
        match serde_json::from_value(name.into()) {
            Ok(Include::Vector) => vector = true,
            Ok(Include::Metadata) => {}
            Err(_) => return Err(ApiError::Invalid("include: allowed are metadata and vector".into())),
        }
    }
    Ok(vector)
}

/// How much a page may hold.
#[derive(Debug, Clone, Copy)]
struct Page {
    limit: usize,
    max_bytes: usize,
    vectors: bool,
}

/// Live rows from `from` on, and the row to go on at when there are more.
fn page(
    view: &View,
    from: RowId,
    page: Page,
    cancelled: &AtomicBool,
) -> Result<(Vec<ListedRecord>, Option<RowId>), ApiError> {
    let (mut records, mut bytes) = (Vec::new(), 0);
    for (looked, at) in view.live_rows(from).enumerate() {
        if looked % 256 == 0 && cancelled.load(Ordering::Relaxed) {
            return Err(ApiError::Deadline(Vec::new()));
        }
        if view.is_superseded(at) {
            continue;
        }
        if records.len() == page.limit || bytes > page.max_bytes {
            return Ok((records, Some(at)));
        }
        let row = view.row(at).ok_or(ApiError::Internal)?;
        bytes += row.key.len()
            + row.metadata.len()
            + if page.vectors { row.vector.len() * COMPONENT_BYTES } else { 0 };
        records.push(ListedRecord {
            id: row.key.to_owned(),
            partition: at.partition,
            offset: row.offset.get(),
            metadata: raw(row.metadata)?,
            vector: page.vectors.then(|| row.vector.to_vec()),
        });
    }
    Ok((records, None))
}

/// Get the live version of one record.
#[utoipa::path(
    get, path = "/v1/indexes/{index}/records/{id}", tag = "records",
    params(("index" = String, Path), ("id" = String, Path)),
    responses(
        (status = 200, description = "The live version", body = RecordResponse),
        (status = 404, description = "No such index, or no live record with this id", body = Problem),
        (status = 503, description = "Partitions missing that may hold it", body = Problem),
    )
)]
pub(crate) async fn get(
    State(app): State<Arc<App>>,
    PathParams((index, id)): PathParams<(String, String)>,
) -> Answer<RecordResponse> {
    let index = app.index(&index)?;
    let key = Key::new(&id)?;
    let view = Arc::new(index.view());
    let ticket = app.fan_out.admit().await?;
    let of = Arc::clone(&view);
    let found = move |_: &AtomicBool| {
        let Some((at, row)) = of.find(key.as_str()) else { return Err(absent(&of)) };
        Ok(RecordResponse {
            id: row.key.to_owned(),
            vector: row.vector.to_vec(),
            metadata: raw(row.metadata)?,
            partition: at.partition,
            offset: row.offset.get(),
        })
    };
    app.fan_out.run(&ticket, found).await.map(Json)
}

/// Why a key was not found: there is no such record, or a partition that may hold it is missing.
pub(super) fn absent(view: &View) -> ApiError {
    complete(view).err().unwrap_or_else(|| ApiError::RecordNotFound { index: view.index.name.to_string() })
}

/// # Errors
/// `Incomplete` when some partition has no snapshot.
fn complete(view: &View) -> Result<(), ApiError> {
    let status = |p: &Option<_>| if p.is_some() { AnswerStatus::Ok } else { AnswerStatus::Unavailable };
    let answers = view.partitions().iter().zip(0u32..).map(|(p, n)| fan_out::answer(view, n, status(p)));
    fan_out::require(&answers.collect::<Vec<_>>(), true)
}
