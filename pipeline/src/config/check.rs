//! Checks every value that its type alone does not bound: ranges, combinations, duplicate names.

use std::collections::HashSet;
use std::time::Duration;

use bytesize::ByteSize;

use super::{Config, LogKind};

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Finding {
    pub(super) key: String,
    pub(super) message: String,
}

#[derive(Default)]
struct Findings(Vec<Finding>);

impl Findings {
    fn add(&mut self, key: impl Into<String>, message: impl Into<String>) {
        self.0.push(Finding { key: key.into(), message: message.into() });
    }

    fn number(&mut self, key: &str, value: u64, min: u64, max: u64) {
        if !(min..=max).contains(&value) {
            self.add(key, format!("{value} is outside {min} to {max}"));
        }
    }

    fn size(&mut self, key: &str, value: ByteSize, min: ByteSize, max: ByteSize) {
        if value < min || value > max {
            self.add(key, format!("{value} is outside {min} to {max}"));
        }
    }

    fn duration(&mut self, key: &str, value: Duration, min: Duration, max: Duration) {
        if value < min || value > max {
            let show = |d| humantime::format_duration(d).to_string();
            self.add(key, format!("{} is outside {} to {}", show(value), show(min), show(max)));
        }
    }
}

/// Everything that is wrong with `config`, in the order of its sections.
pub(super) fn findings(config: &Config) -> Vec<Finding> {
    let mut found = Findings::default();
    check_log_and_store(config, &mut found);
    check_http(config, &mut found);
    check_sizes(config, &mut found);
    check_counts(config, &mut found);
    check_times(config, &mut found);
    check_indexes(config, &mut found);
    found.0
}

fn check_log_and_store(config: &Config, found: &mut Findings) {
    if config.data_dir.as_os_str().is_empty() {
        found.add("data_dir", "is empty; give a directory");
    }
    let group = &config.log.group;
    if group.is_empty() || group.len() > 249 || group.chars().any(char::is_control) {
        found.add("log.group", "is not 1 to 249 printable characters");
    }
    if config.log.kind == LogKind::Kafka && !config.log.kafka.expose().contains_key("bootstrap.servers") {
        found.add("log.kafka", "\"bootstrap.servers\" is missing; give host:port of a broker");
    }
    let url = &config.store.url;
    if !(url.is_empty() || url.starts_with("file:///") || url.starts_with("s3://")) {
        let shown = super::without_user_info(url);
        found.add("store.url", format!("{shown:?} is neither file:///dir nor s3://bucket/prefix"));
    }
}

fn check_http(config: &Config, found: &mut Findings) {
    let http = &config.http;
    if !http.listen.ip().is_loopback() && !http.allow_unauthenticated {
        found.add(
            "http.listen",
            format!(
                "{} is not a loopback address and there is no authentication: anybody who reaches it may read, \
                 write and retire every index. Put a proxy that authenticates in front and set \
                 http.allow_unauthenticated = true",
                http.listen
            ),
        );
    }
}

fn check_sizes(config: &Config, found: &mut Findings) {
    let limits = &config.limits;
    let (kib, mib, gib) = (ByteSize::kib(1), ByteSize::mib(1), ByteSize::gib(1));
    found.size("limits.memory", limits.memory, ByteSize::mib(64), ByteSize::tib(4));
    found.size("limits.partition_reserve", limits.partition_reserve, ByteSize::b(0), gib);
    found.size("limits.max_message_bytes", limits.max_message_bytes, kib, ByteSize::mib(64));
    found.size("limits.max_metadata_bytes", limits.max_metadata_bytes, ByteSize::b(2), ByteSize::mib(16));
    found.size("limits.max_request_bytes", limits.max_request_bytes, kib, gib);
    found.size("limits.max_answer_bytes", limits.max_answer_bytes, mib, ByteSize::gib(4));
    found.size("ingest.batch_max_bytes", config.ingest.batch_max_bytes, kib, gib);
    found.size("cache.max_bytes", config.cache.max_bytes, mib, ByteSize::pib(1));
    // one message must fit what its partition may hold, beside others
    let room = ByteSize::b(limits.memory_shares().ingest as u64 / 8);
    if limits.max_message_bytes > room {
        let message =
            format!("{} needs limits.memory of at least 16 times as much", limits.max_message_bytes);
        found.add("limits.max_message_bytes", message);
    }
}

fn check_counts(config: &Config, found: &mut Findings) {
    let limits = &config.limits;
    found.number("limits.max_dimension", limits.max_dimension.into(), 2, 4096);
    found.number("limits.max_k", limits.max_k as u64, 1, 100_000);
    found.number("limits.max_ef", limits.max_ef as u64, 10, 100_000);
    found.number("limits.max_batch_searches", limits.max_batch_searches as u64, 1, 10_000);
    found.number("limits.max_publish_records", limits.max_publish_records as u64, 1, 100_000);
    found.number("limits.max_list_records", limits.max_list_records as u64, 1, 100_000);
    found.number("limits.max_connections", limits.max_connections as u64, 1, 1_000_000);
    found.number("limits.max_concurrent_searches", limits.max_concurrent_searches as u64, 1, 10_000);
    found.number("limits.max_queued_searches", limits.max_queued_searches as u64, 0, 1_000_000);
    found.number("limits.search_threads", limits.search_threads as u64, 0, 1024);
    found.number("limits.build_threads", limits.build_threads as u64, 0, 1024);
    found.number("ingest.batch_max_records", config.ingest.batch_max_records as u64, 1, 1_000_000);
    found.number("serve.parallel_loads", config.serve.parallel_loads as u64, 1, 256);
    found.number("gc.retain", config.gc.retain.into(), 1, 10_000);
}

fn check_times(config: &Config, found: &mut Findings) {
    let (ms, second, hour) = (Duration::from_millis(1), Duration::from_secs(1), Duration::from_secs(3600));
    let day = 24 * hour;
    let (limits, ingest) = (&config.limits, &config.ingest);
    found.duration("limits.query_deadline", limits.query_deadline, ms, hour);
    found.duration("limits.max_consistency_wait", limits.max_consistency_wait, Duration::ZERO, hour);
    found.duration("limits.publish_timeout", limits.publish_timeout, ms, hour);
    found.duration("ingest.discovery_interval", ingest.discovery_interval, 10 * ms, hour);
    found.duration("ingest.restart_backoff_min", ingest.restart_backoff_min, ms, hour);
    found.duration("ingest.restart_backoff_max", ingest.restart_backoff_max, ingest.restart_backoff_min, day);
    found.duration("ingest.healthy_after", ingest.healthy_after, ms, day);
    found.duration("ingest.rejoin_after", ingest.rejoin_after, second, day);
    found.duration("ingest.stuck_after", ingest.stuck_after, 10 * second, day);
    found.duration("ingest.slow_build_after", ingest.slow_build_after, second, 30 * day);
    found.duration("serve.poll_interval", config.serve.poll_interval, ms, hour);
    found.duration("serve.discovery_interval", config.serve.discovery_interval, 10 * ms, hour);
    if !config.gc.interval.is_zero() {
        found.duration("gc.interval", config.gc.interval, second, 365 * day);
    }
    found.duration("gc.grace", config.gc.grace, Duration::ZERO, 365 * day);
    found.duration("shutdown.deadline", config.shutdown.deadline, 100 * ms, hour);
}

fn check_indexes(config: &Config, found: &mut Findings) {
    let (mut names, mut topics) = (HashSet::new(), HashSet::new());
    for (i, index) in config.indexes.iter().enumerate() {
        let at = |key: &str| format!("index[{i}].{key} ({})", index.name);
        if let Err(e) = index.validate() {
            found.add(at(e.key), e.message);
        }
        if index.dimension.get() > config.limits.max_dimension as usize {
            let max = config.limits.max_dimension;
            found.add(at("dimension"), format!("{} is beyond limits.max_dimension, {max}", index.dimension));
        }
        if !names.insert(index.name.clone()) {
            found.add(at("name"), "another [[index]] has this name; names are unique");
        }
        let topic = index.topic();
        if topic.as_str().ends_with(".dead-letter") {
            found.add(at("topic"), "topics of the name *.dead-letter hold dead letters; take another name");
        }
        if !topics.insert(topic.clone()) {
            found.add(at("topic"), format!("another [[index]] reads topic {topic}; a topic feeds one index"));
        }
    }
}
