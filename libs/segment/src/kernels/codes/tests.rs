//! Every kernel over codes gives what the plain one gives, to the last bit.

use proptest::prelude::*;

use super::*;

/// Sums in i64: dumber than any kernel.
fn oracle(codes: &[u8], query: &[i8]) -> i64 {
    codes.iter().zip(query).map(|(c, q)| i64::from(*c) * i64::from(*q)).sum()
}

fn check(codes: &[u8], query: &[i8]) {
    let expected = oracle(codes, query);
    for kernels in available() {
        let got = i64::from((kernels.dot)(codes, query));
        assert_eq!(got, expected, "{} dot of {}", kernels.name, codes.len());
        let reversed: Vec<u8> = codes.iter().rev().copied().collect();
        let four = (kernels.dot4)([codes, &reversed, codes, &reversed], query).map(i64::from);
        let other = oracle(&reversed, query);
        assert_eq!(four, [expected, other, expected, other], "{} dot4 of {}", kernels.name, codes.len());
    }
}

#[test]
fn every_kernel_agrees_with_the_oracle_at_every_tail_length() {
    for n in 0..=260usize {
        let codes: Vec<u8> = (0..n).map(|i| (i * 37 + 11) as u8).collect();
        let query: Vec<i8> = (0..n).map(|i| (i * 53 + 29) as i8).collect();
        check(&codes, &query);
        // a slice that starts anywhere: kernels must not count on alignment
        if n > 1 {
            check(&codes[1..], &query[1..]);
        }
    }
}

#[test]
fn no_kernel_saturates_or_overflows_on_extreme_codes() {
    for query in [i8::MIN, -127, 127] {
        for n in [1, 63, 64, 65, 384, MAX_LENGTH] {
            check(&vec![255; n], &vec![query; n]);
            check(&vec![0; n], &vec![query; n]);
        }
    }
}

/// Numbers without order, the same for a seed.
fn numbers(seed: u64) -> impl FnMut() -> u64 {
    let mut state = seed;
    move || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        state >> 33
    }
}

fn constants(next: &mut impl FnMut() -> u64, extra: bool) -> Constants {
    let mut made = Constants::default();
    for i in 0..TILE {
        made.scales[i] = next() as f32 / 1e9;
        made.norms[i] = next() as f32;
        made.extras[i] = if extra { next() as f32 / 1e6 } else { 0.0 };
        made.biases[i] = next() as i32 % 100_000;
    }
    made
}

#[test]
fn every_kernel_gives_the_same_tile_to_the_last_bit() {
    for (groups, stride) in [(0, 64), (1, 64), (5, 64), (16, 64), (96, 384), (33, 192)] {
        let mut next = numbers(groups as u64 + 1);
        let rows: Vec<u8> = (0..TILE * stride).map(|_| next() as u8).collect();
        let panel: Vec<i8> = (0..groups * PANEL_STEP).map(|_| next() as i8).collect();
        let (row, column) = (constants(&mut next, groups % 2 == 1), constants(&mut next, groups % 2 == 1));
        let row_bounds = std::array::from_fn(|i| if i % 7 == 0 { f32::INFINITY } else { next() as f32 });
        let column_bounds = std::array::from_fn(|i| if i % 5 == 0 { -1.0 } else { next() as f32 * 2.0 });
        let tile = Tile {
            rows: &rows,
            stride,
            panel: &panel,
            groups,
            row: &row,
            column: &column,
            row_bounds: &row_bounds,
            column_bounds: &column_bounds,
        };
        let mut expected = TileOut::default();
        plain::tile(&tile, &mut expected);
        for kernels in available() {
            let mut got = TileOut::default();
            (kernels.tile)(&tile, &mut got);
            let bits = |out: &TileOut| out.distances.map(|row| row.map(f32::to_bits));
            assert_eq!(bits(&got), bits(&expected), "{} {groups}", kernels.name);
            assert_eq!(got.row_masks, expected.row_masks, "{}", kernels.name);
            assert_eq!(got.column_masks, expected.column_masks, "{}", kernels.name);
        }
        // a distance that is not a number counts as 0 everywhere
        let mut broken = row.clone();
        broken.norms[3] = f32::NAN;
        for kernels in available() {
            let mut got = TileOut::default();
            (kernels.tile)(&Tile { row: &broken, ..tile_of(&tile) }, &mut got);
            assert!(got.distances[3].iter().all(|d| *d == 0.0), "{}", kernels.name);
        }
    }
}

fn tile_of<'a>(tile: &Tile<'a>) -> Tile<'a> {
    Tile { ..*tile }
}

proptest! {
    #[test]
    fn every_kernel_agrees_with_the_oracle_on_any_codes(
        pairs in prop::collection::vec((any::<u8>(), any::<i8>()), 0..600)
    ) {
        let (codes, query): (Vec<u8>, Vec<i8>) = pairs.into_iter().unzip();
        check(&codes, &query);
    }

    #[test]
    fn every_kernel_finds_the_first_place_of_a_number(
        numbers in prop::collection::vec(0u16..40, 0..140), number in 0u16..40
    ) {
        let expected = numbers.iter().position(|n| *n == number);
        for kernels in available() {
            prop_assert_eq!((kernels.find)(&numbers, number), expected, "{}", kernels.name);
        }
    }

    #[test]
    fn every_kernel_keeps_the_nearest_in_order(offers in prop::collection::vec(0u8..30, 0..60)) {
        let mut expected: Vec<(f32, u32)> = offers.iter().map(|d| f32::from(*d)).zip(0..).collect();
        expected.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
        expected.resize(BEST.max(offers.len()), (f32::INFINITY, u32::MAX));
        for kernels in available() {
            let mut best = Best::NONE;
            for (distance, other) in offers.iter().zip(0..) {
                (kernels.insert)(&mut best, f32::from(*distance), other);
            }
            let got: Vec<(f32, u32)> = best.distances.into_iter().zip(best.others).collect();
            prop_assert_eq!(&got, &expected[..BEST], "{}", kernels.name);
        }
    }

    #[test]
    fn every_kernel_compares_components_alike(
        a in prop::array::uniform16(-2f32..2.0), b in prop::array::uniform16(-2f32..2.0)
    ) {
        for kernels in available() {
            prop_assert_eq!((kernels.larger)(&a, &b), plain::larger(&a, &b), "{}", kernels.name);
        }
    }
}
