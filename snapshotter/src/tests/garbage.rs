//! GC-1, GC-2: random schedules of owners, orphans and collections; whole retired indexes.

use std::collections::BTreeSet;
use std::time::Duration;

use proptest::prelude::*;
use sluice_core::{ErrorKind, IndexSpec};

use super::faulty::{Fault, Faulty};
use super::*;
use crate::gc::{self, GcOptions, GcReport};
use crate::paths::{Folder, Object};
use crate::protocol::{CHUNK, Chunk};
use crate::registry::{Created, Registry};
use crate::scrub::{self, Problem, ScrubOptions};

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
    /// Uploaded and never published: its owner goes on, or is taken over.
    Orphan,
    TakeOver,
    /// The owner before tries once more, then goes.
    Zombie,
    Wait {
        ms: i64,
    },
    /// A collection, perhaps one that dies after so many deletes.
    Collect {
        dies_after: Option<usize>,
    },
}

fn any_step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0usize..4, 1usize..40).prop_map(|(keep, times)| Step::Publish { keep, times }),
        2 => Just(Step::Orphan),
        2 => Just(Step::TakeOver),
        2 => Just(Step::Zombie),
        1 => (1i64..40).prop_map(|ms| Step::Wait { ms }),
        4 => proptest::option::weighted(0.3, 0usize..60).prop_map(|dies_after| Step::Collect { dies_after }),
    ]
}

/// The oracle: what a reader that took a manifest while it was the newest may still hold.
fn held<'a>(history: &'a [Manifest], options: &GcOptions, now: Timestamp) -> Vec<&'a Manifest> {
    let first = history.len().saturating_sub(options.retain as usize);
    let in_grace = |i: usize| {
        let superseded = history.get(i + 1).map_or(now, |next| next.created_at);
        ((now.0 - superseded.0) as u128) < options.grace.as_millis()
    };
    history.iter().enumerate().filter(|(i, _)| *i >= first || in_grace(*i)).map(|(_, m)| m).collect()
}

async fn run(options: GcOptions, steps: Vec<Step>) {
    let (faulty, clock, p) = (Arc::new(Faulty::default()), Arc::new(TestClock::default()), partition());
    let store = over(&faulty);
    let mut owner = Session::claim(&store, &p, &clock).await;
    let mut zombies: Vec<Session> = Vec::new();
    // every manifest that was published, as its owner saw it
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
            Step::Wait { ms } => clock.advance(ms),
            Step::Collect { dies_after } => {
                *faulty.deletes_left.lock().unwrap() = dies_after;
                let died = gc::run(&store, &p, &options, clock.as_ref()).await.is_err();
                assert!(!died || dies_after.is_some());
                *faulty.deletes_left.lock().unwrap() = None;
                let there = keys(&store, Folder::Partition(p.clone())).await;
                for manifest in held(&history, &options, clock.now()) {
                    let key = Object::Manifest(p.clone(), manifest.seq).to_string();
                    assert!(there.contains(&key), "GC-1: {key}");
                    assert!(segments_of(manifest).is_subset(&there), "GC-1: segments of {key}");
                }
            }
        }
        let newest = Chain::new(store.clone(), p.clone()).newest().await.unwrap();
        assert_eq!(newest.as_ref(), history.last());
    }
    // quiescence: a last claim fences off what was never published
    let last = Session::claim(&store, &p, &clock).await;
    history.push(last.owner.manifest().clone());
    clock.advance(1);
    gc::run(&store, &p, &options, clock.as_ref()).await.unwrap();
    let kept = held(&history, &options, clock.now());
    let needed: BTreeSet<String> = kept.iter().flat_map(|m| segments_of(m)).collect();
    assert_eq!(keys(&store, Folder::Segments(p.clone())).await, needed, "GC-2");
    let first = Chunk::of(kept[0].seq);
    let manifests = Chain::new(store.clone(), p.clone());
    for manifest in &history {
        let there = manifests.read(manifest.seq).await.unwrap().is_some();
        assert_eq!(there, Chunk::of(manifest.seq) >= first, "GC-2: manifest {}", manifest.seq);
    }
    let left = keys(&store, Folder::Manifests(p.clone())).await.len() as u64;
    assert_eq!(left, last.owner.manifest().seq.0 + 1 - (first.0 * CHUNK).max(1), "GC-2: ghosts go too");
}

proptest! {
    #![proptest_config(cases(64))]
    #[test]
    fn gc_1_and_gc_2_hold_for_any_schedule(
        retain in 1u32..5, grace_ms in 0u64..60, steps in proptest::collection::vec(any_step(), 1..25)
    ) {
        let options = options(retain, Duration::from_millis(grace_ms));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(run(options, steps));
    }
}

#[tokio::test]
async fn gc_1_no_name_is_deleted_before_the_boundary_of_its_chunk_is_durable() {
    let (faulty, clock, p) = (Arc::new(Faulty::default()), Arc::new(TestClock::default()), partition());
    let store = over(&faulty);
    let mut owner = Session::claim(&store, &p, &clock).await;
    for _ in 0..200 {
        owner.grow(1).await.unwrap();
    }
    clock.advance(1);
    // the boundary of chunk 0 is made, that of chunk 1 is refused
    *faulty.script.lock().unwrap() = [Fault::None, Fault::Denied].into();
    gc::run(&store, &p, &options(1, Duration::ZERO), clock.as_ref()).await.unwrap_err();
    assert!(faulty.deletes.lock().unwrap().is_empty());
    gc::run(&store, &p, &options(1, Duration::ZERO), clock.as_ref()).await.unwrap();
    let (puts, deletes) = (faulty.puts.lock().unwrap(), faulty.deletes.lock().unwrap());
    let mut manifests = 0;
    for (key, before) in deletes.iter() {
        let Some(Object::Manifest(_, seq)) = Object::parse(key) else { continue };
        let boundary = Object::Boundary(p.clone(), Chunk::of(seq)).to_string();
        assert!(puts[..*before].iter().any(|(put, _)| *put == boundary), "{key}");
        manifests += 1;
    }
    assert_eq!(manifests, 191);
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
async fn gc_2_scrub_a_dry_run_and_a_run_name_as_much_of_a_retired_index() {
    // the closing manifest in the chunk of the newest, and at the end of one; a run that died after the closing
    for (grown, dies) in [(5, false), (62, false), (63, false), (62, true), (63, true)] {
        let (faulty, clock) = (Arc::new(Faulty::default()), Arc::new(TestClock::default()));
        let store = over(&faulty);
        let registry = Registry::new(store.clone(), clock.clone());
        let spec: IndexSpec = serde_json::from_str(r#"{"name":"packages","dimension":4}"#).unwrap();
        registry.create(&spec).await.unwrap();
        let mut owner = Session::claim(&store, &partition_of("packages", 1, 0), &clock).await;
        for _ in 0..grown {
            owner.grow(2).await.unwrap();
        }
        registry.retire(&spec.name).await.unwrap();
        let run = async |dry_run| {
            let options = GcOptions { dry_run, ..GcOptions::default() };
            gc::run_all(&store, None, &options, clock.clone()).await.unwrap()
        };
        if dies {
            // the closing manifest is made, the first boundary is refused
            *faulty.script.lock().unwrap() = [Fault::None, Fault::Denied].into();
            assert_eq!(run(false).await.failures.len(), 1);
        }
        let seen = scrub::run(&store, &ScrubOptions::default(), |_| ()).await.unwrap();
        let orphans = seen.findings.iter().filter(|f| f.problem == Problem::Orphan).count() as u64;
        let planned = run(true).await;
        let done = run(false).await;
        assert_eq!(GcReport { dry_run: true, ..done }, planned, "{grown} {dies}");
        assert_eq!(planned.manifests + planned.segments, orphans, "{grown} {dies}");
    }
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
        assert_eq!(GcReport { dry_run: true, ..report }, planned, "{name}");
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
