//! What every end-to-end test stands on: set-ups, processes, an HTTP client, and oracles that use no product code.

pub(crate) mod api;
pub(crate) mod bad;
pub(crate) mod broker;
pub(crate) mod data;
pub(crate) mod flood;
pub(crate) mod fold;
pub(crate) mod log;
pub(crate) mod memory;
pub(crate) mod metrics;
pub(crate) mod ports;
pub(crate) mod process;
pub(crate) mod proxy;
pub(crate) mod random;
pub(crate) mod servers;
pub(crate) mod set_up;
pub(crate) mod topics;
pub(crate) mod wait;
pub(crate) mod world;
