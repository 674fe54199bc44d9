//! `scrub`: reads everything in the store and reports what is not as it should be.

use std::process::ExitCode;

use clap::Args;
use sluice_core::IndexName;
use sluice_snapshotter::{ScrubOptions, scrub};

use super::CliError;
use super::options::Common;
use super::output::{self, Output};
use crate::topology::open_existing_store;

const EXAMPLES: &str = "\
Exit code 1 when something is missing or damaged; what nobody needs (orphan, foreign) is told and is no failure.

Examples:
  sluice scrub
  sluice scrub packages --shallow";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct ScrubArgs {
    /// Only this index
    index: Option<IndexName>,
    /// Compare names and sizes only, do not read segments
    #[arg(long)]
    shallow: bool,
}

pub(super) async fn run(common: &Common, args: ScrubArgs, out: Output) -> Result<ExitCode, CliError> {
    let store = open_existing_store(&common.load()?)?;
    let bar = output::bar(out, Some(0), "{spinner} {bytes}/{total_bytes} {wide_bar} {bytes_per_sec} {msg}")?;
    let options = ScrubOptions { index: args.index, shallow: args.shallow };
    let shown = bar.clone();
    let progress = move |p: scrub::ScrubProgress| {
        shown.set_length(p.bytes_total);
        shown.set_position(p.bytes_done);
        shown.set_message(format!("{}/{} objects", p.objects_done, p.objects_total));
    };
    let report = scrub::run(&store, &options, progress).await?;
    bar.finish_and_clear();
    let sound = report.is_sound();
    out.print(&report, ToString::to_string)?;
    Ok(if sound { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
