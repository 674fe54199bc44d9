//! `completions`: a script for a shell.

use std::io::Write;
use std::process::ExitCode;

use clap::{Args, CommandFactory};
use clap_complete::Shell;

use super::{Cli, CliError};

#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  sluice completions bash > ~/.local/share/bash-completion/completions/sluice"
)]
pub struct CompletionsArgs {
    #[arg(value_enum)]
    shell: Shell,
}

pub(super) fn run(args: CompletionsArgs) -> Result<ExitCode, CliError> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "sluice", &mut script);
    std::io::stdout().lock().write_all(&script).map_err(CliError::failed)?;
    Ok(ExitCode::SUCCESS)
}
