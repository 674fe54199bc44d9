//! How large a message may be before anything in it is read.

/// Limits of a decoder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DecodeLimits {
    pub max_message_bytes: usize,
    pub max_metadata_bytes: usize,
}

impl Default for DecodeLimits {
    /// 1 MiB a message, as Kafka's own default, and 64 KiB of metadata.
    fn default() -> Self {
        Self { max_message_bytes: 1 << 20, max_metadata_bytes: 64 << 10 }
    }
}
