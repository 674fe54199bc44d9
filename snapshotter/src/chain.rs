//! One partition's chain of manifests, as it is read.

use sluice_core::{ManifestSeq, PartitionRef};

use crate::error::ProtocolError;
use crate::manifest::Manifest;
use crate::store::Store;

/// One partition's chain of manifests.
#[derive(Debug, Clone)]
pub struct Chain {
    pub(crate) store: Store,
    pub(crate) partition: PartitionRef,
}

impl Chain {
    pub fn new(store: Store, partition: PartitionRef) -> Self {
        Self { store, partition }
    }

    pub fn partition(&self) -> &PartitionRef {
        &self.partition
    }

    /// The newest manifest; `None` when the partition was never claimed.
    pub async fn newest(&self) -> Result<Option<Manifest>, ProtocolError> {
        unimplemented!()
    }

    /// The newest manifest when it is newer than `known`.
    pub async fn next_after(&self, known: &Manifest) -> Result<Option<Manifest>, ProtocolError> {
        unimplemented!("{known:?}")
    }

    /// One manifest by its number; `None` when it is not there or was collected.
    pub async fn read(&self, seq: ManifestSeq) -> Result<Option<Manifest>, ProtocolError> {
        unimplemented!("{seq}")
    }
}
