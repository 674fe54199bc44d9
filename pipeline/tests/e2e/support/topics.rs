//! What an operator, or a fault, does to a topic: writes refused, records removed, partitions added.

use std::path::Path;

use rdkafka::admin::{AdminClient, AdminOptions, AlterConfig, NewTopic, ResourceSpecifier, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::{Offset, TopicPartitionList};
use rusqlite::params;

use super::log::{Log, client, open_local};

fn admin(bootstrap: &str) -> AdminClient<DefaultClientContext> {
    client(bootstrap).create().unwrap()
}

/// How much older than the broker's clock a message may be.
const MAX_AGE: &str = "message.timestamp.before.max.ms";

/// Makes `topic`, which does not exist yet, take no writes: on Kafka any message is too old for it, the local log's
/// file refuses it.
pub(crate) async fn refuse_writes(log: &Log, topic: &str) {
    match log {
        Log::Local { dir } => {
            let trigger = format!(
                "CREATE TRIGGER refuse BEFORE INSERT ON topic WHEN NEW.name = '{topic}'
                 BEGIN SELECT RAISE(ABORT, 'refused by a test'); END"
            );
            open_local(dir).execute_batch(&trigger).unwrap();
        }
        Log::Kafka { bootstrap } => {
            let wanted = NewTopic::new(topic, 1, TopicReplication::Fixed(1)).set(MAX_AGE, "0");
            let made = admin(bootstrap).create_topics([&wanted], &AdminOptions::new()).await.unwrap();
            made.into_iter().next().unwrap().unwrap();
        }
    }
}

/// The topic takes writes again.
pub(crate) async fn take_writes(log: &Log, topic: &str) {
    match log {
        Log::Local { dir } => open_local(dir).execute_batch("DROP TRIGGER refuse").unwrap(),
        Log::Kafka { bootstrap } => {
            let change = AlterConfig::new(ResourceSpecifier::Topic(topic)).set(MAX_AGE, "3600000");
            let changed = admin(bootstrap).alter_configs([&change], &AdminOptions::new()).await.unwrap();
            changed.into_iter().next().unwrap().unwrap();
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
