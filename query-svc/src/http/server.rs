//! Accepts connections: so many at once, with bounded waits for the head of a request and for a peer
//! that does not read its answer, and drains on stop.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use super::stall::Impatient;
use crate::limits::Limits;
use crate::metrics;

/// Pause after an accept that failed (no file descriptors left).
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Headers of a request.
const MAX_HEADERS: usize = 64;

/// Serves `router` on `listener` until `stop`; then lets running requests end, for a while.
///
/// Returns how many connections had to be cut off.
pub async fn serve(listener: TcpListener, router: Router, limits: &Limits, stop: CancellationToken) -> usize {
    let max = limits.max_connections.max(1);
    let places = Arc::new(Semaphore::new(max));
    let graceful = GracefulShutdown::new();
    let server = server(limits);
    while let Some((stream, place)) = accept(&listener, &places, &stop).await {
        metrics::connections(max - places.available_permits());
        let service = TowerToHyperService::new(router.clone());
        let stream = TokioIo::new(Impatient::new(stream, limits.write_timeout));
        let connection = graceful.watch(server.serve_connection(stream, service));
        let open = Arc::clone(&places);
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                debug!(%error, "connection ended early");
            }
            drop(place);
            metrics::connections(max - open.available_permits());
        });
    }
    drop(listener);
    if tokio::time::timeout(limits.shutdown_timeout, graceful.shutdown()).await.is_ok() {
        return 0;
    }
    let cut = max - places.available_permits();
    warn!(connections = cut, "requests were still running at the end of the shutdown time");
    cut
}

fn server(limits: &Limits) -> http1::Builder {
    let mut server = http1::Builder::new();
    server
        .timer(TokioTimer::new())
        .header_read_timeout(limits.header_timeout)
        .max_headers(MAX_HEADERS)
        .max_header_size(limits.max_header_bytes)
        .max_buf_size(limits.max_header_bytes.max(64 << 10));
    server
}

/// The next connection, once there is a place for it; `None` on stop.
async fn accept(
    listener: &TcpListener,
    places: &Arc<Semaphore>,
    stop: &CancellationToken,
) -> Option<(TcpStream, OwnedSemaphorePermit)> {
    let next = async {
        // the semaphore is never closed
        let place = Arc::clone(places).acquire_owned().await.ok()?;
        loop {
            match listener.accept().await {
                Ok((stream, _)) => {
                    // answers are written at once; waiting for more to send would only delay them
                    if let Err(error) = stream.set_nodelay(true) {
                        debug!(%error, "nodelay was refused");
                    }
                    return Some((stream, place));
                }
                Err(error) => {
                    warn!(%error, "a connection could not be accepted");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    };
    tokio::select! {
        biased;
        () = stop.cancelled() => None,
        next = next => next,
    }
}
