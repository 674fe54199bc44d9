//! From a user's properties to those of each client.

use std::collections::BTreeMap;

use bytesize::ByteSize;
use rdkafka::ClientConfig;

use super::error::log_error;
use crate::error::LogError;

/// Properties that the pipeline owns, and why.
pub const OWNED: &[(&str, &str)] = &[
    ("group.id", "the pipeline names its group"),
    ("enable.auto.commit", "positions are kept in manifests"),
    ("auto.commit.interval.ms", "positions are kept in manifests"),
    ("enable.auto.offset.store", "positions are kept in manifests"),
    ("offset.store.method", "positions are kept in manifests"),
    ("auto.offset.reset", "a lost position stops the partition; it is never reset in silence"),
    ("enable.partition.eof", "the pipeline judges by positions"),
    ("partition.assignment.strategy", "partitions move one by one: cooperative-sticky"),
    ("statistics.interval.ms", "the pipeline reads the ends of partitions and the state of brokers from it"),
    ("acks", "an acknowledged message is on all replicas in sync"),
    ("request.required.acks", "an acknowledged message is on all replicas in sync"),
    ("enable.idempotence", "a retry must not write a message twice"),
    ("transactional.id", "the pipeline uses no transactions"),
    ("debug", "it prints properties, secrets among them"),
    ("plugin.library.paths", "no foreign code is loaded"),
];

/// Partitions whose fetched messages fit the memory that is set aside for them.
pub(super) const PARTITIONS_IN_MEMORY: u64 = 64;

/// What the clients of one log share.
pub(super) struct KafkaConfig {
    user: BTreeMap<String, String>,
    group: String,
    memory: u64,
}

impl KafkaConfig {
    pub(super) fn new(
        properties: &BTreeMap<String, String>,
        group: &str,
        memory: ByteSize,
    ) -> Result<Self, LogError> {
        for key in properties.keys() {
            if let Some((_, why)) = OWNED.iter().find(|(owned, _)| owned == key) {
                return Err(LogError::config(key, format!("is owned by the pipeline: {why}")));
            }
        }
        if !["bootstrap.servers", "metadata.broker.list"].iter().any(|key| properties.contains_key(*key)) {
            return Err(LogError::config(
                "bootstrap.servers",
                "is missing: host:port of a broker, or several",
            ));
        }
        if group.is_empty() {
            return Err(LogError::config("group", "is empty"));
        }
        let config = Self { user: properties.clone(), group: group.to_owned(), memory: memory.as_u64() };
        // librdkafka checks keys and values without a client; the producer's are checked when it is made
        for client in [config.reader(), config.member()] {
            client.create_native_config().map_err(|e| log_error(&e))?;
        }
        Ok(config)
    }

    /// The most that one partition may hold in fetched messages.
    pub(super) fn partition_bytes(&self) -> u64 {
        (self.memory / PARTITIONS_IN_MEMORY).clamp(256 << 10, 8 << 20)
    }

    /// The client that reads partitions assigned by hand.
    pub(super) fn reader(&self) -> ClientConfig {
        // librdkafka stops fetching at the first limit, with at most one more fetch on its way
        let half = self.partition_bytes() / 2;
        let mut config = self.consumer();
        self.default(&mut config, "queued.max.messages.kbytes", half >> 10);
        self.default(&mut config, "fetch.message.max.bytes", half);
        self.default(&mut config, "fetch.max.bytes", (self.memory / 4).clamp(half.max(1 << 20), 16 << 20));
        // the default of one second would leave a partition idle whenever its small queue was full
        self.default(&mut config, "fetch.queue.backoff.ms", 10);
        // one request for all partitions of a broker is on its way at a time: one that was sent while a busy partition's
        // queue was full waits so long for the idle ones, and the busy one with it
        self.default(&mut config, "fetch.wait.max.ms", 50);
        config.set("auto.offset.reset", "error").set("statistics.interval.ms", "1000");
        config
    }

    /// The client that holds the lease; it fetches nothing.
    pub(super) fn member(&self) -> ClientConfig {
        let mut config = self.consumer();
        // the new group protocol keeps these on the broker and refuses them here
        if self.user.get("group.protocol").is_none_or(|p| p != "consumer") {
            config.set("partition.assignment.strategy", "cooperative-sticky");
            self.default(&mut config, "session.timeout.ms", 6000);
            let session = self.user.get("session.timeout.ms").and_then(|t| t.parse::<u64>().ok());
            let heartbeat = (session.unwrap_or(6000) / 3).clamp(1, 3000);
            self.default(&mut config, "heartbeat.interval.ms", heartbeat);
        }
        // topics that come later, and partitions that are added, are found by looking
        self.default(&mut config, "topic.metadata.refresh.interval.ms", 5000);
        config.set("statistics.interval.ms", "5000");
        config.set("auto.offset.reset", "latest").set("queued.max.messages.kbytes", "1");
        config
    }

    fn consumer(&self) -> ClientConfig {
        let mut config = self.client();
        config
            .set("group.id", &self.group)
            .set("enable.auto.commit", "false")
            .set("enable.auto.offset.store", "false")
            .set("enable.partition.eof", "false");
        config
    }

    pub(super) fn producer(&self) -> ClientConfig {
        let mut config = self.client();
        config.set("acks", "all").set("enable.idempotence", "true").set("statistics.interval.ms", "5000");
        if !self.user.contains_key("message.timeout.ms") {
            self.default(&mut config, "delivery.timeout.ms", 30_000);
        }
        // KEY-1: as Java clients place keys, not librdkafka's own CRC32
        self.default(&mut config, "partitioner", "murmur2_random");
        // the broker knows best what is too large
        self.default(&mut config, "message.max.bytes", 10 << 20);
        let queue = (self.memory / 4).clamp(16 << 20, 1 << 30);
        self.default(&mut config, "queue.buffering.max.kbytes", queue >> 10);
        config
    }

    /// What every client has.
    pub(super) fn client(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        for (key, value) in &self.user {
            config.set(key, value);
        }
        self.default(&mut config, "client.id", "sluice");
        self.default(&mut config, "reconnect.backoff.max.ms", 1000);
        self.default(&mut config, "socket.keepalive.enable", true);
        self.default(&mut config, "topic.metadata.propagation.max.ms", 5000);
        config
    }

    fn default(&self, config: &mut ClientConfig, key: &str, value: impl ToString) {
        if !self.user.contains_key(key) {
            config.set(key, value.to_string());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(pairs: &[(&str, &str)]) -> Result<KafkaConfig, LogError> {
        let pairs = pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        KafkaConfig::new(&pairs, "group", ByteSize::mib(64))
    }

    #[test]
    fn a_property_that_the_pipeline_owns_is_refused_by_name() {
        for (key, _) in OWNED {
            let error = config(&[("bootstrap.servers", "b:1"), (key, "x")]).err().unwrap();
            assert!(matches!(&error, LogError::Config { key: k, .. } if k == key), "{error}");
        }
    }

    #[test]
    fn a_bad_property_is_refused_by_name_and_its_value_is_not_repeated() {
        let cases =
            [("no.such.key", "canary"), ("security.protocol", "canary"), ("session.timeout.ms", "canary")];
        for (key, value) in cases {
            let error = config(&[("bootstrap.servers", "b:1"), (key, value)]).err().unwrap().to_string();
            assert!(error.contains(key), "{error}");
            assert!(!error.contains("canary"), "{error}");
        }
        assert!(config(&[]).err().unwrap().to_string().contains("bootstrap.servers"));
    }

    #[test]
    fn what_a_user_sets_stands() {
        let config = config(&[
            ("bootstrap.servers", "b:1"),
            ("session.timeout.ms", "9000"),
            ("partitioner", "consistent_random"),
            ("client.id", "mine"),
        ])
        .unwrap();
        assert_eq!(config.member().get("session.timeout.ms"), Some("9000"));
        assert_eq!(config.member().get("heartbeat.interval.ms"), Some("3000"));
        assert_eq!(config.producer().get("partitioner"), Some("consistent_random"));
        assert_eq!(config.reader().get("client.id"), Some("mine"));
    }

    #[test]
    fn the_new_group_protocol_gets_no_property_that_it_refuses() {
        let config = config(&[("bootstrap.servers", "b:1"), ("group.protocol", "consumer")]).unwrap();
        for key in ["session.timeout.ms", "heartbeat.interval.ms", "partition.assignment.strategy"] {
            assert_eq!(config.member().get(key), None, "{key}");
        }
    }

    #[test]
    fn a_busy_partition_does_not_wait_long_for_idle_ones() {
        let wait = |pairs: &[(&str, &str)]| {
            config(pairs).unwrap().reader().get("fetch.wait.max.ms").unwrap().to_owned()
        };
        assert_eq!(wait(&[("bootstrap.servers", "b:1")]), "50");
        assert_eq!(wait(&[("bootstrap.servers", "b:1"), ("fetch.wait.max.ms", "200")]), "200");
    }

    #[test]
    fn mem_1_the_queues_of_64_partitions_fit_the_memory() {
        for memory in [ByteSize::mib(16), ByteSize::mib(64), ByteSize::gib(4)] {
            let pairs = [("bootstrap.servers".to_owned(), "b:1".to_owned())].into();
            let config = KafkaConfig::new(&pairs, "group", memory).unwrap();
            assert!(config.partition_bytes() * PARTITIONS_IN_MEMORY <= memory.as_u64());
            let number = |key| config.reader().get(key).unwrap().parse::<u64>().unwrap();
            let queued = number("queued.max.messages.kbytes") << 10;
            assert!(queued + number("fetch.message.max.bytes") <= config.partition_bytes());
        }
    }
}
