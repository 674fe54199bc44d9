//! The lease: a consumer that subscribes with the group, has every partition paused, and is polled always.
//!
//! The group's callbacks run on the thread that polls. A revocation waits there (bounded) until the pipeline has
//! stopped its workers; heartbeats come from a thread of librdkafka and go on meanwhile.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use rdkafka::TopicPartitionList;
use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer, ConsumerContext};
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode as Code};
use rdkafka::statistics::Statistics;
use rdkafka::types::RDKafkaRespErr;
use sluice_core::{Offset, PartitionId, TopicName, TopicPartition};
use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use super::admin::number;
use super::client::Reports;
use super::config::KafkaConfig;
use super::error::log_error;
use crate::error::LogError;
use crate::metrics;
use crate::source::{Membership, MembershipEvent, REVOKE_WAIT};

/// How long one poll waits: how soon a change of topics, a commit or a leave is noticed.
const POLL: Duration = Duration::from_millis(100);
/// Pause between looks at something that another task does.
const LOOK: Duration = Duration::from_millis(5);
/// How long a client whose session ended may take to be given partitions again, none among them, before another
/// client takes its place: one that lost its broker in the middle of a request may wait for itself for ever.
const RETURN: Duration = Duration::from_secs(30);
/// Clients that were given up and are not closed yet; with so many no other one is given up.
const GIVEN_UP: usize = 4;

type Commits = Arc<Mutex<BTreeMap<TopicPartition, Offset>>>;

/// Takes part in one group.
pub(super) struct KafkaMembership {
    config: Arc<KafkaConfig>,
    commits: Commits,
    member: Mutex<Option<Running>>,
    given_up: Arc<AtomicUsize>,
}

struct Running {
    leave: CancellationToken,
    left: oneshot::Receiver<()>,
}

impl KafkaMembership {
    pub(super) fn new(config: Arc<KafkaConfig>) -> Self {
        Self { config, commits: Commits::default(), member: Mutex::default(), given_up: Arc::default() }
    }

    fn swap(&self, member: Option<Running>) -> Option<Running> {
        std::mem::replace(&mut *self.member.lock().unwrap_or_else(PoisonError::into_inner), member)
    }
}

#[async_trait]
impl Membership for KafkaMembership {
    async fn join(
        &self,
        topics: watch::Receiver<BTreeSet<TopicName>>,
    ) -> Result<mpsc::Receiver<MembershipEvent>, LogError> {
        self.leave().await;
        let (events, receiver) = mpsc::channel(16);
        let (leave, (tell_left, left)) = (CancellationToken::new(), oneshot::channel());
        let lease = Lease {
            reports: Reports::new("member"),
            events: events.clone(),
            leave: leave.clone(),
            commits: Arc::clone(&self.commits),
            lost_since: Mutex::default(),
        };
        let consumer: BaseConsumer<Lease> =
            self.config.member().create_with_context(lease).map_err(|e| log_error(&e))?;
        take_all(&self.commits);
        let mut member = Member { consumer, topics, events, told: None };
        let given_up = Arc::clone(&self.given_up);
        let ended = leave.clone();
        std::thread::Builder::new()
            .name("kafka-member".to_owned())
            .spawn(move || match member.run(&ended, &given_up) {
                // dropping the consumer leaves the group, by way of the callback that revokes
                End::Leaves => {
                    drop(member);
                    tell_left.send(()).ok();
                }
                // closing a client that waits for itself may take for ever: nobody waits for that
                End::GivenUp => {
                    tell_left.send(()).ok();
                    drop(member);
                    given_up.fetch_sub(1, Ordering::Relaxed);
                }
            })
            .map_err(|e| LogError::Unavailable(format!("cannot start a thread: {e}")))?;
        self.swap(Some(Running { leave, left }));
        Ok(receiver)
    }

    async fn commit(&self, at: &TopicPartition, next: Offset) -> Result<(), LogError> {
        self.commits.lock().unwrap_or_else(PoisonError::into_inner).insert(at.clone(), next);
        Ok(())
    }

    async fn leave(&self) {
        if let Some(Running { leave, left }) = self.swap(None) {
            leave.cancel();
            // a thread that panicked has left too
            left.await.ok();
        }
    }
}

impl Drop for KafkaMembership {
    fn drop(&mut self) {
        if let Some(running) = self.swap(None) {
            running.leave.cancel();
        }
    }
}

/// How a member's thread ends.
enum End {
    Leaves,
    GivenUp,
}

fn take_all(commits: &Commits) -> BTreeMap<TopicPartition, Offset> {
    std::mem::take(&mut *commits.lock().unwrap_or_else(PoisonError::into_inner))
}

struct Member {
    consumer: BaseConsumer<Lease>,
    topics: watch::Receiver<BTreeSet<TopicName>>,
    events: mpsc::Sender<MembershipEvent>,
    /// The error that was logged last: the same one is logged once.
    told: Option<String>,
}

impl Member {
    /// Polls until the membership ends.
    fn run(&mut self, leave: &CancellationToken, given_up: &AtomicUsize) -> End {
        self.topics.mark_changed();
        while !leave.is_cancelled() && !self.events.is_closed() {
            // when nobody can change the topics any more they stay as they are
            if self.topics.has_changed().unwrap_or(false) {
                self.subscribe();
            }
            self.commit();
            let failed = match self.consumer.poll(POLL) {
                None => None,
                // paused partitions may still give what was fetched before; nobody reads it here
                Some(Ok(_)) => None,
                Some(Err(error)) => self.judge(&error),
            };
            if let Some(error) = failed {
                self.events.try_send(MembershipEvent::Failed(error)).ok();
                return End::Leaves;
            }
            if self.consumer.context().is_lost_for(RETURN) && given_up.load(Ordering::Relaxed) < GIVEN_UP {
                given_up.fetch_add(1, Ordering::Relaxed);
                let text = format!("its session ended, and its client has not returned within {RETURN:?}");
                self.events.try_send(MembershipEvent::Failed(LogError::Unavailable(text))).ok();
                return End::GivenUp;
            }
        }
        self.commit();
        End::Leaves
    }

    fn subscribe(&mut self) {
        let topics = self.topics.borrow_and_update().clone();
        self.told = None;
        if topics.is_empty() {
            self.consumer.unsubscribe();
            self.consumer.context().lost(None);
            return;
        }
        let names: Vec<&str> = topics.iter().map(TopicName::as_str).collect();
        if let Err(error) = self.consumer.subscribe(&names) {
            warn!(%error, "cannot subscribe, trying again");
            self.topics.mark_changed();
        }
    }

    fn commit(&self) {
        let commits = take_all(&self.consumer.context().commits);
        // refused by the broker in any case, and the client would wait for that before it returns to the group
        if self.consumer.assignment_lost() {
            return;
        }
        let mut list = TopicPartitionList::new();
        for (at, next) in commits {
            let next = rdkafka::Offset::Offset(i64::try_from(next.get()).unwrap_or(i64::MAX));
            if let Err(error) = list.add_partition_offset(at.topic.as_str(), number(&at), next) {
                debug!(partition = %at, %error, "an offset cannot be noted");
            }
        }
        if list.count() > 0
            && let Err(error) = self.consumer.commit(&list, CommitMode::Async)
        {
            debug!(%error, "offsets were not noted");
        }
    }

    /// The failure that ends the membership, if `error` is one; anything else passes.
    fn judge(&mut self, error: &KafkaError) -> Option<LogError> {
        match (error, error.rdkafka_error_code()) {
            (KafkaError::MessageConsumptionFatal(_), _) | (_, Some(Code::GroupAuthorizationFailed)) => {
                return Some(log_error(error));
            }
            (
                _,
                Some(Code::UnknownTopic | Code::UnknownTopicOrPartition | Code::TopicAuthorizationFailed),
            ) => {
                let text = error.to_string();
                if self.told.as_ref() != Some(&text) {
                    warn!(%error, "a topic cannot be subscribed to yet");
                    self.told = Some(text);
                }
            }
            _ => self.consumer.context().reports.outlived(error, "membership"),
        }
        None
    }
}

/// Hears the group's decisions.
struct Lease {
    reports: Reports,
    events: mpsc::Sender<MembershipEvent>,
    leave: CancellationToken,
    commits: Commits,
    /// When the session ended, until the group's next decision.
    lost_since: Mutex<Option<Instant>>,
}

impl Lease {
    fn lost(&self, since: Option<Instant>) {
        *self.lost_since.lock().unwrap_or_else(PoisonError::into_inner) = since;
    }

    fn is_lost_for(&self, limit: Duration) -> bool {
        let since = *self.lost_since.lock().unwrap_or_else(PoisonError::into_inner);
        since.is_some_and(|since| since.elapsed() > limit)
    }

    fn assigned(&self, consumer: &BaseConsumer<Self>, list: &mut TopicPartitionList) -> KafkaResult<()> {
        // nothing is fetched here, and the end is the one position that needs no committed offset
        list.set_all_offsets(rdkafka::Offset::End)?;
        consumer.incremental_assign(list)?;
        consumer.pause(list)?;
        self.reports.answered();
        self.lost(None);
        let gained = partitions(list);
        if !gained.is_empty() {
            metrics::partitions_moved("assigned", gained.len());
            debug!(partitions = gained.len(), "partitions were assigned");
            self.send(MembershipEvent::Assigned(gained));
        }
        Ok(())
    }

    fn revoked(&self, consumer: &BaseConsumer<Self>, list: &TopicPartitionList) -> KafkaResult<()> {
        let revoked = partitions(list);
        // told until the partitions are given back
        let session_ended = consumer.assignment_lost();
        if !revoked.is_empty() {
            metrics::partitions_moved("revoked", revoked.len());
            debug!(partitions = revoked.len(), session_ended, "partitions were revoked");
            let (done, mut finished) = oneshot::channel();
            let until = Instant::now() + REVOKE_WAIT;
            if self.send(MembershipEvent::Revoked { partitions: revoked, done }) {
                // late or never: the commit protocol fences whoever goes on
                while Instant::now() < until
                    && finished.try_recv() == Err(oneshot::error::TryRecvError::Empty)
                {
                    std::thread::sleep(LOOK);
                }
            }
        }
        if session_ended {
            // what the workers noted last is no longer ours to tell
            take_all(&self.commits);
            self.lost(Some(Instant::now()));
        }
        consumer.incremental_unassign(list)
    }

    /// Hands on an event; waits while the receiver is busy, but not for ever.
    fn send(&self, event: MembershipEvent) -> bool {
        let until = Instant::now() + REVOKE_WAIT;
        let mut event = event;
        loop {
            match self.events.try_send(event) {
                Ok(()) => return true,
                Err(mpsc::error::TrySendError::Closed(_)) => return false,
                Err(mpsc::error::TrySendError::Full(back)) => event = back,
            }
            if Instant::now() > until {
                // an event that is lost would leave the pipeline with wrong ideas: end the membership instead
                warn!("nobody takes the group's decisions, leaving the group");
                self.leave.cancel();
                return false;
            }
            std::thread::sleep(LOOK);
        }
    }
}

impl ConsumerContext for Lease {
    fn rebalance(&self, consumer: &BaseConsumer<Self>, code: RDKafkaRespErr, list: &mut TopicPartitionList) {
        let done = match code {
            RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS => self.assigned(consumer, list),
            _ => self.revoked(consumer, list),
        };
        if let Err(error) = done {
            warn!(%error, "a decision of the group could not be carried out");
        }
    }

    fn commit_callback(&self, result: KafkaResult<()>, _: &TopicPartitionList) {
        // advisory only; a lost lease or nothing to commit is everyday
        if let Err(error) = result {
            debug!(%error, "offsets were not noted");
        }
    }
}

impl ClientContext for Lease {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        self.reports.log(level, facility, message);
    }

    fn stats(&self, statistics: Statistics) {
        self.reports.stats(statistics);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.reports.error(error, reason);
    }
}

fn partitions(list: &TopicPartitionList) -> Vec<TopicPartition> {
    let elements = list.elements();
    let known = elements.iter().filter_map(|element| {
        let topic = TopicName::new(element.topic()).ok()?;
        let partition = PartitionId(u32::try_from(element.partition()).ok()?);
        Some(TopicPartition { topic, partition })
    });
    known.collect()
}
