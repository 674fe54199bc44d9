//! Errors of commands: their kinds and their exit codes.

use std::fmt::Display;
use std::process::ExitCode;

use sluice_core::ErrorKind;
use sluice_snapshotter::{CacheError, ProtocolError, RegistryError};

use crate::config::ConfigError;
use crate::io_kind::io_kind;
use crate::load::LoadError;
use crate::sample::SampleError;
use crate::topology::RunError;

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
pub enum CliError {
    #[error("the configuration is refused:\n{0}")]
    Config(#[from] ConfigError),
    /// The arguments cannot be read, or do not make sense together.
    #[error("{0}")]
    Usage(String),
    #[error("{0}")]
    Run(#[from] RunError),
    #[error("{0}")]
    Load(#[from] LoadError),
    /// The service answered with a problem; the code is empty when it was no problem of ours.
    #[error("{message}{}", in_brackets(.code))]
    Service { kind: ErrorKind, code: String, message: String },
    #[error("{message}")]
    Failed { kind: ErrorKind, message: String },
}

fn in_brackets(code: &str) -> String {
    if code.is_empty() { String::new() } else { format!(" ({code})") }
}

impl CliError {
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Config(_) | Self::Usage(_) => ErrorKind::Invalid,
            Self::Run(e) => e.kind(),
            Self::Load(e) => e.kind(),
            Self::Service { kind, .. } | Self::Failed { kind, .. } => *kind,
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

    /// An error of this kind, in its own words.
    pub(super) fn failed(kind: ErrorKind, error: impl Display) -> Self {
        Self::Failed { kind, message: error.to_string() }
    }

    /// What fails only by a bug, or because the system lacks something that every command needs.
    pub(super) fn internal(error: impl Display) -> Self {
        Self::failed(ErrorKind::Internal, error)
    }

    /// An error of a file of this machine.
    pub(super) fn file(path: impl Display, error: &std::io::Error) -> Self {
        Self::failed(io_kind(error), format!("{path}: {error}"))
    }

    /// The one answer of every command to a name that is no index's.
    pub(super) fn no_index(name: impl Display) -> Self {
        let message = format!(
            "there is no index {name}: `sluice inspect` lists those of the store, `sluice status` those that are \
             served, PUT /v1/indexes/{name} or [[index]] in a configuration file creates one"
        );
        Self::failed(ErrorKind::NotFound, message)
    }

    /// The same for a request that was about the index `name`.
    pub(super) fn about_index(self, name: &str) -> Self {
        match self {
            Self::Service { code, .. } if code == "index_not_found" => Self::no_index(name),
            other => other,
        }
    }
}

impl From<RegistryError> for CliError {
    fn from(error: RegistryError) -> Self {
        match error {
            RegistryError::Unknown(name) => Self::no_index(name),
            RegistryError::Store(error) => Self::Run(error.into()),
            other => Self::failed(other.kind(), other),
        }
    }
}

impl From<ProtocolError> for CliError {
    fn from(error: ProtocolError) -> Self {
        match error {
            ProtocolError::Store(error) => Self::Run(error.into()),
            other => Self::failed(other.kind(), other),
        }
    }
}

impl From<CacheError> for CliError {
    fn from(error: CacheError) -> Self {
        match error {
            CacheError::Store(error) => Self::Run(error.into()),
            other => Self::failed(other.kind(), other),
        }
    }
}

impl From<SampleError> for CliError {
    fn from(error: SampleError) -> Self {
        Self::failed(error.kind(), error)
    }
}
