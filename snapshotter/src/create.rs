//! Carries out one create: the steps are decided by [`Commit`], the outcome of each is judged here.

use std::time::Duration;

use bytes::Bytes;
use sluice_core::Backoff;

use crate::error::StoreError;
use crate::paths::Object;
use crate::protocol::{BoundaryReport, Commit, CommitStep, PutReport, ReadBack, Verdict};
use crate::store::{Carrier, Store};

/// Tries of a create before its outcome is reported as open.
pub(crate) const TRIES: u32 = 6;
/// Pauses between tries of a create, and between the rounds of those who lose one.
pub(crate) const BACKOFF: Backoff = Backoff::new(Duration::from_millis(80), Duration::from_secs(2));

/// Drives `commit` until it has a verdict. The body holds a put id, so equal bytes mean my own create.
///
/// # Errors
/// The store's refusal, when it refuses; an open outcome is a verdict, not an error.
pub(crate) async fn drive(
    store: &Store,
    object: &Object,
    body: &Bytes,
    commit: &mut Commit,
    boundary: impl Fn(crate::protocol::Chunk) -> Object,
) -> Result<Verdict, StoreError> {
    let (mut failures, mut retry) = (0, BACKOFF.start());
    loop {
        let failed = match commit.next() {
            CommitStep::Put => {
                let sent = store.create(object, body.clone()).await;
                let (report, failed) = match sent {
                    Ok(()) => (PutReport::Created, None),
                    Err(StoreError::AlreadyExists { .. }) => (PutReport::Exists, None),
                    Err(error @ (StoreError::Denied { .. } | StoreError::Unfit(_))) => {
                        commit.put_reported(PutReport::Denied);
                        return Err(error);
                    }
                    Err(error) => (PutReport::Unclear, Some(error)),
                };
                commit.put_reported(report);
                failed
            }
            CommitStep::ReadBack => match store.get(object, body.len() as u64, Carrier::Single).await {
                Ok(Some(found)) if found == *body => {
                    commit.read_back(ReadBack::Mine);
                    None
                }
                // larger than mine is not mine
                Ok(Some(_)) | Err(StoreError::TooLarge { .. }) => {
                    commit.read_back(ReadBack::Other);
                    None
                }
                Ok(None) => {
                    commit.read_back(ReadBack::Absent);
                    Some(StoreError::NotFound { key: object.to_string() })
                }
                Err(error @ StoreError::Denied { .. }) => {
                    commit.read_back(ReadBack::Denied);
                    return Err(error);
                }
                Err(error) => {
                    commit.read_back(ReadBack::Unclear);
                    Some(error)
                }
            },
            CommitStep::LookAtBoundary(chunk) => {
                let (report, failed) = match store.get(&boundary(chunk), u64::MAX, Carrier::Small).await {
                    Ok(Some(_)) => (BoundaryReport::Present, None),
                    Ok(None) => (BoundaryReport::Absent, None),
                    Err(error) => (BoundaryReport::Unclear, Some(error)),
                };
                commit.boundary_reported(report);
                failed
            }
            CommitStep::Finished(verdict) => return Ok(verdict),
        };
        if let Some(error) = failed {
            failures += 1;
            tracing::debug!(key = %object, failures, error = %error, "create is unclear");
            retry.wait().await;
        }
    }
}
