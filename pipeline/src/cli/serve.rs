//! `up`, `index`, `serve`: a process that runs until it is told to stop.

use std::process::ExitCode;

use serde_json::json;
use sluice_core::ErrorKind;

use super::options::Common;
use super::output::{self, Output};
use super::{CliError, signals};
use crate::topology::{Role, RunError, RunReport, Service};

pub(super) const UP_EXAMPLES: &str = "\
Examples:
  sluice up                                  everything in ./sluice-data, HTTP at 127.0.0.1:7700
  sluice up --data-dir ./data --listen 127.0.0.1:7800
  sluice up --config sluice.toml --json      a line once it listens, and one when it has stopped";

pub(super) const INDEX_EXAMPLES: &str = "\
Examples:
  sluice index --config prod.toml --data-dir ./index-1 --listen 127.0.0.1:7701
  sluice status --url http://127.0.0.1:7701  its partitions, and what to do about problems";

pub(super) const SERVE_EXAMPLES: &str = "\
Examples:
  sluice serve --config prod.toml --data-dir ./query-1
  sluice serve --config prod.toml --data-dir ./query-2 --listen 127.0.0.1:7702
  sluice search packages --id nginx --url http://127.0.0.1:7702";

/// Runs a role until SIGTERM or Ctrl-C.
pub(super) async fn run(common: &Common, role: Role, out: Output) -> Result<ExitCode, CliError> {
    let config = common.load()?;
    let stop = signals::stop_token()?;
    let service = match Service::start(config, role, &stop).await {
        Err(RunError::Stopped) => return Ok(ExitCode::SUCCESS),
        started => started?,
    };
    if out.json {
        output::line(&json!({"listening": service.address().to_string()}).to_string());
    }
    finish(&service.run(stop).await?, out)
}

/// The exit code of a process that was told to stop; names those that hung.
pub(super) fn finish(report: &RunReport, out: Output) -> Result<ExitCode, CliError> {
    if out.json {
        output::line(&json!({"hung": report.hung}).to_string());
    }
    match unclean(report) {
        None => Ok(ExitCode::SUCCESS),
        Some(error) => Err(error),
    }
}

/// Names those that hung.
pub(super) fn unclean(report: &RunReport) -> Option<CliError> {
    if report.hung.is_empty() {
        return None;
    }
    let names = report.hung.join(", ");
    let text =
        format!("not stopped at the deadline: {names}; nothing is lost, it will be done again from the log");
    Some(CliError::failed(ErrorKind::Unavailable, text))
}
