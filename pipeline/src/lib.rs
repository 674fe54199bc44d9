//! The composition root: wires the crates, supervises, and owns the binary `sluice`.
//!
//! [`run`] is a whole process: [`config`] says what it stands on, [`topology`] constructs, connects, spawns and
//! shuts down, [`index`] supervises the partitions of the ingest role. [`load`] and [`cli`] are what users call.

pub mod cli;
pub mod config;
pub mod index;
pub mod load;
pub mod metrics;
pub mod sample;
pub mod topology;

mod heap;
mod io_kind;
mod ops;
mod patience;
mod telemetry;
mod wake;

pub use config::Config;
pub use topology::{Edges, Role, RunError, RunReport, Service, run};
