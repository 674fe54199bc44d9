//! Searches over HTTP, by several clients at once.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use reqwest::{Client, Url};
use serde::Deserialize;

/// A service and an index of it.
#[derive(Clone)]
pub(crate) struct Target {
    client: Client,
    base: Url,
    search: Url,
}

#[derive(Deserialize)]
struct Answer {
    hits: Vec<Hit>,
}

#[derive(Deserialize)]
struct Hit {
    id: String,
}

/// What one round of queries gave.
pub(crate) struct Round {
    pub(crate) seconds: f64,
    pub(crate) times: Vec<Duration>,
    /// The ids of the hits, by query.
    pub(crate) ids: Vec<Vec<String>>,
}

impl Target {
    pub(crate) fn new(base: &str, index: &str) -> Result<Self> {
        let base = Url::parse(base).context("the address of the service")?;
        let search = base.join(&format!("/v1/indexes/{index}/search"))?;
        Ok(Self { client: Client::new(), base, search })
    }

    /// Waits until the service has loaded every partition up to `next`.
    pub(crate) async fn visible(&self, index: &str, next: u64) -> Result<()> {
        let url = self.base.join(&format!("/v1/indexes/{index}"))?;
        loop {
            let response = self.client.get(url.clone()).send().await?;
            if response.status().is_success() {
                let status: serde_json::Value = response.json().await?;
                let partitions = status["partitions"].as_array().context("an index has partitions")?;
                if partitions.iter().all(|p| p["next_offset"].as_u64().is_some_and(|o| o >= next)) {
                    return Ok(());
                }
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Sends every body once, `clients` at a time.
    pub(crate) async fn round(&self, bodies: &Arc<Vec<String>>, clients: usize) -> Result<Round> {
        let next = Arc::new(AtomicUsize::new(0));
        let since = Instant::now();
        let mut tasks = tokio::task::JoinSet::new();
        for _ in 0..clients.max(1) {
            let (target, bodies, next) = (self.clone(), Arc::clone(bodies), Arc::clone(&next));
            tasks.spawn(async move { target.client_loop(&bodies, &next).await });
        }
        let mut all = Vec::with_capacity(bodies.len());
        while let Some(done) = tasks.join_next().await {
            all.extend(done??);
        }
        let seconds = since.elapsed().as_secs_f64();
        all.sort_unstable_by_key(|(at, ..)| *at);
        let (times, ids) = all.into_iter().map(|(_, time, ids)| (time, ids)).unzip();
        Ok(Round { seconds, times, ids })
    }

    async fn client_loop(
        &self,
        bodies: &[String],
        next: &AtomicUsize,
    ) -> Result<Vec<(usize, Duration, Vec<String>)>> {
        let mut done = Vec::new();
        while let Some((at, body)) = claim(bodies, next) {
            let since = Instant::now();
            let request = self.client.post(self.search.clone()).header("content-type", "application/json");
            let response = request.body(body.clone()).send().await?;
            if !response.status().is_success() {
                bail!("search answered {}: {}", response.status(), response.text().await?);
            }
            let answer = response.bytes().await?;
            let time = since.elapsed();
            let answer: Answer = serde_json::from_slice(&answer)?;
            done.push((at, time, answer.hits.into_iter().map(|hit| hit.id).collect()));
        }
        Ok(done)
    }
}

fn claim<'a>(bodies: &'a [String], next: &AtomicUsize) -> Option<(usize, &'a String)> {
    let at = next.fetch_add(1, Ordering::Relaxed);
    bodies.get(at).map(|body| (at, body))
}
