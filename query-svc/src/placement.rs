//! Which partitioners explain where a segment's keys stand: what makes key conflicts impossible without a look-up.
//!
//! When one rule places every key of every segment of an index, no key can be live in two partitions, and queries
//! need not ask the other partitions about each hit. The two rules are those of the common producers: murmur2
//! (Java clients, Connect, our own) and CRC32 (librdkafka).

use sluice_connectors::partitioner;
use sluice_core::PartitionId;
use sluice_segment::Segment;

/// A set of partitioners.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Placement {
    murmur2: bool,
    crc32: bool,
}

impl Placement {
    /// Explained by any rule: no key at all.
    pub(crate) fn any() -> Self {
        Self { murmur2: true, crc32: true }
    }

    /// The rules that place every key of `segment`, dead rows included, in `partition` of `partitions`.
    pub(crate) fn of(segment: &Segment, partition: PartitionId, partitions: u32) -> Self {
        let mut found = Self::any();
        for row in 0..segment.len() {
            found = found.and(Self::of_key(segment.row(row).key.as_bytes(), partition, partitions));
            if !found.is_decided() {
                break;
            }
        }
        found
    }

    fn of_key(key: &[u8], partition: PartitionId, partitions: u32) -> Self {
        Self {
            murmur2: partitioner::partition_of(key, partitions) == partition,
            crc32: crc32fast::hash(key) % partitions.max(1) == partition.0,
        }
    }

    /// The rules in both sets.
    pub(crate) fn and(self, other: Self) -> Self {
        Self { murmur2: self.murmur2 && other.murmur2, crc32: self.crc32 && other.crc32 }
    }

    /// Whether one rule explains everything.
    pub(crate) fn is_decided(self) -> bool {
        self.murmur2 || self.crc32
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn key_1_one_rule_for_all_keys_is_recognised_and_two_rules_are_not() {
        let keys: Vec<String> = (0..100).map(|i| format!("key-{i}")).collect();
        let by = |rule: &dyn Fn(&[u8]) -> u32| {
            keys.iter()
                .map(|k| Placement::of_key(k.as_bytes(), PartitionId(rule(k.as_bytes())), 4))
                .fold(Placement::any(), Placement::and)
        };
        let murmur2 = by(&|k| partitioner::partition_of(k, 4).0);
        let crc32 = by(&|k| crc32fast::hash(k) % 4);
        assert_eq!(murmur2, Placement { murmur2: true, crc32: false });
        assert_eq!(crc32, Placement { murmur2: false, crc32: true });
        assert!(!murmur2.and(crc32).is_decided());
    }
}
