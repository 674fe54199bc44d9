//! The metrics recorder of the process: installed once, shared by whatever runs in it.

use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::Duration;

use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder, PrometheusHandle};
use tokio_util::sync::CancellationToken;

/// Bounds for what is measured in seconds: from a search in memory to a merge.
const SECONDS: &[f64] = &[
    0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0,
    120.0,
];
/// Histograms are emptied into their buckets so often.
const UPKEEP: Duration = Duration::from_secs(5);

static RECORDER: Mutex<Option<PrometheusHandle>> = Mutex::new(None);

/// The process's recorder, installed at the first call.
///
/// # Errors
/// When another recorder is installed already.
pub(crate) fn recorder() -> Result<PrometheusHandle, BuildError> {
    // a panic while it was installed leaves none, and the next call tries again
    let mut installed = RECORDER.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(handle) = installed.as_ref() {
        return Ok(handle.clone());
    }
    let builder =
        PrometheusBuilder::new().set_buckets_for_metric(Matcher::Suffix("_seconds".into()), SECONDS)?;
    let handle = builder.install_recorder()?;
    crate::metrics::describe();
    *installed = Some(handle.clone());
    Ok(handle)
}

/// Keeps the recorder's memory bounded, and what `gauges` sets current, until `stop`.
pub(crate) async fn upkeep(handle: PrometheusHandle, gauges: impl Fn() + Send, stop: CancellationToken) {
    loop {
        gauges();
        handle.run_upkeep();
        tokio::select! {
            biased;
            () = stop.cancelled() => return,
            () = tokio::time::sleep(UPKEEP) => {}
        }
    }
}
