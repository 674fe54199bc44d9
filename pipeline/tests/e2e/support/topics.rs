//! What an operator, or a fault, does to a topic: writes refused, records removed.

use std::path::Path;

use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::{Offset, TopicPartitionList};
use rusqlite::params;

use super::broker::Broker;
use super::log::{Log, client, open_local};

fn admin(bootstrap: &str) -> AdminClient<DefaultClientContext> {
    client(bootstrap).create().unwrap()
}

/// A topic that takes no writes until this is over.
pub(crate) enum Refusal<'a> {
    /// The local log's table refuses its messages.
    Local(&'a Path),
    /// The one node that holds it is down.
    Node(&'a Broker, u16),
}

impl Refusal<'_> {
    /// Makes `topic`, which must not exist yet, take no writes.
    pub(crate) async fn begin(&self, topic: &str) {
        match self {
            Self::Local(dir) => {
                let trigger = format!(
                    "CREATE TRIGGER refuse BEFORE INSERT ON topic WHEN NEW.name = '{topic}'
                     BEGIN SELECT RAISE(ABORT, 'refused by a test'); END"
                );
                open_local(dir).execute_batch(&trigger).unwrap();
            }
            Self::Node(broker, node) => {
                let alone = [i32::from(*node)];
                let places: [&[i32]; 1] = [&alone];
                let topic = NewTopic::new(topic, 1, TopicReplication::Variable(&places));
                let options = AdminOptions::new();
                let done = admin(&broker.bootstrap()).create_topics([&topic], &options).await.unwrap();
                done.into_iter().next().unwrap().unwrap();
                broker.call_node("kill", *node);
            }
        }
    }

    /// The topic takes writes again.
    pub(crate) fn end(&self) {
        match self {
            Self::Local(dir) => open_local(dir).execute_batch("DROP TRIGGER refuse").unwrap(),
            Self::Node(broker, node) => broker.call_node("start", *node),
        }
    }
}

/// Removes what `partition` holds before `offset`, as retention does.
pub(crate) async fn truncate(log: &Log, topic: &str, partition: u32, offset: u64) {
    match log {
        Log::Local { dir } => truncate_local(dir, topic, partition, offset),
        Log::Kafka { bootstrap } => {
            let mut list = TopicPartitionList::new();
            let (number, before) = (i32::try_from(partition).unwrap(), i64::try_from(offset).unwrap());
            list.add_partition_offset(topic, number, Offset::Offset(before)).unwrap();
            let done = admin(bootstrap).delete_records(&list, &AdminOptions::new()).await.unwrap();
            for element in done.elements() {
                element.error().unwrap();
            }
        }
    }
}

fn truncate_local(dir: &Path, topic: &str, partition: u32, offset: u64) {
    let connection = open_local(dir);
    let of = "(SELECT slot FROM partition JOIN topic ON topic.id = topic WHERE name = ?1 AND number = ?2)";
    let place = params![topic, partition, i64::try_from(offset).unwrap()];
    connection
        .execute(
            &format!("DELETE FROM message WHERE place >> 40 = {of} AND place & ((1 << 40) - 1) < ?3"),
            place,
        )
        .unwrap();
    connection.execute(&format!("UPDATE partition SET start = ?3 WHERE slot = {of}"), place).unwrap();
}
