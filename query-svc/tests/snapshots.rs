//! Snapshots that change, stay away or are damaged while queries run.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use common::{Numbers, Service, World, delete, flat, rounds, upsert};
use reqwest::StatusCode;
use serde_json::value::RawValue;
use serde_json::{Value, json};
use sluice_query_svc::Limits;
use sluice_query_svc::types::{PartitionState, SearchResponse};
use sluice_snapshotter::scrub::{self, Problem, ScrubOptions};

/// The ways in which the queries of [`qry_1_a_query_never_mixes_two_snapshots_of_a_partition`] ask.
#[derive(Debug, Clone, Copy)]
enum Ask {
    Graph,
    Exact,
    Filtered,
    Batch,
    Listing,
}

/// What one record carries: the partition and the manifest that wrote it.
fn carried(metadata: &RawValue) -> (usize, Option<u64>) {
    let carried: Value = serde_json::from_str(metadata.get()).unwrap();
    (carried["partition"].as_u64().unwrap() as usize, carried["manifest"].as_u64())
}

/// Asks once; the manifest of each partition that the answer came from.
async fn ask(service: &Service, ask: Ask) -> Vec<u64> {
    let body = |exact: bool| json!({"vector": [3.0, 0.5], "k": 40, "exact": exact});
    let search = |body: Value| service.search("moving", body);
    let answers = match ask {
        Ask::Graph => vec![search(body(false)).await.ok()],
        Ask::Exact => vec![search(body(true)).await.ok()],
        Ask::Filtered => {
            let filter = json!({"size": {"$lt": 10}});
            vec![search(json!({"vector": [3.0, 0.5], "k": 40, "filter": filter})).await.ok()]
        }
        Ask::Batch => {
            let searches = json!({"searches": [body(false), body(true), body(false)]});
            let answer = service.post("/v1/indexes/moving/search/batch", searches).await.ok();
            answer["results"].as_array().unwrap().clone()
        }
        Ask::Listing => {
            let page = service.get("/v1/indexes/moving/records").await.ok();
            let mut seen = [None; 2];
            let records = page["records"].as_array().unwrap();
            assert_eq!(records.len(), 40);
            for record in records {
                let partition = record["partition"].as_u64().unwrap() as usize;
                let manifest = record["metadata"]["manifest"].as_u64();
                assert_eq!(
                    *seen[partition].get_or_insert(manifest),
                    manifest,
                    "two snapshots in one listing"
                );
            }
            return seen.map(|m| m.flatten().unwrap()).to_vec();
        }
    };
    let mut views = Vec::new();
    for answer in answers {
        let found: SearchResponse = serde_json::from_value(answer).unwrap();
        assert_eq!(found.hits.len(), if matches!(ask, Ask::Filtered) { 20 } else { 40 });
        for hit in &found.hits {
            let (partition, manifest) = carried(hit.metadata.as_ref().unwrap());
            assert_eq!(manifest, found.partitions[partition].manifest, "{ask:?}");
        }
        views.push(found.partitions.iter().map(|p| p.manifest.unwrap()).collect::<Vec<_>>());
    }
    assert!(views.iter().all(|v| *v == views[0]), "the searches of a batch share one view: {views:?}");
    views.swap_remove(0)
}

/// Swaps under eight clients: each record carries the number of the manifest that wrote it, and every manifest
/// overwrites every record, so all hits of a partition must carry the number that the answer names.
#[tokio::test(flavor = "multi_thread")]
async fn qry_1_a_query_never_mixes_two_snapshots_of_a_partition() {
    let world = World::new();
    let spec = world.index(flat("moving", 2)).await;
    let mut hands = [world.claim(&spec, 0).await, world.claim(&spec, 1).await];
    let service = Arc::new(world.serve(Limits::default(), None).await);
    let wave = |partition: usize, manifest: u64| {
        let row = move |i: u64| {
            let metadata = json!({"partition": partition, "manifest": manifest, "size": i});
            upsert(format!("{partition}-{i}"), &[i as f32, partition as f32], metadata)
        };
        (0..20).map(row).collect()
    };
    for (partition, hand) in hands.iter_mut().enumerate() {
        hand.publish(wave(partition, 2)).await;
    }
    service.serves("moving", &[2, 2]).await;

    let done = Arc::new(AtomicBool::new(false));
    let answered = Arc::new(AtomicU64::new(0));
    let client = |kind: Ask| {
        let (service, done, answered) = (Arc::clone(&service), Arc::clone(&done), Arc::clone(&answered));
        async move {
            let mut before = vec![0; 2];
            while !done.load(Ordering::Relaxed) {
                let now = ask(&service, kind).await;
                assert!(
                    now.iter().zip(&before).all(|(now, before)| now >= before),
                    "qry-2: {before:?} to {now:?}"
                );
                before = now;
                answered.fetch_add(1, Ordering::Relaxed);
            }
        }
    };
    let kinds =
        [Ask::Graph, Ask::Graph, Ask::Graph, Ask::Exact, Ask::Exact, Ask::Filtered, Ask::Batch, Ask::Listing];
    let clients: Vec<_> = kinds.map(client).into_iter().map(tokio::spawn).collect();
    let swaps = rounds(100);
    for manifest in 3..3 + swaps {
        for (partition, hand) in hands.iter_mut().enumerate() {
            let published = hand.publish(wave(partition, manifest)).await;
            service.catalogue.published(&published.partition);
            assert_eq!(published.seq.get(), manifest);
        }
        service.serves("moving", &[manifest, manifest]).await;
    }
    done.store(true, Ordering::Relaxed);
    for client in clients {
        client.await.unwrap();
    }
    println!("{} swaps, {} answers", 2 * swaps, answered.load(Ordering::Relaxed));
    Arc::into_inner(service).unwrap().stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn qry_5_old_snapshots_leave_memory_when_no_query_holds_them() {
    let world = World::new();
    let spec = world.index(flat("few", 1)).await;
    let mut hand = world.claim(&spec, 0).await;
    let service = world.serve(Limits::default(), None).await;
    let name = spec.name.clone();
    for i in 0..20 {
        let published = hand.publish(vec![upsert("a", &[i as f32, 0.0], json!({}))]).await;
        service.catalogue.published(&published.partition);
        service.serves("few", &[published.seq.get()]).await;
    }
    let slot = Arc::clone(&service.catalogue.get(&name).unwrap().slots[0]);
    service.until(|| slot.snapshots_in_memory() == 1).await;
    let held = service.catalogue.get(&name).unwrap().view();
    let published = hand.publish(vec![delete("a")]).await;
    service.serves("few", &[published.seq.get()]).await;
    assert_eq!(slot.snapshots_in_memory(), 2);
    drop(held);
    assert_eq!(slot.snapshots_in_memory(), 1);
    service.stop().await.unwrap();
}

fn damage(path: &std::path::Path) {
    let mut bytes = std::fs::read(path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 0x40;
    std::fs::write(path, bytes).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn seg_2_a_damaged_new_segment_leaves_the_snapshot_before_it_serving() {
    let world = World::new();
    let spec = world.index(flat("frail", 1)).await;
    let mut hand = world.claim(&spec, 0).await;
    hand.publish(vec![upsert("a", &[0.0, 0.0], json!({"v": 1}))]).await;
    let service = world.serve(Limits::default(), None).await;
    service.serves("frail", &[2]).await;

    let before = world.objects("/segment/");
    let mut new = None;
    let damaged = || {
        let path = world.objects("/segment/").into_iter().find(|p| !before.contains(p)).unwrap();
        let good = std::fs::read(&path).unwrap();
        damage(&path);
        new = Some((path, good));
    };
    hand.publish_after(vec![upsert("b", &[1.0, 0.0], json!({"v": 2}))], damaged).await;
    let (path, good) = new.unwrap();

    let name = spec.name.clone();
    let slot = Arc::clone(&service.catalogue.get(&name).unwrap().slots[0]);
    service.until(|| slot.trouble().is_some_and(|t| t.kind == "corrupt")).await;
    let status = service.status("frail").await;
    assert_eq!(status.partitions[0].status, PartitionState::Stale);
    assert!(status.partitions[0].error.as_ref().unwrap().contains("manifest 3"), "{status:?}");
    assert_eq!(service.search("frail", json!({"vector": [0, 0]})).await.ids(), ["a"]);
    let ready = service.get("/health/ready").await;
    assert_eq!(
        (ready.status, ready.json()["partitions"][0]["status"].as_str()),
        (StatusCode::OK, Some("stale"))
    );
    let metrics = service.get("/metrics").await.text;
    let counted = "sluice_snapshot_corrupt_total{index=\"frail\",partition=\"0\"} 1";
    assert!(metrics.contains(counted), "{metrics}");

    // a process that starts now serves the snapshot before, too
    let late = world.serve(Limits::default(), None).await;
    late.serves("frail", &[2]).await;
    assert_eq!(late.search("frail", json!({"vector": [0, 0]})).await.ids(), ["a"]);
    assert_eq!(late.status("frail").await.partitions[0].status, PartitionState::Stale);
    late.stop().await.unwrap();

    // once the object is whole again, the newest snapshot serves
    std::fs::write(&path, good).unwrap();
    service.serves("frail", &[3]).await;
    service.until(|| slot.trouble().is_none()).await;
    assert_eq!(service.search("frail", json!({"vector": [0, 0]})).await.ids(), ["a", "b"]);
    service.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn seg_2_a_damaged_new_manifest_leaves_the_snapshot_before_it_serving() {
    let world = World::new();
    let spec = world.index(flat("torn", 1)).await;
    let mut hand = world.claim(&spec, 0).await;
    hand.publish(vec![upsert("a", &[0.0, 0.0], json!({}))]).await;
    let service = world.serve_on_call().await;
    service.serves("torn", &[2]).await;
    let slot = Arc::clone(&service.catalogue.get(&spec.name).unwrap().slots[0]);
    hand.publish(vec![upsert("b", &[1.0, 0.0], json!({}))]).await;
    let newest = world.objects("/manifest/").pop().unwrap();
    let good = std::fs::read(&newest).unwrap();
    damage(&newest);
    service.look_until(&slot, |slot| slot.trouble().is_some_and(|t| t.kind == "corrupt")).await;
    assert_eq!(service.search("torn", json!({"vector": [0, 0]})).await.ids(), ["a"]);
    assert_eq!(service.status("torn").await.partitions[0].status, PartitionState::Stale);

    let late = world.serve(Limits::default(), None).await;
    late.serves("torn", &[2]).await;
    assert_eq!(late.search("torn", json!({"vector": [0, 0]})).await.ids(), ["a"]);
    late.stop().await.unwrap();

    std::fs::write(&newest, good).unwrap();
    service.look_until(&slot, |slot| slot.trouble().is_none()).await;
    assert_eq!(service.search("torn", json!({"vector": [0, 0]})).await.ids(), ["a", "b"]);
    service.stop().await.unwrap();
}

/// Damages the newest segment or manifest in some way.
fn spoil(world: &World, round: u64, numbers: &mut Numbers) -> (PathBuf, Vec<u8>) {
    let mut objects = world.objects(if round.is_multiple_of(2) { "/segment/" } else { "/manifest/" });
    let newest = objects.pop().unwrap();
    let good = std::fs::read(&newest).unwrap();
    let at = numbers.integer(good.len() as u64) as usize;
    let bad = match round / 2 % 5 {
        0 => {
            let mut flipped = good.clone();
            flipped[at] ^= 1 << numbers.integer(8);
            flipped
        }
        1 => good[..at].to_vec(),
        2 => Vec::new(),
        3 => [&good[..], &good[..at.max(1)]].concat(),
        // a good object of the same kind under another's name
        _ => std::fs::read(objects.pop().unwrap()).unwrap(),
    };
    std::fs::write(&newest, bad).unwrap();
    (newest, good)
}

#[tokio::test(flavor = "multi_thread")]
async fn seg_2_whatever_is_damaged_is_named_and_what_was_loaded_serves_on() {
    let world = World::new();
    let spec = world.index(flat("brittle", 1)).await;
    let mut hand = world.claim(&spec, 0).await;
    hand.publish(vec![upsert("a", &[0.0, 0.0], json!({"round": 0}))]).await;
    let service = world.serve_on_call().await;
    service.serves("brittle", &[2]).await;
    let slot = Arc::clone(&service.catalogue.get(&spec.name).unwrap().slots[0]);
    let mut numbers = Numbers(3);
    for round in 1..=rounds(40) {
        let published = hand.publish(vec![upsert("a", &[0.0, 0.0], json!({"round": round}))]).await;
        let (path, good) = spoil(&world, round, &mut numbers);
        service.look_until(&slot, |slot| slot.trouble().is_some_and(|t| t.kind == "corrupt")).await;
        let served = async || {
            let found = service.search("brittle", json!({"vector": [0, 0]})).await.ok();
            found["hits"][0]["metadata"]["round"].as_u64()
        };
        assert_eq!(served().await, Some(round - 1));
        let status = service.status("brittle").await.partitions.remove(0);
        let key = path.strip_prefix(world.dir.path().join("store")).unwrap().to_str().unwrap();
        let named = key.rsplit('/').next().unwrap().trim_start_matches('0').trim_end_matches(".seg");
        assert_eq!(status.status, PartitionState::Stale);
        assert!(status.error.as_ref().unwrap().contains(named), "round {round}: {named} in {status:?}");
        let report = scrub::run(&world.store, &ScrubOptions::default(), |_| ()).await.unwrap();
        let found: Vec<_> = report.findings.iter().map(|f| (f.problem, f.key.as_str())).collect();
        assert_eq!(found, [(Problem::Damaged, key)], "round {round}: {report}");
        std::fs::write(&path, good).unwrap();
        service.look_until(&slot, |slot| slot.trouble().is_none()).await;
        assert_eq!(served().await, Some(round));
        assert_eq!(slot.served().map(|s| s.seq()), Some(published.seq));
    }
    service.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn qry_4_a_partition_that_cannot_be_loaded_is_named_over_http() {
    let world = World::new();
    let spec = world.index(flat("torn", 4)).await;
    for partition in 0..4 {
        let mut hand = world.claim(&spec, partition).await;
        let row = upsert(format!("k{partition}"), &[partition as f32, 0.0], json!({"color": "red"}));
        hand.publish(vec![row]).await;
    }
    for bad in 0..4usize {
        let manifests = world.objects(&format!("p{bad:06}/manifest/"));
        let good: Vec<_> = manifests.iter().map(|path| std::fs::read(path).unwrap()).collect();
        manifests.iter().for_each(|path| damage(path));
        let service = world.serve(Limits::default(), None).await;
        service.until(|| service.catalogue.get(&spec.name).is_some()).await;
        let slots = &service.catalogue.get(&spec.name).unwrap().slots;
        service
            .until(|| {
                (0..4).all(
                    |p| if p == bad { slots[p].trouble().is_some() } else { slots[p].served().is_some() },
                )
            })
            .await;
        let status = |p: usize| if p == bad { "unavailable" } else { "ok" };
        let told = |answer: &Value| {
            let partitions = answer["partitions"].as_array().unwrap();
            (0..4).all(|p| partitions[p]["partition"] == p && partitions[p]["status"] == status(p))
        };
        let body = json!({"vector": [0, 0], "k": 10});
        let found = service.search("torn", body.clone()).await;
        let others: Vec<_> = (0..4).filter(|p| *p != bad).map(|p| format!("k{p}")).collect();
        assert_eq!(found.ids(), others);
        assert!(told(&found.ok()), "{found:?}");
        let all = json!({"vector": [0, 0], "k": 10, "require_complete": true});
        let refused = service.search("torn", all).await.problem(503, "incomplete");
        assert!(told(&refused), "{refused}");
        // a count or a listing without a partition would be wrong without saying so
        service.post("/v1/indexes/torn/count", json!({})).await.problem(503, "incomplete");
        service.get("/v1/indexes/torn/records").await.problem(503, "incomplete");
        service.stop().await.unwrap();
        manifests.iter().zip(good).for_each(|(path, good)| std::fs::write(path, good).unwrap());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn min_offsets_wait_for_what_they_ask_or_say_what_is_visible() {
    let world = World::new();
    let spec = world.index(flat("fresh", 2)).await;
    let mut hand = world.claim(&spec, 1).await;
    hand.publish(vec![upsert("a", &[0.0, 0.0], json!({}))]).await;
    let service = Arc::new(world.serve(Limits::default(), None).await);
    service.serves("fresh", &[0, 2]).await;

    let wants = |offset: u64, timeout: u64| json!({"vector": [0, 0], "consistency": {"min_offsets": {"1": offset}, "timeout_ms": timeout}});
    assert_eq!(service.search("fresh", wants(0, 0)).await.ids(), ["a"]);
    let problem = service.search("fresh", wants(1, 20)).await.problem(412, "offsets_not_visible");
    assert_eq!(problem["offsets"], json!({"0": 0, "1": 1}));
    let counted = json!({"consistency": {"min_offsets": {"1": 1}, "timeout_ms": 1}});
    service.post("/v1/indexes/fresh/count", counted).await.problem(412, "offsets_not_visible");
    let batch = json!({"searches": [wants(0, 0), wants(1, 20)]});
    service.post("/v1/indexes/fresh/search/batch", batch).await.problem(412, "offsets_not_visible");
    service.search("fresh", wants(1, 10_000_000)).await.problem(400, "invalid_request");
    let unknown = json!({"vector": [0, 0], "consistency": {"min_offsets": {"2": 0}}});
    service.search("fresh", unknown).await.problem(400, "invalid_request");

    let waiting = tokio::spawn({
        let service = Arc::clone(&service);
        async move { service.search("fresh", wants(1, 30_000)).await.ids() }
    });
    hand.publish(vec![upsert("b", &[1.0, 0.0], json!({}))]).await;
    assert_eq!(waiting.await.unwrap(), ["a", "b"]);
    Arc::into_inner(service).unwrap().stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_listing_goes_on_in_the_view_it_began_with_until_it_expires() {
    let world = World::new();
    let spec = world.index(flat("pages", 1)).await;
    let mut hand = world.claim(&spec, 0).await;
    hand.publish((0..4).map(|i| upsert(format!("r{i}"), &[0.0, 0.0], json!({}))).collect()).await;
    let limits =
        Limits { max_pinned_views: 1, pinned_view_ttl: Duration::from_millis(1500), ..Limits::default() };
    let service = world.serve(limits, None).await;
    service.serves("pages", &[2]).await;
    let page = |path: String| {
        let service = &service;
        async move { service.get(&format!("/v1/indexes/pages/records?limit=2{path}")).await }
    };
    let first = page(String::new()).await.ok();
    let cursor = format!("&cursor={}", first["cursor"].as_str().unwrap());
    hand.publish((0..4).map(|i| delete(format!("r{i}"))).collect()).await;
    service.serves("pages", &[3]).await;
    let second = page(cursor.clone()).await.ok();
    assert_eq!(second["records"].as_array().unwrap().len(), 2);
    assert_eq!(second["cursor"], json!(null));
    assert_eq!(service.count("pages", json!({})).await, 0);
    let other = service.get("/v1/indexes/pages/records?cursor=AAAA").await;
    other.problem(400, "invalid_cursor");

    // a view that nobody asks for is let go
    let slot = Arc::clone(&service.catalogue.get(&spec.name).unwrap().slots[0]);
    service.until(|| slot.snapshots_in_memory() == 1).await;
    page(cursor).await.problem(410, "cursor_expired");
    service.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_goes_away_leaves_what_is_loaded_serving() {
    let world = World::new();
    let spec = world.index(flat("alone", 1)).await;
    let mut hand = world.claim(&spec, 0).await;
    hand.publish(vec![upsert("a", &[0.0, 0.0], json!({}))]).await;
    let service = world.serve(Limits::default(), None).await;
    service.serves("alone", &[2]).await;
    let (here, away) = (world.dir.path().join("store"), world.dir.path().join("away"));
    std::fs::rename(&here, &away).unwrap();
    let slot = Arc::clone(&service.catalogue.get(&spec.name).unwrap().slots[0]);
    for _ in 0..20 {
        service.catalogue.published(&slot.partition);
        assert_eq!(service.search("alone", json!({"vector": [0, 0]})).await.ids(), ["a"]);
    }
    std::fs::rename(&away, &here).unwrap();
    hand.publish(vec![upsert("b", &[1.0, 0.0], json!({}))]).await;
    service.serves("alone", &[3]).await;
    service.stop().await.unwrap();
}
