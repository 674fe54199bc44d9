//! The metrics of this crate: names and help texts here, emitted by the functions below.

use std::time::Duration;

use sluice_core::PartitionRef;

const REQUESTS: &str = "sluice_store_requests_total";
const BYTES: &str = "sluice_store_bytes_total";
const CREATES: &str = "sluice_manifest_creates_total";
const PUBLISH_SECONDS: &str = "sluice_publish_seconds";
const CACHE_LOOKUPS: &str = "sluice_cache_lookups_total";
const CACHE_BYTES: &str = "sluice_cache_bytes";
const CACHE_EVICTIONS: &str = "sluice_cache_evictions_total";
const COLLECTED: &str = "sluice_gc_deleted_total";

/// Registers the help texts.
pub fn describe() {
    metrics::describe_counter!(REQUESTS, "requests to the object store, by operation and outcome");
    metrics::describe_counter!(
        BYTES,
        metrics::Unit::Bytes,
        "bytes sent to (up) and read from (down) the store"
    );
    metrics::describe_counter!(CREATES, "creates of manifests, by reason and verdict");
    metrics::describe_histogram!(PUBLISH_SECONDS, metrics::Unit::Seconds, "from publish to its verdict");
    metrics::describe_counter!(
        CACHE_LOOKUPS,
        "segments asked of the local cache: open, disk, fetched, failed"
    );
    metrics::describe_gauge!(CACHE_BYTES, metrics::Unit::Bytes, "bytes of segments in the local cache");
    metrics::describe_counter!(CACHE_EVICTIONS, "segments removed from the local cache to make room");
    metrics::describe_counter!(COLLECTED, "objects deleted by garbage collection, by kind");
}

pub(crate) fn request(operation: &'static str, outcome: &'static str) {
    metrics::counter!(REQUESTS, "operation" => operation, "outcome" => outcome).increment(1);
}

pub(crate) fn bytes(direction: &'static str, count: u64) {
    metrics::counter!(BYTES, "direction" => direction).increment(count);
}

pub(crate) fn created(reason: &'static str, verdict: &'static str) {
    metrics::counter!(CREATES, "reason" => reason, "verdict" => verdict).increment(1);
}

pub(crate) fn published(partition: &PartitionRef, took: Duration) {
    let index = partition.index.to_string();
    metrics::histogram!(PUBLISH_SECONDS, "index" => index).record(took);
}

pub(crate) fn cache_lookup(outcome: &'static str) {
    metrics::counter!(CACHE_LOOKUPS, "outcome" => outcome).increment(1);
}

pub(crate) fn cache_bytes(bytes: u64) {
    metrics::gauge!(CACHE_BYTES).set(bytes as f64);
}

pub(crate) fn cache_evicted() {
    metrics::counter!(CACHE_EVICTIONS).increment(1);
}

pub(crate) fn collected(kind: &'static str, count: u64) {
    metrics::counter!(COLLECTED, "kind" => kind).increment(count);
}
