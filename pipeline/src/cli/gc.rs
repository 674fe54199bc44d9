//! `gc`: deletes what no retained manifest reaches.

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use sluice_core::{Clock, IndexName, SystemClock};
use sluice_snapshotter::{GcOptions, gc};

use super::CliError;
use super::options::Common;
use super::output::Output;
use crate::topology::open_existing_store;

const EXAMPLES: &str = "\
Safe at any time, beside running indexers and query services: what a reader may still hold is kept for --grace.

Examples:
  sluice gc --dry-run
  sluice gc packages --retain 10 --grace 1h";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct GcArgs {
    /// Only this index
    index: Option<IndexName>,
    /// Only say what would be deleted
    #[arg(long)]
    dry_run: bool,
    /// Manifests kept besides the newest (gc.retain)
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    retain: Option<u32>,
    /// Manifests superseded less than this ago are kept too (gc.grace)
    #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration)]
    grace: Option<Duration>,
}

pub(super) async fn run(common: &Common, args: GcArgs, out: Output) -> Result<ExitCode, CliError> {
    let config = common.load()?;
    let store = open_existing_store(&config)?;
    let options = GcOptions {
        retain: args.retain.unwrap_or(config.gc.retain),
        grace: args.grace.unwrap_or(config.gc.grace),
        dry_run: args.dry_run,
    };
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let report = gc::run_all(&store, args.index.as_ref(), &options, clock).await?;
    let failed = !report.failures.is_empty();
    out.print(&report, ToString::to_string)?;
    Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}
