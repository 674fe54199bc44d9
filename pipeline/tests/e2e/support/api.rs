//! A thin client of the HTTP API: plain JSON in and out, so that the tests see what any client would.

use std::collections::BTreeMap;

use reqwest::{Client, Method};
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::fold::{State, Version};
use super::wait::eventually;

/// One index behind one process.
#[derive(Clone)]
pub(crate) struct Api {
    client: Client,
    root: String,
    base: String,
}

/// A status and a body.
#[derive(Clone, Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) body: Value,
    pub(crate) text: String,
    pub(crate) content_type: String,
}

/// Where the log has a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) partition: u32,
    pub(crate) offset: u64,
}

#[derive(Deserialize)]
struct Page {
    records: Vec<Listed>,
    cursor: Option<String>,
}

#[derive(Deserialize)]
struct Listed {
    id: String,
    partition: u32,
    offset: u64,
    metadata: Box<RawValue>,
    vector: Vec<f32>,
}

impl Api {
    pub(crate) fn new(url: &str, index: &str) -> Self {
        Self { client: Client::new(), root: url.to_owned(), base: format!("{url}/v1/indexes/{index}") }
    }

    /// Another index behind the same process.
    pub(crate) fn beside(&self, index: &str) -> Self {
        Self { client: self.client.clone(), ..Self::new(&self.root, index) }
    }

    async fn send(&self, method: Method, url: String, body: Option<String>) -> Answer {
        self.try_send(method, url.clone(), body).await.unwrap_or_else(|e| panic!("{url}: {e}"))
    }

    async fn try_send(&self, method: Method, url: String, body: Option<String>) -> reqwest::Result<Answer> {
        let mut request = self.client.request(method, &url);
        if let Some(body) = body {
            request = request.header("content-type", "application/json").body(body);
        }
        let response = request.send().await?;
        let status = response.status().as_u16();
        let content_type = response.headers().get("content-type").and_then(|v| v.to_str().ok()).unwrap_or("");
        let content_type = content_type.to_owned();
        let text = response.text().await?;
        let body = serde_json::from_str(&text).unwrap_or(Value::Null);
        Ok(Answer { status, body, text, content_type })
    }

    /// GET below the index; `path` is empty or begins with `/`.
    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.send(Method::GET, format!("{}{path}", self.base), None).await
    }

    /// GET below the server.
    pub(crate) async fn get_root(&self, path: &str) -> Answer {
        self.send(Method::GET, format!("{}{path}", self.root), None).await
    }

    pub(crate) async fn post(&self, path: &str, body: &Value) -> Answer {
        self.post_text(path, body.to_string()).await
    }

    pub(crate) async fn post_text(&self, path: &str, body: String) -> Answer {
        self.send(Method::POST, format!("{}{path}", self.base), Some(body)).await
    }

    /// Posts; the connection may fail.
    pub(crate) async fn try_post(&self, path: &str, body: &Value) -> reqwest::Result<Answer> {
        self.try_send(Method::POST, format!("{}{path}", self.base), Some(body.to_string())).await
    }

    /// PUT of the index itself.
    pub(crate) async fn create(&self, spec: &Value) -> Answer {
        self.send(Method::PUT, self.base.clone(), Some(spec.to_string())).await
    }

    pub(crate) async fn delete(&self, path: &str) -> Answer {
        self.send(Method::DELETE, format!("{}{path}", self.base), None).await
    }

    /// As [`Api::create`], of a process that may end meanwhile.
    pub(crate) async fn try_create(&self, spec: &Value) -> reqwest::Result<Answer> {
        self.try_send(Method::PUT, self.base.clone(), Some(spec.to_string())).await
    }

    /// As [`Api::delete`], of a process that may end meanwhile.
    pub(crate) async fn try_delete(&self, path: &str) -> reqwest::Result<Answer> {
        self.try_send(Method::DELETE, format!("{}{path}", self.base), None).await
    }

    /// Publishes records; every one must be acknowledged.
    pub(crate) async fn publish(&self, records: &[Value]) -> Vec<Place> {
        let answer = self.post("/records", &json!({ "records": records })).await.expect(200);
        let results = answer["results"].as_array().unwrap();
        assert_eq!(results.len(), records.len());
        results.iter().map(place).collect()
    }

    /// Deletes a record; gives the tombstone's place.
    pub(crate) async fn remove(&self, id: &str) -> Place {
        place(&self.delete(&format!("/records/{id}")).await.expect(200))
    }

    /// Searches; gives the hits.
    pub(crate) async fn search(&self, request: &Value) -> Vec<Value> {
        let answer = self.post("/search", request).await.expect(200);
        for partition in answer["partitions"].as_array().unwrap() {
            assert_eq!(partition["status"], "ok", "{answer}");
        }
        answer["hits"].as_array().unwrap().clone()
    }

    /// The ids of the hits, best first.
    pub(crate) async fn ids(&self, request: &Value) -> Vec<String> {
        let hits = self.search(request).await;
        hits.iter().map(|hit| hit["id"].as_str().unwrap().to_owned()).collect()
    }

    /// Every live record, page by page.
    pub(crate) async fn scan(&self) -> State {
        let mut state = State::new();
        let mut cursor = String::new();
        loop {
            let path = format!("/records?limit=997&include=vector{cursor}");
            let answer = self.get(&path).await;
            assert_eq!(answer.status, 200, "{}", answer.text);
            let page: Page = serde_json::from_str(&answer.text).unwrap();
            for Listed { id, partition, offset, metadata, vector } in page.records {
                let version = Version { partition, offset, metadata: metadata.get().to_owned(), vector };
                let twice = state.insert(id.clone(), version);
                assert!(twice.is_none(), "{id} is listed twice");
            }
            match page.cursor {
                Some(next) => cursor = format!("&cursor={next}"),
                None => return state,
            }
        }
    }

    /// First offset that is not visible, by partition.
    pub(crate) async fn visible(&self) -> Result<BTreeMap<u32, u64>, String> {
        let answer = self.get("").await;
        if answer.status != 200 {
            return Err(answer.text);
        }
        let partitions = answer.body["partitions"].as_array().cloned().unwrap_or_default();
        let offset =
            |p: &Value| Some((u32::try_from(p["partition"].as_u64()?).ok()?, p["visible_offset"].as_u64()));
        Ok(partitions.iter().filter_map(offset).map(|(p, o)| (p, o.unwrap_or(0))).collect())
    }

    /// Waits until everything before `ends` is visible.
    pub(crate) async fn shows(&self, ends: &BTreeMap<u32, u64>) {
        eventually("the query service shows the log's end", || async {
            let visible = self.visible().await?;
            let behind = |(p, end): (&u32, &u64)| visible.get(p).is_none_or(|v| v < end);
            let missing: Vec<_> = ends.iter().filter(|(_, end)| **end > 0).filter(|e| behind(*e)).collect();
            if missing.is_empty() { Ok(()) } else { Err(format!("visible {visible:?}, wanted {missing:?}")) }
        })
        .await;
    }

    /// Waits until `place` is visible.
    pub(crate) async fn shows_place(&self, place: Place) {
        self.shows(&[(place.partition, place.offset + 1)].into()).await;
    }
}

fn place(value: &Value) -> Place {
    let number = |key: &str| value[key].as_u64().unwrap_or_else(|| panic!("no {key} in {value}"));
    Place { partition: u32::try_from(number("partition")).unwrap(), offset: number("offset") }
}

impl Answer {
    /// The body of an answer with this status.
    pub(crate) fn expect(self, status: u16) -> Value {
        assert_eq!(self.status, status, "{}", self.text);
        self.body
    }

    /// The stable code of a problem with this status.
    pub(crate) fn problem(&self, status: u16) -> &str {
        assert_eq!(self.status, status, "{}", self.text);
        assert_eq!(self.content_type, "application/problem+json", "{}", self.text);
        assert_eq!(self.body["status"], status, "{}", self.text);
        self.body["code"].as_str().unwrap()
    }
}
