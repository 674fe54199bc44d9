//! Every metric of the composition root: names, help texts, and the functions that emit them.

use metrics::{counter, describe_counter, describe_gauge, gauge};
use sluice_core::TopicPartition;

const PARTITIONS: &str = "sluice_assigned_partitions_count";
const RESTARTS: &str = "sluice_partition_restarts_total";
const PARKED: &str = "sluice_partition_parked_state";
const STOPPED_INDEXES: &str = "sluice_stopped_indexes_count";
const MEMORY_USED: &str = "sluice_memory_budget_used_bytes";
const MEMORY_TOTAL: &str = "sluice_memory_budget_total_bytes";
const COLLECTED: &str = "sluice_gc_runs_total";

/// Registers the help texts of this crate and of all that it wires.
pub fn describe() {
    describe_gauge!(PARTITIONS, "partitions assigned to this indexer, by state");
    describe_counter!(RESTARTS, "restarts of a partition after a failure, by cause");
    describe_gauge!(PARKED, "1 while the partition is parked: somebody has to act, /status says what to do");
    describe_gauge!(STOPPED_INDEXES, "indexes that this indexer does not consume, see /status");
    describe_gauge!(MEMORY_USED, metrics::Unit::Bytes, "bytes of limits.memory in use, by share");
    describe_gauge!(MEMORY_TOTAL, metrics::Unit::Bytes, "bytes of limits.memory, by share");
    describe_counter!(COLLECTED, "collections of a partition's garbage, by outcome");
    metrics::describe_counter!(
        sluice_core::channel::BLOCKED,
        "microseconds that a stage's senders stood before a full channel or budget"
    );
    sluice_connectors::metrics::describe();
    sluice_indexer::metrics::describe();
    sluice_snapshotter::metrics::describe();
    sluice_query_svc::metrics::describe();
}

pub(crate) fn partitions(state: &'static str, count: usize) {
    gauge!(PARTITIONS, "state" => state).set(count as f64);
}

fn labels(at: &TopicPartition) -> [(&'static str, String); 2] {
    [("topic", at.topic.to_string()), ("partition", at.partition.to_string())]
}

pub(crate) fn restarted(at: &TopicPartition, cause: &'static str) {
    let [topic, partition] = labels(at);
    counter!(RESTARTS, &[topic, partition, ("cause", cause.to_owned())]).increment(1);
}

pub(crate) fn parked(at: &TopicPartition, parked: bool) {
    gauge!(PARKED, &labels(at)).set(if parked { 1.0 } else { 0.0 });
}

pub(crate) fn stopped_indexes(count: usize) {
    gauge!(STOPPED_INDEXES).set(count as f64);
}

pub(crate) fn memory(share: &'static str, used: usize, total: usize) {
    gauge!(MEMORY_USED, "share" => share).set(used as f64);
    gauge!(MEMORY_TOTAL, "share" => share).set(total as f64);
}

pub(crate) fn collected(outcome: &'static str) {
    counter!(COLLECTED, "outcome" => outcome).increment(1);
}
