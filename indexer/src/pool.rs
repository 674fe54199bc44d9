//! `ComputePool`: where segments are built, off the async runtime, on a fixed number of threads.
//!
//! Quick jobs, graphs and merges run in lanes of their own, so that one partition's graph never stands before another
//! one's small segment, nor a merge before a seal. A job learns through a flag that nobody waits for it any more: dropping the future of [`ComputePool::run`] raises it.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rayon::{ThreadPool, ThreadPoolBuilder};
use sluice_core::ErrorKind;
use tokio::sync::oneshot;

/// Why a job gave no result.
#[derive(Debug, thiserror::Error)]
pub enum PoolError {
    #[error("compute threads could not be started: {0}")]
    Start(#[from] rayon::ThreadPoolBuildError),
    #[error("a compute job panicked: {0}")]
    Panicked(String),
}

impl PoolError {
    pub fn kind(&self) -> ErrorKind {
        ErrorKind::Internal
    }
}

/// Which jobs a job competes with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lane {
    /// Milliseconds: marking dead rows, segments without a graph.
    Quick,
    /// Seconds: sealing with a graph.
    Graph,
    /// Minutes, and off the path from record to manifest.
    Merge,
}

impl Lane {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Quick => "quick",
            Self::Graph => "graph",
            Self::Merge => "merge",
        }
    }
}

/// Threads for building segments; clones share them.
#[derive(Debug, Clone)]
pub struct ComputePool {
    quick: Arc<ThreadPool>,
    graphs: Arc<ThreadPool>,
    merges: Arc<ThreadPool>,
}

impl ComputePool {
    /// `threads` each for quick jobs and for graphs, and half as many, at least one, for merges. The operating system
    /// shares the cores among them.
    ///
    /// # Errors
    /// When the threads cannot be started.
    pub fn new(threads: usize) -> Result<Self, PoolError> {
        let lane = |name: &'static str, threads: usize| {
            let builder = ThreadPoolBuilder::new().num_threads(threads.max(1));
            builder.thread_name(move |i| format!("{name}-{i}")).build().map(Arc::new)
        };
        Ok(Self {
            quick: lane("quick", threads)?,
            graphs: lane("graph", threads)?,
            merges: lane("merge", threads / 2)?,
        })
    }

    /// Runs `job` on a thread of `lane`; parallel work inside it stays in that lane.
    ///
    /// # Errors
    /// When the job panics.
    pub async fn run<T, F>(&self, lane: Lane, job: F) -> Result<T, PoolError>
    where
        T: Send + 'static,
        F: FnOnce(&AtomicBool) -> T + Send + 'static,
    {
        let cancelled = Arc::new(AtomicBool::new(false));
        let _on_drop = CancelOnDrop(Arc::clone(&cancelled));
        let (sender, receiver) = oneshot::channel();
        let pool = match lane {
            Lane::Quick => &self.quick,
            Lane::Graph => &self.graphs,
            Lane::Merge => &self.merges,
        };
        pool.spawn(move || {
            let result = catch_unwind(AssertUnwindSafe(|| job(&cancelled)));
            // nobody waits any more: the result is dropped, and with it what it holds
            drop(sender.send(result));
        });
        match receiver.await {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(panic)) => Err(PoolError::Panicked(panic_text(panic.as_ref()))),
            Err(_) => Err(PoolError::Panicked("its thread ended".into())),
        }
    }
}

struct CancelOnDrop(Arc<AtomicBool>);

impl Drop for CancelOnDrop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

fn panic_text(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|s| (*s).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "no message".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn liv_2_a_panic_in_a_job_is_an_error_and_the_pool_goes_on() {
        let pool = ComputePool::new(1).unwrap();
        let error = pool.run(Lane::Quick, |_| panic!("bad row {}", 7)).await.map(|(): ()| ()).unwrap_err();
        assert_eq!(error.to_string(), "a compute job panicked: bad row 7");
        assert_eq!(pool.run(Lane::Quick, |_| 1).await.unwrap(), 1);
    }

    #[tokio::test]
    async fn a_dropped_job_is_told_to_stop() {
        let pool = ComputePool::new(1).unwrap();
        let (started, has_started) = oneshot::channel();
        let (stopped, has_stopped) = oneshot::channel();
        let job = pool.run(Lane::Merge, move |cancelled| {
            started.send(()).unwrap();
            while !cancelled.load(Ordering::Relaxed) {
                std::thread::yield_now();
            }
            stopped.send(()).unwrap();
        });
        tokio::select! {
            _ = job => unreachable!("it waits for the flag"),
            started = has_started => started.unwrap(),
        }
        has_stopped.await.unwrap();
    }

    #[tokio::test]
    async fn a_merge_does_not_stand_before_a_seal() {
        let pool = ComputePool::new(1).unwrap();
        let (release, wait) = std::sync::mpsc::sync_channel::<()>(1);
        let merge = pool.run(Lane::Merge, move |_| wait.recv().unwrap());
        let seal = pool.run(Lane::Quick, |_| ());
        let (merge, ()) = tokio::join!(merge, async {
            seal.await.unwrap();
            release.send(()).unwrap();
        });
        merge.unwrap();
    }
}
