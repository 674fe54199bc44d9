//! The writing side of a partition: claim, upload, publish. After it is fenced it writes nothing more (FENCE-2).

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use sluice_core::{Clock, Epoch, ManifestSeq, Offset, PartitionRef, SegmentId, Timestamp, failpoint};
use ulid::Ulid;

use crate::chain::{Chain, ChainEnd};
use crate::create::{BACKOFF, TRIES, drive};
use crate::error::{ProtocolError, StoreError};
use crate::manifest::{self, Manifest, Reason, SegmentEntry};
use crate::paths::Object;
use crate::protocol::{self, ClaimDecision, ClaimFacts, Commit, CommitStep, Stamp, Verdict};
use crate::{hint, metrics};

/// Claims that may be lost to others in a row before the claimant asks to be called again.
const CLAIM_ROUNDS: u32 = 16;

/// What a claim needs to know.
#[derive(Debug, Clone, Copy)]
pub struct Claim {
    /// Where a partition that was never claimed begins.
    pub log_start: Offset,
    /// Partitions that the topic has now (KEY-1).
    pub partitions: u32,
}

/// What the next manifest shall hold.
#[derive(Debug, Clone)]
pub struct Publication {
    pub next_offset: Offset,
    /// All segments, not only the new ones.
    pub segments: Vec<SegmentEntry>,
}

/// The owner of a partition, until it is fenced.
pub struct Owner {
    chain: Chain,
    clock: Arc<dyn Clock>,
    manifest: Manifest,
    uploaded: BTreeSet<SegmentId>,
    last_ulid: Ulid,
    /// A create whose outcome is still open; it is settled before anything else is written.
    pending: Option<Pending>,
    fenced_at: Option<ManifestSeq>,
}

struct Pending {
    manifest: Manifest,
    body: Bytes,
    commit: Commit,
}

impl Owner {
    /// Takes the partition: creates the next manifest with the content of the newest one and the next epoch. From
    /// then on every older owner is fenced.
    ///
    /// # Errors
    /// `PartitionsChanged` (KEY-1), `Retired`, a damaged newest manifest, or the store's failure. Claiming again is
    /// always safe.
    pub async fn claim(chain: Chain, claim: Claim, clock: Arc<dyn Clock>) -> Result<Self, ProtocolError> {
        let partition = chain.partition().clone();
        let mut retry = BACKOFF.start();
        for _ in 0..CLAIM_ROUNDS {
            let newest = match chain.end().await? {
                ChainEnd::Empty => None,
                ChainEnd::At(manifest) => Some(*manifest),
                ChainEnd::Swept => return Err(ProtocolError::Retired { partition }),
            };
            let decision = protocol::claim(&ClaimFacts {
                partition: &partition,
                newest: newest.as_ref(),
                log_start: claim.log_start,
                partitions: claim.partitions,
                stamp: stamp(clock.as_ref()),
            });
            let next = match decision {
                ClaimDecision::Create(manifest) => manifest,
                ClaimDecision::Retired => return Err(ProtocolError::Retired { partition }),
                ClaimDecision::PartitionsChanged { stored } => {
                    let found = claim.partitions;
                    return Err(ProtocolError::PartitionsChanged { partition, stored, found });
                }
            };
            failpoint!("claim.before");
            let (manifest, verdict) = commit(&chain, next).await?;
            match verdict {
                Verdict::Won => {
                    failpoint!("claim.after");
                    hint::write(chain.store(), &partition, manifest.seq).await;
                    tracing::info!(%partition, epoch = %manifest.epoch, seq = %manifest.seq,
                        next_offset = %manifest.next_offset, segments = manifest.segments.len(), "claimed");
                    return Ok(Self::new(chain, clock, manifest));
                }
                // somebody else was quicker, or the chain moved on far enough to collect this name: look again
                Verdict::Lost | Verdict::Collected => retry.wait().await,
                Verdict::Denied | Verdict::Unresolved => {
                    return Err(ProtocolError::Unresolved { partition, seq: manifest.seq });
                }
            }
        }
        Err(ProtocolError::Restless { partition })
    }

    fn new(chain: Chain, clock: Arc<dyn Clock>, manifest: Manifest) -> Self {
        let (uploaded, last_ulid) = (BTreeSet::new(), Ulid::nil());
        Self { chain, clock, manifest, uploaded, last_ulid, pending: None, fenced_at: None }
    }

    /// What was last published; what a new owner resumes from.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    pub fn partition(&self) -> &PartitionRef {
        self.chain.partition()
    }

    pub fn epoch(&self) -> Epoch {
        self.manifest.epoch
    }

    /// Whether a newer owner was seen.
    pub fn is_fenced(&self) -> bool {
        self.fenced_at.is_some()
    }

    /// An id for a segment that is about to be uploaded: larger than every one before.
    ///
    /// Ids must be taken in the order of publication: once a larger one is published, a smaller one that was not is
    /// garbage and is refused.
    pub fn new_segment_id(&mut self) -> SegmentId {
        let ulid = new_ulid(self.clock.now());
        self.last_ulid = if ulid > self.last_ulid {
            ulid
        } else {
            // the clock went back, or stands still; ids never do
            Ulid::from(u128::from(self.last_ulid).saturating_add(1))
        };
        SegmentId { epoch: self.manifest.epoch, ulid: self.last_ulid }
    }

    /// Uploads a sealed segment under an id of [`Owner::new_segment_id`]. It is nobody's until it is published.
    ///
    /// # Errors
    /// `Fenced` without a request when a newer owner was seen; the store's failure otherwise (try again).
    pub async fn upload(
        &mut self,
        id: SegmentId,
        path: &Path,
        bytes: u64,
        digest: blake3::Hash,
    ) -> Result<(), ProtocolError> {
        self.refuse_when_fenced()?;
        failpoint!("upload.before");
        let object = Object::Segment(self.partition().clone(), id);
        self.chain.store().upload(&object, path, bytes, digest).await?;
        failpoint!("upload.after");
        self.uploaded.insert(id);
        Ok(())
    }

    /// Creates the next manifest: the only commit point.
    ///
    /// After an error of kind `Unavailable` the same call may be made again: a create that is still open is settled
    /// first, and content that turns out to be published already is not published twice.
    ///
    /// # Errors
    /// `Fenced` when a newer owner has the partition; `Refused` and `NotUploaded` when the caller breaks a rule.
    pub async fn publish(&mut self, publication: Publication) -> Result<&Manifest, ProtocolError> {
        self.refuse_when_fenced()?;
        self.settle().await?;
        let Publication { next_offset, segments } = publication;
        if self.manifest.reason == Reason::Publish
            && protocol::same_content(&self.manifest, next_offset, &segments)
        {
            return Ok(&self.manifest);
        }
        let known: BTreeSet<SegmentId> = self.manifest.segments.iter().map(|s| s.id).collect();
        if let Some(new) = segments.iter().find(|s| !known.contains(&s.id) && !self.uploaded.contains(&s.id))
        {
            return Err(ProtocolError::NotUploaded { partition: self.partition().clone(), segment: new.id });
        }
        let stamp = stamp(self.clock.as_ref());
        let next = protocol::publish(&self.manifest, next_offset, segments, stamp)
            .map_err(|refusal| ProtocolError::Refused { partition: self.partition().clone(), refusal })?;
        let body = encode(&next)?;
        let commit = Commit::of_manifest(next.seq, TRIES);
        self.pending = Some(Pending { manifest: next, body, commit });
        failpoint!("publish.before");
        let started = Instant::now();
        self.settle().await?;
        metrics::published(self.partition(), started.elapsed());
        Ok(&self.manifest)
    }

    /// Brings an open create to its verdict. Cancellation-safe: the create stays open when this is dropped.
    async fn settle(&mut self) -> Result<(), ProtocolError> {
        let Some(pending) = &mut self.pending else { return Ok(()) };
        let partition = self.chain.partition().clone();
        let seq = pending.manifest.seq;
        if let CommitStep::Finished(Verdict::Unresolved | Verdict::Denied) = pending.commit.next() {
            pending.commit.resume(TRIES);
        }
        let object = Object::Manifest(partition.clone(), seq);
        let boundary = |chunk| Object::Boundary(partition.clone(), chunk);
        let (store, commit) = (self.chain.store(), &mut pending.commit);
        let verdict = drive(store, &object, &pending.body, commit, boundary).await?;
        metrics::created(pending.manifest.reason.as_str(), name(verdict));
        match verdict {
            Verdict::Won => {
                failpoint!("publish.after");
                if let Some(won) = self.pending.take() {
                    self.manifest = won.manifest;
                }
                // what is below the watermark is published or can never be
                self.uploaded = self.uploaded.split_off(&self.manifest.watermark);
                hint::write(self.chain.store(), &partition, seq).await;
                Ok(())
            }
            Verdict::Lost | Verdict::Collected => {
                self.fenced_at = Some(seq);
                let (epoch, verdict) = (self.manifest.epoch, name(verdict));
                tracing::warn!(%partition, %epoch, %seq, verdict, "fenced");
                Err(ProtocolError::Fenced { partition, seq })
            }
            Verdict::Denied | Verdict::Unresolved => Err(ProtocolError::Unresolved { partition, seq }),
        }
    }

    fn refuse_when_fenced(&self) -> Result<(), ProtocolError> {
        match self.fenced_at {
            Some(seq) => Err(ProtocolError::Fenced { partition: self.partition().clone(), seq }),
            None => Ok(()),
        }
    }
}

/// Creates `next` and says what came of it.
pub(crate) async fn commit(chain: &Chain, next: Manifest) -> Result<(Manifest, Verdict), ProtocolError> {
    let partition = chain.partition();
    let body = encode(&next)?;
    let mut commit = Commit::of_manifest(next.seq, TRIES);
    let object = Object::Manifest(partition.clone(), next.seq);
    let boundary = |chunk| Object::Boundary(partition.clone(), chunk);
    let verdict = drive(chain.store(), &object, &body, &mut commit, boundary).await?;
    metrics::created(next.reason.as_str(), name(verdict));
    Ok((next, verdict))
}

/// A put id and the time of now.
pub(crate) fn stamp(clock: &dyn Clock) -> Stamp {
    let created_at = clock.now();
    Stamp { put_id: new_ulid(created_at), created_at }
}

fn new_ulid(at: Timestamp) -> Ulid {
    Ulid::from_parts(u64::try_from(at.0).unwrap_or(0), Ulid::generate().random())
}

fn encode(manifest: &Manifest) -> Result<Bytes, ProtocolError> {
    let encoded = manifest::encode(manifest).map_err(|source| {
        let key = Object::Manifest(manifest.partition.clone(), manifest.seq).to_string();
        // too large: a limit of the caller's content, not damage
        ProtocolError::Store(StoreError::Config { key, message: source.to_string() })
    })?;
    Ok(encoded.into())
}

fn name(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Won => "won",
        Verdict::Lost => "lost",
        Verdict::Collected => "collected",
        Verdict::Denied => "denied",
        Verdict::Unresolved => "unresolved",
    }
}
