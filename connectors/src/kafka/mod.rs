//! The kafka log.
use crate::error::LogError;
use crate::log::Log;
use std::sync::Arc;

/// The log.
pub struct KafkaLog;

impl KafkaLog {
    /// Opens it.
    ///
    /// # Errors
    /// When it cannot.
    pub fn open(
        properties: &std::collections::BTreeMap<String, String>,
        group: &str,
        memory: bytesize::ByteSize,
    ) -> Result<Self, LogError> {
        let _ = (properties, group, memory);
        Err(LogError::Unavailable("not ready".into()))
    }

    /// Its faces.
    pub fn faces(self: Arc<Self>) -> Log {
        unreachable!()
    }
}
