//! `doctor`: tries everything that a deployment stands on, and says what to do about each thing that does not stand.

mod placement;

use std::fmt::Display;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use sluice_connectors::Log;
use sluice_core::{Clock, IndexSpec, PartitionId, PartitionRef, SystemClock, TopicName, TopicPartition};
use sluice_snapshotter::{Chain, Registry, Store, StoredSpec};

use super::CliError;
use super::client::without_needless_roots;
use super::options::Common;
use super::output::Output;
use crate::config::{Config, LogKind};
use crate::index::advice;
use crate::topology::open_store;

pub(super) const EXAMPLES: &str = "\
Exit code 1 when a check failed; a warning is no failure.

Examples:
  sluice doctor
  sluice doctor --config prod.toml
  sluice doctor --config prod.toml --json";

/// Each check may take so long.
const LIMIT: Duration = Duration::from_secs(20);
/// Less free disk than this is told.
const LOW_DISK: u64 = 2 << 30;
/// Clocks that differ by more than this are told: ages and lags in seconds are wrong by as much.
const CLOCK_SKEW: f64 = 5.0;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Verdict {
    Ok,
    Warning,
    Failed,
}

/// What one check found.
#[derive(Debug, Serialize)]
struct Check {
    name: String,
    verdict: Verdict,
    found: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    advice: Option<String>,
}

#[derive(Debug, Default, Serialize)]
struct Examination {
    checks: Vec<Check>,
}

impl Examination {
    fn add(&mut self, name: impl Into<String>, verdict: Verdict, found: impl Display, advice: Option<&str>) {
        let (name, found) = (name.into(), found.to_string());
        self.checks.push(Check { name, verdict, found, advice: advice.map(str::to_owned) });
    }

    fn ok(&mut self, name: impl Into<String>, found: impl Display) {
        self.add(name, Verdict::Ok, found, None);
    }

    fn failed(&mut self, name: impl Into<String>, found: impl Display, advice: &str) {
        self.add(name, Verdict::Failed, found, Some(advice));
    }

    fn warning(&mut self, name: impl Into<String>, found: impl Display, advice: &str) {
        self.add(name, Verdict::Warning, found, Some(advice));
    }
}

pub(super) async fn run(common: &Common, out: Output) -> Result<ExitCode, CliError> {
    let mut exam = Examination::default();
    match common.load() {
        Ok(config) => {
            exam.ok("configuration", format!("{} indexes, log {:?}", config.indexes.len(), config.log.kind));
            examine(&config, &mut exam).await;
        }
        Err(error) => exam.failed(
            "configuration",
            error,
            "correct it; `sluice check-config --defaults` lists every key",
        ),
    }
    let healthy = exam.checks.iter().all(|c| c.verdict != Verdict::Failed);
    out.print(&exam, render)?;
    Ok(if healthy { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

async fn examine(config: &Config, exam: &mut Examination) {
    check_data_dir(config, exam);
    check_memory(config, exam);
    let store = check_store(config, exam).await;
    check_clock(config, exam).await;
    let stored = match &store {
        Some(store) => check_registry(config, store, exam).await,
        None => Vec::new(),
    };
    let Some(log) = check_log(config, exam).await else { return };
    for spec in specs(config, &stored) {
        check_topic(&log, &spec, exam).await;
        placement::check(config, &log, &spec, exam).await;
    }
    if let Some(store) = &store {
        for stored in &stored {
            check_partitions(&log, store, stored, exam).await;
        }
    }
}

/// The specs that are stored, and those of the configuration that are not stored yet.
fn specs(config: &Config, stored: &[StoredSpec]) -> Vec<IndexSpec> {
    let new = config.indexes.iter().filter(|spec| stored.iter().all(|s| s.spec.name != spec.name));
    stored.iter().map(|s| &s.spec).chain(new).cloned().collect()
}

/// `work` within the time of a check.
async fn within<T, E: Display>(work: impl Future<Output = Result<T, E>>) -> Result<T, String> {
    match tokio::time::timeout(LIMIT, work).await {
        Ok(result) => result.map_err(|e| e.to_string()),
        Err(_) => Err(format!("no answer within {} s", LIMIT.as_secs())),
    }
}

fn check_data_dir(config: &Config, exam: &mut Examination) {
    let dir = &config.data_dir;
    let writable = std::fs::create_dir_all(dir).and_then(|()| {
        let probe = dir.join(format!(".doctor-{}", std::process::id()));
        std::fs::write(&probe, b"x").and_then(|()| std::fs::remove_file(&probe))
    });
    match writable {
        Ok(()) => exam.ok("data_dir", format!("{} is writable", dir.display())),
        Err(e) => exam.failed(
            "data_dir",
            format!("{}: {e}", dir.display()),
            "give a directory that this user may write",
        ),
    }
    match free_bytes(dir) {
        Ok(free) if free < LOW_DISK => exam.warning(
            "disk",
            format!("{} free at {}", super::output::size(free), dir.display()),
            "caches, builds and the local log need room: free some, or move data_dir; cache.max_bytes bounds the cache",
        ),
        Ok(free) => exam.ok("disk", format!("{} free", super::output::size(free))),
        Err(e) => exam.warning("disk", format!("free space not known: {e}"), "check it by hand"),
    }
}

fn free_bytes(dir: &Path) -> std::io::Result<u64> {
    let stat = rustix::fs::statvfs(dir)?;
    Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
}

fn check_memory(config: &Config, exam: &mut Examination) {
    let text = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let total = text.lines().find_map(|l| l.strip_prefix("MemTotal:")).and_then(|rest| {
        rest.trim().trim_end_matches(" kB").parse::<u64>().ok().map(|kib| kib.saturating_mul(1024))
    });
    let asked = config.limits.memory.as_u64();
    match total {
        Some(total) if asked > total / 4 * 3 => exam.warning(
            "memory",
            format!(
                "limits.memory is {}, the machine has {}",
                config.limits.memory,
                super::output::size(total)
            ),
            "leave a quarter of the machine to programs and to the file cache that searches read from",
        ),
        _ => exam.ok("memory", format!("limits.memory is {}", config.limits.memory)),
    }
}

async fn check_store(config: &Config, exam: &mut Examination) -> Option<Store> {
    let store = match open_store(config) {
        Ok(store) => store,
        Err(error) => {
            exam.failed("store", error, "correct [store] in the configuration");
            return None;
        }
    };
    match within(store.probe()).await {
        Ok(()) => exam.ok("store", "reachable, and creates an object only when it is absent"),
        Err(error) => {
            exam.failed(
                "store",
                error,
                "check url, credentials (AWS_* variables or store.options), endpoint, region and that the bucket \
                 exists; a store that ignores If-None-Match cannot be used",
            );
            return None;
        }
    }
    Some(store)
}

/// Compares this machine's clock with the store's, by the Date header of an answer.
async fn check_clock(config: &Config, exam: &mut Examination) {
    let options = config.store.options.expose();
    let endpoint =
        options.iter().find(|(k, _)| k.to_ascii_lowercase().ends_with("endpoint")).map(|(_, v)| v.clone());
    let endpoint = endpoint.or_else(|| {
        ["AWS_ENDPOINT", "AWS_ENDPOINT_URL"].into_iter().find_map(|name| std::env::var(name).ok())
    });
    if !config.store.url.starts_with("s3://") {
        exam.ok("clock", "the store is a directory of this machine");
        return;
    }
    let url = endpoint.unwrap_or_else(|| "https://s3.amazonaws.com".into());
    let request = async {
        let client = without_needless_roots(reqwest::Client::builder(), &url).timeout(LIMIT).build()?;
        client.head(&url).send().await
    };
    let date = match within(request).await {
        Ok(response) => response.headers().get("date").and_then(|d| d.to_str().ok()).and_then(parse_date),
        Err(_) => None,
    };
    let now = SystemClock.now().0 as f64 / 1000.0;
    match date.map(|date| date - now) {
        None => exam.warning("clock", "the store tells no time", "check that NTP runs on every machine"),
        Some(skew) if skew.abs() > CLOCK_SKEW => exam.warning(
            "clock",
            format!("this machine's clock is off by {skew:.0} s from the store's"),
            "run NTP: requests with a wrong time are refused by S3, and ages and lags in seconds are wrong",
        ),
        Some(skew) => exam.ok("clock", format!("within {:.0} s of the store's", skew.abs().ceil())),
    }
}

/// Seconds since the epoch of an HTTP date.
fn parse_date(text: &str) -> Option<f64> {
    let zoned = jiff::fmt::rfc2822::parse(&text.replace("GMT", "+0000")).ok()?;
    Some(zoned.timestamp().as_second() as f64)
}

async fn check_registry(config: &Config, store: &Store, exam: &mut Examination) -> Vec<StoredSpec> {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let stored = match within(Registry::new(store.clone(), clock).list()).await {
        Ok(stored) => stored,
        Err(error) => {
            exam.failed("indexes", error, "run `sluice scrub`");
            return Vec::new();
        }
    };
    exam.ok("indexes", format!("{} in the store", stored.len()));
    for given in &config.indexes {
        let Some(found) = stored.iter().find(|s| s.spec.name == given.name) else { continue };
        let mut given = given.clone();
        given.partitions = found.spec.partitions;
        let differs = found.spec.differences(&given).into_iter().filter(|d| !d.in_place);
        let differs: Vec<_> = differs.map(|d| d.to_string()).collect();
        if !differs.is_empty() {
            exam.failed(
                format!("index {}", given.name),
                differs.join("; "),
                "make the file agree with the store, or retire the index and create it anew",
            );
        }
    }
    stored
}

async fn check_log(config: &Config, exam: &mut Examination) -> Option<Log> {
    let what = match config.log.kind {
        LogKind::Local => format!("local, in {}", config.log_dir().display()),
        LogKind::Kafka => "kafka".into(),
    };
    let advice = match config.log.kind {
        LogKind::Local => "free the file, or give another data_dir",
        LogKind::Kafka => {
            "check bootstrap.servers, security.protocol and credentials in [log.kafka], and the network"
        }
    };
    let log = match within(Log::open(&config.log_config())).await {
        Ok(log) => log,
        Err(error) => {
            exam.failed("log", format!("{what}: {error}"), advice);
            return None;
        }
    };
    // any name will do to see whether it answers
    let asked = TopicName::new("sluice-doctor");
    match asked {
        Ok(topic) => match within(log.source.partitions(&topic)).await {
            Ok(_) => exam.ok("log", format!("{what}: answers")),
            Err(error) => {
                exam.failed("log", format!("{what}: {error}"), advice);
                return None;
            }
        },
        Err(error) => exam.failed("log", error, advice),
    }
    Some(log)
}

async fn check_topic(log: &Log, spec: &IndexSpec, exam: &mut Examination) {
    let (name, topic) = (format!("topic {}", spec.topic()), spec.topic());
    match within(log.source.partitions(&topic)).await {
        Ok(None) => exam.warning(
            name,
            "does not exist",
            "an indexer creates it when it starts; create it yourself to choose replication and retention",
        ),
        Ok(Some(found)) if found != spec.partitions => exam.failed(
            name,
            format!("has {found} partitions, index {} was made for {}", spec.name, spec.partitions),
            "a key could live in two partitions: restore the number, or retire the index and create it anew",
        ),
        Ok(Some(found)) => exam.ok(name, format!("{found} partitions, as index {} has", spec.name)),
        Err(error) => exam.failed(name, error, "check the log's permissions"),
    }
}

/// Compares what is published with what the log still holds.
async fn check_partitions(log: &Log, store: &Store, stored: &StoredSpec, exam: &mut Examination) {
    let (index, now) = (stored.spec.name.clone(), SystemClock.now());
    let (mut problems, mut lag) = (0, 0u64);
    for partition in (0..stored.spec.partitions).map(PartitionId) {
        let at = TopicPartition { topic: stored.spec.topic(), partition };
        let name = format!("index {index} partition {partition}");
        let chain = PartitionRef { index: index.clone(), generation: stored.generation, partition };
        let newest = match within(Chain::new(store.clone(), chain).newest()).await {
            Ok(newest) => newest,
            Err(error) => {
                problems += 1;
                exam.failed(
                    name,
                    error,
                    advice(sluice_core::ErrorKind::Corrupt).unwrap_or("run `sluice scrub`"),
                );
                continue;
            }
        };
        let (Some(newest), Ok(bounds)) = (newest, within(log.source.bounds(&at)).await) else { continue };
        lag += bounds.end.get().saturating_sub(newest.next_offset.get());
        if newest.next_offset < bounds.start {
            problems += 1;
            let found = format!("offsets {} to {} are gone from the log", newest.next_offset, bounds.start);
            exam.failed(name, found, advice(sluice_core::ErrorKind::LogTruncated).unwrap_or_default());
        } else if newest.next_offset > bounds.end {
            problems += 1;
            let found = format!("published to {}, but the log ends at {}", newest.next_offset, bounds.end);
            exam.failed(name, found, advice(sluice_core::ErrorKind::Conflict).unwrap_or_default());
        } else if newest.created_at.seconds_since(now) > CLOCK_SKEW {
            problems += 1;
            let found = format!("its newest manifest is from the future: {}", newest.created_at);
            exam.warning(name, found, "clocks differ: run NTP on every machine");
        }
    }
    if problems == 0 {
        exam.ok(format!("index {index}"), format!("every partition fits its log, {lag} records behind"));
    }
}

fn render(exam: &Examination) -> String {
    let mut text = String::new();
    for check in &exam.checks {
        let mark = match check.verdict {
            Verdict::Ok => "ok     ",
            Verdict::Warning => "warning",
            Verdict::Failed => "FAILED ",
        };
        text.push_str(&format!("{mark}  {}: {}\n", check.name, check.found));
        if let Some(advice) = &check.advice {
            text.push_str(&format!("         what to do: {advice}\n"));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn http_dates_are_read() {
        assert_eq!(parse_date("Thu, 01 Jan 1970 00:01:00 GMT"), Some(60.0));
        assert_eq!(parse_date("nonsense"), None);
    }

    #[test]
    fn free_space_is_known_here() {
        assert!(free_bytes(Path::new("/")).unwrap() > 0);
    }
}
