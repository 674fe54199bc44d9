//! Taking up where the newest manifest ends: every segment fetched and opened before the first record is read.

use std::time::Duration;

use futures::{StreamExt, TryStreamExt, stream};
use sluice_core::{Backoff, ErrorKind, Offset};
use tracing::warn;

use crate::snapshot::{Live, Snapshot};
use crate::worker::Context;
use crate::{EdgeError, IndexerError, SegmentFetch, SegmentState};

/// Segments fetched at the same time.
const PARALLEL: usize = 4;
/// Pauses between tries of a fetch or a publication.
pub(crate) const BACKOFF: Backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(10));

/// What the newest manifest of the partition says.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Recovered {
    pub next_offset: Offset,
    pub segments: Vec<SegmentState>,
}

/// Opens all segments of `recovered`; a store that is away is asked again until it answers.
pub(crate) async fn open(
    recovered: Recovered,
    fetch: &dyn SegmentFetch,
    context: &Context,
) -> Result<Snapshot, IndexerError> {
    let segments = stream::iter(recovered.segments)
        .map(|state| open_one(state, fetch, context))
        .buffered(PARALLEL)
        .try_collect()
        .await
        .map_err(IndexerError::Recover)?;
    Ok(Snapshot { next_offset: recovered.next_offset, segments })
}

async fn open_one(
    state: SegmentState,
    fetch: &dyn SegmentFetch,
    context: &Context,
) -> Result<Live, EdgeError> {
    let mut retry = BACKOFF.start();
    let segment = loop {
        match fetch.get(&state).await {
            Ok(segment) => break segment,
            Err(error) if error.kind() == ErrorKind::Unavailable => {
                warn!(partition = %context.partition, segment = %state.id, %error, "segment not fetched, will retry");
                context.report_error("recover", &error);
                retry.wait().await;
            }
            Err(error) => return Err(error),
        }
    };
    let fits = segment.len() == state.records && state.deleted.max().is_none_or(|row| row < state.records);
    if !fits {
        let text = format!("segment {} holds {} rows, not {}", state.id, segment.len(), state.records);
        return Err(EdgeError::new(ErrorKind::Corrupt, text));
    }
    Ok(Live { state, segment })
}
