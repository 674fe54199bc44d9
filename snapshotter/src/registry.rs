//! The specs of all indexes, in the store.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use sluice_core::{Clock, Generation, IndexName, IndexSpec, SpecDifference, Timestamp};

use crate::error::RegistryError;
use crate::store::Store;

/// One version of an index's spec, as it is stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StoredSpec {
    pub version: u64,
    pub generation: Generation,
    pub retired: bool,
    pub put_id: String,
    pub created_at: Timestamp,
    pub spec: IndexSpec,
}

/// What [`Registry::create`] found.
#[derive(Debug, Clone, PartialEq)]
pub enum Created {
    /// The spec is stored now.
    Created(StoredSpec),
    /// The same spec was there already.
    Same(StoredSpec),
    /// Another spec is there.
    Differs { stored: StoredSpec, differences: Vec<SpecDifference> },
}

/// The specs of all indexes.
#[derive(Clone)]
pub struct Registry {
    _store: Store,
    _clock: Arc<dyn Clock>,
}

impl Registry {
    pub fn new(store: Store, clock: Arc<dyn Clock>) -> Self {
        Self { _store: store, _clock: clock }
    }

    /// Every index that is not retired, by name.
    pub async fn list(&self) -> Result<Vec<StoredSpec>, RegistryError> {
        unimplemented!()
    }

    /// Every index that ever was, retired ones too.
    pub async fn list_all(&self) -> Result<Vec<StoredSpec>, RegistryError> {
        unimplemented!()
    }

    /// The newest spec of an index that is not retired.
    pub async fn get(&self, index: &IndexName) -> Result<Option<StoredSpec>, RegistryError> {
        unimplemented!("{index}")
    }

    /// Stores a spec unless there is one; idempotent.
    pub async fn create(&self, spec: &IndexSpec) -> Result<Created, RegistryError> {
        unimplemented!("{spec:?}")
    }

    /// Stores a new version with what may change in place.
    pub async fn update(&self, spec: &IndexSpec) -> Result<StoredSpec, RegistryError> {
        unimplemented!("{spec:?}")
    }

    /// Ends an index. `None` when there is no such index, or it is retired already.
    pub async fn retire(&self, index: &IndexName) -> Result<Option<StoredSpec>, RegistryError> {
        unimplemented!("{index}")
    }
}
