//! Segments up and down: whole, in parts, changed on the way, damaged in the store.

use sluice_core::{Epoch, SegmentId};
use ulid::Ulid;

use super::*;
use crate::StoreError;
use crate::paths::Object;

fn noise(length: usize) -> Vec<u8> {
    let mut reader = blake3::Hasher::new().update(b"noise").finalize_xof();
    let mut bytes = vec![0; length];
    reader.fill(&mut bytes);
    bytes
}

#[tokio::test]
async fn what_goes_up_whole_or_in_parts_comes_down_the_same() {
    for (name, store, _dir) in stores() {
        let dir = tempfile::tempdir().unwrap();
        for (number, (length, single)) in
            [(0, 10), (1, 10), (100_000, 1 << 20), (20 << 20, 1 << 20), (17 << 20, 64 << 20)]
                .into_iter()
                .enumerate()
        {
            let content = noise(length);
            let path = dir.path().join("up");
            std::fs::write(&path, &content).unwrap();
            let (bytes, digest) = (content.len() as u64, blake3::hash(&content));
            let id = SegmentId { epoch: Epoch(1), ulid: Ulid::from(number as u128) };
            let object = Object::Segment(partition(), id);
            store.upload_by(&object, &path, (bytes, digest), single).await.unwrap();
            assert_eq!(store.size(&object).await.unwrap(), Some(bytes), "{name}");
            let down = dir.path().join(format!("down-{number}"));
            let file = std::fs::File::create_new(&down).unwrap();
            store.download(&object, bytes, digest, (file, &down)).await.unwrap();
            assert!(std::fs::read(&down).unwrap() == content, "{name}: {length} bytes");
            let damaged = store.verify(&object, bytes, blake3::hash(b"other")).await.unwrap_err();
            assert!(matches!(damaged, StoreError::Damaged { .. }), "{name}: {damaged}");
            let damaged = store.verify(&object, bytes + 1, digest).await.unwrap_err();
            assert!(matches!(damaged, StoreError::Damaged { .. }), "{name}: {damaged}");
        }
    }
}

#[tokio::test]
async fn a_file_that_is_not_what_was_announced_is_not_in_the_store_afterwards() {
    for (name, store, _dir) in stores() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("up");
        let content = noise(3 << 20);
        std::fs::write(&path, &content).unwrap();
        let (bytes, digest) = (content.len() as u64, blake3::hash(&content));
        let wrong = [(bytes + 1, digest), (bytes, blake3::hash(b"other"))];
        for (announced, single) in wrong.into_iter().flat_map(|w| [(w, 64 << 20), (w, 1 << 20)]) {
            let id = SegmentId { epoch: Epoch(1), ulid: Ulid::generate() };
            let object = Object::Segment(partition(), id);
            let error = store.upload_by(&object, &path, announced, single).await.unwrap_err();
            assert!(matches!(error, StoreError::Damaged { .. }), "{name}: {error}");
            assert_eq!(store.size(&object).await.unwrap(), None, "{name}");
        }
    }
}

#[tokio::test]
async fn an_unknown_host_or_a_closed_port_is_unavailable_and_says_no_secret() {
    let options = [("endpoint", "http://127.0.0.1:1"), ("allow_http", "true"), ("region", "us-east-1")];
    let options = options.map(|(k, v)| (k.to_owned(), v.to_owned())).into();
    let config = StoreConfig { url: "s3://bucket/prefix".into(), options };
    let store = Store::open(&config).unwrap();
    assert_eq!(format!("{store:?}"), "Store(s3://bucket/prefix)");
    let object = Object::Hint(partition());
    // without credentials the client would ask the machine's metadata service; a create goes nowhere either way
    if std::env::var_os("AWS_ACCESS_KEY_ID").is_some() {
        let error = store.create(&object, "x".into()).await.unwrap_err();
        assert!(matches!(error, StoreError::Unavailable { .. }), "{error}");
        assert!(!error.to_string().contains(&std::env::var("AWS_SECRET_ACCESS_KEY").unwrap()), "{error}");
    }
}
