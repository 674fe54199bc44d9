//! `cargo xtask fuzz`: builds the fuzz targets of the segment format with coverage and the address sanitizer, and runs
//! each for a while.
//!
//! The pinned stable toolchain does it: `RUSTC_BOOTSTRAP` lets it take the flags, and libFuzzer comes as a crate.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Result, bail};

use crate::report::Report;
use crate::shell::{cargo, command, root, run};

const TARGETS: &[&str] = &["segment_open", "segment_footer", "segment_roundtrip"];

/// What is compiled in: coverage of every edge and of comparisons, and a check of every access to memory.
const RUSTFLAGS: &str = "-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
    -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
    -Cllvm-args=-sanitizer-coverage-trace-compares -Ccodegen-units=1 --cfg fuzzing -Zsanitizer=address";
/// Segments of every released form: more to start from.
const RELEASED: [&str; 2] = ["libs/segment/tests/compat_data/v1", "libs/segment/tests/compat_data/v1_codes"];
pub(crate) const TRIPLE: &str = "x86_64-unknown-linux-gnu";

/// Runs `targets`, or all, each for `seconds`; with `keep` what reached new code joins the kept corpus.
pub(crate) fn fuzz(targets: &[String], seconds: u64, keep: bool) -> Result<()> {
    if let Some(unknown) = targets.iter().find(|t| !TARGETS.contains(&t.as_str())) {
        bail!("there is no fuzz target {unknown}; there are {}", TARGETS.join(", "));
    }
    let mut report = Report::default();
    if report.step("build", build) {
        for target in TARGETS.iter().filter(|t| targets.is_empty() || targets.iter().any(|name| name == **t))
        {
            let passed = report.step(target, || fuzz_one(target, seconds));
            if passed && keep {
                report.step(&format!("{target}: the corpus"), || keep_corpus(target));
            }
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

fn fuzz_one(target: &str, seconds: u64) -> Result<()> {
    let crashes = root().join("target/fuzz/crashes").join(target);
    for folder in [&crashes, &found(target), &kept(target)] {
        fs::create_dir_all(folder)?;
    }
    // files are written and synced in a target's every run
    let scratch = Path::new("/dev/shm");
    let mut fuzzer = command(program(target), &[]);
    fuzzer.arg(found(target)).arg(kept(target));
    if target == "segment_open" {
        fuzzer.args(RELEASED);
    }
    fuzzer
        .args([&format!("-max_total_time={seconds}"), "-max_len=65536", "-timeout=10"])
        .args(["-rss_limit_mb=2048", "-malloc_limit_mb=64", "-print_final_stats=1", "-reload=0"])
        .arg(format!("-artifact_prefix={}/", crashes.display()))
        .env("RAYON_NUM_THREADS", "2");
    if scratch.is_dir() {
        fuzzer.env("TMPDIR", scratch);
    }
    run(fuzzer)
}

/// Takes over from what was found whatever reaches code that the kept corpus does not.
fn keep_corpus(target: &str) -> Result<()> {
    let mut merge = command(program(target), &["-merge=1", "-max_len=65536"]);
    merge.arg(kept(target)).arg(found(target));
    run(merge)
}
