//! Numbers without a pattern that are the same on every machine.

/// splitmix64: numbers without order from a seed.
pub(crate) fn mixed(seed: u64) -> u64 {
    let mut z = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// At most `most` of the first `all` numbers, growing: one of each of equally long stretches. Rows often come in turns,
/// and every so-manieth would be all of one kind.
pub(crate) fn sampled(all: usize, most: usize) -> impl Iterator<Item = usize> + Clone {
    let stretch = all.div_ceil(most).max(1);
    (0..all).step_by(stretch).map(move |first| {
        let length = stretch.min(all - first);
        first + (mixed(first as u64) % length as u64) as usize
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sample_is_of_all_parts_and_of_all_kinds() {
        for (all, most) in [(0, 5), (1, 5), (5, 5), (7, 5), (1000, 64), (40_000, 500)] {
            let sample: Vec<usize> = sampled(all, most).collect();
            assert!(sample.is_sorted_by(|a, b| a < b) && sample.len() <= most);
            assert!(sample.len() * 2 >= all.min(most) && sample.iter().all(|at| *at < all));
        }
        let kinds: std::collections::BTreeSet<usize> = sampled(40_000, 500).map(|at| at % 8).collect();
        assert_eq!(kinds.len(), 8);
    }
}
