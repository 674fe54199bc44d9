//! `sluice load`: rows of a file become messages of an index's topic.
//!
//! # Contract
//! - Rows are validated as the decoder of the log would validate them, and refused rows are told by their number
//!   (line, or row from 1) while the rest goes on.
//! - Rows are written in the order of the file. A row counts as loaded when the log has acknowledged it.
//! - The position after the last acknowledged row is kept in a state file, so that an interrupted load goes on where
//!   it stood: a row may be written twice, which changes nothing, and none is left out.
//! - What is read ahead is bounded, in rows and in bytes.

mod jsonl;
mod lines;
mod npy;
mod parquet;
mod rows;
mod run;
mod state;

use std::path::{Path, PathBuf};

use sluice_connectors::LogError;
use sluice_core::ErrorKind;

use crate::io_kind::io_kind;

pub use rows::{Position, Row, RowEncoder, Rows, Total};
pub use run::{LoadReport, LoadRequest, Progress, RowError, run};
pub use state::StateFile;

/// The formats of files.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum FileFormat {
    /// One JSON object a line, as the messages: id, vector, metadata; or id and "deleted": true. May be gzip'd.
    Jsonl,
    /// Columns for id and vector, every other one becomes metadata.
    Parquet,
    /// A matrix of numpy beside a JSONL of ids and metadata.
    Npy,
}

/// Where rows come from and how to read them.
#[derive(Debug, Clone)]
pub struct Input {
    /// `-` is standard input.
    pub file: PathBuf,
    pub format: Option<FileFormat>,
    /// Parquet: the column of ids.
    pub id_column: String,
    /// Parquet: the column of vectors.
    pub vector_column: String,
    /// npy: the JSONL with the ids; the same name with .jsonl unless given.
    pub records: Option<PathBuf>,
    /// JSONL: keys other than id and vector are the metadata.
    pub flat: bool,
}

/// Why a load ended early.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    #[error("{path}: {source}")]
    Io { path: String, source: std::io::Error },
    /// The file as a whole cannot be read in this way.
    #[error("{path}: {message}")]
    File { path: String, message: String },
    #[error("stopped at line {line}: it is refused row number {refused}, --max-errors allows {allowed}")]
    TooManyErrors { line: u64, refused: u64, allowed: u64 },
    #[error("the log: {0}")]
    Log(#[from] LogError),
    #[error("the reading thread ended: {0}")]
    Reader(String),
}

impl LoadError {
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Io { source, .. } => io_kind(source),
            Self::File { .. } | Self::TooManyErrors { .. } => ErrorKind::Invalid,
            Self::Log(e) => e.kind(),
            Self::Reader(_) => ErrorKind::Internal,
        }
    }

    pub(crate) fn io(path: &Path) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.display().to_string();
        move |source| Self::Io { path, source }
    }

    pub(crate) fn file(path: &Path, message: impl Into<String>) -> Self {
        Self::File { path: path.display().to_string(), message: message.into() }
    }
}

impl Input {
    pub fn is_stdin(&self) -> bool {
        self.file.as_os_str() == "-"
    }

    /// The format: as given, else by the file's name.
    ///
    /// # Errors
    /// When the name does not tell, or the format cannot be read from standard input.
    pub fn format(&self) -> Result<FileFormat, LoadError> {
        if self.is_stdin() {
            return match self.format {
                None | Some(FileFormat::Jsonl) => Ok(FileFormat::Jsonl),
                Some(_) => Err(LoadError::file(&self.file, "only JSONL can be read from standard input")),
            };
        }
        let name =
            self.file.file_name().map(|n| n.to_string_lossy().to_ascii_lowercase()).unwrap_or_default();
        let ends = |ends: &[&str]| ends.iter().any(|e| name.ends_with(e));
        match self.format {
            Some(format) => Ok(format),
            None if ends(&[".jsonl", ".ndjson", ".jsonl.gz", ".ndjson.gz"]) => Ok(FileFormat::Jsonl),
            None if ends(&[".parquet", ".pq"]) => Ok(FileFormat::Parquet),
            None if ends(&[".npy"]) => Ok(FileFormat::Npy),
            None => Err(LoadError::file(
                &self.file,
                "the name does not tell the format; give --format jsonl, parquet or npy",
            )),
        }
    }

    /// Opens the rows after `from`.
    ///
    /// # Errors
    /// When the file cannot be read in its format.
    pub fn open(&self, encoder: RowEncoder, from: Position) -> Result<Box<dyn Rows>, LoadError> {
        Ok(match self.format()? {
            FileFormat::Jsonl => Box::new(jsonl::Jsonl::open(self, encoder, from)?),
            FileFormat::Parquet => Box::new(parquet::Parquet::open(self, encoder, from)?),
            FileFormat::Npy => Box::new(npy::Npy::open(self, encoder, from)?),
        })
    }
}
