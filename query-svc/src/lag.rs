//! How far snapshots are behind the log, from what the log says about its ends.
//!
//! Asked for status only, never by a search. An answer is remembered for a second, a refusal too, so that a log
//! that is away costs little and blocks nobody.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use futures::stream::{self, StreamExt};
use sluice_connectors::{LogBounds, Source};
use sluice_core::{Clock, Offset, Timestamp, TopicPartition};
use tokio::sync::Mutex;
use tokio::time::{Instant, timeout};

/// How long an answer is good for.
const FRESH: Duration = Duration::from_secs(1);
/// Longest wait for one partition's bounds.
const PATIENCE: Duration = Duration::from_millis(500);
/// Partitions asked for at once.
const PARALLEL: usize = 64;
/// Remembered ends of the log per partition: one a second at most, so about two minutes.
const SAMPLES: usize = 128;
/// Partitions remembered; beyond it the oldest answers go.
const MAX_PARTITIONS: usize = 16 * 1024;

/// How far one partition is behind.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Lag {
    pub(crate) bounds: LogBounds,
    pub(crate) records: u64,
    pub(crate) seconds: Option<f64>,
}

#[derive(Debug)]
struct Known {
    asked: Instant,
    bounds: Option<LogBounds>,
    /// (when, end of the log), oldest first.
    ends: VecDeque<(Timestamp, Offset)>,
}

/// The remembered bounds of all partitions.
pub(crate) struct LagMeter {
    source: Option<Arc<dyn Source>>,
    clock: Arc<dyn Clock>,
    known: Mutex<BTreeMap<TopicPartition, Known>>,
}

impl LagMeter {
    pub(crate) fn new(source: Option<Arc<dyn Source>>, clock: Arc<dyn Clock>) -> Self {
        Self { source, clock, known: Mutex::default() }
    }

    /// The lag of each partition, given the first offset that is not in its snapshot and the timestamp of the last
    /// record that is. `None` where the log does not say.
    pub(crate) async fn measure(
        &self,
        wanted: &[(TopicPartition, Offset, Option<Timestamp>)],
    ) -> Vec<Option<Lag>> {
        let Some(source) = &self.source else { return vec![None; wanted.len()] };
        let mut known = self.known.lock().await;
        let old: Vec<TopicPartition> = wanted
            .iter()
            .map(|(at, ..)| at)
            .filter(|at| known.get(*at).is_none_or(|k| k.asked.elapsed() >= FRESH))
            .cloned()
            .collect();
        let asked = stream::iter(old).map(|at| async move {
            let bounds = timeout(PATIENCE, source.bounds(&at)).await.ok().and_then(Result::ok);
            (at, bounds)
        });
        // a log that is away is found out by the first few: all together wait no longer than twice that
        let until = Instant::now() + 2 * PATIENCE;
        let mut asked = std::pin::pin!(asked.buffer_unordered(PARALLEL));
        while let Ok(Some((at, bounds))) = tokio::time::timeout_at(until, asked.next()).await {
            remember(&mut known, at, bounds, self.clock.now());
        }
        let now = self.clock.now();
        wanted.iter().map(|(at, next, last)| known.get(at)?.lag(*next, *last, now)).collect()
    }
}

fn remember(
    known: &mut BTreeMap<TopicPartition, Known>,
    at: TopicPartition,
    bounds: Option<LogBounds>,
    now: Timestamp,
) {
    if known.len() >= MAX_PARTITIONS && !known.contains_key(&at) {
        known.retain(|_, k| k.asked.elapsed() < FRESH);
    }
    let asked = Instant::now();
    let entry = known.entry(at).or_insert_with(|| Known { asked, bounds, ends: VecDeque::new() });
    (entry.asked, entry.bounds) = (asked, bounds);
    if let Some(bounds) = bounds {
        if entry.ends.len() == SAMPLES {
            entry.ends.pop_front();
        }
        entry.ends.push_back((now, bounds.end));
    }
}

impl Known {
    fn lag(&self, next: Offset, last: Option<Timestamp>, now: Timestamp) -> Option<Lag> {
        let bounds = self.bounds?;
        let records = bounds.end.get().saturating_sub(next.get().max(bounds.start.get()));
        let seconds = if records == 0 { Some(0.0) } else { self.seconds(next, last, now) };
        Some(Lag { bounds, records, seconds })
    }

    /// An upper bound: whatever is missing came after the last time at which nothing was missing, and is no older
    /// than the last record of the snapshot.
    fn seconds(&self, next: Offset, last: Option<Timestamp>, now: Timestamp) -> Option<f64> {
        let level = self.ends.iter().rev().find(|(_, end)| *end <= next).map(|(at, _)| *at);
        level.max(last).map(|since| now.seconds_since(since))
    }
}

#[cfg(test)]
mod tests {
    use sluice_connectors::{BatchStream, LogError, ReadRequest};

    use super::*;

    fn known(ends: &[(i64, u64)]) -> Known {
        let end = ends.last().map_or(0, |(_, end)| *end);
        Known {
            asked: Instant::now(),
            bounds: Some(LogBounds { start: Offset(0), end: Offset(end) }),
            ends: ends.iter().map(|(at, end)| (Timestamp(*at), Offset(*end))).collect(),
        }
    }

    #[tokio::test]
    async fn lag_in_seconds_counts_from_the_last_moment_without_lag() {
        let known = known(&[(1000, 5), (2000, 8), (3000, 20)]);
        let lag = known.lag(Offset(10), None, Timestamp(9000)).unwrap();
        assert_eq!((lag.records, lag.seconds), (10, Some(7.0)));
        let lag = known.lag(Offset(10), Some(Timestamp(8000)), Timestamp(9000)).unwrap();
        assert_eq!(lag.seconds, Some(1.0));
        assert_eq!(known.lag(Offset(2), None, Timestamp(9000)).unwrap().seconds, None);
        assert_eq!(known.lag(Offset(20), None, Timestamp(9000)).unwrap().seconds, Some(0.0));
    }

    #[tokio::test]
    async fn without_a_log_the_lag_is_unknown() {
        let meter = LagMeter::new(None, Arc::new(sluice_core::SystemClock));
        let at = TopicPartition {
            topic: sluice_core::TopicName::new("a").unwrap(),
            partition: sluice_core::PartitionId(0),
        };
        assert_eq!(meter.measure(&[(at, Offset(0), None)]).await, [None]);
    }

    /// Counts questions and answers none.
    #[derive(Default)]
    struct Silent(std::sync::atomic::AtomicUsize);

    #[async_trait::async_trait]
    impl Source for Silent {
        async fn partitions(&self, _: &sluice_core::TopicName) -> Result<Option<u32>, LogError> {
            std::future::pending().await
        }

        async fn bounds(&self, _: &TopicPartition) -> Result<LogBounds, LogError> {
            self.0.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            std::future::pending().await
        }

        fn open(&self, _: ReadRequest) -> Result<BatchStream, LogError> {
            Err(LogError::Closed("the silent log"))
        }
    }

    #[tokio::test]
    async fn a_log_that_does_not_answer_is_given_up_and_asked_again_only_later() {
        let silent = Arc::new(Silent::default());
        let meter = LagMeter::new(Some(Arc::clone(&silent) as _), Arc::new(sluice_core::SystemClock));
        let topic = sluice_core::TopicName::new("a").unwrap();
        let at = |p| TopicPartition { topic: topic.clone(), partition: sluice_core::PartitionId(p) };
        let wanted: Vec<_> = (0..8).map(|p| (at(p), Offset(0), None)).collect();
        let ask = || timeout(Duration::from_secs(60), meter.measure(&wanted));
        assert_eq!(ask().await.unwrap(), [None; 8]);
        assert_eq!(ask().await.unwrap(), [None; 8]);
        assert!(silent.0.load(std::sync::atomic::Ordering::Relaxed) <= 16);
    }
}
