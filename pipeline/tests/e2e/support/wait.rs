//! Waiting on conditions: never a fixed sleep, always a limit and the reason why it was not met.

use std::future::Future;
use std::time::{Duration, Instant};

/// Far beyond what any condition takes on two busy cores; only a test that fails waits so long.
pub(crate) const LIMIT: Duration = Duration::from_secs(90);

const PAUSE: Duration = Duration::from_millis(40);

/// Tries `condition` until it gives a value.
///
/// # Panics
/// After [`LIMIT`], with the last reason that `condition` gave.
pub(crate) async fn eventually<T, F>(what: &str, condition: impl FnMut() -> F) -> T
where
    F: Future<Output = Result<T, String>>,
{
    within(LIMIT, what, condition).await
}

/// As [`eventually`], with a limit of its own: for promises that name a time.
pub(crate) async fn within<T, F>(limit: Duration, what: &str, mut condition: impl FnMut() -> F) -> T
where
    F: Future<Output = Result<T, String>>,
{
    let started = Instant::now();
    loop {
        let reason = match condition().await {
            Ok(value) => return value,
            Err(reason) => reason,
        };
        assert!(started.elapsed() < limit, "{what}: not within {limit:?}; last seen: {reason}");
        tokio::time::sleep(PAUSE).await;
    }
}
