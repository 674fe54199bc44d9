//! How the driver of `bench segment` speaks with each system, ours as well as the peers: every one is a process of its
//! own that reads a request a line and answers each with a line, both JSON. So no system's memory or threads touch
//! another's, and the driver alone decides who runs when.
//!
//! An answer is `{"error": ".."}` when the system cannot do what was asked.

use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use anyhow::{Context, Result, anyhow, bail};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sluice_core::Metric;

use crate::clock::Clock;

/// What a system is asked to do.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "snake_case")]
pub(crate) enum Request {
    /// First of all. Answered with [`Opened`].
    Open(Open),
    /// Loads the vectors, builds an index of them with so many threads, and frees them. Answered with [`Built`].
    Build { threads: usize },
    /// All queries once with so many threads. Answered with [`Found`].
    Search { ef: usize, threads: usize },
    /// All queries one after another on one thread. Answered with [`Times`].
    Single { ef: usize },
}

/// The task.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Open {
    pub(crate) vectors: PathBuf,
    /// Use so many of them.
    pub(crate) rows: usize,
    pub(crate) queries: PathBuf,
    pub(crate) max_queries: usize,
    pub(crate) metric: Metric,
    /// Hits of a query.
    pub(crate) k: usize,
    pub(crate) m: u32,
    pub(crate) ef_construction: u32,
    pub(crate) seed: u64,
    /// What times are told by, as far as one thread does the work.
    pub(crate) clock: Clock,
    /// Processors to be pinned to: the first for one thread, the first two for two, ..
    pub(crate) cpus: Vec<usize>,
    /// Where files are made.
    pub(crate) work_dir: PathBuf,
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Opened {
    pub(crate) version: String,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Built {
    /// To build the index in memory.
    pub(crate) seconds: f64,
    /// By the wall, until a whole file is written and synced, where the system does that in one go.
    #[serde(default)]
    pub(crate) file_seconds: Option<f64>,
    /// Most memory at once, beyond the vectors that went in: growth of the process while building.
    pub(crate) peak_bytes: u64,
    /// The same as the allocator counts it, where it can.
    #[serde(default)]
    pub(crate) peak_allocated_bytes: Option<u64>,
    /// What searches need in memory.
    pub(crate) ram_bytes: u64,
    /// The saved index.
    pub(crate) disk_bytes: u64,
    /// Mean number of links of a row on level 0, where that is known.
    pub(crate) degree: Option<f64>,
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Found {
    pub(crate) seconds: f64,
    /// By query; what is no row number stands for nothing.
    pub(crate) rows: Vec<Vec<i64>>,
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Times {
    pub(crate) seconds: Vec<f64>,
}

/// A system that runs.
pub(crate) struct System {
    pub(crate) name: String,
    pub(crate) version: String,
    child: Child,
    requests: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
    /// What it prints on standard error: its last line says why it ended.
    complaints: PathBuf,
}

impl System {
    /// Starts a system and gives it its task.
    pub(crate) fn start(name: &str, mut command: Command, task: &Open) -> Result<Self> {
        let complaints = task.work_dir.join(format!("{name}.log"));
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(File::create(&complaints)?)
            .spawn()
            .with_context(|| format!("starting {}", command.get_program().display()))?;
        let requests = child.stdin.take();
        let answers = BufReader::new(child.stdout.take().context("the output is piped")?);
        let mut system =
            Self { name: name.to_owned(), version: String::new(), child, requests, answers, complaints };
        system.version = system.ask::<Opened>(&Request::Open(task.clone()))?.version;
        Ok(system)
    }

    /// Asks, and waits for the answer.
    pub(crate) fn ask<T: DeserializeOwned>(&mut self, request: &Request) -> Result<T> {
        let mut line = serde_json::to_string(request)?;
        line.push('\n');
        let requests = self.requests.as_mut().context("requests go out")?;
        // when the other side is gone, reading says so
        let sent = requests.write_all(line.as_bytes()).and_then(|()| requests.flush());
        let mut answer = String::new();
        if sent.is_err() || self.answers.read_line(&mut answer)? == 0 {
            bail!(self.end());
        }
        let answer: Value = serde_json::from_str(&answer).context("an answer is JSON")?;
        if let Some(error) = answer.get("error") {
            bail!("{}", error.as_str().unwrap_or("an error without words"));
        }
        Ok(serde_json::from_value(answer)?)
    }

    fn end(&mut self) -> anyhow::Error {
        self.requests = None;
        let status = self.child.wait().map_or_else(|e| e.to_string(), |status| status.to_string());
        match last_line(&self.complaints) {
            Some(line) => anyhow!("ended ({status}): {line}"),
            None => anyhow!("ended ({status})"),
        }
    }
}

impl Drop for System {
    fn drop(&mut self) {
        // it ends when there is nothing more to read; whatever it says by then is of no use
        self.requests = None;
        self.child.wait().ok();
    }
}

fn last_line(file: &Path) -> Option<String> {
    let text = std::fs::read(file).ok()?;
    let text = String::from_utf8_lossy(&text);
    text.lines().rev().find(|line| !line.trim().is_empty()).map(str::to_owned)
}
