//! Where records come from: Kafka, the local log, decoders, dead letters.
//!
//! [`Log::open`] gives the three faces of a log: [`Source`] reads, [`Producer`] writes, [`Membership`] says which
//! partitions this process should work on. `source.rs` holds their contract.

pub mod dead_letter;
pub mod decode;
pub mod encode;
pub mod error;
pub mod kafka;
pub mod local;
pub mod log;
pub mod metrics;
pub mod partitioner;
pub mod source;

mod batch;

/// The messages of `proto/sluice/v1/record.proto`.
pub mod proto {
    #![allow(missing_docs, reason = "generated; the documentation stands in the .proto file")]
    include!(concat!(env!("OUT_DIR"), "/sluice.v1.rs"));
}

pub use dead_letter::{DeadLetter, DeadLetters, TopicDeadLetters};
pub use decode::{DecodeLimits, Decoder, Header, RawMessage, Reject, RejectCode};
pub use error::LogError;
pub use log::{Log, LogConfig};
pub use source::{
    BatchLimits, BatchStream, HeldBack, LogBounds, Membership, MembershipEvent, Outgoing, Placed, Producer,
    ReadRequest, Source,
};
