//! One partition's chain of manifests, as it is read: the newest, the next, one by its number.

use bytes::Bytes;
use sluice_core::{ManifestSeq, PartitionRef};

use crate::error::ProtocolError;
use crate::hint;
use crate::manifest::{self, MAX_MANIFEST_BYTES, Manifest};
use crate::paths::Object;
use crate::protocol::{self, Chunk, Newest, NewestSearch, Probe, SearchStep};
use crate::store::{Carrier, Store};

/// One partition's chain of manifests. Reading it changes nothing and needs no listing.
#[derive(Debug, Clone)]
pub struct Chain {
    store: Store,
    partition: PartitionRef,
}

/// How a chain ends.
#[derive(Debug, Clone, PartialEq)]
pub enum ChainEnd {
    /// Never claimed.
    Empty,
    At(Box<Manifest>),
    /// Retired, and its manifests collected.
    Swept,
}

impl Chain {
    pub fn new(store: Store, partition: PartitionRef) -> Self {
        Self { store, partition }
    }

    pub fn partition(&self) -> &PartitionRef {
        &self.partition
    }

    pub fn store(&self) -> &Store {
        &self.store
    }

    /// The newest manifest; `None` when the partition was never claimed, or its generation is gone.
    ///
    /// # Errors
    /// When the store does not answer, or the newest manifest is damaged.
    pub async fn newest(&self) -> Result<Option<Manifest>, ProtocolError> {
        match self.end().await? {
            ChainEnd::At(manifest) => Ok(Some(*manifest)),
            ChainEnd::Empty | ChainEnd::Swept => Ok(None),
        }
    }

    /// How the chain ends, telling a chain that never was from one that is gone.
    ///
    /// # Errors
    /// As [`Chain::newest`].
    pub async fn end(&self) -> Result<ChainEnd, ProtocolError> {
        let hint = hint::read(&self.store, &self.partition).await;
        match self.search(NewestSearch::from_hint(hint)).await? {
            (Newest::Empty, _) => Ok(ChainEnd::Empty),
            (Newest::Swept, _) => Ok(ChainEnd::Swept),
            (Newest::At(seq), Some(body)) => Ok(ChainEnd::At(Box::new(self.decode(seq, &body)?))),
            (Newest::At(_), None) => Err(ProtocolError::Restless { partition: self.partition.clone() }),
        }
    }

    /// The newest manifest when it is newer than `known`; costs two small reads when it is not.
    ///
    /// # Errors
    /// As [`Chain::newest`], and `Broken` when the newer one does not follow `known` (FOLD-2, QRY-2).
    pub async fn next_after(&self, known: &Manifest) -> Result<Option<Manifest>, ProtocolError> {
        match self.search(NewestSearch::after(known.seq)).await? {
            (Newest::At(seq), _) if seq == known.seq => Ok(None),
            (Newest::At(seq), Some(body)) => {
                let newer = self.decode(seq, &body)?;
                match protocol::follows(known, &newer) {
                    Ok(()) => Ok(Some(newer)),
                    Err(message) => {
                        Err(ProtocolError::Broken { partition: self.partition.clone(), seq, message })
                    }
                }
            }
            (Newest::Swept | Newest::Empty, _) => {
                Err(ProtocolError::Retired { partition: self.partition.clone() })
            }
            (Newest::At(_), None) => Err(ProtocolError::Restless { partition: self.partition.clone() }),
        }
    }

    /// One manifest by its number; `None` when it is not there or its chunk was collected.
    ///
    /// # Errors
    /// When the store does not answer, or the manifest is damaged.
    pub async fn read(&self, seq: ManifestSeq) -> Result<Option<Manifest>, ProtocolError> {
        let Some(body) = self.body(seq).await? else { return Ok(None) };
        // what stands in a retired chunk may be a zombie's; the order of the two looks matters
        if self.is_retired(Chunk::of(seq)).await? {
            return Ok(None);
        }
        self.decode(seq, &body).map(Some)
    }

    /// Whether a chunk has a boundary.
    pub(crate) async fn is_retired(&self, chunk: Chunk) -> Result<bool, ProtocolError> {
        let object = Object::Boundary(self.partition.clone(), chunk);
        Ok(self.store.get(&object, u64::MAX, Carrier::Small).await?.is_some())
    }

    async fn body(&self, seq: ManifestSeq) -> Result<Option<Bytes>, ProtocolError> {
        let object = Object::Manifest(self.partition.clone(), seq);
        Ok(self.store.get(&object, MAX_MANIFEST_BYTES, Carrier::Small).await?)
    }

    fn decode(&self, seq: ManifestSeq, body: &[u8]) -> Result<Manifest, ProtocolError> {
        manifest::decode(body, &self.partition, seq).map_err(|source| {
            let key = Object::Manifest(self.partition.clone(), seq).to_string();
            ProtocolError::Manifest { key, source }
        })
    }

    /// Carries out a search. The last manifest that was found present is the one that the search ends on, so its
    /// body is at hand.
    async fn search(&self, mut search: NewestSearch) -> Result<(Newest, Option<Bytes>), ProtocolError> {
        let mut body = None;
        loop {
            match search.next() {
                SearchStep::Look(Probe::Manifest(seq)) => {
                    let found = self.body(seq).await?;
                    search.observe(found.is_some());
                    body = found.or(body);
                }
                SearchStep::Look(Probe::Boundary(chunk)) => search.observe(self.is_retired(chunk).await?),
                SearchStep::Found(newest) => return Ok((newest, body)),
                SearchStep::GaveUp => {
                    return Err(ProtocolError::Restless { partition: self.partition.clone() });
                }
            }
        }
    }
}
