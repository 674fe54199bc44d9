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
        let narrow: Vec<i8> = query.iter().map(|q| (*q).clamp(-NARROW_QUERY, NARROW_QUERY)).collect();
        let four = (kernels.dot4)([codes, &reversed, codes, &reversed], &narrow).map(i64::from);
        let [expected, other] = [codes, &reversed].map(|codes| oracle(codes, &narrow));
        let name = kernels.name;
        assert_eq!(four, [expected, other, expected, other], "{name} dot4 of {}", codes.len());
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
    let shapes = [(0, 64), (1, 64), (5, 64), (8, 64), (16, 64), (96, 384), (33, 192)];
    for ((groups, stride), narrow) in shapes.into_iter().flat_map(|shape| [(shape, false), (shape, true)]) {
        let mut next = numbers(groups as u64 + 1);
        let mut rows: Vec<u8> = (0..TILE * stride).map(|_| next() as u8).collect();
        let mut panel: Vec<i8> = (0..groups * PANEL_STEP).map(|_| next() as i8).collect();
        if narrow {
            let least = NARROW_ZERO - NARROWEST.unsigned_abs();
            let most = NARROW_ZERO + NARROWEST.unsigned_abs();
            rows.iter_mut().for_each(|byte| *byte = (*byte % 128).clamp(least, most));
            panel.iter_mut().for_each(|byte| *byte = (*byte).clamp(-NARROWEST, NARROWEST));
            // the largest sums that there are, of both signs
            rows[..2 * stride].fill(most);
            for (column, code) in [(3, NARROWEST), (9, -NARROWEST)] {
                let of_it = panel.iter_mut().enumerate().filter(|(at, _)| at / 4 % TILE == column);
                of_it.for_each(|(_, byte)| *byte = code);
            }
        }
        let (row, column) = (constants(&mut next, groups % 2 == 1), constants(&mut next, groups % 2 == 1));
        let row_bounds = std::array::from_fn(|i| if i % 7 == 0 { f32::INFINITY } else { next() as f32 });
        let column_bounds = std::array::from_fn(|i| if i % 5 == 0 { -1.0 } else { next() as f32 * 2.0 });
        let tile = Tile {
            rows: &rows,
            stride,
            panel: &panel,
            groups,
            narrow,
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
            assert_eq!(bits(&got), bits(&expected), "{} {groups} {narrow}", kernels.name);
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

fn pairs(points: usize) -> impl Iterator<Item = (usize, usize)> {
    (0..points).flat_map(move |row| (0..points).map(move |column| (row, column)))
}

/// What kernels collect into.
struct Collected {
    k: usize,
    best: Vec<Best>,
    bounds: [f32; TILE],
}

impl Collected {
    fn new(points: usize, k: usize) -> Self {
        let bounds = std::array::from_fn(|at| if at < points { f32::INFINITY } else { f32::NEG_INFINITY });
        Self { k, best: vec![Best::NONE; points], bounds }
    }

    fn receivers(&mut self) -> Receivers<'_> {
        Receivers { k: self.k, best: &mut self.best, bounds: &mut self.bounds }
    }

    /// The nearest `k` of every point; what stands beyond them is of no account, but the bound is the last one's.
    fn nearest(&self) -> Vec<Vec<(f32, u32)>> {
        let points = self.best.iter().zip(self.bounds).map(|(best, bound)| {
            let all = best.distances.iter().copied().zip(best.others);
            let nearest: Vec<_> = all.take(self.k).collect();
            assert_eq!(nearest[self.k - 1].0, bound);
            nearest
        });
        points.collect()
    }
}

/// Everything that was offered, sorted when asked.
struct Oracle(Vec<Vec<(f32, u32)>>);

impl Oracle {
    fn new(points: usize) -> Self {
        Self(vec![Vec::new(); points])
    }

    fn offer(&mut self, point: usize, distance: f32, other: u32) {
        if let Some(offers) = self.0.get_mut(point) {
            offers.push((distance, other));
        }
    }

    fn nearest(&self, k: usize) -> Vec<Vec<(f32, u32)>> {
        let sorted = |offers: &Vec<(f32, u32)>| {
            let mut offers = offers.clone();
            // stable: of equals the first to come stands first
            offers.sort_by(|a, b| a.0.total_cmp(&b.0));
            offers.resize(k.max(offers.len()), (f32::INFINITY, u32::MAX));
            offers.truncate(k);
            offers
        };
        self.0.iter().map(sorted).collect()
    }
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
    fn every_kernel_collects_the_nearest_in_order(
        distances in prop::collection::vec(0u8..30, TILE * TILE),
        marks in prop::collection::vec(any::<u64>(), 2 * TILE),
        k in 1..=BEST,
        points in 1..=TILE,
        itself in any::<bool>(),
    ) {
        let mut out = TileOut::default();
        for (place, distance) in out.distances.iter_mut().flatten().zip(&distances) {
            *place = f32::from(*distance);
        }
        let there = (1u64 << points) - 1;
        out.row_masks = std::array::from_fn(|row| marks[row] & there);
        out.column_masks = std::array::from_fn(|row| marks[TILE + row] & there);
        for kernels in available() {
            let mut collected = Collected::new(points, k);
            (kernels.start)(&out, points, itself, 100, collected.receivers());
            let mut expected = Oracle::new(points);
            for (row, column) in pairs(points).filter(|(row, column)| !(itself && row == column)) {
                expected.offer(column, out.distances[row][column], 100 + row as u32);
            }
            prop_assert_eq!(collected.nearest(), expected.nearest(k), "{} start", kernels.name);

            (kernels.collect_rows)(&out, 200, collected.receivers());
            for (row, column) in pairs(points).filter(|(row, column)| out.row_masks[*row] >> column & 1 == 1) {
                expected.offer(row, out.distances[row][column], 200 + column as u32);
            }
            prop_assert_eq!(collected.nearest(), expected.nearest(k), "{} rows", kernels.name);

            (kernels.collect_columns)(&out, 300, collected.receivers());
            for (row, column) in (0..TILE).flat_map(|row| (0..points).map(move |column| (row, column))) {
                if out.column_masks[row] >> column & 1 == 1 {
                    expected.offer(column, out.distances[row][column], 300 + row as u32);
                }
            }
            prop_assert_eq!(collected.nearest(), expected.nearest(k), "{} columns", kernels.name);
            prop_assert_eq!(collected.bounds[points..].iter().all(|b| *b == f32::NEG_INFINITY), true);
        }
    }

    #[test]
    fn every_kernel_makes_the_same_panel(groups in 1usize..70, seed in any::<u64>()) {
        let mut next = numbers(seed);
        let stride = (4 * groups).next_multiple_of(64).max(64);
        let rows: Vec<u8> = (0..TILE * stride).map(|_| next() as u8).collect();
        for kernels in available() {
            let mut panel = vec![0u32; groups * TILE];
            (kernels.panel)(&rows, stride, &mut panel);
            for (at, four) in panel.iter().enumerate() {
                let (group, row) = (at / TILE, at % TILE);
                let codes = &rows[row * stride + 4 * group..][..4];
                let signed: Vec<u8> = codes.iter().map(|code| code.wrapping_sub(ZERO)).collect();
                prop_assert_eq!(&four.to_ne_bytes()[..], &signed[..], "{} {}", kernels.name, at);
            }
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
