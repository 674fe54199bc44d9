//! Names, help texts and emission of this crate's metrics.

use std::time::Duration;

use metrics::{Unit, counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram};
use sluice_core::{IndexName, PartitionRef};

const REQUEST_SECONDS: &str = "sluice_http_request_seconds";
const CONNECTIONS: &str = "sluice_http_connections";
const STAGE_SECONDS: &str = "sluice_search_stage_seconds";
const QUERIES_REFUSED: &str = "sluice_queries_refused_total";
const PARTIAL_ANSWERS: &str = "sluice_partial_answers_total";
const KEY_CONFLICTS: &str = "sluice_key_conflicts_total";
const SNAPSHOTS_LOADED: &str = "sluice_snapshots_loaded_total";
const SNAPSHOT_LOAD_SECONDS: &str = "sluice_snapshot_load_seconds";
const SNAPSHOT_CORRUPT: &str = "sluice_snapshot_corrupt_total";
const SNAPSHOT_ERRORS: &str = "sluice_snapshot_errors_total";
const SNAPSHOTS_LIVE: &str = "sluice_snapshots_live";
const MANIFEST_AGE: &str = "sluice_manifest_age_seconds";
const MANIFEST_SEQ: &str = "sluice_served_manifest";
const NEXT_OFFSET: &str = "sluice_served_next_offset";
const PUBLISHED_RECORDS: &str = "sluice_http_published_records_total";
const PINNED_VIEWS: &str = "sluice_pinned_views";

/// Tells the recorder units and help texts; called once at start.
pub fn describe() {
    let seconds = Unit::Seconds;
    describe_histogram!(REQUEST_SECONDS, seconds, "time to answer a request, by route and status");
    describe_gauge!(CONNECTIONS, "HTTP connections open");
    describe_histogram!(STAGE_SECONDS, seconds, "time of a query's stages: wait, search, settle");
    describe_counter!(QUERIES_REFUSED, "queries refused because too many were running and waiting");
    describe_counter!(PARTIAL_ANSWERS, "answers that lacked a partition, by index");
    describe_counter!(KEY_CONFLICTS, "hits dropped because their key is live in another partition too");
    describe_counter!(SNAPSHOTS_LOADED, "snapshots fetched, verified and swapped in");
    describe_histogram!(SNAPSHOT_LOAD_SECONDS, seconds, "time from a manifest seen to its snapshot serving");
    describe_counter!(SNAPSHOT_CORRUPT, "snapshots refused because bytes of theirs are damaged");
    describe_counter!(SNAPSHOT_ERRORS, "failed looks for a newer snapshot, by kind of error");
    describe_gauge!(SNAPSHOTS_LIVE, "snapshots in memory, those that queries still hold included");
    describe_gauge!(MANIFEST_AGE, seconds, "age of the manifest that is served");
    describe_gauge!(MANIFEST_SEQ, "number of the manifest that is served");
    describe_gauge!(NEXT_OFFSET, "first offset that is not in the served snapshot");
    describe_counter!(PUBLISHED_RECORDS, "records published over HTTP, by outcome");
    describe_gauge!(PINNED_VIEWS, "views kept for listings under way");
}

/// `route` is the matched path, never the path of the request, so that labels stay few.
pub(crate) fn request(route: &str, method: &'static str, status: u16, took: Duration) {
    let labels = [("route", route.to_owned()), ("method", method.to_owned()), ("status", status.to_string())];
    histogram!(REQUEST_SECONDS, &labels).record(took);
}

pub(crate) fn connections(open: usize) {
    gauge!(CONNECTIONS).set(open as f64);
}

pub(crate) fn stage(stage: &'static str, took: Duration) {
    histogram!(STAGE_SECONDS, "stage" => stage).record(took);
}

pub(crate) fn query_refused() {
    counter!(QUERIES_REFUSED).increment(1);
}

pub(crate) fn partial_answer(index: &IndexName) {
    counter!(PARTIAL_ANSWERS, "index" => index.to_string()).increment(1);
}

pub(crate) fn key_conflicts(index: &IndexName, dropped: u64) {
    if dropped > 0 {
        counter!(KEY_CONFLICTS, "index" => index.to_string()).increment(dropped);
    }
}

fn labels(partition: &PartitionRef) -> [(&'static str, String); 2] {
    [("index", partition.index.to_string()), ("partition", partition.partition.to_string())]
}

pub(crate) fn snapshot_loaded(partition: &PartitionRef, took: Duration) {
    counter!(SNAPSHOTS_LOADED, &labels(partition)).increment(1);
    histogram!(SNAPSHOT_LOAD_SECONDS).record(took);
}

/// Sets what says how fresh a served partition is.
pub(crate) fn serving(partition: &PartitionRef, seq: u64, next_offset: u64, age_seconds: f64) {
    let labels = labels(partition);
    gauge!(MANIFEST_SEQ, &labels).set(seq as f64);
    gauge!(NEXT_OFFSET, &labels).set(next_offset as f64);
    gauge!(MANIFEST_AGE, &labels).set(age_seconds);
}

pub(crate) fn snapshot_corrupt(partition: &PartitionRef) {
    counter!(SNAPSHOT_CORRUPT, &labels(partition)).increment(1);
}

pub(crate) fn snapshot_error(partition: &PartitionRef, kind: &'static str) {
    let [index, number] = labels(partition);
    counter!(SNAPSHOT_ERRORS, &[index, number, ("kind", kind.to_owned())]).increment(1);
}

pub(crate) fn snapshots_live(change: f64) {
    gauge!(SNAPSHOTS_LIVE).increment(change);
}

pub(crate) fn published(index: &IndexName, placed: u64, refused: u64) {
    for (outcome, count) in [("placed", placed), ("refused", refused)] {
        if count > 0 {
            counter!(PUBLISHED_RECORDS, "index" => index.to_string(), "outcome" => outcome).increment(count);
        }
    }
}

pub(crate) fn pinned_views(held: usize) {
    gauge!(PINNED_VIEWS).set(held as f64);
}
