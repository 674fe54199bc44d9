//! An entry of the section table: what a section is, where it lies and its checksum.

use std::fmt;
use std::ops::Range;

use super::{ENTRY, OPTIONAL};

macro_rules! kinds {
    ($($name:ident = $number:literal $text:literal,)*) => {
        /// What a section holds.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
        #[repr(u16)]
        pub(crate) enum Kind { $($name = $number,)* }

        impl Kind {
            pub(crate) fn from_number(number: u16) -> Option<Self> {
                match number { $($number => Some(Self::$name),)* _ => None }
            }

            pub(crate) fn name(self) -> &'static str {
                match self { $(Self::$name => $text,)* }
            }
        }
    };
}

kinds! {
    Meta = 1 "meta",
    Vectors = 2 "vectors",
    InverseNorms = 3 "inverse norms",
    Offsets = 4 "offsets",
    Timestamps = 5 "timestamps",
    KeyStarts = 6 "key starts",
    KeyBytes = 7 "key bytes",
    KeyIndex = 8 "key index",
    MetadataStarts = 9 "metadata starts",
    MetadataBytes = 10 "metadata bytes",
    ColumnStarts = 16 "column starts",
    ColumnValues = 17 "column values",
    DictionaryStarts = 18 "dictionary starts",
    DictionaryBytes = 19 "dictionary bytes",
    GraphLevel0 = 32 "graph level 0",
    GraphUpper = 33 "graph upper level",
    Codes = 0x8001 "codes",
    CodeScales = 0x8002 "code scales",
    CodeNorms = 0x8003 "code norms",
    CodeMeans = 0x8004 "code means",
    ColumnIndex = 0x8005 "column index",
    ShortCodes = 0x8006 "short codes",
    CodeAxes = 0x8007 "axes of short codes",
    AxisScales = 0x8008 "scales of axes",
    ShortMeans = 0x8009 "means of short codes",
}

impl Kind {
    /// Whether there may be several sections of the kind.
    fn has_parts(self) -> bool {
        (Self::ColumnStarts..=Self::DictionaryBytes).contains(&self)
            || [Self::GraphUpper, Self::ColumnIndex].contains(&self)
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// One line of the section table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) kind: u16,
    pub(crate) encoding: u16,
    /// Field or level; 0 where a section stands once.
    pub(crate) part: u32,
    pub(crate) start: u64,
    pub(crate) length: u64,
    pub(crate) crc: u32,
}

impl Entry {
    pub(crate) fn to_bytes(self) -> [u8; ENTRY] {
        let mut bytes = [0; ENTRY];
        bytes[0..2].copy_from_slice(&self.kind.to_le_bytes());
        bytes[2..4].copy_from_slice(&self.encoding.to_le_bytes());
        bytes[4..8].copy_from_slice(&self.part.to_le_bytes());
        bytes[8..16].copy_from_slice(&self.start.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.length.to_le_bytes());
        bytes[24..28].copy_from_slice(&self.crc.to_le_bytes());
        bytes
    }

    /// Reads an entry; `None` when its last four bytes are not zero.
    pub(crate) fn from_bytes(bytes: &[u8; ENTRY]) -> Option<Self> {
        let u16_at = |at: usize| u16::from_le_bytes([bytes[at], bytes[at + 1]]);
        let entry = Self {
            kind: u16_at(0),
            encoding: u16_at(2),
            part: u32_at(bytes, 4),
            start: u64_at(bytes, 8),
            length: u64_at(bytes, 16),
            crc: u32_at(bytes, 24),
        };
        (u32_at(bytes, 28) == 0).then_some(entry)
    }

    /// Whether a reader that does not know the kind may skip the section.
    pub(crate) fn is_optional(&self) -> bool {
        self.kind & OPTIONAL != 0
    }

    /// A name for messages: the kind, and the part where there are several.
    pub(crate) fn name(&self) -> String {
        match Kind::from_number(self.kind) {
            Some(kind) if kind.has_parts() => format!("{kind} {}", self.part),
            Some(kind) => kind.to_string(),
            None => format!("section of kind {}", self.kind),
        }
    }
}

/// The four bytes from `at` on; `at + 4` must not lie beyond `bytes`.
pub(super) fn u32_at(bytes: &[u8], at: usize) -> u32 {
    let mut four = [0; 4];
    four.copy_from_slice(&bytes[at..at + 4]);
    u32::from_le_bytes(four)
}

/// The eight bytes from `at` on; `at + 8` must not lie beyond `bytes`.
pub(super) fn u64_at(bytes: &[u8], at: usize) -> u64 {
    let mut eight = [0; 8];
    eight.copy_from_slice(&bytes[at..at + 8]);
    u64::from_le_bytes(eight)
}

/// Where a section lies, once that was checked against the file.
pub(crate) type Span = Range<usize>;
