//! Writes the index of a declared field: for each distinct value of its column the rows that have it.

use sluice_core::FieldType;

use crate::BuildError;
use crate::columns::Dictionary;
use crate::format::SegmentWriter;
use crate::row::{Rows, ValueRef};

/// A number in the order of floats: larger floats have larger ranks, both zeros have one.
#[inline]
pub(crate) fn rank(float: f64) -> i64 {
    let bits = (float + 0.0).to_bits().cast_signed();
    // the other bits of a negative float grow as it falls
    bits ^ (((bits >> 63).cast_unsigned() >> 1).cast_signed())
}

/// The float of a rank.
fn of_rank(rank: i64) -> f64 {
    f64::from_bits((rank ^ (((rank >> 63).cast_unsigned() >> 1).cast_signed())).cast_unsigned())
}

/// Writes the content of the index of `field`; see `format`.
///
/// Holds 16 bytes for each value of the field meanwhile.
pub(crate) fn write_index(
    file: &mut SegmentWriter,
    rows: &impl Rows,
    (field, kind): (usize, FieldType),
    dictionary: &Dictionary<'_>,
) -> Result<(), BuildError> {
    let entries = entries(rows, field, dictionary);
    let numbered = match kind {
        FieldType::Keyword => Some(dictionary.as_ref().map_or(0, |words| words.len())),
        FieldType::Boolean => Some(2),
        FieldType::Integer | FieldType::Float | FieldType::Timestamp => None,
    };
    match numbered {
        Some(values) => {
            file.value(values as u64)?;
            starts(file, &entries, 0..values as i64)?;
        }
        None => {
            let distinct =
                || entries.chunk_by(|a, b| a.0 == b.0).filter_map(|same| same.first()).map(|e| e.0);
            file.value(distinct().count() as u64)?;
            for value in distinct() {
                if kind == FieldType::Float { file.value(of_rank(value))? } else { file.value(value)? }
            }
            starts(file, &entries, distinct())?;
        }
    }
    Ok(entries.iter().try_for_each(|(_, row)| file.value(*row))?)
}

/// The values of a field as numbers in their order, each with its row: sorted, none twice.
fn entries<'a, R: Rows>(rows: &'a R, field: usize, dictionary: &Dictionary<'_>) -> Vec<(i64, u32)> {
    let number = |value: ValueRef<'a>| match value {
        ValueRef::Keyword(word) => {
            dictionary.as_ref().and_then(|words| words.get(word)).map_or(0, |number| i64::from(*number))
        }
        ValueRef::Integer(n) | ValueRef::Timestamp(n) => n,
        ValueRef::Float(n) => rank(n),
        ValueRef::Boolean(b) => i64::from(b),
    };
    let mut count = 0;
    (0..rows.len()).for_each(|row| rows.values(row, field, &mut |_| count += 1));
    let mut entries = Vec::with_capacity(count);
    for row in 0..rows.len() {
        rows.values(row, field, &mut |value| entries.push((number(value), row as u32)));
    }
    entries.sort_unstable();
    entries.dedup();
    entries
}

/// Where each of `values` begins among `entries`, and where the last ends.
fn starts(
    file: &mut SegmentWriter,
    entries: &[(i64, u32)],
    values: impl Iterator<Item = i64>,
) -> Result<(), BuildError> {
    let mut at = 0;
    for value in values {
        file.value(at as u32)?;
        at += entries[at..].iter().take_while(|entry| entry.0 == value).count();
    }
    Ok(file.value(at as u32)?)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn ranks_order_as_the_floats_and_name_them(a in any::<f64>(), b in any::<f64>()) {
            prop_assume!(a.is_finite() && b.is_finite());
            prop_assert_eq!(rank(a).cmp(&rank(b)), (a + 0.0).total_cmp(&(b + 0.0)));
            prop_assert_eq!(of_rank(rank(a)), a);
        }
    }

    #[test]
    fn both_zeros_have_one_rank() {
        assert_eq!(rank(-0.0), rank(0.0));
        assert!(
            rank(-f64::MIN_POSITIVE) < rank(0.0) && rank(f64::MAX) < i64::MAX && rank(f64::MIN) > i64::MIN
        );
    }
}
