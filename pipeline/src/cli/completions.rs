//! `completions`: a script for a shell.

use std::process::ExitCode;

use clap::{Args, CommandFactory};
use clap_complete::Shell;

use super::{Cli, CliError, output};

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
    output::line(&String::from_utf8(script).map_err(CliError::internal)?);
    Ok(ExitCode::SUCCESS)
}
