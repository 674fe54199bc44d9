//! How many rows a filter passes, as far as column indexes tell, and what a search does with that: pure functions.

/// Between which numbers a count lies, both inclusive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct CountBounds {
    pub(crate) least: usize,
    pub(crate) most: usize,
}

impl CountBounds {
    /// Rows with one of some values, of which `largest` rows have one and the same. The values have `entries` rows
    /// in all, each counted as often as it has one of them; the column has `all` such entries of `present` rows.
    pub(super) fn of_values(entries: usize, largest: usize, all: usize, present: usize) -> Self {
        // a row with several values is counted several times, but never more often than it has values
        let repeated = all.saturating_sub(present);
        let least = entries.saturating_sub(repeated).max(largest).max(usize::from(entries > 0));
        Self { least, most: entries.min(present).max(least) }
    }

    /// Rows of which all of `parts` hold.
    pub(super) fn all(parts: impl Iterator<Item = Self>, rows: usize) -> Self {
        parts.fold(Self { least: rows, most: rows }, |a, b| Self {
            least: (a.least + b.least).saturating_sub(rows),
            most: a.most.min(b.most),
        })
    }

    /// Rows of which any of `parts` holds.
    pub(super) fn any(parts: impl Iterator<Item = Self>, rows: usize) -> Self {
        parts.fold(Self { least: 0, most: 0 }, |a, b| Self {
            least: a.least.max(b.least),
            most: (a.most + b.most).min(rows),
        })
    }

    /// The other rows.
    pub(super) fn not(self, rows: usize) -> Self {
        Self { least: rows - self.most, most: rows - self.least }
    }
}

/// What is known of a search under a filter before it begins.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Facts {
    /// Rows of the segment.
    pub(crate) rows: usize,
    /// Rows that pass, or about so many.
    pub(crate) matches: usize,
    /// Rows to look at in order to know those that pass.
    pub(crate) candidates: usize,
    /// Matches that a walk keeps.
    pub(crate) ef: usize,
}

/// How a search under a filter goes about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Plan {
    /// Finds all rows that pass, and compares each with the query.
    Scan,
    /// Walks the graph, and looks at a row only when it is met.
    Walk,
}

/// What a walk costs, in rows that a scan compares in the same time: its way to where the matches are ..
const WAY: u128 = 2000;
/// .. and, where all rows match, each row that it keeps. Rows of a walk stand in no order that helps the memory.
const KEPT: u128 = 40;
/// Candidates that are looked at in the time in which a scan compares one row.
const LOOKS: u128 = 8;

/// The cheaper of the two.
pub(crate) fn choose(facts: Facts) -> Plan {
    let Facts { rows, matches, candidates, ef } = facts;
    let (rows, matches, candidates, ef) =
        (rows as u128, matches.max(1) as u128, candidates as u128, ef as u128);
    let walk = WAY + KEPT * ef * rows / matches;
    let scan = matches + candidates / LOOKS;
    if scan <= walk { Plan::Scan } else { Plan::Walk }
}

/// Distances that a walk may compute: several times what it takes where matches lie anywhere, but not so many that
/// the scan that follows when it is given up would have cost much less. A distance costs a walk about three times
/// what it costs a scan.
pub(crate) fn patience(facts: Facts) -> usize {
    let Facts { rows, matches, ef, .. } = facts;
    let usual = (64 * ef as u128 * rows as u128 / matches.max(1) as u128) as usize;
    usual.min(matches / 3).max(64 * ef)
}
