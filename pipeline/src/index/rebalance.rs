//! Which partitions are ours, from the events of the membership: a pure state machine.

use std::collections::BTreeSet;

use sluice_core::TopicPartition;

/// The partitions that are assigned to this process.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Assignment(BTreeSet<TopicPartition>);

impl Assignment {
    /// Adds partitions; returns those that were not ours before and have to be started.
    pub(super) fn assign(&mut self, partitions: Vec<TopicPartition>) -> Vec<TopicPartition> {
        partitions.into_iter().filter(|at| self.0.insert(at.clone())).collect()
    }

    /// Takes partitions away; returns those that were ours and have to be ended.
    pub(super) fn revoke(&mut self, partitions: Vec<TopicPartition>) -> Vec<TopicPartition> {
        partitions.into_iter().filter(|at| self.0.remove(at)).collect()
    }

    /// Takes everything away.
    pub(super) fn clear(&mut self) -> Vec<TopicPartition> {
        std::mem::take(&mut self.0).into_iter().collect()
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }
}

#[cfg(test)]
mod tests {
    use sluice_core::{PartitionId, TopicName};

    use super::*;

    fn at(n: u32) -> TopicPartition {
        TopicPartition { topic: TopicName::new("t").unwrap(), partition: PartitionId(n) }
    }

    /// Every order of events of up to six steps over two partitions.
    #[test]
    fn liv_6_each_partition_is_started_and_ended_in_turn_whatever_the_order_of_events() {
        const STEPS: u32 = 6;
        for sequence in 0..6_u32.pow(STEPS) {
            let (mut assignment, mut running) = (Assignment::default(), [false; 2]);
            let mut rest = sequence;
            for _ in 0..STEPS {
                let (event, some) = (rest % 6, vec![at(rest % 2), at(rest % 2)]);
                rest /= 6;
                let (started, ended) = match event {
                    0 | 1 => (assignment.assign(some), Vec::new()),
                    2 | 3 => (Vec::new(), assignment.revoke(some)),
                    4 => (assignment.assign(vec![at(0), at(1)]), Vec::new()),
                    _ => (Vec::new(), assignment.clear()),
                };
                for p in started {
                    assert!(!std::mem::replace(&mut running[p.partition.get() as usize], true));
                }
                for p in ended {
                    assert!(std::mem::replace(&mut running[p.partition.get() as usize], false));
                }
            }
            assert_eq!(assignment.len(), running.iter().filter(|r| **r).count());
        }
    }
}
