//! A segment's file taken apart and put together again by the letter of the format's documentation.

use std::ops::Range;

/// Every section of the file: what its table entry says it is, and where it lies.
pub fn sections(bytes: &[u8]) -> Vec<([u8; 8], Range<usize>)> {
    let trailer = bytes.len() - 40;
    let table = trailer - u64_at(bytes, trailer);
    let section = |entry: usize| {
        let (start, length) = (u64_at(bytes, entry + 8), u64_at(bytes, entry + 16));
        (bytes[entry..entry + 8].try_into().unwrap(), start..start + length)
    };
    (table..trailer).step_by(32).map(section).collect()
}

pub fn u64_at(bytes: &[u8], at: usize) -> usize {
    u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap()) as usize
}

/// Makes every checksum right again: a forger's work, done by the letter of the format's documentation.
pub fn seal_checksums(bytes: &mut [u8]) {
    let put = |bytes: &mut [u8], at: usize, crc: u32| bytes[at..at + 4].copy_from_slice(&crc.to_le_bytes());
    let header = crc32fast::hash(&bytes[..60]);
    put(bytes, 60, header);
    let trailer = bytes.len() - 40;
    let Some(table) = trailer.checked_sub(u64_at(bytes, trailer)) else { return };
    for entry in (table..trailer).step_by(32) {
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

/// The file as a writer would have written it that does not know sections of `kind`.
pub fn without(bytes: &[u8], kind: u16) -> Vec<u8> {
    let align = |bytes: &mut Vec<u8>| bytes.resize(bytes.len().next_multiple_of(64), 0);
    let mut out = bytes[..64].to_vec();
    let mut table = Vec::new();
    for (entry, at) in sections(bytes) {
        if u16::from_le_bytes([entry[0], entry[1]]) == kind {
            continue;
        }
        align(&mut out);
        table.extend(entry);
        table.extend((out.len() as u64).to_le_bytes());
        table.extend((at.len() as u64).to_le_bytes());
        table.extend([0; 8]);
        out.extend(&bytes[at]);
    }
    align(&mut out);
    out.extend(&table);
    let length = out.len() + 40;
    out.extend(&bytes[bytes.len() - 40..]);
    let trailer = length - 40;
    out[trailer..trailer + 8].copy_from_slice(&(table.len() as u64).to_le_bytes());
    out[trailer + 16..trailer + 24].copy_from_slice(&(length as u64).to_le_bytes());
    seal_checksums(&mut out);
    out
}
