//! GC-3: one of each kind of damage is planted; exactly those are found.

use sluice_core::{ErrorKind, IndexSpec, ManifestSeq};

use super::*;
use crate::gc::GcOptions;
use crate::paths::Object;
use crate::registry::Registry;
use crate::scrub::{self, Problem, ScrubOptions, ScrubProgress};

/// A sound store: three indexes, chains over several chunks, one collected, one index retired and swept.
async fn sound(store: &Store, clock: &Arc<TestClock>) -> Vec<Session> {
    let registry = Registry::new(store.clone(), clock.clone());
    let mut sessions = Vec::new();
    for index in ["a", "b", "gone"] {
        let spec: IndexSpec =
            serde_json::from_str(&format!(r#"{{"name":"{index}","dimension":4}}"#)).unwrap();
        registry.create(&spec).await.unwrap();
        for number in 0..2 {
            let p = partition_of(index, 1, number);
            let mut session = Session::claim(store, &p, clock).await;
            for _ in 0..70 {
                session.grow(4).await.unwrap();
            }
            sessions.push(session);
        }
    }
    registry.retire(&IndexName::new("gone").unwrap()).await.unwrap();
    clock.advance(1);
    let options = GcOptions { retain: 2, grace: std::time::Duration::ZERO, dry_run: false };
    crate::gc::run_all(store, None, &options, clock.clone()).await.unwrap();
    sessions
}

async fn scrub(store: &Store) -> scrub::ScrubReport {
    let mut last = ScrubProgress::default();
    let report = scrub::run(store, &ScrubOptions::default(), |p| last = p).await.unwrap();
    assert_eq!((last.objects_done, last.bytes_done), (last.objects_total, last.bytes_total));
    report
}

#[tokio::test]
async fn gc_3_a_sound_store_has_no_findings() {
    for (name, store, _dir) in stores() {
        let clock = Arc::new(TestClock::default());
        let mut sessions = sound(&store, &clock).await;
        sessions[0].upload().await.unwrap();
        let report = scrub(&store).await;
        assert_eq!(report.findings, [], "{name}");
        assert_eq!((report.indexes, report.unpublished, report.is_sound()), (3, 1, true), "{name}");
    }
}

#[tokio::test]
async fn gc_3_each_kind_of_damage_is_found_and_nothing_else() {
    for (name, store, _dir) in stores() {
        let clock = Arc::new(TestClock::default());
        let mut sessions = sound(&store, &clock).await;
        let p = partition_of("a", 1, 0);
        let q = partition_of("b", 1, 0);
        let segment = |s: &Session, i: usize| {
            Object::Segment(s.owner.partition().clone(), s.owner.manifest().segments[i].id)
        };
        let body = async |object: &Object| {
            store.get(object, 1 << 20, crate::store::Carrier::Small).await.unwrap().unwrap().to_vec()
        };
        let put = async |object: &Object, body: Vec<u8>| store.put(object, body.into()).await.unwrap();
        let mut expected = Vec::new();

        let missing = segment(&sessions[0], 0);
        store.delete(vec![missing.to_string()]).await.unwrap();
        expected.push((Problem::Missing, missing));
        let flipped = segment(&sessions[0], 1);
        let mut bytes = body(&flipped).await;
        bytes[3] ^= 1;
        put(&flipped, bytes).await;
        expected.push((Problem::Damaged, flipped));
        let cut = segment(&sessions[0], 2);
        let mut bytes = body(&cut).await;
        bytes.pop();
        put(&cut, bytes).await;
        expected.push((Problem::Damaged, cut));
        let orphan = Object::Segment(p.clone(), sluice_core::SegmentId::first_of(sluice_core::Epoch(1)));
        put(&orphan, b"nobody's".to_vec()).await;
        expected.push((Problem::Orphan, orphan));
        let lost = Object::Manifest(p.clone(), ManifestSeq(66));
        store.delete(vec![lost.to_string()]).await.unwrap();
        expected.push((Problem::Missing, lost));
        let swapped = Object::Manifest(p.clone(), ManifestSeq(67));
        put(&swapped, body(&Object::Manifest(q.clone(), ManifestSeq(67))).await).await;
        expected.push((Problem::Damaged, swapped));
        let ghost = Object::Manifest(q.clone(), ManifestSeq(5));
        put(&ghost, b"a zombie's".to_vec()).await;
        expected.push((Problem::Orphan, ghost));
        let spec = Object::Spec(IndexName::new("gone").unwrap(), 1);
        put(&spec, b"{}".to_vec()).await;
        expected.push((Problem::Damaged, spec));
        let binding = Object::Binding(sluice_core::TopicName::new("b").unwrap(), 1);
        put(&binding, b"{}".to_vec()).await;
        expected.push((Problem::Damaged, binding));
        let late = Object::Segment(partition_of("gone", 1, 0), sessions[4].owner.new_segment_id());
        put(&late, b"of a zombie".to_vec()).await;
        expected.push((Problem::Orphan, late));

        let report = scrub(&store).await;
        let found: Vec<_> = report.findings.iter().map(|f| (f.problem, f.key.clone())).collect();
        let mut expected: Vec<_> = expected.into_iter().map(|(p, o)| (p, o.to_string())).collect();
        expected.sort();
        assert_eq!(found, expected, "{name}\n{report}");
        assert!(!report.is_sound());
        let json = serde_json::to_value(&report).unwrap();
        assert_eq!(json["findings"][0]["problem"], "missing", "{name}");
    }
}

#[tokio::test]
async fn gc_3_a_foreign_object_is_named_and_a_damaged_newest_manifest_too() {
    let dir = tempfile::tempdir().unwrap();
    let url = format!("file://{}", dir.path().display());
    let store = Store::open(&StoreConfig { url, options: BTreeMap::new() }).unwrap();
    let clock = Arc::new(TestClock::default());
    sound(&store, &clock).await;
    std::fs::write(dir.path().join("a/notes.txt"), b"?").unwrap();
    let newest = Object::Manifest(partition_of("a", 1, 1), ManifestSeq(71));
    std::fs::write(dir.path().join(newest.to_string()), b"SLUICEMF, not").unwrap();
    let report = scrub(&store).await;
    let found: Vec<_> = report.findings.iter().map(|f| (f.problem, f.key.as_str())).collect();
    let newest = newest.to_string();
    assert_eq!(found, [(Problem::Damaged, newest.as_str()), (Problem::Foreign, "a/notes.txt")]);
}

#[tokio::test]
async fn one_index_alone_is_looked_at_and_one_of_which_nothing_is_there_is_unknown() {
    let (store, clock) = (memory(), Arc::new(TestClock::default()));
    sound(&store, &clock).await;
    let look = async |name: &str| {
        let options = ScrubOptions { index: Some(IndexName::new(name).unwrap()), shallow: true };
        scrub::run(&store, &options, |_| ()).await
    };
    assert_eq!(look("a").await.unwrap().indexes, 1);
    assert_eq!(look("absent").await.unwrap_err().kind(), ErrorKind::NotFound);
}
