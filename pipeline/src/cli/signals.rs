//! SIGTERM and Ctrl-C: the first one stops, the second Ctrl-C ends the process at once.

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::CliError;

/// Exit code of a process that was told twice.
const TOLD_TWICE: i32 = 130;

/// A token that fires at the first SIGTERM or Ctrl-C.
///
/// # Errors
/// When the handlers cannot be installed.
pub(super) fn stop_token() -> Result<CancellationToken, CliError> {
    let install = |kind| signal(kind).map_err(|e| CliError::internal(format!("signal handlers: {e}")));
    let (interrupt, terminate) = (install(SignalKind::interrupt())?, install(SignalKind::terminate())?);
    let stop = CancellationToken::new();
    tokio::spawn(listen(interrupt, terminate, stop.clone()));
    Ok(stop)
}

async fn listen(mut interrupt: Signal, mut terminate: Signal, stop: CancellationToken) {
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
    stop.cancel();
    interrupt.recv().await;
    warn!("told twice, leaving at once: unpublished work will be done again from the log");
    std::process::exit(TOLD_TWICE);
}
