//! Whether producers place keys alike: the newest records of a topic are read, and their partitions compared.

use std::sync::Arc;

use async_trait::async_trait;
use futures::StreamExt;
use sluice_connectors::partitioner::partition_of;
use sluice_connectors::{
    BatchLimits, DeadLetter, DeadLetters, DecodeLimits, Decoder, Log, LogError, ReadRequest,
};
use sluice_core::{ByteBudget, IndexSpec, Offset, PartitionId, TopicPartition};

use super::{Examination, within};
use crate::config::Config;

/// Offsets that are looked at of each partition.
const NEWEST: u64 = 100;
/// Partitions that are looked at.
const PARTITIONS: u32 = 8;
/// Bytes of messages in memory; one partition is read at a time.
const MEMORY: usize = 64 << 20;

const ADVICE: &str = "a key that is written by two rules lives in two partitions (sluice_key_conflicts_total counts \
                      such keys): set partitioner=murmur2_random in kcat, confluent-kafka and other librdkafka \
                      producers; Java clients, Connect and Sluice place keys so by themselves";

/// Keys that were looked at, and those that murmur2 would have placed elsewhere.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
struct Sample {
    keys: u64,
    elsewhere: u64,
}

/// Adds what it finds to `exam`; says nothing where there is nothing to compare.
pub(super) async fn check(config: &Config, log: &Log, spec: &IndexSpec, exam: &mut Examination) {
    let name = format!("placement of keys in {}", spec.topic());
    let own = config.log.kafka.expose().get("partitioner");
    if let Some(own) = own.filter(|own| !own.starts_with("murmur2")) {
        let found = format!("log.kafka has partitioner = {own}: Sluice writes keys by that rule");
        exam.warning(name, found, "every producer of its topics must be set to the same rule");
        return;
    }
    if spec.partitions < 2 {
        return;
    }
    match within(sample(config, log, spec)).await {
        Ok(Sample { keys: 0, .. }) => {}
        Ok(Sample { keys, elsewhere: 0 }) => {
            exam.ok(name, format!("the newest {keys} keys are where murmur2 places them"));
        }
        Ok(Sample { keys, elsewhere }) => {
            let found = format!("{elsewhere} of the newest {keys} keys are not where murmur2 places them");
            exam.warning(name, found, ADVICE);
        }
        Err(error) => exam.warning(name, error, "check the log's permissions: it could not be read"),
    }
}

async fn sample(config: &Config, log: &Log, spec: &IndexSpec) -> Result<Sample, LogError> {
    let mut sample = Sample::default();
    for partition in (0..spec.partitions.min(PARTITIONS)).map(PartitionId) {
        let at = TopicPartition { topic: spec.topic(), partition };
        let bounds = match log.source.bounds(&at).await {
            Err(LogError::UnknownTopic(_) | LogError::UnknownPartition(_)) => continue,
            bounds => bounds?,
        };
        let start = bounds.start.max(Offset(bounds.end.get().saturating_sub(NEWEST)));
        if start >= bounds.end {
            continue;
        }
        let mut batches = log.source.open(request(config, spec, at, start))?;
        while let Some(batch) = batches.next().await {
            let batch = batch?;
            for record in &batch.records {
                let place = partition_of(record.key.as_str().as_bytes(), spec.partitions);
                sample.keys += 1;
                sample.elsewhere += u64::from(place != partition);
            }
            if batch.next_offset >= bounds.end {
                break;
            }
        }
    }
    Ok(sample)
}

fn request(config: &Config, spec: &IndexSpec, at: TopicPartition, start: Offset) -> ReadRequest {
    let bytes = |size: bytesize::ByteSize| usize::try_from(size.as_u64()).unwrap_or(usize::MAX);
    ReadRequest {
        at,
        start,
        decoder: Decoder {
            format: spec.format,
            schema: Arc::new(spec.schema()),
            limits: DecodeLimits {
                max_message_bytes: bytes(config.limits.max_message_bytes),
                max_metadata_bytes: bytes(config.limits.max_metadata_bytes),
            },
        },
        budget: ByteBudget::new(MEMORY).unreserved(),
        dead_letters: Arc::new(Passed),
        held_back: Default::default(),
        limits: BatchLimits::default(),
    }
}

/// Leaves bad messages to the indexer, which reads them too.
struct Passed;

#[async_trait]
impl DeadLetters for Passed {
    async fn store(&self, _: Vec<DeadLetter>) -> Result<(), LogError> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use sluice_connectors::Outgoing;

    use super::*;
    use crate::config::{Environment, Flags, TomlText, load_texts};

    fn config(dir: &std::path::Path, more: &str) -> Config {
        let text = format!(
            "data_dir = {:?}\n{more}\n[[index]]\nname = 'docs'\ndimension = 2\npartitions = 4\n",
            dir.display().to_string()
        );
        load_texts(vec![TomlText::new("t", text)], Environment::from_pairs([]), Flags::default()).unwrap()
    }

    fn message(key: &str, partition: Option<PartitionId>) -> Outgoing {
        let value = Some(br#"{"vector":[1,0]}"#.to_vec());
        Outgoing { key: Some(key.into()), value, partition, headers: Vec::new() }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn key_1_a_producer_that_places_keys_otherwise_is_told_with_what_to_set() {
        let dir = tempfile::tempdir().unwrap();
        let config = config(dir.path(), "");
        let spec = &config.indexes[0];
        let log = Log::open(&config.log_config()).await.unwrap();
        let told = async || {
            let mut exam = Examination::default();
            check(&config, &log, spec, &mut exam).await;
            serde_json::to_value(&exam).unwrap()["checks"].clone()
        };
        assert_eq!(told().await, serde_json::json!([]), "there is no topic yet");
        log.producer.ensure_topic(&spec.topic(), 4).await.unwrap();
        assert_eq!(told().await, serde_json::json!([]), "and nothing in it");
        let alike = (0..40).map(|i| message(&format!("k{i}"), None)).collect();
        log.producer.produce(&spec.topic(), alike).await;
        assert_eq!(told().await[0]["verdict"], "ok");
        let all_in_one = (0..10).map(|i| message(&format!("k{i}"), Some(PartitionId(2)))).collect();
        log.producer.produce(&spec.topic(), all_in_one).await;
        let told = told().await;
        assert_eq!(told[0]["verdict"], "warning", "{told}");
        assert!(told[0]["advice"].as_str().unwrap().contains("partitioner=murmur2_random"), "{told}");
    }

    #[tokio::test]
    async fn a_partitioner_of_ones_own_is_told_without_reading() {
        let dir = tempfile::tempdir().unwrap();
        let kafka = "[log.kafka]\n'bootstrap.servers' = 'nowhere:1'\npartitioner = 'consistent_random'";
        let config = config(dir.path(), kafka);
        let log = Log::open(&config.log_config()).await.unwrap();
        let mut exam = Examination::default();
        check(&config, &log, &config.indexes[0], &mut exam).await;
        let found = &exam.checks[0].found;
        assert!(found.contains("consistent_random"), "{found}");
    }
}
