//! Every metric of the indexer: names, help texts, and the functions that emit them. Labels: index and partition.

use metrics::{Unit, counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram};
use sluice_core::PartitionRef;

use crate::{Lane, WorkerStatus};

const RECORDS: &str = "sluice_indexer_records_total";
const REPLAYED: &str = "sluice_indexer_replayed_records_total";
const SEALS: &str = "sluice_indexer_seals_total";
const MERGES: &str = "sluice_indexer_merges_total";
const MERGED_ROWS: &str = "sluice_indexer_merged_records_total";
const BUILD_SECONDS: &str = "sluice_indexer_build_seconds";
const PUBLISH_SECONDS: &str = "sluice_indexer_publish_seconds";
const RETRIES: &str = "sluice_indexer_retries_total";
const FRESHNESS: &str = "sluice_freshness_seconds";
const LAG: &str = "sluice_indexer_lag_records";
const BUILD_PROGRESS: &str = "sluice_indexer_build_progress";
const SLOW_BUILD: &str = "sluice_indexer_slow_build_seconds";
const GROWING_RECORDS: &str = "sluice_indexer_growing_records";
const GROWING_BYTES: &str = "sluice_indexer_growing_bytes";
const SEGMENTS: &str = "sluice_indexer_segments_count";
const SEGMENT_RECORDS: &str = "sluice_indexer_segment_records";
const SEGMENT_BYTES: &str = "sluice_indexer_segment_bytes";

/// Registers the help texts.
pub fn describe() {
    describe_counter!(RECORDS, "records applied to a growing set");
    describe_counter!(REPLAYED, "records that came again and were dropped");
    describe_counter!(SEALS, "growing sets published, by reason");
    describe_counter!(MERGES, "merges, by reason and outcome");
    describe_counter!(MERGED_ROWS, "rows written by merges; over the records applied: write amplification");
    describe_histogram!(BUILD_SECONDS, Unit::Seconds, "time to build a segment, by lane");
    describe_histogram!(PUBLISH_SECONDS, Unit::Seconds, "time from a built segment to its manifest");
    describe_counter!(RETRIES, "calls to the store that failed and were repeated, by stage");
    describe_gauge!(FRESHNESS, Unit::Seconds, "now minus the time of the oldest unpublished record");
    describe_gauge!(LAG, "records of the log that are not in the newest manifest");
    describe_gauge!(
        BUILD_PROGRESS,
        "share that is done of the seal and the merge under way; 0 when there is none"
    );
    describe_gauge!(SLOW_BUILD, Unit::Seconds, "age of a build beyond `ingest.slow_build_after`; else 0");
    describe_gauge!(GROWING_RECORDS, "records in growing sets, that under seal included");
    describe_gauge!(GROWING_BYTES, Unit::Bytes, "bytes that growing sets are charged for");
    describe_gauge!(SEGMENTS, "segments of the newest manifest");
    describe_gauge!(SEGMENT_RECORDS, "live records of the newest manifest");
    describe_gauge!(SEGMENT_BYTES, Unit::Bytes, "bytes of the segments of the newest manifest");
}

/// Sets every gauge of a partition to zero. This process does not have it any more, and what stood there last would go
/// on as if it were measured.
pub fn released(partition: &PartitionRef) {
    WorkerMetrics::new(partition).state(&WorkerStatus::default());
}

/// The labels of one worker.
#[derive(Debug, Clone)]
pub(crate) struct WorkerMetrics {
    index: String,
    partition: String,
}

impl WorkerMetrics {
    pub(crate) fn new(partition: &PartitionRef) -> Self {
        Self { index: partition.index.to_string(), partition: partition.partition.to_string() }
    }

    fn labels(&self) -> [(&'static str, String); 2] {
        [("index", self.index.clone()), ("partition", self.partition.clone())]
    }

    fn labels_and(&self, name: &'static str, value: &'static str) -> [(&'static str, String); 3] {
        let [index, partition] = self.labels();
        [index, partition, (name, value.to_owned())]
    }

    pub(crate) fn taken(&self, applied: u64, replayed: u64) {
        counter!(RECORDS, &self.labels()).increment(applied);
        if replayed > 0 {
            counter!(REPLAYED, &self.labels()).increment(replayed);
        }
    }

    pub(crate) fn sealed(&self, reason: &'static str) {
        counter!(SEALS, &self.labels_and("reason", reason)).increment(1);
    }

    pub(crate) fn merged(&self, reason: &'static str, outcome: &'static str, rows: u64) {
        let [index, partition, reason] = self.labels_and("reason", reason);
        counter!(MERGES, &[index, partition, reason, ("outcome", outcome.to_owned())]).increment(1);
        counter!(MERGED_ROWS, &self.labels()).increment(rows);
    }

    pub(crate) fn built(&self, lane: Lane, seconds: f64) {
        histogram!(BUILD_SECONDS, &self.labels_and("lane", lane.as_str())).record(seconds);
    }

    pub(crate) fn published(&self, seconds: f64) {
        histogram!(PUBLISH_SECONDS, &self.labels()).record(seconds);
    }

    pub(crate) fn retried(&self, stage: &'static str) {
        counter!(RETRIES, &self.labels_and("stage", stage)).increment(1);
    }

    /// Sets every gauge from one status, so that ratios describe the same moment.
    pub(crate) fn state(&self, status: &WorkerStatus) {
        let set = |name: &'static str, value: f64| gauge!(name, &self.labels()).set(value);
        set(FRESHNESS, status.freshness_seconds(status.beat));
        set(LAG, status.lag() as f64);
        set(SLOW_BUILD, status.slow_build.map_or(0.0, |build| status.beat.seconds_since(build.since)));
        for (stage, share) in [("seal", status.seal_progress), ("merge", status.merge_progress)] {
            gauge!(BUILD_PROGRESS, &self.labels_and("stage", stage)).set(share.unwrap_or_default());
        }
        set(GROWING_RECORDS, status.growing_records as f64);
        set(GROWING_BYTES, status.growing_bytes as f64);
        set(SEGMENTS, status.segments as f64);
        set(SEGMENT_RECORDS, status.segment_records as f64);
        set(SEGMENT_BYTES, status.segment_bytes as f64);
    }
}
