//! Where a bad message goes: a topic beside its own, with its reason, its place and its bytes.
//!
//! A dead letter keeps the key, the value and the headers of the message, and adds `sluice.topic`,
//! `sluice.partition`, `sluice.offset`, `sluice.reason` (a [`RejectCode`](crate::RejectCode)) and `sluice.detail`. A
//! value beyond 1 MiB, or beyond what the log takes, is cut, and `sluice.truncated` then holds its true length.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use sluice_core::{Backoff, Offset, TopicName, TopicPartition};
use tracing::{info, warn};

use crate::decode::Reject;
use crate::error::LogError;
use crate::metrics::Level;
use crate::source::{Outgoing, Producer};

/// A message that could not be decoded or validated.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeadLetter {
    pub at: TopicPartition,
    pub offset: Offset,
    pub reject: Reject,
    pub key: Option<Vec<u8>>,
    pub value: Option<Vec<u8>>,
    pub headers: Vec<(String, Vec<u8>)>,
}

impl DeadLetter {
    /// Bytes that this letter is charged for until it is stored; twice its own, since it is copied once to be
    /// produced.
    pub(crate) fn bytes(&self) -> usize {
        let len = |bytes: &Option<Vec<u8>>| bytes.as_ref().map_or(0, Vec::len);
        let headers: usize = self.headers.iter().map(|(name, value)| name.len() + value.len() + 48).sum();
        2 * (len(&self.key) + len(&self.value) + headers) + 512
    }
}

/// Keeps dead letters.
#[async_trait]
pub trait DeadLetters: Send + Sync {
    /// Returns when every letter is durable. Waits out an outage, so it may be pending for long: dropping the
    /// future gives up.
    ///
    /// # Errors
    /// `DeadLettersRefused`, when the log refuses for good. Some letters may be stored then; those that are stored
    /// again later are doubles, none is lost.
    async fn store(&self, letters: Vec<DeadLetter>) -> Result<(), LogError>;
}

/// Dead letters in the topic `{topic}.dead-letter` of the same log, which is created when it is first needed.
pub struct TopicDeadLetters {
    producer: Arc<dyn Producer>,
    ensured: Mutex<HashSet<TopicName>>,
}

/// How much of a message is kept; the next smaller size is tried when the log finds the letter too large.
const SIZES: [Size; 3] = [
    Size { value: 1 << 20, key: usize::MAX, headers: true },
    Size { value: 256 << 10, key: usize::MAX, headers: true },
    Size { value: 0, key: 4096, headers: false },
];

#[derive(Clone, Copy)]
struct Size {
    value: usize,
    key: usize,
    headers: bool,
}

const BACKOFF: Backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(5));

impl TopicDeadLetters {
    pub fn new(producer: Arc<dyn Producer>) -> Self {
        Self { producer, ensured: Mutex::default() }
    }

    /// The dead-letter topic of `topic`.
    ///
    /// # Errors
    /// When the name would be too long for a topic.
    pub fn topic_of(topic: &TopicName) -> Result<TopicName, LogError> {
        TopicName::new(&format!("{topic}.dead-letter")).map_err(|e| LogError::config("topic", e.to_string()))
    }

    async fn ensure(&self, topic: &TopicName) -> Result<(), LogError> {
        if self.ensured().contains(topic) {
            return Ok(());
        }
        self.producer.ensure_topic(topic, 1).await?;
        self.ensured().insert(topic.clone());
        Ok(())
    }

    fn ensured(&self) -> std::sync::MutexGuard<'_, HashSet<TopicName>> {
        self.ensured.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Produces `pending` once; returns those that have to be tried again, and why.
    async fn attempt(
        &self,
        topic: &TopicName,
        pending: Vec<(DeadLetter, usize)>,
    ) -> Result<(Vec<(DeadLetter, usize)>, Option<LogError>), LogError> {
        match self.ensure(topic).await {
            Ok(()) => {}
            Err(error) if error.is_permanent() => return Err(error),
            Err(error) => return Ok((pending, Some(error))),
        }
        let messages = pending.iter().map(|(letter, size)| outgoing(letter, SIZES[*size])).collect();
        let results = self.producer.produce(topic, messages).await;
        let (mut left, mut why) = (Vec::new(), None);
        for ((letter, size), result) in pending.into_iter().zip(results) {
            match result {
                Ok(_) => {}
                Err(LogError::TooLarge { .. }) if size + 1 < SIZES.len() => left.push((letter, size + 1)),
                Err(error) if error.is_permanent() => return Err(error),
                Err(error) => {
                    if matches!(error, LogError::UnknownTopic(_)) {
                        self.ensured().remove(topic);
                    }
                    left.push((letter, size));
                    why = Some(error);
                }
            }
        }
        Ok((left, why))
    }
}

#[async_trait]
impl DeadLetters for TopicDeadLetters {
    async fn store(&self, letters: Vec<DeadLetter>) -> Result<(), LogError> {
        let Some(at) = letters.first().map(|l| l.at.clone()) else { return Ok(()) };
        let topic = Self::topic_of(&at.topic)?;
        let mut pending: Vec<_> = letters.into_iter().map(|letter| (letter, 0)).collect();
        let (mut retry, mut waiting) = (BACKOFF.start(), None);
        loop {
            let refused = |error: LogError| {
                let (at, topic, reason) = (at.clone(), topic.clone(), error.to_string());
                LogError::DeadLettersRefused { at, topic, reason }
            };
            let (left, why) = self.attempt(&topic, pending).await.map_err(refused)?;
            pending = left;
            if pending.is_empty() {
                if waiting.is_some() {
                    info!(partition = %at, %topic, "dead letters are stored again");
                }
                return Ok(());
            }
            // letters that were merely cut go on at once
            let Some(error) = why else { continue };
            if waiting.is_none() {
                warn!(partition = %at, %topic, %error, "dead letters cannot be stored, the partition waits");
                waiting = Some(Level::dead_letters_waiting());
            }
            retry.wait().await;
        }
    }
}

fn outgoing(letter: &DeadLetter, size: Size) -> Outgoing {
    let cut = |bytes: &Vec<u8>, max: usize| bytes.iter().copied().take(max).collect::<Vec<u8>>();
    let mut headers = if size.headers { letter.headers.clone() } else { Vec::new() };
    let mut add = |name: &str, value: String| headers.push((name.to_owned(), value.into_bytes()));
    add("sluice.topic", letter.at.topic.to_string());
    add("sluice.partition", letter.at.partition.to_string());
    add("sluice.offset", letter.offset.to_string());
    add("sluice.reason", letter.reject.code.to_string());
    add("sluice.detail", letter.reject.detail.clone());
    if let Some(value) = letter.value.as_ref().filter(|v| v.len() > size.value) {
        add("sluice.truncated", value.len().to_string());
    }
    Outgoing {
        key: letter.key.as_ref().map(|key| cut(key, size.key)),
        value: letter.value.as_ref().map(|value| cut(value, size.value)),
        headers,
        partition: None,
    }
}

#[cfg(test)]
mod tests {
    use sluice_core::PartitionId;

    use super::*;
    use crate::decode::RejectCode;
    use crate::source::Placed;

    /// Takes messages of at most `max` bytes, after it has failed `outages` times; with a refusal it takes none.
    struct Flaky {
        max: usize,
        refusal: Option<LogError>,
        may_create: bool,
        outages: Mutex<usize>,
        stored: Mutex<Vec<Outgoing>>,
    }

    #[async_trait]
    impl Producer for Flaky {
        async fn produce(&self, _: &TopicName, messages: Vec<Outgoing>) -> Vec<Result<Placed, LogError>> {
            let down = {
                let mut outages = self.outages.lock().unwrap();
                let down = *outages > 0;
                *outages = outages.saturating_sub(1);
                down
            };
            let placed = Placed { partition: PartitionId(0), offset: Offset(0) };
            let one = |message: Outgoing| {
                let bytes = message.value.as_ref().map_or(0, Vec::len);
                if down {
                    return Err(LogError::Unavailable("down".into()));
                }
                if let Some(refusal) = &self.refusal {
                    return Err(refusal.clone());
                }
                if bytes > self.max {
                    return Err(LogError::TooLarge { bytes });
                }
                self.stored.lock().unwrap().push(message);
                Ok(placed)
            };
            messages.into_iter().map(one).collect()
        }

        async fn ensure_topic(&self, _: &TopicName, partitions: u32) -> Result<u32, LogError> {
            match self.may_create {
                true => Ok(partitions),
                false => Err(LogError::Refused("topic authorization failed".into())),
            }
        }
    }

    fn letter(value: usize) -> DeadLetter {
        let topic = TopicName::new("packages").unwrap();
        DeadLetter {
            at: TopicPartition { topic, partition: PartitionId(3) },
            offset: Offset(42),
            reject: Reject { code: RejectCode::Dimension, detail: "two".into() },
            key: Some(b"k".to_vec()),
            value: Some(vec![7; value]),
            headers: vec![("trace".into(), b"x".to_vec())],
        }
    }

    fn flaky(max: usize, outages: usize) -> Arc<Flaky> {
        Arc::new(Flaky { max, outages: Mutex::new(outages), ..unwilling(None, true) })
    }

    fn unwilling(refusal: Option<LogError>, may_create: bool) -> Flaky {
        let (outages, stored) = (Mutex::default(), Mutex::default());
        Flaky { max: usize::MAX, refusal, may_create, outages, stored }
    }

    fn header(message: &Outgoing, name: &str) -> Option<String> {
        let value = message.headers.iter().find(|(n, _)| n == name)?;
        Some(String::from_utf8(value.1.clone()).unwrap())
    }

    #[tokio::test]
    async fn liv_1_an_outage_is_waited_out_and_nothing_is_dropped() {
        let log = flaky(usize::MAX, 3);
        TopicDeadLetters::new(log.clone()).store(vec![letter(10), letter(20)]).await.unwrap();
        let stored = log.stored.lock().unwrap();
        assert_eq!(stored.len(), 2);
        assert_eq!(stored[0].key.as_deref(), Some(b"k".as_slice()));
        assert_eq!(stored[0].value, Some(vec![7; 10]));
        let names = ["sluice.topic", "sluice.partition", "sluice.offset", "sluice.reason", "trace"];
        let values = names.map(|n| header(&stored[0], n).unwrap());
        assert_eq!(values, ["packages", "3", "42", "dimension", "x"]);
    }

    #[tokio::test]
    async fn liv_1_a_refusal_for_good_is_told_at_once_and_says_what_to_do() {
        let refused = |text: &str| Some(LogError::Refused(text.into()));
        for (log, reason) in [
            (unwilling(refused("no write permission"), true), "no write permission"),
            (unwilling(None, false), "topic authorization failed"),
            (unwilling(Some(LogError::TooLarge { bytes: 5000 }), true), "5000 bytes"),
        ] {
            let letters = TopicDeadLetters::new(Arc::new(log));
            let stored = tokio::time::timeout(Duration::from_secs(60), letters.store(vec![letter(10)]));
            let error = stored.await.unwrap().unwrap_err();
            assert_eq!(error.kind(), sluice_core::ErrorKind::Invalid, "the supervisor parks the partition");
            let text = error.to_string();
            for part in ["packages/3", "packages.dead-letter", reason, "restart"] {
                assert!(text.contains(part), "{part}: {text}");
            }
        }
    }

    #[tokio::test]
    async fn a_letter_that_is_too_large_is_cut_until_it_fits() {
        for (max, value, kept) in [(2 << 20, 3 << 20, 1 << 20), (1 << 19, 1 << 20, 256 << 10), (100, 200, 0)]
        {
            let log = flaky(max, 0);
            TopicDeadLetters::new(log.clone()).store(vec![letter(value)]).await.unwrap();
            let stored = log.stored.lock().unwrap();
            assert_eq!(stored[0].value.as_ref().unwrap().len(), kept);
            assert_eq!(header(&stored[0], "sluice.truncated"), Some(value.to_string()));
        }
    }
}
