//! What each step came to, and the table at the end.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};

/// How a step ended.
pub(crate) enum Outcome {
    Passed,
    Failed(String),
    Skipped(String),
}

struct Step {
    name: String,
    outcome: Outcome,
    took: Duration,
}

/// The steps of one run, in order.
#[derive(Default)]
pub(crate) struct Report(Vec<Step>);

impl Report {
    /// Announces and runs one step. A failure is noted, and the steps after it still run.
    pub(crate) fn step(&mut self, name: &str, work: impl FnOnce() -> Result<()>) -> bool {
        eprintln!("==> {name}");
        let started = Instant::now();
        let outcome = match work() {
            Ok(()) => Outcome::Passed,
            Err(error) => {
                eprintln!("    {error:#}");
                // the first line is enough for the table; the rest was just printed
                Outcome::Failed(format!("{error:#}").lines().next().unwrap_or_default().to_owned())
            }
        };
        let passed = matches!(outcome, Outcome::Passed);
        self.0.push(Step { name: name.to_owned(), outcome, took: started.elapsed() });
        passed
    }

    /// Notes a step that could not run.
    pub(crate) fn skip(&mut self, name: &str, reason: &str) {
        eprintln!("==> {name}\n    skipped: {reason}");
        let outcome = Outcome::Skipped(reason.to_owned());
        self.0.push(Step { name: name.to_owned(), outcome, took: Duration::ZERO });
    }

    /// Prints the table. Fails when a step failed, or when one was skipped and `CI=true` says that none may be.
    pub(crate) fn finish(self) -> Result<()> {
        let width = self.0.iter().map(|s| s.name.len()).max().unwrap_or(0);
        println!("\n{:-<w$}", "", w = width + 30);
        for step in &self.0 {
            let (word, reason) = match &step.outcome {
                Outcome::Passed => ("ok", ""),
                Outcome::Failed(reason) => ("FAILED", reason.as_str()),
                Outcome::Skipped(reason) => ("skipped", reason.as_str()),
            };
            let line =
                format!("{:<width$}  {word:<8}{:>7.1} s  {reason}", step.name, step.took.as_secs_f64());
            println!("{}", line.trim_end());
        }
        let failed = self.0.iter().filter(|s| matches!(s.outcome, Outcome::Failed(_))).count();
        let skipped = self.0.iter().filter(|s| matches!(s.outcome, Outcome::Skipped(_))).count();
        if failed > 0 {
            bail!("{failed} of {} steps failed", self.0.len());
        }
        if skipped > 0 && std::env::var("CI").is_ok_and(|v| v == "true") {
            bail!("{skipped} of {} steps were skipped, which CI=true forbids", self.0.len());
        }
        Ok(())
    }
}
