//! One publication: mark what died, upload, create the manifest, take over the file. One at a time per partition.

use std::sync::Arc;

use roaring::RoaringBitmap;
use sluice_core::{ErrorKind, Offset, SegmentId, failpoint, invariant};
use sluice_segment::GrowingSet;
use tracing::{info, warn};

use crate::build::Made;
use crate::mark::{died_since, overwritten};
use crate::recover::BACKOFF;
use crate::snapshot::{Live, Snapshot};
use crate::worker::Context;
use crate::{
    ComputePool, IndexerError, Lane, NewSegment, Publication, Publisher, SegmentFetch, SegmentState,
};

/// What is ready to be published.
pub(crate) enum Ready {
    /// The records from `start` up to `next`; `made` is `None` when none of them is live.
    Seal { set: Arc<GrowingSet>, start: Offset, next: Offset, made: Option<Made> },
    /// `inputs` as they were when the merge began.
    Merge { inputs: Vec<Live>, made: Made },
}

/// Who publishes, and what is needed for it.
pub(crate) struct Press {
    pub(crate) publisher: Box<dyn Publisher>,
    pub(crate) fetch: Arc<dyn SegmentFetch>,
    pub(crate) pool: ComputePool,
    pub(crate) context: Context,
}

impl Press {
    /// Publishes `ready` on top of `snapshot` and returns what is then the newest snapshot. A store that is away is
    /// asked again until it answers.
    pub(crate) async fn publish(
        &mut self,
        snapshot: Snapshot,
        ready: Ready,
    ) -> Result<Snapshot, IndexerError> {
        let mut draft = self.pool.run(Lane::Quick, move |_| prepare(snapshot, ready)).await?;
        let after = draft.snapshot.next_offset;
        let new = draft.new.take().map(|new| self.name(new, &mut draft.snapshot));
        let publication = Publication {
            next_offset: after,
            upload: new.as_ref().map(|(id, made)| NewSegment { id: *id, built: made.built.clone() }),
            segments: draft.snapshot.segments.iter().map(|live| live.state.clone()).collect(),
        };
        self.publish_until_known(&publication).await?;
        failpoint!("indexer.publish.after");
        info!(partition = %self.context.partition, next_offset = %after, segments = publication.segments.len(),
            "published");
        if let Some((id, made)) = new {
            self.adopt(id, made, &mut draft.snapshot).await;
        }
        Ok(draft.snapshot)
    }

    /// Gives the new segment its id. Ids are taken right before they are used, so that they reach the store in order.
    fn name(&mut self, new: New, snapshot: &mut Snapshot) -> (SegmentId, Made) {
        let id = self.publisher.new_segment_id();
        let newest = snapshot.segments.iter().map(|live| live.state.id).max();
        invariant!(Fence3, newest.is_none_or(|newest| newest < id), "segment id {id} is not new");
        let built = &new.made.built;
        let state = SegmentState {
            id,
            bytes: built.bytes,
            digest: built.digest,
            records: built.records,
            deleted: new.deleted,
        };
        let live = Live { state, segment: Arc::clone(&new.made.segment) };
        snapshot.segments.insert(new.place.min(snapshot.segments.len()), live);
        (id, new.made)
    }

    async fn publish_until_known(&mut self, publication: &Publication) -> Result<(), IndexerError> {
        let mut retry = BACKOFF.start();
        loop {
            failpoint!("indexer.publish.before");
            match self.publisher.publish(publication).await {
                Ok(()) => return Ok(()),
                Err(error) if error.kind() == ErrorKind::Unavailable => {
                    warn!(partition = %self.context.partition, %error, "not published, will retry");
                    self.context.report_error("publish", &error);
                    if let Some(new) = &publication.upload {
                        // what is to be uploaded may have been taken away: no retry brings it back
                        tokio::fs::metadata(&new.built.path).await?;
                    }
                    retry.wait().await;
                }
                Err(error) => return Err(IndexerError::Publish(error)),
            }
        }
    }

    /// Hands the file to the cache. When that fails, the file as it was opened goes on serving this worker.
    async fn adopt(&mut self, id: SegmentId, made: Made, snapshot: &mut Snapshot) {
        failpoint!("indexer.adopt.before");
        match self.fetch.adopt(made.built.clone()).await {
            Ok(segment) => {
                if let Some(live) = snapshot.segments.iter_mut().find(|live| live.state.id == id) {
                    live.segment = segment;
                }
                failpoint!("indexer.adopt.after");
            }
            Err(error) => {
                warn!(partition = %self.context.partition, segment = %id, %error, "the cache did not take a segment");
            }
        }
    }
}

/// A snapshot that lacks only its new segment.
struct Draft {
    snapshot: Snapshot,
    new: Option<New>,
}

struct New {
    made: Made,
    deleted: RoaringBitmap,
    /// Where it stands in the list of segments.
    place: usize,
}

/// Brings the bitmaps up to date, replaces the inputs of a merge, drops segments that are wholly dead.
fn prepare(mut snapshot: Snapshot, ready: Ready) -> Draft {
    let mut new = match ready {
        Ready::Seal { set, start, next, made } => {
            let published = snapshot.next_offset;
            invariant!(Fold2, start == published && start <= next, "{start} to {next} after {published}");
            overwritten(&set, &mut snapshot.segments);
            snapshot.next_offset = next;
            made.map(|made| New { made, deleted: RoaringBitmap::new(), place: usize::MAX })
        }
        Ready::Merge { inputs, made } => {
            let deleted = died_since(&inputs, &snapshot.segments, &made.segment);
            let is_input = |live: &Live| inputs.iter().any(|input| input.state.id == live.state.id);
            let place = snapshot.segments.iter().position(is_input).unwrap_or(usize::MAX);
            snapshot.segments.retain(|live| !is_input(live));
            Some(New { made, deleted, place })
        }
    };
    snapshot.segments.retain(|live| live.state.live() > 0);
    new = new.filter(|new| new.deleted.len() < u64::from(new.made.built.records));
    Draft { snapshot, new }
}
