//! The command line: arguments, logging, signals, exit codes; each command in a file of its own.
//!
//! Exit codes: 0 done, 1 failed (or something did not stop in time), 2 the usage or the configuration is refused,
//! 130 a second Ctrl-C. Results go to standard output, everything else to standard error.

mod check_config;
mod client;
mod completions;
mod demo;
mod doctor;
mod error;
mod gc;
mod inspect;
mod load;
mod options;
mod output;
mod scrub;
mod search;
mod serve;
mod signals;
mod status;

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use sluice_core::telemetry;

use crate::topology::Role;
pub use error::CliError;
pub use options::{Common, LogFormat};
use output::Output;

const EXAMPLES: &str = "\
Examples:
  sluice demo                          everything in one process, with sample data to search
  sluice up --data-dir ./data          everything in one process, your own indexes
  sluice index --config prod.toml      the ingest role: Kafka to object storage
  sluice serve --config prod.toml      the query role: object storage to HTTP
  sluice load data.jsonl --index docs  rows of a file to the log
  sluice check-config --defaults       every key with its default and why

Exit codes: 0 done, 1 failed, 2 usage or configuration refused.";

/// Streaming vector ingestion: what is published to a topic is soon searchable, and durable in object storage.
#[derive(Debug, Parser)]
#[command(name = "sluice", version, after_help = EXAMPLES, propagate_version = true)]
pub struct Cli {
    #[command(flatten)]
    pub common: Common,
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run everything in one process with sample data, and say what to try
    Demo(demo::DemoArgs),
    /// Run everything in one process: ingest, search, HTTP
    #[command(after_help = serve::UP_EXAMPLES)]
    Up,
    /// Run the ingest role: read the log, publish snapshots to the store
    #[command(after_help = serve::INDEX_EXAMPLES)]
    Index,
    /// Run the query role: load snapshots from the store, answer over HTTP
    #[command(after_help = serve::SERVE_EXAMPLES)]
    Serve,
    /// Write the rows of a file (JSONL, Parquet, .npy) to the log of an index
    Load(load::LoadArgs),
    /// Search a running service
    Search(search::SearchArgs),
    /// Show the indexes of a running service, or the partitions of a running indexer
    Status(status::StatusArgs),
    /// Check the configuration and print it, with secrets masked
    CheckConfig(check_config::CheckConfigArgs),
    /// Show what is in the store: indexes, manifests, segments; or in a segment file
    Inspect(inspect::InspectArgs),
    /// Delete what no retained manifest reaches
    Gc(gc::GcArgs),
    /// Read everything in the store and report what is missing, damaged or nobody's
    Scrub(scrub::ScrubArgs),
    /// Check configuration, log, topics, store, clock and disk, and say what to do
    #[command(after_help = doctor::EXAMPLES)]
    Doctor,
    /// Print a completion script for a shell
    Completions(completions::CompletionsArgs),
}

/// Runs the command of the process's arguments.
pub fn main() -> ExitCode {
    crate::heap::keep_small();
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return unparsed(&error),
    };
    let service = matches!(cli.command, Command::Up | Command::Index | Command::Serve);
    // the graph builder tells of each step of each build at info
    let level = if service { "info,hnsw_rs=warn" } else { "warn" };
    telemetry::init(cli.common.log_format.into(), level, cli.common.verbose);
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            return output::fail(cli.common.json, &CliError::internal(format!("no runtime: {error}")));
        }
    };
    let json = cli.common.json;
    let result = runtime.block_on(dispatch(cli));
    // what hangs was named; it does not keep the process
    runtime.shutdown_background();
    match result {
        Ok(code) => code,
        Err(error) => output::fail(json, &error),
    }
}

/// Prints help, a version, or a usage error; the latter as JSON where that was asked for.
fn unparsed(error: &clap::Error) -> ExitCode {
    let json = std::env::args_os().skip(1).take_while(|a| a != "--").any(|a| a == "--json");
    if json && error.use_stderr() {
        let text = error.to_string();
        let text = text.trim_start_matches("error: ").trim_end();
        return output::fail(json, &CliError::Usage(text.into()));
    }
    error.exit()
}

async fn dispatch(cli: Cli) -> Result<ExitCode, CliError> {
    let out = Output { json: cli.common.json };
    let common = cli.common;
    match cli.command {
        Command::Demo(args) => demo::run(&common, args, out).await,
        Command::Up => serve::run(&common, Role::Up, out).await,
        Command::Index => serve::run(&common, Role::Index, out).await,
        Command::Serve => serve::run(&common, Role::Serve, out).await,
        Command::Load(args) => load::run(&common, args, out).await,
        Command::Search(args) => search::run(&common, args, out).await,
        Command::Status(args) => status::run(&common, args, out).await,
        Command::CheckConfig(args) => check_config::run(&common, args, out).await,
        Command::Inspect(args) => inspect::run(&common, args, out).await,
        Command::Gc(args) => gc::run(&common, args, out).await,
        Command::Scrub(args) => scrub::run(&common, args, out).await,
        Command::Doctor => doctor::run(&common, out).await,
        Command::Completions(args) => completions::run(args),
    }
}

#[cfg(test)]
mod tests;
