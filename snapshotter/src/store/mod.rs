//! The edge over the object store.

use std::collections::BTreeMap;

use crate::error::StoreError;

/// Where objects are kept.
#[derive(Debug, Clone, Default)]
pub struct StoreConfig {
    /// `file:///dir` or `s3://bucket/prefix`.
    pub url: String,
    /// object_store's own keys; no credentials, these come from `AWS_*` variables.
    pub options: BTreeMap<String, String>,
}

/// The object store, shared by clones.
#[derive(Debug, Clone)]
pub struct Store {}

impl Store {
    /// Connects; does no I/O save making the directory of a `file://` store.
    pub fn open(config: &StoreConfig) -> Result<Self, StoreError> {
        unimplemented!("{config:?}")
    }

    /// A store in memory, for tests.
    pub fn in_memory() -> Self {
        unimplemented!()
    }

    /// Refuses a store that cannot carry the protocol (FENCE-5).
    pub async fn probe(&self) -> Result<(), StoreError> {
        unimplemented!()
    }
}
