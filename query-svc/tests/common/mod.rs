//! What the tests share: a store in a directory, a hand that publishes snapshots into it, and the service over TCP.

#![allow(dead_code, unreachable_pub, reason = "each test file uses its part")]

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};
use reqwest::{Client, Method, Response, StatusCode};
use roaring::RoaringBitmap;
use serde_json::{Value, json};
use sluice_connectors::Log;
use sluice_core::{
    Document, Generation, IndexName, IndexSpec, Key, Metadata, Offset, Op, PartitionId, PartitionRef, Record,
    SystemClock, Timestamp, Vector,
};
use sluice_query_svc::catalogue::Slot;
use sluice_query_svc::types::IndexStatus;
use sluice_query_svc::{Catalogue, Limits, LoaderOptions, QueryParams, QueryService, ServiceError};
use sluice_segment::{BuildOptions, GrowingSet, Segment, seal};
use sluice_snapshotter::{
    Chain, Claim, Manifest, Owner, Publication, Registry, SegmentCache, SegmentEntry, Store, StoreConfig,
};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// One change of a record: key, (vector, metadata) or a delete, timestamp.
pub struct Change {
    pub key: String,
    pub value: Option<(Vec<f32>, Value)>,
    pub timestamp: i64,
}

pub fn upsert(key: impl Into<String>, vector: &[f32], metadata: Value) -> Change {
    Change { key: key.into(), value: Some((vector.to_vec(), metadata)), timestamp: 1000 }
}

pub fn delete(key: impl Into<String>) -> Change {
    Change { key: key.into(), value: None, timestamp: 1000 }
}

impl Change {
    pub fn at(mut self, timestamp: i64) -> Self {
        self.timestamp = timestamp;
        self
    }
}

/// A store in a directory of its own.
pub struct World {
    pub dir: tempfile::TempDir,
    pub store: Store,
    pub registry: Registry,
}

impl World {
    pub fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let url = format!("file://{}", dir.path().join("store").display());
        let store = Store::open(&StoreConfig { url, options: BTreeMap::new() }).unwrap();
        let registry = Registry::new(store.clone(), Arc::new(SystemClock));
        Self { dir, store, registry }
    }

    /// Stores a spec, as JSON.
    pub async fn index(&self, spec: Value) -> IndexSpec {
        let spec: IndexSpec = serde_json::from_value(spec).unwrap();
        self.registry.create(&spec).await.unwrap();
        spec
    }

    /// Claims a partition, to publish into it.
    pub async fn claim(&self, spec: &IndexSpec, partition: u32) -> Hand {
        let at = PartitionRef {
            index: spec.name.clone(),
            generation: Generation(1),
            partition: PartitionId(partition),
        };
        let claim = Claim { log_start: Offset(0), partitions: spec.partitions };
        let chain = Chain::new(self.store.clone(), at);
        let owner = Owner::claim(chain, claim, Arc::new(SystemClock)).await.unwrap();
        Hand {
            owner,
            spec: spec.clone(),
            dir: self.dir.path().join("scratch"),
            segments: Vec::new(),
            live: BTreeMap::new(),
            next: 0,
        }
    }

    /// Files of the store whose path contains `part`.
    pub fn objects(&self, part: &str) -> Vec<PathBuf> {
        let mut found = Vec::new();
        let mut open = vec![self.dir.path().join("store")];
        while let Some(dir) = open.pop() {
            for entry in std::fs::read_dir(dir).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    open.push(path);
                } else if path.to_string_lossy().contains(part) {
                    found.push(path);
                }
            }
        }
        found.sort();
        found
    }

    /// Starts the service over this store.
    pub async fn serve(&self, limits: Limits, log: Option<Log>) -> Service {
        Service::start(self, limits, log, Duration::from_millis(20)).await
    }

    /// Starts the service so that it looks for a snapshot only when it is told that there is one.
    pub async fn serve_on_call(&self) -> Service {
        Service::start(self, Limits::default(), None, Duration::from_secs(3600)).await
    }
}

/// Publishes snapshots of one partition the way an indexer does: one sealed segment per batch, bits for what the
/// batch overwrote or deleted.
pub struct Hand {
    pub owner: Owner,
    spec: IndexSpec,
    dir: PathBuf,
    segments: Vec<SegmentEntry>,
    /// Key -> segment and row of its live version.
    live: BTreeMap<String, (usize, u32)>,
    next: u64,
}

impl Hand {
    /// Publishes `changes` as one more snapshot.
    pub async fn publish(&mut self, changes: Vec<Change>) -> Manifest {
        self.publish_after(changes, || ()).await
    }

    /// As [`Hand::publish`], with `meanwhile` between the upload and the manifest.
    pub async fn publish_after(&mut self, changes: Vec<Change>, meanwhile: impl FnOnce()) -> Manifest {
        let schema = Arc::new(self.spec.schema());
        let mut set = GrowingSet::new(Arc::clone(&schema));
        let mut touched = Vec::new();
        for change in changes {
            touched.push(change.key.clone());
            let op = match change.value {
                None => Op::Delete,
                Some((vector, metadata)) => {
                    let vector = Vector::try_new(vector, schema.dimension, schema.metric).unwrap();
                    let metadata = Metadata::parse(&metadata.to_string(), 1 << 16).unwrap();
                    let fields = schema.field_values(&metadata).unwrap();
                    Op::Upsert(Document { vector, metadata, fields })
                }
            };
            let key = Key::new(&change.key).unwrap();
            let timestamp = Timestamp(change.timestamp);
            set.apply(Record { key, offset: Offset(self.next), timestamp, op });
            self.next += 1;
        }
        for key in &touched {
            if let Some((segment, row)) = self.live.remove(key) {
                self.segments[segment].deleted.insert(row);
            }
        }
        if set.live_len() > 0 {
            self.seal(&set, &touched).await;
        }
        meanwhile();
        let publication = Publication { next_offset: Offset(self.next), segments: self.segments.clone() };
        self.owner.publish(publication).await.unwrap().clone()
    }

    async fn seal(&mut self, set: &GrowingSet, touched: &[String]) {
        std::fs::create_dir_all(&self.dir).unwrap();
        let id = self.owner.new_segment_id();
        let path = self.dir.join(format!("{}-{id}.seg", self.owner.partition().partition));
        let options = BuildOptions {
            graph: self.spec.graph.clone(),
            quantization: self.spec.quantization,
            seed: 7,
            ..BuildOptions::default()
        };
        let built = seal(set, &options, &path, &AtomicBool::new(false)).unwrap();
        let segment = Segment::open(&built.path).unwrap();
        for key in touched {
            if let Some(row) = segment.find(key) {
                self.live.insert(key.clone(), (self.segments.len(), row));
            }
        }
        self.owner.upload(id, &built.path, built.bytes, built.digest).await.unwrap();
        self.segments.push(SegmentEntry {
            id,
            bytes: built.bytes,
            digest: built.digest,
            records: built.records,
            deleted: RoaringBitmap::new(),
        });
    }
}

/// The metrics of this test process.
pub fn metrics() -> PrometheusHandle {
    static HANDLE: OnceLock<PrometheusHandle> = OnceLock::new();
    HANDLE.get_or_init(|| PrometheusBuilder::new().install_recorder().unwrap()).clone()
}

/// A running service.
pub struct Service {
    pub base: String,
    pub client: Client,
    pub catalogue: Arc<Catalogue>,
    stop: CancellationToken,
    running: JoinHandle<Result<(), ServiceError>>,
    _cache: tempfile::TempDir,
}

impl Service {
    async fn start(world: &World, limits: Limits, log: Option<Log>, poll_interval: Duration) -> Self {
        let cache_dir = tempfile::tempdir().unwrap();
        let params = QueryParams {
            registry: world.registry.clone(),
            store: world.store.clone(),
            cache: SegmentCache::open(cache_dir.path(), 1 << 30, world.store.clone()).unwrap(),
            log,
            limits,
            loader: LoaderOptions {
                poll_interval,
                discovery_interval: Duration::from_millis(50),
                max_backoff: Duration::from_millis(100),
                parallel: 4,
            },
            clock: Arc::new(SystemClock),
            metrics: metrics(),
        };
        let service = QueryService::new(params).unwrap();
        let catalogue = service.catalogue();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base = format!("http://{}", listener.local_addr().unwrap());
        let stop = CancellationToken::new();
        let running = tokio::spawn(service.run(listener, stop.clone()));
        let client = Client::builder().no_proxy().build().unwrap();
        Self { base, client, catalogue, stop, running, _cache: cache_dir }
    }

    pub async fn stop(self) -> Result<(), ServiceError> {
        self.stop.cancel();
        self.running.await.unwrap()
    }

    pub async fn call(&self, method: Method, path: &str, body: Option<Value>) -> Answer {
        let mut request = self.client.request(method, format!("{}{path}", self.base));
        if let Some(body) = body {
            request = request.json(&body);
        }
        Answer::read(request.send().await.unwrap()).await
    }

    pub async fn get(&self, path: &str) -> Answer {
        self.call(Method::GET, path, None).await
    }

    pub async fn post(&self, path: &str, body: Value) -> Answer {
        self.call(Method::POST, path, Some(body)).await
    }

    pub async fn search(&self, index: &str, body: Value) -> Answer {
        self.post(&format!("/v1/indexes/{index}/search"), body).await
    }

    pub async fn count(&self, index: &str, body: Value) -> u64 {
        self.post(&format!("/v1/indexes/{index}/count"), body).await.ok()["count"].as_u64().unwrap()
    }

    /// Waits until every partition of `index` serves `seqs`, in the order of the partitions, or something newer.
    pub async fn serves(&self, index: &str, seqs: &[u64]) {
        let name = IndexName::new(index).unwrap();
        self.until(|| {
            let Some(index) = self.catalogue.get(&name) else { return false };
            let seq = |slot: &Arc<Slot>| slot.served().map(|s| s.seq().get());
            index.slots.iter().zip(seqs).all(|(slot, wanted)| seq(slot).is_some_and(|s| s >= *wanted))
        })
        .await;
    }

    /// Tells the service to look for a newer snapshot of `slot` until `condition` holds.
    pub async fn look_until(&self, slot: &Slot, condition: impl Fn(&Slot) -> bool) {
        self.until(|| {
            self.catalogue.published(&slot.partition);
            condition(slot)
        })
        .await;
    }

    /// Waits until `condition` holds; a minute is for ever.
    pub async fn until(&self, condition: impl Fn() -> bool) {
        let wait = async {
            while !condition() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(60), wait).await.expect("the condition never held");
    }

    pub async fn status(&self, index: &str) -> IndexStatus {
        serde_json::from_value(self.get(&format!("/v1/indexes/{index}")).await.ok()).unwrap()
    }
}

/// A response, read to its end.
#[derive(Debug)]
pub struct Answer {
    pub status: StatusCode,
    pub media: String,
    pub headers: reqwest::header::HeaderMap,
    pub text: String,
}

impl Answer {
    pub async fn read(response: Response) -> Self {
        let status = response.status();
        let headers = response.headers().clone();
        let media = headers.get("content-type").map(|v| v.to_str().unwrap().to_owned()).unwrap_or_default();
        Self { status, media, headers, text: response.text().await.unwrap() }
    }

    pub fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|e| panic!("{e}: {self:?}"))
    }

    /// The body of a 2xx answer.
    pub fn ok(&self) -> Value {
        assert!(self.status.is_success(), "{self:?}");
        self.json()
    }

    /// Asserts a problem of this status and code; returns its body.
    pub fn problem(&self, status: u16, code: &str) -> Value {
        let body = self.json();
        assert_eq!((self.status.as_u16(), body["code"].as_str()), (status, Some(code)), "{self:?}");
        assert_eq!(self.media, "application/problem+json");
        assert_eq!(body["status"], status);
        assert_eq!(body["request_id"].as_str(), self.headers["x-request-id"].to_str().ok());
        for member in ["type", "title", "detail"] {
            assert!(body[member].as_str().is_some_and(|t| !t.is_empty()), "{member}: {self:?}");
        }
        body
    }

    pub fn ids(&self) -> Vec<String> {
        let hits = self.ok();
        hits["hits"].as_array().unwrap().iter().map(|h| h["id"].as_str().unwrap().to_owned()).collect()
    }
}

/// `quick` rounds of a test that may go on for long, or as many as `PROPTEST_CASES` says.
pub fn rounds(quick: u64) -> u64 {
    std::env::var("PROPTEST_CASES").ok().and_then(|n| n.parse().ok()).unwrap_or(quick)
}

/// A small spec over two dimensions under l2.
pub fn flat(name: &str, partitions: u32) -> Value {
    json!({
        "name": name, "dimension": 2, "metric": "l2", "partitions": partitions,
        "fields": {"color": "keyword", "size": "integer"},
    })
}

/// Deterministic numbers in [-1, 1).
pub struct Numbers(pub u64);

impl Numbers {
    pub fn integer(&mut self, below: u64) -> u64 {
        // xorshift64*
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) % below
    }

    pub fn float(&mut self) -> f32 {
        self.integer(1 << 24) as f32 / (1 << 23) as f32 - 1.0
    }

    pub fn vector(&mut self, dimension: usize) -> Vec<f32> {
        (0..dimension).map(|_| self.float()).collect()
    }
}
