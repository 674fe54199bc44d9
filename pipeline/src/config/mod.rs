//! Configuration: the embedded defaults, then files, environment and flags; checked as a whole before anything runs.
//!
//! `configs/sluice.toml` documents every key and *is* the default. [`load`] is the only way to a [`Config`], so one
//! that exists has passed every check; errors name the key, what is allowed and where the value came from.

mod check;
mod properties;
mod sources;

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytesize::ByteSize;
use figment::Figment;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize};
use sluice_connectors::LogConfig;
use sluice_core::{ErrorKind, IndexSpec};
use sluice_snapshotter::StoreConfig;

pub use properties::{Properties, is_secret, without_user_info};
pub use sources::{ENV_PREFIX, Environment, Flags, TomlText};

/// Every key with its default and why.
pub const DEFAULTS: &str = include_str!("../../../configs/sluice.toml");

/// The whole configuration of a process.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    pub data_dir: PathBuf,
    pub log: LogSection,
    pub store: StoreSection,
    pub http: HttpSection,
    pub limits: LimitsSection,
    pub ingest: IngestSection,
    pub serve: ServeSection,
    pub cache: CacheSection,
    pub gc: GcSection,
    pub shutdown: ShutdownSection,
    #[serde(default, rename = "index")]
    pub indexes: Vec<IndexSpec>,
}

/// Which log stands behind the topics.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogKind {
    Local,
    Kafka,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LogSection {
    pub kind: LogKind,
    pub group: String,
    pub kafka: Properties,
}

#[derive(Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StoreSection {
    #[serde(serialize_with = "properties::serialize_url")]
    pub url: String,
    pub options: Properties,
}

impl fmt::Debug for StoreSection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let url = without_user_info(&self.url);
        f.debug_struct("StoreSection").field("url", &url).field("options", &self.options).finish()
    }
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HttpSection {
    #[serde(deserialize_with = "deserialize_listen")]
    pub listen: SocketAddr,
    pub allow_unauthenticated: bool,
}

/// Reads an address to listen at. Names are not taken: one may stand for several addresses, on which it depends who
/// can reach the API.
///
/// # Errors
/// A text that says what is taken.
pub fn listen_address(text: &str) -> Result<SocketAddr, String> {
    text.parse().map_err(|_| {
        format!(
            "{text:?} is not an IP address and a port, e.g. 127.0.0.1:7700 or [::1]:7700; names are not taken"
        )
    })
}

fn deserialize_listen<'de, D: Deserializer<'de>>(deserializer: D) -> Result<SocketAddr, D::Error> {
    listen_address(&String::deserialize(deserializer)?).map_err(D::Error::custom)
}

/// Bounds; `configs/sluice.toml` says what each one bounds, `check.rs` its range.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LimitsSection {
    #[serde(with = "sluice_core::size")]
    pub memory: ByteSize,
    #[serde(with = "sluice_core::size")]
    pub partition_reserve: ByteSize,
    #[serde(with = "sluice_core::size")]
    pub max_message_bytes: ByteSize,
    #[serde(with = "sluice_core::size")]
    pub max_metadata_bytes: ByteSize,
    #[serde(with = "sluice_core::size")]
    pub max_request_bytes: ByteSize,
    #[serde(with = "sluice_core::size")]
    pub max_answer_bytes: ByteSize,
    pub max_dimension: u32,
    pub max_k: usize,
    pub max_ef: usize,
    pub max_batch_searches: usize,
    pub max_publish_records: usize,
    pub max_list_records: usize,
    pub max_connections: usize,
    pub max_concurrent_searches: usize,
    pub max_queued_searches: usize,
    #[serde(with = "humantime_serde")]
    pub query_deadline: Duration,
    #[serde(with = "humantime_serde")]
    pub max_consistency_wait: Duration,
    #[serde(with = "humantime_serde")]
    pub publish_timeout: Duration,
    pub search_threads: usize,
    pub build_threads: usize,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IngestSection {
    #[serde(with = "humantime_serde")]
    pub discovery_interval: Duration,
    #[serde(with = "humantime_serde")]
    pub restart_backoff_min: Duration,
    #[serde(with = "humantime_serde")]
    pub restart_backoff_max: Duration,
    #[serde(with = "humantime_serde")]
    pub healthy_after: Duration,
    #[serde(with = "humantime_serde")]
    pub rejoin_after: Duration,
    #[serde(with = "humantime_serde")]
    pub stuck_after: Duration,
    #[serde(with = "humantime_serde")]
    pub slow_build_after: Duration,
    pub batch_max_records: usize,
    #[serde(with = "sluice_core::size")]
    pub batch_max_bytes: ByteSize,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ServeSection {
    #[serde(with = "humantime_serde")]
    pub poll_interval: Duration,
    #[serde(with = "humantime_serde")]
    pub discovery_interval: Duration,
    pub parallel_loads: usize,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CacheSection {
    #[serde(with = "sluice_core::size")]
    pub max_bytes: ByteSize,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GcSection {
    #[serde(with = "humantime_serde")]
    pub interval: Duration,
    pub retain: u32,
    #[serde(with = "humantime_serde")]
    pub grace: Duration,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ShutdownSection {
    #[serde(with = "humantime_serde")]
    pub deadline: Duration,
}

/// What is wrong with the configuration, a line per finding.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}", .0.join("\n"))]
pub struct ConfigError(pub Vec<String>);

impl ConfigError {
    pub fn kind(&self) -> ErrorKind {
        ErrorKind::Invalid
    }
}

/// Reads the defaults, then `files` in order, then `environment`, then `flags`; and checks the result.
///
/// # Errors
/// Every finding, by key and source.
pub fn load(files: &[PathBuf], environment: Environment, flags: Flags) -> Result<Config, ConfigError> {
    let texts = files.iter().map(|f| TomlText::read(f)).collect::<Result<Vec<_>, _>>();
    load_texts(texts.map_err(|e| ConfigError(vec![e]))?, environment, flags)
}

/// As [`load`], with texts in the place of files.
///
/// # Errors
/// Every finding, by key and source.
pub fn load_texts(
    texts: Vec<TomlText>,
    environment: Environment,
    flags: Flags,
) -> Result<Config, ConfigError> {
    let mut figment = Figment::from(TomlText::new("defaults", DEFAULTS));
    for text in texts {
        figment = figment.merge(text);
    }
    let figment = figment.merge(environment).merge(flags);
    let config: Config = figment.extract().map_err(|e| ConfigError(e.into_iter().map(describe).collect()))?;
    let findings = check::findings(&config);
    if findings.is_empty() {
        return Ok(config);
    }
    let located = findings.into_iter().map(|f| {
        match figment.find_metadata(f.key.split('[').next().unwrap_or(&f.key)) {
            Some(source) => format!("{}: {} (from {})", f.key, f.message, source.name),
            None => format!("{}: {}", f.key, f.message),
        }
    });
    Err(ConfigError(located.collect()))
}

fn describe(error: figment::Error) -> String {
    let key = error.path.join(".");
    let source = error.metadata.as_ref().map(|m| format!(" (from {})", m.name)).unwrap_or_default();
    if key.is_empty() { format!("{}{source}", error.kind) } else { format!("{key}: {}{source}", error.kind) }
}

impl Config {
    /// Where the local log stands.
    pub fn log_dir(&self) -> PathBuf {
        self.data_dir.join("log")
    }

    /// Where segments are cached.
    pub fn cache_dir(&self) -> PathBuf {
        self.data_dir.join("cache")
    }

    /// Where segments are built; emptied at start by the worker of each partition.
    pub fn scratch_dir(&self) -> PathBuf {
        self.data_dir.join("scratch")
    }

    /// What the connectors need to open the log.
    pub fn log_config(&self) -> LogConfig {
        match self.log.kind {
            LogKind::Local => LogConfig::Local { dir: self.log_dir() },
            LogKind::Kafka => LogConfig::Kafka {
                properties: self.log.kafka.expose().clone(),
                group: self.log.group.clone(),
                memory: ByteSize::b(self.limits.memory_shares().fetch as u64),
            },
        }
    }

    /// What the snapshotter needs to open the store.
    ///
    /// # Errors
    /// When the default directory's path is not UTF-8 or cannot be made absolute.
    pub fn store_config(&self) -> Result<StoreConfig, ConfigError> {
        let url =
            if self.store.url.is_empty() { directory_url(&self.data_dir)? } else { self.store.url.clone() };
        Ok(StoreConfig { url, options: self.options() })
    }

    fn options(&self) -> BTreeMap<String, String> {
        self.store.options.expose().clone()
    }

    /// The address at which a client on this machine finds the HTTP API.
    pub fn client_url(&self) -> String {
        let listen = self.http.listen;
        let ip = match listen.ip() {
            ip if !ip.is_unspecified() => ip,
            std::net::IpAddr::V4(_) => std::net::Ipv4Addr::LOCALHOST.into(),
            std::net::IpAddr::V6(_) => std::net::Ipv6Addr::LOCALHOST.into(),
        };
        format!("http://{}", SocketAddr::new(ip, listen.port()))
    }

    /// The whole as TOML, with secrets masked.
    ///
    /// # Errors
    /// When a path is not UTF-8.
    pub fn to_masked_toml(&self) -> Result<String, ConfigError> {
        toml::to_string_pretty(self).map_err(|e| ConfigError(vec![e.to_string()]))
    }
}

fn directory_url(data_dir: &Path) -> Result<String, ConfigError> {
    let refuse = |why: String| ConfigError(vec![format!("data_dir: {why}")]);
    let absolute = std::path::absolute(data_dir.join("store")).map_err(|e| refuse(e.to_string()))?;
    let text = absolute.to_str().ok_or_else(|| refuse("the path is not UTF-8; set store.url".into()))?;
    Ok(format!("file://{text}"))
}

/// How [`LimitsSection::memory`] is shared out, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MemoryShares {
    /// Records on their way and in growing sets.
    pub ingest: usize,
    /// Builds and merges, beyond their inputs.
    pub build: usize,
    /// Fetch buffers of the log's client.
    pub fetch: usize,
}

impl LimitsSection {
    /// The shares that `configs/sluice.toml` documents.
    pub fn memory_shares(&self) -> MemoryShares {
        let memory = usize::try_from(self.memory.as_u64()).unwrap_or(usize::MAX);
        MemoryShares { ingest: memory / 2, build: memory / 8 * 3, fetch: memory / 8 }
    }
}

#[cfg(test)]
mod tests;
