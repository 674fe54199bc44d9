//! GC-1, GC-2: random schedules of owners, orphans and collections; whole retired indexes.

use std::collections::BTreeSet;
use std::time::Duration;

use proptest::prelude::*;
use sluice_core::{ErrorKind, IndexSpec};

use super::*;
use crate::gc::{self, GcOptions};
use crate::paths::{Folder, Object};
use crate::registry::{Created, Registry};

fn options(retain: u32, grace: Duration) -> GcOptions {
    GcOptions { retain, grace, dry_run: false }
}

async fn keys(store: &Store, folder: Folder) -> BTreeSet<String> {
    store.list(&folder).await.unwrap().into_iter().map(|l| l.key).collect()
}

fn segments_of(manifest: &Manifest) -> BTreeSet<String> {
    let key = |s: &SegmentEntry| Object::Segment(manifest.partition.clone(), s.id).to_string();
    manifest.segments.iter().map(key).collect()
}

#[derive(Debug, Clone)]
enum Step {
    Publish {
        keep: usize,
        times: usize,
    },
    Orphan,
    TakeOver,
    /// The owner before tries once more, then goes.
    Zombie,
    Collect {
        retain: u32,
        grace_ms: u64,
    },
}

fn any_step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0usize..4, 1usize..40).prop_map(|(keep, times)| Step::Publish { keep, times }),
        2 => Just(Step::Orphan),
        2 => Just(Step::TakeOver),
        2 => Just(Step::Zombie),
        4 => (1u32..5, 0u64..30).prop_map(|(retain, grace_ms)| Step::Collect { retain, grace_ms }),
    ]
}

async fn run(steps: Vec<Step>) {
    let (store, clock, p) = (memory(), Arc::new(TestClock::default()), partition());
    let mut owner = Session::claim(&store, &p, &clock).await;
    let mut zombies: Vec<Session> = Vec::new();
    // the oracle: every manifest that was published, as its owner saw it
    let mut history: Vec<Manifest> = vec![owner.owner.manifest().clone()];
    for step in steps {
        match step {
            Step::Publish { keep, times } => {
                for _ in 0..times {
                    clock.advance(1);
                    history.push(owner.grow(keep).await.unwrap());
                }
            }
            Step::Orphan => drop(owner.upload().await.unwrap()),
            Step::TakeOver => {
                let next = Session::claim(&store, &p, &clock).await;
                history.push(next.owner.manifest().clone());
                zombies.push(std::mem::replace(&mut owner, next));
            }
            Step::Zombie => {
                if let Some(mut zombie) = zombies.pop() {
                    assert_eq!(zombie.grow(9).await.unwrap_err().kind(), ErrorKind::Fenced);
                }
            }
            Step::Collect { retain, grace_ms } => {
                let grace = Duration::from_millis(grace_ms);
                gc::run(&store, &p, &options(retain, grace), clock.as_ref()).await.unwrap();
                let there = keys(&store, Folder::Partition(p.clone())).await;
                for manifest in history.iter().rev().take(retain as usize) {
                    let key = Object::Manifest(p.clone(), manifest.seq).to_string();
                    assert!(there.contains(&key), "{key} is retained");
                    // GC-1, as far as earlier collections with a smaller `retain` left it
                    if manifest.seq == history.last().unwrap().seq {
                        assert!(segments_of(manifest).is_subset(&there));
                    }
                }
            }
        }
        let newest = Chain::new(store.clone(), p.clone()).newest().await.unwrap();
        assert_eq!(newest.as_ref(), history.last());
    }
    // quiescence: a last claim fences off what was never published
    let last = Session::claim(&store, &p, &clock).await;
    clock.advance(1);
    gc::run(&store, &p, &options(1, Duration::ZERO), clock.as_ref()).await.unwrap();
    let newest = last.owner.manifest();
    assert_eq!(keys(&store, Folder::Segments(p.clone())).await, segments_of(newest), "GC-2");
    let manifests = keys(&store, Folder::Manifests(p.clone())).await;
    assert!(manifests.len() as u64 <= crate::protocol::CHUNK, "GC-2: only the newest chunk is left");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn gc_1_and_gc_2_hold_for_any_schedule(steps in proptest::collection::vec(any_step(), 1..25)) {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(run(steps));
    }
}

#[tokio::test]
async fn gc_1_retained_manifests_and_those_in_grace_keep_their_segments() {
    for (name, store, _dir) in stores() {
        let (clock, p) = (Arc::new(TestClock::default()), partition());
        let mut owner = Session::claim(&store, &p, &clock).await;
        let mut history = Vec::new();
        for _ in 0..10 {
            clock.advance(1000);
            history.push(owner.grow(1).await.unwrap());
        }
        // superseded 0, 1, 2, 3 .. seconds ago; the newest is not superseded
        let dry = GcOptions { dry_run: true, ..options(1, Duration::from_millis(3500)) };
        let planned = gc::run(&store, &p, &dry, clock.as_ref()).await.unwrap();
        assert_eq!((planned.segments, planned.dry_run), (5, true), "{name}");
        assert_eq!(
            keys(&store, Folder::Segments(p.clone())).await.len(),
            10,
            "{name}: a dry run deletes nothing"
        );
        let done =
            gc::run(&store, &p, &options(1, Duration::from_millis(3500)), clock.as_ref()).await.unwrap();
        assert_eq!((done.segments, done.bytes), (planned.segments, planned.bytes), "{name}");
        let there = keys(&store, Folder::Segments(p.clone())).await;
        let expected: BTreeSet<_> = history[5..].iter().flat_map(segments_of).collect();
        assert_eq!(there, expected, "{name}");
        gc::run(&store, &p, &options(2, Duration::ZERO), clock.as_ref()).await.unwrap();
        assert_eq!(keys(&store, Folder::Segments(p.clone())).await.len(), 2, "{name}");
    }
}

#[tokio::test]
async fn gc_1_a_segment_that_is_still_uploading_is_not_garbage() {
    let (store, clock, p) = (memory(), Arc::new(TestClock::default()), partition());
    let mut owner = Session::claim(&store, &p, &clock).await;
    owner.grow(9).await.unwrap();
    let slow = owner.upload().await.unwrap();
    clock.advance(3_600_000);
    let report = gc::run(&store, &p, &options(1, Duration::ZERO), clock.as_ref()).await.unwrap();
    assert_eq!(report.segments, 0);
    owner.publish(1, vec![slow.clone()]).await.unwrap();
    let key = Object::Segment(p.clone(), slow.id);
    assert!(store.size(&key).await.unwrap().is_some());
}

#[tokio::test]
async fn gc_2_a_retired_index_goes_as_a_whole_and_its_zombies_stay_fenced() {
    for (name, store, _dir) in stores() {
        let clock = Arc::new(TestClock::default());
        let registry = Registry::new(store.clone(), clock.clone());
        let spec: IndexSpec = serde_json::from_str(r#"{"name":"packages","dimension":4}"#).unwrap();
        assert!(matches!(registry.create(&spec).await.unwrap(), Created::Created(_)), "{name}");
        let mut owners = Vec::new();
        for number in 0..2 {
            let p = partition_of("packages", 1, number);
            let mut owner = Session::claim(&store, &p, &clock).await;
            // 61 and 130 manifests: the closing one in the same chunk, and some chunks further
            for _ in 0..60 + number * 69 {
                owner.grow(2).await.unwrap();
            }
            owners.push(owner);
        }
        registry.retire(&spec.name).await.unwrap().unwrap();
        let collect = async || gc::run_all(&store, None, &GcOptions::default(), clock.clone()).await.unwrap();
        let dry = GcOptions { dry_run: true, ..GcOptions::default() };
        let planned = gc::run_all(&store, None, &dry, clock.clone()).await.unwrap();
        let report = collect().await;
        assert_eq!((report.swept, report.failures.len()), (2, 0), "{name}");
        // the two closing manifests are not there yet when a dry run plans
        assert_eq!(report.manifests, planned.manifests + 2, "{name}");
        let left = keys(&store, Folder::Root).await;
        let kept = |key: &String| ["/retired/", "/spec/", ".topic/"].iter().any(|part| key.contains(part));
        assert!(left.iter().all(kept), "{name}: {left:?}");
        for owner in &mut owners {
            assert_eq!(owner.grow(9).await.unwrap_err().kind(), ErrorKind::Fenced, "{name}");
            let chain = Chain::new(store.clone(), owner.owner.partition().clone());
            assert_eq!(chain.newest().await.unwrap(), None, "{name}");
            let error = Owner::claim(chain, CLAIM, clock.clone()).await.err().unwrap();
            assert_eq!(error.kind(), ErrorKind::Closed, "{name}");
        }
        collect().await;
        let left = keys(&store, Folder::Root).await;
        assert!(left.iter().all(kept), "{name}: what zombies left goes too: {left:?}");
        assert_eq!(collect().await.manifests, 0, "{name}");

        // the name may be used again: next generation, nothing shared
        let Created::Created(again) = registry.create(&spec).await.unwrap() else { panic!() };
        assert_eq!(again.generation.0, 2, "{name}");
        let p = partition_of("packages", 2, 0);
        Session::claim(&store, &p, &clock).await.grow(9).await.unwrap();
        collect().await;
        assert_eq!(keys(&store, Folder::Segments(p)).await.len(), 1, "{name}");
    }
}
