//! Test programs: built by cargo, then run one test at a time, so that a test that hangs can be ended.

use std::fmt;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use super::patch::Program;
use crate::shell::{cargo, output, root};

/// No test that is named for a planted bug takes so long.
const LIMIT: Duration = Duration::from_secs(240);

/// How a test ended.
pub(super) enum Ended {
    Passed,
    /// By an assertion or another panic of its own.
    Failed,
    /// The program has no such test.
    Unknown,
    Hung,
    /// The program ended without a word about the test.
    Crashed,
}

impl fmt::Display for Ended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Passed => "it passes",
            Self::Failed => "it fails",
            Self::Unknown => "there is no such test",
            Self::Hung => "it hangs",
            Self::Crashed => "its program crashed",
        })
    }
}

/// A test program that was built, and the folder of its package.
pub(super) struct Programs(Vec<(PathBuf, PathBuf)>);

impl Programs {
    /// Builds `program` with the features that the whole workspace gives its dependencies, as all tests are built:
    /// those of one package alone would have them compiled a second time.
    pub(super) fn build(program: &Program) -> Result<Self> {
        let mut build = cargo(&["test", "--workspace", "--quiet", "--no-run"]);
        build.arg("--message-format=json-render-diagnostics").args(&program.target);
        let of_package = format!("#{}@", program.package);
        let mut programs = Vec::new();
        for line in output(build)?.lines() {
            let message: Value = serde_json::from_str(line)?;
            let ours = message["package_id"].as_str().is_some_and(|id| id.contains(&of_package));
            if message["profile"]["test"] != true || !ours {
                continue;
            }
            let text = |v: &Value| v.as_str().map(PathBuf::from);
            if let (Some(program), Some(manifest)) =
                (text(&message["executable"]), text(&message["manifest_path"]))
            {
                programs.push((program, manifest.parent().unwrap_or(Path::new(".")).to_owned()));
            }
        }
        if programs.is_empty() {
            bail!("-p {} {}: no test program", program.package, program.target.join(" "))
        }
        Ok(Self(programs))
    }

    /// Runs the test with this whole name.
    pub(super) fn run(&self, test: &str, interrupted: &AtomicBool) -> Result<Ended> {
        for (program, folder) in &self.0 {
            match run_one(program, folder, test, interrupted)? {
                Ended::Unknown => {}
                ended => return Ok(ended),
            }
        }
        Ok(Ended::Unknown)
    }
}

fn run_one(program: &Path, folder: &Path, test: &str, interrupted: &AtomicBool) -> Result<Ended> {
    let log = root().join("target/planted/test.log");
    std::fs::create_dir_all(root().join("target/planted"))?;
    let file = File::create(&log)?;
    let mut child = Command::new(program)
        .args([test, "--exact", "--include-ignored"])
        .current_dir(folder)
        .env("RUST_BACKTRACE", "0")
        .stdin(Stdio::null())
        .stderr(Stdio::from(file.try_clone()?))
        .stdout(Stdio::from(file))
        .spawn()
        .with_context(|| program.display().to_string())?;
    let since = Instant::now();
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break status;
        }
        let hangs = since.elapsed() > LIMIT;
        if hangs || interrupted.load(Ordering::Relaxed) {
            child.kill()?;
            child.wait()?;
            if hangs {
                return Ok(Ended::Hung);
            }
            bail!("interrupted");
        }
        std::thread::sleep(Duration::from_millis(20));
    };
    Ok(verdict(&String::from_utf8_lossy(&std::fs::read(&log)?), test, status.success()))
}

/// What the harness said of `test`.
fn verdict(said: &str, test: &str, success: bool) -> Ended {
    let line =
        |end: &str| said.lines().any(|line| line.starts_with(&format!("test {test}")) && line.ends_with(end));
    if line("... ok") && success {
        Ended::Passed
    } else if said.contains("running 0 tests") && success {
        Ended::Unknown
    } else if said.contains(&format!("\n    {test}\n")) && said.contains("test result: FAILED") {
        Ended::Failed
    } else {
        Ended::Crashed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_harness_says_is_read() {
        let passed = "running 1 test\ntest a::b ... ok\n\ntest result: ok. 1 passed\n";
        assert!(matches!(verdict(passed, "a::b", true), Ended::Passed));
        let failed =
            "running 1 test\ntest a::b ... FAILED\n\nfailures:\n    a::b\n\ntest result: FAILED. 0 passed\n";
        assert!(matches!(verdict(failed, "a::b", false), Ended::Failed));
        let none = "running 0 tests\n\ntest result: ok. 0 passed\n";
        assert!(matches!(verdict(none, "a::b", true), Ended::Unknown));
        assert!(matches!(verdict("running 1 test\n", "a::b", false), Ended::Crashed));
    }
}
