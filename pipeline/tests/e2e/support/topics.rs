//! What an operator, or a fault, does to a topic: writes refused, records removed.

use std::path::Path;

use rdkafka::admin::{AdminClient, AdminOptions};
use rdkafka::client::DefaultClientContext;
use rdkafka::{Offset, TopicPartitionList};
use rusqlite::params;

use super::log::{Log, client, open_local};

fn admin(bootstrap: &str) -> AdminClient<DefaultClientContext> {
    client(bootstrap).create().unwrap()
}

/// The directory of a local log: one real broker has no way to refuse one topic for a while.
fn local(log: &Log) -> &Path {
    match log {
        Log::Local { dir } => dir,
        Log::Kafka { .. } => panic!("only the local log refuses writes to one topic"),
    }
}

/// Makes `topic`, which need not exist yet, take no writes.
pub(crate) fn refuse_writes(log: &Log, topic: &str) {
    let trigger = format!(
        "CREATE TRIGGER refuse BEFORE INSERT ON topic WHEN NEW.name = '{topic}'
         BEGIN SELECT RAISE(ABORT, 'refused by a test'); END"
    );
    open_local(local(log)).execute_batch(&trigger).unwrap();
}

/// The topic takes writes again.
pub(crate) fn take_writes(log: &Log) {
    open_local(local(log)).execute_batch("DROP TRIGGER refuse").unwrap();
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
