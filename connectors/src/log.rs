//! `Log`: the faces of one log, opened from configuration.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use bytesize::ByteSize;
use sluice_core::secret::MASK;

use crate::error::LogError;
use crate::kafka::KafkaLog;
use crate::local::LocalLog;
use crate::source::{Membership, Producer, Source};

/// Which log to open.
#[derive(Clone)]
pub enum LogConfig {
    /// The local log in a directory; several processes may share it.
    Local { dir: PathBuf },
    /// Apache Kafka. `properties` go to librdkafka as they stand (see [`crate::kafka`]), `memory` bounds what its
    /// fetch buffers hold.
    Kafka { properties: BTreeMap<String, String>, group: String, memory: ByteSize },
}

/// A log, by its faces.
#[derive(Clone)]
pub struct Log {
    pub source: Arc<dyn Source>,
    pub producer: Arc<dyn Producer>,
    pub membership: Arc<dyn Membership>,
}

impl Log {
    /// Opens the log. For Kafka this checks the properties but waits for no broker.
    ///
    /// # Errors
    /// When the configuration is refused, or the local log cannot be opened.
    pub async fn open(config: &LogConfig) -> Result<Self, LogError> {
        match config {
            LogConfig::Local { dir } => Ok(Arc::new(LocalLog::open(dir).await?).faces()),
            LogConfig::Kafka { properties, group, memory } => {
                Ok(Arc::new(KafkaLog::open(properties, group, *memory)?).faces())
            }
        }
    }
}

impl fmt::Debug for LogConfig {
    /// Names the properties; any of their values may be a secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Local { dir } => f.debug_struct("Local").field("dir", dir).finish(),
            Self::Kafka { properties, group, memory } => {
                let masked: BTreeMap<_, _> = properties.keys().map(|k| (k, MASK)).collect();
                let mut out = f.debug_struct("Kafka");
                out.field("properties", &masked).field("group", group).field("memory", memory).finish()
            }
        }
    }
}

impl fmt::Debug for Log {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Log").finish_non_exhaustive()
    }
}
