//! What a run of `bench segment` says: a line per system and number of threads, and the ratios at its end.

use serde::Serialize;
use serde_json::{Map, Value, json};
use sluice_core::Metric;

use super::curve::{Point, median, reaches};
use super::protocol::Built;
use crate::clock::Clock;

/// Systems of this product begin with this.
pub(crate) const OURS: &str = "sluice";

/// Ends the names of our systems that keep full vectors as 16-bit floats.
pub(crate) const F16: &str = "-f16";
/// The peer that everything is compared with.
const REFERENCE: &str = "hnswlib";

/// What was measured of one system with one number of threads.
#[derive(Debug, Clone)]
pub(crate) struct Measured {
    pub(crate) system: String,
    pub(crate) version: String,
    pub(crate) threads: usize,
    pub(crate) builds: Vec<Built>,
    pub(crate) points: Vec<Point>,
    /// Seconds of single queries.
    pub(crate) times: Vec<f64>,
    /// The ef of those.
    pub(crate) times_ef: usize,
}

/// What all lines of a run share.
#[derive(Debug, Clone)]
pub(crate) struct Set {
    pub(crate) name: String,
    pub(crate) rows: usize,
    pub(crate) dimension: usize,
    pub(crate) metric: Metric,
    pub(crate) clock: Clock,
}

#[derive(Debug, Clone, Serialize)]
pub(crate) struct Line {
    bench: &'static str,
    pub(crate) system: String,
    version: String,
    set: String,
    /// That build, and that search at once.
    pub(crate) threads: usize,
    rows: usize,
    dimension: usize,
    metric: Metric,
    /// By which all but `file_per_s` is told.
    clock: Clock,
    /// Of the index in memory.
    build_per_s: f64,
    /// By the wall, until the file is written and synced, where that is one step.
    file_per_s: Option<f64>,
    qps_90: Option<f64>,
    qps_95: Option<f64>,
    qps_99: Option<f64>,
    ef_90: Option<f64>,
    ef_95: Option<f64>,
    ef_99: Option<f64>,
    /// Of single queries at `latency_ef`, the smallest ef measured that gives 0.95.
    p50_us: f64,
    p99_us: f64,
    latency_ef: usize,
    ram_bytes_per_vector: f64,
    disk_bytes_per_vector: f64,
    peak_build_bytes_per_vector: f64,
    peak_allocated_bytes_per_vector: Option<f64>,
    degree: Option<f64>,
    pub(crate) curve: Vec<Point>,
}

impl Line {
    pub(crate) fn new(set: &Set, mut measured: Measured) -> Self {
        let rows = set.rows as f64;
        let of = |value: &dyn Fn(&Built) -> f64| {
            median(&mut measured.builds.iter().map(value).collect::<Vec<_>>())
        };
        let build_seconds = of(&|built| built.seconds);
        let file_seconds = of(&|built| built.file_seconds.unwrap_or_default());
        let peak = of(&|built| built.peak_bytes as f64);
        let last = measured.builds.last();
        let at = |recall| reaches(&measured.points, recall);
        let (at_90, at_95, at_99) = (at(0.90), at(0.95), at(0.99));
        measured.times.sort_unstable_by(f64::total_cmp);
        let percentile = |percent: usize| {
            let at = (measured.times.len() * percent).div_ceil(100).saturating_sub(1);
            measured.times.get(at).map_or(0.0, |seconds| seconds * 1e6)
        };
        Self {
            bench: "segment",
            version: measured.version.clone(),
            set: set.name.clone(),
            threads: measured.threads,
            rows: set.rows,
            dimension: set.dimension,
            metric: set.metric,
            clock: set.clock.of_threads(measured.threads),
            build_per_s: per_second(rows, build_seconds),
            file_per_s: (file_seconds > 0.0).then(|| per_second(rows, file_seconds)),
            qps_90: at_90.map(|at| at.qps),
            qps_95: at_95.map(|at| at.qps),
            qps_99: at_99.map(|at| at.qps),
            ef_90: at_90.map(|at| at.ef),
            ef_95: at_95.map(|at| at.ef),
            ef_99: at_99.map(|at| at.ef),
            p50_us: percentile(50),
            p99_us: percentile(99),
            latency_ef: measured.times_ef,
            ram_bytes_per_vector: last.map_or(0.0, |built| built.ram_bytes as f64 / rows),
            disk_bytes_per_vector: last.map_or(0.0, |built| built.disk_bytes as f64 / rows),
            peak_build_bytes_per_vector: peak / rows,
            peak_allocated_bytes_per_vector: last
                .and_then(|built| built.peak_allocated_bytes)
                .map(|bytes| bytes as f64 / rows),
            degree: last.and_then(|built| built.degree),
            system: measured.system,
            curve: measured.points,
        }
    }

    pub(crate) fn is_ours(&self) -> bool {
        self.system.starts_with(OURS)
    }
}

/// What is timed at less than a microsecond was not timed.
fn per_second(rows: f64, seconds: f64) -> f64 {
    rows / seconds.max(1e-6)
}

/// A figure that is compared: its name, how to read it, whether more of it is better.
type Figure = (&'static str, fn(&Line) -> Option<f64>, bool);

const FIGURES: [Figure; 7] = [
    ("build_per_s", |line| Some(line.build_per_s), true),
    ("file_per_s", |line| Some(line.file_per_s.unwrap_or(line.build_per_s)), true),
    ("qps_90", |line| line.qps_90, true),
    ("qps_95", |line| line.qps_95, true),
    ("qps_99", |line| line.qps_99, true),
    ("ram_bytes_per_vector", |line| Some(line.ram_bytes_per_vector), false),
    ("peak_build_bytes_per_vector", |line| Some(line.peak_build_bytes_per_vector), false),
];

/// Each of our lines over hnswlib's and over the best peer's of the same number of threads, figure by figure.
pub(crate) fn ratios(lines: &[Line]) -> Value {
    let compared = lines.iter().filter(|line| line.is_ours()).map(|ours| {
        let peers: Vec<&Line> = lines.iter().filter(|l| !l.is_ours() && l.threads == ours.threads).collect();
        let mut entry = Map::new();
        entry.insert("system".into(), json!(ours.system));
        entry.insert("threads".into(), json!(ours.threads));
        for (name, read, more_is_better) in FIGURES {
            let Some(value) = read(ours) else { continue };
            let mut figure = Map::new();
            if let Some(other) =
                peers.iter().find(|line| line.system == REFERENCE).and_then(|line| read(line))
            {
                figure.insert(format!("to_{REFERENCE}"), json!(value / other));
            }
            let known = peers.iter().filter_map(|line| Some((read(line)?, &line.system)));
            let best = known.reduce(|a, b| if (b.0 > a.0) == more_is_better { b } else { a });
            if let Some((other, system)) = best {
                figure.insert("to_best".into(), json!(value / other));
                figure.insert("best".into(), json!(system));
            }
            entry.insert(name.into(), Value::Object(figure));
        }
        Value::Object(entry)
    });
    json!({ "ratios": compared.collect::<Vec<_>>() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(system: &str, threads: usize, seconds: f64, ram_bytes: u64, qps: f64) -> Line {
        let built = Built {
            seconds,
            file_seconds: None,
            peak_bytes: 1000,
            peak_allocated_bytes: None,
            ram_bytes,
            disk_bytes: 0,
            degree: None,
        };
        let set = Set { name: "x".into(), rows: 100, dimension: 2, metric: Metric::L2, clock: Clock::Wall };
        let measured = Measured {
            system: system.into(),
            version: String::new(),
            threads,
            builds: vec![built],
            points: vec![Point { ef: 10, recall: 0.97, qps }],
            times: (1..=100).map(|n| f64::from(n) * 1e-6).collect(),
            times_ef: 10,
        };
        Line::new(&set, measured)
    }

    #[test]
    fn a_line_says_per_second_and_per_vector() {
        let line = line("a", 1, 2.0, 700, 50.0);
        assert_eq!((line.build_per_s, line.ram_bytes_per_vector), (50.0, 7.0));
        assert_eq!((line.qps_95, line.qps_99), (Some(50.0), None));
        assert!((line.p50_us - 50.0).abs() < 1e-9 && (line.p99_us - 99.0).abs() < 1e-9);
    }

    #[test]
    fn ratios_are_to_hnswlib_and_to_the_best_peer_of_the_same_threads() {
        let lines = [
            line("sluice-bulk", 1, 1.0, 100, 300.0),
            line("hnswlib", 1, 10.0, 400, 100.0),
            line("faiss", 1, 5.0, 200, 50.0),
            line("svs", 2, 0.1, 1, 9999.0),
        ];
        let ratios = &ratios(&lines)["ratios"][0];
        assert_eq!(ratios["system"], "sluice-bulk");
        assert_eq!(ratios["build_per_s"], json!({"to_hnswlib": 10.0, "to_best": 5.0, "best": "faiss"}));
        assert_eq!(ratios["qps_95"], json!({"to_hnswlib": 3.0, "to_best": 3.0, "best": "hnswlib"}));
        assert_eq!(
            ratios["ram_bytes_per_vector"],
            json!({"to_hnswlib": 0.25, "to_best": 0.5, "best": "faiss"})
        );
        assert!(ratios.get("qps_99").is_none());
    }
}
