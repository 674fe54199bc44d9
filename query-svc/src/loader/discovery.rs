//! Looks for new, changed and retired indexes and runs the loaders of their partitions.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use sluice_core::IndexName;
use sluice_snapshotter::{Registry, StoredSpec};
use tokio::task::{Id, JoinSet};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use super::Supplies;
use super::partition::PartitionLoader;
use crate::catalogue::{Catalogue, Index, Slot, Trouble};
use crate::view::IndexInfo;

/// Pause between looks while a new generation is being loaded.
const INCOMING_PAUSE: Duration = Duration::from_millis(50);

/// The one task that adds indexes to the catalogue and takes them away.
pub(crate) struct Discovery {
    catalogue: Arc<Catalogue>,
    registry: Registry,
    supplies: Arc<Supplies>,
    /// Newer generations of served indexes; each takes over once all its partitions serve.
    incoming: BTreeMap<IndexName, Arc<Index>>,
    loaders: JoinSet<()>,
    /// Whose loader each task is, to start it again should it panic.
    running: BTreeMap<Id, (Arc<Index>, Arc<Slot>)>,
    /// The registry could not be read at the last look.
    failing: bool,
}

impl Discovery {
    pub(crate) fn new(catalogue: Arc<Catalogue>, registry: Registry, supplies: Arc<Supplies>) -> Self {
        let (incoming, loaders, running) = (BTreeMap::new(), JoinSet::new(), BTreeMap::new());
        Self { catalogue, registry, supplies, incoming, loaders, running, failing: false }
    }

    /// Runs until `stop`, then ends every loader.
    pub(crate) async fn run(mut self, stop: CancellationToken) {
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                listed = self.registry.list_all() => self.note(listed, &stop),
            }
            self.promote();
            self.reap();
            let interval = self.supplies.options.discovery_interval;
            let pause = if self.incoming.is_empty() { interval } else { interval.min(INCOMING_PAUSE) };
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                () = self.catalogue.rediscovery() => {}
                () = tokio::time::sleep(pause) => {}
            }
        }
        // their tokens are children of `stop`
        while self.loaders.join_next().await.is_some() {}
    }

    fn note(
        &mut self,
        listed: Result<Vec<StoredSpec>, sluice_snapshotter::RegistryError>,
        stop: &CancellationToken,
    ) {
        match listed {
            Ok(listed) => {
                self.failing = false;
                self.apply(listed, stop);
                self.catalogue.set_listed();
            }
            Err(error) => {
                if !self.failing {
                    warn!(kind = %error.kind(), %error, "the list of indexes cannot be read; serving those that are known");
                }
                self.failing = true;
            }
        }
    }

    /// An index goes only when the registry says that it is retired: one that is merely not listed (a directory
    /// that is not mounted) goes on being served.
    fn apply(&mut self, listed: Vec<StoredSpec>, stop: &CancellationToken) {
        for stored in listed {
            if !stored.retired {
                self.admit(stored, stop);
                continue;
            }
            self.catalogue.saw(&stored.spec.name);
            if let Some(index) = self.incoming.remove(&stored.spec.name) {
                index.stop.cancel();
            }
            if let Some(index) = self.catalogue.get(&stored.spec.name) {
                info!(index = %stored.spec.name, "index retired");
                self.catalogue.remove(&stored.spec.name, index.info().generation);
            }
        }
    }

    fn admit(&mut self, stored: StoredSpec, stop: &CancellationToken) {
        let info = IndexInfo::new(stored.spec, stored.generation);
        let name = info.name.clone();
        let served = self.catalogue.get(&name);
        for known in [served.as_ref(), self.incoming.get(&name)].into_iter().flatten() {
            let now = known.info();
            if now.generation == info.generation {
                if now.spec != info.spec {
                    known.set_info(info);
                }
                return;
            }
        }
        let index = Arc::new(Index::new(info, stop.child_token()));
        info!(index = %name, generation = stored.generation.get(), partitions = index.slots.len(), "index found");
        for slot in &index.slots {
            self.start(Arc::clone(&index), Arc::clone(slot));
        }
        if served.is_none() {
            self.catalogue.insert(index);
        } else if let Some(overtaken) = self.incoming.insert(name, index) {
            overtaken.stop.cancel();
        }
    }

    /// Puts new generations in the place of the older ones once they can answer.
    fn promote(&mut self) {
        let catalogue = &self.catalogue;
        self.incoming.retain(|name, index| {
            let ready = index.is_resolved();
            if ready {
                info!(index = %name, generation = index.info().generation.get(), "generation takes over");
                catalogue.insert(Arc::clone(index));
            }
            !ready
        });
    }

    fn start(&mut self, index: Arc<Index>, slot: Arc<Slot>) {
        let supplies = Arc::clone(&self.supplies);
        let loader = PartitionLoader { index: Arc::clone(&index), slot: Arc::clone(&slot), supplies };
        let task = self.loaders.spawn(loader.run());
        self.running.insert(task.id(), (index, slot));
    }

    /// Starts loaders again that panicked; the pause between two looks is their back-off.
    fn reap(&mut self) {
        while let Some(ended) = self.loaders.try_join_next_with_id() {
            let (id, panic) = match ended {
                Ok((id, ())) => (id, None),
                Err(error) => (error.id(), Some(error)),
            };
            let Some((index, slot)) = self.running.remove(&id) else { continue };
            if let Some(error) = panic {
                error!(partition = %slot.partition, %error, "the loader panicked and is started again");
                slot.set_trouble(Some(Trouble { kind: "internal", detail: "the loader failed".into() }));
                self.start(index, slot);
            }
        }
    }
}
