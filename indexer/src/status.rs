//! What a worker tells the outside about itself, through a `watch` channel.

use sluice_core::{Offset, Timestamp};

/// Where a worker stands in its life.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// Opens the published segments.
    #[default]
    Recovering,
    /// Reads, seals, merges.
    Running,
    /// Told to stop; publishes what is worth it.
    Draining,
    /// Has ended.
    Ended,
}

/// A build that has not returned.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
pub struct SlowBuild {
    /// `seal` or `merge`.
    pub what: &'static str,
    pub since: Timestamp,
}

/// The state of a worker as of `beat`.
#[derive(Debug, Clone, Default, PartialEq, serde::Serialize)]
pub struct WorkerStatus {
    pub phase: Phase,
    /// First offset that is not in the newest manifest.
    pub next_offset: Offset,
    /// First offset that is not applied to a growing set.
    pub applied: Offset,
    /// End of the log as last seen by the source.
    pub log_end: Offset,
    /// Records that stand in the growing set, and those of the seal under way.
    pub growing_records: u64,
    /// Bytes that they are charged for.
    pub growing_bytes: u64,
    pub segments: usize,
    /// Live records of the segments.
    pub segment_records: u64,
    pub segment_bytes: u64,
    /// Messages that became dead letters since the worker started.
    pub dead_letters: u64,
    pub sealing: bool,
    pub merging: bool,
    /// Time of the oldest record that is not published; `None` when all are.
    pub oldest_unpublished: Option<Timestamp>,
    /// Time of the oldest record that has not come, because its reader waits for dead letters to be stored. Set by
    /// whoever opened the input, and counted in freshness.
    pub held_back: Option<Timestamp>,
    /// How far the builds under way are, 0 to 1; `None` when nothing is built.
    pub seal_progress: Option<f64>,
    pub merge_progress: Option<f64>,
    /// The seal or merge that has been built for longer than it should, and since when.
    pub slow_build: Option<SlowBuild>,
    /// When the last manifest was published by this worker.
    pub published_at: Option<Timestamp>,
    /// The last error that was retried or set aside; cleared by the next success.
    pub last_error: Option<String>,
    /// When the worker last came round its loop: an old beat is a stuck worker.
    pub beat: Timestamp,
}

impl WorkerStatus {
    /// Seconds that the oldest unpublished record has waited at `now`.
    pub fn freshness_seconds(&self, now: Timestamp) -> f64 {
        let oldest = self.oldest_unpublished.into_iter().chain(self.held_back).min();
        oldest.map_or(0.0, |oldest| now.seconds_since(oldest))
    }

    /// Records of the log that are not in the newest manifest.
    pub fn lag(&self) -> u64 {
        self.log_end.get().saturating_sub(self.next_offset.get())
    }
}
