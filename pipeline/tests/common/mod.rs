//! A service in this process over a local log and a directory, and a client for it.

use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use sluice::config::{self, Environment, Flags, TomlText};
use sluice::index::Board;
use sluice::{Config, Role, RunError, RunReport, Service};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// Long enough for any machine; a test that waits so long has failed.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) const INDEXES: &str = "
    [[index]]
    name = 'things'
    partitions = 2
    dimension = 3
    fields = { kind = 'keyword' }
    seal = { max_age = '20ms' }
";

/// Text of a configuration in `dir`.
pub(crate) fn text(dir: &Path, indexes: &str) -> String {
    format!("data_dir = '{}'\n[http]\nlisten = '127.0.0.1:0'\n{indexes}", dir.display())
}

pub(crate) fn config(dir: &Path, indexes: &str) -> Config {
    let texts = vec![TomlText::new("test", text(dir, indexes))];
    config::load_texts(texts, Environment::from_pairs([]), Flags::default()).unwrap()
}

pub(crate) struct Running {
    pub(crate) url: String,
    pub(crate) board: Board,
    stop: CancellationToken,
    task: JoinHandle<Result<RunReport, RunError>>,
    http: reqwest::Client,
}

impl Running {
    pub(crate) async fn start(config: Config, role: Role) -> Self {
        let stop = CancellationToken::new();
        let service = Service::start(config, role, &stop).await.unwrap();
        let (url, board) = (format!("http://{}", service.address()), service.board());
        let task = tokio::spawn(service.run(stop.clone()));
        Self { url, board, stop, task, http: reqwest::Client::new() }
    }

    pub(crate) async fn stop(self) -> RunReport {
        self.stop.cancel();
        self.task.await.unwrap().unwrap()
    }

    pub(crate) async fn send(&self, method: &str, path: &str, body: Option<Value>) -> (u16, Value) {
        let method = reqwest::Method::from_bytes(method.as_bytes()).unwrap();
        let mut request = self.http.request(method, format!("{}{path}", self.url));
        if let Some(body) = body {
            request = request.json(&body);
        }
        let response = request.send().await.unwrap();
        let status = response.status().as_u16();
        let text = response.text().await.unwrap();
        (status, serde_json::from_str(&text).unwrap_or(Value::String(text)))
    }

    pub(crate) async fn post(&self, path: &str, body: Value) -> Value {
        let (status, answer) = self.send("POST", path, Some(body)).await;
        assert_eq!(status, 200, "{answer}");
        answer
    }

    /// Waits until `index` is known to the query service and each of its partitions serves some snapshot.
    pub(crate) async fn ready(&self, index: &str) {
        let path = format!("/v1/indexes/{index}");
        until("the index", || async {
            let (status, answer) = self.send("GET", &path, None).await;
            let served = |p: &Value| p["status"] == "ok" && !p["manifest"].is_null();
            (status == 200 && answer["partitions"].as_array()?.iter().all(served)).then_some(())
        })
        .await;
    }

    /// Publishes and returns what a search has to wait for.
    pub(crate) async fn publish(&self, index: &str, records: Value) -> Value {
        let answer = self.post(&format!("/v1/indexes/{index}/records"), json!({"records": records})).await;
        let mut offsets = serde_json::Map::new();
        for result in answer["results"].as_array().unwrap() {
            assert!(result.get("error").is_none(), "{result}");
            let partition = result["partition"].to_string();
            let newest = offsets.get(&partition).and_then(Value::as_u64).unwrap_or(0);
            offsets.insert(partition, json!(newest.max(result["offset"].as_u64().unwrap())));
        }
        Value::Object(offsets)
    }

    /// Ids of the hits, once `offsets` are visible.
    pub(crate) async fn search(&self, index: &str, mut query: Value, offsets: &Value) -> Vec<String> {
        query["consistency"] = json!({"min_offsets": offsets, "timeout_ms": 30_000});
        query["require_complete"] = json!(true);
        let answer = self.post(&format!("/v1/indexes/{index}/search"), query).await;
        answer["hits"].as_array().unwrap().iter().map(|h| h["id"].as_str().unwrap().to_owned()).collect()
    }
}

/// Polls until `look` gives something.
pub(crate) async fn until<T, F: Future<Output = Option<T>>>(what: &str, mut look: impl FnMut() -> F) -> T {
    let since = Instant::now();
    loop {
        if let Some(found) = look().await {
            return found;
        }
        assert!(since.elapsed() < PATIENCE, "{what} did not come");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
