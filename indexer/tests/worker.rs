//! A worker among its neighbours: budgets, fences, outages, the end.

#![allow(clippy::unwrap_used, reason = "tests only")]

mod support;

use std::time::Duration;

use futures::{StreamExt, stream};
use sluice_core::{ByteBudget, ErrorKind, Offset, PartitionId, RecordBatch};
use sluice_indexer::{BuildBudget, EdgeError, Exit, Lane, Phase};
use support::Bench;
use support::log::Log;
use support::store::{Fault, live};
use tokio_util::sync::CancellationToken;

type Item = Result<RecordBatch, EdgeError>;

/// Batches, and then nothing, while the input stays open.
fn open_end(batches: Vec<Item>) -> impl futures::Stream<Item = Item> + Send {
    stream::iter(batches).chain(stream::pending())
}

/// Batches of one offset each, charged `bytes` to `budget`.
fn charged(
    log: &Log,
    budget: &ByteBudget,
    bytes: usize,
) -> impl futures::Stream<Item = Item> + Send + 'static {
    let (log, budget) = (log.clone(), budget.clone());
    let end = log.end;
    let next = move |at| {
        let (log, budget) = (log.clone(), budget.clone());
        async move { Ok(RecordBatch { permit: budget.acquire(bytes).await, ..log.batch(at, at + 1) }) }
    };
    stream::iter(0..end).then(next)
}

#[tokio::test]
async fn fence_2_a_fenced_worker_stops_and_publishes_nothing_more() {
    let bench = Bench::new();
    let log = Log::upserts(0..40);
    let (worker, _status) = bench.worker();
    let (_new_owner, recovered) = bench.store.claim();
    assert_eq!(recovered.next_offset, Offset(0));
    let exit = worker.run(open_end(log.batches(0, 10)), CancellationToken::new()).await.unwrap();
    assert_eq!(exit, Exit::Fenced);
    assert_eq!((bench.store.attempts(), bench.store.manifests().len()), (1, 0));
}

/// Found by `fold_1_2_3_4_hold_at_every_manifest`: it ended as a broken disk would, and was to be restarted.
#[tokio::test]
async fn fence_2_a_worker_whose_scratch_a_newer_owner_cleared_is_fenced() {
    let bench = Bench::new();
    let (worker, _status) = bench.worker();
    let (newer, log) = (&bench, Log::upserts(0..40));
    // the worker has made its scratch directory when it asks for input
    let feed = stream::once(async move {
        newer.run(stream::iter(Log::upserts(0..3).batches(0, 3))).await.unwrap();
        Ok(log.batch(0, 8))
    });
    let input = feed.chain(stream::pending()).boxed();
    let ended = tokio::time::timeout(Duration::from_secs(60), worker.run(input, CancellationToken::new()));
    assert_eq!(ended.await.unwrap().unwrap(), Exit::Fenced);
    assert_eq!(bench.store.manifests().len(), 1);
}

#[tokio::test]
async fn fence_2_a_worker_that_is_fenced_while_it_drains_says_so() {
    let bench = Bench::new();
    let (worker, _status) = bench.worker();
    drop(bench.store.claim());
    let exit = worker.run(stream::iter(Log::upserts(0..3).batches(0, 3)), CancellationToken::new()).await;
    assert_eq!(exit.unwrap(), Exit::Fenced);
}

#[tokio::test]
async fn liv_3_transient_errors_are_retried_until_the_store_is_back() {
    let bench = Bench::new();
    bench.store.publish_faults([Fault::Before, Fault::After, Fault::Before]);
    let log = Log::upserts(0..20);
    let (worker, status) = bench.worker();
    let exit = worker.run(stream::iter(log.batches(0, 20)), CancellationToken::new()).await.unwrap();
    assert_eq!(exit, Exit::InputEnded { next_offset: Offset(20), drained: true });
    assert!(bench.store.attempts() >= 5);
    let newest = bench.store.newest().unwrap();
    assert_eq!(bench.store.scan(&newest), log.fold(20));
    assert_eq!((status.borrow().phase, status.borrow().last_error.clone()), (Phase::Ended, None));
}

#[tokio::test]
async fn an_error_that_no_retry_cures_ends_the_worker_with_its_kind() {
    let bench = Bench::new();
    bench.store.publish_faults([Fault::Broken]);
    let (worker, _status) = bench.worker();
    let log = Log::upserts(0..8);
    let error = worker.run(open_end(log.batches(0, 8)), CancellationToken::new()).await.unwrap_err();
    assert_eq!(
        (error.kind(), error.to_string().as_str()),
        (ErrorKind::Corrupt, "publishing: planted: corrupt")
    );
}

#[tokio::test]
async fn recovery_retries_a_store_that_is_away_and_refuses_a_damaged_segment() {
    let bench = Bench::new();
    let log = Log::upserts(0..8);
    bench.run(stream::iter(log.batches(0, 8))).await.unwrap();
    bench.store.fetch_faults([ErrorKind::Unavailable]);
    bench.run(stream::empty()).await.unwrap();
    bench.store.fetch_faults([ErrorKind::Corrupt]);
    assert_eq!(bench.run(stream::empty()).await.unwrap_err().kind(), ErrorKind::Corrupt);
}

#[tokio::test]
async fn a_cache_that_does_not_take_a_file_stops_nothing() {
    let bench = Bench::new();
    bench.store.fetch_faults([ErrorKind::Unavailable, ErrorKind::Unavailable]);
    let log = Log::upserts((0..32).map(|i| i % 12));
    bench.run(stream::iter(log.batches(0, 8))).await.unwrap();
    let newest = bench.store.newest().unwrap();
    assert_eq!(bench.store.scan(&newest), log.fold(32));
}

#[tokio::test]
async fn log_1_what_was_applied_before_a_truncation_is_published_and_the_error_returned() {
    let bench = Bench::new();
    let mut batches = Log::upserts(0..3).batches(0, 3);
    batches.push(Err(EdgeError::new(ErrorKind::LogTruncated, "offsets 3 to 9 are gone")));
    let error = bench.run(stream::iter(batches)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::LogTruncated);
    assert_eq!(bench.store.newest().unwrap().next_offset, Offset(3));
}

#[tokio::test]
async fn an_input_that_will_be_back_is_left_without_publishing() {
    let bench = Bench::new();
    let mut batches = Log::upserts(0..3).batches(0, 3);
    batches.push(Err(EdgeError::new(ErrorKind::Unavailable, "broker away")));
    assert_eq!(bench.run(stream::iter(batches)).await.unwrap_err().kind(), ErrorKind::Unavailable);
    assert!(bench.store.newest().is_none());
}

#[tokio::test]
async fn a_batch_of_another_partition_is_refused() {
    let bench = Bench::new();
    let batch = RecordBatch { partition: PartitionId(3), ..Log::upserts(0..3).batch(0, 3) };
    let error = bench.run(stream::iter([Ok(batch)])).await.unwrap_err();
    assert_eq!(error.to_string(), "reading the log: a batch of partition 3 came to the worker of 0");
}

#[tokio::test]
async fn liv_5_a_stop_publishes_what_was_applied_without_building_a_graph() {
    let mut bench = Bench::new();
    bench.spec.seal.max_records = 1000;
    let log = Log::upserts(0..50);
    let (worker, mut status) = bench.worker();
    let stop = CancellationToken::new();
    let running = tokio::spawn(worker.run(open_end(log.batches(0, 50)), stop.clone()));
    status.wait_for(|s| s.applied == Offset(50)).await.unwrap();
    assert!(bench.store.newest().is_none());
    stop.cancel();
    let exit = running.await.unwrap().unwrap();
    assert_eq!(exit, Exit::Stopped { next_offset: Offset(50), drained: true });
    let newest = bench.store.newest().unwrap();
    assert_eq!(bench.store.scan(&newest), log.fold(50));
    assert!(bench.spec.graph.min_records < 50 && !bench.store.has_graph(&newest.segments[0]));

    // the graph that was left out is made up for
    let (worker, mut status) = bench.worker();
    let stop = CancellationToken::new();
    let running = tokio::spawn(worker.run(open_end(vec![]), stop.clone()));
    status.wait_for(|s| s.published_at.is_some() && !s.merging).await.unwrap();
    stop.cancel();
    running.await.unwrap().unwrap();
    let newest = bench.store.newest().unwrap();
    assert!(newest.segments.len() == 1 && bench.store.has_graph(&newest.segments[0]));
    assert_eq!(bench.store.scan(&newest), log.fold(50));
}

#[tokio::test]
async fn liv_5_a_stop_while_the_store_is_stalled_returns_at_the_deadline() {
    let mut bench = Bench::new();
    bench.drain = Duration::from_millis(50);
    bench.store.stall();
    let (worker, mut status) = bench.worker();
    let stop = CancellationToken::new();
    let running = tokio::spawn(worker.run(open_end(Log::upserts(0..8).batches(0, 8)), stop.clone()));
    status.wait_for(|s| s.sealing).await.unwrap();
    stop.cancel();
    let exit = running.await.unwrap().unwrap();
    assert_eq!(exit, Exit::Stopped { next_offset: Offset(0), drained: false });
}

#[tokio::test]
async fn mem_1_with_the_store_stalled_the_input_is_not_polled_and_permits_stay_within_the_budget() {
    const RECORD: usize = 4096;
    let mut bench = Bench::new();
    let budget = ByteBudget::new(64 * RECORD);
    bench.memory = budget.unreserved();
    bench.store.stall();
    let log = Log::upserts((0..200).map(|i| i % 100));
    let (worker, mut status) = bench.worker();
    let feed = charged(&log, &budget, RECORD);
    let running = tokio::spawn(worker.run(feed, CancellationToken::new()));
    // one set is under way and the next one is full: that is all
    status.wait_for(|s| s.applied == Offset(16)).await.unwrap();
    tokio::task::yield_now().await;
    assert_eq!((status.borrow().applied, budget.used_bytes()), (Offset(16), 16 * RECORD));
    bench.store.release();
    let exit = running.await.unwrap().unwrap();
    assert_eq!(exit, Exit::InputEnded { next_offset: Offset(200), drained: true });
    assert_eq!(budget.used_bytes(), 0);
    assert_eq!(bench.store.scan(&bench.store.newest().unwrap()), log.fold(200));
}

#[tokio::test]
async fn mem_1_a_worker_whose_records_fill_the_budget_seals_early() {
    const RECORD: usize = 100 << 10;
    let mut bench = Bench::new();
    bench.spec.seal.max_records = 1000;
    let budget = ByteBudget::new(4 * RECORD);
    bench.memory = budget.unreserved();
    let log = Log::upserts(0..40);
    let feed = charged(&log, &budget, RECORD);
    let exit = bench.run(feed).await.unwrap();
    assert_eq!(exit, Exit::InputEnded { next_offset: Offset(40), drained: true });
    assert!(bench.store.manifests().len() >= 10);
}

#[tokio::test]
async fn mem_1_growing_sets_and_merges_are_cut_to_what_their_builds_may_take() {
    let mut bench = Bench::new();
    bench.spec.seal.max_records = 1000;
    // the least: a build then takes the whole of its share, however little that is
    bench.build = BuildBudget::new(4096);
    let log = Log::upserts(0..60);
    bench.run(stream::iter(log.batches(0, 60))).await.unwrap();
    let manifests = bench.store.manifests();
    assert!(manifests.len() > 1, "one growing set of 60 records would not fit");
    assert_eq!(bench.store.scan(manifests.last().unwrap()), log.fold(60));
    assert_eq!(bench.build.used_bytes(), 0);
}

#[tokio::test]
async fn liv_4_a_build_that_does_not_return_is_told_until_it_does() {
    let bench = Bench::new();
    let log = Log::upserts(0..3);
    // both threads of the lane are taken, so that the seal waits for as long as the test likes
    let (release, wait) = std::sync::mpsc::sync_channel::<()>(2);
    let wait = std::sync::Arc::new(std::sync::Mutex::new(wait));
    let blocked: Vec<_> = (0..2)
        .map(|_| {
            let (pool, wait) = (bench.pool.clone(), wait.clone());
            tokio::spawn(
                async move { pool.run(Lane::Quick, move |_| wait.lock().unwrap().recv().unwrap()).await },
            )
        })
        .collect();
    let (worker, mut status) = bench.worker();
    let stop = CancellationToken::new();
    let running = tokio::spawn(worker.run(open_end(log.batches(0, 3)), stop.clone()));
    status.wait_for(|s| s.applied == Offset(3)).await.unwrap();
    bench.clock.advance(Duration::from_secs(11));
    status.wait_for(|s| s.sealing).await.unwrap();
    assert_eq!(status.borrow().slow_build, None);
    bench.clock.advance(Duration::from_secs(3601));
    let seen = status.wait_for(|s| s.slow_build.is_some()).await.unwrap().clone();
    let build = seen.slow_build.unwrap();
    assert_eq!((build.what, seen.beat.seconds_since(build.since)), ("seal", 3601.0));
    release.send(()).unwrap();
    release.send(()).unwrap();
    let seen = status.wait_for(|s| s.next_offset == Offset(3)).await.unwrap().clone();
    assert_eq!(seen.slow_build, None);
    stop.cancel();
    running.await.unwrap().unwrap();
    for job in blocked {
        job.await.unwrap().unwrap();
    }
}

#[tokio::test]
async fn fresh_1_the_oldest_unpublished_record_is_told_until_it_is_published() {
    let bench = Bench::new();
    let log = Log::upserts(0..3);
    let (worker, mut status) = bench.worker();
    let stop = CancellationToken::new();
    let running = tokio::spawn(worker.run(open_end(log.batches(0, 3)), stop.clone()));
    let seen = status.wait_for(|s| s.applied == Offset(3)).await.unwrap().clone();
    assert_eq!(seen.oldest_unpublished.map(|t| t.0), Some(500_000));
    assert_eq!((seen.lag(), seen.freshness_seconds(seen.beat)), (3, 500.0));
    bench.clock.advance(Duration::from_secs(10));
    let seen = status.wait_for(|s| s.next_offset == Offset(3)).await.unwrap().clone();
    assert_eq!((seen.oldest_unpublished, seen.lag(), seen.growing_records), (None, 0, 0));
    assert_eq!((seen.segments, seen.segment_records), (1, 3));
    stop.cancel();
    running.await.unwrap().unwrap();
}

#[tokio::test]
async fn scratch_files_are_gone_when_the_worker_is() {
    let bench = Bench::new();
    let log = Log::upserts((0..60).map(|i| i % 30));
    let parent = bench.scratch.join("test-g1-p0");
    let left = async || {
        // a merge that was given up holds its file until its thread has noticed
        bench.pool.run(Lane::Merge, |_| ()).await.unwrap();
        std::fs::read_dir(&parent).unwrap().count()
    };
    bench.run(stream::iter(log.batches(0, 10))).await.unwrap();
    assert_eq!(left().await, 0);
    // what a killed owner left behind goes with the next claim
    std::fs::create_dir(parent.join("0000000000-00000000000000000000000001")).unwrap();
    bench.run(stream::empty()).await.unwrap();
    assert_eq!(left().await, 0);
    let rows: u64 = bench.store.newest().unwrap().segments.iter().map(|s| live(s).len()).sum();
    assert_eq!(rows, 30);
}
