//! Object storage: the manifest protocol with its fences, upload, verified and cached reads, garbage collection, scrub.
//!
//! `PROTOCOL.md` beside this crate holds the bad interleavings, the invariants and the design. The decisions are
//! pure ([`protocol`]); everything else is the edge that carries them out. A key is formatted and parsed in
//! [`paths`] only.

pub mod cache;
pub mod chain;
mod create;
pub mod error;
pub mod gc;
mod hint;
pub mod manifest;
pub mod metrics;
pub mod owner;
pub mod paths;
pub mod probe;
pub mod protocol;
pub mod registry;
pub mod scrub;
pub mod store;

pub use cache::SegmentCache;
pub use chain::{Chain, ChainEnd};
pub use error::{CacheError, ProtocolError, RegistryError, StoreError};
pub use gc::{GcFailure, GcOptions, GcReport};
pub use manifest::{Manifest, ManifestError, Reason, SegmentEntry};
pub use owner::{Claim, Owner, Publication};
pub use registry::{Created, Registry, StoredSpec};
pub use scrub::{Finding, Problem, ScrubOptions, ScrubProgress, ScrubReport};
pub use store::{Store, StoreConfig};

#[cfg(test)]
mod tests;
