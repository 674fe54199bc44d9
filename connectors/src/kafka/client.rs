//! What every client reports: log lines, outages, the ends of partitions.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::ConsumerContext;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::statistics::Statistics;
use sluice_core::{Offset, TopicPartition};
use tracing::{debug, error, info, warn};

use crate::metrics;

/// How long a facility of librdkafka is quiet after a line in the log.
const QUIET: Duration = Duration::from_secs(60);

/// The context of a client that needs nothing but reports.
pub(super) struct Reports {
    client: &'static str,
    down: AtomicBool,
    /// When each facility of librdkafka was last given a line of the log.
    lines: Mutex<HashMap<String, Instant>>,
    /// Ends of partitions by topic and number, as the statistics told them.
    ends: Mutex<HashMap<String, HashMap<i32, i64>>>,
}

impl Reports {
    pub(super) fn new(client: &'static str) -> Self {
        Self { client, down: AtomicBool::new(false), lines: Mutex::default(), ends: Mutex::default() }
    }

    /// Notes an error that the client outlives: logged when the state changes, counted always.
    pub(super) fn outlived(&self, error: &KafkaError, reason: &str) {
        metrics::kafka_error(error.rdkafka_error_code().map_or_else(|| "other".into(), |c| format!("{c:?}")));
        if error.rdkafka_error_code() == Some(RDKafkaErrorCode::AllBrokersDown) {
            if !self.down.swap(true, Ordering::Relaxed) {
                warn!(client = self.client, reason, "no kafka broker answers, waiting for one");
            }
        } else {
            debug!(client = self.client, %error, reason, "kafka error, the client goes on");
        }
    }

    /// Notes that a broker answered.
    pub(super) fn answered(&self) {
        if self.down.load(Ordering::Relaxed) && self.down.swap(false, Ordering::Relaxed) {
            info!(client = self.client, "kafka answers again");
        }
    }

    /// Whether `facility` had no line of late: some repeat theirs many times a second.
    fn may_speak(&self, facility: &str) -> bool {
        let mut lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        let recent = lines.get(facility).is_some_and(|last| last.elapsed() < QUIET);
        if !recent {
            lines.insert(facility.to_owned(), Instant::now());
        }
        !recent
    }

    /// The end of `at` as last told.
    pub(super) fn end(&self, at: &TopicPartition) -> Option<Offset> {
        let ends = self.ends.lock().unwrap_or_else(PoisonError::into_inner);
        let end = *ends.get(at.topic.as_str())?.get(&i32::try_from(at.partition.get()).ok()?)?;
        u64::try_from(end).ok().map(Offset)
    }
}

impl ClientContext for Reports {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        // connections that fail are told as state changes; properties of another kind of client do no harm
        let routine = matches!(facility, "FAIL" | "CONFWARN" | "ERROR" | "MAXPOLL" | "GETPID" | "SESSTMOUT");
        let serious =
            !matches!(level, RDKafkaLogLevel::Notice | RDKafkaLogLevel::Info | RDKafkaLogLevel::Debug);
        match level {
            _ if routine || !serious || !self.may_speak(facility) => {
                debug!(client = self.client, facility, message, "librdkafka")
            }
            RDKafkaLogLevel::Emerg | RDKafkaLogLevel::Alert | RDKafkaLogLevel::Critical => {
                error!(client = self.client, facility, message, "librdkafka");
            }
            _ => warn!(client = self.client, facility, message, "librdkafka"),
        }
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.outlived(&error, reason);
    }

    fn stats(&self, statistics: Statistics) {
        if statistics.brokers.values().any(|broker| broker.state == "UP" && broker.nodeid >= 0) {
            self.answered();
        }
        let mut ends = self.ends.lock().unwrap_or_else(PoisonError::into_inner);
        for (name, topic) in statistics.topics {
            let known = ends.entry(name).or_default();
            known.extend(
                topic.partitions.iter().filter(|(_, p)| p.hi_offset >= 0).map(|(n, p)| (*n, p.hi_offset)),
            );
        }
    }
}

impl ConsumerContext for Reports {}
