//! The real binary from outside: child processes, HTTP, the log and the store, on both set-ups.
//!
//! Tests in a module `local` need nothing. Those in `kafka_and_s3` need the servers that SLUICE_TEST_KAFKA and
//! SLUICE_TEST_S3_URL (with AWS_*) name, and say so when they are not there; `cargo xtask test` starts them.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails, with the place")]

#[allow(dead_code, reason = "the campaign uses the rest")]
mod support;

mod bad_input;
mod change;
mod commands;
mod faults;
mod half;
mod indexes;
mod kill;
mod liveness;
mod memory;
mod outage;
mod publish;
mod search;
mod stops;
mod store_alone;
mod takeover;
mod unclear;
mod zombie;
