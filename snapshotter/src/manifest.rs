//! The manifest: the immutable list of a partition's segments and delete bitmaps, and where its log was read to.
//!
//! ```text
//! magic    8 bytes   "SLUICEMF"
//! version  u32       little endian; 1
//! length   u32       of the body
//! crc      u32       CRC-32 of version, length and body
//! body     protobuf  see `manifest::wire`
//! ```
//! [`decode`] trusts nothing: sizes are bounded before anything is allocated, index, generation, partition and number
//! must be those of the key, and every rule that a single manifest can show is checked.

mod wire;

use roaring::RoaringBitmap;
use sluice_core::{Epoch, ManifestSeq, Offset, PartitionRef, SegmentId, Timestamp};
use thiserror::Error;
use ulid::Ulid;

/// Most bytes of a stored manifest; nothing larger is read.
pub const MAX_MANIFEST_BYTES: u64 = 64 << 20;
/// Most segments of one manifest.
pub const MAX_SEGMENTS: usize = 65_536;
/// Version of the format that is written.
pub const VERSION: u32 = 1;

const MAGIC: &[u8; 8] = b"SLUICEMF";
const HEAD: usize = 20;

/// Why a manifest was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Reason {
    /// A new owner took the partition; the content is its predecessor's.
    Claim,
    /// Records became visible, or segments were merged.
    Publish,
    /// The generation was retired: no manifest follows.
    Close,
}

impl Reason {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Claim => "claim",
            Self::Publish => "publish",
            Self::Close => "close",
        }
    }
}

/// One segment of a manifest.
#[derive(Debug, Clone, PartialEq)]
pub struct SegmentEntry {
    pub id: SegmentId,
    pub bytes: u64,
    pub digest: blake3::Hash,
    pub records: u32,
    /// Rows that are overwritten or deleted.
    pub deleted: RoaringBitmap,
}

impl SegmentEntry {
    /// Records that are neither overwritten nor deleted.
    pub fn live(&self) -> u64 {
        u64::from(self.records).saturating_sub(self.deleted.len())
    }
}

/// A manifest: immutable, complete, the only commit point.
#[derive(Debug, Clone, PartialEq)]
pub struct Manifest {
    pub partition: PartitionRef,
    pub seq: ManifestSeq,
    pub epoch: Epoch,
    /// Partitions of the topic when this was written (KEY-1).
    pub partitions: u32,
    /// Next offset of the manifest before (FOLD-2).
    pub start: Offset,
    /// First offset not in this snapshot.
    pub next_offset: Offset,
    pub segments: Vec<SegmentEntry>,
    /// Largest segment id that this chain ever published or fenced off.
    pub watermark: SegmentId,
    pub created_at: Timestamp,
    /// Tells my create from another's (FENCE-4).
    pub put_id: Ulid,
    pub reason: Reason,
}

/// Why bytes are not the manifest that their key names.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ManifestError {
    #[error("{0} bytes are too few for a manifest")]
    Short(usize),
    #[error("{0} bytes are too many for a manifest")]
    Long(usize),
    #[error("the first bytes are not a manifest's")]
    Magic,
    #[error("format version {0} is not known to this program; it knows {VERSION}")]
    Version(u32),
    #[error("the body has {found} bytes, the head says {stated}")]
    Length { stated: u64, found: u64 },
    #[error("the checksum does not match")]
    Checksum,
    #[error("the body is not protobuf: {0}")]
    Body(String),
    #[error("{field} is {found}, the key says {expected}")]
    Foreign { field: &'static str, found: String, expected: String },
    #[error("{field}: {message}")]
    Field { field: &'static str, message: String },
}

/// Writes a manifest as stored bytes.
///
/// # Errors
/// When it would be larger than [`MAX_MANIFEST_BYTES`].
pub fn encode(manifest: &Manifest) -> Result<Vec<u8>, ManifestError> {
    let body = wire::write(manifest);
    let total = HEAD + body.len();
    let length = u32::try_from(body.len()).map_err(|_| ManifestError::Long(total))?;
    if total as u64 > MAX_MANIFEST_BYTES {
        return Err(ManifestError::Long(total));
    }
    let mut bytes = Vec::with_capacity(total);
    bytes.extend_from_slice(MAGIC);
    bytes.extend_from_slice(&VERSION.to_le_bytes());
    bytes.extend_from_slice(&length.to_le_bytes());
    bytes.extend_from_slice(&checksum(VERSION, length, &body).to_le_bytes());
    bytes.extend_from_slice(&body);
    Ok(bytes)
}

/// Reads stored bytes as the manifest that the key names.
///
/// # Errors
/// The first thing that is wrong with them.
pub fn decode(bytes: &[u8], partition: &PartitionRef, seq: ManifestSeq) -> Result<Manifest, ManifestError> {
    if bytes.len() as u64 > MAX_MANIFEST_BYTES {
        return Err(ManifestError::Long(bytes.len()));
    }
    let Some((head, body)) = bytes.split_at_checked(HEAD) else {
        return Err(ManifestError::Short(bytes.len()));
    };
    let word = |at: usize| head.get(at..at + 4).and_then(|b| b.try_into().ok()).map_or(0, u32::from_le_bytes);
    let (version, length, crc) = (word(8), word(12), word(16));
    if !head.starts_with(MAGIC) {
        return Err(ManifestError::Magic);
    }
    if version != VERSION {
        return Err(ManifestError::Version(version));
    }
    if u64::from(length) != body.len() as u64 {
        return Err(ManifestError::Length { stated: length.into(), found: body.len() as u64 });
    }
    if checksum(version, length, body) != crc {
        return Err(ManifestError::Checksum);
    }
    wire::read(body, partition, seq)
}

fn checksum(version: u32, length: u32, body: &[u8]) -> u32 {
    let mut crc = crc32fast::Hasher::new();
    crc.update(&version.to_le_bytes());
    crc.update(&length.to_le_bytes());
    crc.update(body);
    crc.finalize()
}
