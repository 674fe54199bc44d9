//! `cargo xtask arm`: the segment engine on 64-bit Arm, under qemu, where the NEON kernels are what is tested.

use anyhow::{Context, Result};

use crate::shell::{cargo, run};

const TARGET: &str = "aarch64-unknown-linux-gnu";

/// Kernels against the plain ones at all lengths, the way of a record, and segments that another machine wrote.
const TESTS: &[&[&str]] = &[
    &["--lib", "kernels"],
    &["--lib", "codes"],
    &["--test", "portable"],
    &["--test", "half"],
    &["--test", "compat"],
];

pub(crate) fn check() -> Result<()> {
    for selected in TESTS {
        let mut test = cargo(&["test", "--package", "sluice-segment", "--target", TARGET]);
        test.args(*selected)
            .env("CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER", "aarch64-linux-gnu-gcc")
            .env("CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_RUNNER", "qemu-aarch64 -L /usr/aarch64-linux-gnu");
        run(test).with_context(|| {
            format!("once: rustup target add {TARGET}; apt-get install qemu-user gcc-aarch64-linux-gnu libc6-dev-arm64-cross")
        })?;
    }
    Ok(())
}
