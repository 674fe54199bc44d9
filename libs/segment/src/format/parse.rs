//! From bytes to a section table whose every byte is accounted for and whose every checksum is right.

use super::entry::{Entry, Kind, Span, u32_at, u64_at};
use super::{ALIGN, ENTRY, HEADER, MAGIC, MAX_SECTIONS, TRAILER, TRAILER_MAGIC, VERSION};
use crate::SegmentError;

/// The sections of a file: in order, in range, checksums right.
#[derive(Debug)]
pub(crate) struct Table {
    version: u32,
    entries: Vec<Entry>,
}

impl Table {
    pub(crate) fn entries(&self) -> &[Entry] {
        &self.entries
    }

    pub(crate) fn version(&self) -> u32 {
        self.version
    }

    /// Where a section lies, if it is there.
    pub(crate) fn find(&self, kind: Kind, part: u32) -> Option<Span> {
        let at = self.entries.binary_search_by_key(&(kind as u16, part), |e| (e.kind, e.part)).ok()?;
        let entry = self.entries[at];
        // both were compared with the length of the file
        Some(entry.start as usize..(entry.start + entry.length) as usize)
    }
}

/// Checks header, trailer, table, padding and every checksum.
///
/// # Errors
/// The first part that is not as it was written. Allocates at most 32 KiB.
pub(crate) fn parse(bytes: &[u8]) -> Result<Table, SegmentError> {
    let refuse = |part: &str, problem: &str| Err(SegmentError::damaged(part, problem));
    if bytes.len() < HEADER + TRAILER {
        return refuse("file", &format!("{} bytes are too few for a segment", bytes.len()));
    }
    let version = check_header(&bytes[..HEADER])?;
    let trailer_start = bytes.len() - TRAILER;
    let table_length = check_trailer(&bytes[trailer_start..], bytes.len(), version)?;
    if table_length > MAX_SECTIONS * ENTRY || !table_length.is_multiple_of(ENTRY) {
        return refuse("trailer", "the table has an impossible length");
    }
    let Some(table_start) = trailer_start.checked_sub(table_length).filter(|s| *s >= HEADER) else {
        return refuse("trailer", "the table is longer than the file");
    };
    let table = &bytes[table_start..trailer_start];
    if crc32fast::hash(table) != u32_at(&bytes[trailer_start..], 8) {
        return refuse("table", "checksum mismatch");
    }
    let (chunks, _) = table.as_chunks::<ENTRY>();
    let mut entries = Vec::with_capacity(chunks.len());
    for chunk in chunks {
        let Some(entry) = Entry::from_bytes(chunk) else {
            return refuse("table", "reserved bytes are not zero");
        };
        entries.push(entry);
    }
    check_sections(bytes, &entries, table_start, version)?;
    Ok(Table { version, entries })
}

fn check_version(found: u32) -> Result<u32, SegmentError> {
    match found {
        1..=VERSION => Ok(found),
        newer if newer > VERSION => Err(SegmentError::Version { found, supported: VERSION }),
        _ => Err(SegmentError::damaged("header", format!("there is no version {found}"))),
    }
}

/// The version of the file.
fn check_header(header: &[u8]) -> Result<u32, SegmentError> {
    if &header[..8] != MAGIC {
        return Err(SegmentError::damaged("header", "this is no segment: the magic number is missing"));
    }
    if crc32fast::hash(&header[..60]) != u32_at(header, 60) {
        return Err(SegmentError::damaged("header", "checksum mismatch"));
    }
    let version = check_version(u32_at(header, 8))?;
    if header[12..60].iter().any(|b| *b != 0) {
        return Err(SegmentError::damaged("header", "reserved bytes are not zero"));
    }
    Ok(version)
}

/// The length of the table, in bytes, not yet compared with anything.
fn check_trailer(trailer: &[u8], file_length: usize, version: u32) -> Result<usize, SegmentError> {
    let refuse = |problem: &str| Err(SegmentError::damaged("trailer", problem));
    if &trailer[32..40] != TRAILER_MAGIC {
        return refuse("the file is cut short or was added to: the magic number is missing");
    }
    if crc32fast::hash(&trailer[..28]) != u32_at(trailer, 28) {
        return refuse("checksum mismatch");
    }
    if u32_at(trailer, 12) != version {
        return refuse("its version is not that of the header");
    }
    if u64_at(trailer, 16) != file_length as u64 {
        return refuse("the file has not the length that was written");
    }
    if u32_at(trailer, 24) != 0 {
        return refuse("reserved bytes are not zero");
    }
    usize::try_from(u64_at(trailer, 0)).or_else(|_| refuse("the table has an impossible length"))
}

fn check_sections(
    bytes: &[u8],
    entries: &[Entry],
    table_start: usize,
    version: u32,
) -> Result<(), SegmentError> {
    let mut end = HEADER;
    let mut last = None;
    for entry in entries {
        let refuse = |problem: &str| Err(SegmentError::damaged(entry.name(), problem));
        if Kind::from_number(entry.kind).is_none() && !entry.is_optional() {
            return refuse(&format!("version {version} has no such section"));
        }
        // which of them a section has is compared with the meta section later
        let encodings = if entry.kind == Kind::Vectors as u16 { 1..=version as u16 } else { 1..=1 };
        if !encodings.contains(&entry.encoding) && !entry.is_optional() {
            return refuse(&format!("version {version} has no encoding {}", entry.encoding));
        }
        if last >= Some((entry.kind, entry.part)) {
            return refuse("sections are out of order");
        }
        last = Some((entry.kind, entry.part));
        let start = end.next_multiple_of(ALIGN);
        let stop = entry.start.checked_add(entry.length).and_then(|s| usize::try_from(s).ok());
        let Some(stop) = stop.filter(|s| entry.start == start as u64 && *s <= table_start) else {
            return refuse("the section does not lie where it must");
        };
        if bytes[end..start].iter().any(|b| *b != 0) {
            return refuse("bytes before the section are not zero");
        }
        if crc32fast::hash(&bytes[start..stop]) != entry.crc {
            return refuse("checksum mismatch");
        }
        end = stop;
    }
    if end.next_multiple_of(ALIGN) != table_start || bytes[end..table_start].iter().any(|b| *b != 0) {
        return Err(SegmentError::damaged("table", "it does not follow the last section"));
    }
    Ok(())
}
