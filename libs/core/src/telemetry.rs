//! Logging set-up. Metric names follow `sluice_<noun>_<unit>[_total]`; each crate lists its own in `metrics.rs`.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;

/// How log lines look.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum LogFormat {
    #[default]
    Text,
    Json,
}

/// Installs the process's log subscriber, on standard error. `RUST_LOG` overrides the level that `verbosity`
/// (the count of `-v`) and `default` give.
pub fn init(format: LogFormat, default: &str, verbosity: u8) {
    let level = match verbosity {
        0 => default,
        1 => "info,sluice=debug",
        2 => "debug",
        _ => "trace",
    };
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(level));
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal());
    let installed = match format {
        LogFormat::Text => builder.try_init(),
        LogFormat::Json => builder.json().flatten_event(true).try_init(),
    };
    if installed.is_err() {
        tracing::debug!("a log subscriber was already installed");
    }
}
