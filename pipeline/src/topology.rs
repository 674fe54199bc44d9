//! Construct, connect, spawn, shut down: the one place where every crate meets.
//!
//! [`Service::start`] constructs and connects: after it, the configuration is accepted, the log and the store are
//! opened, the address is bound. [`Service::run`] spawns and waits. On stop the sources end first, workers publish
//! what they hold, requests are answered; at the deadline whoever still runs is named in the report.

use std::net::SocketAddr;
use std::sync::Arc;

use metrics_exporter_prometheus::PrometheusHandle;
use sluice_connectors::{Log, LogError};
use sluice_core::{ByteBudget, Clock, ErrorKind, Gate, SystemClock};
use sluice_indexer::{BuildBudget, ComputePool, PoolError};
use sluice_query_svc::{Limits, LoaderOptions, QueryParams, QueryService, ServiceError};
use sluice_snapshotter::{CacheError, Registry, SegmentCache, Store, StoreError};
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::{error, info};

use crate::config::{Config, ConfigError};
use crate::index::{self, Board, EnsureError, IndexParts};
use crate::io_kind::io_kind;
use crate::patience::Patience;
use crate::wake::Wake;
use crate::{metrics, ops, telemetry};

/// What a process does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Reads the log, publishes snapshots.
    Index,
    /// Loads snapshots, answers queries.
    Serve,
    /// Both.
    Up,
}

impl Role {
    fn indexes(self) -> bool {
        matches!(self, Self::Index | Self::Up)
    }

    fn serves(self) -> bool {
        matches!(self, Self::Serve | Self::Up)
    }
}

/// How a process ended that was told to stop.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize)]
pub struct RunReport {
    /// Who had not stopped at the deadline.
    pub hung: Vec<String>,
}

/// Why a process did not start, or ended before it was told to.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    #[error("{0}")]
    Config(#[from] ConfigError),
    #[error("the log: {0}")]
    Log(#[from] LogError),
    #[error("the store: {0}")]
    Store(#[from] StoreError),
    #[error("the segment cache: {0}")]
    Cache(#[from] CacheError),
    #[error("http.listen {address}: {source}; is another sluice running? Give another --listen")]
    Listen { address: SocketAddr, source: std::io::Error },
    #[error("{path}: {source}")]
    Directory { path: String, source: std::io::Error },
    #[error("there is no store in {0}: give --data-dir, or a configuration with store.url")]
    NoStore(String),
    #[error("{0}")]
    Index(#[from] EnsureError),
    #[error("{0}")]
    Pool(#[from] PoolError),
    #[error("{0}")]
    Query(#[from] ServiceError),
    #[error("the http server: {0}")]
    Http(std::io::Error),
    #[error("metrics: {0}")]
    Metrics(#[from] metrics_exporter_prometheus::BuildError),
    #[error("task {0} ended by a bug: {1}")]
    Bug(&'static str, String),
    #[error("stopped before it was up")]
    Stopped,
}

impl RunError {
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Config(e) => e.kind(),
            Self::Log(e) => e.kind(),
            Self::Store(e) => e.kind(),
            Self::Cache(e) => e.kind(),
            Self::Index(e) => e.kind(),
            Self::Pool(e) => e.kind(),
            Self::Query(e) => e.kind(),
            Self::Listen { source, .. } | Self::Directory { source, .. } => io_kind(source),
            Self::Http(_) => ErrorKind::Unavailable,
            Self::NoStore(_) => ErrorKind::NotFound,
            Self::Metrics(_) | Self::Bug(..) => ErrorKind::Internal,
            Self::Stopped => ErrorKind::Closed,
        }
    }
}

/// The faces of what a process stands on, for commands that need no service.
pub struct Edges {
    pub log: Log,
    pub store: Store,
    pub registry: Registry,
    pub clock: Arc<dyn Clock>,
}

/// Opens the store of `config`; the default directory is made.
///
/// # Errors
/// When the configuration is refused, or the directory cannot be made.
pub fn open_store(config: &Config) -> Result<Store, RunError> {
    if config.store.url.is_empty() {
        make_directory(&config.data_dir.join("store"))?;
    }
    Ok(Store::open(&config.store_config()?)?)
}

/// As [`open_store`], for who only looks at a store or clears it up: one that is not there yet is no empty store.
///
/// # Errors
/// When the store cannot be opened, or is a directory that does not exist.
pub fn open_existing_store(config: &Config) -> Result<Store, RunError> {
    let directory = config.data_dir.join("store");
    if config.store.url.is_empty() && !directory.is_dir() {
        return Err(RunError::NoStore(directory.display().to_string()));
    }
    open_store(config)
}

impl Edges {
    /// # Errors
    /// When the log or the store cannot be opened.
    pub async fn open(config: &Config) -> Result<Self, RunError> {
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let store = open_store(config)?;
        let registry = Registry::new(store.clone(), Arc::clone(&clock));
        let log = Log::open(&config.log_config()).await?;
        Ok(Self { log, store, registry, clock })
    }
}

fn make_directory(path: &std::path::Path) -> Result<(), RunError> {
    std::fs::create_dir_all(path)
        .map_err(|source| RunError::Directory { path: path.display().to_string(), source })
}

fn bytes(size: bytesize::ByteSize) -> usize {
    usize::try_from(size.as_u64()).unwrap_or(usize::MAX)
}

/// A process that is connected and not yet at work.
pub struct Service {
    config: Arc<Config>,
    role: Role,
    edges: Edges,
    cache: SegmentCache,
    board: Board,
    listener: TcpListener,
    address: SocketAddr,
    query: Option<QueryService>,
    wake: Wake,
    metrics: PrometheusHandle,
}

impl Service {
    /// Constructs and connects. A store that is away is waited for, until `stop`.
    ///
    /// # Errors
    /// When the configuration, the log, the store or the address is refused.
    pub async fn start(config: Config, role: Role, stop: &CancellationToken) -> Result<Self, RunError> {
        let config = Arc::new(config);
        let metrics = telemetry::recorder()?;
        let address = config.http.listen;
        let listener =
            TcpListener::bind(address).await.map_err(|source| RunError::Listen { address, source })?;
        let address = listener.local_addr().map_err(RunError::Http)?;
        make_directory(&config.data_dir)?;
        let edges = Edges::open(&config).await?;
        if role.indexes() {
            probe(&edges.store, stop).await?;
            make_directory(&config.scratch_dir())?;
        }
        let cache =
            SegmentCache::open(&config.cache_dir(), config.cache.max_bytes.as_u64(), edges.store.clone())?;
        let query = role.serves().then(|| query_service(&config, &edges, &cache, &metrics)).transpose()?;
        let board = Board::default();
        let query = match (query, role) {
            (Some(query), Role::Up) => {
                query.catalogue().expect(config.indexes.iter().map(|spec| spec.name.clone()));
                Some(query.with_routes(ops::status_route(board.clone())))
            }
            (query, _) => query,
        };
        let wake = query.as_ref().map_or_else(Wake::default, |q| Wake::new(q.catalogue()));
        Ok(Self { config, role, edges, cache, board, listener, address, query, wake, metrics })
    }

    /// The address that is bound, with the port that was found when 0 was asked for.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What the ingest role says about itself.
    pub fn board(&self) -> Board {
        self.board.clone()
    }

    /// Spawns everything and waits for `stop`, or for the first task that fails.
    ///
    /// # Errors
    /// The failure of that task; everything else is stopped first.
    pub async fn run(self, stop: CancellationToken) -> Result<RunReport, RunError> {
        let deadline = self.config.shutdown.deadline;
        let gate = Gate::new();
        let (role, address) = (self.role, self.address);
        info!(?role, %address, version = env!("CARGO_PKG_VERSION"), "sluice is up");
        let inner = stop.child_token();
        let mut tasks = self.spawn(&gate, &inner)?;
        let first = tokio::select! {
            biased;
            () = stop.cancelled() => None,
            Some(ended) = tasks.join_next() => failure(ended),
        };
        info!("stopping");
        inner.cancel();
        let hung = gate.close(deadline).await.err().unwrap_or_default();
        let mut failed = first;
        while let Some(ended) = tasks.try_join_next() {
            failed = failed.or(failure(ended));
        }
        match failed {
            Some(e) => Err(e),
            None => {
                if !hung.is_empty() {
                    error!(hung = hung.join(", "), "not stopped at the deadline");
                }
                Ok(RunReport { hung })
            }
        }
    }

    fn spawn(self, gate: &Gate, stop: &CancellationToken) -> Result<JoinSet<Ended>, RunError> {
        let mut tasks = JoinSet::new();
        let shares = self.config.limits.memory_shares();
        let (ingest, build) = (ByteBudget::new(shares.ingest), BuildBudget::new(shares.build));
        let gauges = {
            let (ingest, build) = (ingest.clone(), build.clone());
            move || {
                metrics::memory("ingest", ingest.used_bytes(), shares.ingest);
                metrics::memory("build", build.used_bytes(), shares.build);
            }
        };
        tokio::spawn(telemetry::upkeep(self.metrics.clone(), gauges, stop.clone()));
        if self.role.indexes() {
            let threads = match self.config.limits.build_threads {
                0 => std::thread::available_parallelism().map_or(1, usize::from),
                threads => threads,
            };
            let parts = IndexParts {
                config: Arc::clone(&self.config),
                clock: Arc::clone(&self.edges.clock),
                log: self.edges.log.clone(),
                store: self.edges.store.clone(),
                registry: self.edges.registry.clone(),
                cache: self.cache.clone(),
                pool: ComputePool::new(threads)?,
                build_budget: build,
                ingest_budget: ingest,
                gate: gate.clone(),
                board: self.board.clone(),
                wake: self.wake,
            };
            let (inside, stop) = (gate.enter("indexer"), stop.clone());
            tasks.spawn(async move {
                let _inside = inside;
                ("indexer", index::run(parts, stop).await)
            });
        }
        let (inside, stop, listener) = (gate.enter("http"), stop.clone(), self.listener);
        match self.query {
            Some(query) => tasks.spawn(async move {
                let _inside = inside;
                ("http", query.run(listener, stop).await.map_err(RunError::from))
            }),
            None => {
                let (router, limits) = (ops::router(self.board, self.metrics), query_limits(&self.config));
                tasks.spawn(async move {
                    let _inside = inside;
                    match sluice_query_svc::serve(listener, router, &limits, stop).await {
                        0 => ("http", Ok(())),
                        connections => ("http", Err(ServiceError::Hung { connections }.into())),
                    }
                })
            }
        };
        Ok(tasks)
    }
}

/// A task by its name, and how it ended.
type Ended = (&'static str, Result<(), RunError>);

fn failure(ended: Result<Ended, tokio::task::JoinError>) -> Option<RunError> {
    match ended {
        Ok((_, Ok(()))) => None,
        Ok((task, Err(error))) => {
            error!(task, %error, "task failed");
            Some(error)
        }
        Err(error) => Some(RunError::Bug("of the process", error.to_string())),
    }
}

/// Refuses a store that cannot carry the protocol; waits for one that does not answer.
async fn probe(store: &Store, stop: &CancellationToken) -> Result<(), RunError> {
    let mut patience = Patience::new("the store does not answer, will retry");
    loop {
        let probed = tokio::select! {
            biased;
            () = stop.cancelled() => return Err(RunError::Stopped),
            probed = store.probe() => probed,
        };
        match probed {
            Ok(()) => return Ok(()),
            Err(e) if e.kind() == ErrorKind::Unavailable => {
                if !patience.pause(&e, stop).await {
                    return Err(RunError::Stopped);
                }
            }
            Err(e) => return Err(e.into()),
        }
    }
}

fn query_service(
    config: &Config,
    edges: &Edges,
    cache: &SegmentCache,
    metrics: &PrometheusHandle,
) -> Result<QueryService, RunError> {
    let defaults = LoaderOptions::default();
    let loader = LoaderOptions {
        poll_interval: config.serve.poll_interval,
        discovery_interval: config.serve.discovery_interval,
        parallel: config.serve.parallel_loads,
        ..defaults
    };
    Ok(QueryService::new(QueryParams {
        registry: edges.registry.clone(),
        store: edges.store.clone(),
        cache: cache.clone(),
        log: Some(edges.log.clone()),
        limits: query_limits(config),
        loader,
        clock: Arc::clone(&edges.clock),
        metrics: metrics.clone(),
    })?)
}

fn query_limits(config: &Config) -> Limits {
    let limits = &config.limits;
    let defaults = Limits::default();
    Limits {
        max_body_bytes: bytes(limits.max_request_bytes),
        max_bodies_bytes: defaults.max_bodies_bytes.max(bytes(limits.max_request_bytes)),
        max_answer_bytes: bytes(limits.max_answer_bytes),
        max_metadata_bytes: bytes(limits.max_metadata_bytes),
        max_message_bytes: bytes(limits.max_message_bytes),
        max_k: limits.max_k,
        max_ef: limits.max_ef,
        max_batch: limits.max_batch_searches,
        max_publish: limits.max_publish_records,
        max_list: limits.max_list_records,
        search_threads: limits.search_threads,
        max_concurrent_queries: limits.max_concurrent_searches,
        max_queued_queries: limits.max_queued_searches,
        query_deadline: limits.query_deadline,
        max_consistency_wait: limits.max_consistency_wait,
        publish_timeout: limits.publish_timeout,
        max_connections: limits.max_connections,
        shutdown_timeout: config.shutdown.deadline.mul_f64(0.5),
        ..defaults
    }
}

/// Starts and runs a process: [`Service::start`], then [`Service::run`].
///
/// # Errors
/// As both.
pub async fn run(config: Config, role: Role, stop: CancellationToken) -> Result<RunReport, RunError> {
    let service = match Service::start(config, role, &stop).await {
        Err(RunError::Stopped) => return Ok(RunReport::default()),
        started => started?,
    };
    service.run(stop).await
}
