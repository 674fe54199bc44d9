//! `up`, `index`, `serve`: a process that runs until it is told to stop.

use std::process::ExitCode;

use serde_json::json;
use sluice_core::ErrorKind;

use super::options::Common;
use super::output::{self, Output};
use super::{CliError, signals};
use crate::topology::{Role, RunError, RunReport, Service};

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
    if report.hung.is_empty() {
        return Ok(ExitCode::SUCCESS);
    }
    let names = report.hung.join(", ");
    let text = format!("not stopped at the deadline: {names}; nothing is lost, it will be done again from the log");
    Err(CliError::failed(ErrorKind::Unavailable, text))
}
