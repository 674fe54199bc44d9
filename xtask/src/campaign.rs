//! `cargo xtask campaign`: the kill campaign at length, on servers that are started for it.

use anyhow::Result;

use crate::servers::S3;
use crate::shell::{self, cargo};
use crate::suite;

/// Kills of the long form.
pub(crate) const LONG: u32 = 1000;

/// Runs the campaign on Kafka and `s3`, or on the local log.
pub(crate) fn run(s3: Option<S3>, kills: u32, hits: u32, seed: u64) -> Result<()> {
    let set_up = s3.map(suite::start_servers).transpose()?;
    let (kills, hits, seed) = (kills.to_string(), hits.to_string(), seed.to_string());
    // with the whole workspace, as the tests are built: a narrower selection has other features
    let mut arguments = vec!["test", "--workspace", "--test", "campaign", "--"];
    arguments.push(if set_up.is_some() { "kafka_and_s3" } else { "local" });
    arguments.extend(["--kills", &kills, "--hits", &hits, "--seed", &seed]);
    let mut campaign = cargo(&arguments);
    campaign.envs(set_up.iter().flat_map(|s| s.environment.iter().cloned()));
    let ran = shell::run(campaign);
    // dropping stops what was started here, after the last process of the campaign has ended
    drop(set_up);
    ran
}
