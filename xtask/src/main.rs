//! Chores of the repository: `cargo xtask check | test | campaign | planted | fuzz | miri | arm | servers`.

mod arm;
mod campaign;
mod check;
mod edges;
mod fuzz;
mod miri;
mod planted;
mod report;
mod servers;
mod shell;
mod sources;
mod suite;
mod tools;
mod words;

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

/// Chores of the repository.
#[derive(Parser)]
#[command(name = "cargo xtask", disable_version_flag = true)]
struct Arguments {
    #[command(subcommand)]
    chore: Chore,
}

#[derive(Subcommand)]
enum Chore {
    /// Checks format, lints, docs, edges between crates, file heads, file sizes and names.
    Check {
        /// Leaves out what compiles: lints and docs.
        #[arg(long)]
        quick: bool,
    },
    /// Runs every test: first those that need only Rust, then the suites on real Kafka and S3.
    Test {
        /// The S3 server to start: s3proxy (quick) or rgw (Ceph; root on Debian).
        #[arg(long, default_value = "s3proxy")]
        s3: servers::S3,
        /// Runs only tests whose names hold this text.
        #[arg(long)]
        filter: Option<String>,
    },
    /// Kills Sluice at random moments and at every failpoint, on real Kafka and S3, and compares what it serves.
    Campaign {
        /// The S3 server to start: s3proxy (quick) or rgw (Ceph; root on Debian).
        #[arg(long, default_value = "s3proxy")]
        s3: servers::S3,
        /// On the local log and a directory instead.
        #[arg(long)]
        local: bool,
        /// SIGKILLs at random moments.
        #[arg(long, default_value_t = 100)]
        kills: u32,
        /// Aborts at the first passes of every failpoint, up to this one.
        #[arg(long, default_value_t = 3)]
        hits: u32,
        /// What everything is decided by.
        #[arg(long, default_value_t = 1)]
        seed: u64,
        /// 1,000 kills.
        #[arg(long)]
        long: bool,
    },
    /// Plants known bugs, one at a time, and demands that the tests named for each one fail.
    Planted {
        /// Names or numbers of files in dev/planted.
        #[arg(required_unless_present_any = ["all", "rotate"])]
        names: Vec<String>,
        /// Plants every one.
        #[arg(long, conflicts_with_all = ["names", "rotate"])]
        all: bool,
        /// Plants this many of the quick ones, every day others.
        #[arg(long, value_name = "N", conflicts_with = "names")]
        rotate: Option<usize>,
    },
    /// Feeds damaged and random bytes to the segment format, under the address sanitizer.
    Fuzz {
        /// Targets of libs/segment/fuzz; all unless named.
        targets: Vec<String>,
        /// How long each runs.
        #[arg(long, default_value_t = 60)]
        seconds: u64,
    },
    /// Runs what miri can run under it; needs the nightly toolchain.
    Miri,
    /// Runs tests of the segment engine on 64-bit Arm; needs qemu-user and a compiler for it.
    Arm,
    /// Starts or stops real Kafka and S3 servers on 127.0.0.1.
    Servers {
        #[command(subcommand)]
        action: Action,
    },
}

#[derive(Subcommand)]
enum Action {
    /// Starts both and prints the environment that Sluice and its tests read.
    Start {
        #[arg(long, default_value = "s3proxy")]
        s3: servers::S3,
    },
    /// Stops whatever `start` started; the data stays.
    Stop,
}

fn main() -> ExitCode {
    match run(Arguments::parse().chore) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(chore: Chore) -> Result<()> {
    match chore {
        Chore::Check { quick } => check::run(quick),
        Chore::Test { s3, filter } => suite::run_all(s3, filter.as_deref()),
        Chore::Campaign { s3, local, kills, hits, seed, long } => {
            let kills = if long { campaign::LONG } else { kills };
            campaign::run((!local).then_some(s3), kills, hits, seed)
        }
        Chore::Planted { all: true, .. } => planted::run(&planted::Choice::All),
        Chore::Planted { rotate: Some(count), .. } => planted::run(&planted::Choice::Rotate(count)),
        Chore::Planted { names, .. } => planted::run(&planted::Choice::Named(names)),
        Chore::Fuzz { targets, seconds } => fuzz::fuzz(&targets, seconds),
        Chore::Miri => miri::check(),
        Chore::Arm => arm::check(),
        Chore::Servers { action: Action::Start { s3 } } => servers::start_and_print(s3),
        Chore::Servers { action: Action::Stop } => servers::stop_all(),
    }
}
