//! Fills a batch within its limits and its budget, the same for every log.
//!
//! Nothing waits here. What does not fit is carried over: the batch is handed on first, so that its bytes can be
//! freed, and only then does the reader wait for more. Holding bytes while waiting for bytes would let partitions
//! lock each other out.

use sluice_core::budget::PartitionBudget;
use sluice_core::channel::while_blocked;
use sluice_core::{BytePermit, Offset, Receiver, Record, RecordBatch, Timestamp, TopicPartition};

use crate::dead_letter::DeadLetter;
use crate::decode::{Decoder, RawMessage, Reject};
use crate::error::LogError;
use crate::metrics;
use crate::source::{BatchLimits, BatchStream, ReadRequest};

/// One message, decoded or refused, with the bytes it is charged for.
enum Item {
    Record(Record),
    Letter(Box<DeadLetter>),
}

impl Item {
    fn bytes(&self) -> usize {
        match self {
            Self::Record(record) => record.bytes(),
            Self::Letter(letter) => letter.bytes(),
        }
    }

    /// Where it is charged: records and letters apart.
    fn kind(&self) -> usize {
        usize::from(matches!(self, Self::Letter(_)))
    }
}

/// Turns the messages of one partition into batches.
pub(crate) struct Batcher {
    at: TopicPartition,
    decoder: Decoder,
    budget: PartitionBudget,
    limits: BatchLimits,
    next_offset: Offset,
    records: Vec<Record>,
    letters: Vec<DeadLetter>,
    /// Of records and of letters apart: the letters' bytes are free once they are stored.
    charged: [Charge; 2],
    message_bytes: u64,
    /// Time of the oldest message that was kept and not handed on.
    oldest: Option<Timestamp>,
    carried: Option<(Item, Timestamp)>,
}

#[derive(Default)]
struct Charge {
    used: usize,
    permit: BytePermit,
}

impl Charge {
    /// Takes `bytes` more, if they are free now.
    fn add(&mut self, bytes: usize, budget: &PartitionBudget) -> bool {
        let missing = (self.used + bytes).saturating_sub(self.permit.bytes());
        if missing > 0 {
            let Some(permit) = budget.try_acquire(missing) else { return false };
            self.permit.merge(permit);
            // a demand beyond the whole budget is cut to it: such a record travels alone
            if self.permit.bytes() < self.used + bytes && self.used > 0 {
                return false;
            }
        }
        self.used += bytes;
        true
    }
}

/// A batch that is full or at the end of what there is.
pub(crate) struct Filled {
    pub(crate) letters: Vec<DeadLetter>,
    records: Vec<Record>,
    next_offset: Offset,
    permit: BytePermit,
    message_bytes: u64,
    oldest: Option<Timestamp>,
    _letters_permit: BytePermit,
}

impl Batcher {
    pub(crate) fn new(request: &ReadRequest) -> Self {
        Self {
            at: request.at.clone(),
            decoder: request.decoder.clone(),
            budget: request.budget.clone(),
            limits: request.limits,
            next_offset: request.start,
            records: Vec::new(),
            letters: Vec::new(),
            charged: Default::default(),
            message_bytes: 0,
            oldest: None,
            carried: None,
        }
    }

    /// First offset that no message was offered for.
    pub(crate) fn next_offset(&self) -> Offset {
        self.next_offset
    }

    /// Decodes `message` and takes it in. Returns whether more may be offered; else [`Batcher::take`] is next.
    pub(crate) fn offer(&mut self, message: RawMessage<'_>) -> bool {
        if message.offset < self.next_offset {
            return self.carried.is_none();
        }
        self.message_bytes +=
            (message.key.map_or(0, <[u8]>::len) + message.value.map_or(0, <[u8]>::len)) as u64;
        let item = match self.decoder.decode(message) {
            Ok(record) => Item::Record(record),
            Err(reject) => Item::Letter(Box::new(letter(&self.at, message, reject))),
        };
        let bytes = item.bytes();
        if self.charged[item.kind()].add(bytes, &self.budget) {
            self.keep(item, message.offset, message.timestamp);
            !self.is_full()
        } else {
            // its offset is passed only when it is kept
            self.carried = Some((item, message.timestamp));
            false
        }
    }

    /// Notes that the log holds no record before `position`.
    pub(crate) fn skip_to(&mut self, position: Offset) {
        if self.carried.is_none() && position > self.next_offset {
            self.next_offset = position;
        }
    }

    /// What was filled so far; `None` when that says nothing new since `reported`.
    pub(crate) fn take(&mut self, reported: Offset) -> Option<Filled> {
        if self.next_offset <= reported {
            return None;
        }
        let [records, letters] = std::mem::take(&mut self.charged);
        Some(Filled {
            letters: std::mem::take(&mut self.letters),
            records: std::mem::take(&mut self.records),
            next_offset: self.next_offset,
            permit: records.permit,
            message_bytes: std::mem::take(&mut self.message_bytes),
            oldest: self.oldest.take(),
            _letters_permit: letters.permit,
        })
    }

    /// Waits for the bytes of the message that did not fit, and takes it in. Call it after [`Batcher::take`], when
    /// nothing else is held.
    pub(crate) async fn settle(&mut self) {
        let Some(bytes) = self.carried.as_ref().map(|(item, _)| item.bytes()) else { return };
        // a batch that was begun and refused its first message may hold a part of the budget: give it back
        self.charged = Default::default();
        let permit = match self.budget.try_acquire(bytes) {
            Some(permit) => permit,
            None => {
                while_blocked(self.budget.acquire(bytes), |since| metrics::budget_blocked(&self.at, since))
                    .await
            }
        };
        if let Some((item, timestamp)) = self.carried.take() {
            self.charged[item.kind()] = Charge { used: bytes, permit };
            let offset = match &item {
                Item::Record(record) => record.offset,
                Item::Letter(letter) => letter.offset,
            };
            self.keep(item, offset, timestamp);
        }
    }

    /// Whether something was taken in that was not handed on.
    pub(crate) fn has_begun(&self) -> bool {
        !self.records.is_empty() || !self.letters.is_empty()
    }

    /// Whether a limit of the batch is met.
    pub(crate) fn is_full(&self) -> bool {
        let bytes: usize = self.charged.iter().map(|c| c.used).sum();
        self.records.len() + self.letters.len() >= self.limits.max_records || bytes >= self.limits.max_bytes
    }

    fn keep(&mut self, item: Item, offset: Offset, timestamp: Timestamp) {
        self.next_offset = offset.next();
        self.oldest = self.oldest.into_iter().chain([timestamp]).min();
        match item {
            Item::Record(record) => self.records.push(record),
            Item::Letter(letter) => self.letters.push(*letter),
        }
    }
}

impl Filled {
    /// Stores the dead letters, then gives the batch that covers them.
    pub(crate) async fn finish(
        self,
        request: &ReadRequest,
        log_end: Offset,
    ) -> Result<RecordBatch, LogError> {
        let at = &request.at;
        let count = self.letters.len() as u64;
        if count > 0 {
            let codes: Vec<_> = self.letters.iter().map(|l| l.reject.code).collect();
            request.held_back.send_replace(self.oldest);
            request.dead_letters.store(self.letters).await?;
            request.held_back.send_replace(None);
            codes.into_iter().for_each(|code| metrics::dead_letter(at, code));
        }
        // what only covers letters and gaps needs no bytes any more
        let permit = if self.records.is_empty() { BytePermit::none() } else { self.permit };
        let batch = RecordBatch {
            partition: at.partition,
            records: self.records,
            next_offset: self.next_offset,
            log_end: log_end.max(self.next_offset),
            dead_letters: count,
            permit,
        };
        metrics::batch_read(at, &batch, self.message_bytes);
        Ok(batch)
    }
}

/// The stream over what a reader sends; `reader` is what stops it, and lives as long as the stream.
///
/// Every reader sends an error as its last item. One that ends without is a bug, and the stream says so.
pub(crate) fn stream<G: Send + 'static>(
    at: TopicPartition,
    receiver: Receiver<Result<RecordBatch, LogError>>,
    reader: G,
) -> BatchStream {
    Box::pin(async_stream::stream! {
        let (mut receiver, _reader) = (receiver, reader);
        loop {
            let item = receiver.recv().await.unwrap_or_else(|| Err(LogError::Panicked(at.clone())));
            let ended = item.is_err();
            yield item;
            if ended {
                break;
            }
        }
    })
}

fn letter(at: &TopicPartition, message: RawMessage<'_>, reject: Reject) -> DeadLetter {
    DeadLetter {
        at: at.clone(),
        offset: message.offset,
        reject,
        key: message.key.map(<[u8]>::to_vec),
        value: message.value.map(<[u8]>::to_vec),
        headers: message
            .headers
            .iter()
            .map(|(name, value)| ((*name).to_owned(), value.unwrap_or_default().to_vec()))
            .collect(),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::sync::{Arc, Mutex};

    use async_trait::async_trait;
    use futures::FutureExt;
    use proptest::prelude::*;
    use sluice_core::{ByteBudget, Dimension, Format, Metadata, Metric, PartitionId, Schema, TopicName};
    use tokio::sync::Notify;

    use super::*;
    use crate::dead_letter::DeadLetters;
    use crate::decode::DecodeLimits;
    use crate::encode;
    use crate::source::HeldBack;

    #[derive(Default)]
    struct Offsets(Mutex<Vec<u64>>);

    #[async_trait]
    impl DeadLetters for Offsets {
        async fn store(&self, letters: Vec<DeadLetter>) -> Result<(), LogError> {
            self.0.lock().unwrap().extend(letters.iter().map(|l| l.offset.get()));
            Ok(())
        }
    }

    /// A message of the log: its distance from the one before, whether it is bad, and its size.
    type Message = (u64, bool, usize);

    fn request(budget: &ByteBudget, limits: BatchLimits, letters: Arc<Offsets>) -> ReadRequest {
        let schema = Schema::new(Dimension::new(2).unwrap(), Metric::L2, Default::default());
        let at = TopicPartition { topic: TopicName::new("t").unwrap(), partition: PartitionId(0) };
        ReadRequest {
            at,
            start: Offset(0),
            decoder: Decoder { format: Format::Auto, schema: schema.into(), limits: DecodeLimits::default() },
            budget: budget.unreserved(),
            dead_letters: letters,
            held_back: HeldBack::default(),
            limits,
        }
    }

    fn value((_, bad, size): Message) -> Vec<u8> {
        let metadata = Metadata::parse(&format!(r#"{{"a":"{}"}}"#, "x".repeat(size)), 1 << 16).unwrap();
        let mut value = encode::json(&[1.0, 2.0], &metadata);
        if bad {
            value[0] = b'?';
        }
        value
    }

    #[test]
    fn liv_1_a_bad_message_is_passed_once_its_letter_is_taken() {
        let budget = ByteBudget::new(1 << 20);
        let letters = Arc::new(Offsets::default());
        let request = request(&budget, BatchLimits::default(), letters.clone());
        let mut batcher = Batcher::new(&request);
        let (bad, good) = (value((1, true, 10)), value((1, false, 10)));
        let message = |offset, value| RawMessage {
            key: Some(b"k"),
            value: Some(value),
            headers: &[],
            offset: Offset(offset),
            timestamp: Timestamp(0),
        };
        for offset in 5..8 {
            assert!(batcher.offer(message(offset, &bad)));
            assert_eq!(batcher.next_offset(), Offset(offset + 1));
        }
        assert!(batcher.offer(message(8, &good)));
        let filled = batcher.take(Offset(0)).unwrap();
        let batch = filled.finish(&request, Offset(9)).now_or_never().unwrap().unwrap();
        assert_eq!((batch.next_offset, batch.dead_letters, batch.records.len()), (Offset(9), 3, 1));
        assert_eq!(*letters.0.lock().unwrap(), [5, 6, 7]);
    }

    /// Takes no letter before it is told to.
    #[derive(Default)]
    struct Shut(Notify);

    #[async_trait]
    impl DeadLetters for Shut {
        async fn store(&self, _: Vec<DeadLetter>) -> Result<(), LogError> {
            self.0.notified().await;
            Ok(())
        }
    }

    #[test]
    fn fresh_1_the_oldest_message_that_waits_for_a_dead_letter_is_told_meanwhile() {
        let budget = ByteBudget::new(1 << 20);
        let shut = Arc::new(Shut::default());
        let mut request = request(&budget, BatchLimits::default(), Arc::default());
        request.dead_letters = shut.clone();
        let held_back = request.held_back.subscribe();
        let mut batcher = Batcher::new(&request);
        for (offset, bad, time) in [(0, false, 70), (1, true, 50), (2, false, 60)] {
            let value = value((1, bad, 10));
            batcher.offer(RawMessage {
                key: Some(b"k"),
                value: Some(&value),
                headers: &[],
                offset: Offset(offset),
                timestamp: Timestamp(time),
            });
        }
        let mut finish = Box::pin(batcher.take(Offset(0)).unwrap().finish(&request, Offset(9)));
        assert!(finish.as_mut().now_or_never().is_none());
        assert_eq!(*held_back.borrow(), Some(Timestamp(50)));
        shut.0.notify_one();
        assert_eq!(finish.now_or_never().unwrap().unwrap().next_offset, Offset(3));
        assert_eq!(*held_back.borrow(), None);
    }

    proptest! {
            #[test]
            fn mem_1_every_message_comes_once_whatever_the_budget_and_the_limits(
                messages in proptest::collection::vec((1u64..4, proptest::bool::weighted(0.2), 0usize..6000), 1..60),
                budget in 1usize..40,
                max_records in 1usize..20,
                max_bytes in 100usize..20_000,
                held_batches in 0usize..4,
            ) {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
                // a wait for bytes is measured by a timer
                let _timers = runtime.enter();
                let budget = ByteBudget::new(budget << 10);
                let letters = Arc::new(Offsets::default());
                let request = request(&budget, BatchLimits { max_records, max_bytes }, letters.clone());
                let mut offset = 0;
                let log: Vec<_> = messages.iter().map(|m| { offset += m.0; (offset, m.1, value(*m)) }).collect();
                let mut batcher = Batcher::new(&request);
                let (mut reported, mut held) = (Offset(0), VecDeque::new());
                let mut seen = Vec::new();
                while reported <= Offset(offset) {
    let next = batcher.next_offset();
                    for (offset, _, value) in log.iter().filter(|(o, ..)| Offset(*o) >= next) {
                        let message = RawMessage {
                            key: Some(b"k"), value: Some(value), headers: &[],
                            offset: Offset(*offset), timestamp: Timestamp(0),
                        };
                        if batcher.is_full() || !batcher.offer(message) { break }
                    }
                    if let Some(filled) = batcher.take(reported) {
                        let batch = filled.finish(&request, Offset(offset)).now_or_never();
                        let batch = batch.unwrap().unwrap();
                        prop_assert!(batch.next_offset > reported);
                        reported = batch.next_offset;
                        seen.extend(batch.records.iter().map(|r| r.offset.get()));
                        held.push_back(batch);
                    }
                    prop_assert!(budget.used_bytes() <= budget.total_bytes());
                    // who keeps too much gets nothing more until it gives something back
                    while batcher.settle().now_or_never().is_none() {
                        prop_assert!(held.pop_front().is_some(), "waits for bytes that nobody holds");
                    }
                    while held.len() > held_batches { held.pop_front(); }
                }
                let offsets = |bad| log.iter().filter(|m| m.1 == bad).map(|m| m.0).collect::<Vec<_>>();
                prop_assert_eq!(seen, offsets(false));
                prop_assert_eq!(letters.0.lock().unwrap().clone(), offsets(true));
                held.clear();
                drop(batcher);
                prop_assert_eq!(budget.used_bytes(), 0);
            }
        }
}
