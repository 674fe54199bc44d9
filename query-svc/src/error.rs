//! Errors as a client sees them, and the one place that maps them to status codes and stable codes.

use std::collections::BTreeMap;
use std::time::Duration;

use sluice_connectors::LogError;
use sluice_core::{ErrorKind, IdError, SpecDifference, SpecError, VectorError};
use sluice_snapshotter::RegistryError;
use thiserror::Error;

use crate::types::{Difference, PartitionAnswer, Problem};

/// Why a request was not answered as asked.
#[derive(Debug, Error)]
pub enum ApiError {
    #[error("the request body is not what this route takes: {0}")]
    Body(String),
    #[error("{0}")]
    Invalid(String),
    #[error("{0}")]
    Vector(#[from] VectorError),
    #[error("{0}")]
    Filter(String),
    #[error("{0}")]
    Name(#[from] IdError),
    #[error("{0}")]
    Spec(#[from] SpecError),
    #[error("the index spec is not valid: {0}")]
    SpecBody(String),
    #[error("the cursor is not one that a listing gave")]
    Cursor,
    #[error("the listing was not continued in time; begin again")]
    CursorExpired,
    #[error("no index is named {0:?}")]
    IndexNotFound(String),
    #[error("index {index} holds no live record with this id")]
    RecordNotFound { index: String },
    #[error("nothing is served under this path")]
    RouteNotFound,
    #[error("this path does not take this method")]
    MethodNotAllowed,
    #[error("the request was not received within {0:?}")]
    BodyTimeout(Duration),
    #[error("the stored spec differs: {}", join(.0))]
    SpecDiffers(Vec<SpecDifference>),
    #[error("the offsets asked for were not visible within {waited_ms} ms")]
    NotVisible { waited_ms: u64, offsets: BTreeMap<u32, u64> },
    #[error("the body has more than {max} bytes (limits.max_request_bytes)")]
    BodyTooLarge { max: usize },
    #[error("the answer would have more than {max} bytes: ask for fewer records or leave vectors out")]
    AnswerTooLarge { max: usize },
    #[error("{0}")]
    MediaType(String),
    #[error("as many queries as allowed are running and waiting")]
    Overloaded,
    #[error("as many listings as allowed are under way")]
    TooManyListings,
    #[error("not every partition answered within the deadline")]
    Deadline(Vec<PartitionAnswer>),
    #[error("not every partition could answer")]
    Incomplete(Vec<PartitionAnswer>),
    #[error("the log cannot be reached: {0}")]
    LogUnavailable(String),
    #[error("the log refuses: {0}")]
    LogRefused(String),
    /// One search of a batch, by its place, and what is wrong with it.
    #[error("searches[{at}]: {error}")]
    OfBatch { at: usize, error: Box<ApiError> },
    /// What happened stays in the log of the service.
    #[error("the store cannot be reached")]
    StoreUnavailable(String),
    #[error("what the store holds about the index is damaged")]
    StoreCorrupt(String),
    #[error("{0}")]
    TopicTaken(String),
    #[error("another process changed the index at the same time; try again")]
    SpecRace,
    #[error("the service is starting: it has not read yet which indexes there are")]
    Starting,
    #[error("the service is shutting down")]
    Closing,
    #[error("an internal error; the log of the service has it under the request id")]
    Internal,
}

fn join(differences: &[SpecDifference]) -> String {
    differences.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}

/// What a client tells errors apart by.
pub(crate) struct Face {
    pub(crate) status: u16,
    pub(crate) code: &'static str,
    pub(crate) title: &'static str,
}

impl ApiError {
    pub(crate) fn face(&self) -> Face {
        let (status, code, title) = match self {
            Self::OfBatch { error, .. } => return error.face(),
            Self::Body(_) => (400, "malformed_body", "Malformed request body"),
            Self::Invalid(_) => (400, "invalid_request", "Invalid request"),
            Self::Vector(VectorError::Dimension { .. }) => {
                (400, "dimension_mismatch", "The vector has another dimension than the index")
            }
            Self::Vector(_) => (400, "invalid_vector", "Invalid vector"),
            Self::Filter(_) => (400, "invalid_filter", "Invalid filter"),
            Self::Name(_) => (400, "invalid_name", "Invalid name"),
            Self::Spec(_) | Self::SpecBody(_) => (400, "invalid_spec", "Invalid index spec"),
            Self::Cursor => (400, "invalid_cursor", "Invalid cursor"),
            Self::AnswerTooLarge { .. } => (400, "answer_too_large", "Answer too large"),
            Self::IndexNotFound(_) => (404, "index_not_found", "Unknown index"),
            Self::RecordNotFound { .. } => (404, "record_not_found", "Unknown record"),
            Self::RouteNotFound => (404, "route_not_found", "Unknown path"),
            Self::MethodNotAllowed => (405, "method_not_allowed", "Method not allowed"),
            Self::BodyTimeout(_) => (408, "request_timeout", "Request too slow"),
            Self::SpecDiffers(_) => (409, "index_differs", "The index exists with another spec"),
            Self::TopicTaken(_) => (409, "topic_taken", "The topic feeds another index"),
            Self::SpecRace => (409, "index_changed", "The index was changed meanwhile"),
            Self::CursorExpired => (410, "cursor_expired", "Cursor expired"),
            Self::NotVisible { .. } => (412, "offsets_not_visible", "Offsets not visible yet"),
            Self::BodyTooLarge { .. } => (413, "body_too_large", "Request body too large"),
            Self::MediaType(_) => (415, "unsupported_media_type", "Unsupported media type"),
            Self::LogRefused(_) => (422, "log_refused", "The log refuses the request"),
            Self::Internal => (500, "internal", "Internal error"),
            Self::StoreCorrupt(_) => (500, "store_corrupt", "Stored data is damaged"),
            Self::Overloaded => (503, "overloaded", "Too many queries"),
            Self::TooManyListings => (503, "too_many_listings", "Too many listings"),
            Self::Incomplete(_) => (503, "incomplete", "Partitions missing"),
            Self::LogUnavailable(_) => (503, "log_unavailable", "Log unavailable"),
            Self::StoreUnavailable(_) => (503, "store_unavailable", "Store unavailable"),
            Self::Starting => (503, "starting", "Starting"),
            Self::Closing => (503, "closing", "Shutting down"),
            Self::Deadline(_) => (504, "deadline_exceeded", "Deadline exceeded"),
        };
        Face { status, code, title }
    }

    /// The same of search number `at` of a batch.
    pub(crate) fn of_batch(self, at: usize) -> Self {
        Self::OfBatch { at, error: Box::new(self) }
    }

    /// What the error makes its handler do.
    pub fn kind(&self) -> ErrorKind {
        if let Self::OfBatch { error, .. } = self {
            return error.kind();
        }
        match self.face().status {
            404 => ErrorKind::NotFound,
            409 => ErrorKind::Conflict,
            500 if matches!(self, Self::StoreCorrupt(_)) => ErrorKind::Corrupt,
            500 => ErrorKind::Internal,
            503 if matches!(self, Self::Closing) => ErrorKind::Closed,
            503 | 504 => ErrorKind::Unavailable,
            _ => ErrorKind::Invalid,
        }
    }

    /// What only the log of the service is told.
    pub(crate) fn internal_detail(&self) -> String {
        match self {
            Self::StoreUnavailable(detail) | Self::StoreCorrupt(detail) => detail.clone(),
            Self::OfBatch { at, error } => format!("searches[{at}]: {}", error.internal_detail()),
            other => other.to_string(),
        }
    }

    /// Seconds after which trying again makes sense.
    pub(crate) fn retry_after(&self) -> Option<u64> {
        (self.face().status == 503).then_some(1)
    }

    pub(crate) fn problem(self, request_id: &str) -> Problem {
        let Face { status, code, title } = self.face();
        let mut problem = Problem {
            kind: format!("urn:sluice:problem:{code}"),
            title: title.into(),
            status,
            code: code.into(),
            detail: self.to_string(),
            request_id: request_id.into(),
            ..Problem::default()
        };
        match self {
            Self::Deadline(partitions) | Self::Incomplete(partitions) => {
                problem.partitions = Some(partitions)
            }
            Self::NotVisible { offsets, .. } => problem.offsets = Some(offsets),
            Self::SpecDiffers(found) => {
                problem.differences = Some(found.into_iter().map(Difference::from).collect());
            }
            _ => {}
        }
        problem
    }
}

impl From<RegistryError> for ApiError {
    fn from(error: RegistryError) -> Self {
        match error {
            RegistryError::Spec(error) => Self::Spec(error),
            RegistryError::Unknown(index) => Self::IndexNotFound(index.to_string()),
            RegistryError::NeedsRebuild { .. } | RegistryError::Restless(_) => Self::SpecRace,
            RegistryError::TopicTaken { .. } => Self::TopicTaken(error.to_string()),
            other if other.kind() == ErrorKind::Corrupt => Self::StoreCorrupt(other.to_string()),
            other => Self::StoreUnavailable(other.to_string()),
        }
    }
}

impl From<LogError> for ApiError {
    fn from(error: LogError) -> Self {
        match error.kind() {
            ErrorKind::Invalid => Self::LogRefused(error.to_string()),
            _ => Self::LogUnavailable(error.to_string()),
        }
    }
}

impl From<SpecDifference> for Difference {
    fn from(d: SpecDifference) -> Self {
        Self { key: d.key.into(), stored: d.stored, given: d.given, in_place: d.in_place }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dimension_mismatch_says_both_dimensions() {
        let error = ApiError::from(VectorError::Dimension { expected: 384, got: 3 });
        let problem = error.problem("r1");
        assert_eq!((problem.status, problem.code.as_str()), (400, "dimension_mismatch"));
        assert!(problem.detail.contains("384") && problem.detail.contains('3'), "{}", problem.detail);
    }

    #[test]
    fn only_503_says_when_to_try_again() {
        assert_eq!(ApiError::Overloaded.retry_after(), Some(1));
        assert_eq!(ApiError::Deadline(Vec::new()).retry_after(), None);
    }
}
