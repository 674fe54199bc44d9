//! Any bytes, as they come and with every checksum made right: refused, or a segment that can be read, searched and
//! merged. The mutator damages one section at a time and lays the file out anew, so that what is damaged is reached.

#![no_main]

use libfuzzer_sys::{fuzz_mutator, fuzz_target, fuzzer_mutate};
use sluice_segment_fuzz::common::Random;
use sluice_segment_fuzz::common::forge::{Part, assemble, seal, try_sections};
use sluice_segment_fuzz::common::usage::merge_with_itself;
use sluice_segment_fuzz::{alone, open, read_all};

fuzz_target!(init: alone(), |data: &[u8]| {
    try_all(data);
    let mut forged = data.to_vec();
    seal(&mut forged);
    if forged != data {
        try_all(&forged);
    }
});

fn try_all(data: &[u8]) {
    let Ok(segment) = open(data) else { return };
    read_all(&segment);
    // a merge writes a file: one in eight
    if data.iter().fold(0u8, |sum, byte| sum.wrapping_add(*byte)) % 8 == 0 {
        merge_with_itself(&segment);
    }
}

fuzz_mutator!(|data: &mut [u8], size: usize, max_size: usize, seed: u32| {
    let mut random = Random(seed.into());
    if random.below(8) > 0
        && let Some(file) = damaged(&data[..size], &mut random).filter(|file| file.len() <= max_size)
    {
        data[..file.len()].copy_from_slice(&file);
        return file.len();
    }
    fuzzer_mutate(data, size, max_size)
});

/// The file with one section changed.
fn damaged(data: &[u8], random: &mut Random) -> Option<Vec<u8>> {
    let sections = try_sections(data)?;
    let mut parts: Vec<Part> = sections.iter().map(|(what, at)| (*what, data[at.clone()].to_vec())).collect();
    if parts.is_empty() || parts.len() > 1024 {
        return None;
    }
    let at = random.below(parts.len());
    match random.below(16) {
        0 => drop(parts.remove(at)),
        1 => parts.insert(at, parts[random.below(sections.len())].clone()),
        2 => {
            let (what, _) = &mut parts[at];
            fuzzer_mutate(what, 8, 8);
        }
        choice => {
            let (_, content) = &mut parts[at];
            let length = content.len();
            // most sections have a length that the number of rows decides
            let room = if choice < 8 { 16 } else { 0 };
            content.resize((length + room).max(1), 0);
            let most = content.len();
            let now = fuzzer_mutate(content, length, most);
            content.truncate(if choice < 8 { now } else { length });
        }
    }
    Some(assemble(&parts))
}
