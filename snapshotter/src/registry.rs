//! The specs of all indexes, in the store: one immutable object per version, created if absent, kept for ever.
//!
//! One topic feeds one index: see `bindings`. The newest version of an index says what holds now: its spec, its generation, and whether it is retired. An index
//! that is created again under a retired name gets the next generation, so it never meets the old objects. Versions
//! are consecutive and never deleted, therefore the newest is found by looking, without a listing.

pub(crate) mod bindings;

use std::sync::Arc;

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt};
use serde::{Deserialize, Serialize};
use sluice_core::{
    Backoff, Clock, ErrorKind, Generation, IndexName, IndexSpec, SpecDifference, Timestamp, failpoint,
};

use self::bindings::Unfinished;
use crate::create::{BACKOFF, TRIES, drive};
use crate::error::RegistryError;
use crate::owner::stamp;
use crate::paths::{Folder, Object};
use crate::protocol::{Chunk, Commit, RunEnd, Verdict};
use crate::store::{Carrier, Store};

/// Most bytes of a stored spec.
const MAX_SPEC_BYTES: u64 = 1 << 20;
/// Looks at what others do to an index or its topic before the caller is asked to call again.
const ROUNDS: u32 = 16;
/// Specs that are read at the same time.
const PARALLEL: usize = 8;

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
    store: Store,
    clock: Arc<dyn Clock>,
    backoff: Backoff,
}

impl Registry {
    pub fn new(store: Store, clock: Arc<dyn Clock>) -> Self {
        Self { store, clock, backoff: BACKOFF }
    }

    /// The same registry, not pausing between its rounds.
    #[cfg(test)]
    pub(crate) fn without_pauses(self) -> Self {
        Self { backoff: Backoff::new(std::time::Duration::ZERO, std::time::Duration::ZERO), ..self }
    }

    /// Every index that is not retired, by name; see [`Registry::list_all`].
    ///
    /// # Errors
    /// When the store does not answer.
    pub async fn list(&self) -> Result<Vec<StoredSpec>, RegistryError> {
        let mut specs = self.list_all().await?;
        specs.retain(|stored| !stored.retired);
        Ok(specs)
    }

    /// Every index that ever was, retired ones too, by name. One whose spec is damaged is left out and reported, so
    /// that it does not take the others with it.
    ///
    /// # Errors
    /// When the store does not answer.
    pub async fn list_all(&self) -> Result<Vec<StoredSpec>, RegistryError> {
        let mut names: Vec<IndexName> =
            self.store.folders(&Folder::Root).await?.iter().filter_map(|n| IndexName::new(n).ok()).collect();
        names.sort();
        let specs: Vec<_> = futures::stream::iter(names)
            .map(|name| async move {
                match self.newest(&name).await {
                    Err(error) if error.kind() == ErrorKind::Corrupt => {
                        tracing::error!(index = %name, %error, "index left out: its spec is damaged");
                        Ok(None)
                    }
                    read => read,
                }
            })
            .buffered(PARALLEL)
            .try_collect()
            .await?;
        Ok(specs.into_iter().flatten().collect())
    }

    /// The newest spec of an index that is not retired.
    ///
    /// # Errors
    /// When the store does not answer, or the spec is damaged.
    pub async fn get(&self, index: &IndexName) -> Result<Option<StoredSpec>, RegistryError> {
        Ok(self.newest(index).await?.filter(|stored| !stored.retired))
    }

    /// Stores a spec unless there is one; idempotent. After a retirement it begins the next generation.
    ///
    /// # Errors
    /// `TopicTaken` when the topic feeds another index; when the spec is invalid, or the store does not answer.
    pub async fn create(&self, spec: &IndexSpec) -> Result<Created, RegistryError> {
        spec.validate()?;
        let (mut retry, mut unfinished) = (self.backoff.start(), Unfinished::default());
        for _ in 0..ROUNDS {
            let (version, generation) = match self.newest(&spec.name).await? {
                None => (1, Generation(1)),
                Some(stored) if stored.retired => (stored.version + 1, stored.generation.next()),
                Some(stored) => {
                    self.adopt(&stored).await;
                    let differences = stored.spec.differences(spec);
                    return Ok(match differences.is_empty() {
                        true => Created::Same(stored),
                        false => Created::Differs { stored, differences },
                    });
                }
            };
            let pending = self.stamped(spec.clone(), version, generation, false);
            if self.bind(&pending, &mut unfinished).await?
                && let Some(stored) = self.put(pending).await?
            {
                tracing::info!(index = %spec.name, version, %generation, "index created");
                return Ok(Created::Created(stored));
            }
            retry.wait().await;
        }
        Err(RegistryError::Restless(spec.name.clone()))
    }

    /// Stores a new version with what may change in place; returns the stored one when nothing differs.
    ///
    /// # Errors
    /// `NeedsRebuild` with the keys that may not change, `Unknown` when there is no such index.
    pub async fn update(&self, spec: &IndexSpec) -> Result<StoredSpec, RegistryError> {
        spec.validate()?;
        let mut retry = self.backoff.start();
        for _ in 0..ROUNDS {
            let Some(stored) = self.get(&spec.name).await? else {
                return Err(RegistryError::Unknown(spec.name.clone()));
            };
            let differences = stored.spec.differences(spec);
            if differences.is_empty() {
                return Ok(stored);
            }
            let fixed: Vec<_> = differences.iter().filter(|d| !d.in_place).map(|d| d.to_string()).collect();
            if !fixed.is_empty() {
                let (index, keys) = (spec.name.clone(), fixed.join("; "));
                return Err(RegistryError::NeedsRebuild { index, keys });
            }
            match self.put(self.stamped(spec.clone(), stored.version + 1, stored.generation, false)).await? {
                Some(stored) => {
                    tracing::info!(index = %spec.name, version = stored.version, "index updated");
                    return Ok(stored);
                }
                None => retry.wait().await,
            }
        }
        Err(RegistryError::Restless(spec.name.clone()))
    }

    /// Ends an index: it is no longer consumed or served, and the next gc takes its objects. `None` when there is no
    /// such index, or it is retired already.
    ///
    /// # Errors
    /// When the store does not answer.
    pub async fn retire(&self, index: &IndexName) -> Result<Option<StoredSpec>, RegistryError> {
        let mut retry = self.backoff.start();
        for _ in 0..ROUNDS {
            let Some(stored) = self.get(index).await? else { return Ok(None) };
            let (version, generation) = (stored.version + 1, stored.generation);
            match self.put(self.stamped(stored.spec, version, generation, true)).await? {
                Some(stored) => {
                    tracing::info!(%index, %generation, "index retired");
                    return Ok(Some(stored));
                }
                None => retry.wait().await,
            }
        }
        Err(RegistryError::Restless(index.clone()))
    }

    /// The newest version, retired or not.
    ///
    /// # Errors
    /// As [`Registry::get`].
    pub async fn newest(&self, index: &IndexName) -> Result<Option<StoredSpec>, RegistryError> {
        let mut run = RunEnd::from(0);
        let mut body = None;
        while let Some(version) = run.next() {
            let object = Object::Spec(index.clone(), version);
            let found = self.store.get(&object, MAX_SPEC_BYTES, Carrier::Small).await?;
            run.observe(found.is_some());
            body = found.or(body);
        }
        body.map(|body| read(index, run.last(), &body)).transpose()
    }

    /// A version as it would be stored now.
    fn stamped(&self, spec: IndexSpec, version: u64, generation: Generation, retired: bool) -> StoredSpec {
        let stamp = stamp(self.clock.as_ref());
        let (put_id, created_at) = (stamp.put_id.to_string(), stamp.created_at);
        StoredSpec { version, generation, retired, put_id, created_at, spec }
    }

    /// Creates one version; `None` when somebody else stored it.
    async fn put(&self, stored: StoredSpec) -> Result<Option<StoredSpec>, RegistryError> {
        let index = stored.spec.name.clone();
        let object = Object::Spec(index.clone(), stored.version);
        let body = serde_json::to_vec_pretty(&stored).map_err(|e| damaged(&object, &e))?;
        let mut commit = Commit::of_kept(TRIES);
        // specs are never collected, so there is no boundary to look at
        let boundary = |_: Chunk| object.clone();
        failpoint!("spec.before");
        match drive(&self.store, &object, &Bytes::from(body), &mut commit, boundary).await? {
            Verdict::Won => {
                failpoint!("spec.after");
                Ok(Some(stored))
            }
            Verdict::Lost | Verdict::Collected => Ok(None),
            Verdict::Denied | Verdict::Unresolved => Err(RegistryError::Unresolved(index)),
        }
    }
}

/// Reads a stored spec and checks that it belongs under its key.
pub(crate) fn read(index: &IndexName, version: u64, body: &[u8]) -> Result<StoredSpec, RegistryError> {
    let object = Object::Spec(index.clone(), version);
    let stored: StoredSpec = serde_json::from_slice(body).map_err(|e| damaged(&object, &e))?;
    stored.spec.validate().map_err(|e| damaged(&object, &e))?;
    if stored.version != version || stored.spec.name != *index || stored.generation.0 == 0 {
        return Err(damaged(&object, &"it was written for another key"));
    }
    Ok(stored)
}

fn damaged(object: &Object, message: &dyn std::fmt::Display) -> RegistryError {
    RegistryError::Damaged { key: object.to_string(), message: message.to_string() }
}
