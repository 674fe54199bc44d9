//! The one thing that flows back: a manifest was published here, so the loader of this process need not wait for
//! its next look.

use std::sync::Arc;

use sluice_core::PartitionRef;
use sluice_query_svc::Catalogue;

/// Wakes the query service of this process, where there is one.
#[derive(Clone, Default)]
pub(crate) struct Wake(Option<Arc<Catalogue>>);

impl Wake {
    pub(crate) fn new(catalogue: Arc<Catalogue>) -> Self {
        Self(Some(catalogue))
    }

    pub(crate) fn published(&self, partition: &PartitionRef) {
        if let Some(catalogue) = &self.0 {
            catalogue.published(partition);
        }
    }
}
