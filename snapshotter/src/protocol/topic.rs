//! Which index may read a topic (TOPIC-1): decided by the topic's newest binding and the specs of the index it names.

use sluice_core::IndexName;

/// The beginning of a topic's use: the version of an index's spec that reads it first.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TopicUse {
    pub index: IndexName,
    pub version: u64,
}

/// The newest binding of a topic, and what the specs of its index show after it was read.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct BindingFacts {
    pub bound: TopicUse,
    /// The newest version of the bound index's spec; zero when it has none.
    pub newest: u64,
    /// Whether that version is not retired and reads this topic.
    pub reads: bool,
}

/// What a creator does about the topic that it wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum TopicDecision {
    /// The topic is free: create the next binding.
    Bind,
    /// The newest binding is for this very use: store the spec.
    Store,
    /// The topic feeds the bound index.
    Taken,
    /// The bound use has not begun: its creator is at work, or crashed.
    Unfinished,
}

/// Decides for the creator of `mine`; `newest` is none when the topic was never bound.
pub fn topic(mine: &TopicUse, newest: Option<&BindingFacts>) -> TopicDecision {
    match newest {
        None => TopicDecision::Bind,
        Some(facts) if facts.bound == *mine => TopicDecision::Store,
        Some(facts) if facts.newest < facts.bound.version => TopicDecision::Unfinished,
        Some(facts) if facts.reads => TopicDecision::Taken,
        Some(_) => TopicDecision::Bind,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn usage(index: &str, version: u64) -> TopicUse {
        TopicUse { index: IndexName::new(index).unwrap(), version }
    }

    fn decide(bound: (&str, u64), newest: u64, reads: bool) -> TopicDecision {
        let facts = BindingFacts { bound: usage(bound.0, bound.1), newest, reads };
        topic(&usage("mine", 3), Some(&facts))
    }

    #[test]
    fn topic_1_each_row_of_the_table() {
        assert_eq!(topic(&usage("mine", 3), None), TopicDecision::Bind);
        assert_eq!(decide(("mine", 3), 2, false), TopicDecision::Store);
        assert_eq!(decide(("mine", 1), 2, false), TopicDecision::Bind, "an earlier use of my own has ended");
        assert_eq!(decide(("mine", 1), 2, true), TopicDecision::Taken, "somebody else created it meanwhile");
        assert_eq!(decide(("other", 5), 4, false), TopicDecision::Unfinished);
        assert_eq!(decide(("other", 5), 5, true), TopicDecision::Taken);
        assert_eq!(decide(("other", 5), 9, true), TopicDecision::Taken, "changed in place since");
        assert_eq!(decide(("other", 5), 6, false), TopicDecision::Bind);
    }
}
