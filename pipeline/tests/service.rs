//! A whole service by the library's API: publish, search, overwrite, delete, restart, and what stops an index by name.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod common;

use common::{INDEXES, Running, config, until};
use serde_json::json;
use sluice::index::{PartitionState, ensure_index};
use sluice::{Edges, Role};
use sluice_connectors::Outgoing;
use sluice_core::IndexSpec;

#[tokio::test(flavor = "multi_thread")]
async fn what_is_published_is_found_overwritten_deleted_and_served_again_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let service = Running::start(config(dir.path(), INDEXES), Role::Up).await;
    service.ready("things").await;

    let records = json!([
        {"id": "a", "vector": [1, 0, 0], "metadata": {"kind": "x"}},
        {"id": "b", "vector": [0.9, 0.1, 0], "metadata": {"kind": "y"}},
        {"id": "c", "vector": [0, 0, 1], "metadata": {"kind": "x"}},
    ]);
    let seen = service.publish("things", records).await;
    let query = json!({"vector": [1, 0, 0], "k": 3});
    assert_eq!(service.search("things", query.clone(), &seen).await, ["a", "b", "c"]);
    let filtered = json!({"id": "a", "k": 3, "filter": {"kind": "x"}});
    assert_eq!(service.search("things", filtered, &seen).await, ["c"]);

    let seen = service.publish("things", json!([{"id": "a", "vector": [0, 0, 1]}])).await;
    assert_eq!(service.search("things", query.clone(), &seen).await[0], "b");
    let (status, deleted) = service.send("DELETE", "/v1/indexes/things/records/b", None).await;
    assert_eq!(status, 200);
    let mut seen = seen;
    seen[deleted["partition"].to_string()] = deleted["offset"].clone();
    let mut left = service.search("things", query.clone(), &seen).await;
    left.sort();
    assert_eq!(left, ["a", "c"]);
    assert_eq!(service.stop().await.hung, Vec::<String>::new());

    let again = Running::start(config(dir.path(), INDEXES), Role::Serve).await;
    again.ready("things").await;
    let mut served = again.search("things", query, &json!({})).await;
    served.sort();
    assert_eq!(served, ["a", "c"]);
    assert!(again.stop().await.hung.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn fold_1_reading_begins_where_the_manifest_ends_and_nowhere_else() {
    let dir = tempfile::tempdir().unwrap();
    let config = || config(dir.path(), INDEXES);
    let topic = config().indexes[0].topic();
    let mut written = 0;
    // twice: before the first claim, and while the indexer is down
    for _ in 0..2 {
        let edges = Edges::open(&config()).await.unwrap();
        edges.log.producer.ensure_topic(&topic, 2).await.unwrap();
        let message = |i: u32| Outgoing {
            key: Some(format!("k{i}").into_bytes()),
            value: Some(br#"{"vector":[1,0,0]}"#.to_vec()),
            ..Outgoing::default()
        };
        let placed = edges.log.producer.produce(&topic, (written..written + 20).map(message).collect()).await;
        assert!(placed.iter().all(Result::is_ok), "{placed:?}");
        written += 20;
        drop(edges);
        let service = Running::start(config(), Role::Up).await;
        until("every record", || async {
            let (status, answer) = service.send("POST", "/v1/indexes/things/count", Some(json!({}))).await;
            (status == 200 && answer["count"] == written).then_some(())
        })
        .await;
        assert!(service.stop().await.hung.is_empty());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_index_created_over_http_is_consumed_without_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let service = Running::start(config(dir.path(), "[ingest]\ndiscovery_interval = '20ms'"), Role::Up).await;
    let spec = json!({"dimension": 2, "partitions": 1, "metric": "l2", "seal": {"max_age": "20ms"}});
    assert_eq!(service.send("PUT", "/v1/indexes/late", Some(spec)).await.0, 201);
    let seen = service.publish("late", json!([{"id": "a", "vector": [1, 2]}])).await;
    assert_eq!(service.search("late", json!({"vector": [1, 2]}), &seen).await, ["a"]);
    assert_eq!(service.send("DELETE", "/v1/indexes/late", None).await.0, 200);
    until("the revocation", || async { service.board.report().partitions.is_empty().then_some(()) }).await;
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn key_1_a_topic_of_another_partition_count_stops_its_index_by_name_and_no_other() {
    let dir = tempfile::tempdir().unwrap();
    let config = config(dir.path(), INDEXES);
    {
        let edges = Edges::open(&config).await.unwrap();
        let spec: IndexSpec = toml::from_str("name = 'grown'\ndimension = 2\npartitions = 2").unwrap();
        edges.log.producer.ensure_topic(&spec.topic(), 3).await.unwrap();
        // as if the topic had grown after the index was made
        edges.registry.create(&spec).await.unwrap();
    }
    let service = Running::start(config, Role::Up).await;
    let parked = until("the parked partitions", || async {
        let report = service.board.report();
        let parked: Vec<_> = report.parked().cloned().collect();
        (parked.len() == 3).then_some(parked)
    })
    .await;
    for partition in &parked {
        assert_eq!(partition.topic, "grown");
        assert!(partition.problem.as_deref().unwrap().contains("3 partitions"), "{partition:?}");
        assert!(partition.advice.is_some());
    }
    let (status, shown) = service.send("GET", "/status", None).await;
    assert_eq!(status, 200);
    assert!(shown.to_string().contains("was made for 2"), "{shown}");
    let metrics = service.send("GET", "/metrics", None).await.1;
    let metrics = metrics.as_str().unwrap();
    assert!(
        metrics.contains("sluice_partition_parked_state{topic=\"grown\",partition=\"0\"} 1"),
        "{metrics}"
    );
    service.ready("things").await;
    let seen = service.publish("things", json!([{"id": "a", "vector": [1, 0, 0]}])).await;
    assert_eq!(service.search("things", json!({"vector": [1, 0, 0]}), &seen).await, ["a"]);
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_disagrees_with_the_stored_spec_is_refused_and_what_may_change_changes() {
    let dir = tempfile::tempdir().unwrap();
    let config = config(dir.path(), INDEXES);
    let edges = Edges::open(&config).await.unwrap();
    let stored = ensure_index(&edges.registry, &edges.log, &config.indexes[0]).await.unwrap();
    let mut sooner = config.indexes[0].clone();
    sooner.seal.max_age = std::time::Duration::from_millis(50);
    sooner.partitions = 7; // the log decides
    let changed = ensure_index(&edges.registry, &edges.log, &sooner).await.unwrap();
    assert_eq!((changed.version, changed.spec.partitions), (stored.version + 1, 2));
    let other: IndexSpec = toml::from_str("name = 'things'\ndimension = 9").unwrap();
    let error = ensure_index(&edges.registry, &edges.log, &other).await.unwrap_err().to_string();
    assert!(error.contains("dimension: stored 3, given 9 (needs a rebuild)"), "{error}");
    let error = sluice::run(
        {
            let mut config = config.clone();
            config.indexes = vec![other];
            config
        },
        Role::Up,
        tokio_util::sync::CancellationToken::new(),
    )
    .await
    .unwrap_err();
    assert!(error.to_string().contains("dimension"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn log_1_a_partition_whose_log_is_shorter_than_its_snapshot_is_parked() {
    let dir = tempfile::tempdir().unwrap();
    let first = Running::start(config(dir.path(), INDEXES), Role::Up).await;
    first.ready("things").await;
    let seen = first.publish("things", json!([{"id": "a", "vector": [1, 0, 0]}])).await;
    first.search("things", json!({"vector": [1, 0, 0]}), &seen).await;
    first.stop().await;
    std::fs::remove_dir_all(dir.path().join("log")).unwrap();
    let again = Running::start(config(dir.path(), INDEXES), Role::Up).await;
    let report = until("the parked partition", || async {
        let report = again.board.report();
        let settled = report.partitions.len() == 2
            && report.partitions.iter().all(|p| p.state != PartitionState::Starting);
        (settled && report.parked().count() == 1).then_some(report)
    })
    .await;
    let parked = report.parked().next().unwrap();
    assert!(parked.problem.as_deref().unwrap().contains("beyond the end"), "{parked:?}");
    // what is published still serves
    again.ready("things").await;
    assert_eq!(again.search("things", json!({"vector": [1, 0, 0]}), &json!({})).await, ["a"]);
    again.stop().await;
}
