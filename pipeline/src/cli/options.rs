//! The flags that every command takes, and how they become configuration.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, ValueEnum};
use sluice_core::telemetry;

use super::CliError;
use crate::config::{self, Config, Environment, Flags};

/// How log lines look.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    #[default]
    Text,
    Json,
}

impl From<LogFormat> for telemetry::LogFormat {
    fn from(format: LogFormat) -> Self {
        match format {
            LogFormat::Text => Self::Text,
            LogFormat::Json => Self::Json,
        }
    }
}

/// Flags of every command.
#[derive(Debug, Clone, Default, Args)]
pub struct Common {
    /// Configuration file; several are read in order, later ones win
    #[arg(long, short, global = true, value_name = "FILE", env = "SLUICE_CONFIG", value_delimiter = ',')]
    pub config: Vec<PathBuf>,
    /// Directory for caches and the local log (data_dir)
    #[arg(long, global = true, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
    /// Address of the HTTP API: IP address and port, e.g. 127.0.0.1:7700 (http.listen)
    #[arg(long, global = true, value_name = "ADDRESS", value_parser = config::listen_address)]
    pub listen: Option<SocketAddr>,
    /// Print results as JSON: one document, an error included; up, index, serve and demo: a line for each event
    #[arg(long, global = true)]
    pub json: bool,
    /// How log lines look, on standard error
    #[arg(long, global = true, value_enum, default_value_t)]
    pub log_format: LogFormat,
    /// Log more; twice for even more
    #[arg(long, short, global = true, action = clap::ArgAction::Count)]
    pub verbose: u8,
}

impl Common {
    /// The flags as the last layer of the configuration.
    pub(super) fn flags(&self) -> Flags {
        let mut flags = Flags::default();
        flags.path("data_dir", self.data_dir.as_ref());
        flags.set("http.listen", self.listen.map(|l| l.to_string()));
        flags
    }

    /// The configuration of this process.
    ///
    /// # Errors
    /// Every finding.
    pub(super) fn load(&self) -> Result<Config, CliError> {
        Ok(config::load(&self.config, Environment::of_process(), self.flags())?)
    }
}
