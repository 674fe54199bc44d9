//! Waiting out an outage at start: pauses that double, told once in a while.

use std::fmt::Display;
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tracing::warn;

const FIRST: Duration = Duration::from_millis(250);
const LONGEST: Duration = Duration::from_secs(10);

/// Pauses between tries of one thing.
pub(crate) struct Patience {
    what: &'static str,
    next: Duration,
}

impl Patience {
    /// `what` is the log line of a failed try.
    pub(crate) fn new(what: &'static str) -> Self {
        Self { what, next: FIRST }
    }

    pub(crate) fn reset(&mut self) {
        self.next = FIRST;
    }

    /// Tells of `error` and pauses; `false` when told to stop meanwhile.
    pub(crate) async fn pause(&mut self, error: &(dyn Display + Sync), stop: &CancellationToken) -> bool {
        let pause = humantime::format_duration(self.next).to_string();
        warn!(%error, pause, "{}", self.what);
        let wait = self.next;
        self.next = (self.next * 2).min(LONGEST);
        tokio::select! {
            biased;
            () = stop.cancelled() => false,
            () = tokio::time::sleep(wait) => true,
        }
    }
}
