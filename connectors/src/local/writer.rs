//! The one thread of a process that writes: requests that wait together share a transaction.

use std::collections::HashMap;
use std::sync::Arc;

use rusqlite::{Connection, Transaction, TransactionBehavior, params};
use sluice_core::{Clock, Offset, PartitionId, SystemClock, TopicName, TopicPartition};
use tokio::sync::{mpsc, oneshot, watch};

use super::reader::encode_headers;
use super::schema::{Catalogue, MAX_OFFSET, MAX_SLOT, Slot, sql};
use super::spawn_thread;
use crate::error::LogError;
use crate::partitioner::partition_of;
use crate::source::{Outgoing, Placed};

/// Requests that may wait for the writer.
const QUEUE: usize = 256;
/// A transaction is committed when it holds so many bytes, however many requests wait.
const COMMIT_BYTES: usize = 8 << 20;
/// Largest message, as `message.max.bytes` of a broker.
const MAX_MESSAGE: usize = 10 << 20;

/// What the writer is asked to do; `reply` comes after the commit.
pub(super) enum Request {
    Append { topic: TopicName, messages: Vec<Outgoing>, reply: oneshot::Sender<Result<Appended, LogError>> },
    EnsureTopic { topic: TopicName, partitions: u32, reply: oneshot::Sender<Result<u32, LogError>> },
    Truncate { at: TopicPartition, offset: Offset, reply: oneshot::Sender<Result<Offset, LogError>> },
}

/// A result for each message.
pub(super) type Appended = Vec<Result<Placed, LogError>>;

/// The way to the writer's thread, which ends when this is dropped.
pub(super) struct Writer(mpsc::Sender<Request>);

impl Writer {
    pub(super) fn start(connection: Connection, changes: Arc<watch::Sender<u64>>) -> Result<Self, LogError> {
        let (sender, receiver) = mpsc::channel(QUEUE);
        let thread = Thread { connection, receiver, changes, round_robin: 0 };
        spawn_thread("local-log-write", move || thread.run())?;
        Ok(Self(sender))
    }

    pub(super) async fn send(&self, request: Request) -> Result<(), LogError> {
        self.0.send(request).await.map_err(|_| LogError::Closed("the local log"))
    }
}

struct Thread {
    connection: Connection,
    receiver: mpsc::Receiver<Request>,
    changes: Arc<watch::Sender<u64>>,
    round_robin: u32,
}

/// Sends the answer to a request, once it is known whether the commit succeeded.
type Answer = Box<dyn FnOnce(Result<(), LogError>)>;

impl Thread {
    fn run(mut self) {
        while let Some(first) = self.receiver.blocking_recv() {
            let mut answers = Vec::new();
            let outcome = self.commit_group(first, &mut answers);
            if outcome.is_ok() {
                self.changes.send_modify(|n| *n = n.wrapping_add(1));
            }
            answers.into_iter().for_each(|answer| answer(outcome.clone()));
        }
    }

    /// Carries out `first` and what waits behind it, in one transaction. The error of a transaction is the error
    /// of every request in it.
    fn commit_group(&mut self, first: Request, answers: &mut Vec<Answer>) -> Result<(), LogError> {
        let begun = self.connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(sql);
        let mut group = match begun {
            Ok(transaction) => Group::new(transaction, self.round_robin),
            Err(error) => {
                answers.push(refusal(first));
                return Err(error);
            }
        };
        let mut outcome = group.carry_out(first, answers);
        while outcome.is_ok() && group.bytes < COMMIT_BYTES && answers.len() < QUEUE {
            let Ok(request) = self.receiver.try_recv() else { break };
            outcome = group.carry_out(request, answers);
        }
        self.round_robin = group.round_robin;
        outcome.and_then(|()| group.commit())
    }
}

/// One transaction in the making.
struct Group<'c> {
    transaction: Transaction<'c>,
    /// Slot and next offset of the partitions that this transaction touched. Other processes write too, so nothing
    /// is remembered beyond it.
    next: HashMap<(TopicName, PartitionId), (Slot, u64)>,
    bytes: usize,
    round_robin: u32,
}

impl<'c> Group<'c> {
    fn new(transaction: Transaction<'c>, round_robin: u32) -> Self {
        Self { transaction, next: HashMap::new(), bytes: 0, round_robin }
    }

    /// Does the work of `request` and leaves its answer. An error here breaks the transaction; what merely
    /// concerns the request is in its answer.
    fn carry_out(&mut self, request: Request, answers: &mut Vec<Answer>) -> Result<(), LogError> {
        match request {
            Request::Append { topic, messages, reply } => {
                answer(answers, reply, self.append(&topic, messages))
            }
            Request::EnsureTopic { topic, partitions, reply } => {
                answer(answers, reply, self.ensure_topic(&topic, partitions))
            }
            Request::Truncate { at, offset, reply } => answer(answers, reply, self.truncate(&at, offset)),
        }
    }

    fn append(&mut self, topic: &TopicName, messages: Vec<Outgoing>) -> Result<Appended, LogError> {
        let Some(partitions) = Catalogue::partitions(&self.transaction, topic)? else {
            return Err(LogError::UnknownTopic(topic.clone()));
        };
        let now = SystemClock.now();
        let mut placed = Vec::with_capacity(messages.len());
        for message in messages {
            let partition = match (message.partition, &message.key) {
                (Some(partition), _) => partition,
                (None, Some(key)) => partition_of(key, partitions),
                (None, None) => {
                    self.round_robin = self.round_robin.wrapping_add(1);
                    PartitionId(self.round_robin % partitions)
                }
            };
            let at = TopicPartition { topic: topic.clone(), partition };
            placed.push(match self.insert(&at, &message, now.0) {
                Err(e @ (LogError::TooLarge { .. } | LogError::UnknownPartition(_))) => Err(e),
                other => Ok(Placed { partition, offset: other? }),
            });
        }
        Ok(placed)
    }

    fn insert(&mut self, at: &TopicPartition, message: &Outgoing, now: i64) -> Result<Offset, LogError> {
        let headers = encode_headers(&message.headers);
        let length = |bytes: &Option<Vec<u8>>| bytes.as_ref().map_or(0, Vec::len);
        let bytes = length(&message.key) + length(&message.value) + length(&headers);
        if bytes > MAX_MESSAGE {
            return Err(LogError::TooLarge { bytes });
        }
        let place = (at.topic.clone(), at.partition);
        let (slot, next) = match self.next.get(&place) {
            Some(known) => *known,
            None => {
                let slot = Catalogue::slot(&self.transaction, at)?;
                (slot, Catalogue::bounds(&self.transaction, slot)?.end.get())
            }
        };
        if next + 1 >= MAX_OFFSET {
            return Err(LogError::Unavailable(format!("{at} is full")));
        }
        self.transaction
            .prepare_cached(
                "INSERT INTO message (place, timestamp, key, headers, value) VALUES (?1, ?2, ?3, ?4, ?5)",
            )
            .and_then(|mut insert| {
                insert.execute(params![slot.place(Offset(next)), now, message.key, headers, message.value])
            })
            .map_err(sql)?;
        self.next.insert(place, (slot, next + 1));
        self.bytes += bytes;
        Ok(Offset(next))
    }

    fn ensure_topic(&mut self, topic: &TopicName, partitions: u32) -> Result<u32, LogError> {
        if let Some(actual) = Catalogue::partitions(&self.transaction, topic)? {
            return Ok(actual);
        }
        if !(1..=sluice_core::spec::MAX_PARTITIONS).contains(&partitions) {
            return Err(LogError::Refused(format!("a topic cannot have {partitions} partitions")));
        }
        self.transaction
            .execute(
                "INSERT INTO topic (name, partitions) VALUES (?1, ?2)",
                params![topic.as_str(), partitions],
            )
            .map_err(sql)?;
        let id = self.transaction.last_insert_rowid();
        for number in 0..partitions {
            self.transaction
                .execute(
                    "INSERT INTO partition (topic, number, start, next) VALUES (?1, ?2, 0, 0)",
                    [id, i64::from(number)],
                )
                .map_err(sql)?;
        }
        if self.transaction.last_insert_rowid() >= MAX_SLOT {
            return Err(LogError::Unavailable("the local log holds too many partitions".into()));
        }
        Ok(partitions)
    }

    fn truncate(&mut self, at: &TopicPartition, offset: Offset) -> Result<Offset, LogError> {
        self.write_next()?;
        let slot = Catalogue::slot(&self.transaction, at)?;
        let bounds = Catalogue::bounds(&self.transaction, slot)?;
        let start = offset.clamp(bounds.start, bounds.end);
        let range = [slot.place(bounds.start), slot.place(start)];
        self.transaction
            .execute("DELETE FROM message WHERE place >= ?1 AND place < ?2", range)
            .map_err(sql)?;
        self.transaction
            .execute("UPDATE partition SET start = ?2 WHERE slot = ?1", [slot.0, start.get() as i64])
            .map_err(sql)?;
        Ok(start)
    }

    fn write_next(&mut self) -> Result<(), LogError> {
        for (slot, next) in self.next.values() {
            self.transaction
                .prepare_cached("UPDATE partition SET next = ?2 WHERE slot = ?1")
                .and_then(|mut update| update.execute([slot.0, *next as i64]))
                .map_err(sql)?;
        }
        Ok(())
    }

    fn commit(mut self) -> Result<(), LogError> {
        self.write_next()?;
        self.transaction.commit().map_err(sql)
    }
}

/// Leaves `result` to be sent once the commit is known. Gives back an error that breaks the transaction.
fn answer<T: Send + 'static>(
    answers: &mut Vec<Answer>,
    reply: oneshot::Sender<Result<T, LogError>>,
    result: Result<T, LogError>,
) -> Result<(), LogError> {
    let breaks = match &result {
        Err(error @ (LogError::Unavailable(_) | LogError::Corrupt(_))) => Err(error.clone()),
        _ => Ok(()),
    };
    // whoever asked may have gone; the work is done all the same
    answers.push(Box::new(move |committed| {
        reply.send(committed.and(result)).ok();
    }));
    breaks
}

/// The answer to a request for which no transaction could be begun.
fn refusal(request: Request) -> Answer {
    fn none<T>() -> Result<T, LogError> {
        Err(LogError::Closed("the local log"))
    }
    let mut answers = Vec::new();
    let left = match request {
        Request::Append { reply, .. } => answer(&mut answers, reply, none()),
        Request::EnsureTopic { reply, .. } => answer(&mut answers, reply, none()),
        Request::Truncate { reply, .. } => answer(&mut answers, reply, none()),
    };
    match (left, answers.pop()) {
        (_, Some(answer)) => answer,
        (_, None) => Box::new(|_| {}),
    }
}
