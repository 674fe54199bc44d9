//! The service as one value: made from its parts, run until stopped.

use std::io;
use std::sync::Arc;

use axum::Router;
use metrics_exporter_prometheus::PrometheusHandle;
use sluice_connectors::Log;
use sluice_core::{ByteBudget, Clock, ErrorKind};
use sluice_snapshotter::{Registry, SegmentCache, Store};
use thiserror::Error;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use crate::catalogue::Catalogue;
use crate::fan_out::FanOut;
use crate::http::{self, App};
use crate::lag::LagMeter;
use crate::limits::{Limits, LoaderOptions};
use crate::loader::{Discovery, Supplies};
use crate::metrics;
use crate::pins::Pins;

/// What the service is made of.
pub struct QueryParams {
    pub registry: Registry,
    pub store: Store,
    pub cache: SegmentCache,
    /// Where records are published and lag is measured; without it searches go on and writes are 503.
    pub log: Option<Log>,
    pub limits: Limits,
    pub loader: LoaderOptions,
    pub clock: Arc<dyn Clock>,
    /// What `/metrics` renders.
    pub metrics: PrometheusHandle,
}

/// Why the service did not start.
#[derive(Debug, Error)]
pub enum ServiceError {
    #[error("the search threads could not be started: {0}")]
    Threads(#[from] rayon::ThreadPoolBuildError),
    #[error("the listener is not usable: {0}")]
    Listener(#[from] io::Error),
    /// The deadline came first.
    #[error("{connections} connections were still busy at the end of the shutdown time")]
    Hung { connections: usize },
}

impl ServiceError {
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Threads(_) | Self::Hung { .. } => ErrorKind::Internal,
            Self::Listener(_) => ErrorKind::Unavailable,
        }
    }
}

/// The query service: loaders, search threads, HTTP.
pub struct QueryService {
    app: Arc<App>,
    discovery: Discovery,
    beside: Router,
}

impl QueryService {
    /// Puts the service together; nothing runs yet.
    ///
    /// # Errors
    /// When the search threads cannot be started.
    pub fn new(params: QueryParams) -> Result<Self, ServiceError> {
        metrics::describe();
        let QueryParams { registry, store, cache, log, limits, loader, clock, metrics } = params;
        let catalogue = Arc::new(Catalogue::default());
        let loading = Semaphore::new(loader.parallel.max(1));
        let supplies = Supplies { store, cache, clock: Arc::clone(&clock), options: loader, loading };
        let discovery = Discovery::new(Arc::clone(&catalogue), registry.clone(), Arc::new(supplies));
        let source = log.as_ref().map(|log| Arc::clone(&log.source));
        let app = App {
            catalogue,
            registry,
            log,
            fan_out: FanOut::new(&limits)?,
            pins: Pins::new(limits.max_pinned_views, limits.pinned_view_ttl),
            lag: LagMeter::new(source, Arc::clone(&clock)),
            bodies: ByteBudget::new(limits.max_bodies_bytes),
            answers: ByteBudget::new(limits.max_answers_bytes),
            limits,
            clock,
            metrics,
        };
        Ok(Self { app: Arc::new(app), discovery, beside: Router::new() })
    }

    /// Serves `routes` beside the API: what else this process has to say about itself.
    #[must_use]
    pub fn with_routes(mut self, routes: Router) -> Self {
        self.beside = self.beside.merge(routes);
        self
    }

    /// What is served; an indexer in this process tells it about its manifests by [`Catalogue::published`].
    pub fn catalogue(&self) -> Arc<Catalogue> {
        Arc::clone(&self.app.catalogue)
    }

    /// Serves on `listener` until `stop` fires, then lets running requests end, for a bounded time.
    ///
    /// # Errors
    /// When the listener is unusable, or requests were still running at the end of that time.
    pub async fn run(self, listener: TcpListener, stop: CancellationToken) -> Result<(), ServiceError> {
        let address = listener.local_addr()?;
        tracing::info!(%address, "serving http");
        let Self { app, discovery, beside } = self;
        // loaders go on while requests are drained: they may wait for an offset
        let background = CancellationToken::new();
        let guard = background.clone().drop_guard();
        let discovery = tokio::spawn(discovery.run(background.clone()));
        let janitor = tokio::spawn(janitor(Arc::clone(&app), background.clone()));
        let limits = app.limits.clone();
        let cut = http::serve(listener, http::router(app, beside), &limits, stop).await;
        drop(guard);
        for task in [discovery, janitor] {
            if let Err(error) = task.await {
                tracing::error!(%error, "a background task of the query service ended early");
            }
        }
        if cut == 0 { Ok(()) } else { Err(ServiceError::Hung { connections: cut }) }
    }
}

/// Lets go of views that no listing came back for.
async fn janitor(app: Arc<App>, stop: CancellationToken) {
    let every = (app.limits.pinned_view_ttl / 4).max(std::time::Duration::from_millis(100));
    loop {
        tokio::select! {
            biased;
            () = stop.cancelled() => return,
            () = tokio::time::sleep(every) => app.pins.purge(tokio::time::Instant::now()),
        }
    }
}

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use axum::http::{Method, Request, StatusCode};
    use metrics_exporter_prometheus::PrometheusBuilder;
    use sluice_core::SystemClock;
    use tower::ServiceExt;

    use super::*;

    #[tokio::test]
    async fn before_the_registry_was_read_no_index_is_called_unknown() {
        let dir = tempfile::tempdir().unwrap();
        let (store, clock) = (Store::in_memory(), Arc::new(SystemClock));
        // nothing runs, so the registry is never read
        let service = QueryService::new(QueryParams {
            registry: Registry::new(store.clone(), clock.clone()),
            cache: SegmentCache::open(dir.path(), 1 << 20, store.clone()).unwrap(),
            store,
            log: None,
            limits: Limits::default(),
            loader: LoaderOptions::default(),
            clock,
            metrics: PrometheusBuilder::new().build_recorder().handle(),
        });
        let router = http::router(service.unwrap().app, Router::new());
        let search = Body::from(r#"{"vector":[0,0]}"#);
        for (method, path, body) in [
            (Method::GET, "/v1/indexes", Body::empty()),
            (Method::GET, "/v1/indexes/a", Body::empty()),
            (Method::GET, "/v1/indexes/a/records", Body::empty()),
            (Method::GET, "/v1/indexes/a/records/x", Body::empty()),
            (Method::DELETE, "/v1/indexes/a/records/x", Body::empty()),
            (Method::POST, "/v1/indexes/a/search", search),
        ] {
            let request =
                Request::builder().method(method).uri(path).header("content-type", "application/json");
            let answer = router.clone().oneshot(request.body(body).unwrap()).await.unwrap();
            assert_eq!(answer.status(), StatusCode::SERVICE_UNAVAILABLE, "{path}");
            let body = axum::body::to_bytes(answer.into_body(), 1 << 16).await.unwrap();
            let problem: serde_json::Value = serde_json::from_slice(&body).unwrap();
            assert_eq!(problem["code"], "starting", "{path}");
        }
    }
}
