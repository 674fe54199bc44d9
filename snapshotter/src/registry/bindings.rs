//! The bindings of topics to indexes, so that one topic feeds one index: decided by [`protocol::topic()`], carried out here.

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use sluice_core::{Generation, IndexSpec, Timestamp, TopicName};

use super::{MAX_SPEC_BYTES, Registry, StoredSpec, damaged};
use crate::create::{TRIES, drive};
use crate::error::RegistryError;
use crate::owner::stamp;
use crate::paths::Object;
use crate::protocol::{self, BindingFacts, Chunk, Commit, RunEnd, TopicDecision, TopicUse, Verdict};
use crate::store::Carrier;

/// Most bytes of a binding: a spec and a little more.
pub(crate) const MAX_BINDING_BYTES: u64 = MAX_SPEC_BYTES + 1024;
/// Looks in a row at a creation that is not finished before it is fenced.
const PATIENCE: u32 = 6;

/// One binding of a topic, as it is stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Binding {
    pub(crate) number: u64,
    put_id: String,
    created_at: Timestamp,
    /// The version of the index's spec that begins to read the topic.
    pub(crate) version: u64,
    generation: Generation,
    pub(crate) spec: IndexSpec,
}

impl Binding {
    fn bound(&self) -> TopicUse {
        TopicUse { index: self.spec.name.clone(), version: self.version }
    }
}

/// How often in a row the same creation was seen unfinished.
#[derive(Default)]
pub(super) struct Unfinished {
    number: u64,
    looks: u32,
}

impl Unfinished {
    fn is_stuck(&mut self, number: u64) -> bool {
        self.looks = if self.number == number { self.looks + 1 } else { 1 };
        self.number = number;
        self.looks >= PATIENCE
    }
}

impl Registry {
    /// Makes sure that the topic of `pending` is bound to it; `false` when something moved, so that the caller looks
    /// again.
    pub(super) async fn bind(
        &self,
        pending: &StoredSpec,
        unfinished: &mut Unfinished,
    ) -> Result<bool, RegistryError> {
        let topic = pending.spec.topic();
        let newest = self.newest_binding(&topic).await?;
        let facts = self.facts(&topic, newest.as_ref()).await?;
        let mine = TopicUse { index: pending.spec.name.clone(), version: pending.version };
        match (protocol::topic(&mine, facts.as_ref()), newest) {
            (TopicDecision::Store, _) => Ok(true),
            (TopicDecision::Bind, newest) => {
                self.nobody_reads(&pending.spec).await?;
                self.create_binding(pending, newest.map_or(1, |b| b.number + 1)).await
            }
            // it is there now, by another's hand: the next look finds it
            (TopicDecision::Taken, Some(binding)) if binding.spec.name == mine.index => Ok(false),
            (TopicDecision::Taken, Some(binding)) => {
                Err(RegistryError::TopicTaken { index: mine.index, topic, other: binding.spec.name })
            }
            (TopicDecision::Unfinished, Some(binding)) => {
                if unfinished.is_stuck(binding.number) {
                    self.fence(binding).await?;
                }
                Ok(false)
            }
            (TopicDecision::Taken | TopicDecision::Unfinished, None) => Ok(false),
        }
    }

    /// Writes the binding of an index that was created without one. The index is served in any case, so a failure
    /// is told and no more.
    pub(super) async fn adopt(&self, stored: &StoredSpec) {
        let topic = stored.spec.topic();
        let adopted = async {
            let newest = self.newest_binding(&topic).await?;
            let facts = self.facts(&topic, newest.as_ref()).await?;
            let mine = TopicUse { index: stored.spec.name.clone(), version: stored.version };
            match protocol::topic(&mine, facts.as_ref()) {
                TopicDecision::Bind => {
                    self.create_binding(stored, newest.map_or(1, |b| b.number + 1)).await.map(drop)
                }
                TopicDecision::Store | TopicDecision::Taken | TopicDecision::Unfinished => Ok(()),
            }
        };
        let adopted: Result<(), RegistryError> = adopted.await;
        if let Err(error) = adopted {
            tracing::warn!(index = %stored.spec.name, %topic, %error, "the topic of an index was not bound to it");
        }
    }

    /// The newest binding of a topic.
    async fn newest_binding(&self, topic: &TopicName) -> Result<Option<Binding>, RegistryError> {
        let mut run = RunEnd::from(0);
        let mut body = None;
        while let Some(number) = run.next() {
            let object = Object::Binding(topic.clone(), number);
            let found = self.store.get(&object, MAX_BINDING_BYTES, Carrier::Small).await?;
            run.observe(found.is_some());
            body = found.or(body);
        }
        body.map(|body| read(topic, run.last(), &body)).transpose()
    }

    async fn facts(
        &self,
        topic: &TopicName,
        binding: Option<&Binding>,
    ) -> Result<Option<BindingFacts>, RegistryError> {
        let Some(binding) = binding else { return Ok(None) };
        let newest = self.newest(&binding.spec.name).await?;
        let reads = newest.as_ref().is_some_and(|stored| !stored.retired && stored.spec.topic() == *topic);
        let newest = newest.map_or(0, |stored| stored.version);
        Ok(Some(BindingFacts { bound: binding.bound(), newest, reads }))
    }

    /// Looks for an index that reads the topic without a binding: programs before this rule wrote none.
    async fn nobody_reads(&self, spec: &IndexSpec) -> Result<(), RegistryError> {
        let topic = spec.topic();
        let reads = |other: &StoredSpec| other.spec.name != spec.name && other.spec.topic() == topic;
        match self.list().await?.into_iter().find(reads) {
            None => Ok(()),
            Some(StoredSpec { spec: IndexSpec { name: other, .. }, .. }) => {
                Err(RegistryError::TopicTaken { index: spec.name.clone(), topic, other })
            }
        }
    }

    /// Creates one binding; `false` when somebody else created it.
    async fn create_binding(&self, stored: &StoredSpec, number: u64) -> Result<bool, RegistryError> {
        let stamp = stamp(self.clock.as_ref());
        let binding = Binding {
            number,
            put_id: stamp.put_id.to_string(),
            created_at: stamp.created_at,
            version: stored.version,
            generation: stored.generation,
            spec: stored.spec.clone(),
        };
        let object = Object::Binding(stored.spec.topic(), number);
        let body = serde_json::to_vec_pretty(&binding).map_err(|e| damaged(&object, &e))?;
        // bindings are never collected, so there is no boundary to look at
        let boundary = |_: Chunk| object.clone();
        match drive(&self.store, &object, &Bytes::from(body), &mut Commit::of_kept(TRIES), boundary).await? {
            Verdict::Won => Ok(true),
            Verdict::Lost | Verdict::Collected => Ok(false),
            Verdict::Denied | Verdict::Unresolved => Err(RegistryError::Unresolved(stored.spec.name.clone())),
        }
    }

    /// Takes the version that an unfinished creation named, so that its creator loses. Losing this is as good: then
    /// the creation was finished.
    async fn fence(&self, binding: Binding) -> Result<(), RegistryError> {
        let Binding { version, generation, spec, .. } = binding;
        let (index, topic) = (spec.name.clone(), spec.topic());
        if self.put(self.stamped(spec, version, generation, true)).await?.is_some() {
            tracing::warn!(%index, %topic, version, "a creation that was never finished is given up");
        }
        Ok(())
    }
}

/// Reads a binding and checks that it belongs under its key.
pub(crate) fn read(topic: &TopicName, number: u64, body: &[u8]) -> Result<Binding, RegistryError> {
    let object = Object::Binding(topic.clone(), number);
    let binding: Binding = serde_json::from_slice(body).map_err(|e| damaged(&object, &e))?;
    binding.spec.validate().map_err(|e| damaged(&object, &e))?;
    let belongs = binding.number == number && binding.spec.topic() == *topic;
    if !belongs || binding.version == 0 || binding.generation.0 == 0 {
        return Err(damaged(&object, &"it was written for another key"));
    }
    Ok(binding)
}
