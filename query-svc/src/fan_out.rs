//! Runs queries on the search threads: admission, one job per partition, a deadline, and no silence about those
//! that failed (QRY-4).
//!
//! A [`Ticket`] is a query's place. Its permit rides in every job, so that a query that was given up counts
//! until its last job has stopped; dropping the ticket (the client went away) tells the jobs to stop.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use rayon::{ThreadPool, ThreadPoolBuildError, ThreadPoolBuilder};
use sluice_segment::Cancelled;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};
use tokio::time::{Instant, timeout_at};
use tracing::error;

use crate::error::ApiError;
use crate::limits::Limits;
use crate::metrics;
use crate::types::{AnswerStatus, PartitionAnswer};
use crate::view::View;

/// The search threads and who may use them.
#[derive(Debug)]
pub(crate) struct FanOut {
    pool: Arc<ThreadPool>,
    running: Arc<Semaphore>,
    waiting: AtomicUsize,
    max_waiting: usize,
    deadline: Duration,
}

/// An admitted query.
#[derive(Debug)]
pub(crate) struct Ticket {
    permit: Arc<OwnedSemaphorePermit>,
    cancelled: Arc<AtomicBool>,
    deadline: Instant,
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.cancelled.store(true, Ordering::Relaxed);
    }
}

/// What one partition gave.
#[derive(Debug)]
pub(crate) enum Part<T> {
    Done(T),
    Timeout,
    Failed,
    Unavailable,
}

/// Leaves the queue also when the waiting request is dropped.
struct Waiting<'a>(&'a AtomicUsize);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl FanOut {
    pub(crate) fn new(limits: &Limits) -> Result<Self, ThreadPoolBuildError> {
        let pool = ThreadPoolBuilder::new()
            .num_threads(limits.search_threads)
            .thread_name(|i| format!("search-{i}"))
            .build()?;
        Ok(Self {
            pool: Arc::new(pool),
            running: Arc::new(Semaphore::new(limits.max_concurrent_queries.max(1))),
            waiting: AtomicUsize::new(0),
            max_waiting: limits.max_queued_queries,
            deadline: limits.query_deadline,
        })
    }

    /// Searches that make sense to run at once.
    pub(crate) fn threads(&self) -> usize {
        self.pool.current_num_threads()
    }

    /// Waits for a place, at most until the query's deadline.
    ///
    /// # Errors
    /// `Overloaded` when too many wait already, or no place became free in time.
    pub(crate) async fn admit(&self) -> Result<Ticket, ApiError> {
        let begun = Instant::now();
        let deadline = begun + self.deadline;
        let permit = match Arc::clone(&self.running).try_acquire_owned() {
            Ok(permit) => permit,
            Err(_) => self.queue(deadline).await.inspect_err(|_| metrics::query_refused())?,
        };
        metrics::stage("wait", begun.elapsed());
        Ok(Ticket { permit: Arc::new(permit), cancelled: Arc::default(), deadline })
    }

    async fn queue(&self, deadline: Instant) -> Result<OwnedSemaphorePermit, ApiError> {
        let before = self.waiting.fetch_add(1, Ordering::Relaxed);
        let _waiting = Waiting(&self.waiting);
        if before >= self.max_waiting {
            return Err(ApiError::Overloaded);
        }
        let acquired = timeout_at(deadline, Arc::clone(&self.running).acquire_owned()).await;
        acquired.map_err(|_| ApiError::Overloaded)?.map_err(|_| ApiError::Closing)
    }

    /// Runs `job` for each partition of `view`, in parallel, until the ticket's deadline.
    pub(crate) async fn each_partition<T, F>(&self, ticket: &Ticket, view: &Arc<View>, job: F) -> Vec<Part<T>>
    where
        T: Send + 'static,
        F: Fn(&View, u32, &AtomicBool) -> Result<T, Cancelled> + Send + Sync + 'static,
    {
        let job = Arc::new(job);
        let started = view.partitions().iter().zip(0u32..).map(|(snapshot, partition)| {
            snapshot.as_ref()?;
            let (view, job) = (Arc::clone(view), Arc::clone(&job));
            Some(self.start(ticket, move |cancelled| job(&view, partition, cancelled)))
        });
        let mut parts = Vec::with_capacity(view.partitions().len());
        for receiver in started.collect::<Vec<_>>() {
            parts.push(match receiver {
                None => Part::Unavailable,
                Some(receiver) => match timeout_at(ticket.deadline, receiver).await {
                    Ok(Ok(Ok(done))) => Part::Done(done),
                    // nobody but the deadline cancels a query that is still waited for
                    Ok(Ok(Err(Cancelled))) | Err(_) => Part::Timeout,
                    Ok(Err(_)) => Part::Failed,
                },
            });
        }
        if parts.iter().any(|p| matches!(p, Part::Timeout)) {
            ticket.cancelled.store(true, Ordering::Relaxed);
        }
        parts
    }

    /// Runs `job` on a search thread.
    ///
    /// # Errors
    /// `Deadline` when it is not done in time, `Internal` when it panicked.
    pub(crate) async fn run<T, F>(&self, ticket: &Ticket, job: F) -> Result<T, ApiError>
    where
        T: Send + 'static,
        F: FnOnce(&AtomicBool) -> Result<T, ApiError> + Send + 'static,
    {
        match timeout_at(ticket.deadline, self.start(ticket, job)).await {
            Ok(Ok(done)) => done,
            Ok(Err(_)) => Err(ApiError::Internal),
            Err(_) => {
                ticket.cancelled.store(true, Ordering::Relaxed);
                Err(ApiError::Deadline(Vec::new()))
            }
        }
    }

    /// The receiver fails when the job panicked.
    fn start<T, F>(&self, ticket: &Ticket, job: F) -> oneshot::Receiver<T>
    where
        T: Send + 'static,
        F: FnOnce(&AtomicBool) -> T + Send + 'static,
    {
        let (sender, receiver) = oneshot::channel();
        let (permit, cancelled) = (Arc::clone(&ticket.permit), Arc::clone(&ticket.cancelled));
        self.pool.spawn(move || {
            match catch_unwind(AssertUnwindSafe(|| job(&cancelled))) {
                // nobody listens any more when the query was given up
                Ok(done) => drop(sender.send(done)),
                Err(_) => error!("a search job panicked"),
            }
            drop(permit);
        });
        receiver
    }
}

/// Splits the outcome of a fan-out into what was found and what is said about each partition.
pub(crate) fn collect<T>(view: &View, parts: Vec<Part<T>>) -> (Vec<T>, Vec<PartitionAnswer>) {
    let mut found = Vec::with_capacity(parts.len());
    let mut answers = Vec::with_capacity(parts.len());
    for (part, partition) in parts.into_iter().zip(0u32..) {
        let status = match part {
            Part::Done(done) => {
                found.push(done);
                AnswerStatus::Ok
            }
            Part::Timeout => AnswerStatus::Timeout,
            Part::Failed => AnswerStatus::Failed,
            Part::Unavailable => AnswerStatus::Unavailable,
        };
        answers.push(answer(view, partition, status));
    }
    (found, answers)
}

/// What is said about one partition.
pub(crate) fn answer(view: &View, partition: u32, status: AnswerStatus) -> PartitionAnswer {
    let snapshot = view.partitions().get(partition as usize).and_then(Option::as_ref);
    PartitionAnswer {
        partition,
        status,
        generation: view.index.generation.get(),
        manifest: snapshot.map(|s| s.seq().get()),
        next_offset: snapshot.map(|s| s.next_offset().get()),
        visible_offset: snapshot.map(|s| s.visible_offset().get()),
    }
}

/// Whether `answers` are enough: not when one lacks its partition and the request wants all, or all lack theirs.
///
/// # Errors
/// `Deadline` when time was the reason for some partition, else `Incomplete`.
pub(crate) fn require(answers: &[PartitionAnswer], all: bool) -> Result<(), ApiError> {
    let is_ok = |a: &PartitionAnswer| a.status == AnswerStatus::Ok;
    let enough = if all { answers.iter().all(is_ok) } else { answers.iter().any(is_ok) };
    if enough {
        Ok(())
    } else if answers.iter().any(|a| a.status == AnswerStatus::Timeout) {
        Err(ApiError::Deadline(answers.to_vec()))
    } else {
        Err(ApiError::Incomplete(answers.to_vec()))
    }
}

#[cfg(test)]
mod tests {
    use sluice_core::{Generation, IndexSpec, PartitionId, PartitionRef};

    use super::*;
    use crate::view::{IndexInfo, Snapshot};

    /// A view of `loaded.len()` partitions, those loaded that say so.
    fn view(loaded: &[bool]) -> Arc<View> {
        let spec: IndexSpec = serde_json::from_str(r#"{"name":"a","dimension":2}"#).unwrap();
        let info = Arc::new(IndexInfo::new(spec, Generation(1)));
        let snapshot = |(p, loaded): (u32, &bool)| {
            let (index, generation) = (info.name.clone(), info.generation);
            let partition = PartitionRef { index, generation, partition: PartitionId(p) };
            loaded.then(|| Arc::new(Snapshot::empty(partition, Arc::default())))
        };
        let partitions = (0u32..).zip(loaded).map(snapshot).collect();
        Arc::new(View::new(Arc::clone(&info), partitions))
    }

    fn fan_out(running: usize, waiting: usize, deadline: Duration) -> FanOut {
        let limits = Limits {
            search_threads: 4,
            max_concurrent_queries: running,
            max_queued_queries: waiting,
            query_deadline: deadline,
            ..Limits::default()
        };
        FanOut::new(&limits).unwrap()
    }

    /// Works until it is cancelled, as a search that looks at its flag does.
    fn stall(cancelled: &AtomicBool) -> Result<u32, Cancelled> {
        while !cancelled.load(Ordering::Relaxed) {
            std::thread::yield_now();
        }
        Err(Cancelled)
    }

    /// 4 partitions, each in turn stalled, panicking or not loaded: it is named, the others answer.
    #[tokio::test]
    async fn qry_4_a_partition_that_stalls_fails_or_is_missing_is_named() {
        // only the stall may meet its deadline: a panic that prints its trace takes a while too
        let [brief, patient] = [1, 600].map(|seconds| fan_out(4, 4, Duration::from_secs(seconds)));
        for bad in 0..4u32 {
            let mut loaded = [true; 4];
            for status in [AnswerStatus::Timeout, AnswerStatus::Failed, AnswerStatus::Unavailable] {
                loaded[bad as usize] = status != AnswerStatus::Unavailable;
                let fan_out = if status == AnswerStatus::Timeout { &brief } else { &patient };
                let (view, ticket) = (view(&loaded), fan_out.admit().await.unwrap());
                let job = move |_: &View, partition, cancelled: &AtomicBool| match status {
                    AnswerStatus::Timeout if partition == bad => stall(cancelled),
                    AnswerStatus::Failed if partition == bad => panic!("planted"),
                    _ => Ok(partition),
                };
                let (found, answers) = collect(&view, fan_out.each_partition(&ticket, &view, job).await);
                assert_eq!(found, (0..4).filter(|p| *p != bad).collect::<Vec<_>>());
                let expected = |p| if p == bad { status } else { AnswerStatus::Ok };
                assert!(answers.iter().all(|a| a.status == expected(a.partition)), "{answers:?}");
                assert!(require(&answers, false).is_ok());
                let code = require(&answers, true).unwrap_err().problem("").status;
                assert_eq!(code, if status == AnswerStatus::Timeout { 504 } else { 503 });
            }
        }
    }

    #[tokio::test]
    async fn qry_4_an_answer_without_any_partition_is_an_error() {
        let answers = vec![answer(&view(&[false]), 0, AnswerStatus::Unavailable)];
        assert!(matches!(require(&answers, false), Err(ApiError::Incomplete(_))));
    }

    #[tokio::test]
    async fn one_query_over_those_running_and_waiting_is_refused() {
        let fan_out = Arc::new(fan_out(1, 1, Duration::from_secs(60)));
        let running = fan_out.admit().await.unwrap();
        let waiting = tokio::spawn({
            let fan_out = Arc::clone(&fan_out);
            async move { fan_out.admit().await.map(drop) }
        });
        while fan_out.waiting.load(Ordering::Relaxed) == 0 {
            tokio::task::yield_now().await;
        }
        assert!(matches!(fan_out.admit().await, Err(ApiError::Overloaded)));
        drop(running);
        assert!(waiting.await.unwrap().is_ok());
        assert!(fan_out.admit().await.is_ok());
    }

    #[tokio::test]
    async fn a_place_is_free_again_only_when_the_last_job_of_its_query_has_stopped() {
        let fan_out = Arc::new(fan_out(1, 0, Duration::from_secs(60)));
        let ticket = fan_out.admit().await.unwrap();
        let view = view(&[true]);
        let query = tokio::spawn({
            let (fan_out, view) = (Arc::clone(&fan_out), Arc::clone(&view));
            async move { fan_out.each_partition(&ticket, &view, |_, _, cancelled| stall(cancelled)).await }
        });
        tokio::task::yield_now().await;
        assert!(matches!(fan_out.admit().await, Err(ApiError::Overloaded)));
        // the client went away: its ticket is dropped, the job sees it and stops
        query.abort();
        let mut admitted = fan_out.admit().await;
        while admitted.is_err() {
            tokio::time::sleep(Duration::from_millis(1)).await;
            admitted = fan_out.admit().await;
        }
    }
}
