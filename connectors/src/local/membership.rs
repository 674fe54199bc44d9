//! Membership of the local log: the holder of one file lock works on every partition, the others wait for it.

use std::collections::BTreeSet;
use std::fs::{File, TryLockError};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use sluice_core::{Offset, PartitionId, TopicName, TopicPartition};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tracing::info;

use super::LocalLog;
use crate::error::LogError;
use crate::metrics;
use crate::source::{Membership, MembershipEvent, REVOKE_WAIT, Source};

/// How often a waiting member tries the lock, and how often a topic that does not exist yet is looked for.
const RETRY: Duration = Duration::from_millis(100);

/// Takes part in the work of one local log.
pub(super) struct LocalMembership {
    log: Arc<LocalLog>,
    member: Mutex<Option<(CancellationToken, JoinHandle<()>)>>,
}

impl LocalMembership {
    pub(super) fn new(log: Arc<LocalLog>) -> Self {
        Self { log, member: Mutex::default() }
    }

    fn swap(
        &self,
        member: Option<(CancellationToken, JoinHandle<()>)>,
    ) -> Option<(CancellationToken, JoinHandle<()>)> {
        std::mem::replace(&mut *self.member.lock().unwrap_or_else(PoisonError::into_inner), member)
    }
}

#[async_trait]
impl Membership for LocalMembership {
    async fn join(
        &self,
        topics: watch::Receiver<BTreeSet<TopicName>>,
    ) -> Result<mpsc::Receiver<MembershipEvent>, LogError> {
        self.leave().await;
        let (events, receiver) = mpsc::channel(16);
        let leave = CancellationToken::new();
        let member = Member { log: Arc::clone(&self.log), topics, events, held: BTreeSet::new() };
        let task = tokio::spawn(member.run(leave.clone()));
        self.swap(Some((leave, task)));
        Ok(receiver)
    }

    /// Nothing is kept: what is published stands in the manifests, and there is no other reader of it here.
    async fn commit(&self, _: &TopicPartition, _: Offset) -> Result<(), LogError> {
        Ok(())
    }

    async fn leave(&self) {
        if let Some((leave, task)) = self.swap(None) {
            leave.cancel();
            // a member that panicked has left too
            task.await.ok();
        }
    }
}

impl Drop for LocalMembership {
    fn drop(&mut self) {
        if let Some((leave, _)) = self.swap(None) {
            leave.cancel();
        }
    }
}

struct Member {
    log: Arc<LocalLog>,
    topics: watch::Receiver<BTreeSet<TopicName>>,
    events: mpsc::Sender<MembershipEvent>,
    held: BTreeSet<TopicPartition>,
}

/// The receiver of the events is gone.
struct Gone;

impl Member {
    async fn run(mut self, leave: CancellationToken) {
        let path = self.log.dir.join("indexer.lock");
        let lock = tokio::select! {
            lock = lock_file(&path) => lock,
            () = leave.cancelled() => return,
            () = self.events.closed() => return,
        };
        let lock = match lock {
            Ok(lock) => lock,
            Err(error) => {
                self.events.send(MembershipEvent::Failed(error)).await.ok();
                return;
            }
        };
        let told = tokio::select! {
            told = self.work() => told,
            () = leave.cancelled() => Ok(()),
        };
        if told.is_ok() {
            let held = std::mem::take(&mut self.held);
            self.revoke(held).await.ok();
        }
        // the next member begins when the file is closed
        drop(lock);
    }

    /// Follows the topics until the receiver is gone.
    async fn work(&mut self) -> Result<(), Gone> {
        loop {
            let topics = self.topics.borrow_and_update().clone();
            let (wanted, complete) = self.partitions_of(&topics).await;
            let lost = self.held.difference(&wanted).cloned().collect();
            self.revoke(lost).await?;
            let gained: Vec<_> = wanted.difference(&self.held).cloned().collect();
            if !gained.is_empty() {
                self.held.extend(gained.iter().cloned());
                metrics::partitions_moved("assigned", gained.len());
                self.events.send(MembershipEvent::Assigned(gained)).await.map_err(|_| Gone)?;
            }
            tokio::select! {
                changed = self.topics.changed() => if changed.is_err() {
                    // nobody will change the topics any more
                    self.events.closed().await;
                    return Err(Gone);
                },
                () = tokio::time::sleep(RETRY), if !complete => {}
                () = self.events.closed() => return Err(Gone),
            }
        }
    }

    /// Every partition of the topics that exist, and whether all of them do.
    async fn partitions_of(&self, topics: &BTreeSet<TopicName>) -> (BTreeSet<TopicPartition>, bool) {
        let (mut found, mut complete) = (BTreeSet::new(), true);
        for topic in topics {
            match self.log.partitions(topic).await {
                Ok(Some(count)) => found.extend(
                    (0..count).map(|p| TopicPartition { topic: topic.clone(), partition: PartitionId(p) }),
                ),
                Ok(None) | Err(_) => {
                    complete = false;
                    // what is held stays held while the file does not answer
                    found.extend(self.held.iter().filter(|at| at.topic == *topic).cloned());
                }
            }
        }
        (found, complete)
    }

    async fn revoke(&mut self, lost: BTreeSet<TopicPartition>) -> Result<(), Gone> {
        if lost.is_empty() {
            return Ok(());
        }
        self.held.retain(|at| !lost.contains(at));
        metrics::partitions_moved("revoked", lost.len());
        let (done, finished) = oneshot::channel();
        let event = MembershipEvent::Revoked { partitions: lost.into_iter().collect(), done };
        self.events.send(event).await.map_err(|_| Gone)?;
        // late or never: the commit protocol fences whoever goes on
        tokio::time::timeout(REVOKE_WAIT, finished).await.ok();
        Ok(())
    }
}

/// Waits until the file's lock is ours; it is given back when the file is closed, also by a kill.
async fn lock_file(path: &Path) -> Result<File, LogError> {
    let failed = |e: std::io::Error| LogError::Unavailable(format!("cannot lock {}: {e}", path.display()));
    let file = File::options().create(true).truncate(false).write(true).open(path).map_err(failed)?;
    let mut told = false;
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(TryLockError::WouldBlock) => {
                if !told {
                    info!(path = %path.display(), "another process indexes this local log, waiting for it");
                    told = true;
                }
                tokio::time::sleep(RETRY).await;
            }
            Err(TryLockError::Error(error)) => return Err(failed(error)),
        }
    }
}
