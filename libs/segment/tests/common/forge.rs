//! A forger's tools: sections and checksums of a segment's file, by the letter of the format's documentation.

use std::ops::Range;

use sluice_core::Metric;
use sluice_segment::Segment;

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

/// The kinds of the sections of whole codes, which come first, and of short codes.
pub const WHOLE_CODES: Range<u16> = 0x8001..0x8005;
pub const SHORT_CODES: Range<u16> = 0x8006..0x800a;

/// The file with short codes in the place of whole ones: along the first `axes` components.
pub fn with_short_codes(bytes: &[u8], axes: usize) -> Vec<u8> {
    let segment = Segment::from_bytes(bytes).unwrap();
    let (metric, dimension) = (segment.schema().metric, segment.schema().dimension.get());
    let stride = (axes + 8).next_multiple_of(64);
    let mut codes = Vec::new();
    for row in 0..segment.len() {
        let mut vector = segment.row(row).vector.to_vec();
        if metric == Metric::Cosine {
            let length = vector.iter().map(|c| c * c).sum::<f32>().sqrt();
            vector.iter_mut().for_each(|c| *c /= length);
        }
        vector.truncate(axes);
        let scale = vector.iter().fold(0f32, |largest, c| largest.max(c.abs())) / 127.0;
        let steps = vector.iter().map(|c| if scale > 0.0 { (c / scale).round() } else { 0.0 });
        let norm = scale * scale * steps.clone().map(|s| s * s).sum::<f32>();
        codes.extend(steps.map(|step| (step + 128.0) as u8));
        codes.resize(codes.len() - axes + stride - 8, 128);
        codes.extend(scale.to_le_bytes());
        codes.extend(if metric == Metric::Dot { 0f32 } else { norm }.to_le_bytes());
    }
    let axis =
        |axis: usize| (0..dimension.next_multiple_of(64)).map(move |at| if at == axis { 191 } else { 128 });
    let floats = |value: f32, count: usize| vec![value.to_le_bytes(); count].concat();
    let contents =
        [codes, (0..axes).flat_map(axis).collect(), floats(1.0 / 63.0, axes), floats(0.0, dimension)];
    let plain = with_meta(bytes, |meta| {
        meta["quantization"] = "none".into();
        meta["axes"] = axes.into();
    });
    let kind = |what: &[u8; 8]| u16::from_le_bytes([what[0], what[1]]);
    let kept = sections(&plain).into_iter().filter(|(what, _)| !WHOLE_CODES.contains(&kind(what)));
    let mut parts: Vec<Part> = kept.map(|(what, at)| (what, plain[at].to_vec())).collect();
    for (kind, content) in SHORT_CODES.zip(contents) {
        let [low, high] = kind.to_le_bytes();
        parts.push(([low, high, 1, 0, 0, 0, 0, 0], content));
    }
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
