//! Waiting out an outage at start: pauses that double, told once in a while.

use std::fmt::Display;
use std::time::Duration;

use sluice_core::{Backoff, Retry};
use tokio_util::sync::CancellationToken;
use tracing::warn;

const BACKOFF: Backoff = Backoff::new(Duration::from_millis(250), Duration::from_secs(10));

/// Pauses between tries of one thing.
pub(crate) struct Patience {
    what: &'static str,
    retry: Retry,
}

impl Patience {
    /// `what` is the log line of a failed try.
    pub(crate) fn new(what: &'static str) -> Self {
        Self { what, retry: BACKOFF.start() }
    }

    pub(crate) fn reset(&mut self) {
        self.retry.reset();
    }

    /// Tells of `error` and pauses; `false` when told to stop meanwhile.
    pub(crate) async fn pause(&mut self, error: &(dyn Display + Sync), stop: &CancellationToken) -> bool {
        let wait = self.retry.failed();
        warn!(%error, pause_ms = wait.as_millis(), "{}", self.what);
        tokio::select! {
            biased;
            () = stop.cancelled() => false,
            () = tokio::time::sleep(wait) => true,
        }
    }
}
