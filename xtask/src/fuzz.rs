//! `cargo xtask fuzz`: builds the fuzz targets of the segment format with coverage and the address sanitizer, and runs
//! each for a while.
//!
//! The pinned stable toolchain does it: `RUSTC_BOOTSTRAP` lets it take the flags, and libFuzzer comes as a crate.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Result, bail};

use crate::report::Report;
use crate::shell::{cargo, command, root, run};

/// A target, and its longest input in bytes.
struct Target {
    name: &'static str,
    longest: u32,
}

const TARGETS: [Target; 3] = [
    Target { name: "segment_open", longest: 65_536 },
    Target { name: "segment_footer", longest: 65_536 },
    Target { name: "segment_roundtrip", longest: 2048 },
];

/// What is compiled in: coverage of every edge and of comparisons, and a check of every access to memory.
const RUSTFLAGS: &str = "-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
    -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
    -Cllvm-args=-sanitizer-coverage-trace-compares -Ccodegen-units=1 --cfg fuzzing -Zsanitizer=address";
/// Has a folder of segments for every released form: more to start from.
const RELEASED: &str = "libs/segment/tests/compat_data";
const TRIPLE: &str = "x86_64-unknown-linux-gnu";

/// Runs `targets`, or all, each for `seconds`.
pub(crate) fn fuzz(targets: &[String], seconds: u64) -> Result<()> {
    if let Some(unknown) = targets.iter().find(|name| TARGETS.iter().all(|t| t.name != **name)) {
        bail!("there is no fuzz target {unknown}; there are {}", TARGETS.map(|t| t.name).join(", "));
    }
    let mut report = Report::default();
    if report.step("build", build) {
        let chosen = |t: &&Target| targets.is_empty() || targets.iter().any(|name| name == t.name);
        for target in TARGETS.iter().filter(chosen) {
            report.step(target.name, || fuzz_one(target, seconds));
        }
    }
    report.finish()
}

fn build() -> Result<()> {
    let mut build = cargo(&["build", "--release", "--target", TRIPLE]);
    build
        .args(["--manifest-path", "libs/segment/fuzz/Cargo.toml", "--target-dir", "target/fuzz"])
        .env("RUSTC_BOOTSTRAP", "1")
        .env("RUSTFLAGS", RUSTFLAGS);
    run(build)
}

fn program(target: &str) -> PathBuf {
    root().join("target/fuzz").join(TRIPLE).join("release").join(target)
}

/// What the target starts from, in the repository.
fn kept(target: &str) -> PathBuf {
    root().join("libs/segment/fuzz/corpus").join(target)
}

/// What it found on this machine.
fn found(target: &str) -> PathBuf {
    root().join("target/fuzz/corpus").join(target)
}

/// A folder for each released form.
fn released() -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(root().join(RELEASED))?;
    let mut folders: Vec<PathBuf> = entries.map(|entry| Ok(entry?.path())).collect::<Result<_>>()?;
    folders.retain(|path| path.is_dir());
    folders.sort();
    if folders.is_empty() {
        bail!("there is no released form in {RELEASED}");
    }
    Ok(folders)
}

fn fuzz_one(target: &Target, seconds: u64) -> Result<()> {
    let crashes = root().join("target/fuzz/crashes").join(target.name);
    for folder in [&crashes, &found(target.name), &kept(target.name)] {
        fs::create_dir_all(folder)?;
    }
    let mut fuzzer = command(program(target.name), &[]);
    fuzzer.arg(found(target.name)).arg(kept(target.name));
    if target.name == "segment_open" {
        for form in released()? {
            fuzzer.arg(form);
        }
    }
    fuzzer
        .args([format!("-max_total_time={seconds}"), format!("-max_len={}", target.longest)])
        .args(["-len_control=0", "-timeout=10", "-rss_limit_mb=2048", "-malloc_limit_mb=64"])
        .args(["-print_final_stats=1", "-reload=0"])
        .arg(format!("-artifact_prefix={}/", crashes.display()));
    // files are written and synced in every run
    let scratch = Path::new("/dev/shm");
    if scratch.is_dir() {
        fuzzer.env("TMPDIR", scratch);
    }
    run(fuzzer)
}
