//! The memory of a process as the kernel counts it, sampled from outside.

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

const EVERY: Duration = Duration::from_millis(50);

/// Resident bytes at one moment.
#[derive(Clone, Copy)]
struct Sample {
    at: Duration,
    /// Heap and stacks: what the process cannot give back to the system by itself.
    anonymous: u64,
    /// Mapped files, segments and the program among them: the system drops these pages when it needs them.
    file: u64,
}

/// Samples one process until it is told to stop.
pub(crate) struct Watch {
    name: &'static str,
    since: Instant,
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Vec<Sample>>,
}

/// What was sampled.
pub(crate) struct History {
    name: &'static str,
    samples: Vec<Sample>,
}

impl Watch {
    pub(crate) fn start(name: &'static str, pid: u32) -> Self {
        let (since, stop) = (Instant::now(), Arc::new(AtomicBool::new(false)));
        let told = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            let mut samples = Vec::new();
            while !told.load(Ordering::Relaxed) {
                samples.extend(sample(pid, since.elapsed()));
                std::thread::sleep(EVERY);
            }
            samples
        });
        Self { name, since, stop, thread }
    }

    /// The time on this watch, for [`History::mean`].
    pub(crate) fn now(&self) -> Duration {
        self.since.elapsed()
    }

    pub(crate) fn finish(self) -> History {
        self.stop.store(true, Ordering::Relaxed);
        let samples = self.thread.join().unwrap();
        assert!(samples.len() > 10, "{} was sampled {} times only", self.name, samples.len());
        History { name: self.name, samples }
    }
}

/// `None` when the process has ended.
fn sample(pid: u32, at: Duration) -> Option<Sample> {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let field = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name))?;
        Some(line.trim_start_matches(':').split_whitespace().next()?.parse::<u64>().ok()? << 10)
    };
    Some(Sample { at, anonymous: field("RssAnon")?, file: field("RssFile")? })
}

impl History {
    /// The largest anonymous memory, in bytes.
    pub(crate) fn peak(&self) -> u64 {
        self.samples.iter().map(|s| s.anonymous).max().unwrap()
    }

    /// The mean of the anonymous memory between two times of the watch, in bytes.
    pub(crate) fn mean(&self, from: Duration, to: Duration) -> f64 {
        let within: Vec<_> = self.samples.iter().filter(|s| s.at >= from && s.at < to).collect();
        assert!(!within.is_empty(), "{} has no sample between {from:?} and {to:?}", self.name);
        within.iter().map(|s| s.anonymous as f64).sum::<f64>() / within.len() as f64
    }

    /// One line for the log of the test.
    pub(crate) fn describe(&self) -> String {
        let mib = |bytes: u64| bytes.div_ceil(1 << 20);
        let file = self.samples.iter().map(|s| s.file).max().unwrap();
        let last = self.samples.last().unwrap().anonymous;
        format!(
            "{}: anonymous peak {} MiB, at the end {} MiB; mapped files peak {} MiB; {} samples",
            self.name,
            mib(self.peak()),
            mib(last),
            mib(file),
            self.samples.len()
        )
    }
}
