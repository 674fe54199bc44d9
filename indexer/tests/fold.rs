//! FOLD-1 to FOLD-4: at every manifest with next offset O the live rows are the fold of the log before O, whatever
//! the batches, the seals, the merges, the crashes, the replays and the owners that do not know that they are none.

#![allow(clippy::unwrap_used, reason = "tests only")]

mod support;

use std::time::Duration;

use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use futures::{FutureExt, Stream, StreamExt, stream};
use proptest::prelude::*;
use sluice_core::{Offset, RecordBatch};
use sluice_indexer::{EdgeError, Exit, IndexerError, Lane, WorkerStatus};
use support::log::Log;
use support::store::{Fault, Manifest};
use support::{Bench, HandClock, cases};
use tokio::sync::{oneshot, watch};
use tokio_util::sync::CancellationToken;

/// Checks every manifest of the chain against the oracle.
fn check(bench: &Bench, log: &Log) {
    let mut before = 0;
    for (seq, manifest) in bench.store.manifests().iter().enumerate() {
        let next = manifest.next_offset.get();
        assert!(before <= next, "FOLD-2: manifest {seq} goes from {before} to {next}");
        before = next;
        assert_eq!(bench.store.scan(manifest), log.fold(next), "FOLD-1: manifest {seq} at {next}");
        assert!(manifest.segments.iter().all(|s| s.live() > 0), "no segment is wholly dead");
    }
}

/// What the log does between two batches.
#[derive(Debug, Clone, Copy)]
enum Pause {
    None,
    /// The growing set gets too old.
    Age,
    /// The worker comes to rest: whatever it had begun is published.
    Rest,
}

/// How the partition leaves a worker.
#[derive(Debug, Clone, Copy)]
enum End {
    /// It is told to stop.
    Stopped,
    Killed,
    /// It goes on beside its successors.
    Zombie,
}

/// One life of a worker.
#[derive(Debug, Clone)]
struct Life {
    /// How far before its next offset the log begins anew.
    rewind: u64,
    steps: Vec<(u64, Pause)>,
    end: End,
}

fn life() -> impl Strategy<Value = Life> {
    let pause = prop_oneof![4 => Just(Pause::None), 1 => Just(Pause::Age), 1 => Just(Pause::Rest)];
    let steps = proptest::collection::vec((1u64..30, pause), 0..12);
    let rewind = prop_oneof![3 => 0u64..40, 1 => Just(u64::MAX)];
    let end = prop_oneof![Just(End::Stopped), Just(End::Killed), Just(End::Zombie)];
    (rewind, steps, end).prop_map(|(rewind, steps, end)| Life { rewind, steps, end })
}

/// Workers that were succeeded and do not know it.
type Zombies<'a> = FuturesUnordered<BoxFuture<'a, Result<Exit, IndexerError>>>;

async fn live_once<'a>(bench: &'a Bench, log: &'a Log, life: &'a Life, zombies: &mut Zombies<'a>) {
    let (worker, status) = bench.worker();
    let start = bench.store.newest().map_or(0, |m| m.next_offset.get()).saturating_sub(life.rewind);
    let stop = CancellationToken::new();
    let ended = CancellationToken::new();
    let told = ended.clone();
    let feed = stream::unfold((start, 0), move |(at, step)| {
        let (ended, mut status) = (told.clone(), status.clone());
        async move {
            let Some(&(size, pause)) = life.steps.get(step) else {
                ended.cancel();
                return std::future::pending().await;
            };
            match pause {
                Pause::None => {}
                Pause::Age => bench.clock.advance(Duration::from_secs(11)),
                Pause::Rest => drop(status.wait_for(|s| !s.sealing && !s.merging).await),
            }
            let to = (at + size).min(log.end);
            // some offsets come twice
            let from = at.saturating_sub(size / 3);
            Some((Ok(log.batch(from, to)), (to, step + 1)))
        }
    });
    let token = stop.clone();
    let mut running = async move { worker.run(feed.boxed(), token).await }.boxed();
    loop {
        tokio::select! {
            exit = &mut running => panic!("the worker ended by itself: {exit:?}"),
            () = ended.cancelled() => break,
            Some(exit) = zombies.next() => assert_eq!(exit.unwrap(), Exit::Fenced),
        }
    }
    match life.end {
        End::Killed => {}
        End::Stopped => {
            stop.cancel();
            assert!(matches!(running.await.unwrap(), Exit::Stopped { drained: true, .. }));
        }
        End::Zombie => zombies.push(running),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { max_shrink_iters: 200, ..cases(96) })]

    #[test]
    fn fold_1_2_3_4_hold_at_every_manifest(
        changes in proptest::collection::vec((prop_oneof![9 => Just(0u64), 1 => 1u64..6], 0u8..24, prop::bool::weighted(0.25)), 0..220),
        gap_at_end in 0u64..5,
        lives in proptest::collection::vec(life(), 0..5),
        max_records in 1u32..20,
        max_similar in 2u32..5,
        max_dead_percent in 1u32..100,
        faults in proptest::collection::vec(any::<bool>(), 0..2),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let log = Log::new(&changes, gap_at_end);
            let mut bench = Bench::new();
            bench.spec.seal.max_records = max_records;
            bench.spec.merge.max_similar = max_similar;
            bench.spec.merge.max_dead_percent = max_dead_percent;
            bench.store.publish_faults(faults.iter().map(|after| if *after { Fault::After } else { Fault::Before }));
            let mut zombies = Zombies::new();
            for life in &lives {
                live_once(&bench, &log, life, &mut zombies).await;
            }
            let from = bench.store.newest().map_or(0, |m| m.next_offset.get());
            let exit = bench.run(stream::iter(log.batches(from / 2, 7))).await.unwrap();
            assert!(matches!(exit, Exit::InputEnded { next_offset, drained: true } if next_offset.get() == log.end));
            // what zombies still hold has become too old by now: they try to publish it, or have nothing
            let published = bench.store.manifests().len();
            bench.clock.advance(Duration::from_secs(11));
            while let Ok(Some(exit)) = tokio::time::timeout(Duration::from_millis(1), zombies.next()).await {
                assert_eq!(exit.unwrap(), Exit::Fenced);
            }
            assert_eq!(bench.store.manifests().len(), published, "FENCE-1");
            check(&bench, &log);
            assert_eq!(bench.store.newest().map_or(0, |m| m.next_offset.get()), log.end);
        });
    }
}

/// A log whose merge is held up until `during` is published.
async fn merge_held_up(during: impl IntoIterator<Item = (u8, bool)>) -> (Bench, Log, Manifest) {
    let mut bench = Bench::new();
    bench.spec.merge.max_dead_percent = 100;
    let first = Log::upserts(0..24);
    let log = first.then(during);
    // the one thread for merges is busy: merges are chosen, and wait
    let (release, held) = oneshot::channel::<()>();
    let mut busy = Box::pin(bench.pool.run(Lane::Merge, move |_| drop(held.blocking_recv())));
    assert!(busy.as_mut().now_or_never().is_none());
    let (worker, status) = bench.worker();
    let (start, end) = (first.end, log.end);
    let feed = held_up_feed(&log, &bench.clock, status, (start, end), release);
    let running = worker.run(feed.boxed(), CancellationToken::new());
    // the feed waits for what a broken worker never does
    let exit = tokio::time::timeout(Duration::from_secs(60), running).await.unwrap().unwrap();
    assert!(matches!(exit, Exit::InputEnded { drained: true, .. }));
    busy.await.unwrap();
    let newest = bench.store.newest().unwrap();
    (bench, log, newest)
}

fn held_up_feed<'a>(
    log: &'a Log,
    clock: &'a HandClock,
    status: watch::Receiver<WorkerStatus>,
    (start, end): (u64, u64),
    release: oneshot::Sender<()>,
) -> impl Stream<Item = Result<RecordBatch, EdgeError>> + 'a {
    let state = (0, status, Some(release));
    stream::unfold(state, move |(step, mut status, mut release)| async move {
        let batch = match step {
            0 => log.batch(0, start),
            1 => {
                // three segments are published, and their merge is under way
                status.wait_for(|s| s.next_offset.get() == start && s.merging).await.unwrap();
                log.batch(start, end)
            }
            2 => {
                // what was applied gets too old
                clock.advance(Duration::from_secs(11));
                status.wait_for(|s| s.next_offset.get() >= end.min(start + 8)).await.unwrap();
                release.take().unwrap().send(()).unwrap();
                status.wait_for(|s| !s.merging && !s.sealing).await.unwrap();
                log.batch(end, end)
            }
            _ => return None,
        };
        Some((Ok(batch), (step + 1, status, release)))
    })
}

#[tokio::test]
async fn fold_4_deletes_and_overwrites_that_come_during_a_merge_are_carried_over() {
    let (bench, log, newest) = merge_held_up([
        (0, true),
        (1, true),
        (9, false),
        (2, false),
        (30, false),
        (31, false),
        (32, false),
        (33, false),
        (34, false),
        (35, false),
    ])
    .await;
    check(&bench, &log);
    let merged = newest.segments.iter().find(|s| s.records == 24).expect("the merge was published");
    assert_eq!(merged.deleted.len(), 4);
}

#[tokio::test]
async fn fold_4_a_merge_whose_rows_all_died_meanwhile_leaves_no_segment() {
    let (bench, log, newest) = merge_held_up((0..24).map(|key| (key, true))).await;
    check(&bench, &log);
    assert!(newest.segments.is_empty());
    assert!(log.fold(log.end).is_empty());
}

#[tokio::test]
async fn fold_3_a_replay_from_the_beginning_publishes_nothing_new() {
    let bench = Bench::new();
    let log = Log::upserts((0..40).map(|i| i % 16));
    bench.run(stream::iter(log.batches(0, 5))).await.unwrap();
    let before = bench.store.newest().unwrap();
    let exit = bench.run(stream::iter(log.batches(0, 9))).await.unwrap();
    assert_eq!(exit, Exit::InputEnded { next_offset: Offset(40), drained: true });
    assert_eq!(bench.store.newest().unwrap().next_offset, before.next_offset);
    check(&bench, &log);
}

#[tokio::test]
async fn fold_1_spans_of_deletes_gaps_and_dead_letters_move_the_next_offset_without_a_segment() {
    let bench = Bench::new();
    let log = Log::new(&[(3, 1, true), (2, 2, true)], 4);
    bench.run(stream::iter(log.batches(0, 100))).await.unwrap();
    let manifests = bench.store.manifests();
    assert_eq!(manifests.len(), 1);
    assert_eq!((manifests[0].next_offset.get(), manifests[0].uploaded), (log.end, false));
    check(&bench, &log);
}

#[tokio::test]
async fn wholly_dead_segments_leave_with_the_publication_that_killed_them() {
    let bench = Bench::new();
    let log = Log::upserts(0..8).then((0..8).map(|key| (key, true)));
    bench.run(stream::iter(log.batches(0, 8))).await.unwrap();
    assert!(bench.store.newest().unwrap().segments.is_empty());
    check(&bench, &log);
}
