//! Searches of one request on one view: rounds of a fan-out, with more candidates for those that have too few hits,
//! until each has its k or there are no more (QRY-3).

use std::collections::VecDeque;
use std::mem::take;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use rayon::prelude::*;
use serde_json::value::RawValue;
use tokio::time::Instant;

use super::App;
use super::query::Included;
use crate::error::ApiError;
use crate::fan_out::{self, Ticket};
use crate::metrics;
use crate::search::{self as scan, Ask, Search};
use crate::top_k::{self, Candidate, Settled, Verdict};
use crate::types::{AnswerStatus, Hit, PartitionAnswer, SearchResponse};
use crate::view::View;

/// One search and what its answer is to look like.
#[derive(Debug)]
pub(super) struct Task {
    pub(super) search: Arc<Search>,
    pub(super) include: Included,
    pub(super) require_complete: bool,
}

/// Candidates of a segment that the searches of one round may ask for together; a single search may ask for more.
const ROUND: usize = 1 << 16;

/// Answers `tasks`, in their order. Those of one round search each segment together.
pub(super) async fn answer(
    app: &App,
    ticket: &Ticket,
    view: &Arc<View>,
    tasks: Vec<Task>,
) -> Result<Vec<SearchResponse>, ApiError> {
    let begun = Instant::now();
    let tasks: Arc<[Task]> = tasks.into();
    let room = Arc::new(Room::new(app.limits.max_answer_bytes));
    let mut answers: Vec<Option<SearchResponse>> = tasks.iter().map(|_| None).collect();
    // tasks by place, and how many candidates they want
    let mut open: VecDeque<(usize, usize)> = tasks
        .iter()
        .map(|Task { search, .. }| search.k + usize::from(search.skip.is_some()))
        .enumerate()
        .collect();
    while !open.is_empty() {
        let group = next_round(&mut open);
        let (settled, partitions) = round(app, ticket, view, &tasks, &room, &group).await?;
        for ((place, want), settled) in group.into_iter().zip(settled) {
            let Some((superseded, hits)) = settled else {
                open.push_back((place, want.saturating_mul(2)));
                continue;
            };
            metrics::key_conflicts(&view.index.name, superseded);
            if partitions.iter().any(|p| p.status != AnswerStatus::Ok) {
                metrics::partial_answer(&view.index.name);
            }
            let took_ms = (begun.elapsed().as_secs_f64() * 1e6).round() / 1e3;
            answers[place] = Some(SearchResponse { hits, partitions: partitions.clone(), took_ms });
        }
    }
    answers.into_iter().collect::<Option<_>>().ok_or(ApiError::Internal)
}

/// Takes the tasks of the next round: at least one, and no more than are to ask together.
fn next_round(open: &mut VecDeque<(usize, usize)>) -> Vec<(usize, usize)> {
    let mut group = Vec::new();
    let mut asked = 0usize;
    while let Some((place, want)) = open.pop_front_if(|(_, want)| asked == 0 || asked + *want <= ROUND) {
        asked = asked.saturating_add(want.max(1));
        group.push((place, want));
    }
    group
}

/// The hits of a search and how many were dropped for newer ones; none when it needs more candidates.
type Outcome = Option<(u64, Vec<Hit>)>;

/// Searches, merges and renders for the tasks of `group`.
async fn round(
    app: &App,
    ticket: &Ticket,
    view: &Arc<View>,
    tasks: &Arc<[Task]>,
    room: &Arc<Room>,
    group: &[(usize, usize)],
) -> Result<(Vec<Outcome>, Vec<PartitionAnswer>), ApiError> {
    let begun = Instant::now();
    let ask = |(place, want): &(usize, usize)| Ask { search: Arc::clone(&tasks[*place].search), want: *want };
    let asks: Vec<Ask> = group.iter().map(ask).collect();
    let parts = app.fan_out.each_partition(ticket, view, move |view, partition, cancelled| {
        scan::partition(view, partition, &asks, cancelled)
    });
    let (mut lists, answers) = fan_out::collect(view, parts.await);
    // nothing is rendered for an answer that is refused in the end
    fan_out::require(&answers, group.iter().any(|(place, _)| tasks[*place].require_complete))?;
    metrics::stage("search", begun.elapsed());

    let begun = Instant::now();
    let (of, tasks, room, group) = (Arc::clone(view), Arc::clone(tasks), Arc::clone(room), group.to_vec());
    let settle = move |cancelled: &AtomicBool| {
        let lists_of = |at: usize| lists.iter_mut().filter_map(|lists| lists.get_mut(at)).map(take).collect();
        let lists: Vec<Vec<Vec<Candidate>>> = (0..group.len()).map(lists_of).collect();
        let one = |((place, want), lists): (&(usize, usize), Vec<Vec<Candidate>>)| {
            if cancelled.load(Ordering::Relaxed) {
                return Err(ApiError::Deadline(Vec::new()));
            }
            let Task { search, include, .. } = &tasks[*place];
            let settled = settle(&of, search, lists, *want);
            match settled.short {
                true => Ok(None),
                false => Ok(Some((settled.superseded, render(&of, &settled.hits, *include, &room)?))),
            }
        };
        match lists.len() {
            // handing a single one to another thread costs more than it gives
            1 => group.iter().zip(lists).map(one).collect::<Result<Vec<Outcome>, ApiError>>(),
            _ => group.par_iter().zip(lists).map(one).collect(),
        }
    };
    let outcomes = app.fan_out.run(ticket, settle).await?;
    metrics::stage("settle", begun.elapsed());
    Ok((outcomes, answers))
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
