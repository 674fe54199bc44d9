//! The names and help texts of this crate's metrics; functions emit them.

use std::time::Instant;

use metrics::{counter, describe_counter, describe_gauge, gauge};
use sluice_core::{Offset, RecordBatch, TopicPartition};

use crate::decode::RejectCode;

const RECORDS: &str = "sluice_log_records_read_total";
const BYTES: &str = "sluice_log_message_bytes_read_total";
const DEAD_LETTERS: &str = "sluice_dead_letters_total";
const DEAD_LETTERS_WAITING: &str = "sluice_dead_letters_waiting_partitions";
const NEXT_OFFSET: &str = "sluice_log_read_offset";
const END_OFFSET: &str = "sluice_log_end_offset";
const PRODUCED: &str = "sluice_log_messages_produced_total";
const PRODUCE_FAILED: &str = "sluice_log_messages_failed_total";
const BUDGET_BLOCKED: &str = "sluice_read_budget_blocked_microseconds_total";
const KAFKA_ERRORS: &str = "sluice_kafka_errors_total";
const MOVED: &str = "sluice_group_partitions_moved_total";
const OPEN_PARTITIONS: &str = "sluice_log_open_partitions";

/// Registers the help texts.
pub fn describe() {
    describe_counter!(RECORDS, "Records read from the log, by topic and partition");
    describe_counter!(BYTES, "Bytes of keys and values read from the log, bad messages included");
    describe_counter!(DEAD_LETTERS, "Messages stored as dead letters, by topic and reason");
    describe_gauge!(
        DEAD_LETTERS_WAITING,
        "Partitions that stand still because dead letters cannot be stored"
    );
    describe_gauge!(NEXT_OFFSET, "First offset that was not yet read, by topic and partition");
    describe_gauge!(END_OFFSET, "End of the log as last seen, by topic and partition");
    describe_counter!(PRODUCED, "Messages written to the log and acknowledged, by topic");
    describe_counter!(PRODUCE_FAILED, "Messages that could not be written to the log, by topic");
    describe_counter!(BUDGET_BLOCKED, "Time that readers waited for bytes of their budget, by topic");
    describe_counter!(KAFKA_ERRORS, "Errors that the Kafka client reported and outlived, by code");
    describe_counter!(MOVED, "Partitions that the group assigned to this process or revoked, by direction");
    describe_gauge!(OPEN_PARTITIONS, "Partitions that are being read");
}

/// Counts one batch that was handed on.
pub(crate) fn batch_read(at: &TopicPartition, batch: &RecordBatch, message_bytes: u64) {
    let labels = [("topic", at.topic.to_string()), ("partition", at.partition.to_string())];
    counter!(RECORDS, &labels).increment(batch.records.len() as u64);
    counter!(BYTES, &labels).increment(message_bytes);
    gauge!(NEXT_OFFSET, &labels).set(as_gauge(batch.next_offset));
    gauge!(END_OFFSET, &labels).set(as_gauge(batch.log_end));
}

fn as_gauge(offset: Offset) -> f64 {
    offset.get() as f64
}

pub(crate) fn dead_letter(at: &TopicPartition, code: RejectCode) {
    counter!(DEAD_LETTERS, "topic" => at.topic.to_string(), "reason" => code.as_str()).increment(1);
}

/// Adds the time since `since` to what the readers of this topic waited for bytes.
pub(crate) fn budget_blocked(at: &TopicPartition, since: Instant) {
    let micros = u64::try_from(since.elapsed().as_micros()).unwrap_or(u64::MAX);
    counter!(BUDGET_BLOCKED, "topic" => at.topic.to_string()).increment(micros);
}

pub(crate) fn produced(topic: &str, ok: u64, failed: u64) {
    counter!(PRODUCED, "topic" => topic.to_owned()).increment(ok);
    counter!(PRODUCE_FAILED, "topic" => topic.to_owned()).increment(failed);
}

pub(crate) fn kafka_error(code: String) {
    counter!(KAFKA_ERRORS, "code" => code).increment(1);
}

/// Counts partitions that came or went; `direction` is `assigned` or `revoked`.
pub(crate) fn partitions_moved(direction: &'static str, count: usize) {
    counter!(MOVED, "direction" => direction).increment(count as u64);
}

/// Counts one more of something until it is dropped.
#[must_use]
pub(crate) struct Level(&'static str);

impl Level {
    pub(crate) fn open_partition() -> Self {
        Self::of(OPEN_PARTITIONS)
    }

    pub(crate) fn dead_letters_waiting() -> Self {
        Self::of(DEAD_LETTERS_WAITING)
    }

    fn of(name: &'static str) -> Self {
        gauge!(name).increment(1.0);
        Self(name)
    }
}

impl Drop for Level {
    fn drop(&mut self) {
        gauge!(self.0).decrement(1.0);
    }
}
