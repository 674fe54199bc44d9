//! Segment format, versions 1 and 2.
//!
//! # Numbers
//! - Everything is little-endian. A file is read as it stands, through a memory map.
//! - Header 64 bytes, at 0. Sections follow in the order of the table, each on a 64-byte boundary; bytes between
//!   them are zero. Then, on a 64-byte boundary, the table: 32 bytes per section, at most [`MAX_SECTIONS`]. Then
//!   the trailer, 40 bytes, the last of the file.
//! - Every byte of the file is covered: header, table, trailer and each section by a CRC-32, what lies between by
//!   having to be zero. The layout is canonical: the table determines the length of the file.
//! - Rows: 1 to 2^31 - 1, in strictly growing order of offset. A key stands once.
//! - `u32::MAX` is no row: it ends a list of neighbours. In the key index 0 is an empty slot, else row + 1.
//! - A reader checks the length of the table before it looks at it, and allocates nothing in proportion to a number
//!   that it has not compared with the length of the file.
//!
//! # Structs
//! ```text
//! Header  { magic: [u8; 8] = "SLUICESG", version: u32, zero: [u8; 48], crc: u32 of the 60 bytes before }
//! Entry   { kind: u16, encoding: u16, part: u32, start: u64, length: u64, crc: u32, zero: u32 }
//! Trailer { table_length: u64, table_crc: u32, version: u32, file_length: u64, zero: u32,
//!           crc: u32 of the 28 bytes before, magic: [u8; 8] = "SLUICEFT" }
//!
//! kind                 part    content
//!  1 Meta              0       JSON, see `Meta`: rows, dimension, metric, fields, graph, writer
//!  2 Vectors           0       encoding 1: f32[rows][dimension], as the producers sent them
//!                              encoding 2: f16[rows][dimension], the nearest to them, when the meta section says
//!                              `vector_type: f16`; the version is 2 then, else 1
//!  3 InverseNorms      0       f32[rows]: 1 / length of the vector; cosine only
//!  4 Offsets           0       u64[rows], strictly growing
//!  5 Timestamps        0       i64[rows], milliseconds since the Unix epoch
//!  6 KeyStarts         0       u64[rows + 1] into KeyBytes, the first 0, the last its length
//!  7 KeyBytes          0       UTF-8
//!  8 KeyIndex          0       u32[slots], slots a power of two of at least 2 x rows; row i is entered, in row order,
//!                              at xxh3_64(key) mod slots or the first empty slot after it, cyclically
//!  9 MetadataStarts    0       u64[rows + 1] into MetadataBytes
//! 10 MetadataBytes     0       UTF-8, one JSON object per row
//! 16 ColumnStarts      field   u32[rows + 1] into the values: a row has none, one or several
//! 17 ColumnValues      field   keyword u32 into the dictionary, integer i64, float f64, boolean u8, timestamp i64
//! 18 DictionaryStarts  field   u64[words + 1] into DictionaryBytes; keyword only
//! 19 DictionaryBytes   field   UTF-8, words strictly growing by their bytes
//! 32 GraphLevel0       0       u32[rows][stride0]: neighbours, then u32::MAX
//! 33 GraphUpper        level   for level 1, 2, ..: rows u32[n] growing, below u32[n], neighbours u32[n][stride]
//!
//! optional, and there when the meta section says `quantization: sq8`:
//! Codes                0       u8[rows][dimension, padded to 64]: 128 + round((x - mean) / scale of the row), where x
//!                              is the vector, normalised under cosine; padding is 128
//! CodeScales           0       f32[rows]
//! CodeNorms            0       f32[rows]: squared length of what the code stands for; l2 only
//! CodeMeans            0       f32[dimension]
//!
//! optional, and there when the meta section says how many `axes` (it does not say sq8 then):
//! ShortCodes           0       row[rows], each padded to 64 bytes: u8[axes]: 128 + round(along axis / scale of row),
//!                              where a row's vector, normalised under cosine, less the mean is projected; padding is
//!                              128; the last 8 bytes are the scale and, but under dot where it is 0, the squared
//!                              length of what the code stands for: f32, f32
//! CodeAxes             0       u8[axes][dimension, padded to 64]: 128 + round(component / scale of the axis)
//! AxisScales           0       f32[axes]
//! ShortMeans           0       f32[dimension]
//!
//! optional, by field:
//! ColumnIndex          field   n: u64, values: i64[n] or f64[n] strictly growing (integer, float, timestamp only),
//!                              starts: u32[n + 1] into rows, rows: u32[..]: for each of the n distinct values of the
//!                              column the rows that have it, growing. n is the number of words for keyword, 2 for
//!                              boolean (false, true); 0.0 stands for both zeros
//! ```
//! A column index takes 4 bytes for each different value of each row and, for each distinct value of the column, 4
//! bytes (keyword, boolean) or 12: 4 a row for a keyword of few words, 16 where every row has a number of its own.
//!
//! `field` is the field's place in the order of names. On upper levels neighbours are places in the same level, and
//! `below` is a node's place in the level under it (its row, on level 1).
//!
//! # Growing the format
//! Sections stand in the order of (kind, part). `encoding` says how a section's elements are coded; 1 unless another
//! is written above. A section whose kind has the bit [`OPTIONAL`] set is checked but otherwise skipped by a reader
//! that does not know it: codes that only speed up a search can be added so. Another encoding of a known section
//! and a new kind without that bit need a new version, which an older reader refuses by number instead of calling the
//! file damaged. A file has the lowest version that explains it, and readers keep reading every version for ever.

mod entry;
mod meta;
mod parse;
mod write;

use sluice_core::VectorType;

pub(crate) use entry::{Entry, Kind};
pub(crate) use meta::{GraphMeta, MAX_META, Meta};
pub(crate) use parse::{Table, parse};
pub(crate) use write::SegmentWriter;

/// The newest version that this program writes and reads.
pub const VERSION: u32 = 2;

/// The lowest version in which vectors may be kept as `kind`.
pub(crate) fn version_of(kind: VectorType) -> u32 {
    match kind {
        VectorType::F32 => 1,
        VectorType::F16 => 2,
    }
}

/// How the elements of a section are coded where vectors are kept as `kind`.
pub(crate) fn encoding_of(section: Kind, kind: VectorType) -> u16 {
    match (section, kind) {
        (Kind::Vectors, VectorType::F16) => 2,
        _ => 1,
    }
}

/// Set in the kind of a section that a reader may skip.
pub(crate) const OPTIONAL: u16 = 0x8000;

/// Most sections of a file; 64 fields with five sections each take 320.
pub(crate) const MAX_SECTIONS: usize = 1024;

/// No row; ends a list of neighbours.
pub(crate) const NO_ROW: u32 = u32::MAX;

/// Most rows of a segment.
pub(crate) const MAX_ROWS: usize = i32::MAX as usize;

pub(crate) const ALIGN: usize = 64;
pub(crate) const HEADER: usize = 64;
pub(crate) const TRAILER: usize = 40;
pub(crate) const ENTRY: usize = 32;
pub(crate) const MAGIC: &[u8; 8] = b"SLUICESG";
pub(crate) const TRAILER_MAGIC: &[u8; 8] = b"SLUICEFT";

/// Slots of the key index for `rows` rows.
pub(crate) fn key_slots(rows: usize) -> usize {
    (rows * 2).next_power_of_two().max(4)
}

/// The hash that places a key in the key index; stable for ever.
pub(crate) fn key_hash(key: &str) -> u64 {
    xxhash_rust::xxh3::xxh3_64(key.as_bytes())
}
