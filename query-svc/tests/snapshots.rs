//! Snapshots that change, stay away or are damaged while queries run.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use common::{World, delete, flat, upsert};
use reqwest::StatusCode;
use serde_json::json;
use sluice_query_svc::Limits;
use sluice_query_svc::types::{PartitionState, SearchResponse};

/// 200 swaps under queries: each record carries the number of the manifest that wrote it, and every manifest
/// overwrites every record, so all hits of a partition must carry the number that the answer names.
#[tokio::test(flavor = "multi_thread")]
async fn qry_1_a_query_never_mixes_two_snapshots_of_a_partition() {
    const SWAPS: u64 = 200;
    let world = World::new();
    let spec = world.index(flat("moving", 2)).await;
    let mut hands = [world.claim(&spec, 0).await, world.claim(&spec, 1).await];
    let service = Arc::new(world.serve(Limits::default(), None).await);
    let wave = |partition: usize, manifest: u64| {
        let row = move |i: u64| {
            let metadata = json!({"partition": partition, "manifest": manifest});
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
    let query = |exact: bool| {
        let (service, done, answered) = (Arc::clone(&service), Arc::clone(&done), Arc::clone(&answered));
        async move {
            let mut before = [0, 0];
            while !done.load(Ordering::Relaxed) {
                let body = json!({"vector": [3.0, 0.5], "k": 40, "exact": exact});
                let found = service.search("moving", body).await.ok();
                let found: SearchResponse = serde_json::from_value(found).unwrap();
                assert_eq!(found.hits.len(), 40);
                for hit in &found.hits {
                    let carried: serde_json::Value =
                        serde_json::from_str(hit.metadata.as_ref().unwrap().get()).unwrap();
                    let partition = carried["partition"].as_u64().unwrap() as usize;
                    assert_eq!(carried["manifest"].as_u64(), found.partitions[partition].manifest);
                }
                for (before, now) in before.iter_mut().zip(&found.partitions) {
                    assert!(now.manifest.unwrap() >= *before, "qry-2: a partition went back");
                    *before = now.manifest.unwrap();
                }
                answered.fetch_add(1, Ordering::Relaxed);
            }
        }
    };
    let queries: Vec<_> = [false, true, false].map(query).into_iter().map(tokio::spawn).collect();
    for manifest in 3..3 + SWAPS / 2 {
        for (partition, hand) in hands.iter_mut().enumerate() {
            let published = hand.publish(wave(partition, manifest)).await;
            service.catalogue.published(&published.partition);
            assert_eq!(published.seq.get(), manifest);
        }
        service.serves("moving", &[manifest, manifest]).await;
    }
    done.store(true, Ordering::Relaxed);
    for query in queries {
        query.await.unwrap();
    }
    println!("{SWAPS} swaps, {} answers", answered.load(Ordering::Relaxed));
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
