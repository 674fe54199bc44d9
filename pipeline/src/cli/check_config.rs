//! `check-config`: the whole configuration, checked, printed with secrets masked.

use std::process::ExitCode;

use clap::Args;
use sluice_connectors::Log;
use sluice_snapshotter::Store;

use super::CliError;
use super::options::Common;
use super::output::Output;
use crate::config::{self, Config, DEFAULTS, Environment, Flags, LogKind};
use crate::topology::RunError;

const EXAMPLES: &str = "\
Examples:
  sluice check-config --config prod.toml
  sluice check-config --defaults > sluice.toml";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct CheckConfigArgs {
    /// Print the documented defaults instead: every key, its default, and why (as JSON: keys and defaults)
    #[arg(long)]
    defaults: bool,
}

pub(super) async fn run(common: &Common, args: CheckConfigArgs, out: Output) -> Result<ExitCode, CliError> {
    if args.defaults {
        let defaults = config::load_texts(Vec::new(), Environment::from_pairs([]), Flags::default())?;
        out.print(&defaults, |_| DEFAULTS.into())?;
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
