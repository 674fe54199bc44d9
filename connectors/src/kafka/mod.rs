//! Apache Kafka as a log, by librdkafka.
//!
//! # Clients
//! A process has up to three: a *reader* (no group membership: partitions are assigned by hand at the offsets of the
//! manifests, each with a queue and a thread of its own), a *member* (subscribes, its partitions paused: it only
//! holds the lease and commits the advisory offsets) and a *producer*, which also answers questions about topics.
//! Reader and member are made when they are first needed. None of them needs a broker to start.
//!
//! # Properties
//! What a user sets goes to librdkafka as it stands, except what the pipeline owns ([`config::OWNED`]), which is
//! refused by name. What the pipeline sets unless the user does is in `config.rs`.
//!
//! # Memory
//! A partition that is not read costs at most its share of `memory`, a 64th part (but 256 KiB to 8 MiB), in fetched
//! messages; so up to 64 open partitions stay within `memory`, and a process that opens more says so once. The
//! producer holds at most a quarter of `memory` in unsent messages.
//!
//! # Outages
//! Lost brokers are logged once when they go and once when they are back; streams and membership go on by
//! themselves. A delivery fails after `delivery.timeout.ms` (30 s unless set).

mod admin;
mod client;
pub mod config;
mod error;
mod membership;
mod partition;
mod producer;
mod reader;

use std::collections::BTreeMap;
use std::sync::Arc;

use bytesize::ByteSize;

use crate::error::LogError;
use crate::log::Log;

use admin::Topics;
use config::KafkaConfig;
use membership::KafkaMembership;
use producer::KafkaProducer;
use reader::KafkaSource;

/// A Kafka cluster, seen as one group.
pub struct KafkaLog {
    source: Arc<KafkaSource>,
    producer: Arc<KafkaProducer>,
    membership: Arc<KafkaMembership>,
}

impl KafkaLog {
    /// Checks the properties and makes the producer; waits for no broker.
    ///
    /// # Errors
    /// `Config` with the property that is refused, by us or by librdkafka.
    pub fn open(
        properties: &BTreeMap<String, String>,
        group: &str,
        memory: ByteSize,
    ) -> Result<Self, LogError> {
        let config = Arc::new(KafkaConfig::new(properties, group, memory)?);
        let topics = Arc::new(Topics::new(&config)?);
        let producer = Arc::new(KafkaProducer::new(Arc::clone(&config), Arc::clone(&topics))?);
        let source = Arc::new(KafkaSource::new(Arc::clone(&config), topics));
        let membership = Arc::new(KafkaMembership::new(config));
        Ok(Self { source, producer, membership })
    }

    /// Its faces.
    pub fn faces(self: Arc<Self>) -> Log {
        Log {
            source: Arc::clone(&self.source) as _,
            producer: Arc::clone(&self.producer) as _,
            membership: Arc::clone(&self.membership) as _,
        }
    }
}
