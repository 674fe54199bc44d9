//! `cargo xtask miri`: the portable unsafe code and all around it under miri, which finds undefined behaviour.

use anyhow::{Context, Result};

use crate::shell::{command, run};

/// What miri can run in minutes: no mapped files, no vector instructions, no graph builder.
const TESTS: &[&[&str]] = &[
    &["-p", "sluice-core", "--lib"],
    &["-p", "sluice-segment", "--test", "portable"],
    &["-p", "sluice-segment", "--lib", "mapping"],
];

pub(crate) fn check() -> Result<()> {
    for selected in TESTS {
        let mut miri = command("rustup", &["run", "nightly", "cargo", "miri", "test"]);
        miri.args(*selected)
            // files are read and written, and crossbeam needs the newer aliasing model
            .env("MIRIFLAGS", "-Zmiri-disable-isolation -Zmiri-tree-borrows")
            .env("PROPTEST_CASES", "4")
            .env_remove("CARGO")
            .env_remove("RUSTC");
        run(miri).context("once: rustup toolchain install nightly --component miri,rust-src")?;
    }
    Ok(())
}
