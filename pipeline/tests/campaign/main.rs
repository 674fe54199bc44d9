//! The kill campaign (FOLD-1): real processes, killed at random moments and at every failpoint; what is served stays
//! the fold of the log.
//!
//! `cargo test --test campaign` runs the short form: on the local log with a directory, and on the servers that
//! SLUICE_TEST_KAFKA and SLUICE_TEST_S3_URL (with AWS_*) name. `cargo xtask campaign` starts the servers and runs the
//! long form. Every decision comes from `--seed`: what is killed, after which progress, and what was written before.

#![allow(clippy::unwrap_used, reason = "a campaign that cannot go on fails, with the place")]

mod changes;
mod plan;
mod run;
mod side;
mod tally;

#[allow(dead_code, unused_imports, unused_macros, reason = "the end-to-end tests use all of it")]
#[path = "../e2e/support/mod.rs"]
mod support;

use std::process::ExitCode;

use clap::Parser;

use crate::support::set_up::SetUp;

/// Kills Sluice at random moments and at every failpoint, and compares what it serves with the fold of the log.
#[derive(Clone, Debug, Parser)]
struct Options {
    /// SIGKILLs at random moments
    #[arg(long, default_value_t = 10)]
    kills: u32,
    /// Abort at each failpoint when it is passed for the first time, .. this time
    #[arg(long, default_value_t = 1)]
    hits: u64,
    /// Scans are compared after so many kills or aborts, and at the end
    #[arg(long, default_value_t = 4)]
    check_every: u32,
    /// What everything is decided by
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// The long form: 1,000 kills, and aborts at the first three passes of every failpoint
    #[arg(long)]
    long: bool,
    /// Only set-ups whose name holds this text
    filter: Option<String>,
    /// Not those whose name holds this text
    #[arg(long)]
    skip: Vec<String>,
    /// What the standard harness of tests knows, and this one need not
    #[arg(long, hide = true)]
    nocapture: bool,
    #[arg(long, hide = true)]
    test_threads: Option<usize>,
}

/// What each set-up is called, as the paths of the end-to-end tests have it.
const LOCAL: &str = "local::fold_1_campaign";
const SERVERS: &str = "kafka_and_s3::fold_1_campaign";

fn main() -> ExitCode {
    let mut options = Options::parse();
    if options.long {
        (options.kills, options.hits) = (1000, 3);
    }
    let chosen = |name: &str| {
        let skipped = options.skip.iter().any(|text| name.contains(text.as_str()));
        !skipped && options.filter.as_ref().is_none_or(|text| name.contains(text.as_str()))
    };
    let mut set_ups = Vec::new();
    if chosen(LOCAL) {
        set_ups.push((LOCAL, SetUp::Local));
    }
    if chosen(SERVERS) {
        set_ups.extend(SetUp::servers().map(|servers| (SERVERS, servers)));
    }
    let (mut passed, mut failed) = (0, 0);
    for (name, set_up) in set_ups {
        println!("{name}: {options:?}");
        let tally = run::campaign(name, &set_up, &options);
        println!("{tally}");
        passed += tally.passed();
        failed += tally.failures.len();
    }
    println!("campaign: {passed} passed, {failed} failed");
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
