//! The local log under several processes: killed ones, and ones that write at the same time.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use futures::StreamExt;
use sluice_connectors::local::LocalLog;
use sluice_connectors::{
    BatchLimits, DecodeLimits, Decoder, Outgoing, Producer, ReadRequest, Source, TopicDeadLetters, encode,
};
use sluice_core::{
    ByteBudget, Dimension, Format, Key, Metadata, Metric, Offset, PartitionId, Record, Schema, TopicName,
    TopicPartition,
};

const DIR: &str = "SLUICE_TEST_LOCAL_DIR";
const NAME: &str = "SLUICE_TEST_LOCAL_NAME";

fn topic() -> TopicName {
    TopicName::new("packages").unwrap()
}

/// The other process: appends for ever and says what was acknowledged. Does nothing unless it is called as such.
#[tokio::test]
async fn appending_process() {
    let (Ok(dir), Ok(name)) = (std::env::var(DIR), std::env::var(NAME)) else { return };
    let log = LocalLog::open(Path::new(&dir)).await.unwrap();
    log.ensure_topic(&topic(), 2).await.unwrap();
    for number in 0u64.. {
        let message = |partition| Outgoing {
            partition: Some(PartitionId(partition)),
            ..encode::upsert(&Key::new(&format!("{name}:{number}")).unwrap(), &[1.0, 2.0], &Metadata::empty())
        };
        for placed in log.produce(&topic(), vec![message(0), message(1), message(0)]).await {
            let placed = placed.unwrap();
            println!("acked {} {} {name}:{number}", placed.partition, placed.offset);
        }
        std::io::stdout().flush().unwrap();
    }
}

fn start(dir: &Path, name: &str) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "--nocapture", "appending_process"])
        .env(DIR, dir)
        .env(NAME, name)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

type Acked = (u32, u64, String);

/// Kills `child` after `lines` acknowledgements; gives all that it made.
fn kill_after(mut child: Child, lines: usize) -> Vec<Acked> {
    let mut acked = Vec::new();
    for line in BufReader::new(child.stdout.take().unwrap()).lines() {
        let line = line.unwrap();
        let mut words = line.split(' ');
        // a line that the kill cut short acknowledges nothing
        if let (Some("acked"), Some(p), Some(o), Some(key)) =
            (words.next(), words.next(), words.next(), words.next())
            && key.contains(':')
        {
            acked.push((p.parse().unwrap(), o.parse().unwrap(), key.to_owned()));
        }
        if acked.len() == lines {
            child.kill().unwrap();
        }
    }
    child.wait().unwrap();
    acked
}

async fn read_all(log: &std::sync::Arc<LocalLog>, partition: u32) -> Vec<Record> {
    let at = TopicPartition { topic: topic(), partition: PartitionId(partition) };
    let end = log.bounds(&at).await.unwrap().end;
    let schema = Schema::new(Dimension::new(2).unwrap(), Metric::L2, Default::default());
    let request = ReadRequest {
        at,
        start: Offset(0),
        decoder: Decoder { format: Format::Auto, schema: schema.into(), limits: DecodeLimits::default() },
        budget: ByteBudget::new(16 << 20).unreserved(),
        dead_letters: std::sync::Arc::new(TopicDeadLetters::new(log.clone())),
        held_back: Default::default(),
        limits: BatchLimits::default(),
    };
    let mut stream = log.open(request).unwrap();
    let (mut records, mut reached) = (Vec::new(), Offset(0));
    while reached < end {
        let batch = stream.next().await.unwrap().unwrap();
        reached = batch.next_offset;
        records.extend(batch.records);
    }
    records
}

/// Every acknowledged message stands where it was said to, and offsets are dense.
async fn check(dir: &Path, acked: &[Acked]) {
    let log = std::sync::Arc::new(LocalLog::open(dir).await.unwrap());
    let partitions = [read_all(&log, 0).await, read_all(&log, 1).await];
    for records in &partitions {
        assert!(records.iter().zip(0..).all(|(r, i)| r.offset == Offset(i)), "offsets are dense");
    }
    for (partition, offset, key) in acked {
        assert_eq!(partitions[*partition as usize][*offset as usize].key.as_str(), key);
    }
    // a request is in the log as a whole or not at all
    assert_eq!(partitions[0].len(), 2 * partitions[1].len());
}

#[tokio::test]
async fn fold_1_acknowledged_appends_survive_kill_9() {
    let dir = tempfile::tempdir().unwrap();
    let mut acked = Vec::new();
    for round in 0..8 {
        acked.extend(kill_after(start(dir.path(), &format!("round-{round}")), 40 + 17 * round));
    }
    assert!(acked.len() > 600);
    check(dir.path(), &acked).await;
}

#[tokio::test]
async fn processes_that_append_at_once_share_the_offsets() {
    let dir = tempfile::tempdir().unwrap();
    let children = ["one", "two", "three"].map(|name| (name, start(dir.path(), name)));
    let threads = children.map(|(name, child)| (name, std::thread::spawn(move || kill_after(child, 150))));
    let mut acked = Vec::new();
    for (name, thread) in threads {
        let of_one = thread.join().unwrap();
        // the order in which one process wrote is the order in the log
        let offsets: Vec<_> = of_one.iter().filter(|(p, ..)| *p == 0).map(|(_, offset, _)| *offset).collect();
        assert!(offsets.is_sorted(), "{name}");
        acked.extend(of_one);
    }
    check(dir.path(), &acked).await;
}
