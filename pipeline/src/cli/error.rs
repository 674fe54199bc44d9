//! Errors of commands and their exit codes.

use std::process::ExitCode;

use sluice_core::ErrorKind;

use crate::config::ConfigError;
use crate::load::LoadError;
use crate::topology::RunError;

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
pub enum CliError {
    #[error("the configuration is refused:\n{0}")]
    Config(#[from] ConfigError),
    /// The arguments do not make sense together, or name what does not exist.
    #[error("{0}")]
    Usage(String),
    #[error("{0}")]
    Run(#[from] RunError),
    #[error("{0}")]
    Load(#[from] LoadError),
    /// The service answered with a problem.
    #[error("{message} ({code})")]
    Service { code: String, message: String },
    #[error("{0}")]
    Failed(String),
}

impl CliError {
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Config(_) | Self::Usage(_) => ErrorKind::Invalid,
            Self::Run(e) => e.kind(),
            Self::Load(e) => e.kind(),
            Self::Service { .. } | Self::Failed(_) => ErrorKind::Unavailable,
        }
    }

    /// 2 when somebody has to write something else, 1 otherwise.
    pub fn exit_code(&self) -> ExitCode {
        match self {
            Self::Config(_) | Self::Usage(_) => ExitCode::from(2),
            Self::Run(e) if matches!(e.kind(), ErrorKind::Invalid | ErrorKind::Conflict) => ExitCode::from(2),
            _ => ExitCode::FAILURE,
        }
    }

    /// An error of the store, the protocol or the registry, as this command's failure.
    pub(super) fn failed(error: impl std::fmt::Display) -> Self {
        Self::Failed(error.to_string())
    }
}
