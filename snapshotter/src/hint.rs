//! The hint: the number of a recent manifest, overwritten, never trusted; it only saves looks.

use std::time::Duration;

use bytes::Bytes;
use sluice_core::{ManifestSeq, PartitionRef, failpoint};

use crate::paths::Object;
use crate::store::{Carrier, Store};

/// A slow store must not hold up a publication that has happened already.
const DEADLINE: Duration = Duration::from_secs(2);

/// What the hint says; a hint that is missing, damaged or out of reach is no hint.
pub(crate) async fn read(store: &Store, partition: &PartitionRef) -> Option<ManifestSeq> {
    let body = store.get(&Object::Hint(partition.clone()), 32, Carrier::Small).await;
    let body = match body {
        Ok(body) => body?,
        Err(error) => {
            tracing::debug!(%partition, %error, "hint not read");
            return None;
        }
    };
    std::str::from_utf8(&body).ok()?.trim().parse().ok().map(ManifestSeq)
}

/// Writes the hint, best effort.
pub(crate) async fn write(store: &Store, partition: &PartitionRef, seq: ManifestSeq) {
    failpoint!("hint.before");
    let object = Object::Hint(partition.clone());
    let written = store.put(&object, Bytes::from(seq.to_string()));
    match tokio::time::timeout(DEADLINE, written).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::debug!(%partition, %error, "hint not written"),
        Err(_) => tracing::debug!(%partition, "hint not written in time"),
    }
    failpoint!("hint.after");
}
