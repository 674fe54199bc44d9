//! Garbage collection while indexing: each indexer collects the partitions that it owns.

use std::sync::Arc;
use std::time::Duration;

use sluice_core::{Clock, PartitionRef};
use sluice_snapshotter::{GcOptions, Store, gc};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::board::Board;
use super::discovery::Indexes;
use crate::config::Config;
use crate::metrics;

/// The longest that one partition's collection may take; a cut-off collection is harmless.
const LONGEST: Duration = Duration::from_secs(300);

/// Collects now and then; see [`Collector::run`].
pub(super) struct Collector {
    pub(super) config: Arc<Config>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) store: Store,
    pub(super) board: Board,
    pub(super) indexes: watch::Receiver<Indexes>,
}

impl Collector {
    /// Collects every `gc.interval` until `stop`. A failed collection is tried at the next one.
    pub(super) async fn run(self, stop: CancellationToken) {
        let interval = self.config.gc.interval;
        if interval.is_zero() {
            return;
        }
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                () = tokio::time::sleep(interval) => {}
            }
            for partition in self.owned() {
                if stop.is_cancelled() {
                    return;
                }
                self.collect(&partition, &stop).await;
            }
        }
    }

    fn owned(&self) -> Vec<PartitionRef> {
        let indexes = self.indexes.borrow().clone();
        let running = self.board.running_partitions().into_iter();
        let named = running.filter_map(|at| {
            let state = indexes.get(&at.topic)?;
            let (index, generation) = (state.stored.spec.name.clone(), state.stored.generation);
            Some(PartitionRef { index, generation, partition: at.partition })
        });
        named.collect()
    }

    async fn collect(&self, partition: &PartitionRef, stop: &CancellationToken) {
        let options =
            GcOptions { retain: self.config.gc.retain, grace: self.config.gc.grace, dry_run: false };
        let collecting = gc::run(&self.store, partition, &options, self.clock.as_ref());
        let collected = tokio::select! {
            biased;
            () = stop.cancelled() => return,
            collected = tokio::time::timeout(LONGEST, collecting) => collected,
        };
        match collected {
            Ok(Ok(report)) => {
                metrics::collected("ok");
                if report.manifests + report.segments > 0 {
                    let (manifests, segments, bytes) = (report.manifests, report.segments, report.bytes);
                    info!(%partition, manifests, segments, bytes, "garbage collected");
                }
            }
            Ok(Err(error)) => {
                metrics::collected("failed");
                warn!(%partition, %error, "garbage not collected, will retry at the next interval");
            }
            Err(_) => {
                metrics::collected("timeout");
                warn!(%partition, "garbage collection took too long, goes on at the next interval");
            }
        }
    }
}
