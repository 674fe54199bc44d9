//! The query service: snapshots loaded from the store, searched in parallel, served over HTTP.
//!
//! # Contract
//! - A query takes one [`View`](view::View) at its start and never looks again; below `fan_out` a search accepts
//!   nothing else. The answer names the snapshot of each partition (QRY-1).
//! - A partition never goes back in manifest order while the process lives (QRY-2).
//! - Filters, deletes and supersession come before the cut to k (QRY-3).
//! - A partition that failed or missed the deadline is named in the answer, or makes it an error (QRY-4).
//! - A damaged newest snapshot leaves the one before it serving (SEG-2).
//! - Every queue, body, answer, connection and wait is bounded by [`Limits`].
//!
//! `loader` puts snapshots into the `catalogue`; `http` takes views out, plans queries, and runs them through
//! `fan_out` (`search` per partition, `top_k` across partitions).

pub mod catalogue;
pub mod error;
pub mod limits;
pub mod metrics;
pub mod types;
pub mod view;

mod fan_out;
mod http;
mod lag;
mod loader;
mod object;
mod pins;
mod placement;
mod search;
mod service;
mod top_k;

pub use catalogue::Catalogue;
pub use error::ApiError;
pub use http::{openapi, serve};
pub use limits::{Limits, LoaderOptions};
pub use service::{QueryParams, QueryService, ServiceError};
