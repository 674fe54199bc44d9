//! The bodies of the HTTP API, requests and answers, for the handlers and for clients alike.
//!
//! Requests refuse unknown fields. Answers leave a field out rather than write null, except where null says
//! "unknown" or "no more" (`lag_records`, `cursor`).

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;
use serde_json::value::RawValue;
use sluice_core::{IndexSpec, Metadata};
use utoipa::ToSchema;

use crate::object;

/// Hits returned when a request does not say.
pub const DEFAULT_K: usize = 10;

/// Most bytes of a filter's text.
const MAX_FILTER_BYTES: usize = 1 << 20;

/// What of a record is returned beside its id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Include {
    Metadata,
    Vector,
}

/// What must be visible before a request is answered.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Consistency {
    /// Partition -> offset that must be visible.
    #[serde(default)]
    #[schema(example = json!({"0": 4711}))]
    pub min_offsets: BTreeMap<u32, u64>,
    /// How long to wait for it.
    #[serde(default = "default_timeout_ms")]
    pub timeout_ms: u64,
}

fn default_timeout_ms() -> u64 {
    1000
}

fn default_k() -> usize {
    DEFAULT_K
}

/// A search by vector, or by the id of a record whose vector is the query ("more like this": the record itself
/// is left out of its own answer).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SearchRequest {
    /// Exactly one of `vector` and `id` is given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vector: Option<Vec<f32>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    #[serde(default = "default_k")]
    pub k: usize,
    /// `{"section": "web"}`, `$eq $ne $in $nin $gt $gte $lt $lte $exists $and $or $not`.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "strict_json")]
    #[schema(value_type = Option<Object>, example = json!({"section": "web"}))]
    pub filter: Option<Value>,
    /// Candidates kept while a graph is searched; unless given the index's own `graph.ef`, or half as many again as `k`
    /// when that is more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ef: Option<usize>,
    /// Scan every record instead of walking graphs.
    #[serde(default)]
    pub exact: bool,
    /// Worst score of a hit; for the metrics cosine and dot.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min_score: Option<f32>,
    /// Worst score of a hit; for the metric l2.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_distance: Option<f32>,
    /// Metadata alone unless given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub include: Option<Vec<Include>>,
    /// An answer without some partition becomes an error.
    #[serde(default)]
    pub require_complete: bool,
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "object::optional")]
    pub consistency: Option<Consistency>,
}

impl Default for SearchRequest {
    fn default() -> Self {
        Self {
            vector: None,
            id: None,
            k: DEFAULT_K,
            filter: None,
            ef: None,
            exact: false,
            min_score: None,
            max_distance: None,
            include: None,
            require_complete: false,
            consistency: None,
        }
    }
}

/// Reads any JSON value, refusing repeated keys and deep nesting.
fn strict_json<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Value>, D::Error> {
    use serde::de::Error;
    let Some(raw) = Option::<Box<RawValue>>::deserialize(deserializer)? else { return Ok(None) };
    if raw.get() == "null" {
        return Ok(None);
    }
    Metadata::parse(raw.get(), MAX_FILTER_BYTES)
        .map_err(|e| D::Error::custom(format_args!("filter: {}", e.to_string().replace("metadata", "it"))))?;
    serde_json::from_str(raw.get()).map(Some).map_err(D::Error::custom)
}

/// One record found.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct Hit {
    pub id: String,
    /// Cosine similarity or dot product (larger is better); Euclidean distance for l2 (smaller is better).
    pub score: f32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    pub metadata: Option<Box<RawValue>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vector: Option<Vec<f32>>,
}

/// How one partition took part in an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum AnswerStatus {
    /// It answered in full, from the snapshot that is named.
    Ok,
    /// It missed the deadline.
    Timeout,
    /// Its search failed.
    Failed,
    /// None of its snapshots is loaded yet.
    Unavailable,
}

/// One partition's part in an answer: which snapshot it answered from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PartitionAnswer {
    pub partition: u32,
    pub status: AnswerStatus,
    pub generation: u32,
    /// Manifest that was searched; 0 when nothing was published yet, absent when nothing is loaded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub manifest: Option<u64>,
    /// First offset that is not in that snapshot.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_offset: Option<u64>,
    /// First offset that this answer could not see.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub visible_offset: Option<u64>,
}

/// Hits, best first, and where they come from.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct SearchResponse {
    pub hits: Vec<Hit>,
    pub partitions: Vec<PartitionAnswer>,
    pub took_ms: f64,
}

/// Several searches that are answered from one view.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct BatchRequest {
    #[serde(deserialize_with = "object::each")]
    pub searches: Vec<SearchRequest>,
}

/// One answer per search, in the order of the searches.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct BatchResponse {
    pub results: Vec<SearchResponse>,
}

/// Counts live records.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CountRequest {
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "strict_json")]
    #[schema(value_type = Option<Object>)]
    pub filter: Option<Value>,
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "object::optional")]
    pub consistency: Option<Consistency>,
}

/// An exact count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct CountResponse {
    pub count: u64,
}

/// One live record of a listing.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct ListedRecord {
    pub id: String,
    pub partition: u32,
    pub offset: u64,
    #[schema(value_type = Object)]
    pub metadata: Box<RawValue>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vector: Option<Vec<f32>>,
}

/// A page of a listing; `cursor` leads to the next one and is null on the last.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct ListResponse {
    pub records: Vec<ListedRecord>,
    pub cursor: Option<String>,
}

/// The live version of one record.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct RecordResponse {
    pub id: String,
    pub vector: Vec<f32>,
    #[schema(value_type = Object)]
    pub metadata: Box<RawValue>,
    pub partition: u32,
    pub offset: u64,
}

/// One record to publish.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PublishRecord {
    pub id: String,
    pub vector: Vec<f32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    pub metadata: Option<Box<RawValue>>,
}

/// Records to publish, in order.
#[derive(Debug, Clone, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PublishRequest {
    pub records: Vec<PublishRecord>,
}

/// Why one record was not published.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RecordError {
    pub code: String,
    pub detail: String,
}

/// What became of one record: `partition` and `offset` when the log has it, else `error`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PublishResult {
    pub id: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub partition: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub offset: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<RecordError>,
}

/// One result per record, in the order of the records.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PublishResponse {
    pub results: Vec<PublishResult>,
}

/// Where a tombstone stands in the log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct DeleteResponse {
    pub id: String,
    pub partition: u32,
    pub offset: u64,
}

/// How a partition is served.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum PartitionState {
    /// The newest snapshot serves.
    Ok,
    /// An older snapshot serves, because the newest could not be found or loaded.
    Stale,
    /// Its first snapshot is being loaded.
    Loading,
    /// Its first snapshot could not be loaded.
    Error,
}

/// One partition of an index. What is not known is null.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct PartitionStatus {
    pub partition: u32,
    pub status: PartitionState,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    pub manifest: Option<u64>,
    pub epoch: Option<u64>,
    pub next_offset: Option<u64>,
    pub visible_offset: Option<u64>,
    pub log_start: Option<u64>,
    pub log_end: Option<u64>,
    /// Offsets between the snapshot and the end of the log.
    pub lag_records: Option<u64>,
    /// Longest time for which a record of the log can have been waiting to be in the snapshot.
    pub lag_seconds: Option<f64>,
    pub segments: Option<u64>,
    pub records: Option<u64>,
    pub bytes: Option<u64>,
    pub manifest_age_seconds: Option<f64>,
}

/// An index as it is served here.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct IndexStatus {
    pub name: String,
    pub generation: u32,
    #[schema(value_type = Object)]
    pub spec: IndexSpec,
    pub partitions: Vec<PartitionStatus>,
}

/// Every index, ordered by name.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct IndexList {
    pub indexes: Vec<IndexStatus>,
}

/// The stored spec of an index.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct IndexResponse {
    pub name: String,
    pub generation: u32,
    #[schema(value_type = Object)]
    pub spec: IndexSpec,
}

/// An index that is no longer consumed or served.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RetiredResponse {
    pub name: String,
    pub retired: bool,
}

/// Whether the process runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct LiveResponse {
    pub status: String,
}

/// A partition that does not serve its newest snapshot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct UnreadyPartition {
    pub index: String,
    pub partition: u32,
    pub status: PartitionState,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// Whether every partition of every index has been resolved at least once, and those that are not up to date.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ReadyResponse {
    /// `ready` or `starting`.
    pub status: String,
    pub partitions: Vec<UnreadyPartition>,
}

/// A key in which a stored spec and a given one differ.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Difference {
    pub key: String,
    #[schema(value_type = Object)]
    pub stored: Value,
    #[schema(value_type = Object)]
    pub given: Value,
    /// Whether the key may change in place; else the index has to be rebuilt.
    pub in_place: bool,
}

/// An error, by RFC 9457; `code` is stable, `detail` is for people.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Problem {
    #[serde(rename = "type")]
    pub kind: String,
    pub title: String,
    pub status: u16,
    pub code: String,
    pub detail: String,
    pub request_id: String,
    /// The partitions behind a failed or incomplete answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub partitions: Option<Vec<PartitionAnswer>>,
    /// First offset not visible, by partition.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub offsets: Option<BTreeMap<u32, u64>>,
    /// Where two specs differ.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub differences: Option<Vec<Difference>>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_with_a_repeated_key_or_deep_nesting_is_refused() {
        let read = |filter: &str| {
            serde_json::from_str::<SearchRequest>(&format!(r#"{{"id":"a","filter":{filter}}}"#))
        };
        assert!(read(r#"{"a":1,"a":2}"#).unwrap_err().to_string().contains("stands twice"));
        assert!(read(&format!("{}1{}", r#"{"$not":"#.repeat(100), "}".repeat(100))).is_err());
        assert!(read("[1]").is_err());
        assert_eq!(read("null").unwrap().filter, None);
        assert!(read(r#"{"a":{"$in":[1,2]}}"#).unwrap().filter.is_some());
    }

    #[test]
    fn unknown_and_repeated_fields_are_refused_by_name() {
        let error = serde_json::from_str::<SearchRequest>(r#"{"vektor":[1]}"#).unwrap_err();
        assert!(error.to_string().contains("vektor"), "{error}");
        assert!(serde_json::from_str::<SearchRequest>(r#"{"k":1,"k":2}"#).is_err());
    }

    #[test]
    fn a_request_survives_the_way_from_client_to_server() {
        let request = SearchRequest {
            id: Some("nginx".into()),
            filter: Some(serde_json::json!({"section": "web"})),
            consistency: Some(Consistency { min_offsets: [(0, 4711)].into(), timeout_ms: 5 }),
            ..SearchRequest::default()
        };
        let text = serde_json::to_string(&request).unwrap();
        assert!(text.contains(r#""min_offsets":{"0":4711}"#), "{text}");
        assert_eq!(serde_json::from_str::<SearchRequest>(&text).unwrap(), request);
    }
}
