//! Tries a store before it is trusted: create-if-absent, read-back, ranges, listing; leaves nothing behind (FENCE-5).

use bytes::Bytes;
use ulid::Ulid;

use crate::error::StoreError;
use crate::paths::{Folder, Object};
use crate::store::{Carrier, Store};

const BODY: &[u8] = b"sluice probe: first";
const OTHER: &[u8] = b"sluice probe: second, must not be stored";

/// Refuses a store that cannot carry the protocol.
pub(crate) async fn run(store: &Store) -> Result<(), StoreError> {
    let object = Object::Probe(Ulid::generate());
    let result = check(store, &object).await;
    // whatever came of it, leave nothing behind; what a failed clean-up leaves has a name of its own
    let cleaned = store.delete(vec![object.to_string()]).await;
    result.and(cleaned)
}

async fn check(store: &Store, object: &Object) -> Result<(), StoreError> {
    let unfit = |message: &str| Err(StoreError::Unfit(message.to_owned()));
    // a first create may be repeated by nobody, but its reply may be lost: what is read back decides
    match store.create(object, Bytes::from_static(BODY)).await {
        Ok(()) | Err(StoreError::AlreadyExists { .. } | StoreError::Unavailable { .. }) => {}
        Err(error) => return Err(error),
    }
    if read(store, object).await?.as_deref() != Some(BODY) {
        return Err(StoreError::Unavailable {
            operation: "create",
            key: object.to_string(),
            message: "what was written could not be read back".into(),
        });
    }
    match store.create(object, Bytes::from_static(OTHER)).await {
        Err(StoreError::AlreadyExists { .. }) => {}
        Ok(()) => {
            return unfit(
                "it ignores create-if-absent (If-None-Match: *): a second create of the same object succeeded; \
                 two owners of a partition could not be told apart",
            );
        }
        Err(error) => return Err(error),
    }
    if read(store, object).await?.as_deref() != Some(BODY) {
        return unfit("a refused create changed the object");
    }
    let digest = blake3::hash(BODY);
    match store.verify(object, BODY.len() as u64, digest).await {
        Err(StoreError::Damaged { message, .. }) => {
            return unfit(&format!("reading a range returns something else: {message}"));
        }
        verified => verified?,
    }
    let listed = store.list(&Folder::Probes).await?;
    if !listed.iter().any(|l| l.key == object.to_string() && l.bytes == BODY.len() as u64) {
        return unfit("a listing does not show an object that was just created");
    }
    Ok(())
}

async fn read(store: &Store, object: &Object) -> Result<Option<Bytes>, StoreError> {
    store.get(object, 4096, Carrier::Small).await
}
