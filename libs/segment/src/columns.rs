//! Writes a declared field as a column.

use std::collections::BTreeMap;
use std::sync::atomic::AtomicBool;

use sluice_core::{FieldType, Schema};

use crate::BuildError;
use crate::build::check_cancelled;
use crate::format::{Kind, SegmentWriter};
use crate::row::{Rows, ValueRef};

/// The words of a keyword column and their numbers, which follow the order of the words; `None` for other types.
pub(crate) type Dictionary<'a> = Option<BTreeMap<&'a str, u32>>;

/// Collects the words of every keyword field.
pub(crate) fn dictionaries<'a, R: Rows>(
    rows: &'a R,
    schema: &Schema,
    cancelled: &AtomicBool,
) -> Result<Vec<Dictionary<'a>>, BuildError> {
    let mut found = Vec::with_capacity(schema.fields.len());
    for (field, kind) in schema.fields.values().enumerate() {
        check_cancelled(cancelled)?;
        found.push((*kind == FieldType::Keyword).then(|| dictionary(rows, field)));
    }
    Ok(found)
}

fn dictionary<R: Rows>(rows: &R, field: usize) -> BTreeMap<&str, u32> {
    let mut words = BTreeMap::new();
    for at in 0..rows.len() {
        rows.values(at, field, &mut |value| {
            if let ValueRef::Keyword(word) = value {
                words.insert(word, 0);
            }
        });
    }
    for (number, place) in words.values_mut().zip(0..) {
        *number = place;
    }
    words
}

/// Writes one section of one column; kinds that the column does not have are passed over.
pub(crate) fn write_column(
    file: &mut SegmentWriter,
    kind: Kind,
    rows: &impl Rows,
    field: usize,
    dictionary: &Dictionary<'_>,
) -> Result<(), BuildError> {
    if matches!(kind, Kind::DictionaryStarts | Kind::DictionaryBytes) && dictionary.is_none() {
        return Ok(());
    }
    file.begin(kind, field as u32)?;
    match (kind, dictionary) {
        (Kind::ColumnStarts, _) => starts(file, rows, field),
        (Kind::DictionaryStarts, Some(words)) => {
            let mut end = 0u64;
            file.value(end)?;
            for word in words.keys() {
                end += word.len() as u64;
                file.value(end)?;
            }
            Ok(())
        }
        (Kind::DictionaryBytes, Some(words)) => {
            Ok(words.keys().try_for_each(|word| file.values(word.as_bytes()))?)
        }
        _ => values(file, rows, field, dictionary),
    }
}

fn starts(file: &mut SegmentWriter, rows: &impl Rows, field: usize) -> Result<(), BuildError> {
    let mut end = 0u64;
    file.value(0u32)?;
    for at in 0..rows.len() {
        rows.values(at, field, &mut |_| end += 1);
        let Ok(end) = u32::try_from(end) else {
            return Err(BuildError::TooLarge { what: "values of one field", got: end, max: u32::MAX.into() });
        };
        file.value(end)?;
    }
    Ok(())
}

fn values(
    file: &mut SegmentWriter,
    rows: &impl Rows,
    field: usize,
    dictionary: &Dictionary<'_>,
) -> Result<(), BuildError> {
    let mut result = Ok(());
    for at in 0..rows.len() {
        rows.values(at, field, &mut |value| {
            if result.is_ok() {
                result = match value {
                    ValueRef::Keyword(word) => {
                        let number = dictionary.as_ref().and_then(|words| words.get(word));
                        file.value(number.copied().unwrap_or_default())
                    }
                    ValueRef::Integer(n) | ValueRef::Timestamp(n) => file.value(n),
                    ValueRef::Float(n) => file.value(n),
                    ValueRef::Boolean(b) => file.value(u8::from(b)),
                };
            }
        });
    }
    Ok(result?)
}
