//! The local log: Kafka's semantics in one SQLite file, for one machine and any number of its processes.
//!
//! # What holds
//! - A message has the next dense offset of its partition, a key, headers, a timestamp and maybe no value.
//! - An acknowledged message survives `kill -9` and loss of power: the file is in WAL mode with
//!   `synchronous=FULL`, and [`Producer::produce`](crate::Producer::produce) returns after the commit. Requests
//!   that wait at the same time share a commit.
//! - Several processes may read and write the same directory. Readers of the writing process are told of a commit,
//!   readers of other processes see it within [`POLL`].
//! - Keys go to partitions by murmur2, as Kafka's Java client places them.
//! - The start of a partition may be raised ([`LocalLog::truncate_before`]); nothing is removed otherwise.
//! - Membership is one advisory lock per directory: whoever holds it works on every partition, the others wait.
//!
//! # Files
//! `{dir}/log.sqlite3` (with `-wal` and `-shm` beside it) and `{dir}/indexer.lock`.

mod membership;
mod reader;
mod schema;
mod writer;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use async_trait::async_trait;
use rusqlite::Connection;
use sluice_core::{Offset, TopicName, TopicPartition};
use tokio::sync::{oneshot, watch};

use crate::error::LogError;
use crate::log::Log;
use crate::source::{BatchStream, LogBounds, Outgoing, Placed, Producer, ReadRequest, Source};

use membership::LocalMembership;
use schema::Catalogue;
use writer::{Request, Writer};

/// How often a process looks for commits of others.
pub const POLL: Duration = Duration::from_millis(25);

/// A local log that is open.
pub struct LocalLog {
    file: PathBuf,
    dir: PathBuf,
    writer: Writer,
    /// For short questions; streams have connections of their own.
    queries: Arc<Mutex<Connection>>,
    changes: Arc<watch::Sender<u64>>,
    streams: reader::Streams,
}

impl LocalLog {
    /// Opens the log in `dir`, creating both where they are absent.
    ///
    /// # Errors
    /// `Corrupt` when the file is not a local log of a known version; `Unavailable` when it cannot be opened.
    pub async fn open(dir: &Path) -> Result<Self, LogError> {
        let dir = dir.to_owned();
        run_blocking(move || {
            std::fs::create_dir_all(&dir)
                .map_err(|e| LogError::Unavailable(format!("cannot create {}: {e}", dir.display())))?;
            let file = dir.join("log.sqlite3");
            let connection = schema::create(&file)?;
            let queries = Arc::new(Mutex::new(schema::open(&file)?));
            let changes = Arc::new(watch::channel(0).0);
            watch_file(schema::open(&file)?, Arc::downgrade(&changes))?;
            let writer = Writer::start(connection, Arc::clone(&changes))?;
            Ok(Self { file, dir, writer, queries, changes, streams: reader::Streams::default() })
        })
        .await
    }

    /// Its faces.
    pub fn faces(self: Arc<Self>) -> Log {
        let membership = LocalMembership::new(Arc::clone(&self));
        Log { source: Arc::clone(&self) as _, producer: self as _, membership: Arc::new(membership) }
    }

    /// Removes what `at` holds before `offset`, as retention would: its start is `offset` from then on, but never
    /// beyond its end. Returns the start.
    ///
    /// # Errors
    /// When there is no such partition, or the file cannot be written.
    pub async fn truncate_before(&self, at: &TopicPartition, offset: Offset) -> Result<Offset, LogError> {
        let at = at.clone();
        self.request(|reply| Request::Truncate { at, offset, reply }).await?
    }

    async fn request<T>(&self, make: impl FnOnce(oneshot::Sender<T>) -> Request) -> Result<T, LogError> {
        let (reply, answer) = oneshot::channel();
        self.writer.send(make(reply)).await?;
        answer.await.map_err(|_| LogError::Closed("the local log"))
    }

    async fn query<T: Send + 'static>(
        &self,
        ask: impl FnOnce(&Connection) -> Result<T, LogError> + Send + 'static,
    ) -> Result<T, LogError> {
        let queries = Arc::clone(&self.queries);
        // a query leaves no state in the connection that a panic could break
        run_blocking(move || ask(&queries.lock().unwrap_or_else(PoisonError::into_inner))).await
    }
}

#[async_trait]
impl Source for LocalLog {
    async fn partitions(&self, topic: &TopicName) -> Result<Option<u32>, LogError> {
        let topic = topic.clone();
        self.query(move |connection| Catalogue::partitions(connection, &topic)).await
    }

    async fn bounds(&self, at: &TopicPartition) -> Result<LogBounds, LogError> {
        let at = at.clone();
        self.query(move |connection| {
            let slot = Catalogue::slot(connection, &at)?;
            Catalogue::bounds(connection, slot)
        })
        .await
    }

    fn open(&self, request: ReadRequest) -> Result<BatchStream, LogError> {
        reader::open(self.file.clone(), request, self.changes.subscribe(), &self.streams)
    }
}

#[async_trait]
impl Producer for LocalLog {
    async fn produce(&self, topic: &TopicName, messages: Vec<Outgoing>) -> Vec<Result<Placed, LogError>> {
        let count = messages.len();
        if count == 0 {
            return Vec::new();
        }
        let request = self.request(|reply| Request::Append { topic: topic.clone(), messages, reply });
        let results = match request.await.and_then(|result| result) {
            Ok(results) => results,
            Err(error) => vec![Err(error); count],
        };
        let ok = results.iter().filter(|r| r.is_ok()).count();
        crate::metrics::produced(topic.as_str(), ok as u64, (count - ok) as u64);
        results
    }

    async fn ensure_topic(&self, topic: &TopicName, partitions: u32) -> Result<u32, LogError> {
        // the common case needs no write
        if let Some(actual) = self.partitions(topic).await? {
            return Ok(actual);
        }
        let topic = topic.clone();
        self.request(|reply| Request::EnsureTopic { topic, partitions, reply }).await?
    }
}

/// Runs file work on the blocking pool.
async fn run_blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, LogError> + Send + 'static,
) -> Result<T, LogError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
        Err(_) => Err(LogError::Closed("the runtime")),
    }
}

/// Starts the thread that looks for commits of other processes; it ends with the log.
fn watch_file(connection: Connection, changes: Weak<watch::Sender<u64>>) -> Result<(), LogError> {
    let watch = move || {
        let mut last = None;
        loop {
            std::thread::sleep(POLL);
            let Some(changes) = changes.upgrade() else { return };
            // a failed look is made good by the next one
            let version =
                connection.pragma_query_value(None, "data_version", |row| row.get::<_, i64>(0)).ok();
            if version.is_some() && version != last {
                last = version;
                changes.send_modify(|n| *n = n.wrapping_add(1));
            }
        }
    };
    spawn_thread("local-log-watch", watch)
}

fn spawn_thread(name: &str, run: impl FnOnce() + Send + 'static) -> Result<(), LogError> {
    let spawned = std::thread::Builder::new().name(name.to_owned()).spawn(run);
    spawned.map(|_| ()).map_err(|e| LogError::Unavailable(format!("cannot start a thread: {e}")))
}
