//! FENCE-1 to FENCE-5, FOLD-2 and KEY-1 on the real edge.

use std::sync::atomic::Ordering;

use futures::future::join_all;
use sluice_core::{Epoch, ErrorKind, ManifestSeq};

use super::faulty::{FAULTS, Fault, Faulty};
use super::*;
use crate::gc::{self, GcOptions};
use crate::paths::{Folder, Object};
use crate::{Reason, StoreError};

#[tokio::test]
async fn fence_1_of_sixteen_claims_at_once_one_wins_each_number_and_only_the_last_can_publish() {
    for (name, store, _dir) in stores() {
        let clock = Arc::new(TestClock::default());
        let p = partition();
        let mut sessions = join_all((0..16).map(|_| Session::claim(&store, &p, &clock))).await;
        let mut seqs: Vec<_> = sessions.iter().map(|s| s.owner.manifest().seq.0).collect();
        seqs.sort_unstable();
        assert_eq!(seqs, (1..=16).collect::<Vec<_>>(), "{name}");
        sessions.sort_by_key(|s| s.owner.epoch());
        let epochs: Vec<_> = sessions.iter().map(|s| s.owner.epoch().0).collect();
        assert_eq!(epochs, (1..=16).collect::<Vec<_>>(), "{name}");
        let mut newest = sessions.pop().unwrap();
        for session in &mut sessions {
            let error = session.grow(9).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Fenced, "{name}: {error}");
        }
        newest.grow(9).await.unwrap();
        assert_eq!(walk(&store, &p).await.len(), 17, "{name}");
    }
}

#[tokio::test]
async fn fence_1_a_zombie_that_wakes_after_gc_is_fenced_and_its_manifest_is_nobodys() {
    for (name, store, _dir) in stores() {
        let clock = Arc::new(TestClock::default());
        let p = partition();
        let mut zombie = Session::claim(&store, &p, &clock).await;
        zombie.grow(9).await.unwrap();
        let mut owner = Session::claim(&store, &p, &clock).await;
        for _ in 0..70 {
            owner.grow(3).await.unwrap();
        }
        clock.advance(1);
        let options = GcOptions { retain: 1, grace: std::time::Duration::ZERO, dry_run: false };
        let report = gc::run(&store, &p, &options, clock.as_ref()).await.unwrap();
        assert_eq!((report.boundaries, report.manifests), (1, 63), "{name}");

        // the name that it creates next is free again: the create itself succeeds
        let error = zombie.grow(9).await.unwrap_err();
        assert!(matches!(error, ProtocolError::Fenced { seq: ManifestSeq(3), .. }), "{name}: {error}");
        let listed = store.list(&Folder::Manifests(p.clone())).await.unwrap();
        assert!(listed.iter().any(|l| l.key.ends_with("/00000000000000000003")), "{name}: the ghost stands");
        let chain = Chain::new(store.clone(), p.clone());
        assert_eq!(chain.read(ManifestSeq(3)).await.unwrap(), None, "{name}: and is not served");
        for hint in ["3", "2", "64", "99999", "x"] {
            let object = Object::Hint(p.clone());
            store.put(&object, hint.into()).await.unwrap();
            let newest = chain.newest().await.unwrap().unwrap();
            assert_eq!(&newest, owner.owner.manifest(), "{name}: hint {hint}");
        }
        owner.grow(3).await.unwrap();
        let report = gc::run(&store, &p, &options, clock.as_ref()).await.unwrap();
        assert_eq!(report.manifests, 1, "{name}: the ghost goes with the next gc");
    }
}

#[tokio::test]
async fn fold_1_a_segment_is_in_the_store_before_a_manifest_names_it() {
    let faulty = Arc::new(Faulty::default());
    let store = over(&faulty);
    let clock = Arc::new(TestClock::default());
    let mut session = Session::claim(&store, &partition(), &clock).await;
    // an upload that fails has failed when it returns, and nothing is published on the strength of it
    let id = session.owner.new_segment_id();
    let lost = session.dir.path().join("lost");
    assert!(session.owner.upload(id, &lost, 1, blake3::hash(b"x")).await.is_err());
    let entry =
        SegmentEntry { id, bytes: 1, digest: blake3::hash(b"x"), records: 1, deleted: RoaringBitmap::new() };
    assert!(session.publish(10, vec![entry]).await.is_err());
    for _ in 0..10 {
        session.grow(3).await.unwrap();
    }
    let chain = walk(&store, &partition()).await;
    assert_eq!(chain.len(), 11);
    let puts = faulty.puts.lock().unwrap();
    let put = |object: Object| puts.iter().position(|(key, _)| *key == object.to_string()).unwrap();
    for manifest in chain {
        let created = put(Object::Manifest(partition(), manifest.seq));
        assert!(manifest.segments.iter().all(|s| put(Object::Segment(partition(), s.id)) < created));
    }
}

#[tokio::test]
async fn fence_2_after_it_is_fenced_an_owner_writes_nothing() {
    let faulty = Arc::new(Faulty::default());
    let store = over(&faulty);
    let clock = Arc::new(TestClock::default());
    let mut old = Session::claim(&store, &partition(), &clock).await;
    let entry = old.upload().await.unwrap();
    let mut new = Session::claim(&store, &partition(), &clock).await;
    assert_eq!(old.publish(1, vec![entry.clone()]).await.unwrap_err().kind(), ErrorKind::Fenced);
    let before = faulty.puts.lock().unwrap().len();
    assert_eq!(old.publish(1, vec![entry]).await.unwrap_err().kind(), ErrorKind::Fenced);
    assert_eq!(old.upload().await.unwrap_err().kind(), ErrorKind::Fenced);
    assert!(old.owner.is_fenced());
    assert_eq!(faulty.puts.lock().unwrap().len(), before);
    new.grow(9).await.unwrap();
}

#[tokio::test]
async fn fence_3_no_segment_key_is_ever_written_twice() {
    let faulty = Arc::new(Faulty::default());
    let store = over(&faulty);
    let clock = Arc::new(TestClock::default());
    for round in 0..20 {
        let mut session = Session::claim(&store, &partition(), &clock).await;
        for _ in 0..round % 5 {
            session.grow(4).await.unwrap();
        }
        // the clock stands still, then goes back
        clock.0.fetch_sub(round, Ordering::Relaxed);
    }
    let puts = faulty.puts.lock().unwrap();
    assert!(puts.iter().filter(|(key, _)| key.contains("/segment/")).count() >= 40);
    assert!(puts.iter().all(|(key, free)| *free || key.ends_with("/hint")), "{puts:?}");
}

/// A run of claim, publish, claim, publish in which create `at` suffers `fault`.
async fn run_with(fault: Fault, at: usize) -> Vec<Manifest> {
    let faulty = Arc::new(Faulty::default());
    let mut script = vec![Fault::None; at];
    script.push(fault);
    *faulty.script.lock().unwrap() = script.into();
    let store = over(&faulty);
    let clock = Arc::new(TestClock::default());
    for _ in 0..2 {
        let mut session = Session::claim(&store, &partition(), &clock).await;
        for _ in 0..2 {
            session.grow(9).await.unwrap();
        }
    }
    walk(&store, &partition()).await
}

#[tokio::test]
async fn fence_4_every_fault_at_every_create_leaves_the_same_chain() {
    let shape = |m: &Manifest| (m.seq, m.epoch, m.next_offset, m.segments.len(), m.reason);
    let good: Vec<_> = run_with(Fault::None, 0).await.iter().map(shape).collect();
    assert_eq!(good.len(), 6);
    let cases = FAULTS.iter().flat_map(|fault| (0..6).map(|at| (*fault, at)));
    let runs = cases.map(|(fault, at)| async move { (fault, at, run_with(fault, at).await) });
    let runs = join_all(runs).await;
    assert_eq!(runs.len(), 36);
    for (fault, at, chain) in runs {
        assert_eq!(chain.iter().map(shape).collect::<Vec<_>>(), good, "{fault:?} at create {at}");
    }
}

#[tokio::test]
async fn fence_4_a_create_left_open_is_settled_by_the_next_call_and_not_published_twice() {
    join_all([Fault::Before, Fault::After].map(|fault| async move {
        let faulty = Arc::new(Faulty::default());
        let store = over(&faulty);
        let clock = Arc::new(TestClock::default());
        let mut session = Session::claim(&store, &partition(), &clock).await;
        let entry = session.upload().await.unwrap();
        *faulty.script.lock().unwrap() = [fault; 10].into();
        *faulty.unreadable.lock().unwrap() = Some("manifest/00000000000000000002".into());
        let error = session.publish(10, vec![entry.clone()]).await.unwrap_err();
        assert!(matches!(error, ProtocolError::Unresolved { .. }), "{error}");
        faulty.script.lock().unwrap().clear();
        *faulty.unreadable.lock().unwrap() = None;
        let publication = Publication { next_offset: Offset(10), segments: vec![entry] };
        let manifest = session.owner.publish(publication).await.unwrap();
        assert_eq!((manifest.seq, manifest.next_offset), (ManifestSeq(2), Offset(10)));
        session.grow(9).await.unwrap();
        assert_eq!(walk(&store, &partition()).await.len(), 3);
    }))
    .await;
}

#[tokio::test]
async fn fence_4_an_open_create_that_lost_is_fenced() {
    let faulty = Arc::new(Faulty::default());
    let store = over(&faulty);
    let clock = Arc::new(TestClock::default());
    let mut old = Session::claim(&store, &partition(), &clock).await;
    let entry = old.upload().await.unwrap();
    *faulty.script.lock().unwrap() = [Fault::Before; 10].into();
    *faulty.unreadable.lock().unwrap() = Some("manifest/00000000000000000002".into());
    old.publish(10, vec![entry.clone()]).await.unwrap_err();
    faulty.script.lock().unwrap().clear();
    *faulty.unreadable.lock().unwrap() = None;
    let new = Session::claim(&store, &partition(), &clock).await;
    assert_eq!(new.owner.manifest().seq, ManifestSeq(2));
    assert_eq!(old.publish(10, vec![entry]).await.unwrap_err().kind(), ErrorKind::Fenced);
}

#[tokio::test]
async fn fence_5_a_store_that_ignores_create_if_absent_is_refused() {
    let faulty = Arc::new(Faulty::ignoring_conditions());
    let store = over(&faulty);
    let error = store.probe().await.unwrap_err();
    assert!(matches!(&error, StoreError::Unfit(m) if m.contains("create-if-absent")), "{error}");
    assert_eq!(error.kind(), ErrorKind::Invalid);
    assert_eq!(store.list(&Folder::Root).await.unwrap(), [], "nothing is left behind");
}

#[tokio::test]
async fn fence_5_a_good_store_passes_and_is_left_as_it_was() {
    for (name, store, _dir) in stores() {
        store.probe().await.unwrap();
        assert_eq!(store.list(&Folder::Root).await.unwrap(), [], "{name}");
    }
    // the reply of the first create may be lost
    for fault in [Fault::After, Fault::ExistsThoughMine] {
        let faulty = Arc::new(Faulty::default());
        faulty.script.lock().unwrap().push_back(fault);
        over(&faulty).probe().await.unwrap();
    }
}

#[tokio::test]
async fn key_1_another_number_of_partitions_is_refused_by_name() {
    let (store, clock) = (memory(), Arc::new(TestClock::default()));
    Session::claim(&store, &partition(), &clock).await;
    let chain = Chain::new(store, partition());
    let grown = Claim { partitions: 5, ..CLAIM };
    let error = Owner::claim(chain, grown, clock).await.err().unwrap();
    assert_eq!(error.kind(), ErrorKind::Conflict);
    assert!(error.to_string().contains("4 partitions, the topic has 5"), "{error}");
}

#[tokio::test]
async fn fold_2_a_publication_that_breaks_a_rule_is_refused() {
    let (store, clock) = (memory(), Arc::new(TestClock::default()));
    let mut session = Session::claim(&store, &partition(), &clock).await;
    let first = session.upload().await.unwrap();
    let second = session.upload().await.unwrap();
    session.publish(10, vec![second.clone()]).await.unwrap();
    let refused = async |session: &mut Session, next_offset: u64, segments: Vec<SegmentEntry>| {
        let publication = Publication { next_offset: Offset(next_offset), segments };
        session.owner.publish(publication).await.unwrap_err().to_string()
    };
    let cases = [
        (9, vec![second.clone()], "goes back from 10 to 9"),
        (10, vec![second.clone(), second.clone()], "twice"),
        (10, vec![SegmentEntry { records: 9, ..second.clone() }], "differs"),
        (10, vec![SegmentEntry { deleted: [10].into(), ..second.clone() }], "does not have"),
        // a smaller id than one that was published: GC may have taken it
        (10, vec![second.clone(), first], "not uploaded"),
    ];
    for (next_offset, segments, expected) in cases {
        let error = refused(&mut session, next_offset, segments).await;
        assert!(error.contains(expected), "{error}");
    }
    let deleted = SegmentEntry { deleted: [3].into(), ..second.clone() };
    session.publish(0, vec![deleted]).await.unwrap();
    let error = refused(&mut session, 10, vec![second]).await;
    assert!(error.contains("rows again"), "{error}");
    let id = session.owner.new_segment_id();
    let never =
        SegmentEntry { id, bytes: 1, digest: blake3::hash(b""), records: 1, deleted: RoaringBitmap::new() };
    assert!(refused(&mut session, 10, vec![never]).await.contains("not uploaded"));
}

#[tokio::test]
async fn qry_2_a_reader_goes_forward_only_and_polls_in_two_looks() {
    let (store, clock) = (memory(), Arc::new(TestClock::default()));
    let mut session = Session::claim(&store, &partition(), &clock).await;
    let chain = Chain::new(store.clone(), partition());
    let mut known = chain.newest().await.unwrap().unwrap();
    assert_eq!((known.reason, known.epoch), (Reason::Claim, Epoch(1)));
    assert_eq!(chain.next_after(&known).await.unwrap(), None);
    for step in [1, 2, 5, 200] {
        for _ in 0..step {
            session.grow(2).await.unwrap();
        }
        // retired chunks between the reader and the newest manifest
        let options = GcOptions { retain: 1, grace: std::time::Duration::ZERO, dry_run: false };
        clock.advance(1);
        gc::run(&store, &partition(), &options, clock.as_ref()).await.unwrap();
        known = chain.next_after(&known).await.unwrap().unwrap();
        assert_eq!(&known, session.owner.manifest());
    }
}
