//! Sizes in files and answers: `"64MiB"`, exact, so that what is printed is read back as the same number.

use bytesize::ByteSize;
use serde::{Deserialize, Deserializer, Serializer};

/// Units that a size is written in, the largest that divides it first.
const UNITS: &[(u64, &str)] = &[
    (1 << 40, "TiB"),
    (1 << 30, "GiB"),
    (1 << 20, "MiB"),
    (1 << 10, "KiB"),
    (1_000_000_000_000, "TB"),
    (1_000_000_000, "GB"),
    (1_000_000, "MB"),
    (1000, "kB"),
];

/// `size` as text, exact.
pub fn exact(size: ByteSize) -> String {
    let bytes = size.as_u64();
    match UNITS.iter().find(|(unit, _)| bytes > 0 && bytes.is_multiple_of(*unit)) {
        Some((unit, name)) => format!("{}{name}", bytes / unit),
        None => format!("{bytes}B"),
    }
}

/// For `#[serde(with = "sluice_core::size")]`.
///
/// # Errors
/// The serializer's.
pub fn serialize<S: Serializer>(size: &ByteSize, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&exact(*size))
}

/// Reads `"64MiB"` or a number of bytes.
///
/// # Errors
/// When it is neither.
pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<ByteSize, D::Error> {
    ByteSize::deserialize(deserializer)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn sizes_are_written_in_the_unit_that_a_person_would_take() {
        let shown = [64 << 20, 1_000_000, 1 << 10, 2500, 1501, 0].map(|b| exact(ByteSize::b(b)));
        assert_eq!(shown, ["64MiB", "1MB", "1KiB", "2500B", "1501B", "0B"]);
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(bytes in 0..u64::MAX >> 12) {
            prop_assert_eq!(exact(ByteSize::b(bytes)).parse::<ByteSize>().unwrap().as_u64(), bytes);
        }
    }
}
