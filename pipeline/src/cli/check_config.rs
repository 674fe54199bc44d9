//! `check-config`: the whole configuration, checked, printed with secrets masked.

use std::process::ExitCode;

use clap::Args;
use sluice_connectors::Log;
use sluice_snapshotter::Store;

use super::CliError;
use super::options::Common;
use super::output::{self, Output};
use crate::config::{Config, DEFAULTS, LogKind};
use crate::topology::RunError;

#[derive(Debug, Args)]
pub struct CheckConfigArgs {
    /// Print the documented defaults instead: every key, its default, and why
    #[arg(long)]
    defaults: bool,
}

pub(super) async fn run(common: &Common, args: CheckConfigArgs, out: Output) -> Result<ExitCode, CliError> {
    if args.defaults {
        output::line(DEFAULTS);
        return Ok(ExitCode::SUCCESS);
    }
    let config = common.load()?;
    check_edges(&config).await?;
    let text = config.to_masked_toml()?;
    out.print(&config, |_| text)?;
    Ok(ExitCode::SUCCESS)
}

/// What only the log's and the store's clients can check. Nothing is connected to.
async fn check_edges(config: &Config) -> Result<(), CliError> {
    if config.log.kind == LogKind::Kafka {
        Log::open(&config.log_config()).await.map_err(RunError::from)?;
    }
    if !config.store.url.starts_with("file://") && !config.store.url.is_empty() {
        Store::open(&config.store_config()?).map_err(RunError::from)?;
    }
    Ok(())
}
