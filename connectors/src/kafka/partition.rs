//! The thread of one partition: polls its queue, decodes in place, fills batches, waits when its worker or its
//! budget does.

use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};
use rdkafka::message::{BorrowedMessage, Headers, Message};
use sluice_core::{Offset, RecordBatch, Sender, Timestamp};
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::reader::{Assigned, Lane, Reader};
use crate::batch::Batcher;
use crate::decode::{Header, RawMessage};
use crate::error::LogError;
use crate::metrics::Level;
use crate::source::ReadRequest;

/// How long a poll of an idle partition waits; also how soon a stop is noticed.
const IDLE: Duration = Duration::from_millis(50);
/// How long a batch that has begun waits for its next message, and how long in all.
const LINGER: Duration = Duration::from_millis(2);
const LONGEST_LINGER: Duration = Duration::from_millis(20);
/// How often an idle partition is asked for its position, which moves over gaps.
const POSITION: Duration = Duration::from_millis(250);
/// How long a question that Kafka did not answer waits before it is asked again.
const RETRY: Duration = Duration::from_millis(500);
/// How long a position left by an earlier assignment may take to be cleared.
const STALE: Duration = Duration::from_secs(5);

/// Reads one partition for one stream.
pub(super) struct PartitionReader {
    reader: Arc<Reader>,
    request: ReadRequest,
    runtime: Handle,
    stop: CancellationToken,
    output: Sender<Result<RecordBatch, LogError>>,
    batcher: Batcher,
    reported: Offset,
    end: Offset,
    /// Whether the position that librdkafka tells is of this assignment.
    trusted: bool,
    /// Whether this assignment gave a message; the position is certainly of this assignment then.
    started: bool,
    asked: Option<Instant>,
}

/// The stream is gone, or was replaced.
struct Stopped;

/// Why a batch ends.
enum Pause {
    /// There is nothing more to read now.
    Idle,
    /// The batch is full, or its next message did not fit the budget.
    Full,
    /// The partition has to be assigned anew, at the next offset.
    Reassign,
}

impl PartitionReader {
    pub(super) fn new(
        reader: Arc<Reader>,
        request: ReadRequest,
        runtime: Handle,
        stop: CancellationToken,
        output: Sender<Result<RecordBatch, LogError>>,
    ) -> Self {
        let batcher = Batcher::new(&request);
        let start = request.start;
        Self {
            reader,
            request,
            runtime,
            stop,
            output,
            batcher,
            reported: start,
            end: start,
            trusted: false,
            started: false,
            asked: None,
        }
    }

    /// Reads until the stream is dropped or something cannot be waited out. The stream before this one has to give
    /// the partition back first, by its `lane`.
    pub(super) fn run(mut self, lane: &Lane) {
        let read = match self.wait(lane.lock()) {
            Ok(_turn) => {
                let _open = Level::open_partition();
                self.read()
            }
            Err(Stopped) => Ok(Stopped),
        };
        let error = match read {
            Ok(Stopped) => LogError::Closed("the stream"),
            Err(error) => error,
        };
        // the partition is free now; whether its last item is taken is up to the stream's holder
        let Self { output, runtime, .. } = self;
        if !output.is_closed() {
            runtime.spawn(async move { output.send(Err(error)).await.ok() });
        }
    }

    fn read(&mut self) -> Result<Stopped, LogError> {
        loop {
            if !self.settle_position()? {
                return Ok(Stopped);
            }
            let assigned = match self.reader.assign(&self.request.at, self.batcher.next_offset()) {
                Ok(assigned) => assigned,
                Err(error) => {
                    warn!(partition = %self.request.at, %error, "kafka does not assign a partition, trying again");
                    if self.sleep(RETRY).is_err() {
                        return Ok(Stopped);
                    }
                    continue;
                }
            };
            self.trusted = self.position_is_cleared();
            (self.started, self.asked) = (false, None);
            if self.follow(&assigned)?.is_err() {
                return Ok(Stopped);
            }
        }
    }

    /// Waits until Kafka tells the bounds, and checks that the next offset lies within; `false` to stop.
    fn settle_position(&mut self) -> Result<bool, LogError> {
        let mut told = false;
        loop {
            if self.stop.is_cancelled() {
                return Ok(false);
            }
            match self.reader.topics.bounds_blocking(&self.request.at) {
                Ok(bounds) => {
                    let (at, next) = (self.request.at.clone(), self.batcher.next_offset());
                    if next < bounds.start {
                        return Err(LogError::Truncated { at, lost_from: next, lost_to: bounds.start });
                    }
                    if next > bounds.end {
                        return Err(LogError::BeyondEnd { at, start: next, end: bounds.end });
                    }
                    self.end = bounds.end;
                    if told {
                        info!(partition = %self.request.at, "kafka tells the bounds of the partition again");
                    }
                    return Ok(true);
                }
                Err(error @ LogError::Unavailable(_)) => {
                    if !told {
                        warn!(partition = %self.request.at, %error, "kafka does not tell the bounds of a partition");
                        told = true;
                    }
                }
                Err(error) => return Err(error),
            }
            if self.sleep(RETRY).is_err() {
                return Ok(false);
            }
        }
    }

    /// Waits until the position of an earlier assignment is gone. Nothing polls the queue yet, so that whatever
    /// position appears after it is ours.
    fn position_is_cleared(&self) -> bool {
        let since = Instant::now();
        while self.reader.position(&self.request.at).is_some() {
            if since.elapsed() > STALE || self.sleep(Duration::from_millis(2)).is_err() {
                return false;
            }
        }
        true
    }

    /// Reads one assignment until it has to be renewed.
    fn follow(&mut self, assigned: &Assigned) -> Result<Result<(), Stopped>, LogError> {
        loop {
            if self.stop.is_cancelled() {
                return Ok(Err(Stopped));
            }
            let pause = self.fill(assigned)?;
            if let Some(filled) = self.batcher.take(self.reported) {
                let end = self.reader.reports().end(&self.request.at).unwrap_or(self.end).max(self.end);
                let batch = self.wait(filled.finish(&self.request, end));
                let Ok(batch) = batch else { return Ok(Err(Stopped)) };
                let batch = batch?;
                (self.reported, self.end) = (batch.next_offset, end);
                if !matches!(self.wait(self.output.send(Ok(batch))), Ok(Ok(()))) {
                    return Ok(Err(Stopped));
                }
            }
            let Self { runtime, stop, batcher, .. } = self;
            let settled = runtime.block_on(async {
                tokio::select! {
                    biased;
                    () = stop.cancelled() => Err(Stopped),
                    () = batcher.settle() => Ok(()),
                }
            });
            if settled.is_err() {
                return Ok(Err(Stopped));
            }
            if matches!(pause, Pause::Reassign) {
                return Ok(Ok(()));
            }
        }
    }

    /// Offers messages to the batch until there are none or it is full.
    fn fill(&mut self, assigned: &Assigned) -> Result<Pause, LogError> {
        let Some(queue) = assigned.queue() else { return Ok(Pause::Reassign) };
        let began = Instant::now();
        while !self.batcher.is_full() {
            let empty = self.batcher.next_offset() == self.reported;
            let Some(polled) = queue.poll(if empty { IDLE } else { LINGER }) else {
                self.skip_gap(empty);
                return Ok(Pause::Idle);
            };
            match polled {
                Ok(message) => {
                    if self.first_of_assignment() && self.has_strayed(&message) {
                        return Ok(Pause::Reassign);
                    }
                    if !self.offer(&message) {
                        return Ok(Pause::Full);
                    }
                }
                Err(error) => {
                    if self.must_reassign(&error)? {
                        return Ok(Pause::Reassign);
                    }
                }
            }
            if began.elapsed() > LONGEST_LINGER + IDLE {
                return Ok(Pause::Full);
            }
        }
        Ok(Pause::Full)
    }

    fn first_of_assignment(&mut self) -> bool {
        !std::mem::replace(&mut self.started, true)
    }

    /// Whether messages before this one, the first, went another way; a gap looks the same until that is known.
    fn has_strayed(&mut self, message: &BorrowedMessage<'_>) -> bool {
        let jumped = u64::try_from(message.offset()).is_ok_and(|o| o > self.batcher.next_offset().get());
        if !jumped {
            return false;
        }
        self.reader.pump();
        let strayed = self.reader.has_strayed(&self.request.at);
        if strayed {
            warn!(partition = %self.request.at, "messages came by the common queue, assigning the partition anew");
        }
        strayed
    }

    /// Moves the next offset over what holds no record: the end of transactions, compacted messages.
    fn skip_gap(&mut self, idle: bool) {
        let due = !idle || self.asked.is_none_or(|asked| asked.elapsed() >= POSITION);
        if !due || !(self.trusted || self.started) {
            return;
        }
        self.asked = Some(Instant::now());
        // what the queue handed out was offered, so that everything before the position is accounted for
        if let Some(position) = self.reader.position(&self.request.at) {
            self.batcher.skip_to(position);
        }
    }

    fn offer(&mut self, message: &BorrowedMessage<'_>) -> bool {
        let Ok(offset) = u64::try_from(message.offset()) else { return true };
        let headers: Vec<Header<'_>> = match message.headers() {
            Some(headers) => headers.iter().map(|h| (h.key, h.value)).collect(),
            None => Vec::new(),
        };
        self.batcher.offer(RawMessage {
            key: message.key(),
            value: message.payload(),
            headers: &headers,
            offset: Offset(offset),
            timestamp: Timestamp(message.timestamp().to_millis().unwrap_or_default()),
        })
    }

    /// Whether the partition has to be assigned anew after `error`. Its position and existence are then checked; what
    /// is transient is only noted.
    fn must_reassign(&self, error: &KafkaError) -> Result<bool, LogError> {
        let at = &self.request.at;
        match error.rdkafka_error_code() {
            // told once, and then the queue is silent
            Some(Code::AutoOffsetReset | Code::OffsetOutOfRange) => {
                info!(partition = %at, %error, "kafka refuses the position, looking at the bounds");
                Ok(self.sleep(RETRY).is_ok())
            }
            Some(Code::UnknownTopic | Code::UnknownTopicOrPartition | Code::UnknownPartition) => {
                info!(partition = %at, %error, "kafka does not know the partition, looking again");
                Ok(self.sleep(RETRY).is_ok())
            }
            Some(Code::TopicAuthorizationFailed) => Err(LogError::Refused(format!("{at}: {error}"))),
            _ => {
                self.reader.reports().outlived(error, at.topic.as_str());
                Ok(false)
            }
        }
    }

    /// Runs `work` on the runtime unless this reader is stopped.
    fn wait<T>(&self, work: impl Future<Output = T>) -> Result<T, Stopped> {
        self.runtime.block_on(async {
            tokio::select! {
                biased;
                () = self.stop.cancelled() => Err(Stopped),
                done = work => Ok(done),
            }
        })
    }

    fn sleep(&self, time: Duration) -> Result<(), Stopped> {
        // a timer is made where it runs, within the runtime
        self.wait(async move { tokio::time::sleep(time).await })
    }
}
