//! A forger's tools: sections and checksums of a segment's file, by the letter of the format's documentation.

use std::ops::Range;

const HEADER: usize = 64;
const ENTRY: usize = 32;
const TRAILER: usize = 40;

/// A section: what its table entry says it is, and what stands in it.
pub type Part = ([u8; 8], Vec<u8>);

/// Every section of the file: what its table entry says it is, and where it lies.
pub fn sections(bytes: &[u8]) -> Vec<([u8; 8], Range<usize>)> {
    try_sections(bytes).unwrap()
}

/// As [`sections`], of bytes that need not be a segment.
pub fn try_sections(bytes: &[u8]) -> Option<Vec<([u8; 8], Range<usize>)>> {
    let trailer = bytes.len().checked_sub(TRAILER)?;
    let table = trailer.checked_sub(u64_at(bytes, trailer))?;
    let section = |entry: usize| {
        let (start, length) = (u64_at(bytes, entry + 8), u64_at(bytes, entry + 16));
        let span = start..start.checked_add(length)?;
        bytes.get(span.clone())?;
        Some((bytes[entry..entry + 8].try_into().unwrap(), span))
    };
    (table..trailer).step_by(ENTRY).map(section).collect()
}

/// A file with these sections where they must lie, whatever they are.
pub fn assemble(parts: &[Part]) -> Vec<u8> {
    let mut file = b"SLUICESG\x01\0\0\0".to_vec();
    file.resize(HEADER, 0);
    let mut table = Vec::new();
    for (what, content) in parts {
        table.extend(what);
        table.extend((file.len() as u64).to_le_bytes());
        table.extend((content.len() as u64).to_le_bytes());
        table.extend([0; 8]);
        file.extend(content);
        file.resize(file.len().next_multiple_of(64), 0);
    }
    file.extend(&table);
    file.extend((table.len() as u64).to_le_bytes());
    file.resize(file.len() + TRAILER - 8, 0);
    seal(&mut file);
    file
}

/// The file as a writer would have written it that does not know sections of `kind`.
pub fn without(bytes: &[u8], kind: u16) -> Vec<u8> {
    let all = sections(bytes).into_iter();
    let others = all.filter(|(what, _)| u16::from_le_bytes([what[0], what[1]]) != kind);
    assemble(&others.map(|(what, at)| (what, bytes[at].to_vec())).collect::<Vec<Part>>())
}

/// The file with its meta section changed, which is the first.
pub fn with_meta(bytes: &[u8], change: impl FnOnce(&mut serde_json::Value)) -> Vec<u8> {
    let mut parts: Vec<Part> =
        sections(bytes).into_iter().map(|(what, at)| (what, bytes[at].to_vec())).collect();
    let mut meta = serde_json::from_slice(&parts[0].1).unwrap();
    change(&mut meta);
    parts[0].1 = serde_json::to_vec(&meta).unwrap();
    assemble(&parts)
}

/// Makes everything right again that does not depend on a section's content: magic numbers, version, length of the
/// file, checksums.
pub fn seal(bytes: &mut [u8]) {
    if bytes.len() < HEADER + TRAILER {
        return;
    }
    bytes[..12].copy_from_slice(b"SLUICESG\x01\0\0\0");
    let (trailer, length) = (bytes.len() - TRAILER, bytes.len() as u64);
    bytes[trailer + 12..trailer + 16].copy_from_slice(&1u32.to_le_bytes());
    bytes[trailer + 16..trailer + 24].copy_from_slice(&length.to_le_bytes());
    bytes[trailer + 32..].copy_from_slice(b"SLUICEFT");
    seal_checksums(bytes);
}

/// Makes every checksum right again.
pub fn seal_checksums(bytes: &mut [u8]) {
    let put = |bytes: &mut [u8], at: usize, crc: u32| bytes[at..at + 4].copy_from_slice(&crc.to_le_bytes());
    let header = crc32fast::hash(&bytes[..60]);
    put(bytes, 60, header);
    let trailer = bytes.len() - TRAILER;
    let Some(table) = trailer.checked_sub(u64_at(bytes, trailer)) else { return };
    for entry in (table..trailer).step_by(ENTRY) {
        let (start, length) = (u64_at(bytes, entry + 8), u64_at(bytes, entry + 16));
        if let Some(section) = start.checked_add(length).and_then(|end| bytes.get(start..end)) {
            let crc = crc32fast::hash(section);
            put(bytes, entry + 24, crc);
        }
    }
    let crc = crc32fast::hash(&bytes[table..trailer]);
    put(bytes, trailer + 8, crc);
    let crc = crc32fast::hash(&bytes[trailer..trailer + 28]);
    put(bytes, trailer + 28, crc);
}

fn u64_at(bytes: &[u8], at: usize) -> usize {
    u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap()) as usize
}
