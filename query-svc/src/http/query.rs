//! From a request to a plan: every rule that a search must keep, and the view it is answered from.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use sluice_core::{Key, Metric, Vector};
use sluice_segment::Filter;
use tokio::time::{Instant, timeout_at};

use super::App;
use crate::catalogue::Index;
use crate::error::ApiError;
use crate::types::{Consistency, Include, SearchRequest};
use crate::view::{IndexInfo, View};

/// What a search asks for, validated.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) target: Target,
    pub(crate) k: usize,
    pub(crate) ef: usize,
    pub(crate) exact: bool,
    pub(crate) filter: Option<Filter>,
    pub(crate) bound: Option<f32>,
    pub(crate) include: Included,
    pub(crate) require_complete: bool,
}

/// What hits are compared with.
#[derive(Debug)]
pub(crate) enum Target {
    Vector(Vector),
    /// The vector of this record, which is left out of the hits.
    Record(Key),
}

/// What of a record is returned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Included {
    pub(crate) metadata: bool,
    pub(crate) vector: bool,
}

impl Included {
    fn new(asked: Option<&[Include]>) -> Self {
        let Some(asked) = asked else { return Self { metadata: true, vector: false } };
        Self { metadata: asked.contains(&Include::Metadata), vector: asked.contains(&Include::Vector) }
    }
}

fn within(name: &str, value: usize, max: usize) -> Result<usize, ApiError> {
    if (1..=max).contains(&value) {
        Ok(value)
    } else {
        Err(ApiError::Invalid(format!("{name}: {value} is outside 1 to {max}")))
    }
}

/// Candidates that a search for `k` hits keeps unless it says how many: with half as many again as hits, recall at
/// 100 is what it is at 10 with what an index keeps by default.
fn default_ef(of_index: usize, k: usize) -> usize {
    of_index.max(k.saturating_add(k / 2))
}

/// Validates `request` against the index and the limits.
pub(crate) fn plan(app: &App, info: &IndexInfo, request: SearchRequest) -> Result<Plan, ApiError> {
    let k = within("k", request.k, app.limits.max_k)?;
    let ef = match request.ef {
        Some(ef) => within("ef", ef, app.limits.max_ef)?,
        None => default_ef(info.spec.graph.ef as usize, k).min(app.limits.max_ef),
    };
    let target = match (request.vector, request.id) {
        (Some(vector), None) => {
            Target::Vector(Vector::try_new(vector, info.schema.dimension, info.schema.metric)?)
        }
        (None, Some(id)) => Target::Record(Key::new(&id)?),
        _ => return Err(ApiError::Invalid("give exactly one of vector and id".into())),
    };
    Ok(Plan {
        target,
        k,
        ef,
        exact: request.exact,
        filter: filter(info, request.filter.as_ref())?,
        bound: bound(info.schema.metric, request.min_score, request.max_distance)?,
        include: Included::new(request.include.as_deref()),
        require_complete: request.require_complete,
    })
}

/// Reads a filter against the declared fields.
pub(crate) fn filter(info: &IndexInfo, text: Option<&serde_json::Value>) -> Result<Option<Filter>, ApiError> {
    let parse = |value| Filter::parse(value, &info.schema).map_err(|e| ApiError::Filter(e.to_string()));
    text.map(parse).transpose()
}

fn bound(metric: Metric, min_score: Option<f32>, max_distance: Option<f32>) -> Result<Option<f32>, ApiError> {
    let (name, given, wrong) = match metric {
        Metric::Cosine | Metric::Dot => ("min_score", min_score, max_distance.map(|_| "max_distance")),
        Metric::L2 => ("max_distance", max_distance, min_score.map(|_| "min_score")),
    };
    match (given, wrong) {
        (_, Some(wrong)) => {
            Err(ApiError::Invalid(format!("{wrong} does not go with the metric {metric}; {name} does")))
        }
        (Some(bound), None) if !bound.is_finite() => {
            Err(ApiError::Invalid(format!("{name} is not a finite 32-bit number")))
        }
        (given, None) => Ok(given),
    }
}

/// Joins what several searches of one batch want to see.
pub(crate) fn strictest<'a>(all: impl Iterator<Item = &'a Consistency>) -> Option<Consistency> {
    all.fold(None, |joined: Option<Consistency>, one| {
        let mut joined = joined.unwrap_or(Consistency { min_offsets: BTreeMap::new(), timeout_ms: 0 });
        joined.timeout_ms = joined.timeout_ms.max(one.timeout_ms);
        for (partition, offset) in &one.min_offsets {
            let at = joined.min_offsets.entry(*partition).or_default();
            *at = (*at).max(*offset);
        }
        Some(joined)
    })
}

/// The view that a query is answered from: the one served now, or the first in which the offsets asked for are
/// visible.
///
/// # Errors
/// `NotVisible` when they are not in time.
pub(crate) async fn view(
    app: &App,
    index: &Index,
    wanted: Option<&Consistency>,
) -> Result<Arc<View>, ApiError> {
    let Some(wanted) = wanted.filter(|c| !c.min_offsets.is_empty()) else {
        return Ok(Arc::new(index.view()));
    };
    let partitions = index.slots.len();
    if let Some(unknown) = wanted.min_offsets.keys().find(|p| **p as usize >= partitions) {
        let text = format!("min_offsets: there is no partition {unknown}, the index has {partitions}");
        return Err(ApiError::Invalid(text));
    }
    let limit = app.limits.max_consistency_wait;
    let limit_ms = u64::try_from(limit.as_millis()).unwrap_or(u64::MAX);
    if wanted.timeout_ms > limit_ms {
        let text = format!("timeout_ms: {} is more than {limit_ms}", wanted.timeout_ms);
        return Err(ApiError::Invalid(text));
    }
    let deadline = Instant::now() + Duration::from_millis(wanted.timeout_ms);
    let mut swaps = index.swaps();
    loop {
        swaps.mark_unchanged();
        let view = index.view();
        let visible = visible_offsets(&view);
        if wanted.min_offsets.iter().all(|(p, offset)| visible.get(p).is_some_and(|v| v > offset)) {
            return Ok(Arc::new(view));
        }
        tokio::select! {
            biased;
            () = index.stop.cancelled() => return Err(ApiError::IndexNotFound(view.index.name.to_string())),
            swapped = timeout_at(deadline, swaps.changed()) => {
                if swapped.is_err() {
                    return Err(ApiError::NotVisible { waited_ms: wanted.timeout_ms, offsets: visible });
                }
            }
        }
    }
}

fn visible_offsets(view: &View) -> BTreeMap<u32, u64> {
    let all = view.partitions().iter().zip(0u32..);
    all.filter_map(|(snapshot, p)| Some((p, snapshot.as_ref()?.visible_offset().get()))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bound_of_the_wrong_metric_is_refused_and_the_right_one_named() {
        let error = bound(Metric::L2, Some(0.5), None).unwrap_err();
        assert!(error.to_string().contains("max_distance does"), "{error}");
        assert!(bound(Metric::Cosine, None, Some(1.0)).is_err());
        assert!(bound(Metric::Dot, Some(f32::INFINITY), None).is_err());
        assert_eq!(bound(Metric::Dot, Some(0.5), None).unwrap(), Some(0.5));
    }

    #[test]
    fn a_search_for_more_hits_keeps_more_candidates() {
        let kept = [1, 10, 42, 43, 100, usize::MAX].map(|k| default_ef(64, k));
        assert_eq!(kept, [64, 64, 64, 64, 150, usize::MAX]);
    }

    #[test]
    fn a_batch_waits_for_what_the_strictest_of_its_searches_wants() {
        let a = Consistency { min_offsets: [(0, 5), (1, 9)].into(), timeout_ms: 10 };
        let b = Consistency { min_offsets: [(0, 7)].into(), timeout_ms: 5 };
        let joined = strictest([&a, &b].into_iter()).unwrap();
        assert_eq!(joined, Consistency { min_offsets: [(0, 7), (1, 9)].into(), timeout_ms: 10 });
        assert_eq!(strictest(std::iter::empty()), None);
    }
}
