//! Every bound of the service in one place, with its default.

use std::time::Duration;

/// Bounds on requests and on what they may hold while they run.
#[derive(Debug, Clone, PartialEq)]
pub struct Limits {
    /// Largest request body, in bytes.
    pub max_body_bytes: usize,
    /// Request bodies held at once, in bytes; what comes beyond is refused with 503.
    pub max_bodies_bytes: usize,
    /// Answers that clients have not taken yet, in bytes; what comes beyond is replaced by 503.
    pub max_answers_bytes: usize,
    /// Largest answer built from records (hits of a search or batch, a listing's page), in bytes of their JSON,
    /// about.
    pub max_answer_bytes: usize,
    /// Largest metadata of a published record, in bytes.
    pub max_metadata_bytes: usize,
    /// Largest encoded record, in bytes: what the log takes.
    pub max_message_bytes: usize,
    /// Most hits of a search.
    pub max_k: usize,
    /// Largest `ef` of a search.
    pub max_ef: usize,
    /// Most searches of a batch.
    pub max_batch: usize,
    /// Most records of a publish request.
    pub max_publish: usize,
    /// Most records of a listing's page.
    pub max_list: usize,
    /// Threads that search; 0 for one per core.
    pub search_threads: usize,
    /// Queries that run at once; each holds a few jobs of the search threads.
    pub max_concurrent_queries: usize,
    /// Queries that wait for one of those places; one more is refused with 503.
    pub max_queued_queries: usize,
    /// A query that ran longer is cut off, its missing partitions named.
    pub query_deadline: Duration,
    /// Longest wait for `min_offsets`.
    pub max_consistency_wait: Duration,
    /// Longest wait for the log to acknowledge what was published.
    pub publish_timeout: Duration,
    /// Views kept for listings that go on over several requests.
    pub max_pinned_views: usize,
    /// A listing that is not continued for so long has expired.
    pub pinned_view_ttl: Duration,
    /// Connections served at once.
    pub max_connections: usize,
    /// Longest wait for a request's head, which is also how long an idle connection is kept.
    pub header_timeout: Duration,
    /// Longest wait for a whole request body.
    pub body_timeout: Duration,
    /// Longest standstill of a client that does not read its answer.
    pub write_timeout: Duration,
    /// Largest request head, in bytes.
    pub max_header_bytes: usize,
    /// How long running requests may go on after a stop.
    pub shutdown_timeout: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_body_bytes: 1 << 20,
            max_bodies_bytes: 64 << 20,
            max_answers_bytes: 256 << 20,
            max_answer_bytes: 64 << 20,
            max_metadata_bytes: 64 << 10,
            max_message_bytes: 1_000_000,
            max_k: 10_000,
            max_ef: 10_000,
            max_batch: 256,
            max_publish: 1000,
            max_list: 10_000,
            search_threads: 0,
            max_concurrent_queries: 32,
            max_queued_queries: 256,
            query_deadline: Duration::from_secs(10),
            max_consistency_wait: Duration::from_secs(30),
            publish_timeout: Duration::from_secs(30),
            max_pinned_views: 16,
            pinned_view_ttl: Duration::from_secs(60),
            max_connections: 1024,
            header_timeout: Duration::from_secs(15),
            body_timeout: Duration::from_secs(30),
            write_timeout: Duration::from_secs(30),
            max_header_bytes: 16 << 10,
            shutdown_timeout: Duration::from_secs(10),
        }
    }
}

/// How snapshots and indexes are looked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoaderOptions {
    /// Pause between two looks for a partition's newer manifest.
    pub poll_interval: Duration,
    /// Pause between two looks for new and retired indexes.
    pub discovery_interval: Duration,
    /// Longest pause after failed looks.
    pub max_backoff: Duration,
    /// Snapshots that are fetched and opened at once.
    pub parallel: usize,
}

impl Default for LoaderOptions {
    fn default() -> Self {
        Self {
            poll_interval: Duration::from_millis(500),
            discovery_interval: Duration::from_secs(2),
            max_backoff: Duration::from_secs(5),
            parallel: 4,
        }
    }
}
